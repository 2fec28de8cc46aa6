"""Every photo of a source, opened once: what it is, and a thumbnail."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_pipeline.errors import PhotoError
from lora_pipeline.manifest import Item, Made, Mapped, Outcome, is_planning, key_of, read, refresh
from lora_pipeline.pictures import open_photo, save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Photo, Row
from lora_pipeline.settings import CollectSettings
from lora_pipeline.stages.collect import archive, folder, immich, photoprism, video
from lora_pipeline.stages.collect.found import Found, in_pixels
from lora_pipeline.store import DigestCache, digest_file
from lora_pipeline.subject import Immich, Origin, PhotoPrism

CODE_VERSION = "2"
THUMBNAIL_PX = 320
SOURCES = "sources.digests.json"
FETCHED = "originals"
FORGOTTEN = "forgotten"  # how the reason of a photo that must stay out begins


def collect(
    photos: Origin,
    into: Path,
    settings: CollectSettings,
    progress: Progress = silent,
    yaw_of: video.YawOf | None = None,
    forgotten: Mapping[str, str] | None = None,
) -> Outcome:
    """Make a row of each photo of a source, which is only ever read.

    Args:
        photos: a folder or a zip, of photos and videos; a video; or a photo library.
        into: where this stage keeps its manifest, thumbnails, and copies of photos that are no files of the person's.
        settings: which files are photos.
        progress: told after each photo.
        yaw_of: how far a head with these landmarks is turned (degrees), to tell a video's frames by.
        forgotten: SHA-256 of photos that must stay out, whatever they are called now → the day on which they were forgotten.

    Returns:
        Rows by path within `photos`, each a `Photo` with a `thumbnail` (JPEG, long side at most 320 px, upright, no
        metadata), and its `original` where that had to be fetched. What cannot be used is a row with the reason. A photo
        that has left the source has no row.

    Raises:
        SubjectError: the folder is missing, is no folder, cannot be read, or holds no photo.
        SourceError: the same of any other source.
    """
    forgotten = forgotten or {}
    found, contents = _looked_at(photos, into, settings, yaw_of, progress)
    before = {row.id: row for row in read(into).rows} if any(photo.version for photo in found) else {}

    def item(number: int) -> Item[_Job]:
        photo, (content, problem) = found[number], contents[number]
        # Of the settings only the limit can change a row; the others decide which rows there are.
        told = [problem, photo.state, photo.file, list(photo.tags), [list(face) for face in photo.faces]]
        if changed := _forgotten_since(photo, content, before.get(photo.id), forgotten):
            told.append(changed)
        job = _Job(photo, content, problem, settings.max_megapixels, forgotten)
        return Item(photo.id, [content, *told, settings.max_megapixels], job)

    return refresh(
        into,
        Mapped(item, range(len(found))),
        _photo,
        settings=None,
        code_version=CODE_VERSION,
        what="photos",
        workers=0,
        progress=progress,
    )


def glance(library: PhotoPrism | Immich) -> str:
    """A digest of what a photo library says now of the subject's photos: another one when one came, went or changed. Nothing is downloaded.

    Raises:
        SourceError: the library is out of reach, cannot be read, or knows nobody of that name.
    """
    return photoprism.glance(library) if isinstance(library, PhotoPrism) else immich.glance(library)


def _looked_at(
    photos: Origin, into: Path, settings: CollectSettings, yaw_of: video.YawOf | None, progress: Progress
) -> tuple[list[Found], list[tuple[str, str]]]:
    """The photos, and of each what its bytes are known by and why it cannot be used."""
    digests = DigestCache(into / SOURCES)
    found = _find(photos, into, settings, digests, yaw_of, progress)
    contents = [_content(photo, digests) for photo in found]
    if not is_planning():
        digests.save()
    return found, contents


def _find(
    photos: Origin,
    into: Path,
    settings: CollectSettings,
    digests: DigestCache,
    yaw_of: video.YawOf | None,
    progress: Progress,
) -> list[Found]:
    if isinstance(photos, PhotoPrism):
        found = photoprism.find(photos)
    elif isinstance(photos, Immich):
        found = immich.find(photos, into / FETCHED)
    elif photos.is_file() and video.is_one(photos.name):
        return video.find_alone(photos.absolute(), into, settings, digests, yaw_of, progress)
    elif photos.is_file() and photos.suffix.lower() == ".zip":
        found = archive.find(photos, into / FETCHED, settings.subfolders)
    else:
        found = folder.find(photos, settings.subfolders)
    return video.find(found, into, settings, digests, yaw_of, progress)


@dataclass(frozen=True)
class _Job:
    photo: Found
    content: str
    problem: str
    max_megapixels: float
    forgotten: Mapping[str, str]


def _content(photo: Found, digests: DigestCache) -> tuple[str, str]:
    """What a photo's bytes are known by, and why it cannot be used."""
    if photo.problem or photo.version:
        return photo.version, photo.problem
    try:
        return digests.digest(photo.path), ""
    except PermissionError:
        return "", "the file may not be read (permissions)"
    except OSError as error:
        return "", f"the file cannot be read: {error.strerror}"


def _forgotten_since(photo: Found, content: str, before: Row | None, forgotten: Mapping[str, str]) -> str:
    """What else a photo's key holds where what is forgotten has changed. What is in a photo that is fetched is known by the row that it has."""
    if not photo.version:
        return FORGOTTEN if content in forgotten else ""
    if before is None:
        return ""
    is_out = str(before.data.get("digest", "")) in forgotten
    return "" if before.reason.startswith(FORGOTTEN) == is_out else f"{FORGOTTEN}: {is_out}"


def _photo(job: _Job, into: Path) -> Made:
    found = job.photo
    if job.problem:
        if found.state == "failed":
            raise PhotoError(job.problem)
        return Made(state=found.state, reason=job.problem)
    if found.fetch:
        found.fetch(found.path)
    digest = digest_file(found.path) if found.version else job.content
    if digest in job.forgotten:
        if found.fetch:
            found.path.unlink()
        return Made({"digest": digest}, state="dropped", reason=f"{FORGOTTEN} on {job.forgotten[digest]}")
    opened = open_photo(found.path, job.max_megapixels)
    width, height = opened.picture.size
    faces = [box for face in found.faces if (box := in_pixels(face, width, height))]
    photo = Photo(found.file, digest, width, height, opened.format, opened.taken, found.tags, tuple(faces))
    thumbnail = opened.picture.copy()
    thumbnail.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    files = {"thumbnail": _thumbnail_path(found)}
    save(thumbnail, into / files["thumbnail"])
    if found.fetch:
        files["original"] = found.path.relative_to(into).as_posix()
    return Made(photo.data(), files)


def _thumbnail_path(file: Found) -> str:
    """The id's hash: no photo's own name in what is made of it, which may be a person's, a place or a day."""
    return f"thumbnails/{key_of(file.id)[:16]}.jpg"
