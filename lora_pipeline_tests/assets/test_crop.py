"""Faces that a person is to settle: shown by the asset, told by `status`, and what people.yaml says of faces that there are not."""

import subprocess
import sys
from dataclasses import replace

import dagster as dg
import numpy as np
import pytest
import yaml
from PIL import Image

from lora_pipeline import flow, people
from lora_pipeline.assets.crop import face_crops, faces_table, unsure_sheet
from lora_pipeline.assets.resources import House
from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.records import Box, Face
from lora_pipeline.stages.crop import persons
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject, new

SUBJECT, STRANGER = (random_identity(np.random.default_rng(seed), word) for seed, word in ((3, "woman"), (8, "man")))
SCENE = Scene("medium", size_px=(480, 360))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A subject whose one photo with a stranger beside has an unsure face: whoever is not nearest is, at so wide a threshold."""
    store = Store(tmp_path_factory.mktemp("home") / "data")
    photos = store.data / "photos"
    photos.mkdir(parents=True)
    draw(SUBJECT, SCENE).picture.save(photos / "alone.png")
    draw(SUBJECT, replace(SCENE, others=(STRANGER,))).picture.save(photos / "beside.png")
    given = {"name": "ann", "kind": "person", "photos": photos, "trigger": "ohwx", "class": "woman"}
    changes = {"crop": {"same_person_distance": 1.5, "size_px": 64, "search_px": 480}, "curate": {"min_side_px": 64}}
    new(store, Subject.model_validate({**given, "recipe": "bundled_person", "settings": changes}))
    work = flow.work(store, "ann")
    flow.collect(work)
    flow.curate(work)
    return store


def materialize(store: Store) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [face_crops], partition_key="ann", resources={"house": House(data=str(store.data))}, instance=_known()
    )


def _known() -> dg.DagsterInstance:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("subject", ["ann"])
    return instance


def status(store: Store) -> str:
    """What the terminal says."""
    return subprocess.run(
        [sys.executable, "-m", "lora_pipeline.cli", "status", "ann", "--home", str(store.data.parent)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_an_unsure_face_is_shown_and_told_and_settled_by_hand(store: Store) -> None:
    result = materialize(store)
    (event,) = result.get_asset_materialization_events()
    shown = event.materialization.metadata
    (unsure,) = flow.unsure(flow.faces(flow.work(store, "ann")))
    assert unsure.photo == "beside.png"
    told = shown["unsure faces"]
    assert isinstance(told, dg.TableMetadataValue)
    assert [list(record.data.values()) for record in told.records] == [
        [unsure.id, "beside.png", f"{unsure.distance:.3f}"]
    ]
    assert str(shown["unsure faces, in the table's order"].value).startswith("![unsure faces](data:image/jpeg")

    table = shown["each face, whose it is, and why"]
    assert isinstance(table, dg.TableMetadataValue)
    rows = {str(record.data["face"]): record.data for record in table.records}
    assert sorted(rows) == ["alone.png#1", "beside.png#1", "beside.png#2"]
    assert rows["alone.png#1"]["whose"] == "subject"
    assert (rows[unsure.id]["whose"], rows[unsure.id]["says"]) == ("unsure", "distance")
    assert rows[unsure.id]["distance"] == f"{unsure.distance:.3f}"
    assert rows[unsure.id]["yaw"] == f"{unsure.yaw_deg:+.0f}°"

    words = status(store)
    assert f"1 unsure face, hidden; say whose in {store.subject('ann') / 'people.yaml'}" in words
    assert f"  {unsure.id}: distance {unsure.distance:.3f}" in words

    people.write(store.subject("ann"), {unsure.id: "stranger", "beside.png#7": "Anna"})
    assert "unsure" not in status(store)
    result = materialize(store)
    (event,) = result.get_asset_materialization_events()
    assert "unsure faces" not in event.materialization.metadata
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["people_found"].passed
    assert not checks["people_found"].blocking
    assert checks["people_found"].severity == dg.AssetCheckSeverity.WARN
    assert str(checks["people_found"].description) == (
        "people.yaml speaks of beside.png#7, which there is not; the nearest: beside.png#1, beside.png#2"
    )


def test_what_is_measured_of_a_face_stands_beside_it() -> None:
    face = Face("a.png", (0, 0, 9, 9), 1.0, (), (), -31.6, "subject", id="a.png#1", distance=0.25, by_hand=True)
    face = replace(face, pitch_deg=4.4, roll_deg=-0.6, expression=(("neutral", 0.9), ("sad", 0.05)))
    (record,) = faces_table([face]).records
    told = ["a.png#1", "subject", "", "a person", "0.250", "-32°", "+4°", "-1°", "neutral 90%, sad 5%"]
    assert list(record.data.values()) == told


def test_the_sheet_frames_the_unsure_face(store: Store) -> None:
    work = flow.work(store, "ann")
    flow.crop(work)
    sheet = np.asarray(unsure_sheet(work, flow.faces(work)[:1])).astype(int)
    across = np.flatnonzero(((sheet[..., 0] > 150) & (sheet[..., 1:].max(-1) < 90)).sum(0) > 20)
    assert np.ptp(across) == pytest.approx(144 / 2.2, abs=14)  # a face of 1, and 0.6 on each side


def test_people_whose_faces_are_not_seen_are_told_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Known:
        """Says of every photo that somebody's back is at its left edge."""

        identity = "known boxes"

        def find(self, picture: Image.Image, _search_px: int) -> list[tuple[Box, float]]:
            return [((0, 0, 150, picture.height), 0.9)]

    monkeypatch.setattr(persons, "open_person_detector", lambda _: Known())
    file = store.subject("ann") / "subject.yaml"
    given = yaml.safe_load(file.read_text())
    given["settings"]["crop"] |= {"yolo_person_weights": "backs.pt", "same_person_distance": 0.45}
    file.write_text(yaml.safe_dump(given))
    shown = materialize(store).get_asset_materialization_events()[0].materialization.metadata
    told = shown["people whose faces are not seen"]
    assert isinstance(told, dg.TableMetadataValue)
    assert ["alone.png", "1"] in [list(record.data.values()) for record in told.records]
    assert "crops with other people in them" in shown
