"""What starts runs by itself: one run a change, none for what is still being written, none twice for the same content."""

import datetime
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from lora_pipeline import subject
from lora_pipeline.assets import sensors
from lora_pipeline.assets.resources import House
from lora_pipeline.assets.sensors import nightly, photos_changed, subject_folders, watched
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def photos(store: Store) -> Path:
    photos = store.subject("mug") / "photos"
    photos.mkdir(parents=True)
    photo(photos / "a.png", "red")
    subject.new(
        store,
        Subject.model_validate(
            {
                "name": "mug",
                "kind": "product",
                "photos": "photos",
                "trigger": "zx1",
                "class": "mug",
                "recipe": "bundled_pet",
            }
        ),
    )
    return photos


def photo(path: Path, colour: str) -> None:
    Image.new("RGB", (32, 32), colour).save(path)


class Ticks:
    """The sensor, tick after tick, with its cursor."""

    def __init__(self, instance: dg.DagsterInstance, store: Store) -> None:
        self.instance, self.store, self.cursor = instance, store, None
        self.told: str | None = None

    def tick(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"house": House(data=str(self.store.data))}
        )
        result = photos_changed(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.told = (
            result.skip_reason.skip_message if isinstance(result.skip_reason, dg.SkipReason) else result.skip_reason
        )
        return list(result.run_requests or [])


@pytest.fixture
def ticks(instance: dg.DagsterInstance, store: Store, photos: Path) -> Ticks:
    return Ticks(instance, store)


def test_a_change_starts_one_run_when_it_is_quiet(ticks: Ticks, photos: Path) -> None:
    assert ticks.tick() == []  # first sight: is it still being written?
    (first,) = ticks.tick()
    assert first.partition_key == "mug"
    assert ticks.tick() == []  # never two for the same content

    photo(photos / "b.png", "blue")
    assert ticks.tick() == []
    (second,) = ticks.tick()
    assert second.run_key != first.run_key

    (photos / "b.png").unlink()
    assert ticks.tick() == []
    (third,) = ticks.tick()  # the old content again, after another: a change all the same
    assert third.run_key not in {first.run_key, second.run_key}


def test_a_file_that_grows_waits(ticks: Ticks, photos: Path) -> None:
    ticks.tick(), ticks.tick()
    with (photos / "big.jpg").open("wb") as growing:
        for _ in range(3):
            growing.write(os.urandom(100))
            growing.flush()
            assert ticks.tick() == []
    assert len(ticks.tick()) == 1


def test_half_downloaded_files_and_mere_touches_start_nothing(ticks: Ticks, photos: Path) -> None:
    ticks.tick(), ticks.tick()
    for name in ("c.jpg.part", "c.jpg.crdownload", "c.tmp", ".c.jpg"):
        (photos / name).write_bytes(b"half")
    assert [*ticks.tick(), *ticks.tick()] == []
    os.utime(photos / "a.png", (1, 1))
    assert [*ticks.tick(), *ticks.tick()] == []


def test_a_caption_by_hand_is_a_change(ticks: Ticks, store: Store) -> None:
    ticks.tick(), ticks.tick()
    (store.subject("mug") / "captions" / "a.txt").write_text("zx1 mug on a table")
    ticks.tick()
    assert len(ticks.tick()) == 1


def test_a_broken_subject_does_not_stop_the_others(ticks: Ticks, store: Store) -> None:
    (store.subject("broken")).mkdir()
    (store.subject("broken") / "subject.yaml").write_text("name: broken\nkindd: pet\n")
    ticks.tick()
    assert [request.partition_key for request in ticks.tick()] == ["mug"]


def test_the_cursor_is_small_and_forgets_who_is_gone(ticks: Ticks, store: Store, photos: Path) -> None:
    ticks.tick(), ticks.tick()
    assert set(json.loads(ticks.cursor or "")) == {"mug"}
    (store.subject("mug") / "subject.yaml").unlink()
    ticks.tick()
    assert json.loads(ticks.cursor or "") == {}


def test_a_new_folder_becomes_a_partition(instance: dg.DagsterInstance, store: Store, photos: Path) -> None:
    resources = {"house": House(data=str(store.data))}
    subject_folders(dg.build_sensor_context(instance=instance, resources=resources))
    assert instance.get_dynamic_partitions("subject") == ["mug"]


def test_the_night_takes_what_is_not_up_to_date(instance: dg.DagsterInstance, store: Store, photos: Path) -> None:
    context = dg.build_schedule_context(
        instance=instance,
        resources={"house": House(data=str(store.data))},
        scheduled_execution_time=datetime.datetime(2026, 1, 1, 2, tzinfo=datetime.UTC),
    )
    (request,) = list(nightly(context))  # type: ignore[arg-type]
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "mug"


def test_a_zip_is_watched_as_a_file_and_of_a_library_there_is_none(store: Store, tmp_path: Path) -> None:
    given = {"name": "cup", "kind": "product", "trigger": "zx1", "class": "cup", "recipe": "bundled_pet"}
    (tmp_path / "cup.zip").write_bytes(b"a zip, some day")
    file = subject.new(store, Subject.model_validate({**given, "photos": tmp_path / "cup.zip"}))
    assert watched(store, "cup") == sorted([tmp_path / "cup.zip", file])
    file.unlink()
    library = {"photoprism": {"person": "cup", "database": str(tmp_path / "index.db"), "originals": str(tmp_path)}}
    subject.new(store, Subject.model_validate({**given, "source": library}))
    assert watched(store, "cup") == [file]


class Library:
    """PhotoPrism's index, in a file, with a marker of the subject's on each photo."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "index.db"
        self.write(
            """
            CREATE TABLE subjects (subj_uid, subj_name, subj_alias, subj_type, deleted_at);
            CREATE TABLE photos (id, photo_private, deleted_at);
            CREATE TABLE files (photo_id, file_uid, file_hash, file_name, file_root, file_missing, deleted_at);
            CREATE TABLE markers (marker_uid, file_uid, marker_type, marker_invalid, subj_uid, x, y, w, h);
            INSERT INTO subjects VALUES ('j1', 'Ann', '', 'person', NULL);
            """
        )

    def write(self, script: str) -> None:
        with closing(sqlite3.connect(self.file, isolation_level=None)) as index:
            index.executescript(script)

    def photo(self, number: int) -> None:
        photo(self.file.parent / f"{number}.png", "red")
        self.write(
            f"""
            INSERT INTO photos VALUES ({number}, 0, NULL);
            INSERT INTO files VALUES ({number}, 'f{number}', 'h{number}', '{number}.png', '/', 0, NULL);
            INSERT INTO markers VALUES ('m{number}', 'f{number}', 'face', 0, 'j1', 0.1, 0.1, 0.2, 0.2);
            """
        )


def subject_of(store: Store, name: str, **source: object) -> None:
    tree = {"name": name, "kind": "product", "trigger": "zx1", "class": "cup", "recipe": "bundled_pet"}
    subject.new(store, Subject.model_validate({**tree, "source": source}))


@pytest.fixture
def library(store: Store, tmp_path: Path) -> Library:
    library = Library(tmp_path)
    library.photo(1)
    database = {"person": "Ann", "database": str(library.file), "originals": str(tmp_path)}
    subject_of(store, "ann", photoprism=database)
    return library


def test_a_photo_library_is_asked_now_and_then(
    instance: dg.DagsterInstance, store: Store, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = Ticks(instance, store)
    assert ticks.tick() == []
    (first,) = ticks.tick()
    assert first.partition_key == "ann"
    library.photo(2)
    assert [*ticks.tick(), *ticks.tick()] == []  # it has said the same twice: it is left in peace for five minutes
    monkeypatch.setattr(sensors, "LIBRARY_EVERY_S", 0)
    assert ticks.tick() == []
    (second,) = ticks.tick()
    assert ticks.tick() == []
    library.write("UPDATE photos SET photo_private = 1 WHERE id = 2")
    assert ticks.tick() == []
    (third,) = ticks.tick()
    assert len({first.run_key, second.run_key, third.run_key}) == 3
    assert ticks.told is None


def test_a_library_out_of_reach_is_told_and_stops_nobody(
    ticks: Ticks, store: Store, library: Library, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "LIBRARY_EVERY_S", 0)
    monkeypatch.setenv("IMMICH_API_KEY", "k3y")
    subject_of(store, "bob", immich={"person": "Bob", "address": "http://127.0.0.1:1"})
    ticks.tick()
    assert [request.partition_key for request in ticks.tick()] == ["ann", "mug"]
    library.file.rename(away := library.file.with_name("away.db"))
    assert ticks.tick() == []
    assert ticks.told is not None
    assert f"ann: source.photoprism.database: {library.file} is not there" in ticks.told
    assert "bob: Immich at http://127.0.0.1:1 does not answer" in ticks.told
    away.rename(library.file)
    assert [*ticks.tick(), *ticks.tick()] == []  # back, and the same: nothing to run for

    for name in ("ann", "mug"):
        (store.subject(name) / "subject.yaml").unlink()
    resources = {"house": House(data=str(store.data))}
    night = datetime.datetime(2026, 1, 1, 2, tzinfo=datetime.UTC)
    context = dg.build_schedule_context(instance=instance, resources=resources, scheduled_execution_time=night)
    (skipped,) = list(nightly(context))  # type: ignore[arg-type]
    assert isinstance(skipped, dg.SkipReason)
    assert "does not answer" in (skipped.skip_message or "")


def test_a_run_is_not_held_to_be_started_while_that_cannot_be_told(
    instance: dg.DagsterInstance, store: Store, library: Library, tmp_path: Path
) -> None:
    """The index answers, and the disk with the photos is not mounted yet."""
    (tmp_path / "1.png").rename(tmp_path / "data" / "1.png")
    file = store.subject("ann") / "subject.yaml"
    file.write_text(file.read_text().replace(f"originals: {tmp_path}", f"originals: {tmp_path / 'mount'}"))
    ticks = Ticks(instance, store)
    assert [*ticks.tick(), *ticks.tick()] == []
    assert "is it mounted?" in (ticks.told or "")
    (tmp_path / "mount").mkdir()
    (tmp_path / "data" / "1.png").rename(tmp_path / "mount" / "1.png")
    assert [request.partition_key for request in ticks.tick()] == ["ann"]
