"""One partition a subject; for what comes out of training, one an epoch too."""

from collections.abc import Iterable

import dagster as dg
from sqlalchemy.exc import IntegrityError

from lora_pipeline import subject
from lora_pipeline.store import Store

subjects = dg.DynamicPartitionsDefinition(name="subject")
epochs = dg.DynamicPartitionsDefinition(name="epoch")
subject_epochs = dg.MultiPartitionsDefinition({"subject": subjects, "epoch": epochs})


def add(instance: dg.DagsterInstance, kind: str, names: Iterable[str]) -> list[str]:
    """Make partitions of "subject" or "epoch", however many processes do the same just now. Returns the names that were new."""
    names = list(names)
    while new := [name for name in names if not instance.has_dynamic_partition(kind, name)]:
        try:
            instance.add_dynamic_partitions(kind, new)
            return new
        except IntegrityError:  # Dagster looks and then writes: between the two, another process wrote one of them.
            continue
    return []


def register(instance: dg.DagsterInstance, store: Store) -> list[str]:
    """Make every subject folder a partition. Returns the names that were new."""
    return add(instance, "subject", subject.names(store))
