"""Before a run: what it takes, from a record or from steps that are tried; what is objected to; and afterwards, how near that came."""

import json
import signal
import sys
from contextlib import closing
from dataclasses import asdict, replace

import psutil
import pytest

from lora_pipeline.errors import OutOfMemory, TrainingError
from lora_pipeline.lineage import MADE_WITH, as_json
from lora_pipeline.manifest import write
from lora_pipeline.settings import BaseSettings, FitSettings, ForecastSettings
from lora_pipeline.stages.fit import Forecast, compare, fit, forecast, objections, process
from lora_pipeline.stages.fit import measure as measuring
from lora_pipeline.stages.fit.fit import planned
from lora_pipeline.stages.fit.forecast import cost_key
from lora_pipeline.stages.fit.job import Job, steps_in
from lora_pipeline.stages.fit.measure import measure
from lora_pipeline.stages.fit.reports import EpochReport, StepReport, to_line
from lora_pipeline.stages.fit.trainer import Trainer
from lora_pipeline_tests.stages.fit.test_costs import MEASURED as A_CARD

SETTINGS = FitSettings(epochs=3, batch_size=2, network_dim=4, network_alpha=2, unet_lr=1e-3)
MEASURED = replace(A_CARD, batch_size=2, area_px=64 * 64, seconds_batch=1.5, batch_mib=4000.0, most_mib=4150.0)
# 1,000 steps of 7.2 s, of which a quarter is done: 1.5 hours are left
HALFWAY = Forecast("run", "cost", "tried", MEASURED, 2, 20, 1000, 7.2, 7200.0, 4150.0, steps_done=250)


@pytest.fixture(scope="module")
def training_set(tmp_path_factory, make_training_set):
    """5 pictures, 2 + 2 + 1 a batch: an epoch of 3 steps."""
    return make_training_set(tmp_path_factory.mktemp("set"), pictures=5, repeats=1)


@pytest.fixture
def no_steps_tried(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("steps were tried")

    monkeypatch.setattr(sys.modules["lora_pipeline.stages.fit.forecast"], "in_own_process", refuse)


@pytest.fixture
def record(training_set, tiny_base, tmp_path):
    """The forecast of an earlier run of 2 epochs, which came to twice the time a step, to 20 s an epoch's end, and to 5,000 MiB."""
    run = tmp_path / "earlier"
    run.mkdir()
    job, _ = planned(training_set, tmp_path, SETTINGS, tiny_base, "a photo")
    told = Forecast("earlier", cost_key(job, training_set), "tried", MEASURED, 2, 2, 6, 1.25, 30.5, 4150.0)
    (run / "forecast.json").write_text(json.dumps(asdict(told)))
    steps = [StepReport(step, 1, step, 0.1, 1e-3, 2.5, ("a",), memory_mib=4500.0) for step in range(1, 7)]
    ends = [EpochReport(epoch, "x", "", {}, 0.1, 1e-3, 2.5, 5, seconds=20.0, memory_mib=5000.0) for epoch in (1, 2)]
    (run / "steps.jsonl").write_text("".join(f"{to_line(one)}\n" for one in steps))
    (run / "epochs.jsonl").write_text("".join(f"{to_line(one)}\n" for one in ends))
    return run / "forecast.json"


def test_hours_energy_and_money_are_of_what_is_left():
    rates = ForecastSettings(watts=300, price_per_kwh=0.4, price_per_hour=2)
    assert HALFWAY.hours_left == pytest.approx(1.5)
    assert HALFWAY.kwh(rates) == pytest.approx(0.45)
    assert HALFWAY.cost_of(rates) == pytest.approx(3.18)  # 1.5 × 2 + 0.45 × 0.4
    assert HALFWAY.in_words(rates) == (
        "1,000 steps of 7.2 s, 750 of them left, 1.5 hours, 0.45 kWh, cost 3.18, memory 4,150 of 8,000 MiB (tried; a card)"
    )
    assert replace(HALFWAY, steps_done=0).in_words(ForecastSettings()) == (
        "1,000 steps of 7.2 s, 2.0 hours, memory 4,150 of 8,000 MiB (tried; a card)"
    )


def test_nothing_is_objected_to_without_limits_or_within_them():
    assert objections(HALFWAY, ForecastSettings(), SETTINGS) == ()
    assert objections(HALFWAY, ForecastSettings(max_hours=1.5, max_cost=3, price_per_hour=2), SETTINGS) == ()


def test_too_long_and_too_dear_are_told_with_the_epochs_that_are_within():
    limits = ForecastSettings(max_hours=1, max_cost=1.5, price_per_hour=2)
    # half of the 2 hours, and three eighths of what they cost
    assert objections(replace(HALFWAY, steps_done=0), limits, SETTINGS) == (
        "training would last 2.0 hours, over forecast.max_hours 1; fit.epochs: 10 would stay within, or fewer encode.repeats, or a higher limit",
        "training would cost 4.00, over forecast.max_cost 1.5; fit.epochs: 7 would stay within, or fewer encode.repeats, or a higher limit",
    )
    assert objections(HALFWAY, ForecastSettings(max_hours=1), SETTINGS) == (
        "training would last 1.5 hours, over forecast.max_hours 1; a higher limit lets the run go on",
    )
    (told,) = objections(replace(HALFWAY, steps_done=0, epochs=1), ForecastSettings(max_hours=1), SETTINGS)
    assert "not even one epoch would stay within" in told


def test_memory_that_does_not_suffice_is_told_with_what_would():
    settings = SETTINGS.model_copy(update={"batch_size": 8})
    alone = replace(MEASURED, batch_size=1, batch_mib=3000.0, most_mib=3000.0, checkpointed_mib=2300.0)
    (told,) = objections(replace(HALFWAY, batch_size=8, measured=alone, memory_mib=10000), ForecastSettings(), settings)
    assert told == (
        "memory does not suffice: batches of 8 would take 10,000 MiB, and 8,000 MiB are free (a card). What would make it fit: "
        "fit.batch_size: 6 with fit.gradient_accumulation_steps: 2 (8,000 MiB); or fit.gradient_checkpointing: true (4,400 MiB)"
    )
    small = replace(alone, free_mib=1500.0)
    (told,) = objections(replace(HALFWAY, batch_size=8, measured=small, memory_mib=10000), ForecastSettings(), settings)
    assert "The base model alone takes 1,600 MiB: a smaller one would fit" in told


def test_memory_that_suffices_for_half_the_batch_is_no_objection_where_that_may_be_tried():
    settings = SETTINGS.model_copy(update={"batch_size": 8, "retry_with_less_memory": True})
    alone = replace(MEASURED, batch_size=1, batch_mib=3000.0, most_mib=3000.0)
    assert objections(replace(HALFWAY, batch_size=8, measured=alone), ForecastSettings(), settings) == ()
    small = replace(alone, free_mib=5500.0)
    assert objections(replace(HALFWAY, batch_size=8, measured=small), ForecastSettings(), settings) != ()


@pytest.mark.parametrize(
    ("given", "words"), [({"max_cost": 3}, "needs a price"), ({"price_per_kwh": 0.3}, "set watts too")]
)
def test_a_limit_without_what_it_is_reckoned_by_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ForecastSettings(**given)


@pytest.mark.usefixtures("no_steps_tried")
def test_an_earlier_run_of_the_same_cost_is_the_forecast_as_it_turned_out(training_set, tiny_base, tmp_path, record):
    seeded = SETTINGS.model_copy(update={"seed": 7, "epochs": 4, "unet_lr": 1e-4})
    told = forecast(training_set, tmp_path, seeded, tiny_base, "a photo", [tmp_path / "none.json", record])
    assert told is not None
    # 2 full batches and one of 1, all twice as slow: 2 × 3.0 + 2.0
    assert (told.steps, told.seconds_per_step) == (12, pytest.approx(8 / 3))
    assert told.seconds == pytest.approx(4 * (8 + 20))
    assert told.memory_mib == 5000
    assert told.source == "as run earlier went"
    (written,) = (tmp_path / "runs").glob("*/forecast.json")
    assert [file.name for file in written.parent.iterdir()] == ["forecast.json"]
    # It is read again, other records or none; and an interrupted run's part that is done does not count.
    assert forecast(training_set, tmp_path, seeded, tiny_base, "a photo") == told
    (written.parent / "steps.jsonl").write_text(to_line(StepReport(1, 1, 2, 0.1, 1e-3, 3.0, ("a",))) + "\n")
    again = forecast(training_set, tmp_path, seeded, tiny_base, "a photo")
    assert again is not None
    assert again.hours_left == pytest.approx(told.hours_left * 11 / 12)


@pytest.mark.parametrize("changes", [{"batch_size": 4}, {"gradient_checkpointing": True}, {"optimizer_type": "Lion"}])
def test_what_costs_otherwise_is_tried(training_set, tiny_base, tmp_path, record, no_steps_tried, changes):
    with pytest.raises(AssertionError, match="steps were tried"):
        forecast(training_set, tmp_path, SETTINGS.model_copy(update=changes), tiny_base, "a photo", [record])


def test_a_stored_forecast_that_did_not_fit_is_tried_again(training_set, tiny_base, tmp_path, record, no_steps_tried):
    forecast(training_set, tmp_path, SETTINGS, tiny_base, "a photo", [record])
    (written,) = (tmp_path / "runs").glob("*/forecast.json")
    fields = json.loads(written.read_text())
    fields["measured"]["free_mib"] = 1000.0
    written.write_text(json.dumps(fields))
    with pytest.raises(AssertionError, match="steps were tried"):
        forecast(training_set, tmp_path, SETTINGS, tiny_base, "a photo")


def test_the_cost_is_of_base_settings_sizes_and_device(
    training_set, tiny_base, tmp_path, make_training_set, monkeypatch
):
    def key(training_set=training_set, base=tiny_base, prompt="a photo", **changes):
        job, trained = planned(training_set, tmp_path, SETTINGS.model_copy(update=changes), base, prompt)
        return cost_key(job, trained)

    first = key()
    assert key(seed=1, epochs=9, unet_lr=1e-5, network_alpha=1, sample_prompt="x", prompt="other") == first
    assert key(make_training_set(tmp_path / "more", pictures=7, repeats=9)) == first  # more of the same size
    assert key(make_training_set(tmp_path / "wide", buckets=((96, 32),))) != first
    for other in (
        {"batch_size": 3},
        {"network_dim": 8},
        {"prompt": ""},
        {"held_out_share": 0.2},
        {"shuffle_caption": True},
        {"text_encoder_lr": 1e-4},
    ):
        assert key(**other) != first, other
    assert key(text_encoder_lr=1e-4) == key(text_encoder_lr=1e-5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert key() != first


def test_the_cost_tells_which_text_encoders_are_trained_and_not_at_what_rate(make_training_set, tiny_base, tmp_path):
    job, trained = planned(make_training_set(tmp_path / "set"), tmp_path, FitSettings(), tiny_base, "")

    def key(first, second):
        rates = {"text_encoder_lr": first, "text_encoder_2_lr": second}
        return cost_key(replace(job, settings=job.settings.model_copy(update=rates)), trained)

    assert key(1e-4, None) == key(1e-5, 1e-4)
    assert len({key(0, None), key(1e-4, None), key(1e-4, 0), key(0, 1e-4)}) == 4


def test_what_was_forecast_is_compared_with_what_came(record):
    per_step, seconds, memory = compare(record.parent)
    assert (per_step.forecast, per_step.happened, per_step.off) == (1.25, 2.5, 1.0)
    assert (seconds.forecast, seconds.happened) == (30.5, 6 * 2.5 + 2 * 20)
    assert (memory.what, memory.forecast, memory.happened) == ("memory (MiB)", 4150, 5000)
    assert memory.off == pytest.approx(0.2048, abs=1e-4)
    record.unlink()
    assert compare(record.parent) == ()


def job_to_measure(training_set, base, folder, prompt="", **changes):
    folder.mkdir()
    write(folder, training_set.rows, "trained_on")
    return Job("key", folder, training_set.folder, "digest", SETTINGS.model_copy(update=changes), base, prompt)


def test_memory_that_does_not_suffice_for_one_picture_is_named_as_in_training(
    training_set, tiny_base, tmp_path, monkeypatch
):
    def refused(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Trainer, "step_on", refused)
    words = r"at batch size 1 × 1 without gradient checkpointing: switch fit\.gradient_checkpointing on, or .*9 bytes"
    with pytest.raises(OutOfMemory, match=words):
        measure(job_to_measure(training_set, tiny_base, tmp_path / "job"), "cpu")


def test_steps_that_are_tried_are_of_one_picture_and_of_the_real_batch(tmp_path, make_training_set, tiny_base):
    training_set = make_training_set(tmp_path / "set", pictures=3, buckets=((64, 64), (128, 128)))
    told = measure(job_to_measure(training_set, tiny_base, tmp_path / "job", batch_size=8), "cpu")
    assert (told.batch_size, told.area_px, told.too_many) == (8, 128 * 128, None)
    assert 0 < told.seconds_one < told.seconds_batch
    assert 0 < told.lora_mib < told.weights_mib < told.resident_mib < told.one_mib <= told.batch_mib <= told.most_mib
    assert told.most_mib < told.free_mib
    assert told.epoch_end_s > 0
    assert told.fits(8)


def test_text_encoders_that_are_trained_are_counted(tmp_path, training_set, tiny_base):
    without, told = (
        measure(job_to_measure(training_set, tiny_base, tmp_path / name, "a photo", text_encoder_lr=rate), "cpu")
        for name, rate in (("without", 0.0), ("with", 1e-4))
    )
    assert without.texts_mib == 0 < told.texts_mib
    assert told.weights_mib == pytest.approx(without.weights_mib + told.texts_mib)
    assert told.lora_mib > without.lora_mib
    assert told.epoch_end_s > 0


def test_a_batch_for_which_memory_will_not_suffice_is_not_tried(tmp_path, make_training_set, tiny_base, monkeypatch):
    """What is free is told to be a little more than a step of one picture takes; the batch is made absurd."""
    tried = []
    step_on = measuring.Trainer.step_on

    def watched(self, looks):
        tried.append((len(looks), self.module.is_gradient_checkpointing))
        return step_on(self, looks)

    monkeypatch.setattr(measuring.Trainer, "step_on", watched)
    free = psutil.Process().memory_info().rss / 2**20 + 150
    monkeypatch.setattr(measuring, "free_memory_mib", lambda _: free)
    training_set = make_training_set(tmp_path / "set", pictures=1, repeats=1, buckets=((256, 256),))
    told = measure(job_to_measure(training_set, tiny_base, tmp_path / "job", batch_size=256), "cpu")
    assert {count for count, _ in tried} == {1}
    assert not told.fits(256)
    assert told.memory_mib(256) > free
    assert told.epoch_end_s == 0
    assert told.checkpointed_mib is not None
    assert tried[-1] == (1, True)


@pytest.mark.slow
def test_a_forecast_comes_near_what_happens_on_the_small_base(tmp_path, make_training_set):
    """Two epochs of 8 pictures on the base that ships here, a sample each. Time is judged widely: who knows what else runs here."""
    base = BaseSettings(model="bundled")
    shape = {"channels": 12, "tokens": 48, "width": 128, "buckets": ((128, 128),)}
    training_set = make_training_set(tmp_path / "set", pictures=8, repeats=2, **shape)
    settings = SETTINGS.model_copy(update={"epochs": 2, "batch_size": 4, "network_dim": 16, "network_conv_dim": 16})
    told = forecast(training_set, tmp_path, settings, base, "a photo")
    assert told is not None
    assert (told.steps, told.source, told.steps_done) == (8, "a few steps tried", 0)
    (run,) = (tmp_path / "runs").iterdir()
    assert [file.name for file in run.iterdir()] == [
        "forecast.json"
    ]  # nothing of what was tried is left to train on from
    outcome = fit(training_set, tmp_path, settings, base, "a photo")
    assert outcome.manifest.path(outcome.manifest.rows[0], "lora").parent == run
    assert len(steps_in(run / "steps.jsonl")) == told.steps
    per_step, seconds, memory = compare(run)
    assert 1 / 4 < per_step.happened / per_step.forecast < 4
    assert 1 / 4 < seconds.happened / seconds.forecast < 4
    assert abs(memory.off) < 0.15
    assert forecast(training_set, tmp_path, settings, base, "a photo") is None
    more = settings.model_copy(update={"epochs": 3})
    later = forecast(training_set, tmp_path, more, base, "a photo", [run / "forecast.json"])
    assert later is not None
    assert later.source == f"as run {told.run[:16]} went"
    assert later.seconds_per_step == pytest.approx(per_step.happened)


@pytest.mark.slow
def test_training_and_its_forecast_take_the_threads_that_are_asked_for(training_set, tiny_base, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    settings = SETTINGS.model_copy(update={"epochs": 1, "num_cpu_threads_per_process": 1})
    told = forecast(training_set, tmp_path, settings, tiny_base, "")
    assert told is not None
    assert told.measured.device == "cpu, 1 threads"
    fit(training_set, tmp_path, settings, tiny_base, "")
    (run,) = (tmp_path / "runs").iterdir()
    assert as_json(run / MADE_WITH)["threads"] == 1


def test_a_process_that_cannot_try_a_step_tells_why(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    with (
        closing(process.in_own_process(tmp_path / "job.json", module="lora_pipeline.stages.fit.measure")) as reports,
        pytest.raises(TrainingError, match=r"^the process that tried a step for the forecast(?s:.)*KeyError: 'key'"),
    ):
        next(reports)
    assert "lower fit.batch_size" in process._why_not_measured(-signal.SIGKILL, [])


def test_what_training_would_refuse_is_refused_before(training_set, tiny_base, tmp_path):
    none = replace(training_set, rows=tuple(row.but("dropped", "x") for row in training_set.rows))
    with pytest.raises(TrainingError, match="nothing to train on"):
        forecast(none, tmp_path, SETTINGS, tiny_base, "")
