"""Whether to train on: numbers in, a sentence out."""

from collections.abc import Sequence

from lora_pipeline.records import Score
from lora_pipeline.stages.grade.choose import FACES_SHARE

WORTH_A_NIGHT = 0.02
"""What the last epoch must be nearer by than all others, in the unit of the distance, for a longer training to be advised."""


def advice(scores: Sequence[Score], tolerance: float = WORTH_A_NIGHT) -> str:
    """What to do next, from how the epochs' distances to the subject (`measures[0]`) go on; vetoed epochs are left out.

    - **broken run**: all epochs are vetoed.
    - **nothing learned**: none is nearer than the base model by more than chance.
    - **keep training**: the last epoch is the nearest, by more than `tolerance`.
    - **stopped improving at epoch N**: the earliest that is within `tolerance` of the nearest. And if the photos' own distance among each
      other, the ceiling, is under the interval of that epoch's: **data is the limit**.

    Epochs that lost the faces are left out as in `choose`.

    Args:
        scores: the base model and at least one epoch, in order, with measures and vetoes.
        tolerance: in the unit of the distance.
    """
    epochs = scores[1:]
    if all(one.vetoes for one in epochs):
        return "broken run: every epoch is vetoed; train again with a lower learning rate (fit.unet_lr), fewer epochs or more photos"
    enough = FACES_SHARE * max(one.faces_found for one in scores)
    allowed = [one for one in epochs if not one.vetoes and one.faces_found >= enough]
    known = [(one, distance) for one in allowed if (distance := _distance(one)) is not None]
    if not known:
        return "nothing to advise by: no epoch's distance to the subject could be measured; look at the grid"
    nearest, best = min(known, key=lambda pair: (pair[1], pair[0].epoch))
    if not any(one.measures[0].surely_below_base for one, _ in known):
        return "nothing learned: no epoch is nearer to the subject than the base model by more than chance; train with a higher learning rate (fit.unet_lr) or longer, and look whether the captions say the trigger"
    others = [distance for one, distance in known if one is not nearest]
    if nearest is epochs[-1] and (not others or min(others) - best > tolerance):
        return f"keep training: the last epoch is the nearest yet{f', by {min(others) - best:.2f}' if others else ''}; set fit.epochs higher"
    stop, distance = next((one, value) for one, value in known if value <= best + tolerance)
    told = f"stopped improving at epoch {stop.epoch}"
    measure = stop.measures[0]
    if measure.ceiling is not None and measure.low is not None and measure.low > measure.ceiling:
        return f"{told}, and data is the limit (or the base model): it lies {distance:.2f} from the subject, whose photos lie {measure.ceiling:.2f} from each other; more, or more varied, photos may bring it nearer, more epochs did not"
    if measure.ceiling is not None:
        return f"{told}: it is as near to the subject ({distance:.2f}) as the photos are to each other ({measure.ceiling:.2f}), as far as can be told"
    return told


def _distance(score: Score) -> float | None:
    return score.measures[0].value if score.measures else None
