"""A photo that was forgotten leaves its digest in the record, and nothing that a person could read."""

import shutil
from dataclasses import replace

from lora_pipeline import manifest
from lora_pipeline.lineage import forgotten, graph, record
from lora_pipeline.lineage.record import FILE
from lora_pipeline.store import digest_file


def test_nothing_of_the_photo_can_be_read_and_its_checkpoints_are_still_known(house) -> None:
    house.caption = "ohwx woman beside a unicorn"
    house.photos["secret party.jpg"] = "photo c"
    house.up_to_the_training_set()
    house.trained()
    house.drawn_and_released(2)
    record(house.store, "anna")
    photo = digest_file(house.store.subject("anna") / "photos" / "secret party.jpg")
    file = house.store.data / FILE
    assert b"secret party" in file.read_bytes()
    del house.photos["secret party.jpg"]
    house.caption = "ohwx woman"
    house.up_to_the_training_set()
    lists = {file: manifest.read(file.parent, "trained_on").rows for file in house.work("fit").glob("runs/*/*.parquet")}
    run, rows = next((file, rows) for file, rows in lists.items() if "secret party" in str(rows))
    names = {"secret party.jpg": "forgotten/1"}  # as the run's own list is cleaned of names
    cleaned = [
        replace(row, id=names.get(row.data["photo"], row.id)).with_data(photo="forgotten", caption="") for row in rows
    ]
    manifest.write(run.parent, cleaned, "trained_on")
    assert forgotten(house.store, [photo]) == 5  # photo, crop, picture, caption, example
    for _ in range(2):
        assert b"secret party" not in file.read_bytes()
        found = graph(house.store, photo)
        assert {one.id for one in found.of_kind("checkpoint")} == {"epoch 1", "epoch 2"}
        assert {one.digest for one in found.of_kind("release")} == {
            digest_file(house.work("publish") / "ohwx.safetensors")
        }
        assert len(graph(house.store, str(run.parent / "epoch-0002.safetensors")).of_kind("photo")) == 3
        record(house.store, "anna")  # and a later look at what stands brings nothing back, and no second lineage


def test_a_subject_that_was_forgotten_leaves_digests_alone(house) -> None:
    record(house.store, "anna", began=0)
    lora = house.work("publish") / "ohwx.safetensors"
    digest, data = digest_file(lora), (house.store.data / FILE)
    shutil.rmtree(house.store.data / "work")
    forgotten(house.store, [], subject="anna")
    left = data.read_bytes()
    for word in (b"anna", b"a.jpg", b"ohwx", b"bundled"):
        assert word not in left, word
    assert len(graph(house.store, digest).of_kind("photo")) == 2


def test_where_there_is_no_record_nothing_is_made(house) -> None:
    assert forgotten(house.store, ["d"]) == 0
    assert not (house.store.data / FILE).exists()
