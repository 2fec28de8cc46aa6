"""collect: a folder → one row a photo: upright size, content hash, thumbnail, or why it was refused."""

from lora_pipeline.stages.collect.collect import CODE_VERSION, collect
from lora_pipeline.stages.collect.folder import find

__all__ = ["CODE_VERSION", "collect", "find"]
