"""Every photo of a folder, opened once: what it is, and a thumbnail."""

from dataclasses import dataclass
from pathlib import Path

from lora_pipeline.errors import PhotoError
from lora_pipeline.manifest import Item, Made, Outcome, is_planning, key_of, refresh
from lora_pipeline.pictures import open_photo, save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Photo
from lora_pipeline.settings import CollectSettings
from lora_pipeline.stages.collect.folder import Found, find
from lora_pipeline.store import DigestCache

CODE_VERSION = "1"
THUMBNAIL_PX = 320
SOURCES = "sources.digests.json"


def collect(photos: Path, folder: Path, settings: CollectSettings, progress: Progress = silent) -> Outcome:
    """Make a row of each photo under a folder, which is only ever read.

    Args:
        photos: the person's folder.
        folder: where this stage keeps its manifest and thumbnails.
        settings: which files are photos.
        progress: told after each photo.

    Returns:
        Rows by path within `photos`, each a `Photo` with a `thumbnail` (JPEG, long side at most 320 px, upright, no
        metadata). What cannot be used is a failed row with the reason.

    Raises:
        SubjectError: the folder is missing, is no folder, cannot be read, or holds no photo.
    """
    found = find(photos, settings.subfolders)
    digests = DigestCache(folder / SOURCES)
    items: list[Item[_Job]] = []
    for file in found:
        digest, problem = _digest(file, digests)
        # Of the settings only the limit can change a row; `subfolders` decides which rows there are.
        inputs = [digest, problem, str(file.path), settings.max_megapixels]
        items.append(Item(file.id, inputs, _Job(file, digest, problem, settings.max_megapixels)))
    if not is_planning():
        digests.save()
    return refresh(
        folder,
        items,
        _photo,
        settings=None,
        code_version=CODE_VERSION,
        what="photos",
        workers=0,
        progress=progress,
    )


@dataclass(frozen=True)
class _Job:
    file: Found
    digest: str
    problem: str
    max_megapixels: float


def _digest(file: Found, digests: DigestCache) -> tuple[str, str]:
    """The file's digest, or why there is none."""
    if file.problem:
        return "", file.problem
    try:
        return digests.digest(file.path), ""
    except PermissionError:
        return "", "the file may not be read (permissions)"
    except OSError as error:
        return "", f"the file cannot be read: {error.strerror}"


def _photo(job: _Job, folder: Path) -> Made:
    if job.problem:
        raise PhotoError(job.problem)
    opened = open_photo(job.file.path, job.max_megapixels)
    photo = Photo(
        str(job.file.path), job.digest, opened.picture.width, opened.picture.height, opened.format, opened.taken
    )
    thumbnail = opened.picture.copy()
    thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    path = _thumbnail_path(job.file)
    save(thumbnail, folder / path)
    return Made(photo.data(), {"thumbnail": path})


def _thumbnail_path(file: Found) -> str:
    """Told apart by the id's hash, since a.jpg and a.png, or Sub/a.jpg and sub_a.jpg, would have one name."""
    return f"thumbnails/{file.path.stem[:40]}-{key_of(file.id)[:12]}.jpg"
