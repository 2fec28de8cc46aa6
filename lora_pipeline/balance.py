"""How often regularisation pictures are seen beside a subject: together as often as it, and never more.

As `DreamBoothDataset` of kohya-ss/sd-scripts: some are seen once more than others, and of too many only as many as there is room for.
"""

import hashlib
from collections.abc import Mapping, Sequence

NO_ROOM = "there are more regularisation pictures than the subject is seen in an epoch"


def balanced(ids: Sequence[str], looks: int) -> Mapping[str, int]:
    """How often each regularisation picture is seen in an epoch, 0 for one that there is no room for.

    Args:
        ids: of the pictures.
        looks: at the subject's pictures in an epoch; the regularisation pictures' are as many, so that they are half of all.
    """
    # by name the first could all be of one kind
    order = sorted(ids, key=lambda id: hashlib.sha256(id.encode()).digest())
    each, more = divmod(looks, len(order)) if order else (0, 0)
    return {id: each + (number < more) for number, id in enumerate(order)}
