"""What every family must do, tried on a random-weight model of its real classes."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from lora_pipeline.errors import ModelError
from lora_pipeline.families import FAMILIES, family
from lora_pipeline.settings import BaseSettings

torch = pytest.importorskip("torch")
BASES = {"sd15": "tiny_base"}  # the fixture of each family's small base


@pytest.fixture(params=sorted(FAMILIES))
def of_family(request):
    """A family and the settings of its small base."""
    return family(request.param), request.getfixturevalue(BASES[request.param])


def pictures(count=2, width=64, height=64):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def inject(module, targets, dim, alpha):
    """A LoRA that does something: both of its matrices random."""
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=dim, lora_alpha=alpha, target_modules=list(targets)), module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def drawn(pipeline):
    import numpy as np

    picture = pipeline(
        "a photo",
        width=64,
        height=64,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    return np.asarray(picture)


def test_a_whole_base_passes_its_check(of_family):
    one, base = of_family
    one.check(base)


def test_a_latent_is_the_same_each_time_and_as_large_as_the_factor_says(of_family):
    one, base = of_family
    encoder = one.open_pictures(base, "cpu", "float32")
    first, second = encoder.encode(pictures(2, 64, 96)), encoder.encode(pictures(2, 64, 96))
    assert torch.equal(first, second)
    assert first.shape[2:] == (96 // encoder.factor_px, 64 // encoder.factor_px)
    assert first.dtype == torch.float32
    assert encoder.reach_px % encoder.factor_px == 0
    assert encoder.reach_px > 0


def test_texts_become_what_predict_takes(of_family):
    one, base = of_family
    encoder = one.open_texts(base, "cpu", "float32")
    texts = encoder.encode(["a photo", "red"])
    conditioning = {name: torch.stack([text[name] for text in texts]) for name in texts[0]}
    assert encoder.cut_tokens("a") == 0
    assert encoder.cut_tokens("a " * 500) > 0
    latents = one.open_pictures(base, "cpu", "float32").encode(pictures())
    module = one.open_denoiser(base, "cpu", "float32")
    with torch.no_grad():
        answer = one.predict(module, latents, torch.tensor([3, 900]), conditioning)
        alone = one.predict(
            module, latents[:1], torch.tensor([3]), {name: value[:1] for name, value in conditioning.items()}
        )
    assert answer.shape == latents.shape
    assert torch.allclose(answer[:1], alone, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_the_noise_schedule_keeps_variance(of_family):
    one, base = of_family
    schedule = one.noise(base)
    assert schedule.kind in {"epsilon", "v_prediction", "flow"}
    assert len(schedule.alphas) == len(schedule.sigmas)
    assert schedule.sigmas[0] < schedule.sigmas[-1]
    if schedule.kind != "flow":
        for alpha, sigma in zip(schedule.alphas, schedule.sigmas, strict=True):
            assert alpha**2 + sigma**2 == pytest.approx(1)


@pytest.mark.parametrize("alpha", [2.0, 4.0, 1.5])
def test_a_saved_lora_draws_the_same_picture_in_the_stock_pipeline(of_family, tmp_path, alpha):
    import numpy as np

    one, base = of_family
    module = inject(one.open_denoiser(base, "cpu", "float32"), one.lora_targets, dim=4, alpha=alpha)
    in_training = drawn(one.pipeline(base, "cpu", "float32", module))
    one.save_lora(module, tmp_path / "lora.safetensors", {"epoch": "1"})

    pipeline = one.pipeline(base, "cpu", "float32")
    plain = drawn(pipeline)
    pipeline.load_lora_weights(str(tmp_path / "lora.safetensors"))
    loaded = drawn(pipeline)
    pipeline.unload_lora_weights()

    assert np.abs(in_training - loaded).max() < 1e-5
    assert np.abs(in_training - plain).max() > 1e-2
    assert np.array_equal(drawn(pipeline), plain)


def test_a_lora_file_says_its_words_in_order_and_holds_float32(of_family, tmp_path):
    one, base = of_family
    module = inject(one.open_denoiser(base, "cpu", "float32"), one.lora_targets, dim=2, alpha=1)
    words = {f"word {number}": str(number) for number in range(20)}
    one.save_lora(module, tmp_path / "a.safetensors", words)
    data = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    told = header.pop("__metadata__")
    assert list(told) == sorted(told)
    assert words.items() <= told.items()
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    one.save_lora(module, tmp_path / "b.safetensors", dict(reversed(words.items())))
    assert (tmp_path / "b.safetensors").read_bytes() == data


def test_a_digest_moves_with_its_part_alone(of_family, tmp_path):
    one, base = of_family
    copy = base.model_copy(update={"model": str(shutil.copytree(base.model, tmp_path / "copy"))})
    parts = ("whole", "pictures", "texts", "denoiser")
    before = {part: one.digest(copy, part) for part in parts}
    assert before == {part: one.digest(base, part) for part in parts}  # where it lies does not matter
    (tmp_path / "copy" / "README.md").write_text("words")
    assert before == {part: one.digest(copy, part) for part in parts}
    config = tmp_path / "copy" / "vae" / "config.json"
    config.write_text(config.read_text() + " ")
    after = {part: one.digest(copy, part) for part in parts}
    assert {part for part in parts if before[part] != after[part]} == {"whole", "pictures"}


def test_a_broken_weights_file_is_told_in_words(of_family, tmp_path):
    one, base = of_family
    copy = Path(shutil.copytree(base.model, tmp_path / "copy"))
    next((copy / "unet").glob("*.safetensors")).write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        one.open_denoiser(base.model_copy(update={"model": str(copy)}), "cpu", "float32")


def test_another_autoencoder_takes_the_place_of_the_models_own(of_family, tiny, tmp_path):
    one, base = of_family
    other = BaseSettings(family=base.family, model=base.model, vae=str(tiny.build(tmp_path / "other", seed=5) / "vae"))
    one.check(other)
    assert one.digest(other, "pictures") != one.digest(base, "pictures")
    assert one.digest(other, "denoiser") == one.digest(base, "denoiser")
    own, its = (one.open_pictures(which, "cpu", "float32").encode(pictures()) for which in (base, other))
    assert not torch.allclose(own, its, atol=0.01)
    assert not (drawn(one.pipeline(base, "cpu", "float32")) == drawn(one.pipeline(other, "cpu", "float32"))).all()


def test_the_kind_of_prediction_is_the_schedulers(tiny, tmp_path):
    base = BaseSettings(model=str(tiny.build(tmp_path / "v", prediction_type="v_prediction")))
    assert family("sd15").noise(base).kind == "v_prediction"
    scheduler = tmp_path / "v" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("v_prediction", "sample"))
    with pytest.raises(ModelError, match="prediction_type is 'sample'"):
        family("sd15").noise(base)
