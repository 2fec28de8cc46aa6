"""The scores as a curve."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.records import Measure, Score
from lora_pipeline.store import whole

CODE_VERSION = "1"
_BLUE, _GREEN, _RED, _GREY, _GOLD = "#2b6cb0", "#1e8c3c", "#c53030", "#6e6e6e", "#b7791f"


def make_chart(scores: Manifest, folder: Path) -> Outcome:
    """Bring `chart.png` in that folder up to date with the scores; its table is `chart`, with one row, whose file is the `picture`."""

    def make(_: Manifest, folder: Path) -> Made:
        with whole(folder / "chart.png") as aside:
            aside.write_bytes(scores_plot(scores))
        return Made(files={"picture": "chart.png"})

    return refresh(
        folder,
        [Item("chart", [scores.digest], scores)],
        make,
        settings=None,
        code_version=CODE_VERSION,
        name="chart",
        what="draw the chart",
    )


def scores_plot(scores: Manifest) -> bytes:
    """Distance to the subject by epoch with its interval; the base model's and the photos' own as lines; chosen, runner-up and vetoed epochs marked.

    Args:
        scores: as `score` made it.

    Returns:
        A PNG of 800×450 px; the same scores give the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    judged = [Score.of(row) for row in scores.kept]
    told = {one.epoch: one.measures[0] for one in judged if one.measures}
    base = told.get(0, Measure("distance", "likeness", "less", None))
    epochs = [one for one in judged if one.epoch > 0 and one.epoch in told and told[one.epoch].value is not None]

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _curve(axes, [told[one.epoch] for one in epochs], [one.epoch for one in epochs])
    if base.value is not None:
        axes.axhline(base.value, linestyle="--", color=_GREY, label=f"base model ({base.value:.2f})")
    if base.ceiling is not None:
        words = f"photos among each other ({base.ceiling:.2f})"
        axes.axhline(base.ceiling, linestyle=":", color=_GOLD, label=words)
    for one in epochs:
        value = _or(told[one.epoch].value, 0.0)
        if one.vetoes:
            axes.plot(
                [one.epoch],
                [value],
                marker="x",
                markersize=11,
                markeredgewidth=2.5,
                color=_RED,
                linestyle="none",
                zorder=5,
            )
        if one.chosen or one.runner_up:
            what = "picked" if one.picked else "chosen" if one.chosen else "runner-up"
            axes.plot(
                [one.epoch],
                [value],
                marker="o",
                markersize=15,
                fillstyle="none",
                markeredgewidth=2.5 if one.chosen else 1.2,
                color=_GREEN,
                linestyle="none",
                label=f"{what}: epoch {one.epoch} ({value:.2f})",
            )
        if one.faces_found not in (0.0, 1.0):
            where = axes.get_xaxis_transform()  # at the foot, where no curve runs
            axes.text(
                one.epoch, 0.02, f"face in {one.faces_found:.0%}", transform=where, ha="center", fontsize=8, color=_GREY
            )
    if any(one.vetoes for one in epochs):
        axes.plot([], [], marker="x", markersize=9, markeredgewidth=2.5, color=_RED, linestyle="none", label="vetoed")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{base.name} (less is nearer)")
    tops = [end for one in told.values() for end in (one.high, one.value, one.ceiling) if end is not None]
    axes.set_xlim(0.5, max(told, default=1) + 0.5)
    axes.set_ylim(0, 1.15 * max(tops, default=1.0) or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _curve(axes: Any, measures: Sequence[Measure], epochs: Sequence[int]) -> None:
    values = [one.value or 0.0 for one in measures]
    # a median may lie on an end of its interval, and rounding beyond it
    below = [max(0.0, value - _or(one.low, value)) for one, value in zip(measures, values, strict=True)]
    above = [max(0.0, _or(one.high, value) - value) for one, value in zip(measures, values, strict=True)]
    axes.errorbar(
        epochs, values, yerr=[below, above], marker="o", capsize=4, color=_BLUE, label="epoch, with 95 % interval"
    )


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
