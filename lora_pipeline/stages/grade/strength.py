"""How strong the LoRA should be: what the sweep over strengths says of the chosen epoch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Record, Row, Value

if TYPE_CHECKING:
    from PIL.Image import Image

CODE_VERSION = "1"
TABLE = "strength"
MEASURED = "by_strength"

Distance = Callable[["Image"], "float | None"]
"""How far a picture is from the subject: of a person its face from theirs, None where no face is found."""

FACES_SHARE = 0.8
"""A strength that shows faces less often than this share of the most is not recommended, however near those few are."""

TOLERANCE = 0.02
"""Of identity distance: a weaker LoRA that is farther by no more is recommended, since it leaves the prompt freer."""

_ROUNDING = 1e-9  # so that 0.23 is within 0.02 of 0.21


@dataclass(frozen=True)
class Strength(Record):
    """What one strength comes to, over all prompts and seeds.

    Args:
        strength: of the LoRA; 0 is the base model.
        identity_distance: mean over its pictures with a face, None if no picture has one; of a thing, the distance by an embedder.
        faces_found: share of its pictures in which a face was found, 0 to 1; of a thing, 1.
        recommended: whether it is the one to use.
        reason: why, of the recommended one alone.
    """

    strength: float
    identity_distance: float | None
    faces_found: float
    recommended: bool = False
    reason: str = ""


def recommend_strength(
    distances: Mapping[float, Sequence[float | None]], tolerance: float = TOLERANCE, by: str = ""
) -> tuple[Strength, ...]:
    """Recommend the least strength that is as near to the subject as any.

    Of the strengths that show a face at least 0.8 times as often as the one that shows it most, and that are nearer than the base
    model, the **least** whose mean distance is within `tolerance` of the nearest one's: what more strength gains under
    that, it pays for with prompts that are followed less. Where no strength is nearer than the base model, none is recommended.

    Args:
        distances: by strength, one a picture, None where no face was found; that of strength 0 is the base model's.
        tolerance: in the unit of the distance.
        by: the embedder whose distance it is; empty for that of faces.

    Returns:
        One a strength, in order.
    """
    told = [_told(strength, distances[strength]) for strength in sorted(distances)]
    base = next((one.identity_distance for one in told if one.strength == 0), None)
    most = max((one.faces_found for one in told), default=0.0)
    good = {
        one.strength: one.identity_distance
        for one in told
        if one.strength > 0
        and one.identity_distance is not None
        and one.faces_found >= FACES_SHARE * most - _ROUNDING
        and (base is None or one.identity_distance < base)
    }
    if not good:
        return tuple(told)
    nearest = min(good, key=lambda strength: (good[strength], strength))
    best = next(strength for strength in good if good[strength] <= good[nearest] + tolerance + _ROUNDING)
    name = f"distance by {by}" if by else "identity distance"
    what = f"at strength {best:g} the {name} is {good[best]:.2f} ({'base model: no face' if base is None else f'base model {base:.2f}'})"
    if best != nearest:
        why = f"{what}; {nearest:g} is nearer by only {good[best] - good[nearest]:.3f}, and the weaker a LoRA is, the freer the prompt"
    else:
        why = f"{what}; no other strength {'' if by else 'that shows faces as often '}is as near"
    return tuple(
        Strength(
            one.strength, one.identity_distance, one.faces_found, one.strength == best, why * (one.strength == best)
        )
        for one in told
    )


def _told(strength: float, distances: Sequence[float | None]) -> Strength:
    near = [one for one in distances if one is not None]
    share = round(len(near) / len(distances), 4) if distances else 0.0
    return Strength(strength, round(fmean(near), 4) if near else None, share)


def sweep(
    grids: Manifest,
    epoch: int,
    folder: Path,
    prompts: Sequence[str],
    distance: Distance,
    measured_by: Sequence[Value],
    tolerance: float = TOLERANCE,
    progress: Progress = silent,
    by: str = "",
) -> Outcome:
    """Measure an epoch's pictures at every strength, and the base model's, and recommend a strength.

    Args:
        grids: as `draw_grids` made it.
        epoch: the chosen one.
        folder: that of the scores. Rows of its table `strength` are those of `Strength`; what was measured in each picture is
            remembered in the table `by_strength`. Both are empty if the epoch was drawn at one strength alone.
        prompts: those that show the subject, filled in; pictures of others are left out.
        distance: of a picture.
        measured_by: digests or names of all that `distance` depends on.
        tolerance, by: see `recommend_strength`.
        progress: told after each picture.
    """
    asked = {row.id.split("/")[1] for row in grids.kept if row.data["prompt"] in prompts}
    rows = [
        row for row in grids.rows if row.id.startswith((f"e{epoch:04d}/", "e0000/")) and row.id.split("/")[1] in asked
    ]
    if not any("@" in row.id for row in rows):
        rows = []

    def measure(path: Path, _: Path) -> Made:
        return Made({"distance": distance(open_upright(path))})

    items = [
        Item(row.id, [row.files["picture"].digest, *measured_by], grids.path(row))
        for row in rows
        if row.state == "kept"
    ]
    measured = refresh(
        folder, items, measure, settings=None, code_version=CODE_VERSION, name=MEASURED, what="measure the strengths", progress=progress
    )  # fmt: skip
    seen = {row.id: row.data.get("distance") for row in measured.manifest.kept}
    distances: dict[float, list[float | None]] = {}
    for row in rows:
        value = seen.get(row.id)
        distances.setdefault(_strength(row), []).append(value if isinstance(value, float) else None)
    told = recommend_strength(distances, tolerance, by)
    verdicts = [Item(f"{one.strength:g}", [one.data()], one) for one in told]
    return refresh(
        folder, verdicts, lambda one, _: Made(one.data()), settings=None, code_version=CODE_VERSION, name=TABLE, what="recommend a strength"
    )  # fmt: skip


def _strength(row: Row) -> float:
    """From the id: a failed row has no data."""
    return 0.0 if row.id.startswith("e0000/") else float(row.id.partition("@")[2] or 1)


def recommended(strengths: Manifest) -> Strength | None:
    """The recommended one of a table `strength`, if there is any."""
    return next((one for one in map(Strength.of, strengths.rows) if one.recommended), None)
