"""Where work runs: one training at a time, in a process of its own that ends when its run does."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from lora_pipeline import flow, subject
from lora_pipeline.assets.launch import dagster_home
from lora_pipeline.demo.photos import draw_subject_photos
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject

pytestmark = pytest.mark.slow

GPU = {"captions", "training_set", "lora_checkpoints", "validation_grids"}
SMALL = {"fit": {"epochs": 2, "sample_prompt": ""}, "grade": {"seeds": [1], "sampling_steps": 2}}


def make(home: Path, name: str, seed: int, epochs: int = 2) -> None:
    photos = home / name
    photos.mkdir()
    draw_subject_photos(photos, seed)
    for file in sorted(photos.iterdir())[12:]:
        file.unlink()
    consent = {"given_by": "nobody", "given_on": "2026-01-01", "scope": "the person is drawn"}
    given = {
        "name": name,
        "kind": "person",
        "photos": photos,
        "trigger": "zx1",
        "class": "woman",
        "recipe": "bundled_person",
        "consent": consent,
    }
    settings = {**SMALL, "fit": {**SMALL["fit"], "epochs": epochs}}
    subject.new(Store(home / "data"), Subject.model_validate({**given, "settings": settings}))


def start(home: Path, name: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "LORA_PIPELINE_HOME": str(home)}
    command = [sys.executable, "-m", "lora_pipeline.cli", "run", name]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def spans(home: Path) -> Iterator[tuple[str, str, float, float]]:
    """(run, step, began, ended) of every step, from Dagster's log."""
    dagster_home(Store(home / "data"))
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs():
            began: dict[str, float] = {}
            for entry in instance.all_logs(run.run_id):
                event = entry.dagster_event
                if event is not None and event.step_key is not None:
                    if event.event_type == dg.DagsterEventType.STEP_START:
                        began[event.step_key] = entry.timestamp
                    elif event.event_type == dg.DagsterEventType.STEP_SUCCESS:
                        yield run.run_id, event.step_key, began[event.step_key], entry.timestamp


def test_two_subjects_at_once_never_use_the_gpu_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("LORA_PIPELINE_HOME", "")
    make(tmp_path, "ann", 1)
    make(tmp_path, "bea", 2)
    dagster_home(Store(tmp_path / "data"))
    with dg.DagsterInstance.get():  # made before two processes race for it
        pass
    runs = [start(tmp_path, name) for name in ("ann", "bea")]
    for run in runs:
        told, _ = run.communicate(timeout=900)
        assert run.returncode == 0, told
    every = list(spans(tmp_path))
    assert len(every) == 2 * len(flow.STEPS)
    on_gpu = sorted((began, ended, run) for run, step, began, ended in every if step in GPU)
    for (_, ended, one), (began, _, other) in itertools.pairwise(on_gpu):
        assert one == other or began >= ended
    both = [(run, began, ended) for run, _, began, ended in every]
    assert any(a[0] != b[0] and a[1] < b[2] and b[1] < a[2] for a in both for b in both), "nothing ran side by side"


def training_processes(home: Path) -> list[int]:
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if "lora_pipeline.stages.fit" in command and any(str(home) in word for word in command):
            found.append(int(folder.name))
    return found


def test_a_run_that_is_ended_takes_its_training_with_it_and_goes_on_later(tmp_path: Path) -> None:
    make(tmp_path, "ann", 1, epochs=40)
    run = start(tmp_path, "ann")
    end = time.monotonic() + 600
    while not list(tmp_path.rglob("epoch-0002.safetensors")):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.5)
    assert training_processes(tmp_path)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    end = time.monotonic() + 15
    while training_processes(tmp_path):
        assert time.monotonic() < end, "training outlived its run"
        time.sleep(0.5)
    done = len(list(tmp_path.rglob("epoch-*.safetensors")))
    yaml = tmp_path / "data" / "subjects" / "ann" / "subject.yaml"
    assert 2 <= done < 40, yaml.read_text()
    work = flow.work(Store(tmp_path / "data"), "ann")
    (stale,) = [standing for standing in flow.status(work) if standing.step.noun == "lora_checkpoints"]
    assert f"{40 - done} not trained" in stale.why
