"""curate: photos → measured quality, groups of copies, and which are kept, each with the reason."""

from lora_pipeline.stages.curate.curate import CODE_VERSION, curate, text_share

__all__ = ["CODE_VERSION", "curate", "text_share"]
