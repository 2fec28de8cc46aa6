"""A lineage as a picture: an SVG in one HTML file that opens from the disk. Photos on the left, what was drawn and released on the right.

Pictures are shown as they were trained on or drawn; photos are not, since they show people whom the pictures hide.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from lora_pipeline.lineage.graph import Entry, Graph
from lora_pipeline.lineage.tree import heading, label

_COLUMNS = (
    ("photo", "regularisation picture"),
    ("crop",),
    ("picture",),
    ("caption",),
    ("example",),
    ("training set",),
    ("run",),
    ("checkpoint",),
    ("sample", "grid picture"),
    ("score",),
    ("release",),
)
_COLOURS = {
    "photo": "#f4d6a0",
    "regularisation picture": "#e8e0d0",
    "crop": "#f6e6bd",
    "picture": "#d9ecc4",
    "caption": "#cfe6e6",
    "example": "#cfdcf2",
    "training set": "#b9c8ee",
    "run": "#cdb9ee",
    "checkpoint": "#e6b9e0",
    "sample": "#f2d3d3",
    "grid picture": "#f2d3d3",
    "score": "#f2e0a8",
    "release": "#f0a8a0",
}
_SHOWN = {"picture", "sample", "grid picture"}
_WIDTH_PX, _HEIGHT_PX, _THUMBNAIL_PX = 250, 26, 48
_GAP_PX, _ALLEY_PX, _TOP_PX = 8, 70, 40
_MAX_THUMBNAILS = 400  # more make a page that is slow to open
_LETTERS = 31  # of a label that a box has room for; 24 beside a thumbnail


@dataclass
class _Box:
    entry: Entry
    x_px: float
    height_px: float
    y_px: float = 0.0
    thumbnail: str = ""

    @property
    def middle_px(self) -> float:
        return self.y_px + self.height_px / 2


def page(graph: Graph) -> str:
    """The page, as HTML."""
    boxes, columns = _laid_out(graph)
    height_px = max((box.y_px + box.height_px for box in boxes.values()), default=0.0) + _GAP_PX
    width_px = len(columns) * (_WIDTH_PX + _ALLEY_PX)
    lines = "".join(
        _line(boxes[parent], boxes[child]) for child, parents in graph.parents.items() for parent in parents
    )
    heads = "".join(
        f'<text class="head" x="{column[0].x_px:g}" y="24">{escape(_head(column))}</text>' for column in columns
    )
    marks = {uid: ' class="asked"' if number else ' id="asked" class="asked"' for number, uid in enumerate(graph.asked)}
    drawn = "".join(_box(box, marks.get(uid, "")) for uid, box in boxes.items())
    asked = [graph.entries[uid] for uid in graph.asked]
    title = ", ".join(dict.fromkeys(f"{label(one)} of {one.subject}" for one in asked))
    told = "<br>".join(escape(line) for one in asked for line in heading(one))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Lineage: {escape(title)}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 24px; color: #222; background: #fff }}
text {{ font: 12px system-ui, sans-serif; fill: #222 }}
text.head {{ font-weight: 600; fill: #555 }}
rect {{ stroke: #999; stroke-width: 1 }}
g.asked rect {{ stroke: #c00; stroke-width: 3 }}
path {{ fill: none; stroke: #bbb; stroke-width: 1.2 }}
</style>
<h1>What it was made of, and what was made of it</h1>
<p>{told}</p>
<p>Framed in red is <a href="#asked">what was asked about</a>. Rest the pointer on a box to read it whole.</p>
<svg xmlns="http://www.w3.org/2000/svg" width="{width_px:g}" height="{height_px:g}" viewBox="0 0 {width_px:g} {height_px:g}">
{heads}
{lines}
{drawn}
</svg>
</html>
"""


def _laid_out(graph: Graph) -> tuple[dict[str, _Box], list[list[_Box]]]:
    """The fullest column stands first; from there to both sides, each box stands beside what it hangs on, as near as there is room."""
    thumbnails = _MAX_THUMBNAILS
    boxes: dict[str, _Box] = {}
    order: dict[str, int] = {}
    columns: list[list[_Box]] = []
    for kinds in _COLUMNS:
        entries = [one for kind in kinds for one in graph.of_kind(kind)]
        if not entries:
            continue
        # What was made of one thing stands together.
        entries.sort(
            key=lambda one: min((order[of] for of in graph.parents.get(one.uid, ()) if of in order), default=0)
        )
        order |= {one.uid: number for number, one in enumerate(entries)}
        column: list[_Box] = []
        for one in entries:
            thumbnail = _thumbnail(one) if one.kind in _SHOWN and thumbnails else ""
            thumbnails -= bool(thumbnail)
            height_px = _THUMBNAIL_PX + 4 if thumbnail else _HEIGHT_PX
            column.append(_Box(one, 4 + len(columns) * (_WIDTH_PX + _ALLEY_PX), height_px, thumbnail=thumbnail))
        boxes |= {box.entry.uid: box for box in column}
        columns.append(column)
    if not columns:
        return boxes, columns
    fullest = max(range(len(columns)), key=lambda number: _full_px(columns[number]))
    bottom_px = _TOP_PX + _full_px(columns[fullest])
    _place(columns[fullest], {}, bottom_px)
    placed = {box.entry.uid for box in columns[fullest]}
    for number in [*range(fullest - 1, -1, -1), *range(fullest + 1, len(columns))]:
        wanted: dict[str, float] = {}
        for box in columns[number]:
            uid = box.entry.uid
            beside = [
                boxes[other].middle_px
                for other in (*graph.parents.get(uid, ()), *graph.children.get(uid, ()))
                if other in placed
            ]
            wanted[uid] = sum(beside) / len(beside) - box.height_px / 2 if beside else bottom_px
        columns[number].sort(key=lambda box: wanted[box.entry.uid])
        _place(columns[number], wanted, bottom_px)
        placed |= set(wanted)
    return boxes, columns


def _full_px(column: Sequence[_Box]) -> float:
    return sum(box.height_px + _GAP_PX for box in column)


def _place(column: Sequence[_Box], wanted: Mapping[str, float], bottom_px: float) -> None:
    """Put boxes where they are wanted, in their order, none over another and none below the bottom if that can be."""
    at_px = float(_TOP_PX)
    for box in column:
        box.y_px = max(at_px, wanted.get(box.entry.uid, at_px))
        at_px = box.y_px + box.height_px + _GAP_PX
    for box in reversed(column):
        box.y_px = max(float(_TOP_PX), min(box.y_px, bottom_px - box.height_px - _GAP_PX))
        bottom_px = box.y_px


def _head(column: Iterable[_Box]) -> str:
    kinds = [box.entry.kind for box in column]
    return ", ".join(
        f"{kinds.count(kind)} {kind}{'' if kinds.count(kind) == 1 else 's'}" for kind in dict.fromkeys(kinds)
    )


def _line(parent: _Box, child: _Box) -> str:
    x1, y1, x2, y2 = parent.x_px + _WIDTH_PX, parent.middle_px, child.x_px, child.middle_px
    bend = _ALLEY_PX / 2
    return f'<path d="M{x1:g} {y1:.1f} C{x1 + bend:g} {y1:.1f} {x2 - bend:g} {y2:.1f} {x2:g} {y2:.1f}"/>'


def _box(box: _Box, asked: str) -> str:
    one = box.entry
    words = (
        str(one.facts["text"])
        if one.kind == "caption" and "text" in one.facts
        else label(one).removeprefix(f"{one.kind} ")
    )
    room = _LETTERS - (7 if box.thumbnail else 0)
    shown = words if len(words) <= room else f"{words[: room - 1]}…"
    indent_px = _THUMBNAIL_PX + 8 if box.thumbnail else 8
    picture = (
        f'<image x="{box.x_px + 2:g}" y="{box.y_px + 2:.1f}" width="{_THUMBNAIL_PX}" height="{_THUMBNAIL_PX}" href="{box.thumbnail}"/>'
        if box.thumbnail
        else ""
    )
    return (
        f"<g{asked}><title>{escape(chr(10).join(heading(one)))}</title>"
        f'<rect x="{box.x_px:g}" y="{box.y_px:.1f}" width="{_WIDTH_PX}" height="{box.height_px:g}" rx="4" fill="{_COLOURS[one.kind]}"/>{picture}'
        f'<text x="{box.x_px + indent_px:g}" y="{box.middle_px + 4:.1f}">{escape(shown)}</text></g>'
    )


def _thumbnail(one: Entry) -> str:
    """A data URI; empty if the file is gone or is no picture any more."""
    if one.path is None or not one.path.is_file():
        return ""
    from PIL import Image

    try:
        with Image.open(one.path) as opened:
            small = opened.convert("RGB")
            small.thumbnail((2 * _THUMBNAIL_PX, 2 * _THUMBNAIL_PX))
    except OSError:
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
