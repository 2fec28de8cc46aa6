"""From each materialization to both sides: the assets that it was made from, as they were then, and those that it goes into."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

import dagster as dg

from lora_pipeline.flow import STEPS, Work

READS: dict[str, Sequence[str]] = {}
"""Asset → the assets that it reads; each asset's definition adds its own."""


def made_from(noun: str, work: Work, reads: Mapping[str, Sequence[str]] = READS) -> dg.MarkdownMetadataValue:
    """The assets that were read, each with how many rows it had and its data version."""
    lines = [f"- {_link(other, work.subject.name)}: {_as_it_was(other, work)}" for other in reads.get(noun, ())]
    return dg.MetadataValue.md("\n".join(lines) or "- the photos of the subject, which are only read")


def went_into(noun: str, work: Work, reads: Mapping[str, Sequence[str]] = READS) -> dg.MarkdownMetadataValue:
    """The assets that read this one, and how every single thing can be followed."""
    lines = [f"- {_link(other, work.subject.name)}" for other, read in reads.items() if noun in read]
    follow = "one by one: `lora-pipeline lineage FILE` follows any photo, picture or LoRA file both ways"
    return dg.MetadataValue.md("\n".join([*(lines or ["- nothing: it is the last"]), "", follow]))


def _link(noun: str, subject: str) -> str:
    return f"[{noun} of {subject}](/assets/{noun}?view=partitions&partition={quote(subject)})"


def _as_it_was(noun: str, work: Work) -> str:
    made = work.made(_folder(noun))
    return f"{len(made.kept)} kept, data version `{made.digest[:16]}`"


def _folder(noun: str) -> str:
    return next(step.folder for step in STEPS if step.noun == noun)
