"""Real photos with hand-checked boxes: every face is found and known, none is invented."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline.manifest import Outcome
from lora_pipeline.models.dlib_faces import Landmarks68
from lora_pipeline.records import Box, Crop, Face
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop import crop, decided_faces
from lora_pipeline.stages.crop.angle import pose_deg
from lora_pipeline.stages.crop.framing import iou

REAL = Path(__file__).parents[4] / "shared" / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crop")


@pytest.fixture(scope="module")
def outcome(folder: Path, curated) -> Outcome:
    """All 12 photos, bars and copies too."""
    return crop(curated(sorted((REAL / "person_a" / "photos").iterdir())), folder, CropSettings(), "person", None)


def truths() -> dict[str, list[tuple[tuple[float, ...], str]]]:
    listed: dict[str, list[tuple[tuple[float, ...], str]]] = {}
    for row in csv.DictReader((REAL / "faces.csv").read_text().splitlines()):
        person, _, name = row["file"].split("/")
        if person == "person_a":
            listed.setdefault(name, []).append((tuple(float(row[key]) for key in "xywh"), row["person"]))
    return listed


def test_all_15_faces_are_found_and_known_and_no_other(outcome: Outcome, folder: Path, curated) -> None:
    sizes = {
        row.id: (int(str(row.data["width_px"])), int(str(row.data["height_px"])))
        for row in curated(sorted((REAL / "person_a" / "photos").iterdir())).rows
    }
    found = decided_faces(folder)
    matched = 0
    for name, listed in truths().items():
        width, height = sizes[name]
        left: list[Face] = list(found[name])
        for (x, y, w, h), person in listed:
            box: Box = (round(x * width), round(y * height), round((x + w) * width), round((y + h) * height))
            face = max(left, key=lambda one: iou(one.box, box))
            assert iou(face.box, box) >= 0.5, (name, person)
            assert (face.whose == "subject") == (person == "a"), (name, person)
            left.remove(face)
            matched += 1
        assert left == [], name
    assert matched == 15


def test_crops_of_every_photo_with_enough_pixels_strangers_named_in_them(outcome: Outcome) -> None:
    crops = [Crop.of(row) for row in outcome.manifest.kept]
    photos = {one.photo for one in crops}
    assert len(photos) >= 9
    assert {row.reason.split()[0] for row in outcome.manifest.rows if row.state == "dropped"} == {"would", "shows"}
    waving = next(one for one in crops if (one.photo, one.framing) == ("two_waving.jpg", "full"))
    assert len(waving.strangers) == 2
    assert all(iou(one.face, stranger) == 0 for one in crops if one.face for stranger in one.strangers)


@pytest.mark.parametrize(("photo", "side"), [("lectern.jpg", -1), ("press_room.jpg", 1), ("portrait.jpg", 0)])
def test_heads_are_turned_to_the_side_a_person_sees(outcome: Outcome, folder: Path, photo: str, side: int) -> None:
    (face,) = decided_faces(folder)[photo]
    assert (face.yaw_deg > 12) - (face.yaw_deg < -12) == side


@pytest.mark.parametrize("subject", ["dog", "can", "backpack_dog"])
def test_no_face_is_seen_on_things_and_dogs(subject: str, curated, tmp_path: Path) -> None:
    photos = sorted((REAL / subject / "photos").iterdir())
    outcome = crop(curated(photos), tmp_path, CropSettings(), "pet", None)
    crops = [Crop.of(row) for row in outcome.manifest.kept]
    assert [one.framing for one in crops] == ["whole"] * len(photos)
    assert all(one.strangers == () for one in crops)


@pytest.mark.parametrize("name", ["portrait.jpg", "press_room.jpg", "standing_blue_room.jpg"])
def test_a_real_head_that_is_turned_with_its_photo_rolls_as_far_and_nods_no_more(
    name: str, outcome: Outcome, folder: Path
) -> None:
    (left, top, right, bottom) = decided_faces(folder)[name][0].box
    side = right - left
    with Image.open(REAL / "person_a" / "photos" / name) as opened:
        around = opened.convert("RGB").crop((left - side, top - side, right + side, bottom + side))
    box = (side, side, 2 * side, 2 * side)
    told: dict[int, tuple[float, float]] = {}
    for turned in (-15, 0, 15):
        picture = around.rotate(-turned, resample=Image.Resampling.BICUBIC)  # Pillow turns to the left
        _, pitch, roll = pose_deg(Landmarks68.open().points(picture, box))
        told[turned] = pitch, roll
    for turned in (-15, 15):
        assert told[turned][1] - told[0][1] == pytest.approx(turned, abs=2)
        assert told[turned][0] == pytest.approx(told[0][0], abs=4)
