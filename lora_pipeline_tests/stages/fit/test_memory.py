"""Memory that does not suffice: it is named, and once, where it is allowed, the same training begins again with less."""

import re
import sys

import pytest

from lora_pipeline import flow
from lora_pipeline.errors import OutOfMemory
from lora_pipeline.families import family
from lora_pipeline.manifest import planning, write
from lora_pipeline.records import Checkpoint, File, Row
from lora_pipeline.settings import FitSettings, Settings
from lora_pipeline.stages.fit import as_trained, fit
from lora_pipeline.stages.fit.fit import _job
from lora_pipeline.stages.fit.job import Job, steps_in
from lora_pipeline.stages.fit.memory import CHANGED, named, with_less
from lora_pipeline.stages.fit.trainer import Trainer, read_cached
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject

torch = pytest.importorskip("torch")
SETTINGS = FitSettings(epochs=2, batch_size=2, network_dim=4, network_alpha=2, unet_lr=1e-3, sample_prompt="")
ALLOWED = SETTINGS.model_copy(update={"retry_with_less_memory": True})
LESS = SETTINGS.model_copy(update={"batch_size": 1, "gradient_accumulation_steps": 2, "gradient_checkpointing": True})


def refuse_over(module, pictures, training_only=False):
    """The module is refused memory for more pictures than so many at once."""

    def before(module, given):
        if given[0].shape[0] > pictures:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    module.register_forward_pre_hook(before)
    return module


# What Python runs first in the training's own process: from then on every denoiser is refused memory for over {pictures} pictures.
SMALL_CARD = """
from lora_pipeline.families.stock import StockFamily
from lora_pipeline_tests.stages.fit.test_memory import refuse_over
whole = StockFamily.open_denoiser
StockFamily.open_denoiser = lambda *given: refuse_over(whole(*given), {pictures})
"""


@pytest.fixture
def small_card(tmp_path, monkeypatch):
    """A function: from now on training processes have memory for so many pictures at once."""

    def make(pictures):
        folder = tmp_path / "card"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(SMALL_CARD.format(pictures=pictures))
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return make


@pytest.fixture
def training_set(tmp_path, make_training_set):
    return make_training_set(tmp_path / "set", pictures=3, repeats=1)


@pytest.mark.parametrize(
    ("batch", "accumulation", "checkpointing", "less"),
    [
        (4, 1, False, (2, 2)),
        (4, 3, True, (2, 6)),
        (1, 2, False, (1, 2)),
        (9, 1, False, (3, 3)),  # as many pictures a step
        (5, 2, True, (1, 10)),
        (1, 4, True, None),
    ],
)
def test_less_memory_is_half_the_batch_and_checkpointing(batch, accumulation, checkpointing, less):
    changes = {
        "batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_checkpointing": checkpointing,
    }
    found = with_less(FitSettings.model_validate(changes))
    if less is None:
        assert found is None
    else:
        assert found is not None
        assert (found.batch_size, found.gradient_accumulation_steps, found.gradient_checkpointing) == (*less, True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
    ids=repr,
)
def test_every_kind_of_it_is_named(error):
    with pytest.raises(OutOfMemory) as told, named(SETTINGS):
        raise error
    assert "batch size 2 × 1 without gradient checkpointing: lower fit.batch_size" in str(told.value)
    assert "\n" not in str(told.value)


def test_what_is_none_of_it_goes_by():
    with pytest.raises(RuntimeError, match="shapes"), named(SETTINGS):
        raise RuntimeError("shapes do not fit")


def test_no_advice_is_given_that_was_taken_already():
    with pytest.raises(OutOfMemory) as told, named(LESS):
        raise MemoryError
    assert not re.search("batch_size|fit.gradient_checkpointing|retry", str(told.value))


def test_it_is_really_refused_a_batch_that_the_cpu_has_no_room_for():
    with pytest.raises(OutOfMemory), named(SETTINGS):
        torch.empty(2**60)


def test_a_step_that_is_refused_memory_says_so(training_set, tiny_base):
    trainer = Trainer(read_cached(training_set), family("sd15"), tiny_base, SETTINGS, "cpu")
    refuse_over(trainer.module, 1)
    with pytest.raises(OutOfMemory, match=r"Tried to allocate 2\.00 GiB"):
        next(trainer.steps())


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_trained_with_less_and_recorded_so(
    training_set, tiny_base, tmp_path, small_card, monkeypatch
):
    small_card(1)
    folder = tmp_path / "fit"
    told, epochs = [], []
    outcome = fit(
        training_set,
        folder,
        ALLOWED,
        tiny_base,
        "",
        lambda row, _: epochs.append(row),
        lambda what, done, total: told.append((what, done, total)),
    )
    asked, less = (_job(training_set, folder, settings, tiny_base, "") for settings in (ALLOWED, LESS))
    assert {Checkpoint.of(row).run for row in outcome.manifest.rows} == {less.key}
    assert list(outcome.manifest.rows) == epochs
    assert "CUDA out of memory" in asked.out_of_memory.read_text()
    assert not less.out_of_memory.exists()
    what = "training in less memory, at batch size 1 × 2 with gradient checkpointing"
    assert told == [(what, step, 4) for step in range(1, 5)]  # ⌈3 ÷ 2⌉ steps an epoch
    assert [len(step.pictures) for step in steps_in(less.steps_file)] == [2, 1, 2, 1]
    trained = as_trained(ALLOWED, outcome.manifest)
    assert (
        trained == Job.read(less.run / "job.json").settings == LESS.model_copy(update={"retry_with_less_memory": True})
    )

    # It is the memo: nothing is trained again, nor tried again with the batch that did not fit.
    def refuse(_):
        raise AssertionError("a training process was started")

    monkeypatch.setattr(sys.modules[fit.__module__], "in_own_process", refuse)
    again = fit(training_set, folder, ALLOWED, tiny_base, "")
    assert (again.report.reused, again.report.computed, again.manifest.digest) == (2, 0, outcome.manifest.digest)
    with planning():
        fit(training_set, folder, ALLOWED, tiny_base, "")


@pytest.fixture
def no_memory(monkeypatch):
    """The jobs of training processes that were started, each of which ran out of memory."""
    jobs = []

    def start(job_file, *_, **__):
        jobs.append(Job.read(job_file))
        raise OutOfMemory(f"no memory for {len(jobs)}")
        yield

    monkeypatch.setattr(sys.modules[fit.__module__], "in_own_process", start)
    return jobs


@pytest.mark.parametrize(("settings", "runs"), [(SETTINGS, 1), (ALLOWED, 2)])
def test_it_is_tried_again_once_and_only_if_it_may_be(training_set, tiny_base, tmp_path, no_memory, settings, runs):
    with pytest.raises(OutOfMemory, match=f"no memory for {runs}"):
        fit(training_set, tmp_path / "fit", settings, tiny_base, "")
    assert len(no_memory) == runs
    with pytest.raises(OutOfMemory):  # a run later: the batch that did not fit is not tried again
        fit(training_set, tmp_path / "fit", settings, tiny_base, "")
    assert len(no_memory) == runs + 1
    assert no_memory[-1] == no_memory[runs - 1]


def test_what_was_really_used_is_what_is_told(tmp_path):
    subject = Subject(name="ann", kind="pet", photos=tmp_path, trigger="zx9", class_word="dog", recipe="sd15_pet")
    work = flow.Work(Store(tmp_path), subject, Settings(fit=ALLOWED))
    step = next(step for step in flow.STEPS if step.noun == "lora_checkpoints")
    assert flow.used_settings(step, work)["fit"]["batch_size"] == 2
    run = work.folder("fit") / "runs" / "key"
    run.mkdir(parents=True)
    Job("key", run, tmp_path, "digest", LESS, work.settings.base, "").write()
    checkpoint = Checkpoint(1, "key", "digest", 0.1, 1e-4, 3).data()
    write(
        work.folder("fit"),
        [Row("0001", "key", data=checkpoint, files={"lora": File("runs/key/epoch-0001.safetensors", "d")})],
    )
    used = flow.used_settings(step, work)["fit"]
    assert (used["batch_size"], used["gradient_accumulation_steps"], used["gradient_checkpointing"]) == (1, 2, True)
    told = {**SETTINGS.model_dump(mode="json"), "retry_with_less_memory": True}
    assert {name for name in told if told[name] != used[name]} == set(CHANGED)
