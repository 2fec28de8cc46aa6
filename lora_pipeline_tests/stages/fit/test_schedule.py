"""The learning rate at known points."""

import pytest

from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.schedule import learning_rate


def rates(course, seen, total=1000, **more):
    settings = FitSettings(lr_scheduler=course, unet_lr=0.5, batch_size=2, **more)
    return [learning_rate(settings, images, total) for images in seen]


def test_constant_is_constant():
    assert rates("constant", [0, 400, 999]) == [0.5, 0.5, 0.5]


def test_cosine_falls_from_the_peak_to_nothing():
    assert rates("cosine", [0, 250, 500, 1000]) == pytest.approx([0.5, 0.5 * 0.5 * (1 + 2**-0.5), 0.25, 0])


def test_restarts_return_to_the_peak():
    told = rates("cosine_with_restarts", [0, 125, 249.999, 250, 375, 999.999, 1000], lr_scheduler_num_cycles=4)
    assert told == pytest.approx([0.5, 0.25, 0, 0.5, 0.25, 0, 0], abs=1e-4)


def test_one_cycle_of_restarts_is_the_cosine():
    seen = range(0, 1000, 50)
    assert rates("cosine_with_restarts", seen, lr_scheduler_num_cycles=1) == rates("cosine", seen)


@pytest.mark.parametrize("course", ["constant", "cosine", "cosine_with_restarts"])
def test_the_rate_rises_over_the_warm_up(course):
    told = rates(course, [0, 10, 20], lr_warmup_steps=10)
    assert told == pytest.approx([0, 0.25, 0.5])


def test_the_course_begins_after_the_warm_up():
    assert rates("cosine", [200, 600, 1000], lr_warmup_steps=100) == pytest.approx([0.5, 0.25, 0])
