"""What `face_crops` shows of the coverage, and its check; the launchpad's maps."""

from pathlib import Path

import dagster as dg

from lora_pipeline import flow
from lora_pipeline.assets.checks import COVERAGE, covered, one_identity
from lora_pipeline.assets.crop import coverage_table
from lora_pipeline.assets.launchpad import given, launchpad
from lora_pipeline.definitions import defs
from lora_pipeline.flow import Work
from lora_pipeline.manifest import Manifest, Report, write
from lora_pipeline.records import Crop, Face, Row
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.whose import write_decided
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject
from lora_pipeline.summary import coverage as in_the_terminal
from lora_pipeline.summary import summary

PLAN = {"frontal": 2, "profile left": 2}


def work(tmp_path: Path, **crop) -> Work:
    """A subject with two close crops, both of a head that faces the camera."""
    words = {"name": "ann", "kind": "person", "trigger": "zx1", "class": "woman", "recipe": "sd15_person"}
    subject = Subject.model_validate({**words, "photos": tmp_path, "settings": {"crop": crop}})
    work = Work(Store(tmp_path / "data"), subject, subject.whole_settings())
    photos = ("a.jpg", "b.jpg")
    rows = [Row(f"{id}@close", "k", data=Crop(id, "close", (0, 0, 9, 9), 9, 9).data()) for id in photos]
    write(work.folder("crop"), rows)
    write_decided(work.folder("crop"), {id: (Face(id, (0, 0, 9, 9), 1.0, (), (), 3.0, "subject"),) for id in photos})
    return work


def test_the_table_says_what_is_there_and_what_to_add(tmp_path: Path) -> None:
    seen = flow.coverage(work(tmp_path, coverage=PLAN, framing_shares={"close": 0.5, "full": 0.5}))
    rows = {record.data["shows"]: record.data for record in coverage_table(seen).records}
    assert rows["close"] == {
        "what": "framing", "shows": "close", "photos": "2", "wanted": "", "share": "100%, wanted 50%", "to do": ""
    }  # fmt: skip
    assert rows["full"]["share"] == "0%, wanted 50%"
    assert rows["frontal"]["to do"] == ""
    assert rows["profile left"]["to do"] == "no profile left: add 2"
    assert in_the_terminal(seen).splitlines()[0].split() == [
        "face_crops",
        "show",
        "photos",
        "wanted",
        "share",
        "to",
        "do",
    ]
    assert any(line.split("  ")[0] == "profile left" for line in in_the_terminal(seen).splitlines())


def test_what_is_missing_is_a_warning_that_stops_nothing(tmp_path: Path) -> None:
    lacking = work(tmp_path, coverage=PLAN)
    result = covered(lacking, flow.coverage(lacking))
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert not COVERAGE.blocking
    assert result.description == "no profile left: add 2"
    fine = work(tmp_path, coverage={"frontal": 2})
    assert covered(fine, flow.coverage(fine)).passed
    unplanned = covered(fine, flow.coverage(work(tmp_path, coverage={})))
    assert unplanned.passed


def test_photos_that_were_not_chosen_show_the_subject_too(tmp_path: Path) -> None:
    kept = Row("a.jpg@close", "k", data=Crop("a.jpg", "close", (0, 0, 9, 9), 9, 9).data())
    others = [
        Row(f"{id}.jpg@close", "k", "dropped", "left out: 1 is enough", {"photo": f"{id}.jpg", "framing": "close"})
        for id in "bc"
    ]
    nobody = Row("d.jpg", "k", "dropped", "no face found", {"photo": "d.jpg"})
    told = one_identity(work(tmp_path), Manifest(tmp_path, (kept, *others, nobody)), 4)
    assert told.passed
    assert str(told.description).startswith("the subject is in 3 of 4 kept photos")
    assert not one_identity(work(tmp_path), Manifest(tmp_path, (*others, nobody)), 4).passed


def test_a_warning_hides_no_result(tmp_path: Path) -> None:
    reports = {step.noun: Report() for step in flow.STEPS}
    warned = summary(work(tmp_path), reports, ["face_crops, check coverage: no profile left: add 2"])
    assert "no profile left: add 2" in warned
    assert "grid: " in warned
    reports.pop("released_lora")
    assert "grid: " not in summary(work(tmp_path), reports, ["lora_checkpoints: it broke"])


def test_the_launchpad_takes_maps() -> None:
    crop = launchpad(CropSettings)
    config = crop(framing_shares={"close": 0.5}, coverage={"frontal": 2})  # type: ignore[call-arg]
    assert given(config) == {"framing_shares": {"close": 0.5}, "coverage": {"frontal": 2}}
    job = defs.resolve_job_def("photos_to_lora")
    dg.validate_run_config(job, {"ops": {"face_crops": {"config": {"coverage": {"frontal": 2}, "best": 5}}}})
