"""What the benchmarks train on: pictures that are no copies of each other, and the training set that `encode` makes of them."""

from pathlib import Path
from typing import Any

from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.pictures import open_upright, save
from lora_pipeline.records import Caption
from lora_pipeline.settings import BaseSettings, EncodeSettings
from lora_pipeline.stages.encode import encode

CAPTION = "a photo of zx1 pattern"


def draw(folder: Path, count: int, side_px: int) -> Path:
    """Write so many square pictures and give their folder."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        coarse.resize((side_px, side_px), Image.Resampling.BICUBIC).save(folder / f"{number:04d}.png")
    return folder


def training_set(pictures: Path, folder: Path, base: BaseSettings, side_px: int, repeats: int = 1) -> Outcome:
    """All pictures of a folder, encoded with one caption: nothing hidden, nothing mirrored, one bucket."""
    settings = EncodeSettings(resolution_px=side_px, bucket_step_px=32, repeats=repeats, flip=False)
    captions = _rows(folder / "captions", pictures, lambda file, _: Made(Caption(file.name, CAPTION, "hand").data()))
    return encode(_rows(folder / "pictures", pictures, _picture), captions, folder / "encoded", settings, base)


def _rows(folder: Path, pictures: Path, make: Any) -> Manifest:
    items = [Item(file.name, [str(file)], file) for file in sorted(pictures.iterdir())]
    return refresh(folder, items, make, settings=None, code_version="1").manifest


def _picture(file: Path, folder: Path) -> Made:
    picture = open_upright(file)
    save(picture, folder / file.name)
    return Made({"photo": file.name, "width_px": picture.width, "height_px": picture.height}, {"picture": file.name})
