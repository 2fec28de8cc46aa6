"""Photos in a zip, read as a folder tree. Each is unpacked into the stage's own folder, never beside the zip."""

import shutil
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from lora_pipeline.errors import PhotoError, SourceError
from lora_pipeline.manifest import key_of
from lora_pipeline.stages.collect.folder import beside, raw
from lora_pipeline.stages.collect.found import Found, tags_of
from lora_pipeline.store import whole

MOST_BYTES = 1 << 30
"""A member that says it is larger is no photo, and may be made to fill the disk."""
ENCRYPTED = 1  # of the general purpose bit flag: APPNOTE.TXT 4.4.4


def find(archive: Path, into: Path, subfolders: bool) -> list[Found]:
    """Every file in a zip that is meant to be a photo, in order of id.

    A folder in which all of them lie is part of the ids, but no tag: it tells none from another.

    Args:
        archive: the zip, only read.
        into: where members will lie when they are fetched.
        subfolders: whether those in folders are taken too.

    Raises:
        SourceError: it is no zip, or holds no photo.
    """
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(f"{archive} cannot be read as a zip: {error}; make it anew, or unpack it yourself") from None
    members: dict[str, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        # A name may be absolute or lead upwards; it only ever names a row.
        parts = [part for part in PurePosixPath(member.filename).parts if part not in {"/", ".."}]
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if parts and not member.is_dir() and not hidden and not beside(parts[-1]):
            members["/".join(parts)] = member
    shared = _shared(list(members))
    found = [
        _found(id, member, into, partial(_unpack, opened, member), tags_of(id)[shared:])
        for id, member in sorted(members.items())
        if subfolders or len(PurePosixPath(id).parts) == shared + 1
    ]
    if not found:
        raise SourceError(f"{archive} holds no photos; put some in, or name another as photos in subject.yaml")
    return found


def _shared(ids: list[str]) -> int:
    """How many outermost folders all have in common."""
    folders = [PurePosixPath(id).parts[:-1] for id in ids]
    levels = zip(*folders, strict=False)
    return next((depth for depth, names in enumerate(levels) if len(set(names)) > 1), min(map(len, folders), default=0))


def _found(id: str, member: zipfile.ZipInfo, into: Path, fetch: Callable[[Path], None], tags: tuple[str, ...]) -> Found:
    problem = raw(id)
    if member.flag_bits & ENCRYPTED:
        problem = "it is encrypted: unpack the zip yourself"
    elif member.file_size > MOST_BYTES:
        problem = f"it would be {member.file_size / 2**30:.1f} GiB unpacked, the limit is 1 GiB"
    version = f"crc32 {member.CRC:08x}, {member.file_size} bytes"
    path = into / f"{key_of(id, version)[:16]}{PurePosixPath(id).suffix.lower()}"
    return Found(id, str(path), problem, tags=tags, version=version, fetch=fetch)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    try:
        with archive.open(member) as packed, whole(path) as aside, aside.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise PhotoError(f"it cannot be unpacked: {error}") from None
