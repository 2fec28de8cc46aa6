"""Copies, as the UI shows them; and the words of weak photos on their way to the captions."""

from pathlib import Path

from PIL import Image

from lora_pipeline import flow, manifest
from lora_pipeline.assets.curate import by_group
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
