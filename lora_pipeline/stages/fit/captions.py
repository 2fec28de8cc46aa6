"""Which words one look at a picture is trained with, as a function of the run's seed and of the images seen.

`process_caption` of kohya-ss/sd-scripts: the caption (its prefix and suffix are `encode`'s) is dropped, or its tags are shuffled, and
then some of them dropped.
"""

import numpy as np

from lora_pipeline.settings import FitSettings


def varies(settings: FitSettings) -> bool:
    """Whether a look may have other words than its picture's caption."""
    return settings.shuffle_caption or settings.caption_dropout_rate > 0 or settings.caption_tag_dropout_rate > 0


def caption_of(text: str, settings: FitSettings, images_seen: int) -> str:
    """The words of the look that is number `images_seen` of the run.

    Where tags are shuffled or dropped, they come back with ", " between them, and the first `keep_tokens` of them as they stood;
    else the text comes back untouched, or empty.

    Args:
        text: the picture's caption, its tags between commas.
        settings: seed, rates, tags to keep.
        images_seen: before this look; 0 for the first.
    """
    if not varies(settings):
        return text
    rng = np.random.default_rng((settings.seed, 2, images_seen))
    if rng.random() < settings.caption_dropout_rate:
        return ""
    if not settings.shuffle_caption and not settings.caption_tag_dropout_rate:
        return text
    tags = [tag.strip() for tag in text.strip().split(",")]
    kept, others = tags[: settings.keep_tokens], tags[settings.keep_tokens :]
    places, fates = rng.random(len(others)), rng.random(len(others))
    order = np.argsort(places, kind="stable") if settings.shuffle_caption else range(len(others))
    return ", ".join(kept + [others[at] for at in order if fates[at] >= settings.caption_tag_dropout_rate])
