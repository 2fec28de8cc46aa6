"""Forgetting a photo, a person or a subject: what hangs on it, and then none of it any more.

What is derived goes: thumbnails, copies out of archives and libraries, crops, covered pictures, captions, latents, face descriptors.
Checkpoints and releases stay where they lie, since other photos are in them too, but are marked with `recalled.json`; those of a
whole subject go. `forgotten.txt` in the subject's folder keeps the photos out of the next run by their content. The person's own files
are never touched.
"""

import datetime
import json
import math
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lora_pipeline import lineage, people, recall, verdicts
from lora_pipeline.errors import PipelineError
from lora_pipeline.flow import REVIEW, STEPS
from lora_pipeline.lineage import made_from
from lora_pipeline.manifest import read, rewrite, write
from lora_pipeline.records import Example, Face, Row
from lora_pipeline.stages.collect import FORGOTTEN
from lora_pipeline.stages.crop import COVERAGE, decided_faces
from lora_pipeline.stages.describe.hand import written
from lora_pipeline.stages.grade import TRAINED
from lora_pipeline.stages.publish import copies
from lora_pipeline.store import Store, digest_file, write_text
from lora_pipeline.subject import FILE, load, names, unknown

LOG = "forgotten.jsonl"
TRAINED_ON = "trained_on"


@dataclass(frozen=True)
class Forgetting:
    """What would be forgotten, and what hangs on it.

    Args:
        subject: name.
        what: `photo`, `person` or `subject`.
        photos: id → SHA-256 of its file (empty if that cannot be known any more).
        originals: the person's own files, which stay.
        derived: asset's folder → how many rows of it are made of these photos.
        marked: folder → files in it that were trained on them, by name, with SHA-256. For a whole subject these go.
        beside: other subjects that they stood beside in training.
        drawn: how many validation pictures those checkpoints have drawn.
        copies: where released files were copied to: path or address → SHA-256.
        exports: where training pictures of them were written to, for other trainers.
        remarks: what the person should know, in sentences.
    """

    subject: str
    what: str
    photos: Mapping[str, str]
    originals: Sequence[str] = ()
    derived: Mapping[str, int] = field(default_factory=dict)
    marked: Mapping[Path, Mapping[str, str]] = field(default_factory=dict)
    beside: Sequence[str] = ()
    drawn: int = 0
    copies: Mapping[str, str] = field(default_factory=dict)
    exports: Sequence[str] = ()
    remarks: Sequence[str] = ()

    @property
    def to_recall(self) -> list[str]:
        """SHA-256 of every file that was trained on them, here or copied elsewhere."""
        there = [digest for files in self.marked.values() for digest in files.values()]
        return sorted({*there, *self.copies.values()})

    def lines(self) -> list[str]:
        """In words, for a terminal."""
        many = len(self.photos)
        told = [f"{self.subject}: {many} {'photo' if many == 1 else 'photos'} to forget"]
        told += [f"  {id}" for id in self.photos]
        rows = ", ".join(f"{count} in {folder}" for folder, count in self.derived.items())
        told += ["", f"removed: what was made of {'it' if many == 1 else 'them'} ({rows or 'nothing'})"]
        if self.what == "subject":
            told[-1] = (
                f"removed: all that was made of {self.subject} ({rows or 'nothing'}), its checkpoints and its release"
            )
        if self.marked:
            told += ["", "trained on it, so to be recalled wherever a copy is (name, SHA-256):"]
            told += [
                f"  {folder / name}  {digest}"
                for folder, files in self.marked.items()
                for name, digest in files.items()
            ]
            if self.what != "subject":
                told.append(
                    f"they stay, each folder with a {recall.RECALLED}, and so do {self.drawn} validation pictures drawn by them"
                )
        if self.copies:
            told += ["", "copies of them that you must remove yourself:", *(f"  {where}" for where in self.copies)]
        if self.exports:
            told += ["", "sets for other trainers that hold it, to be removed by you:"]
            told += [f"  {where}" for where in self.exports]
        if self.beside:
            told += ["", f"regularisation pictures of: {', '.join(self.beside)}"]
        if self.originals:
            told += ["", "your own files, which are not touched:", *(f"  {path}" for path in self.originals)]
        return [*told, *(f"\n{remark}" for remark in self.remarks)]


def plan(store: Store, subject: str, what: str = "") -> Forgetting:
    """What would be forgotten, and what hangs on it; changes nothing.

    Args:
        subject: its name.
        what: a photo (as in `lineage`), a face's id (`photo#n`), a name in `people.yaml`, or nothing for the whole subject.

    Raises:
        SubjectError: there is no such subject.
        PipelineError: there is no such photo, face or person; the message names what is nearest.
    """
    if not what:
        return _whole_subject(store, subject)
    person = _person(store, subject, what)
    if person is None:
        return _photos(store, subject, "photo", [made_from(store, subject, what).photo])
    remarks = [
        "No descriptor of the face is kept, so who comes again on another photo is a stranger, to be hidden, as before."
    ]
    unseen = [row.id for row in read(store.work(subject, "curate")).rows if row.state != "kept"]
    if unseen:
        remarks.append(
            f"On {len(unseen)} photos no face was looked for, since they are left out ({', '.join(unseen[:3])}"
            f"{', …' if len(unseen) > 3 else ''}): whether they show this person only you can see."
        )
    found = _photos(store, subject, "person", person)
    return replace(found, remarks=[*found.remarks, *remarks])


def carry_out(store: Store, forgetting: Forgetting, today: datetime.date) -> int:
    """Do it; returns how many files were removed. Done again after it was cut off, it goes on where it was.

    Raises PipelineError if a run is at work.
    """
    name, digests = forgetting.subject, {digest for digest in forgetting.photos.values() if digest}
    recall.keep_out(store.subject(name), digests, today)  # first: a run that begins now must not see them
    mine, removed = _work(store, name), 0
    for folder, files in forgetting.marked.items():
        if not (forgetting.what == "subject" and folder.is_relative_to(mine)):
            recall.call_back(folder, digests, files, today)
            _mark_release(folder, digests)
    _log(store, forgetting, digests, today)  # while runs can still be asked what they were trained on
    for other in _all_work(store):
        gone = _names(forgetting, mine=other == mine)
        _out_of_records(other, gone)
        if other != mine:
            removed += rewrite(other / "encode", lambda row, gone=gone: None if _is_of(row, gone) else row)
    whole = forgetting.what == "subject"
    removed += _whole_tree(mine) if whole else _out_of_the_stages(mine, forgetting, today)
    # Last: what still stands in a stage would be written down again.
    lineage.forgotten(store, digests, name if whole else "")
    return removed


def _log(store: Store, forgetting: Forgetting, digests: Collection[str], today: datetime.date) -> None:
    """A line of days, digests and counts: no picture, no name."""
    line = {
        "on": str(today),
        "what": forgetting.what,
        "photos": sorted(digests),
        "made_of_them": dict(forgetting.derived),
        "recall": forgetting.to_recall,
    }
    with (store.data / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _photos(store: Store, subject: str, what: str, ids: Collection[str]) -> Forgetting:
    """Photos, and their copies, which would else be trained on in their place."""
    mine = _work(store, subject)
    source = {row.id: row for row in read(mine / "collect").rows}
    wanted = _with_copies(mine, source, ids)
    descents = [made_from(store, subject, id) for id in wanted]
    checkpoints = {made.lora: made.run for descent in descents for made in descent.checkpoints}
    runs = set(checkpoints.values())
    trained = _trained_on(mine)
    photos = {id: str(source[id].data.get("digest", "")) if id in source else trained.get(id, "") for id in wanted}
    beside = {(other, run) for descent in descents for other, run in descent.beside}
    files = [*checkpoints, *(path for descent in descents for path in descent.released), *_runs_beside(store, beside)]
    remarks = [
        f"{id} is a copy of what you named, or the other way round, and would be trained on in its place."
        for id in wanted
        if id not in ids
    ]
    remarks += [
        f"{store.subject(subject) / file} speaks of {id} too: it is yours, take the line out there."
        for file, said in (
            (people.FILE, people.read(store.subject(subject)).decisions),
            (verdicts.FILE, verdicts.read(store.subject(subject))),
        )
        for id in wanted
        if any(id in (one, one.rpartition("#")[0]) for one in said)
    ]
    remarks += [
        f"{reference} is also the photo to know {subject} by: name another as reference in subject.yaml."
        for reference in load(store, subject).references
        if reference.is_file() and digest_file(reference) in photos.values()
    ]
    return Forgetting(
        subject,
        what,
        photos,
        [path for id in wanted for path in _own_files(store.subject(subject), id, source.get(id), mine)],
        _derived(mine, lambda row: _is_of(row, set(wanted))),
        _by_folder(files),
        sorted({other for other, _ in beside}),
        len({path for descent in descents for path in descent.grid}),
        _copied(mine, runs),
        [to for to, export in recall.exports(mine).items() if set(photos.values()) & set(export.photos)],
        remarks,
    )


def _whole_subject(store: Store, subject: str) -> Forgetting:
    mine = _work(store, subject)
    if subject not in names(store) and not mine.is_dir():
        raise unknown(store, subject)
    source = {row.id: str(row.data.get("digest", "")) for row in read(mine / "collect").rows}
    gone = {id: digest for id, digest in _trained_on(mine).items() if digest not in source.values()}
    photos = gone | {id: digest for id, digest in source.items() if digest}
    beside = {
        (other.name, run.name)
        for other in _all_work(store)
        if other != mine
        for run in _runs_with(other, f"pool/{subject}/")
    }
    mine_made = [*mine.glob("fit/runs/*/*.safetensors"), *mine.glob("publish/*.safetensors")]
    remarks = [
        f"Take the consent out of {store.subject(subject) / FILE} too, if it is withdrawn: then new photos are not trained on either."
    ]
    return Forgetting(
        subject,
        "subject",
        photos,
        [str(store.subject(subject))],
        _derived(mine, lambda _: True),
        _by_folder([*mine_made, *_runs_beside(store, beside)]),
        sorted({other for other, _ in beside}),
        len(read(mine / "grids").kept),
        _copied(mine),
        list(recall.exports(mine)),
        remarks,
    )


def _with_copies(mine: Path, source: Mapping[str, Row], ids: Collection[str]) -> list[str]:
    """Photos, those of equal content, and those that `curate` found to be near copies."""
    digest_of = {id: str(row.data.get("digest", "")) for id, row in source.items()}
    digests = {digest_of.get(id, "") for id in ids} - {""}
    same = {id for id, digest in digest_of.items() if digest in digests}
    best = {row.id: str(row.data.get("duplicates") or row.id) for row in read(mine / "curate").rows}
    groups = {best.get(id, id) for id in {*ids, *same}}
    return sorted({*ids, *same, *(id for id, one in best.items() if one in groups)})


def _person(store: Store, subject: str, what: str) -> list[str] | None:
    """Photos that show the person whose face or name it is; None if it is neither.

    Raises PipelineError if the face is the subject's own, or if the photo has no such face.
    """
    faces: dict[str, Face] = {}
    for photo, found in decided_faces(_work(store, subject) / "crop").items():
        faces |= zip(people.face_ids(photo, [face.box for face in found]), found, strict=True)
    said = people.read(store.subject(subject))
    named = [id for id in said.decisions if said.name(id) and said.name(id).casefold() == what.casefold()]
    asked = [what] if what in faces else named
    if not asked:
        photo = what.rpartition("#")[0]
        if there := ", ".join(sorted((id for id in faces if faces[id].photo == photo), key=lambda id: faces[id].box)):
            raise PipelineError(f"{photo} has no face {what}; its faces, counted from left to right: {there}")
        return None
    shown = [faces[id] for id in asked if id in faces]
    if any(face.whose == "subject" for face in shown):
        raise PipelineError(
            f"{what} is the face of {subject}: forget one photo by its name, or all with `lora-pipeline forget {subject}`"
        )
    near = load(store, subject).whole_settings().crop.same_person_distance
    alike = {
        face.photo
        for face in faces.values()
        if face.whose != "subject" and any(math.dist(face.descriptor, one.descriptor) <= near for one in shown)
    }
    return sorted(alike | {id.rpartition("#")[0] for id in asked})


def _work(store: Store, subject: str) -> Path:
    return store.work(subject, "collect").parent


def _all_work(store: Store) -> list[Path]:
    """The work folder of every subject that has one, also of those whose own folder is gone."""
    return sorted(path for path in (store.data / "work").glob("*") if path.is_dir() and not path.name.startswith("."))


def _own_files(folder: Path, id: str, row: Row | None, mine: Path) -> list[str]:
    """The person's files of a photo: itself, but for one out of an archive, a video or a server, and the caption that they wrote."""
    path = "" if row is None else str(row.data.get("path", ""))
    caption = written(folder / "captions", id)
    files = [] if not path or Path(path).is_relative_to(mine) else [path]
    return files if caption is None else [*files, str(caption.file)]


def _trained_on(mine: Path) -> dict[str, str]:
    """Every photo that a run which is kept was trained on → its SHA-256; regularisation pictures are other people's."""
    found = [
        Example.of(row)
        for file in mine.glob("fit/runs/*/trained_on.parquet")
        for row in read(file.parent, TRAINED_ON).kept
    ]
    return {one.photo: one.photo_digest for one in found if not one.regularisation}


def _runs_with(work: Path, begins: str) -> Iterable[Path]:
    """Folders of the runs that were trained on a picture of that beginning."""
    for file in sorted(work.glob("fit/runs/*/trained_on.parquet")):
        if any(Example.of(row).photo.startswith(begins) for row in read(file.parent, TRAINED_ON).kept):
            yield file.parent


def _runs_beside(store: Store, beside: Iterable[tuple[str, str]]) -> list[Path]:
    """Checkpoints of other subjects' runs, and what is released of them."""
    files: list[Path] = []
    for other, run in sorted(beside):
        files += sorted(store.work(other, "fit").glob(f"runs/{run[:16]}/*.safetensors"))
        released = read(store.work(other, "publish"))
        files += [
            released.path(row, role)
            for row in released.kept
            if str(row.data.get("run", "")).startswith(run[:16])
            for role in ("lora", "webui")
            if role in row.files
        ]
    return files


def _by_folder(files: Iterable[Path]) -> dict[Path, dict[str, str]]:
    found: dict[Path, dict[str, str]] = {}
    for file in files:
        found.setdefault(file.parent, {})[file.name] = digest_file(file)
    return found


def _copied(mine: Path, runs: Collection[str] | None = None) -> dict[str, str]:
    """Where released files of these runs, or of any, were copied to → their SHA-256."""
    return {one.to: one.sha256 for one in copies(mine / "publish") if runs is None or one.run in runs}


def _derived(mine: Path, is_of: Callable[[Row], bool]) -> dict[str, int]:
    nouns = {step.folder: step.noun for step in STEPS}
    counts = {noun: sum(is_of(row) for row in read(mine / stage).rows) for stage, noun in nouns.items()}
    return {noun: count for noun, count in counts.items() if count}


def _names(forgetting: Forgetting, mine: bool) -> set[str]:
    """What the photos are called in a subject's tables: their ids, or, beside another subject, with where they come from."""
    return set(forgetting.photos) if mine else {f"pool/{forgetting.subject}/{id}" for id in forgetting.photos}


def _is_of(row: Row, photos: Collection[str]) -> bool:
    """Whether a row is a photo, or made of one."""
    of = row.data.get("photo") or row.id.rpartition("@")[0]
    return row.id in photos or of in photos


def _out_of_the_stages(mine: Path, forgetting: Forgetting, today: datetime.date) -> int:
    gone, digests = set(forgetting.photos), set(forgetting.photos.values())

    def source(row: Row) -> Row:
        if (
            row.id in gone
        ):  # the file may be the person's own and stay: so the row does, and says why it goes no further
            digest = forgetting.photos[row.id]
            return Row(row.id, "", "dropped", f"{FORGOTTEN} on {today}", {"digest": digest} if digest else {})
        frames = {role: file for role, file in row.files.items() if file.digest not in digests}
        return replace(row, files=frames)  # a video's row names all of its frames

    coverage = mine / "crop" / COVERAGE  # the next run counts anew
    removed = int(coverage.exists())
    coverage.unlink(missing_ok=True)
    removed += _whole_tree(mine / REVIEW)  # the page cuts faces out anew; one that was killed has left copies
    # What the scores remember of a training picture: how it looks, in numbers.
    seen = gone | {f"{TRAINED}{id}" for id in gone}
    stages = sorted(path for path in mine.iterdir() if path.is_dir() and path.name != "collect")
    for stage in stages:
        names = seen if stage.name == "scores" else gone
        removed += rewrite(stage, lambda row, names=names: None if _is_of(row, names) else row)
    return removed + rewrite(
        mine / "collect", source
    )  # last: by these rows a forgetting that was cut off is found again


def _out_of_records(work: Path, gone: Collection[str]) -> None:
    """Take names and captions out of what runs remember of their training sets; that there was a photo, and its SHA-256, stays.

    The state of a run that was cut off goes: nothing can go on from it, since its training set is no more.
    """
    for file in work.glob("fit/runs/*/trained_on.parquet"):
        rows = read(file.parent, TRAINED_ON).rows
        known = sum("forgotten-" in row.id for row in rows)
        after = [_nameless(row, number) if _is_of(row, gone) else row for number, row in enumerate(rows, start=known)]
        if tuple(after) != rows:
            write(file.parent, after, TRAINED_ON)
            _whole_tree(file.parent / "state")


def _nameless(row: Row, number: int) -> Row:
    photo = str(row.data.get("photo") or row.id)
    where = "/".join(photo.split("/")[:2]) + "/" if photo.startswith("pool/") else ""
    name = f"{where}forgotten-{number:06d}"
    data = {"photo": name, "caption": ""}
    return replace(row, id=name, data={**row.data, **data}, files={})


def _mark_release(folder: Path, digests: Collection[str]) -> None:
    """Say on the card what is recalled, and take the photos' names out of the lineage record beside it, where an older one has them."""
    card, record, told = folder / "README.md", folder / "lineage.json", recall.recalled(folder)
    if card.exists() and told is not None:
        text = card.read_text(encoding="utf-8")
        if (banner := f"**This LoRA is {told.in_words()}. Do not use it, and remove every copy.**") not in text:
            head, _, rest = text.partition("\n---\n")
            write_text(card, f"{head}\n---\n\n{banner}\n{rest}" if rest else f"{banner}\n\n{text}")
    if record.exists():
        tree = json.loads(record.read_text(encoding="utf-8"))
        for photo in tree.get("photos", []):
            if photo.get("digest") in digests and "path" in photo:
                photo["path"] = ""
        write_text(record, json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _whole_tree(folder: Path) -> int:
    if not folder.exists():
        return 0
    count = sum(path.is_file() for path in folder.rglob("*"))
    shutil.rmtree(folder)
    return count
