"""fit: training set + recipe → a LoRA file an epoch, the losses, and a sample picture an epoch.

Training is a generator of step reports (`trainer.py`), of one process or of several that share each step (`group.py`); saving and drawing
read it (`run.py`), in a process of its own (`process.py`).
"""

from lora_pipeline.stages.fit.again import missing, set_up_again, train_again
from lora_pipeline.stages.fit.fit import CODE_VERSION, OnEpoch, as_trained, fit, run_key, to_nobody
from lora_pipeline.stages.fit.forecast import FORECAST, Compared, Forecast, compare, forecast, objections
from lora_pipeline.stages.fit.held_out import held_out, without_held_out
from lora_pipeline.stages.fit.job import Job, held_out_losses
from lora_pipeline.stages.fit.memory import at
from lora_pipeline.stages.fit.order import total_steps
from lora_pipeline.stages.fit.plot import plot_losses
from lora_pipeline.stages.fit.reports import EpochReport, StepReport, TrainingReport

__all__ = [
    "CODE_VERSION",
    "FORECAST",
    "Compared",
    "EpochReport",
    "Forecast",
    "Job",
    "OnEpoch",
    "StepReport",
    "TrainingReport",
    "as_trained",
    "at",
    "compare",
    "fit",
    "forecast",
    "held_out",
    "held_out_losses",
    "missing",
    "objections",
    "plot_losses",
    "run_key",
    "set_up_again",
    "to_nobody",
    "total_steps",
    "train_again",
    "without_held_out",
]
