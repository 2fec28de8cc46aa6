"""TensorBoard's files, read back with TensorBoard's own reader."""

import json

import pytest

from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit import without_held_out
from lora_pipeline.stages.fit.board import FOLDER
from lora_pipeline.stages.fit.job import epochs_in, steps_in
from lora_pipeline.stages.fit.reports import EpochReport, StepReport
from lora_pipeline.stages.fit.run import run
from lora_pipeline_tests.stages.fit.test_held_out import job_of

SETTINGS = FitSettings(
    epochs=2, batch_size=2, network_dim=4, network_alpha=2, unet_lr=1e-3, held_out_share=0.3, state_every_steps=1
)


def reader(job):
    """What `tensorboard --logdir` reads a run with."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(job.run / FOLDER), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(board, tag):
    return [(event.step, pytest.approx(event.value)) for event in board.Scalars(tag)]


def test_a_resumed_run_is_told_whole_and_no_step_twice(tmp_path, make_training_set, tiny_base):
    training_set = without_held_out(make_training_set(tmp_path / "set", pictures=4, repeats=1), SETTINGS)
    job = job_of(tmp_path / "run", training_set, tiny_base, SETTINGS)
    job_file = job.run / "job.json"
    job_file.write_text(json.dumps({**json.loads(job_file.read_text()), "prompt": "a photo"}))
    job = type(job).read(job_file)

    killed = run(job, device="cpu")  # 2 steps an epoch; killed in the second one, whose first step's state is saved
    while not (isinstance(report := next(killed), StepReport) and report.step == 4):
        pass
    killed.close()
    open_before = reader(job)
    assert [step for step, _ in scalars(open_before, "loss/step")] == [1, 2, 3, 4]
    with job.steps_file.open("a") as lines:  # as if it had come further than its state
        lines.write('{"step": 5')
    reports = list(run(job, device="cpu"))
    assert reports[0].step == 4

    steps, epochs = steps_in(job.steps_file), epochs_in(job.epochs_file)
    for board in (reader(job), open_before.Reload()):
        assert scalars(board, "loss/step") == [(step.step, step.loss) for step in steps]
        for tag, name in (
            ("loss/smoothed", "smoothed_loss"),
            ("step/gradient_norm", "gradient_norm"),
            ("step/learning_rate", "learning_rate"),
            ("step/images_per_s", "images_per_s"),
            ("step/memory_mib", "memory_mib"),
        ):
            assert scalars(board, tag) == [(step.step, getattr(step, name)) for step in steps], tag
        assert scalars(board, "loss/epoch") == [(2, epochs[0].loss), (4, epochs[1].loss)]
        held_out = [epochs[0].base_held_out_loss, *(epoch.held_out_loss for epoch in epochs)]
        assert scalars(board, "loss/held_out") == list(zip((0, 2, 4), held_out, strict=True))
        assert [(picture.step, picture.width) for picture in board.Images("sample")] == [(2, 64), (4, 64)]
    times = [event.wall_time for event in reader(job).Scalars("loss/step")]
    assert times == sorted(times)
    assert times[2] - times[0] == pytest.approx(steps[1].seconds + steps[2].seconds, abs=1e-3)


def test_an_epoch_tells_what_its_steps_came_to(tmp_path, make_training_set, tiny_base):
    settings = SETTINGS.model_copy(update={"epochs": 1, "held_out_share": 0.0})
    job = job_of(tmp_path / "run", make_training_set(tmp_path / "set", pictures=3, repeats=1), tiny_base, settings)
    *steps, epoch = run(job, device="cpu")
    assert isinstance(epoch, EpochReport)
    assert epoch.smoothed_loss == steps[-1].smoothed_loss
    assert epoch.gradient_norm == pytest.approx(sum(step.gradient_norm for step in steps) / 2)
    assert epoch.images_per_s == pytest.approx(3 / sum(step.seconds for step in steps))
    assert epoch.memory_mib == steps[-1].memory_mib
