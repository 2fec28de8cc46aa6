"""Strangers are hidden so that nobody knows them, the subject is untouched, and the mask says exactly where."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.manifest import Manifest, Outcome
from lora_pipeline.models.faces import FaceDetector, open_detector
from lora_pipeline.records import Box, Crop, File, Row
from lora_pipeline.settings import ConcealSettings, CropSettings
from lora_pipeline.stages.conceal import conceal, cover
from lora_pipeline.store import digest_file

REAL = Path(__file__).parents[4] / "shared" / "data"
METHODS = get_args(ConcealSettings.model_fields["method"].annotation)
SUBJECT: Box = (50, 30, 90, 70)
STRANGER: Box = (100, 35, 140, 75)


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8))


@pytest.fixture
def crops(tmp_path: Path, noise: Image.Image) -> Manifest:
    """One with a stranger, one without, one that was dropped."""
    folder = tmp_path / "crop"
    (folder / "crops").mkdir(parents=True)
    files = []
    for name in ("crops/a.png", "crops/b.png"):
        noise.save(folder / name, compress_level=1)  # not as the stage itself would write it
        files.append({"picture": File(name, digest_file(folder / name))})
    with_one = Crop("a.jpg", "medium", (0, 0, 320, 240), 160, 120, SUBJECT, (STRANGER,), 3.0)
    rows = (
        Row("a.jpg@medium", "1", data=with_one.data(), files=files[0]),
        Row("b.jpg@medium", "2", data=replace(with_one, photo="b.jpg", strangers=()).data(), files=files[1]),
        Row("c.jpg", "3", "dropped", "no face found"),
    )
    return Manifest(folder, rows)


def pixels(picture: Image.Image | Path) -> np.ndarray:
    with Image.open(picture) if isinstance(picture, Path) else picture.copy() as opened:
        return np.asarray(opened).copy()


def test_a_row_a_kept_crop_with_picture_mask_and_count(crops: Manifest, tmp_path: Path) -> None:
    outcome = conceal(crops, tmp_path / "conceal", ConcealSettings())
    assert {row.id: row.data["hidden"] for row in outcome.manifest.rows} == {"a.jpg@medium": 1, "b.jpg@medium": 0}
    row = outcome.manifest.row("a.jpg@medium")
    assert Crop.of(row) == Crop.of(crops.row("a.jpg@medium"))
    with Image.open(outcome.manifest.path(row, "mask")) as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (160, 120))
    assert conceal(crops, tmp_path / "conceal", ConcealSettings()).report.computed == 0
    assert conceal(crops, tmp_path / "conceal", ConcealSettings(margin=0.3)).report.computed == 2


def test_where_nothing_is_hidden_the_bytes_are_the_same_and_all_is_looked_at(crops: Manifest, tmp_path: Path) -> None:
    outcome = conceal(crops, tmp_path / "conceal", ConcealSettings())
    row = outcome.manifest.row("b.jpg@medium")
    assert outcome.manifest.path(row).read_bytes() == crops.path(crops.row("b.jpg@medium")).read_bytes()
    assert (pixels(outcome.manifest.path(row, "mask")) == 255).all()


@pytest.mark.parametrize("method", METHODS)
def test_exactly_what_the_mask_says_is_changed(noise: Image.Image, method: str) -> None:
    covered, mask = cover(noise, (STRANGER,), SUBJECT, ConcealSettings(method=method))  # type: ignore[arg-type]
    touched = pixels(mask) == 0
    assert set(np.unique(pixels(mask))) == {0, 255}
    changed = (pixels(covered) != pixels(noise)).any(2)
    assert not (changed & ~touched).any()
    assert changed[touched].mean() > 0.9
    left, top, right, bottom = STRANGER
    assert touched[top:bottom, left:right].all()


def test_the_margin_reaches_as_far_as_it_says(noise: Image.Image) -> None:
    def reach(margin: float) -> tuple[int, int]:
        _, mask = cover(noise, (STRANGER,), None, ConcealSettings(margin=margin))
        ys, xs = np.nonzero(pixels(mask) == 0)
        return int(xs.min()), int(ys.max())

    assert reach(0.0) == (100, 74)
    assert reach(0.25) == (90, 84)


@pytest.mark.parametrize("method", METHODS)
def test_the_subjects_face_wins_where_they_overlap(noise: Image.Image, method: str) -> None:
    beside: Box = (80, 30, 120, 70)
    covered, mask = cover(noise, (beside,), SUBJECT, ConcealSettings(method=method, margin=0.5))  # type: ignore[arg-type]
    left, top, right, bottom = SUBJECT
    assert (pixels(covered)[top:bottom, left:right] == pixels(noise)[top:bottom, left:right]).all()
    assert (pixels(mask)[top:bottom, left:right] == 255).all()
    assert (pixels(mask)[30:70, 90:120] == 0).all()


def test_of_a_face_cut_by_the_edge_the_strip_is_hidden_with_a_whole_margin(noise: Image.Image) -> None:
    _, mask = cover(noise, ((150, 40, 160, 80),), None, ConcealSettings(margin=0.25))
    assert (pixels(mask)[40:80, 145:160] == 0).all()
    assert (pixels(mask)[50:70, 140:160] == 0).all()
    assert (pixels(mask)[31:89, 152:160] == 0).all()


def test_a_blur_keeps_less_than_a_few_numbers_of_a_face(noise: Image.Image) -> None:
    """Two faces that differ in their details alone are the same under the cover."""
    left, top, right, bottom = STRANGER
    other = pixels(noise)
    other[top:bottom, left:right] = (
        np.random.default_rng(1).permutation(other[top:bottom, left:right].reshape(-1, 3)).reshape(40, 40, 3)
    )
    one, two = (cover(picture, (STRANGER,), None, ConcealSettings())[0] for picture in (noise, Image.fromarray(other)))
    difference = np.abs(pixels(one).astype(int) - pixels(two))
    assert difference.max() <= 16
    assert np.abs(other.astype(int) - pixels(noise)).max() > 200


def unknown(
    detector: FaceDetector, picture: Image.Image, strangers: list[Box], subject: Box | None, method: str
) -> None:
    """No cover can be known again: nothing there is a face, or it is another's by the library's own threshold."""
    before = detector.find(picture, max(picture.size))
    covered, _ = cover(picture, strangers, subject, ConcealSettings(method=method))  # type: ignore[arg-type]
    assert len(before) > len(strangers) - (subject is None)
    for face in before:
        middle = ((face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2)
        if not any(box[0] < middle[0] < box[2] and box[1] < middle[1] < box[3] for box in strangers):
            continue
        known = np.array(detector.describe(picture, face))
        for seen in detector.find(covered, max(picture.size)):
            if abs((seen.box[0] + seen.box[2]) / 2 - middle[0]) < face.box[2] - face.box[0]:
                assert np.linalg.norm(np.array(detector.describe(covered, seen)) - known) > 0.6
        # Told where the landmarks were, the network must not know the face either.
        assert np.linalg.norm(np.array(detector.describe(covered, face)) - known) > 0.6


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return open_detector(CropSettings())


@pytest.mark.parametrize("method", METHODS)
def test_a_drawn_stranger_cannot_be_known_again(detector: FaceDetector, method: str) -> None:
    subject, stranger = (random_identity(np.random.default_rng(seed)) for seed in (3, 8))
    drawing = draw(subject, Scene("medium", size_px=(640, 480), others=(stranger,)))
    (mine, theirs) = ((x, y, x + w, y + h) for x, y, w, h in (face.box for face in drawing.faces))
    unknown(detector, drawing.picture, [theirs], mine, method)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here")
@pytest.mark.parametrize("photo", ["two_standing.jpg", "two_waving.jpg"])
def test_a_real_stranger_cannot_be_known_again(detector: FaceDetector, photo: str) -> None:
    import csv

    with Image.open(REAL / "person_a" / "photos" / photo) as opened:
        picture = opened.convert("RGB")
    boxes: dict[str, Box] = {}
    for row in csv.DictReader((REAL / "faces.csv").read_text().splitlines()):
        if row["file"].endswith(f"person_a/photos/{photo}"):
            x, y, w, h = (float(row[key]) for key in "xywh")
            size = picture.size
            boxes[row["person"]] = (
                round(x * size[0]),
                round(y * size[1]),
                round((x + w) * size[0]),
                round((y + h) * size[1]),
            )
    mine = boxes.pop("a")
    for method in METHODS:
        unknown(detector, picture, list(boxes.values()), mine, method)


def test_keys_follow_the_crop(crops: Manifest, tmp_path: Path, noise: Image.Image) -> None:
    def run(manifest: Manifest) -> Outcome:
        return conceal(manifest, tmp_path / "conceal", ConcealSettings())

    run(crops)
    moved = Crop.of(crops.rows[0]).data() | {"strangers": [[101, 35, 141, 75]]}
    again = run(Manifest(crops.folder, (replace(crops.rows[0], data=moved), *crops.rows[1:])))
    assert (again.report.computed, again.report.reused) == (1, 1)
