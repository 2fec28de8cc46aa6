"""Flaws, against pictures of which they are known."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from lora_pipeline.demo.world import draw, random_identity, random_scene
from lora_pipeline.stages.curate.detail import tiles
from lora_pipeline.stages.curate.flaws import blocking, clipped, colour, noise, plain


def photo() -> Image.Image:
    rng = np.random.default_rng(4)
    return draw(random_identity(rng), random_scene(rng, (480, 640))).picture


def luma(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L"))


def saved(picture: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out)


def test_clipped_is_black_or_white_in_every_channel() -> None:
    pixels = np.full((10, 10, 3), 100, dtype=np.uint8)
    pixels[:3] = 1
    pixels[3:5] = 254
    pixels[5] = (255, 255, 90)  # a bright yellow is no burnt-out light
    assert clipped(pixels) == (0.3, 0.2)


@pytest.mark.parametrize("sigma", [2, 5, 12, 25])
def test_noise_is_the_noise_that_was_added(sigma: float) -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(luma(photo()) * 0.5 + 64 + rng.normal(0, sigma, (640, 480)), 0, 255).astype(np.float32)
    assert noise(tiles(noisy)) == pytest.approx(sigma, rel=0.15)


def test_noise_of_one_speck_by_hand() -> None:
    # The filter sees the speck nine times: 4, four times -2, four times 1; sqrt(pi / 2) / (6 · 4 · 4) · 16 · 10.
    tile = np.full((1, 6, 6), 100, dtype=np.float32)
    tile[0, 2, 2] = 110
    assert noise(tile) == pytest.approx(np.sqrt(np.pi / 2) / 96 * 160)


def test_what_is_black_or_white_is_not_asked_for_its_noise() -> None:
    assert noise(np.zeros((4, 64, 64), dtype=np.float32)) == 0
    assert noise(np.full((4, 64, 64), 255, dtype=np.float32)) == 0
    assert noise(tiles(luma(photo()).astype(np.float32))) < 1


def test_the_lower_the_quality_the_plainer_the_blocks() -> None:
    rng = np.random.default_rng(0)
    grainy = Image.fromarray(np.clip(luma(photo()) + rng.normal(0, 4, (640, 480)), 0, 255).astype(np.uint8))
    told = [blocking(luma(picture)) for picture in (grainy, saved(grainy, 80), saved(grainy, 25), saved(grainy, 5))]
    assert told == sorted(told)
    assert told[0] < 0.05
    assert told[1] < 0.5
    assert told[3] > 1
    # Cut off the grid, the blocks are where they were.
    assert blocking(luma(saved(grainy, 5).crop((3, 5, 480, 640)))) > 1


def test_a_screenshot_is_plainer_than_a_photo() -> None:
    screenshot = Image.new("RGB", (400, 300), (240, 240, 240))
    screenshot.paste((10, 90, 200), (50, 50, 200, 90))
    assert plain(np.asarray(screenshot)) > 0.97
    rng = np.random.default_rng(0)
    grainy = np.clip(np.asarray(photo()) + rng.normal(0, 2, (640, 480, 1)), 0, 255).astype(np.uint8)
    assert plain(grainy) < 0.1
    assert plain(np.zeros((1, 5, 3), dtype=np.uint8)) == 1


def test_one_tone_is_told_from_colours() -> None:
    def told(picture: Image.Image) -> tuple[float, float]:
        return colour(np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX)))

    grey = photo().convert("L")
    sepia = ImageOps.colorize(grey, (40, 26, 13), (255, 240, 200), mid=(150, 110, 70))
    left_over, tone = told(photo())
    assert left_over > 7
    assert told(saved(grey.convert("RGB"), 30)) == pytest.approx((0, 0), abs=1)
    left_over, tone = told(saved(sepia, 30))
    assert left_over < 4.5
    assert tone > 15


def test_one_tone_by_hand() -> None:
    grey = np.repeat(np.arange(0, 225, 25, dtype=np.uint8)[:, None], 3, axis=1)[None]
    assert colour(grey) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    tinted = grey.copy()
    tinted[..., 0] += (
        10  # luma rises by 2.99, so Cb falls by 0.564 times that, and Cr rises by 0.713 times what is left
    )
    left_over, tone = colour(tinted)
    assert left_over == pytest.approx(0, abs=1e-9)
    assert tone == pytest.approx(np.hypot(0.564 * 2.99, 0.713 * 7.01))
