"""Weights in transformers' format: a folder (`save_pretrained`), or a hub id that is in the local cache or may be downloaded."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lora_pipeline.errors import ModelError
from lora_pipeline.store import digest_bytes


@dataclass(frozen=True)
class Weights:
    """Where a model's weights are, and what to tell the person if they are not.

    Args:
        model: the folder or hub id.
        revision: commit of the hub id; empty for its newest.
        setting: the one that names them, such as crop.expression_model.
        how: what to do if they are missing: what to download, or what else to set.
    """

    model: str
    revision: str
    setting: str
    how: str

    @cached_property
    def folder(self) -> Path | None:
        """The folder that is meant, or None for a hub id: a name, or an owner and a name."""
        path = Path(self.model).expanduser()
        return path if path.is_dir() or self.model.startswith((".", "/", "~")) or self.model.count("/") > 1 else None

    def find(self) -> None:
        """Raises ModelError if the folder is not there, or the hub id is neither in the local cache nor to be had."""
        if self.folder is None:
            self._config  # noqa: B018 - asked for now, so that what is missing is said before the first picture
        elif not (self.folder / "config.json").is_file():
            raise ModelError(f"{self.setting} names the folder {self.model}, which holds no config.json; {self.how}")

    @property
    def identity(self) -> str:
        """Folder: names, sizes and times of its files (weights are too large to be read at each run). Hub id: its commit."""
        if self.folder is None:
            return f"{self.model} {self._config.parent.name}"
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        told = [
            (path.relative_to(self.folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
        ]
        return digest_bytes(repr(told).encode())

    def open(self, *classes: Any) -> tuple[Any, ...]:
        """`from_pretrained` of each class; models in evaluation, on the first CUDA device if there is one. Raises ModelError."""
        import torch

        where = str(self.folder or self.model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            opened = [one.from_pretrained(where, revision=self.revision or "main") for one in classes]
        except (OSError, ValueError) as error:
            raise self._missing(error) from error
        return tuple(one.eval().to(device) if isinstance(one, torch.nn.Module) else one for one in opened)

    @cached_property
    def _config(self) -> Path:
        """The hub id's config.json in the local cache: its folder is named by the commit. Downloaded if it is not there."""
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        revision = self.revision or "main"
        cached = try_to_load_from_cache(self.model, "config.json", revision=revision)
        try:
            return Path(
                cached if isinstance(cached, str) else hf_hub_download(self.model, "config.json", revision=revision)
            )
        except (OSError, ValueError) as error:
            raise self._missing(error) from error

    def _missing(self, error: Exception) -> ModelError:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return ModelError(f"{self.setting}: the weights {self.model} cannot be opened ({why}); {self.how}")
