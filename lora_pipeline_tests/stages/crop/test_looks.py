"""How the subject holds the head and its expression: the subject's faces alone, remembered a face, on the crops' rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.manifest import Manifest, Stale, planning, read
from lora_pipeline.people import People
from lora_pipeline.records import Crop
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop import crop, decided_faces, looks
from lora_pipeline_tests.models.test_expression import LABELS, tiny_classifier

SETTINGS = CropSettings(size_px=64, search_px=480, same_person_distance=0.45, framings=("close", "medium"))
SUBJECT, STRANGER = (random_identity(np.random.default_rng(seed), word) for seed, word in ((3, "woman"), (8, "man")))
SCENE = Scene("medium", size_px=(480, 360))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, curated) -> Manifest:
    folder = tmp_path_factory.mktemp("photos")
    draw(SUBJECT, replace(SCENE, tilt_deg=12.0)).picture.save(folder / "leaning.png")
    draw(SUBJECT, replace(SCENE, others=(STRANGER,))).picture.save(folder / "beside.png")
    return curated(sorted(folder.iterdir()))


def test_the_pose_of_the_subjects_head_stands_on_its_crops(manifest: Manifest, tmp_path: Path) -> None:
    plain = crop(manifest, tmp_path, SETTINGS, "person", None)
    assert all("pitch_deg" not in row.data for row in plain.manifest.kept)  # so a row's key is what it was before
    posed = SETTINGS.model_copy(update={"head_pose": True})
    with planning(), pytest.raises(Stale):
        crop(manifest, tmp_path, posed, "person", None)
    outcome = crop(manifest, tmp_path, posed, "person", None)
    cuts = {row.id: Crop.of(row) for row in outcome.manifest.kept}
    assert cuts["leaning.png@close"].roll_deg == pytest.approx(12, abs=4)
    assert cuts["beside.png@close"].roll_deg == pytest.approx(0, abs=4)
    assert cuts["beside.png@close"].pitch_deg is not None
    others = [face for face in decided_faces(tmp_path)["beside.png"] if face.whose != "subject"]
    assert [face.pitch_deg for face in others] == [None]
    assert [row.id for row in read(tmp_path, looks.POSES).rows] == sorted(
        face.id for found in decided_faces(tmp_path).values() for face in found if face.whose == "subject"
    )
    photos = {row.id: row.data["photo"] for row in read(tmp_path, looks.POSES).rows}  # by which a photo is forgotten
    assert all(id.rpartition("#")[0] == photo for id, photo in photos.items())
    again = crop(manifest, tmp_path, SETTINGS, "person", None)
    assert again.manifest.digest == plain.manifest.digest


@pytest.mark.slow
def test_an_expression_is_read_once_a_face(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = manifest.folder / "leaning.png"
    classifier = tiny_classifier(tmp_path / "vit")
    settings = SETTINGS.model_copy(update={"expression_model": str(classifier)})
    outcome = crop(manifest, tmp_path / "crop", settings, "person", reference)
    for row in outcome.manifest.kept:
        assert {label for label, _ in Crop.of(row).expression} == {label.lower() for label in LABELS}
    monkeypatch.setattr(looks, "open_upright", None)
    assert crop(manifest, tmp_path / "crop", settings, "person", reference).report.computed == 0
    smaller = settings.model_copy(update={"size_px": 72})
    assert crop(manifest, tmp_path / "crop", smaller, "person", reference).report.computed == 4
    # Nothing is asked of a face that has turned out to be a stranger's, nor anew of the others.
    (other,) = [face.id for face in decided_faces(tmp_path / "crop")["beside.png"] if face.whose == "subject"]
    crop(manifest, tmp_path / "crop", settings, "person", reference, people=People({other: "Anna"}))
    assert len(read(tmp_path / "crop", looks.EXPRESSIONS).rows) == 1
