"""What a source knows of a photo goes with it from room to room: folders into the caption, a marked face into the crop."""

import io
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_pipeline import flow
from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject, new

SETTINGS = {
    "curate": {"min_side_px": 64, "min_sharpness": 0, "min_contrast": 0, "max_noise": 255, "keep_duplicates": True},
    "crop": {"size_px": 64, "search_px": 480, "same_person_distance": 0.45, "framings": ["close"]},
    "describe": {"folder_tags": True},
}


def work(tmp_path: Path, kind: str, **given: Any) -> flow.Work:
    store = Store(tmp_path / "data")
    tree = {"name": "mug", "kind": kind, "trigger": "zx1", "class": "mug", "recipe": "bundled_person", **given}
    new(store, Subject.model_validate({**tree, "settings": SETTINGS}))
    return flow.work(store, "mug")


def test_folders_of_a_zip_stand_in_the_captions(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mug.zip", "w") as archive:
        for name in ("a.png", "kitchen/b.png"):
            buffer = io.BytesIO()
            Image.effect_noise((96, 96), 60).convert("RGB").save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
    mug = work(tmp_path, "style", photos=tmp_path / "mug.zip")
    for stage in (flow.collect, flow.curate, flow.crop, flow.conceal, flow.describe):
        made = stage(mug).manifest
    captions = {str(row.data["photo"]): str(row.data["text"]) for row in made.kept}
    assert captions["kitchen/b.png"].startswith("zx1 mug, kitchen, ")
    assert "kitchen" not in captions["a.png"]
    assert flow.status(mug)[4].fresh


@pytest.mark.parametrize("marked", [0, 1])
def test_whom_photoprism_names_is_who_is_cropped(tmp_path: Path, marked: int) -> None:
    """Two people on one photo: nothing else could say which of them is meant."""
    people = [random_identity(np.random.default_rng(seed), word) for seed, word in ((3, "woman"), (8, "man"))]
    drawn = draw(people[0], Scene("medium", size_px=(480, 360), others=(people[1],)))
    drawn.picture.save(tmp_path / "both.png")
    x, y, w, h = drawn.faces[marked].box
    with closing(sqlite3.connect(tmp_path / "index.db", isolation_level=None)) as index:
        index.executescript(
            f"""
            CREATE TABLE subjects (subj_uid, subj_name, subj_alias, subj_type, deleted_at);
            CREATE TABLE photos (id, photo_private, deleted_at);
            CREATE TABLE files (photo_id, file_uid, file_name, file_root, file_missing, deleted_at);
            CREATE TABLE markers (marker_uid, file_uid, marker_type, marker_invalid, subj_uid, x, y, w, h);
            INSERT INTO subjects VALUES ('j1', 'Mug', '', 'person', NULL);
            INSERT INTO photos VALUES (1, 0, NULL);
            INSERT INTO files VALUES (1, 'f1', 'both.png', '/', 0, NULL);
            INSERT INTO markers VALUES ('m1', 'f1', 'face', 0, 'j1', {x / 480}, {y / 360}, {w / 480}, {h / 360});
            """
        )
    library = {"person": "Mug", "database": str(tmp_path / "index.db"), "originals": str(tmp_path)}
    mug = work(tmp_path, "person", source={"photoprism": library})
    for stage in (flow.collect, flow.curate, flow.crop):
        made = stage(mug).manifest
    (cut,) = made.kept
    left, _, right, _ = cut.data["region"]
    assert left < x + w / 2 < right
    other = drawn.faces[1 - marked].box
    assert not left < other[0] + other[2] / 2 < right
