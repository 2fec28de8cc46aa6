"""The step: it learns, resumes to the bit, stops before harm, and its losses are those written down."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lora_pipeline.errors import TrainingError
from lora_pipeline.families import NoiseSchedule, family
from lora_pipeline.manifest import Manifest
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.captions import caption_of
from lora_pipeline.stages.fit.group import Group
from lora_pipeline.stages.fit.noise import draw
from lora_pipeline.stages.fit.order import Look, batches
from lora_pipeline.stages.fit.trainer import Trainer, read_cached

torch = pytest.importorskip("torch")
GOLDEN = Path(__file__).with_name("golden_losses.json")
SETTINGS = FitSettings(
    epochs=4,
    batch_size=2,
    network_dim=4,
    network_alpha=2,
    unet_lr=1e-3,
    noise_offset=0.05,
    lr_warmup_steps=2,
    max_grad_norm=0.5,
)


def trainer_of(training_set, base, settings=SETTINGS):
    return Trainer(read_cached(training_set), family(base.family), base, settings, "cpu")


def take(trainer, count):
    steps = trainer.steps()
    return [next(steps) for _ in range(count)]


def same(one, other):
    return one["step"] == other["step"] and all(
        torch.equal(one["adapter"][name], other["adapter"][name]) for name in one["adapter"]
    )


@pytest.fixture
def training_set(tmp_path, make_training_set):
    return make_training_set(tmp_path / "set", pictures=5, repeats=1, mirrored=True, buckets=((64, 64), (96, 32)))


def test_how_a_picture_was_framed_is_told_with_its_caption(tmp_path, make_training_set):
    framing = [96.0, 80.0, 8.0, 0.0, 64.0, 64.0]
    (first, *_) = read_cached(make_training_set(tmp_path / "framed", framing=framing))
    assert first.conditioning["framing"].tolist() == framing
    assert "framing" not in read_cached(make_training_set(tmp_path / "unframed"))[0].conditioning


def test_a_caption_that_is_left_out_leaves_the_framing(tmp_path, make_training_set, tiny_base):
    framing = [96.0, 80.0, 8.0, 0.0, 64.0, 64.0]
    settings = SETTINGS.model_copy(update={"caption_dropout_rate": 1.0})
    trainer = trainer_of(make_training_set(tmp_path / "framed", framing=framing), tiny_base, settings)
    (told,) = trainer._told(trainer.examples[:1], images_seen=0)
    assert told["framing"].tolist() == framing
    assert not torch.equal(told["encoder_hidden_states"], trainer.examples[0].conditioning["encoder_hidden_states"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": True},
        {"mixed_precision": "bf16"},
        {"gradient_accumulation_steps": 2},
        {"caption_dropout_rate": 0.5},
        {"network_dropout": 0.3},
        {"optimizer_type": "AdamW8bit"},
        {"optimizer_type": "Adafactor"},
        {"network_type": "lokr", "network_dim": 2, "network_factor": 4},
        {"network_type": "loha"},
        {"base_precision": "bf16", "mixed_precision": "bf16"},
        {"text_encoder_lr": 5e-4, "network_dropout": 0.3, "caption_dropout_rate": 0.5},
        {"text_encoder_lr": 5e-4, "base_precision": "bf16", "mixed_precision": "bf16"},
    ],
    ids=str,
)
def test_ten_steps_equal_five_a_stop_and_five_more_to_the_bit(training_set, tiny_base, tmp_path, changes):
    settings = SETTINGS.model_copy(update={**changes, "epochs": 5})  # 2 or 3 steps an epoch
    straight = trainer_of(training_set, tiny_base, settings)
    losses = [(report.loss, report.smoothed_loss, report.gradient_norm) for report in take(straight, 10)]
    first = trainer_of(training_set, tiny_base, settings)
    resumed = [(report.loss, report.smoothed_loss, report.gradient_norm) for report in take(first, 5)]
    torch.save(first.state(), tmp_path / "state.pt")
    second = trainer_of(training_set, tiny_base, settings)
    second.resume(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed += [(report.loss, report.smoothed_loss, report.gradient_norm) for report in take(second, 5)]
    assert resumed == losses
    assert same(second.state(), straight.state())
    assert len(set(losses)) == 10


@pytest.mark.parametrize("stop", [3, 4, 6, 11])
def test_a_resumed_course_with_restarts_goes_on_at_the_rate_it_had(training_set, tiny_base, stop):
    """4 epochs of 5 pictures and 4 cycles: 3 and 6 are the first steps of a cycle, where sd-scripts#141 landed on rate 0."""
    settings = SETTINGS.model_copy(
        update={"lr_scheduler": "cosine_with_restarts", "lr_scheduler_num_cycles": 4, "lr_warmup_steps": 0}
    )
    straight = [report.learning_rate for report in trainer_of(training_set, tiny_base, settings).steps()]
    assert straight[0] == straight[3] == straight[6] == settings.unet_lr
    first = trainer_of(training_set, tiny_base, settings)
    take(first, stop)
    second = trainer_of(training_set, tiny_base, settings)
    second.resume(first.state())
    told = [report.learning_rate for report in second.steps()]
    assert told == straight[stop:]
    assert min(told) > 0


def test_the_clock_counts_images(training_set, tiny_base):
    reports = list(trainer_of(training_set, tiny_base).steps())
    assert [report.step for report in reports] == list(range(1, 4 * 3 + 1))  # 3 squares and 2 wide ones: 2 + 1 batches
    assert [report.images_seen for report in reports if report.step % 3 == 0] == [5, 10, 15, 20]
    assert [report.epoch for report in reports] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert sorted(name for report in reports[:3] for name in report.pictures) == sorted(
        row.id for row in training_set.kept
    )
    assert reports[0].learning_rate == 0
    assert max(report.learning_rate for report in reports) <= SETTINGS.unet_lr


def test_a_step_tells_its_live_numbers(training_set, tiny_base):
    trainer = trainer_of(training_set, tiny_base, SETTINGS.model_copy(update={"max_grad_norm": 1e-3}))
    first, second = take(trainer, 2)
    assert first.smoothed_loss == pytest.approx(first.loss)
    # weights 0.98 × 0.02 and 0.02 of the two losses, together 1 − 0.98²
    assert second.smoothed_loss == pytest.approx((0.0196 * first.loss + 0.02 * second.loss) / 0.0396)
    assert first.images_per_s == pytest.approx(len(first.pictures) / first.seconds)
    assert 50 < first.memory_mib <= second.memory_mib
    assert second.gradient_norm > 1e-3  # before it is clipped
    clipped = torch.cat([one.grad.flatten() for one in trainer.parameters.values()]).norm()
    assert float(clipped) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process inherits nothing")
def test_memory_is_of_the_process_and_not_of_the_one_that_started_it():
    held = bytearray(500 * 2**20)
    code = "from lora_pipeline.stages.fit.trainer import most_memory_mib; print(most_memory_mib('cpu'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 5 < float(told) < len(held) / 2**20


def test_only_the_lora_is_trained(training_set, tiny_base):
    trainer = trainer_of(training_set, tiny_base)
    before = {name: value.clone() for name, value in trainer.module.state_dict().items()}
    take(trainer, 4)
    moved = {name for name, value in trainer.module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    assert {name.split(".lora_")[0] for name in moved} == {name.split(".lora_")[0] for name in trainer.parameters}


def test_a_new_lora_changes_nothing_and_is_the_seeds(training_set, tiny_base):
    first, same_seed, other = (
        trainer_of(training_set, tiny_base, SETTINGS.model_copy(update={"seed": seed})) for seed in (42, 42, 43)
    )
    assert same(first.state(), same_seed.state())
    assert not same(first.state(), other.state())
    assert all((value == 0).all() for name, value in first.parameters.items() if "lora_B" in name)


def test_the_loss_of_two_pictures_falls(tmp_path, make_training_set, tiny_base):
    training_set = make_training_set(tmp_path / "two", pictures=2, repeats=40, hide=False)
    changes = {
        "epochs": 6,
        "batch_size": 8,
        "unet_lr": 5e-3,
        "network_dim": 16,
        "network_alpha": 16,
        "lr_scheduler": "constant",
    }
    trainer = trainer_of(training_set, tiny_base, SETTINGS.model_copy(update=changes))

    def judged():
        """Both pictures under the same 64 noises before and after, none of them trained with."""
        clock, trainer.images_seen = trainer.images_seen, 10_000
        with torch.no_grad():
            loss = float(trainer.loss([Look(0, False), Look(1, False)] * 32))
        trainer.images_seen = clock
        return loss

    before = judged()
    take(trainer, 60)
    after = judged()
    assert after < 0.8 * before, (before, after)


def test_a_step_of_several_batches_is_one_update_of_their_mean(tmp_path, make_training_set, tiny_base):
    """7 looks in batches of 2, 3 batches a step: the lone look's batch lies in the first step or the second."""
    training_set = make_training_set(tmp_path / "seven", pictures=7, repeats=1, hide=False)
    settings = SETTINGS.model_copy(update={"gradient_accumulation_steps": 3, "lr_warmup_steps": 0, "max_grad_norm": 0})
    trainer = trainer_of(training_set, tiny_base, settings)
    order = batches([one.example for one in trainer.examples], 1, 2, settings.seed, trainer.mirror)
    wanted, seen = [], 0
    for batch in order[:3]:
        trainer.images_seen = seen
        wanted.append(float(trainer.loss(batch).detach()))
        seen += len(batch)
    trainer.images_seen = 0
    first, last = take(trainer, 2)
    assert first.loss == pytest.approx(sum(wanted) / 3, rel=1e-6)
    assert [one.images_seen for one in (first, last)] == [sum(map(len, order[:3])), 7]
    assert first.pictures == tuple(trainer.examples[look.picture].id for batch in order[:3] for look in batch)


def test_the_only_batch_of_an_epochs_last_step_counts_as_one_of_several(tmp_path, make_training_set, tiny_base):
    """accelerate divides by the setting whatever is left, and so does sd-scripts: a third of the gradient of the batch alone."""
    training_set = make_training_set(tmp_path / "two", pictures=2, repeats=1, hide=False)
    told = []
    for accumulation in (1, 3):
        changes = {"gradient_accumulation_steps": accumulation, "max_grad_norm": 0}
        trainer = trainer_of(training_set, tiny_base, SETTINGS.model_copy(update=changes))
        report = take(trainer, 1)[0]
        told.append((report.loss, torch.cat([one.grad.flatten() for one in trainer.parameters.values()])))
    assert told[0][0] == told[1][0]
    assert torch.allclose(told[0][1], 3 * told[1][1], rtol=1e-5)


def test_accumulated_gradients_are_those_of_the_whole(training_set, tiny_base):
    """4 looks at once, and 2 then 2 at the clock times that they would have had: the same gradient."""
    trainer = trainer_of(training_set, tiny_base)
    looks = [Look(0, False), Look(2, False), Look(4, False), Look(0, True)]
    for name, parameter in trainer.parameters.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    gradients = []
    for parts in ([looks], [looks[:2], looks[2:]]):
        trainer.optimizer.zero_grad()
        for number, part in enumerate(parts):
            (trainer.loss(part, 2 * number) / len(parts)).backward()
        gradients.append(torch.cat([one.grad.flatten() for one in trainer.parameters.values()]))
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-6)
    assert gradients[0].abs().max() > 1e-3


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_pictures(training_set, tiny_base):
    trainer = trainer_of(training_set, tiny_base)
    steps = trainer.steps()
    next(steps)
    before = trainer.state()
    for cached in trainer.examples:
        cached.latents[0][:] = float("nan")
        cached.latents[1][:] = float("nan")
    with pytest.raises(
        TrainingError,
        match=r"stopped before step 2 \(epoch 1\), of which nothing was learnt: its loss is nan.*photo\d\.png#0@close",
    ):
        next(steps)
    assert same(trainer.state(), before)


def test_a_gradient_that_is_not_finite_stops_before_the_update_too(training_set, tiny_base):
    trainer = trainer_of(training_set, tiny_base)
    steps = trainer.steps()
    next(steps)
    before = trainer.state()
    next(iter(trainer.parameters.values())).register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"before step 2 .* gradient's norm is (inf|nan).*photo\d\.png#0@close"):
        next(steps)
    assert same(trainer.state(), before)


def answers_of(trainer, monkeypatch):
    """What the denoiser answers from now on, each with its gradient."""
    answers = []
    predict = type(trainer.family).predict

    def kept(*given):
        answers.append(predict(*given))
        answers[-1].retain_grad()
        return answers[-1]

    monkeypatch.setattr(type(trainer.family), "predict", kept)
    return answers


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_hidden_is_not_learnt_from(training_set, tiny_base, monkeypatch, masked):
    trainer = trainer_of(training_set, tiny_base, SETTINGS.model_copy(update={"masked_loss": masked}))
    answers = answers_of(trainer, monkeypatch)
    trainer.loss([Look(0, False)]).backward()
    hidden = (trainer.examples[0].visible[0] == 0).expand(4, -1, -1)
    assert hidden.any()
    pull = answers[0].grad[0]
    assert bool((pull[hidden] == 0).all()) == masked
    assert (pull[~hidden] != 0).all()


def test_the_loss_is_summed_in_its_order(training_set, tiny_base, monkeypatch):
    """Per latent → mask → mean over what is visible → × prior weight → min-SNR → debiased → batch mean, by hand in loops."""
    changes = {"loss_type": "huber", "debiased_estimation_loss": True, "noise_offset": 0.0}
    trainer = trainer_of(training_set, tiny_base, SETTINGS.model_copy(update=changes))
    prior = replace(trainer.examples[2], example=replace(trainer.examples[2].example, loss_weight=0.25))
    trainer.examples = [*trainer.examples[:2], prior, *trainer.examples[3:]]
    asked = []

    def predict(self, module, noisy, timesteps, conditioning):
        asked.append(timesteps)
        return torch.full_like(noisy, 0.5)

    monkeypatch.setattr(type(trainer.family), "predict", predict)
    told = float(trainer.loss([Look(0, False), Look(2, False)]))
    wanted = []
    for at, (picture, weight) in enumerate(((0, 1.0), (2, 0.25))):
        one, t = trainer.examples[picture], int(asked[0][at])
        drawn = draw(trainer.settings, trainer.schedule, at, one.latents[0].numpy())
        assert drawn.timestep == t
        alpha, sigma = trainer.schedule.alphas[t], trainer.schedule.sigmas[t]
        snr, c = (alpha / sigma) ** 2, 0.9 / (1 + sigma / alpha) ** 2 + 0.1
        seen = [
            2 * c * (((0.5 - float(noise)) ** 2 + c * c) ** 0.5 - c)
            for channel in drawn.noise
            for noise, visible in zip(channel.ravel(), one.visible[0].ravel(), strict=True)
            if visible
        ]
        assert len(seen) == (4 * 55 if picture == 0 else 4 * 64)  # 9 cells of the first are hidden
        wanted.append(sum(seen) / len(seen) * weight * min(snr, 5) / snr / min(snr, 1000) ** 0.5)
    assert told == pytest.approx(sum(wanted) / 2, rel=1e-4)


def with_face(trainer, picture, face):
    one = trainer.examples[picture]
    trainer.examples[picture] = replace(one, example=replace(one.example, face=face))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_face_that_is_weighed_pulls_so_many_times_and_so_does_its_mirror_image(
    training_set, tiny_base, monkeypatch, mirrored
):
    """The pull of each number is 2 · error · its weight / sum of weights: the box's 2 × 3 cells count 4 times, of 64 + 3 · 6 in all."""
    settings = SETTINGS.model_copy(update={"face_loss_weight": 4.0, "min_snr_gamma": 0.0})
    trainer = trainer_of(training_set, tiny_base, settings)
    with_face(trainer, 2, (8, 16, 24, 40))
    answers = answers_of(trainer, monkeypatch)
    trainer.loss([Look(2, mirrored)]).backward()
    noise = torch.from_numpy(
        draw(settings, trainer.schedule, 0, trainer.examples[2].latents[int(mirrored)].numpy()).noise
    )
    share = answers[0].grad[0] / (2 * (answers[0].detach()[0] - noise))
    columns = slice(5, 7) if mirrored else slice(1, 3)
    wanted = torch.ones(8, 8)
    wanted[2:5, columns] = 4
    assert torch.allclose(share * 4 * (64 + 3 * 6), wanted.expand(4, 8, 8), rtol=1e-3)


def test_a_face_weight_of_one_is_no_weight(training_set, tiny_base):
    plain, faced, weighed = (
        trainer_of(training_set, tiny_base, SETTINGS.model_copy(update={"face_loss_weight": weight}))
        for weight in (1.0, 1.0, 4.0)
    )
    for trainer in (faced, weighed):
        with_face(trainer, 2, (8, 16, 24, 40))
    told = [float(trainer.loss([Look(2, False)]).detach()) for trainer in (plain, faced, weighed)]
    assert told[0] == told[1] != told[2]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("epsilon", {"timestep_sampling": "shift"}, "fit.timestep_sampling shift is for flow-matching models"),
        ("flow", {"debiased_estimation_loss": True}, "fit.debiased_estimation_loss is not defined for a flow"),
        ("flow", {"loss_type": "huber"}, "fit.huber_schedule snr is not defined for a flow"),
        ("flow", {"base_precision": "bf16"}, "fit.base_precision bf16 cannot .* set that to bf16"),
        ("flow", {"base_precision": "nf4"}, "fit.base_precision nf4 cannot .* set that to bf16 or fp16"),
    ],
)
def test_what_a_model_has_no_definition_for_is_refused(training_set, tiny_base, monkeypatch, kind, changes, words):
    monkeypatch.setattr(type(family("sd15")), "noise", lambda *_: NoiseSchedule(kind, (0.5,), (0.5,)))
    with pytest.raises(TrainingError, match=words):
        trainer_of(training_set, tiny_base, SETTINGS.model_copy(update=changes))


def test_a_look_is_told_the_cached_caption_or_its_variant_encoded(training_set, tiny_base, monkeypatch):
    settings = SETTINGS.model_copy(update={"shuffle_caption": True, "caption_dropout_rate": 0.5})
    trainer = trainer_of(training_set, tiny_base, settings)
    trainer.examples = [replace(one, example=replace(one.example, caption="a, b")) for one in trainer.examples]
    told = []
    predict = type(trainer.family).predict
    monkeypatch.setattr(
        type(trainer.family),
        "predict",
        lambda *given: told.append(given[-1]["encoder_hidden_states"]) or predict(*given),
    )
    trainer.images_seen = 30
    trainer.loss([Look(0, False), Look(2, False)] * 8)
    encoder = family("sd15").open_texts(tiny_base, "cpu", "float32")
    words = [caption_of("a, b", settings, 30 + at) for at in range(16)]
    assert {"", "a, b"} < set(words)
    for at, text in enumerate(words):
        cached = trainer.examples[at % 2 * 2].conditioning["encoder_hidden_states"]
        wanted = cached if text == "a, b" else encoder.encode([text])[0]["encoder_hidden_states"]
        assert torch.equal(told[0][at], wanted), text


def test_the_adapter_is_the_settings(training_set, tiny_base):
    changes = {"network_dropout": 0.25, "rank_stabilised": True}
    config = trainer_of(training_set, tiny_base, SETTINGS.model_copy(update=changes)).module.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 4, 0.25)  # alpha 2 × √4


def test_a_mirrored_look_learns_from_the_mirrored_latents(training_set, tiny_base):
    trainer = trainer_of(training_set, tiny_base)
    assert trainer.mirror
    assert float(trainer.loss([Look(0, False)]).detach()) != float(trainer.loss([Look(0, True)]).detach())


LEARNING = SETTINGS.model_copy(update={"text_encoder_lr": 2.5e-4, "lr_warmup_steps": 0, "max_grad_norm": 0})


def halves(trainer):
    """The parameters of the denoiser's LoRA, and of the text encoder's."""
    names = sorted(trainer.parameters, key=lambda name: name.startswith("text_encoder."))
    count = sum(name.startswith("text_encoder.") for name in names)
    assert count > 0
    values = [trainer.parameters[name] for name in names]
    return values[:-count], values[-count:]


@pytest.mark.parametrize("course", ["polynomial", "cosine_with_restarts"])
def test_the_text_encoders_rate_is_its_own_on_the_denoisers_course(training_set, tiny_base, course):
    """2.5e-4 is a quarter of 1e-3, at each step."""
    changes = {"lr_warmup_steps": 2, "lr_scheduler": course}
    trainer = trainer_of(training_set, tiny_base, LEARNING.model_copy(update=changes))
    steps, told = trainer.steps(), []
    for report in steps:
        rates = [group["lr"] for group in trainer.optimizer.param_groups]
        assert rates == [report.learning_rate, pytest.approx(report.learning_rate / 4, rel=1e-12)]
        told.append(rates[0])
    assert len(set(told)) > 5
    assert [len(group["params"]) for group in trainer.optimizer.param_groups] == [len(half) for half in halves(trainer)]


def test_a_first_step_moves_each_half_by_its_rate_and_nothing_else(training_set, tiny_base):
    """AdamW's first update is the rate, up or down; A has no derivative while B is zero."""
    settings = LEARNING.model_copy(update={"lr_scheduler": "constant", "weight_decay": 0})
    trainer = trainer_of(training_set, tiny_base, settings)
    (encoder,) = trainer.encoders.values()
    before = [{name: value.clone() for name, value in one.state_dict().items()} for one in (trainer.module, encoder)]
    take(trainer, 1)
    for module, old, rate in zip((trainer.module, encoder), before, (1e-3, 2.5e-4), strict=True):
        moved = {name: (value - old[name]).abs().max() for name, value in module.state_dict().items()}
        assert {name for name, by in moved.items() if by} == {name for name in moved if ".lora_B." in name}
        for name in moved:
            if ".lora_B." in name:
                assert float(moved[name]) == pytest.approx(rate, rel=1e-2), name


def test_captions_are_read_by_the_text_encoder_as_it_is_now(training_set, tiny_base):
    settings = LEARNING.model_copy(update={"caption_dropout_rate": 0.5})
    trainer = trainer_of(training_set, tiny_base, settings)
    for parameter in halves(trainer)[1]:
        torch.nn.init.normal_(parameter.data, std=0.3)
    told = trainer._told(trainer.examples * 2, 0)
    words = [caption_of("a photo", settings, at) for at in range(len(told))]
    assert set(words) == {"", "a photo"}
    for text, one in zip(words, told, strict=True):
        now = trainer.texts.encode([text])[0]["encoder_hidden_states"]
        then = family("sd15").open_texts(tiny_base, "cpu", "float32").encode([text])[0]["encoder_hidden_states"]
        assert torch.allclose(one["encoder_hidden_states"], now, atol=1e-5)
        assert not torch.allclose(one["encoder_hidden_states"], then, atol=0.01)


def test_what_is_drawn_with_is_in_training_again_afterwards(training_set, tiny_base):
    trainer = trainer_of(training_set, tiny_base, LEARNING)
    (encoder,) = trainer.encoders.values()
    with trainer.drawing() as module:
        assert not module.training
        assert not encoder.training
    assert module.training
    assert encoder.training


class Twins(Group):
    """Two processes that always say the same."""

    def sum(self, numbers):
        return numbers * 2


def test_what_no_process_has_a_gradient_of_gets_none(training_set, tiny_base):
    """SDXL reads its first text encoder's last layer but one: AdamW would let the rest decay, in several processes alone."""
    trainer = trainer_of(training_set, tiny_base, LEARNING)
    trainer.group = Twins(0, 2)
    trainer.loss([Look(0, False)]).backward()
    of_denoiser, of_texts = halves(trainer)
    unread, read = of_texts[-1], [*of_denoiser, *of_texts[:-1]]
    unread.grad = None
    before = [one.grad.clone() for one in read]
    assert trainer._together(1.5) == 3
    assert unread.grad is None
    assert all(torch.equal(one.grad, 2 * old) for one, old in zip(read, before, strict=True))


def test_checkpointing_leaves_the_text_encoders_gradient(training_set, tiny_base):
    gradients, losses = [], []
    for changes in ({}, {"gradient_checkpointing": True}, {"mixed_precision": "bf16"}):
        trainer = trainer_of(training_set, tiny_base, LEARNING.model_copy(update=changes))
        loss = trainer.loss([Look(0, False), Look(2, False)])
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([one.grad.flatten() for one in halves(trainer)[1]]))
    assert gradients[0].abs().max() > 1e-6
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-8)
    assert losses[2] == pytest.approx(losses[0], rel=0.02)
    assert losses[2] != losses[0]
    assert torch.nn.functional.cosine_similarity(gradients[0], gradients[2], dim=0) > 0.9


def test_held_out_pictures_are_judged_with_the_text_encoder_as_it_is_now(training_set, tiny_base):
    settings = LEARNING.model_copy(update={"network_dropout": 0.5})
    trainer = trainer_of(training_set, tiny_base, settings)
    trainer.held_out = trainer.examples[:1]
    before = trainer.held_out_loss()
    for parameter in halves(trainer)[1]:
        torch.nn.init.normal_(parameter.data, std=0.3)
    assert trainer.held_out_loss() == trainer.held_out_loss() != before
    assert all(one.training for one in (trainer.module, *trainer.encoders.values()))


def test_a_state_of_another_lora_is_refused(training_set, tiny_base):
    state = trainer_of(training_set, tiny_base).state()
    for changes in ({"network_dim": 8}, {"text_encoder_lr": 1e-4}):
        other = trainer_of(training_set, tiny_base, SETTINGS.model_copy(update=changes))
        with pytest.raises(TrainingError, match="of another LoRA"):
            other.resume(state)


def test_no_pictures_is_told(tmp_path):
    with pytest.raises(TrainingError, match="nothing to train on"):
        read_cached(Manifest(tmp_path, ()))


def test_a_file_that_has_gone_is_told(training_set):
    training_set.path(training_set.kept[1], "text").unlink()
    with pytest.raises(TrainingError, match=r"photo1\.png#0@close: .* make the training set again"):
        read_cached(training_set)


def golden(name, losses):
    """Compare with what is written down; `GOLDEN_LOSSES=write` writes it."""
    written = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("GOLDEN_LOSSES") == "write":
        written[name] = losses
        GOLDEN.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    assert name in written, f"{GOLDEN.name} has no losses of {name}"
    assert losses == pytest.approx(written[name], rel=1e-5)


def test_the_tiny_bases_losses_are_those_written_down(tmp_path, make_training_set, tiny_base):
    training_set = make_training_set(
        tmp_path / "set", pictures=5, repeats=2, mirrored=True, buckets=((64, 64), (96, 32))
    )
    golden("tiny", [report.loss for report in take(trainer_of(training_set, tiny_base, SETTINGS), 20)])


def test_the_bundled_bases_losses_are_those_written_down(tmp_path, make_training_set):
    training_set = make_training_set(
        tmp_path / "set", pictures=6, repeats=2, buckets=((128, 128),), channels=12, tokens=48, width=128
    )
    golden(
        "bundled",
        [
            report.loss
            for report in take(
                trainer_of(training_set, BaseSettings(model="bundled"), SETTINGS.model_copy(update={"epochs": 8})), 20
            )
        ],
    )
