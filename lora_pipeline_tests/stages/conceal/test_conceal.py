"""Strangers are hidden so that nobody knows them, the subject is untouched, and the mask says exactly where."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.errors import ModelError
from lora_pipeline.families.inpaint import Inpainter
from lora_pipeline.manifest import Manifest, Outcome
from lora_pipeline.models.faces import FaceDetector, open_detector
from lora_pipeline.records import Box, Crop, Face, File, Row
from lora_pipeline.settings import BaseSettings, ConcealSettings, CropSettings
from lora_pipeline.stages.conceal import PROMPTS, Artist, Witness, conceal, cover
from lora_pipeline.stages.conceal.cover import DrawFace
from lora_pipeline.store import digest_file

REAL = Path(__file__).parents[4] / "shared" / "data"
METHODS = get_args(ConcealSettings.model_fields["method"].annotation)
BUNDLED = BaseSettings(model="bundled")
INPAINTER = Inpainter(BUNDLED)
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


def settings_of(method: str, **more: object) -> ConcealSettings:
    """Few steps: what is drawn need not be good, but somebody else."""
    small = {"inpaint_sampling_steps": 4, "inpaint_guidance_scale": 2.0}
    return ConcealSettings.model_validate({"method": method, **small, **more})


def artist(settings: ConcealSettings) -> DrawFace | None:
    return Artist(INPAINTER, settings, "picture").draw if settings.method in PROMPTS else None


@pytest.fixture(scope="module")
def nobody() -> Witness:
    """A witness who was not there."""
    return Witness({}, open_detector(CropSettings()), "nobody", 0.6)


def pixels(picture: Image.Image | Path) -> np.ndarray:
    with Image.open(picture) if isinstance(picture, Path) else picture.copy() as opened:
        return np.asarray(opened).copy()


def test_a_row_a_kept_crop_with_picture_mask_and_count(crops: Manifest, tmp_path: Path, nobody: Witness) -> None:
    outcome = conceal(crops, tmp_path / "conceal", ConcealSettings(), BUNDLED, nobody)
    assert {row.id: row.data["hidden"] for row in outcome.manifest.rows} == {"a.jpg@medium": 1, "b.jpg@medium": 0}
    row = outcome.manifest.row("a.jpg@medium")
    assert Crop.of(row) == Crop.of(crops.row("a.jpg@medium"))
    with Image.open(outcome.manifest.path(row, "mask")) as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "L", (160, 120))
    assert conceal(crops, tmp_path / "conceal", ConcealSettings(), BUNDLED, nobody).report.computed == 0
    assert conceal(crops, tmp_path / "conceal", ConcealSettings(margin=0.3), BUNDLED, nobody).report.computed == 2


def test_where_nothing_is_hidden_the_bytes_are_the_same_and_all_is_looked_at(
    crops: Manifest, tmp_path: Path, nobody: Witness
) -> None:
    outcome = conceal(crops, tmp_path / "conceal", ConcealSettings(), BUNDLED, nobody)
    row = outcome.manifest.row("b.jpg@medium")
    assert outcome.manifest.path(row).read_bytes() == crops.path(crops.row("b.jpg@medium")).read_bytes()
    assert (pixels(outcome.manifest.path(row, "mask")) == 255).all()


@pytest.mark.parametrize("method", METHODS)
def test_exactly_what_the_mask_says_is_changed(noise: Image.Image, method: str) -> None:
    settings = settings_of(method)
    covered, mask = cover(noise, (STRANGER,), SUBJECT, settings, artist(settings))
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
    settings = settings_of(method, margin=0.5)
    covered, mask = cover(noise, (beside,), SUBJECT, settings, artist(settings))
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


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return open_detector(CropSettings())


@pytest.fixture(scope="module")
def other_detector() -> FaceDetector:
    """One that the stage was not told of."""
    return open_detector(CropSettings(detector="dlib_cnn"))


def as_crop(folder: Path, picture: Image.Image, strangers: list[Box], subject: Box | None) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / "a.png")
    crop = Crop("a.jpg", "whole", (0, 0, *picture.size), *picture.size, subject, tuple(strangers))
    files = {"picture": File("a.png", digest_file(folder / "a.png"))}
    return Manifest(folder, (Row("a.jpg@whole", "1", data=crop.data(), files=files),))


def met(detector: FaceDetector, picture: Image.Image, subject: Box, near: float) -> Witness:
    """Who has seen the picture before anything was hidden."""
    faces = [
        Face("a.jpg", face.box, 1.0, face.landmarks, detector.describe(picture, face), 0.0, whose)
        for face in detector.find(picture, max(picture.size))
        for whose in ["subject" if inside(face.box, subject) else "stranger"]
    ]
    return Witness({"a.jpg": faces}, detector, "hog", near)


def inside(box: Box, other: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return other[0] < x < other[2] and other[1] < y < other[3]


def nearest(detector: FaceDetector, covered: Image.Image, witness: Witness, subject: Box, search_px: int) -> float:
    """Of all faces found but the subject's, the least distance to anybody who was to be hidden."""
    hidden = np.array(witness.hidden("a.jpg"))
    seen = [face for face in detector.find(covered, search_px) if not inside(face.box, subject)]
    described = [np.array(detector.describe(covered, face)) for face in seen]
    return min((float(np.linalg.norm(hidden - one, axis=1).min()) for one in described), default=np.inf)


def drawn_pair() -> tuple[Image.Image, Box, Box]:
    """The picture, the subject's face, the stranger's."""
    subject, stranger = (random_identity(np.random.default_rng(seed)) for seed in (3, 8))
    drawing = draw(subject, Scene("medium", size_px=(640, 480), others=(stranger,)))
    mine, theirs = ((x, y, x + w, y + h) for x, y, w, h in (face.box for face in drawing.faces))
    return drawing.picture, mine, theirs


@pytest.mark.parametrize("method", METHODS)
def test_no_detector_knows_a_drawn_stranger_again(
    detector: FaceDetector, other_detector: FaceDetector, tmp_path: Path, method: str
) -> None:
    picture, mine, theirs = drawn_pair()
    witness = met(detector, picture, mine, 0.45)
    assert nearest(detector, picture, witness, mine, 640) == 0  # else nobody needed to be hidden
    crops = as_crop(tmp_path / "crop", picture, [theirs], mine)
    made = conceal(crops, tmp_path / "conceal", settings_of(method), BUNDLED, witness).manifest
    assert made.rows[0].data["cover"] in {method, "gaussian"}
    with Image.open(made.path(made.rows[0])) as covered:
        assert nearest(detector, covered, witness, mine, 1280) > 0.45
        assert nearest(other_detector, covered, witness, mine, 480) > 0.45


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here")
@pytest.mark.parametrize(
    ("photo", "methods"), [("two_standing.jpg", ("gaussian", "swap")), ("two_waving.jpg", METHODS)]
)
def test_no_detector_knows_a_real_stranger_again(
    detector: FaceDetector, other_detector: FaceDetector, tmp_path: Path, photo: str, methods: tuple[str, ...]
) -> None:
    """Two people, three faces: the other man in one photo, he and a third in the other."""
    import csv

    with Image.open(REAL / "person_a" / "photos" / photo) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((900, 900))  # a photo of millions of pixels takes the detectors long
    boxes: dict[str, Box] = {}
    for row in csv.DictReader((REAL / "faces.csv").read_text().splitlines()):
        if row["file"].endswith(f"person_a/photos/{photo}"):
            x, y, w, h = (float(row[key]) for key in "xywh")
            across, down = picture.size
            boxes[row["person"]] = (round(x * across), round(y * down), round((x + w) * across), round((y + h) * down))
    mine = boxes.pop("a")
    witness = met(detector, picture, mine, 0.6)
    assert len(witness.hidden("a.jpg")) == len(boxes)
    assert nearest(detector, picture, witness, mine, 900) < 0.2
    for method in methods:
        crops = as_crop(tmp_path / method / "crop", picture, list(boxes.values()), mine)
        made = conceal(crops, tmp_path / method / "conceal", settings_of(method), BUNDLED, witness).manifest
        assert (made.rows[0].data["cover"], made.rows[0].data["hidden"]) == (method, len(boxes))
        with Image.open(made.path(made.rows[0])) as covered:
            assert nearest(detector, covered, witness, mine, 900) > 0.6
            if method in {"gaussian", "swap"}:  # the other detector takes its time
                assert nearest(other_detector, covered, witness, mine, 480) > 0.6


def test_a_cover_that_is_seen_through_gives_way_to_a_stronger_one_and_the_row_says_so(
    detector: FaceDetector, tmp_path: Path
) -> None:
    picture, mine, theirs = drawn_pair()
    crops = as_crop(tmp_path / "crop", picture, [theirs], mine)

    def cover_of(settings: ConcealSettings, near: float) -> tuple[object, str]:
        made = conceal(crops, tmp_path / "conceal", settings, BUNDLED, met(detector, picture, mine, near)).manifest
        return made.rows[0].data["cover"], str(made.rows[0].data["why"])

    weak = ConcealSettings(method="pixelate", strength=0.02)  # squares of two pixels
    assert cover_of(ConcealSettings(), 0.45) == ("gaussian", "")
    method, why = cover_of(weak, 0.45)
    assert method in {"gaussian", "solid"}
    assert why.startswith("pixelate 0.02: a hidden face is known through it (0.")
    method, why = cover_of(weak, 1.5)  # who takes everybody for everybody
    assert method == "solid"
    assert "gaussian 0.04" in why


def test_a_hidden_person_is_hidden_in_the_mirror_too(detector: FaceDetector, tmp_path: Path) -> None:
    """Their face is twice in the picture, and was found once."""
    picture, mine, theirs = drawn_pair()
    wide = Image.new("RGB", (900, 480), picture.getpixel((639, 0)))
    wide.paste(picture)
    wide.paste(picture.crop((0, 60, 230, 480)), (670, 60))
    witness = met(detector, picture, mine, 0.45)
    crops = as_crop(tmp_path / "crop", wide, [theirs], mine)
    made = conceal(crops, tmp_path / "conceal", ConcealSettings(), BUNDLED, witness).manifest
    assert (made.rows[0].data["hidden"], made.rows[0].data["cover"]) == (2, "gaussian")
    assert "1 times more" in str(made.rows[0].data["why"])
    with Image.open(made.path(made.rows[0])) as covered, Image.open(made.path(made.rows[0], "mask")) as mask:
        assert nearest(detector, covered, witness, mine, 1800) > 0.45
        assert mask.getpixel((770, 210)) == 0


def test_what_a_person_says_is_no_face_is_not_hidden(detector: FaceDetector, tmp_path: Path) -> None:
    """Beside a stranger who is: a statue is known by the witness, too, but nobody asked to hide it."""
    picture, mine, theirs = drawn_pair()
    wide = Image.new("RGB", (900, 480), picture.getpixel((639, 0)))
    wide.paste(picture)
    wide.paste(draw(random_identity(np.random.default_rng(21)), Scene("close", size_px=(260, 400))).picture, (640, 40))
    witness = met(detector, wide, mine, 0.45)
    faces = [replace(face, whose="not_a_face") if face.box[0] > 640 else face for face in witness.faces["a.jpg"]]
    assert [face.whose for face in faces].count("not_a_face") == 1
    crops = as_crop(tmp_path / "crop", wide, [theirs], mine)
    made = conceal(crops, tmp_path / "conceal", ConcealSettings(), BUNDLED, replace(witness, faces={"a.jpg": faces}))
    assert made.manifest.rows[0].data["hidden"] == 1
    with Image.open(made.manifest.path(made.manifest.rows[0])) as covered:
        assert covered.crop((640, 0, 900, 480)).tobytes() == wide.crop((640, 0, 900, 480)).tobytes()


def test_only_pictures_with_strangers_hang_on_who_knew_them(crops: Manifest, tmp_path: Path, nobody: Witness) -> None:
    def computed(witness: Witness, settings: ConcealSettings) -> int:
        return conceal(crops, tmp_path / "conceal", settings, BUNDLED, witness).report.computed

    face = Face("a.jpg", STRANGER, 1.0, ((0.0, 0.0),) * 5, (0.0,) * 128, 0.0, "stranger")
    assert computed(nobody, ConcealSettings()) == 2
    assert computed(replace(nobody, identity="another detector"), ConcealSettings()) == 1
    assert computed(replace(nobody, faces={"a.jpg": (face,)}), ConcealSettings()) == 1
    # Steps are read where a model draws alone.
    assert computed(replace(nobody, faces={"a.jpg": (face,)}), ConcealSettings(inpaint_sampling_steps=3)) == 0


def test_what_is_drawn_over_a_face_is_another_in_each_picture_and_the_same_again() -> None:
    picture, _, theirs = drawn_pair()
    settings = settings_of("swap")

    def drawn(seed: str, attempt: int = 0) -> np.ndarray:
        painter = Artist(INPAINTER, settings, seed, attempt).draw
        return pixels(cover(picture, [theirs], None, settings, painter)[0])

    first = drawn("one")
    assert (drawn("one") == first).all()
    assert (drawn("two") != first).any()
    assert (drawn("one", 1) != first).any()


def test_who_draws_over_a_face_is_shown_no_strangers_face(noise: Image.Image) -> None:
    one, other = STRANGER, (20, 70, 60, 110)
    shown: list[np.ndarray] = []

    def draw(picture: Image.Image, face: Box, shape: Image.Image) -> Image.Image:
        shown.append(pixels(picture))
        return Image.new("RGB", picture.size, "teal")

    cover(noise, (one, other), SUBJECT, settings_of("swap"), draw)
    assert len(shown) == 2
    for seen in shown:
        for left, top, right, bottom in (one, other):
            assert (
                np.abs(np.diff(seen[top:bottom, left:right].astype(int), axis=1)).max() < 20
            )  # the noise's steps are 255
    assert (shown[1][45:60, 110:130] == (0, 128, 128)).all()


def test_a_model_that_is_not_there_stops_the_stage_before_anything_is_drawn(
    crops: Manifest, tmp_path: Path, nobody: Witness
) -> None:
    nowhere = settings_of("inpaint", inpaint_model=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="nowhere"):
        conceal(crops, tmp_path / "conceal", nowhere, BUNDLED, nobody)
    assert not list((tmp_path / "conceal").glob("pictures/*"))


def test_keys_follow_the_crop(crops: Manifest, tmp_path: Path, noise: Image.Image, nobody: Witness) -> None:
    def run(manifest: Manifest) -> Outcome:
        return conceal(manifest, tmp_path / "conceal", ConcealSettings(), BUNDLED, nobody)

    run(crops)
    moved = Crop.of(crops.rows[0]).data() | {"strangers": [[101, 35, 141, 75]]}
    again = run(Manifest(crops.folder, (replace(crops.rows[0], data=moved), *crops.rows[1:])))
    assert (again.report.computed, again.report.reused) == (1, 1)
