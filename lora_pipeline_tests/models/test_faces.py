"""Faces are found where they were drawn, told apart, and what is missing is said in words."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from lora_pipeline.demo.world import Identity, Scene, draw, random_identity
from lora_pipeline.errors import ModelError
from lora_pipeline.models.dlib_faces import CNN, LANDMARKS, cut_to, merged, model_file
from lora_pipeline.models.faces import FaceDetector, face_reader, identity, open_detector
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.framing import iou

SCENE = Scene("medium", size_px=(640, 480))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return open_detector(CropSettings())


@pytest.fixture(scope="module")
def people() -> tuple[Identity, Identity]:
    return random_identity(np.random.default_rng(3), "woman"), random_identity(np.random.default_rng(8), "man")


def corners(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return (box[0], box[1], box[0] + box[2], box[1] + box[3])


def test_every_face_is_found_once_where_it_was_drawn(detector: FaceDetector, people: tuple[Identity, Identity]) -> None:
    drawing = draw(people[0], replace(SCENE, others=(people[1],)))
    found = detector.find(drawing.picture, 640)
    assert len(found) == 2
    for truth in drawing.faces:
        assert max(iou(face.box, corners(truth.box)) for face in found) > 0.5
    assert [face.confidence for face in found] == sorted((face.confidence for face in found), reverse=True)


def test_landmarks_are_eyes_and_nose_in_the_written_order(
    detector: FaceDetector, people: tuple[Identity, Identity]
) -> None:
    (face,) = detector.find(draw(people[0], Scene("close", size_px=(400, 400))).picture, 400)
    (right_outer, right_inner, left_outer, left_inner, nose) = face.landmarks
    assert left_outer[0] < left_inner[0] < nose[0] < right_inner[0] < right_outer[0]
    assert nose[1] > max(right_outer[1], left_outer[1])


def test_a_face_cut_in_half_by_the_border_is_found(detector: FaceDetector, people: tuple[Identity, Identity]) -> None:
    drawing = draw(people[0], Scene("close", size_px=(600, 600)))
    left, _, width, _ = drawing.faces[0].box
    half = drawing.picture.crop((round(left + 0.45 * width), 0, 600, 600))
    (face,) = detector.find(half, 600)
    assert face.box[0] == 0
    assert face.box[2] <= half.width


def test_a_small_face_is_found_by_the_second_search(detector: FaceDetector, people: tuple[Identity, Identity]) -> None:
    drawing = draw(people[0], Scene("full", size_px=(900, 900)))
    found = detector.find(drawing.picture, 330)  # 45 px high at this size
    assert [iou(face.box, corners(drawing.faces[0].box)) > 0.4 for face in found] == [True]


def test_a_descriptor_knows_the_same_person_again(detector: FaceDetector, people: tuple[Identity, Identity]) -> None:
    def descriptor(person: Identity, scene: Scene) -> np.ndarray:
        picture = draw(person, scene).picture
        return np.array(detector.describe(picture, detector.find(picture, 400)[0]))

    scene = Scene("close", size_px=(400, 400))
    first, again = descriptor(people[0], scene), descriptor(people[0], replace(scene, shirt_colour="red", tilt_deg=4.0))
    other = descriptor(people[1], scene)
    assert first.shape == (128,)
    assert np.linalg.norm(first - again) < 0.35 < np.linalg.norm(first - other)


def test_the_reader_sees_the_largest_face_of_a_small_picture(people: tuple[Identity, Identity]) -> None:
    read = face_reader(CropSettings())
    both = draw(people[0], replace(SCENE, others=(people[1],), size_px=(192, 144))).picture
    alone = draw(people[0], Scene("close", size_px=(128, 128))).picture
    seen, known = read(both), read(alone)
    assert seen is not None
    assert known is not None
    assert np.linalg.norm(np.array(seen.descriptor) - np.array(known.descriptor)) < 0.45
    assert (seen.count, known.count) == (2, 1)
    assert seen.height < 0.4 < known.height < 1
    assert read(alone.crop((0, 0, 30, 30))) is None


def test_equal_detectors_have_equal_identities_and_others_do_not() -> None:
    hog = identity(CropSettings())
    assert hog == identity(CropSettings(size_px=256))
    assert hog != identity(CropSettings(detector="dlib_cnn"))


def test_weights_that_are_missing_are_named_with_their_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"crop\.yolo_weights is empty.*face_yolov8n\.pt"):
        open_detector(CropSettings(detector="yolo"))
    with pytest.raises(ModelError, match=r"crop\.yolo_weights names nowhere\.pt, which is not there"):
        open_detector(CropSettings(detector="yolo", yolo_weights="nowhere.pt"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="pip install 'face_recognition_models"):
        model_file(LANDMARKS)


def test_opening_reads_no_weights() -> None:
    detector = open_detector(CropSettings(detector="dlib_cnn"))
    assert detector.weights[-1].name == CNN
    assert not {"_cnn", "_hog"} & set(vars(detector))


def test_duplicates_are_merged_and_the_surer_one_stays() -> None:
    finds = [
        ((0.0, 0.0, 100.0, 100.0), 0.5),
        ((10.0, 5.0, 115.0, 110.0), 1.5),
        ((30.0, 30.0, 60.0, 60.0), 0.2),
        ((200.0, 0.0, 300.0, 100.0), 0.3),
    ]
    assert merged(finds) == [finds[1], finds[3]]
    assert merged(reversed(finds)) == merged(finds)


def test_boxes_are_cut_to_the_picture_and_those_outside_it_are_none() -> None:
    assert cut_to((-20.0, 10.0, 30.4, 60.0), 100, 50) == (0, 10, 30, 50)
    assert cut_to((-90.0, 10.0, 10.0, 60.0), 100, 100) is None
    assert cut_to((200.0, 10.0, 250.0, 60.0), 100, 100) is None
