"""The flow's part in grading: prompts of the settings' places, the page, and a picture drawn again by its id or file."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline import flow, manifest, subject
from lora_pipeline.assets.grade import _by_llm
from lora_pipeline.errors import PipelineError, SettingsError
from lora_pipeline.pictures import save
from lora_pipeline.records import Checkpoint, File, Row, Score
from lora_pipeline.settings import BaseSettings, Settings
from lora_pipeline.stages.grade import STRENGTHS, Strength, draw_grids
from lora_pipeline.store import Store, digest_file
from lora_pipeline.subject import Subject

GRADE = {
    "prompts_file": "mine.txt",
    "negative_prompt": "hats",
    "seeds": [1],
    "strengths": [0.5, 1],
    "other_prompts": [],
    "size_px": 64,
    "sampling_steps": 2,
    "batch_size": 2,
}


@pytest.fixture(scope="module")
def work(tiny_base: BaseSettings, random_lora, tmp_path_factory) -> flow.Work:
    """A person with one checkpoint, drawn."""
    home = tmp_path_factory.mktemp("home")
    (home / "photos").mkdir()
    consent = {"given_by": "nobody", "given_on": "2026-01-01", "scope": "drawn"}
    given = {"name": "ann", "kind": "person", "photos": home / "photos", "trigger": "ohwx", "class": "woman"}
    settings = {"base": {"family": "sd15", "model": tiny_base.model}, "grade": GRADE}
    store = Store(home / "data")
    subject.new(
        store, Subject.model_validate({**given, "recipe": "sd15_person", "consent": consent, "settings": settings})
    )
    (store.subject("ann") / "mine.txt").write_text("a photo of {trigger} {class}\n")
    made = flow.work(store, "ann")
    lora = random_lora(tiny_base, made.folder("fit") / "runs" / "one" / "e0001.safetensors", 1)
    record = Checkpoint(1, "run", "set", loss=0.2, learning_rate=1e-4, images_seen=10)
    files = {"lora": File("runs/one/e0001.safetensors", digest_file(lora))}
    manifest.write(made.folder("fit"), [Row("0001", "key", data=record.data(), files=files)])
    flow.draw(made)
    return made


def test_the_pictures_are_those_of_the_persons_file(work) -> None:
    grids = work.made("grids")
    assert [row.id for row in grids.kept] == ["e0000/p01/s0001", "e0001/p01/s0001", "e0001/p01/s0001@0.5"]
    assert {(row.data["prompt"], row.data["negative_prompt"]) for row in grids.kept} == {
        ("a photo of ohwx woman", "hats")
    }
    for file in ("grid.png", "by_prompt/p01.png", "index.html"):
        assert (grids.folder / file).exists()
    with manifest.planning():
        flow.draw(work)  # nothing is left to do


def test_a_lists_own_negative_prompt_is_drawn_away_from(work, tmp_path: Path) -> None:
    own = {"prompts_file": "", "prompt_list": "portraits", "negative_prompt": "", "strengths": [1], "batch_size": 20}
    settings = work.settings.changed({"grade": {**own, "sampling_steps": 1}}, "test")
    portraits = flow.Work(Store(shutil.copytree(work.store.data, tmp_path / "data")), work.subject, settings)
    rows = flow.draw(portraits).manifest.rows
    assert len(rows) == 2 * 20
    assert all("extra fingers" in row.data["negative_prompt"] for row in rows)
    assert rows[0].data["prompt"].startswith("studio portrait of ohwx woman, facing the camera")
    assert flow._as_used(portraits).grade.negative_prompt == rows[0].data["negative_prompt"]  # as the card tells it
    assert flow._as_used(work) == work.settings


def test_prompts_by_a_language_model_are_drawn_and_nobody_is_asked_twice(work, chat, tmp_path: Path) -> None:
    chat.answers = ["1. {trigger} {class} in the rain\n2. a statue of {trigger} {class}"]
    grade = {"llm_prompts": 2, "strengths": [1], "sampling_steps": 1, "other_prompts": ["a {class}"]}
    describe = {"llm_address": chat.address, "llm_model": "poet", "llm_price_in": 10.0}
    settings = work.settings.changed({"grade": grade, "describe": describe}, "test")
    asking = flow.Work(Store(shutil.copytree(work.store.data, tmp_path / "data")), work.subject, settings)
    with manifest.planning(), pytest.raises(manifest.Stale):
        flow.draw(asking)
    assert chat.asked == []
    drawn = ["a photo of ohwx woman", "ohwx woman in the rain", "a statue of ohwx woman", "a woman"]
    for _ in range(2):
        rows = flow.draw(asking).manifest.rows
        assert [row.data["prompt"] for row in rows] == drawn * 2
    (question,) = chat.asked
    (message,) = question["messages"]
    assert isinstance(message["content"], str)  # no picture
    for sent in ("ohwx", "woman", "a photo of {trigger} {class}"):
        assert sent in message["content"]
    with manifest.planning():
        flow.draw(asking)
    shown = _by_llm(asking)
    assert [dict(row.data) for row in shown["prompts by a language model"].records] == [
        {"prompt": "{trigger} {class} in the rain"},
        {"prompt": "a statue of {trigger} {class}"},
    ]
    assert (shown["requests to the language model"], shown["cost"]) == (1, 0.001)
    assert _by_llm(work) == {}

    outside = settings.changed({"describe": {"llm_address": "http://llm.example/v1"}}, "test")
    with pytest.raises(SettingsError, match="words and key would go there unencrypted: write https://"):
        flow.draw(flow.Work(asking.store, work.subject, outside))


def test_a_picture_is_drawn_again_by_its_id_or_by_a_copy_of_its_file(work, tmp_path: Path) -> None:
    grids = work.made("grids")
    assert flow.redraw(work, "e0001/p01/s0001@0.5").differing == 0
    copy = shutil.copy(grids.path(grids.row("e0001/p01/s0001")), tmp_path / "from a mail.png")
    shutil.move(
        work.folder("fit") / "manifest.parquet", tmp_path / "gone"
    )  # of an earlier run, whose file is still there
    try:
        assert flow.redraw(work, str(copy)).differing == 0
    finally:
        shutil.move(tmp_path / "gone", work.folder("fit") / "manifest.parquet")
    assert not (grids.folder / "redrawn").exists()


def test_what_comes_out_otherwise_is_kept_to_be_looked_at(work, tmp_path: Path) -> None:
    from PIL import PngImagePlugin

    grids = work.made("grids")
    with Image.open(grids.path(grids.row("e0000/p01/s0001"))) as picture:
        told = PngImagePlugin.PngInfo()
        told.add_itxt("lora_pipeline", picture.text["lora_pipeline"])
        picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(tmp_path / "turned.png", pnginfo=told)
    assert flow.redraw(work, str(tmp_path / "turned.png")).differing > 1000
    assert (grids.folder / "redrawn" / "turned.png").exists()


def test_what_is_not_there_is_told(work, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no validation picture 'e0001/p01/s0002'.*did you mean e0001/p01/s0001"):
        flow.redraw(work, "e0001/p01/s0002")
    copy = shutil.copytree(work.store.data, tmp_path / "data")
    lost = flow.Work(Store(copy), work.subject, work.settings)
    for file in lost.folder("fit").rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(PipelineError, match="is in no run of ann any more"):
        flow.redraw(lost, "e0001/p01/s0001")


@pytest.fixture
def dino(tmp_path: Path) -> Path:
    """DINOv2's real class at no size."""
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(config).save_pretrained(tmp_path / "dino")
    small = {"height": 28, "width": 28}
    BitImageProcessor(size={"shortest_edge": 28}, crop_size=small).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"


@pytest.mark.slow
def test_strengths_of_a_pet_are_measured_by_what_its_epochs_are(
    dino: Path, checkpoints, painter, base, tmp_path: Path
) -> None:
    rex = Subject(
        name="rex", kind="pet", photos=tmp_path, trigger="zx1", class_word="dog", recipe="sd15_pet", consent=None
    )
    grade = {"dino_model": str(dino), "strengths": (0.5, 1), "size_px": 64, "sampling_steps": 1, "max_copies": 1.0}
    made = flow.Work(Store(tmp_path / "data"), rex, Settings().changed({"grade": grade}, "test"))
    checkpoints([40])
    shutil.copytree(tmp_path / "fit", made.folder("fit"))
    prompts = ["a photo of zx1 dog", "zx1 dog on a beach"]
    grids = draw_grids(made.made("fit"), made.folder("grids"), made.settings.grade, base, prompts, painter).manifest
    picture = made.folder("conceal") / "a.png"
    save(Image.new("RGB", (64, 64), (30, 90, 160)), picture)
    row = Row("a.jpg", "k", data={"photo": "a.jpg"}, files={"picture": File("a.png", digest_file(picture))})
    manifest.write(made.folder("conceal"), [row])
    base_model, epoch = (Score.of(row) for row in flow.score(made).manifest.rows)
    told = {one.strength: one for one in map(Strength.of, manifest.read(made.folder("scores"), STRENGTHS).rows)}
    assert told.keys() == {0, 0.5, 1}
    assert told[0].identity_distance == pytest.approx(base_model.picture_distance, abs=1e-4)
    assert told[1].identity_distance == pytest.approx(epoch.picture_distance, abs=1e-4)
    assert len({one.identity_distance for one in told.values()}) == 3
    assert {one.faces_found for one in told.values()} == {1.0}
    assert len(grids.kept) == 2 * 2 * 3
