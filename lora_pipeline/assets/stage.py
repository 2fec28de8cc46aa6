"""What all ten assets share, once: partition, launchpad, memo's words, placement, automation."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import dagster as dg

from lora_pipeline import flow
from lora_pipeline.assets.launchpad import given, launchpad
from lora_pipeline.assets.links import READS, made_from, went_into
from lora_pipeline.assets.partitions import subjects
from lora_pipeline.assets.report import metadata
from lora_pipeline.assets.resources import House
from lora_pipeline.errors import PipelineError
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.progress import bars, lines
from lora_pipeline.settings import Settings

GROUP = "photos_to_lora"
POOL = "gpu"  # one slot (dagster.yaml): two subjects never train at the same time
GPU_TAGS = {"lora_pipeline/gpu": "1"}

# Fires on changed data, not on mere materializations, so that nothing is trained again for an equal result.
ON_CHANGE = (
    (
        dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
        | dg.AutomationCondition.newly_missing()
    ).since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)

Shown = tuple[dict[str, Any], Sequence[dg.AssetCheckResult]]
Show = Callable[[Work, Outcome], Shown]
Run = Callable[[Work, dg.AssetExecutionContext], Outcome]


def stage(
    noun: str,
    *,
    after: Sequence[str] = (),
    gpu: bool = False,
    checks: Sequence[dg.AssetCheckSpec] = (),
    run: Run | None = None,
) -> Callable[[Show], dg.AssetsDefinition]:
    """Make the asset of one step of the flow out of the function that says what it shows.

    Args:
        noun: the asset's name; its step in `flow.STEPS` says the rest.
        after: the assets it reads.
        gpu: whether it claims the GPU's slot.
        checks: that its function reports.
        run: in place of the step's own, where Dagster's context is needed.
    """
    step = next(step for step in flow.STEPS if step.noun == noun)
    READS[noun] = after
    config_type = launchpad(type(getattr(Settings(), step.sections[0])))

    take: Run = run or (lambda work, _: step.run(work))

    def make(show: Show) -> dg.AssetsDefinition:
        @dg.asset(
            name=noun,
            deps=list(after),
            description=show.__doc__,
            partitions_def=subjects,
            code_version=step.code_version,
            group_name=GROUP,
            pool=POOL if gpu else None,
            op_tags=GPU_TAGS if gpu else None,
            check_specs=list(checks),
            automation_condition=ON_CHANGE,
            kinds={"torch"} if gpu else {"python"},
        )
        def asset(context: dg.AssetExecutionContext, house: House, config: config_type) -> dg.MaterializeResult:  # pyright: ignore[reportInvalidTypeForm, reportMissingTypeArgument, reportUnknownParameterType]
            try:
                work = _work(context, house, {step.sections[0]: given(config)})
                outcome = flow.take(step, work, lambda work: take(work, context))
                shown, results = show(work, outcome)
            except PipelineError as error:
                raise dg.Failure(description=str(error), allow_retries=False) from None
            return dg.MaterializeResult(
                metadata={
                    **metadata(step, work, outcome),
                    **shown,
                    "made from": made_from(noun, work),
                    "went into": went_into(noun, work),
                },
                data_version=dg.DataVersion(outcome.manifest.digest),
                check_results=list(results),
            )

        return asset

    return make


def _work(context: dg.AssetExecutionContext, house: House, own: dict[str, dict[str, Any]]) -> Work:
    progress = bars() if os.isatty(2) else lines(context.log.info)
    work = flow.work(house.store, context.partition_key, progress)
    changes = {**_of_the_run(context), **own}
    return replace(work, settings=work.settings.changed(changes, "launchpad")) if any(changes.values()) else work


def _of_the_run(context: dg.AssetExecutionContext) -> dict[str, dict[str, Any]]:
    """The launchpad's changes of all assets of this run: a forecast before training is of the training that this run will do."""
    ops = cast(dict[str, Any], context.run.run_config.get("ops", {}))
    given = {step.sections[0]: ops[step.noun].get("config", {}) for step in flow.STEPS if step.noun in ops}
    return {
        section: {name: value for name, value in fields.items() if value is not None}
        for section, fields in given.items()
    }
