"""The released LoRA laid into the folders in which ComfyUI, AUTOMATIC1111 and Forge look, and where it was laid."""

import datetime
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_pipeline.errors import PipelineError
from lora_pipeline.families.lora_file import read_metadata
from lora_pipeline.records import Row
from lora_pipeline.store import whole, write_text

COPIES = "copies.json"
# What goes along with the LoRA, by role: a name beside it, made of its stem.
_ALONG = {"preview": "{stem}.preview.png", "info": "{stem}.json", "card": "{stem}.md", "notice": "{stem}.NOTICE.txt"}
_OURS = "lora_pipeline.checkpoint"  # stands in the header of every file that is released here


@dataclass(frozen=True)
class Copy:
    """A released file that lies elsewhere, too.

    Args:
        to: absolute path, or address on the hub.
        sha256: of the file.
        run: key of the training run.
        on: the day (YYYY-MM-DD).
    """

    to: str
    sha256: str
    run: str
    on: str


def place(row: Row, folder: Path, tree: Path, today: datetime.date) -> list[Path]:
    """Copy the released LoRA into another program's tree, with its preview, words, card and notice; return what lies there.

    Args:
        row: the released one.
        folder: the stage's.
        tree: of ComfyUI, AUTOMATIC1111 or Forge: its own folder, the one that holds it, its `models`, or the folder of LoRAs itself.

    Raises:
        PipelineError: it is none of these; there is no file for other programs; or another's file has the name there.
    """
    into = loras_folder(tree)
    if "webui" not in row.files:
        raise PipelineError(
            f"there is no file that ComfyUI, AUTOMATIC1111 and Forge load; the card says why: {folder / row.files['card'].path}"
        )
    stem = Path(row.files["webui"].path).stem.removesuffix("-webui")
    lora = into / f"{stem}.safetensors"
    if lora.exists() and not _ours(lora):
        raise PipelineError(f"{lora} is there already, and is not one of these: move it away, or name it otherwise")
    files = {lora: folder / row.files["webui"].path} | {
        into / name.format(stem=stem): folder / row.files[role].path
        for role, name in _ALONG.items()
        if role in row.files
    }
    for to, source in files.items():
        with whole(to) as aside:
            shutil.copyfile(source, aside)
    remember(folder, Copy(str(lora), row.files["webui"].digest, str(row.data["run"]), str(today)))
    return list(files)


def loras_folder(tree: Path) -> Path:
    """Where a program's tree has its LoRAs. Raises PipelineError if it is no tree that is known."""
    tree = tree.expanduser().resolve()
    if tree.is_dir() and tree.name in {"loras", "Lora"}:
        return tree
    # A portable ComfyUI or Forge lies a folder deeper than what is unpacked.
    for models in (tree / "models", tree, tree / "ComfyUI" / "models", tree / "webui" / "models"):
        if (models / "loras").is_dir():
            return models / "loras"
        # models/Lora is made by the first start; models/Stable-diffusion comes with the checkout.
        if (models / "Lora").is_dir() or (models / "Stable-diffusion").is_dir():
            return models / "Lora"
    raise PipelineError(
        f"{tree} is no folder of ComfyUI (which has models/loras), nor of AUTOMATIC1111 or Forge (models/Lora); name the one that holds it"
    )


def copies(folder: Path) -> list[Copy]:
    """Where released files of a stage's folder were copied to, the first one first."""
    file = folder / COPIES
    return [Copy(**told) for told in json.loads(file.read_text(encoding="utf-8"))] if file.exists() else []


def remember(folder: Path, *new: Copy) -> None:
    """Add copies to those that are known; one that was laid over another takes its place."""
    over = {copy.to for copy in new}
    there: Sequence[Copy] = [*(copy for copy in copies(folder) if copy.to not in over), *new]
    write_text(folder / COPIES, json.dumps([asdict(copy) for copy in there], indent=1) + "\n")


def _ours(lora: Path) -> bool:
    try:
        return _OURS in read_metadata(lora)
    except (OSError, ValueError):
        return False
