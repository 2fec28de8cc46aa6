"""One thing's lineage, both ways: what it was made of, to the photos, and what was made of it, to the releases. Read from the record."""

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_pipeline.errors import PipelineError
from lora_pipeline.families.lora_file import read_metadata
from lora_pipeline.lineage.record import opened
from lora_pipeline.lineage.things import RANK
from lora_pipeline.store import Store, digest_file

_HASH = re.compile(r"[0-9a-f]{8,64}", re.IGNORECASE)


@dataclass(frozen=True)
class Making:
    """When and how a thing was made.

    Args:
        made_at: UTC, ISO 8601; of the file that it left.
        stage: that made it.
        code_version: of the stage; None if it is not known.
        settings: that the stage read.
        environment: libraries and device (`environment.environment`); empty if they are not known.
        key: of the manifest's row that told of it: hash of all that it was made from.
    """

    made_at: str
    stage: str
    code_version: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class Entry:
    """A thing as the record holds it.

    Args:
        uid, kind, subject, id, digest, facts: as in `things.Thing`.
        path: of its file, where it was when it was last seen; None if it has none.
        makings: the first first; none of a photo of which only its name and digest are known.
    """

    uid: str
    kind: str
    subject: str
    id: str
    digest: str
    path: Path | None
    facts: Mapping[str, Any]
    makings: tuple[Making, ...] = ()


@dataclass(frozen=True)
class Graph:
    """Some things and all that they were made of and that was made of them.

    Args:
        asked: uids of the things that were asked about.
        entries: by uid.
        parents: of a uid, what it was made of; in order of kind and id.
        children: of a uid, what was made of it.
    """

    asked: tuple[str, ...]
    entries: Mapping[str, Entry]
    parents: Mapping[str, tuple[str, ...]]
    children: Mapping[str, tuple[str, ...]]

    def of_kind(self, kind: str) -> list[Entry]:
        """The things of a kind, in order of id."""
        return sorted((one for one in self.entries.values() if one.kind == kind), key=lambda one: one.id)


def graph(store: Store, asked: str) -> Graph:
    """The lineage of a file or a hash, whoever's it is.

    Args:
        asked: path of a file, wherever it lies and whatever it is called now; the name of one that was made here, or the end of its path;
            or the first eight or more hexadecimal digits of a digest or a run's key. A LoRA is known by its bytes, else by what its header says.

    Raises:
        PipelineError: it is not in the record, or a hash is the beginning of several.
    """
    with opened(store) as book:
        return _graph(book, store, find(book, store, asked))


def graph_of(store: Store, digests: Iterable[str], subject: str = "") -> Graph:
    """The lineage of all things of some digests, of one subject if it is named; empty if the record has none of them."""
    with opened(store) as book:
        found = [row for digest in digests for row in _of_digest(book, digest)]
        return _graph(book, store, [uid for uid, _, whose in found if subject in {"", whose}])


def find(book: sqlite3.Connection, store: Store, asked: str) -> list[str]:
    """Uids of what is meant. Arguments and errors as `graph`."""
    file = Path(asked).expanduser()
    if file.is_file():
        return _of_file(book, store, file)
    if _HASH.fullmatch(asked):
        return _of_hash(book, asked.lower())
    path = str(file.resolve())
    inside = file.resolve().relative_to(store.data.resolve()).as_posix() if _inside(file, store) else asked
    query = "SELECT path, uid FROM things WHERE path IN (?, ?, ?) OR path LIKE ? ESCAPE '!' ORDER BY recorded_at, rowid"
    ending = "%/" + re.sub("([!%_])", r"!\1", asked)
    newest = dict(book.execute(query, (path, inside, asked, ending)))  # of the files that lay in one place
    found = list(newest.values())
    if not found:
        raise PipelineError(
            f"there is no file {asked}, and none of that name is in the record; give a file, or the first 8 or more digits of a hash, "
            "or a subject's name and then an epoch, a photo or a picture"
        )
    return found


def _inside(file: Path, store: Store) -> bool:
    return file.resolve().is_relative_to(store.data.resolve())


def _of_file(book: sqlite3.Connection, store: Store, file: Path) -> list[str]:
    found = _of_digest(book, digest_file(file))
    if found:
        here = [uid for uid, path, _ in found if path and (store.data / path).resolve() == file.resolve()]
        return here or [uid for uid, _, _ in found]
    if file.suffix == ".safetensors" and (by_header := _by_header(book, file)):
        return by_header
    raise PipelineError(
        f"{file} is not in the record {store.data}/lineage.sqlite: nothing with its bytes (sha256 {digest_file(file)[:16]}) was made here, "
        "nor does a header lead to anything that was; --home names another data folder"
    )


def _by_header(book: sqlite3.Connection, file: Path) -> list[str]:
    """By what training and the release wrote into a LoRA's header: a file whose numbers were cast, or that was saved anew, since."""
    try:
        told = read_metadata(file)
    except (OSError, ValueError):
        return []
    if found := _of_digest(book, told.get("lora_pipeline.checkpoint", "-")):
        return [uid for uid, _, _ in found]
    query = (
        "SELECT c.uid FROM things c JOIN made_of ON child = c.uid JOIN things r ON r.uid = parent "
        "WHERE c.kind = 'checkpoint' AND r.kind = 'run' AND r.digest = ? AND c.id = ?"
    )
    key = told.get("lora_pipeline.run") or told.get("run", "")
    return [uid for (uid,) in book.execute(query, (key, f"epoch {told.get('epoch') or told.get('ss_epoch', '')}"))]


def _of_digest(book: sqlite3.Connection, digest: str) -> list[tuple[str, str, str]]:
    """(uid, path, subject) of things of a digest."""
    query = "SELECT uid, path, subject FROM things WHERE digest = ? ORDER BY recorded_at, rowid"
    return book.execute(query, (digest,)).fetchall()


def _of_hash(book: sqlite3.Connection, beginning: str) -> list[str]:
    found = book.execute(
        "SELECT uid, digest, kind, id FROM things WHERE digest >= ? AND digest < ? ORDER BY recorded_at, rowid",
        (beginning, beginning + "g"),
    ).fetchall()
    digests = {digest: f"{kind} {id} ({digest[:16]})" for _, digest, kind, id in found}
    if not found:
        raise PipelineError(f"nothing in the record has a digest that begins with {beginning}")
    if len(digests) > 1:
        raise PipelineError(
            f"{len(digests)} things have a digest that begins with {beginning}; give more of it: {', '.join(digests.values())}"
        )
    return [uid for uid, *_ in found]


def _graph(book: sqlite3.Connection, store: Store, asked: Sequence[str]) -> Graph:
    edges: set[tuple[str, str]] = set()
    for start, end in (("child", "parent"), ("parent", "child")):
        query = (
            f"WITH RECURSIVE reached (uid) AS (SELECT value FROM json_each(?) UNION SELECT {end} FROM made_of JOIN reached ON {start} = uid) "
            f"SELECT child, parent FROM made_of JOIN reached ON {start} = uid"
        )
        edges |= set(book.execute(query, (json.dumps(list(asked)),)))
    uids = {*asked, *(uid for edge in edges for uid in edge)}
    entries = {one.uid: one for one in _entries(book, store, uids)}
    parents: dict[str, list[str]] = {}
    children: dict[str, list[str]] = {}
    for child, parent in edges:
        parents.setdefault(child, []).append(parent)
        children.setdefault(parent, []).append(child)

    def ordered(of: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
        return {uid: tuple(sorted(others, key=lambda other: _place(entries[other]))) for uid, others in of.items()}

    return Graph(tuple(asked), entries, ordered(parents), ordered(children))


def _place(one: Entry) -> tuple[int, list[str | int], str]:
    """In order of kind, and of id with its numbers as numbers."""
    parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", one.id)]
    return RANK.get(one.kind, 0), parts, one.uid


def _entries(book: sqlite3.Connection, store: Store, uids: Iterable[str]) -> Iterable[Entry]:
    wanted = json.dumps(list(uids))
    makings: dict[str, list[Making]] = {}
    told = dict(book.execute("SELECT digest, json FROM told"))
    among = "WHERE uid IN (SELECT value FROM json_each(?))"
    query = (
        f"SELECT uid, made_at, stage, code_version, settings, environment, key FROM makings {among} ORDER BY made_at"
    )
    loaded = {digest: json.loads(text) for digest, text in told.items()}
    for uid, made_at, stage, code_version, settings, environment, key in book.execute(query, (wanted,)):
        making = Making(made_at, stage, code_version, loaded.get(settings, {}), loaded.get(environment, {}), key)
        makings.setdefault(uid, []).append(making)
    query = f"SELECT uid, kind, subject, id, digest, path, facts FROM things {among}"
    for uid, kind, subject, id, digest, path, facts in book.execute(query, (wanted,)):
        where = store.data / path if path else None
        yield Entry(uid, kind, subject, id, digest, where, json.loads(facts), tuple(makings.get(uid, ())))
