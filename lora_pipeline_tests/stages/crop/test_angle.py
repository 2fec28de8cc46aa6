"""Head yaw from five landmarks, on drawn heads of known yaw."""

from dataclasses import replace

import numpy as np
import pytest

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.models.faces import open_detector
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.angle import yaw_deg

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
