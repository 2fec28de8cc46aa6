"""collect: a folder, a zip, a video or a photo library → one row a photo: upright size, content hash, thumbnail, or why it was refused.

A file a source (`folder`, `archive`, `video`, `photoprism`, `immich`); each says what is there, in the words of `found`.
"""

from lora_pipeline.stages.collect.collect import CODE_VERSION, FORGOTTEN, collect
from lora_pipeline.stages.collect.folder import find

__all__ = ["CODE_VERSION", "FORGOTTEN", "collect", "find"]
