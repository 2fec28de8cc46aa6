"""A face's expression by an image classifier: any of transformers' image-classification, whatever its labels."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import Place, opened
from lora_pipeline.records import Box

if TYPE_CHECKING:
    from PIL.Image import Image

AROUND = 0.2
"""What of a head is shown beyond the face's box on each side, as a share of the box's side: the pictures that such classifiers
are trained on (FER2013, AffectNet) reach from the hair to below the chin."""

Scores = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Expressions:
    """A classifier of faces. It is opened when the first face is shown to it.

    Args:
        place: of weights of any class that AutoModelForImageClassification opens.
    """

    place: Place

    @classmethod
    def open(cls, model: str, revision: str = "") -> "Expressions":
        """Raises ModelError if the folder is not there, or the hub id is neither in the local cache nor to be had."""
        how = "name the folder or hub id of a classifier of facial expressions, or leave crop.expression_model empty"
        place = Place("crop.expression_model", model, revision, how)
        place.check()
        return cls(place)

    @property
    def identity(self) -> str:
        """That of the weights."""
        return f"expression {AROUND} {self.place.identity}"

    def scores(self, picture: "Image", face: Box) -> Scores:
        """What the face shows: (label in small letters, probability), best first; the probabilities of all labels add up to 1.

        Args:
            picture: H×W, 8-bit RGB, upright.
            face: its box in the picture's pixels.

        Raises ModelError if the weights cannot be opened.
        """
        import torch

        processor, model = self._opened
        around = round(AROUND * max(face[2] - face[0], face[3] - face[1]))
        left, top = max(0, face[0] - around), max(0, face[1] - around)
        right, bottom = min(picture.width, face[2] + around), min(picture.height, face[3] + around)
        inputs = processor(images=picture.crop((left, top, right, bottom)).convert("RGB"), return_tensors="pt")
        with torch.inference_mode():
            logits = model(**inputs.to(model.device)).logits[0]
        shares = logits.float().softmax(-1).tolist()
        labels = [str(model.config.id2label[number]).lower() for number in range(len(shares))]
        return tuple(
            (label, round(share, 3))
            for label, share in sorted(zip(labels, shares, strict=True), key=lambda one: (-one[1], one[0]))
        )

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        processor, model = opened(self.place, AutoImageProcessor, AutoModelForImageClassification)
        return processor, model
