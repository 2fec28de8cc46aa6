"""publish: the chosen epoch → files that other programs load, a model card, and a lineage record."""

from lora_pipeline.stages.publish.card import CardFacts
from lora_pipeline.stages.publish.release import CODE_VERSION, publish

__all__ = ["CODE_VERSION", "CardFacts", "publish"]
