"""What starts runs by itself: one run a change, none for what is still being written, none twice for the same content."""

import datetime
import json
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from lora_pipeline import subject
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

    def tick(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"house": House(data=str(self.store.data))}
        )
        result = photos_changed(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
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


def test_a_zip_is_watched_as_a_file_and_a_library_is_left_to_the_night(store: Store, tmp_path: Path) -> None:
    given = {"name": "cup", "kind": "product", "trigger": "zx1", "class": "cup", "recipe": "bundled_pet"}
    (tmp_path / "cup.zip").write_bytes(b"a zip, some day")
    file = subject.new(store, Subject.model_validate({**given, "photos": tmp_path / "cup.zip"}))
    assert watched(store, "cup") == sorted([tmp_path / "cup.zip", file])
    file.unlink()
    library = {"photoprism": {"person": "cup", "database": str(tmp_path / "index.db"), "originals": str(tmp_path)}}
    subject.new(store, Subject.model_validate({**given, "source": library}))
    assert watched(store, "cup") == [file]
