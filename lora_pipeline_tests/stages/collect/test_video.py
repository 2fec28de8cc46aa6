"""The sharpest frames of a drawn video, at angles that are known because they were drawn."""

import shutil
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.errors import SourceError
from lora_pipeline.manifest import Outcome, Stale, planning, read
from lora_pipeline.records import Photo
from lora_pipeline.settings import CollectSettings
from lora_pipeline.stages.collect import collect
from lora_pipeline.stages.collect.video import Candidate, choose
from lora_pipeline.stages.crop import yaw_deg

av = pytest.importorskip("av", reason="the package av (PyAV) is not installed")

YAWS = (-28.0, -28.0, 0.0, 28.0, 28.0)
"""A second each; the sharp frame of a second is its sixth of ten."""
SHARP, FPS = 5, 10


def film(path: Path, pictures: list[Image.Image]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = *pictures[0].size, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    woman = random_identity(np.random.default_rng(3), "woman")
    pictures: list[Image.Image] = []
    for second, yaw in enumerate(YAWS):
        sharp = draw(woman, Scene("close", size_px=(320, 320), yaw_deg=yaw)).picture
        # The first of two alike is a little less sharp.
        sharp = sharp.filter(ImageFilter.GaussianBlur(0.8)) if second in {0, 3} else sharp
        pictures += [sharp if number == SHARP else sharp.filter(ImageFilter.GaussianBlur(3)) for number in range(FPS)]
    return film(tmp_path_factory.mktemp("video") / "clip.mp4", pictures)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def run(video: Path, work: Path, **settings: object) -> Outcome:
    return collect(video, work, CollectSettings.model_validate(settings), yaw_of=yaw_deg)


def test_the_sharpest_frame_of_each_angle_is_taken_once(video: Path, work: Path) -> None:
    told = run(video, work)
    assert [row.id for row in told.manifest.kept] == [
        "clip.mp4/0001.500.png",
        "clip.mp4/0002.500.png",
        "clip.mp4/0004.500.png",
    ]
    yaws = [yaw for _, yaw, _ in read(work, "frames").rows[0].data["frames"]]
    assert np.allclose(yaws, [-28, 0, 28], atol=17)  # as near as crop's estimate is
    photo = Photo.of(told.manifest.kept[0])
    assert (photo.width_px, photo.height_px, photo.format) == (320, 320, "PNG")
    assert Path(photo.path).is_relative_to(work)

    # Again: nothing is decoded; another window is another choice.
    with planning():
        assert run(video, work).report.reused == 3
    with planning(), pytest.raises(Stale) as stale:
        run(video, work, video_frames=1)
    assert stale.value.would == {"clip.mp4": "changed"}
    assert len(run(video, work, video_frames=1).manifest.kept) == 1
    assert len(list((work / "frames").iterdir())) == 1

    # A folder takes its place: no frame is left behind.
    (work.parent / "photos").mkdir()
    Image.new("RGB", (32, 32)).save(work.parent / "photos" / "a.png")
    run(work.parent / "photos", work)
    assert not list((work / "frames").iterdir())


def test_frames_are_chosen_by_sharpness_angle_and_scene() -> None:
    settings = CollectSettings(video_frames=3, video_angle_deg=10)
    one, like_one, other = (
        0,
        (1 << 11) - 1,
        (1 << 12) - 1,
    )  # the second differs in 11 bits from the first, the third in 12

    def chosen(*candidates: Candidate) -> list[float]:
        return [taken.at_s for taken in choose(candidates, settings)]

    assert chosen(Candidate(1, 5, 0, one), Candidate(2, 6, 9.9, like_one)) == [2]
    assert chosen(Candidate(1, 5, 0, one), Candidate(2, 6, 10, one)) == [2, 1]
    assert chosen(Candidate(1, 5, 0, one), Candidate(2, 6, 0, other)) == [2, 1]
    assert chosen(Candidate(1, 5, 0, one), Candidate(2, 6, None, one)) == [1]  # no face, nothing new
    assert chosen(Candidate(1, 5, 0, one), Candidate(2, 6, None, other)) == [
        1,
        2,
    ]  # with a face first, though less sharp
    assert chosen(*(Candidate(at, at, 20.0 * at, one) for at in range(5))) == [4, 3, 2]


def test_a_video_held_upright_is_turned(work: Path) -> None:
    work.mkdir()
    landscape = Image.new("RGB", (128, 64), "white")
    landscape.paste("red", (0, 0, 64, 64))  # its left half
    video = film(work / "clip.mov", [landscape] * 10)
    # Phones write the sensor's rows and a matrix that turns them; here a quarter clockwise (ISO/IEC 14496-12, 8.3.2).
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[matrix : matrix + 36])[:5] == (0x10000, 0, 0, 0, 0x10000)
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 64 << 16, 0, 0x40000000)
    video.write_bytes(data)
    (row,) = collect(video, work, CollectSettings()).manifest.kept
    with Image.open(str(row.data["path"])) as frame:
        assert frame.size == (64, 128)
        red, white = frame.getpixel((32, 20)), frame.getpixel((32, 108))
    assert red[1] < 60 < 200 < white[1]


def test_what_is_no_video_is_told_in_words(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 99)
    with pytest.raises(SourceError, match=r"clip.mp4 cannot be used: it cannot be opened as a video"):
        run(tmp_path / "clip.mp4", work)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SourceError, match=r"pip install 'lora-pipeline\[video\]'"):
        run(tmp_path / "clip.mp4", work)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a photo in it."""
    photos = tmp_path / "photos"
    (photos / "party").mkdir(parents=True)
    Image.new("RGB", (32, 32), "red").save(photos / "a.jpg")
    return photos


def short(path: Path, colour: str = "white") -> Path:
    """A second of one scene, so one frame."""
    picture = Image.new("RGB", (64, 64), colour)
    picture.paste("black", (0, 0, 32, 32))
    return film(path, [picture] * FPS)


def test_videos_among_photos_give_their_frames(photos: Path, work: Path, video: Path) -> None:
    shutil.copy(video, photos / "party" / "clip.mp4")
    short(photos / "CLIP.MOV")
    short(photos / "A.mov")  # a Live Photo's
    (photos / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 99)
    told = run(photos, work)
    assert {row.id: row.reason or row.state for row in told.manifest.rows} == {
        "a.jpg": "kept",
        "CLIP.MOV/0000.000.png": "kept",
        "party/clip.mp4/0001.500.png": "kept",
        "party/clip.mp4/0002.500.png": "kept",
        "party/clip.mp4/0004.500.png": "kept",
        "A.mov": "the moving part of the photo of the same name beside it; for its frames, rename it",
        "broken.mp4": "it cannot be opened as a video: Invalid data found when processing input",
    }
    assert told.manifest.row("A.mov").state == "dropped"
    assert Photo.of(told.manifest.row("party/clip.mp4/0002.500.png")).tags == ("party",)
    assert len(list((work / "frames").iterdir())) == 4

    # One photo more is that photo alone, and no video is looked at again; one video less takes its frames along.
    frames = (work / "frames.parquet").stat().st_mtime_ns
    Image.new("RGB", (32, 32), "blue").save(photos / "b.jpg")
    again = run(photos, work)
    assert (again.report.computed, again.report.reused) == (1, 7)
    assert (work / "frames.parquet").stat().st_mtime_ns == frames
    with planning():
        run(photos, work)
    (photos / "party" / "clip.mp4").unlink()
    assert run(photos, work).report.computed == 0
    assert len(list((work / "frames").iterdir())) == 1

    none = run(photos, work, video_frames=0).manifest
    assert none.row("CLIP.MOV").reason == "a video, and collect.video_frames is 0"
    assert not list((work / "frames").iterdir())


def test_videos_in_a_zip_and_of_one_name(work: Path, tmp_path: Path) -> None:
    one, other = short(tmp_path / "one.mp4", "white"), short(tmp_path / "other.mp4", "red")
    with zipfile.ZipFile(tmp_path / "jane.zip", "w") as archive:
        archive.write(one, "beach/clip.mp4")
        archive.write(other, "city/clip.mp4")
    rows = run(tmp_path / "jane.zip", work).manifest.kept
    assert [row.id for row in rows] == ["beach/clip.mp4/0000.000.png", "city/clip.mp4/0000.000.png"]
    assert [Photo.of(row).tags for row in rows] == [("beach",), ("city",)]
    greens: list[int] = []
    for row in rows:
        with Image.open(Photo.of(row).path) as frame:
            greens.append(frame.getpixel((48, 48))[1])
    assert greens[1] < 60 < 200 < greens[0]
    assert not list(work.rglob("*.mp4"))  # unpacked for as long as it is read
    with planning():
        assert run(tmp_path / "jane.zip", work).report.reused == 2


def test_without_pyav_a_folder_gives_its_photos(photos: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(photos / "clip.mp4")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "av", None)
        rows = run(photos, work).manifest.rows
    assert [row.state for row in rows] == ["kept", "failed"]
    assert "pip install 'lora-pipeline[video]'" in rows[1].reason
    assert len(run(photos, work).manifest.kept) == 2  # once it is installed
