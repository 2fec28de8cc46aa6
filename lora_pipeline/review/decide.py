"""What a person decides, as plain files beside `subject.yaml`. The next run picks them up."""

from pathlib import Path

from lora_pipeline import people, subject, verdicts
from lora_pipeline.flow import Work
from lora_pipeline.stages.describe.hand import places
from lora_pipeline.store import write_text
from lora_pipeline.verdicts import Verdict


def photo(work: Work, id: str, verdict: Verdict | None) -> None:
    """Keep or drop a photo, or (None) leave it to what is measured."""
    verdicts.write(_folder(work), {id: verdict})


def face(work: Work, id: str, whose: str | None) -> None:
    """Say whose a face is, in the words of `people.yaml`, or (None) leave it to what is measured."""
    people.write(_folder(work), {id: whose})


def caption(work: Work, photo: str, text: str) -> Path:
    """Write a photo's caption by hand; all its pictures are trained with it. Returns the file."""
    file = caption_file(work, photo)
    write_text(file, " ".join(text.split()) + "\n")
    return file


def no_caption(work: Work, photo: str) -> None:
    """Leave a photo's caption to the captioner again."""
    caption_file(work, photo).unlink(missing_ok=True)


def caption_file(work: Work, photo: str) -> Path:
    """Where the caption by hand of a photo stands, or would."""
    there = places(_folder(work) / "captions", photo)
    return next((file for file in there if file.is_file()), there[0])


def epoch(work: Work, number: int | None) -> None:
    """Say which epoch is to be released (`grade.pick` in `subject.yaml`), or (None) leave it to the rule. Raises SubjectError if the file does not let that in."""
    subject.pick(work.store, work.subject.name, number)


def picked(work: Work) -> int:
    """Which epoch is to be released by a person's word as `subject.yaml` has it now; 0 is none. Raises SubjectError or SettingsError."""
    return subject.load(work.store, work.subject.name).whole_settings().grade.pick


def by_hand(work: Work) -> str:
    """What is decided by hand so far, in a sentence."""
    folder = _folder(work)
    counts = (
        (len(verdicts.read(folder)), "photo"),
        (len(people.read(folder).decisions), "face"),
        (len([*folder.glob("captions/**/*.txt")]), "caption"),
    )
    told = [f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts if count]
    if pick := picked(work):
        told.append(f"epoch {pick}")
    if not told:
        return "Nothing is decided by hand yet."
    return (
        f"Decided by hand: {', '.join(told)}. `lora-pipeline run {work.subject.name}`, or Materialize all, picks it up."
    )


def _folder(work: Work) -> Path:
    return work.store.subject(work.subject.name)
