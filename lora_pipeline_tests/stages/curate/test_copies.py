"""Groups of copies: found by shape and colour, never joined by shape alone."""

import io
import itertools
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lora_pipeline.demo.world import draw, random_identity, random_scene
from lora_pipeline.stages.curate.copies import MARK_DISTANCE, groups
from lora_pipeline.stages.curate.marks import MARK, MIRROR, PLACE, marks
from lora_pipeline.stages.curate.measure import Measured, measure


def measured(picture: Image.Image) -> Measured:
    return measure(picture, 1, trim_bars=True)


def scene(seed: int, size: tuple[int, int] = (480, 360)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def fake(phash: int, look: bytes, mirrored: int = 0x0123_4567_89AB_CDEF) -> Measured:
    """A photo without marks, of 8 × 8 colours."""
    small = np.frombuffer(look, dtype=np.uint8).reshape(8, 8, 3)
    large = small.repeat(2, axis=0).repeat(2, axis=1).tobytes().hex()
    hashes = f"{phash:016x}", f"{mirrored:016x}"
    return Measured((0, 0, 1, 1), 1.0, 0.5, 0.2, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 1, *hashes, large, "")


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


COPIES = {
    "smaller": lambda picture: picture.resize((120, 90)),
    "larger": lambda picture: picture.resize((960, 720)),
    "recompressed": lambda picture: jpeg(picture, 15),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    "contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.2),
    "cropped": lambda picture: picture.crop((4, 4, picture.width - 4, picture.height - 4)),
    "boxed": lambda picture: boxed(picture),
    "mirrored": lambda picture: mirrored(picture),
    "mirrored, smaller, recompressed": lambda picture: jpeg(mirrored(picture).resize((240, 180)), 60),
}


def mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def boxed(picture: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (picture.width + 200, picture.height))
    canvas.paste(picture, (100, 0))
    return canvas


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found(how: str) -> None:
    for seed in range(4):
        pictures = [scene(seed), scene(seed + 100), COPIES[how](scene(seed))]
        assert groups([measured(picture) for picture in pictures], 8) == [[0, 2]], seed


def test_different_scenes_are_no_copies() -> None:
    assert groups([measured(scene(seed)) for seed in range(60)], 8) == []


def test_portraits_in_one_pose_are_no_copies_though_their_hashes_are_near() -> None:
    rng = np.random.default_rng(3)
    person = random_identity(rng, "woman")
    shots = [measured(draw(person, random_scene(rng, (320, 320))).picture) for _ in range(40)]
    places = np.concatenate([np.frombuffer(bytes.fromhex(shot.marks), dtype=MARK)["hash"] for shot in shots])
    shared = np.bitwise_count(places[:, None] ^ places) <= MARK_DISTANCE
    assert shared.sum() >= len(places) + 10  # eyes and brows are the same, so this test would see them joined, too
    hashes = [int(shot.phash, 16) for shot in shots]
    near = [pair for pair in itertools.combinations(hashes, 2) if (pair[0] ^ pair[1]).bit_count() <= 8]
    assert len(near) >= 5  # so this test would see them joined
    assert groups(shots, 8) == []


LOOK = bytes(np.random.default_rng(0).integers(0, 256, 192, dtype=np.uint8))
OTHER = bytes(np.random.default_rng(1).integers(0, 256, 192, dtype=np.uint8))


def test_both_hash_and_colours_must_agree() -> None:
    assert groups([fake(0, LOOK), fake(0b1111_1111, LOOK)], 8) == [[0, 1]]
    assert groups([fake(0, LOOK), fake(0b1_1111_1111, LOOK)], 8) == []
    assert groups([fake(0, LOOK), fake(0b1, OTHER)], 8) == []
    assert groups([fake(0, LOOK), fake(1 << 63, LOOK)], 0) == []
    assert groups([fake((1 << 64) - 1, LOOK), fake((1 << 64) - 1, LOOK)], 0) == [[0, 1]]


def test_copies_of_copies_are_one_group() -> None:
    chain = [fake(0xFF, LOOK), fake(0, LOOK), fake(0, OTHER), fake(0xFFFF, LOOK)]
    assert groups(chain, 8) == [[0, 1, 3]]


def test_nothing_and_one() -> None:
    assert groups([], 8) == []
    assert groups([fake(0, LOOK)], 8) == []


def test_plain_pictures_are_copies_of_their_equals_alone() -> None:
    grey, white = bytes([90] * 192), bytes([255] * 192)
    assert groups([fake(0, grey), fake(0, white), fake(0, grey)], 8) == [[0, 2]]


def portrait(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return draw(random_identity(rng), random_scene(rng, (480, 640))).picture


def cut(picture: Image.Image, left: float, top: float, wide: float, high: float) -> Image.Image:
    width, height = picture.size
    box = (left * width, top * height, (left + wide) * width, (top + high) * height)
    return picture.crop(tuple(round(value) for value in box))  # type: ignore[arg-type]


CROPS = {
    "60 % of it, in a corner": (0.225, 0.0, 0.775, 0.775),
    "60 % of it, in the middle": (0.11, 0.11, 0.775, 0.775),
    "a square": (0.0, 0.1, 1.0, 0.75),
    "upright": (0.15, 0.0, 0.68, 1.0),
    "most of it": (0.1, 0.05, 0.85, 0.9),
}


@pytest.mark.parametrize("which", CROPS)
def test_a_crop_is_a_copy(which: str) -> None:
    """Also of another size, recompressed, and mirrored; no hash of the whole would tell."""
    found = 0
    for seed in range(3):
        crop = cut(portrait(seed), *CROPS[which])
        saved = jpeg(crop.resize((crop.width * 4 // 5, crop.height * 4 // 5), Image.Resampling.LANCZOS), 80)
        shots = [measured(picture) for picture in (portrait(seed), portrait(seed + 50), saved)]
        assert (int(shots[0].phash, 16) ^ int(shots[2].phash, 16)).bit_count() > 4
        found += groups(shots, 4) == [[0, 2]]
        found += groups([*shots[:2], measured(mirrored(saved))], 4) == [[0, 2]]
    assert found >= 5  # of 6: places are found again in most crops, not in all


def test_a_part_is_another_framing_and_no_copy() -> None:
    for seed in range(3):
        whole = portrait(seed)
        parts = [cut(whole, 0, 0, 0.6, 1), cut(whole, 0.2, 0.2, 0.55, 0.55), cut(whole, 0, 0.5, 1, 0.5)]
        assert groups([measured(picture) for picture in (whole, *parts)], 4) == []


def test_two_photos_that_share_a_thing_are_no_copies() -> None:
    thing = scene(5, (200, 200))
    shots = [scene(seed, (640, 480)) for seed in (1, 2)]
    for shot, at in zip(shots, ((60, 50), (300, 200)), strict=True):
        shot.paste(thing, at)
    told = [measured(shot) for shot in shots]
    hashes = [np.frombuffer(bytes.fromhex(one.marks), dtype=MARK)["hash"] for one in told]
    assert np.bitwise_count(hashes[0][:, None] ^ hashes[1]).min() <= MARK_DISTANCE  # so this test would see them joined
    assert groups(told, 8) == []


def test_a_marks_mirror_image_is_known_without_its_picture() -> None:
    shot = portrait(7)
    here, there = (marks(picture) for picture in (shot, mirrored(shot)))
    far = np.bitwise_count((here["hash"] ^ MIRROR)[:, None] ^ there["hash"])
    assert np.median(far.min(1)) <= MARK_DISTANCE
    near = far.argmin(1)[far.min(1) <= MARK_DISTANCE]
    assert np.allclose(0.75 * PLACE - here["x"][far.min(1) <= MARK_DISTANCE], there["x"][near], atol=0.02 * PLACE)


def test_ten_thousand_photos() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 10_000, dtype=np.uint64)
    looks = rng.integers(0, 256, (10_000, 192), dtype=np.uint8)
    looks[9000:], hashes[9000:] = looks[:1000], hashes[:1000] ^ np.uint64(0b101)
    photos = [fake(int(phash), look.tobytes()) for phash, look in zip(hashes, looks, strict=True)]
    begun = time.process_time()
    assert groups(photos, 8) == [[number, number + 9000] for number in range(1000)]
    assert time.process_time() - begun < 20  # 2 s on an idle core


def test_ten_thousand_copies_of_one_photo() -> None:
    begun = time.process_time()
    assert groups([fake(7, LOOK)] * 10_000, 8) == [list(range(10_000))]
    assert time.process_time() - begun < 5
