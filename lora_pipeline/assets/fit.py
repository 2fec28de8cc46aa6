"""`lora_checkpoints`, and `epoch_checkpoint`: each epoch, in the UI while training still runs."""

from pathlib import Path
from typing import Any

import dagster as dg

from lora_pipeline import flow
from lora_pipeline.assets import partitions
from lora_pipeline.assets.checks import FINITE, LOADS, checkpoint_loads, finite_loss, training_within_limits
from lora_pipeline.assets.links import made_from, went_into
from lora_pipeline.assets.partitions import subject_epochs
from lora_pipeline.assets.report import picture, table
from lora_pipeline.assets.stage import GROUP, Shown, stage
from lora_pipeline.errors import TrainingError
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Checkpoint, Row
from lora_pipeline.stages.fit import EpochReport, at, compare

epoch_checkpoint = dg.AssetSpec(
    "epoch_checkpoint",
    deps=["training_set"],
    partitions_def=subject_epochs,
    group_name=GROUP,
    kinds={"torch"},
    description="The LoRA after one epoch of one subject. Written by `lora_checkpoints`, epoch by epoch, while it trains.",
)


def _train(work: Work, context: dg.AssetExecutionContext) -> Outcome:
    def show(row: Row, report: EpochReport) -> None:
        show_epoch(context, Manifest(work.folder("fit"), (row,)), report, work)

    within = training_within_limits(work)  # again: this asset may be the only one that is asked for
    if not within.passed:
        raise TrainingError(str(within.description))
    return flow.fit(work, show)


def show_epoch(context: dg.AssetExecutionContext, made: Manifest, report: EpochReport, work: Work) -> None:
    """Log an epoch as a materialization of `epoch_checkpoint`, so that the curve can be watched while training runs.

    Args:
        made: its one row is the epoch's.
        report: of the same epoch.
        work: whose training set it is made from.
    """
    (row,) = made.rows
    partitions.add(context.instance, "epoch", [row.id])
    context.log_event(
        dg.AssetMaterialization(
            "epoch_checkpoint",
            partition=dg.MultiPartitionKey({"subject": context.partition_key, "epoch": row.id}),
            metadata={
                **_epoch_metadata(made, row, report),
                "made from": made_from("lora_checkpoints", work),
                "went into": went_into("lora_checkpoints", work),
            },
            tags={"dagster/data_version": row.files["lora"].digest, "dagster/data_version_is_user_provided": "true"},
        )
    )


def _epoch_metadata(made: Manifest, row: Row, report: EpochReport) -> dict[str, Any]:
    checkpoint, file = Checkpoint.of(row), made.path(row, "lora")
    shown: dict[str, Any] = {
        "loss": checkpoint.loss,
        "loss, smoothed": report.smoothed_loss,
        "gradient norm": report.gradient_norm,
        "learning rate": checkpoint.learning_rate,
        "seconds a step": report.seconds_per_step,
        "images a second": report.images_per_s,
        "memory (MiB)": report.memory_mib,
        "images seen": checkpoint.images_seen,
        "LoRA file": dg.MetadataValue.path(str(file)),
        "training run": checkpoint.run,
        "trained on (manifest digest)": checkpoint.trained_on,
        "trained on (manifest)": dg.MetadataValue.path(str(file.parent / "trained_on.parquet")),
    }
    if report.held_out_loss is not None and report.base_held_out_loss is not None:
        shown["held-out loss"] = report.held_out_loss
        shown["held-out loss of the base model"] = report.base_held_out_loss
    if "sample" in row.files:
        shown["sample"] = picture(made.path(row, "sample"), f"sample of epoch {checkpoint.epoch}")
    return shown


@stage("lora_checkpoints", after=["training_set"], gpu=True, checks=[FINITE, LOADS], run=_train)
def lora_checkpoints(work: Work, outcome: Outcome) -> Shown:
    """A LoRA file an epoch, with its loss. Trained in a process of its own; continued where it was interrupted."""
    made = outcome.manifest
    epochs = [(row, Checkpoint.of(row)) for row in made.kept]
    columns = ("epoch", "loss", "learning rate", "images seen", "file")
    rows = [_line(made, row, checkpoint) for row, checkpoint in epochs]
    shown: dict[str, Any] = {"epochs": table(columns, rows)}
    if called_back := flow.recalled_runs(work):
        shown["recalled runs"] = table(("folder", "why"), called_back)
    if (trained := flow.as_trained(work).settings.fit) != work.settings.fit:
        shown["memory did not suffice"] = f"at {at(work.settings.fit)}: trained at {at(trained)}"
    if epochs:
        last = epochs[-1][1]
        shown |= {
            "loss": last.loss,
            "loss curve": picture(made.path(epochs[-1][0], "lora").parent / "loss.png", "loss curve"),
            "training run": last.run,
            "trained on (manifest digest)": last.trained_on,
            **what_was_forecast(made.path(epochs[-1][0], "lora").parent),
        }
    return shown, [finite_loss([checkpoint.loss for _, checkpoint in epochs]), checkpoint_loads(made)]


def what_was_forecast(run: Path) -> dict[str, Any]:
    """What was forecast beside what happened, as a table, and how far off it was, as numbers that the UI plots over runs."""
    compared = compare(run)
    if not compared:
        return {}
    rows = [one.in_words() for one in compared]
    return {
        "forecast and what happened": table(("what", "forecast", "happened", "off by"), rows),
        **{f"forecast of {one.what} off by (%)": round(100 * one.off, 1) for one in compared},
    }


def _line(made: Manifest, row: Row, checkpoint: Checkpoint) -> tuple[object, ...]:
    return (
        checkpoint.epoch,
        f"{checkpoint.loss:.4f}",
        f"{checkpoint.learning_rate:.2e}",
        checkpoint.images_seen,
        made.path(row, "lora"),
    )
