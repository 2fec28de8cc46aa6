"""A picture folder of sd-scripts becomes a subject."""

from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline.errors import SubjectError
from lora_pipeline.kohya import Imported, read
from lora_pipeline.stages.collect import find
from lora_pipeline.stages.describe.hand import written


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The GUI's project: img/12_jx265 woman with three photos, two of which have captions."""
    folder = tmp_path / "project" / "img" / "12_jx265 young woman"
    folder.mkdir(parents=True)
    for name in ("IMG_1.jpg", "IMG_2.v2.png", "IMG_3.jpg"):
        Image.new("RGB", (80, 60), "teal").save(folder / name)
    (folder / "IMG_1.txt").write_text("jx265, close portrait, red shirt\n")
    (folder / "IMG_2.v2.caption").write_text("standing on a beach\nand nothing more\n")
    (tmp_path / "project" / "log").mkdir()
    return folder


def told(found: Imported) -> str:
    return found.table()


@pytest.mark.parametrize("up", [0, 1, 2], ids=["the folder", "img", "project"])
def test_repeats_trigger_class_and_captions(pictures, up):
    found = read([pictures, pictures.parent, pictures.parent.parent][up])
    assert (found.photos, found.trigger, found.class_word) == (pictures, "jx265", "young woman")
    assert found.changes == {
        "encode": {"repeats": 12},
        "crop": {"framings": ["whole"]},
        "collect": {"subfolders": False},
    }
    assert found.captions == {"IMG_1.txt": "jx265, close portrait, red shirt", "IMG_2.v2.txt": "standing on a beach"}
    assert found.recipe == "sd15_person"


def test_the_captions_are_found_by_the_photos_of_collect(pictures, tmp_path):
    found = read(pictures)
    for name, text in found.captions.items():
        (tmp_path / name).write_text(text)
    by_photo = {photo.id: written(tmp_path, photo.id) for photo in find(pictures, subfolders=False)}
    texts = {id: by_hand and by_hand.text for id, by_hand in by_photo.items()}
    assert texts == {
        "IMG_1.jpg": "jx265, close portrait, red shirt",
        "IMG_2.v2.png": "standing on a beach",
        "IMG_3.jpg": None,
    }


def test_what_a_person_should_know_is_told(pictures):
    (pictures / "IMG_1.caption").write_text("another\n")
    (pictures / "gone.txt").write_text("of no photo\n")
    (pictures / "meta.npz").write_bytes(b"")
    (pictures / "more").mkdir()
    table = told(read(pictures))
    for words in (
        "IMG_1.txt is taken",
        "only its first line is a caption",
        "no photo has its name",
        "neither picture nor caption",
        "sd-scripts does not look into it",
        "without the trigger word, for one IMG_2.v2.txt: 'jx265 young woman, ' is put first",
        "without a caption, for one IMG_3: describe.captioner writes them, where sd-scripts would take 'jx265 young woman'",
    ):
        assert words in table


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe", "not UTF-8"), (b"\n", "first line is empty"), (b"", "first line is empty")]
)
def test_a_caption_that_is_none_is_left_out_and_told(pictures, content, words):
    (pictures / "IMG_1.txt").write_bytes(content)
    found = read(pictures)
    assert "IMG_1.txt" not in found.captions
    assert words in told(found)


def test_folders_beside_are_told(pictures):
    (pictures.parent / "old").mkdir()
    regular = pictures.parent.parent / "reg" / "1_woman"
    regular.mkdir(parents=True)
    table = told(read(pictures.parent.parent))
    assert "no repeats in its name" in table
    assert "regularisation pictures: set encode.regularisation_folder" in table


def test_what_is_no_such_folder_is_told_in_words(pictures, tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(SubjectError, match="neither it nor a folder in it is named <repeats>_<token> <class>"):
        read(tmp_path / "plain")
    (pictures.parent / "3_tom man").mkdir()
    with pytest.raises(SubjectError, match=r"has 2 picture folders .*import each by itself"):
        read(pictures.parent)
    with pytest.raises(SubjectError, match="holds no pictures"):
        read(pictures.parent / "3_tom man")


def test_repeats_out_of_range_and_a_missing_class_are_told(pictures):
    found = read(pictures.rename(pictures.with_name("5000_jx265")))
    assert "encode" not in found.changes
    assert "encode.repeats: Input should be less than or equal to 1000" in told(found)
    assert "say --class" in told(found)
