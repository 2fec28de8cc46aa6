"""Why an epoch may not be chosen, however near to the subject it is. Numbers in, words out."""

from collections.abc import Sequence

from lora_pipeline.records import Measure
from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade.damage import FLOOR, HELD_OUT, times
from lora_pipeline.stages.grade.drift import BLEEDING, DRIFT
from lora_pipeline.stages.grade.memorising import COPIES


def vetoes(measures: Sequence[Measure], settings: GradeSettings) -> tuple[str, ...]:
    """A clause for each limit that an epoch is beyond, in the order memorising, prompts, drift, damage.

    What is compared is the value itself, not its interval: with few pictures a limit may be passed by chance. What was not measured vetoes nothing.
    """
    return (
        *_memorised(measures, settings),
        *_lost(measures, settings),
        *_drifted(measures, settings),
        *_damaged(measures, settings),
    )


def _memorised(measures: Sequence[Measure], settings: GradeSettings) -> list[str]:
    return [
        f"copies: {one.value:.0%} of its pictures are nearly a training picture, where {settings.max_copies:.0%} are allowed"
        for one in measures
        if one.name == COPIES and one.value is not None and one.value > max(settings.max_copies, one.base or 0.0)
    ]


def _lost(measures: Sequence[Measure], settings: GradeSettings) -> list[str]:
    return [
        f"lost prompts: {one.name} {one.value:.2f}, under {settings.min_prompt_kept:.0%} of the base model's {one.base:.2f}"
        for one in measures
        if one.about == "prompt"
        and one.value is not None
        and one.base
        and one.value < settings.min_prompt_kept * one.base
    ]


def _drifted(measures: Sequence[Measure], settings: GradeSettings) -> list[str]:
    told: list[str] = []
    for one in measures:
        if one.value is None:
            continue
        if one.name == DRIFT and one.ceiling and settings.max_drift and one.value > settings.max_drift * one.ceiling:
            told.append(
                f"drift: others are {one.value:.2f} from the base model's, over {settings.max_drift:g} times what another seed changes ({one.ceiling:.2f})"
            )
        if one.name == BLEEDING and settings.max_bleeding < 1 and one.value > settings.max_bleeding:
            told.append(
                f"drift: without the trigger, others have gone {one.value:.0%} of the way to the subject, where {settings.max_bleeding:.0%} are allowed"
            )
    return told


def _damaged(measures: Sequence[Measure], settings: GradeSettings) -> list[str]:
    told: list[str] = []
    for one in measures:
        if one.value is None or one.base is None:
            continue
        if one.name in FLOOR and (factor := times(one)) is not None and factor > settings.max_damage:
            told.append(
                f"damage: {one.name} {one.value:.3g} where the base model has {one.base:.3g}, over {settings.max_damage:g} times {'more' if one.value > one.base else 'less'}"
            )
        if one.name == HELD_OUT and one.value > one.base:
            told.append(f"damage: the loss on held-out photos is {one.value:.4f}, above the untrained {one.base:.4f}")
    return told
