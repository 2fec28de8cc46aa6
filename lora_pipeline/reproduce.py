"""Is a checkpoint what the record says it is? It is trained again from what it was made of, and compared."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_pipeline import consent
from lora_pipeline.errors import PipelineError, SubjectError
from lora_pipeline.families import family
from lora_pipeline.flow import USED
from lora_pipeline.lineage import MADE_WITH, Entry, Graph, as_json, differing, graph, record_all
from lora_pipeline.manifest import Manifest, read
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Example, Row
from lora_pipeline.stages.fit import Job, missing, run_key, set_up_again, train_again
from lora_pipeline.store import Store, digest_file
from lora_pipeline.subject import Subject, load


@dataclass(frozen=True)
class Reproduced:
    """What came of training a checkpoint again.

    Args:
        subject: whose.
        run: key of the training run.
        epoch: of the checkpoint.
        digest: SHA-256 of the checkpoint, as recorded.
        again: SHA-256 of what was trained now.
        difference: the largest difference of two weights, and the largest weight of the two; None if the bytes are the same, or if the
            checkpoint's own file is no longer there to compare with.
        differing: what libraries and device differ in, as `torch: 2.6.0 → 2.7.1`.
        unknown: whether it was not written down with what the run was trained.
    """

    subject: str
    run: str
    epoch: int
    digest: str
    again: str
    difference: tuple[float, float] | None = None
    differing: tuple[str, ...] = ()
    unknown: bool = False

    @property
    def same(self) -> bool:
        """Whether the bytes are the same."""
        return self.digest == self.again

    def lines(self) -> list[str]:
        """In words, for a terminal."""
        what = f"epoch {self.epoch} of run {self.run[:16]} of {self.subject}"
        if self.same:
            return [f"{what}, trained again: the same bytes (sha256 {self.digest})"]
        told = [
            f"{what}, trained again: other bytes",
            f"  sha256 recorded:    {self.digest}",
            f"  sha256 trained now: {self.again}",
        ]
        if self.difference is None:
            told.append("  the checkpoint's own file is no longer there, so its weights cannot be compared")
        else:
            told.append(
                f"  weights differ by {self.difference[0]:.3g} at most; the largest weight is {self.difference[1]:.3g}"
            )
        told += [f"  made with another {change}" for change in self.differing]
        if self.unknown:
            told.append(
                "  with what it was trained is not in the record: it is of before that was written down; another number of threads "
                "(OMP_NUM_THREADS) is enough for other bytes"
            )
        elif not self.differing:
            told.append("  libraries and device are the same; on a GPU, sums may still come in another order")
        return told


def reproduce(store: Store, checkpoint: str, progress: Progress = silent) -> Reproduced:
    """Train a checkpoint again, in a scratch folder that is gone afterwards, and compare.

    What was trained on is known from the run's folder; where that is gone, from the record, as long as the training set is as it was.

    Args:
        checkpoint: a checkpoint's or released LoRA's file, or a picture drawn with it, wherever it lies; or the beginning of a hash.
        progress: told each step.

    Raises:
        PipelineError: it is not in the record or is no checkpoint, or what it was made of is no longer there; the message says what.
        SubjectError: the consent does not cover training, or not any more: the subject's, or that of who stood beside them.
        TrainingError, ModelError: training cannot be done.
    """
    record_all(store)
    whole = graph(store, checkpoint)
    made = _checkpoint(whole, checkpoint)
    run = whole.entries[whole.parents[made.uid][0]]
    if not made.subject:
        raise PipelineError(f"{checkpoint} is of a subject that was forgotten, so it is not trained again")
    subject = load(store, made.subject)
    consent.refuse(subject, "training")
    with tempfile.TemporaryDirectory(prefix="lora-pipeline-reproduce-") as scratch:
        then = _made_with(run)
        job = _job(store, run, whole, Path(scratch) / "as recorded")
        _all_there(job, run, then)
        _refuse_others(store, subject, job)
        lora = train_again(job, int(made.facts["epoch"]), Path(scratch), progress, int(then.get("threads", 0)))
        again = digest_file(lora)
        there = made.path is not None and made.path.is_file() and digest_file(made.path) == made.digest
        apart = _apart(made.path, lora) if there and made.path is not None and again != made.digest else None
        now = as_json(Path(scratch) / MADE_WITH)
    changed = differing(then, now) if then else []
    return Reproduced(
        made.subject, job.key, int(made.facts["epoch"]), made.digest, again, apart, tuple(changed), not then
    )


def _checkpoint(whole: Graph, asked: str) -> Entry:
    """The checkpoint that is meant, or that a release or a picture was made of."""
    reached = [*whole.asked, *(parent for uid in whole.asked for parent in whole.parents.get(uid, ()))]
    found = {uid: one for uid in reached if (one := whole.entries[uid]).kind == "checkpoint"}
    if not found:
        what = ", ".join(dict.fromkeys(whole.entries[uid].kind for uid in whole.asked))
        raise PipelineError(
            f"{asked} is a {what}, and only a checkpoint (or a release or picture made of one) can be trained again"
        )
    if len(found) > 1:
        raise PipelineError(f"{asked} leads to {len(found)} checkpoints; name one by its file or hash")
    return next(iter(found.values()))


def _made_with(run: Entry) -> dict[str, Any]:
    """Libraries, device and base of the process that trained; empty if nobody wrote them down."""
    beside = {} if run.path is None else as_json(run.path / MADE_WITH)
    return beside or dict(next((making.environment for making in run.makings), {}))


def _job(store: Store, run: Entry, whole: Graph, scratch: Path) -> Job:
    """The run as it is on paper, its training set where it lies now."""
    if run.path is not None and (run.path / "job.json").is_file() and (run.path / "trained_on.parquet").is_file():
        job = Job.read(run.path / "job.json")
        beside = run.path.parents[2] / "encode"  # the data folder may have been moved since
        return job if job.training_set.is_dir() else replace(job, training_set=beside)
    told = next((making.settings for making in run.makings if making.settings), None)
    if told is None:
        raise PipelineError(
            f"run {run.id} cannot be trained again: its folder is gone, and the record does not have its settings; bring the folder back from a backup"
        )
    training_set = whole.entries[whole.parents[run.uid][0]]
    learnt = [whole.entries[uid] for uid in whole.parents.get(training_set.uid, ())]
    return set_up_again(run.digest, told, training_set.digest, _as_it_was(store, run, learnt), scratch)


def _as_it_was(store: Store, run: Entry, learnt: Sequence[Entry]) -> Manifest:
    """Of the training set as it stands, the examples that a run was trained on. Raises PipelineError, with names, if one is another now, or gone."""
    made = read(store.work(run.subject, "encode"))
    stands = {row.id: row for row in made.kept}
    wrong = [words for one in learnt if (words := _unlike(one, stands.get(one.id)))]
    if wrong or not learnt:
        now = as_json(made.folder / USED)
        changed = dict.fromkeys(line for one in learnt for line in _changed(one, now))
        raise PipelineError(
            f"run {run.id} cannot be trained again: its folder is gone, and {len(wrong)} of the {len(learnt)} examples that it was trained on are "
            f"not in the training set of {run.subject or 'a subject that was forgotten'} as they were. Bring back its photos, captions and settings "
            f"(or the folder, from a backup), materialize training_set, and ask again{_listed([*wrong, *changed])}"
        )
    ids = {one.id for one in learnt}
    return replace(made, rows=tuple(row for row in made.kept if row.id in ids))


def _unlike(one: Entry, row: Row | None) -> str:
    """What is not as it was of an example; empty if all is. Its key is the hash of all that it was made from."""
    if not one.id:
        return "one whose photo was forgotten"
    if row is None:
        return f"{one.id}: it is in the training set no more"
    if row.files["latents"].digest != one.digest:
        return f"{one.id}: its photo, or how it is cut, covered or encoded, is another"
    return "" if row.key in {making.key for making in one.makings} else f"{one.id}: its caption is another"


def _changed(one: Entry, now: Mapping[str, Any]) -> list[str]:
    """Settings of the training set that are not those of then, as `encode.resolution_px: it was 512, it is 768`."""
    then = next((making.settings for making in one.makings), {})
    return [
        f"{section}.{name}: it was {value}, it is {now.get(section, {}).get(name)}"
        for section, fields in then.items()
        for name, value in fields.items()
        if now.get(section, {}).get(name) != value
    ]


def _listed(lines: Sequence[str]) -> str:
    return "".join(f"\n  {one}" for one in lines[:20]) + (f"\n  and {len(lines) - 20} more" if len(lines) > 20 else "")


def _all_there(job: Job, run: Entry, then: Mapping[str, Any]) -> None:
    """Raise PipelineError, with names, if anything that the run was trained on is not what it was."""
    if gone := missing(job):
        raise PipelineError(
            f"run {run.id} cannot be trained again: {len(gone)} files of its training set are not what they were. Bring its photos and settings "
            f"back and materialize training_set, then ask again{_listed(gone)}"
        )
    base = family(job.base.family).digest(job.base, "denoiser")
    if then.get("base", base) != base:
        raise PipelineError(
            f"run {run.id} cannot be trained again: the base model {job.base.model} has other weights now (digest {then['base'][:16]} then, "
            f"{base[:16]} now)"
        )
    if run_key(job.examples, job.settings, job.base) != job.key:
        raise PipelineError(
            f"run {run.id} cannot be trained again as it was: the base model {job.base.model}, the words of its pictures, or the version of the "
            "training code, is another one now; install the version of lora_pipeline that trained it"
        )


def _refuse_others(store: Store, subject: Subject, job: Job) -> None:
    """Raise SubjectError if another subject, whose pictures stood beside these, has not agreed to that, or does not any more."""
    beside = {Example.of(row).photo for row in job.examples.kept}
    for name in sorted({photo.split("/")[1] for photo in beside if photo.startswith("pool/")}):
        other = load(store, name)
        if why := other.refuses_pool(subject) or consent.objection(other, "training"):
            raise SubjectError(f"pictures of {name} stood beside those of {subject.name}: {why}")


def _apart(then: Path, now: Path) -> tuple[float, float]:
    """The largest difference of two LoRA files' weights, and the largest weight. A tensor that only one of them has differs by all of itself."""
    import torch
    from safetensors.torch import load_file

    before: dict[str, Any] = load_file(then)
    after: dict[str, Any] = load_file(now)
    apart = largest = 0.0
    for name in before.keys() | after.keys():
        one = before[name] if name in before else torch.zeros_like(after[name])
        other = after[name] if name in after else torch.zeros_like(one)
        apart = max(apart, float((one.double() - other.double()).abs().max()))
        largest = max(largest, float(one.abs().max()), float(other.abs().max()))
    return apart, largest
