"""Where files live, and how they appear there: whole or not at all.

`Store` knows the two trees under `data/`: `subjects/<name>/` is the person's (read, and written only by
`lora-pipeline new`), `work/<name>/<stage>/` is ours. Everything made goes through `whole`.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

ASIDE = ".part"  # suffix of a file still being written; swept on the next run


@dataclass(frozen=True)
class Store:
    """The data folder of one installation.

    Args:
        data: the folder that holds `subjects/` and `work/`.
    """

    data: Path

    @property
    def subjects(self) -> Path:
        """Folder with one folder a subject."""
        return self.data / "subjects"

    def subject(self, name: str) -> Path:
        """Folder of one subject: `subject.yaml`, `photos/`, `captions/`."""
        return self.subjects / name

    def work(self, name: str, stage: str) -> Path:
        """Folder in which one stage leaves what it made for one subject."""
        return self.data / "work" / name / stage


def default_home() -> Path:
    """The folder that holds `data/`: `LORA_PIPELINE_HOME`, else the checkout that this package is imported from, else the current one."""
    if named := os.environ.get("LORA_PIPELINE_HOME"):
        return Path(named).expanduser().resolve()
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "workspace.yaml").exists() else Path.cwd()


def default_store() -> Store:
    """The store of `default_home`."""
    return Store(default_home() / "data")


@contextmanager
def whole(path: Path) -> Generator[Path]:
    """Give a path to write to; when the block ends well, what was written is renamed to `path`.

    A reader sees the old file, or the new one, never half of one; a block that raises leaves the old one.
    The name aside keeps the real suffix last, since writers choose a format by it. It is short however long the real one is,
    and each thread's own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    short = digest_bytes(os.fsencode(path.name))[:16]
    aside = path.with_name(f"{short}.{os.getpid()}-{threading.get_native_id()}{ASIDE}{path.suffix}")
    try:
        yield aside
        with aside.open("rb") as handle:
            os.fsync(handle.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def is_aside(path: Path) -> bool:
    """Whether this is a file that `whole` was writing to when its process was killed."""
    return re.fullmatch(rf"[0-9a-f]{{16}}\.\d+-\d+{re.escape(ASIDE)}(\.[^.]*)?", path.name) is not None


def write_text(path: Path, text: str) -> None:
    """Write a whole text file (UTF-8)."""
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8")


def digest_bytes(data: bytes) -> str:
    """SHA-256 of some bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest_tree(folder: Path) -> str:
    """One SHA-256 over the names and bytes of all files under a folder (a model's folder, for one)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_bytes(
        json.dumps([(path.relative_to(folder).as_posix(), digest_file(path)) for path in files]).encode()
    )


class DigestCache:
    """Digests of files that have not changed since they were last read.

    A file whose size and modification time (nanoseconds) are those remembered is not read again; this is what makes a rerun
    over thousands of photos a matter of `stat`. Lost or damaged, it only costs time.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[str, list[int | str]] = {}
        self._used: dict[str, list[int | str]] = {}
        try:
            known: object = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(known, dict):
            self._known = {
                path: entry
                for path, entry in cast(dict[str, object], known).items()
                if isinstance(entry, list) and len(entry) == 3
            }

    def digest(self, path: Path) -> str:
        """SHA-256 of the file, from memory where size and time are unchanged. Raises OSError if it cannot be read."""
        stat = path.stat()
        known = self._known.get(str(path))
        if known is None or known[:2] != [stat.st_size, stat.st_mtime_ns]:
            known = [stat.st_size, stat.st_mtime_ns, digest_file(path)]
        self._known[str(path)] = self._used[str(path)] = known
        return str(known[2])

    def anew(self, path: Path) -> str:
        """SHA-256 of a file that was just written: read, since two writes within a tick of the clock have one time."""
        self._known.pop(str(path), None)
        return self.digest(path)

    def forget(self, gone: Collection[Path]) -> None:
        """Take files out of what is remembered, also of what is not asked for just now."""
        names = {str(path) for path in gone}
        if names & self._known.keys():
            self._known = {path: entry for path, entry in self._known.items() if path not in names}
            write_text(self.file, json.dumps(self._known))

    def save(self) -> None:
        """Remember what was asked for since this object was made, and forget the rest."""
        write_text(self.file, json.dumps(self._used))
