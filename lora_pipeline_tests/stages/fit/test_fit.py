"""The stage: a run is reused, continued or begun, in a process of its own that no one can outlive by accident."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest

from lora_pipeline.errors import TrainingError
from lora_pipeline.families import family
from lora_pipeline.manifest import Manifest, Stale, planning, read, write
from lora_pipeline.records import Checkpoint
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit import fit, plot_losses, process
from lora_pipeline.stages.fit.fit import _job
from lora_pipeline.stages.fit.job import Job, steps_in
from lora_pipeline.stages.fit.reports import StepReport, to_line

SETTINGS = FitSettings(epochs=3, batch_size=2, network_dim=4, network_alpha=2, unet_lr=1e-3, state_every_steps=1)


@pytest.fixture(scope="module")
def training_set(tmp_path_factory, make_training_set) -> Manifest:
    return make_training_set(tmp_path_factory.mktemp("set"), pictures=3, repeats=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, training_set, tiny_base):
    """A run that nothing interrupted: its folder, what came of it, and what was told of each epoch."""
    folder, told = tmp_path_factory.mktemp("finished"), []
    outcome = fit(training_set, folder, SETTINGS, tiny_base, "a photo", lambda row, report: told.append((row, report)))
    return folder, outcome, told


@pytest.fixture
def no_process(monkeypatch):
    """No training may be started."""

    def refuse(_):
        raise AssertionError("a training process was started")

    monkeypatch.setattr(sys.modules[fit.__module__], "in_own_process", refuse)


@pytest.fixture
def started(monkeypatch):
    """The training processes that were started, as a list that grows."""
    processes, popen = [], subprocess.Popen

    def record(*given, **more):
        processes.append(popen(*given, **more))
        return processes[-1]

    monkeypatch.setattr(process.subprocess, "Popen", record)
    return processes


def key_of_run(training_set, tmp_path, base, settings=SETTINGS, prompt="a photo"):
    return _job(training_set, tmp_path, settings, base, prompt).key


def lora_bytes(manifest):
    return [manifest.path(row, "lora").read_bytes() for row in manifest.rows]


@pytest.mark.slow
def test_a_run_gives_a_row_an_epoch(finished, training_set):
    folder, outcome, told = finished
    assert [row.id for row in outcome.manifest.rows] == ["0001", "0002", "0003"]
    assert (outcome.report.computed, outcome.report.reused) == (3, 0)
    assert read(folder).rows == outcome.manifest.rows
    checkpoint = Checkpoint.of(outcome.manifest.rows[1])
    assert (checkpoint.epoch, checkpoint.images_seen, checkpoint.trained_on) == (2, 6, training_set.digest)
    assert all(
        outcome.manifest.path(row, role).is_file() for row in outcome.manifest.rows for role in ("lora", "sample")
    )
    run = outcome.manifest.path(outcome.manifest.rows[0], "lora").parent
    assert run.name == checkpoint.run[:16]
    assert read(run, "trained_on").rows == training_set.rows
    assert (run / "loss.png").stat().st_size > 10_000
    assert [row for row, _ in told] == list(outcome.manifest.rows)
    assert [report.epoch for _, report in told] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.usefixtures("no_process")
def test_a_finished_run_is_reused(finished, training_set, tiny_base):
    folder, outcome, _ = finished
    again = fit(training_set, folder, SETTINGS.model_copy(update={"state_every_steps": 7}), tiny_base, "another prompt")
    assert (again.report.computed, again.report.reused) == (0, 3)
    assert again.manifest.digest == outcome.manifest.digest


@pytest.mark.slow
@pytest.mark.usefixtures("no_process")
def test_planning_leaves_the_checkpoints_that_stand_there(finished, training_set, tiny_base, tmp_path):
    """Those of another run, whose settings were tried in between."""
    folder = shutil.copytree(finished[0], tmp_path / "fit")
    other = tuple(row.with_data(run="another") for row in read(folder).rows[:2])
    write(folder, other)
    (plot,) = folder.glob("runs/*/loss.png")
    plot.unlink()
    with planning(), pytest.raises(Stale) as stale:
        fit(training_set, folder, SETTINGS, tiny_base, "")
    assert sorted(stale.value.would) == ["0001", "0002", "0003"]
    assert set(stale.value.would.values()) == {"trained already, but another run's stand there"}
    assert read(folder).rows == other
    fit(training_set, folder, SETTINGS, tiny_base, "")
    assert plot.exists()
    with planning():
        assert fit(training_set, folder, SETTINGS, tiny_base, "").manifest.rows == read(folder).rows


@pytest.mark.slow
def test_reuse_imports_no_torch(finished, training_set, tiny_base):
    folder, *_ = finished
    code = (
        "import sys; from pathlib import Path\n"
        "from lora_pipeline.manifest import read\n"
        "from lora_pipeline.settings import BaseSettings, FitSettings\n"
        "from lora_pipeline.stages.fit import fit\n"
        f"settings, base = FitSettings.model_validate({SETTINGS.model_dump()!r}), BaseSettings.model_validate({tiny_base.model_dump()!r})\n"
        f"made = fit(read(Path({str(training_set.folder)!r})), Path({str(folder)!r}), settings, base, 'a photo')\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'peft', 'matplotlib'} & set(sys.modules)\n"
        "assert (made.report.computed, made.report.reused, heavy) == (0, 3, set()), (made.report, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_that_was_stopped_and_then_killed_ends_in_the_same_bytes(
    finished, training_set, tiny_base, tmp_path, started
):
    _, straight, _ = finished
    job = _job(training_set, tmp_path, SETTINGS, tiny_base, "a photo")

    def interrupt(what, done, total):
        assert (what, total) == ("training", 6)
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(training_set, tmp_path, SETTINGS, tiny_base, "a photo", progress=interrupt)
    assert started[0].returncode == process.STOPPED
    assert job.state.exists()
    assert 1 <= len(steps_in(job.steps_file)) < 6

    def kill(_what, done, _total):
        if done >= 3:
            os.kill(started[1].pid, signal.SIGKILL)

    with pytest.raises(TrainingError, match="killed"):
        fit(training_set, tmp_path, SETTINGS, tiny_base, "a photo", progress=kill)
    outcome = fit(training_set, tmp_path, SETTINGS, tiny_base, "a photo")
    assert outcome.report.reused >= 1
    assert outcome.report.computed + outcome.report.reused == 3
    assert lora_bytes(outcome.manifest) == lora_bytes(straight.manifest)
    assert [step.step for step in steps_in(job.steps_file)] == [1, 2, 3, 4, 5, 6]
    assert not job.state.parent.exists()


@pytest.mark.slow
def test_training_ends_when_the_process_that_started_it_dies(training_set, tiny_base, tmp_path):
    job = _job(training_set, tmp_path, SETTINGS.model_copy(update={"epochs": 1000}), tiny_base, "")
    job.run.mkdir(parents=True)
    from lora_pipeline.manifest import write

    write(job.run, training_set.rows, "trained_on")
    code = (
        "from pathlib import Path; from lora_pipeline.stages.fit.process import in_own_process\n"
        f"for report in in_own_process(Path({str(job.write())!r})): print(report, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        assert "StepReport" in parent.stdout.readline()
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 60
    before = -1
    while (now := len(steps_in(job.steps_file))) != before:  # no more lines come
        assert time.monotonic() < deadline
        before = now
        time.sleep(3)
    assert job.state.exists()


LONG_STEPS = """#!{python}
import signal, sys, time
def stop(*_):
    time.sleep({step_s})  # to the step's edge
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print('{line}', flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("told_s", "status"), [(1.0, 0), (0.1, -signal.SIGKILL)])
def test_a_process_is_given_the_time_that_its_steps_take_to_stop(tmp_path, monkeypatch, started, told_s, status):
    """A step of 1 s, where all else must be done in 0.3 s; one that was told to take 0.1 s is hung by then."""
    line = to_line(StepReport(1, 1, 1, 0.1, 1e-4, told_s, ("a",)))
    fake = tmp_path / "python"
    fake.write_text(LONG_STEPS.format(python=sys.executable, step_s=1.0, line=line))
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(process, "STOPS_WITHIN_S", 0.3)
    reports = process.in_own_process(tmp_path / "job.json")
    assert next(reports).seconds == told_s
    reports.close()
    assert started[0].returncode == status


def test_a_process_that_fails_tells_its_last_words(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    with (
        closing(process.in_own_process(tmp_path / "job.json")) as reports,
        pytest.raises(TrainingError, match=r"status 1;.*(?s:.)*KeyError: 'key'"),
    ):
        next(reports)


@pytest.mark.slow
def test_an_error_of_training_comes_in_its_own_words(training_set, tiny_base, tmp_path):
    job = _job(training_set, tmp_path, SETTINGS, tiny_base, "")
    job.run.mkdir(parents=True)
    with (
        closing(process.in_own_process(job.write())) as reports,
        pytest.raises(TrainingError, match=r"^there is nothing to train on"),
    ):
        next(reports)


def test_nothing_to_train_on_is_told_at_once(training_set, tiny_base, tmp_path):
    none = replace(training_set, rows=tuple(row.but("dropped", "x") for row in training_set.rows))
    with pytest.raises(TrainingError, match="nothing to train on"):
        fit(none, tmp_path, SETTINGS, tiny_base, "")


def test_the_key_is_of_what_is_learnt_and_no_more(training_set, tiny_base, tmp_path, make_training_set):
    first = key_of_run(training_set, tmp_path, tiny_base)
    assert key_of_run(training_set, tmp_path, tiny_base, prompt="other") == first
    assert (
        key_of_run(
            training_set, tmp_path, tiny_base, SETTINGS.model_copy(update={"state_every_steps": 0, "sample_prompt": ""})
        )
        == first
    )
    refused = replace(training_set.rows[0], id="broken").but("failed", "it is broken")
    assert key_of_run(replace(training_set, rows=(*training_set.rows, refused)), tmp_path, tiny_base) == first
    assert key_of_run(training_set, tmp_path, tiny_base.model_copy(update={"licence": "other"})) == first
    for name, value in (("unet_lr", 2e-3), ("seed", 1), ("network_dim", 8), ("epochs", 4), ("masked_loss", False)):
        assert key_of_run(training_set, tmp_path, tiny_base, SETTINGS.model_copy(update={name: value})) != first
    fewer = replace(training_set, rows=training_set.rows[1:])
    assert key_of_run(fewer, tmp_path, tiny_base) != first
    more = make_training_set(tmp_path / "more", pictures=3, repeats=2)
    assert key_of_run(more, tmp_path, tiny_base) != first


def test_settings_that_came_later_count_once_they_are_not_at_their_defaults(
    training_set, tiny_base, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setitem(_job.__globals__, "key_of", lambda *given: told.append(given[1]) or "0" * 64)
    for settings in (SETTINGS, SETTINGS.model_copy(update={"base_precision": "bf16"})):
        key_of_run(training_set, tmp_path, tiny_base, settings)
    later = {"base_precision", "network_factor", "num_processes", "num_cpu_threads_per_process", "text_encoder_2_lr"}
    assert not (later | {"face_loss_weight"}) & set(told[0])
    assert told[1] == {**told[0], "base_precision": "bf16"}


def test_where_the_faces_are_counts_once_they_are_weighed(training_set, tiny_base, tmp_path):
    moved = replace(training_set, rows=tuple(row.with_data(face=[8, 8, 24, 24]) for row in training_set.rows))
    weighed = SETTINGS.model_copy(update={"face_loss_weight": 4.0})
    assert key_of_run(moved, tmp_path, tiny_base) == key_of_run(training_set, tmp_path, tiny_base)
    keys = {
        key_of_run(one, tmp_path, tiny_base, settings)
        for one in (training_set, moved)
        for settings in (SETTINGS, weighed)
    }
    assert len(keys) == 3


def test_several_processes_are_another_run_and_one_is_as_ever(training_set, tiny_base, tmp_path):
    def told(processes):
        job = _job(training_set, tmp_path, SETTINGS.model_copy(update={"num_processes": processes}), tiny_base, "")
        return job.key

    assert len({told(1), told(2), told(3)}) == 3


@pytest.mark.parametrize("changes", [{"shuffle_caption": True}, {"text_encoder_lr": 1e-4}], ids=str)
def test_words_count_only_where_they_are_encoded_again(training_set, tiny_base, tmp_path, changes):
    other = replace(training_set, rows=tuple(row.with_data(caption="other") for row in training_set.rows))
    assert key_of_run(other, tmp_path, tiny_base) == key_of_run(training_set, tmp_path, tiny_base)
    again = SETTINGS.model_copy(update=changes)
    skipping = tiny_base.model_copy(update={"clip_skip": 2})
    first = key_of_run(training_set, tmp_path, tiny_base, again)
    assert key_of_run(other, tmp_path, tiny_base, again) != first
    assert key_of_run(training_set, tmp_path, skipping, again) != first


def test_text_encoders_that_are_not_trained_leave_the_key_as_it_was(training_set, tiny_base, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys.modules[fit.__module__], "key_of", lambda *given: told.append(str(given)) or "0" * 64)
    for rate in (0.0, 1e-4):
        key_of_run(training_set, tmp_path, tiny_base, SETTINGS.model_copy(update={"text_encoder_lr": rate}))
    assert ["text_encoder_lr" in one for one in told] == [False, True]


def test_text_encoders_that_cannot_be_trained_are_told_before_anything_begins(
    training_set, tiny_base, tmp_path, monkeypatch, no_process
):
    monkeypatch.setattr(type(family("sd15")), "trained_texts", ())
    with pytest.raises(TrainingError, match=r"fit\.text_encoder_lr 0\.0001: .* set it to 0"):
        fit(training_set, tmp_path, SETTINGS.model_copy(update={"text_encoder_lr": 1e-4}), tiny_base, "")


def test_a_job_is_read_as_it_was_written(training_set, tiny_base, tmp_path):
    job = _job(training_set, tmp_path, SETTINGS, tiny_base, "a photo")
    assert Job.read(job.write()) == job
    assert "state_every_steps" in json.loads((job.run / "job.json").read_text())["settings"]


def test_another_base_is_another_run(training_set, tiny, tiny_base, tmp_path):
    other = tiny_base.model_copy(update={"model": str(tiny.build(tmp_path / "other", seed=9))})
    assert family("sd15").digest(other, "denoiser") != family("sd15").digest(tiny_base, "denoiser")
    assert key_of_run(training_set, tmp_path, other) != key_of_run(training_set, tmp_path, tiny_base)


def test_no_epochs_have_no_curve(tmp_path):
    with pytest.raises(TrainingError, match="nothing was trained yet"):
        plot_losses(Manifest(tmp_path, ()))
