"""Who can write captions."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_pipeline.records import Crop, Value


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
        """What is on the picture; the rules put "{trigger} {class}, " before it, unless it begins with the trigger word itself.

        Args:
            picture: H×W, 8-bit RGB, the crop itself with strangers hidden.
            crop: what is known of it. Only `describe.LOOKED_AT` may be read: of nothing else does the memo know.
        """
        ...


@runtime_checkable
class Accountable(Protocol):
    """A captioner that also says what its words took: `models.llm.Llm`."""

    def accounted(self, picture: "Image", crop: "Crop") -> "tuple[str, Mapping[str, Value]]":
        """`Captioner.words`, and `requests`, `tokens_in`, `tokens_out` (whole numbers), and in `note` what was mended, or nothing."""
        ...
