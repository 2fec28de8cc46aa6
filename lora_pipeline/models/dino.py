"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), through transformers' own class: which thing a picture shows."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import Place, found, opened

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "1"


@dataclass(frozen=True)
class Dino:
    """A picture's embedding by DINOv2. It is opened when the first picture comes."""

    place: Place
    name = "DINOv2"

    @classmethod
    def open(cls, model: str, setting: str = "grade.dino_model") -> "Dino":
        """A folder or hub id. Raises ModelError if it is neither there nor to be had."""
        return cls(found(setting, model, "facebook/dinov2-small", "leave it empty"))

    @property
    def identity(self) -> str:
        """For a memo's key."""
        return f"dino {VERSION} {self.place.identity}"

    def embed(self, picture: "Image") -> tuple[float, ...]:
        """The class token of an RGB picture of any size, brought to length 1. Raises ModelError if the weights cannot be opened."""
        import torch

        processor, model = self._opened
        inputs = processor(images=picture.convert("RGB"), return_tensors="pt").to(model.device)
        with torch.inference_mode():
            token = model(**inputs).pooler_output[0]
        return tuple((token / token.norm()).float().tolist())

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, Dinov2Model

        processor, model = opened(self.place, AutoImageProcessor, Dinov2Model)
        return processor, model
