"""Things found by their name: Grounding DINO (Liu et al., 2023, arXiv:2303.05499), through transformers' own classes."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import Place, found, opened
from lora_pipeline.records import Box

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class GroundingDino:
    """A detector that is told in words what to look for. It is opened when the first picture is shown to it.

    Args:
        place: of weights of any class that AutoModelForZeroShotObjectDetection opens with Grounding DINO's processor.
    """

    place: Place

    @classmethod
    def open(cls, model: str, revision: str = "") -> "GroundingDino":
        """Raises ModelError if the folder is not there, or the hub id is neither in the local cache nor to be had."""
        otherwise = "leave that empty: the whole picture is the subject's then"
        return cls(found("crop.subject_model", model, "IDEA-Research/grounding-dino-tiny", otherwise, revision))

    @property
    def identity(self) -> str:
        """That of the weights."""
        return f"grounding_dino {self.place.identity}"

    def find(self, picture: "Image", prompt: str, least_score: float) -> list[tuple[Box, float]]:
        """Boxes of what the words mean, surest first, with scores of 0 to 1 over `least_score`.

        Args:
            picture: H×W, 8-bit RGB, upright.
            prompt: "dog", or "a red mug"; several things are set apart by full stops.

        Returns:
            boxes (left, top, right, bottom) in the picture's pixels, right and bottom exclusive, cut to the picture.

        Raises ModelError if the weights cannot be opened.
        """
        import torch

        processor, model = self._opened
        # As it was trained: small letters, a full stop after each phrase.
        words = prompt.lower().strip().rstrip(".") + "."
        inputs = processor(images=picture.convert("RGB"), text=words, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            outputs = model(**inputs)
        result = processor.post_process_grounded_object_detection(
            outputs,
            inputs["input_ids"],
            threshold=least_score,
            text_threshold=least_score,
            target_sizes=[picture.size[::-1]],
        )[0]
        finds: list[tuple[Box, float]] = []
        for (left, top, right, bottom), score in zip(result["boxes"].tolist(), result["scores"].tolist(), strict=True):
            box = (
                max(0, round(left)),
                max(0, round(top)),
                min(picture.width, round(right)),
                min(picture.height, round(bottom)),
            )
            if box[0] < box[2] and box[1] < box[3]:
                finds.append((box, round(float(score), 3)))
        return sorted(finds, key=lambda find: (-find[1], find[0]))

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        processor, model = opened(self.place, AutoProcessor, AutoModelForZeroShotObjectDetection)
        return processor, model
