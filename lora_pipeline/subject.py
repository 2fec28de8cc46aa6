"""`subject.yaml`: who or what is trained, from which photos, with whose consent, by which recipe, and what is changed in it."""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from pydantic import Field, ValidationError, field_validator

from lora_pipeline.errors import SubjectError
from lora_pipeline.recipes import recipe
from lora_pipeline.records import Kind
from lora_pipeline.settings import Section, Settings, sentences
from lora_pipeline.store import Store, write_text

FILE = "subject.yaml"
_HEAD = "# Who or what is trained. Keys: lora-pipeline settings; a caption by hand goes to captions/<photo>.txt\n"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Consent(Section):
    """A person's word that their photos may be used for this."""

    given_by: Annotated[
        str, Field(min_length=1, description="Who agreed: the person shown, or who may agree for them.")
    ]
    given_on: Annotated[datetime.date, Field(description="The day on which they agreed (YYYY-MM-DD).")]
    scope: Annotated[str, Field(min_length=1, description="What they agreed to, in a sentence.")]
    regularisation: Annotated[
        bool,
        Field(description="Whether they agreed that their pictures stand beside another subject's in its training."),
    ] = False


class Subject(Section):
    """What stands in `subject.yaml`."""

    name: Annotated[str, Field(description="The folder's name, and the partition's.")]
    kind: Annotated[Kind, Field(description="person, pet, product or style.")]
    photos: Annotated[
        Path, Field(description="Folder of photos, only ever read; a relative one is under the subject's folder.")
    ]
    trigger: Annotated[
        str, Field(min_length=1, description="Trigger word: the made-up word that will mean this subject.")
    ]
    class_word: Annotated[
        str,
        Field(
            alias="class", min_length=1, description="Class word: the common word for its like, such as woman or dog."
        ),
    ]
    recipe: Annotated[str, Field(description="Name of the recipe to start from.")]
    reference: Annotated[
        Path | None, Field(description="A photo that shows the subject alone, to know its face by.")
    ] = None
    consent: Annotated[
        Consent | None, Field(description="For a person: who agreed, when, to what. Without it nothing is trained.")
    ] = None
    settings: Annotated[
        dict[str, dict[str, Any]], Field(description="Changes to the recipe: section, field, value.")
    ] = {}

    @field_validator("name")
    @classmethod
    def _a_folder_name(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("a name has small letters, digits, - and _, at most 63, and starts with a letter or digit")
        return name

    def whole_settings(self) -> Settings:
        """The recipe's settings with this subject's changes. Raises SettingsError."""
        return recipe(self.recipe).changed(self.settings, f"{self.name}/{FILE}: settings")

    def refuses_pool(self, other: "Subject") -> str:
        """Why pictures of this subject may not be regularisation pictures of the other; empty if they may."""
        if self.trigger.casefold() == other.trigger.casefold():
            return f"it has the same trigger word, {self.trigger}"
        if self.consent is None:
            return "nobody's consent is recorded" if self.kind == "person" else ""
        if not self.consent.regularisation:
            return (
                f"the consent of {self.consent.given_by} is not recorded as covering it; if it does, set regularisation: true "
                f"under consent in {self.name}/{FILE}"
            )
        return ""

    def fill(self, prompt: str) -> str:
        """A prompt with {trigger} and {class} filled in."""
        return prompt.replace("{trigger}", self.trigger).replace("{class}", self.class_word)


def load(store: Store, name: str) -> Subject:
    """Read a subject. Raises SubjectError in words: missing, not YAML, a key misspelt, a name that is not the folder's."""
    folder = store.subject(name)
    file = folder / FILE
    if not file.exists():
        there = ", ".join(names(store)) or "none yet"
        raise SubjectError(
            f"there is no subject '{name}' ({file} is missing); there are: {there}. `lora-pipeline new {name} --photos FOLDER` makes one."
        )
    try:
        tree: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SubjectError(f"{file} is not YAML: {error}") from None
    if not isinstance(tree, dict):
        raise SubjectError(f"{file} holds no settings")
    try:
        subject = Subject.model_validate(cast(dict[str, Any], tree))
    except ValidationError as error:
        raise SubjectError(f"{file}: {sentences(error)}") from None
    if subject.name != name:
        raise SubjectError(f"{file} says name: {subject.name}, but its folder is {name}; make them equal")
    reference = None if subject.reference is None else folder / subject.reference.expanduser()
    return subject.model_copy(update={"photos": folder / subject.photos.expanduser(), "reference": reference})


def names(store: Store) -> list[str]:
    """Names of all subjects, sorted."""
    return sorted(file.parent.name for file in store.subjects.glob(f"*/{FILE}"))


def new(store: Store, subject: Subject) -> Path:
    """Write a new subject's `subject.yaml`. Raises SubjectError if there is one, if the photos are missing, or a setting is wrong."""
    folder = store.subject(subject.name)
    file = folder / FILE
    if file.exists():
        raise SubjectError(f"there is a subject '{subject.name}' already: {file}")
    if not (folder / subject.photos.expanduser()).is_dir():
        raise SubjectError(f"the photo folder {subject.photos} is not there")
    subject.whole_settings()
    tree = subject.model_dump(mode="json", by_alias=True)
    (folder / "captions").mkdir(parents=True, exist_ok=True)
    write_text(file, _HEAD + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    return file


def settle(store: Store, name: str, settings: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write other settings into a subject's `subject.yaml` and leave all else in it; returns where the file is kept as it was.

    The caller has made sure that they go together with its recipe.
    """
    file = store.subject(name) / FILE
    before = file.read_text(encoding="utf-8")
    aside = _free(file)
    write_text(aside, before)
    tree: dict[str, Any] = yaml.safe_load(before)
    tree["settings"] = {section: dict(fields) for section, fields in settings.items()}
    write_text(file, _HEAD + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    return aside


def _free(file: Path) -> Path:
    """A name beside a file that no file has yet."""
    number = 1
    while (aside := file.with_name(f"{file.stem}.before-{number}{file.suffix}")).exists():
        number += 1
    return aside
