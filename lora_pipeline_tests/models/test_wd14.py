"""The WD14 tagger: a tiny ONNX model of the real shapes tells tags of colours, which shows channel order, padding and thresholds."""

from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline.errors import ModelError
from lora_pipeline.models.wd14 import MODEL, TAGS, Wd14
from lora_pipeline.records import Crop

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'lora-pipeline[wd14]'")
onnx = pytest.importorskip("onnx", reason="onnx, which builds the tagger of this test, is not installed")

CROP = Crop("a.jpg", "whole", (0, 0, 64, 64), 64, 64)
LINES = "tag_id,name,category,count\n1,general,9,10\n2,blue_sky,0,9\n3,green_grass,0,8\n4,red_rose,0,7\n5,^_^,0,3\n6,hatsune_miku,4,2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its answers: 0.9 for the rating, each channel's mean / 255 in the order in which they come in, 0.4, and 0.99 for the character."""
    from onnx import TensorProto, helper

    means = helper.make_node("ReduceMean", ["picture"], ["means"], axes=[1, 2], keepdims=0)
    shares = helper.make_node("Div", ["means", "full"], ["shares"])
    join = helper.make_node("Concat", ["rating", "shares", "others"], ["tags"], axis=1)
    constants = [
        helper.make_tensor("full", TensorProto.FLOAT, [1], [255.0]),
        helper.make_tensor("rating", TensorProto.FLOAT, [1, 1], [0.9]),
        helper.make_tensor("others", TensorProto.FLOAT, [1, 2], [0.4, 0.99]),
    ]
    graph = helper.make_graph(
        [means, shares, join],
        "tagger",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 32, 32, 3])],
        [helper.make_tensor_value_info("tags", TensorProto.FLOAT, [1, 6])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(tmp_path / MODEL))
    (tmp_path / TAGS).write_text(LINES)
    return tmp_path


def test_tags_over_their_thresholds_the_surest_first_spelt_with_spaces(folder: Path) -> None:
    picture = Image.new("RGB", (64, 64), (51, 153, 255))  # red 0.2, green 0.6, blue 1
    assert Wd14.open(str(folder)).words(picture, CROP) == "blue sky, green grass, ^_^"
    assert Wd14.open(str(folder), threshold=0.5).words(picture, CROP) == "blue sky, green grass"
    named = Wd14.open(str(folder), threshold=0.65, character_threshold=0.9).words(picture, CROP)
    assert named == "blue sky, hatsune miku"


def test_a_picture_that_is_no_square_is_seen_whole_on_white(folder: Path) -> None:
    wide = Image.new("RGB", (64, 32), "black")
    # Half of the square is white: each channel is 0.5 of the way.
    assert Wd14.open(str(folder), threshold=0.45).words(wide, CROP) == "blue sky, green grass, red rose"
    assert Wd14.open(str(folder), threshold=0.55).words(wide, CROP) == ""


def test_the_thresholds_are_part_of_its_identity(folder: Path) -> None:
    assert Wd14.open(str(folder)).identity == Wd14.open(str(folder)).identity
    assert Wd14.open(str(folder)).identity != Wd14.open(str(folder), threshold=0.5).identity


def test_a_model_and_a_list_that_do_not_belong_together_are_refused(folder: Path) -> None:
    (folder / TAGS).write_text(LINES + "7,sea,0,1\n")
    with pytest.raises(ModelError, match=r"model\.onnx tells 6 tags, and selected_tags\.csv names 7"):
        Wd14.open(str(folder)).words(Image.new("RGB", (8, 8)), CROP)


def test_what_is_missing_or_broken_is_said(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"describe\.wd14_model: the weights .* cannot be opened"):
        Wd14.open(str(folder)).words(Image.new("RGB", (8, 8)), CROP)
    (folder / MODEL).unlink()
    with pytest.raises(ModelError, match=r"holds no model\.onnx; download SmilingWolf/wd-vit-tagger-v3"):
        Wd14.open(str(folder))
