"""The finished set (concealed pictures, captions, loss masks, repeats) for other trainers.

Neutral names only: no photo's own name, no EXIF, nothing of where it was taken leaves with the pictures.
"""

import datetime
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lora_pipeline import consent, flow, recall
from lora_pipeline.errors import SettingsError, SubjectError
from lora_pipeline.flow import Work
from lora_pipeline.records import Crop

Format = Literal["kohya", "zip", "hf"]
TOML = "dataset.toml"


@dataclass(frozen=True)
class _Picture:
    """One of the set.

    Args:
        picture, mask: PNG files; the mask is grey, 255 where training looks.
        caption: the words that it is trained with.
        photo: SHA-256 of the photo that it was cut from. It stays here, so that `forget` can tell where pictures of the photo are.
    """

    picture: Path
    mask: Path
    caption: str
    photo: str


def export_dataset(work: Work, format: str, to: Path) -> str:
    """Bring pictures and captions up to date and write them for another trainer: whole, or not at all.

    - kohya: a project folder of sd-scripts and its GUI: `img/<repeats>_<trigger> <class>` with `0001.png` and `0001.txt`, masks
      under the same names in `mask`, and `dataset.toml`, which names both (`--dataset_config dataset.toml --masked_loss`,
      started in that folder).
    - zip: the same in one file.
    - hf: an image folder of Hugging Face's datasets: `0001.png`, `masks/0001.png` and `metadata.jsonl` with text and repeats.

    Regularisation pictures stay here: they are others'.

    Returns:
        What was written, as a sentence.

    Raises:
        SettingsError: the format is unknown, or there is something at `to` already.
        SubjectError: a person has not agreed; or there is no picture with a caption.
    """
    if format not in get_args(Format):
        raise SettingsError(f"--format {format}: there are {', '.join(get_args(Format))}")
    if to.exists() and (format == "zip" or not to.is_dir() or any(to.iterdir())):
        raise SettingsError(f"{to} is there already; nothing was written. Name another place, or remove it first")
    consent.refuse(work.subject, "training")  # as here, but in another program on the person's own machine
    for step in flow.STEPS[: [step.noun for step in flow.STEPS].index("captions") + 1]:
        flow.take(step, work)
    pictures = _finished(work)
    to.parent.mkdir(parents=True, exist_ok=True)
    write = _FORMATS[format]
    with tempfile.TemporaryDirectory(prefix=".export-", dir=to.parent) as aside:
        made = Path(aside) / "made"
        write(work, pictures, made)
        made.replace(to)
    photos = {one.photo for one in pictures}
    recall.exported(work.folder("conceal").parent, to, photos, datetime.date.today())
    return f"wrote {len(pictures)} pictures with captions and masks to {to}"


def _finished(work: Work) -> list[_Picture]:
    """Every picture with a caption, in the order of photos and framings."""
    concealed, around = work.made("conceal"), work.settings.encode
    words = {row.id: str(row.data["text"]) for row in work.made("describe").kept}
    pictures = [
        _Picture(
            concealed.path(row),
            concealed.path(row, "mask"),
            " ".join(filter(None, (around.caption_prefix, words[row.id], around.caption_suffix))),
            Crop.of(row).photo_digest,
        )
        for row in concealed.kept
        if row.id in words
    ]
    if not pictures:
        raise SubjectError(f"{work.subject.name} has no picture with a caption; `lora-pipeline status` says why")
    return pictures


def _kohya(work: Work, pictures: list[_Picture], folder: Path) -> None:
    subject, settings = work.subject, work.settings.encode
    name = f"{settings.repeats}_{subject.trigger} {subject.class_word}"
    beside = folder / "img" / name, folder / "mask" / name
    for place in beside:
        place.mkdir(parents=True)
    for number, one in enumerate(pictures, start=1):
        stem = f"{number:04d}"
        shutil.copyfile(one.picture, beside[0] / f"{stem}.png")
        shutil.copyfile(one.mask, beside[1] / f"{stem}.png")
        # Its first line is the caption to sd-scripts.
        (beside[0] / f"{stem}.txt").write_text(" ".join(one.caption.split()) + "\n", encoding="utf-8")
    (folder / TOML).write_text(_toml(work, name), encoding="utf-8")


def _toml(work: Work, name: str) -> str:
    """sd-scripts' dataset configuration. A subset with masks has `conditioning_data_dir`, and then no `class_tokens`
    (`CN_SUBSET_DISTINCT_SCHEMA` in library/config_util.py)."""
    settings = work.settings.encode
    side = settings.resolution_px
    keys = {
        "resolution": side,
        "batch_size": work.settings.fit.batch_size,
        "enable_bucket": True,
        "bucket_reso_steps": settings.bucket_step_px,
        "min_bucket_reso": settings.bucket_min_px or side // 2,
        "max_bucket_reso": settings.bucket_max_px or 2 * side,
        "bucket_no_upscale": settings.bucket_no_upscale,
    }
    subset = {
        "image_dir": f"img/{name}",
        "conditioning_data_dir": f"mask/{name}",
        "caption_extension": ".txt",
        "num_repeats": settings.repeats,
        "flip_aug": settings.flip,
    }
    # JSON's words, numbers and strings are TOML's.
    lines = [
        "# Start sd-scripts in this folder, with --dataset_config dataset.toml --masked_loss",
        "[[datasets]]",
        *(f"{key} = {json.dumps(value)}" for key, value in keys.items()),
        "",
        "[[datasets.subsets]]",
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in subset.items()),
    ]
    return "\n".join(lines) + "\n"


def _zip(work: Work, pictures: list[_Picture], file: Path) -> None:
    folder = file.with_name("folder")
    _kohya(work, pictures, folder)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            # The day is zip's first: when this was made is nobody's business, and equal sets are equal files.
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())


def _hf(work: Work, pictures: list[_Picture], folder: Path) -> None:
    (folder / "masks").mkdir(parents=True)
    lines: list[str] = []
    for number, one in enumerate(pictures, start=1):
        name = f"{number:04d}.png"
        shutil.copyfile(one.picture, folder / name)
        shutil.copyfile(one.mask, folder / "masks" / name)
        told = {"file_name": name, "mask_file_name": f"masks/{name}", "text": one.caption}
        lines.append(json.dumps(told | {"repeats": work.settings.encode.repeats}, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


_FORMATS: dict[str, Callable[[Work, list[_Picture], Path], None]] = {"kohya": _kohya, "zip": _zip, "hf": _hf}
