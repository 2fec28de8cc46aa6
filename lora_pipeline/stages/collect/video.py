"""Videos, alone or among photos: their sharpest frames at distinct head angles, each of which becomes a photo."""

import importlib.util
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import PhotoError, SourceError
from lora_pipeline.manifest import Item, Made, key_of, refresh
from lora_pipeline.models.faces import FaceDetector, Points, identity, open_detector
from lora_pipeline.pictures import save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.settings import CollectSettings, CropSettings, Section
from lora_pipeline.stages.collect.found import Found
from lora_pipeline.store import DigestCache

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mts", ".m2ts", ".mpg", ".mpeg", ".3gp", ".wmv"}
LIVE_PHOTOS = {".heic", ".heif", ".jpg", ".jpeg"}
"""A phone lays a video of three seconds beside each, of the same name: smaller pictures of the moment that the photo shows."""
FRAMES = "frames"
CODE_VERSION = "1"

SHARPNESS_PX = 512
MOST_WINDOWS = 400
"""A long video is looked at in fewer, longer stretches: finding a face takes a second, and 400 are ten times what is asked for."""
FACES = CropSettings(detector="dlib_hog", search_px=640)
"""A head that is to be trained on is large; small ones need no angle."""
SAME_SCENE_BITS = 12
"""Pictures whose perceptual hashes (64 bits) differ in fewer show one scene."""

YawOf = Callable[[Points], float]
"""Five landmarks → how far the head is turned, in degrees."""


class VideoSettings(Section):
    """Those of the collect settings that decide which frames are taken."""

    video_frames: int
    video_window_s: float
    video_angle_deg: float

    @classmethod
    def of(cls, settings: CollectSettings) -> "VideoSettings":
        """The slice."""
        return cls.model_validate(settings.model_dump(include=set(cls.model_fields)))


@dataclass(frozen=True)
class Candidate:
    """The sharpest frame of a stretch.

    Args:
        at_s: seconds from the video's beginning.
        sharpness: variance of the Laplacian of the luma at 512 px on the long side.
        yaw_deg: of the largest head; None where no face is found.
        phash: perceptual hash, 64 bits.
    """

    at_s: float
    sharpness: float
    yaw_deg: float | None
    phash: int


def find_alone(
    video: Path,
    folder: Path,
    settings: CollectSettings,
    digests: DigestCache,
    yaw_of: YawOf | None,
    progress: Progress = silent,
) -> list[Found]:
    """The chosen frames of a video that is itself the source, as `find` gives them.

    Raises:
        SourceError: it cannot be read as a video, or PyAV is missing.
        Stale: while planning, if the frames are not chosen yet.
    """
    found = find([Found(video.name, str(video))], folder, settings, digests, yaw_of, progress)
    if found and found[0].problem:
        raise SourceError(f"the video {video} cannot be used: {found[0].problem}")
    return found


def find(
    among: Sequence[Found],
    folder: Path,
    settings: CollectSettings,
    digests: DigestCache,
    yaw_of: YawOf | None,
    progress: Progress = silent,
) -> list[Found]:
    """What was found, with the chosen frames of each video in its place, as lossless pictures in the stage's folder.

    Frames are chosen once for a file's content and settings; those of a video that has gone are removed. Of a video that cannot be used, and
    of the moving part of a Live Photo, there is a row with the reason.

    Args:
        among: photos and videos; an id of a frame is its video's and the second.
        folder: the stage's; frames lie in `frames/`, and the table `frames` remembers them.
        settings: how many frames of each video, and how far apart.
        digests: of files read before.
        yaw_of: how far a head is turned; without it frames differ by their looks alone.

    Raises:
        Stale: while planning, if the frames of a video are not chosen yet.
    """
    stills = {_stem(one) for one in among if PurePosixPath(one.id).suffix.lower() in LIVE_PHOTOS}
    told: list[Found] = []
    items: list[Item[_Job]] = []
    faces = "" if yaw_of is None else identity(FACES)
    for one in among:
        if one.problem or not is_one(one.id):
            told.append(one)
        elif left_out := _left_out(one, stills, settings):
            told.append(replace(one, problem=left_out, state="dropped"))
        else:
            try:
                items.append(Item(one.id, [_content(one, digests), faces], _Job(one, yaw_of, settings, progress)))
            except PhotoError as error:
                told.append(replace(one, problem=str(error)))
    if not items and not (folder / f"{FRAMES}.parquet").exists():
        return told
    chosen = refresh(
        folder,
        items,
        _frames,
        settings=VideoSettings.of(settings),
        code_version=CODE_VERSION,
        name=FRAMES,
        what="videos",
    ).manifest
    videos = {item.id: item.payload.video for item in items}
    for row in chosen.rows:
        video = videos[row.id]
        if row.state == "failed":
            told.append(replace(video, problem=row.reason))
        told += [
            Found(f"{row.id}/{role}.png", str(chosen.path(row, role)), tags=video.tags, version=file.digest)
            for role, file in sorted(row.files.items())
        ]
    return sorted(told, key=lambda one: one.id)


def is_one(name: str) -> bool:
    """Whether a file is taken for a video, by its name."""
    return PurePosixPath(name).suffix.lower() in VIDEOS


def role_of(at_s: float) -> str:
    """What the frame of that second is called: 83.04 → "0083.040", so that names are in order."""
    return f"{at_s:08.3f}"


def _left_out(video: Found, stills: Collection[str], settings: CollectSettings) -> str:
    """Why no frames are wanted of a video; empty if they are."""
    if _stem(video) in stills:
        return "the moving part of the photo of the same name beside it; for its frames, rename it"
    return "" if settings.video_frames else "a video, and collect.video_frames is 0"


def _content(video: Found, digests: DigestCache) -> str:
    """What a video's bytes are known by. Raises PhotoError if they cannot be read."""
    if importlib.util.find_spec("av") is None:
        raise PhotoError(
            "videos are read through the package av (PyAV), which is not installed: pip install 'lora-pipeline[video]'"
        )
    try:
        return video.version or digests.digest(video.path)
    except OSError as error:
        raise PhotoError(f"the video cannot be read: {error.strerror}") from None


def _stem(found: Found) -> str:
    return str(PurePosixPath(found.id).with_suffix("")).casefold()


@dataclass(frozen=True)
class _Job:
    video: Found
    yaw_of: YawOf | None
    settings: CollectSettings
    progress: Progress


def _frames(job: _Job, folder: Path) -> Made:
    found = job.video
    if found.fetch:
        found.fetch(found.path)
    try:
        wanted = {one.at_s: one for one in choose(list(_candidates(job)), job.settings)}
        if not wanted:
            raise PhotoError("it has no pictures")
        files: dict[str, str] = {}
        for at_s, frame in _decoded(found.path):
            if at_s in wanted:
                role = role_of(at_s)
                files[role] = f"{FRAMES}/{key_of(found.id)[:12]}-{role}.png"
                save(_upright(frame), folder / files[role])
    except ValueError as error:  # a layout of pixels that has no picture here
        raise PhotoError(f"it cannot be decoded: {error}") from None
    finally:
        if found.fetch:
            found.path.unlink(missing_ok=True)
    told = [[one.at_s, one.yaw_deg, round(one.sharpness, 1)] for one in wanted.values()]
    return Made({"frames": sorted(told, key=lambda frame: str(frame[0]))}, files)


def choose(candidates: Sequence[Candidate], settings: CollectSettings) -> list[Candidate]:
    """The frames to take: those with a face first, sharper ones first, none that shows what a taken one shows.

    Two show the same if they are of one scene and their heads, if both have one, are turned alike.
    """
    taken: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (one.yaw_deg is None, -one.sharpness, one.at_s)):
        if len(taken) < settings.video_frames and not any(_same(one, other, settings) for other in taken):
            taken.append(one)
    return taken


def _same(one: Candidate, other: Candidate, settings: CollectSettings) -> bool:
    if (one.phash ^ other.phash).bit_count() >= SAME_SCENE_BITS:
        return False
    if one.yaw_deg is None or other.yaw_deg is None:
        return True
    return abs(one.yaw_deg - other.yaw_deg) < settings.video_angle_deg


def _candidates(job: _Job) -> Iterator[Candidate]:
    """The sharpest frame of each stretch. One frame is held at a time, however long the video is."""
    duration_s = _duration_s(job.video.path)
    window_s = max(job.settings.video_window_s, duration_s / MOST_WINDOWS)
    detector = open_detector(FACES) if job.yaw_of else None
    window, best, best_at_s, sharpest = -1, None, 0.0, -1.0
    for at_s, frame in _decoded(job.video.path):
        if int(at_s / window_s) != window:
            if best is not None:
                yield _candidate(best, best_at_s, sharpest, detector, job.yaw_of)
                job.progress("video, seconds", int(at_s), max(int(duration_s), int(at_s)))
            window, best, sharpest = int(at_s / window_s), None, -1.0
        sharp = sharpness(_luma(frame))
        if sharp > sharpest:
            best, best_at_s, sharpest = frame, at_s, sharp
    if best is not None:
        yield _candidate(best, best_at_s, sharpest, detector, job.yaw_of)


def _candidate(frame: Any, at_s: float, sharp: float, detector: FaceDetector | None, yaw_of: YawOf | None) -> Candidate:
    import imagehash

    picture = _upright(frame)
    yaw_deg = None
    if detector is not None and yaw_of is not None:
        faces = detector.find(picture, FACES.search_px)
        if faces:
            largest = max(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))
            yaw_deg = yaw_of(largest.landmarks)
    return Candidate(at_s, sharp, yaw_deg, int(str(imagehash.phash(picture)), 16))


def sharpness(luma: "NDArray[Any]") -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of a luma, height × width, 0 to 255: what `curate` measures too."""
    import numpy as np

    values = luma.astype(np.float32)
    if min(values.shape) < 3:
        return 0.0
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return float((around - 4 * values[1:-1, 1:-1]).var())


def _luma(frame: Any) -> "NDArray[Any]":
    scale = min(1.0, SHARPNESS_PX / max(frame.width, frame.height))
    size = (max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))
    return frame.reformat(width=size[0], height=size[1], format="gray").to_ndarray()


def _upright(frame: Any) -> "Image":
    """The frame as people see it, 8-bit RGB: turned as the video's display matrix says (degrees, anticlockwise)."""
    picture = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _decoded(video: Path) -> Iterator[tuple[float, Any]]:
    """Each frame of the first picture stream, with its time in seconds from the first. Raises PhotoError if there is none."""
    import av.error

    try:
        with av.open(str(video)) as container:
            if not container.streams.video:
                raise PhotoError("it has no pictures")
            first: float | None = None
            for frame in container.decode(container.streams.video[0]):
                if frame.pts is None:
                    continue
                first = frame.time if first is None else first
                yield round(frame.time - first, 3), frame
    except av.error.FFmpegError as error:
        raise PhotoError(f"it cannot be decoded: {error.strerror}") from None


def _duration_s(video: Path) -> float:
    import av.error

    try:
        with av.open(str(video)) as container:
            return float(container.duration or 0) / av.time_base
    except av.error.FFmpegError as error:
        raise PhotoError(f"it cannot be opened as a video: {error.strerror}") from None
