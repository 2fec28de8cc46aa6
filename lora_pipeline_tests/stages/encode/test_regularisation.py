"""Regularisation pictures: as many looks as the subject, own captions, and never the subject's name."""

import pytest
from PIL import Image

from lora_pipeline.errors import SettingsError
from lora_pipeline.manifest import Manifest, read
from lora_pipeline.records import Example
from lora_pipeline.settings import EncodeSettings
from lora_pipeline.stages.encode import REGULARISATION, Words, encode
from lora_pipeline.stages.encode.regularisation import balanced
from lora_pipeline_tests.stages.encode.test_encode import PICTURES, TEXTS, blurred, captioned, picture_of

WORDS = Words("jx265", "woman")


@pytest.mark.parametrize(
    ("pictures", "looks", "seen"),
    [(2, 10, [5, 5]), (3, 10, [3, 3, 4]), (10, 10, [1] * 10), (12, 10, [0, 0, *[1] * 10]), (0, 10, [])],
)
def test_they_are_seen_as_often_as_the_subject_together(pictures, looks, seen):
    assert sorted(balanced([f"regularisation/{n}.jpg" for n in range(pictures)], looks).values()) == seen


def test_who_is_seen_more_often_does_not_hang_on_the_order():
    ids = [f"regularisation/{n}.jpg" for n in range(7)]
    assert balanced(ids, 10) == balanced(ids[::-1], 10)


@pytest.fixture
def others(tmp_path):
    folder = tmp_path / "women"
    (folder / "more").mkdir(parents=True)
    picture_of(11, (96, 96)).save(folder / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture_of(12, (48, 96)).save(folder / "more" / "b.jpg", exif=turned)
    (folder / "more" / "b.txt").write_text("a woman in a garden\n")
    picture_of(13, (64, 64)).save(folder / "c.png")
    (folder / "c.caption").write_text("jx265 woman, smiling")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def made(tmp_path, tiny_base, others):
    def make(**settings):
        told = EncodeSettings(resolution_px=64, bucket_step_px=16, repeats=3, caption_prefix="photo of", **settings)
        return encode(
            blurred(tmp_path / "blurred", PICTURES),
            captioned(tmp_path / "captions", TEXTS),
            tmp_path / "out",
            told,
            tiny_base,
            words=WORDS,
        )

    return make


def beside(training_set: Manifest) -> dict[str, Example]:
    return {row.id: one for row in training_set.kept if (one := Example.of(row)).regularisation}


def test_they_stand_beside_the_subject_with_their_own_words(made, others):
    alone = made().manifest
    training_set = made(regularisation_folder=str(others), prior_loss_weight=0.5).manifest
    found = beside(training_set)
    assert {id: one.caption for id, one in found.items()} == {
        "regularisation/a.png": "woman",  # no prefix, which may name the subject
        "regularisation/more/b.jpg": "a woman in a garden",
    }
    assert found["regularisation/more/b.jpg"].bucket == (96, 48)  # upright
    assert {one.loss_weight for one in found.values()} == {0.5}
    subject = [Example.of(row) for row in training_set.kept if row.id not in found]
    assert {one.loss_weight for one in subject} == {1.0}
    assert sum(one.repeats for one in subject) == sum(one.repeats for one in found.values()) == 3 * len(subject)
    assert not any(Example.of(row).regularisation for row in alone.kept)
    without = made().manifest
    assert [row.id for row in without.rows] == [row.id for row in alone.rows]


def test_what_cannot_be_used_says_why(made, others, tmp_path):
    made(regularisation_folder=str(others))
    unused = {row.id: row.reason for row in read(tmp_path / "out", REGULARISATION).rows if row.state == "failed"}
    assert set(unused) == {"regularisation/c.png", "regularisation/broken.jpg"}
    assert "names the trigger word jx265" in unused["regularisation/c.png"]


def test_a_picture_more_encodes_that_one(made, others):
    made(regularisation_folder=str(others))
    assert made(regularisation_folder=str(others)).report.computed == 0
    picture_of(14, (64, 64)).save(others / "d.png")
    again = made(regularisation_folder=str(others))
    changed = {row.id for row in again.manifest.kept if "d.png" in row.id}
    assert changed == {"regularisation/d.png"}
    assert again.report.computed == 3  # it is new, and each of the two others is seen less often


@pytest.mark.parametrize(("where", "words"), [("nowhere", "is not a folder"), ("", "holds no pictures")])
def test_a_folder_that_is_not_there_or_empty_is_told_of(made, tmp_path, where, words):
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(SettingsError, match=words):
        made(regularisation_folder=str(folder / where))
