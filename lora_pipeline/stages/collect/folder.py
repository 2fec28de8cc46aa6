"""Which files of a folder are meant to be photos."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lora_pipeline.errors import SubjectError
from lora_pipeline.stages.collect.found import Found, tags_of

UNFINISHED = {".part", ".tmp", ".crdownload"}
# What cameras, phones, file managers, other trainers and people lay beside photos.
BESIDE_PHOTOS = {
    *(".txt", ".caption", ".json", ".jsonl", ".xmp", ".aae", ".xml", ".thm", ".pp3", ".dop"),
    *(".csv", ".md", ".html", ".yaml", ".yml", ".toml", ".log", ".ini", ".db", ".npz"),
}
# Pillow opens these as TIFF and finds their small preview, or a picture without its colours.
RAW = {".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw"}


def find(photos: Path, subfolders: bool) -> list[Found]:
    """Every file under a folder that is meant to be a photo, in order of id. Follows links, each folder once; only reads.

    Raises:
        SubjectError: the folder is missing, is no folder, cannot be read, or holds no photo.
    """
    photos = photos.absolute()
    if not photos.exists():
        raise SubjectError(f"the photo folder {photos} is not there; make it, or name another in subject.yaml")
    if not photos.is_dir():
        raise SubjectError(
            f"{photos} is not a folder, a .zip or a video; photos in subject.yaml names what holds the photos"
        )
    try:
        found = sorted(_walk(photos, photos, subfolders, set()), key=lambda file: file.id)
    except OSError as error:
        raise SubjectError(f"the photo folder {photos} cannot be read: {error.strerror}") from None
    if not found:
        deeper = "" if subfolders else " (its subfolders are not looked into: collect.subfolders is false)"
        raise SubjectError(f"the photo folder {photos} holds no photos{deeper}; put some in")
    return found


def captions_beside(photos: Path) -> int:
    """How many photos of a folder have a text of the same name beside them, as other trainers want it; 0 where no photos are found."""
    try:
        return sum(one.path.with_suffix(".txt").is_file() for one in find(photos, subfolders=True))
    except SubjectError:
        return 0  # a run says what is wrong with the folder


def _walk(folder: Path, photos: Path, subfolders: bool, seen: set[tuple[int, int]]) -> Iterator[Found]:
    here = folder.stat()
    if (here.st_dev, here.st_ino) in seen:
        return  # a link back to a folder above, or a second way to one beside
    seen.add((here.st_dev, here.st_ino))
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        id = os.fsencode(path.relative_to(photos)).decode("utf-8", "backslashreplace")
        if path.is_dir():  # unlike the entry's own, no error for a link to itself
            try:
                yield from _walk(path, photos, subfolders, seen) if subfolders else ()
            except OSError as error:
                yield Found(id, entry.path, f"the folder cannot be read: {error.strerror}")
        elif not beside(path.name):
            yield Found(id, entry.path, _problem(path), tags=tags_of(id))


def beside(name: str) -> bool:
    """Whether a file is passed over by its name: hidden, half written, or of a kind that lies beside photos."""
    return name.startswith(".") or Path(name).suffix.lower() in UNFINISHED | BESIDE_PHOTOS


def raw(name: str) -> str:
    """Why a file is not opened, by its name; empty if it is."""
    return "a camera's raw file: export it as JPEG, PNG or TIFF" if Path(name).suffix.lower() in RAW else ""


def _problem(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"a link that leads nowhere ({error.strerror})" if path.is_symlink() else f"{error.strerror}"
    if not stat.S_ISREG(mode):
        return "neither a file nor a folder"  # opening a pipe would wait for ever
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return "its name is not UTF-8: rename it"
    return raw(path.name)
