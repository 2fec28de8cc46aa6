"""Captions by BLIP (Li et al., 2022, arXiv:2201.12086), through transformers' own class."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import CAPTIONS_MEASURED, Place, found

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_pipeline.records import Crop

MAX_TOKENS = 40


@dataclass(frozen=True)
class Blip:
    """A BLIP captioner. It is opened when the first caption is asked for."""

    place: Place
    name = "blip"

    @classmethod
    def open(cls, model: str, revision: str = "") -> "Blip":
        """Of a folder or hub id. Raises ModelError: see `Place.check`."""
        place = found(
            "describe.blip_model", model, "Salesforce/blip-image-captioning-base", CAPTIONS_MEASURED, revision
        )
        return cls(place)

    @property
    def identity(self) -> str:
        """See `Place.identity`."""
        return f"blip {self.place.identity}"

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

        where, revision = self.place.where, self.place.commit
        try:
            processor: Any = BlipProcessor.from_pretrained(where, revision=revision)
            model: Any = BlipForConditionalGeneration.from_pretrained(where, revision=revision)
        except (OSError, ValueError) as error:
            raise self.place.missing(error) from error
        return processor, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
