"""describe: pictures → one caption each: by a person's hand (which wins), from measurements, or from a captioning model."""

from lora_pipeline.stages.describe.captioner import Captioner
from lora_pipeline.stages.describe.describe import CODE_VERSION, describe, open_captioner

__all__ = ["CODE_VERSION", "Captioner", "describe", "open_captioner"]
