"""A run in this process: what it leaves in its folder, and how it goes on after each kind of interruption."""

import shutil
import weakref

import pytest

from lora_pipeline.errors import TrainingError
from lora_pipeline.families import family
from lora_pipeline.families.lora_file import read_metadata
from lora_pipeline.manifest import write
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.job import Job, epochs_in, steps_in
from lora_pipeline.stages.fit.reports import EpochReport, StepReport, of_line, to_line
from lora_pipeline.stages.fit.run import SAMPLE_STEPS, run, state_is_due

SETTINGS = FitSettings(epochs=3, batch_size=2, network_dim=4, network_alpha=2, unet_lr=1e-3)


@pytest.fixture
def job_in(tmp_path, make_training_set, tiny_base):
    """A function: a new job of 3 epochs of 2 steps in a folder of that name."""

    def make(name, prompt="", **changes):
        training_set = make_training_set(tmp_path / "set", pictures=3, repeats=1)
        folder = tmp_path / name
        folder.mkdir()
        write(folder, training_set.rows, "trained_on")
        job = Job(
            "key",
            folder,
            training_set.folder,
            "digest",
            SETTINGS.model_copy(update=changes),
            tiny_base,
            prompt,
            guidance_scale=3.0,
        )
        job.write()
        return job

    return make


def files(job):
    return {path.name: path.read_bytes() for path in sorted(job.run.glob("epoch-*"))}


def stopping_after(count):
    """A `stopped` that says yes once so many steps are done: it is asked up to twice a step."""
    told = []

    def stopped():
        return len(told) >= count

    return told, stopped


def run_until(job, steps):
    told, stopped = stopping_after(steps)
    for report in run(job, stopped, "cpu"):
        if isinstance(report, StepReport):
            told.append(report)


def test_a_run_leaves_an_epoch_file_each_and_no_state(job_in):
    job = job_in("run", prompt="a photo")
    reports = list(run(job, device="cpu"))
    epochs = [report for report in reports if isinstance(report, EpochReport)]
    assert [type(report).__name__ for report in reports] == ["StepReport", "StepReport", "EpochReport"] * 3
    assert epochs_in(job.epochs_file) == epochs
    assert steps_in(job.steps_file) == [report for report in reports if isinstance(report, StepReport)]
    assert sorted(files(job)) == ["epoch-0001.safetensors", "epoch-0002.safetensors", "epoch-0003.safetensors"]
    assert sorted(path.name for path in (job.run / "samples").iterdir()) == [
        "epoch-0001.png",
        "epoch-0002.png",
        "epoch-0003.png",
    ]
    assert not job.state.parent.exists()
    told = read_metadata(job.run / "epoch-0002.safetensors")
    assert (told["ss_network_dim"], told["ss_network_alpha"], told["epoch"], told["run"]) == ("4", "2.0", "2", "key")
    assert not any("/" in value for value in told.values())  # no path of the person's
    assert epochs[0].loss == pytest.approx(sum(report.loss for report in reports[:2]) / 2)
    assert epochs[-1].images_seen == 9


def test_what_the_text_encoder_learns_is_saved_drawn_and_gone_on_with(job_in, tiny_base):
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import load_file, save_file

    broken, straight = (
        job_in(name, prompt="a photo", epochs=1, text_encoder_lr=1e-1) for name in ("broken", "straight")
    )
    run_until(broken, 1)
    list(run(broken, device="cpu"))
    list(run(straight, device="cpu"))
    assert files(broken) == files(straight)
    file = straight.run / "epoch-0001.safetensors"
    texts = {
        key: one for key, one in load_file(file).items() if key.startswith("text_encoder.text_model.encoder.layers.")
    }
    assert len(texts) == 2 * 2 * 6  # A and B of six modules in each of two layers
    assert all(tensor.any() for tensor in texts.values())

    def sample(lora):
        pipeline = family("sd15").pipeline(tiny_base, "cpu", "float32")
        pipeline.load_lora_weights(lora)
        how = {
            "num_inference_steps": SAMPLE_STEPS,
            "guidance_scale": straight.guidance_scale,
            "width": 64,
            "height": 64,
        }
        generator = torch.Generator().manual_seed(straight.settings.seed)
        return np.asarray(pipeline("a photo", generator=generator, **how).images[0]).astype(int)

    with Image.open(straight.run / "samples/epoch-0001.png") as opened:
        drawn = np.asarray(opened).astype(int)
    denoiser = {key: one for key, one in load_file(file).items() if key not in texts}
    save_file(denoiser, straight.run / "denoiser.safetensors", read_metadata(file))
    assert np.abs(drawn - sample(str(file))).max() <= 1
    assert np.abs(drawn - sample(str(straight.run / "denoiser.safetensors"))).max() > 3


def test_epoch_files_are_the_same_bytes_however_often_the_run_was_stopped(job_in):
    straight = job_in("straight")
    list(run(straight, device="cpu"))
    broken = job_in("broken")
    run_until(broken, 1)
    assert broken.state.exists()
    run_until(broken, 2)  # 3 steps, in the middle of the second epoch
    assert sorted(files(broken)) == ["epoch-0001.safetensors"]
    with broken.steps_file.open(
        "a"
    ) as lines:  # what a kill leaves: a line that is later than the state, and half a one
        lines.write(to_line(StepReport(4, 2, 6, 9.9, 0.0, 0.0, ("x",))) + '\n{"step": 5')
    list(run(broken, device="cpu"))
    assert files(broken) == files(straight)
    assert [step.loss for step in steps_in(broken.steps_file)] == [step.loss for step in steps_in(straight.steps_file)]


def test_an_epoch_whose_line_was_not_written_is_finished_again(job_in):
    job = job_in("run")
    run_until(job, 2)
    run_until(job, 1)
    before, lines = files(job), job.epochs_file.read_text()
    job.epochs_file.write_text("")
    job.state.unlink()
    straight = job_in("straight")
    run_until(straight, 2)  # stops at the first epoch's end, its state saved
    shutil.copytree(straight.state.parent, job.state.parent, dirs_exist_ok=True)
    (job.run / "epoch-0001.safetensors").unlink()
    first = next(iter(run(job, device="cpu")))
    assert isinstance(first, EpochReport)
    assert files(job)["epoch-0001.safetensors"] == before["epoch-0001.safetensors"]
    assert of_line(job.epochs_file.read_text()).digests == of_line(lines.splitlines()[0]).digests


def test_a_run_that_lost_an_epochs_file_begins_again(job_in):
    job = job_in("run")
    run_until(job, 3)
    (job.run / "epoch-0001.safetensors").unlink()
    reports = list(run(job, device="cpu"))
    assert reports[0].step == 1
    assert len(epochs_in(job.epochs_file)) == 3


def test_while_it_trains_no_text_encoder_and_no_autoencoder_is_there(job_in, monkeypatch):
    """They are opened for an epoch's sample, and gone when the epoch is told of."""
    kind, drawn_with = type(family("sd15")), []
    pipeline = kind.pipeline

    def watched(*given):
        made = pipeline(*given)
        drawn_with.append([weakref.ref(part) for part in (made.vae, made.text_encoder)])
        return made

    def never(*_):
        raise AssertionError("opened for training")

    monkeypatch.setattr(kind, "pipeline", watched)
    for name in ("open_pictures", "open_vae", "open_texts"):
        monkeypatch.setattr(kind, name, never)
    epochs = 0
    for report in run(job_in("run", prompt="a photo"), device="cpu"):
        epochs += isinstance(report, EpochReport)
        assert len(drawn_with) == epochs
        assert [part() for parts in drawn_with for part in parts] == [None, None] * epochs
    assert epochs == 3


def test_a_damaged_state_is_told(job_in):
    job = job_in("run")
    run_until(job, 1)
    job.state.write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="is damaged"):
        list(run(job, device="cpu"))


@pytest.mark.parametrize("changes", [{"state_every_steps": 1}, {"state_every_minutes": 1e-9}], ids=str)
def test_states_are_saved_as_often_as_asked(job_in, changes):
    job = job_in("run", **changes)
    reports = run(job, device="cpu")
    next(reports)
    next(reports)  # the second step begins after the first one's state is saved
    assert job.state.exists()
    reports.close()
    again = next(iter(run(job, device="cpu")))
    assert again.step == 2


def test_a_state_is_due_after_so_many_steps_or_minutes():
    def due(step, since_s, **changes):
        return state_is_due(FitSettings(**changes), step, since_s)

    assert [due(step, 0, state_every_steps=3) for step in (2, 3, 4, 6)] == [False, True, False, True]
    assert [due(1, since_s, state_every_minutes=2) for since_s in (119, 120)] == [False, True]
    assert not due(1, 1e9, state_every_minutes=0)
    assert [due(1, since_s) for since_s in (599, 600)] == [False, True]
