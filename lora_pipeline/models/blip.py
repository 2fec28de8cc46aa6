"""Captions by BLIP (Li et al., 2022, arXiv:2201.12086), through transformers' own class."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import ModelError
from lora_pipeline.store import digest_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_pipeline.records import Crop

MAX_TOKENS = 40


@dataclass(frozen=True)
class Blip:
    """A BLIP captioner. It is opened when the first caption is asked for.

    Args:
        model: a folder (`save_pretrained`) or a hub id that is in the local cache or may be downloaded.
        revision: commit of the hub id; empty for its newest.
    """

    model: str
    revision: str = ""
    name = "blip"

    @classmethod
    def open(cls, model: str, revision: str = "") -> "Blip":
        """Raises ModelError if the folder is not there, or the hub id is neither in the local cache nor to be had."""
        blip = cls(model, revision)
        if blip._folder is None:
            blip._config  # noqa: B018 - asked for now, so that what is missing is said before the first picture
        elif not (blip._folder / "config.json").is_file():
            raise ModelError(f"describe.blip_model names the folder {model}, which holds no config.json; {_HOW}")
        return blip

    @property
    def identity(self) -> str:
        """Folder: names, sizes and times of its files (weights are too large to be read at each run). Hub id: its commit."""
        if self._folder is None:
            return f"blip {self.model} {self._config.parent.name}"
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        told = [
            (path.relative_to(self._folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
        ]
        return f"blip {digest_bytes(repr(told).encode())}"

    @cached_property
    def _folder(self) -> Path | None:
        """The folder that is meant, or None for a hub id: a name, or an owner and a name."""
        path = Path(self.model).expanduser()
        return path if path.is_dir() or self.model.startswith((".", "/", "~")) or self.model.count("/") > 1 else None

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

    def words(self, picture: "Image", crop: "Crop") -> str:
        """What BLIP sees, greedily decoded, so the same picture gets the same words. See `Captioner.words`.

        Raises ModelError if the weights cannot be opened.
        """
        import torch

        del crop  # BLIP looks for itself
        processor, model = self._opened
        inputs = processor(images=picture.convert("RGB"), return_tensors="pt").to(model.device)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=MAX_TOKENS, num_beams=1, do_sample=False)
        return str(processor.decode(tokens[0], skip_special_tokens=True)).strip()

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        import torch
        from transformers import BlipForConditionalGeneration, BlipProcessor

        where = str(self._folder or self.model)
        revision = self.revision or "main"
        try:
            processor: Any = BlipProcessor.from_pretrained(where, revision=revision)
            model: Any = BlipForConditionalGeneration.from_pretrained(where, revision=revision)
        except (OSError, ValueError) as error:
            raise self._missing(error) from error
        return processor, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def _missing(self, error: Exception) -> ModelError:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return ModelError(f"describe.blip_model: the weights {self.model} cannot be opened ({why}); {_HOW}")


_HOW = (
    "download Salesforce/blip-image-captioning-base (`hf download Salesforce/blip-image-captioning-base`) and name its id "
    "or its folder in describe.blip_model, or set describe.captioner to measured"
)
