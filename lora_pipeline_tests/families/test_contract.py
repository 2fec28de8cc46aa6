"""What every family must do, tried on a random-weight model of its real classes."""

import json
import shutil
import struct
from pathlib import Path

import pytest

from lora_pipeline.errors import ModelError, TrainingError
from lora_pipeline.families import FAMILIES, family
from lora_pipeline.settings import BaseSettings
from lora_pipeline.stages.fit import adapter
from lora_pipeline.stages.fit.order import Look

torch = pytest.importorskip("torch")
WORDS = ("a photo", "a red house by the sea, seen from far away")
BOTH = (Look(0, mirrored=False), Look(1, mirrored=False))


@pytest.fixture(scope="module")
def bases():
    """The small base of each family that was built."""
    return {}


@pytest.fixture(params=FAMILIES)
def of_family(request, tiny, bases, tmp_path_factory):
    """A family and the settings of its small base."""
    name = request.param
    if name not in bases:
        bases[name] = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path_factory.mktemp(name))))
    return family(name), bases[name]


def conditioning_of(one, base, texts):
    told = one.open_texts(base, "cpu", "float32").encode(texts)
    return {name: torch.stack([text[name] for text in told]) for name in told[0]}


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


def drawn(one, pipeline):
    import numpy as np

    picture = pipeline(
        prompt=["a photo"],
        width=64,
        height=64,
        num_inference_steps=3,
        generator=[torch.Generator().manual_seed(3)],
        output_type="np",
        **one.guided(2.0, ["grey"]),
    ).images[0]
    return np.asarray(picture)


def test_a_whole_base_passes_its_check(of_family):
    one, base = of_family
    one.check(base)


def test_another_familys_base_is_refused_by_name(of_family):
    one, base = of_family
    other = next(name for name in FAMILIES if name != one.name)
    with pytest.raises(ModelError, match=f"needs a {family(other).pipeline_class}"):
        family(other).check(base)


def test_a_missing_part_is_named(of_family, tmp_path):
    one, base = of_family
    for folder in one.folders["whole"]:
        copy = Path(shutil.copytree(base.model, tmp_path / folder))
        shutil.rmtree(copy / folder)
        with pytest.raises(ModelError, match=f"missing: .*{folder}/"):
            one.check(base.model_copy(update={"model": str(copy)}))


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
    texts = encoder.encode(WORDS)
    again = [*encoder.encode(WORDS[1:]), *one.open_texts(base, "cpu", "float32").encode(WORDS[:1])][::-1]
    for first, second in zip(texts, again, strict=True):  # whatever it was encoded with
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert {tensor.dtype for tensor in first.values()} == {torch.float32}
    conditioning = {name: torch.stack([text[name] for text in texts]) for name in texts[0]}
    assert encoder.cut_tokens("a") == 0
    assert encoder.cut_tokens("a " * 2000) > 0
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
    for alpha, sigma in zip(schedule.alphas, schedule.sigmas, strict=True):
        assert (alpha + sigma if schedule.kind == "flow" else alpha**2 + sigma**2) == pytest.approx(1)


@pytest.mark.parametrize("timestep", [10, 500, 980])
def test_from_the_target_the_stock_scheduler_steps_back_to_the_latents(of_family, timestep):
    from lora_pipeline.stages.fit.loss import noisy_latents, target_of

    one, base = of_family
    schedule = one.noise(base)
    generator = torch.Generator().manual_seed(timestep)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator).unbind()
    alpha, sigma = (torch.tensor([numbers[timestep]]) for numbers in (schedule.alphas, schedule.sigmas))
    noisy = noisy_latents(latents, noise, alpha, sigma)
    target = target_of(schedule.kind, latents, noise, alpha, sigma)
    scheduler = one.pipeline(base, "cpu", "float32").scheduler
    if schedule.kind == "flow":
        scheduler.set_shift(1.0)
        scheduler.set_timesteps(sigmas=[float(sigma)], mu=0.0)  # one step, from here to no noise at all
        assert float(scheduler.timesteps[0]) == pytest.approx(timestep + 1)
        back = scheduler.step(target, scheduler.timesteps[0], noisy)[0]
    else:
        scheduler.set_timesteps(1000)
        back = scheduler.step(target, timestep, noisy).pred_original_sample
    assert torch.allclose(back, latents, atol=1e-3)


def test_predict_tells_the_denoiser_what_the_stock_pipeline_tells_it(of_family):
    """One step of drawing, overheard: what goes into the denoiser, and what comes out for the scheduler."""
    one, base = of_family
    module = one.open_denoiser(base, "cpu", "float32").eval()
    pipeline = one.pipeline(base, "cpu", "float32", module)
    heard, answers, times = [], [], []
    module.register_forward_hook(
        lambda _, given, named, __: heard.append(all_tensors([given, named])), with_kwargs=True
    )
    step = pipeline.scheduler.step

    def overheard(answer, timestep, *more, **named):
        answers.append(answer)
        times.append(float(timestep))
        return step(answer, timestep, *more, **named)

    pipeline.scheduler.step = overheard
    pipeline(
        prompt=["a photo"],
        width=64,
        height=96,
        num_inference_steps=1,
        generator=[torch.Generator().manual_seed(3)],
        output_type="latent",
        **one.guided(1.0, []),
    )
    shape = one.open_pictures(base, "cpu", "float32").encode(pictures(1, 64, 96)).shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    flow = one.noise(base).kind == "flow"
    timestep = torch.tensor([round(times[0]) - (1 if flow else 0)])
    with torch.no_grad():
        answer = one.predict(module, noise, timestep, conditioning_of(one, base, ["a photo"]))
    assert len(heard) == 2
    assert len(heard[0]) == len(heard[1])
    for stock, ours in zip(*heard, strict=True):
        assert stock.shape == ours.shape
        assert torch.allclose(stock.float(), ours.float(), atol=1e-5)
    # The scheduler may be given its numbers in another order (packed); the next test is about the order.
    assert torch.allclose(answers[0].float().flatten().sort().values, answer.flatten().sort().values, atol=1e-5)


def test_latents_are_scaled_as_the_stock_pipeline_decodes_them(of_family):
    """A picture's own latents in place of what the last step of drawing gives: the pipeline shows the picture as the autoencoder has it."""
    one, base = of_family
    picture = pictures(1, 64, 96)
    ours = one.open_pictures(base, "cpu", "float32").encode(picture)
    noise = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3))
    pipeline = one.pipeline(base, "cpu", "float32")

    def last_step(_, __, sample, **___):
        """Our latents in the order in which the pipeline keeps its own, which the known noise in it tells."""
        latents = torch.empty_like(sample).flatten()
        latents[sample.flatten().argsort()] = ours.flatten()[noise.flatten().argsort()]
        return (latents.reshape(sample.shape),)

    pipeline.scheduler.step = last_step
    shown = pipeline(
        prompt=["a photo"],
        width=64,
        height=96,
        num_inference_steps=1,
        generator=[torch.Generator().manual_seed(3)],
        output_type="pt",
        **one.guided(1.0, []),
    ).images
    video = one.vae_class == "AutoencoderKLQwenImage"
    with torch.no_grad():
        mean = pipeline.vae.encode(picture[:, :, None] if video else picture).latent_dist.mode()
        wanted = pipeline.vae.decode(mean, return_dict=False)[0]
    wanted = ((wanted[:, :, 0] if video else wanted) / 2 + 0.5).clamp(0, 1)
    assert wanted.std() > 1e-3
    assert torch.allclose(shown, wanted, atol=1e-4)


def all_tensors(given):
    """The tensors in what a module was called with, in order of their names; numbers as tensors too."""
    if isinstance(given, dict):
        return [one for name in sorted(given) for one in all_tensors(given[name])]
    if isinstance(given, list | tuple):
        return [one for part in given for one in all_tensors(part)]
    return [torch.atleast_1d(given)] if isinstance(given, torch.Tensor) else []


def test_an_answer_stands_where_its_latent_stood(of_family, monkeypatch):
    """A denoiser that answers with what it was given: predict gives the noisy latents back, up to a sign."""
    one, base = of_family
    module = one.open_denoiser(base, "cpu", "float32")
    shape = one.open_pictures(base, "cpu", "float32").encode(pictures(2, 64, 96)).shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(3))

    def echo(*given, **named):
        return (given[0] if given else named["hidden_states"],)

    monkeypatch.setattr(module, "forward", echo)
    answer = one.predict(module, noise, torch.tensor([1, 500]), conditioning_of(one, base, WORDS))
    assert torch.equal(answer, noise) or torch.equal(answer, -noise)


def trainer_of(one, base, device="cpu", **changes):
    """A trainer on two pictures and their captions."""
    from lora_pipeline.records import Example
    from lora_pipeline.settings import FitSettings
    from lora_pipeline.stages.fit.trainer import Cached, Trainer

    latents = one.open_pictures(base, "cpu", "float32").encode(pictures())
    latents = latents / latents.std()  # random weights give latents of any size; a real autoencoder's are scaled to 1
    texts = one.open_texts(base, "cpu", "float32").encode(WORDS)
    framing = torch.tensor([96.0, 80.0, 8.0, 0.0, 64.0, 64.0])
    examples = [
        Cached(
            name,
            Example(name, (64, 64), 10, words, 0.0),
            (latents[at],),
            (torch.ones(1, *latents.shape[2:]),),
            {**texts[at], "framing": framing},
        )
        for at, (name, words) in enumerate(zip("ab", WORDS, strict=True))
    ]
    settings = FitSettings(
        epochs=4, batch_size=2, network_dim=8, network_alpha=8, unet_lr=1e-2, lr_scheduler="constant", min_snr_gamma=0
    )
    return Trainer(examples, one, base, settings.model_copy(update=changes), device)


def test_it_learns_two_pictures_and_the_stock_pipeline_draws_what_was_learnt(of_family, tmp_path):
    import numpy as np

    one, base = of_family
    trainer = trainer_of(one, base)

    def held_out():
        """Mean loss over noise and timesteps that training does not draw."""
        with torch.no_grad():
            seen, losses = trainer.images_seen, []
            for at in range(16):
                trainer.images_seen = 10_000 + 2 * at
                losses.append(float(trainer.loss(BOTH)))
            trainer.images_seen = seen
        return sum(losses) / len(losses)

    before = held_out()
    assert len(list(trainer.steps())) == 40
    after = held_out()
    print(f"{one.name}: held-out loss {before:.4f} before, {after:.4f} after 40 steps")
    assert after < 0.95 * before

    trained = drawn(one, one.pipeline(base, "cpu", "float32", trainer.module.eval()))
    one.save_lora(trainer.module, tmp_path / "lora.safetensors", {})
    pipeline = one.pipeline(base, "cpu", "float32")
    plain = drawn(one, pipeline)
    pipeline.load_lora_weights(str(tmp_path / "lora.safetensors"))
    assert np.abs(trained - drawn(one, pipeline)).max() < 1e-5
    assert np.abs(trained - plain).max() > 1e-3


def test_checkpointing_and_bf16_change_a_step_by_no_more_than_their_rounding(of_family):
    one, base = of_family
    trainers = [
        trainer_of(one, base, **changes)
        for changes in (
            {},
            {"gradient_checkpointing": True},
            {"mixed_precision": "bf16"},
            {"mixed_precision": "bf16", "base_precision": "bf16"},
        )
    ]
    plain, checkpointed, rounded, small = (next(trainer.steps()).loss for trainer in trainers)
    assert checkpointed == pytest.approx(plain, rel=1e-5)
    assert rounded == pytest.approx(plain, rel=0.02)
    assert rounded != plain
    assert small == pytest.approx(plain, rel=0.03)
    kinds = [{name: parameter.dtype for name, parameter in one.module.named_parameters()} for one in trainers]
    assert {kinds[3].pop(name) for name in trainers[3].parameters} == set(kinds[0].values()) == {torch.float32}
    assert set(kinds[3].values()) == {torch.bfloat16}
    with trainers[3].drawing() as module:
        assert drawn(one, one.pipeline(base, "cpu", "float32", module)).std() > 0


def learnt(trainer):
    """A batch's loss, its gradients, and how many bytes were kept for the way back besides weights."""
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = trainer.loss(BOTH)
    loss.backward()
    weights = {weight.untyped_storage().data_ptr() for weight in trainer.module.parameters()}
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept}
    gradients = [one.grad for one in trainer.parameters.values() if one.grad is not None]
    return float(loss.detach()), gradients, sum(size for at, size in storages.items() if at not in weights)


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_what_autocast_casts_alone_has_the_same_bits_and_keeps_less(of_family, monkeypatch, kind):
    one, base = of_family
    changes = {"mixed_precision": "bf16", "base_precision": "bf16", "network_type": kind}
    loss, gradients, kept = learnt(trainer_of(one, base, **changes))
    monkeypatch.setattr(adapter, "leave_casts_to_autocast", lambda _: None)
    pefts_loss, pefts_gradients, pefts_kept = learnt(trainer_of(one, base, **changes))
    assert loss == pefts_loss
    assert len(gradients) == len(pefts_gradients) > 0
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(gradients, pefts_gradients, strict=True))
    # the other families' targets are given mostly float32, of which autocast makes a copy either way; a LoHa keeps none
    assert kept <= (0.95 * pefts_kept if one.name in {"sd15", "flux"} and kind == "lora" else pefts_kept)


def test_all_that_a_step_reads_lies_where_the_denoiser_does(of_family):
    """On torch's "meta", a device of shapes without numbers, which refuses the CPU's tensors as a graphics card does."""
    from torch.fx.experimental import _config as shapes

    one, base = of_family
    if one.name == "qwen_image":
        pytest.skip("it asks its mask's numbers, and meta has none")
    changes = {
        "face_loss_weight": 2.0,
        "loss_type": "huber",
        "huber_schedule": "exponential",
        "noise_offset": 0.1,
        "min_snr_gamma": 5.0,
        "network_dropout": 0.1,
        "text_encoder_lr": 1e-4 if one.trained_texts else 0.0,
    }
    trainer = trainer_of(one, base, device="meta", **changes)
    with shapes.patch(meta_nonzero_assume_all_nonzero=True):  # Z-Image's rows of padding
        loss = trainer.loss(BOTH)
    loss.backward()
    trainer.optimizer.step()
    gradients = [parameter.grad for parameter in trainer.parameters.values() if parameter.grad is not None]
    assert loss.device.type == "meta"
    assert len(gradients) > len(trainer.parameters) // 2
    assert {gradient.device.type for gradient in gradients} == {"meta"}


def test_blocks_that_wait_learn_the_same_to_the_bit_and_are_there_one_at_a_time(of_family, monkeypatch):
    from torch.multiprocessing.reductions import StorageWeakRef

    one, base = of_family
    plain = trainer_of(one, base, gradient_checkpointing=True)
    blocks = one.blocks(plain.module)
    if not blocks:
        with pytest.raises(
            TrainingError, match=r"blocks_to_swap 1: the denoiser has no blocks that could wait: set it to 0"
        ):
            trainer_of(one, base, gradient_checkpointing=True, blocks_to_swap=1)
        return
    with pytest.raises(TrainingError, match=f"blocks_to_swap 99: the denoiser has {len(blocks)} blocks"):
        trainer_of(one, base, gradient_checkpointing=True, blocks_to_swap=99)

    copies: list[tuple[StorageWeakRef, int]] = []
    alive: list[int] = []
    move = torch.Tensor.to

    def moved(tensor, *told, copy=False, **named):
        result = move(tensor, *told, copy=copy, **named)
        if copy:
            copies.append((StorageWeakRef(result.untyped_storage()), result.nbytes))
            alive.append(sum(size for storage, size in copies if not storage.expired()))
        return result

    monkeypatch.setattr(torch.Tensor, "to", moved)
    waiting = trainer_of(one, base, gradient_checkpointing=True, blocks_to_swap=len(blocks))
    assert not copies
    for _, mine, theirs in zip(range(3), waiting.steps(), plain.steps(), strict=False):
        assert (mine.loss, mine.gradient_norm) == (theirs.loss, theirs.gradient_norm)
    for name, learnt in waiting.state()["adapter"].items():
        assert torch.equal(learnt, plain.state()["adapter"][name])
    sizes = [
        sum(weight.nbytes for weight in block.parameters() if not weight.requires_grad)
        for block in one.blocks(waiting.module)
    ]
    assert sum(size for _, size in copies) == 3 * 2 * sum(sizes)  # once ahead, once on the way back
    assert max(alive) < 2 * max(sizes)
    assert all(storage.expired() for storage, _ in copies)
    with waiting.drawing() as module:
        picture = drawn(one, one.pipeline(base, "cpu", "float32", module))
    with plain.drawing() as module:
        other = drawn(one, one.pipeline(base, "cpu", "float32", module))
    assert abs(picture - other).max() < 1e-5


@pytest.mark.parametrize("alpha", [2.0, 4.0, 1.5])
def test_a_saved_lora_draws_the_same_picture_in_the_stock_pipeline(of_family, tmp_path, alpha):
    import numpy as np

    one, base = of_family
    module = inject(one.open_denoiser(base, "cpu", "float32"), one.lora_targets, dim=4, alpha=alpha)
    in_training = drawn(one, one.pipeline(base, "cpu", "float32", module))
    one.save_lora(module, tmp_path / "lora.safetensors", {"epoch": "1"})

    pipeline = one.pipeline(base, "cpu", "float32")
    plain = drawn(one, pipeline)
    pipeline.load_lora_weights(str(tmp_path / "lora.safetensors"))
    loaded = drawn(one, pipeline)
    pipeline.unload_lora_weights()

    assert np.abs(in_training - loaded).max() < 1e-5
    assert np.abs(in_training - plain).max() > 1e-3
    assert np.array_equal(drawn(one, pipeline), plain)


def shaken(module):
    """The LoRA in a module, both of its matrices random."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module


@pytest.mark.parametrize("changes", [{}, {"rank_stabilised": True}], ids=str)
def test_convolutions_get_a_rank_and_an_alpha_of_their_own_that_travel_in_the_file(of_family, tmp_path, changes):
    import numpy as np

    from lora_pipeline.errors import TrainingError
    from lora_pipeline.settings import FitSettings

    one, base = of_family
    settings = FitSettings(network_dim=4, network_alpha=2, network_conv_dim=3, network_conv_alpha=7, **changes)
    if not one.conv_targets:
        with pytest.raises(TrainingError, match=f"network_conv_dim is for convolutions.*{one.name}"):
            adapter.targets_of(one, settings)
        return
    module = shaken(trainer_of(one, base, **settings.model_dump(exclude_unset=True)).module).eval()
    root = 2.0, 3**0.5
    wide, narrow = (7 / 3 * root[1], 2 / 4 * root[0]) if changes else (7 / 3, 2 / 4)
    reached = {name: layer for name, layer in module.named_modules() if hasattr(layer, "lora_A")}
    untouched = one.open_denoiser(base, "cpu", "float32")
    within = ("ResnetBlock2D", "Downsample2D", "Upsample2D", "Transformer2DModel")
    wanted = {
        f"{name}.{inner}"
        for name, block in untouched.named_modules()
        if type(block).__name__ in within
        for inner, layer in block.named_modules()
        if type(layer) in {torch.nn.Linear, torch.nn.Conv2d}
    }
    assert set(reached) == wanted  # as sd-scripts, by the blocks' classes
    for name, layer in reached.items():
        large = max(getattr(layer.base_layer, "kernel_size", (1,))) > 1
        assert layer.r["default"] == (3 if large else 4), name
        assert layer.scaling["default"] == pytest.approx(wide if large else narrow), name
    assert sum(layer.r["default"] == 3 for layer in reached.values()) > 5
    in_training = drawn(one, one.pipeline(base, "cpu", "float32", module))
    one.save_lora(module, tmp_path / "lora.safetensors", {})
    pipeline = one.pipeline(base, "cpu", "float32")
    plain = drawn(one, pipeline)
    pipeline.load_lora_weights(str(tmp_path / "lora.safetensors"))
    assert np.abs(in_training - drawn(one, pipeline)).max() < 1e-5
    assert np.abs(in_training - plain).max() > 1e-3


def test_a_dora_is_drawn_by_the_stock_pipeline_as_it_was_trained(of_family, tmp_path):
    import numpy as np

    one, base = of_family
    changes = {"network_type": "dora", "network_dim": 4, "network_alpha": 3.0}
    if one.conv_targets:
        changes |= {"network_conv_dim": 2, "network_conv_alpha": 1.0}
    trainer = trainer_of(one, base, **changes)
    before = {name: value.detach().clone() for name, value in trainer.parameters.items() if "magnitude" in name}
    next(trainer.steps())
    assert before
    assert any(not torch.equal(before[name], trainer.parameters[name]) for name in before)  # it is learnt
    module = shaken(trainer.module).eval()
    in_training = drawn(one, one.pipeline(base, "cpu", "float32", module))
    one.save_lora(module, tmp_path / "lora.safetensors", {})
    pipeline = one.pipeline(base, "cpu", "float32")
    plain = drawn(one, pipeline)
    pipeline.load_lora_weights(str(tmp_path / "lora.safetensors"))
    assert np.abs(in_training - drawn(one, pipeline)).max() < 1e-5
    assert np.abs(in_training - plain).max() > 1e-3


@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_a_lokr_or_loha_is_drawn_as_it_was_trained(of_family, tmp_path, kind):
    """By the family, through peft; and a LoKr by diffusers too: everywhere by its denoiser's loader, and by the pipeline's where that knows them."""
    import numpy as np
    from safetensors.torch import load_file

    one, base = of_family
    changes = {"network_type": kind, "network_dim": 3, "network_alpha": 2.0, "network_factor": 4}
    if one.conv_targets:
        changes |= {"network_conv_dim": 2, "network_conv_alpha": 1.0}
    trainer = trainer_of(one, base, **changes)
    before = {name: value.detach().clone() for name, value in trainer.parameters.items()}
    next(trainer.steps())
    assert any(not torch.equal(before[name], trainer.parameters[name]) for name in before)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    with trainer.drawing() as module:
        in_training = drawn(one, one.pipeline(base, "cpu", "float32", module))
    one.save_lora(trainer.module, tmp_path / "lora.safetensors", {})
    pipeline = one.pipeline(base, "cpu", "float32")
    plain = drawn(one, pipeline)
    one.load_lora(pipeline, tmp_path / "lora.safetensors")
    assert np.abs(in_training - drawn(one, pipeline)).max() < 1e-5
    assert np.abs(in_training - plain).max() > 1e-3
    one.set_strength(pipeline, 0.0)
    assert np.abs(drawn(one, pipeline) - plain).max() < 1e-5
    one.set_strength(pipeline, 1.0)
    assert np.abs(in_training - drawn(one, pipeline)).max() < 1e-5
    pipeline.unload_lora_weights()
    assert np.array_equal(drawn(one, pipeline), plain)

    denoiser, by_pipeline = getattr(pipeline, one.denoiser_folder), one.name in {"flux2_klein", "z_image"}
    if kind == "lokr":
        told = {"weight_name": "lora.safetensors", "prefix": one.denoiser_folder}
        load = pipeline.load_lora_weights if by_pipeline else denoiser.load_lora_adapter
        load(str(tmp_path), **({"weight_name": "lora.safetensors"} if by_pipeline else told))
        assert np.abs(in_training - drawn(one, pipeline)).max() < 1e-5
        pipeline.unload_lora_weights()
    if kind == "loha" or not by_pipeline:
        assert not pipeline_loads(pipeline, load_file(tmp_path / "lora.safetensors"))


def pipeline_loads(pipeline, tensors):
    """Whether `load_lora_weights` of the stock pipeline takes these at all."""
    try:
        pipeline.load_lora_weights(tensors)
    except (ValueError, KeyError, IndexError):
        return False
    return True


@pytest.mark.parametrize("name", ["flux", "sd35"])  # autocast of a CPU has no norms for what a U-Net gives them there
@pytest.mark.parametrize("format", ["int8", "nf4"])
def test_a_base_held_by_bitsandbytes_trains(tiny, tmp_path, monkeypatch, name, format):
    """On the CPU, for which bitsandbytes has kernels; diffusers' loader asks for a graphics card first, and is not asked here."""
    from diffusers.quantizers.bitsandbytes import bnb_quantizer

    from lora_pipeline.stages.fit.trainer import Trainer

    one = family(name)
    base = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path / "base")))
    how = {"base_precision": format, "mixed_precision": "bf16"}
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match=f"base_precision.*{format}.*graphics card"):
            trainer_of(one, base, **how)
    plain = next(trainer_of(one, base).steps()).loss
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)
    trainer: Trainer = trainer_of(one, base, **how)
    held = {str(parameter.dtype) for parameter in trainer.module.parameters()}
    assert {"torch.uint8" if format == "nf4" else "torch.int8", "torch.float32"} <= held
    assert {parameter.dtype for parameter in trainer.parameters.values()} == {torch.float32}
    assert next(trainer.steps()).loss == pytest.approx(plain, rel=0.2 if format == "nf4" else 0.05)
    one.save_lora(trainer.module, tmp_path / "lora.safetensors", {})
    one.load_lora(one.pipeline(base, "cpu", "float32"), tmp_path / "lora.safetensors")
    if format == "int8":  # bitsandbytes' own way to draw in nf4 on a CPU wants layers wider than these
        with trainer.drawing() as module:
            assert drawn(one, one.pipeline(base, "cpu", "float32", module)).std() > 0
        lokr = trainer_of(one, base, **how, network_type="lokr", network_dim=2, network_factor=4)
        assert next(lokr.steps()).loss == pytest.approx(plain, rel=0.05)


def test_text_encoders_learn_too_where_the_family_says_so(of_family, tmp_path):
    """Every linear layer of their attention and feed-forward, as sd-scripts; the stock pipeline draws what they have learnt."""
    import numpy as np
    from safetensors.torch import load_file, save_file

    from lora_pipeline.errors import TrainingError
    from lora_pipeline.families.lora_file import read_metadata

    one, base = of_family
    changes = {"text_encoder_lr": 1e-2, "network_dim": 4, "network_alpha": 3.0}
    if not one.text_targets:
        with pytest.raises(
            TrainingError, match=rf"fit\.text_encoder_lr 0\.01: the text encoders of {one.name} .* set it to 0"
        ):
            trainer_of(one, base, **changes)
        assert not one.trained_texts
        return
    trainer, frozen = trainer_of(one, base, **changes), trainer_of(one, base)
    reached = {
        f"{folder}.{name}"
        for folder, encoder in trainer.encoders.items()
        for name, layer in encoder.named_modules()
        if hasattr(layer, "lora_A")
    }
    untouched = one.open_trained_texts(base).encoders
    assert set(one.trained_texts) == set(untouched)
    assert reached == {
        f"{folder}.{name}.{inner}"
        for folder, encoder in untouched.items()
        for name, block in encoder.named_modules()
        if type(block).__name__ in {"CLIPAttention", "CLIPMLP"}
        for inner, layer in block.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    steps = trainer.steps()
    assert next(steps).loss == pytest.approx(next(frozen.steps()).loss, rel=1e-5)  # a new LoRA changes nothing
    last = [next(steps) for _ in range(5)][-1]
    assert last.step == 6
    for module in (trainer.module, *trainer.encoders.values()):
        shaken(module)
    trainer.train(learning=False)
    in_training = drawn(one, one.pipeline(base, "cpu", "float32", trainer.module, trainer.encoders))
    file = tmp_path / "lora.safetensors"
    one.save_lora(trainer.module, file, {}, trainer.encoders)
    tensors = load_file(file)
    denoiser = {name: tensor for name, tensor in tensors.items() if name.startswith(one.denoiser_folder)}
    save_file(denoiser, tmp_path / "denoiser.safetensors", read_metadata(file))
    assert all(".text_model.encoder.layers." in name for name in tensors.keys() - denoiser.keys())
    pipeline = one.pipeline(base, "cpu", "float32")
    plain = drawn(one, pipeline)
    pipeline.load_lora_weights(str(file))
    assert np.abs(in_training - drawn(one, pipeline)).max() < 1e-5
    pipeline.unload_lora_weights()
    assert np.array_equal(drawn(one, pipeline), plain)
    pipeline.load_lora_weights(str(tmp_path / "denoiser.safetensors"))
    assert np.abs(in_training - drawn(one, pipeline)).max() > 1e-3  # the text encoders' part is seen


def test_texts_in_their_graph_are_those_that_were_cached(of_family):
    one, base = of_family
    if not one.text_targets:
        return
    encoder = one.open_trained_texts(base)
    for module in encoder.encoders.values():
        module.requires_grad_(True)
    together = encoder.with_graph(WORDS)
    cached = conditioning_of(one, base, WORDS)
    assert (cached.keys() - together.keys()) if encoder.partial else (cached.keys() == together.keys())
    assert together.keys() - cached.keys() <= {
        "clip_hidden_states"
    }  # the cache has SD 3.5's at the head of `encoder_hidden_states`
    assert all(torch.allclose(cached[name], together[name], atol=1e-5) for name in cached.keys() & together.keys())
    assert all(tensor.requires_grad for tensor in together.values())
    module = one.open_denoiser(base, "cpu", "float32")
    latents = one.open_pictures(base, "cpu", "float32").encode(pictures(len(WORDS)))
    before, now = (one.predict(module, latents, torch.tensor([3, 900]), {**cached, **new}) for new in ({}, together))
    assert torch.allclose(before, now, atol=1e-5)
    slopes = torch.autograd.grad(now.square().sum(), list(together.values()))
    assert all(slope.any() for slope in slopes)  # the denoiser hears all of it


@pytest.mark.parametrize("rates", [(2e-3, 5e-4), (0.0, 5e-4), (2e-3, 0.0)])
def test_each_text_encoder_learns_at_its_own_rate(tiny, tmp_path, rates):
    """AdamW's first update is the rate, up or down."""
    one, base = family("sdxl"), BaseSettings(family="sdxl", model=str(tiny.build_sdxl(tmp_path)))
    changes = {"text_encoder_lr": rates[0], "text_encoder_2_lr": rates[1], "weight_decay": 0}
    trainer = trainer_of(one, base, **changes)
    before = {name: one.detach().clone() for name, one in trainer.parameters.items()}
    next(trainer.steps())
    for folder, rate in zip(("text_encoder", "text_encoder_2"), rates, strict=True):
        names = [name for name in before if name.startswith(f"{folder}.") and ".lora_B." in name]
        assert bool(names) == (folder in trainer.encoders) == bool(rate)
        moved = [float((trainer.parameters[name].detach() - before[name]).abs().max()) for name in names]
        assert all(by in (0, pytest.approx(rate, rel=1e-2)) for by in moved)  # 0: a layer that is not read
        assert any(moved) == bool(rate)
    one.save_lora(trainer.module, tmp_path / "lora.safetensors", {}, trainer.encoders)
    drawn(one, one.pipeline(base, "cpu", "float32", trainer.module, trainer.encoders))


def test_a_caption_that_is_left_out_is_left_out_of_the_text_encoders_that_are_not_trained_too(tiny, tmp_path):
    """FLUX.1's T5 is read from the cache only as long as the caption is the one that stands there."""
    one, base = family("flux"), BaseSettings(family="flux", model=str(tiny.build_flux(tmp_path)))
    for rate, words in ((0.0, WORDS[:1]), (1.0, [""])):
        trainer = trainer_of(one, base, text_encoder_lr=1e-3, caption_dropout_rate=rate)
        (told,) = trainer._told(trainer.examples[:1], 0)
        (wanted,) = one.open_texts(base, "cpu", "float32").encode(words)
        assert all(torch.allclose(told[name], wanted[name], atol=1e-5) for name in wanted)


def test_a_second_text_encoder_that_is_not_there_has_no_rate():
    from lora_pipeline.errors import TrainingError
    from lora_pipeline.settings import FitSettings
    from lora_pipeline.stages.fit.adapter import text_targets_of

    with pytest.raises(TrainingError, match=r"fit\.text_encoder_2_lr 0\.001: sd15 has no second .* leave it empty"):
        text_targets_of(family("sd15"), FitSettings(text_encoder_2_lr=1e-3))


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_reads_the_layer_that_sd_scripts_reads(tiny, tmp_path, skip):
    """Layer −skip through the last norm (`SdTextEncodingStrategy`), for captions and, of both prompts, for pictures."""
    import numpy as np
    from diffusers import StableDiffusionPipeline

    one, base = family("sd15"), BaseSettings(family="sd15", model=str(tiny.build(tmp_path)), clip_skip=skip)
    stock = StableDiffusionPipeline.from_pretrained(base.model)
    texts = ("grey", WORDS[1])
    tokens = stock.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
    clip = getattr(stock.text_encoder, "text_model", stock.text_encoder)
    with torch.no_grad():
        layers = stock.text_encoder(tokens, output_hidden_states=True).hidden_states
        wanted = clip.final_layer_norm(layers[-skip])
    for told, states in zip(one.open_texts(base, "cpu", "float32").encode(texts), wanted, strict=True):
        assert torch.allclose(told["encoder_hidden_states"], states, atol=1e-5)

    def picture(pipeline, **prompts):
        how = {"num_inference_steps": 2, "width": 64, "height": 64, "output_type": "np"}
        return np.asarray(pipeline(generator=torch.Generator().manual_seed(3), **how, **prompts).images[0])

    ours = picture(one.pipeline(base, "cpu", "float32"), prompt=texts[1], negative_prompt=texts[0])
    theirs = picture(stock, prompt_embeds=wanted[1:], negative_prompt_embeds=wanted[:1])
    plain = picture(stock, prompt=texts[1], negative_prompt=texts[0])
    assert np.abs(theirs - ours).max() < 1e-5
    assert (np.abs(plain - ours).max() > 1e-3) == (skip == 2)


def test_clip_skip_is_of_what_reads_texts_and_of_no_other_part(of_family):
    one, base = of_family
    skipping = base.model_copy(update={"clip_skip": 2})
    parts = ("whole", "pictures", "texts", "denoiser")
    moved = {part for part in parts if one.digest(base, part) != one.digest(skipping, part)}
    assert moved == {"whole", "texts"}
    if one.name != "sd15":
        with pytest.raises(ModelError, match=rf"base\.clip_skip 2: the denoiser of {one.name} .* set it to 1"):
            one.check(skipping)
        return
    one.check(skipping)
    with pytest.raises(ModelError, match=r"clip_skip 3: the text encoder of .* has 2 layers: set it to 1 to 2"):
        one.check(base.model_copy(update={"clip_skip": 3}))


def test_validation_pictures_are_drawn_through_it(of_family, tmp_path):
    """As `grade` draws: several prompts at once, a picture from its own seed, guidance and negative prompt in the pipeline's words."""
    from PIL import ImageChops

    from lora_pipeline.settings import GradeSettings
    from lora_pipeline.stages.grade.draw import Wanted, through

    one, base = of_family
    module = inject(one.open_denoiser(base, "cpu", "float32"), one.lora_targets, dim=4, alpha=8)
    one.save_lora(module, tmp_path / "lora.safetensors", {})
    draw = through(
        base, GradeSettings(sampling_steps=2, guidance_scale=3.0, negative_prompt="grey", size_px=64), at_once=2
    )
    wanted = [Wanted(WORDS[0], 1), Wanted(WORDS[1], 2)]
    plain, again = draw(None, wanted), draw(None, wanted[::-1])[::-1]
    learnt = draw(tmp_path / "lora.safetensors", wanted)
    half, none = (
        draw(tmp_path / "lora.safetensors", [Wanted(each.prompt, each.seed, strength) for each in wanted])
        for strength in (0.5, 0.0)
    )
    for first, second, third, fourth, fifth in zip(plain, again, learnt, half, none, strict=True):
        assert first is not None
        assert first.size == (64, 64)
        assert max(high for _, high in ImageChops.difference(first, second).getextrema()) <= 1
        assert len({first.tobytes(), third.tobytes(), fourth.tobytes()}) == 3
        assert max(high for _, high in ImageChops.difference(first, fifth).getextrema()) <= 1


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
    next((copy / one.folders["denoiser"][0]).glob("*.safetensors")).write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be loaded"):
        one.open_denoiser(base.model_copy(update={"model": str(copy)}), "cpu", "float32")


def test_another_autoencoder_takes_the_place_of_the_models_own(of_family, tiny, tmp_path):
    one, base = of_family
    other = BaseSettings(
        family=base.family, model=base.model, vae=str(tiny.BUILD[one.name](tmp_path / "other", seed=5) / "vae")
    )
    one.check(other)
    assert one.digest(other, "pictures") != one.digest(base, "pictures")
    assert one.digest(other, "denoiser") == one.digest(base, "denoiser")
    own, its = (one.open_pictures(which, "cpu", "float32").encode(pictures()) for which in (base, other))
    assert not torch.allclose(own, its, atol=0.01)
    assert not (
        drawn(one, one.pipeline(base, "cpu", "float32")) == drawn(one, one.pipeline(other, "cpu", "float32"))
    ).all()


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_kind_of_prediction_is_the_schedulers(tiny, tmp_path, name):
    one = family(name)
    base = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path / "v", prediction_type="v_prediction")))
    assert one.noise(base).kind == "v_prediction"
    scheduler = tmp_path / "v" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("v_prediction", "sample"))
    with pytest.raises(ModelError, match="prediction_type is 'sample'"):
        one.noise(base)


@pytest.mark.parametrize(("name", "shift"), [("sdxl", 1.0), ("flux", 1.0), ("sd35", 3.0), ("z_image", 3.0)])
def test_a_flows_shift_is_its_schedulers_unless_that_depends_on_the_pictures_size(tiny, tmp_path, name, shift):
    base = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path / "base")))
    assert family(name).noise(base).shift == shift


@pytest.mark.parametrize("name", ["flux", "sd35", "flux2_klein", "z_image", "qwen_image"])
def test_a_picture_that_is_no_whole_number_of_patches_is_told(tiny, tmp_path, name):
    one = family(name)
    base = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path / "base")))
    encoder = one.open_pictures(base, "cpu", "float32")
    with pytest.raises(ModelError, match=r"72 × 64 px .* multiples of 16 px.*encode\.bucket_step_px"):
        encoder.encode(pictures(1, 72, 64))


def test_one_file_is_refused_where_it_holds_the_denoiser_alone(tmp_path):
    file = tmp_path / "flux.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match="diffusers folder or a hub id"):
        family("flux").check(BaseSettings(family="flux", model=str(file)))


def test_sdxl_is_told_how_a_picture_was_framed(tiny, tmp_path):
    one = family("sdxl")
    base = BaseSettings(family="sdxl", model=str(tiny.build_sdxl(tmp_path / "base")))
    module, told = one.open_denoiser(base, "cpu", "float32"), conditioning_of(one, base, ["a photo"])
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
    cut = torch.tensor([[64.0, 64, 32, 0, 64, 64]])
    absent, uncut, cut_off = (
        one.predict(module, noise, torch.tensor([5]), {**told, **more})
        for more in ({}, {"framing": whole}, {"framing": cut})
    )
    assert torch.equal(absent, uncut)
    assert not torch.allclose(uncut, cut_off, atol=1e-4)
