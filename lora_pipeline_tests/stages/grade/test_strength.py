from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline import manifest
from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade import STRENGTHS, Strength, draw_grids, recommend_strength, recommended, score, sweep

SETTINGS = GradeSettings(seeds=(1, 2), strengths=(0.25, 0.5, 1.0), batch_size=4, size_px=64)
PROMPTS = ("a photo of ohwx woman", "an oil painting of ohwx woman")
SUBJECT = [(0.0, 0.0), (0.2, 0.0)]  # their mean is 0.1


@pytest.mark.parametrize(
    ("distances", "best", "why"),
    [
        ({0: [0.6], 0.5: [0.4], 1: [0.2]}, 1, "no other strength"),
        ({0: [0.6], 0.5: [0.22], 1: [0.2]}, 0.5, "1 is nearer by only 0.020"),
        ({0: [0.6], 0.5: [0.2], 1: [0.3]}, 0.5, "no other strength"),
        ({0: [0.6], 0.5: [0.2], 1: [0.1, None]}, 0.5, "no other strength"),  # a face in half of them
        ({0: [None], 0.5: [0.5], 1: [0.3]}, 1, "base model: no face"),
        ({0: [0.1], 0.5: [0.2], 1: [0.3]}, None, ""),
        ({0: [0.6], 0.5: [None], 1: [None]}, None, ""),
        (
            {0: [0.6], 0.5: [0.4, 0.1, 0.85], 1: [0.5]},
            0.5,
            r"at strength 0.5 the identity distance is 0.45 (base model 0.60)",
        ),
        ({}, None, ""),
    ],
)
def test_the_least_strength_that_is_as_near_as_any_is_recommended(distances, best, why) -> None:
    told = recommend_strength(distances, 0.02)
    assert [one.strength for one in told] == sorted(distances)
    assert [one.strength for one in told if one.recommended] == ([] if best is None else [best])
    assert "".join(one.reason for one in told).count(why)


def test_of_a_thing_the_reason_names_the_embedder_and_no_face() -> None:
    told = recommend_strength({0: [0.6], 0.5: [0.4], 1: [0.2]}, 0.02, "DINOv2")
    assert (
        told[-1].reason
        == "at strength 1 the distance by DINOv2 is 0.20 (base model 0.60); no other strength is as near"
    )


def red_from(subject: float, seen: list | None = None):
    """A `Distance`: of the painter's red from the subject's; red 0 is no face."""

    def distance(picture: Image.Image) -> float | None:
        if seen is not None:
            seen.append(picture)
        red = picture.getpixel((0, 0))[0]
        return abs(red / 255 - subject) if red else None

    return distance


def test_the_sweep_measures_the_chosen_epoch_at_each_strength(checkpoints, painter, base, tmp_path: Path) -> None:
    made, folder, seen = checkpoints([102, 26]), tmp_path / "scores", []
    grids = draw_grids(made, tmp_path / "grids", SETTINGS, base, PROMPTS, painter).manifest
    first = sweep(grids, 2, folder, PROMPTS, red_from(0.1, seen), ["red", 0.1], 0.02)
    assert len(seen) == 4 + 3 * 4  # the base model's pictures, and those of epoch 2 alone
    told = sorted((Strength.of(row) for row in first.manifest.rows), key=lambda one: one.strength)
    reds = {0: 200, 0.25: 156, 0.5: 113, 1: 26}
    assert {one.strength: one.identity_distance for one in told} == {
        strength: pytest.approx(abs(red / 255 - 0.1), abs=1e-3) for strength, red in reds.items()
    }
    assert recommended(manifest.read(folder, STRENGTHS)) == told[-1]
    again = sweep(grids, 2, folder, PROMPTS, red_from(0.1, seen), ["red", 0.1], 0.02)
    assert (len(seen), again.report.computed) == (16, 0)
    sweep(grids, 2, folder, PROMPTS, red_from(0.4, seen), ["red", 0.4], 0.02)
    assert len(seen) == 32  # another subject's face
    sweep(grids, 2, folder, PROMPTS[:1], red_from(0.4, seen), ["red", 0.4], 0.02)
    assert len(seen) == 32
    assert len(manifest.read(folder, "by_strength").rows) == 8  # of the prompts that show the subject
    alone = SETTINGS.model_copy(update={"strengths": (1.0,)})
    grids = draw_grids(made, tmp_path / "grids", alone, base, PROMPTS, painter).manifest
    sweep(grids, 2, folder, PROMPTS, red_from(0.4, seen), ["red", 0.4], 0.02)
    assert recommended(manifest.read(folder, STRENGTHS)) is None
    assert len(seen) == 32


def test_epochs_are_judged_by_the_lora_as_it_was_trained(checkpoints, painter, base, embed, tmp_path: Path) -> None:
    made = checkpoints([102, 51])
    grids = draw_grids(made, tmp_path / "grids", SETTINGS, base, PROMPTS, painter).manifest
    alone = draw_grids(
        made, tmp_path / "alone", SETTINGS.model_copy(update={"strengths": (1.0,)}), base, PROMPTS, painter
    )
    with_others = score(grids, made, tmp_path / "scores", SETTINGS, SUBJECT, embed, "person").manifest
    assert (
        with_others.digest
        == score(alone.manifest, made, tmp_path / "s", SETTINGS, SUBJECT, embed, "person").manifest.digest
    )


def test_a_picture_that_is_not_there_is_one_without_a_face(checkpoints, painter, base, embed, tmp_path: Path) -> None:
    grids = draw_grids(checkpoints([255]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter).manifest
    made = sweep(grids, 1, tmp_path / "scores", PROMPTS, red_from(0.1), [], 0.02).manifest
    assert {one.strength: one.faces_found for one in map(Strength.of, made.rows)} == {0: 1, 0.25: 0, 0.5: 0, 1: 0}
    assert recommended(made) is None
