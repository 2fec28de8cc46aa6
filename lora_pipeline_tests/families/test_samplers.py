from types import SimpleNamespace
from typing import get_args

import pytest

from lora_pipeline.errors import ModelError
from lora_pipeline.families.samplers import OWN, SAMPLERS, sample_with
from lora_pipeline.settings import GradeSettings


def test_every_name_that_may_be_asked_for_is_a_sampler() -> None:
    assert get_args(get_args(GradeSettings.__annotations__["sampler"])[0]) == (OWN, *SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_sampler_keeps_the_models_noise_and_what_it_predicts(sampler: str) -> None:
    from diffusers import PNDMScheduler

    own = PNDMScheduler(beta_start=0.001, beta_end=0.013, beta_schedule="scaled_linear", prediction_type="v_prediction")
    pipeline = SimpleNamespace(scheduler=own)
    sample_with(pipeline, sampler)
    assert type(pipeline.scheduler).__name__ == SAMPLERS[sampler]
    for name in ("beta_start", "beta_end", "beta_schedule", "prediction_type"):
        assert pipeline.scheduler.config[name] == own.config[name]


def test_the_base_models_own_stays_as_it_is() -> None:
    pipeline = SimpleNamespace(scheduler=object())
    own = pipeline.scheduler
    sample_with(pipeline, OWN)
    assert pipeline.scheduler is own


def test_a_model_that_matches_flows_has_no_other_sampler() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    with pytest.raises(
        ModelError, match=r"'euler_a' cannot draw .* FlowMatchEulerDiscreteScheduler; leave it at 'base'"
    ):
        sample_with(SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler()), "euler_a")
