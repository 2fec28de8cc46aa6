"""Tags by a WD14 tagger: an ONNX model and its list of tags, as SmilingWolf publishes them, run by onnxruntime.

Its tags are Danbooru's ("1girl, brown hair, smile"), and its models have seen drawings above all.
"""

import csv
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import ModelError
from lora_pipeline.models.place import CAPTIONS_MEASURED, Place, download

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from lora_pipeline.records import Crop

MODEL, TAGS = "model.onnx", "selected_tags.csv"
GENERAL, CHARACTER = 0, 4
"""Danbooru's categories; 9, the ratings, is left out."""
_FACES = {"0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||"}  # fmt: skip
"""Tags whose underscore is a mouth; in all others it is a space."""


@dataclass(frozen=True)
class Wd14:
    """A WD14 tagger. It is opened when the first tags are asked for.

    Args:
        place: `model.onnx` (N×H×W×3 float32, BGR, 0 to 255 → N×tags, probabilities) and `selected_tags.csv` (name, category; a line a tag).
        threshold: probability from which a general tag is taken, 0 to 1.
        character_threshold: the same for names of characters.
    """

    place: Place
    threshold: float
    character_threshold: float
    name = "wd14"

    @classmethod
    def open(cls, model: str, revision: str = "", threshold: float = 0.35, character_threshold: float = 1.0) -> "Wd14":
        """Of a folder or hub id. Raises ModelError: see `Place.check`; or onnxruntime is not installed."""
        try:
            import onnxruntime  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
        except ImportError:
            raise ModelError(
                "describe.captioner wd14 needs onnxruntime: pip install 'lora-pipeline[wd14]', or set describe.captioner to measured"
            ) from None
        setting = "describe.wd14_model"
        how = download("SmilingWolf/wd-vit-tagger-v3", setting, CAPTIONS_MEASURED)
        place = Place(setting, model, revision, how, (TAGS, MODEL))
        place.check()
        return cls(place, threshold, character_threshold)

    @property
    def identity(self) -> str:
        """The thresholds, and see `Place.identity`."""
        return f"wd14 {self.threshold} {self.character_threshold} {self.place.identity}"

    def words(self, picture: "Image", crop: "Crop") -> str:
        """Tags at or over their threshold, the surest first, between commas. See `Captioner.words`.

        Raises ModelError if the model cannot be opened, or has not as many answers as the list has tags.
        """
        del crop  # the tagger looks for itself
        session, tags = self._opened
        entry = session.get_inputs()[0]
        side_px = entry.shape[1] if isinstance(entry.shape[1], int) else 448
        (answers,) = session.run([session.get_outputs()[0].name], {entry.name: _pixels(picture, side_px)})
        chances = [float(chance) for chance in answers[0]]
        if len(chances) != len(tags):
            raise ModelError(
                f"{self.place.setting}: {MODEL} tells {len(chances)} tags, and {TAGS} names {len(tags)}: they are not of one model"
            )
        least = {GENERAL: self.threshold, CHARACTER: self.character_threshold}
        taken = [
            (-chance, tag) for chance, (tag, kind) in zip(chances, tags, strict=True) if chance >= least.get(kind, 2)
        ]
        return ", ".join(tag for _, tag in sorted(taken))

    @cached_property
    def _opened(self) -> tuple[Any, list[tuple[str, int]]]:
        import onnxruntime as ort  # pyright: ignore[reportMissingImports]

        try:
            with self.place.file(TAGS).open(encoding="utf-8", newline="") as file:
                tags = [(_spelt(line["name"]), int(line["category"])) for line in csv.DictReader(file)]
            session = ort.InferenceSession(str(self.place.file(MODEL)), providers=ort.get_available_providers())
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's own, which share no base, or a csv without these columns
            raise self.place.missing(error) from error
        return session, tags


def _spelt(tag: str) -> str:
    return tag if tag in _FACES else tag.replace("_", " ")


def _pixels(picture: "Image", side_px: int) -> "NDArray[np.float32]":
    """1×side×side×3, BGR, 0 to 255: the picture in the middle of a white square."""
    import numpy as np
    from PIL import Image

    long = max(picture.size)
    square = Image.new("RGB", (long, long), "white")
    square.paste(picture.convert("RGB"), ((long - picture.width) // 2, (long - picture.height) // 2))
    small = square.resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(small, dtype=np.float32)[None, :, :, ::-1])
