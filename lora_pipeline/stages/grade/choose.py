"""Which epoch to release, and the sentence that says why, for each one. Numbers in, words out: no files, no models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lora_pipeline.records import Score

FACES_SHARE = 0.8
"""An epoch that shows faces less often than this share of the most is not chosen, however near those few are."""

_ROUNDING = 1e-9  # so that 0.23 is within 0.02 of 0.21


@dataclass(frozen=True)
class Verdict:
    """A judged epoch.

    Args:
        score: with `chosen` and `reason` set.
        learned: whether it is nearer to the subject than the base model; None where that cannot be said.
    """

    score: Score
    learned: bool | None


def choose(scores: Sequence[Score], tolerance: float, faces: bool) -> tuple[Verdict, ...]:
    """Choose one epoch and give every one its reason.

    With faces: of the epochs that show a face at least 0.8 times as often as the one that shows it most (the base model
    included), and that are nearer to the subject than the base model, the **earliest** whose distance is within `tolerance`
    of the nearest one's: what later epochs gain under that, they mostly pay for with copying the photos (overfitting). If no
    epoch is nearer than the base model, the nearest is chosen all the same, and `learned` and the reason say that it did not
    learn the subject. If no epoch shows faces often enough, the one that shows most is chosen, not learned.

    Without faces the distance is weak: the same choice among the epochs nearer than the base model, else the last epoch,
    with `learned` None.

    Args:
        scores: epoch 0 (the base model) and at least one more, in order, none chosen.
        tolerance: in the unit of the distance.
        faces: whether `identity_distance` and `faces_found` count, else `picture_distance`.
    """
    base, *epochs = scores
    chosen, why = _best(base, epochs, tolerance, faces)
    return tuple(
        Verdict(
            replace(
                one,
                chosen=one is chosen,
                reason=f"epoch {one.epoch} is chosen: {why}"
                if one is chosen
                else _why_not(one, chosen, base, scores, tolerance, faces),
            ),
            _learned(one, base, scores, faces),
        )
        for one in scores
    )


def _distance(score: Score, faces: bool) -> float | None:
    return score.identity_distance if faces else score.picture_distance


def _shows_faces(score: Score, scores: Sequence[Score]) -> bool:
    """Whether its pictures show faces about as often as the best's do; of kinds without faces all do."""
    return score.faces_found >= FACES_SHARE * max(one.faces_found for one in scores) - _ROUNDING


def _nearer(score: Score, base: Score, faces: bool) -> bool:
    own, other = _distance(score, faces), _distance(base, faces)
    return own is not None and (other is None or own < other)


def _learned(score: Score, base: Score, scores: Sequence[Score], faces: bool) -> bool | None:
    if score is base:
        return False
    good = _nearer(score, base, faces) and _shows_faces(score, scores)
    return good or (False if faces else None)


def _best(base: Score, epochs: Sequence[Score], tolerance: float, faces: bool) -> tuple[Score, str]:
    """The chosen one, and the sentence after "epoch 5 is chosen: "."""
    scores = [base, *epochs]
    good = [one for one in epochs if _learned(one, base, scores, faces)]
    if good:
        nearest = min(good, key=lambda one: (_known(one, faces), one.epoch))
        chosen = next(one for one in good if _known(one, faces) <= _known(nearest, faces) + tolerance + _ROUNDING)
        told = f"{_name(faces)} {_known(chosen, faces):.2f} ({_base(base, faces)})"
        if chosen is nearest:
            lost = any(_nearer(one, chosen, faces) for one in epochs)
            return chosen, f"{told}; no other epoch {'that shows faces as often ' if lost else ''}is nearer"
        gain = _gain(_known(chosen, faces) - _known(nearest, faces), tolerance)
        return chosen, f"{told}; epoch {nearest.epoch} is nearer by only {gain}, and later epochs overfit"
    if not faces:
        return (
            epochs[-1],
            "it is the last one; by colours and edges (a weak measure) no epoch is nearer to the training pictures than the base model; look at the grid",
        )
    shown = [one for one in epochs if _shows_faces(one, scores) and one.identity_distance is not None]
    if shown:
        chosen = min(shown, key=lambda one: (_known(one, faces), one.epoch))
        return (
            chosen,
            f"it is the nearest, but it has not learned the subject: identity distance {_known(chosen, faces):.2f}, no nearer than the base model's ({_base(base, faces)})",
        )
    chosen = max(epochs, key=lambda one: (one.faces_found, -(one.identity_distance or 0.0), -one.epoch))
    if chosen.faces_found == 0:
        return (
            epochs[-1],
            f"it is the last one, but it has not learned the subject: no epoch's pictures show a face ({_base(base, faces)})",
        )
    return (
        chosen,
        f"it shows faces most often, but has not learned the subject: only in {chosen.faces_found:.0%} of its pictures ({_base(base, faces)}, a face in {base.faces_found:.0%})",
    )


def _why_not(one: Score, chosen: Score, base: Score, scores: Sequence[Score], tolerance: float, faces: bool) -> str:
    own = _distance(one, faces)
    if one is base:
        seen = f", a face in {one.faces_found:.0%} of its pictures" if faces else ""
        return f"the base model without a LoRA, by which the epochs are measured: {'nothing to compare' if own is None else f'{_name(faces)} {own:.2f}'}{seen}"
    what = f"epoch {one.epoch} is not chosen:"
    if own is None:
        return f"{what} " + (
            "no face was found in its pictures"
            if faces
            else "its pictures cannot be compared with the training pictures"
        )
    if faces and not _shows_faces(one, scores):
        return f"{what} a face was found in only {one.faces_found:.0%} of its pictures, where the most is {max(each.faces_found for each in scores):.0%}"
    if not _nearer(one, base, faces):
        return f"{what} {_name(faces)} {own:.2f} is no nearer than the base model's {_known(base, faces):.2f}"
    best = _known(chosen, faces)
    if own >= best:
        earlier = " and is earlier" if own == best else ""
        return f"{what} {_name(faces)} {own:.2f}, and epoch {chosen.epoch} has {best:.2f}{earlier}"
    gain = _gain(best - own, tolerance)
    return f"{what} {_name(faces)} {own:.2f} is nearer than epoch {chosen.epoch}'s by only {gain}, and later epochs overfit"


def _known(score: Score, faces: bool) -> float:
    distance = _distance(score, faces)
    assert distance is not None
    return distance


def _name(faces: bool) -> str:
    return "identity distance" if faces else "distance to the training pictures by colours and edges (weak)"


def _base(base: Score, faces: bool) -> str:
    distance = _distance(base, faces)
    if distance is None:
        return "base model: no face" if faces else "base model: unknown"
    return f"base model {distance:.2f}"


def _gain(gain: float, tolerance: float) -> str:
    """With two digits, or four where two would read as nothing or as the tolerance itself."""
    digits = 4 if f"{gain:.2f}" in {"0.00", f"{tolerance:.2f}"} else 2
    return (
        f"{gain:.{digits}f}, {'under' if gain < tolerance - _ROUNDING else 'which is'} the tolerance of {tolerance:g}"
    )
