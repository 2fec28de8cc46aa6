"""Where files live, and how they appear there: whole or not at all.

`Store` knows the two trees under `data/`: `subjects/<name>/` is the person's (read, and written only by
`lora-pipeline new`), `work/<name>/<stage>/` is ours. Everything made goes through `whole`.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; when the block ends well, what was written is renamed to `path`.

    A reader sees the old file, or the new one, never half of one; a block that raises leaves the old one.
    The name aside keeps the real suffix last, since writers choose a format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.stem}.{os.getpid()}{ASIDE}{path.suffix}")
    try:
        yield aside
        with aside.open("rb") as handle:
            os.fsync(handle.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


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
            self._known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

    def digest(self, path: Path) -> str:
        """SHA-256 of the file, from memory where size and time are unchanged. Raises OSError if it cannot be read."""
        stat = path.stat()
        known = self._known.get(str(path))
        if known is None or known[:2] != [stat.st_size, stat.st_mtime_ns]:
            known = [stat.st_size, stat.st_mtime_ns, digest_file(path)]
        self._known[str(path)] = self._used[str(path)] = known
        return str(known[2])

    def save(self) -> None:
        """Remember what was asked for since this object was made, and forget the rest."""
        write_text(self.file, json.dumps(self._used))
