"""Captions by interrogating CLIP (Radford et al., 2021, arXiv:2103.00020): of each list of phrases, the one that fits the picture best."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.models.place import CAPTIONS_MEASURED, Place, found

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_pipeline.records import Crop

PHRASES: dict[str, tuple[str, ...]] = {
    "framing": ("close-up portrait", "upper body shot", "full body shot", "wide shot from afar"),
    "angle": ("facing the camera", "in three-quarter view", "in profile", "seen from behind"),
    "pose": ("standing", "sitting", "lying down", "walking", "running", "dancing"),
    "outfit": (
        *("t-shirt", "shirt", "sweater", "jacket", "coat", "suit", "dress", "swimsuit", "sportswear", "uniform"),
        *("bare shoulders", "hat", "scarf"),
    ),
    "expression": ("smiling", "laughing", "serious", "sad", "surprised", "eyes closed"),
    "setting": (
        *("plain studio background", "living room", "kitchen", "bedroom", "office", "restaurant", "stage", "gym"),
        *("city street", "park", "forest", "beach", "mountains", "snow", "garden", "field", "water", "night sky"),
    ),
    "light": (
        "soft daylight",
        "bright sunlight",
        "golden hour",
        "studio light",
        "flash",
        "dim indoor light",
        "neon light",
    ),
    "medium": ("photo", "black and white photo", "old scanned photo", "painting", "drawing", "3d render"),
    "mood": ("calm mood", "cheerful mood", "dramatic mood", "dreamy mood"),
}
"""In the order in which they stand in the caption."""
SURE_FROM = 0.5
"""Probability of the best phrase among its list's, from which it is said: under it, none of them fits better than the others."""


@dataclass(frozen=True)
class ClipInterrogator:
    """A CLIP that ranks phrases. It is opened when the first caption is asked for."""

    place: Place
    name = "clip"

    @classmethod
    def open(cls, model: str, revision: str = "") -> "ClipInterrogator":
        """Of a folder or hub id. Raises ModelError: see `Place.check`."""
        place = found("describe.clip_model", model, "openai/clip-vit-large-patch14", CAPTIONS_MEASURED, revision)
        return cls(place)

    @property
    def identity(self) -> str:
        """The lists, and see `Place.identity`."""
        return f"clip {PHRASES} {SURE_FROM} {self.place.identity}"

    def words(self, picture: "Image", crop: "Crop") -> str:
        """The best phrase of each list, where it is sure, between commas. See `Captioner.words`."""
        del crop  # CLIP looks for itself
        chances = self.chances(picture)
        best = [max(those.items(), key=lambda one: one[1]) for those in chances.values()]
        return ", ".join(phrase for phrase, chance in best if chance >= SURE_FROM)

    def chances(self, picture: "Image") -> dict[str, dict[str, float]]:
        """By list and phrase, its probability among the list's: softmax of logit scale · cosine (section 3.1.2 there).

        Raises ModelError if the weights cannot be opened.
        """
        import torch

        processor, model, texts = self._opened
        inputs = processor(images=picture.convert("RGB"), return_tensors="pt").to(model.device)
        with torch.inference_mode():
            seen = _of(model.get_image_features(**inputs))
            logits = (model.logit_scale.exp() * seen @ texts.T)[0]  # phrases
        chances: dict[str, dict[str, float]] = {}
        at = 0
        for name, phrases in PHRASES.items():
            among = logits[at : at + len(phrases)].softmax(0).tolist()
            chances[name] = dict(zip(phrases, among, strict=True))
            at += len(phrases)
        return chances

    @cached_property
    def _opened(self) -> tuple[Any, Any, Any]:
        """Processor, model, and the phrases' unit vectors, phrases×D."""
        import torch
        from transformers import CLIPModel, CLIPProcessor

        where, revision = self.place.where, self.place.commit
        try:
            processor: Any = CLIPProcessor.from_pretrained(where, revision=revision)
            model: Any = CLIPModel.from_pretrained(where, revision=revision)
        except (OSError, ValueError) as error:
            raise self.place.missing(error) from error
        model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        said = [f"a photo, {phrase}" for phrases in PHRASES.values() for phrase in phrases]
        tokens = processor(text=said, padding=True, truncation=True, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            return processor, model, _of(model.get_text_features(**tokens))


def _of(features: Any) -> Any:
    """Unit vectors, N×D; transformers 5 hands them inside of a record."""
    vectors = getattr(features, "pooler_output", features)
    return vectors / vectors.norm(dim=-1, keepdim=True)
