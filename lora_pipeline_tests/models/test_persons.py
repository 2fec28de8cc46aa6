"""YOLO as a person detector: ultralytics' real class, built without weights, finds what it finds through our protocol."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.errors import ModelError
from lora_pipeline.models import persons, yolo
from lora_pipeline.models.persons import YoloPersons, open_person_detector

PEOPLE, DOGS = 1, 0


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real architecture (yolov8n, from its own description, with two classes), weights random."""
    home = tmp_path_factory.mktemp("yolo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_CONFIG_DIR", str(home))
        import torch

        opened: Any = yolo.ultralytics_yolo()("yolov8n.yaml")
        from ultralytics.nn.tasks import DetectionModel

        with torch.random.fork_rng():
            torch.manual_seed(0)
            opened.model = DetectionModel("yolov8n.yaml", nc=2, verbose=False)
        opened.model.names = {DOGS: "dog", PEOPLE: "Person"}
        opened.save(home / "both.pt")
        opened.model.names = {DOGS: "dog", PEOPLE: "cat"}
        opened.save(home / "animals.pt")
    return home / "both.pt"


@pytest.mark.slow
def test_random_weights_run_and_only_people_count(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = YoloPersons.open(str(weights))
    picture = draw(random_identity(np.random.default_rng(3)), Scene("full", size_px=(300, 220))).picture
    assert detector.network.find(picture, 320, 0.0, [DOGS])
    everybody = detector.network.find(picture, 320, 0.0, [PEOPLE])
    monkeypatch.setattr(persons, "SURE", 0.0)
    found = detector.find(picture, 320)
    assert found
    assert {score for _, score in found} <= {round(score, 3) for _, score in everybody}
    for left, top, right, bottom in (box for box, _ in found):
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 220


@pytest.mark.slow
def test_what_a_trained_one_says_is_rounded_and_cut_to_the_picture(weights: Path) -> None:
    detector = YoloPersons.open(str(weights))
    asked: dict[str, Any] = {}

    class Answers:
        names = {DOGS: "dog", PEOPLE: "Person"}

        def predict(self, _pixels: np.ndarray, **how: Any) -> list[Any]:
            import torch

            asked.update(how)
            boxes = type("Boxes", (), {})()
            boxes.xyxy = torch.tensor([[10.4, -3.0, 60.6, 99.7], [50.0, 20.0, 120.0, 110.0]])
            boxes.conf = torch.tensor([0.91239, 0.5])
            return [type("Result", (), {"boxes": boxes})()]

    vars(detector.network)["_model"] = Answers()
    assert detector.find(Image.new("RGB", (100, 100)), 256) == [
        ((10, 0, 61, 100), 0.912),
        ((50, 20, 100, 100), 0.5),
    ]
    assert asked["classes"] == [PEOPLE]
    assert asked["conf"] == persons.SURE


@pytest.mark.slow
def test_weights_that_know_no_person_are_refused_in_words(weights: Path) -> None:
    detector = open_person_detector(str(weights.with_name("animals.pt")))
    with pytest.raises(ModelError, match=r"crop\.yolo_person_weights: .*animals\.pt knows no class 'person'.*dog, cat"):
        detector.find(Image.new("RGB", (64, 64)), 64)


def test_a_missing_file_is_refused_in_words() -> None:
    with pytest.raises(
        ModelError, match=r"crop\.yolo_person_weights names nowhere\.pt, which is not there; .*yolov8n\.pt"
    ):
        open_person_detector("nowhere.pt")


def test_other_weights_are_another_identity(tmp_path: Path) -> None:
    for name, told in (("a.pt", b"1"), ("b.pt", b"2"), ("c.pt", b"1")):
        (tmp_path / name).write_bytes(told)
    a, b, c = (open_person_detector(str(tmp_path / name)).identity for name in ("a.pt", "b.pt", "c.pt"))
    assert a == c != b
