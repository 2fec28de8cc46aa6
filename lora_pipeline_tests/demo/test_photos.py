"""The bundled subject's folder holds what its truth says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lora_pipeline.demo.faces import boxes, descriptor
from lora_pipeline.demo.photos import draw_one_more, draw_subject_photos, subject_truth


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    draw_subject_photos(place)
    return place


def test_every_file_is_in_the_truth_and_no_other(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == set(subject_truth())


def test_the_heap_has_what_real_heaps_have() -> None:
    truths = list(subject_truth().values())
    assert len(truths) == 40
    assert sum(not truth.readable for truth in truths) == 3
    assert sum(truth.duplicate_of is not None for truth in truths) == 6
    assert sum(truth.blurred for truth in truths) == 3
    assert sum(truth.orientation != 1 for truth in truths) >= 3
    assert sum(truth.gps for truth in truths) >= 3
    assert sum(len(truth.faces) > 1 for truth in truths) == 6
    assert sum(truth.scene is not None and truth.scene.glasses for truth in truths) >= 3
    assert {name.rpartition(".")[2] for name in subject_truth()} == {"jpg", "png", "webp"}


def test_upright_sizes_orientation_and_position(folder: Path) -> None:
    for name, truth in subject_truth().items():
        if not truth.readable:
            with pytest.raises(OSError, match=r"truncated|identify"), Image.open(folder / name) as picture:
                picture.load()
            continue
        with Image.open(folder / name) as picture:
            exif = picture.getexif()
            assert exif.get(0x0112, 1) == truth.orientation
            assert bool(exif.get_ifd(0x8825)) == truth.gps
            assert ImageOps.exif_transpose(picture).size == truth.size_px
            assert 400 <= max(truth.size_px) <= 1400


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    draw_subject_photos(tmp_path)
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())


def test_one_more_is_the_same_woman(folder: Path, tmp_path: Path) -> None:
    more = draw_one_more(tmp_path)
    plain = next(
        truth
        for truth in subject_truth().values()
        if truth.scene and truth.scene.framing == "close" and not truth.scene.glasses and abs(truth.scene.yaw_deg) < 8
    )
    new, known = descriptor(Image.open(more)), descriptor(ImageOps.exif_transpose(Image.open(folder / plain.name)))
    assert new is not None
    assert known is not None
    assert float(np.linalg.norm(new - known)) < 0.35


def test_the_screenshot_has_no_face(folder: Path) -> None:
    assert boxes(Image.open(folder / "Screenshot_20250309.png")) == []
