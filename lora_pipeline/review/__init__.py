"""review: a local page to look at what the stages made of the photos, and to decide otherwise.

What a person decides lands in plain files (`photos.yaml`, `people.yaml`, `captions/`, and the epoch in `subject.yaml` itself), which win over
everything measured from then on; the next run picks them up. The page itself computes nothing and trains nothing.
"""

from lora_pipeline.review.page import serve

__all__ = ["serve"]
