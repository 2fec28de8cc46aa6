"""CLIP (Radford et al. 2021, arXiv:2103.00020), through transformers' own class: what a picture shows, and how well words fit it."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import Place, found, opened

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "1"


@dataclass(frozen=True)
class Clip:
    """A picture's embedding (CLIP-I) and its agreement with a prompt (CLIP-T). It is opened when the first picture comes."""

    place: Place
    name = "CLIP-T"

    @classmethod
    def open(cls, model: str, setting: str = "grade.clip_model") -> "Clip":
        """A folder or hub id. Raises ModelError if it is neither there nor to be had."""
        return cls(found(setting, model, "openai/clip-vit-base-patch32", "leave it empty"))

    @property
    def identity(self) -> str:
        """For a memo's key."""
        return f"clip {VERSION} {self.place.identity}"

    def embed(self, picture: "Image") -> tuple[float, ...]:
        """The projected embedding of an RGB picture of any size, of length 1. Raises ModelError if the weights cannot be opened."""
        import torch

        processor, model = self._opened
        inputs = processor(images=picture.convert("RGB"), return_tensors="pt").to(model.device)
        with torch.inference_mode():
            return _unit(model.visual_projection(model.vision_model(**inputs).pooler_output)[0])

    def agreement(self, picture: "Image", prompt: str) -> float | None:
        """CLIP-T of Ruiz et al. 2023, section 4.1: the cosine of picture and prompt, some 0.2 to 0.35 for pictures that show it.

        What of the prompt is beyond the text encoder's tokens is cut off. Raises ModelError as `embed` does.
        """
        import torch

        processor, model = self._opened
        most = model.config.text_config.max_position_embeddings
        inputs = processor(text=[prompt], return_tensors="pt", truncation=True, max_length=most).to(model.device)
        with torch.inference_mode():
            words = _unit(model.text_projection(model.text_model(**inputs).pooler_output)[0])
        return sum(a * b for a, b in zip(words, self.embed(picture), strict=True))

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        from transformers import CLIPModel, CLIPProcessor

        processor, model = opened(self.place, CLIPProcessor, CLIPModel)
        return processor, model


def _unit(vector: Any) -> tuple[float, ...]:
    return tuple((vector / vector.norm()).float().tolist())
