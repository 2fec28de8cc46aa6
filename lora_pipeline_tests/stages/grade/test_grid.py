"""A grid a prompt: where each picture stands, by its colour."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade import draw_grids, make_grid, make_prompt_grids

SETTINGS = GradeSettings(seeds=(1, 2), strengths=(0.5, 1.0), batch_size=4, size_px=64, negative_prompt="hats")
PROMPTS = ("a photo of ohwx woman", "an oil painting of ohwx woman")


@pytest.fixture
def grids(checkpoints, painter, base, tmp_path: Path):
    def make(reds, settings=SETTINGS):
        return draw_grids(checkpoints(reds), tmp_path / "grids", settings, base, PROMPTS, painter).manifest

    return make


def places(path: Path, prompt: str) -> dict[tuple[int, int], tuple[int, int]]:
    """Top left corner of each picture in a grid of the painter's: (red, seed) → (x, y)."""
    with Image.open(path) as picture:
        values = np.asarray(picture).astype(int)
    of_prompt = (values[1:, 1:, 1] == sum(prompt.encode()) % 256) & np.isin(values[1:, 1:, 2], (1, 2))
    corner = of_prompt & (values[1:, :-1] == 255).all(-1) & (values[:-1, 1:] == 255).all(-1)
    return {
        (int(values[y + 1, x + 1, 0]), int(values[y + 1, x + 1, 2])): (int(x + 1), int(y + 1))
        for y, x in reversed(np.argwhere(corner))
    }


def test_epochs_stand_across_and_strengths_and_seeds_down(grids, checkpoints, tmp_path: Path) -> None:
    made = make_prompt_grids(grids([100, 40]), tmp_path / "grids")
    assert [row.id for row in made.manifest.rows] == ["p01", "p02"]
    assert [row.data["prompt"] for row in made.manifest.rows] == list(PROMPTS)
    at = places(made.manifest.path(made.manifest.row("p02")), PROMPTS[1])
    columns = {
        name: {at[red, seed][0] for seed in (1, 2) for red in reds}
        for name, reds in {"1": (150, 100), "2": (120, 40)}.items()
    }
    assert [len(xs) for xs in columns.values()] == [1, 1]
    assert at[200, 1][0] < min(columns["1"]) < min(columns["2"])  # the base model's first
    lines = [at[red, seed][1] for red, seed in ((150, 1), (150, 2), (100, 1), (100, 2))]  # strength 0.5, then 1
    assert lines == sorted(set(lines))
    assert [at[red, seed][1] for red, seed in ((120, 1), (120, 2), (40, 1), (40, 2))] == lines
    assert at[200, 1][1] == lines[0]


def test_a_grid_says_of_each_picture_how_to_draw_it_again(grids, checkpoints, tmp_path: Path) -> None:
    drawn = grids([100, 40])
    of_all = make_grid(drawn, checkpoints([100, 40]), tmp_path / "all").manifest
    of_each = make_prompt_grids(drawn, tmp_path / "each").manifest
    told = {row.id: dict(row.data) for row in drawn.rows}
    with Image.open(of_all.path(of_all.rows[0])) as picture:
        assert json.loads(picture.text["lora_pipeline.cells"]) == {id: told[id] for id in told if "@" not in id}
    for row in of_each.rows:
        with Image.open(of_each.path(row)) as picture:
            assert json.loads(picture.text["lora_pipeline.cells"]) == {id: told[id] for id in told if row.id in id}


def test_a_prompts_grid_is_made_anew_where_its_pictures_changed(
    grids, checkpoints, painter, base, tmp_path: Path
) -> None:
    folder = tmp_path / "grids"
    first = make_prompt_grids(grids([100, 40]), folder)
    assert make_prompt_grids(grids([100, 40]), folder).report.computed == 0
    bytes_of = {row.id: first.manifest.path(row).read_bytes() for row in first.manifest.rows}
    less = draw_grids(checkpoints([100, 40]), folder, SETTINGS, base, PROMPTS[:1], painter).manifest
    made = make_prompt_grids(less, folder)
    assert (made.report.computed, [row.id for row in made.manifest.rows]) == (0, ["p01"])
    assert sorted(path.name for path in (folder / "by_prompt").iterdir()) == ["p01.png"]
    assert make_prompt_grids(grids([100, 40, 60]), folder).report.computed == 2
    make_prompt_grids(grids([100, 40]), folder)
    assert {path.stem: path.read_bytes() for path in (folder / "by_prompt").iterdir()} == bytes_of


def test_the_grid_of_all_prompts_shows_strength_1(grids, checkpoints, tmp_path: Path) -> None:
    with_others = make_grid(grids([100, 40]), checkpoints([100, 40]), tmp_path / "with").manifest
    alone = SETTINGS.model_copy(update={"strengths": (1.0,)})
    without = make_grid(grids([100, 40], alone), checkpoints([100, 40]), tmp_path / "without").manifest
    assert with_others.path(with_others.rows[0]).read_bytes() == without.path(without.rows[0]).read_bytes()


def test_a_picture_that_could_not_be_drawn_leaves_its_place(grids, checkpoints, tmp_path: Path) -> None:
    made = make_prompt_grids(grids([255, 40]), tmp_path / "grids").manifest
    at = places(made.path(made.row("p01")), PROMPTS[0])
    assert {red for red, _ in at} == {200, 120, 40}
