"""Writing over photos is found where it is, and none where there is none."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from lora_pipeline.demo.world import draw, random_identity, random_scene
from lora_pipeline.pictures import open_upright
from lora_pipeline.records import Box
from lora_pipeline.stages.curate.measure import measure
from lora_pipeline.stages.curate.text import text_boxes

REAL = Path(__file__).parents[4] / "shared" / "data"
WORDS = ("Holiday 2024", "Breaking News", "exclusive preview", "www.site.com", "do not copy", "Photography")


@dataclass(frozen=True)
class Written:
    """A photo with writing on it, and where its ink is."""

    picture: Image.Image
    ink: np.ndarray


def write(photo: Image.Image, rng: random.Random, opacity: float, size_px: int, tiled: bool = False) -> Written:
    font = ImageFont.load_default(size_px)
    layer = Image.new("L", photo.size, 0)
    text = " ".join(rng.sample(WORDS, 2))
    pen = ImageDraw.Draw(layer)
    if tiled:
        wide = Image.new("L", (2 * photo.width, 2 * photo.height), 0)
        pen, across = ImageDraw.Draw(wide), round(1.5 * font.getlength(text))
        for row, y in enumerate(range(0, wide.height, 4 * size_px)):
            for x in range(row % 2 * across // 2, wide.width, across):
                pen.text((x, y), text, 255, font)
        left, top = photo.width // 2, photo.height // 2
        layer = wide.rotate(rng.choice([0, 30, 45])).crop((left, top, left + photo.width, top + photo.height))
    else:
        while font.getlength(text) > photo.width - 20:
            text = text.rsplit(" ", 1)[0]
        room = photo.width - round(font.getlength(text)) - 10, photo.height - 2 * size_px
        pen.text((rng.randrange(10, max(11, room[0])), rng.randrange(10, room[1])), text, 255, font)
    ink = np.asarray(layer) > 100
    light = np.asarray(photo.convert("L"))[ink].mean() < 140
    colour = Image.new("RGB", photo.size, (255, 255, 255) if light else (0, 0, 0))
    return Written(Image.composite(colour, photo, layer.point(lambda level: round(level * opacity))), ink)


def within(boxes: tuple[Box, ...], size: tuple[int, int]) -> np.ndarray:
    area = np.zeros((size[1], size[0]), bool)
    for left, top, right, bottom in boxes:
        area[top:bottom, left:right] = True
    return area


def share_found(written: Written) -> float:
    """Of the ink, within the boxes."""
    area = within(text_boxes(written.picture.convert("L")), written.picture.size)
    return float(area[written.ink].mean())


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Drawn strangers, none of whom was seen when the weights were fitted."""
    rng = np.random.default_rng(41)
    return [draw(random_identity(rng), random_scene(rng, (700, 560))).picture for _ in range(8)]


@pytest.mark.parametrize(
    ("opacity", "tiled", "least"),
    [(1.0, False, 0.8), (0.45, False, 0.75), (0.4, True, 0.5)],
    ids=["opaque", "watermark", "tiled"],
)
def test_writing_on_drawn_photos_is_found_where_it_is(
    photos: list[Image.Image], opacity: float, tiled: bool, least: float
) -> None:
    rng = random.Random(3)
    found, precise = [], []
    for photo in photos:
        written = write(photo, rng, opacity, rng.choice([18, 24, 32, 44]), tiled)
        found.append(share_found(written) > 0.5)
        boxes = within(text_boxes(written.picture.convert("L")), photo.size)
        if boxes.any() and not tiled:
            near = Image.fromarray(written.ink).resize((70, 56), Image.Resampling.BOX).convert("L")
            ys, xs = np.nonzero(np.asarray(near))
            line = within(
                ((xs.min() * 10 - 20, ys.min() * 10 - 20, xs.max() * 10 + 30, ys.max() * 10 + 30),), photo.size
            )
            precise.append((boxes & line).sum() / boxes.sum())
    assert np.mean(found) >= least
    assert not precise or np.mean(precise) >= 0.9


def test_drawn_photos_without_writing_have_none(photos: list[Image.Image]) -> None:
    assert [text_boxes(photo.convert("L")) for photo in photos] == [()] * len(photos)


@pytest.mark.parametrize("size", [(1, 1), (20, 400), (64, 64)])
def test_tiny_and_plain_pictures_have_none(size: tuple[int, int]) -> None:
    assert text_boxes(Image.new("L", size, 90)) == ()
    assert text_boxes(Image.effect_noise(size, 60)) == ()


def test_boxes_are_those_of_the_upright_photo_bars_and_all(photos: list[Image.Image]) -> None:
    written = write(photos[0], random.Random(1), 1.0, 40)
    barred = Image.new("RGB", (700, 760))
    barred.paste(written.picture, (0, 100))
    measured = measure(barred, 1, True)
    assert measured.trim == (0, 100, 700, 660)
    ys, xs = np.nonzero(written.ink)
    (box,) = [one for one in measured.text_boxes if one[2] - one[0] > 0.8 * np.ptp(xs)]
    assert abs(box[0] - xs.min()) < 25
    assert abs(box[1] - ys.min() - 100) < 25
    assert abs(box[3] - ys.max() - 100) < 25


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here")
def test_real_photos_without_writing_have_hardly_any_and_a_label_is_found() -> None:
    plain = [path for name in ("dog", "person_a", "person_b") for path in (REAL / name / "photos").iterdir()]
    flagged = [path.name for path in plain if text_boxes(open_upright(path).convert("L"))]
    assert len(flagged) <= 1, flagged
    rng = random.Random(5)
    large = [photo for path in sorted(plain) if min((photo := open_upright(path)).size) >= 500][::3]
    assert np.mean([share_found(write(photo, rng, 1.0, min(photo.size) // 16)) > 0.5 for photo in large]) >= 0.7
