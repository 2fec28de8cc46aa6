"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), through transformers' own class: which thing a picture shows."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.pretrained import Pretrained

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "1"


@dataclass(frozen=True)
class Dino:
    """A picture's embedding by DINOv2. It is opened when the first picture comes."""

    weights: Pretrained
    name = "DINOv2"

    @classmethod
    def open(cls, model: str, setting: str = "grade.dino_model") -> "Dino":
        """A folder or hub id. Raises ModelError if it is neither there nor to be had."""
        weights = Pretrained(model, setting, "facebook/dinov2-small")
        weights.check()
        return cls(weights)

    @property
    def identity(self) -> str:
        """For a memo's key."""
        return f"dino {VERSION} {self.weights.identity}"

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
        import torch
        from transformers import AutoImageProcessor, Dinov2Model

        try:
            processor: Any = AutoImageProcessor.from_pretrained(self.weights.where)
            model: Any = Dinov2Model.from_pretrained(self.weights.where)
        except (OSError, ValueError) as error:
            raise self.weights.missing(error) from error
        return processor, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
