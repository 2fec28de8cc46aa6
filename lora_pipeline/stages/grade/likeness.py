"""Likeness: is it the subject?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lora_pipeline.records import Measure
from lora_pipeline.stages.grade.interval import middle_of, told
from lora_pipeline.stages.grade.looks import look_distances
from lora_pipeline.stages.grade.seen import Seen, Vector

IDENTITY = "identity distance"
MEDIAN = "identity distance, median"
LOOKS = "distance by colours and edges"


def identity_distances(descriptors: Sequence[Vector | None], subject: Sequence[Vector]) -> list[float | None]:
    """Euclidean distance of each face's descriptor to the **mean** of the subject's; None where there is no face.

    The mean separates better than the median of the distances to all of them: on one man in 8 photos and 5 other faces, dlib's
    descriptors, the subject's own farthest photo and the nearest other face lie 0.47 apart (0.33 to 0.80) by the mean, 0.41
    apart (0.42 to 0.83) by the median.
    """
    if not subject:
        return [None] * len(descriptors)
    middle = np.asarray(subject, dtype=np.float64).mean(0)
    return [None if one is None else float(np.linalg.norm(np.asarray(one) - middle)) for one in descriptors]


def cosines(vectors: Sequence[Vector | None], photos: Sequence[Vector]) -> list[float | None]:
    """DINO and CLIP-I of Ruiz et al. 2023 ("DreamBooth", section 4.1): mean cosine of each picture to all photos, -1 to 1.

    Args:
        vectors, photos: embeddings of length 1.
    """
    if not photos:
        return [None] * len(vectors)
    middle = np.asarray(photos, dtype=np.float64).mean(0)  # the mean of the cosines is the product with the mean
    return [None if one is None else float(np.asarray(one) @ middle) for one in vectors]


def looks_apart(looks: Sequence[Vector | None], photos: Sequence[Vector]) -> list[float | None]:
    """Median distance of each picture's `look` (colours and edges: weak, see there) to the photos', 0 to 1."""
    if not photos:
        return [None] * len(looks)
    return [None if one is None else float(np.median(look_distances(one, photos))) for one in looks]


@dataclass(frozen=True)
class Yardstick:
    """The distance by which epochs are compared, and what of the subject it is taken to; less is nearer.

    Args:
        by: `face`, the name of an embedder (1 - cosine), or `look`.
        subject: of the photos that it is taken to: descriptors of faces, embeddings, or looks.
        trained: of the other photos, where `subject` is of held-out ones.
    """

    by: str
    subject: Sequence[Vector]
    trained: Sequence[Vector] = ()

    @property
    def name(self) -> str:
        """What the distance is called."""
        return {"face": IDENTITY, "look": LOOKS}.get(self.by, f"distance by {self.by}")

    def of(self, picture: Seen) -> Vector | None:
        """What of a picture is compared; None if it is not there."""
        if self.by == "face":
            return picture.descriptor
        if self.by == "look":
            return picture.glance.look if picture.glance else None
        return picture.vectors.get(self.by)

    def distances(self, pictures: Sequence[Seen]) -> list[float | None]:
        """Of each picture to the subject."""
        return self._to([self.of(one) for one in pictures], self.subject)

    def apart(self, one: Seen, other: Seen) -> float | None:
        """Of two pictures."""
        a, b = self.of(one), self.of(other)
        return None if a is None or b is None else self._to([a], [b])[0]

    @cached_property
    def ceiling(self) -> float | None:
        """What a perfect picture would reach: the photos among each other, each left out in turn; with held-out ones, the others to them."""
        return middle_of(self._to(self.trained, self.subject) if self.trained else self._left_out(), np.mean)

    def _to(self, ones: Sequence[Vector | None], subject: Sequence[Vector]) -> list[float | None]:
        if self.by == "face":
            return identity_distances(ones, subject)
        if self.by == "look":
            return looks_apart(ones, subject)
        return [None if cosine is None else 1 - cosine for cosine in cosines(ones, subject)]

    def _left_out(self) -> list[float | None]:
        """Of each photo to all the others."""
        if len(self.subject) < 2:
            return []
        if self.by == "look":
            return [
                float(np.median(look_distances(one, [*self.subject[:n], *self.subject[n + 1 :]])))
                for n, one in enumerate(self.subject)
            ]
        known = np.asarray(self.subject, dtype=np.float64)
        others = (known.sum(0) - known) / (len(known) - 1)
        apart = np.linalg.norm(known - others, axis=1) if self.by == "face" else 1 - (known * others).sum(1)
        return apart.tolist()


def with_the_lost(
    pictures: Sequence[Seen], own: Sequence[float | None], base: Sequence[Seen], control: Sequence[float | None]
) -> list[float | None]:
    """Distances, where one that is missing (no face was found) counts as that of the base model's picture of the same prompt and seed: it is no
    nearer to the subject than that. An epoch that shows a face in no picture has none."""
    if all(distance is None for distance in own):
        return list(own)
    there = {(one.prompt, one.seed): distance for one, distance in zip(base, control, strict=True)}
    return [
        there.get((one.prompt, one.seed)) if distance is None else distance
        for one, distance in zip(pictures, own, strict=True)
    ]


def likeness(
    pictures: Sequence[Seen],
    base: Sequence[Seen],
    yardstick: Yardstick,
    photos: Sequence[Seen],
    embedders: Sequence[str],
) -> list[Measure]:
    """The yardstick's distance first, by which epochs are compared; of faces the median too; then each embedder's cosine to the photos.

    It is the mean over the pictures. An epoch's faces come out well or awry, and the mean tells the shares of both, where the median forgets the
    smaller: of drawn subjects, it names the epoch that is best on 200 fresh prompts from half as many pictures (`benchmarks/choice`). What was
    lost counts, too: see `with_the_lost`.
    """
    own, control = yardstick.distances(pictures), yardstick.distances(base)
    lost = with_the_lost(pictures, own, base, control)
    measures = [told(yardstick.name, "likeness", "less", lost, control, yardstick.ceiling, middle=np.mean)]
    if yardstick.by == "face":
        measures.append(told(MEDIAN, "likeness", "less", own, control))
    for by in embedders:
        known = [one.vectors[by] for one in photos if by in one.vectors]
        own, control = (cosines([one.vectors.get(by) for one in some], known) for some in (pictures, base))
        among = Yardstick(by, known).ceiling
        measures.append(
            told(f"{by} cosine", "likeness", "more", own, control, None if among is None else 1 - among, middle=np.mean)
        )
    return measures
