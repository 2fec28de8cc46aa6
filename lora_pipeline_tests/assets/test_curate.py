"""Copies, as the UI shows them; and the words of weak photos on their way to the captions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_pipeline import flow, manifest
from lora_pipeline.assets.curate import by_group, framed_photos, framed_sheet
from lora_pipeline.flow import Work
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Crop, File, Quality, Row
from lora_pipeline.store import Store, digest_file
from lora_pipeline.subject import Subject


def quality(id: str, duplicates: str = "", tokens: tuple[str, ...] = ()) -> Row:
    told = Quality(f"/photos/{id}", "d", 9, 9, (0, 0, 9, 9), 1.0, 0.5, 0.2, "0" * 16, duplicates, tokens=tokens)
    return Row(id, "k", data=told.data())


def test_copies_stand_group_by_group_the_best_first(tmp_path: Path) -> None:
    rows = [quality("c.jpg", "c.jpg"), quality("a.jpg", "c.jpg"), quality("z.jpg", "b.jpg"), quality("b.jpg", "b.jpg")]
    assert by_group(Manifest(tmp_path, (*rows, quality("alone.jpg"), Row("broken.jpg", "k", "failed", "empty")))) == [
        ("b.jpg", "1 best b.jpg"),
        ("z.jpg", "1 copy z.jpg"),
        ("c.jpg", "2 best c.jpg"),
        ("a.jpg", "2 copy a.jpg"),
    ]


def test_bars_and_writing_are_framed(tmp_path: Path) -> None:
    rows: list[Row] = []
    told: list[Row] = []
    for id, trim, lines in (
        ("plain.jpg", (0, 0, 800, 800), ()),
        ("bars.jpg", (0, 100, 800, 700), ()),
        ("text.jpg", (0, 0, 800, 800), ((200, 400, 600, 480),)),
    ):
        Image.new("RGB", (320, 320), "white").save(tmp_path / f"{id}.png")
        thumbnail = File(f"{id}.png", digest_file(tmp_path / f"{id}.png"))
        rows.append(Row(id, "k", files={"thumbnail": thumbnail}))
        measured = Quality(f"/photos/{id}", "d", 800, 800, trim, 1.0, 0.5, 0.2, "0" * 16, text_boxes=lines)
        told.append(Row(id, "k", "dropped", "blurred", data=measured.data()))
    source, made = (
        Manifest(tmp_path, tuple(rows)),
        Manifest(tmp_path, (*told, Row("broken.jpg", "k", "failed", "empty"))),
    )
    framed = framed_photos(source, made)
    assert [id for id, _ in framed] == ["text.jpg", "bars.jpg"]
    sheet = np.asarray(framed_sheet(source, framed)).astype(int)
    red = np.argwhere((sheet[..., 0] > 200) & (sheet[..., 1:].max(-1) < 60))
    blue = np.argwhere((sheet[..., 2] > 200) & (sheet[..., 0] < 60))
    high, wide = np.ptp(red, axis=0)
    assert wide / high == pytest.approx(400 / 80, rel=0.2)
    high, wide = np.ptp(blue, axis=0)
    assert wide / high == pytest.approx(800 / 600, rel=0.05)


def test_the_words_of_a_weak_photo_reach_its_captions(tmp_path: Path) -> None:
    given = {"name": "thing", "kind": "pet", "photos": tmp_path, "trigger": "zx1", "class": "dog", "recipe": "sd15_pet"}
    subject = Subject.model_validate(given)
    work = Work(Store(tmp_path / "data"), subject, subject.whole_settings())
    manifest.write(work.folder("curate"), [quality("a.jpg", tokens=("blurry", "noisy")), quality("b.jpg")])
    rows: list[Row] = []
    folder = work.folder("conceal")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "white").save(folder / f"{name}.png")
        crop = Crop(f"{name}.jpg", "whole", (0, 0, 64, 64), 64, 64)
        picture = File(f"{name}.png", digest_file(folder / f"{name}.png"))
        rows.append(Row(f"{name}.jpg@whole", "k", data=crop.data(), files={"picture": picture}))
    manifest.write(folder, rows)
    told = {row.id: row.data["text"] for row in flow.describe(work).manifest.rows}
    assert told == {
        "a.jpg@whole": "zx1 dog, white background, bright light, blurry, noisy",
        "b.jpg@whole": "zx1 dog, white background, bright light",
    }
