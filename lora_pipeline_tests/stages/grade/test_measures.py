"""Each score on pictures and numbers whose answer is known."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.world import Identity, Scene, draw, random_identity
from lora_pipeline.records import Measure
from lora_pipeline.stages.grade.damage import damage, noise, saturation, sharpness, times
from lora_pipeline.stages.grade.drift import another_seed, bled, drift, drifted
from lora_pipeline.stages.grade.freedom import face_heights, freedom, spread, wrong_faces
from lora_pipeline.stages.grade.interval import interval, told
from lora_pipeline.stages.grade.likeness import Yardstick, cosines, likeness
from lora_pipeline.stages.grade.memorising import COPY_BITS, copy_bits, is_copy, memorising, nearest_among
from lora_pipeline.stages.grade.prompt import prompt_followed
from lora_pipeline.stages.grade.see import glance
from lora_pipeline.stages.grade.seen import Seen

SUBJECT = random_identity(np.random.default_rng(3), "woman")
COLOURS = ("green", "red", "yellow", "black", "orange", "purple")


def shown(picture: Image.Image, **more) -> Seen:
    return Seen(glance=glance(picture), **more)


def drawn(identity: Identity = SUBJECT, **scene) -> Image.Image:
    return draw(identity, Scene(**scene)).picture


def at(x: float, prompt: str = "one", seed: int = 1, **more) -> Seen:
    """A picture of somebody who stands at a place on a line."""
    return Seen(
        prompt=prompt, seed=seed, descriptor=(x, 0.0), faces=1, glance=glance(Image.new("RGB", (16, 16))), **more
    )


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = interval(rng.normal(5, 2, 24).tolist(), np.mean) or (0.0, 0.0)
        held += low <= 5 <= high
    assert 0.88 <= held / 200 <= 0.98
    assert interval([1.0, 2.0, 3.0]) == interval([1.0, 2.0, 3.0])
    assert interval([4.0, 4.0]) == (4.0, 4.0)
    assert interval([4.0]) is None


def test_what_was_not_seen_counts_neither_in_the_middle_nor_in_the_interval() -> None:
    one = told("distance", "likeness", "less", [0.1, None, 0.3, 0.2], [None], ceiling=0.05)
    assert (one.value, one.base, one.ceiling) == (0.2, None, 0.05)
    assert one.low is not None
    assert one.high is not None
    assert 0.1 <= one.low <= 0.2 <= one.high <= 0.3
    assert told("distance", "likeness", "less", [], []).value is None


def test_the_ceiling_leaves_each_photo_out_in_turn() -> None:
    faces = [(0.0, 0.0), (1.0, 0.0), (5.0, 0.0)]
    # to the mean of the other two: 3.0, 1.5, 4.5
    assert Yardstick("face", faces).ceiling == 3.0
    assert Yardstick("face", faces[:1]).ceiling is None
    # with held-out photos, the others to these
    assert Yardstick("face", [(1.0, 0.0)], trained=[(0.0, 0.0), (3.0, 0.0)]).ceiling == 1.5
    units = [(1.0, 0.0), (0.0, 1.0), (0.6, 0.8)]
    # mean cosine to the other two: 0.3, 0.4, 0.7
    assert Yardstick("DINOv2", units).ceiling == pytest.approx(1.6 / 3, abs=1e-4)
    assert cosines([(1.0, 0.0), None], units) == [pytest.approx(1.6 / 3), None]


def test_likeness_by_an_embedder_is_nearer_for_the_subject() -> None:
    photos = [Seen(photo=str(n), vectors={"DINOv2": vector}) for n, vector in enumerate([(1.0, 0.0), (0.8, 0.6)])]
    near, far = ([Seen(vectors={"DINOv2": vector})] * 3 for vector in ((0.96, 0.28), (0.0, 1.0)))
    yardstick = Yardstick("DINOv2", [one.vectors["DINOv2"] for one in photos])
    distance, cosine = likeness(near, far, yardstick, photos, ["DINOv2"])
    assert (distance.name, distance.value, distance.base) == (
        "distance by DINOv2",
        pytest.approx(0.052),
        pytest.approx(0.7),
    )
    assert (cosine.better, cosine.value, cosine.base, cosine.ceiling) == (
        "more",
        *map(pytest.approx, (0.948, 0.3, 0.8)),
    )


def test_a_face_that_an_epoch_has_lost_counts_as_the_base_models() -> None:
    def seen(*places: float | None) -> list[Seen]:
        return [
            Seen(prompt="a woman", seed=seed, descriptor=None if place is None else (place, 0.0))
            for seed, place in enumerate(places)
        ]

    base, yardstick = seen(0.5, 0.7, None), Yardstick("face", [(0.0, 0.0)])
    distance, median = likeness(seen(0.2, None, None), base, yardstick, [], [])
    assert (distance.value, distance.base) == (pytest.approx(0.45), pytest.approx(0.6))  # 0.2 and, lost, 0.7
    assert (median.name, median.value) == ("identity distance, median", 0.2)
    assert likeness(seen(None, None, None), base, yardstick, [], [])[0].value is None


def test_agreement_is_a_mean_over_pictures_that_ask_for_something() -> None:
    pictures = [Seen(agreement={"CLIP-T": value}) for value in (0.2, 0.4)]
    one = prompt_followed([*pictures, Seen()], pictures[:1], "CLIP-T")
    assert (one.value, one.base, one.better) == (pytest.approx(0.3), 0.2, "more")


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(io.BytesIO(data.getvalue())).convert("RGB")


def test_a_copy_is_known_though_compressed_mirrored_or_blurred_and_the_subject_elsewhere_is_none() -> None:
    photos = [
        shown(drawn(shirt_colour=shirt, background_colour=back, yaw_deg=yaw), photo=f"{shirt} {back}")
        for shirt, back, yaw in (("green", "white", 0.0), ("red", "blue", 20.0), ("black", "pink", -25.0))
    ]
    original = drawn(shirt_colour="red", background_colour="blue", yaw_deg=20.0)
    noisy = np.asarray(original, dtype=float) + np.random.default_rng(0).normal(0, 6, (128, 128, 3))
    for copy in (
        as_jpeg(original, 40),
        original.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        original.resize((64, 64)).resize((128, 128)),
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)),
    ):
        assert is_copy(shown(copy), photos)
    red, green, blue = original.split()
    repainted = Image.merge("RGB", (blue, green, red))
    assert copy_bits(glance(repainted).prints, glance(original).prints) <= COPY_BITS
    for other in (
        repainted,
        drawn(shirt_colour="yellow", background_colour="grey", expression="laugh"),
        drawn(shirt_colour="red", background_colour="blue", framing="medium", yaw_deg=20.0),
        drawn(random_identity(np.random.default_rng(8), "man"), shirt_colour="red", background_colour="blue"),
    ):
        assert not is_copy(shown(other), photos)
    assert is_copy(Seen(), photos) is None
    assert is_copy(shown(original), []) is None
    copies, nearest = memorising([shown(original), shown(other)], [shown(other)], photos, "", nearest_among(photos))
    assert (copies.value, copies.base) == (0.5, 0.0)
    assert nearest.base is not None
    assert nearest.value is not None
    assert nearest.ceiling is not None
    assert nearest.value < nearest.base
    assert nearest.ceiling > 8


def test_with_an_embedder_a_copy_must_be_near_by_it_too() -> None:
    picture = drawn()
    photo = shown(picture, photo="one", vectors={"DINOv2": (1.0, 0.0)})
    assert is_copy(shown(picture, vectors={"DINOv2": (0.98, 0.199)}), [photo], "DINOv2")
    assert not is_copy(shown(picture, vectors={"DINOv2": (0.6, 0.8)}), [photo], "DINOv2")


def test_photos_cut_from_one_photo_are_not_each_others_nearest() -> None:
    scenes = [drawn(shirt_colour=colour) for colour in COLOURS[:2]]
    crops = [shown(scenes[0], photo="a"), shown(scenes[0], photo="a")]
    assert nearest_among(crops) is None
    assert nearest_among([*crops, shown(scenes[0], photo="b")]) == 0


def test_the_same_picture_from_every_seed_has_no_spread() -> None:
    strangers = [random_identity(np.random.default_rng(seed)) for seed in range(4)]
    varied = [shown(drawn(who, yaw_deg=10.0 * n), prompt="a", seed=n) for n, who in enumerate(strangers)]
    stuck = [replace(varied[0], seed=n) for n in range(4)]
    assert spread(stuck) == [0.0]
    (wide,) = spread(varied)
    assert 0.15 < wide < 0.6
    assert spread(varied[:1]) == []
    assert spread([*varied, replace(varied[0], prompt="b", seed=9)]) == [wide]  # another prompt has no pair
    turned = [
        replace(one, vectors={"CLIP-I": vector}) for one, vector in zip(varied, [(1.0, 0.0), (0.0, 1.0)], strict=False)
    ]
    assert spread(turned, "CLIP-I") == [1.0]


def test_two_faces_or_a_lost_one_are_wrong_and_one_that_the_base_does_not_show_either_is_not() -> None:
    base = [at(1.0, seed=1), at(1.0, seed=2), Seen(prompt="one", seed=3)]
    pictures = [
        replace(at(1.0, seed=1), faces=2),
        Seen(prompt="one", seed=2),
        Seen(prompt="one", seed=3),
        at(1.0, seed=4),
    ]
    assert wrong_faces(pictures, base) == [1.0, 1.0, 0.0, 0.0]


def test_a_full_body_that_became_a_portrait_shows_in_the_face() -> None:
    base = [at(0.0, "ohwx woman, Full body, on a beach", face_height=0.12), at(0.0, "a portrait", face_height=0.6)]
    grown = [replace(base[0], face_height=0.5), base[1]]
    assert face_heights(grown) == [0.5]
    (body,) = [one for one in freedom(grown, base, True, "") if one.better == "same"]
    assert (body.value, body.base) == (0.5, 0.12)
    assert [one.name for one in freedom(base[1:], base[1:], True, "")] == ["spread over seeds", "wrong number of faces"]
    assert [one.name for one in freedom(base, base, False, "")] == ["spread over seeds"]


def line(*places: float) -> list[Seen]:
    return [at(place, seed=seed) for seed, place in enumerate(places, start=1)]


def test_drift_is_told_beside_what_another_seed_changes_and_bleeding_as_a_share_of_the_way() -> None:
    yardstick = Yardstick("face", [(0.0, 0.0)])
    base, own = line(1.0, 1.2), line(0.2, 0.2)
    assert another_seed([*base, at(9.0, "two", 1), at(9.2, "two", 2)], yardstick) == pytest.approx(0.2)
    assert another_seed(base[:1], yardstick) is None
    assert drifted(line(0.9, 0.7), base, yardstick) == [pytest.approx(0.1), pytest.approx(0.5)]
    # the base model's others stand at 1.1 in the middle, the epoch's own pictures at 0.2: the way is 0.9
    assert bled(line(1.1, 0.2), base, own, yardstick) == [pytest.approx(0.0), pytest.approx(1.0)]
    away, bleeding = drift(line(0.9, 0.7), base, own, yardstick)
    assert (away.value, away.base, away.ceiling) == (pytest.approx(0.3), 0.0, 0.2)
    assert bleeding.value == pytest.approx(((1.1 - 0.9) / 0.9 + (1.1 - 0.7) / 0.9) / 2, abs=1e-4)
    assert drift([], [], own, yardstick) == []
    assert bled(base, base, line(1.08, 1.08), yardstick) == []  # it has hardly learned: no share can be told
    lost = [Seen(prompt="one", seed=1), *line(0.9)[1:]]
    assert drifted(lost, base, yardstick) == [None]


def test_blur_noise_and_grey_are_seen_as_what_they_are() -> None:
    picture = drawn(size_px=(256, 256))
    luma = np.asarray(picture.convert("L"), dtype=np.float64)
    soft = np.asarray(picture.resize((64, 64)).resize((256, 256)).convert("L"), dtype=np.float64)
    assert sharpness(soft) < sharpness(luma) / 2
    grain = np.random.default_rng(0).normal(0, 10, luma.shape)
    assert noise(np.full((256, 256), 128.0) + grain) == pytest.approx(10, rel=0.25)
    assert noise(luma) < 1 < 5 < noise(luma + grain)
    assert saturation(Image.new("RGB", (9, 9), "red")) == 1
    assert saturation(picture.convert("L").convert("RGB")) == 0 < saturation(picture)


def test_damage_is_a_ratio_either_way_but_not_of_next_to_nothing() -> None:
    assert times(Measure("saturation", "damage", "same", 0.08, base=0.38)) == pytest.approx(4.0)
    assert times(Measure("sharpness", "damage", "same", 1999.0, base=499.0)) == pytest.approx(4.0)
    assert times(Measure("noise", "damage", "same", 0.3, base=0.1)) == pytest.approx(1.3 / 1.1)
    assert times(Measure("noise", "damage", "same", None, base=0.1)) is None


def test_the_held_out_loss_stands_among_the_damage_where_there_is_one() -> None:
    pictures: Sequence[Seen] = [shown(drawn())]
    assert [one.name for one in damage(pictures, pictures, None)] == ["sharpness", "noise", "saturation"]
    assert damage(pictures, pictures, (0.21, 0.25))[-1] == Measure("held-out loss", "damage", "less", 0.21, base=0.25)
