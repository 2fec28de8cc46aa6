"""`lora-pipeline demo`, whole: what a newcomer sees, and what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lora_pipeline import flow
from lora_pipeline.demo.photos import draw_one_more
from lora_pipeline.records import Score
from lora_pipeline.stages.grade import MEDIAN
from lora_pipeline.store import Store

pytestmark = pytest.mark.slow


def cli(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The terminal's command, in a process of its own."""
    environment = {**os.environ, "LORA_PIPELINE_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "lora_pipeline.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def counts(summary: str) -> dict[str, tuple[int, int]]:
    """Stage → (computed, reused) of a printed summary."""
    found = re.findall(r"^(\w+) +(\d+) +(\d+) +\d+ +\d+ +[\d.]+$", summary, re.MULTILINE)
    return {noun: (int(computed), int(reused)) for noun, computed, reused in found}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(home: Path) -> str:
    done = cli(home, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def work(home: Path, first: str) -> flow.Work:
    return flow.work(Store(home / "data"), "demo")


def test_the_summary_tells_of_every_stage_and_of_what_came_out(first: str) -> None:
    assert set(counts(first)) == {step.noun for step in flow.STEPS}
    for words in (
        "identity distance to the subject: base model",
        "chosen: epoch",
        "why: ",
        "advice: ",
        "grid: ",
        "loss curve: ",
        "forecast of training: ",
        "LoRA file: ",
    ):
        assert words in first
    for name in ("grid", "loss curve", "LoRA file"):
        (path,) = re.findall(rf"^{name}: (.*)$", first, re.MULTILINE)
        assert Path(path).is_file()


def measured(work: flow.Work) -> tuple[Score, Score]:
    """Scores of the base model and of the chosen epoch."""
    scores = [Score.of(row) for row in work.made("scores").kept]
    (base,) = [score for score in scores if score.epoch == 0]
    (chosen,) = [score for score in scores if score.chosen]
    return base, chosen


def test_the_lora_is_nearer_to_the_subject_than_the_base(work: flow.Work) -> None:
    base, chosen = measured(work)
    assert base.identity_distance is not None
    assert chosen.identity_distance is not None
    assert chosen.identity_distance < base.identity_distance - 0.15
    assert chosen.faces_found >= 0.8


def test_the_lora_is_much_nearer_to_the_subject_than_the_base(work: flow.Work) -> None:
    base, chosen = ({one.name: one.value for one in score.measures}[MEDIAN] for score in measured(work))
    assert base is not None
    assert chosen is not None
    assert chosen < 0.25 < 0.35 < base


def test_what_real_folders_have_is_left_out_with_a_reason(work: flow.Work) -> None:
    assert {row.state for row in work.made("collect").rows if row.reason} == {"failed"}
    reasons = " ".join(row.reason for row in work.made("curate").rows)
    assert "copy of" in reasons
    assert "blurred" in reasons
    assert any("no face" in row.reason for row in work.made("crop").rows)  # the screenshot
    assert sum(int(row.data["hidden"]) > 0 for row in work.made("conceal").kept) >= 5


def test_a_second_run_computes_nothing(home: Path, first: str) -> None:
    again = cli(home, "demo")
    assert again.returncode == 0, again.stderr
    assert {computed for computed, _ in counts(again.stdout).values()} == {0}


def test_status_says_fresh_and_what_was_left_out(home: Path, first: str) -> None:
    told = cli(home, "status", "demo").stdout
    assert told.count("fresh") == len(flow.STEPS)
    assert "copy of" in told


def test_lineage_answers_both_ways(home: Path, work: flow.Work) -> None:
    photo = str(work.made("encode").kept[0].data["photo"])
    made_from = cli(home, "lineage", "demo", "1")
    assert made_from.returncode == 0, made_from.stderr
    assert photo in made_from.stdout
    went_into = cli(home, "lineage", "demo", photo)
    assert "epoch" in went_into.stdout
    left_out = next(row.id for row in work.made("curate").rows if "copy of" in row.reason)
    assert "copy of" in cli(home, "lineage", "demo", left_out).stdout


def test_the_photos_are_not_written_to_and_no_exif_travels(home: Path, work: flow.Work) -> None:
    from PIL import Image

    for picture in (home / "data" / "work").rglob("*"):
        if picture.suffix in {".png", ".jpg"}:
            with Image.open(picture) as opened:
                assert not opened.getexif(), picture
                assert "gps" not in " ".join(opened.info).lower()


def test_one_photo_more_is_the_only_thing_computed(home: Path, work: flow.Work) -> None:
    photos = home / "data" / "subjects" / "demo" / "photos"
    old = set(photos.iterdir())
    draw_one_more(photos)
    (new,) = set(photos.iterdir()) - old
    for step in flow.STEPS[:6]:
        report = flow.take(step, work).report
        rows = work.made(step.folder).rows
        of_new = sum(row.id == new.name or row.data.get("photo") == new.name for row in rows)
        assert report.computed == of_new > 0, step.noun
    assert flow.status(work)[6].why  # training is stale now
