"""The benchmark of training on a graphics card, on shapes of no size and on the CPU: what can be known of it without one."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.card import ask
from benchmarks.card.shapes import SHAPES, build
from lora_pipeline.families.stock import stock_class

torch = pytest.importorskip("torch")
BLOCKS = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
SMALL = {
    "SD 1.5": {
        **BLOCKS,
        "attention_head_dim": 4,
        "cross_attention_dim": 768,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    },
    "SDXL": {
        **BLOCKS,
        "attention_head_dim": (2, 4),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
    },
    "FLUX": {
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "axes_dims_rope": (4, 4, 8),
    },
}


@pytest.fixture(params=SHAPES)
def small(request, monkeypatch, tmp_path):
    """The name of a shape that was made small, and its model."""
    shape = SHAPES[request.param]
    shape = replace(shape, side_px=64, config={**shape.config, **SMALL[request.param]})
    monkeypatch.setitem(SHAPES, request.param, shape)
    return request.param, build(shape, tmp_path / "model", "cpu")


def test_a_case_is_measured(small, monkeypatch):
    name, model = small
    monkeypatch.setattr(ask, "STEPS", 2)
    for way in {case.way for case in ask.CASES if case.shape == name} - {"compiled"}:
        told = ask.measured(ask.Case(name, 2, way=way), model, "cpu")
        assert told["images a second"] == pytest.approx(2 / told["s a step"], rel=0.1)
        assert told["most memory, GiB"] > 0


def test_operations_are_counted_without_numbers_and_grow_with_the_batch(small):
    name, model = small
    one, four = (ask.operations_of(SHAPES[name], model, batch) for batch in (1, 4))
    # what the hour and the words' mean are put through is a little more for one than a fourth of four
    assert 0 < four == pytest.approx(4 * one, rel=0.01)


def test_the_full_shape_takes_as_many_as_is_known(tmp_path):
    """SD 1.5's U-Net answers with some 0.8 TFLOP at 512 px; the way back to a LoRA asks as many again, and attention's half as many more."""
    shape = SHAPES["SD 1.5"]
    stock_class(shape.scheduler)().save_pretrained(tmp_path / "scheduler")
    assert 1.6e12 < ask.operations_of(shape, tmp_path, 1) < 2.0e12


def test_the_rate_is_that_of_a_square_product():
    assert 1e8 < ask.matrix_rate("cpu", side=256) < 1e14


def test_a_case_that_fails_is_a_row_that_says_why(tmp_path):
    row = ask.row(ask.Case("SD 1.5", 4), tmp_path / "gone", rate=1e12, operations=1e12)
    assert (row["shape"], row["batch"]) == ("SD 1.5", 4)
    assert "gone" in str(row["why not"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a graphics card is at hand")
def test_without_a_card_what_was_measured_stays(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmarks, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "card"])
    benchmarks.main()
    assert "no graphics card is at hand" in capsys.readouterr().out
    assert list(Path(tmp_path).iterdir()) == []
