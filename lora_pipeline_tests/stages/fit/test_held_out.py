"""Photos kept aside: which, that they train nothing, and that their loss is told and compares."""

from dataclasses import replace

import numpy as np
import pytest

from lora_pipeline.errors import TrainingError
from lora_pipeline.families import NoiseSchedule
from lora_pipeline.families.lora_file import read_metadata
from lora_pipeline.manifest import Manifest, write
from lora_pipeline.records import Example, File, Row
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit import held_out, held_out_losses, set_up_again, total_steps, without_held_out
from lora_pipeline.stages.fit.fit import _job
from lora_pipeline.stages.fit.job import Job, epochs_in
from lora_pipeline.stages.fit.noise import held_out_draws
from lora_pipeline.stages.fit.reports import EpochReport
from lora_pipeline.stages.fit.run import run

SETTINGS = FitSettings(
    epochs=2, batch_size=2, network_dim=4, network_alpha=2, unet_lr=1e-2, network_dropout=0.3, caption_dropout_rate=0.5
)
ASIDE = SETTINGS.model_copy(update={"held_out_share": 0.4})


def example(photo, crop="close", digest="", state="kept"):
    record = Example(photo, (64, 64), 1, "a photo", 0.0, photo_digest=digest or photo)
    return Row(f"{photo}@{crop}", "k", data=record.data(), state=state)


@pytest.fixture
def training_set(tmp_path, make_training_set):
    return make_training_set(tmp_path / "set", pictures=5, repeats=1)


def shares(manifest, share):
    """Photos kept aside of a manifest."""
    return {row.data["photo"] for row in held_out(without_held_out(manifest, FitSettings(held_out_share=share))).rows}


def test_whole_photos_are_kept_aside_by_their_digests(training_set):
    rows = [example(f"p{n}", crop, digest=f"{n * 7 % 10}") for n in range(10) for crop in ("close", "full")]
    rows.append(example("dropped", digest="00", state="dropped"))
    manifest = replace(training_set, rows=tuple(rows))
    assert shares(manifest, 0.2) == {"p0", "p3"}  # 0 and 21: the two least digests
    assert shares(replace(manifest, rows=tuple(rows[::-1])), 0.2) == {"p0", "p3"}
    assert shares(manifest, 0.01) == {"p0"}  # one at least, where any is asked for
    assert shares(manifest, 0.0) == set()
    split = without_held_out(manifest, FitSettings(held_out_share=0.2))
    assert len(split.kept) == 16
    assert len(held_out(split).kept) == 4
    assert [row.id for row in split.rows] == [row.id for row in manifest.rows]
    assert "kept aside" in next(row for row in split.rows if row.data["photo"] == "p3").reason
    one_more = replace(manifest, rows=(*manifest.rows, example("new", digest="01")))
    assert len(shares(one_more, 0.2) & {"p0", "p3"}) == 1


def test_regularisation_pictures_are_no_more_than_half_of_what_is_left(training_set):
    """4 photos × 3 looks and 12 of 5 others; a photo aside leaves 9, two leave 6, three leave 3: for 3 of the others."""
    rows = [row.with_data(repeats=3) for row in (example(f"p{n}", digest=str(n)) for n in range(4))]
    others = [example(f"generated/{n}", "whole") for n in range(5)]
    rows += [row.with_data(repeats=2 + (n < 2), regularisation=True) for n, row in enumerate(others)]
    whole = replace(training_set, rows=tuple(rows))
    for share, left, kept in ((0.0, 12, 5), (0.25, 9, 5), (0.5, 6, 5)):
        split = without_held_out(whole, FitSettings(held_out_share=share))
        told = [Example.of(row) for row in split.kept]
        beside = [one.repeats for one in told if one.regularisation]
        assert (sum(one.repeats for one in told if not one.regularisation), sum(beside), len(beside)) == (
            left,
            left,
            kept,
        )
        assert max(beside) - min(beside) <= 1
    few = replace(whole, rows=tuple(row.with_data(repeats=1) if "p" in row.id else row for row in whole.rows))
    split = without_held_out(few, FitSettings(held_out_share=0.5))
    assert sorted(Example.of(row).regularisation for row in split.kept) == [False, False, True, True]
    left_out = [row.reason for row in split.rows if row.state == "dropped" and not row.data.get("held_out")]
    assert left_out == ["there are more regularisation pictures than the subject is seen in an epoch"] * 3
    assert len(held_out(split).kept) == 2


@pytest.mark.parametrize("looks", [1, 3])
def test_what_was_learnt_is_set_up_again_from_the_names_of_its_examples(training_set, tmp_path, looks):
    rows = [row.with_data(repeats=looks) for row in (example(f"p{n}", digest=str(n)) for n in range(4))]
    others = [example(f"generated/{n}", "whole") for n in range(5)]
    rows += [row.with_data(repeats=2, regularisation=True) for row in others]
    whole = replace(training_set, rows=tuple(rows))
    settings = FitSettings(held_out_share=0.5)
    split = without_held_out(whole, settings)
    names = {row.id for row in split.kept}
    told = {"settings": settings.model_dump(mode="json"), "base": BaseSettings().model_dump(mode="json")}
    found = replace(whole, rows=tuple(row for row in whole.rows if row.id in names))
    job = set_up_again("key", told, "digest", found, tmp_path / "run")
    assert (job.settings, job.base, job.trained_on) == (settings, BaseSettings(), "digest")
    again, then = ({row.id: row.data["repeats"] for row in made.kept} for made in (job.examples, split))
    assert again == then


def test_a_photo_alone_is_not_kept_aside(training_set):
    alone = replace(training_set, rows=training_set.rows[:1])
    with pytest.raises(TrainingError, match="none is left to train on"):
        without_held_out(alone, ASIDE)
    assert without_held_out(alone, SETTINGS) is alone


def test_the_run_is_that_of_the_other_photos(training_set, tiny_base, tmp_path):
    split = without_held_out(training_set, ASIDE)
    fewer = replace(training_set, rows=split.kept)
    assert len(fewer.rows) == 3
    assert _job(split, tmp_path, ASIDE, tiny_base, "").key == _job(fewer, tmp_path, SETTINGS, tiny_base, "").key
    assert total_steps(training_set, ASIDE) == total_steps(fewer, SETTINGS) == 4


def test_noise_and_timesteps_are_an_even_grid_that_no_clock_moves():
    schedule = NoiseSchedule("epsilon", (0.5,) * 1000, (0.5,) * 1000)
    latents = np.zeros((4, 8, 8), np.float32)
    first, again = (held_out_draws(schedule, 1, latents) for _ in range(2))
    assert [draw.timestep for draw in first] == [125, 375, 625, 875]
    assert all(np.array_equal(one.noise, other.noise) for one, other in zip(first, again, strict=True))
    assert not np.array_equal(first[0].noise, first[1].noise)
    assert not np.array_equal(first[0].noise, held_out_draws(schedule, 2, latents)[0].noise)


def job_of(folder, training_set, base, settings):
    folder.mkdir()
    write(folder, training_set.rows, "trained_on")
    job = Job("key", folder, training_set.folder, "digest", settings, base, "")
    job.write()
    return job


def loras(job):
    return [path.read_bytes() for path in sorted(job.run.glob("epoch-*"))]


@pytest.mark.parametrize("kind", ["AdamW", "AdamWScheduleFree"])
def test_it_changes_no_bit_of_what_is_trained_and_is_told_each_epoch(training_set, tiny_base, tmp_path, kind):
    if kind == "AdamWScheduleFree":  # it trains at one place and is saved at another
        pytest.importorskip("schedulefree")
    changes = {"optimizer_type": kind}
    split = without_held_out(training_set, ASIDE)
    aside = job_of(tmp_path / "aside", split, tiny_base, ASIDE.model_copy(update=changes))
    fewer = replace(training_set, rows=split.kept)
    plain = job_of(tmp_path / "plain", fewer, tiny_base, SETTINGS.model_copy(update=changes))
    reports = list(run(aside, device="cpu"))
    list(run(plain, device="cpu"))
    assert loras(aside) == loras(plain)
    assert len(loras(aside)) == 2
    seen = {name for report in reports if not isinstance(report, EpochReport) for name in report.pictures}
    assert seen == {row.id for row in split.kept}

    first, second = epochs_in(aside.epochs_file)
    assert first.base_held_out_loss == second.base_held_out_loss
    assert len({first.base_held_out_loss, first.held_out_loss, second.held_out_loss}) == 3
    assert {one.held_out_loss for one in epochs_in(plain.epochs_file)} == {None}
    assert "key" in read_metadata(aside.run / first.file).values()

    rows = tuple(
        Row(f"{one.epoch:04d}", "k", files={"lora": File(one.file, one.digests[one.file])}) for one in (first, second)
    )
    assert held_out_losses(Manifest(aside.run, rows)) == {
        1: (first.held_out_loss, first.base_held_out_loss),
        2: (second.held_out_loss, second.base_held_out_loss),
    }
    assert held_out_losses(Manifest(plain.run, rows)) == {}

    # stopped after a step and gone on with: the base is the one of before the first step
    broken = job_of(tmp_path / "broken", split, tiny_base, ASIDE.model_copy(update=changes))
    steps = run(broken, lambda: True, "cpu")
    next(steps)
    list(steps)
    list(run(broken, device="cpu"))
    assert loras(broken) == loras(aside)
    told = [(one.held_out_loss, one.base_held_out_loss) for one in epochs_in(broken.epochs_file)]
    assert told == [(one.held_out_loss, one.base_held_out_loss) for one in (first, second)]
