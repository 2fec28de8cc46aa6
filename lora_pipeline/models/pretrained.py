"""A model that is named by a folder (`save_pretrained`) or a hub id: what it is known by, and the words when it is missing."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lora_pipeline.errors import ModelError
from lora_pipeline.store import digest_bytes


@dataclass(frozen=True)
class Pretrained:
    """Where a model's weights are.

    Args:
        model: a folder or a hub id that is in the local cache or may be downloaded.
        setting: that names it, for messages.
        example: a hub id that would do.
    """

    model: str
    setting: str
    example: str

    def check(self) -> None:
        """Raises ModelError if the folder is not there, or the hub id is neither in the local cache nor to be had."""
        if self._folder is None:
            self._config  # noqa: B018 - asked for now, so that what is missing is said before the first picture
        elif not (self._folder / "config.json").is_file():
            raise ModelError(f"{self.setting} names the folder {self.model}, which holds no config.json; {self._how}")

    @property
    def where(self) -> str:
        """What `from_pretrained` is told."""
        return str(self._folder or self.model)

    @property
    def identity(self) -> str:
        """Folder: names, sizes and times of its files (weights are too large to be read at each run). Hub id: its commit."""
        if self._folder is None:
            return f"{self.model} {self._config.parent.name}"
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        told = [
            (path.relative_to(self._folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
        ]
        return digest_bytes(repr(told).encode())

    def missing(self, error: Exception) -> ModelError:
        """What is said when the weights cannot be opened."""
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return ModelError(f"{self.setting}: the weights {self.model} cannot be opened ({why}); {self._how}")

    @property
    def _how(self) -> str:
        return f"download {self.example} (`hf download {self.example}`) and name its id or its folder in {self.setting}, or leave it empty"

    @cached_property
    def _folder(self) -> Path | None:
        """The folder that is meant, or None for a hub id: a name, or an owner and a name."""
        path = Path(self.model).expanduser()
        return path if path.is_dir() or self.model.startswith((".", "/", "~")) or self.model.count("/") > 1 else None

    @cached_property
    def _config(self) -> Path:
        """The hub id's config.json in the local cache: its folder is named by the commit. Downloaded if it is not there."""
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(self.model, "config.json")
        try:
            return Path(cached if isinstance(cached, str) else hf_hub_download(self.model, "config.json"))
        except (OSError, ValueError) as error:
            raise self.missing(error) from error
