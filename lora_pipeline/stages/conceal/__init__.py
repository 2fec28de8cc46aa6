"""conceal: crops → the same pictures with other people's faces hidden, and a loss mask that says where."""

from lora_pipeline.stages.conceal.conceal import CODE_VERSION, conceal
from lora_pipeline.stages.conceal.cover import cover
from lora_pipeline.stages.conceal.drawn import PROMPTS, Artist
from lora_pipeline.stages.conceal.witness import Witness

__all__ = ["CODE_VERSION", "PROMPTS", "Artist", "Witness", "conceal", "cover"]
