"""A folder as real folders are, and a row for each thing in it that is meant to be a photo."""

import os
import socket
import time
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from lora_pipeline import manifest
from lora_pipeline.errors import SubjectError
from lora_pipeline.manifest import Outcome, Report, Stale, read
from lora_pipeline.records import Photo
from lora_pipeline.settings import CollectSettings
from lora_pipeline.stages.collect import CODE_VERSION, collect
from lora_pipeline.store import digest_file

REAL = Path(__file__).parents[4] / "shared" / "data"


def draw(path: Path, size: tuple[int, int] = (80, 60), seed: int = 0, **told: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path, **told)
    return path


def run(photos: Path, work: Path, **settings: object) -> Outcome:
    return collect(photos, work, CollectSettings.model_validate(settings))


def counts(report: Report) -> tuple[int, int, int, int]:
    return report.computed, report.reused, report.dropped, report.failed


def states(outcome: Outcome) -> dict[str, str]:
    return {row.id: row.reason or row.state for row in outcome.manifest.rows}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def test_a_row_says_what_the_photo_is(photos: Path, work: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0132] = "2026:03:01 12:30:00"
    file = draw(photos / "trip" / "a.jpg", (640, 480), exif=exif)
    told = run(photos, work)
    (row,) = told.manifest.kept
    assert row.id == "trip/a.jpg"
    assert Photo.of(row) == Photo(str(file), digest_file(file), 480, 640, "JPEG", "2026:03:01 12:30:00", ("trip",))
    assert told.manifest == read(work)
    assert CODE_VERSION == "2"


@pytest.mark.parametrize(
    ("size", "expected"), [((1600, 900), (320, 180)), ((300, 1500), (64, 320)), ((80, 60), (80, 60))]
)
def test_thumbnails(photos: Path, work: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    draw(photos / "a.png", size)
    made = run(photos, work).manifest
    path = made.path(made.rows[0], "thumbnail")
    assert path.parent.name == "thumbnails"
    with Image.open(path) as thumbnail:
        assert (thumbnail.format, thumbnail.mode, thumbnail.size) == ("JPEG", "RGB", expected)


def test_no_position_is_in_anything_made(photos: Path, work: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret description"
    exif[0x0112] = 8
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 22.0, 14.0), 3: "E", 4: (4.0, 53.0, 42.0)})
    draw(photos / "a.jpg", (400, 300), exif=exif)
    heif = pillow_heif.from_pillow(Image.new("RGB", (64, 48), "red"))
    heif.save(photos / "b.heic", exif=exif.tobytes())
    made = run(photos, work).manifest
    assert len(made.kept) == 2
    for file in work.rglob("*.*"):
        assert b"secret" not in file.read_bytes()
        assert b"GPS" not in file.read_bytes()
    for row in made.kept:
        with Image.open(made.path(row, "thumbnail")) as thumbnail:
            assert dict(thumbnail.getexif()) == {}
            assert thumbnail.height > thumbnail.width  # turned, since nothing says any more that it must be


def test_what_is_no_photo_fails_with_a_reason_and_stops_no_other(photos: Path, work: Path) -> None:
    whole = draw(photos / "good.jpg").read_bytes()
    for name, data in (
        ("empty.jpg", b""),
        ("text.jpg", b"hello"),
        ("cut.jpg", whole[: len(whole) // 2]),
        ("page.pdf", b"%PDF-1.7"),
        ("raw.CR2", b"II*\0" + b"\0" * 99),
        ("nothing", b"?"),
    ):
        (photos / name).write_bytes(data)
    draw(photos / "big.png", (1200, 1000))
    told = run(photos, work, max_megapixels=1.0)
    found = states(told)
    assert found.pop("cut.jpg").startswith("the picture is damaged or cut short")
    assert found == {
        "good.jpg": "kept",
        "empty.jpg": "the file is empty (0 bytes)",
        "text.jpg": "the file is not a picture that can be read here",
        "page.pdf": "the file is not a picture that can be read here",
        "nothing": "the file is not a picture that can be read here",
        "raw.CR2": "a camera's raw file: export it as JPEG, PNG or TIFF",
        "big.png": "1200 × 1000 pixels are more than 1 megapixels: a decompression bomb?",
    }
    assert counts(told.report) == (8, 0, 0, 7)
    assert len(list((work / "thumbnails").iterdir())) == 1
    assert counts(run(photos, work, max_megapixels=1.0).report) == (0, 8, 0, 7)


def test_what_lies_beside_photos_is_passed_over(photos: Path, work: Path) -> None:
    draw(photos / "a.jpg")
    for name in (
        ".DS_Store",
        "._a.jpg",
        ".git/b.jpg",
        "a.txt",
        "a.JSON",
        "a.xmp",
        "b.jpg.part",
        "c.tmp",
        "d.jpg.crdownload",
        "Thumbs.db",
        "desktop.ini",
    ):
        path = photos / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert states(run(photos, work)) == {"a.jpg": "kept"}


def test_links_loops_and_pipes(photos: Path, work: Path, tmp_path: Path) -> None:
    draw(photos / "in" / "a.jpg")
    draw(tmp_path / "elsewhere" / "b.jpg")
    (photos / "in" / "back").symlink_to(photos)
    (photos / "in" / "self").symlink_to("self")
    (photos / "away").symlink_to(tmp_path / "elsewhere")
    (photos / "z_again").symlink_to(tmp_path / "elsewhere")
    (photos / "file.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (photos / "broken.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(photos / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as plug:
        here = Path.cwd()
        os.chdir(photos)  # a socket's path may be 108 bytes
        try:
            plug.bind("plug.jpg")
        finally:
            os.chdir(here)
        found = states(run(photos, work))
    assert found.pop("broken.jpg").startswith("a link that leads nowhere")
    assert found.pop("in/self").startswith("a link that leads nowhere")
    assert found == {
        "in/a.jpg": "kept",
        "away/b.jpg": "kept",
        "file.jpg": "kept",
        "pipe.jpg": "neither a file nor a folder",
        "plug.jpg": "neither a file nor a folder",
    }


def test_odd_names(photos: Path, work: Path) -> None:
    names = [
        "a b.jpg",
        "été 漢字 🙂.jpg",
        "100%#?*[x].jpg",
        "x" * 250 + ".jpg",
        "-rf.jpg",
        "a.part2.jpg",
        "line\nbreak.jpg",
    ]
    for name in names:
        draw(photos / name)
    raw = os.fsencode(photos) + b"/\xff\xfe.jpg"
    draw(photos / "tmp.jpg").rename(os.fsdecode(raw))
    found = states(run(photos, work))
    assert found.pop("\\xff\\xfe.jpg") == "its name is not UTF-8: rename it"
    assert found == dict.fromkeys(names, "kept")
    assert counts(run(photos, work).report) == (0, 8, 0, 1)


def test_like_names_have_thumbnails_of_their_own(photos: Path, work: Path) -> None:
    names = ["a.jpg", "a.png", "A.jpg", "s/a.jpg", "s_a.jpg"]
    for seed, name in enumerate(names):
        draw(photos / name, seed=seed)
    made = run(photos, work).manifest
    assert len({made.path(row, "thumbnail").read_bytes() for row in made.kept}) == len(names)


def test_subfolders_can_be_left_out_and_taken_back_at_no_cost(photos: Path, work: Path) -> None:
    draw(photos / "a.jpg")
    draw(photos / "deep" / "er" / "b.jpg")
    assert set(states(run(photos, work))) == {"a.jpg", "deep/er/b.jpg"}
    told = run(photos, work, subfolders=False)
    assert set(states(told)) == {"a.jpg"}
    assert counts(told.report) == (0, 1, 0, 0)
    assert counts(run(photos, work).report) == (1, 1, 0, 0)


def test_only_what_changed_is_opened_again(photos: Path, work: Path) -> None:
    for number in range(4):
        draw(photos / f"{number}.jpg", seed=number)
    run(photos, work)
    draw(photos / "1.jpg", seed=9)
    draw(photos / "new.jpg", seed=10)
    (photos / "2.jpg").unlink()
    (photos / "3.jpg").rename(photos / "moved.jpg")
    assert counts(run(photos, work).report) == (3, 1, 0, 0)
    assert len(list((work / "thumbnails").iterdir())) == 4
    os.utime(photos / "0.jpg")
    assert counts(run(photos, work).report) == (0, 4, 0, 0)


def test_a_photo_mended_is_kept(photos: Path, work: Path) -> None:
    draw(photos / "a.jpg")
    (photos / "b.jpg").write_bytes(b"")
    assert counts(run(photos, work).report) == (2, 0, 0, 1)
    draw(photos / "b.jpg")
    assert counts(run(photos, work).report) == (1, 1, 0, 0)


def test_a_folder_that_moved_gives_paths_that_are_right(photos: Path, work: Path, tmp_path: Path) -> None:
    draw(photos / "a.jpg")
    run(photos, work)
    photos.rename(tmp_path / "moved")
    (row,) = run(tmp_path / "moved", work).manifest.kept
    assert Photo.of(row).path == str(tmp_path / "moved" / "a.jpg")


def test_the_persons_folder_is_only_read(photos: Path, work: Path) -> None:
    draw(photos / "a.jpg")
    draw(photos / "deep" / "b.jpg")
    (photos / "bad.jpg").write_bytes(b"x")
    everything = [photos, *photos.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in everything}
    try:
        run(photos, work)
        run(photos, work)
        assert {
            path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in [photos, *photos.rglob("*")]
        } == before
    finally:
        for path in everything:
            path.chmod(0o755)


def test_a_folder_that_cannot_be_used_says_why(photos: Path, work: Path) -> None:
    with pytest.raises(SubjectError, match="is not there"):
        run(photos, work)
    photos.mkdir()
    (photos / "notes.txt").write_text("x")
    with pytest.raises(SubjectError, match="holds no photos; put some in"):
        run(photos, work)
    draw(photos / "deep" / "a.jpg")
    with pytest.raises(SubjectError, match=r"holds no photos \(its subfolders are not looked into"):
        run(photos, work, subfolders=False)
    with pytest.raises(SubjectError, match="is not a folder"):
        run(photos / "notes.txt", work)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(photos: Path, work: Path) -> None:
    draw(photos / "a.jpg")
    draw(photos / "b.jpg").chmod(0)
    draw(photos / "shut" / "c.jpg")
    (photos / "shut").chmod(0)
    try:
        found = states(run(photos, work))
    finally:
        (photos / "shut").chmod(0o755)
    assert found == {
        "a.jpg": "kept",
        "b.jpg": "the file may not be read (permissions)",
        "shut": "the folder cannot be read: Permission denied",
    }
    (photos / "b.jpg").chmod(0o644)
    assert states(run(photos, work)) == {"a.jpg": "kept", "b.jpg": "kept", "shut/c.jpg": "kept"}


def test_a_thousand_photos_that_did_not_change_cost_nothing(
    photos: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw(photos / "0000.jpg", (64, 48)).read_bytes()
    for number in range(1, 1000):
        (photos / f"{number:04d}.jpg").write_bytes(data + number.to_bytes(2))
    assert counts(run(photos, work).report) == (1000, 0, 0, 0)
    # Nothing is read: neither a photo nor a thumbnail.
    monkeypatch.setattr("lora_pipeline.store.digest_file", lambda path: pytest.fail(f"{path} was read"))
    begun = time.monotonic()
    assert counts(run(photos, work).report) == (0, 1000, 0, 0)
    assert time.monotonic() - begun < 2  # 0.1 s on an idle core


def test_planning_tells_and_writes_nothing(photos: Path, work: Path) -> None:
    draw(photos / "a.jpg")
    with manifest.planning(), pytest.raises(Stale) as told:
        run(photos, work)
    assert told.value.would == {"a.jpg": "new"}
    assert not work.exists()
    run(photos, work)
    with manifest.planning():
        assert counts(run(photos, work).report) == (0, 1, 0, 0)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here")
def test_real_photos(work: Path) -> None:
    told = run(REAL / "person_a" / "photos", work)
    assert counts(told.report) == (12, 0, 0, 0)
    sizes = {row.id: (Photo.of(row).width_px, Photo.of(row).height_px) for row in told.manifest.kept}
    assert sizes["portrait.jpg"] == (910, 1137)
    assert sizes["portrait_letterboxed_240.jpg"] == (427, 240)


def test_folders_are_tags_outermost_first_but_not_those_of_kohyas_trainer(photos: Path, work: Path) -> None:
    for name in ("a.jpg", "2024 beach/b.jpg", "trip/night/c.jpg", "img/12_jx265 woman/d.jpg"):
        draw(photos / name)
    tags = {row.id: Photo.of(row).tags for row in run(photos, work).manifest.kept}
    assert tags == {
        "a.jpg": (),
        "2024 beach/b.jpg": ("2024 beach",),
        "trip/night/c.jpg": ("trip", "night"),
        "img/12_jx265 woman/d.jpg": ("img",),
    }
