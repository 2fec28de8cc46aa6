"""Where everything came from and what became of it."""

from lora_pipeline.lineage.answers import Descent, Lineage, Made, TrainedPhoto, TrainedPicture
from lora_pipeline.lineage.ask import ask, made_from, photos_of

__all__ = ["Descent", "Lineage", "Made", "TrainedPhoto", "TrainedPicture", "ask", "made_from", "photos_of"]
