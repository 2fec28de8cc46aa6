"""Captions by Florence-2 (Xiao et al., 2023, arXiv:2311.06242), through transformers' own class, which runs no code of the hub's."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import CAPTIONS_MEASURED, Place, found

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_pipeline.records import Crop

MAX_TOKENS = 200


@dataclass(frozen=True)
class Florence2:
    """A Florence-2 captioner. It is opened when the first caption is asked for.

    Args:
        place: its weights, as transformers itself reads them (`florence-community/…`; `microsoft/…` has other names in it).
        task: "caption", "detailed_caption" or "more_detailed_caption".
    """

    place: Place
    task: str
    name = "florence2"

    @classmethod
    def open(cls, model: str, revision: str = "", task: str = "detailed_caption") -> "Florence2":
        """Of a folder or hub id. Raises ModelError: see `Place.check`."""
        place = found(
            "describe.florence2_model", model, "florence-community/Florence-2-base", CAPTIONS_MEASURED, revision
        )
        return cls(place, task)

    @property
    def identity(self) -> str:
        """The task, and see `Place.identity`."""
        return f"florence2 {self.task} {self.place.identity}"

    def words(self, picture: "Image", crop: "Crop") -> str:
        """What Florence-2 sees, by beams of 3 as its authors do, without sampling. See `Captioner.words`.

        Raises ModelError if the weights cannot be opened.
        """
        import torch

        del crop  # Florence-2 looks for itself
        processor, model = self._opened
        inputs = processor(text=f"<{self.task.upper()}>", images=picture.convert("RGB"), return_tensors="pt").to(
            model.device, model.dtype
        )
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=MAX_TOKENS, num_beams=3, do_sample=False)
        return " ".join(str(processor.batch_decode(tokens, skip_special_tokens=True)[0]).split())

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        import torch
        from transformers import Florence2ForConditionalGeneration, Florence2Processor

        where, revision = self.place.where, self.place.commit
        try:
            processor: Any = Florence2Processor.from_pretrained(where, revision=revision)
            model: Any = Florence2ForConditionalGeneration.from_pretrained(where, revision=revision)
        except (OSError, ValueError) as error:
            raise self.place.missing(error) from error
        return processor, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
