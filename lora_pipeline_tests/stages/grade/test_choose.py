from collections.abc import Sequence

import pytest

from lora_pipeline.records import Score
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
