"""What is measured at the face and around it, on drawn photos of known truth and on real ones."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.pictures import open_upright
from lora_pipeline.records import Box
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.coverage import SAME_BACKGROUND
from lora_pipeline.stages.crop.shot import colours, measure, unlike

REAL = Path(__file__).parents[4] / "shared" / "data"
SUBJECT = random_identity(np.random.default_rng(3), "woman")
SCENE = Scene("medium", size_px=(480, 360))
THRESHOLD = CropSettings().min_face_sharpness


def drawn(scene: Scene, blur_px: float = 0.0) -> tuple[Image.Image, Box]:
    drawing = draw(SUBJECT, scene)
    x, y, w, h = drawing.faces[0].box
    return drawing.picture.filter(ImageFilter.GaussianBlur(blur_px)), (x, y, x + w, y + h)


def seen(scene: Scene, blur_px: float = 0.0):
    picture, face = drawn(scene, blur_px)
    return measure(picture, (0, 0, *picture.size), face)


@pytest.mark.parametrize("light", ["bright", "soft", "dim"])
@pytest.mark.parametrize("framing", ["close", "medium", "full"])
def test_a_face_in_focus_is_sharp_whatever_its_size_and_light_and_one_out_of_focus_is_not(light, framing) -> None:
    scene = replace(SCENE, framing=framing, light=light)
    assert seen(scene).sharpness > 10 * THRESHOLD
    assert seen(replace(scene, size_px=(960, 720)), 0.012 * 720).sharpness < THRESHOLD


def test_it_is_the_face_that_is_measured() -> None:
    picture, face = drawn(SCENE)
    part = picture.crop(face).filter(ImageFilter.GaussianBlur(6))
    picture.paste(part, face[:2])
    assert measure(picture, (0, 0, *picture.size), face).sharpness < THRESHOLD
    assert measure(picture, (0, 0, *picture.size), None).sharpness > THRESHOLD


def test_dim_light_is_told() -> None:
    assert seen(replace(SCENE, light="dim")).light == "dim"
    assert seen(replace(SCENE, light="bright", background_colour="white")).light == "bright"
    assert seen(replace(SCENE, light="soft", background_colour="grey")).light == "soft"


def test_a_background_is_one_whatever_the_person_wears_and_another_in_another_colour() -> None:
    red = replace(SCENE, background_colour="red", shirt_colour="white")
    others = [{"shirt_colour": "black"}, {"framing": "full"}, {"background_colour": "green"}]
    backgrounds = np.array([seen(replace(red, **changes)).background for changes in others])  # type: ignore[arg-type]
    shirt, framing, wall = unlike(backgrounds, np.array(seen(red).background))
    assert shirt < 0.1
    assert framing < SAME_BACKGROUND
    assert wall > 0.7


def test_what_was_cut_off_is_not_seen() -> None:
    picture, face = drawn(SCENE)
    barred = Image.new("RGB", (880, 360), "black")
    barred.paste(picture, (200, 0))
    moved = (face[0] + 200, face[1], face[2] + 200, face[3])
    assert measure(barred, (200, 0, 680, 360), moved) == measure(picture, (0, 0, 480, 360), face)


def test_colours_are_dealt_out_to_the_steps_between_which_they_lie() -> None:
    shares = colours(np.array([[0.0, 0.0, 0.0], [255.0, 255.0, 255.0], [63.75, 0.0, 0.0], [63.75, 0.0, 0.0]]))
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(0.25 + 0.125)  # black, and a quarter of the two dark reds
    assert shares[16] == pytest.approx(0.375)  # the next step of red, to which they are nearer
    assert shares[63] == pytest.approx(0.25)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here")
def test_every_real_face_is_sharp_and_none_is_out_of_focus() -> None:
    for row in csv.DictReader((REAL / "faces.csv").read_text().splitlines()):
        picture = open_upright(REAL / row["file"])
        x, y, w, h = (
            float(row[name]) * side for name, side in zip("xywh", (picture.width, picture.height) * 2, strict=True)
        )
        face: Box = (round(x), round(y), round(x + w), round(y + h))
        trim: Box = (0, 0, *picture.size)
        assert measure(picture, trim, face).sharpness > 10 * THRESHOLD, row["file"]
        soft = picture.filter(ImageFilter.GaussianBlur(0.012 * min(picture.size)))
        assert measure(soft, trim, face).sharpness < THRESHOLD, row["file"]
