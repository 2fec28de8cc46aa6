"""What vetoes an epoch, and what is advised."""

from dataclasses import replace

import pytest

from lora_pipeline.records import Measure, Score
from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade.advice import advice
from lora_pipeline.stages.grade.veto import vetoes

SETTINGS = GradeSettings(max_bleeding=0.9)


@pytest.mark.parametrize(
    ("fine", "beyond", "words"),
    [
        (Measure("copies", "memorising", "less", 0.1, base=0.0), {"value": 0.25}, "copies: 25%"),
        (Measure("CLIP-T", "prompt", "more", 0.29, base=0.32), {"value": 0.26}, "lost prompts: CLIP-T 0.26"),
        (Measure("drift of others", "drift", "less", 0.55, ceiling=0.4), {"value": 0.62}, "drift: others are 0.62"),
        (Measure("bleeding into others", "drift", "less", 0.9), {"value": 0.93}, "drift: without the trigger, others have gone 93%"),
        (Measure("sharpness", "damage", "same", 900.0, base=600.0), {"value": 1300.0}, "damage: sharpness 1.3e+03"),
        (Measure("saturation", "damage", "same", 0.3, base=0.5), {"value": 0.2}, "damage: saturation 0.2 where the base model has 0.5"),
        (Measure("held-out loss", "damage", "less", 0.25, base=0.25), {"value": 0.26}, "damage: the loss on held-out photos"),
    ],
)  # fmt: skip
def test_each_limit_vetoes_beyond_it_and_not_before(fine: Measure, beyond: dict[str, float], words: str) -> None:
    assert vetoes([fine], SETTINGS) == ()
    (told,) = vetoes([replace(fine, **beyond)], SETTINGS)
    assert told.startswith(words)


def test_what_is_not_measured_or_is_no_worse_than_the_base_vetoes_nothing() -> None:
    unknown = [
        Measure("copies", "memorising", "less", None),
        Measure("CLIP-T", "prompt", "more", 0.1),
        Measure("drift of others", "drift", "less", 0.9),
        Measure("noise", "damage", "same", 9.0),
    ]
    assert vetoes(unknown, SETTINGS) == ()
    assert vetoes([Measure("copies", "memorising", "less", 0.3, base=0.3)], SETTINGS) == ()
    assert vetoes([Measure("bleeding into others", "drift", "less", 1.2)], GradeSettings()) == ()


def curve(*distances: float | None, ceiling: float | None = None, half: float = 0.01, vetoed: tuple[int, ...] = ()):
    return [
        Score(
            epoch,
            distance,
            1.0,
            measures=(
                Measure(
                    "identity distance",
                    "likeness",
                    "less",
                    distance,
                    None if distance is None else distance - half,
                    None if distance is None else distance + half,
                    distances[0],
                    ceiling,
                ),
            ),
            vetoes=("copies",) if epoch in vetoed else (),
        )
        for epoch, distance in enumerate(distances)
    ]


def test_while_the_last_epoch_is_the_nearest_it_is_to_train_on() -> None:
    assert advice(curve(0.5, 0.4, 0.3, 0.25), 0.02).startswith(
        "keep training: the last epoch is the nearest yet, by 0.05"
    )
    assert advice(curve(0.5, 0.4), 0.02).startswith("keep training")


def test_a_run_that_learned_nothing_is_told_so_and_epochs_without_faces_do_not_count() -> None:
    assert advice(curve(0.5, 0.55, 0.53), 0.02).startswith("nothing learned")
    assert advice(curve(0.5, 0.499, 0.495), 0.02).startswith("nothing learned")  # by chance
    lost = curve(0.5, 0.3, 0.29, 0.1)
    assert advice([*lost[:3], replace(lost[3], faces_found=0.5)], 0.02) == "stopped improving at epoch 1"


def test_an_end_of_improving_is_named_by_its_epoch() -> None:
    assert advice(curve(0.5, 0.3, 0.21, 0.20, 0.24), 0.02) == "stopped improving at epoch 2"
    assert advice(curve(0.5, 0.3, 0.21, 0.25, 0.205), 0.02) == "stopped improving at epoch 2"
    reached = advice(curve(0.5, 0.3, 0.21, 0.22, ceiling=0.205), 0.02)
    assert reached.startswith("stopped improving at epoch 2: it is as near to the subject (0.21) as the photos are")


def test_the_data_is_the_limit_if_it_stops_short_of_the_photos() -> None:
    assert advice(curve(0.5, 0.35, 0.33, 0.34, ceiling=0.18), 0.02).startswith(
        "stopped improving at epoch 1, and data is the limit"
    )


def test_vetoed_epochs_are_no_progress_and_a_run_of_them_is_broken() -> None:
    assert advice(curve(0.5, 0.3, 0.29, 0.1, vetoed=(3,)), 0.02) == "stopped improving at epoch 1"
    assert advice(curve(0.5, 0.3, 0.2, vetoed=(1, 2)), 0.02).startswith("broken run")
    assert advice(curve(0.5, None, None), 0.02).startswith("nothing to advise by")
