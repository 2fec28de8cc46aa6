"""The loss curve of a run."""

from pathlib import Path
from typing import Any

from lora_pipeline.errors import TrainingError
from lora_pipeline.manifest import Manifest
from lora_pipeline.stages.fit.job import epochs_in, steps_in
from lora_pipeline.store import whole


def plot_losses(checkpoints: Manifest) -> Path:
    """Draw `loss.png` into the run's folder and give its path: every step thin, smoothed, each epoch's mean thick, the learning rate.

    With photos kept aside, the loss on them too, from before the first step to each epoch's end.

    Args:
        checkpoints: what `fit` gave.

    Raises:
        TrainingError: there is no epoch, or the run's `steps.jsonl` has gone.
    """
    if not checkpoints.kept:
        raise TrainingError("there are no losses to draw: nothing was trained yet")
    run = checkpoints.path(checkpoints.kept[0], "lora").parent
    steps = steps_in(run / "steps.jsonl")
    if not steps:
        raise TrainingError(f"there are no losses to draw: {run / 'steps.jsonl'} has gone")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 4), layout="constrained")
        FigureCanvasAgg(figure)
        losses: Any = figure.add_subplot()
        numbers = [step.step for step in steps]
        losses.plot(
            numbers, [step.loss for step in steps], color="tab:blue", linewidth=0.6, alpha=0.5, label="loss of a step"
        )
        losses.plot(numbers, [step.smoothed_loss for step in steps], color="tab:red", linewidth=1, label="smoothed")
        for epoch in sorted({step.epoch for step in steps}):
            within = [step for step in steps if step.epoch == epoch]
            mean = sum(step.loss for step in within) / len(within)
            ends = (within[0].step - 0.5, within[-1].step + 0.5)
            losses.plot(
                ends, (mean, mean), color="tab:blue", linewidth=2.5, label="mean of an epoch" if epoch == 1 else None
            )
        epochs = [one for one in epochs_in(run / "epochs.jsonl") if one.held_out_loss is not None]
        if epochs:
            ends = {step.epoch: step.step for step in steps}
            losses.plot(
                [0, *(ends[one.epoch] for one in epochs)],
                [epochs[0].base_held_out_loss, *(one.held_out_loss for one in epochs)],
                color="tab:green",
                marker="o",
                markersize=4,
                label="held-out loss",
            )
        losses.set_xlabel("step")
        losses.set_ylabel("loss")
        losses.set_ylim(bottom=0)
        rates: Any = losses.twinx()
        rates.plot(
            numbers, [step.learning_rate for step in steps], color="tab:orange", linewidth=1, label="learning rate"
        )
        rates.set_ylabel("learning rate")
        rates.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=5, frameon=False)
        with whole(run / "loss.png") as aside:
            figure.savefig(aside, dpi=120)
    return run / "loss.png"
