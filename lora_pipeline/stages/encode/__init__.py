"""encode: pictures and captions → buckets, cached latents with their masks, cached text embeddings."""

from lora_pipeline.stages.encode.buckets import bucket_of, buckets, plan
from lora_pipeline.stages.encode.encode import CODE_VERSION, encode
from lora_pipeline.stages.encode.regularisation import FOLDER, GENERATED, POOL, Pooled, Words
from lora_pipeline.stages.encode.regularisation import NAME as REGULARISATION
from lora_pipeline.stages.encode.visible import visible_cells

__all__ = [
    "CODE_VERSION",
    "FOLDER",
    "GENERATED",
    "POOL",
    "REGULARISATION",
    "Pooled",
    "Words",
    "bucket_of",
    "buckets",
    "encode",
    "plan",
    "visible_cells",
]
