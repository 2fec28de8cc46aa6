"""The drawn world keeps its promises: the same numbers give the same pixels, and dlib sees what was drawn."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.faces import boxes, descriptor
from lora_pipeline.demo.world import (
    BACKGROUND_COLOURS,
    HAIR_COLOURS,
    SHIRT_COLOURS,
    Scene,
    angle_phrase,
    caption_for,
    draw,
    random_identity,
    random_scene,
    truth_of,
)


def _portraits(count: int, size_px: int, seed: int) -> list[tuple[Image.Image, tuple[int, int, int, int]]]:
    """Close portraits facing the camera, each of somebody else, with the face's true box."""
    rng = np.random.default_rng(seed)
    portraits: list[tuple[Image.Image, tuple[int, int, int, int]]] = []
    for _ in range(count):
        scene = replace(random_scene(rng, (size_px, size_px)), framing="close", yaw_deg=float(rng.uniform(-8, 8)))
        drawing = draw(random_identity(rng), scene)
        portraits.append((drawing.picture, drawing.faces[0].box))
    return portraits


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Shared area over joint area, 0..1."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, wide) * max(0.0, high)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_the_same_numbers_give_the_same_pixels() -> None:
    first, second = (
        [draw(random_identity(rng), random_scene(rng)).picture.tobytes() for _ in range(3)]
        for rng in (np.random.default_rng(1), np.random.default_rng(1))
    )
    assert first == second
    assert len(set(first)) == 3


@pytest.mark.parametrize("size_px", [(128, 128), (90, 160), (301, 200)])
def test_a_picture_has_the_size_asked_for(size_px: tuple[int, int]) -> None:
    picture = draw(random_identity(np.random.default_rng(0)), Scene(size_px=size_px)).picture
    assert picture.size == size_px
    assert picture.mode == "RGB"


@pytest.mark.parametrize("size_px", [128, 512])
def test_faces_are_found_where_they_were_drawn(size_px: int) -> None:
    portraits = _portraits(60, size_px, seed=20)
    hits = [any(_overlap(found, truth) > 0.4 for found in boxes(picture)) for picture, truth in portraits]
    assert np.mean(hits) >= 0.95


def test_strangers_differ_and_a_person_stays_themselves() -> None:
    rng = np.random.default_rng(8)
    firsts, same = [], []
    for _ in range(16):
        identity = random_identity(rng)
        plain = Scene(size_px=(256, 256), light_from=float(rng.uniform(-0.8, 0.8)))
        one = descriptor(draw(identity, plain).picture)
        other = descriptor(draw(identity, replace(plain, yaw_deg=7.0, expression="smile", light="bright")).picture)
        if one is not None and other is not None:
            firsts.append(one)
            same.append(float(np.linalg.norm(one - other)))
    strangers = [float(np.linalg.norm(a - b)) for a, b in combinations(firsts, 2)]
    assert len(firsts) >= 15
    assert np.median(strangers) >= 0.4
    assert np.median(same) < 0.25


def test_everybody_in_frame_is_in_the_truth() -> None:
    rng = np.random.default_rng(4)
    identity, strangers = random_identity(rng), (random_identity(rng), random_identity(rng))
    scene = Scene(framing="medium", size_px=(900, 600), others=strangers)
    drawing = draw(identity, scene)
    assert drawing.faces == truth_of(identity, scene)
    assert [face.is_subject for face in drawing.faces] == [True, False, False]
    assert [face.identity for face in drawing.faces] == [identity, *strangers]
    found = boxes(drawing.picture)
    assert all(any(_overlap(box, face.box) > 0.4 for box in found) for face in drawing.faces)


def test_the_caption_says_what_was_drawn_in_order() -> None:
    identity = replace(random_identity(np.random.default_rng(2), "woman"), hair_colour="red")
    scene = Scene(
        framing="medium", yaw_deg=20, glasses=True, shirt_colour="green", background_colour="white", light="dim"
    )
    assert caption_for(draw(identity, scene), name="jx265") == (
        "jx265 woman, medium shot, turned to the right, red hair, wearing glasses, green shirt, white background, dim light"
    )
    assert caption_for(draw(identity, Scene())).startswith(
        "woman, close portrait, facing the camera, red hair, no glasses"
    )


def test_left_and_right_are_the_pictures() -> None:
    assert angle_phrase(20) == "turned to the right"
    assert angle_phrase(-20) == "turned to the left"
    assert angle_phrase(5) == "facing the camera"


@pytest.mark.parametrize("colours", [SHIRT_COLOURS, HAIR_COLOURS, BACKGROUND_COLOURS])
def test_colours_can_be_told_apart(colours: dict[str, tuple[int, int, int]]) -> None:
    assert min(float(np.linalg.norm(np.subtract(a, b))) for a, b in combinations(colours.values(), 2)) > 35
