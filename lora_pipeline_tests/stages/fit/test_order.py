"""Which pictures are in which batch, and how many batches there are."""

from collections import Counter

import pytest

from lora_pipeline.records import Example
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.order import batches, grouped, looks_per_bucket, steps_per_epoch, total_steps


def examples(*given):
    """(bucket, repeats) each."""
    return [
        Example(photo=str(number), bucket=bucket, repeats=repeats, caption="", hidden=0)
        for number, (bucket, repeats) in enumerate(given)
    ]


SQUARE, WIDE = (64, 64), (96, 32)
MIXED = examples((SQUARE, 2), (WIDE, 3), (SQUARE, 1), (SQUARE, 2), (WIDE, 1))


def test_65_pictures_6_times_in_batches_of_2_for_10_epochs_are_1950_steps():
    assert 10 * steps_per_epoch({(512, 512): 65 * 6}, batch_size=2) == 1950


@pytest.mark.parametrize(
    ("looks", "batch_size", "accumulation", "steps"),
    [
        ({(512, 512): 390}, 2, 4, 49),  # 195 batches ÷ 4 = 48.75
        ({(512, 512): 390}, 2, 1, 195),
        ({(512, 512): 390}, 2, 1000, 1),
        ({(512, 512): 31, (576, 448): 9, (448, 576): 1}, 4, 2, 6),  # 8 + 3 + 1 batches ÷ 2
        ({(512, 512): 31, (576, 448): 9, (448, 576): 1}, 4, 5, 3),
    ],
)
def test_accumulation_divides_an_epochs_batches_and_rounds_up(looks, batch_size, accumulation, steps):
    """max_train_steps of sd-scripts: epochs × ⌈batches ÷ gradient_accumulation_steps⌉."""
    assert steps_per_epoch(looks, batch_size, accumulation) == steps


@pytest.mark.parametrize(
    ("processes", "accumulation", "steps"),
    [
        (2, 1, 98),  # ⌈195 batches ÷ 2⌉
        (4, 1, 49),
        (2, 4, 25),  # ⌈195 ÷ 8⌉
        (3, 2, 33),
    ],
)
def test_processes_divide_an_epochs_batches_and_round_up(tmp_path, make_training_set, processes, accumulation, steps):
    """max_train_steps of sd-scripts: 65 images × 6 repeats, batch 2: epochs × ⌈195 ÷ num_processes ÷ gradient_accumulation_steps⌉."""
    training_set = make_training_set(tmp_path, pictures=65, repeats=6)
    settings = FitSettings(epochs=10, batch_size=2, num_processes=processes, gradient_accumulation_steps=accumulation)
    assert total_steps(training_set, settings) == 10 * steps


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_several_processes_see_together_what_one_sees_and_each_no_mixed_batch(processes, batch_size):
    order = batches(MIXED, 3, batch_size, seed=1, mirror=False, processes=processes)
    assert Counter(look.picture for batch in order for look in batch) == {0: 2, 1: 3, 2: 1, 3: 2, 4: 1}
    assert all(len({MIXED[look.picture].bucket for look in batch}) <= 1 for batch in order)
    assert max(len(batch) for batch in order) <= batch_size
    assert all(moment[0] for moment in grouped(order, processes))
    assert len(order) == processes * steps_per_epoch(looks_per_bucket(MIXED), batch_size, processes)


@pytest.mark.parametrize(("seven", "five"), [(SQUARE, WIDE), (WIDE, SQUARE)])
def test_batches_of_one_moment_are_one_batch_of_as_many_times_the_size(seven, five):
    """7 looks are 2 + 2 and 2 + 1; of the other bucket's 5, 2 + 2 and 1 alone."""
    given = examples(*[(seven, 1)] * 7, *[(five, 1)] * 5)
    two = batches(given, 2, 2, seed=4, mirror=True, processes=2)
    together = [first + second for first, second in grouped(two, 2)]
    assert together == batches(given, 2, 4, seed=4, mirror=True)
    assert sorted(map(len, together)) == [1, 3, 4, 4]
    assert sorted(map(len, two)) == [0, 1, 1, 2, 2, 2, 2, 2]


def test_what_is_left_of_the_buckets_is_done_in_one_moment():
    """3 and 5 batches, by twos: the third and the fifth go together."""
    given = examples(*[(SQUARE, 1)] * 3, *[(WIDE, 1)] * 5)
    moments = grouped(batches(given, 1, 1, seed=0, mirror=False, processes=2), 2)
    mixed = [moment for moment in moments if len({given[batch[0].picture].bucket for batch in moment}) == 2]
    assert (len(moments), len(mixed)) == (4, 1)


def test_batches_are_grouped_in_their_order():
    order = batches(MIXED, 1, 2, seed=1, mirror=False)
    assert len(order) == 5
    assert [len(step) for step in grouped(order, 2)] == [2, 2, 1]
    assert [batch for step in grouped(order, 2) for batch in step] == order


def test_a_training_sets_steps_are_forecast_by_bucket(tmp_path, make_training_set):
    training_set = make_training_set(tmp_path, pictures=5, repeats=3, buckets=((64, 64), (96, 32)))
    assert total_steps(training_set, FitSettings(epochs=4, batch_size=2)) == 4 * (5 + 3)  # ⌈9/2⌉ + ⌈6/2⌉
    settings = FitSettings(epochs=4, batch_size=2, gradient_accumulation_steps=3)
    assert total_steps(training_set, settings) == 4 * 3  # ⌈8/3⌉


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
@pytest.mark.parametrize("epoch", [1, 2, 7])
def test_an_epoch_sees_each_picture_as_often_as_its_repeats_and_mixes_no_sizes(batch_size, epoch):
    order = batches(MIXED, epoch, batch_size, seed=1, mirror=False)
    assert Counter(look.picture for batch in order for look in batch) == {0: 2, 1: 3, 2: 1, 3: 2, 4: 1}
    assert all(len({MIXED[look.picture].bucket for look in batch}) == 1 for batch in order)
    assert len(order) == steps_per_epoch(looks_per_bucket(MIXED), batch_size)
    assert max(len(batch) for batch in order) <= batch_size
    assert not any(look.mirrored for batch in order for look in batch)


def test_the_order_is_the_seeds_and_the_epochs_alone():
    assert batches(MIXED, 3, 2, seed=1, mirror=True) == batches(MIXED, 3, 2, seed=1, mirror=True)
    assert batches(MIXED, 3, 2, seed=1, mirror=True) != batches(MIXED, 4, 2, seed=1, mirror=True)
    assert batches(MIXED, 3, 2, seed=1, mirror=True) != batches(MIXED, 3, 2, seed=2, mirror=True)


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_half_of_all_looks_are_mirrored(repeats):
    given = examples(*[(SQUARE, repeats)] * 6)
    looks = [look for epoch in range(1, 5) for batch in batches(given, epoch, 4, seed=0, mirror=True) for look in batch]
    for picture in range(6):
        assert Counter(look.mirrored for look in looks if look.picture == picture) == {
            True: 2 * repeats,
            False: 2 * repeats,
        }
