"""Who can write captions."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_pipeline.records import Crop


class Captioner(Protocol):
    """Says what is on a picture. `measured.Measured` and `models.blip.Blip` are two."""

    @property
    def name(self) -> str:
        """The word that a caption's `source` becomes."""
        ...

    @property
    def identity(self) -> str:
        """Changes whenever the same picture may get other words: weights, version. Part of the memo's key."""
        ...

    def words(self, picture: "Image", crop: "Crop") -> str:
        """The caption's words that come after "{trigger} {class}, ".

        Args:
            picture: H×W, 8-bit RGB, the crop itself with strangers hidden.
            crop: what is known of it.
        """
        ...
