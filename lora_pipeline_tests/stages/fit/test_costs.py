"""Seconds and memory from a few measured steps, in worked numbers; and what is said to fit does."""

from dataclasses import replace

import pytest

from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.costs import Measured, epoch_seconds, remedies

# A step of 1 takes 1 s and 3,000 MiB, one of 4 takes 2.5 s and 6,000 MiB: half a second and 1,000 MiB a picture more.
MEASURED = Measured(
    device="a card",
    batch_size=4,
    area_px=512 * 512,
    seconds_one=1.0,
    seconds_batch=2.5,
    epoch_end_s=10.0,
    free_mib=8000.0,
    weights_mib=1600.0,
    lora_mib=50.0,
    resident_mib=2000.0,
    one_mib=3000.0,
    batch_mib=6000.0,
    most_mib=6150.0,
)
# The real batch was not tried: of a step of 1, 1,000 MiB came and went.
ALONE = replace(MEASURED, batch_size=1, seconds_batch=1.0, batch_mib=3000.0, most_mib=3000.0)
SETTINGS = FitSettings(batch_size=8, network_dim=32)


def test_a_batch_between_those_measured_takes_what_lies_between():
    assert [MEASURED.seconds(count, 512 * 512) for count in (1, 2, 3, 4, 8)] == [1.0, 1.5, 2.0, 2.5, 4.5]
    assert MEASURED.seconds(4, 512 * 256) == 1.25
    assert ALONE.seconds(3, 512 * 512) == 3.0


def test_a_greater_batch_that_was_measured_faster_costs_no_less_than_one():
    assert replace(MEASURED, seconds_batch=0.9).seconds(4, 512 * 512) == 1.0


def test_an_epoch_is_its_full_batches_and_the_short_ones_at_each_buckets_end():
    # 2 full and one of 2: 2 × 2.5 + 1.5; of half the pixels, one of 3: 2.0 / 2
    assert epoch_seconds(MEASURED, {(512, 512): 10, (512, 256): 3}, batch_size=4) == pytest.approx(6.5 + 1.0)
    assert epoch_seconds(MEASURED, {(512, 512): 8}, batch_size=4) == pytest.approx(5.0)


def test_memory_of_a_batch_is_what_was_measured_or_a_line_through_it():
    assert MEASURED.memory_mib(4) == 6150
    assert MEASURED.memory_mib(1) == 3000
    assert MEASURED.memory_mib(8) == 10000
    assert [ALONE.memory_mib(count) for count in (1, 2, 8)] == [3000, 4000, 10000]


def test_it_fits_up_to_what_is_free_and_below_what_failed():
    assert MEASURED.fits(6)
    assert not MEASURED.fits(7)
    assert not replace(MEASURED, too_many=5).fits(5)
    assert replace(MEASURED, free_mib=6150.0).fits(4)
    assert not replace(MEASURED, free_mib=6149.0).fits(4)


def test_a_smaller_batch_is_told_with_so_many_a_step_that_as_many_pictures_are_seen():
    (told,) = remedies(ALONE, SETTINGS)
    assert told == "fit.batch_size: 6 with fit.gradient_accumulation_steps: 2 (8,000 MiB)"
    (told,) = remedies(ALONE, SETTINGS.model_copy(update={"gradient_accumulation_steps": 3}))
    assert "fit.gradient_accumulation_steps: 4" in told


def test_checkpointing_is_told_with_the_whole_batch_if_that_fits():
    # 2,300 for one picture, 300 each: 2,300 + 7 × 300
    assert "fit.gradient_checkpointing: true (4,400 MiB)" in remedies(replace(ALONE, checkpointed_mib=2300.0), SETTINGS)
    tight = replace(ALONE, checkpointed_mib=2300.0, free_mib=2700.0)
    assert remedies(tight, SETTINGS) == (
        "fit.gradient_checkpointing: true and fit.batch_size: 2 with fit.gradient_accumulation_steps: 4 (2,600 MiB)",
    )


def test_a_lower_rank_is_told_where_the_lora_is_what_is_too_much():
    # 100 MiB are missing, of 4 × 500 for weights, gradients and two moments: 5 % less of 32 is 30
    told = remedies(replace(ALONE, lora_mib=500.0, free_mib=9900.0), SETTINGS)
    assert told[-1] == "fit.network_dim: 30"
    assert not [one for one in remedies(replace(ALONE, free_mib=9700.0), SETTINGS) if "network_dim" in one]


class WithBase(FitSettings):
    base_precision: str = "fp32"


def test_a_base_in_int8_is_told_where_the_quarter_that_is_left_of_it_fits():
    # 10,000 − 3/4 × 1,600
    settings = WithBase(batch_size=8, mixed_precision="bf16")
    assert "fit.base_precision: int8 (8,800 MiB)" in remedies(replace(ALONE, free_mib=8800.0), settings)
    for other in (
        remedies(replace(ALONE, free_mib=8799.0), settings),
        remedies(replace(ALONE, free_mib=8800.0, texts_mib=100.0), settings),  # which stay in float32
        remedies(replace(ALONE, free_mib=8800.0, device="cpu, 2 threads"), settings),
        remedies(replace(ALONE, free_mib=8800.0), settings.model_copy(update={"base_precision": "nf4"})),
    ):
        assert not [one for one in other if "int8" in one]


def test_nothing_is_told_where_nothing_helps():
    assert remedies(replace(ALONE, free_mib=1500.0, checkpointed_mib=2300.0), SETTINGS) == ()
