"""Regularisation pictures: as many looks as the subject, own captions, and never the subject's name."""

import datetime
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.balance import balanced
from lora_pipeline.errors import SettingsError
from lora_pipeline.families import stock
from lora_pipeline.flow import Work, pool
from lora_pipeline.manifest import Manifest, read, write
from lora_pipeline.records import Example
from lora_pipeline.settings import BaseSettings, EncodeSettings, Settings
from lora_pipeline.stages.encode import REGULARISATION, Pooled, Words, encode
from lora_pipeline.stages.encode.generated import Painter
from lora_pipeline.store import Store
from lora_pipeline.subject import Consent, Subject, new
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
    def make(pool=(), base=tiny_base, **settings):
        told = EncodeSettings(resolution_px=64, bucket_step_px=16, repeats=3, caption_prefix="photo of", **settings)
        return encode(
            blurred(tmp_path / "blurred", PICTURES),
            captioned(tmp_path / "captions", TEXTS),
            tmp_path / "out",
            told,
            base,
            words=WORDS,
            pool=pool,
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


BEA = {
    "x.jpg#0@close": (21, (64, 64), (0, 0, 8, 8)),
    "x.jpg#0@full": (22, (64, 64), None),
    "y.jpg#0@close": (23, (48, 96), None),
}


@pytest.fixture
def bea(tmp_path, monkeypatch):
    """Another subject. (Random weights see everywhere; trained ones, as here, only a little beyond a mask.)"""
    monkeypatch.setattr(stock, "measured_reach_px", lambda *_: 8)
    made = blurred(tmp_path / "bea", BEA)
    return replace(made, rows=tuple(row.with_data(photo_digest=str(row.data["photo"])) for row in made.rows))


def unused(folder):
    return {row.id: row.reason for row in read(folder, REGULARISATION).rows if row.state != "kept"}


def test_other_subjects_stand_beside_under_the_class_word_alone(made, bea, tmp_path):
    cleo = Pooled("cleo", Manifest(tmp_path, ()), "the consent of Cleo is not recorded as covering it")
    training_set = made(pool=[Pooled("bea", bea), cleo], regularisation_pool=True).manifest
    found = beside(training_set)
    assert {id: (one.photo, one.caption, one.photo_digest) for id, one in found.items()} == {
        f"pool/bea/{id}": (f"pool/bea/{id[:5]}", "woman", id[:5]) for id in BEA
    }
    assert sum(one.repeats for one in found.values()) == 3 * 3
    assert unused(tmp_path / "out") == {"pool/cleo": "the consent of Cleo is not recorded as covering it"}
    # what is hidden in a picture of hers stays out of the loss here too
    shown = {row.id: row for row in read(tmp_path / "out", "latents").kept}
    assert shown["pool/bea/x.jpg#0@close"].data["hidden"] > 0
    assert shown["pool/bea/x.jpg#0@full"].data["hidden"] == 0


def test_a_photo_that_is_the_subjects_too_does_not_stand_beside_it(tiny_base, bea, tmp_path):
    mine = Manifest(bea.folder, tuple(row.with_data(photo_digest="y.jpg") for row in bea.rows[:1]))
    training_set = encode(
        mine,
        captioned(tmp_path / "mine", {mine.rows[0].id: "jx265 woman"}),
        tmp_path / "out",
        EncodeSettings(resolution_px=64, bucket_step_px=16, repeats=4, regularisation_pool=True),
        tiny_base,
        words=WORDS,
        pool=[Pooled("bea", bea)],
    ).manifest
    assert set(beside(training_set)) == {"pool/bea/x.jpg#0@close", "pool/bea/x.jpg#0@full"}
    assert unused(tmp_path / "out") == {"pool/bea/y.jpg#0@close": "its photo is one of this subject's too"}


@pytest.mark.parametrize(
    ("refused", "words"),
    [("no consent", "bea: no consent"), ("", "bea: has no pictures yet"), (None, "no other subject is a woman")],
)
def test_a_pool_without_a_picture_is_told_of(made, tmp_path, refused, words):
    others = [] if refused is None else [Pooled("bea", Manifest(tmp_path, ()), refused)]
    with pytest.raises(SettingsError, match=words):
        made(pool=others, regularisation_pool=True)


def subject(name, photos, consent=True, **changes):
    agreed = Consent(given_by=name, given_on=datetime.date(2026, 1, 1), scope="hers", regularisation=bool(consent))
    told = {"kind": "person", "trigger": f"zx{name}", "class": "woman", "recipe": "sd15_person"} | changes
    return Subject.model_validate(
        {"name": name, "photos": photos, "consent": None if consent is None else agreed, **told}
    )


def test_only_who_agreed_and_is_of_the_class_is_in_the_pool(tmp_path):
    store, photos = Store(tmp_path / "data"), tmp_path
    lapsed = subject("lapsed", photos)
    ended = lapsed.consent.model_copy(update={"until": datetime.date(2026, 1, 2)})
    for one in (
        subject("jane", photos),
        lapsed.model_copy(update={"consent": ended}),
        subject("agreed", photos, **{"class": "Woman"}),
        subject("own_use", photos, consent=False),
        subject("unasked", photos, consent=None),
        subject("again", photos, trigger="ZXjane"),
        subject("bob", photos, **{"class": "man"}),
        subject("doll", photos, consent=None, kind="product"),
    ):
        new(store, one)
    work = Work(store, subject("jane", photos), Settings())
    write(store.work("agreed", "conceal"), blurred(tmp_path / "made", BEA).rows)
    found = {one.name: one for one in pool(work)}
    assert set(found) == {"agreed", "own_use", "unasked", "again", "lapsed"}
    assert (found["agreed"].refused, len(found["agreed"].pictures.kept)) == ("", 3)
    assert "set regularisation: true under consent in own_use/subject.yaml" in found["own_use"].refused
    assert found["unasked"].refused == "nobody's consent is recorded"
    assert "same trigger word" in found["again"].refused
    assert "the consent of lapsed ended on 2026-01-02" in found["lapsed"].refused
    dog = Work(store, subject("rex", photos, kind="product", consent=None), Settings())
    assert {one.name: one.refused for one in pool(dog)} == {"doll": ""}  # a thing need not agree


@pytest.mark.slow
def test_the_base_draws_them_from_fixed_seeds_once(made, tmp_path, monkeypatch):
    def drawn(count):
        return made(
            base=BaseSettings(model="bundled"),
            regularisation_generated=count,
            regularisation_sampling_steps=2,
            regularisation_guidance_scale=2.0,
        )

    def pixels(row):
        return np.asarray(Image.open(read(tmp_path / "out", REGULARISATION).path(row)))

    found = beside(drawn(2).manifest)
    assert {id: one.caption for id, one in found.items()} == {
        "generated/0001": "a photo of a woman",
        "generated/0002": "a photo of a woman",
    }
    first, second = read(tmp_path / "out", REGULARISATION).kept
    assert (pixels(first).shape, found["generated/0001"].bucket) == ((64, 64, 3), (64, 64))
    assert pixels(first).std() > 5
    assert (pixels(first) != pixels(second)).any()
    assert {one.photo_digest for one in found.values()} == {row.files["picture"].digest for row in (first, second)}

    seeds, draw = [], Painter.draw
    monkeypatch.setattr(Painter, "draw", lambda *given: seeds.append(given[2]) or draw(*given))
    assert drawn(2).report.computed == 0
    assert seeds == []
    read(tmp_path / "out", REGULARISATION).path(first).unlink()
    drawn(3)
    assert seeds == [1, 3]
    again = read(tmp_path / "out", REGULARISATION)
    assert again.rows[:2] == (first, second)  # the same seed drew the same bytes
