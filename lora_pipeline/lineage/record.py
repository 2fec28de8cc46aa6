"""The record: every derived thing that ever was, and what it was made of. One SQLite file, `data/lineage.sqlite`, no server.

    things    a row a thing (`things.Thing`); nothing is ever taken out, so what was replaced long ago can still be asked about
    made_of   child, parent
    makings   when and how: stage, code version, settings, libraries and device. The same thing can be made twice
    told      settings and environments, as JSON, by their digest
    stands    which thing of a kind and id stands now
    recorded  how each stage's manifest was when it was last read

It is written from the manifests that stand, after each stage, and is theirs to lose: without the file, the next run writes what still stands.
"""

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lora_pipeline.errors import PipelineError
from lora_pipeline.lineage.environment import environment
from lora_pipeline.lineage.things import (
    Kind,
    Known,
    Thing,
    as_json,
    captions,
    crops,
    grid_pictures,
    photos,
    pictures,
    releases,
    run,
    scores,
    training_set,
)
from lora_pipeline.manifest import key_of, read
from lora_pipeline.store import Store, digest_file

FILE = "lineage.sqlite"
MADE_WITH = "made_with.json"  # what the process that trains leaves in its run's folder: its `environment`
_WAIT_S = 60.0  # for another run that writes
_CLOCK_S = 1.0  # by which a file's time may stand before the clock's
_FOLDERS = {
    "collect": photos,
    "crop": crops,
    "conceal": pictures,
    "describe": captions,
    "encode": training_set,
    "grids": grid_pictures,
    "scores": scores,
    "publish": releases,
}
_STANDING: dict[str, tuple[Kind, ...]] = {
    "crop": ("crop",),
    "conceal": ("picture",),
    "describe": ("caption",),
    "grids": ("grid picture",),
    "scores": ("score",),
}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS things (
    uid TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, id TEXT NOT NULL, digest TEXT NOT NULL,
    path TEXT NOT NULL, photo TEXT NOT NULL, facts TEXT NOT NULL, recorded_at TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS things_by_digest ON things (digest);
CREATE INDEX IF NOT EXISTS things_by_photo ON things (photo);
CREATE INDEX IF NOT EXISTS things_by_id ON things (subject, kind, id);
CREATE TABLE IF NOT EXISTS made_of (child TEXT NOT NULL, parent TEXT NOT NULL, PRIMARY KEY (child, parent)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS made_of_by_parent ON made_of (parent, child);
CREATE TABLE IF NOT EXISTS makings (
    uid TEXT NOT NULL, key TEXT NOT NULL, made_at TEXT NOT NULL, stage TEXT NOT NULL, code_version TEXT,
    settings TEXT, environment TEXT, PRIMARY KEY (uid, key));
CREATE TABLE IF NOT EXISTS told (digest TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS stands (
    subject TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, uid TEXT NOT NULL, PRIMARY KEY (subject, kind, id));
CREATE TABLE IF NOT EXISTS recorded (
    subject TEXT NOT NULL, part TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (subject, part));
"""


@dataclass(frozen=True)
class _Part:
    """A manifest, or a training run's folder."""

    name: str
    folder: Path

    @property
    def of_run(self) -> bool:
        return self.name.startswith("fit/")

    @property
    def state(self) -> str:
        """What it is now; empty if there is nothing."""
        names = (
            ("job.json", "trained_on.parquet", "epochs.jsonl") if self.of_run else ("manifest.parquet", "settings.json")
        )
        files = [self.folder / name for name in names]
        return key_of([digest_file(file) if file.exists() else "" for file in files]) if files[0].exists() else ""


@contextmanager
def opened(store: Store) -> Generator[sqlite3.Connection]:
    """The record, made if it is not there. What is written in the block stays only if the block ends well.

    Raises:
        PipelineError: the file is damaged, cannot be written, or another run kept it to itself for a minute.
    """
    file = store.data / FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=_WAIT_S, isolation_level=None)) as book:
            if not book.execute("SELECT 1 FROM sqlite_master WHERE name = 'recorded'").fetchone():
                book.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            yield book
    except (sqlite3.DatabaseError, OSError) as error:
        raise PipelineError(
            f"the lineage record {file} cannot be used ({error}). If another run is at work, run again when it has ended; if the file is "
            "damaged, move it away: what still stands is written anew from the manifests"
        ) from error


@contextmanager
def writing(book: sqlite3.Connection) -> Generator[None]:
    """A transaction that no other writer is in; undone if the block raises."""
    book.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        book.execute("ROLLBACK")
        raise
    book.execute("COMMIT")


def record(store: Store, subject: str, began: float | None = None) -> int:
    """Write down what the stages of a subject have left and the record does not know yet. Cheap where nothing has changed.

    Args:
        began: when the stage began that has just run (`time.time()`): what was made since was made with the libraries and the device at
            hand. Of older things found now for the first time, it is not known with what they were made.

    Returns:
        How many things are new in the record.

    Raises:
        PipelineError: see `opened`.
    """
    parts = list(_parts(store, subject))
    with opened(store) as book:
        known = dict(book.execute("SELECT part, state FROM recorded WHERE subject = ?", (subject,)))
        states = {part.name: part.state for part in parts}
        changed = [part for part in parts if states[part.name] and states[part.name] != known.get(part.name)]
        if not changed:
            return 0
        with writing(book):
            new = sum(_write(book, store, subject, part, began) for part in changed)
            book.executemany(
                "INSERT OR REPLACE INTO recorded VALUES (?, ?, ?)",
                [(subject, part.name, states[part.name]) for part in changed],
            )
        return new


def record_all(store: Store) -> None:
    """`record`, of every subject that anything was made of."""
    for folder in sorted((store.data / "work").glob("*/")):
        record(store, folder.name)


def _parts(store: Store, subject: str) -> Iterator[_Part]:
    """In the order in which one is made of another."""
    for name in _FOLDERS:
        if name == "grids":
            for folder in sorted(store.work(subject, "fit").glob("runs/*/")):
                yield _Part(f"fit/{folder.name}", folder)
        yield _Part(name, store.work(subject, name))


def _write(book: sqlite3.Connection, store: Store, subject: str, part: _Part, began: float | None) -> int:
    known = _known(book, subject)
    things = list(run(part.folder, known) if part.of_run else _FOLDERS[part.name](read(part.folder), known))
    own = {thing.uid: thing for thing in things}
    before = book.execute("SELECT count(*) FROM things").fetchone()[0]
    book.executemany(
        "INSERT INTO things VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uid) DO UPDATE SET path = excluded.path "
        "WHERE excluded.path != '' AND things.id != ''",  # the id of a thing that was forgotten is empty, and it stays forgotten
        [
            (
                uid,
                one.kind,
                one.subject,
                one.id,
                one.digest,
                _path(store, one.path),
                one.photo,
                _dumped(one.facts),
                _iso(),
            )
            for uid, one in own.items()
        ],
    )
    book.executemany(
        "INSERT OR IGNORE INTO made_of VALUES (?, ?)",
        [(uid, parent) for uid, one in own.items() for parent in one.parents],
    )
    _write_makings(book, part, things, began)
    for kind in _STANDING.get(part.name, ()):
        book.execute("DELETE FROM stands WHERE subject = ? AND kind = ?", (subject, kind))
        standing = [(subject, kind, one.id, one.uid) for one in own.values() if one.kind == kind and one.key]
        book.executemany("INSERT OR REPLACE INTO stands VALUES (?, ?, ?, ?)", standing)
    return int(book.execute("SELECT count(*) FROM things").fetchone()[0]) - int(before)


def _write_makings(book: sqlite3.Connection, part: _Part, things: Iterable[Thing], began: float | None) -> None:
    used = as_json(part.folder / ("job.json" if part.of_run else "settings.json"))
    code_version = used.pop("code_version", None)
    if part.of_run:
        used = {name: used.get(name) for name in ("settings", "base", "prompt", "guidance_scale")}
    settings = _tell(book, used) if used else None
    with_what = as_json(part.folder / MADE_WITH) or (environment() if began is not None and not part.of_run else {})
    now = _tell(book, with_what) if with_what else None
    manifest = part.folder / ("job.json" if part.of_run else "manifest.parquet")
    rows: list[tuple[Any, ...]] = []
    for one in things:
        if not one.key:
            continue  # it is only named here, and was made elsewhere
        ours = one.path is not None and one.path.is_relative_to(part.folder) and one.path.is_file()
        made_at = (one.path if ours and one.path is not None else manifest).stat().st_mtime
        of_now = part.of_run or (began is not None and made_at >= began - _CLOCK_S)
        stage = part.name.partition("/")[0]
        rows.append((one.uid, one.key, _iso(made_at), stage, code_version, settings, now if of_now else None))
    book.executemany("INSERT OR IGNORE INTO makings VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def _known(book: sqlite3.Connection, subject: str) -> Known:
    def standing(kind: Kind, id: str) -> Thing | None:
        query = "SELECT t.uid FROM stands s JOIN things t USING (uid) WHERE s.subject = ? AND s.kind = ? AND s.id = ?"
        found = book.execute(query, (subject, kind, id)).fetchone()
        return None if found is None else _thing(book, found[0])

    def of_key(id: str, key: str) -> str | None:
        query = "SELECT uid FROM things JOIN makings USING (uid) WHERE subject = ? AND kind = 'example' AND id = ? AND key = ?"
        return _first(book.execute(f"{query} ORDER BY made_at DESC", (subject, id, key)).fetchone())

    def of_digest(digest: str) -> str | None:
        query = "SELECT uid FROM things WHERE subject = ? AND kind = 'checkpoint' AND digest = ?"
        return _first(book.execute(query, (subject, digest)).fetchone())

    def of_run(key: str) -> str | None:
        query = "SELECT uid FROM things WHERE subject = ? AND kind = 'run' AND digest = ?"
        return _first(book.execute(query, (subject, key)).fetchone())

    return Known(subject, standing, of_key, of_digest, of_run)


def _first(row: tuple[str] | None) -> str | None:
    return None if row is None else row[0]


def _thing(book: sqlite3.Connection, uid: str) -> Thing:
    query = "SELECT kind, subject, id, digest, photo FROM things WHERE uid = ?"
    kind, subject, id, digest, photo = book.execute(query, (uid,)).fetchone()
    parents = [parent for (parent,) in book.execute("SELECT parent FROM made_of WHERE child = ?", (uid,))]
    return Thing(kind, subject, id, digest, tuple(parents), photo=photo)


def _tell(book: sqlite3.Connection, what: Mapping[str, Any]) -> str:
    digest = key_of(what)
    book.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (digest, _dumped(what)))
    return digest


def _path(store: Store, path: Path | None) -> str:
    """Within the data folder if it lies there, so that the folder can be moved."""
    if path is None:
        return ""
    return path.relative_to(store.data).as_posix() if path.is_relative_to(store.data) else str(path)


def _dumped(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, ensure_ascii=False)


def _iso(seconds: float | None = None) -> str:
    now = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return now.isoformat(timespec="seconds")
