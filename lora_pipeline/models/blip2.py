"""Captions by BLIP-2 (Li et al., 2023, arXiv:2301.12597), through transformers' own class."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import CAPTIONS_MEASURED, Place, found

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_pipeline.records import Crop

MAX_TOKENS = 60


@dataclass(frozen=True)
class Blip2:
    """A BLIP-2 captioner. It is opened when the first caption is asked for; on a graphics card in half precision."""

    place: Place
    name = "blip2"

    @classmethod
    def open(cls, model: str, revision: str = "") -> "Blip2":
        """Of a folder or hub id. Raises ModelError: see `Place.check`."""
        place = found("describe.blip2_model", model, "Salesforce/blip2-opt-2.7b", CAPTIONS_MEASURED, revision)
        return cls(place)

    @property
    def identity(self) -> str:
        """See `Place.identity`."""
        return f"blip2 {self.place.identity}"

    def words(self, picture: "Image", crop: "Crop") -> str:
        """What BLIP-2 sees, greedily decoded, so the same picture gets the same words. See `Captioner.words`.

        Raises ModelError if the weights cannot be opened.
        """
        import torch

        del crop  # BLIP-2 looks for itself
        processor, model = self._opened
        inputs = processor(images=picture.convert("RGB"), return_tensors="pt").to(model.device, model.dtype)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=MAX_TOKENS, num_beams=1, do_sample=False)
        return str(processor.decode(tokens[0], skip_special_tokens=True)).strip()

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        import torch
        from transformers import Blip2ForConditionalGeneration, Blip2Processor

        where, revision, card = self.place.where, self.place.commit, torch.cuda.is_available()
        try:
            processor: Any = Blip2Processor.from_pretrained(where, revision=revision)
            model: Any = Blip2ForConditionalGeneration.from_pretrained(
                where, revision=revision, dtype=torch.float16 if card else torch.float32
            )
        except (OSError, ValueError) as error:
            raise self.place.missing(error) from error
        return processor, model.eval().to("cuda" if card else "cpu")
