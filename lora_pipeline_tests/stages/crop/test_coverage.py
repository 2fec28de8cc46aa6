"""What is there and what is missing, by worked numbers; and the whole stage on drawn photos: choice, shares, shapes, the memo."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.manifest import Manifest, Outcome, Stale, planning
from lora_pipeline.records import KNOWN_ONLY, Box, Crop, Face, Row
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop import coverage, crop
from lora_pipeline.stages.crop.coverage import Cell, cover, kinds, level, shown, yaw_cell
from lora_pipeline.stages.crop.framing import iou
from lora_pipeline.stages.crop.shot import Shot, unlike

SUBJECT, STRANGER = (random_identity(np.random.default_rng(seed), word) for seed, word in ((3, "woman"), (8, "man")))
SCENE = Scene("medium", size_px=(480, 360))
SETTINGS = CropSettings(size_px=64, search_px=480, same_person_distance=0.5, framings=("close", "medium"))
BESIDE_PX = (390, 60)
"""Where a stranger's head is put into a photo, its left top corner."""


def shot(colour: int = 0, light: str = "soft") -> Shot:
    return Shot(500.0, light, tuple(float(number == colour) for number in range(64)))


def face(photo: str, yaw_deg: float, confidence: float = 1.0) -> Face:
    return Face(photo, (0, 0, 9, 9), confidence, (), (), yaw_deg, "subject")


def made(*ids: str) -> Manifest:
    rows = [
        Row(f"{photo}@{framing}", "k", data=Crop(photo, framing, (0, 0, 9, 9), 9, 9).data())  # type: ignore[arg-type]
        for photo, _, framing in (id.partition("@") for id in ids)
    ]
    return Manifest(Path(), (*rows, Row("other.jpg", "k", "dropped", "no face found", {"photo": "other.jpg"})))


@pytest.mark.parametrize(
    ("yaw", "name"),
    [
        (0.0, "frontal"),
        (-11.9, "frontal"),
        (12.0, "three-quarter right"),
        (-44.9, "three-quarter left"),
        (45.0, "profile right"),
        (-60.0, "profile left"),
    ],
)
def test_the_five_angles(yaw: float, name: str) -> None:
    assert yaw_cell(yaw) == name


def test_what_a_photo_shows() -> None:
    assert shown(face("a", -20.0), shot(light="dim")) == ("dim", "three-quarter left")
    assert shown(face("a", -20.0, KNOWN_ONLY), shot()) == ("soft",)
    assert shown(None, None) == ()


def test_a_head_looks_up_or_down_beside_how_it_mostly_looks() -> None:
    faces = [replace(face("a", 0.0), pitch_deg=pitch) for pitch in (8.0, 9.0, 10.0, 24.0, -9.0)]
    assert level(faces) == 9.0
    assert [shown(one, None, level(faces))[1:] for one in faces] == [(), (), (), ("up",), ("down",)]
    happy = replace(faces[0], expression=(("happy", 0.7), ("sad", 0.2)))
    assert shown(happy, None) == ("frontal", "expression happy")


def test_the_table_counts_photos_and_says_what_to_add() -> None:
    faces = {"a": face("a", 0.0), "b": face("b", 3.0), "c": face("c", -50.0)}
    shots = {"a": shot(0), "b": shot(1), "c": shot(1, "dim")}
    plan = {"frontal": 2, "profile left": 2, "profile right": 2, "backgrounds": 3, "expression happy": 1}
    settings = CropSettings(framings=("close", "full"), coverage=plan, framing_shares={"close": 0.4, "full": 0.1})
    seen = cover(made("a@close", "a@full", "b@close", "c@close"), faces, shots, settings)
    assert (seen.pictures, seen.photos) == (4, 3)
    assert {cell.name: (cell.there, cell.wanted) for cell in seen.cells} == {
        "close": (3, 0),
        "full": (1, 0),
        "frontal": (2, 2),
        "three-quarter left": (0, 0),
        "three-quarter right": (0, 0),
        "profile left": (1, 2),
        "profile right": (0, 2),
        "soft": (2, 0),
        "dim": (1, 0),
        "expression happy": (0, 1),
        "backgrounds": (2, 3),
    }
    assert seen.missing == [
        "1 of 2 profile left: add 1",
        "no profile right: add 2",
        "no expression happy: add 1",
        "2 of 3 backgrounds: add 1",
    ]
    assert seen.shares == {"close": (0.75, pytest.approx(0.8)), "full": (0.25, pytest.approx(0.2))}
    assert seen.share_in_words("close") == "75%, wanted 80%"
    assert next(cell for cell in seen.cells if cell.name == "frontal").photos == ("a", "b")
    assert Cell("yaw", "frontal", 3, 2).in_words() == ""


def test_what_was_left_out_need_not_be_added() -> None:
    faces = {id: face(id, -50.0) for id in "abc"}
    plan = {"profile left": 4, "close": 2, "frontal": 1}
    others = [
        Row(f"{id}@close", "k", "dropped", "left out: enough", {"photo": id, "framing": "close"}) for id in ("b", "c")
    ]
    small = Row("d@close", "k", "dropped", "would be enlarged", {"photo": "d", "framing": "close"})
    rows = (*made("a@close", "a@medium").rows, *others, small)
    seen = cover(Manifest(Path(), rows), faces, {}, CropSettings(coverage=plan))
    assert seen.missing == [
        "1 of 2 close: 2 more were left out",
        "no frontal: add 1",
        "1 of 4 profile left: 2 more were left out, add 1",
    ]


def test_of_things_there_are_no_angles() -> None:
    seen = cover(made("a@whole"), {}, {"a": shot()}, CropSettings(framings=("whole",), coverage={"backgrounds": 5}))
    assert [cell.name for cell in seen.cells] == ["soft", "backgrounds"]
    assert seen.missing == ["1 of 5 backgrounds: add 4"]


def test_backgrounds_that_share_their_colours_are_one() -> None:
    half = Shot(1.0, "soft", tuple({0: 0.8, 1: 0.2}.get(number, 0.0) for number in range(64)))
    assert unlike(np.array([shot(0).background, shot(2).background]), np.array(half.background)) == pytest.approx(
        np.array([0.2, 1.0])
    )
    assert kinds([shot(0), half, shot(1), shot(0)]) == 2
    assert kinds([]) == 0


# ------------------------------------------------------------------------------------------------ the stage, on drawn photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven of the subject: three facing the camera, two turned to the right, one beside a stranger, and one out of focus at the face."""
    folder = tmp_path_factory.mktemp("photos")
    scenes = {
        "front_blue": replace(SCENE, background_colour="blue"),
        "front_red": replace(SCENE, background_colour="red"),
        "front_red_too": replace(SCENE, background_colour="red", shirt_colour="green"),
        "right_white": replace(SCENE, background_colour="white", yaw_deg=28.0),
        "right_green": replace(SCENE, background_colour="green", yaw_deg=28.0),
        "beside": SCENE,
        "soft": replace(SCENE, background_colour="yellow", backdrop="spots"),
    }
    for name, scene in scenes.items():
        drawing = draw(SUBJECT, scene)
        if name == "soft":
            x, y, w, h = drawing.faces[0].box
            head = (x - w // 2, y - h // 2, x + w + w // 2, y + h + h // 4)
            drawing.picture.paste(drawing.picture.crop(head).filter(ImageFilter.GaussianBlur(2.5)), head[:2])
        if name == "beside":  # an arm's length away
            other = draw(STRANGER, SCENE)
            x, y, w, h = other.faces[0].box
            head = other.picture.crop((x - w // 8, y - h // 3, x + w + w // 8, y + h + h // 8))
            drawing.picture.paste(head, BESIDE_PX)
        drawing.picture.save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("crop")


@pytest.fixture(scope="module")
def take(photos: list[Path], folder: Path, curated):
    """Run the stage with some settings changed; faces are searched for once."""

    def run(**changes) -> Outcome:
        buckets = changes.pop("buckets", ())
        settings = CropSettings.model_validate({**SETTINGS.model_dump(), **changes})
        return crop(curated(photos), folder, settings, "person", None, buckets=buckets)

    run()
    return run


def kept(outcome: Outcome) -> set[str]:
    return {row.id.replace(".png", "") for row in outcome.manifest.kept}


def test_a_photo_out_of_focus_at_the_face_alone_is_left_out(take) -> None:
    outcome = take()
    reason = outcome.manifest.row("soft.png").reason
    assert reason.startswith("the subject's face is blurred: its sharpness is ")
    assert reason.endswith("at least 20 is asked for")
    assert len(kept(outcome)) == 12
    assert "soft@close" in kept(take(min_face_sharpness=0))


def test_the_best_are_sharp_and_unlike_and_fill_the_plan(take) -> None:
    outcome = take(best=3, framings=("close",), coverage={"three-quarter right": 1, "frontal": 2})
    ids = kept(outcome)
    assert len(ids) == 3
    assert len(ids & {"front_red@close", "front_red_too@close"}) <= 1  # one wall is enough
    assert ids & {"right_white@close", "right_green@close"}
    told = [row.reason for row in outcome.manifest.rows if row.reason.startswith("left out: ")]
    assert len(told) == 3
    assert all("are enough, it is the" in reason for reason in told)


def test_shares_hold_and_no_crop_is_cut_twice_for_another_choice(take) -> None:
    everything = take()
    outcome = take(framing_shares={"close": 0.5, "medium": 0.5}, best=6)
    framings = [id.partition("@")[2] for id in kept(outcome)]
    assert sorted(framings) == ["close"] * 3 + ["medium"] * 3
    assert len({id.partition("@")[0] for id in kept(outcome)}) == 6
    assert outcome.report.computed == 6  # six rows that say why not; no picture
    before, after = ({row.id: row.files for row in one.manifest.kept} for one in (everything, outcome))
    assert after.items() <= before.items()
    again = take(framing_shares={"close": 0.5, "medium": 0.5}, best=6)
    assert (again.report.computed, again.manifest.digest) == (0, outcome.manifest.digest)


def test_one_photo_more_cuts_no_other_again(photos: list[Path], curated, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"best": 4})
    first = crop(curated(photos[:4]), tmp_path / "crop", settings, "person", None)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "crop" / "crops").iterdir()}
    second = crop(curated(photos[:5]), tmp_path / "crop", settings, "person", None)
    stayed = {row.id for row in first.manifest.kept} & {row.id for row in second.manifest.kept}
    assert stayed
    for id in stayed:
        path = second.manifest.path(second.manifest.row(id))
        assert path.stat().st_mtime_ns == times[path]


def test_another_choice_is_stale_and_another_plan_is_not(take, photos: list[Path], folder: Path, curated) -> None:
    take()
    with planning():
        crop(curated(photos), folder, SETTINGS.model_copy(update={"coverage": {"frontal": 9}}), "person", None)
        with pytest.raises(Stale):
            crop(curated(photos), folder, SETTINGS.model_copy(update={"best": 2}), "person", None)


def test_the_coverage_lies_beside_the_manifest(take, folder: Path) -> None:
    take(coverage={"profile left": 2, "three-quarter right": 2, "medium": 4})
    told = json.loads((folder / "coverage.json").read_text())
    cells = {cell["name"]: cell for cell in told["cells"]}
    assert told["photos"] == 6
    assert told["missing"] == ["no profile left: add 2"]
    assert cells["three-quarter right"]["photos"] == ["right_green.png", "right_white.png"]
    assert (cells["frontal"]["there"], cells["frontal"]["wanted"], cells["medium"]["missing"]) == (4, 0, 0)
    assert 4 <= cells["backgrounds"]["there"] <= 5
    assert told["framing_shares"]["close"] == {"there": 0.5, "wanted": None}
    # what is shown is held against the plan as it is now, not as it was
    now = coverage(folder, CropSettings(coverage={"profile right": 1}))
    assert now.missing == ["no profile right: add 1"]


def test_a_stranger_is_outside_where_there_is_room(take) -> None:
    free, avoiding = (Crop.of(take(avoid_others=avoid).manifest.row("beside.png@medium")) for avoid in (False, True))
    assert len(free.strangers) == 1
    assert avoiding.strangers == ()
    assert avoiding.region[2] - avoiding.region[0] == free.region[2] - free.region[0]
    assert avoiding.face is not None
    x, y, w, h = draw(SUBJECT, SCENE).faces[0].box
    head: Box = (x - w // 8, y - h // 2, x + w + w // 8, y + h)
    assert avoiding.region[0] <= head[0] < head[2] <= avoiding.region[2]
    assert iou(avoiding.region, free.region) > 0.6


def test_crops_in_the_buckets_shapes(take) -> None:
    outcome = take(shape="bucket", buckets=((48, 80), (56, 72), (64, 64), (80, 48)))
    for row in outcome.manifest.kept:
        cut = Crop.of(row)
        size = (64, 64) if cut.framing == "close" else (56, 72)
        with Image.open(outcome.manifest.path(row)) as picture:
            assert picture.size == (cut.width_px, cut.height_px) == size
    assert {cut.width_px for cut in (Crop.of(row) for row in take(shape="square").manifest.kept)} == {64}


def test_nobody_to_choose_from(curated, tmp_path: Path) -> None:
    Image.new("RGB", (480, 360), "grey").save(tmp_path / "nobody.png")
    settings = SETTINGS.model_copy(update={"best": 4, "coverage": {"frontal": 2}})
    outcome = crop(curated([tmp_path / "nobody.png"]), tmp_path / "crop", settings, "person", None)
    assert outcome.manifest.kept == ()
    assert coverage(tmp_path / "crop", settings).missing == ["no frontal: add 2"]
