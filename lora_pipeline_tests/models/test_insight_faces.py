"""InsightFace through our protocol: the package's own classes on ONNX files that the test makes, whose answers are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.errors import ModelError
from lora_pipeline.models import insight_faces
from lora_pipeline.models.faces import FaceDetector, identity, open_detector, terms
from lora_pipeline.models.insight_faces import EYES, REST, SCALE, InsightFaces, InsightFound
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.search import SearchSettings

TEMPLATE = np.array([*EYES, *REST])


def write_detector(file: Path) -> None:
    """SCRFD's nine outputs, of three strides with two anchors each: a face wherever a cell of 8 px is red, 64 px wide and 80 high
    about that cell, its chin 32 px below; eyes and mouth 16 px from the middle."""
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    values: list[Any] = []

    def head(name: str, stride: int, weight: np.ndarray, bias: np.ndarray, each: int) -> None:
        values.extend(
            [
                numpy_helper.from_array(weight.astype(np.float32), f"{name}_w"),
                numpy_helper.from_array(bias.astype(np.float32), f"{name}_b"),
                numpy_helper.from_array(np.array([-1, each]), f"{name}_s"),
            ]
        )
        convolved = [f"{name}_c"]
        nodes.append(helper.make_node("Conv", ["input", f"{name}_w", f"{name}_b"], convolved, strides=[stride, stride]))
        nodes.append(helper.make_node("Transpose", convolved, [f"{name}_t"], perm=[0, 2, 3, 1]))
        nodes.append(helper.make_node("Reshape", [f"{name}_t", f"{name}_s"], [name]))

    strides = (8, 16, 32)
    for stride in strides:
        red = np.zeros((2, 3, stride, stride))
        if stride == 8:  # of (x - 127.5) / 128 in RGB: 1 for red, 0 for grey, less for the rest
            red[0] = np.array([0.5, -0.25, -0.25])[:, None, None] / stride**2
        head(f"score_{stride}", stride, red, np.zeros(2), 1)
    for stride in strides:
        sides = np.tile(np.array([32, 48, 32, 32]) / stride, 2)  # left, top, right, bottom of the cell's corner
        head(f"box_{stride}", stride, np.zeros((8, 3, stride, stride)), sides, 4)
    for stride in strides:
        points = np.tile(np.array([-16, -16, 16, -16, 0, 0, -16, 16, 16, 16]) / stride, 2)
        head(f"points_{stride}", stride, np.zeros((20, 3, stride, stride)), points, 10)
    shape = [1, 3, "height", "width"]
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    told = [
        helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, ["anchors", each])
        for kind, each in (("score", 1), ("box", 4), ("points", 10))
        for stride in strides
    ]
    _write(helper.make_graph(nodes, "detector", given, told, values), file)


def write_recogniser(file: Path, seed: int = 0) -> None:
    """ArcFace's shape: 112 × 112 in, 64 numbers out, random weights."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(seed).normal(size=(4, 3, 28, 28)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], strides=[28, 28]),
        helper.make_node("Flatten", ["c"], ["vector"]),
    ]
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])]
    told = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, 64])]
    _write(helper.make_graph(nodes, "recogniser", given, told, [numpy_helper.from_array(weight, "w")]), file)


def _write(graph: Any, file: Path) -> None:
    import onnx
    from onnx import helper

    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("insightface", reason="the extra insightface is not installed")
    folder = tmp_path_factory.mktemp("insightface")
    write_detector(folder / "det.onnx")
    write_recogniser(folder / "rec.onnx")
    return folder


def opened(folder: Path) -> FaceDetector:
    return open_detector(CropSettings(detector="insightface", insightface_models=str(folder)))


@pytest.mark.slow
def test_what_scrfd_finds_becomes_dlibs_square_in_the_pictures_pixels(folder: Path) -> None:
    picture = Image.new("RGB", (320, 200), "grey")
    picture.paste("red", (160, 80, 168, 88))
    (face,) = opened(folder).find(picture, 320)
    # Found about (160, 80): 128 to 192 across, 32 to 112 down; the square stands on the chin.
    assert face.box == (128, 48, 192, 112)
    assert face.confidence == pytest.approx(1, abs=0.02)
    assert isinstance(face, InsightFound)
    assert face.points == ((144, 64), (176, 64), (160, 80), (144, 96), (176, 96))
    assert len(face.landmarks) == 5
    # At twice the size, each cell of 16 px of the picture is one of the detector's, and so is the face half as large in it.
    larger = picture.resize((640, 400), Image.Resampling.NEAREST)
    (face,) = opened(folder).find(larger, 320)
    assert face.box == (256, 96, 384, 224)
    assert opened(folder).find(Image.new("RGB", (320, 200), "grey"), 320) == []


@pytest.mark.slow
def test_arcface_sees_the_face_upright_at_112_px_wherever_it_is(folder: Path) -> None:
    import onnxruntime

    rng = np.random.default_rng(3)
    small = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
    face = small.resize((112, 112), Image.Resampling.BICUBIC)
    session = onnxruntime.InferenceSession(str(folder / "rec.onnx"), providers=["CPUExecutionProvider"])
    blob = ((np.asarray(face, dtype=np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None]
    true = session.run(None, {"input": blob})[0][0]
    true = SCALE * true / np.linalg.norm(true)

    picture = Image.new("RGB", (500, 400), "grey")
    picture.paste(face.resize((224, 224), Image.Resampling.BICUBIC), (60, 90))
    points = tuple(map(tuple, (TEMPLATE * 2 + [60, 90]).tolist()))
    vector = opened(folder).describe(picture, InsightFound((60, 90, 284, 314), 1.0, ((0.0, 0.0),) * 5, points))
    assert np.linalg.norm(vector) == pytest.approx(SCALE)
    assert np.linalg.norm(np.array(vector) - true) < 0.05
    turned = picture.rotate(90, expand=True)  # to the left: (x, y) goes to (y, 499 - x)
    points = tuple((y, 499 - x) for x, y in points)
    vector = opened(folder).describe(turned, InsightFound((0, 0, 9, 9), 1.0, ((0.0, 0.0),) * 5, points))
    assert np.linalg.norm(np.array(vector) - true) < 0.05
    elsewhere = InsightFound((0, 0, 9, 9), 1.0, ((0.0, 0.0),) * 5, tuple((x + 40, y) for x, y in points))
    assert np.linalg.norm(np.array(opened(folder).describe(turned, elsewhere)) - true) > 0.1


@pytest.mark.slow
def test_a_face_that_somebody_else_has_found_is_aligned_by_its_eyes(folder: Path) -> None:
    eyes = (
        (200.0, 100.0),
        (180.0, 100.0),
        (120.0, 100.0),
        (140.0, 100.0),
        (160.0, 130.0),
    )  # their middles at 130 and 190
    points = np.array(insight_faces._from_eyes(eyes))
    assert points[:2].tolist() == [[130, 100], [190, 100]]
    scale = 60 / np.linalg.norm(TEMPLATE[1] - TEMPLATE[0])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert apart == pytest.approx(scale * np.linalg.norm(TEMPLATE[:, None] - TEMPLATE[None], axis=-1))
    assert points[2:, 1].min() > 100  # nose and mouth are below
    picture = Image.effect_noise((300, 300), 90).convert("RGB")
    found = opened(folder).located(picture, (100, 60, 220, 180), 0.0)
    assert isinstance(found, InsightFound)
    assert (found.box, found.confidence, len(found.points)) == ((100, 60, 220, 180), 0.0, 5)
    assert len(opened(folder).describe(picture, found)) == 64


@pytest.mark.slow
def test_other_weights_are_another_identity_and_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    settings = CropSettings(detector="insightface", insightface_models=str(tmp_path))
    (tmp_path / "det.onnx").write_bytes((folder / "det.onnx").read_bytes())
    with pytest.raises(ModelError, match=r"no file in .* is for recognition"):
        open_detector(settings).find(Image.new("RGB", (64, 64)), 64)
    write_recogniser(tmp_path / "rec.onnx", seed=1)
    assert identity(settings) != identity(CropSettings(detector="insightface", insightface_models=str(folder)))
    (tmp_path / "rec.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"crop\.insightface_models: the files in .* cannot be opened"):
        open_detector(settings).find(Image.new("RGB", (64, 64)), 64)


def test_what_is_missing_is_said_with_its_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'lora-pipeline\[insightface\]'"):
        InsightFaces.open(str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ModelError, match=r"insightface_models is empty; .*non-commercial research only"):
        InsightFaces.open("")
    with pytest.raises(ModelError, match=r"holds no \.onnx file"):
        InsightFaces.open(str(tmp_path))


def test_the_terms_of_what_is_chosen_are_told_and_of_nothing_else() -> None:
    assert terms(CropSettings()) == []
    told = terms(CropSettings(detector="insightface", insightface_models="x", head_pose=True))
    assert [("InsightFace" in one, "300-W" in one, "non-commercial research" in one) for one in told] == [
        (True, False, True),
        (False, True, True),
    ]


def test_the_key_of_a_search_without_insightface_is_what_it_was_before() -> None:
    plain = SearchSettings.of(CropSettings(insightface_models="x"))
    assert plain.model_dump(mode="json") == {"detector": "dlib_hog", "yolo_weights": "", "search_px": 1024}
    asked = SearchSettings.of(CropSettings(detector="insightface", insightface_models="x"))
    assert SearchSettings.model_validate_json(asked.model_dump_json()) == asked
    assert asked.whole().insightface_models == "x"
