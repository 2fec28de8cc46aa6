"""What is measured, against pictures of which it can be reckoned by hand."""

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFilter

from lora_pipeline.demo.world import draw, random_identity, random_scene
from lora_pipeline.settings import CurateSettings
from lora_pipeline.stages.curate.measure import measure, sharpness


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    luma = np.zeros((5, 5), dtype=np.float32)
    luma[2, 2] = 10
    # Inner 3 × 3: -40 in the middle, 10 at its four sides, 0 at the corners; mean 0; (1600 + 4 × 100) / 9.
    assert sharpness(luma) == pytest.approx(2000 / 9)
    assert sharpness(np.full((9, 9), 77, dtype=np.float32)) == 0
    assert sharpness(np.arange(81, dtype=np.float32).reshape(9, 9)) == 0  # an even slope has no edge
    assert sharpness(np.zeros((2, 9), dtype=np.float32)) == 0


def test_brightness_and_contrast() -> None:
    picture = Image.new("RGB", (100, 100), "white")
    picture.paste("black", (0, 0, 100, 25))
    told = measure(picture, 1, trim_bars=False)
    assert told.brightness == 0.75
    assert told.contrast == pytest.approx(np.sqrt(0.75 * 0.25), abs=1e-4)
    assert measure(Image.new("RGB", (30, 40), (51, 51, 51)), 1, trim_bars=True).brightness == pytest.approx(0.2)


def patches(size: tuple[int, int] = (600, 400)) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)


def test_all_is_measured_within_the_trim() -> None:
    boxed = Image.new("RGB", (900, 400))
    boxed.paste(patches(), (150, 0))
    within, whole = measure(boxed, 1, trim_bars=True), measure(boxed, 1, trim_bars=False)
    alone = measure(patches(), 1, trim_bars=False)
    assert within.trim == (150, 0, 750, 400)
    assert whole.trim == (0, 0, 900, 400)
    assert {**within.data(), "trim": 0} == {**alone.data(), "trim": 0}
    assert within.phash == str(imagehash.phash(patches())) != whole.phash
    assert whole.brightness < within.brightness


def test_sharpness_is_the_same_at_every_size_over_512() -> None:
    large = patches((2400, 1600))
    told = [
        measure(large.resize(size, Image.Resampling.LANCZOS), 1, False).sharpness
        for size in ((2400, 1600), (1200, 800), (768, 512))
    ]
    assert max(told) < 1.1 * min(told)


def test_a_small_photo_is_not_called_blurred_for_its_size() -> None:
    small = patches((300, 200))
    assert measure(small, 1, False).sharpness > measure(patches((600, 400)), 1, False).sharpness


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 700), (3, 3)])
def test_tiny_pictures_are_measured_too(size: tuple[int, int]) -> None:
    told = measure(Image.new("RGB", size, "red"), 1, trim_bars=True)
    assert told.sharpness == 0
    assert len(told.phash) == 16


def test_the_default_threshold_parts_sharp_drawings_from_blurred_ones() -> None:
    rng = np.random.default_rng(5)
    threshold = CurateSettings().min_sharpness
    for _ in range(8):
        person = random_identity(rng)
        picture = draw(person, random_scene(rng, (480, 640))).picture
        assert measure(picture, 1, True).sharpness > 1.5 * threshold
        # 0.6 % of the long side: what of a photo on a screen is seen as out of focus.
        assert measure(picture.filter(ImageFilter.GaussianBlur(4)), 1, True).sharpness < threshold / 2
