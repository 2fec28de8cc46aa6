"""Regularisation pictures: others of the subject's class, seen beside it so that the class word keeps its meaning.

Ruiz et al. 2023, "DreamBooth", section 3.3 (prior preservation). They come from a folder, from other subjects of the class, or from the
base model itself; their ids say which. How often each is seen: `lora_pipeline.balance`.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lora_pipeline.errors import PhotoError, SettingsError
from lora_pipeline.manifest import Item, Made, Manifest, refresh
from lora_pipeline.pictures import open_upright, save
from lora_pipeline.progress import Progress
from lora_pipeline.records import Row
from lora_pipeline.settings import BaseSettings, EncodeSettings
from lora_pipeline.stages.encode.generated import Painter, prompt_of
from lora_pipeline.store import digest_file, whole

CODE_VERSION = "1"
NAME = "regularisation"
# How ids begin. `lineage` tells them apart by it.
FOLDER, POOL, GENERATED = NAME, "pool", "generated"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".heic", ".avif", ".tif", ".tiff"}
_Make = Callable[[Path], Made]


@dataclass(frozen=True)
class Words:
    """What the subject is called.

    Args:
        trigger: must not stand in a regularisation picture's caption.
        class_word: the caption of one that has none of its own.
    """

    trigger: str
    class_word: str


@dataclass(frozen=True)
class Pooled:
    """Another subject of the class.

    Args:
        name: of its folder.
        pictures: its `blurred_set`: strangers are hidden in its pictures, and masks say where.
        refused: why none of its pictures may be used; empty if they may.
    """

    name: str
    pictures: Manifest
    refused: str = ""


def gather(
    settings: EncodeSettings,
    base: BaseSettings,
    folder: Path,
    words: Words,
    pool: Sequence[Pooled],
    own: Collection[str],
    progress: Progress,
) -> Manifest:
    """Bring the regularisation pictures up to date: rows with the files `picture` and, of another subject, `mask`, and `width_px`, `height_px` and `text`.

    - A folder's (`regularisation/<path>`), read through to its depths: upright and without metadata; beside a picture, `<its name>.txt` or `.caption`
      may hold its caption.
    - Another subject's (`pool/<subject>/<picture>`): as it is trained with, but for the caption, which is the class word alone, since its own
      names the subject. A subject that refuses is a dropped row, and so is a photo that is this subject's too.
    - The base model's (`generated/<seed>`), from the seeds 1, 2, …

    Args:
        settings: which of them.
        base: draws.
        folder: the stage's.
        words: of the subject.
        pool: other subjects of the class.
        own: digests of the subject's own photos.
        progress: told after each picture.

    Raises:
        SettingsError: the folder is not there or holds no picture, or no other subject has a picture that may be used.
        ModelError: the base model cannot be opened to draw.
    """
    items = [
        *_found(settings.regularisation_folder, words),
        *(_pooled(pool, words, own) if settings.regularisation_pool else ()),
        *_generated(Painter(settings, base), settings.regularisation_generated, words),
    ]
    if not items and not (folder / f"{NAME}.parquet").exists():
        return Manifest(folder, ())
    return refresh(
        folder,
        items,
        lambda make, into: make(into),
        settings=None,
        code_version=CODE_VERSION,
        name=NAME,
        what="regularisation pictures",
        progress=progress,
    ).manifest


def _found(source: str, words: Words) -> list[Item[_Make]]:
    if not source:
        return []
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise SettingsError(f"encode.regularisation_folder: {folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise SettingsError(f"encode.regularisation_folder: {folder} holds no pictures; put some in, or leave it empty")
    items: list[Item[_Make]] = []
    for path in files:
        id, digest, told = f"{FOLDER}/{path.relative_to(folder).as_posix()}", digest_file(path), _told(path)
        make = partial(_read, path, id, digest, told, words)
        items.append(Item(id, [digest, told, words.trigger, words.class_word], make))
    return items


def _told(picture: Path) -> str:
    for suffix in (".txt", ".caption"):
        file = picture.with_suffix(suffix)
        if file.is_file():
            return " ".join(file.read_text(encoding="utf-8-sig", errors="replace").split())
    return ""


def _read(path: Path, id: str, digest: str, told: str, words: Words, into: Path) -> Made:
    if words.trigger and re.search(rf"(?<!\w){re.escape(words.trigger)}(?!\w)", told):
        raise PhotoError(
            f"its caption names the trigger word {words.trigger}, which would teach the model that this is the subject"
        )
    picture = open_upright(path)
    save(picture, into / _file(id))
    return _made(id, digest, picture.size, told or words.class_word, {"picture": _file(id)})


def _pooled(pool: Sequence[Pooled], words: Words, own: Collection[str]) -> list[Item[_Make]]:
    items = [item for other in pool for item in _of_subject(other, words, own)]
    usable = [other for other in pool if not other.refused and other.pictures.kept]
    if not usable:
        why = "; ".join(f"{other.name}: {other.refused or 'has no pictures yet, run it first'}" for other in pool)
        raise SettingsError(
            f"encode.regularisation_pool: no other subject is a {words.class_word} whose pictures may be used{f' ({why})' if why else ''}; "
            "switch it off, or use encode.regularisation_generated"
        )
    return items


def _of_subject(other: Pooled, words: Words, own: Collection[str]) -> Iterator[Item[_Make]]:
    if other.refused:
        yield Item(f"{POOL}/{other.name}", [other.refused], lambda _: Made(state="dropped", reason=other.refused))
        return
    for row in other.pictures.kept:
        id, photo = f"{POOL}/{other.name}/{row.id}", str(row.data.get("photo_digest", ""))
        digests = [row.files[role].digest for role in ("picture", "mask") if role in row.files]
        mine = photo in own
        make = _twice if mine else partial(_taken, other, row, id, words)
        yield Item(id, [*digests, photo, mine, words.class_word], make)


def _twice(_: Path) -> Made:
    return Made(state="dropped", reason="its photo is one of this subject's too")


def _taken(other: Pooled, row: Row, id: str, words: Words, into: Path) -> Made:
    files: dict[str, str] = {}
    for role in ("picture", "mask"):
        if role in row.files:
            files[role] = _file(f"{id} {role}" if role == "mask" else id)
            with whole(into / files[role]) as aside:
                shutil.copyfile(other.pictures.path(row, role), aside)
    size = (int(row.data["width_px"]), int(row.data["height_px"]))  # type: ignore[arg-type]  # a crop's data
    made = _made(id, str(row.data.get("photo_digest", "")), size, words.class_word, files)
    photo = f"{POOL}/{other.name}/{row.data.get('photo', row.id)}"
    return replace(made, data={**made.data, "photo": photo})


def _generated(painter: Painter, count: int, words: Words) -> Iterator[Item[_Make]]:
    prompt = prompt_of(words.class_word)
    for seed in range(1, count + 1):
        id = f"{GENERATED}/{seed:04d}"
        yield Item(id, [*painter.told, prompt, seed], partial(_drawn, painter, id, prompt, seed))


def _drawn(painter: Painter, id: str, prompt: str, seed: int, into: Path) -> Made:
    picture = painter.draw(prompt, seed)
    save(picture, into / _file(id))
    return _made(id, digest_file(into / _file(id)), picture.size, prompt, {"picture": _file(id)})


def _file(id: str) -> str:
    return f"{NAME}/{hashlib.sha256(id.encode()).hexdigest()[:16]}.png"


def _made(id: str, digest: str, size_px: tuple[int, int], text: str, files: dict[str, str]) -> Made:
    width_px, height_px = size_px
    data = {"photo": id, "photo_digest": digest, "width_px": width_px, "height_px": height_px, "text": text}
    return Made(data, files)
