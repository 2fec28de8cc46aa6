"""The memo: what was made, from what, and so what need not be made again.

A stage's output is a manifest, a table with a row an item. A row's key is the hash of every input's digest, of the
stage's settings and of its code version. `refresh` walks the items that there are now:

- a row whose key is unchanged and whose files are still there with their digests is **reused**;
- every other item is **computed**, and a line in a journal says so at once, so that a kill costs the items in flight and no more;
- a row whose item has gone is forgotten, and files that no row names are swept from the subfolders in which rows have files
  (what a stage keeps beside its rows belongs in another subfolder, or in the stage's folder itself).

The table itself is written last and whole. Nothing in it depends on when or in what order it was made, so an equal
result has equal bytes, and its digest is Dagster's data version.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from sys import intern
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from pydantic import BaseModel

from lora_pipeline.errors import ModelError, PassingError, PipelineError
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import File, Row, State, Value
from lora_pipeline.store import ASIDE, DigestCache, is_aside, whole

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Read by pyarrow when it is first used: of what its own allocator once had, it keeps 20 to 40 MiB.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

T = TypeVar("T")
S = TypeVar("S")

JOURNAL = "journal.jsonl"
DIGESTS = "digests.json"
TABLE = ".parquet"
AT_ONCE = 500
"""Rows of a table that are text at the same time, while it is read or written."""
AHEAD = 16
"""Items that wait for each worker, so that none is idle; the others are not handed out yet."""
WORTH_PROCESSES = 8
"""From more items than these on, starting a process a core costs less than it saves."""


@dataclass(frozen=True)
class Manifest:
    """Rows in order of id, and the folder in which their files lie."""

    folder: Path
    rows: tuple[Row, ...]

    @property
    def kept(self) -> tuple[Row, ...]:
        """The rows that go on to the next stage."""
        return tuple(row for row in self.rows if row.state == "kept")

    @property
    def digest(self) -> str:
        """SHA-256 over what all rows hold: the data version.

        Keys are left out: another setting that comes to the same result has the same digest, and what is downstream stays in sync.
        """
        hashed = hashlib.sha256()
        # As `key_of` of the list of all rows, without the text of all rows at once.
        for number, row in enumerate(self.rows):
            hashed.update(b"," if number else b"[[")
            hashed.update(_canonical({**_as_json(row), "key": ""}).encode())
        hashed.update(b"]]" if self.rows else b"[[]]")
        return hashed.hexdigest()

    def path(self, row: Row, role: str = "picture") -> Path:
        """Absolute path of one of a row's files. Raises KeyError if the row has none in that role."""
        return self.folder / row.files[role].path

    def row(self, id: str) -> Row:
        """The row of that id. Raises KeyError."""
        for row in self.rows:
            if row.id == id:
                return row
        raise KeyError(id)

    def frame(self) -> "pd.DataFrame":
        """The rows as a table: `id, key, state, reason`, then data, then `<role>_path` and `<role>_digest`."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.rows])


@dataclass(frozen=True)
class Item(Generic[T]):
    """Something to be made.

    Args:
        id: the row's id.
        inputs: digests (or values) of every input it is made from; JSON values only.
        payload: what the making function needs; not part of the key.
    """

    id: str
    inputs: Sequence[Value]
    payload: T


@dataclass(frozen=True)
class Mapped(Generic[S, T]):
    """What `one` makes of each of `sources`, made anew each time it is asked for and never held: ten thousand items take no memory.

    Raises TypeError if the sources can be gone through only once.
    """

    one: Callable[[S], T]
    sources: Iterable[S]

    def __post_init__(self) -> None:
        if isinstance(self.sources, Iterator):
            raise TypeError("an iterator has nothing left when it is asked a second time; hand in a tuple")

    def __iter__(self) -> Iterator[T]:
        return map(self.one, self.sources)


@dataclass(frozen=True)
class Made:
    """What came of one item: the row's data, its files (paths within the stage's folder, already written whole), its state."""

    data: Mapping[str, Value] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    state: State = "kept"
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """What one execution did, in numbers. `computed` + `reused` = all rows."""

    computed: int = 0
    reused: int = 0
    dropped: int = 0
    failed: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Report") -> "Report":
        return Report(
            self.computed + other.computed,
            self.reused + other.reused,
            self.dropped + other.dropped,
            self.failed + other.failed,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Outcome:
    """A stage's manifest and the report of how it came to be."""

    manifest: Manifest
    report: Report


class Stale(Exception):
    """Raised in place of computing while `planning`: what would be computed, and why.

    Args:
        would: item id → why (`new`, `changed`, `its file is gone or changed`).
        gone: ids of rows whose items are no longer there.
        total: how many items there are.
    """

    def __init__(self, would: Mapping[str, str], gone: Sequence[str], total: int) -> None:
        super().__init__(f"{len(would)} of {total} would be computed, {len(gone)} have gone")
        self.would, self.gone, self.total = dict(would), tuple(gone), total


_planning: ContextVar[bool] = ContextVar("planning", default=False)


@contextmanager
def planning() -> Generator[None]:
    """Within this block nothing is computed or written: a stage that is not up to date raises `Stale` instead."""
    token = _planning.set(True)
    try:
        yield
    finally:
        _planning.reset(token)


def is_planning() -> bool:
    """Whether we are inside `planning`."""
    return _planning.get()


def key_of(*parts: object) -> str:
    """SHA-256 of the canonical JSON of some values: sorted names, no spaces, NaN refused; pydantic models by their fields."""
    return hashlib.sha256(_canonical(parts).encode()).hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def read(folder: Path, name: str = "manifest") -> Manifest:
    """Read a manifest. A missing or damaged one is an empty one: everything is then computed anew."""
    file = folder / f"{name}{TABLE}"
    if not file.exists():
        return Manifest(folder, ())
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            batches = table.iter_batches(AT_ONCE, columns=["row"])
            rows = [_from_json(text) for batch in batches for text in batch["row"].to_pylist()]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return Manifest(folder, ())
    return Manifest(folder, tuple(rows))


def write(folder: Path, rows: Iterable[Row], name: str = "manifest") -> Manifest:
    """Write a manifest whole, as parquet: a readable column a value, and `row`, the whole row as JSON, which `read` reads.

    Raises ValueError if two rows have one id.
    """
    ordered = tuple(sorted(rows, key=lambda row: row.id))
    if len({row.id for row in ordered}) < len(ordered):
        raise ValueError(f"two rows of {folder / name} have one id")
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(ordered)
    with whole(folder / f"{name}{TABLE}") as aside, parquet.ParquetWriter(aside, schema) as table:
        for start in range(0, len(ordered), AT_ONCE):
            lines = [
                {**_flat(row), "row": json.dumps(_as_json(row), default=_plain)}
                for row in ordered[start : start + AT_ONCE]
            ]
            table.write_table(pa.Table.from_pylist(lines, schema))
    return Manifest(folder, ordered)


def _schema(rows: Iterable[Row]) -> "pa.Schema":
    """The columns of a table, in the order in which the rows name them, and `row`.

    Not sorted by name: a row read back keeps the order of its data, so columns stand in one order whatever was reused.
    """
    import pyarrow as pa

    kinds: dict[str, set[type]] = {"id": {str}}
    for row in rows:
        for name, value in _flat(row).items():
            kinds.setdefault(name, set()).update(() if value is None else (type(value),))
    columns = {
        frozenset(): pa.null(),
        frozenset({bool}): pa.bool_(),
        frozenset({int}): pa.int64(),
        frozenset({int, float}): pa.float64(),
        frozenset({float}): pa.float64(),
    }
    told = {name: columns.get(frozenset(kind), pa.string()) for name, kind in kinds.items()}
    return pa.schema({**told, "row": pa.string()})


def refresh(
    folder: Path,
    items: Iterable[Item[T]],
    make: Callable[[T, Path], Made],
    *,
    settings: BaseModel | None,
    code_version: str,
    name: str = "manifest",
    what: str = "",
    workers: int = 1,
    processes: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Bring a manifest up to date with the items that there are now, computing only what changed.

    Args:
        folder: the stage's folder; made if missing.
        items: what there is to be, in any order; asked for once for their keys, and once more for what is to be made.
            Of each item its id alone is remembered, so a `Mapped` of many takes no memory; an iterator becomes a tuple.
        make: `make(payload, folder)` makes one item. It writes files with `store.whole`. A `PipelineError` it raises
            becomes a failed row with the message as its reason, but for a `ModelError`, which ends the run. A `PassingError`
            or any other exception is a failed row too, which the next run tries again. With `processes`, it and the payloads must be picklable.
        settings: the slice of the settings that this stage reads; part of every key.
        code_version: raised by hand when the stage's result changes; part of every key.
        name: of the table in the folder. A folder may hold several; each sweeps its own files alone.
        what: the words shown beside the progress.
        workers: how many items at once; 0 is one a core.
        processes: workers are processes (spawned), for code that holds the interpreter lock, and where few items are to be made none is started; else threads.
        progress: told after each item.

    Raises:
        ValueError: two items have one id.
        ModelError: `make` raised it. What is done is kept.
        PipelineError: every single item failed with an unforeseen exception (the first one is the cause), a worker process
            was killed, or another run is at work in the folder.
        Stale: within `planning`, if anything would change.
    """
    started = time.monotonic()
    items = tuple(items) if isinstance(items, Iterator) else items
    with nullcontext() if is_planning() else _alone(folder):
        journal = folder / f"{name}.{JOURNAL}"
        before = read(folder, name)
        known = [*before.rows, *_read_journal(journal)]
        newest = {row.id: row for row in known}
        digests = DigestCache(folder / f"{name}.{DIGESTS}")

        def key_now(item: Item[T]) -> str:
            return key_of(item.inputs, settings, code_version)

        rows: dict[str, Row] = {}
        why: dict[str, str] = {}
        for item in items:
            if item.id in rows or item.id in why:
                raise ValueError(f"two items of {folder / name} have one id")
            key = key_now(item)
            old = newest.get(item.id)
            if old is not None and old.key == key and _files_stand(old, folder, digests):
                rows[item.id] = old
            else:
                why[item.id] = "new" if old is None else "changed" if old.key != key else "its file is gone or changed"
        reused = len(rows)
        if is_planning():
            settled = {row.id: row for row in before.rows}
            why |= {id: "done, but its run was cut off" for id, row in rows.items() if settled.get(id) != row}
            total = len(rows.keys() | why.keys())
            gone = sorted(settled.keys() - rows.keys() - why.keys())
            if why or gone:
                raise Stale(why, gone, total)
            return _outcome(folder, rows.values(), 0, reused, started)

        _give_back()  # what stages before had, before workers are started
        unforeseen: list[tuple[str, BaseException]] = []
        computed = len(why)
        todo = ((item.id, item.payload, key_now(item)) for item in items if item.id in why)
        count = 1 if processes and computed <= WORTH_PROCESSES else min(workers or os.cpu_count() or 1, computed)
        with journal.open("a", encoding="utf-8") as log, _pool(count, processes) as pool:
            if log.tell():
                log.write("\n")  # ends the line in which the last run was killed
            for done, (id, key, future) in enumerate(_finished(pool, count * AHEAD, todo, make, folder), start=1):
                try:
                    made = future.result()
                except ModelError:
                    raise  # it is no item's fault, and a failed row would outlive the missing file's arrival
                except PipelineError as error:
                    made = Made(state="failed", reason=str(error))
                    key = "" if isinstance(error, PassingError) else key
                except BrokenExecutor as error:
                    raise PipelineError(
                        f"{what or folder.name}: a worker process was killed, most often for want of memory; "
                        f"what is done is kept ({done - 1} of {computed}): run again, with fewer workers if it comes back"
                    ) from error
                except Exception as error:
                    unforeseen.append((id, error))
                    made = Made(state="failed", reason=f"{type(error).__name__}: {error}")
                    key = ""  # equals no key, so the next run tries again
                files = {role: File(path, digests.anew(folder / path)) for role, path in made.files.items()}
                row = Row(id, key, made.state, made.reason, made.data, files)
                log.write(json.dumps(_as_json(row), default=_plain) + "\n")
                log.flush()
                progress(what or folder.name, done, computed)
        if unforeseen and len(unforeseen) == computed and not reused:
            raise PipelineError(
                f"{what or folder.name}: all {computed} failed; the first, {unforeseen[0][0]}: {unforeseen[0][1]}"
            ) from unforeseen[0][1]

        # Until now they lay in the journal alone: while workers are alive, what is done takes no memory.
        rows |= {row.id: row for row in _read_journal(journal) if row.id in why}
        ordered = tuple(sorted(rows.values(), key=lambda row: row.id))
        if ordered != before.rows or not (folder / f"{name}{TABLE}").exists():
            write(folder, ordered, name)
        # What an unforeseen error left behind may be what the next run goes on from.
        _sweep(folder, name, known, ordered, strays=not unforeseen)
        digests.save()
        journal.unlink(missing_ok=True)
    _give_back()
    return _outcome(folder, ordered, computed, reused, started)


def rewrite(folder: Path, change: Callable[[Row], Row | None]) -> int:
    """Change or remove rows in every table of a folder, also in those of a run that was cut off, and remove the files that no row names any more.

    Args:
        folder: a stage's; nothing happens where there is none.
        change: the row as it shall stand, or None if it shall go.

    Returns:
        how many files were removed.

    Raises:
        PipelineError: a run is at work in the folder.
    """
    if not folder.is_dir():
        return 0
    with _alone(folder):
        before: set[str] = set()
        named: set[str] = set()
        for table in [file.name.removesuffix(TABLE) for file in folder.glob(f"*{TABLE}")]:
            rows = read(folder, table).rows
            after = [new for row in rows if (new := change(row)) is not None]
            before |= _files(rows)
            named |= _files(after)
            if tuple(after) != rows:
                write(folder, after, table)
        for journal in folder.glob(f"*.{JOURNAL}"):
            rows = list(_read_journal(journal))
            after = [new for row in rows if (new := change(row)) is not None]
            before |= _files(rows)
            named |= _files(after)
            with whole(journal) as aside:
                aside.write_text("".join(json.dumps(_as_json(row), default=_plain) + "\n" for row in after), "utf-8")
        gone = [folder / path for path in before - named if (folder / path).exists()]
        for path in gone:
            path.unlink()
        for cache in folder.glob(f"*.{DIGESTS}"):
            DigestCache(cache).forget(gone)
        return len(gone)


def _files(rows: Iterable[Row]) -> set[str]:
    return {file.path for row in rows for file in row.files.values()}


def _outcome(folder: Path, rows: Iterable[Row], computed: int, reused: int, started: float) -> Outcome:
    ordered = tuple(sorted(rows, key=lambda row: row.id))
    states = [row.state for row in ordered]
    report = Report(computed, reused, states.count("dropped"), states.count("failed"), time.monotonic() - started)
    return Outcome(Manifest(folder, ordered), report)


def _give_back() -> None:
    """Freed memory to the system: glibc keeps what lies between rows that live on, 20 to 50 MiB a stage of 8,000 photos."""
    _unpacked.cache_clear()  # a few objects keep a mebibyte of freed ones about them
    with suppress(OSError, AttributeError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Make the folder and hold its lock, which the system takes back if this process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PipelineError(f"another run is at work in {folder}; run again when it has ended") from None
        except OSError:
            pass  # a file system that knows no locks
        yield
    finally:
        os.close(handle)


def _finished(
    pool: Executor | None, ahead: int, todo: Iterator[tuple[str, T, str]], make: Callable[[T, Path], Made], folder: Path
) -> Iterator[tuple[str, str, "Future[Made]"]]:
    """Each item's id and key with what came of it, as they are done; so many at most are handed out at the same time."""
    if pool is None:
        for id, payload, key in todo:
            future: Future[Made] = Future()
            try:
                future.set_result(make(payload, folder))
            except Exception as error:
                future.set_exception(error)
            yield id, key, future
        return
    waiting: dict[Future[Made], tuple[str, str]] = {}
    while True:
        for id, payload, key in islice(todo, ahead - len(waiting)):
            waiting[pool.submit(make, payload, folder)] = id, key
        if not waiting:
            return
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            yield *waiting.pop(future), future


@contextmanager
def _pool(count: int, processes: bool) -> Generator[Executor | None]:
    if count <= 1:
        yield None
        return
    if processes:
        import multiprocessing

        pool: Executor = ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("spawn"), initializer=_die_with_parent
        )
    else:
        pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:  # an interrupt does not wait for what has not begun
        pool.shutdown(wait=True, cancel_futures=True)


def _die_with_parent() -> None:
    """A worker whose parent is killed would wait for work for ever, its memory held."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _files_stand(row: Row, folder: Path, digests: DigestCache) -> bool:
    try:
        return all(digests.digest(folder / file.path) == file.digest for file in row.files.values())
    except OSError:
        return False


def _read_journal(journal: Path) -> Iterator[Row]:
    if not journal.exists():
        return
    with journal.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                yield _from_json(line)
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written when the run was killed


def _sweep(folder: Path, name: str, known: Sequence[Row], rows: Sequence[Row], strays: bool) -> None:
    """Remove files of rows that are no more, half-written files, and strays: whole files of items in flight when a run was killed."""
    named = _files(rows)
    gone = _files(known) - named
    if strays:
        for place in {path.rpartition("/")[0] for path in named | gone} - {""}:
            gone |= _files_in(folder, place) - named
    if gone:  # another table of this folder may name them
        tables = [file.name.removesuffix(TABLE) for file in folder.glob(f"*{TABLE}")]
        journals = [file for file in folder.glob(f"*.{JOURNAL}") if file.name != f"{name}.{JOURNAL}"]
        others = [row for table in tables if table != name for row in read(folder, table).rows]
        others += [row for journal in journals for row in _read_journal(journal)]
        gone -= _files(others)
    for path in gone:
        (folder / path).unlink(missing_ok=True)
    for path in folder.rglob(f"*{ASIDE}*"):
        if is_aside(path):
            path.unlink(missing_ok=True)


def _files_in(folder: Path, place: str) -> set[str]:
    """As text, and not as paths, of which ten thousand take 6 MB."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / place) as there:
        return {f"{place}/{entry.name}" for entry in there if entry.is_file()}
    return set()


def _flat(row: Row) -> dict[str, Value]:
    flat: dict[str, Value] = {"id": row.id, "key": row.key, "state": row.state, "reason": row.reason}
    for name, value in row.data.items():
        flat[name] = (
            json.dumps(value, sort_keys=True, default=_plain) if isinstance(value, list | tuple | dict) else value
        )
    for role, file in row.files.items():
        flat[f"{role}_path"], flat[f"{role}_digest"] = file.path, file.digest
    return flat


def _as_json(row: Row) -> dict[str, Value]:
    return {
        "id": row.id,
        "key": row.key,
        "state": row.state,
        "reason": row.reason,
        "data": dict(row.data),
        "files": {role: [file.path, file.digest] for role, file in row.files.items()},
    }


def _from_json(text: str) -> Row:
    row = json.loads(text)
    # One empty mapping and one word for all rows of a table.
    files = {role: File(path, digest) for role, (path, digest) in row["files"].items()} or _NO_FILES
    state = cast(State, intern(row["state"]))
    return Row(row["id"], row["key"], state, row["reason"], Packed(row["data"]), files)


_NO_FILES: Mapping[str, File] = {}


class Packed(Mapping[str, Value]):
    """A row's data as the text of its JSON, compressed, and read when it is asked for: ten thousand photos' numbers take a tenth of the memory
    that they take as objects.

    Rows of one kind name the same things, so each is written as what it differs in from the first of its kind.
    Tuples are lists in it, numpy's numbers Python's, and what is not a number (NaN) is None, so a row just made equals the same row read again.
    """

    __slots__ = ("_bytes", "_like")

    def __init__(self, data: Mapping[str, Value]) -> None:
        text = json.dumps(dict(data), default=_plain).encode()
        self._like = _LIKE.setdefault(tuple(data), text)
        packing = zlib.compressobj(zdict=self._like)
        self._bytes = packing.compress(text) + packing.flush()

    def __getitem__(self, name: str) -> Value:
        return _unpacked(self._bytes, self._like)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_unpacked(self._bytes, self._like))

    def __len__(self) -> int:
        return len(_unpacked(self._bytes, self._like))

    def __repr__(self) -> str:
        return repr(dict(self))


_LIKE: dict[tuple[str, ...], bytes] = {}
"""By the names in a row's data, the text of the first one that had them."""


@lru_cache(maxsize=64)
def _unpacked(packed: bytes, like: bytes) -> dict[str, Value]:
    """Of the rows asked for last it is remembered, since a row is asked for one value after the other."""
    return json.loads(zlib.decompressobj(zdict=like).decompress(packed), parse_constant=lambda _: None)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if hasattr(value, "tolist"):  # a numpy or torch number or array
        return cast(Any, value).tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON value")
