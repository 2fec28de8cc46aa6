"""The stage on drawn photos of known truth: whose faces, which crops, what is remembered, what is said of the rest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.errors import SubjectError
from lora_pipeline.manifest import WORTH_PROCESSES, Manifest, Outcome, Stale, planning, read
from lora_pipeline.people import People
from lora_pipeline.records import Crop
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop import crop, decided_faces, subject_descriptors
from lora_pipeline.stages.crop.framing import iou
from lora_pipeline.stages.crop.search import faces_of

SETTINGS = CropSettings(size_px=64, search_px=480, same_person_distance=0.45, framings=("close", "medium"))
SUBJECT, STRANGER, OTHER = (
    random_identity(np.random.default_rng(seed), word) for seed, word in ((3, "woman"), (8, "man"), (21, "woman"))
)
SCENE = Scene("medium", size_px=(480, 360))
BESIDE = replace(SCENE, others=(STRANGER,))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two photos of the subject, one with a stranger beside, one of the stranger, one of nobody."""
    folder = tmp_path_factory.mktemp("photos")
    pictures = {
        "alone.png": draw(SUBJECT, replace(SCENE, yaw_deg=24.0)).picture,
        "beside.png": draw(SUBJECT, BESIDE).picture,
        "other.png": draw(OTHER, SCENE).picture,
        "nobody.png": Image.new("RGB", (480, 360), "grey"),
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    return {name: folder / name for name in pictures}


@pytest.fixture(scope="module")
def manifest(photos: dict[str, Path], curated) -> Manifest:
    return curated(list(photos.values()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crop")


@pytest.fixture(scope="module")
def outcome(manifest: Manifest, folder: Path) -> Outcome:
    return crop(manifest, folder, SETTINGS, "person", None)


def row(outcome: Outcome, id: str) -> Crop:
    return Crop.of(outcome.manifest.row(id))


def test_crops_of_the_subject_and_reasons_for_the_rest(outcome: Outcome) -> None:
    assert {one.id for one in outcome.manifest.kept} == {
        "alone.png@close",
        "alone.png@medium",
        "beside.png@close",
        "beside.png@medium",
    }
    reasons = {one.id: (one.state, one.reason) for one in outcome.manifest.rows if one.state != "kept"}
    assert reasons == {
        "other.png": ("dropped", "no face of the subject; 1 stranger"),
        "nobody.png": ("dropped", "no face found"),
    }
    assert outcome.report.computed == 6


def test_files_are_what_the_rows_say(outcome: Outcome, photos: dict[str, Path]) -> None:
    for one in outcome.manifest.kept:
        cut = Crop.of(one)
        with Image.open(outcome.manifest.path(one)) as picture, Image.open(photos[cut.photo]) as photo:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 64))
            assert not picture.getexif()
            again = photo.convert("RGB").crop(cut.region).resize((64, 64), Image.Resampling.LANCZOS)
            assert np.array_equal(np.asarray(again), np.asarray(picture))


def test_the_face_and_the_strangers_are_where_they_are_in_the_crop(outcome: Outcome) -> None:
    truth = draw(SUBJECT, BESIDE).faces
    cut = row(outcome, "beside.png@medium")
    scale = 64 / (cut.region[2] - cut.region[0])

    def moved(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        x, y = (box[0] - cut.region[0]) * scale, (box[1] - cut.region[1]) * scale
        return (max(0, round(x)), round(y), round(x + box[2] * scale), round(y + box[3] * scale))

    assert cut.face is not None
    assert iou(cut.face, moved(truth[0].box)) > 0.45
    assert len(cut.strangers) == 1
    assert iou(cut.strangers[0], moved(truth[1].box)) > 0.4
    assert row(outcome, "alone.png@medium").strangers == ()


def test_yaw_travels_with_the_crop(outcome: Outcome) -> None:
    assert row(outcome, "alone.png@close").yaw_deg == pytest.approx(24, abs=12)
    assert row(outcome, "beside.png@close").yaw_deg == pytest.approx(0, abs=12)


def test_others_can_read_the_faces_and_whose_they_are(outcome: Outcome, folder: Path) -> None:
    whose = {photo: sorted(face.whose for face in faces) for photo, faces in decided_faces(folder).items()}
    assert whose["alone.png"] == ["subject"]
    assert whose["beside.png"] in (["stranger", "subject"], ["subject", "unsure"])
    assert whose["nobody.png"] == []
    assert len(subject_descriptors(folder)) == 2


def test_again_computes_nothing_and_status_knows(outcome: Outcome, manifest: Manifest, folder: Path) -> None:
    again = crop(manifest, folder, SETTINGS, "person", None)
    assert (again.report.computed, again.report.reused) == (0, 6)
    assert again.manifest.digest == outcome.manifest.digest
    with planning():
        crop(manifest, folder, SETTINGS, "person", None)
        with pytest.raises(Stale):
            crop(manifest, folder, SETTINGS.model_copy(update={"size_px": 128}), "person", None)


def test_other_framings_and_sizes_search_no_face_again(
    outcome: Outcome, manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = read(folder, "faces").digest

    def never(*_: object) -> None:
        raise AssertionError("a face was searched for")

    monkeypatch.setattr("lora_pipeline.stages.crop.search.open_upright", never)
    more = SETTINGS.model_copy(update={"framings": ("close", "medium", "whole"), "same_person_distance": 0.46})
    outcome = crop(manifest, folder, more, "person", None)
    assert outcome.report.computed == 2  # whole ones; the others are there
    assert outcome.manifest.row("beside.png@whole").data["width_px"] == 72
    larger = crop(manifest, folder, SETTINGS.model_copy(update={"size_px": 72}), "person", None)
    assert larger.report.computed == 4
    assert read(folder, "faces").digest == searched


def test_one_photo_more_searches_that_photo_alone(
    outcome: Outcome, photos: dict[str, Path], curated, tmp_path: Path, folder: Path
) -> None:
    draw(SUBJECT, replace(SCENE, shirt_colour="red", tilt_deg=3.0)).picture.save(tmp_path / "new.png")
    before = {one.id: one.key for one in read(folder, "faces").rows}
    crop(curated([*photos.values(), tmp_path / "new.png"]), folder, SETTINGS, "person", None)
    after = {one.id: one.key for one in read(folder, "faces").rows}
    assert after.keys() - before.keys() == {"new.png"}
    assert before.items() <= after.items()


def test_a_reference_photo_says_who_the_subject_is(manifest: Manifest, tmp_path: Path) -> None:
    draw(OTHER, replace(SCENE, framing="close", shirt_colour="green")).picture.save(tmp_path / "reference.jpg")
    outcome = crop(manifest, tmp_path / "crop", SETTINGS, "person", tmp_path / "reference.jpg")
    assert {one.data["photo"] for one in outcome.manifest.kept} == {"other.png"}


def test_several_reference_photos_speak_by_their_mean(
    photos: dict[str, Path], manifest: Manifest, outcome: Outcome, tmp_path: Path
) -> None:
    draw(SUBJECT, replace(SCENE, framing="close", shirt_colour="green")).picture.save(tmp_path / "a.jpg")
    both = [photos["alone.png"], tmp_path / "a.jpg"]
    told = crop(manifest, tmp_path / "crop", SETTINGS, "person", both)
    assert told.manifest.digest == outcome.manifest.digest
    descriptors = [faces_of(row)[0].descriptor for row in read(tmp_path / "crop", "reference").rows]
    (face,) = decided_faces(tmp_path / "crop")["alone.png"]
    apart = float(np.linalg.norm(np.array(descriptors[0]) - np.array(descriptors[1])))
    assert apart > 0.05
    assert face.distance == pytest.approx(apart / 2, abs=0.001)  # it is one of the two
    with pytest.raises(SubjectError, match=r"nowhere\.jpg is not there"):
        crop(manifest, tmp_path / "crop", SETTINGS, "person", [*both, tmp_path / "nowhere.jpg"])


def test_what_is_said_by_hand_reaches_the_crops_and_nothing_else_is_made_again(
    outcome: Outcome,
    manifest: Manifest,
    photos: dict[str, Path],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = photos["alone.png"]
    crop(manifest, folder, SETTINGS, "person", alone)
    ids = {face.whose: face.id for face in decided_faces(folder)["beside.png"]}
    other = next(iter(ids.keys() - {"subject"}))
    assert sorted(ids.values()) == ["beside.png#1", "beside.png#2"]
    monkeypatch.setattr("lora_pipeline.stages.crop.search.open_upright", None)  # nothing is searched again
    said = People({ids[other]: "not_a_face"})
    with planning(), pytest.raises(Stale):
        crop(manifest, folder, SETTINGS, "person", alone, people=said)
    told = crop(manifest, folder, SETTINGS, "person", alone, people=said)
    assert row(told, "beside.png@medium").strangers == ()  # what is no face is not hidden
    assert told.report.computed == 1  # in the close crop the stranger was not seen
    told = crop(manifest, folder, SETTINGS, "person", alone, people=People({ids["subject"]: "Anna"}))
    assert told.manifest.row("beside.png").reason.startswith("no face of the subject; ")
    assert {face.name for face in decided_faces(folder)["beside.png"]} == {"Anna", ""}
    told = crop(manifest, folder, SETTINGS, "person", alone, people=People({"other.png#1": "subject"}))
    assert "other.png@medium" in {one.id for one in told.manifest.kept}
    assert crop(manifest, folder, SETTINGS, "person", None).manifest.digest == outcome.manifest.digest


@pytest.mark.parametrize(("name", "words"), [("nobody.png", "no face is found"), ("nowhere.png", "is not there")])
def test_a_reference_without_a_face_is_refused_in_words(
    manifest: Manifest, photos: dict[str, Path], folder: Path, name: str, words: str
) -> None:
    with pytest.raises(SubjectError, match=words):
        crop(manifest, folder, SETTINGS, "person", photos["alone.png"].parent / name)


def test_of_a_pet_the_whole_picture_and_every_face_is_a_passer_bys(
    photos: dict[str, Path], curated, tmp_path: Path
) -> None:
    outcome = crop(curated([photos["beside.png"]]), tmp_path, SETTINGS, "pet", None)
    (cut,) = (Crop.of(one) for one in outcome.manifest.kept)
    assert (cut.framing, cut.face, len(cut.strangers)) == ("whole", None, 2)
    assert (cut.width_px, cut.height_px) == (72, 56)
    said = People({"beside.png#1": "not_a_face"})
    outcome = crop(curated([photos["beside.png"]]), tmp_path, SETTINGS, "pet", None, people=said)
    assert [len(Crop.of(one).strangers) for one in outcome.manifest.kept] == [1]


def test_a_style_has_its_faces_in_peace(photos: dict[str, Path], curated, tmp_path: Path) -> None:
    outcome = crop(curated([photos["beside.png"]]), tmp_path, SETTINGS, "style", None)
    (cut,) = (Crop.of(one) for one in outcome.manifest.kept)
    assert (cut.framing, cut.strangers) == ("whole", ())
    assert not read(tmp_path, "faces").rows


def test_bars_that_were_cut_off_come_back_in_no_crop(photos: dict[str, Path], curated, tmp_path: Path) -> None:
    wide = Image.new("RGB", (880, 360), "black")
    wide.paste(Image.open(photos["alone.png"]), (200, 0))
    wide.save(tmp_path / "wide.png")
    outcome = crop(
        curated([tmp_path / "wide.png"], {"wide.png": (200, 0, 680, 360)}), tmp_path / "crop", SETTINGS, "person", None
    )
    assert outcome.manifest.kept
    for one in outcome.manifest.kept:
        assert Crop.of(one).region[0] >= 200
        assert Crop.of(one).region[2] <= 680
    x, y, w, h = draw(SUBJECT, replace(SCENE, yaw_deg=24.0)).faces[0].box
    (face,) = decided_faces(tmp_path / "crop")["wide.png"]
    assert iou(face.box, (x + 200, y, x + w + 200, y + h)) > 0.4
    assert face.box[0] + 200 > min(across for across, _ in face.landmarks) > face.box[0]


def test_a_small_face_and_a_broken_photo_are_rows_with_reasons(
    photos: dict[str, Path], curated, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"")
    asking = SETTINGS.model_copy(update={"min_face_px": 200})
    outcome = crop(curated([photos["alone.png"], tmp_path / "broken.jpg"]), tmp_path / "crop", asking, "person", None)
    reasons = {one.id: (one.state, one.reason) for one in outcome.manifest.rows}
    assert reasons["broken.jpg"] == ("failed", "the file is empty (0 bytes)")
    assert reasons["alone.png"][0] == "dropped"
    assert "px high, at least 200 are asked for" in reasons["alone.png"][1]


def test_many_photos_are_searched_by_several_processes_with_the_same_result(
    photos: dict[str, Path], curated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        Image.new("RGB", (90, 90), (number, 99, 99)).save(tmp_path / f"{number}.png")
    many = curated([photos["beside.png"], *sorted(tmp_path.glob("*.png"))])
    assert len(many.rows) > WORTH_PROCESSES
    several = crop(many, tmp_path / "several", SETTINGS, "person", None)
    monkeypatch.setattr("lora_pipeline.manifest.WORTH_PROCESSES", 99)
    one = crop(many, tmp_path / "one", SETTINGS, "person", None)
    assert several.manifest.kept
    assert several.manifest.digest == one.manifest.digest
