"""Regularisation pictures: others of the subject's class, seen beside it so that the class word keeps its meaning.

Ruiz et al. 2023, "DreamBooth", section 3.3 (prior preservation); how often each is seen is `DreamBoothDataset`'s of kohya-ss/sd-scripts:
together as often as the subject's pictures, some once more than others, and of too many only as many as there is room for.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_pipeline.errors import PhotoError, SettingsError
from lora_pipeline.manifest import Item, Made, Manifest, refresh
from lora_pipeline.pictures import open_upright, save
from lora_pipeline.progress import Progress
from lora_pipeline.store import digest_file

CODE_VERSION = "1"
NAME = "regularisation"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".heic", ".avif", ".tif", ".tiff"}


@dataclass(frozen=True)
class Words:
    """What the subject is called.

    Args:
        trigger: must not stand in a regularisation picture's caption.
        class_word: the caption of one that has none of its own.
    """

    trigger: str
    class_word: str


def gather(source: str, folder: Path, words: Words, progress: Progress) -> Manifest:
    """Regularisation pictures, upright and without metadata, and their captions: rows with the file `picture`, and `width_px`, `height_px` and `text`.

    Args:
        source: their folder, read through to its depths; beside a picture, `<its name>.txt` or `.caption` may hold its caption. Empty: no such pictures.
        folder: the stage's.
        words: of the subject.
        progress: told after each picture.

    Raises:
        SettingsError: the folder is not there or holds no picture.
    """
    if not source and not (folder / f"{NAME}.parquet").exists():
        return Manifest(folder, ())
    return refresh(
        folder,
        [Item(item.id, [item.digest, item.told, words.trigger, words.class_word], item) for item in _found(source)],
        lambda item, into: _gathered(item, into, words),
        settings=None,
        code_version=CODE_VERSION,
        name=NAME,
        what="reading regularisation pictures",
        progress=progress,
    ).manifest


def balanced(ids: Sequence[str], looks: int) -> Mapping[str, int]:
    """How often each regularisation picture is seen in an epoch, 0 for one that there is no room for.

    Args:
        ids: of the pictures.
        looks: at the subject's pictures in an epoch; the regularisation pictures' are as many, so that they are half of all.
    """
    # by name the first could all be of one kind
    order = sorted(ids, key=lambda id: hashlib.sha256(id.encode()).digest())
    each, more = divmod(looks, len(order)) if order else (0, 0)
    return {id: each + (number < more) for number, id in enumerate(order)}


@dataclass(frozen=True)
class _Found:
    id: str
    path: Path
    digest: str
    told: str


def _found(source: str) -> list[_Found]:
    if not source:
        return []
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise SettingsError(f"encode.regularisation_folder: {folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise SettingsError(f"encode.regularisation_folder: {folder} holds no pictures; put some in, or leave it empty")
    return [
        _Found(f"{NAME}/{path.relative_to(folder).as_posix()}", path, digest_file(path), _told(path)) for path in files
    ]


def _told(picture: Path) -> str:
    for suffix in (".txt", ".caption"):
        file = picture.with_suffix(suffix)
        if file.is_file():
            return " ".join(file.read_text(encoding="utf-8-sig", errors="replace").split())
    return ""


def _gathered(item: _Found, folder: Path, words: Words) -> Made:
    if words.trigger and re.search(rf"(?<!\w){re.escape(words.trigger)}(?!\w)", item.told):
        raise PhotoError(
            f"its caption names the trigger word {words.trigger}, which would teach the model that this is the subject"
        )
    picture = open_upright(item.path)
    path = f"{NAME}/{hashlib.sha256(item.id.encode()).hexdigest()[:16]}.png"
    save(picture, folder / path)
    data = {
        "photo": item.id,
        "photo_digest": item.digest,
        "width_px": picture.width,
        "height_px": picture.height,
        "text": item.told or words.class_word,
    }
    return Made(data, {"picture": path})
