"""True resolution: drawn photos blown up in every way show no more than before."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lora_pipeline.demo.world import draw, random_identity, random_scene
from lora_pipeline.stages.curate.detail import block_factor, true_share

Method = Image.Resampling


def photo(seed: int, size: tuple[int, int] = (480, 640)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return draw(random_identity(rng), random_scene(rng, size)).picture.convert("L")


def times(picture: Image.Image, factor: float, method: Method) -> Image.Image:
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), method)


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out)


def test_a_drawn_photo_is_as_large_as_it_is_saved_or_not() -> None:
    for seed in range(3):
        for picture in (photo(seed), jpeg(photo(seed), 80), times(photo(seed), 0.7, Method.LANCZOS)):
            assert true_share(picture) >= 0.8
            assert block_factor(np.asarray(picture)) == 1


@pytest.mark.parametrize("method", [Method.LANCZOS, Method.BICUBIC, Method.NEAREST])
@pytest.mark.parametrize("factor", [1.5, 2, 3, 4])
def test_a_blow_up_is_as_large_as_what_was_blown_up(factor: float, method: Method) -> None:
    for seed in range(2):
        blown_up = times(photo(seed), factor, method)
        for picture in (blown_up, jpeg(blown_up, 85)):
            assert 0.7 < true_share(picture) * factor < 1.2


def test_blocks_are_found_by_their_factor() -> None:
    for factor in (1.25, 1.5, 2, 3, 4):
        found = block_factor(np.asarray(times(photo(1), factor, Method.NEAREST)))
        assert found == pytest.approx(factor, rel=0.02)
    assert block_factor(np.asarray(times(photo(1), 9, Method.NEAREST))) == 1  # a mosaic


def test_the_less_in_focus_the_less_detail() -> None:
    shares = [true_share(photo(2).filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4, 8)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.15
    # One thing in focus is enough: what lies behind may be soft.
    half = photo(2).filter(ImageFilter.GaussianBlur(8))
    half.paste(photo(2).crop((100, 100, 300, 300)), (100, 100))
    assert true_share(half) >= 0.8


def test_a_spectrum_that_ends_where_it_is_cut() -> None:
    """White edges' spectrum, cut at half of the highest frequency by an ideal filter."""
    luma = np.asarray(photo(3), dtype=np.float64)
    waves = np.fft.fft2(luma)
    low = [np.abs(np.fft.fftfreq(length)) < 0.25 for length in luma.shape]
    cut = np.real(np.fft.ifft2(waves * np.outer(*low)))
    assert true_share(Image.fromarray(np.clip(cut, 0, 255).astype(np.uint8))) == pytest.approx(0.5, abs=0.06)


def test_plain_and_tiny_pictures_are_what_they_are() -> None:
    for size in ((1, 1), (3, 700), (15, 15), (200, 100)):
        assert true_share(Image.new("L", size, 128)) == 1
    noise = np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8)
    assert true_share(Image.fromarray(noise)) == 1
