"""people.yaml: ids that do not depend on the order of finding, decisions read and written, slips of the pen told."""

from pathlib import Path

import pytest

from lora_pipeline import people
from lora_pipeline.errors import SubjectError
from lora_pipeline.people import People


def test_faces_are_counted_from_left_to_right_whatever_the_order_they_are_found_in() -> None:
    boxes = [(300, 5, 400, 105), (10, 90, 60, 140), (10, 20, 60, 70)]
    assert people.face_ids("a/b.jpg", boxes) == ["a/b.jpg#3", "a/b.jpg#2", "a/b.jpg#1"]
    assert people.face_ids("a/b.jpg", boxes[::-1]) == ["a/b.jpg#1", "a/b.jpg#2", "a/b.jpg#3"]


def test_no_file_says_nothing_and_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert people.read(tmp_path) == People()
    people.write(tmp_path, {"b.jpg#1": "subject", "a.jpg#2": "Anna", "ä #1.jpg#1": "not_a_face"})
    said = people.write(tmp_path, {"b.jpg#1": None, "a.jpg#1": "stranger"})
    assert said == people.read(tmp_path)
    assert dict(said.decisions) == {"a.jpg#1": "stranger", "a.jpg#2": "Anna", "ä #1.jpg#1": "not_a_face"}
    assert [(said.whose(id), said.name(id)) for id in ("a.jpg#1", "a.jpg#2", "ä #1.jpg#1", "b.jpg#1")] == [
        ("stranger", ""),
        ("stranger", "Anna"),
        ("not_a_face", ""),
        (None, ""),
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["people.yaml"]


def test_a_line_by_hand_is_read(tmp_path: Path) -> None:
    (tmp_path / "people.yaml").write_text("# mine\nholiday/IMG 1.jpg#2: Anna Doe   # by the sea\n")
    assert people.read(tmp_path).name("holiday/IMG 1.jpg#2") == "Anna Doe"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("- a.jpg#1", "a line a face"),
        ("a.jpg#1: 7", "is to be a face's id and a word"),
        ("a.jpg#1:", "is to be a face's id and a word"),
    ],
)
def test_what_cannot_be_read_is_said_in_words_and_not_written_over(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "people.yaml").write_text(text)
    with pytest.raises(SubjectError, match=words):
        people.read(tmp_path)
    with pytest.raises(SubjectError, match=words):
        people.write(tmp_path, {"b.jpg#1": "subject"})
    assert (tmp_path / "people.yaml").read_text() == text


def test_slips_of_the_pen_are_told_with_what_was_meant() -> None:
    said = People({"a.jpg#3": "stranger", "IMG_205.jpg#1": "subject", "a.jpg#1": "Subjekt", "a.jpg#2": "Anna"})
    assert said.doubts({"a.jpg#1", "a.jpg#2", "IMG_2055.jpg#1"}) == [
        "people.yaml speaks of IMG_205.jpg#1, which there is not; the nearest: IMG_2055.jpg#1",
        "people.yaml says that a.jpg#1 is the face of a stranger named Subjekt; did you mean subject?",
        "people.yaml speaks of a.jpg#3, which there is not; the nearest: a.jpg#1, a.jpg#2",
    ]
    assert not People({"a.jpg#1": "subject"}).doubts({"a.jpg#1"})
