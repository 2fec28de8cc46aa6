"""The memo, proved: a run killed with SIGKILL in every stage leaves, after a rerun, the bytes that an undisturbed run leaves."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_pipeline import subject
from lora_pipeline.demo.photos import draw_subject_photos
from lora_pipeline.flow import STEPS
from lora_pipeline.store import Store, digest_file
from lora_pipeline.subject import Subject

# Runs the flow and says, line by line, which stage has just finished an item.
CHILD = """
import sys
from pathlib import Path
from lora_pipeline import flow
from lora_pipeline.store import Store
here = ""
def tell(what, done, total):
    print("item", here, done, total, flush=True)
work = flow.work(Store(Path(sys.argv[1])), "ann", tell)
for step in flow.STEPS:
    here = step.noun
    print("begin", here, flush=True)
    report = flow.take(step, work).report
    print("done", here, report.computed, report.reused, flush=True)
"""

# What holds times and places of this machine rather than results: when a file was written, how long a step took, where the job lies.
OF_THIS_MACHINE = (".digests.json", "steps.jsonl", "epochs.jsonl", "job.json", ".events")
# The others tell of what is finer than a row: a photo searched for faces, a captioner's words, a step of training, a picture embedded.
ITEM_IS_A_ROW = {"source_photos", "curated_photos", "blurred_set", "validation_grids"}
SMALL = {
    "fit": {"epochs": 2, "batch_size": 4},
    "grade": {
        "seeds": [1],
        "sampling_steps": 2,
        "prompts": ["{trigger} {class}", "{trigger} {class}, red shirt"],
        "batch_size": 1,
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = tmp_path_factory.mktemp("drawn")
    draw_subject_photos(drawn)
    few = tmp_path_factory.mktemp("photos")
    for file in sorted(drawn.iterdir())[:14]:
        file.rename(few / file.name)
    return few


def make(data: Path, photos: Path) -> Path:
    consent = {"given_by": "nobody", "given_on": "2026-01-01", "scope": "drawn"}
    given = {
        "name": "ann",
        "kind": "person",
        "photos": photos,
        "trigger": "zx9",
        "class": "woman",
        "recipe": "bundled_person",
        "consent": consent,
    }
    subject.new(Store(data), Subject.model_validate({**given, "settings": SMALL}))
    return data


def run(data: Path, kill_in: str = "") -> Iterator[str]:
    """Lines of a child; with `kill_in`, it is killed at that stage's first finished item (or its end, if it tells of none)."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(data)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            yield line.strip()
            if kill_in and line.split()[:2] in (["item", kill_in], ["done", kill_in]):
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == (-signal.SIGKILL if kill_in else 0)


def bytes_under(data: Path) -> dict[str, str]:
    files = [path for path in (data / "work").rglob("*") if path.is_file() and not path.name.endswith(OF_THIS_MACHINE)]
    return {path.relative_to(data).as_posix(): digest_file(path) for path in files}


@pytest.mark.slow
def test_killed_in_every_stage_and_run_again_it_leaves_the_same_bytes(tmp_path: Path, photos: Path) -> None:
    whole, killed = make(tmp_path / "whole", photos), make(tmp_path / "killed", photos)
    assert list(run(whole))[-1].startswith("done released_lora")
    killed_last = ""
    for step in STEPS:
        lines = [line.split() for line in run(killed, step.noun)]
        for _, noun, computed, reused in [line for line in lines if line[0] == "done" and line[1] != step.noun]:
            if noun == killed_last:  # what was in flight is computed again, what was finished is not
                assert int(reused) >= 1 or noun not in ITEM_IS_A_ROW, f"killed in {noun}: nothing of it was left"
            else:
                assert computed == "0", f"{noun} computed {computed} again after a kill in {killed_last}"
        killed_last = step.noun
    list(run(killed))
    assert bytes_under(killed) == bytes_under(whole)
    again = [line.split() for line in run(killed) if line.startswith("done")]
    assert [computed for _, _, computed, _ in again] == ["0"] * len(STEPS)
