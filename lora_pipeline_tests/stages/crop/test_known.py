"""Faces that the photo library knows, on drawn photos: they are the subject's, found or not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.manifest import Manifest, read
from lora_pipeline.records import KNOWN_ONLY, Box, Crop
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop import crop, decided_faces, subject_descriptors
from lora_pipeline.stages.crop.framing import iou
from lora_pipeline.stages.crop.search import _at

SETTINGS = CropSettings(size_px=64, search_px=480, same_person_distance=0.45, framings=("close",))
SUBJECT, STRANGER = (random_identity(np.random.default_rng(seed), word) for seed, word in ((3, "woman"), (8, "man")))
SCENE = Scene("medium", size_px=(480, 360))
BESIDE = draw(SUBJECT, replace(SCENE, others=(STRANGER,)))
TURNED_AWAY: Box = (180, 90, 300, 210)
TWICE: Box = (190, 95, 305, 212)
"""Of one face a library may have two boxes."""


def box_of(number: int, wider: int = 0) -> Box:
    """Where a face was drawn; a library's box is wider than a detector's."""
    x, y, w, h = BESIDE.faces[number].box
    return (x - wider, y - wider, x + w + wider, y + h + wider)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, curated) -> Manifest:
    folder = tmp_path_factory.mktemp("photos")
    pictures = {"alone": draw(SUBJECT, SCENE).picture, "beside": BESIDE.picture}
    pictures["nobody"] = Image.effect_noise((480, 360), 20).convert("RGB")  # no face that any detector would find
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return curated(sorted(folder.iterdir()))


def told(manifest: Manifest, **known: list[Box]) -> Manifest:
    """The photos as they are when the library knows these faces."""
    rows = (row.with_data(known_faces=known.get(row.id.removesuffix(".png"), [])) for row in manifest.rows)
    return Manifest(manifest.folder, tuple(rows))


def test_the_box_that_shares_the_most_is_meant() -> None:
    known = (100, 100, 200, 200)
    speck, features, beside = (110, 110, 130, 130), (120, 130, 190, 210), (190, 100, 290, 200)
    assert _at(known, [speck, features, beside]) == 1
    assert _at(known, [beside]) is None
    assert _at(known, [(150, 100, 250, 200)]) == 0  # half
    assert _at(known, [(151, 100, 251, 200)]) is None
    assert _at(known, []) is None


def test_a_known_face_is_the_found_one_there_and_says_who_the_subject_is(manifest: Manifest, tmp_path: Path) -> None:
    outcome = crop(told(manifest, beside=[box_of(1, wider=15)]), tmp_path, SETTINGS, "person", None)
    assert {row.id for row in outcome.manifest.kept} == {"beside.png@close"}
    subject, other = sorted(decided_faces(tmp_path)["beside.png"], key=lambda face: face.whose != "subject")
    assert (subject.known, other.known, other.whose) == (True, False, "stranger")
    assert iou(subject.box, box_of(1)) > 0.4
    assert subject.confidence > KNOWN_ONLY


def test_a_known_face_that_is_not_found_is_a_face(manifest: Manifest, tmp_path: Path) -> None:
    before = crop(manifest, tmp_path, SETTINGS, "person", None)
    assert before.manifest.row("nobody.png").reason == "no face found"
    searched = {row.id: row.key for row in read(tmp_path, "faces").rows}
    known = told(manifest, nobody=[TURNED_AWAY, TWICE], alone=[box_of(0)])
    outcome = crop(known, tmp_path, SETTINGS, "person", None)
    # Only the photos of which something is known were searched again.
    again = {row.id: row.key for row in read(tmp_path, "faces").rows}
    assert {id for id in again if again[id] != searched[id]} == {"alone.png", "nobody.png"}
    (face,) = decided_faces(tmp_path)["nobody.png"]
    assert (face.box, face.confidence, face.known, face.whose) == (TURNED_AWAY, KNOWN_ONLY, True, "subject")
    cut = Crop.of(outcome.manifest.row("nobody.png@close"))
    assert cut.region[0] <= 180 < 300 <= cut.region[2]
    assert {row.data["photo"] for row in outcome.manifest.kept} == {"alone.png", "beside.png", "nobody.png"}
    assert len(subject_descriptors(tmp_path)) == 2  # not of what nobody has seen


def test_a_known_face_lies_right_where_bars_were_cut_off(manifest: Manifest, tmp_path: Path, curated) -> None:
    photo = tmp_path / "nobody.png"
    Image.effect_noise((480, 360), 20).convert("RGB").save(photo)
    trimmed = told(curated([photo], {"nobody.png": (100, 50, 480, 360)}), nobody=[(90, 60, 220, 190)])
    crop(trimmed, tmp_path / "crop", SETTINGS, "person", None)
    (face,) = decided_faces(tmp_path / "crop")["nobody.png"]
    assert face.box == (100, 60, 220, 190)


def test_of_a_pet_no_face_is_the_subjects(manifest: Manifest, tmp_path: Path) -> None:
    crop(told(manifest, alone=[box_of(0)]), tmp_path, SETTINGS, "pet", None)
    assert [face.whose for face in decided_faces(tmp_path)["alone.png"]] == ["stranger"]
