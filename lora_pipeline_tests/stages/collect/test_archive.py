"""A zip is a folder tree: same rows, same tags, and nothing is written where the zip lies."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.errors import SourceError
from lora_pipeline.manifest import Outcome, Stale, planning
from lora_pipeline.records import Photo
from lora_pipeline.settings import CollectSettings
from lora_pipeline.stages.collect import collect
from lora_pipeline.store import digest_bytes


def picture(seed: int = 0) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((80, 60), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in" / "photos.zip"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def pack(archive: Path, **members: bytes) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members.items():
            opened.writestr(name, data)


def run(archive: Path, work: Path, **settings: object) -> Outcome:
    return collect(archive, work, CollectSettings.model_validate(settings))


def states(outcome: Outcome) -> dict[str, str]:
    return {row.id: row.reason or row.state for row in outcome.manifest.rows}


def originals(work: Path) -> set[bytes]:
    return {path.read_bytes() for path in (work / "originals").iterdir()}


def test_a_zip_is_read_as_a_folder_tree(archive: Path, work: Path) -> None:
    pack(
        archive,
        **{
            "jane/a.png": picture(1),
            "jane/beach/b.png": picture(2),
            "jane/beach/b.txt": b"a caption",
            "jane/bad.png": b"no picture",
            "jane/raw.NEF": b"II*",
            "jane/.DS_Store": b"x",
            "__MACOSX/jane/._a.png": b"x",
        },
    )
    told = run(archive, work)
    assert states(told) == {
        "jane/a.png": "kept",
        "jane/beach/b.png": "kept",
        "jane/bad.png": "the file is not a picture that can be read here",
        "jane/raw.NEF": "a camera's raw file: export it as JPEG, PNG or TIFF",
    }
    photos = {row.id: Photo.of(row) for row in told.manifest.kept}
    assert photos["jane/beach/b.png"].digest == digest_bytes(picture(2))
    assert Path(photos["jane/beach/b.png"].path).read_bytes() == picture(2)
    # The one folder that all lie in tells none from another.
    assert {id: photo.tags for id, photo in photos.items()} == {"jane/a.png": (), "jane/beach/b.png": ("beach",)}
    assert [path.name for path in archive.parent.iterdir()] == ["photos.zip"]


def test_only_what_changed_is_unpacked_and_what_has_gone_is_swept(archive: Path, work: Path) -> None:
    pack(archive, **{"a.png": picture(1), "b.png": picture(2)})
    run(archive, work)
    pack(archive, **{"a.png": picture(1), "c.png": picture(3)})
    with planning(), pytest.raises(Stale) as stale:
        run(archive, work)
    assert (stale.value.would, stale.value.gone) == ({"c.png": "new"}, ("b.png",))
    told = run(archive, work)
    assert (told.report.computed, told.report.reused) == (1, 1)
    assert originals(work) == {picture(1), picture(3)}
    pack(archive, **{"a.png": picture(9), "c.png": picture(3)})
    assert run(archive, work).report.computed == 1
    assert originals(work) == {picture(9), picture(3)}
    next((work / "originals").iterdir()).unlink()  # lost: unpacked again
    assert run(archive, work).report.computed == 1
    assert originals(work) == {picture(9), picture(3)}


def test_subfolders_can_be_left_out(archive: Path, work: Path) -> None:
    pack(archive, **{"jane/a.png": picture(1), "jane/beach/b.png": picture(2)})
    assert set(states(run(archive, work, subfolders=False))) == {"jane/a.png"}


def test_a_name_that_leads_out_leads_nowhere(archive: Path, work: Path, tmp_path: Path) -> None:
    pack(archive, **{"../../escaped.png": picture(1), "/etc/absolute.png": picture(2)})
    assert set(states(run(archive, work))) == {"escaped.png", "etc/absolute.png"}
    assert not list(tmp_path.glob("**/escaped.png"))
    assert originals(work) == {picture(1), picture(2)}


def test_a_member_that_is_damaged_locked_or_huge_is_a_row(archive: Path, work: Path) -> None:
    with zipfile.ZipFile(archive, "w") as opened:
        for name in ("a.png", "good.png", "huge.png", "locked.png"):
            opened.writestr(name, picture(1))
        opened.getinfo("huge.png").file_size = 3 << 30
        opened.getinfo("locked.png").flag_bits |= 1
    data = bytearray(archive.read_bytes())
    data[60] ^= 0xFF  # inside the first member
    archive.write_bytes(data)
    found = states(run(archive, work))
    assert found.pop("a.png").startswith("it cannot be unpacked: Bad CRC-32")
    assert found == {
        "good.png": "kept",
        "huge.png": "it would be 3.0 GiB unpacked, the limit is 1 GiB",
        "locked.png": "it is encrypted: unpack the zip yourself",
    }


def test_what_is_no_zip_is_told_in_words(archive: Path, work: Path) -> None:
    archive.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SourceError, match="cannot be read as a zip"):
        run(archive, work)
    pack(archive, **{"notes.txt": b"x"})
    with pytest.raises(SourceError, match="holds no photos"):
        run(archive, work)


def test_what_is_forgotten_is_not_unpacked_again_and_comes_back_when_it_may(archive: Path, work: Path) -> None:
    pack(archive, **{"a.png": picture(1), "b.png": picture(2)})
    days = {digest_bytes(picture(1)): "2026-05-04"}
    run(archive, work)

    def forgetting() -> Outcome:
        return collect(archive, work, CollectSettings(), forgotten=days)

    assert states(forgetting()) == {"a.png": "forgotten on 2026-05-04", "b.png": "kept"}
    assert originals(work) == {picture(2)}
    forgetting()
    assert forgetting().report.computed == 0
    assert states(collect(archive, work.with_name("new"), CollectSettings(), forgotten=days))["a.png"] != "kept"
    assert originals(work.with_name("new")) == {picture(2)}
    assert states(run(archive, work)) == {"a.png": "kept", "b.png": "kept"}
    assert originals(work) == {picture(1), picture(2)}

    pack(archive, **{"a.png": picture(1)})
    collect(archive, work.with_name("alone"), CollectSettings(), forgotten=days)
    assert originals(work.with_name("alone")) == set()
