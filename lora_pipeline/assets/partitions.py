"""One partition a subject; for what comes out of training, one an epoch too."""

import dagster as dg

from lora_pipeline import subject
from lora_pipeline.store import Store

subjects = dg.DynamicPartitionsDefinition(name="subject")
epochs = dg.DynamicPartitionsDefinition(name="epoch")
subject_epochs = dg.MultiPartitionsDefinition({"subject": subjects, "epoch": epochs})


def register(instance: dg.DagsterInstance, store: Store) -> list[str]:
    """Make every subject folder a partition. Returns the names that were new."""
    there = set(instance.get_dynamic_partitions("subject"))
    new = [name for name in subject.names(store) if name not in there]
    if new:
        instance.add_dynamic_partitions("subject", new)
    return new
