"""The scores as a curve."""

import io

from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Score


def scores_plot(scores: Manifest) -> bytes:
    """Distance to the subject by epoch, the base model's as a dashed line, the chosen epoch marked.

    Args:
        scores: as `score` made it.

    Returns:
        A PNG of 800×450 px; the same scores give the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    judged = [Score.of(row) for row in scores.kept]
    faces = any(
        one.picture_distance is None and (one.identity_distance is not None or one.faces_found > 0) for one in judged
    )
    distance = {one.epoch: one.identity_distance if faces else one.picture_distance for one in judged}
    points = [(epoch, value) for epoch, value in distance.items() if epoch > 0 and value is not None]

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(
        [epoch for epoch, _ in points], [value for _, value in points], marker="o", color="#2b6cb0", label="epoch"
    )
    base = distance.get(0)
    if base is not None:
        axes.axhline(base, linestyle="--", color="#6e6e6e", label=f"base model ({base:.2f})")
    for one in judged:
        value = distance[one.epoch]
        if one.chosen and value is not None:
            axes.plot(
                [one.epoch],
                [value],
                marker="o",
                markersize=14,
                fillstyle="none",
                markeredgewidth=2.5,
                color="#1e8c3c",
                linestyle="none",
                label=f"chosen: epoch {one.epoch} ({value:.2f})",
            )
        if faces and one.epoch > 0 and value is not None and one.faces_found < 1:
            axes.annotate(
                f"face in {one.faces_found:.0%}",
                (one.epoch, value),
                textcoords="offset points",
                xytext=(0, 9),
                ha="center",
                fontsize=8,
                color="#6e6e6e",
            )
    axes.set_xlabel("epoch")
    axes.set_ylabel("identity distance (less is nearer)" if faces else "distance by colours and edges (weak)")
    known = [value for value in distance.values() if value is not None]
    axes.set_xlim(0.5, max(distance, default=1) + 0.5)
    axes.set_ylim(0, 1.15 * max(known, default=1.0) or 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best")
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
