"""`subject.yaml`: who or what is trained, from which photos, with whose consent, by which recipe, and what is changed in it."""

import datetime
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from lora_pipeline.errors import SubjectError
from lora_pipeline.one_value import with_value, without_value
from lora_pipeline.recipes import recipe
from lora_pipeline.records import Kind
from lora_pipeline.settings import Section, Settings, sentences
from lora_pipeline.store import Store, write_text

FILE = "subject.yaml"
_HEAD = "# Who or what is trained. Keys: lora-pipeline settings; a caption by hand goes to captions/<photo>.txt\n"
_PICK = ("settings", "grade", "pick")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


Use = Literal["training", "share_file", "share_pictures", "outside_services", "commercial"]
"""What a person can agree to; `consent.py` decides by it."""


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
    uses: Annotated[
        tuple[Use, ...],
        Field(
            description="What they agreed to: training, share_file (the LoRA given to others), share_pictures (pictures drawn with it "
            "shown to others), outside_services (photos sent to somebody else's computer), commercial (use for money)."
        ),
    ] = ("training",)
    until: Annotated[
        datetime.date | None,
        Field(description="The last day on which it holds (YYYY-MM-DD); none: until it is withdrawn."),
    ] = None
    document: Annotated[
        Path | None,
        Field(description="The paper or file that they signed; a relative path is under the subject's folder."),
    ] = None
    document_sha256: Annotated[
        str,
        Field(
            pattern=r"^([0-9a-f]{64})?$",
            description="SHA-256 of the document, as `sha256sum` prints it (64 hexadecimal digits): if the document changes, the consent stops counting.",
        ),
    ] = ""

    @model_validator(mode="after")
    def _a_hash_of_something(self) -> Self:
        if self.document_sha256 and self.document is None:
            raise ValueError("document_sha256 is the hash of a document: name that too, as document")
        return self


class PhotoPrism(Section):
    """A PhotoPrism library, of which only the index and the files are read."""

    person: Annotated[
        str, Field(min_length=1, description="The subject's name (or alias) in PhotoPrism, under People.")
    ]
    database: Annotated[
        str,
        Field(
            min_length=1,
            description="PhotoPrism's index: the file index.db, or mysql://user@host:3306/photoprism without the password.",
        ),
    ]
    originals: Annotated[Path, Field(description="PhotoPrism's originals folder, as seen from this machine.")]
    sidecar: Annotated[
        Path | None,
        Field(description="PhotoPrism's side-car folder, where it keeps JPEGs made of HEIC, raw and video files."),
    ] = None
    password_env: Annotated[
        str,
        Field(min_length=1, description="Name of the environment variable that holds the database user's password."),
    ] = "PHOTOPRISM_DATABASE_PASSWORD"

    @model_validator(mode="after")
    def _a_server_or_a_file(self) -> Self:
        if "://" not in self.database:
            return self
        # Not a field's validator: pydantic's message would hold the field, and so the password.
        address = urlsplit(self.database)
        if address.password:
            raise ValueError(
                "database: leave the password out: it is read from the environment variable that password_env names"
            )
        if (
            address.scheme not in {"mysql", "mariadb"}
            or not address.hostname
            or not address.username
            or not address.path
        ):
            raise ValueError("database: write it as mysql://user@host:3306/photoprism, or name the file index.db")
        return self

    @property
    def secret_env(self) -> str:
        """The environment variable that must be set to read it; none for the file index.db."""
        return self.password_env if "://" in self.database else ""

    def placed(self, folder: Path) -> Self:
        """With relative paths made absolute, under the subject's folder."""
        sidecar = None if self.sidecar is None else folder / self.sidecar.expanduser()
        file = self.database if "://" in self.database else str(folder / Path(self.database).expanduser())
        return self.model_copy(
            update={"originals": folder / self.originals.expanduser(), "sidecar": sidecar, "database": file}
        )


class Immich(Section):
    """An Immich server, of which only people, faces and originals are asked for."""

    person: Annotated[str, Field(min_length=1, description="The subject's name in Immich, under People.")]
    address: Annotated[
        str, Field(pattern=r"^https?://.+", description="The server's address, such as http://192.168.1.5:2283.")
    ]
    key_env: Annotated[
        str, Field(min_length=1, description="Name of the environment variable that holds an API key of the server's.")
    ] = "IMMICH_API_KEY"

    @property
    def secret_env(self) -> str:
        """The environment variable that must be set to ask it."""
        return self.key_env


class Source(Section):
    """A photo library in which the subject's face is named, in place of a folder: one of these."""

    photoprism: Annotated[PhotoPrism | None, Field(description="A PhotoPrism library.")] = None
    immich: Annotated[Immich | None, Field(description="An Immich server.")] = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.photoprism is None) == (self.immich is None):
            raise ValueError("name one library: photoprism or immich")
        return self


Origin = Path | PhotoPrism | Immich
"""Where photos come from; a path is that of a folder, a zip or a video."""


class Subject(Section):
    """What stands in `subject.yaml`."""

    name: Annotated[str, Field(description="The folder's name, and the partition's.")]
    kind: Annotated[Kind, Field(description="person, pet, product or style.")]
    photos: Annotated[
        Path | None,
        Field(
            description="Folder of photos and videos, a .zip of one, or a video; only ever read. A relative one is under the subject's folder."
        ),
    ] = None
    source: Annotated[
        Source | None, Field(description="In place of photos: a library in which the subject's face is named.")
    ] = None
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
        Path | tuple[Path, ...] | None,
        Field(description="A photo that shows the subject alone, to know its face by, or a list of such photos."),
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

    @model_validator(mode="after")
    def _photos_from_somewhere(self) -> Self:
        if (self.photos is None) == (self.source is None):
            raise ValueError(
                "say where the photos come from: photos (a folder, a .zip or a video) or source, one of them"
            )
        return self

    @property
    def origin(self) -> Origin:
        """Where the photos come from."""
        library = self.source and (self.source.photoprism or self.source.immich)
        origin = library or self.photos
        assert origin is not None  # by _photos_from_somewhere and _one_of_them
        return origin

    @property
    def references(self) -> tuple[Path, ...]:
        """The reference photos, none or more."""
        return (self.reference,) if isinstance(self.reference, Path) else self.reference or ()

    def placed(self, folder: Path) -> Self:
        """With relative paths made absolute, under the subject's folder."""
        changes: dict[str, object] = {}
        if self.photos is not None:
            changes["photos"] = folder / self.photos.expanduser()
        if self.reference is not None:
            changes["reference"] = tuple(folder / path.expanduser() for path in self.references)
        if self.source is not None and self.source.photoprism is not None:
            library = self.source.photoprism.placed(folder)
            changes["source"] = self.source.model_copy(update={"photoprism": library})
        if self.consent is not None and self.consent.document is not None:
            document = folder / self.consent.document.expanduser()
            changes["consent"] = self.consent.model_copy(update={"document": document})
        return self.model_copy(update=changes)

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
        raise unknown(store, name)
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
    return subject.placed(folder)


def names(store: Store) -> list[str]:
    """Names of all subjects, sorted."""
    return sorted(file.parent.name for file in store.subjects.glob(f"*/{FILE}"))


def unknown(store: Store, name: str) -> SubjectError:
    """That there is no such subject, with the nearest name."""
    there = names(store)
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(there) or 'none yet'}."
    missing = store.subject(name) / FILE
    return SubjectError(
        f"there is no subject '{name}' ({missing} is missing); {hint} `lora-pipeline new {name} --photos FOLDER` makes one."
    )


def new(store: Store, subject: Subject) -> Path:
    """Write a new subject's `subject.yaml`. Raises SubjectError if there is one, if the photos are missing, or a setting is wrong."""
    folder = store.subject(subject.name)
    file = folder / FILE
    if file.exists():
        raise SubjectError(f"there is a subject '{subject.name}' already: {file}")
    if isinstance(origin := subject.placed(folder).origin, Path) and not origin.exists():
        raise SubjectError(f"the photos {origin} are not there; name a folder, a .zip or a video that is")
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


def pick(store: Store, name: str, epoch: int | None) -> None:
    """Write into a subject's `subject.yaml` which epoch a person picks (`grade.pick`), or (None) take that out; all else in it stays to the letter.

    Raises SubjectError, and leaves the file alone, if it cannot be read, or is written so that this cannot be put in.
    """
    load(store, name)
    file = store.subject(name) / FILE
    before = file.read_text(encoding="utf-8")
    try:
        after = without_value(before, _PICK) if epoch is None else with_value(before, _PICK, epoch)
        whole = yaml.safe_load(after) == _picked(yaml.safe_load(before), epoch)
    except (ValueError, yaml.YAMLError):
        after, whole = before, False
    if not whole:
        raise SubjectError(
            f"{file} is written in a way that a pick cannot be put into; write it by hand, under settings, grade: pick: {epoch or 0}"
        )
    write_text(file, after)


def _picked(tree: dict[str, Any], epoch: int | None) -> dict[str, Any]:
    """A whole `subject.yaml` with that pick. A tree of its own, since an alias (YAML's *) may hold one mapping in two places."""
    sections: dict[str, dict[str, Any]] = tree.get("settings", {})
    others = {key: value for key, value in sections.get("grade", {}).items() if key != "pick"}
    if epoch is not None:
        return {**tree, "settings": {**sections, "grade": {**others, "pick": epoch}}}
    return {**tree, "settings": {**sections, "grade": others}} if "grade" in sections else tree


def _free(file: Path) -> Path:
    """A name beside a file that no file has yet."""
    number = 1
    while (aside := file.with_name(f"{file.stem}.before-{number}{file.suffix}")).exists():
        number += 1
    return aside
