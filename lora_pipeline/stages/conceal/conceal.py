"""The stage: each crop, its strangers hidden, and its mask."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.pictures import save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Crop
from lora_pipeline.settings import ConcealSettings
from lora_pipeline.stages.conceal.cover import cover
from lora_pipeline.store import whole

CODE_VERSION = "1"
PICTURES, MASKS = "pictures", "masks"


@dataclass(frozen=True)
class _Task:
    picture: Path
    crop: Crop
    settings: ConcealSettings


def conceal(crops: Manifest, folder: Path, settings: ConcealSettings, progress: Progress = silent) -> Outcome:
    """Hide other people's faces in each kept crop, and leave a mask that says where.

    Args:
        crops: rows are `records.Crop` with a file `picture`; only kept ones are read.
        folder: the stage's. Row ids are those of the crops, data those of `records.Crop` and `hidden`, the number of faces
            covered. File roles: `picture` (PNG, RGB; where nothing is hidden, the crop's own bytes) and `mask` (PNG, 8-bit
            grey, the picture's size: 255 where training looks, 0 where it is hidden).
        settings: see `cover`.
    """
    items = [
        Item(row.id, [row.files["picture"].digest, crop.data()], _Task(crops.path(row), crop, settings))
        for row in crops.kept
        for crop in (Crop.of(row),)
    ]
    return refresh(
        folder,
        items,
        _make,
        settings=settings,
        code_version=CODE_VERSION,
        what="conceal",
        workers=0,
        progress=progress,
    )


def _make(task: _Task, folder: Path) -> Made:
    from PIL import Image

    crop = task.crop
    picture_file, mask_file = f"{PICTURES}/{task.picture.name}", f"{MASKS}/{task.picture.name}"
    if crop.strangers:
        with Image.open(task.picture) as opened:
            picture, mask = cover(opened.convert("RGB"), crop.strangers, crop.face, task.settings)
        save(picture, folder / picture_file)
    else:
        mask = Image.new("L", (crop.width_px, crop.height_px), 255)
        with whole(folder / picture_file) as aside:
            shutil.copyfile(task.picture, aside)
    save(mask, folder / mask_file)
    return Made({**crop.data(), "hidden": len(crop.strangers)}, {"picture": picture_file, "mask": mask_file})
