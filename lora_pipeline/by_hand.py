"""The plain files beside `subject.yaml` that hold a line a thing: `photos.yaml`, `people.yaml`."""

from pathlib import Path
from typing import cast

import yaml

from lora_pipeline.errors import SubjectError


def lines_of(file: Path, wanted: str) -> dict[object, object]:
    """What a person wrote, as YAML read it; nothing, if there is no file, or nothing in it.

    Args:
        file: of a YAML mapping.
        wanted: what a line of it is, for the message: "a line a photo, such as `IMG_2055.jpg: drop`".

    Raises:
        SubjectError: it is not YAML, or holds no lines.
    """
    try:
        tree: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SubjectError(f"{file} is not YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SubjectError(f"{file} is to hold {wanted}")
    return cast(dict[object, object], tree)
