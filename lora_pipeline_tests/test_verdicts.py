"""`photos.yaml`: what a person decided of photos."""

from pathlib import Path

import pytest

from lora_pipeline import verdicts
from lora_pipeline.errors import SubjectError


def test_what_is_written_is_read_and_taken_out(tmp_path: Path) -> None:
    assert verdicts.read(tmp_path) == {}
    verdicts.write(tmp_path, {"b.jpg": "drop", "holiday/a.jpg": "keep"})
    verdicts.write(tmp_path, {"c.jpg": "keep", "b.jpg": None, "not there.jpg": None})
    assert verdicts.read(tmp_path) == {"c.jpg": "keep", "holiday/a.jpg": "keep"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.jpg: dorp\n", "did you mean drop?"),
        ("a.jpg: yes\n", "say keep or drop"),
        ("- a.jpg\n", "a line a photo"),
        ("a.jpg: [", "is not YAML"),
    ],
)
def test_a_slip_of_the_pen_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / verdicts.FILE).write_text(text)
    with pytest.raises(SubjectError, match=told.replace("?", r"\?")):
        verdicts.read(tmp_path)


def test_a_verdict_on_no_photo_is_told_with_the_nearest_one() -> None:
    told = verdicts.doubts({"IMG_1.jpg": "drop", "IMG_2.jpg": "keep"}, ["IMG_2.jpg", "IMG_1.jpeg"])
    assert told == ["photos.yaml speaks of IMG_1.jpg, which there is not; the nearest: IMG_1.jpeg"]
