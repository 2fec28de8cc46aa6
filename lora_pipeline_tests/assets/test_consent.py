"""Consent where it stops a run, and what Dagster itself remembers of a subject that is forgotten."""

import datetime
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from lora_pipeline import flow
from lora_pipeline.assets.checks import consent_recorded, consent_still_holds
from lora_pipeline.assets.launch import dagster_home, forget_runs
from lora_pipeline.errors import PipelineError, SubjectError
from lora_pipeline.settings import Settings
from lora_pipeline.store import Store
from lora_pipeline.subject import Consent, Subject

YESTERDAY = datetime.date.today() - datetime.timedelta(days=1)
GIVEN = Consent(given_by="Ann", given_on=datetime.date(2026, 1, 1), scope="tests")
MARK = "data:image/jpeg;base64,thisisthepicture"


@pytest.fixture
def work(tmp_path: Path) -> flow.Work:
    ann = Subject(
        name="ann",
        kind="person",
        photos=tmp_path,
        trigger="zx9",
        class_word="woman",
        recipe="sd15_person",
        consent=GIVEN,
    )
    return flow.Work(Store(tmp_path / "data"), ann, Settings())


def until(work: flow.Work, day: datetime.date) -> flow.Work:
    return replace(work, subject=work.subject.model_copy(update={"consent": GIVEN.model_copy(update={"until": day})}))


def test_the_checks_show_the_days_that_are_left_and_stop_when_none_is(work: flow.Work) -> None:
    soon = until(work, YESTERDAY + datetime.timedelta(days=11))
    for check in (consent_recorded, consent_still_holds):
        checked = check(soon)
        assert checked.passed
        assert checked.metadata["days_left"].value == 10
        assert "(10 days left)" in str(checked.description)
        checked = check(until(work, YESTERDAY))
        assert not checked.passed
        assert checked.severity == dg.AssetCheckSeverity.ERROR
        assert checked.metadata["days_left"].value == -1
        assert f"the consent of Ann ended on {YESTERDAY}" in str(checked.description)
    assert "days_left" not in consent_recorded(work).metadata


def redraw(work: flow.Work) -> object:
    return flow.redraw(work, "e0001/p01/s0001")


@pytest.mark.parametrize("stage", [flow.fit, flow.forecast, flow.draw, redraw, flow.publish, flow.make_training_set])
def test_every_stage_from_training_on_stops_when_the_consent_has_ended(work: flow.Work, stage) -> None:
    with pytest.raises(SubjectError, match=f"ended on {YESTERDAY}"):
        stage(until(work, YESTERDAY))


def test_a_release_is_not_brought_anywhere_without_consent(work: flow.Work, tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match=f"ended on {YESTERDAY}"):
        flow.place(until(work, YESTERDAY), tmp_path)
    with pytest.raises(SubjectError, match="does not cover giving the LoRA to others"):
        flow.push(work, "ann/zx9", public=False)
    with pytest.raises(PipelineError, match="nothing of ann is released yet"):
        flow.place(work, tmp_path)


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["ann", "bea"]))
def sheet(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    # As long as a contact sheet: SQLite keeps such in pages of their own, and their bytes when they are deleted.
    return dg.MaterializeResult(metadata={"photos": dg.MetadataValue.md(f"{MARK}of{context.partition_key}" * 3000)})


def test_dagster_s_log_loses_the_contact_sheets_of_who_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_HOME", "LORA_PIPELINE_HOME"):
        monkeypatch.setenv(name, "")  # so that what is set here is undone
    store = Store(tmp_path / "data")
    assert forget_runs(store, "ann") == 0  # Dagster was never started
    assert not (tmp_path / "data" / "work" / ".dagster").exists()
    home = dagster_home(store)
    with dg.DagsterInstance.get() as instance:
        for name in ("ann", "ann", "bea"):
            assert dg.materialize([sheet], instance=instance, partition_key=name).success

    def told_of(name: str) -> list[Path]:
        files = [path for path in home.rglob("*") if path.is_file()]
        return [path for path in files if f"{MARK}of{name}".encode() in path.read_bytes()]

    assert told_of("ann")
    assert forget_runs(store, "ann") == 2
    assert not told_of("ann")
    assert told_of("bea")
    for file in home.rglob(
        "index.db"
    ):  # a SQLite that was not built to overwrite what it deletes keeps it in free pages
        with closing(sqlite3.connect(file)) as database:
            assert database.execute("PRAGMA freelist_count").fetchone() == (0,)
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
    assert {path.name for path in (home / "storage").iterdir() if path.is_dir() and "-" in path.name} <= {run.run_id}

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["cleo"]))
    def going() -> None:
        with pytest.raises(PipelineError, match="a run of cleo is going on"):
            forget_runs(store, "cleo")

    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([going], instance=instance, partition_key="cleo").success
