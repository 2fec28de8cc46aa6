"""The stage: each crop, its strangers hidden until nobody knows them, and its mask."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.families import give_back_memory
from lora_pipeline.families.inpaint import Inpainter
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, key_of, refresh
from lora_pipeline.pictures import save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Box, Crop, Value
from lora_pipeline.settings import BaseSettings, ConcealSettings, Section
from lora_pipeline.stages.conceal.cover import cover
from lora_pipeline.stages.conceal.drawn import PROMPTS, Artist
from lora_pipeline.stages.conceal.witness import Recognised, Witness
from lora_pipeline.store import whole

if TYPE_CHECKING:
    from PIL.Image import Image

CODE_VERSION = "1"
PICTURES, MASKS = "pictures", "masks"
STRONGER = 2.0
"""By how much a blur that was seen through is made stronger, before grey takes its place."""
FACES_DRAWN = 2
"""So many faces are drawn over one that is still known, before it is blurred."""


class CoverSettings(Section):
    """Those of the settings that every picture's cover hangs on, also where no model draws."""

    method: str
    margin: float
    strength: float


@dataclass(frozen=True)
class _Task:
    picture: Path
    digest: str
    crop: Crop
    name: str
    settings: ConcealSettings
    witness: Witness
    inpainter: Inpainter


def conceal(
    crops: Manifest,
    folder: Path,
    settings: ConcealSettings,
    base: BaseSettings,
    witness: Witness,
    progress: Progress = silent,
) -> Outcome:
    """Hide other people's faces in each kept crop until the witness knows none of them, and leave a mask that says where.

    A cover through which somebody is still known gives way to a stronger one: of a method that draws, to another face; then to
    a blur twice as strong, then to grey. A hidden person who is known elsewhere in the picture (a mirror, a picture on the wall)
    is covered there too.

    Args:
        crops: rows are `records.Crop` with a file `picture`; only kept ones are read.
        folder: the stage's. Row ids are those of the crops, data those of `records.Crop` and `hidden`, the number of faces
            covered; where there are any, `cover`, the cover that nobody sees through, and `why`, if it is not the method asked for,
            or one face was covered twice. File roles: `picture` (PNG, RGB; where nothing is hidden, the crop's own bytes) and
            `mask` (PNG, 8-bit grey, the picture's size: 255 where training looks, 0 where it is hidden).
        settings: see `cover`.
        base: the base model, which draws if a method asks for it and no other model is named.
        witness: who must not know anybody any more.

    Raises:
        ModelError: the model that is to draw is missing.
    """
    inpainter = Inpainter(base, settings.inpaint_model)
    draws = settings.method in PROMPTS
    kept = [(row, Crop.of(row)) for row in crops.kept]
    painter: list[Value] = []
    if draws and any(crop.strangers for _, crop in kept):
        inpainter.check()
        painter = [inpainter.digest, settings.inpaint_sampling_steps, settings.inpaint_guidance_scale]
    items = [
        Item(
            row.id,
            # What only a picture with strangers hangs on is told of no other, whose key is what it has always been.
            [row.files["picture"].digest, crop.data(), *([_sworn(witness, crop), painter] if crop.strangers else [])],
            _Task(
                crops.path(row),
                row.files["picture"].digest,
                crop,
                f"{key_of(row.id)[:16]}-{crop.framing}.png",
                settings,
                witness,
                inpainter,
            ),
        )
        for row, crop in kept
    ]
    try:
        return refresh(
            folder,
            items,
            _make,
            settings=CoverSettings(method=settings.method, margin=settings.margin, strength=settings.strength),
            code_version=CODE_VERSION,
            what="conceal",
            workers=1 if draws else 0,  # a model draws one picture at a time
            progress=progress,
        )
    finally:
        if draws:
            del items, inpainter
            give_back_memory()


def _sworn(witness: Witness, crop: Crop) -> list[Value]:
    """All that the witness's word on a picture hangs on."""
    return [witness.identity, witness.same_person_distance, [list(one) for one in witness.hidden(crop.photo)]]


def _make(task: _Task, folder: Path) -> Made:
    from PIL import Image

    crop = task.crop
    picture_file, mask_file = f"{PICTURES}/{task.name}", f"{MASKS}/{task.name}"
    files = {"picture": picture_file, "mask": mask_file}
    if not crop.strangers:
        with whole(folder / picture_file) as aside:
            shutil.copyfile(task.picture, aside)
        save(Image.new("L", (crop.width_px, crop.height_px), 255), folder / mask_file)
        return Made({**crop.data(), "hidden": 0}, files)
    with Image.open(task.picture) as opened:
        hidden = _hide(opened.convert("RGB"), task)
    data: dict[str, Value] = {"hidden": hidden.faces, "cover": hidden.method, "why": hidden.why}
    if hidden.picture is None or hidden.mask is None:
        return Made({**crop.data(), **data}, state="failed", reason=hidden.why)
    save(hidden.picture, folder / picture_file)
    save(hidden.mask, folder / mask_file)
    return Made({**crop.data(), **data}, files)


@dataclass(frozen=True)
class _Hidden:
    picture: "Image | None"
    mask: "Image | None"
    faces: int
    method: str
    why: str


def _hide(picture: "Image", task: _Task) -> _Hidden:
    """The first cover through which the witness knows nobody."""
    boxes, seen_through = list(task.crop.strangers), list[str]()
    method = task.settings.method
    for settings, attempt in _covers(task.settings):
        method = settings.method
        covered, mask, known = _covered(picture, boxes, settings, attempt, task)
        elsewhere = [one.box for one in known if not any(_meet(one.box, box) for box in boxes)]
        if elsewhere:
            boxes += elsewhere
            seen_through.append(f"a hidden person is known {len(elsewhere)} times more, and covered there too")
            covered, mask, known = _covered(picture, boxes, settings, attempt, task)
        if not known:
            return _Hidden(covered, mask, len(boxes), method, "; ".join(seen_through))
        seen_through.append(_told(settings, known, task.witness))
    return _Hidden(None, None, len(boxes), method, "; ".join(seen_through))


def _covered(
    picture: "Image", boxes: list[Box], settings: ConcealSettings, attempt: int, task: _Task
) -> "tuple[Image, Image, list[Recognised]]":
    """The picture with its covers, their mask, and who is known all the same."""
    crop, draws = task.crop, settings.method in PROMPTS
    artist = Artist(task.inpainter, settings, task.digest, attempt)
    covered, mask = cover(picture, boxes, crop.face, settings, artist.draw if draws else None)
    # Grey holds nothing that anybody could be known by, whatever a network makes of it.
    told = () if settings.method == "solid" else boxes
    return covered, mask, task.witness.recognises(covered, crop.photo, crop.face, told)


def _covers(settings: ConcealSettings) -> Iterator[tuple[ConcealSettings, int]]:
    """The cover asked for and what takes its place, each stronger than the one before; and a number that tells faces drawn apart."""
    for attempt in range(FACES_DRAWN if settings.method in PROMPTS else 1):
        yield settings, attempt
    blur = settings.strength if settings.method in PROMPTS else min(1.0, STRONGER * settings.strength)
    if settings.method != "solid":
        yield settings.model_copy(update={"method": "gaussian", "strength": blur}), 0
        yield settings.model_copy(update={"method": "solid"}), 0


def _told(settings: ConcealSettings, known: list[Recognised], witness: Witness) -> str:
    nearest = min(one.distance for one in known)
    how = settings.method if settings.method in {"solid", *PROMPTS} else f"{settings.method} {settings.strength:g}"
    return f"{how}: a hidden face is known through it ({nearest:.2f}, a person's own are under {witness.same_person_distance:g})"


def _meet(one: Box, other: Box) -> bool:
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3])
