"""Lineage over manifests as the stages leave them: two runs, of which the earlier knew a photo that is gone now."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from lora_pipeline import manifest
from lora_pipeline.errors import PipelineError, SubjectError
from lora_pipeline.lineage import ask, made_from, photos_of
from lora_pipeline.manifest import key_of
from lora_pipeline.records import Caption, Checkpoint, Crop, Example, File, Photo, Row
from lora_pipeline.store import Store, digest_file

OLD, NEW = key_of("old run"), key_of("new run")


@dataclass(frozen=True)
class World:
    """What the fixture made."""

    store: Store

    def work(self, stage: str) -> Path:
        return self.store.work("anna", stage)

    def lora(self, run: str, epoch: int) -> Path:
        return self.work("fit") / "runs" / run[:16] / f"epoch-{epoch:04d}.safetensors"


def example(photo: str, framing: str, version: int = 1, was: str = "") -> Row:
    id = f"{photo}@{framing}"
    words, hidden = f"ohwx woman, {framing}", 0.25 if framing == "full" else 0.0
    data = Example(photo, (64, 64), 10, words, hidden, photo_digest=was or key_of(photo)).data()
    return Row(
        id,
        f"k{id}{version}",
        data=data,
        files={"latents": File(f"latents/{id}", key_of(id, version)), "text": File("t", "t")},
    )


def run(world: World, key: str, examples: list[Row], epochs: int) -> list[Row]:
    folder = world.work("fit") / "runs" / key[:16]
    trained_on = manifest.write(folder, examples, "trained_on").digest
    (folder / "job.json").write_text(json.dumps({"key": key, "trained_on": trained_on}))
    (folder / "samples").mkdir()
    rows: list[Row] = []
    lines: list[str] = []
    for epoch in range(1, epochs + 1):
        lora = world.lora(key, epoch)
        numbers = np.array([epoch, len(examples)], dtype=np.float32)
        save_file({"weight": numbers}, lora, {"run": key, "epoch": str(epoch)})
        sample = f"samples/epoch-{epoch:04d}.png"
        (folder / sample).write_bytes(b"sample")
        lines.append(
            json.dumps({"epoch": epoch, "file": lora.name, "sample": sample, "digests": {lora.name: digest_file(lora)}})
        )
        data = Checkpoint(epoch, key, trained_on, loss=0.1, learning_rate=1e-4, images_seen=epoch).data()
        rows.append(
            Row(
                f"{epoch:04d}",
                "k",
                data=data,
                files={"lora": File(lora.relative_to(world.work("fit")).as_posix(), digest_file(lora))},
            )
        )
    (folder / "epochs.jsonl").write_text("\n".join([*lines, '{"epoch": 9, "fi']))  # a line cut off by a kill
    return rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(Store(tmp_path_factory.mktemp("data")))
    photos = world.store.subject("anna") / "photos"
    (photos / "trip").mkdir(parents=True)
    (world.store.subject("anna") / "subject.yaml").write_text("name: anna")

    def source(id: str) -> Row:
        (photos / id).write_text(id)
        return Row(id, "k", data=Photo(str(photos / id), key_of(id), 9, 9, "JPEG").data())

    broken = Row("broken.jpg", "k", "failed", "the file is empty (0 bytes)")
    kept = [source(id) for id in ("a.jpg", "trip/b.jpg", "blurred.jpg", "nobody.jpg", "trip/twin.jpg", "twin.jpg")]
    manifest.write(world.work("collect"), [*kept, broken])
    curated = [row.but("dropped", "sharpness 3 is under 20") if row.id == "blurred.jpg" else row for row in kept]
    manifest.write(world.work("curate"), [*curated, broken])

    def crop(photo: str, framing: str, strangers: int = 0) -> Row:
        boxes = ((0, 0, 9, 9),) * strangers
        return Row(f"{photo}@{framing}", "k", data=Crop(photo, framing, (0, 0, 64, 64), 64, 64, strangers=boxes).data())

    crops = [crop("a.jpg", "close"), crop("a.jpg", "full", 2), crop("trip/b.jpg", "close")]
    refused = [
        Row("nobody.jpg", "k", "dropped", "no face found", {"photo": "nobody.jpg"}),
        Row(
            "trip/b.jpg@full",
            "k",
            "dropped",
            "it would be enlarged 3 times",
            {"photo": "trip/b.jpg", "framing": "full"},
        ),
    ]
    manifest.write(world.work("crop"), [*crops, *refused])
    manifest.write(world.work("conceal"), [row.with_data(hidden=len(row.data["strangers"])) for row in crops])
    manifest.write(
        world.work("describe"),
        [Row(row.id, "k", data=Caption(row.data["photo"], "words", "hand").data()) for row in crops],
    )
    now = [example("a.jpg", "close"), example("a.jpg", "full", 2), example("trip/b.jpg", "close")]
    lost = Row("trip/b.jpg@medium", "k", "dropped", "all of it is hidden", {"photo": "trip/b.jpg"})
    manifest.write(world.work("encode"), [*now, lost])

    run(world, OLD, [example("a.jpg", "full", was="as it was"), example("gone.jpg", "close")], 1)
    manifest.write(world.work("fit"), run(world, NEW, [*now, lost], 2))

    grids: list[Row] = []
    for epoch in (0, 1, 2):
        file = world.work("grids") / "pictures" / f"e{epoch:04d}" / "p01" / "s0001.png"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"picture")
        digest = "" if epoch == 0 else digest_file(world.lora(NEW, epoch))
        path = file.relative_to(world.work("grids")).as_posix()
        grids.append(
            Row(
                f"e{epoch:04d}/p01/s0001",
                "k",
                data={"epoch": epoch, "checkpoint": digest},
                files={"picture": File(path, "d")},
            )
        )
    failed = Row("e0002/p02/s0001", "k", "failed", "not finite")
    manifest.write(world.work("grids"), [*grids, failed])

    released = world.work("publish") / "ohwx.safetensors"
    released.parent.mkdir()
    save_file({"weight": np.array([2, 4], dtype=np.float16)}, released, {"run": NEW, "epoch": "2"})
    files = {"lora": File(released.name, digest_file(released)), "card": File("README.md", "d")}
    manifest.write(
        world.work("publish"), [Row("released", "k", data={"checkpoint": digest_file(world.lora(NEW, 2))}, files=files)]
    )
    return world


def test_an_epoch_of_the_current_run_is_made_of_its_photos(world: World) -> None:
    told = photos_of(world.store, "anna", "2")
    assert (told.epoch, told.run, told.lora) == (2, NEW, world.lora(NEW, 2))
    assert [(photo.id, photo.since, [picture.framing for picture in photo.pictures]) for photo in told.photos] == [
        ("a.jpg", "unchanged", ["close", "full"]),
        ("trip/b.jpg", "unchanged", ["close"]),
    ]
    full = told.photos[0].pictures[1]
    assert (full.caption, full.repeats, full.hidden, full.hidden_faces) == ("ohwx woman, full", 10, 0.25, 2)
    assert told.photos[0].digest == key_of("a.jpg")
    assert told.trained_on == Checkpoint.of(manifest.read(world.work("fit")).rows[0]).trained_on


def test_why_an_epoch_was_chosen_is_told_of_the_run_whose_pictures_were_judged(world: World, tmp_path: Path) -> None:
    mine = World(Store(shutil.copytree(world.store.subject("anna").parents[1], tmp_path / "data")))
    said = [Row("0001", "k", data={"reason": "epoch 1 is chosen: identity distance 0.21"})]
    manifest.write(mine.work("scores"), said)
    assert "judged: epoch 1 is chosen: identity distance 0.21" in photos_of(mine.store, "anna", "1").lines()
    assert photos_of(mine.store, "anna", str(mine.lora(OLD, 1))).verdict == ""
    assert photos_of(mine.store, "anna", "2").verdict == ""


@pytest.mark.parametrize(
    ("asked", "run", "epoch"),
    [
        ("epoch 1", NEW, 1),
        ("e0002/p01/s0001", NEW, 2),
        ("e0002/p02/s0001", NEW, 2),
        ("pictures/e0001/p01/s0001.png", NEW, 1),
        ("ohwx.safetensors", NEW, 2),
        ("epoch-0002.safetensors", NEW, 2),
        (f"{OLD[:16]}/epoch-0001.safetensors", OLD, 1),
        (f"runs/{OLD[:16]}/samples/epoch-0001.png", OLD, 1),
    ],
)
def test_a_checkpoint_has_many_names(world: World, asked: str, run: str, epoch: int) -> None:
    told = photos_of(world.store, "anna", asked)
    assert (told.run, told.epoch, told.lora) == (run, epoch, world.lora(run, epoch))


def test_a_copy_of_a_file_is_known_by_its_bytes_and_a_cast_one_by_its_header(world: World, tmp_path: Path) -> None:
    shutil.copy(world.lora(OLD, 1), tmp_path / "renamed.safetensors")
    assert photos_of(world.store, "anna", str(tmp_path / "renamed.safetensors")).run == OLD
    save_file({"weight": np.zeros(1)}, tmp_path / "cast.safetensors", {"run": OLD, "epoch": "1"})
    assert photos_of(world.store, "anna", str(tmp_path / "cast.safetensors")).run == OLD
    save_file({"weight": np.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(PipelineError, match="neither its bytes nor its header"):
        photos_of(world.store, "anna", str(tmp_path / "foreign.safetensors"))


def test_an_earlier_run_knows_photos_that_are_gone_and_that_others_changed_since(world: World) -> None:
    told = photos_of(world.store, "anna", str(world.lora(OLD, 1)))
    assert [(photo.id, photo.since, photo.digest) for photo in told.photos] == [
        ("a.jpg", "changed", "as it was"),
        ("gone.jpg", "gone", key_of("gone.jpg")),
    ]
    text = "\n".join(told.lines())
    assert f"gone.jpg  (sha256 {key_of('gone.jpg')[:16]}; no longer in the source)" in text
    assert "has changed since" in text


def test_the_base_models_pictures_are_made_of_no_photo(world: World) -> None:
    told = photos_of(world.store, "anna", "e0000/p01/s0001")
    assert (told.lora, told.photos) == (None, ())
    assert "base model" in told.lines()[0]


def test_a_photo_leads_to_all_that_was_made_of_it(world: World) -> None:
    told = made_from(world.store, "anna", "a.jpg")
    assert told.stopped == ""
    assert told.pictures == ("a.jpg@close", "a.jpg@full")
    assert [(made.run, made.epoch, made.current) for made in told.checkpoints] == [
        (NEW, 1, True),
        (NEW, 2, True),
        (OLD, 1, False),
    ]
    assert [path.parts[-3] for path in told.grid] == ["e0001", "e0002"]
    assert told.released == (world.work("publish") / "ohwx.safetensors",)


def test_a_crop_that_was_left_out_is_told_beside_those_that_went_on(world: World) -> None:
    told = made_from(world.store, "anna", "trip/b.jpg")
    assert told.left_out == (
        ("trip/b.jpg@full", "it would be enlarged 3 times"),
        ("trip/b.jpg@medium", "all of it is hidden"),
    )
    assert [made.run for made in told.checkpoints] == [NEW, NEW]


@pytest.mark.parametrize(
    ("photo", "stopped", "reason"),
    [
        ("broken.jpg", "source_photos", "the file is empty (0 bytes)"),
        ("blurred.jpg", "curated_photos", "sharpness 3 is under 20"),
        ("nobody.jpg", "face_crops", "no face found"),
        ("twin.jpg", "face_crops", "it has not come so far yet; run the pipeline"),
    ],
)
def test_a_photo_that_went_nowhere_says_where_it_stopped_and_why(
    world: World, photo: str, stopped: str, reason: str
) -> None:
    told = made_from(world.store, "anna", photo)
    assert (told.stopped, told.reason) == (stopped, reason)
    assert (told.checkpoints, told.grid, told.released) == ((), (), ())
    assert any(stopped in line and reason in line for line in told.lines())


def test_a_photo_that_is_gone_is_still_known_to_the_run_it_went_into(world: World) -> None:
    told = made_from(world.store, "anna", "gone.jpg")
    assert (told.path, told.stopped, told.reason) == ("", "source_photos", "it is no longer in the source")
    assert [made.run for made in told.checkpoints] == [OLD]
    assert told.grid == ()


def test_a_photo_is_found_by_its_whole_path_or_its_name(world: World) -> None:
    whole = world.store.subject("anna") / "photos" / "trip" / "b.jpg"
    assert made_from(world.store, "anna", str(whole)).photo == "trip/b.jpg"
    assert made_from(world.store, "anna", "b.jpg").photo == "trip/b.jpg"
    assert made_from(world.store, "anna", "twin.jpg").photo == "twin.jpg"  # a whole id goes before an ending


def test_whatever_is_asked_is_answered_in_lines(world: World) -> None:
    assert ask(world.store, "anna", "2") == photos_of(world.store, "anna", "2").lines()
    assert ask(world.store, "anna", "a.jpg") == made_from(world.store, "anna", "a.jpg").lines()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("7", "has no epoch 7; it has: 1, 2"),
        ("oxwh.safetensors", "did you mean 'ohwx.safetensors'"),
        ("e0002/p01/s0003", "did you mean 'e0002/p01/s0001'"),
        ("nobodi.jpg", "did you mean 'nobody.jpg'"),
        ("???", "there are: "),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_the_nearest(world: World, asked: str, words: str) -> None:
    with pytest.raises(PipelineError) as told:
        ask(world.store, "anna", asked)
    assert words in str(told.value)


def test_a_subject_that_is_not_there_is_answered_with_the_nearest(world: World) -> None:
    with pytest.raises(SubjectError, match="did you mean 'anna'"):
        ask(world.store, "ana", "1")


def test_asking_loads_no_torch(world: World) -> None:
    code = f"""
import sys
import zipfile
from pathlib import Path
from lora_pipeline.lineage import ask
from lora_pipeline.store import Store
for of in ("2", "a.jpg", "ohwx.safetensors"):
    ask(Store(Path({str(world.store.data)!r})), "anna", of)
print(*{{"torch", "diffusers", "dagster", "PIL"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_photo_kept_aside_made_no_checkpoint_and_both_ways_say_so(world: World, tmp_path: Path) -> None:
    from lora_pipeline.settings import FitSettings
    from lora_pipeline.stages.fit import without_held_out

    mine = World(Store(shutil.copytree(world.store.subject("anna").parents[1], tmp_path / "data")))
    rows = (example("a.jpg", "close", was="1"), example("trip/b.jpg", "close", was="2"))
    split = without_held_out(manifest.Manifest(tmp_path, rows), FitSettings(held_out_share=0.5))
    other = key_of("held out run")
    run(mine, other, list(split.rows), epochs=1)
    told = photos_of(mine.store, "anna", str(mine.lora(other, 1)))
    assert [photo.id for photo in told.photos] == ["trip/b.jpg"]
    assert told.aside == ("a.jpg",)
    assert told.lines()[-1] == "kept aside for the held-out loss, and not trained on: a.jpg"
    aside = made_from(mine.store, "anna", "a.jpg")
    assert other not in {made.run for made in aside.checkpoints}
    assert aside.aside == (other,)
    assert any("kept aside for the held-out loss in run" in line for line in aside.lines())
    assert made_from(mine.store, "anna", "trip/b.jpg").aside == ()


def test_regularisation_pictures_are_told_apart_and_who_lent_one_can_ask(world: World, tmp_path: Path) -> None:
    mine = World(Store(shutil.copytree(world.store.subject("anna").parents[1], tmp_path / "data")))
    lent = World(mine.store)
    key = key_of("of bea")
    others = [
        example("pool/anna/a.jpg", "close"),
        example("pool/anna/a.jpg", "full"),
        example("generated/0001", ""),
        example("regularisation/x.jpg", ""),
    ]
    rows = [row.with_data(regularisation=True) for row in others]
    folder = lent.store.work("bea", "fit") / "runs" / key[:16]
    trained_on = manifest.write(folder, [example("b.jpg", "close"), *rows], "trained_on").digest
    (folder / "job.json").write_text(json.dumps({"key": key, "trained_on": trained_on}))
    save_file({"weight": np.zeros(1, np.float32)}, folder / "epoch-0001.safetensors")
    line = {
        "epoch": 1,
        "file": "epoch-0001.safetensors",
        "digests": {"epoch-0001.safetensors": digest_file(folder / "epoch-0001.safetensors")},
    }
    (folder / "epochs.jsonl").write_text(json.dumps(line))
    manifest.write(lent.store.work("bea", "encode"), [example("b.jpg", "close"), *rows])
    lent.store.work("bea", "collect").mkdir()

    told = photos_of(mine.store, "bea", str(folder / "epoch-0001.safetensors"))
    assert [photo.id for photo in told.photos if photo.regularisation] == [
        "generated/0001",
        "pool/anna/a.jpg",
        "regularisation/x.jpg",
    ]
    words = "beside 4 regularisation pictures: 1 drawn by the base model, 2 of other subjects, 1 of a folder"
    assert f"made of 1 photo (1 picture, {words};" in told.lines()[1]
    shown = made_from(mine.store, "bea", "pool/anna/a.jpg")
    assert (shown.stopped, shown.pictures) == ("", ("pool/anna/a.jpg@close", "pool/anna/a.jpg@full"))

    of_anna = made_from(mine.store, "anna", "a.jpg")
    assert of_anna.beside == (("bea", key),)
    assert f"stood beside bea as a regularisation picture, in run {key[:16]}" in of_anna.lines()
    assert made_from(mine.store, "anna", "trip/b.jpg").beside == ()


def test_a_photo_that_has_left_its_source_is_out_of_the_set_but_known_to_its_checkpoints(tmp_path: Path) -> None:
    from lora_pipeline.settings import CollectSettings
    from lora_pipeline.stages.collect import collect

    mine, archive = World(Store(tmp_path / "data")), tmp_path / "photos.zip"
    mine.store.subject("anna").mkdir(parents=True)
    (mine.store.subject("anna") / "subject.yaml").write_text("name: anna")
    for names in (("a.png", "b.png"), ("a.png",)):
        with zipfile.ZipFile(archive, "w") as opened:
            for name in names:
                buffer = io.BytesIO()
                Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
                opened.writestr(name, buffer.getvalue())
        assert [row.id for row in collect(archive, mine.work("collect"), CollectSettings()).manifest.rows] == [*names]
        if "b.png" in names:
            manifest.write(mine.work("fit"), run(mine, NEW, [example("a.png", "close"), example("b.png", "close")], 2))
    told = photos_of(mine.store, "anna", "2")
    assert {photo.id: photo.since == "gone" for photo in told.photos} == {"a.png": False, "b.png": True}
    gone = made_from(mine.store, "anna", "b.png")
    assert (gone.stopped, gone.reason) == ("source_photos", "it is no longer in the source")
    assert [(made.run, made.epoch) for made in gone.checkpoints] == [(NEW, 1), (NEW, 2)]
