"""The mask on latents, against the definition said pixel by pixel."""

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.stages.encode.visible import hidden_pixels, visible_cells


def by_definition(hidden, factor, reach):
    height, width = hidden.shape
    cells = np.ones((height // factor, width // factor), bool)
    for row, column in np.ndindex(cells.shape):
        for y, x in zip(*np.nonzero(hidden), strict=True):
            down = max(row * factor - y, y - (row + 1) * factor + 1, 0)
            across = max(column * factor - x, x - (column + 1) * factor + 1, 0)
            if max(down, across) <= reach:
                cells[row, column] = False
    return cells


@pytest.mark.parametrize("reach", [0, 3, 8, 20, 200])
@pytest.mark.parametrize("seed", range(4))
def test_a_cell_is_visible_where_nothing_within_reach_is_hidden(reach, seed):
    rng = np.random.default_rng(seed)
    hidden = np.zeros((48, 64), bool)
    for _ in range(seed):
        y, x = rng.integers(0, 48), rng.integers(0, 64)
        hidden[y : y + 4, x : x + 3] = True
    assert np.array_equal(visible_cells(hidden, 8, reach), by_definition(hidden, 8, reach))


def test_nothing_hidden_is_all_visible():
    assert visible_cells(np.zeros((64, 32), bool), 8, 24).all()


def test_a_mask_of_the_right_size_is_taken_as_it_is():
    mask = Image.new("L", (64, 64), 255)
    mask.putpixel((5, 9), 0)
    hidden = hidden_pixels(mask, (64, 64))
    assert hidden.sum() == 1
    assert hidden[9, 5]


@pytest.mark.parametrize("size", [(128, 128), (40, 40), (1000, 1000)])
def test_one_hidden_pixel_survives_every_resize(size):
    mask = Image.new("L", size, 255)
    at = (size[0] // 2, size[1] // 2)
    mask.putpixel(at, 0)
    hidden = hidden_pixels(mask, (64, 64))
    assert hidden[32, 32]
    assert hidden.sum() < 200


def test_a_wide_mask_loses_its_edges_as_its_picture_does():
    mask = Image.new("L", (128, 64), 255)
    mask.paste(0, (0, 0, 20, 64))  # outside the centre square, even when grown by the resize's reach
    assert not hidden_pixels(mask, (64, 64)).any()
    mask.paste(0, (0, 0, 40, 64))
    assert hidden_pixels(mask, (64, 64))[:, :8].all()
    assert not hidden_pixels(mask, (64, 64))[:, 8:].any()
