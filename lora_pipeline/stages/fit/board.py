"""What TensorBoard shows of a run: `steps.jsonl`, `epochs.jsonl` and the samples once more, as event files."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from lora_pipeline.stages.fit.reports import EpochReport, StepReport

if TYPE_CHECKING:
    from PIL.Image import Image

Report = TypeVar("Report", StepReport, EpochReport)

FOLDER = "tensorboard"
SUFFIX = ".events"  # of the file; its name holds time, host and process
_FLUSH_S = 10


class Board:
    """The event files of one run, in its folder `tensorboard`: one a process that worked at it, each of which tells the run from its first step.

    Each says first that all before it is void (a `purge_step` of 0), so that TensorBoard shows no step twice and misses none, however
    the process before it ended. The files before it stay: a TensorBoard that is open follows files forwards only. Steps of before
    are told with the times that they took, without the breaks between the processes.

    Args:
        run: the run's folder.
        steps, epochs: that the run has behind it.
    """

    def __init__(self, run: Path, steps: Sequence[StepReport], epochs: Sequence[EpochReport]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._run = run
        self._writer = SummaryWriter(str(run / FOLDER), purge_step=0, filename_suffix=SUFFIX, flush_secs=_FLUSH_S)
        self._ends: dict[int, tuple[int, float]] = {}  # epoch → its last step so far, and when that was
        now = time.time() - sum(step.seconds for step in steps)
        for step in steps:
            now += step.seconds
            self._show_step(step, now)
        for epoch in epochs:
            self._show_epoch(epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._writer.close()

    def shown(self, report: Report) -> Report:
        """Write a step or an epoch as it comes, and give it back; the picture of an epoch is read from the run's folder."""
        if isinstance(report, StepReport):
            self._show_step(report, time.time())
        else:
            self._show_epoch(report)
        return report

    def _show_step(self, step: StepReport, at_s: float) -> None:
        self._ends[step.epoch] = (step.step, at_s)
        for tag, value in (
            ("loss/step", step.loss),
            ("loss/smoothed", step.smoothed_loss),
            ("step/gradient_norm", step.gradient_norm),
            ("step/learning_rate", step.learning_rate),
            ("step/images_per_s", step.images_per_s),
            ("step/memory_mib", step.memory_mib),
        ):
            self._writer.add_scalar(tag, value, step.step, walltime=at_s)

    def _show_epoch(self, epoch: EpochReport) -> None:
        if epoch.epoch not in self._ends:  # its steps were deleted by hand
            return
        step, at_s = self._ends[epoch.epoch]
        self._writer.add_scalar("loss/epoch", epoch.loss, step, walltime=at_s)
        if epoch.epoch == 1 and epoch.base_held_out_loss is not None:
            self._writer.add_scalar("loss/held_out", epoch.base_held_out_loss, 0, walltime=at_s)
        if epoch.held_out_loss is not None:
            self._writer.add_scalar("loss/held_out", epoch.held_out_loss, step, walltime=at_s)
        if epoch.sample:
            from PIL import Image

            with Image.open(self._run / epoch.sample) as sample:
                self._writer.add_image("sample", _pixels(sample), step, walltime=at_s, dataformats="HWC")


def _pixels(picture: "Image") -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """H×W×3, 0 to 255."""
    return np.asarray(picture.convert("RGB"), dtype=np.uint8)
