"""The memo: what is reused, what is computed, what is swept, and what a kill costs."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from lora_pipeline import manifest
from lora_pipeline.errors import ModelError, PassingError, PhotoError, PipelineError
from lora_pipeline.manifest import Item, Made, Manifest, Mapped, Outcome, Report, Stale, key_of, read, refresh, rewrite
from lora_pipeline.records import File, Row
from lora_pipeline.store import digest_bytes, digest_file, write_text


class Knobs(BaseModel):
    size: int = 1
    name: str = "a"


def write_upper(payload: str, folder: Path) -> Made:
    """A stage in small: one file, two values."""
    path = f"made/{payload}.txt"
    write_text(folder / path, payload.upper())
    return Made({"length": len(payload), "box": (1, 2)}, {"picture": path})


def items(*names: str, version: int = 1) -> list[Item[str]]:
    return [Item(name, [name, version], name) for name in names]


def run(folder: Path, wanted: Iterable[Item[Any]], make: Any = write_upper, **told: Any) -> Outcome:
    return refresh(folder, wanted, make, **{"settings": Knobs(), "code_version": "1", **told})


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.computed, report.reused, report.dropped, report.failed


def everything(folder: Path) -> dict[str, str]:
    """Digests of all files, but for the memory of digests, which holds times."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("digests.json")]
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files}


# What is reused


def test_first_everything_is_computed_and_then_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, items("b", "a"))
    assert counts(first.report) == (2, 0, 0, 0)
    assert [row.id for row in first.manifest.rows] == ["a", "b"]
    assert first.manifest.path(first.manifest.rows[0]).read_text() == "A"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in {".parquet", ".txt"}}
    second = run(tmp_path, items("a", "b"), make=None)  # a call of None would fail
    assert counts(second.report) == (0, 2, 0, 0)
    assert second.manifest == first.manifest == read(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("told", [{"settings": Knobs(size=2)}, {"code_version": "2"}, {"settings": None}])
def test_another_setting_or_version_computes_all_anew(tmp_path: Path, told: dict[str, Any]) -> None:
    run(tmp_path, items("a", "b"))
    assert counts(run(tmp_path, items("a", "b"), **told).report) == (2, 0, 0, 0)


def test_only_what_changed_is_computed(tmp_path: Path) -> None:
    run(tmp_path, items("a", "b", "c"))
    report = run(tmp_path, [*items("a", "d"), *items("b", version=2)]).report
    assert counts(report) == (2, 1, 0, 0)
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["a.txt", "b.txt", "d.txt"]


@pytest.mark.parametrize(
    "harm", [lambda file: file.unlink(), lambda file: file.write_text("x"), lambda file: file.write_text("")]
)
def test_a_file_that_was_lost_or_spoilt_is_made_again(tmp_path: Path, harm: Any) -> None:
    run(tmp_path, items("a", "b"))
    harm(tmp_path / "made" / "a.txt")
    assert counts(run(tmp_path, items("a", "b")).report) == (1, 1, 0, 0)
    assert (tmp_path / "made" / "a.txt").read_text() == "A"


def test_a_file_overwritten_within_a_tick_of_the_clock_has_its_new_digest(tmp_path: Path) -> None:
    def stamped(payload: str, folder: Path) -> Made:
        write_text(folder / "made" / "a.txt", payload)
        os.utime(folder / "made" / "a.txt", ns=(7, 7))
        return Made({}, {"picture": "made/a.txt"})

    run(tmp_path, [Item("a", [1], "old")], stamped)
    told = run(tmp_path, [Item("a", [2], "new")], stamped)
    assert told.manifest.rows[0].files["picture"].digest == digest_bytes(b"new")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not parquet at all" * 10])
def test_a_damaged_table_is_an_empty_one(tmp_path: Path, damage: bytes) -> None:
    run(tmp_path, items("a", "b"))
    whole_one = (tmp_path / "manifest.parquet").read_bytes()
    (tmp_path / "manifest.parquet").write_bytes(damage or whole_one[: len(whole_one) // 2])
    assert read(tmp_path) == Manifest(tmp_path, ())
    assert counts(run(tmp_path, items("a", "b")).report) == (2, 0, 0, 0)
    assert (tmp_path / "manifest.parquet").read_bytes() == whole_one


def test_a_table_of_another_kind_is_an_empty_one(tmp_path: Path) -> None:
    for column in ({"x": [1]}, {"row": [None]}, {"row": ["3"]}, {"row": ["{}"]}):
        pd.DataFrame(column).to_parquet(tmp_path / "manifest.parquet")
        assert read(tmp_path).rows == ()


# Equal bytes, whatever the way


def wide(payload: str, folder: Path) -> Made:
    if payload == "b":
        return Made({"why": "x"}, state="dropped", reason="not wanted")
    return Made({"zeta": 1.5, "alpha": [1, {"k": None}], "none": None, "mid": True}, {})


def test_the_tables_bytes_do_not_depend_on_the_way_to_it(tmp_path: Path) -> None:
    straight, roundabout = tmp_path / "straight", tmp_path / "roundabout"
    run(straight, items("a", "b", "c", "d"), wide)
    run(roundabout, items("a", "d"), wide)
    run(roundabout, items("e", "c", "d", "a"), wide)
    run(roundabout, items("d", "a", "c", "b"), wide, workers=2)
    assert everything(straight) == everything(roundabout)
    table = pd.read_parquet(straight / "manifest.parquet")
    assert list(table.columns) == ["id", "key", "state", "reason", "zeta", "alpha", "none", "mid", "why", "row"]


def test_workers_make_the_same_bytes(tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(9)]
    run(tmp_path / "one", items(*names))
    run(tmp_path / "threads", items(*names), workers=3)
    run(tmp_path / "processes", items(*names), workers=2, processes=True)
    assert everything(tmp_path / "one") == everything(tmp_path / "threads") == everything(tmp_path / "processes")


class Heavy:
    """A payload whose end can be seen."""


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_done_is_let_go(tmp_path: Path, workers: int) -> None:
    begun: list[weakref.ref[Heavy]] = []
    alive: list[int] = []

    def make(payload: Heavy, _: Path) -> Made:
        begun.append(weakref.ref(payload))
        alive.append(sum(one() is not None for one in begun))
        return Made()

    every = Mapped(lambda number: Item(f"{number:02d}", [number], Heavy()), range(60))
    refresh(tmp_path, every, make, settings=None, code_version="1", workers=workers)
    assert max(alive) <= workers * (manifest.AHEAD + 1) + 1  # and the last item that was asked for


def test_the_data_version_is_of_the_result_and_not_of_the_way(tmp_path: Path) -> None:
    first = run(tmp_path / "a", items("a")).manifest
    again = run(tmp_path / "b", items("a"), settings=Knobs(size=2), code_version="9").manifest
    assert first.rows[0].key != again.rows[0].key
    assert first.digest == again.digest
    other = run(tmp_path / "c", items("b")).manifest
    assert other.digest != first.digest
    row = first.rows[0]
    for changed in (row.but("dropped", ""), row.but("kept", "why"), row.with_data(length=2)):
        assert Manifest(tmp_path, (changed,)).digest != first.digest
    moved = Row(row.id, row.key, data=row.data, files={"picture": File("made/a.txt", "other")})
    assert Manifest(tmp_path, (moved,)).digest != first.digest


def test_a_row_is_the_same_made_and_read(tmp_path: Path) -> None:
    values = {
        "tuple": (1, (2.5, "é")),
        "number": np.float32(0.5),
        "array": np.arange(3),
        "truth": np.bool_(True),
        "nan": float("nan"),
        "nans": [np.float64("inf"), 1.0],
        "map": {"b": 1, "a": [None]},
    }
    told = run(tmp_path, items("a"), lambda _, __: Made(values))
    assert told.manifest == read(tmp_path)
    expected = {
        "tuple": [1, [2.5, "é"]],
        "number": 0.5,
        "array": [0, 1, 2],
        "truth": True,
        "nan": None,
        "nans": [None, 1.0],
    }
    assert told.manifest.rows[0].data == {**expected, "map": {"b": 1, "a": [None]}}


def test_no_items_are_an_empty_table(tmp_path: Path) -> None:
    run(tmp_path, items("a"))
    assert counts(run(tmp_path, []).report) == (0, 0, 0, 0)
    assert read(tmp_path).rows == ()
    assert not list((tmp_path / "made").iterdir())


# What is swept


def test_files_of_items_that_have_gone_are_swept(tmp_path: Path) -> None:
    run(tmp_path, items("a", "b"))
    run(tmp_path, items("b"))
    assert set(everything(tmp_path)) == {"manifest.parquet", "made/b.txt"}


def test_an_item_whose_file_has_another_name_now_leaves_none_behind(tmp_path: Path) -> None:
    def named(payload: str, folder: Path) -> Made:
        write_text(folder / "made" / payload, "x")
        return Made({}, {"picture": f"made/{payload}"})

    run(tmp_path, [Item("a", [1], "one"), Item("b", [1], "other")], named)
    run(tmp_path, [Item("a", [2], "two"), Item("b", [1], "other")], named)
    assert set(everything(tmp_path)) == {"manifest.parquet", "made/two", "made/other"}


def test_half_written_files_and_strays_of_a_killed_run_are_swept_and_nothing_else(tmp_path: Path) -> None:
    run(tmp_path, items("a"))
    stray, half = tmp_path / "made" / "killed.txt", tmp_path / "made" / "0123456789abcdef.7-8.part.txt"
    others = [tmp_path / "other" / "x.part.txt", tmp_path / "settings.json", tmp_path / "made" / "deeper" / "x"]
    for path in (stray, half, *others):
        write_text(path, "x")
    run(tmp_path, items("a"))
    assert not stray.exists()
    assert not half.exists()
    assert all(path.exists() for path in others)


def test_two_tables_in_one_folder_leave_each_others_files(tmp_path: Path) -> None:
    run(tmp_path, items("a", "b"), name="one")
    run(tmp_path, items("c"), name="two")
    run(tmp_path, items("a"), name="one")
    assert set(everything(tmp_path)) == {"one.parquet", "two.parquet", "made/a.txt", "made/c.txt"}
    # A file that both name goes when neither does.
    run(tmp_path, items("c"), name="one")
    run(tmp_path, [], name="two")
    assert (tmp_path / "made" / "c.txt").exists()
    run(tmp_path, [], name="one")
    assert not (tmp_path / "made" / "c.txt").exists()


def test_files_that_a_killed_run_of_another_table_has_made_are_left(tmp_path: Path) -> None:
    run(tmp_path, items("a"), name="one")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, items("c", "d"), interrupt_at("d"), name="two")
    run(tmp_path, items("a"), name="one")
    assert (tmp_path / "made" / "c.txt").exists()
    assert counts(run(tmp_path, items("c", "d"), name="two").report) == (1, 1, 0, 0)


# What goes wrong


def interrupt_at(name: str) -> Any:
    def make(payload: str, folder: Path) -> Made:
        if payload == name:
            raise KeyboardInterrupt
        return write_upper(payload, folder)

    return make


def fail_at(error: Exception, *names: str) -> Any:
    def make(payload: str, folder: Path) -> Made:
        if payload in names:
            raise error
        return write_upper(payload, folder)

    return make


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_input_is_a_row_with_a_reason_and_is_not_tried_again(tmp_path: Path, workers: int) -> None:
    told = run(tmp_path, items("a", "b"), fail_at(PhotoError("it is empty"), "a"), workers=workers)
    assert counts(told.report) == (2, 0, 0, 1)
    assert (told.manifest.row("a").state, told.manifest.row("a").reason) == ("failed", "it is empty")
    assert [row.id for row in told.manifest.kept] == ["b"]
    assert counts(run(tmp_path, items("a", "b"), None).report) == (0, 2, 0, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unforeseen_error_is_a_row_too_and_is_tried_again(tmp_path: Path, workers: int) -> None:
    told = run(tmp_path, items("a", "b"), fail_at(ZeroDivisionError("oh"), "a"), workers=workers)
    assert told.manifest.row("a").reason == "ZeroDivisionError: oh"
    again = run(tmp_path, items("a", "b"), workers=workers)
    assert counts(again.report) == (1, 1, 0, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_photo_that_is_gone_for_the_moment_is_tried_again(tmp_path: Path, workers: int) -> None:
    told = run(tmp_path, items("a", "b"), fail_at(PassingError("the file is gone"), "a"), workers=workers)
    assert told.manifest.row("a").reason == "the file is gone"
    assert counts(run(tmp_path, items("a", "b"), workers=workers).report) == (1, 1, 0, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_cannot_be_opened_ends_the_run_and_leaves_no_failed_row(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ModelError, match="no weights"):
        run(tmp_path, items("a", "b"), fail_at(ModelError("no weights"), "b"), workers=workers)
    assert counts(run(tmp_path, items("a", "b")).report)[3] == 0


def test_an_unforeseen_error_everywhere_is_raised(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="crop: all 2 failed; the first, a: oh") as told:
        run(tmp_path, items("a", "b"), fail_at(ZeroDivisionError("oh"), "a", "b"), what="crop")
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    assert read(tmp_path).rows == ()
    assert counts(run(tmp_path, items("a", "b")).report) == (2, 0, 0, 0)


def test_what_an_unforeseen_error_left_is_there_for_the_next_run(tmp_path: Path) -> None:
    def half_done(payload: str, folder: Path) -> Made:
        write_text(folder / "made" / "state", "step 5")
        raise ZeroDivisionError

    run(tmp_path, items("a"))
    run(tmp_path, [*items("a"), Item("b", [1], "b")], half_done)
    assert (tmp_path / "made" / "state").exists()


def test_two_items_of_one_id_are_a_fault_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one id"):
        run(tmp_path, items("a", "a"))
    with pytest.raises(ValueError, match="one id"):
        manifest.write(tmp_path, [Row("a", ""), Row("a", "")])


def die(payload: str, folder: Path) -> Made:
    if payload == "c":
        os.kill(os.getpid(), signal.SIGKILL)
    return write_upper(payload, folder)


def test_a_worker_that_is_killed_stops_the_run_and_loses_nothing_that_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "WORTH_PROCESSES", 0)
    run(tmp_path, items("a", "b"))
    with pytest.raises(PipelineError, match="a worker process was killed"):
        run(tmp_path, items("a", "b", "c", "d"), die, workers=2, processes=True)
    assert len(read(tmp_path).rows) == 2
    report = run(tmp_path, items("a", "b", "c", "d")).report
    assert report.reused >= 2
    assert report.failed == 0


def test_two_runs_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(payload: str, folder: Path) -> Made:
        begun.set()
        assert go_on.wait(10)
        return write_upper(payload, folder)

    first = threading.Thread(target=run, args=(tmp_path, items("a"), slow))
    first.start()
    assert begun.wait(10)
    with pytest.raises(PipelineError, match="another run is at work"):
        run(tmp_path, items("a"))
    go_on.set()
    first.join()
    assert counts(run(tmp_path, items("a")).report) == (0, 1, 0, 0)


def test_progress_is_told_of_each_item(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run(tmp_path, items("a", "b"), progress=lambda *args: told.append(args), what="crops")
    run(tmp_path, items("a", "b", "c"), progress=lambda *args: told.append(args))
    assert told == [("crops", 1, 2), ("crops", 2, 2), (tmp_path.name, 1, 1)]


# Planning


def test_planning_says_what_would_be_computed_and_touches_nothing(tmp_path: Path) -> None:
    run(tmp_path, items("a", "b", "c", "x"))
    (tmp_path / "made" / "c.txt").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with manifest.planning(), pytest.raises(Stale) as told:
        run(tmp_path, [*items("a", "c", "d"), *items("b", version=2)], None)
    assert told.value.would == {"b": "changed", "c": "its file is gone or changed", "d": "new"}
    assert told.value.gone == ("x",)
    assert told.value.total == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert not manifest.is_planning()


def test_planning_where_all_is_up_to_date_gives_what_is_there(tmp_path: Path) -> None:
    done = run(tmp_path, items("a", "b"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with manifest.planning():
        told = run(tmp_path, items("a", "b"), None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert told.manifest == done.manifest
    assert counts(told.report) == (0, 2, 0, 0)


def test_planning_makes_no_folder_and_goes_past_a_run_at_work(tmp_path: Path) -> None:
    with manifest.planning(), pytest.raises(Stale):
        run(tmp_path / "none", items("a"), None)
    assert not (tmp_path / "none").exists()

    def ask(payload: str, folder: Path) -> Made:
        with manifest.planning(), pytest.raises(Stale):
            run(folder, items("a"), None)
        return write_upper(payload, folder)

    run(tmp_path, items("a"), ask)


def test_planning_after_a_kill_sees_that_the_table_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, items("a", "b"), interrupt_at("b"))
    with manifest.planning(), pytest.raises(Stale) as told:
        run(tmp_path, items("a"), None)
    assert told.value.would == {"a": "done, but its run was cut off"}


# Keys


def test_a_key_is_of_values_and_of_nothing_else() -> None:
    assert key_of({"b": 1, "a": (1, 2)}) == key_of({"a": [1, 2], "b": 1})
    assert key_of(Knobs(), np.int64(3)) == key_of({"size": 1, "name": "a"}, 3)
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of(["ab", "c"]), key_of("abc")}) == 4
    assert key_of(1) != key_of("1")
    for refused in (float("nan"), np.float64("nan"), np.array([np.nan])):
        with pytest.raises(ValueError, match="not JSON compliant"):
            key_of(refused)
    with pytest.raises(TypeError, match="Path is not a JSON value"):
        key_of(Path())


def test_reports_add_up() -> None:
    assert Report(1, 2, 3, 4, 0.5) + Report(10, 20, 30, 40, 1) == Report(11, 22, 33, 44, 1.5)


# Kills

CHILD = """
import multiprocessing, sys, time
from pathlib import Path
from lora_pipeline.manifest import Item, Made, refresh
from lora_pipeline.store import whole

def make(number, folder):
    for role in ("picture", "mask"):
        with whole(folder / role / f"{number}.bin") as aside:
            with aside.open("wb") as file:
                for part in range(4):
                    file.write(bytes([number % 256]) * 5000)
                    file.flush()
                    time.sleep(0.002)
    if number % 10 == 3:
        return Made({"number": number}, state="dropped", reason="a three")
    return Made({"number": number, "half": number / 2}, {role: f"{role}/{number}.bin" for role in ("picture", "mask")})

if __name__ == "__main__":
    folder, count, workers, processes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "processes"
    items = [Item(f"{number:03d}", [number], number) for number in range(count)]
    def tell(what, done, total):
        print("workers", *[worker.pid for worker in multiprocessing.active_children()])
        print(done, flush=True)
    report = refresh(folder, items, make, settings=None, code_version="1", workers=workers, processes=processes, progress=tell).report
    print("report", report.computed, report.reused, flush=True)
"""


def child(script: Path, folder: Path, count: int, workers: int, how: str, kill_at: int = 0) -> list[str]:
    """Lines that a child said; with `kill_at`, it is killed as soon as it has said that so many are done."""
    arguments = [sys.executable, str(script), str(folder), str(count), str(workers), how]
    said: list[str] = []
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line.strip())
            if line.strip() == str(kill_at):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == (-signal.SIGKILL if kill_at else 0)
    return said


@pytest.mark.parametrize(("workers", "how"), [(1, "alone"), (3, "threads"), (2, "processes")])
def test_a_kill_costs_the_items_in_flight_and_leaves_the_same_bytes(tmp_path: Path, workers: int, how: str) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    count = 40
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert child(script, undisturbed, count, workers, how)[-1] == f"report {count} 0"
    for kill_at in (7, 5):  # twice, so that a cut journal is gone on with
        child(script, killed, count, workers, how, kill_at)
    if how == "processes":
        time.sleep(0.5)  # workers of a killed run follow it
    lines = (killed / "manifest.journal.jsonl").read_text().splitlines()
    journalled = {row["id"] for row in map(_row_or_none, lines) if row}
    assert len(journalled) >= 12
    assert read(killed).rows == ()
    assert child(script, killed, count, workers, how)[-1] == f"report {count - len(journalled)} {len(journalled)}"
    assert everything(killed) == everything(undisturbed)
    assert child(script, killed, count, workers, how)[-1] == f"report 0 {count}"


def _row_or_none(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def test_an_item_in_flight_that_has_gone_leaves_no_stray(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    child(script, tmp_path / "killed", 30, 3, "threads", kill_at=6)
    child(script, tmp_path / "killed", 5, 1, "alone")
    child(script, tmp_path / "fresh", 5, 1, "alone")
    assert everything(tmp_path / "killed") == everything(tmp_path / "fresh")


def test_the_line_in_which_a_run_was_killed_spoils_no_other(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, items("a", "b", "c"), interrupt_at("c"))
    journal = tmp_path / "manifest.journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])  # killed while the line of b was written
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, items("a", "b", "c"), interrupt_at("c"))
    assert counts(run(tmp_path, items("a", "b", "c")).report) == (1, 2, 0, 0)
    assert not journal.exists()


def test_workers_do_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    said = child(script, tmp_path / "killed", 200, 2, "processes", kill_at=4)
    workers = {int(word) for line in said if line.startswith("workers") for word in line.split()[1:]}
    assert len(workers) == 2
    until = time.monotonic() + 10
    while any(_lives(worker) for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_big_table_is_read_and_found_fresh_in_no_time(tmp_path: Path) -> None:
    many = [Item(f"{number:05d}", [number], number) for number in range(5000)]
    run(tmp_path, many, lambda number, _: Made({"number": number}))
    begun = time.monotonic()
    report = run(tmp_path, many, None).report
    assert counts(report) == (0, 5000, 0, 0)
    assert time.monotonic() - begun < 2


def test_reading_a_manifest_by_id_and_role(tmp_path: Path) -> None:
    told = run(tmp_path, items("a")).manifest
    assert told.path(told.row("a")) == tmp_path / "made" / "a.txt"
    with pytest.raises(KeyError):
        told.row("z")
    with pytest.raises(KeyError):
        told.path(told.row("a"), "mask")
    assert isinstance(told.frame(), pd.DataFrame)
    assert told.frame().iloc[0]["picture_path"] == "made/a.txt"


def test_rows_are_taken_out_of_every_table_also_of_a_run_that_was_cut_off(tmp_path: Path) -> None:
    run(tmp_path, items("a", "b"))
    refresh(tmp_path, items("a"), write_upper, settings=None, code_version="1", name="other")
    of_a, of_c = read(tmp_path).row("a").files["picture"], write_upper("c", tmp_path).files["picture"]
    journal = [
        {"id": "c", "files": {"picture": [of_c, digest_file(tmp_path / of_c)]}},
        {"id": "stays", "files": {"picture": [of_a.path, of_a.digest]}},
    ]
    rest = {"key": "k", "state": "kept", "reason": "", "data": {}}
    write_text(tmp_path / "manifest.journal.jsonl", "".join(f"{json.dumps(rest | row)}\n" for row in journal))
    assert rewrite(tmp_path, lambda row: None if row.id in "abc" else row) == 2  # b's and c's: another row names a's
    assert (read(tmp_path).rows, read(tmp_path, "other").rows) == ((), ())
    assert [json.loads(line)["id"] for line in (tmp_path / "manifest.journal.jsonl").read_text().splitlines()] == [
        "stays"
    ]
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"a.txt"}
    assert "b.txt" not in (tmp_path / "manifest.digests.json").read_text()
    assert rewrite(tmp_path / "nothing", lambda _: None) == 0


def test_rows_are_not_taken_out_beneath_a_run(tmp_path: Path) -> None:
    def meanwhile(payload: str, folder: Path) -> Made:
        with pytest.raises(PipelineError, match="another run is at work"):
            rewrite(folder, lambda _: None)
        return write_upper(payload, folder)

    run(tmp_path, items("a"), meanwhile)
    assert read(tmp_path).rows


# What is remembered


def test_the_digest_is_that_of_all_rows_as_one_list(tmp_path: Path) -> None:
    """It is the data version of everything made so far: told piece by piece, it may not become another."""
    for names in ((), ("a",), ("b", "a", "c")):
        told = run(tmp_path, items(*names)).manifest
        rows = [
            {
                "id": row.id,
                "key": "",
                "state": row.state,
                "reason": row.reason,
                "data": dict(row.data),
                "files": {role: [file.path, file.digest] for role, file in row.files.items()},
            }
            for row in told.rows
        ]
        assert told.digest == key_of(rows)


def test_a_table_written_in_pieces_is_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"a": {"x": 1, "few": [1]}, "b": {"x": 2.5, "late": "é"}, "c": {"x": None, "yes": True}, "d": {}}
    rows = [Row(id, "key", data=data) for id, data in made.items()]
    whole_one = manifest.write(tmp_path, rows, "whole")
    monkeypatch.setattr(manifest, "AT_ONCE", 3)
    manifest.write(tmp_path, rows, "pieces")
    assert read(tmp_path, "pieces").rows == read(tmp_path, "whole").rows == whole_one.rows
    frame = pd.read_parquet(tmp_path / "pieces.parquet")
    pd.testing.assert_frame_equal(frame, pd.read_parquet(tmp_path / "whole.parquet"))
    assert list(frame.columns) == ["id", "key", "state", "reason", "x", "few", "late", "yes", "row"]
    assert frame["x"].tolist()[:2] == [1.0, 2.5]
    assert frame["few"][0] == "[1]"


def test_a_rows_numbers_are_remembered_as_text(tmp_path: Path) -> None:
    """As objects, the 500 numbers of a row take 16,000 bytes and more."""
    import tracemalloc

    wanted = items(*(f"{number:04d}" for number in range(300)))
    run(tmp_path, wanted[:1], lambda _, __: Made({"numbers": [0.5]}))  # whatever is imported late
    tracemalloc.start()
    told = run(tmp_path, wanted, lambda id, _: Made({"numbers": [int(id) + n / 8 for n in range(500)]}))
    again = read(tmp_path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert again == told.manifest
    assert held / 300 < 16_000  # and there are two manifests of them


def test_rows_of_one_kind_take_no_more_than_what_they_differ_in(tmp_path: Path) -> None:
    """The names and words that all 500 share, 2,000 letters of them, are there once."""
    import tracemalloc

    def make(id: str, _: Path) -> Made:
        return Made(
            {f"a rather long name of a value, number {n}": f"words that each has {n}" for n in range(30)} | {"x": id}
        )

    run(tmp_path, items(*(f"{number:04d}" for number in range(500))), make)
    read(tmp_path)  # whatever is imported late
    tracemalloc.start()
    again = read(tmp_path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [row.data["x"] for row in again.rows] == [row.id for row in again.rows]
    assert again.rows[7].data["a rather long name of a value, number 29"] == "words that each has 29"
    assert held / 500 < 1000  # with its id, its key and what Python needs for it


def test_while_items_are_made_neither_they_nor_what_came_of_others_is_held(tmp_path: Path) -> None:
    class Long(list[str]):
        pass

    alive: list[weakref.ref[Long]] = []
    rows: list[int] = []

    def item(name: str) -> Item[str]:
        inputs = Long([name])
        alive.append(weakref.ref(inputs))
        return Item(name, inputs, name)

    def make(payload: str, folder: Path) -> Made:
        assert sum(ref() is not None for ref in alive) <= 2  # it, and the last one asked for its key
        rows.append(sum(isinstance(thing, Row) for thing in gc.get_objects()))
        return write_upper(payload, folder)

    names = [f"{number:02d}" for number in range(20)]
    assert counts(run(tmp_path, Mapped(item, names), make).report) == (20, 0, 0, 0)
    assert max(rows) - rows[0] <= 1  # the one just written
    assert counts(run(tmp_path, Mapped(item, names)).report) == (0, 20, 0, 0)


def test_an_iterator_of_items_is_gone_through_once(tmp_path: Path) -> None:
    assert counts(run(tmp_path, iter(items("a", "b"))).report) == (2, 0, 0, 0)
    assert counts(run(tmp_path, iter(items("a", "b", "c"))).report) == (1, 2, 0, 0)
    with pytest.raises(TypeError, match="hand in a tuple"):
        Mapped(str, iter("ab"))


def test_only_some_items_are_handed_out_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "AHEAD", 2)
    handed: list[int] = []
    submit = manifest.ThreadPoolExecutor.submit

    def counted(self: Any, *args: Any) -> Any:
        future = submit(self, *args)
        handed.append(self._work_queue.qsize())
        return future

    monkeypatch.setattr(manifest.ThreadPoolExecutor, "submit", counted)
    slow = lambda payload, folder: time.sleep(0.002) or write_upper(payload, folder)  # noqa: E731
    told = run(tmp_path, items(*(f"{number:02d}" for number in range(40))), slow, workers=3)
    assert told.report.computed == 40
    assert max(handed) <= 6
