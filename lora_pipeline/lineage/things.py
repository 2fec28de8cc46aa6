"""What the stages leave, as things that are made of one another: photo → crop → picture → caption → example → training set → run →
checkpoint → sample, grid picture → score → release.

A thing is known by what it is **and** by what it was made of (`uid`): the same caption, written for a photo that was replaced since, is another
thing, so that no checkpoint is ever said to be made of a photo that it never saw.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from lora_pipeline.manifest import Manifest, key_of, read
from lora_pipeline.records import Example, Row, Value
from lora_pipeline.store import digest_bytes

Kind = Literal[
    "photo",
    "regularisation picture",
    "crop",
    "picture",
    "caption",
    "example",
    "training set",
    "run",
    "checkpoint",
    "sample",
    "grid picture",
    "score",
    "release",
]
# Of `grade`: its table of the pictures that were judged, what the ids of those drawn begin with, and what is told of a score.
_LOOKED_AT, _DRAWN = "looks", "drawn/"
_SAID = {
    "epoch",
    "chosen",
    "runner_up",
    "picked",
    "reason",
    "vetoes",
    "advice",
    "identity_distance",
    "picture_distance",
}
RANK: dict[str, int] = {kind: number for number, kind in enumerate(Kind.__args__)}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Thing:
    """Something that was made, or a photo.

    Args:
        kind: see above. A `picture` is a crop with strangers hidden; an `example`, a picture and its caption, encoded; a `score`, what was
            said of an epoch, and whether it is the one to release.
        subject: whose.
        id: what its stage calls it.
        digest: SHA-256 of its file; of a caption, of its words; of a training set, of its manifest; of a run, its key; of a score, of all that it says.
        parents: uids of what it was made of.
        path: of its file; None if it has none, or if that is not known here.
        key: of the row that told of it: another key is another making of the same thing.
        facts: what else is worth knowing of it; JSON values.
        photo: digest of the photo that it shows, if it shows one.
    """

    kind: Kind
    subject: str
    id: str
    digest: str
    parents: tuple[str, ...] = ()
    path: Path | None = None
    key: str = ""
    facts: Mapping[str, Value] = field(default_factory=dict)
    photo: str = ""

    @cached_property
    def uid(self) -> str:
        """SHA-256 over kind, subject, id, digest and the parents' uids."""
        return key_of(self.kind, self.subject, self.id, self.digest, sorted(self.parents))


@dataclass(frozen=True)
class Known:
    """What is in the record already, for new things to be made of.

    Args:
        subject: whose rows are read.
        standing: the thing of that kind and id that stands now.
        of_key: the example of that id and row key, also if it was replaced long ago.
        of_digest: the checkpoint of that digest.
        of_run: the run of that key.
    """

    subject: str
    standing: Callable[[Kind, str], Thing | None]
    of_key: Callable[[str, str], str | None]
    of_digest: Callable[[str], str | None]
    of_run: Callable[[str], str | None]

    def shown(self, kind: Kind, id: str, photo: str, digest: str) -> Iterator[Thing]:
        """What something of that id was made of: what stands, if it is of the same photo as it was then; else the photo itself."""
        there = self.standing(kind, id)
        if there is not None and digest in {"", there.photo}:
            yield there
        elif digest:
            yield _photo(self.subject, photo, digest)


def _photo(subject: str, id: str, digest: str) -> Thing:
    return Thing("photo", subject, id, digest, photo=digest)


def _text(row: Row, name: str) -> str:
    return str(row.data.get(name) or "")


def photos(made: Manifest, known: Known) -> Iterator[Thing]:
    """Of `collect`."""
    for row in made.kept:
        digest = _text(row, "digest")
        yield Thing("photo", known.subject, row.id, digest, path=Path(_text(row, "path")), key=row.key, photo=digest)


def crops(made: Manifest, known: Known) -> Iterator[Thing]:
    """Of `crop`."""
    for row in made.kept:
        photo, digest = _text(row, "photo"), _text(row, "photo_digest")
        parent = _photo(known.subject, photo, digest)
        yield parent
        file, facts = row.files["picture"], {"framing": row.data.get("framing")}
        yield Thing(
            "crop", known.subject, row.id, file.digest, (parent.uid,), made.path(row), row.key, facts, photo=digest
        )


def pictures(made: Manifest, known: Known) -> Iterator[Thing]:
    """Of `conceal`."""
    for row in made.kept:
        digest = _text(row, "photo_digest")
        of = list(known.shown("crop", row.id, _text(row, "photo"), digest))
        yield from of
        facts = {"framing": row.data.get("framing"), "faces hidden": row.data.get("hidden")}
        parents = tuple(one.uid for one in of)
        file = row.files["picture"]
        yield Thing(
            "picture", known.subject, row.id, file.digest, parents, made.path(row), row.key, facts, photo=digest
        )


def captions(made: Manifest, known: Known) -> Iterator[Thing]:
    """Of `describe`."""
    for row in made.kept:
        of = known.standing("picture", row.id)
        text = _text(row, "text")
        facts = {"text": text, "source": row.data.get("source")}
        parents = () if of is None else (of.uid,)
        photo = "" if of is None else of.photo
        digest = digest_bytes(text.encode())
        yield Thing("caption", known.subject, row.id, digest, parents, key=row.key, facts=facts, photo=photo)


def training_set(made: Manifest, known: Known) -> Iterator[Thing]:
    """Of `encode`: each example, and all of them together."""
    examples: list[Thing] = []
    for row in made.kept:
        of = list(_of_example(row, known))
        yield from of
        examples.append(_example(made, row, tuple(one.uid for one in of), known))
    yield from examples
    if examples:
        yield _together(made.digest, [one.uid for one in examples], made.folder / "manifest.parquet", known)


def _of_example(row: Row, known: Known) -> Iterator[Thing]:
    example = Example.of(row)
    if example.regularisation:
        yield _beside(example, known.subject)
        return
    yield from known.shown("picture", row.id, example.photo, example.photo_digest)
    caption = known.standing("caption", row.id)
    if caption is not None and caption.photo == example.photo_digest:
        yield caption


def _beside(example: Example, subject: str) -> Thing:
    """What a regularisation picture is of: another subject's photo, a file of a folder, or a picture that the base drew."""
    whose, _, rest = example.photo.partition("/")
    other, _, photo = rest.partition("/")
    if whose == "pool" and photo:
        return _photo(other, photo, example.photo_digest)
    return Thing("regularisation picture", subject, example.photo, example.photo_digest, photo=example.photo_digest)


def _example(made: Manifest, row: Row, parents: tuple[str, ...], known: Known) -> Thing:
    example = Example.of(row)
    file = row.files.get("latents")  # none, if its photo was forgotten since
    facts = {"repeats": example.repeats, "hidden": example.hidden, "regularisation": example.regularisation}
    return Thing(
        "example",
        known.subject,
        row.id,
        file.digest if file else row.key,
        parents,
        made.folder / file.path if file else None,
        row.key,
        facts,
        example.photo_digest,
    )


def _together(digest: str, examples: list[str], path: Path, known: Known) -> Thing:
    facts = {"pictures": len(examples)}
    return Thing("training set", known.subject, digest[:16], digest, tuple(examples), path, digest, facts)


def run(folder: Path, known: Known) -> Iterator[Thing]:
    """Of one of `fit`'s runs: its training set as it was, itself, and its checkpoints and samples, also those that are gone.

    Once a run is known, its training set is not read again: names of photos that were forgotten since may have gone from it.
    """
    job = as_json(folder / "job.json")
    key = str(job.get("key") or folder.name)
    fit, base = cast(dict[str, Any], job.get("settings", {})), cast(dict[str, Any], job.get("base", {}))
    uid = known.of_run(key)
    if uid is None:
        *before, together = _trained_on(folder, str(job.get("trained_on", "")), known)
        facts: dict[str, Value] = {"epochs": fit.get("epochs"), "seed": fit.get("seed"), "base": base.get("model")}
        own = Thing("run", known.subject, folder.name, key, (together.uid,), folder, key, facts)
        yield from (*before, together, own)
        uid = own.uid
    for told in epochs_told(folder):
        file, sample = str(told["file"]), str(told.get("sample") or "")
        epoch, facts = f"epoch {told['epoch']}", {"epoch": told["epoch"]}
        checkpoint = Thing("checkpoint", known.subject, epoch, told["lora"], (uid,), folder / file, key, facts)
        yield checkpoint
        if sample in told["digests"]:
            drawn, facts = told["digests"][sample], {"seed": fit.get("seed")}
            yield Thing("sample", known.subject, sample, drawn, (checkpoint.uid,), folder / sample, key, facts)


def _trained_on(folder: Path, digest: str, known: Known) -> Iterator[Thing]:
    """A run's training set, which comes last, and such of its examples as the record does not have."""
    made = Manifest(folder.parents[2] / "encode", read(folder, "trained_on").rows)
    examples: list[str] = []
    for row in made.kept:
        uid = known.of_key(row.id, row.key)
        if uid is None:  # of before there was a record: it is known which photo it shows, and not through what crop
            one = Example.of(row)
            of = (
                _beside(one, known.subject)
                if one.regularisation
                else _photo(known.subject, one.photo, one.photo_digest)
            )
            example = _example(made, row, (of.uid,), known)
            yield from (of, example)
            uid = example.uid
        examples.append(uid)
    yield _together(digest or made.digest, examples, folder / "trained_on.parquet", known)


def epochs_told(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's `epochs.jsonl`, up to the one that was being written when the run was killed, each with the digest of its `lora`."""
    file = run / "epochs.jsonl"
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        try:
            told: dict[str, Any] = json.loads(line)
            whole = {**told, "epoch": int(told["epoch"]), "lora": told["digests"][told["file"]]}
        except (ValueError, KeyError, TypeError):
            return
        yield whole


def grid_pictures(made: Manifest, known: Known) -> Iterator[Thing]:
    """Of `grade`. A picture of the base model alone is made of nothing."""
    for row in made.kept:
        if "picture" not in row.files:
            continue
        of = known.of_digest(_text(row, "checkpoint"))
        facts = {name: value for name, value in row.data.items() if name != "checkpoint"}
        parents = () if of is None else (of,)
        file = row.files["picture"]
        yield Thing("grid picture", known.subject, row.id, file.digest, parents, made.path(row), row.key, facts)


def scores(made: Manifest, known: Known) -> Iterator[Thing]:
    """Of `grade`: what was said of each epoch, made of the pictures that were looked at. What is said of the base model is of no checkpoint."""
    looked_at = [row.id.removeprefix(_DRAWN) for row in read(made.folder, _LOOKED_AT).kept if row.id.startswith(_DRAWN)]
    pictures = [one for id in looked_at if (one := known.standing("grid picture", id)) is not None]
    for row in made.kept:
        epoch = int(row.id)
        mine = [one for one in pictures if one.id.startswith(f"e{epoch:04d}/")]
        checkpoints = {uid: None for one in mine for uid in one.parents}
        if not checkpoints:
            continue
        facts = {name: value for name, value in row.data.items() if name in _SAID}
        parents = (*checkpoints, *(one.uid for one in mine))
        yield Thing("score", known.subject, f"epoch {epoch}", key_of(dict(row.data)), parents, key=row.key, facts=facts)


def releases(made: Manifest, known: Known) -> Iterator[Thing]:
    """Of `publish`: each file, made of a checkpoint and of what was said for it."""
    for row in made.kept:
        of = known.of_digest(_text(row, "checkpoint"))
        said = known.standing("score", f"epoch {row.data.get('epoch')}")
        facts: dict[str, Value] = {"epoch": row.data.get("epoch"), "precision": row.data.get("precision")}
        for role, file in row.files.items():
            parents = () if of is None else (of,)
            if said is not None and of in said.parents:  # else it was said of another run's epoch of that number
                parents = (*parents, said.uid)
            yield Thing("release", known.subject, role, file.digest, parents, made.folder / file.path, row.key, facts)


def as_json(file: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if it is not there or damaged."""
    try:
        return cast(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
