"""Where a model's weights lie: in a folder, or on the hub under an id."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_pipeline.errors import ModelError
from lora_pipeline.store import digest_bytes

CAPTIONS_MEASURED = "set describe.captioner to measured"


@dataclass(frozen=True)
class Place:
    """One model's files.

    Args:
        setting: which names it, for messages: "describe.blip_model".
        model: a folder (`save_pretrained`) or a hub id that is in the local cache or may be downloaded.
        revision: commit of the hub id; empty for its newest.
        how: what to do where it is missing.
        needed: files without which it is no such model; the first is asked for on the hub.
    """

    setting: str
    model: str
    revision: str
    how: str
    needed: Sequence[str] = ("config.json",)

    def check(self) -> None:
        """Raise ModelError if the folder is not there or lacks a file, or the hub id is neither in the local cache nor to be had."""
        if self.folder is None:
            self.file(self.needed[0])
            return
        missing = [name for name in self.needed if not (self.folder / name).is_file()]
        if missing:
            raise ModelError(
                f"{self.setting} names the folder {self.model}, which holds no {' and no '.join(missing)}; {self.how}"
            )

    @property
    def identity(self) -> str:
        """Folder: names, sizes and times of its files (weights are too large to be read at each run). Hub id: its commit."""
        if self.folder is None:
            return f"{self.model} {self.file(self.needed[0]).parent.name}"
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        told = [
            (path.relative_to(self.folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
        ]
        return digest_bytes(repr(told).encode())

    @cached_property
    def folder(self) -> Path | None:
        """The folder that is meant, or None for a hub id: a name, or an owner and a name."""
        path = Path(self.model).expanduser()
        return path if path.is_dir() or self.model.startswith((".", "/", "~")) or self.model.count("/") > 1 else None

    @property
    def where(self) -> str:
        """What `from_pretrained` is given."""
        return str(self.folder or self.model)

    @property
    def commit(self) -> str:
        """The revision that `from_pretrained` is given."""
        return self.revision or "main"

    def file(self, name: str) -> Path:
        """One of its files; of a hub id, that in the local cache (its folder is named by the commit), downloaded if it is not there. Raises ModelError."""
        if self.folder is not None:
            return self.folder / name
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(self.model, name, revision=self.commit)
        try:
            return Path(cached if isinstance(cached, str) else hf_hub_download(self.model, name, revision=self.commit))
        except (OSError, ValueError) as error:
            raise self.missing(error) from error

    def missing(self, error: Exception) -> ModelError:
        """That the weights cannot be opened, in words."""
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return ModelError(f"{self.setting}: the weights {self.model} cannot be opened ({why}); {self.how}")


def opened(place: Place, *classes: Any) -> tuple[Any, ...]:
    """`from_pretrained` of each class; models in evaluation, on the first CUDA device if there is one. Raises ModelError."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        parts = [one.from_pretrained(place.where, revision=place.commit) for one in classes]
    except (OSError, ValueError) as error:
        raise place.missing(error) from error
    return tuple(part.eval().to(device) if isinstance(part, torch.nn.Module) else part for part in parts)


def found(setting: str, model: str, usual: str, otherwise: str, revision: str = "") -> Place:
    """The place of the model that a setting names, which is there.

    Args:
        setting: see `Place`.
        model: a folder or hub id, as the setting has it.
        usual: hub id of the one to download where it is missing.
        otherwise: what else can be done then, such as `CAPTIONS_MEASURED`.
        revision: see `Place`.

    Raises:
        ModelError: the folder is not there, or the hub id is neither in the local cache nor to be had.
    """
    place = Place(setting, model, revision, download(usual, setting, otherwise))
    place.check()
    return place


def download(id: str, setting: str, otherwise: str) -> str:
    """What to do where a model's weights are missing."""
    return f"download {id} (`hf download {id}`) and name its id or its folder in {setting}, or {otherwise}"
