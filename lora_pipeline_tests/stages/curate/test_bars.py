"""Bars are cut off where the picture begins, and no plain background is."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from lora_pipeline.pictures import open_upright
from lora_pipeline.stages.curate.bars import trim_box

REAL = Path(__file__).parents[4] / "shared" / "data"
BLACK, WHITE, VIDEO_BLACK = (0, 0, 0), (255, 255, 255), (16, 16, 16)


def scene(size: tuple[int, int] = (400, 300), seed: int = 0) -> Image.Image:
    """Soft patches of all colours, with some grain: a picture without plain edges."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(40, 230, (9, 12, 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    return Image.fromarray((soft + rng.integers(-6, 7, soft.shape)).clip(0, 255).astype(np.uint8))


def barred(picture: Image.Image, bars: tuple[int, int, int, int], colour: tuple[int, int, int]) -> Image.Image:
    left, top, right, bottom = bars
    canvas = Image.new("RGB", (picture.width + left + right, picture.height + top + bottom), colour)
    canvas.paste(picture, (left, top))
    return canvas


def saved(picture: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def trimmed(picture: Image.Image) -> tuple[int, int, int, int]:
    return trim_box(np.asarray(picture))


def whole(picture: Image.Image) -> tuple[int, int, int, int]:
    return 0, 0, picture.width, picture.height


SHAPES = {
    "letterbox": (0, 50, 0, 50),
    "pillarbox": (90, 0, 104, 0),
    "frame": (21, 20, 21, 20),
    "windowbox": (60, 25, 60, 31),
    "uneven frame": (20, 70, 44, 18),
}


@pytest.mark.parametrize("quality", [60, 75, 95])
@pytest.mark.parametrize("colour", [BLACK, WHITE, VIDEO_BLACK, (120, 90, 60)], ids=str)
@pytest.mark.parametrize("bars", SHAPES.values(), ids=SHAPES)
def test_bars_are_cut_off_where_the_picture_begins(
    bars: tuple[int, int, int, int], colour: tuple[int, int, int], quality: int
) -> None:
    for seed in range(3):
        picture = scene(seed=seed)
        found = trimmed(saved(barred(picture, bars, colour), quality))
        expected = (bars[0], bars[1], bars[0] + picture.width, bars[1] + picture.height)
        assert np.abs(np.array(found) - expected).max() <= 2, (seed, found, expected)


@pytest.mark.parametrize("bars", [(0, 40, 0, 0), (0, 0, 0, 40), (60, 0, 0, 0)])
def test_one_black_bar_alone(bars: tuple[int, int, int, int]) -> None:
    picture = scene()
    found = trimmed(saved(barred(picture, bars, BLACK), 85))
    assert np.abs(np.array(found) - (bars[0], bars[1], bars[0] + 400, bars[1] + 300)).max() <= 2


def test_a_white_margin_alone_may_be_a_wall() -> None:
    picture = barred(scene(), (0, 80, 0, 0), WHITE)
    assert trimmed(saved(picture, 90)) == whole(picture)


def test_a_frame_within_bars() -> None:
    picture = barred(barred(scene(), (15, 15, 15, 15), WHITE), (70, 0, 70, 0), BLACK)
    assert np.abs(np.array(trimmed(saved(picture, 90))) - (85, 15, 485, 315)).max() <= 2


def test_an_upright_video_on_a_wide_screen() -> None:
    picture = barred(scene((180, 320)), (194, 0, 194, 0), BLACK)
    assert np.abs(np.array(trimmed(saved(picture, 85))) - (194, 0, 374, 320)).max() <= 2


def test_a_line_that_is_half_bar_and_half_picture_is_cut_off_too() -> None:
    pixels = np.asarray(barred(scene(), (0, 40, 0, 40), BLACK)).copy()
    pixels[40] = pixels[41] // 2
    pixels[339] = pixels[338] // 3
    assert trim_box(pixels) == (0, 41, 400, 339)


def test_bars_that_were_made_smaller_with_the_picture() -> None:
    picture = barred(scene((800, 600)), (180, 0, 180, 0), BLACK)
    small = saved(picture.resize((387, 200), Image.Resampling.LANCZOS), 85)  # an edge between two pixels
    assert np.abs(np.array(trimmed(small)) - (60, 0, 327, 200)).max() <= 2


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_without_bars_is_left_whole(seed: int) -> None:
    picture = scene(seed=seed)
    assert trimmed(picture) == whole(picture)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 50), (300, 200)])
def test_a_picture_that_is_plain_all_over_is_left_whole(size: tuple[int, int]) -> None:
    for colour in (BLACK, WHITE, (90, 90, 90)):
        picture = Image.new("RGB", size, colour)
        assert trimmed(picture) == whole(picture)


def studio(kind: str, background: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (600, 500), background)
    pen = ImageDraw.Draw(picture)
    colour = (200, 60, 40)
    if kind == "ball":
        pen.ellipse((150, 80, 450, 420), colour)
    if kind == "large ball":
        pen.ellipse((10, 10, 590, 490), colour)
    if kind == "person":
        pen.ellipse((230, 60, 370, 240), colour)
        pen.ellipse((120, 250, 480, 800), (30, 30, 120))
    if kind == "rounded box":
        pen.rounded_rectangle((60, 60, 540, 440), 120, colour)
    if kind == "box":
        pen.rectangle((150, 100, 450, 400), colour)
    if kind == "thing on a table":
        pen.rectangle((0, 300, 600, 500), colour)
        pen.ellipse((200, 100, 400, 320), (20, 60, 200))
    if kind == "small thing":
        pen.rectangle((290, 240, 310, 260), colour)
    if kind == "pole":
        pen.rectangle((280, 0, 320, 500), colour)
    return picture


@pytest.mark.parametrize("quality", [30, 90])
@pytest.mark.parametrize("background", [BLACK, WHITE, (128, 128, 128), (240, 240, 240)], ids=str)
@pytest.mark.parametrize(
    "kind", ["ball", "large ball", "person", "rounded box", "box", "thing on a table", "small thing", "pole"]
)
def test_a_studios_plain_background_is_left_whole(kind: str, background: tuple[int, int, int], quality: int) -> None:
    picture = studio(kind, background)
    assert trimmed(saved(picture, quality)) == whole(picture)


def test_a_soft_shadow_at_the_edge_is_no_bar() -> None:
    fade = np.clip(np.linspace(-0.2, 1.2, 400), 0, 1)[None, :, None]
    picture = Image.fromarray((np.asarray(scene()) * fade).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    assert trimmed(saved(picture, 90)) == whole(picture)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here")
def test_real_letterboxes_are_cut_where_the_picture_is_and_nothing_else_is_cut() -> None:
    # Where the bars end was read off the columns' brightest pixels, by hand.
    boxed = {
        "portrait_letterboxed_1080.jpg": (505, 0, 1415, 1080),
        "portrait_letterboxed_480.jpg": (225, 0, 629, 480),
        "portrait_letterboxed_240.jpg": (113, 0, 315, 240),
    }
    for file in sorted(REAL.glob("*/photos/*")):
        picture = open_upright(file)
        expected = boxed.get(file.name, whole(picture))
        assert np.abs(np.array(trimmed(picture)) - expected).max() <= (1 if file.name in boxed else 0), file.name
