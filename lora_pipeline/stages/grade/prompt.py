"""Prompt: does it still draw what it is asked for?"""

from collections.abc import Sequence

import numpy as np

from lora_pipeline.records import Measure
from lora_pipeline.stages.grade.interval import told
from lora_pipeline.stages.grade.seen import Seen


def prompt_followed(pictures: Sequence[Seen], base: Sequence[Seen], judge: str) -> Measure:
    """Mean agreement of pictures and prompts, by a judge: CLIP-T, or in the drawn world the share of what is asked for that is shown."""
    own, control = ([one.agreement.get(judge) for one in some] for some in (pictures, base))
    return told(judge, "prompt", "more", own, control, middle=np.mean)
