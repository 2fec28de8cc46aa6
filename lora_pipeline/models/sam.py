"""What in a box is the thing and what is behind it: Segment Anything (Kirillov et al., 2023, arXiv:2304.02643), by transformers' SamModel."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import Place, found, opened
from lora_pipeline.records import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


@dataclass(frozen=True)
class Sam:
    """A segmenter. It is opened when the first picture is shown to it.

    Args:
        place: of weights of SamModel.
    """

    place: Place

    @classmethod
    def open(cls, model: str, revision: str = "") -> "Sam":
        """Raises ModelError if the folder is not there, or the hub id is neither in the local cache nor to be had."""
        otherwise = "leave that empty: no mask of the subject is made then"
        return cls(found("crop.segment_model", model, "facebook/sam-vit-base", otherwise, revision))

    @property
    def identity(self) -> str:
        """That of the weights."""
        return f"sam {self.place.identity}"

    def mask(self, picture: "Image", box: Box) -> "NDArray[np.bool_]":
        """H×W, true where the thing in the box is; the one mask that SAM is told to settle on.

        Args:
            picture: H×W, 8-bit RGB, upright.
            box: (left, top, right, bottom) in the picture's pixels.

        Raises ModelError if the weights cannot be opened.
        """
        import numpy as np
        import torch

        processor, model = self._opened
        boxes = [[[float(side) for side in box]]]  # a picture, a box of it, its four sides
        inputs = processor(images=picture.convert("RGB"), input_boxes=boxes, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            outputs = model(**inputs, multimask_output=False)
        masks = processor.image_processor.post_process_masks(
            outputs.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )
        return np.asarray(masks[0][0, 0], dtype=np.bool_)

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        from transformers import SamModel, SamProcessor

        processor, model = opened(self.place, SamProcessor, SamModel)
        return processor, model
