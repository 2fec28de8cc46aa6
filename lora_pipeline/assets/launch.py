"""Starting Dagster: one run in this process for the terminal, or the UI with its daemon."""

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from lora_pipeline.assets.partitions import register
from lora_pipeline.assets.sensors import JOB
from lora_pipeline.errors import PipelineError
from lora_pipeline.flow import STEPS
from lora_pipeline.manifest import Report
from lora_pipeline.store import Store, whole

PROCESS_TAG = "lora_pipeline/process"  # host:pid of a run that lives in a terminal, to see whether it still does


def dagster_home(store: Store) -> Path:
    """Make Dagster's own folder, `data/work/.dagster`, with the settings of `dagster.yaml`, and name it to Dagster."""
    home = (store.data / "work" / ".dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    settings = Path(__file__).resolve().parents[2] / "dagster.yaml"
    if settings.exists():
        with whole(home / "dagster.yaml") as aside:
            shutil.copyfile(settings, aside)
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["LORA_PIPELINE_HOME"] = str(store.data.absolute().parent)
    return home


def run(
    defs: dg.Definitions, store: Store, name: str, changes: Mapping[str, Mapping[str, Any]], verbose: bool
) -> tuple[bool, dict[str, Report], list[str]]:
    """Run the whole flow for one subject, as the UI's Materialize all would, in this process.

    Args:
        defs: what Dagster loads; handed in, since they are made of the assets and not the other way round.
        changes: asset → setting → value, for this run only, as in the launchpad.
        verbose: whether Dagster's own log goes to the terminal.

    Returns:
        whether all went well; the report of each asset that was made; the messages of what failed.
    """
    dagster_home(store)
    with dg.DagsterInstance.get() as instance:
        _free_slots_of_the_dead(instance)
        register(instance, store)
        result = defs.resolve_job_def(JOB).execute_in_process(
            run_config={
                "ops": {asset: {"config": dict(fields)} for asset, fields in changes.items()},
                "loggers": {"console": {"config": {"log_level": "INFO" if verbose else "CRITICAL"}}},
            },
            instance=instance,
            partition_key=name,
            raise_on_error=False,
            tags={PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}"},
        )
        reports: dict[str, Report] = {}
        faults: list[str] = []
        for event in result.all_events:
            if (
                event.is_step_materialization
                and event.asset_key is not None
                and event.asset_key.to_user_string() in _nouns()
            ):
                reports[event.asset_key.to_user_string()] = _report(event.step_materialization_data.materialization)
            elif event.is_step_failure:
                faults.append(f"{event.step_key}: {_words(event)}")
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = event.asset_check_evaluation_data
                if not evaluation.passed:
                    faults.append(
                        f"{evaluation.asset_key.to_user_string()}, check {evaluation.check_name}: {evaluation.description}"
                    )
        return result.success and len(reports) == len(STEPS), reports, faults


def _nouns() -> set[str]:
    return {step.noun for step in STEPS}


def _report(made: dg.AssetMaterialization) -> Report:
    values: dict[str, Any] = {
        name: made.metadata[name].value for name in ("computed", "reused", "dropped", "failed", "seconds")
    }
    return Report(**values)


def _words(event: dg.DagsterEvent) -> str:
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    return data.error_display_string


def _free_slots_of_the_dead(instance: dg.DagsterInstance) -> None:
    """A terminal's run that was killed is still `started` to Dagster, and holds the GPU's slot: say that it failed, and free it."""
    for going in instance.get_runs(
        filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    ):
        host, _, pid = going.tags.get(PROCESS_TAG, "").rpartition(":")
        if host == socket.gethostname() and not Path(f"/proc/{pid}").exists():
            instance.report_run_failed(going, "the terminal's process that ran this is gone")
            instance.event_log_storage.free_concurrency_slots_for_run(going.run_id)


def forget_runs(store: Store, name: str) -> int:
    """Delete a subject's runs from Dagster's log, whose contact sheets show its photos; returns how many there were.

    Raises PipelineError if one is still going on. Where Dagster was never started, there is nothing to do.
    """
    if not (store.data / "work" / ".dagster").is_dir():
        return 0
    home = dagster_home(store)
    with dg.DagsterInstance.get() as instance:
        _free_slots_of_the_dead(instance)
        runs = instance.get_runs(filters=dg.RunsFilter(tags={"dagster/partition": name}))
        if any(not run.is_finished for run in runs):
            raise PipelineError(f"a run of {name} is going on: end it in the UI, or wait for it, and forget then")
        for run in runs:
            instance.compute_log_manager.delete_logs(prefix=[run.run_id])
            instance.delete_run(run.run_id)
        _vacuum(home)
        return len(runs)


def _vacuum(folder: Path) -> None:
    """Give back the pages of what was deleted: until then SQLite keeps their bytes. Other databases see to that themselves."""
    for file in folder.rglob("*.db"):
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("VACUUM")


def ui(store: Store, port: int) -> int:
    """Serve the Dagster UI and its daemon on loopback until interrupted. Returns the exit status.

    Loopback only: Dagster's web server has no login, and whoever reaches it can start runs.
    """
    home = dagster_home(store)
    with dg.DagsterInstance.get() as instance:  # made before webserver and daemon race for it
        register(instance, store)
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell's & leaves them ignored, and `dagster dev` inherits that
        signal.signal(stop, signal.default_int_handler)
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "--module-name",
        "lora_pipeline.definitions",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    child = subprocess.Popen(command, cwd=home.parents[2])
    print(f"The Dagster UI: http://127.0.0.1:{port}/asset-groups  (Ctrl+C ends it)", flush=True)  # noqa: T201
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)
        return child.wait()
