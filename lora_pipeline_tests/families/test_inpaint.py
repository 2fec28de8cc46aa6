"""A part of a picture is drawn anew by the real inpainting pipelines, and nothing else of it hangs on what was there."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lora_pipeline.errors import ModelError
from lora_pipeline.families.inpaint import Inpainter
from lora_pipeline.settings import BaseSettings

BUILDERS = {"sd15": "build", "sdxl": "build_sdxl", "sd35": "build_sd35", "flux": "build_flux"}
BUILDERS |= {"z_image": "build_z_image", "qwen_image": "build_qwen_image"}
SIZE = (64, 64)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def part() -> Image.Image:
    shape = Image.new("L", SIZE, 0)
    ImageDraw.Draw(shape).rectangle((16, 16, 47, 47), fill=255)
    return shape


def drawn(inpainter: Inpainter, of: Image.Image, part: Image.Image, seed: int = 1) -> np.ndarray:
    return np.asarray(inpainter.draw(of, part, "a person", seed, 2, 3.0)).astype(int)


@pytest.mark.parametrize("family", BUILDERS)
def test_each_family_draws_the_part_anew_from_the_seed_alone(
    tiny, tmp_path: Path, part: Image.Image, family: str
) -> None:
    base = BaseSettings(family=family, model=str(getattr(tiny, BUILDERS[family])(tmp_path)))
    inpainter = Inpainter(base)
    inpainter.check()
    if hasattr(inpainter._pipeline, "default_sample_size"):
        inpainter._pipeline.default_sample_size = 8  # the class's own: 1024 px takes a minute
    first = drawn(inpainter, picture(0), part)
    assert first.shape == (*SIZE, 3)
    assert (drawn(inpainter, picture(0), part) == first).all()
    assert (drawn(inpainter, picture(0), part, seed=2) != first).any()


def test_what_was_under_the_part_leaves_no_trace(part: Image.Image) -> None:
    """Two pictures that differ under the part alone, drawn by the base that ships here, whose latents have 12 channels."""
    inpainter = Inpainter(BaseSettings(model="bundled"))
    one, other = Image.new("RGB", (128, 128), (90, 120, 150)), Image.new("RGB", (128, 128), (90, 120, 150))
    shape = part.resize(one.size)
    ImageDraw.Draw(other).rectangle((48, 48, 79, 79), fill=(255, 0, 0))
    a, b = drawn(inpainter, one, shape), drawn(inpainter, other, shape)
    within = np.asarray(shape) > 0
    assert np.abs(np.asarray(one).astype(int) - np.asarray(other))[within].max() == 165
    assert (a == b).all()
    assert np.abs(a - np.asarray(one))[~within].mean() < 12  # and around it, what was there


def test_a_model_made_for_it_may_be_named(tiny, tmp_path: Path, part: Image.Image) -> None:
    from diffusers import UNet2DConditionModel

    folder = tiny.build(tmp_path / "nine")
    config = dict(UNet2DConditionModel.load_config(folder / "unet")) | {"in_channels": 9}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    index = json.loads((folder / "model_index.json").read_text()) | {"_class_name": "StableDiffusionInpaintPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    named = Inpainter(BaseSettings(model="bundled"), str(folder))
    named.check()
    assert drawn(named, picture(0), part).shape == (*SIZE, 3)
    assert named.digest != Inpainter(BaseSettings(model="bundled")).digest


def test_a_family_for_which_diffusers_has_none_is_refused_in_words(tiny, tmp_path: Path, part: Image.Image) -> None:
    base = BaseSettings(family="flux2_klein", model=str(tiny.build_flux2_klein(tmp_path)))
    with pytest.raises(ModelError, match=r"no inpainting for a Flux2KleinPipeline; name another model"):
        Inpainter(base).check()
