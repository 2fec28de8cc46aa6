"""How the subject holds the head, and its expression: measured where it is asked for, remembered a face.

Only the subject's own faces are looked at; nobody asked for a stranger's mood.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lora_pipeline.manifest import Item, Made, refresh
from lora_pipeline.models.dlib_faces import Landmarks68
from lora_pipeline.models.expression import Expressions
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress
from lora_pipeline.records import Box, Face, Quality, Row
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.angle import pose_deg
from lora_pipeline.stages.crop.whose import Faces

LOOKS_VERSION = "1"
POSES, EXPRESSIONS = "poses", "expressions"


@dataclass(frozen=True)
class _Shown:
    """A face in its photo, and the model that is to look at it."""

    photo: Path
    box: Box
    model: str = ""
    revision: str = ""


def with_looks(
    faces: Faces, photos: Mapping[str, Quality], folder: Path, settings: CropSettings, progress: Progress
) -> Faces:
    """The faces, the subject's with `pitch_deg` and `roll_deg` (if `head_pose`) and `expression` (if there is an `expression_model`).

    A face whose photo cannot be read just now goes without. Raises ModelError if a model is missing.
    """
    if settings.head_pose:
        identity = Landmarks68.open().identity
        faces = _look(faces, photos, folder, POSES, "head poses", _pose, ("", ""), identity, progress)
    if settings.expression_model:
        model = settings.expression_model, settings.expression_revision
        identity = Expressions.open(*model).identity
        faces = _look(faces, photos, folder, EXPRESSIONS, "expressions", _expression, model, identity, progress)
    return faces


def _look(
    faces: Faces,
    photos: Mapping[str, Quality],
    folder: Path,
    name: str,
    what: str,
    look: Callable[[_Shown, Path], Made],
    model: tuple[str, str],
    identity: str,
    progress: Progress,
) -> Faces:
    """The faces with what `look` says of the subject's: its rows' data are fields of `Face`."""
    items = [
        Item(
            face.id,
            [photos[photo].digest, list(face.box), identity],
            _Shown(Path(photos[photo].path), face.box, *model),
        )
        for photo, found in faces.items()
        for face in found
        if face.whose == "subject"
    ]
    outcome = refresh(
        folder, items, look, settings=None, code_version=LOOKS_VERSION, name=name, what=what, progress=progress
    )
    told = {row.id: row.data for row in outcome.manifest.kept}
    return {
        photo: tuple(Face.of(Row("", "", data={**face.data(), **told.get(face.id, {})})) for face in found)
        for photo, found in faces.items()
    }


@cache
def _landmarks() -> Landmarks68:
    return Landmarks68.open()


@cache
def _expressions(model: str, revision: str) -> Expressions:
    return Expressions.open(model, revision)


def _pose(shown: _Shown, _: Path) -> Made:
    _yaw, pitch, roll = pose_deg(_landmarks().points(open_upright(shown.photo), shown.box))
    return Made({"pitch_deg": pitch, "roll_deg": roll})


def _expression(shown: _Shown, _: Path) -> Made:
    scores = _expressions(shown.model, shown.revision).scores(open_upright(shown.photo), shown.box)
    return Made({"expression": [list(score) for score in scores]})
