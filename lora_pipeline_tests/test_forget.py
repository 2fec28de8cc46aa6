"""Forgetting, over what the real stages leave of drawn photos, and runs and a release as training would leave them."""

import datetime
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from lora_pipeline import flow, manifest, recall
from lora_pipeline.cli import app
from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.errors import PipelineError, SubjectError
from lora_pipeline.forget import LOG, Forgetting, carry_out, plan
from lora_pipeline.manifest import key_of
from lora_pipeline.records import Checkpoint, Example, File, Row
from lora_pipeline.settings import BaseSettings
from lora_pipeline.stages.crop import decided_faces
from lora_pipeline.stages.fit.fit import planned
from lora_pipeline.store import Store, digest_file, digest_tree, write_text
from lora_pipeline.subject import Subject, load, new

TODAY = datetime.date(2026, 5, 4)
OLD, NEW, BEAS = key_of("old run"), key_of("new run"), key_of("bea's run")
STAGES = [step for step in flow.STEPS if step.verb in {"collect", "curate", "crop", "conceal", "describe", "encode"}]
SUBJECT, STRANGER, OTHER = (
    random_identity(np.random.default_rng(seed), word) for seed, word in ((3, "woman"), (8, "man"), (21, "woman"))
)
SCENE = Scene("medium", size_px=(480, 360))
SCENES = {
    "alone.png": replace(SCENE, yaw_deg=24.0),
    "two.png": replace(SCENE, others=(STRANGER,)),
    "again.png": replace(
        SCENE, others=(STRANGER,), yaw_deg=-20, background_colour="green", backdrop="panels", pattern_seed=5
    ),
    "other.png": replace(SCENE, others=(OTHER,), shirt_colour="red", backdrop="spots", pattern_seed=9),
    "near.png": Scene("close", size_px=(480, 360), background_colour="yellow", shirt_colour="white"),
}
SETTINGS: dict[str, Any] = {
    "curate": {"min_sharpness": 0, "min_contrast": 0, "min_side_px": 64, "max_plain": 1},
    "crop": {"size_px": 64, "search_px": 480, "framings": ["close"]},
    "encode": {"resolution_px": 64, "bucket_step_px": 16, "repeats": 1, "bucket_no_upscale": False},
    "fit": {"network_dim": 4, "network_conv_dim": 0, "epochs": 1},
}


@dataclass(frozen=True)
class World:
    """What the fixture made."""

    store: Store

    def work(self, stage: str, subject: str = "ann") -> Path:
        return self.store.work(subject, stage)

    def rows(self, stage: str) -> dict[str, Row]:
        return {row.id: row for row in manifest.read(self.work(stage)).rows}

    @property
    def photos(self) -> Path:
        return self.store.subject("ann") / "photos"


def trained(world: World, subject: str, key: str, rows: list[Row]) -> Path:
    """Leave a run's record and two epochs; returns the run's folder."""
    run = world.work("fit", subject) / "runs" / key[:16]
    trained_on = manifest.write(run, rows, "trained_on").digest
    (run / "job.json").write_text(json.dumps({"key": key, "trained_on": trained_on}))
    lines: list[str] = []
    checkpoints: list[Row] = []
    for epoch in (1, 2):
        lora = run / f"epoch-{epoch:04d}.safetensors"
        save_file({"weight": np.array([epoch, len(rows)], dtype=np.float32)}, lora, {"run": key})
        digest = digest_file(lora)
        lines.append(json.dumps({"epoch": epoch, "file": lora.name, "sample": "", "digests": {lora.name: digest}}))
        record = Checkpoint(epoch, key, trained_on, loss=0.1, learning_rate=1e-4, images_seen=epoch)
        file = File(lora.relative_to(world.work("fit", subject)).as_posix(), digest)
        checkpoints.append(Row(f"{epoch:04d}", "k", data=record.data(), files={"lora": file}))
    (run / "epochs.jsonl").write_text("\n".join(lines))
    manifest.write(world.work("fit", subject), checkpoints)
    return run


@pytest.fixture(scope="module")
def made(tiny_base: BaseSettings, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Photos of Ann, two beside one man and one beside a woman, and a smaller copy of one, up to the training set."""
    store = Store(tmp_path_factory.mktemp("home") / "data")
    photos = store.subject("ann") / "photos"
    photos.mkdir(parents=True)
    for name, scene in SCENES.items():
        draw(SUBJECT, scene).picture.save(photos / name)
    Image.open(photos / "alone.png").resize((240, 180)).save(photos / "alone-small.png")
    consent = {"given_by": "Ann", "given_on": "2026-01-01", "scope": "tests", "regularisation": True}
    given = {"kind": "person", "trigger": "zx1", "class": "woman", "recipe": "bundled_person", "consent": consent}
    settings = {**SETTINGS, "base": tiny_base.model_dump()}
    new(store, Subject.model_validate({**given, "name": "ann", "photos": "photos", "settings": settings}))
    new(store, Subject.model_validate({**given, "name": "bea", "photos": photos}))
    work = flow.work(store, "ann")
    for step in STAGES:
        flow.take(step, work)
    shutil.copytree(store.data, store.data.with_name("as made"))
    return store


@pytest.fixture
def world(made: Store) -> World:
    """That as it was made, with two runs of Ann's, a release, validation pictures, and a run of Bea's beside Ann's photo."""
    world = World(made)
    shutil.rmtree(made.data)
    shutil.copytree(made.data.with_name("as made"), made.data)
    rows = list(manifest.read(world.work("encode")).kept)
    assert {Example.of(row).photo for row in rows} == set(SCENES)
    trained(world, "ann", OLD, [row for row in rows if Example.of(row).photo != "alone.png"])
    run = trained(world, "ann", NEW, rows)
    release(world, run)
    two = next(row for row in rows if Example.of(row).photo == "two.png")
    pooled = replace(two, id=f"pool/ann/{two.id}").with_data(photo="pool/ann/two.png", regularisation=True)
    own = replace(two, id="bea.png@close", files={}).with_data(photo="bea.png", photo_digest="b" * 64)
    trained(world, "bea", BEAS, [own, pooled])
    (world.work("encode", "bea") / "latents").mkdir(parents=True)
    latents = world.work("encode", "bea") / pooled.files["latents"].path
    latents.write_bytes(b"latents")
    file = File(pooled.files["latents"].path, digest_file(latents))
    manifest.write(world.work("encode", "bea"), [replace(pooled, files={"latents": file})])
    return world


def release(world: World, run: Path) -> None:
    """What is released of a run's second epoch, and where it was copied to."""
    lora, folder = run / "epoch-0002.safetensors", world.work("publish")
    folder.mkdir()
    save_file({"weight": np.zeros(2, dtype=np.float16)}, folder / "zx1.safetensors")
    (folder / "README.md").write_text("---\nlicense: other\n---\n\n# zx1\n")
    photos = [{"path": name, "digest": digest_file(world.photos / name)} for name in sorted(SCENES)]
    (folder / "lineage.json").write_text(json.dumps({"photos": photos}))
    files = {"lora": File("zx1.safetensors", digest_file(folder / "zx1.safetensors")), "card": File("README.md", "d")}
    data = {"checkpoint": digest_file(lora), "run": NEW, "epoch": 2}
    manifest.write(folder, [Row("released", "k", data=data, files=files)])
    copy = {"to": "/ui/models/loras/zx1.safetensors", "sha256": "c" * 64, "run": NEW, "on": "2026-05-01"}
    (folder / "copies.json").write_text(json.dumps([copy, copy | {"to": "/elsewhere", "run": "another"}]))
    drawn = Row("e0002/p01/s0001", "k", data={"checkpoint": digest_file(lora)}, files={"picture": File("p.png", "d")})
    manifest.write(world.work("grids"), [drawn])


def run_of(world: World, key: str, subject: str = "ann") -> Path:
    return world.work("fit", subject) / "runs" / key[:16]


def left_of(world: World, name: str) -> list[str]:
    """Where a photo's name still stands under `data/`, in a file's name, a table or a text, but for the person's own folder."""
    stem, found = Path(name).stem, []
    for path in sorted((world.store.data / "work").rglob("*")):
        if path.is_file():
            text = (
                str([path.name, *manifest.read(path.parent, path.stem).rows])
                if path.suffix == ".parquet"
                else path.name
            )
            text += path.read_text() if path.suffix in {".json", ".jsonl", ".md", ".txt"} else ""
            found += [path.relative_to(world.store.data).as_posix()] if f"{stem}." in text or f"{stem}-" in text else []
    return found


def test_what_depends_on_a_photo_is_shown_and_nothing_changes(world: World) -> None:
    write_text(world.store.subject("ann") / "captions" / "alone.txt", "at home")
    before = digest_tree(world.store.data)
    told = plan(world.store, "ann", "alone.png")
    captions = [str(world.store.subject("ann") / "captions" / "alone.txt")]
    assert told.originals == [str(world.photos / "alone-small.png"), str(world.photos / "alone.png"), *captions]
    assert set(told.photos) == {"alone.png", "alone-small.png"}  # else the copy would be trained on in its place
    assert told.photos["alone.png"] == digest_file(world.photos / "alone.png")
    assert told.derived == {
        "source_photos": 2,
        "curated_photos": 2,
        "face_crops": 1,
        "blurred_set": 1,
        "captions": 1,
        "training_set": 1,
    }
    assert {folder.name: set(files) for folder, files in told.marked.items()} == {
        NEW[:16]: {"epoch-0001.safetensors", "epoch-0002.safetensors"},
        "publish": {"zx1.safetensors"},
    }
    assert (told.drawn, list(told.copies), told.beside) == (1, ["/ui/models/loras/zx1.safetensors"], [])
    text = "\n".join(told.lines())
    assert digest_file(run_of(world, NEW) / "epoch-0001.safetensors") in text
    assert str(world.photos / "alone.png") in text
    assert "alone-small.png is a copy of what you named" in text
    assert digest_tree(world.store.data) == before


def test_a_forgotten_photo_leaves_nothing_but_marks_and_digests(world: World) -> None:
    files = {path for path in (world.store.data / "work").rglob("*") if path.is_file()}
    own = digest_tree(world.photos)
    removed = carry_out(world.store, plan(world.store, "ann", "alone.png"), TODAY)
    gone = {path for path in files if not path.exists()}
    # two thumbnails, a crop, its covered copy and mask, latents, text, and the count of what the crops show
    assert removed == len(gone) == 8
    # The source's row and what is remembered of the person's own file stay, since the file does.
    assert set(left_of(world, "alone.png")) <= {
        f"work/ann/collect/{name}" for name in ("manifest.parquet", "sources.digests.json")
    }
    assert digest_tree(world.photos) == own

    digest = digest_file(world.photos / "alone.png")
    assert recall.forgotten(world.store.subject("ann"))[digest] == "2026-05-04"
    marked = recall.recalled(run_of(world, NEW))
    assert marked is not None
    assert digest in marked.photos
    assert marked.files["epoch-0002.safetensors"] == digest_file(run_of(world, NEW) / "epoch-0002.safetensors")
    assert recall.recalled(run_of(world, OLD)) is None
    card = (world.work("publish") / "README.md").read_text()
    assert card.startswith(
        "---\nlicense: other\n---\n\n**This LoRA is recalled on 2026-05-04: it was trained on 2 photos that must be"
    )
    names = [photo["path"] for photo in json.loads((world.work("publish") / "lineage.json").read_text())["photos"]]
    assert names.count("") == 1
    assert "two.png" in names

    (line,) = (world.store.data / LOG).read_text().splitlines()
    told = json.loads(line)
    assert set(told) == {"on", "what", "photos", "made_of_them", "recall"}
    assert told["made_of_them"]["face_crops"] == 1
    assert digest in told["photos"]
    assert {"c" * 64, *marked.files.values()} < set(told["recall"])
    assert not any(name in line for name in ("ann", "alone", ".png", "safetensors"))


def test_the_next_run_is_made_without_it_whatever_it_is_called(world: World) -> None:
    before = planned_on(world)
    carry_out(world.store, plan(world.store, "ann", "two.png"), TODAY)
    shutil.move(world.photos / "two.png", world.photos / "holiday.png")
    work = flow.work(world.store, "ann")
    reports = {step.noun: flow.take(step, work).report for step in STAGES}
    row = world.rows("collect")["holiday.png"]
    assert (row.state, row.reason, set(row.files)) == ("dropped", "forgotten on 2026-05-04", set())
    assert reports["source_photos"].computed == 1
    assert {noun for noun, report in reports.items() if report.computed} == {"source_photos", "curated_photos"} - (
        set() if reports["curated_photos"].computed else {"curated_photos"}
    )
    after = planned_on(world)
    assert after == before - {"two.png"}
    assert all(step.run(work).report.computed == 0 for step in STAGES)


def planned_on(world: World) -> set[str]:
    """The photos that training would be of now."""
    work = flow.work(world.store, "ann")
    _, learnt = planned(work.made("encode"), work.folder("fit"), work.settings.fit, work.settings.base, "")
    return {Example.of(row).photo for row in learnt.kept}


def test_a_photo_that_stood_beside_another_subject_is_taken_out_there_too(world: World) -> None:
    told = plan(world.store, "ann", "two.png")
    assert told.beside == ["bea"]
    carry_out(world.store, told, TODAY)
    assert manifest.read(world.work("encode", "bea")).rows == ()
    assert not list((world.work("encode", "bea") / "latents").iterdir())
    assert recall.recalled(run_of(world, BEAS, "bea")) is not None
    names = {Example.of(row).photo for row in manifest.read(run_of(world, BEAS, "bea"), "trained_on").rows}
    assert names == {"bea.png", "pool/ann/forgotten-000001"}
    assert left_of(world, "two.png") == [
        "work/ann/collect/manifest.parquet",
        "work/ann/collect/sources.digests.json",
    ]


def test_what_runs_remember_keeps_the_digest_and_loses_name_and_words(world: World) -> None:
    for run in (run_of(world, NEW), run_of(world, BEAS, "bea")):
        write_text(run / "state" / "state.pt", "a state")
    own = replace(manifest.read(run, "trained_on").rows[0], files={})
    manifest.write(run, [own], "trained_on")  # Bea's was of her own photos alone
    carry_out(world.store, plan(world.store, "ann", "two.png"), TODAY)
    assert not (run_of(world, NEW) / "state").exists()
    assert (run / "state" / "state.pt").exists()
    for key in (OLD, NEW):
        rows = manifest.read(run_of(world, key), "trained_on").rows
        (nameless,) = [Example.of(row) for row in rows if row.id.startswith("forgotten-")]
        assert (nameless.caption, nameless.photo_digest) == ("", digest_file(world.photos / "two.png"))
        assert len(rows) == (4 if key == OLD else 5)


def face_of(world: World, photo: str, whose: str, subject: str = "ann") -> str:
    faces = sorted(decided_faces(world.work("crop", subject))[photo], key=lambda face: face.box)
    (number,) = [number for number, face in enumerate(faces, start=1) if face.whose == whose]
    return f"{photo}#{number}"


@pytest.mark.parametrize("by_name", [True, False])
def test_a_person_is_forgotten_on_every_photo_that_shows_them(world: World, by_name: bool) -> None:
    asked = face_of(world, "two.png", "stranger")
    if by_name:
        (world.store.subject("ann") / "people.yaml").write_text(f"{asked}: Bob\nother.png#1: stranger\n")
        asked = "bob"
    told = plan(world.store, "ann", asked)
    assert (told.what, set(told.photos)) == ("person", {"two.png", "again.png"})
    carry_out(world.store, told, TODAY)
    assert set(decided_faces(world.work("crop"))) == {"alone.png", "other.png", "near.png"}
    assert {row.id for row in manifest.read(world.work("crop"), "faces").rows} == {"alone.png", "other.png", "near.png"}


def test_the_subjects_own_face_and_a_face_that_there_is_not_are_refused(world: World) -> None:
    with pytest.raises(PipelineError, match="is the face of ann: forget one photo by its name, or all with"):
        plan(world.store, "ann", face_of(world, "two.png", "subject"))
    with pytest.raises(PipelineError, match=r"two\.png has no face two\.png#7; its faces.*two\.png#1, two\.png#2"):
        plan(world.store, "ann", "two.png#7")
    with pytest.raises(PipelineError, match=r"did you mean 'alone\.png'"):
        plan(world.store, "ann", "alone.pn")
    with pytest.raises(SubjectError, match="did you mean 'ann'"):
        plan(world.store, "anne")


def test_what_scores_and_page_remember_of_a_photo_goes_too(world: World) -> None:
    looks = [Row(f"trained/{id}@close", "k", data={"thumb": [0.5]}) for id in ("alone.png", "near.png")]
    manifest.write(world.work("scores"), [*looks, Row("drawn/e0001/p01/s0001", "k")], "looks")
    shown = world.work("review") / "shown-x" / "copy.jpg"  # left by a page that was killed
    shown.parent.mkdir(parents=True)
    shown.write_bytes(b"a face")
    carry_out(world.store, plan(world.store, "ann", "alone.png"), TODAY)
    rows = manifest.read(world.work("scores"), "looks").rows
    assert {row.id for row in rows} == {"trained/near.png@close", "drawn/e0001/p01/s0001"}
    assert not shown.exists()


def test_what_only_the_person_can_remove_is_named(world: World, tmp_path: Path) -> None:
    folder, work = world.store.subject("ann"), world.work("collect").parent
    (folder / "people.yaml").write_text("alone.png#1: subject\nnear.png#1: subject\n")
    (folder / "photos.yaml").write_text("alone-small.png: drop\n")
    digests = {name: digest_file(world.photos / name) for name in ("alone.png", "near.png")}
    recall.exported(work, tmp_path / "both", digests.values(), TODAY)
    recall.exported(work, tmp_path / "near", [digests["near.png"]], TODAY)
    told = plan(world.store, "ann", "alone.png")
    assert list(told.exports) == [str(tmp_path / "both")]
    text = "\n".join(told.lines())
    assert f"sets for other trainers that hold it, to be removed by you:\n  {tmp_path / 'both'}\n" in text
    assert "people.yaml speaks of alone.png too" in text
    assert "photos.yaml speaks of alone-small.png too" in text
    assert "speaks of near.png" not in text
    assert list(plan(world.store, "ann").exports) == [str(tmp_path / "both"), str(tmp_path / "near")]


def test_a_subject_is_forgotten_whole_but_for_what_is_its_own(world: World) -> None:
    own = set(world.photos.iterdir())
    loras = [*world.store.work("ann", "fit").rglob("*.safetensors"), world.work("publish") / "zx1.safetensors"]
    digests = {digest_file(path) for path in loras}
    told = plan(world.store, "ann")
    carry_out(world.store, told, TODAY)
    assert not world.work("collect").parent.exists()
    assert set(world.photos.iterdir()) == own
    assert load(world.store, "ann").name == "ann"
    assert len(recall.forgotten(world.store.subject("ann"))) == len(own)
    line = json.loads((world.store.data / LOG).read_text())
    assert line["what"] == "subject"
    assert digests | {"c" * 64} < set(line["recall"])
    assert recall.recalled(run_of(world, BEAS, "bea")) is not None
    assert manifest.read(world.work("encode", "bea")).rows == ()
    rows = flow.take(STAGES[0], flow.work(world.store, "ann")).manifest.rows
    assert {(row.state, row.reason) for row in rows} == {("dropped", "forgotten on 2026-05-04")}


def test_a_forgetting_that_was_cut_off_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told = plan(world.store, "ann", "two.png")
    monkeypatch.setattr("lora_pipeline.forget.rewrite", killed)
    with pytest.raises(KeyboardInterrupt):
        carry_out(world.store, told, TODAY)
    monkeypatch.undo()
    assert planned_on(world)  # it can still be asked for
    (line,) = (world.store.data / LOG).read_text().splitlines()
    assert len(json.loads(line)["recall"]) == 8  # two epochs of three runs, the release and its copy
    carry_out(world.store, plan(world.store, "ann", "two.png"), TODAY)
    assert "work/ann/encode/manifest.parquet" not in left_of(world, "two.png")


def killed(*_: object) -> int:
    raise KeyboardInterrupt


def test_what_is_recalled_is_told_and_not_handed_out(world: World, tmp_path: Path) -> None:
    from lora_pipeline.summary import agreed

    (tmp_path / "ui" / "models" / "loras").mkdir(parents=True)
    work = flow.work(world.store, "ann")
    assert agreed(work) == "consent: Ann, 2026-01-01: tests (training)"
    carry_out(world.store, plan(world.store, "ann", "two.png"), TODAY)
    assert f"runs/{NEW[:16]}: recalled on 2026-05-04: it was trained on 1 photo that must be forgotten" in agreed(work)
    assert f"{work.folder('publish')}: recalled" in agreed(work)
    with pytest.raises(PipelineError, match="the released LoRA is recalled on 2026-05-04"):
        flow.place(work, tmp_path / "ui")
    save_file({"weight": np.ones(2, dtype=np.float16)}, world.work("publish") / "zx1.safetensors")  # the next release
    assert f"{work.folder('publish')}: recalled" not in agreed(work)


def test_the_terminal_shows_first_and_asks_for_yes(world: World) -> None:
    before = digest_tree(world.store.data)
    home = ["--home", str(world.store.data.parent)]
    shown = CliRunner().invoke(app, ["forget", "ann", "alone.png", *home])
    assert shown.exit_code == 0, shown.output
    assert "Nothing was removed. With --yes it is done" in shown.output
    assert digest_tree(world.store.data) == before
    done = CliRunner().invoke(app, ["forget", "ann", "alone.png", "--yes", *home])
    assert "Done: 8 files removed, 0 runs taken out of Dagster's log." in done.output
    assert recall.recalled(run_of(world, NEW)) is not None
    told = CliRunner().invoke(app, ["lineage", "ann", "1", *home])
    assert f"{run_of(world, NEW)}: recalled on {datetime.date.today()}" in told.output
    told = CliRunner().invoke(app, ["lineage", "ann", str(run_of(world, OLD) / "epoch-0001.safetensors"), *home])
    assert told.exit_code == 0
    assert "recalled" not in told.output


REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos (../shared/data) are not here")
def test_a_man_who_stands_beside_another_is_forgotten_on_both_photos(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    photos = REAL / "person_a" / "photos"
    consent = {"given_by": "public domain photographs", "given_on": "2026-01-01", "scope": "tests"}
    given = {"name": "a", "kind": "person", "photos": photos, "trigger": "zx1", "class": "man", "recipe": "sd15_person"}
    new(store, Subject.model_validate({**given, "consent": consent}))
    work = flow.work(store, "a")
    for step in STAGES[:3]:
        flow.take(step, work)
    told = plan(store, "a", face_of(World(store), "two_standing.jpg", "stranger", "a"))
    assert set(told.photos) == {"two_standing.jpg", "two_waving.jpg"}
    before = digest_tree(photos)
    carry_out(store, told, TODAY)
    assert digest_tree(photos) == before
    for step in STAGES[:3]:
        flow.take(step, work)
    assert set(decided_faces(work.folder("crop"))).isdisjoint(told.photos)
    assert "portrait_letterboxed_480.jpg" in plan(store, "a", "portrait.jpg").photos  # a copy of it


def test_hashes_and_days_alone_stand_in_the_list(tmp_path: Path) -> None:
    recall.keep_out(tmp_path, ["b" * 64, "a" * 64], TODAY)
    recall.keep_out(tmp_path, ["a" * 64], datetime.date(2027, 1, 1))
    assert recall.forgotten(tmp_path) == {"a" * 64: "2026-05-04", "b" * 64: "2026-05-04"}
    (tmp_path / "forgotten.txt").write_text("# mine\n\nIMG_1.jpg\n")
    with pytest.raises(SubjectError, match=r"forgotten\.txt, line 3: 'IMG_1\.jpg' is not a SHA-256 and a day"):
        recall.forgotten(tmp_path)


def test_nothing_to_recall_is_nothing(tmp_path: Path) -> None:
    assert Forgetting("ann", "photo", {}).to_recall == []
    assert recall.recalled(tmp_path) is None
