"""What must stay out, which files are to be called back, and where the set was written to: three plain files.

`forgotten.txt` in a subject's folder lists photos by their content, so that one stays out under whatever name it comes again.
`recalled.json` lies beside a run's checkpoints, or beside what is released, and says which of the files there were trained on them.
`exported.json` in a subject's work folder lists the places outside of it to which `export-dataset` wrote pictures.
"""

import datetime
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lora_pipeline.errors import SubjectError
from lora_pipeline.store import Store, digest_file, write_text

FORGOTTEN, RECALLED, EXPORTED = "forgotten.txt", "recalled.json", "exported.json"

_HEAD = "# Photos that stay out: SHA-256 of the file, and the day on which it was forgotten.\n"
_LINE = re.compile(r"([0-9a-f]{64})\s+(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class Recall:
    """Files that were trained on photos which were forgotten since.

    Args:
        recalled_on: the last day on which something was forgotten (YYYY-MM-DD).
        photos: SHA-256 of the photos, sorted.
        files: name of each file → its SHA-256, by which a copy is known elsewhere.
    """

    recalled_on: str
    photos: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)

    def holds(self, digests: Iterable[str]) -> bool:
        """Whether a file of one of these SHA-256 is among them."""
        return not set(self.files.values()).isdisjoint(digests)

    def in_words(self) -> str:
        """In a sentence, without its end."""
        count = len(self.photos)
        return f"recalled on {self.recalled_on}: it was trained on {count} {'photo' if count == 1 else 'photos'} that must be forgotten"


def forgotten(folder: Path) -> dict[str, str]:
    """SHA-256 of each photo that stays out → the day on which it was forgotten. Raises SubjectError if a line is neither.

    Args:
        folder: the subject's.
    """
    file = folder / FORGOTTEN
    found: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines() if file.exists() else (), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        told = _LINE.fullmatch(line.strip())
        if told is None:
            raise SubjectError(
                f"{file}, line {number}: '{line}' is not a SHA-256 and a day; mend it, so that nothing comes back"
            )
        found[told[1]] = told[2]
    return found


def keep_out(folder: Path, digests: Collection[str], today: datetime.date) -> None:
    """Add photos to those that stay out."""
    known = forgotten(folder)
    lines = known | {digest: str(today) for digest in sorted(digests) if digest not in known}
    write_text(folder / FORGOTTEN, _HEAD + "".join(f"{digest}  {day}\n" for digest, day in lines.items()))


def recalled(folder: Path) -> Recall | None:
    """What is recalled of the files in a folder; None if nothing is."""
    file = folder / RECALLED
    if not file.exists():
        return None
    told = json.loads(file.read_text(encoding="utf-8"))
    return Recall(told["recalled_on"], tuple(told["photos"]), told["files"])


def under(work: Path) -> list[tuple[str, str]]:
    """Folders of a subject's runs and release in which recalled files still lie, and why these are.

    A run's files are never written over; what is released is, by the next run, and then the mark is of files that are gone.
    """
    found: list[tuple[str, str]] = []
    for folder in (*sorted(work.glob("fit/runs/*")), work / "publish"):
        told = recalled(folder)
        there = [] if told is None else [folder / name for name in told.files if (folder / name).is_file()]
        if told is not None and there and (folder.name != "publish" or told.holds(map(digest_file, there))):
            found.append((str(folder), told.in_words()))
    return found


def everywhere(store: Store) -> list[tuple[str, str]]:
    """The same of every subject."""
    return [told for work in sorted((store.data / "work").glob("*/")) for told in under(work)]


def call_back(folder: Path, photos: Collection[str], files: Mapping[str, str], today: datetime.date) -> None:
    """Mark files of a folder as trained on photos that are forgotten, beside those marked before."""
    before = recalled(folder) or Recall("", ())
    now = Recall(str(today), tuple(sorted({*before.photos, *photos})), {**before.files, **files})
    write_text(folder / RECALLED, json.dumps(asdict(now), indent=1) + "\n")


@dataclass(frozen=True)
class Export:
    """A finished set that lies outside of the data folder.

    Args:
        on: the day (YYYY-MM-DD).
        photos: SHA-256 of the photos that its pictures were cut from, sorted.
    """

    on: str
    photos: tuple[str, ...]


def exports(work: Path) -> dict[str, Export]:
    """Absolute path of each set that was written → what is in it, the first one first.

    Args:
        work: the subject's folder in `data/work/`.
    """
    file = work / EXPORTED
    told = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {to: Export(one["on"], tuple(one["photos"])) for to, one in told.items()}


def exported(work: Path, to: Path, photos: Collection[str], today: datetime.date) -> None:
    """Remember a set that was written, beside those that were before."""
    sets = {**exports(work), str(to): Export(str(today), tuple(sorted(photos)))}
    write_text(work / EXPORTED, json.dumps({place: asdict(one) for place, one in sets.items()}, indent=1) + "\n")
