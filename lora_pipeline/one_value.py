"""One value in a YAML file that a person wrote: set or taken out of the text, so that comments, order and all else stay to the letter."""

from collections.abc import Sequence

import yaml
from yaml.nodes import MappingNode, Node


def with_value(text: str, path: Sequence[str], value: int | str) -> str:
    """The text with a value under a path of keys, which is written in front of its neighbours if it is not there yet.

    Args:
        text: YAML, a mapping.
        path: keys from the outermost on, at least one.
        value: whose `str` is itself in YAML: a number or a plain word.

    Raises:
        ValueError: a key of the path but the last holds no mapping.
    """
    node = _mapping(yaml.compose(text))
    for depth, name in enumerate(path):
        found = next((held for key, held in node.value if key.value == name), None)
        if found is None:
            *outer, last = path[depth:]
            entry = "".join(f"{key}: {{" for key in outer) + f"{last}: {value}" + "}" * len(outer)
            return _put_first(text, node, entry)
        if depth < len(path) - 1:
            node = _mapping(found)
        else:
            return text[: found.start_mark.index] + str(value) + text[found.end_mark.index :]
    raise ValueError("a path has at least one key")


def without_value(text: str, path: Sequence[str]) -> str:
    """The text without what stands under a path of keys; as it is, if nothing stands there. Raises ValueError as `with_value`."""
    node = _mapping(yaml.compose(text))
    for depth, name in enumerate(path):
        at = next((at for at, (key, _) in enumerate(node.value) if key.value == name), None)
        if at is None:
            return text
        key, held = node.value[at]
        if depth < len(path) - 1:
            node = _mapping(held)
            continue
        start, end = key.start_mark.index, held.end_mark.index
        if at + 1 < len(node.value):
            gap = text[end : (following := node.value[at + 1][0].start_mark.index)]
            end = end if gap.strip(" \n\r,") else following  # a comment stays
        empty = "{}" if len(node.value) == 1 and not node.flow_style else ""  # a key without a value is null
        return text[:start] + empty + text[end:]
    return text


def _put_first(text: str, node: MappingNode, entry: str) -> str:
    if not node.value:
        return text[: node.start_mark.index] + "{" + entry + "}" + text[node.end_mark.index :]
    first = node.value[0][0].start_mark
    between = ", " if node.flow_style else "\n" + " " * first.column
    return text[: first.index] + entry + between + text[first.index :]


def _mapping(node: Node | None) -> MappingNode:
    if not isinstance(node, MappingNode):
        raise ValueError("there is no mapping where one is wanted")
    return node
