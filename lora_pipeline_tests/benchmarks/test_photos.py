"""The benchmark of photos a second: its photos are many contents of few pictures, and each stage has work with all of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.photos import ask
from lora_pipeline.store import digest_file


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "DRAWN", 2)
    monkeypatch.setattr(ask, "REAL", Path("nowhere"))


@pytest.mark.usefixtures("few")
def test_a_copy_is_the_same_picture_and_another_content(tmp_path: Path) -> None:
    originals = ask.draw(tmp_path / "originals", (480, 360))
    ask.fill(tmp_path / "photos", originals, 3)
    before = digest_file(tmp_path / "photos" / "000000.jpg")
    ask.fill(tmp_path / "photos", originals, 5)
    files = sorted((tmp_path / "photos").iterdir())
    assert len(files) == len({digest_file(file) for file in files}) == 5
    assert digest_file(files[0]) == before
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert pictures[0].shape == (360, 480, 3)
    assert np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], pictures[1])


@pytest.mark.slow
@pytest.mark.usefixtures("few")
def test_what_grows_is_all_that_is_computed(tmp_path: Path) -> None:
    originals = ask.draw(tmp_path / "originals", (480, 360))
    ask.fill(tmp_path / "photos", originals, 2)
    first = ask.measured(tmp_path, {"detector": "dlib_hog"})
    ask.fill(tmp_path / "photos", originals, 3)
    second = ask.measured(tmp_path, {"detector": "dlib_hog"})
    assert [told[name] for told in (first, second) for name in ("photos", "of these new", "kept by curate")] == [
        2,
        2,
        2,
        3,
        1,
        3,
    ]
    assert int(str(second["faces"])) >= 2
    assert float(str(first["new photos a second"])) > 0
    assert 50 < int(str(first["peak MiB without files"])) < int(str(first["peak MiB"])) < 4000
