"""The measuring captioner against what was really drawn."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo import palette, world
from lora_pipeline.demo.world import Drawing, Scene, caption_for, draw, phrases_for, random_identity, random_scene
from lora_pipeline.models.faces import open_detector
from lora_pipeline.records import Box, Crop
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.angle import yaw_deg
from lora_pipeline.stages.describe import measured
from lora_pipeline.stages.describe.measured import GLASSES, Measured, angle, lab

THINGS = ("framing", "angle", "shirt", "background", "light")


def true_phrases(drawing: Drawing) -> tuple[str, ...]:
    """The drawn caption without hair, which belongs to the person, and glasses, which are counted apart."""
    framing, turned, _, _, shirt, background, light = phrases_for(drawing.identity, drawing.scene)
    return framing, turned, shirt, background, light


def as_crop(drawing: Drawing, face: Box, yaw: float) -> Crop:
    width, height = drawing.picture.size
    return Crop("a.jpg", "close", (0, 0, width, height), width, height, face, (), yaw)


def true_crop(drawing: Drawing) -> Crop:
    x, y, w, h = drawing.faces[0].box
    return as_crop(drawing, (x, y, x + w, y + h), drawing.scene.yaw_deg)


def agreement(told: list[tuple[Drawing, str]]) -> dict[str, float]:
    right, all_of = Counter[str](), Counter[str]()
    for drawing, words in told:
        phrases = [phrase for phrase in words.split(", ") if phrase != GLASSES]
        for thing, said, true in zip(THINGS, phrases, true_phrases(drawing), strict=True):
            if thing == "angle" and 8 < abs(drawing.scene.yaw_deg) < 20:
                continue  # near the threshold, either word will do
            all_of[thing] += 1
            right[thing] += said == true
    return {thing: right[thing] / all_of[thing] for thing in THINGS}


def test_the_words_are_those_of_the_drawn_world() -> None:
    assert measured.FRAMINGS == world.FRAMING_PHRASES
    assert measured.LIGHTS == world.LIGHT_PHRASES
    assert measured.GLASSES in phrases_for(random_identity(np.random.default_rng(0)), Scene("close", glasses=True))
    assert measured.TURNED_AT_DEG == world.TURNED_AT_DEG
    assert measured.SHIRT_COLOURS == palette.SHIRT_COLOURS
    assert measured.BACKGROUND_COLOURS == palette.BACKGROUND_COLOURS
    for yaw in (-30.0, -12.0, -11.9, 0.0, 11.9, 12.0, 30.0):
        assert angle(yaw) == world.angle_phrase(yaw)


def test_a_caption_is_the_drawn_one_without_what_is_the_persons() -> None:
    identity = replace(random_identity(np.random.default_rng(3)), name="jx1")
    drawing = draw(
        identity, Scene("medium", yaw_deg=22.0, shirt_colour="red", background_colour="blue", size_px=(256, 256))
    )
    words = Measured().words(drawing.picture, true_crop(drawing))
    assert words == "medium shot, turned to the right, red shirt, blue background, soft light"
    theirs = caption_for(drawing).split(", ")
    assert [phrase for phrase in theirs if phrase in words] == words.split(", ")


def test_colours_framing_and_light_on_drawn_pictures_at_the_training_size() -> None:
    rng = np.random.default_rng(5)
    drawings = [draw(random_identity(rng), random_scene(rng, (128, 128))) for _ in range(60)]
    right = agreement([(drawing, Measured().words(drawing.picture, true_crop(drawing))) for drawing in drawings])
    assert right["shirt"] >= 0.95
    assert right["background"] >= 0.95
    assert right["framing"] >= 0.95
    assert right["light"] >= 0.85


@pytest.mark.slow
def test_the_same_with_faces_that_were_found() -> None:
    rng = np.random.default_rng(6)
    detector = open_detector(CropSettings())
    told: list[tuple[Drawing, str]] = []
    for _ in range(60):
        drawing = draw(random_identity(rng), random_scene(rng, (400, 400)))
        for found in detector.find(drawing.picture, 400)[:1]:
            crop = as_crop(drawing, found.box, yaw_deg(found.landmarks))
            told.append((drawing, Measured().words(drawing.picture, crop)))
    assert len(told) >= 54
    right = agreement(told)
    assert right["framing"] >= 0.95
    assert right["angle"] >= 0.8
    assert right["shirt"] >= 0.8
    assert right["background"] >= 0.8


@pytest.mark.slow
def test_glasses_are_told_where_they_are_worn() -> None:
    rng = np.random.default_rng(8)
    detector = open_detector(CropSettings())
    told = {True: list[bool](), False: list[bool]()}
    for number in range(90):
        worn = number % 2 == 0
        scene = replace(
            random_scene(rng, (400, 400)), framing="close", yaw_deg=float(rng.uniform(-11, 11)), glasses=worn
        )
        drawing = draw(random_identity(rng), scene)
        # As large as the stage's crops, where the frame is a pixel thick.
        small = drawing.picture.resize((128, 128), Image.Resampling.LANCZOS)
        for found in detector.find(drawing.picture, 400)[:1]:
            face: Box = tuple(round(side * 128 / 400) for side in found.box)  # type: ignore[assignment]
            told[worn].append(
                GLASSES in Measured().words(small, replace(as_crop(drawing, face, 0.0), width_px=128, height_px=128))
            )
    assert min(len(one) for one in told.values()) >= 40
    print(np.mean(told[True]), np.mean(told[False]))
    assert np.mean(told[True]) >= 0.85
    assert np.mean(told[False]) <= 0.05


def test_strangers_do_not_lend_their_colours_to_the_background() -> None:
    picture = Image.new("RGB", (120, 120), palette.BACKGROUND_COLOURS["blue"])
    strangers = ((0, 15, 30, 45), (90, 15, 120, 45))
    for left, top, right, bottom in strangers:
        picture.paste(palette.SHIRT_COLOURS["red"], (left, top - 14, right, bottom + 14))
    crop = Crop("a.jpg", "medium", (0, 0, 120, 120), 120, 120, (45, 30, 75, 60), strangers, 0.0)
    assert "blue background" in Measured().words(picture, crop)


def test_a_picture_without_a_face_has_background_and_light_alone() -> None:
    picture = Image.new("RGB", (120, 80), palette.BACKGROUND_COLOURS["green"])
    crop = Crop("a.jpg", "whole", (0, 0, 120, 80), 120, 80)
    assert Measured().words(picture, crop) == "green background, soft light"
    assert Measured().words(Image.new("RGB", (120, 80), "white"), crop) == "white background, bright light"
    dark = Image.new("RGB", (120, 80), tuple(round(0.63 * value) for value in palette.BACKGROUND_COLOURS["yellow"]))
    assert Measured().words(dark, crop) == "yellow background, dim light"


def test_a_picture_that_ends_at_the_chin_says_nothing_of_a_shirt() -> None:
    picture = Image.new("RGB", (100, 100), "white")
    words = Measured().words(picture, Crop("a.jpg", "close", (0, 0, 100, 100), 100, 100, (0, 0, 100, 100), (), 0.0))
    assert "shirt" not in words
    assert words.startswith("close portrait, facing the camera, ")


def test_lab_is_cie_lab() -> None:
    """Reference values of the sRGB primaries under D65 (Lindbloom's calculator, rounded)."""
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]], dtype=np.float64)
    expected = [[100, 0, 0], [0, 0, 0], [53.2, 80.1, 67.2], [32.3, 79.2, -107.9]]
    assert np.allclose(lab(colours), expected, atol=0.3)
