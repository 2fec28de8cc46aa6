"""The learning rate at known points."""

import pytest

from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.schedule import learning_rate

COURSES = ["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"]


def rates(course, seen, total=1000, **more):
    settings = FitSettings(lr_scheduler=course, unet_lr=0.5, batch_size=2, **more)
    return [learning_rate(settings, images, total) for images in seen]


def test_constant_is_constant():
    assert rates("constant", [0, 400, 999]) == [0.5, 0.5, 0.5]


def test_linear_is_a_straight_line_to_nothing():
    assert rates("linear", [0, 250, 500, 1000]) == pytest.approx([0.5, 0.375, 0.25, 0])


def test_polynomial_falls_with_its_power_and_ends_at_a_ten_millionth():
    told = rates("polynomial", [0, 500, 900, 1000], lr_scheduler_power=2)
    assert told == pytest.approx([0.5, 0.125, 0.005, 1e-7], rel=1e-4)
    assert rates("polynomial", [0, 500, 1000])[:2] == pytest.approx([0.5, 0.25])


def test_cosine_falls_from_the_peak_to_nothing():
    assert rates("cosine", [0, 250, 500, 1000]) == pytest.approx([0.5, 0.5 * 0.5 * (1 + 2**-0.5), 0.25, 0])


def test_restarts_return_to_the_peak():
    told = rates("cosine_with_restarts", [0, 125, 249.999, 250, 375, 999.999, 1000], lr_scheduler_num_cycles=4)
    assert told == pytest.approx([0.5, 0.25, 0, 0.5, 0.25, 0, 0], abs=1e-4)


def test_one_cycle_of_restarts_is_the_cosine():
    seen = range(0, 1000, 50)
    assert rates("cosine_with_restarts", seen, lr_scheduler_num_cycles=1) == rates("cosine", seen)


@pytest.mark.parametrize("course", COURSES)
def test_the_rate_rises_over_the_warm_up(course):
    told = rates(course, [0, 10, 20], lr_warmup_steps=10)
    assert told == pytest.approx([0, 0.25, 0.5])


def test_the_warm_up_counts_updates():
    """10 steps of 3 batches of 2 are 60 images."""
    told = rates("linear", [0, 30, 60, 530], lr_warmup_steps=10, gradient_accumulation_steps=3)
    assert told == pytest.approx([0, 0.25, 0.5, 0.25])


def test_the_warm_up_counts_updates_of_all_processes_together():
    """10 steps of 3 batches of 2 in each of 4 processes are 240 images."""
    told = rates("constant", [0, 120, 240], lr_warmup_steps=10, gradient_accumulation_steps=3, num_processes=4)
    assert told == pytest.approx([0, 0.25, 0.5])


def test_schedule_free_has_no_course():
    assert rates("cosine", [0, 500, 999], lr_warmup_steps=10, optimizer_type="AdamWScheduleFree") == [0.5] * 3


def test_the_course_begins_after_the_warm_up():
    assert rates("cosine", [200, 600, 1000], lr_warmup_steps=100) == pytest.approx([0.5, 0.25, 0])


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("warm_up", [0, 7])
def test_full_batches_have_the_rates_of_diffusers_which_sd_scripts_uses(course, warm_up):
    """60 steps of batch 2 at 5e-4, 3 cycles, power 2: all 60 rates."""
    import torch
    from diffusers.optimization import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
    name = "constant_with_warmup" if course == "constant" and warm_up else course
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warm_up, num_training_steps=60, num_cycles=3, power=2.0)
    wanted = []
    for _ in range(60):
        wanted.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    settings = FitSettings(
        lr_scheduler=course,
        unet_lr=5e-4,
        batch_size=2,
        lr_warmup_steps=warm_up,
        lr_scheduler_num_cycles=3,
        lr_scheduler_power=2,
    )
    assert [learning_rate(settings, 2 * step, 120) for step in range(60)] == pytest.approx(wanted, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("cycles", [1, 2, 3, 5])
def test_no_step_of_restarts_begins_at_rate_nothing(cycles):
    """Not even the first of a cycle, where a counter that is one off would (kohya-ss/sd-scripts#141)."""
    told = rates("cosine_with_restarts", range(0, 120, 2), total=120, lr_scheduler_num_cycles=cycles)
    assert min(told) > 0
    assert [told[at * 60 // cycles] for at in range(cycles)] == [0.5] * cycles
