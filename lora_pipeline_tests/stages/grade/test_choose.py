from collections.abc import Sequence
from dataclasses import replace

import pytest

from lora_pipeline.errors import PipelineError
from lora_pipeline.records import Measure, Score
from lora_pipeline.stages.grade.choose import Verdict, choose


def judged(*distances: float | None, found: Sequence[float] | None = None) -> list[Score]:
    """Scores of a person: base model first."""
    shares = found or [0.0 if distance is None else 1.0 for distance in distances]
    return [
        Score(epoch, distance, share) for epoch, (distance, share) in enumerate(zip(distances, shares, strict=True))
    ]


def chosen(verdicts: Sequence[Verdict]) -> Verdict:
    (one,) = [verdict for verdict in verdicts if verdict.score.chosen]
    return one


def test_the_nearest_epoch_is_chosen_and_each_says_why() -> None:
    verdicts = choose(judged(0.45, 0.40, 0.30, 0.35), 0.02, faces=True)
    assert chosen(verdicts).score.epoch == 2
    assert [verdict.learned for verdict in verdicts] == [False, True, True, True]
    assert [verdict.score.reason for verdict in verdicts] == [
        "the base model without a LoRA, by which the epochs are measured: identity distance 0.45, a face in 100% of its pictures",
        "epoch 1 is not chosen: identity distance 0.40, and epoch 2 has 0.30",
        "epoch 2 is chosen: identity distance 0.30 (base model 0.45); no other epoch is nearer",
        "epoch 3 is not chosen: identity distance 0.35, and epoch 2 has 0.30",
    ]


def test_an_earlier_epoch_within_the_tolerance_is_preferred() -> None:
    verdicts = choose(judged(0.45, 0.40, 0.21, 0.20, 0.22), 0.02, faces=True)
    assert chosen(verdicts).score.reason == (
        "epoch 2 is chosen: identity distance 0.21 (base model 0.45); epoch 3 is nearer by only 0.01, under the tolerance of 0.02, and later epochs overfit"
    )
    assert verdicts[3].score.reason == (
        "epoch 3 is not chosen: identity distance 0.20 is nearer than epoch 2's by only 0.01, under the tolerance of 0.02, and later epochs overfit"
    )
    assert chosen(choose(judged(0.45, 0.40, 0.21, 0.20, 0.22), 0.0, faces=True)).score.epoch == 3


def test_the_tolerance_does_not_choose_an_epoch_no_nearer_than_the_base() -> None:
    verdicts = choose(judged(0.45, 0.455, 0.44), 0.02, faces=True)
    assert chosen(verdicts).score.epoch == 2
    assert (
        verdicts[1].score.reason
        == "epoch 1 is not chosen: identity distance 0.46 is no nearer than the base model's 0.45"
    )


def test_an_epoch_that_lost_the_faces_is_not_chosen() -> None:
    verdicts = choose(judged(0.45, 0.40, 0.20, found=[1.0, 0.9, 0.25]), 0.02, faces=True)
    assert chosen(verdicts).score.epoch == 1
    assert (
        verdicts[2].score.reason
        == "epoch 2 is not chosen: a face was found in only 25% of its pictures, where the most is 100%"
    )
    assert verdicts[2].learned is False


def test_if_none_is_nearer_than_the_base_the_reason_says_it_did_not_learn() -> None:
    one = chosen(choose(judged(0.45, 0.50, 0.47), 0.02, faces=True))
    assert one.score.epoch == 2
    assert one.learned is False
    assert one.score.reason.startswith("epoch 2 is chosen: it is the nearest, but it has not learned the subject")


def test_if_all_epochs_lost_the_faces_the_one_with_most_is_chosen_and_not_learned() -> None:
    one = chosen(choose(judged(0.45, 0.20, 0.30, found=[1.0, 0.4, 0.5]), 0.02, faces=True))
    assert (one.score.epoch, one.learned) == (2, False)
    assert "has not learned" in one.score.reason


def test_without_any_face_the_last_epoch_is_chosen_and_not_learned() -> None:
    one = chosen(choose(judged(None, None, None), 0.02, faces=True))
    assert (one.score.epoch, one.learned) == (2, False)
    assert "no epoch's pictures show a face" in one.score.reason


def test_a_base_model_without_faces_is_farther_than_any_epoch_with_them() -> None:
    one = chosen(choose(judged(None, 0.5, 0.4), 0.02, faces=True))
    assert (one.score.epoch, one.learned) == (2, True)


@pytest.mark.parametrize(
    ("distances", "epoch", "learned"),
    [
        ((0.40, 0.35, 0.25, 0.24), 2, True),
        ((0.40, 0.45, 0.41), 2, None),
        ((None, None, None), 2, None),
        ((0.4, 0.3, None), 1, True),
    ],
)
def test_without_faces_the_weak_distance_chooses_softly(distances, epoch, learned) -> None:
    verdicts = choose(
        [Score(number, None, 0.0, distance) for number, distance in enumerate(distances)], 0.02, faces=False
    )
    one = chosen(verdicts)
    assert (one.score.epoch, one.learned) == (epoch, learned)
    assert "weak" in one.score.reason
    assert all(verdict.score.reason for verdict in verdicts)


def test_what_lies_on_an_edge_is_inside() -> None:
    assert chosen(choose(judged(0.45, 0.23, 0.21), 0.02, faces=True)).score.epoch == 1
    assert chosen(choose(judged(0.45, 0.2301, 0.21), 0.02, faces=True)).score.epoch == 2
    assert chosen(choose(judged(0.45, 0.30, 0.29, found=[0.75, 0.6, 0.5]), 0.02, faces=True)).score.epoch == 1


def test_a_nearer_epoch_without_faces_is_not_denied() -> None:
    one = chosen(choose(judged(0.45, 0.30, 0.20, found=[1.0, 1.0, 0.2]), 0.02, faces=True))
    assert one.score.reason.endswith("no other epoch that shows faces as often is nearer")


def vetoed(scores: list[Score], **epochs: str) -> list[Score]:
    """With vetoes by epoch: `e3="copies"`."""
    return [replace(one, vetoes=(epochs[f"e{one.epoch}"],) if f"e{one.epoch}" in epochs else ()) for one in scores]


def test_a_vetoed_epoch_is_not_chosen_though_nearest() -> None:
    verdicts = choose(vetoed(judged(0.45, 0.40, 0.30, 0.20), e3="copies: 40%"), 0.02, faces=True)
    assert chosen(verdicts).score.reason == (
        "epoch 2 is chosen: identity distance 0.30 (base model 0.45); no other epoch that is not vetoed is nearer"
    )
    assert verdicts[3].score.reason == "epoch 3 is not chosen: vetoed for copies: 40%"


def test_the_runner_up_is_what_the_rule_would_choose_next_if_it_learned() -> None:
    def second(scores: list[Score]) -> list[int]:
        return [one.score.epoch for one in choose(scores, 0.02, faces=True) if one.score.runner_up]

    assert second(judged(0.45, 0.40, 0.30, 0.35)) == [3]
    assert second(vetoed(judged(0.45, 0.40, 0.30, 0.35), e3="copies")) == [1]
    assert second(judged(0.45, 0.50, 0.30, 0.47)) == []


def test_if_all_are_vetoed_the_least_bad_is_chosen_and_the_run_called_broken() -> None:
    scores = vetoed(judged(0.45, 0.20, 0.30, 0.25), e2="damage", e3="damage")
    scores[1] = replace(scores[1], vetoes=("copies", "damage"))
    one = chosen(choose(scores, 0.02, faces=True))
    assert (one.score.epoch, one.learned) == (3, False)
    assert one.score.reason == (
        "epoch 3 is chosen: it is the least bad of a broken run, in which every epoch is vetoed: damage"
    )


def test_a_persons_pick_wins_and_is_recorded_as_theirs() -> None:
    verdicts = choose(vetoed(judged(0.45, 0.40, 0.30, 0.20), e3="copies: 40%"), 0.02, faces=True, pick=3)
    one = chosen(verdicts)
    assert (one.score.epoch, one.score.picked, one.learned) == (3, True, True)
    assert one.score.reason == (
        "epoch 3 is chosen: a person picked it (grade.pick); the rule would choose epoch 2; against it: copies: 40%"
    )
    assert [other.score.epoch for other in verdicts if other.score.runner_up] == [2]
    assert verdicts[1].score.reason == "epoch 1 is not chosen: identity distance 0.40, but a person picked epoch 3"
    same = chosen(choose(judged(0.45, 0.30), 0.02, faces=True, pick=1))
    assert same.score.reason == "epoch 1 is chosen: a person picked it (grade.pick), as the rule would"
    with pytest.raises(PipelineError, match=r"grade\.pick is 7, but the epochs that were drawn are 1"):
        choose(judged(0.45, 0.30), 0.02, faces=True, pick=7)


def test_by_an_embedder_things_are_judged_as_surely_as_faces() -> None:
    def things(*distances: float) -> list[Score]:
        return [Score(epoch, None, 0.0, distance) for epoch, distance in enumerate(distances)]

    good = chosen(choose(things(0.6, 0.5, 0.3, 0.31), 0.02, faces=False, by="DINOv2"))
    assert good.score.reason.startswith("epoch 2 is chosen: distance to the training pictures by DINOv2 0.30")
    none = chosen(choose(things(0.6, 0.7, 0.65), 0.02, faces=False, by="DINOv2"))
    assert (none.score.epoch, none.learned) == (2, False)


def test_nearer_by_chance_alone_is_not_learned() -> None:
    def measured(score: Score, high: float) -> Score:
        return replace(
            score,
            measures=(Measure("identity distance", "likeness", "less", score.identity_distance, 0.3, high, 0.45),),
        )

    base, first, second = judged(0.45, 0.43, 0.42)
    by_chance = chosen(choose([base, measured(first, 0.47), measured(second, 0.46)], 0.02, faces=True))
    assert (by_chance.score.epoch, by_chance.learned) == (2, False)
    assert (
        "no nearer than the base model's by more than chance (the 95 % interval reaches 0.46)" in by_chance.score.reason
    )
    verdicts = choose([base, measured(first, 0.44), measured(second, 0.46)], 0.02, faces=True)
    assert [one.learned for one in verdicts] == [False, True, False]
    assert chosen(verdicts).score.epoch == 1
    assert verdicts[2].score.reason.endswith("by more than chance (the 95 % interval reaches 0.46)")
