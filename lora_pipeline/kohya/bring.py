"""An import into the person's tree: a new subject, or new settings for one that is there."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from lora_pipeline.errors import SettingsError, SubjectError
from lora_pipeline.kohya.imported import Imported
from lora_pipeline.settings import sentences
from lora_pipeline.store import Store, write_text
from lora_pipeline.subject import FILE, Subject, load, new, settle


def recipe_there(store: Store, name: str) -> str:
    """The recipe of a subject that is there; empty if there is none. Raises SubjectError if its file is wrong."""
    return load(store, name).recipe if (store.subject(name) / FILE).exists() else ""


def bring(store: Store, found: Imported, name: str, given: Mapping[str, Any], change: bool) -> list[str]:
    """Write `subject.yaml` and captions by hand. A subject that is there keeps all but settings, and is changed only if asked.

    Args:
        found: what was read.
        name: the subject's.
        given: what the person says of a new subject, as in `Subject`; it wins over what was read.
        change: whether a subject that is there may be changed.

    Returns:
        What was done, a line each.

    Raises:
        SubjectError: there is such a subject and `change` is off, or a new one lacks its photos or words.
        SettingsError: the settings do not go together.
    """
    if (store.subject(name) / FILE).exists():
        lines = _changed(store, found, name, change)
    else:
        subject = _subject(found, name, given)
        lines = [f"made {new(store, subject)}"]
        if subject.kind == "person" and subject.consent is None:
            lines.append("No consent is recorded yet: fill in `consent` there. Without it nothing is trained.")
    return [*lines, *_captions(store, found, name), f"next: lora-pipeline run {name}"]


def _subject(found: Imported, name: str, given: Mapping[str, Any]) -> Subject:
    said = {key: value for key, value in given.items() if value}
    tree: dict[str, Any] = {"name": name, "kind": found.kind or "person", "recipe": found.recipe}
    read = {"photos": found.photos, "trigger": found.trigger, "class": found.class_word}
    tree |= {key: value for key, value in read.items() if value} | said
    missing = [f"--{key}" for key in ("photos", "trigger", "class") if key not in tree]
    if missing:
        raise SubjectError(
            f"there is no subject '{name}' yet, and {found.source} does not say all of one: add {', '.join(missing)}"
        )
    try:
        return Subject.model_validate({**tree, "settings": found.changes})
    except ValidationError as error:
        raise SettingsError(sentences(error)) from None


def _changed(store: Store, found: Imported, name: str, change: bool) -> list[str]:
    subject = load(store, name)
    before = subject.whole_settings()
    merged = {section: dict(fields) for section, fields in subject.settings.items()}
    for section, fields in found.changes.items():
        merged[section] = {**merged.get(section, {}), **fields}
    after = subject.model_copy(update={"settings": merged}).whole_settings()
    old, new_ = before.model_dump(), after.model_dump()
    told = [
        f"  {section}.{field}: {old[section][field]} → {new_[section][field]}"
        for section, fields in found.changes.items()
        for field in fields
        if old[section][field] != new_[section][field]
    ]
    file = store.subject(name) / FILE
    if not told:
        return [f"{file} already says all of it"]
    if not change:
        raise SubjectError(
            "\n".join(
                [f"there is a subject '{name}' already ({file}); nothing was changed. --change would change", *told]
            )
        )
    aside = settle(store, name, merged)
    lines = [f"changed {file}; as it was: {aside.name}", *told]
    if subject.recipe != found.recipe:
        lines.append(f"its recipe stays {subject.recipe}")
    return lines


def _captions(store: Store, found: Imported, name: str) -> list[str]:
    folder = store.subject(name) / "captions"
    kept: list[str] = []
    written = 0
    for file, text in found.captions.items():
        path = folder / file
        if not path.exists():
            write_text(path, text + "\n")
            written += 1
        elif path.read_text(encoding="utf-8", errors="replace").strip() != text:
            kept.append(file)
    lines = [f"wrote {written} captions into {folder}"] if written else []
    if kept:
        lines.append(f"kept {len(kept)} captions that are there and say otherwise: {', '.join(kept)}")
    return lines
