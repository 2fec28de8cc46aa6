"""A PhotoPrism library: the photos on which a named subject's face is marked, and where. Only SELECTs, in a read-only session.

Tables and columns are those of PhotoPrism's entities (internal/entity: Subject, Marker, File, Photo) and have been the same since
2021. Two things of theirs to know:

- a marker belongs to a file, not to a photo. Of what no browser shows (HEIC, raw, video) PhotoPrism makes a JPEG in its side-car
  folder, and that is the file which the marker is on (`files.file_root`: `/` or `sidecar`);
- text columns that are compared byte by byte are VARBINARY in MariaDB, so they come as bytes.
"""

import difflib
import os
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

from lora_pipeline.errors import SourceError
from lora_pipeline.manifest import key_of
from lora_pipeline.records import State
from lora_pipeline.stages.collect.folder import raw
from lora_pipeline.stages.collect.found import Found, Fractions
from lora_pipeline.subject import PhotoPrism

PEOPLE = "SELECT subj_uid, subj_name, subj_alias FROM subjects WHERE deleted_at IS NULL AND subj_type = 'person'"
COLUMNS = "f.file_root, f.file_name, f.file_missing, f.deleted_at, p.photo_private, p.deleted_at, m.marker_invalid, m.x, m.y, m.w, m.h"
OF_MARKED = """
FROM markers m
JOIN files f ON f.file_uid = m.file_uid
JOIN photos p ON p.id = f.photo_id
WHERE m.subj_uid = {} AND m.marker_type = 'face'
ORDER BY f.file_root, f.file_name, m.marker_uid"""
MARKED = f"SELECT {COLUMNS}{OF_MARKED}"
GLANCE = f"SELECT f.file_hash, {COLUMNS}{OF_MARKED}"
WAIT_S = 20

Select = Callable[[str, Sequence[str]], list[Sequence[Any]]]
"""Runs a SELECT with values, and gives its rows."""


def find(source: PhotoPrism) -> list[Found]:
    """A row a file that holds a marker of the subject, in order of id.

    Missing files, private and deleted (archived) photos, and those whose every marker of the subject is invalid are rows with
    the reason.

    Raises:
        SourceError: the index cannot be reached or is none, the password is missing, or nobody in it has the name.
    """
    if not source.originals.is_dir():  # not a thousand photos that are gone, but a disk that is not mounted
        raise SourceError(f"source.photoprism.originals: the folder {source.originals} is not there; is it mounted?")
    with _opened(source) as (select, mark):
        uid = _person(source.person, select(PEOPLE, ()))
        rows = select(MARKED.format(mark), (uid,))
    files: dict[tuple[str, str], list[Sequence[Any]]] = {}
    for row in rows:
        files.setdefault((_text(row[0]), _text(row[1])), []).append(row)
    if not files:
        raise SourceError(
            f"PhotoPrism has no photo on which {source.person}'s face is marked; name some faces in it first"
        )
    return sorted((_found(source, *file, markers) for file, markers in files.items()), key=lambda found: found.id)


def glance(source: PhotoPrism) -> str:
    """A digest of what the index says now of the person's photos, by one SELECT: another one when a photo came, went or changed. No file is looked at.

    Raises:
        SourceError: as `find`.
    """
    with _opened(source, read_wait_s=WAIT_S) as (select, mark):
        uid = _person(source.person, select(PEOPLE, ()))
        return key_of([[str(value) for value in row] for row in select(GLANCE.format(mark), (uid,))])


def _found(source: PhotoPrism, root: str, name: str, markers: list[Sequence[Any]]) -> Found:
    folder = source.sidecar if root == "sidecar" else source.originals
    id = name if root == "/" else f"{root}/{name}"
    path = Path() if folder is None else folder / name
    faces = tuple(_fractions(row) for row in markers if not row[6])
    problem, state = _problem(source, root, path, markers, faces)
    return Found(id, str(path), problem, state, faces=faces)


def _problem(
    source: PhotoPrism, root: str, path: Path, markers: list[Sequence[Any]], faces: Sequence[Fractions]
) -> tuple[str, State]:
    """Why a file makes no photo, and the state of its row."""
    _, _, missing, file_deleted, private, photo_deleted, *_ = markers[0]
    if private:
        return "it is private in PhotoPrism", "dropped"
    if photo_deleted:
        return "it is archived in PhotoPrism", "dropped"
    if missing or file_deleted:
        return "its file is missing, says PhotoPrism", "dropped"
    if not faces:
        return "its marker is invalid: in PhotoPrism somebody said that it is no such face", "dropped"
    if root not in {"/", "sidecar"}:
        return f"it lies in PhotoPrism's folder '{root}', which is not read", "dropped"
    if root == "sidecar" and source.sidecar is None:
        return "it is a side-car file: name PhotoPrism's side-car folder as source.photoprism.sidecar", "failed"
    if not path.is_file():
        setting = "sidecar" if root == "sidecar" else "originals"
        return f"it is not in the folder that source.photoprism.{setting} names", "failed"
    return raw(path.name), "failed"


def _fractions(row: Sequence[Any]) -> Fractions:
    return (float(row[7]), float(row[8]), float(row[9]), float(row[10]))


def _person(name: str, people: list[Sequence[Any]]) -> str:
    """The unique id of the person of that name or alias."""
    names: dict[str, str] = {}
    for uid, own, alias in people:
        for one in (_text(alias), _text(own)):  # a name wins over another's alias
            if one:
                names[one] = _text(uid)
    wanted = name.strip().casefold()
    for one, uid in names.items():
        if one.casefold() == wanted:
            return uid
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(names)[:12]) or 'none yet'}"
    raise SourceError(f"source.photoprism.person: PhotoPrism knows nobody named '{name}'; {hint}")


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else str(value or "")


@contextmanager
def _opened(source: PhotoPrism, read_wait_s: int | None = None) -> Generator[tuple[Select, str]]:
    """A function that runs a SELECT and gives its rows, and the mark that stands for a value in it. A server may take that long to answer."""
    if "://" in source.database:
        with _mariadb(source, read_wait_s) as select:
            yield select, "%s"
    else:
        with _sqlite(Path(source.database)) as select:
            yield select, "?"


@contextmanager
def _sqlite(file: Path) -> Generator[Select]:
    if not file.is_file():
        raise SourceError(
            f"source.photoprism.database: {file} is not there; it is index.db in PhotoPrism's storage folder"
        )
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=WAIT_S)) as connection:
            yield lambda query, values: connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise SourceError(f"{file} cannot be read as PhotoPrism's index: {error}") from None


@contextmanager
def _mariadb(source: PhotoPrism, read_wait_s: int | None) -> Generator[Select]:
    try:
        import pymysql
    except ModuleNotFoundError:
        raise SourceError(
            "PhotoPrism's MariaDB is read through the package pymysql, which is not installed: pip install 'lora-pipeline[photoprism]'"
        ) from None
    address = urlsplit(source.database)
    where = f"{address.hostname}:{address.port or 3306}"
    password = os.environ.get(source.password_env)
    if password is None:
        raise SourceError(
            f"the password of {address.username} on {where} is looked for in the environment variable {source.password_env}, which is not set"
        )
    try:
        with (
            closing(
                pymysql.connect(
                    host=address.hostname or "",
                    port=address.port or 3306,
                    user=unquote(address.username or ""),
                    password=password.encode(),  # a str would be sent in Latin-1
                    database=address.path.strip("/"),
                    connect_timeout=WAIT_S,
                    read_timeout=read_wait_s,
                    charset="utf8mb4",
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            # The server itself then refuses whatever would write, also to a user who may.
            cursor.execute("SET SESSION TRANSACTION READ ONLY")

            def select(query: str, values: Sequence[str]) -> list[Sequence[Any]]:
                cursor.execute(query, values)
                return cast(list[Sequence[Any]], cursor.fetchall())

            yield select
    except (pymysql.Error, OSError) as error:
        words = error.args[-1] if error.args else error
        raise SourceError(f"PhotoPrism's database {where} cannot be read: {words}") from None
