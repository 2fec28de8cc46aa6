"""Head yaw from five landmarks, on drawn heads of known yaw; yaw, pitch and roll from 68, on a projected head and on turned pictures."""

from dataclasses import replace

import numpy as np
import pytest

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.models.dlib_faces import Landmarks68
from lora_pipeline.models.faces import open_detector
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.angle import MODEL, pose_deg, yaw_deg

FRONTAL = ((70.0, 40.0), (58.0, 40.0), (30.0, 40.0), (42.0, 40.0), (50.0, 60.0))


def test_a_frontal_face_is_not_turned_and_a_mirrored_one_is_turned_the_other_way() -> None:
    assert yaw_deg(FRONTAL) == 0
    turned = (*FRONTAL[:4], (54.0, 60.0))
    mirrored = [(100 - x, y) for x, y in (turned[2], turned[3], turned[0], turned[1], turned[4])]
    assert yaw_deg(turned) > 5
    assert yaw_deg(mirrored) == -yaw_deg(turned)


def test_neither_size_nor_place_nor_tilt_makes_a_difference() -> None:
    points = np.array((*FRONTAL[:4], (54.0, 60.0)))
    lean = np.radians(20)
    turn = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    assert yaw_deg((points @ turn.T * 3 + 50).tolist()) == yaw_deg(points.tolist())


def test_points_that_are_all_one_give_no_angle() -> None:
    assert yaw_deg(((1.0, 1.0),) * 5) == 0


@pytest.mark.slow
def test_drawn_heads_are_read_within_12_degrees() -> None:
    rng = np.random.default_rng(40)
    detector = open_detector(CropSettings())
    told: list[tuple[float, float]] = []
    for yaw in np.linspace(-30, 30, 21):
        scene = replace(Scene("close", size_px=(320, 320)), yaw_deg=float(yaw), tilt_deg=float(rng.normal(0, 3)))
        found = detector.find(draw(random_identity(rng), scene).picture, 320)
        if found:
            told.append((float(yaw), yaw_deg(found[0].landmarks)))
    true, read = np.array(told).T
    assert len(told) >= 19
    assert np.mean(np.abs(true - read) <= 12) >= 0.85
    assert np.abs(true - read).mean() < 7
    beyond = np.abs(true) >= 15
    assert np.mean(np.sign(read[beyond]) == np.sign(true[beyond])) == 1


def projected(yaw: float, pitch: float, roll: float, away_cm: float = 100.0) -> np.ndarray:
    """The 68 landmarks that a camera sees of the mean head, which nods, then turns, then leans; those that are not asked for at 0."""
    head = np.array([MODEL[number] for number in MODEL])  # x right, y up, z towards the camera
    head -= head.mean(0)
    sin, cos = np.sin(np.radians([pitch, yaw, roll])), np.cos(np.radians([pitch, yaw, roll]))
    nod = np.array([[1, 0, 0], [0, cos[0], sin[0]], [0, -sin[0], cos[0]]])  # what is in front goes up
    turn = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])  # what is in front goes to the right
    lean = np.array([[cos[2], sin[2], 0], [-sin[2], cos[2], 0], [0, 0, 1]])  # what is above goes to the right
    seen = head @ (lean @ turn @ nod).T
    points = np.zeros((68, 2))
    points[list(MODEL)] = seen[:, :2] * [1, -1] / (away_cm - seen[:, 2:]) * 900 + [320, 240]
    return points


@pytest.mark.parametrize("roll", [-20, 0, 20])
@pytest.mark.parametrize("pitch", [-30, -10, 0, 25])
@pytest.mark.parametrize("yaw", [-40, 0, 15])
def test_a_head_of_known_angles_is_read_back(yaw: float, pitch: float, roll: float) -> None:
    assert pose_deg(projected(yaw, pitch, roll)) == pytest.approx((yaw, pitch, roll), abs=0.5)
    assert pose_deg(projected(yaw, pitch, roll, 40)) == pytest.approx((yaw, pitch, roll), abs=3.5)


def test_size_and_place_make_no_difference_to_the_pose_and_no_points_give_none() -> None:
    points = projected(20, -15, 10)
    assert pose_deg(points * 3 - 50) == pytest.approx(pose_deg(points), abs=0.1)
    assert pose_deg(np.zeros((68, 2))) == (0, 0, 0)


@pytest.mark.slow
def test_a_drawn_head_that_leans_is_read_within_2_degrees_and_its_yaw_has_the_right_sign() -> None:
    rng = np.random.default_rng(40)
    detector, landmarks = open_detector(CropSettings()), Landmarks68.open()
    told: list[tuple[float, ...]] = []
    for yaw in np.linspace(-30, 30, 9):
        tilt = float(rng.normal(0, 6))
        picture = draw(
            random_identity(rng), replace(Scene("close", size_px=(320, 320)), yaw_deg=yaw, tilt_deg=tilt)
        ).picture
        (found,) = detector.find(picture, 320)
        told.append((yaw, tilt, *pose_deg(landmarks.points(picture, found.box))))
    yaws, tilts, read_yaw, pitch, roll = np.array(told).T
    assert np.abs(tilts - roll).mean() < 2
    assert np.abs(tilts).max() > 5
    assert np.mean(np.sign(read_yaw[np.abs(yaws) > 10]) == np.sign(yaws[np.abs(yaws) > 10])) == 1
    assert pitch.std() < 10  # nobody in the drawn world nods
