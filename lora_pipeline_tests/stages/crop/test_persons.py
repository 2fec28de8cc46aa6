"""People found whole: who is the subject, who shows no face, and what crops make of it. The boxes are known; the detector says them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.errors import ModelError
from lora_pipeline.manifest import Manifest, Stale, planning, read
from lora_pipeline.records import Box, Crop, Face, Whose
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop import crop, persons, unseen_persons
from lora_pipeline.stages.crop.framing import HEADROOM, Placing, around, beside, plan
from lora_pipeline.stages.crop.persons import Persons, persons_of

PHOTO: Box = (0, 0, 4000, 3000)
FACE: Box = (1900, 600, 2100, 800)
BODY: Box = (1700, 480, 2300, 1880)
"""A child: seven of its face's heights."""


def face(box: Box, whose: Whose = "stranger") -> Face:
    return Face("a.jpg", box, 1.0, (), (), 0.0, whose)


# ------------------------------------------------------------------------------------------------------- whose a box is


def test_the_box_that_holds_the_subjects_face_is_the_subjects_and_one_without_a_face_is_anothers() -> None:
    behind, beside_her = (2600, 500, 3100, 2000), (200, 500, 900, 2500)
    faces = [face((450, 600, 600, 750)), face(FACE, "subject")]
    told = persons_of(faces, [behind, BODY, beside_her])
    assert told == Persons(BODY, (beside_her, behind), 1)
    assert persons_of(faces[:1], [behind, BODY]) == Persons(None, (BODY, behind), 2)
    assert persons_of([face(FACE, "not_a_face")], [BODY]) == Persons(None, (BODY,), 1)
    assert persons_of([], []) == persons_of(faces, []) == Persons()


def test_a_child_before_its_mother_keeps_its_own_box() -> None:
    mother = (1500, 100, 2500, 2900)
    hers = face((1900, 200, 2100, 400))
    assert persons_of([face(FACE, "subject"), hers], [mother, BODY]).subject == BODY
    assert persons_of([face(FACE), face(hers.box, "subject")], [BODY, mother]).subject == mother


def test_the_subjects_upper_half_found_once_more_is_nobody_else() -> None:
    half = (1710, 490, 2290, 1200)
    for boxes in ([BODY, half], [half, BODY]):
        assert persons_of([face(FACE, "subject")], boxes) == Persons(BODY)
    leaning_on_her = (1500, 490, 1900, 1800)
    assert persons_of([face(FACE, "subject")], [BODY, leaning_on_her]) == Persons(BODY, (leaning_on_her,), 1)


def test_in_a_mirror_the_larger_face_is_whom_crops_are_about_and_the_other_is_nobody_else() -> None:
    image = (3000, 500, 3400, 1500)
    faces = [face((3150, 550, 3250, 650), "subject"), face(FACE, "subject")]
    assert persons_of(faces, [image, BODY]) == Persons(BODY)
    assert persons_of(faces, [image]) == Persons()


# -------------------------------------------------------------------------------------------------------------- framing


def full(photo: Box, body: Box | None, **how: object) -> Box:
    return plan(photo, FACE, ("full",), 64, 8, Placing(body=body, **how))[0].region  # type: ignore[arg-type]


def test_a_full_crop_reaches_from_head_to_feet_with_air_above_and_below() -> None:
    left, top, right, bottom = full(PHOTO, BODY)
    assert bottom - top == pytest.approx(1400 / (1 - 2 * HEADROOM), abs=1)
    assert (480 - top, bottom - 1880) == pytest.approx((0.06 * (bottom - top),) * 2, abs=1)
    assert (left + right) / 2 == pytest.approx(2000, abs=1)
    assert full(PHOTO, None)[3] == 2558  # eleven faces: a guess for a grown person, with 678 px of floor here


def test_a_tall_one_is_not_cut_and_one_who_lies_is_seen_to_the_feet() -> None:
    tall = (1700, 480, 2300, 2990)
    left, top, right, bottom = full(PHOTO, tall)
    assert top <= 480
    assert bottom >= 2990
    lying = (1800, 500, 3900, 1000)
    left, top, right, bottom = full(PHOTO, lying)
    assert left <= 1800
    assert right >= 3900
    assert top <= 500
    assert bottom >= 1000


def test_hair_that_the_box_leaves_out_is_shown_and_so_is_the_head_where_the_photo_is_too_narrow() -> None:
    low = (1700, 650, 2300, 1880)
    assert full(PHOTO, low)[1] <= 500  # half a face above the face
    narrow = (1600, 0, 2400, 3000)
    left, top, right, bottom = full(narrow, BODY)
    assert (left, right, bottom - top) == (1600, 2400, 800)
    assert top <= 480
    assert bottom >= 800


def test_a_bust_makes_a_full_crop_no_smaller_than_a_medium_one() -> None:
    bust = (1800, 500, 2200, 900)
    cuts = plan(PHOTO, FACE, ("medium", "full"), 64, 8, Placing(body=bust))
    medium, whole = (cut.region for cut in cuts)
    assert whole[3] - whole[1] == medium[3] - medium[1]


def test_close_and_medium_crops_keep_their_place_and_without_a_body_nothing_changes() -> None:
    framings = ("close", "medium")
    assert plan(PHOTO, FACE, framings, 64, 8, Placing(body=BODY)) == plan(PHOTO, FACE, framings, 64, 8)
    assert around(PHOTO, FACE, 11.0, body=None) == around(PHOTO, FACE, 11.0)


def test_a_crop_makes_way_for_a_back_but_not_into_the_subjects_own_body() -> None:
    region = full(PHOTO, BODY)
    back = (region[2] - 100, 500, 3500, 2500)
    moved = beside(region, PHOTO, FACE, Placing(body=BODY, avoid_persons=(back,)))
    assert moved == (back[0] - (region[2] - region[0]), region[1], back[0], region[3])
    close_by = (2250, 500, 3500, 2500)
    assert beside(region, PHOTO, FACE, Placing(body=BODY, avoid_persons=(close_by,))) == region
    medium = plan(PHOTO, FACE, ("medium",), 64, 8)[0].region
    wide = (medium[0] + 20, 480, medium[2] - 20, 1880)  # arms akimbo
    aside = (medium[2] - 50, 500, 3500, 2500)
    assert beside(medium, PHOTO, FACE, Placing(avoid_persons=(aside,)))[2] == aside[0]
    assert beside(medium, PHOTO, FACE, Placing(body=wide, avoid_persons=(aside,))) == medium


def test_a_strangers_face_goes_before_a_back() -> None:
    region = full(PHOTO, BODY)
    stranger = (region[2] - 60, 600, region[2] + 140, 800)
    back = (region[0] - 400, 500, region[0] + 20, 2500)
    moved = beside(region, PHOTO, FACE, Placing(avoid=(stranger,), body=BODY, avoid_persons=(back,)))
    assert moved[2] <= stranger[0]
    assert moved[0] < back[2]


# ------------------------------------------------------------------------------------------------------------ the stage

SETTINGS = CropSettings(
    size_px=64, search_px=480, same_person_distance=0.45, framings=("medium", "full"), max_enlargement=8
)
SUBJECT = random_identity(np.random.default_rng(3), "woman")
BOXES: dict[str, list[tuple[Box, float]]] = {
    "alone.png": [((400, 60, 720, 560), 0.9)],
    "back.png": [((400, 60, 720, 560), 0.9), ((790, 100, 890, 560), 0.7)],
    "nobody.png": [((20, 20, 200, 400), 0.8)],
}


class Known:
    """Says the boxes of the photo whose corner has its number."""

    identity = "known boxes"

    def find(self, picture: Image.Image, search_px: int) -> list[tuple[Box, float]]:
        assert search_px == 480
        number = np.asarray(picture)[0, 0, 0]
        return BOXES[sorted(BOXES)[number]]


@pytest.fixture
def manifest(tmp_path: Path, curated) -> Manifest:
    """The subject alone; beside somebody whose back is seen; somebody's back alone."""
    folder = tmp_path / "photos"
    folder.mkdir()
    scene = draw(SUBJECT, Scene("medium", size_px=(520, 600), offset_x=0.0)).picture
    for number, name in enumerate(sorted(BOXES)):
        picture = Image.new("RGB", (900, 600), "grey")
        if name != "nobody.png":
            picture.paste(scene, (300, 0))
        picture.putpixel((0, 0), (number, number, number))
        picture.save(folder / name)
    return curated(sorted(folder.iterdir()))


def test_the_stage_frames_the_body_and_tells_of_who_shows_no_face(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persons, "open_person_detector", lambda _: Known())
    folder = tmp_path / "crop"
    plain = crop(manifest, folder, SETTINGS, "person", None)
    assert all(not {"body", "persons"} & row.data.keys() for row in plain.manifest.rows)
    assert plain.manifest.row("nobody.png").reason == "no face found"
    searched = (folder / "faces.parquet").read_bytes()

    settings = SETTINGS.model_copy(update={"yolo_person_weights": "known.pt", "avoid_others": True})
    with planning(), pytest.raises(Stale):
        crop(manifest, folder, settings, "person", None)
    outcome = crop(manifest, folder, settings, "person", None)
    assert (folder / "faces.parquet").read_bytes() == searched  # no face was searched for again
    assert outcome.manifest.row("nobody.png").reason == "no face found; 1 person whose face is not seen"
    assert unseen_persons(folder) == {"back.png": 1, "nobody.png": 1}
    kept = {row.id: Crop.of(row) for row in outcome.manifest.kept}
    whole = kept["alone.png@full"]
    assert whole.region[1] <= 60
    assert whole.region[3] >= 560
    assert whole.body is not None
    scale = 64 / (whole.region[2] - whole.region[0])
    assert whole.body == pytest.approx(
        [round((v - o) * scale) for v, o in zip((400, 60, 720, 560), whole.region[:2] * 2, strict=True)], abs=1
    )
    assert whole.persons == ()
    assert kept["back.png@full"].region[2] <= 790  # out of the way of the back
    everywhere = settings.model_copy(update={"avoid_others": False})
    aside = crop(manifest, folder, everywhere, "person", None)
    shown = Crop.of(aside.manifest.row("back.png@full"))
    assert shown.region[2] > 790
    assert len(shown.persons) == 1

    monkeypatch.setattr(persons, "open_upright", None)
    again = crop(manifest, folder, everywhere, "person", None)
    assert (again.report.computed, again.manifest.digest) == (0, aside.manifest.digest)
    assert len(read(folder, persons.PERSONS).kept) == 3


def test_only_of_a_person_are_people_looked_for(manifest: Manifest, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"yolo_person_weights": str(tmp_path / "nowhere.pt")})
    with pytest.raises(ModelError, match="yolo_person_weights names"):
        crop(manifest, tmp_path / "person", settings, "person", None)
    for kind in ("pet", "product", "style"):
        told = [crop(manifest, tmp_path / f"{kind}{n}", one, kind, None) for n, one in enumerate((SETTINGS, settings))]  # type: ignore[arg-type]
        assert told[0].manifest.rows == told[1].manifest.rows
        assert not (tmp_path / f"{kind}1" / "persons.parquet").exists()
