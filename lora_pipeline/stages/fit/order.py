"""Which pictures are in which batch: pure, so that a forecast and a resumed run need no model.

Steps of a run = epochs × ⌈the sum over buckets of ⌈pictures × repeats ÷ batch⌉ ÷ (processes × accumulation)⌉, since a batch never mixes
sizes and an epoch's last batches do not wait for the next one's: `max_train_steps` of kohya-ss/sd-scripts' train_network.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Example
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.held_out import without_held_out

Size = tuple[int, int]


@dataclass(frozen=True)
class Look:
    """One time that one picture is seen: its number in the training set, and whether mirrored."""

    picture: int
    mirrored: bool


def steps_per_epoch(looks: Mapping[Size, int], batch_size: int, accumulation: int = 1) -> int:
    """Steps (updates) of an epoch.

    Args:
        looks: how often pictures of each bucket are seen in it.
        batch_size: pictures a batch.
        accumulation: batches a step, those of all processes.
    """
    return -(-sum(-(-count // batch_size) for count in looks.values()) // accumulation)


def grouped(order: Sequence[tuple[Look, ...]], count: int) -> list[tuple[tuple[Look, ...], ...]]:
    """Batches, so many at a time: an epoch's by step, a step's by what the processes do at once. The last may be fewer."""
    return [tuple(order[begin : begin + count]) for begin in range(0, len(order), count)]


def looks_per_bucket(examples: Sequence[Example]) -> Counter[Size]:
    """How often pictures of each bucket are seen in an epoch."""
    looks: Counter[Size] = Counter()
    for example in examples:
        looks[example.bucket] += example.repeats
    return looks


def batches_per_step(settings: FitSettings, processes: int) -> int:
    """Batches that a step (an update) learns from, those of all processes."""
    return processes * settings.gradient_accumulation_steps


def total_steps(training_set: Manifest, settings: FitSettings) -> int:
    """Steps of a whole run, for a forecast."""
    examples = [Example.of(row) for row in without_held_out(training_set, settings).kept]
    at_once = batches_per_step(settings, settings.num_processes)
    return settings.epochs * steps_per_epoch(looks_per_bucket(examples), settings.batch_size, at_once)


def batches(
    examples: Sequence[Example], epoch: int, batch_size: int, seed: int, mirror: bool, processes: int = 1
) -> list[tuple[Look, ...]]:
    """The batches of one epoch, in order; a function of its arguments alone.

    Each bucket's looks are shuffled and cut into batches (the last may be short), then the batches of all buckets are shuffled.

    Several processes take a batch each at once, so these stay side by side: of one bucket, so that they are one batch of as many times
    the size, as far as the bucket's batches reach; what is left of the buckets stands together. Where too few are left, a batch
    is empty (accelerate, and so sd-scripts, has a process train on one of the epoch's first batches again; the count of steps is the same).

    Args:
        examples: the training set.
        epoch: 1 for the first.
        batch_size: pictures a batch.
        seed: of the run.
        mirror: whether every other look of a picture is mirrored: from repeat to repeat, and from epoch to epoch.
        processes: each so many batches of the answer, from its first on, are of one moment.
    """
    rng = np.random.default_rng((seed, 1, epoch))
    by_bucket: dict[Size, list[Look]] = {}
    for number, example in enumerate(examples):
        for repeat in range(example.repeats):
            seen = (epoch - 1) * example.repeats + repeat
            by_bucket.setdefault(example.bucket, []).append(Look(number, mirror and (seen + number) % 2 == 1))
    at_once: list[tuple[tuple[Look, ...], ...]] = []
    left: list[tuple[Look, ...]] = []
    for bucket in sorted(by_bucket):
        looks = by_bucket[bucket]
        shuffled = [looks[at] for at in np.argsort(rng.random(len(looks)), kind="stable")]
        cut = [tuple(shuffled[begin : begin + batch_size]) for begin in range(0, len(shuffled), batch_size)]
        reach = len(cut) - len(cut) % processes
        at_once += grouped(cut[:reach], processes)
        left += cut[reach:]
    # each bucket's leftovers after its others, where the short batch of one process would be
    at_once = sorted(at_once + grouped(left, processes), key=lambda moment: examples[moment[0][0].picture].bucket)
    order = [at_once[at] for at in np.argsort(rng.random(len(at_once)), kind="stable")]
    return [batch for moment in order for batch in (*moment, *[()] * (processes - len(moment)))]
