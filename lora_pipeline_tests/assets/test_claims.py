"""Of two runs that want a pool's only slot at the same moment, one gets it."""

import multiprocessing
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import dagster as dg

from lora_pipeline.assets.launch import dagster_home
from lora_pipeline.assets.stage import POOL
from lora_pipeline.store import Store

RUNS, TIMES = ("one", "two"), 20


def claim(run: str, together: Barrier, answers: "Queue[tuple[int, bool]]") -> None:
    with dg.DagsterInstance.get() as instance:
        log = instance.event_log_storage
        for time in range(TIMES):
            together.wait(60)
            answers.put((time, log.claim_concurrency_slot(POOL, run, f"step{time}").is_claimed))
            together.wait(60)
            log.free_concurrency_slots_for_run(run)


def test_a_slot_is_given_to_one_run_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("LORA_PIPELINE_HOME", "")
    dagster_home(Store(tmp_path / "data"))
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)
    spawn = multiprocessing.get_context("spawn")
    together, answers = spawn.Barrier(len(RUNS)), spawn.Queue()
    processes = [spawn.Process(target=claim, args=(run, together, answers)) for run in RUNS]
    for process in processes:
        process.start()
    told = [answers.get(timeout=120) for _ in RUNS for _ in range(TIMES)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    given = [sum(claimed for time, claimed in told if time == one) for one in range(TIMES)]
    assert given == [1] * TIMES


def test_what_dagster_kept_before_is_found_again(tmp_path, monkeypatch):
    """The log lies where Dagster's own keeps it, so that the runs of a folder made before are still there."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("photos"))
    dagster_home(Store(tmp_path / "data")).joinpath("dagster.yaml").rename(tmp_path / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert instance.has_asset_key(dg.AssetKey("photos"))
