"""Which epoch to release, and the sentence that says why, for each one. Numbers in, words out: no files, no models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lora_pipeline.errors import PipelineError
from lora_pipeline.records import Score

FACES_SHARE = 0.8
"""An epoch that shows faces less often than this share of the most is not chosen, however near those few are."""

_ROUNDING = 1e-9  # so that 0.23 is within 0.02 of 0.21


@dataclass(frozen=True)
class Verdict:
    """A judged epoch.

    Args:
        score: with `chosen` and `reason` set.
        learned: whether it is nearer to the subject than the base model, by more than chance; None where that cannot be said.
    """

    score: Score
    learned: bool | None


def choose(scores: Sequence[Score], tolerance: float, faces: bool, by: str = "", pick: int = 0) -> tuple[Verdict, ...]:
    """Choose one epoch, name the runner-up, and give every one its reason.

    Vetoed epochs (`Score.vetoes`) are not chosen. If all are, the run is broken: the one with the fewest vetoes is chosen, the nearest of
    those, not learned, and the reason says so.

    With faces: of the epochs that show a face at least 0.8 times as often as the one that shows it most (the base model
    included), and that are nearer to the subject than the base model, the **earliest** whose distance is within `tolerance`
    of the nearest one's: who sets one, says that later epochs pay for so little with copying the photos (overfitting). It is 0 by default, since
    of drawn subjects 0.005 hid that later epochs drew fresh prompts better (`benchmarks/choice`). Nearer than
    the base model is who is so by more than chance: the base model's distance lies above the 95 % interval of the epoch's, if that
    was measured. If no epoch is, the nearest is chosen all the same, and `learned` and the reason say that it did not
    learn the subject. If no epoch shows faces often enough, the one that shows most is chosen, not learned.

    Without faces the same by an embedder's distance. Without an embedder, either, the distance is weak: the same choice among the epochs nearer
    than the base model, else the last epoch, with `learned` None.

    A person's pick wins over all of that.

    Args:
        scores: epoch 0 (the base model) and at least one more, in order, none chosen.
        tolerance: in the unit of the distance.
        faces: whether `identity_distance` and `faces_found` count, else `picture_distance`.
        by: the embedder whose distance `picture_distance` is; empty for colours and edges, the weak one.
        pick: the epoch that a person has chosen; 0 for none.

    Raises:
        PipelineError: a person picked an epoch that is not there.
    """
    rule = _Rule(tuple(scores), tolerance, faces, by)
    allowed = [one for one in rule.epochs if not one.vetoes]
    chosen, why = rule.best(allowed) if allowed else rule.least_bad()
    others = [one for one in allowed if one is not chosen and rule.learned(one)]
    runner_up = rule.best(others)[0] if others else None
    picked = _picked(rule.epochs, pick)
    if picked is not None:
        runner_up = chosen if chosen is not picked else runner_up
        chosen, why = picked, _by_a_person(picked, chosen)
    return tuple(
        Verdict(
            replace(
                one,
                chosen=one is chosen,
                runner_up=one is runner_up,
                picked=one is picked,
                reason=f"epoch {one.epoch} is chosen: {why}"
                if one is chosen
                else rule.why_not(one, chosen, picked is not None),
            ),
            rule.learned(one) if allowed or one is picked else False,
        )
        for one in scores
    )


def _picked(epochs: Sequence[Score], pick: int) -> Score | None:
    if not pick:
        return None
    for one in epochs:
        if one.epoch == pick:
            return one
    raise PipelineError(
        f"grade.pick is {pick}, but the epochs that were drawn are {', '.join(str(one.epoch) for one in epochs)}: pick one of these, or 0 for the rule's choice"
    )


def _by_a_person(picked: Score, by_rule: Score) -> str:
    told = "a person picked it (grade.pick)"
    told += ", as the rule would" if picked is by_rule else f"; the rule would choose epoch {by_rule.epoch}"
    return f"{told}; against it: {'; '.join(picked.vetoes)}" if picked.vetoes else told


@dataclass(frozen=True)
class _Rule:
    """The rule of `choose`, for its scores and its distance."""

    scores: tuple[Score, ...]
    tolerance: float
    faces: bool
    by: str

    @property
    def base(self) -> Score:
        return self.scores[0]

    @property
    def epochs(self) -> tuple[Score, ...]:
        return self.scores[1:]

    @property
    def weak(self) -> bool:
        return not self.faces and not self.by

    @property
    def name(self) -> str:
        if self.faces:
            return "identity distance"
        return f"distance to the training pictures by {self.by or 'colours and edges (weak)'}"

    def distance(self, score: Score) -> float | None:
        return score.identity_distance if self.faces else score.picture_distance

    def known(self, score: Score) -> float:
        distance = self.distance(score)
        assert distance is not None
        return distance

    def shows_faces(self, score: Score) -> bool:
        """Whether its pictures show faces about as often as the best's do; of kinds without faces all do."""
        return score.faces_found >= FACES_SHARE * max(one.faces_found for one in self.scores) - _ROUNDING

    def nearer(self, score: Score, than: Score) -> bool:
        own, other = self.distance(score), self.distance(than)
        return own is not None and (other is None or own < other)

    def surely_nearer(self, score: Score) -> bool:
        """Whether it is nearer than the base model by more than chance; half of the runs that learnt nothing are nearer by chance."""
        return self.nearer(score, self.base) and (not score.measures or score.measures[0].surely_below_base)

    def learned(self, score: Score) -> bool | None:
        if score is self.base:
            return False
        good = self.surely_nearer(score) and self.shows_faces(score)
        return good or (None if self.weak else False)

    def best(self, epochs: Sequence[Score]) -> tuple[Score, str]:
        """The chosen one of some epochs, and the sentence after "epoch 5 is chosen: "."""
        good = [one for one in epochs if self.learned(one)]
        if good:
            nearest = min(good, key=lambda one: (self.known(one), one.epoch))
            chosen = next(one for one in good if self.known(one) <= self.known(nearest) + self.tolerance + _ROUNDING)
            told = f"{self.name} {self.known(chosen):.2f} ({self._control})"
            if chosen is nearest:
                return chosen, f"{told}; no other epoch {self._passed_over(chosen)}is nearer"
            gain = _gain(self.known(chosen) - self.known(nearest), self.tolerance)
            return chosen, f"{told}; epoch {nearest.epoch} is nearer by only {gain}, and later epochs overfit"
        if self.weak:
            return (
                epochs[-1],
                "it is the last one; by colours and edges (a weak measure) no epoch is nearer to the training pictures than the base model; look at the grid",
            )
        shown = [one for one in epochs if self.shows_faces(one) and self.distance(one) is not None]
        if shown:
            chosen = min(shown, key=lambda one: (self.known(one), one.epoch))
            return (
                chosen,
                f"it is the nearest, but it has not learned the subject: {self.name} {self.known(chosen):.2f}, no nearer than the base model's{_by_chance(chosen) if self.nearer(chosen, self.base) else ''} ({self._control})",
            )
        chosen = max(epochs, key=lambda one: (one.faces_found, -(self.distance(one) or 0.0), -one.epoch))
        if chosen.faces_found == 0:
            seen = "show a face" if self.faces else "can be compared with the training pictures"
            return (
                epochs[-1],
                f"it is the last one, but it has not learned the subject: no epoch's pictures {seen} ({self._control})",
            )
        return (
            chosen,
            f"it shows faces most often, but has not learned the subject: only in {chosen.faces_found:.0%} of its pictures ({self._control}, a face in {self.base.faces_found:.0%})",
        )

    def least_bad(self) -> tuple[Score, str]:
        """Where every epoch is vetoed."""

        def badness(one: Score) -> tuple[int, bool, float, int]:
            distance = self.distance(one)
            return len(one.vetoes), not self.shows_faces(one), float("inf") if distance is None else distance, one.epoch

        chosen = min(self.epochs, key=badness)
        return (
            chosen,
            f"it is the least bad of a broken run, in which every epoch is vetoed: {'; '.join(chosen.vetoes)}",
        )

    def why_not(self, one: Score, chosen: Score, picked: bool) -> str:
        own = self.distance(one)
        if one is self.base:
            seen = f", a face in {one.faces_found:.0%} of its pictures" if self.faces else ""
            return f"the base model without a LoRA, by which the epochs are measured: {'nothing to compare' if own is None else f'{self.name} {own:.2f}'}{seen}"
        what = f"epoch {one.epoch} is not chosen:"
        if one.vetoes:
            return f"{what} vetoed for {'; '.join(one.vetoes)}"
        if own is None:
            return f"{what} " + (
                "no face was found in its pictures"
                if self.faces
                else "its pictures cannot be compared with the training pictures"
            )
        if self.faces and not self.shows_faces(one):
            return f"{what} a face was found in only {one.faces_found:.0%} of its pictures, where the most is {max(each.faces_found for each in self.scores):.0%}"
        if not self.nearer(one, self.base):
            return f"{what} {self.name} {own:.2f} is no nearer than the base model's {self.known(self.base):.2f}"
        if not self.surely_nearer(one):
            return f"{what} {self.name} {own:.2f} is no nearer than the base model's {self.known(self.base):.2f}{_by_chance(one)}"
        if picked:
            return f"{what} {self.name} {own:.2f}, but a person picked epoch {chosen.epoch}"
        best = self.known(chosen)
        if own >= best:
            earlier = " and is earlier" if own == best else ""
            return f"{what} {self.name} {own:.2f}, and epoch {chosen.epoch} has {best:.2f}{earlier}"
        gain = _gain(best - own, self.tolerance)
        return f"{what} {self.name} {own:.2f} is nearer than epoch {chosen.epoch}'s by only {gain}, and later epochs overfit"

    def _passed_over(self, chosen: Score) -> str:
        """What the others would have to be that are nearer and yet not chosen."""
        nearer = [one for one in self.epochs if self.nearer(one, chosen)]
        if any(one.vetoes for one in nearer):
            return "that is not vetoed "
        return "that shows faces as often " if nearer else ""

    @property
    def _control(self) -> str:
        distance = self.distance(self.base)
        if distance is None:
            return "base model: no face" if self.faces else "base model: unknown"
        return f"base model {distance:.2f}"


def _by_chance(score: Score) -> str:
    return f" by more than chance (the 95 % interval reaches {score.measures[0].high:.2f})"


def _gain(gain: float, tolerance: float) -> str:
    """With two digits, or four where two would read as nothing or as the tolerance itself."""
    digits = 4 if f"{gain:.2f}" in {"0.00", f"{tolerance:.2f}"} else 2
    return (
        f"{gain:.{digits}f}, {'under' if gain < tolerance - _ROUNDING else 'which is'} the tolerance of {tolerance:g}"
    )
