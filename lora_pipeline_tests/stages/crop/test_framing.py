"""Where to cut: inside the photo, never padded, the face in it, and a reason where there is no crop."""

import pytest

from lora_pipeline.records import Box, Framing
from lora_pipeline.settings import EncodeSettings
from lora_pipeline.stages.crop.framing import (
    CENTRED,
    SIDE_IN_FACES,
    Placing,
    around,
    beside,
    inside,
    iou,
    plan,
    wanted,
    whole,
)
from lora_pipeline.stages.encode import bucket_of, buckets

PHOTO: Box = (0, 0, 2000, 3000)
FACE: Box = (900, 600, 1100, 800)


def square(trim: Box, face: Box, framing: Framing, placing: Placing = CENTRED) -> Box:
    return around(trim, face, SIDE_IN_FACES[framing], placing=placing, third_down=framing != "full")


@pytest.mark.parametrize(("framing", "faces"), [("close", 2.2), ("medium", 3.8)])
def test_a_square_has_its_size_in_faces_and_the_face_in_its_middle_from_side_to_side(
    framing: str, faces: float
) -> None:
    left, top, right, bottom = square(PHOTO, FACE, framing)  # type: ignore[arg-type]
    assert right - left == bottom - top == pytest.approx(faces * 200, abs=1)
    assert (left + right) / 2 == pytest.approx(1000, abs=1)


def test_a_head_with_its_hair_fills_two_thirds_of_a_close_crop_and_is_not_cut() -> None:
    _, top, _, bottom = square(PHOTO, FACE, "close")
    head_top, chin = 600 - 0.4 * 200, 800
    assert 0.6 <= (chin - head_top) / (bottom - top) <= 0.7
    assert 0.08 <= (head_top - top) / (bottom - top) <= 0.2
    assert bottom > chin


@pytest.mark.parametrize("framing", ["close", "medium", "full"])
@pytest.mark.parametrize("face", [(0, 0, 300, 300), (1700, 2700, 2000, 3000), (0, 1400, 150, 1700), FACE])
@pytest.mark.parametrize("trim", [PHOTO, (0, 0, 2000, 3000), (0, 0, 3000, 3000)])
@pytest.mark.parametrize("direction", [0.0, 77.0, 180.0, 290.0])
def test_no_square_leaves_the_photo_or_cuts_the_face(framing: str, face: Box, trim: Box, direction: float) -> None:
    left, top, right, bottom = square(trim, face, framing, Placing(0.3, direction))  # type: ignore[arg-type]
    assert trim[0] <= left < right <= trim[2]
    assert trim[1] <= top < bottom <= trim[3]
    assert right - left == bottom - top
    assert left <= face[0]
    assert top <= face[1]
    assert right >= face[2]
    assert bottom >= face[3]


def test_a_full_crop_is_as_large_as_the_photo_allows_and_keeps_the_hair() -> None:
    left, top, right, bottom = square((0, 0, 1000, 1600), (400, 500, 600, 700), "full")
    assert (left, right, bottom - top) == (0, 1000, 1000)
    assert top <= 500 - 0.5 * 200
    far = square((0, 0, 9000, 9000), (4000, 1000, 4200, 1200), "full")
    assert far[2] - far[0] == 2200  # 11 faces: a whole person, and no more


def test_off_centre_moves_the_square_by_its_share() -> None:
    centred, moved = square(PHOTO, FACE, "medium"), square(PHOTO, FACE, "medium", Placing(0.1, 0.0))
    assert centred[0] - moved[0] == pytest.approx(0.1 * 760, abs=1)
    assert centred[1] == moved[1]


def test_a_trim_is_the_photo() -> None:
    trim = (500, 300, 1500, 1300)
    for cut in plan(trim, FACE, ("close", "medium", "full", "whole"), 512, 8):
        assert trim[0] <= cut.region[0] < cut.region[2] <= trim[2]
        assert trim[1] <= cut.region[1] < cut.region[3] <= trim[3]


def test_what_would_be_enlarged_too_far_says_how_far() -> None:
    (cut,) = plan(PHOTO, (900, 600, 1000, 700), ("close",), 512, 1.5)
    assert cut.reason == "would be enlarged 2.4 times, the limit is 1.5"
    assert plan(PHOTO, (900, 600, 1000, 700), ("close",), 512, 2.4)[0].reason == ""


def test_the_later_of_two_framings_that_show_the_same_is_left_out() -> None:
    cuts = plan((0, 0, 460, 460), (150, 130, 350, 330), ("close", "medium", "full"), 128, 1.5)
    assert [cut.reason for cut in cuts] == ["", *["shows nearly the same as the framing close"] * 2]
    cuts = plan((0, 0, 460, 460), (150, 130, 350, 330), ("full", "close"), 128, 1.5)
    assert [(cut.framing, cut.reason == "") for cut in cuts] == [("full", True), ("close", False)]


def test_a_crop_that_is_not_made_hides_no_other() -> None:
    cuts = plan((0, 0, 250, 250), (70, 80, 180, 190), ("close", "whole"), 512, 2.1)
    assert iou(cuts[0].region, cuts[1].region) > 0.9
    assert cuts[0].reason.startswith("would be enlarged 2.2")
    assert cuts[1].reason == ""


@pytest.mark.parametrize("size", [(1000, 1000), (1501, 997), (640, 1803)])
def test_a_whole_picture_keeps_its_ratio_and_area_in_multiples_of_8(size: tuple[int, int]) -> None:
    region, (width, height) = whole((10, 20, 10 + size[0], 20 + size[1]), 512)
    assert width % 8 == height % 8 == 0
    assert width * height == pytest.approx(512**2, rel=0.03)
    assert (region[2] - region[0]) / (region[3] - region[1]) == pytest.approx(width / height, rel=0.004)
    assert (region[2] - region[0]) * (region[3] - region[1]) > 0.97 * size[0] * size[1]


def test_boxes_in_the_crops_own_pixels_are_cut_to_it_and_a_sliver_still_counts() -> None:
    assert inside((100, 100, 200, 200), (50, 50, 250, 250), (100, 100)) == (25, 25, 75, 75)
    assert inside((0, 100, 51, 200), (50, 50, 250, 250), (100, 100)) == (0, 25, 1, 75)
    assert inside((0, 100, 50, 200), (50, 50, 250, 250), (100, 100)) is None


def test_iou() -> None:
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0


def across(region: Box, face: Box = FACE) -> float:
    """Where the middle of the face lies, as a share of the region's width."""
    return ((face[0] + face[2]) / 2 - region[0]) / (region[2] - region[0])


@pytest.mark.parametrize(("yaw", "third"), [(25.0, 1 / 3), (-25.0, 2 / 3), (5.0, 2 / 3), (-5.0, 2 / 3)])
def test_on_thirds_the_room_is_where_the_head_looks_and_chance_settles_the_frontal(yaw: float, third: float) -> None:
    placing = Placing(thirds=True, yaw_deg=yaw, direction_deg=170.0)
    assert across(square(PHOTO, FACE, "medium", placing)) == pytest.approx(third, abs=0.01)
    far: Box = (2900, 600, 3100, 800)
    assert across(square((0, 0, 6000, 3000), far, "full", placing), far) == pytest.approx(third, abs=0.01)
    left, top, right, bottom = square(PHOTO, FACE, "medium", placing)
    assert (600 + 0.3 * 200 - top) / (bottom - top) == pytest.approx(1 / 3, abs=0.01)  # the eyes
    assert right - left == 760


def test_on_thirds_no_head_is_cut_and_a_whole_body_keeps_its_feet() -> None:
    left, top, right, _ = square(PHOTO, FACE, "close", Placing(thirds=True, yaw_deg=25.0))
    assert left <= 900 - 0.15 * 200
    assert top <= 600 - 0.5 * 200
    assert right >= 1100 + 0.15 * 200
    for framing, stays in (("full", True), ("medium", False)):
        centred, placed = (
            plan((0, 0, 4000, 4000), FACE, (framing,), 512, 3, Placing(thirds=thirds))[0].region
            for thirds in (False, True)
        )
        assert (centred[1] == placed[1]) == stays


BESIDE: Box = (1300, 620, 1500, 820)
"""A stranger whose face reaches into a medium crop about the middle of the photo."""


def test_a_crop_moves_until_the_stranger_is_outside_and_no_farther() -> None:
    before = square(PHOTO, FACE, "medium")
    after = beside(before, PHOTO, FACE, Placing(avoid=(BESIDE,)))
    assert before[2] > BESIDE[0]
    head_from = BESIDE[0] - round(0.15 * 200)
    assert after == (head_from - 760, before[1], head_from, before[3])  # the hair too, since there is room
    assert after[2] >= 1000 + 1.3 * 200 - 10  # the subject's shoulders
    assert 0.25 <= across(after) <= 0.75


def test_a_crop_stays_where_moving_would_cut_the_subject_or_gain_nothing() -> None:
    medium, close = square(PHOTO, FACE, "medium"), square(PHOTO, FACE, "close")
    both = Placing(avoid=((520, 620, 720, 820), BESIDE, (1120, 620, 1240, 760)))
    assert beside(medium, PHOTO, FACE, Placing(avoid=((1120, 620, 1320, 820),))) == medium  # at the very cheek
    for stranger in (
        (1200, 620, 1400, 820),
        (600, 620, 800, 820),
    ):  # the head would stay whole, the shoulders would not
        assert beside(medium, PHOTO, FACE, Placing(avoid=(stranger,))) == medium
    wide = (0, 0, 6000, 3000)
    full = square(wide, (2900, 600, 3100, 800), "full")
    far = (3400, 600, 3600, 800)  # outside only if the subject stood at the edge
    assert beside(full, wide, (2900, 600, 3100, 800), Placing(avoid=(far,))) == full
    assert beside(close, PHOTO, FACE, Placing(avoid=((1000, 900, 1200, 1100),)))[3] >= 800 + 0.15 * 200
    assert sum(box[0] < beside(medium, PHOTO, FACE, both)[2] for box in both.avoid) >= 1
    assert beside(medium, PHOTO, FACE, Placing(avoid=((0, 0, 50, 50),))) == medium
    narrow = (medium[0], 0, medium[2], 3000)  # no room in the photo
    assert beside(medium, narrow, FACE, Placing(avoid=(BESIDE,))) == medium


def test_text_is_avoided_too_but_after_faces() -> None:
    before = square(PHOTO, FACE, "medium")
    sign: Box = (before[0] - 50, 650, before[0] + 60, 700)
    moved = beside(before, PHOTO, FACE, Placing(avoid_text=(sign,)))
    assert moved[0] == sign[2]
    both = beside(before, PHOTO, FACE, Placing(avoid=(BESIDE,), avoid_text=(sign,)))
    assert both[2] <= BESIDE[0]  # the face is outside, the sign is not


def test_in_the_plan_others_are_avoided_without_any_enlargement() -> None:
    free, avoiding = (
        plan(PHOTO, FACE, ("close", "medium", "full"), 512, 3, Placing(avoid=avoid)) for avoid in ((), (BESIDE,))
    )
    for one, other in zip(free, avoiding, strict=True):
        assert one.region[2] - one.region[0] == other.region[2] - other.region[0]
        assert one.reason == other.reason
    assert free[1].region != avoiding[1].region


SHAPES = ((384, 640), (448, 576), (512, 512), (576, 448), (640, 384))


def test_a_crop_takes_the_buckets_shape_that_its_framing_wants() -> None:
    cuts = {cut.framing: cut for cut in plan(PHOTO, FACE, ("close", "medium", "full"), 512, 3, shapes=SHAPES)}
    assert {name: cut.size_px for name, cut in cuts.items()} == {
        "close": (512, 512),
        "medium": (448, 576),
        "full": (384, 640),
    }
    for cut in cuts.values():
        wide, high = cut.region[2] - cut.region[0], cut.region[3] - cut.region[1]
        assert wide / high == pytest.approx(cut.size_px[0] / cut.size_px[1], abs=0.002)
        assert cut.region[0] <= FACE[0] < FACE[2] <= cut.region[2]
    medium, full = cuts["medium"].region, cuts["full"].region
    assert medium[3] - medium[1] == 860  # 4.3 faces: to the waist
    assert full[3] - full[1] == 2200  # 11 faces, in a photo whose square would be cut at 2000
    assert plan((0, 0, 3000, 700), FACE, ("full",), 512, 3, shapes=SHAPES)[0].region[3] == 700


@pytest.mark.parametrize(("resolution_px", "step_px"), [(512, 64), (1024, 64), (128, 32)])
def test_encode_puts_such_a_crop_into_its_bucket_and_cuts_nothing_off(resolution_px: int, step_px: int) -> None:
    settings = EncodeSettings(resolution_px=resolution_px, bucket_step_px=step_px)
    sizes = [wanted(framing, buckets(settings)) for framing in ("close", "medium", "full")]
    assert [bucket_of(*size, settings) for size in sizes] == sizes
    assert sizes[0] == (resolution_px, resolution_px)
    assert sizes[2][0] < 0.8 * sizes[2][1]  # a body stands upright
