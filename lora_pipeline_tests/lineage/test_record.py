"""The record: what stages leave becomes things that are made of one another, once, whoever writes it, and for ever."""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
from safetensors.numpy import save_file

from lora_pipeline import manifest
from lora_pipeline.errors import PipelineError
from lora_pipeline.lineage import Graph, graph, record
from lora_pipeline.lineage.record import FILE
from lora_pipeline.manifest import key_of
from lora_pipeline.store import Store, digest_bytes, digest_file


def ids(found: Graph, kind: str) -> list[str]:
    return [one.id for one in found.of_kind(kind)]


def dump(house) -> set[tuple[str, ...]]:
    with sqlite3.connect(house.store.data / FILE) as book:
        things = book.execute("SELECT uid, kind, id, digest, path, facts FROM things").fetchall()
        return {*things, *book.execute("SELECT child, parent FROM made_of")}


def test_a_release_leads_to_its_photos_by_way_of_all_that_lies_between(house) -> None:
    record(house.store, "anna")
    found = graph(house.store, str(house.work("publish") / "ohwx.safetensors"))
    assert ids(found, "photo") == ["a.jpg", "b.jpg"]
    assert [one.facts["faces hidden"] for one in found.of_kind("picture")] == [0, 1]
    assert {one.kind for one in found.entries.values()} == {
        "photo", "crop", "picture", "caption", "example", "training set", "run", "checkpoint", "grid picture", "score", "release",
    }  # fmt: skip
    assert ids(found, "checkpoint") == ["epoch 2"]  # of epoch 1 it is not made
    way = found.asked[0]
    for kind in ("checkpoint", "run", "training set", "example", "picture", "crop", "photo"):
        way = next(uid for uid in found.parents[way] if found.entries[uid].kind == kind)
    assert found.entries[way].id == "a.jpg"


def test_a_release_leads_to_what_was_said_for_its_epoch_and_to_the_pictures_that_spoke(house) -> None:
    record(house.store, "anna", began=time.time() - 5)
    found = graph(house.store, str(house.work("publish") / "ohwx.safetensors"))
    (said,) = found.of_kind("score")
    assert (said.id, said.facts["chosen"], said.facts["picked"]) == ("epoch 2", True, False)
    assert said.facts["reason"] == "epoch 2 is chosen"
    assert {found.entries[uid].id for uid in found.parents[said.uid]} == {"epoch 2", "e0002/p01/s0001"}
    assert (said.makings[0].stage, said.makings[0].code_version) == ("scores", "7")
    assert said.makings[0].settings == {"scores": {"seed": 1}}
    assert ids(graph(house.store, str(house.store.subject("anna") / "photos" / "a.jpg")), "score") == [
        "epoch 1",
        "epoch 2",
    ]  # of the base model's nothing is said that hangs on a photo

    # another run, which is drawn and judged, and not released yet: what is released stays with what was said of it
    house.photos["a.jpg"] = "another photo a"
    house.up_to_the_training_set()
    house.trained()
    released = (house.work("publish") / "manifest.parquet").read_bytes()
    lora = (house.work("publish") / "ohwx.safetensors").read_bytes()
    house.drawn_and_released(1)
    (house.work("publish") / "manifest.parquet").write_bytes(released)
    (house.work("publish") / "ohwx.safetensors").write_bytes(lora)
    (house.work("publish") / "settings.json").write_text("{}")  # so that it is read again
    record(house.store, "anna")
    found = graph(house.store, str(house.work("publish") / "ohwx.safetensors"))
    assert {one.facts["reason"] for one in found.of_kind("score")} == {"epoch 2 is chosen"}


def test_a_photo_leads_to_all_that_it_went_into(house) -> None:
    record(house.store, "anna")
    found = graph(house.store, str(house.store.subject("anna") / "photos" / "b.jpg"))
    assert ids(found, "crop") == ["b.jpg@close"]
    assert ids(found, "checkpoint") == ["epoch 1", "epoch 2"]
    assert ids(found, "grid picture") == ["e0001/p01/s0001", "e0002/p01/s0001"]  # the base model's knows no photo
    assert ids(found, "release") == ["lora"]
    assert ids(found, "photo") == ["b.jpg"]
    assert found.parents.keys().isdisjoint(found.asked)


def test_settings_libraries_and_device_are_told_of_what_was_made_now_and_of_nothing_older(house) -> None:
    record(house.store, "anna", began=time.time() - 5)
    found = graph(house.store, str(house.work("publish") / "ohwx.safetensors"))
    (crop, *_) = found.of_kind("crop")
    assert (crop.makings[0].stage, crop.makings[0].code_version) == ("crop", "7")
    assert crop.makings[0].settings == {"crop": {"seed": 1}}
    assert crop.makings[0].environment["versions"]["numpy"] == np.__version__
    (run,) = found.of_kind("run")
    assert run.makings[0].environment == {
        "device": "cpu",
        "versions": {"torch": "2.6.0"},
    }  # of the process that trained
    assert run.makings[0].settings["settings"] == {"epochs": 2, "seed": 1}
    (house.store.data / FILE).unlink()
    record(house.store, "anna", began=time.time() + 60)
    (crop, *_) = graph(house.store, str(house.work("publish") / "ohwx.safetensors")).of_kind("crop")
    assert crop.makings[0].environment == {}


def test_a_photo_that_was_replaced_stays_with_the_checkpoints_that_saw_it(house) -> None:
    record(house.store, "anna")
    before = house.work("fit").glob("runs/*/epoch-0002.safetensors")
    (old,) = before
    was = digest_file(house.store.subject("anna") / "photos" / "a.jpg")
    house.photos["a.jpg"] = "another photo a"  # and its caption is the same
    house.up_to_the_training_set()
    house.trained()
    record(house.store, "anna")
    (new,) = set(house.work("fit").glob("runs/*/epoch-0002.safetensors")) - {old}
    now = digest_file(house.store.subject("anna") / "photos" / "a.jpg")
    of_b = digest_file(house.store.subject("anna") / "photos" / "b.jpg")
    assert {one.digest for one in graph(house.store, str(old)).of_kind("photo")} == {was, of_b}
    assert {one.digest for one in graph(house.store, str(new)).of_kind("photo")} == {now, of_b}
    assert {one.path for one in graph(house.store, was[:10]).of_kind("checkpoint")} == set(
        old.parent.glob("*.safetensors")
    )


def test_a_released_file_alone_is_enough_renamed_and_cast_and_its_run_gone(house, tmp_path: Path) -> None:
    record(house.store, "anna")
    alone = tmp_path / "elsewhere" / "my favourite.safetensors"
    alone.parent.mkdir()
    shutil.copy(house.work("publish") / "ohwx.safetensors", alone)
    cast = alone.with_name("cast.safetensors")
    checkpoint = digest_file(next(house.work("fit").glob("runs/*/epoch-0002.safetensors")))
    save_file({"weight": np.zeros(1)}, cast, {"lora_pipeline.checkpoint": checkpoint})
    run = alone.with_name("run.safetensors")
    key = json.loads(next(house.work("fit").glob("runs/*/job.json")).read_text())["key"]
    save_file({"weight": np.zeros(1)}, run, {"run": key, "epoch": "2"})
    shutil.rmtree(house.store.data / "work")
    shutil.rmtree(house.store.data / "subjects")
    record(house.store, "anna")  # nothing is left to be read, and nothing is lost by that
    for file in (alone, cast, run):
        found = graph(house.store, str(file))
        assert ids(found, "photo") == ["a.jpg", "b.jpg"], file
        assert {one.digest for one in found.of_kind("photo")} == {digest_of(text) for text in house.photos.values()}
    assert ids(graph(house.store, str(alone)), "release") == ["lora"]


def digest_of(text: str) -> str:
    return digest_bytes(text.encode())


def test_a_file_that_was_made_here_is_found_by_its_name_as_it_was_last(house) -> None:
    record(house.store, "anna")
    house.drawn_and_released(1)
    record(house.store, "anna")
    for asked in ("ohwx.safetensors", "publish/ohwx.safetensors", "work/anna/publish/ohwx.safetensors"):
        found = graph(house.store, asked)
        assert [found.entries[uid].digest for uid in found.asked] == [
            digest_file(house.work("publish") / "ohwx.safetensors")
        ]
        assert ids(found, "checkpoint") == ["epoch 1"]


def test_the_data_folder_can_be_moved(house, tmp_path: Path) -> None:
    record(house.store, "anna")
    moved = Store((house.store.data).rename(tmp_path / "moved"))
    (lora,) = graph(moved, str(moved.work("anna", "publish") / "ohwx.safetensors")).of_kind("release")
    assert lora.path == moved.work("anna", "publish") / "ohwx.safetensors"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("deadbeef", "nothing in the record has a digest that begins with deadbeef"),
        ("nothing.png", "there is no file nothing.png"),
        ("deadbee", "the first 8 or more digits of a hash"),
    ],
)
def test_what_is_not_there_is_told_in_words(house, asked: str, words: str) -> None:
    record(house.store, "anna")
    with pytest.raises(PipelineError, match=words):
        graph(house.store, asked)


def test_a_file_that_was_never_made_here_is_told_in_words(house, tmp_path: Path) -> None:
    record(house.store, "anna")
    save_file({"weight": np.zeros(1)}, tmp_path / "foreign.safetensors", {"run": "x", "epoch": "1"})
    with pytest.raises(PipelineError, match=r"foreign\.safetensors is not in the record"):
        graph(house.store, str(tmp_path / "foreign.safetensors"))


def test_a_hash_of_too_few_digits_names_what_it_may_be(house) -> None:
    record(house.store, "anna")
    with sqlite3.connect(house.store.data / FILE) as book:
        book.execute("UPDATE things SET digest = '0123456789' || substr(digest, 11) WHERE kind = 'photo'")
    with pytest.raises(PipelineError, match=r"2 things have a digest that begins with 01234567.*photo a\.jpg"):
        graph(house.store, "01234567")


def test_without_the_file_the_record_is_written_anew_from_what_stands(house) -> None:
    record(house.store, "anna")
    whole = dump(house)
    (house.store.data / FILE).unlink()
    record(house.store, "anna")
    assert dump(house) == whole


def test_a_run_of_before_there_was_a_record_still_leads_to_its_photos(house) -> None:
    """Its pictures are gone, and the photo has changed since."""
    house.photos = {"a.jpg": "another photo a"}
    house.up_to_the_training_set()
    record(house.store, "anna")
    found = graph(house.store, str(next(house.work("fit").glob("runs/*/epoch-0001.safetensors"))))
    assert {one.digest for one in found.of_kind("photo")} == {digest_of("photo a"), digest_of("photo b")}
    assert found.of_kind("crop") == []


def test_a_thousand_photos_and_nothing_new_cost_little_and_one_more_is_one_more(tmp_path: Path, house) -> None:
    photos = {f"{number}.jpg": f"photo {number}" for number in range(1000)}
    many = type(house)(Store(tmp_path / "many"), photos=photos, written=False)
    many.up_to_the_training_set()
    many.trained()
    assert record(many.store, "anna") == 5 * 1000 + 1 + 1 + 2 * 2
    began, was = time.monotonic(), digest_file(many.store.data / FILE)
    assert [record(many.store, "anna") for _ in range(10)] == [0] * 10  # a run's ten stages
    assert time.monotonic() - began < 10
    assert digest_file(many.store.data / FILE) == was  # nothing at all was written
    many.photos["one more.jpg"] = "one more"
    many.up_to_the_training_set()
    began = time.monotonic()
    assert record(many.store, "anna") == 5 + 1  # what is of the photo, and the training set
    assert time.monotonic() - began < 10


def test_several_at_once_do_not_collide(tmp_path: Path, house) -> None:
    names = ("anna", "bea")
    for name in names:
        photos = {f"{number}.jpg": f"{name} {number}" for number in range(200)}
        one = type(house)(house.store, name, photos=photos, written=False)
        one.up_to_the_training_set()
    (house.store.data / FILE).unlink(missing_ok=True)
    code = "import sys; from pathlib import Path; from lora_pipeline.lineage import record; from lora_pipeline.store import Store\n"
    code += (
        "import pandas; print('ready', flush=True); sys.stdin.readline(); record(Store(Path(sys.argv[1])), sys.argv[2])"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(house.store.data), name], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True
        )
        for name in names * 2
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, said
    with sqlite3.connect(house.store.data / FILE) as book:
        counted = dict(book.execute("SELECT subject, count(*) FROM things WHERE kind = 'example' GROUP BY subject"))
        assert counted == {"anna": 200 + 2, "bea": 200}  # anna's run is of the two photos of before


def test_a_damaged_record_is_told_in_words(house) -> None:
    (house.store.data / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(PipelineError, match="move it away: what still stands is written anew"):
        record(house.store, "anna")


def test_what_regularisation_pictures_are_of(house) -> None:
    rows = manifest.read(house.work("encode")).rows
    beside = [
        rows[0].with_data(photo=photo, photo_digest=key_of(photo), regularisation=True)
        for photo in ("pool/bea/trip/x.jpg", "generated/0001")
    ]
    house._leave("encode", [*rows, *(replace(row, id=f"{row.data['photo']}@close") for row in beside)])
    house.trained(seed=2)
    record(house.store, "anna")
    (photo,) = graph(house.store, key_of("pool/bea/trip/x.jpg")).of_kind("photo")
    assert (photo.subject, photo.id) == ("bea", "trip/x.jpg")
    found = graph(house.store, key_of("generated/0001"))
    assert ids(found, "regularisation picture") == ["generated/0001"]
    assert ids(found, "checkpoint") == ["epoch 1", "epoch 2"]
