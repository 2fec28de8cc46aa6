"""The reach is that of convolutions whose reach is known, however much a global gain moves all cells."""

import pytest

from lora_pipeline.families.reach import measured_reach_px

torch = pytest.importorskip("torch")


def seeing(cells, gain=0.0):
    """An encoder of 8 px cells that averages over so many cells to each side, and follows the whole picture's mean a little."""
    import torch.nn.functional as F

    def encode(pictures):
        means = F.avg_pool2d(pictures, 8)
        spread = F.avg_pool2d(means, 2 * cells + 1, stride=1, padding=cells) if cells else means
        return spread * (1 + gain * pictures.std()) + gain * pictures.mean()

    return encode


@pytest.mark.parametrize("cells", [0, 1, 3])
def test_convolutions_reach_as_far_as_they_do(cells):
    assert measured_reach_px(seeing(cells), 8) == cells * 8


def test_a_gain_over_the_whole_picture_is_no_reach():
    assert measured_reach_px(seeing(1, gain=0.5), 8) == 8
