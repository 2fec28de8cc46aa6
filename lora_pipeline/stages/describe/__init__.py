"""describe: pictures → one caption each: by a person's hand (which wins), from measurements, or from a captioning model."""

from lora_pipeline.stages.describe.captioner import Accountable, Captioner
from lora_pipeline.stages.describe.describe import (
    CODE_VERSION,
    HAND,
    WORDS,
    describe,
    open_captioner,
    ruled,
    sends_out,
)
from lora_pipeline.stages.describe.hand import names

__all__ = [
    "CODE_VERSION",
    "HAND",
    "WORDS",
    "Accountable",
    "Captioner",
    "describe",
    "names",
    "open_captioner",
    "ruled",
    "sends_out",
]
