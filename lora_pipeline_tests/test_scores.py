"""What the flow hands to the scores: whose faces epochs are measured by, and who judges prompts."""

from dataclasses import replace
from pathlib import Path

import pytest

from lora_pipeline import flow
from lora_pipeline.demo.attributes import Attributes
from lora_pipeline.errors import ModelError
from lora_pipeline.flow import Work
from lora_pipeline.manifest import Stale, planning, write
from lora_pipeline.recipes import bundled_person
from lora_pipeline.records import Checkpoint, Face, File, Row
from lora_pipeline.settings import Settings
from lora_pipeline.stages.crop.whose import write_decided
from lora_pipeline.store import Store, digest_bytes
from lora_pipeline.subject import Subject


@pytest.fixture
def work(tmp_path: Path) -> Work:
    subject = Subject(
        name="ann", kind="person", photos=tmp_path, trigger="zx9", class_word="woman", recipe="sd15_person"
    )
    return Work(Store(tmp_path), subject, bundled_person())


def face(photo: str, at: float, whose="subject") -> Face:
    return Face(photo, (0, 0, 9, 9), 1.0, (), (at, 0.0), 0.0, whose)


def test_held_out_photos_are_what_epochs_are_measured_by_if_they_show_the_subject(work: Work) -> None:
    faces = {"a.jpg": (face("a.jpg", 1.0), face("a.jpg", 9.0, "stranger")), "b.jpg": (face("b.jpg", 2.0),), "c.jpg": ()}
    folder = work.folder("crop")
    folder.mkdir(parents=True, exist_ok=True)
    write_decided(folder, faces)
    assert flow._whose_faces(work, set()) == ([(1.0, 0.0), (2.0, 0.0)], [])
    assert flow._whose_faces(work, {"b.jpg"}) == ([(2.0, 0.0)], [(1.0, 0.0)])
    assert flow._whose_faces(work, {"c.jpg"}) == ([(1.0, 0.0), (2.0, 0.0)], [])


def test_the_drawn_world_is_judged_by_its_reader_and_others_by_what_is_named(tmp_path: Path) -> None:
    embedders, (judge,) = flow._scorers(bundled_person())
    assert embedders == {}
    assert isinstance(judge, Attributes)
    assert flow._scorers(Settings()) == ({}, [])
    for name in ("clip_model", "dino_model"):
        with pytest.raises(ModelError, match=rf"grade\.{name} names the folder"):
            flow._scorers(Settings().changed({"grade": {name: str(tmp_path)}}, "test"))


def test_pictures_of_others_are_drawn_beside_those_of_the_subject(work: Work) -> None:
    folder = work.folder("fit")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "e1").write_bytes(b"1")
    checkpoint, lora = Checkpoint(1, "r", "s", 0.1, 1e-4, 9), File("e1", digest_bytes(b"1"))
    write(folder, [Row("0001", "k", data=checkpoint.data(), files={"lora": lora})])

    def drawn(work: Work) -> int:
        with planning(), pytest.raises(Stale) as stale:
            flow.draw(work)
        return stale.value.total

    without = replace(work, settings=work.settings.changed({"grade": {"other_prompts": ()}}, "test"))
    assert drawn(without) == 2 * 6 * 6  # the base model and an epoch, prompts, seeds
    assert drawn(work) == 2 * 7 * 6
    stronger = replace(work, settings=work.settings.changed({"grade": {"strengths": (0.5, 1)}}, "test"))
    assert drawn(stronger) == (1 + 2) * 6 * 6 + 2 * 1 * 6  # no score needs others at another strength
