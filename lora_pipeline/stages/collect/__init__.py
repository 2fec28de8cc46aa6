"""collect: a folder or zip of photos and videos, or a photo library → one row a photo: upright size, content hash, thumbnail, or why it was refused.

A file a source (`folder`, `archive`, `video`, `photoprism`, `immich`); each says what is there, in the words of `found`.
"""

from lora_pipeline.stages.collect.collect import CODE_VERSION, FORGOTTEN, collect, glance
from lora_pipeline.stages.collect.folder import captions_beside, find
from lora_pipeline.stages.collect.video import FRAMES, role_of

__all__ = ["CODE_VERSION", "FORGOTTEN", "FRAMES", "captions_beside", "collect", "find", "glance", "role_of"]
