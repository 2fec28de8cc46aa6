"""How the subject holds the head, and its expression: measured where it is asked for, remembered a face.

Only the subject's own faces are looked at; nobody asked for a stranger's mood.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.manifest import Item, Made, refresh
from lora_pipeline.models.dlib_faces import Landmarks68
from lora_pipeline.models.expression import Expressions
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress
from lora_pipeline.records import Box, Face, Quality, Row, Value
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.angle import pose_deg
from lora_pipeline.stages.crop.whose import Faces

if TYPE_CHECKING:
    from PIL.Image import Image

LOOKS_VERSION = "1"
POSES, EXPRESSIONS = "poses", "expressions"


def with_looks(
    faces: Faces, photos: Mapping[str, Quality], folder: Path, settings: CropSettings, progress: Progress
) -> Faces:
    """The faces, the subject's with `pitch_deg` and `roll_deg` (if `head_pose`) and `expression` (if there is an `expression_model`).

    A face whose photo cannot be read just now goes without. Raises ModelError if a model is missing.
    """
    if settings.head_pose:
        landmarks = Landmarks68.open()
        look = partial(_pose, landmarks)
        faces = _look(faces, photos, folder, POSES, "head poses", look, landmarks.identity, progress)
    if settings.expression_model:
        reader = Expressions.open(settings.expression_model, settings.expression_revision)
        look = partial(_expression, reader)
        faces = _look(faces, photos, folder, EXPRESSIONS, "expressions", look, reader.identity, progress)
    return faces


def _look(
    faces: Faces,
    photos: Mapping[str, Quality],
    folder: Path,
    name: str,
    what: str,
    look: Callable[["Image", Box], dict[str, Value]],
    identity: str,
    progress: Progress,
) -> Faces:
    """The faces with what `look` says of the subject's: its rows' data are fields of `Face`."""
    items = [
        Item(face.id, [photos[photo].digest, list(face.box), identity], (photo, Path(photos[photo].path), face.box))
        for photo, found in faces.items()
        for face in found
        if face.whose == "subject"
    ]
    outcome = refresh(
        folder,
        items,
        lambda shown, _: Made({"photo": shown[0], **look(open_upright(shown[1]), shown[2])}),
        settings=None,
        code_version=LOOKS_VERSION,
        name=name,
        what=what,
        progress=progress,
    )
    told = {row.id: row.data for row in outcome.manifest.kept}
    return {
        photo: tuple(Face.of(Row("", "", data={**face.data(), **told.get(face.id, {})})) for face in found)
        for photo, found in faces.items()
    }


def _pose(landmarks: Landmarks68, picture: "Image", box: Box) -> dict[str, Value]:
    _yaw, pitch, roll = pose_deg(landmarks.points(picture, box))
    return {"pitch_deg": pitch, "roll_deg": roll}


def _expression(reader: Expressions, picture: "Image", box: Box) -> dict[str, Value]:
    return {"expression": [list(score) for score in reader.scores(picture, box)]}
