"""subject.yaml: what is wrong is said in words, and what is written loads back."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lora_pipeline.cli import app
from lora_pipeline.errors import PipelineError, SettingsError, SubjectError
from lora_pipeline.store import Store, write_text
from lora_pipeline.subject import Immich, PhotoPrism, Subject, load, names, new

GOOD = """\
name: ann
kind: person
photos: photos
trigger: ohwx
class: woman
recipe: sd15_person
consent: {given_by: Ann, given_on: 2026-01-02, scope: pictures for the family}
settings:
  curate: {min_sharpness: 12}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def put(store: Store, text: str, name: str = "ann") -> None:
    write_text(store.subject(name) / "subject.yaml", text)


def test_what_stands_in_the_file(store: Store) -> None:
    put(store, GOOD)
    ann = load(store, "ann")
    assert (ann.name, ann.kind, ann.trigger, ann.class_word) == ("ann", "person", "ohwx", "woman")
    assert ann.photos == store.subject("ann") / "photos"
    assert ann.references == ()
    assert ann.consent is not None
    assert str(ann.consent.given_on) == "2026-01-02"
    assert ann.whole_settings().curate.min_sharpness == 12
    assert ann.fill("a photo of {trigger} {class}, {other}") == "a photo of ohwx woman, {other}"


def test_where_photos_and_reference_are(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(store, GOOD.replace("photos: photos", "photos: ~/pictures\nreference: me.jpg"))
    ann = load(store, "ann")
    assert ann.photos == tmp_path / "pictures"
    assert ann.references == (store.subject("ann") / "me.jpg",)
    put(store, GOOD.replace("photos: photos", "photos: ~/pictures\nreference: [me.jpg, ~/also.jpg]"))
    assert load(store, "ann").references == (store.subject("ann") / "me.jpg", tmp_path / "also.jpg")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (": [", "subject.yaml is not YAML"),
        ("- 1", "subject.yaml holds no settings"),
        ("", "subject.yaml holds no settings"),
        (GOOD.replace("trigger", "triger"), "there is no setting 'triger'; did you mean 'trigger'?"),
        (GOOD.replace("given_by", "given_bye"), "did you mean 'given_by'?"),
        (GOOD.replace("trigger: ohwx\n", ""), "trigger: Field required"),
        (
            GOOD.replace("kind: person", "kind: pest"),
            "kind: Input should be 'person', 'pet', 'product' or 'style' (given: 'pest')",
        ),
        (GOOD.replace("name: ann", "name: bob"), "says name: bob, but its folder is ann"),
        (GOOD.replace("name: ann", "name: Ann B"), "a name has small letters"),
        (GOOD.replace("2026-01-02", "yesterday"), "consent.given_on"),
    ],
)
def test_what_is_wrong_with_the_file_is_told_in_words(store: Store, text: str, words: str) -> None:
    put(store, text)
    with pytest.raises(SubjectError) as told:
        load(store, "ann")
    assert words in str(told.value)


def test_a_file_that_is_no_text(store: Store) -> None:
    put(store, "")
    (store.subject("ann") / "subject.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SubjectError, match="is not YAML"):
        load(store, "ann")


def test_a_subject_that_is_not_there(store: Store) -> None:
    with pytest.raises(SubjectError, match="there are: none yet"):
        load(store, "ann")
    put(store, GOOD)
    with pytest.raises(SubjectError, match="did you mean 'ann'"):
        load(store, "anna")


def test_wrong_settings_name_the_file(store: Store) -> None:
    put(store, GOOD.replace("min_sharpness", "min_sharp"))
    with pytest.raises(SettingsError, match=r"ann/subject.yaml: settings: .*did you mean 'min_sharpness'"):
        load(store, "ann").whole_settings()
    put(store, GOOD.replace("sd15_person", "sd15_pearson"))
    with pytest.raises(SettingsError, match="did you mean 'sd15_person'"):
        load(store, "ann").whole_settings()


def given(photos: Path | None, **changes: Any) -> Subject:
    tree = {
        "name": "ann",
        "kind": "person",
        "photos": photos,
        "trigger": "ohwx",
        "class": "woman",
        "recipe": "sd15_person",
    }
    consent = {"given_by": "Ann Ü", "given_on": "2026-01-02", "scope": "all"}
    return Subject.model_validate({**tree, "consent": consent, **changes})


def test_a_new_subject_loads_back(store: Store, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    subject = given(tmp_path / "pictures", settings={"curate": {"min_sharpness": 12}})
    file = new(store, subject)
    assert load(store, "ann") == subject
    assert names(store) == ["ann"]
    assert (file.parent / "captions").is_dir()
    assert "Ann Ü" in file.read_text(encoding="utf-8")


def test_a_new_subjects_photos_may_be_at_home(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    new(store, given(Path("~/pictures")))
    assert load(store, "ann").photos == tmp_path / "pictures"


def test_a_new_subject_that_is_wrong_writes_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for subject in (
        given(tmp_path / "nowhere"),
        given(tmp_path / "pictures", recipe="nothing"),
        given(tmp_path / "pictures", settings={"curate": {"min_sharpness": -1}}),
    ):
        with pytest.raises(PipelineError):
            new(store, subject)
    assert not store.subject("ann").exists()


def test_a_subject_is_never_overwritten(store: Store, tmp_path: Path) -> None:
    put(store, GOOD)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SubjectError, match="there is a subject 'ann' already"):
        new(store, given(tmp_path / "pictures"))
    assert (store.subject("ann") / "subject.yaml").read_text() == GOOD


LIBRARY = GOOD.replace(
    "photos: photos", "source: {photoprism: {person: Ann, database: index.db, originals: ~/o, sidecar: s}}"
)


def test_a_library_in_place_of_photos(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(store, LIBRARY)
    origin, folder = load(store, "ann").origin, store.subject("ann")
    assert isinstance(origin, PhotoPrism)
    assert (origin.database, origin.originals) == (str(folder / "index.db"), tmp_path / "o")
    assert (origin.sidecar, origin.password_env) == (folder / "s", "PHOTOPRISM_DATABASE_PASSWORD")
    put(store, LIBRARY.replace("index.db", "'mysql://me@host:3307/photoprism'"))
    origin = load(store, "ann").origin
    assert isinstance(origin, PhotoPrism)
    assert origin.database == "mysql://me@host:3307/photoprism"
    put(store, GOOD.replace("photos: photos", "source: {immich: {person: Ann, address: 'http://host:2283'}}"))
    assert load(store, "ann").origin == Immich(person="Ann", address="http://host:2283", key_env="IMMICH_API_KEY")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("photos: photos\n", ""), "say where the photos come from"),
        (
            LIBRARY + "photos: photos\n",
            "say where the photos come from: photos (a folder, a .zip or a video) or source",
        ),
        (LIBRARY.replace("photoprism:", "photoprsm:"), "there is no setting 'photoprsm'; did you mean 'photoprism'?"),
        (LIBRARY.replace("originals", "orginals"), "there is no setting 'orginals'; did you mean 'originals'?"),
        (LIBRARY.replace("source:", "sorce:"), "there is no setting 'sorce'; did you mean 'source'?"),
        (GOOD.replace("photos: photos", "source: {}"), "name one library: photoprism or immich"),
        (LIBRARY.replace("index.db", "'mysql://me:secret@host/photos'"), "leave the password out"),
        (LIBRARY.replace("index.db", "'postgres://me@host/photos'"), "write it as mysql://user@host:3306/photoprism"),
        (LIBRARY.replace("index.db", "'mysql://host/photos'"), "write it as mysql://user@host:3306/photoprism"),
        (GOOD.replace("photos: photos", "source: {immich: {person: Ann, address: host}}"), "source.immich.address"),
    ],
)
def test_a_source_that_is_wrong_is_told_in_words(store: Store, text: str, words: str) -> None:
    put(store, text)
    with pytest.raises(SubjectError) as told:
        load(store, "ann")
    assert words in str(told.value)
    assert "secret" not in str(told.value)


def test_a_new_subjects_photos_may_be_a_file_and_its_source_a_library(store: Store, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"")
    new(store, given(tmp_path / "photos.zip"))
    assert load(store, "ann").origin == tmp_path / "photos.zip"
    (store.subject("ann") / "subject.yaml").unlink()
    library = {"photoprism": {"person": "Ann", "database": "/index.db", "originals": "/originals"}}
    subject = given(None, source=library)
    new(store, subject)
    assert load(store, "ann") == subject


NEW = ["new", "ann", "--kind", "person", "--trigger", "jx265", "--class", "woman", "--recipe", "bundled_person"]
PRISM = ["--photoprism", "mysql://me@host/photoprism", "--person", "Ann"]


@pytest.mark.parametrize(
    ("flags", "origin", "secret"),
    [
        (["--photos", "{home}/o"], "{home}/o", ""),
        (
            ["--immich", "http://h:2283", "--person", "Ann"],
            Immich(person="Ann", address="http://h:2283"),
            "IMMICH_API_KEY",
        ),
        (
            [*PRISM, "--originals", "{home}/o"],
            PhotoPrism(person="Ann", database="mysql://me@host/photoprism", originals=Path("{home}/o")),
            "PHOTOPRISM_DATABASE_PASSWORD",
        ),
        (
            ["--photoprism", "index.db", "--person", "Ann", "--originals", "~/o", "--sidecar", "s"],
            PhotoPrism(person="Ann", database="{home}/index.db", originals=Path("{home}/o"), sidecar=Path("{home}/s")),
            "",
        ),
    ],
)
def test_flags_of_new_say_where_the_photos_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], origin: Any, secret: str
) -> None:
    (tmp_path / "o").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("IMMICH_API_KEY", "PHOTOPRISM_DATABASE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    words = [flag.replace("{home}", str(tmp_path)) for flag in flags]
    told = CliRunner().invoke(app, [*NEW, *words, "--home", str(tmp_path)], catch_exceptions=False).output
    made = load(Store(tmp_path / "data"), "ann").origin
    wanted = origin if isinstance(origin, str) else origin.model_dump_json()
    assert (str(made) if isinstance(made, Path) else made.model_dump_json()) == wanted.replace("{home}", str(tmp_path))
    assert ("Set the environment variable" in told) == bool(secret)
    assert secret in told


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "with one of --photos, --immich and --photoprism"),
        (["--photos", ".", *PRISM], "with one of --photos, --immich and --photoprism"),
        (["--photos", ".", "--person", "Ann"], "--person is a name in a library"),
        (
            ["--immich", "http://h", "--person", "Ann", "--originals", "."],
            "--originals and --sidecar go with --photoprism",
        ),
        (["--immich", "http://h"], "--person: say by which name"),
        (PRISM, "--originals: name PhotoPrism's originals folder"),
        (["--immich", "h", "--person", "Ann"], "source.immich.address"),
        (["--photoprism", "mysql://me:s3cret@host/p", "--person", "Ann", "--originals", "."], "leave the password out"),
    ],
)
def test_flags_of_new_that_do_not_go_together_are_told_in_words(tmp_path: Path, flags: list[str], words: str) -> None:
    told = CliRunner().invoke(app, [*NEW, *flags, "--home", str(tmp_path)])
    assert isinstance(told.exception, SettingsError)
    assert words in str(told.exception)
    assert "s3cret" not in str(told.exception)
    assert not (tmp_path / "data").exists()


def test_new_says_that_captions_beside_the_photos_are_not_read(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "b").mkdir(parents=True)
    for name in ("1.jpg", "1.txt", "b/2.png", "b/2.txt", "3.jpg", "notes.txt"):
        (photos / name).write_text("")
    made = [*NEW, "--photos", str(photos), "--home", str(tmp_path)]
    told = CliRunner().invoke(app, made, catch_exceptions=False).output
    assert f"Captions of 2 photos lie beside them (.txt) and are not read there: copy them to {tmp_path}" in told
