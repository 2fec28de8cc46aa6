"""Real photos, end to end. The picture quality of the small base model does not matter here; the way of the data does."""

import csv
from pathlib import Path

import pytest

from lora_pipeline import flow, subject
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject

REAL = Path(__file__).parents[2] / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here"),
]

SMALL = {"fit": {"epochs": 1}, "grade": {"seeds": [1], "sampling_steps": 4}, "check": {"min_photos": 3}}


def whole_flow(tmp_path: Path, name: str, kind: str, class_word: str, recipe: str) -> flow.Work:
    store = Store(tmp_path / "data")
    consent = (
        {"given_by": "public domain photographs", "given_on": "2026-01-01", "scope": "tests"}
        if kind == "person"
        else None
    )
    given = {
        "name": name,
        "kind": kind,
        "photos": REAL / name / "photos",
        "trigger": "zx9",
        "class": class_word,
        "recipe": recipe,
    }
    subject.new(store, Subject.model_validate({**given, "consent": consent, "settings": SMALL}))
    work = flow.work(store, name)
    before = {path: path.stat().st_mtime_ns for path in (REAL / name / "photos").iterdir()}
    for step in flow.STEPS:
        flow.take(step, work)
    assert {path: path.stat().st_mtime_ns for path in (REAL / name / "photos").iterdir()} == before
    return work


def test_a_dog_by_its_whole_pictures(tmp_path: Path) -> None:
    work = whole_flow(tmp_path, "dog", "pet", "dog", "bundled_pet")
    assert len(work.made("curate").kept) == 5
    assert [row.data["framing"] for row in work.made("crop").kept] == ["whole"] * 5
    assert all("dog" in str(row.data["text"]) for row in work.made("describe").kept)
    assert len(work.made("publish").kept) == 1
    assert all(standing.fresh for standing in flow.status(work))


def test_a_man_among_others(tmp_path: Path) -> None:
    work = whole_flow(tmp_path, "person_a", "person", "man", "bundled_person")
    shots = {
        row["file"].split("/")[-1]
        for row in csv.DictReader((REAL / "duplicates.csv").read_text().splitlines())
        if row["scene"] == "portrait"
    }
    curated = work.made("curate")
    group = {row.id for row in curated.rows if row.data.get("duplicates") and row.id in shots}
    assert group == shots
    assert len([row for row in curated.kept if row.id in shots]) == 1
    assert sum(int(row.data["hidden"]) > 0 for row in work.made("conceal").kept) >= 1
    assert len(work.made("publish").kept) == 1
    assert all(standing.fresh for standing in flow.status(work))
