"""publish: the chosen epoch → files that other programs load, a model card, and a lineage record; and from there to where it is used."""

from lora_pipeline.stages.publish.card import CardFacts, Hidden
from lora_pipeline.stages.publish.hub import push
from lora_pipeline.stages.publish.place import Copy, copies, place
from lora_pipeline.stages.publish.release import CODE_VERSION, publish

__all__ = ["CODE_VERSION", "CardFacts", "Copy", "Hidden", "copies", "place", "publish", "push"]
