"""YOLO as a face detector: ultralytics' real class, built without weights, finds what it finds through our protocol."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.errors import ModelError, PhotoError
from lora_pipeline.models import yolo, yolo_faces
from lora_pipeline.models.faces import FaceDetector, identity, open_detector
from lora_pipeline.pictures import open_upright
from lora_pipeline.settings import CropSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real architecture (yolov8n, from its own description), weights random."""
    home = tmp_path_factory.mktemp("yolo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(home))
        import torch

        opens = yolo.ultralytics_yolo()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model: Any = opens("yolov8n.yaml")
        model.save(home / "face.pt")
    return home / "face.pt"


@pytest.fixture
def detector(weights: Path) -> FaceDetector:
    return open_detector(CropSettings(detector="yolo", yolo_weights=str(weights)))


def test_ultralytics_leaves_pillow_as_it_was(detector: FaceDetector, tmp_path: Path) -> None:
    """Its own Image.open would install a package at the first file that is no picture."""
    detector.find(Image.new("RGB", (64, 64)), 64)
    assert Image.open.__module__ == "PIL.Image"
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(PhotoError, match="not a picture"):
        open_upright(tmp_path / "text.jpg")


def test_random_weights_run_and_whatever_they_find_lies_in_the_picture(
    detector: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yolo_faces, "SURE", 0.0)
    picture = draw(random_identity(np.random.default_rng(3)), Scene("close", size_px=(300, 220))).picture
    found = detector.find(picture, 320)
    assert found
    for face in found:
        assert 0 <= face.box[0] < face.box[2] <= 300
        assert 0 <= face.box[1] < face.box[3] <= 220
        assert len(face.landmarks) == 5
    assert len(detector.describe(picture, found[0])) == 128


def test_a_box_from_hairline_to_chin_becomes_a_square_on_the_chin(detector: FaceDetector) -> None:
    """In place of the network, one that says what a trained one says."""
    drawing = draw(random_identity(np.random.default_rng(3)), Scene("close", size_px=(300, 300)))
    x, y, width, height = drawing.faces[0].box
    asked: dict[str, Any] = {}

    class Answers:
        def predict(self, pixels: np.ndarray, **how: Any) -> list[Any]:
            import torch

            asked.update(how, corner=pixels[0, 0].tolist())
            boxes = type("Boxes", (), {})()
            boxes.xyxy = torch.tensor([[x, y - 0.3 * height, x + width, y + height]])
            boxes.conf = torch.tensor([0.9])
            return [type("Result", (), {"boxes": boxes})()]

    vars(detector.network)["_model"] = Answers()  # type: ignore[attr-defined]
    (face,) = detector.find(drawing.picture, 256)
    assert face.box == pytest.approx((x, y + height - width, x + width, y + height), abs=1)
    assert asked["imgsz"] == 256
    assert asked["corner"] == list(drawing.picture.getpixel((0, 0)))[::-1]  # BGR
    assert min(p[0] for p in face.landmarks) > x
    assert max(p[0] for p in face.landmarks) < x + width


def test_other_weights_are_another_identity(weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    other.write_bytes(weights.read_bytes() + b"\0")
    assert identity(CropSettings(detector="yolo", yolo_weights=str(weights))) != identity(
        CropSettings(detector="yolo", yolo_weights=str(other))
    )


def test_a_file_that_is_no_yolo_is_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "face.pt"
    file.write_bytes(b"not a model")
    detector = open_detector(CropSettings(detector="yolo", yolo_weights=str(file)))
    with pytest.raises(ModelError, match=r"crop\.yolo_weights: .*face\.pt cannot be opened as an ultralytics YOLO"):
        detector.find(draw(random_identity(np.random.default_rng(3)), Scene(size_px=(64, 64))).picture, 256)
