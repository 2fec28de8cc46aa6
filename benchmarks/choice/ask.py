"""Does the rule choose the epoch that is best in truth, and does it call a broken run broken? (Wanted: regret under 5 % of the range in at least 10 of
12 runs, and every broken run called broken, no good one.)

The runs are in `runs`, the truth of an epoch in `truth`. Each run goes through the stages as *Materialize all* takes it, up to `checkpoint_scores`,
with the recipe's own validation pictures; then the base model and every epoch draw 200 fresh prompts, and

    regret  = (truth of the best epoch - truth of the chosen one) / (truth of the best epoch - truth of the worst one)
    broken  = no epoch's truth is above the base model's by more than twice the standard error of their difference, picture by picture,
              or training stopped for a loss that is not finite
    good    = the best epoch's truth is above the base model's by at least 0.25; what is neither is poor: either word would be right for it
    called broken = all epochs are vetoed, the chosen one has not learned the subject, or training stopped for a loss that is not finite

The base model is no epoch: the range does not contain it. A run is **right** if its regret is under 5 %, or if it is broken and is called so: there the
answer is that no epoch is worth having, and the regret is that of one useless epoch against another. Regrets are counted by themselves too, of all
runs and of those that are not broken; a run that stopped has none. Under `standard error` stands that of the best epoch's lead over the
chosen one, in the truth's unit.

    python -m benchmarks choice
    python -m benchmarks.choice.ask --folder /tmp/choice --runs plain --pictures 4 --set fit.epochs=2

The first asks the whole of it, some four hours on two cores that do nothing else, and writes `result.json`; the second a little of it, and writes
nothing but its folder. Both go on where they were killed: stages and epochs that are done are not done again.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.choice.runs import FRESH, RUNS, Run, default_folder, prepare
from benchmarks.choice.truth import Judged, judge
from lora_pipeline import flow
from lora_pipeline.changes import changed
from lora_pipeline.errors import TrainingError
from lora_pipeline.records import Score
from lora_pipeline.store import Store

WANTED = 0.05
GOOD = 0.25
LAST = "checkpoint_scores"
RAN_AWAY = "of which nothing was learnt"  # a loss or a gradient that is not finite, in the trainer's words


def ask(
    folder: Path | None = None, pictures: int = FRESH, runs: Sequence[Run] = RUNS, changes: Sequence[str] = ()
) -> dict[str, object]:
    """A row a run, and how many are as wanted.

    Args:
        folder: where the runs lie, and go on.
        pictures: fresh ones an epoch.
        runs: which.
        changes: to the settings of all of them, as `--set` takes them.
    """
    store = Store((folder or default_folder()).resolve() / "data")
    rows: list[dict[str, Any]] = []
    for run in runs:
        rows.append(_asked(run, store, pictures, changes))
        print(_line(rows[-1]), flush=True)
    told = [row for row in rows if row["regret"] is not None]
    whole = [row for row in told if row["truth says"] != "broken"]

    def called(so: bool, truth: str) -> int:
        return sum(row["called broken"] is so and row["truth says"] == truth for row in rows)

    answer: dict[str, Any] = {
        "fresh pictures an epoch": pictures,
        "runs": len(rows),
        "right": sum(row["called broken"] if row["truth says"] == "broken" else row["regret"] < WANTED for row in rows),
        "regret under 5 %": f"{sum(row['regret'] < WANTED for row in told)} of {len(told)}",
        "regret under 5 %, of the runs that are not broken": f"{sum(row['regret'] < WANTED for row in whole)} of {len(whole)}",
        "broken, and called so": called(True, "broken"),
        "broken, and not called so": called(False, "broken"),
        "good, and called broken": called(True, "good"),
        "poor, and called broken": called(True, "poor"),
        "by run": {row["run"]: row for row in rows},
    }
    print(table(rows))
    print(f"right: {answer['right']} of {len(rows)}")
    return answer


def _asked(run: Run, store: Store, pictures: int, changes: Sequence[str]) -> dict[str, Any]:
    """One run: the pipeline's choice beside the truth."""
    begun = time.monotonic()
    work = flow.work(store, prepare(run, store))
    work = replace(work, settings=changed(work.settings, changes))
    stopped = ""
    try:
        for step in flow.STEPS[: [step.noun for step in flow.STEPS].index(LAST) + 1]:
            print(f"{run.name}: {step.noun}", flush=True)
            flow.take(step, work)
    except TrainingError as error:
        if RAN_AWAY not in str(error):  # a killed process or too little memory says nothing of the run
            raise
        stopped = str(error)
    row: dict[str, Any] = {
        "run": run.name,
        "subject": run.seed,
        "photos": run.photos,
        "changed": {section: dict(fields) for section, fields in run.changes.items()},
    }
    if stopped:
        # A person has no epoch to take: that the run is broken is true, and was said.
        return {**row, "stopped": stopped, "regret": None, "truth says": "broken", "called broken": True}
    print(f"{run.name}: truth", flush=True)
    judged = judge(work, run.seed, work.folder("truth"), pictures)
    row |= compared(judged, work.made("scores").kept)
    return {**row, "minutes, since it last went on": round((time.monotonic() - begun) / 60, 1)}


def compared(judged: Sequence[Judged], scored: Sequence[Any]) -> dict[str, Any]:
    """The choice of one run beside its truth.

    Args:
        judged: the base model first, then every epoch.
        scored: rows of `checkpoint_scores`.
    """
    base, *epochs = judged
    scores = {score.epoch: (score, row) for row in scored for score in [Score.of(row)]}
    chosen, chosen_row = next(pair for pair in scores.values() if pair[0].chosen)
    best = max(epochs, key=lambda one: (one.truth, -one.epoch))
    taken = next(one for one in epochs if one.epoch == chosen.epoch)
    return {
        "chosen": chosen.epoch,
        "best": best.epoch,
        "regret": round(regret([one.truth for one in epochs], epochs.index(taken)), 4),
        "standard error": round(standard_error(best, taken), 4),
        "truth says": said(base, epochs),
        "called broken": chosen_row.data["learned"] is not True,
        "truth, the base model first": [round(one.truth, 4) for one in judged],
        "likeness": [round(float(np.mean(one.likeness)), 4) for one in judged],
        "following": [round(float(np.mean(one.following)), 4) for one in judged],
        "identity distance, as the pipeline measured": [scores[one.epoch][0].identity_distance for one in judged],
        "vetoes": {str(epoch): list(score.vetoes) for epoch, (score, _) in scores.items() if score.vetoes},
        "reason": chosen.reason,
        "advice": chosen.advice,
    }


def regret(truths: Sequence[float], chosen: int) -> float:
    """How much of the range of the epochs' truths the chosen one lies under the best, 0 to 1; 0 if they are all alike."""
    best, worst = max(truths), min(truths)
    return 0.0 if best == worst else (best - truths[chosen]) / (best - worst)


def standard_error(one: Judged, other: Judged) -> float:
    """Of the difference of two epochs' truths, whose pictures are of the same prompts and first noises."""
    apart = one.pictures - other.pictures
    return 0.0 if len(apart) < 2 else float(apart.std(ddof=1) / np.sqrt(len(apart)))


def said(base: Judged, epochs: Sequence[Judged]) -> Literal["broken", "poor", "good"]:
    """What the truth says of a run."""
    leads = [one.truth - base.truth for one in epochs]
    if not any(lead > 2 * standard_error(one, base) for lead, one in zip(leads, epochs, strict=True)):
        return "broken"
    return "good" if max(leads) >= GOOD else "poor"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| run | subject | epochs | base model's truth | chosen | its truth | best | its truth | regret | truth says | called broken |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        truths = row.get("truth, the base model first")
        cells: list[object] = [row["run"], row["subject"]]
        if truths:
            chosen, best = row["chosen"], row["best"]
            cells += [len(truths) - 1, f"{truths[0]:.3f}", chosen, f"{truths[chosen]:.3f}", best, f"{truths[best]:.3f}"]
            cells += [f"{row['regret']:.1%} of the range"]
        else:
            cells += ["stopped", *[""] * 6]
        cells += [row["truth says"], "yes" if row["called broken"] else "no"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    if row["regret"] is None:
        return f"{row['run']}: stopped: {row['stopped']}"
    return f"{row['run']}: epoch {row['chosen']} is chosen, {row['best']} is best, regret {row['regret']:.1%}, {row['minutes, since it last went on']} min"


def main() -> None:
    """Ask a part of it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the runs lie, and go on")
    parser.add_argument("--runs", nargs="+", choices=[run.name for run in RUNS], help="all by default")
    parser.add_argument("--pictures", type=int, default=FRESH, help="fresh ones an epoch")
    parser.add_argument("--set", action="append", default=[], help="a setting of all of them: section.field=value")
    asked = parser.parse_args()
    ask(asked.folder, asked.pictures, [run for run in RUNS if run.name in (asked.runs or [run.name])], asked.set)


if __name__ == "__main__":
    main()
