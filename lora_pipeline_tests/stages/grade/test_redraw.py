import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.errors import PipelineError
from lora_pipeline.families import family
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Checkpoint, File, Row
from lora_pipeline.settings import BaseSettings, GradeSettings
from lora_pipeline.stages.grade import Drawn, draw_grids, read_told, redraw
from lora_pipeline.store import digest_file

SETTINGS = GradeSettings(
    seeds=(1, 7), strengths=(0.5, 1.0), batch_size=3, size_px=64, sampling_steps=2, guidance_scale=3.0, negative_prompt="grau, \"é\""
)  # fmt: skip
PROMPTS = ("a photo of ohwx woman", "an oil painting of ohwx woman")


@pytest.fixture(scope="module")
def drawn(tiny_base: BaseSettings, random_lora, tmp_path_factory) -> tuple[Manifest, Path]:
    """The grid of one LoRA by the real pipeline, and that LoRA."""
    folder = tmp_path_factory.mktemp("fit")
    lora = random_lora(tiny_base, folder / "e0001.safetensors", 1)
    checkpoints = Manifest(folder, _one_checkpoint(lora))
    return draw_grids(checkpoints, tmp_path_factory.mktemp("grids"), SETTINGS, tiny_base, PROMPTS).manifest, lora


def _one_checkpoint(lora: Path) -> tuple[Row, ...]:
    record = Checkpoint(1, "run", "set", loss=0.2, learning_rate=1e-4, images_seen=10)
    return (Row("0001", "key", data=record.data(), files={"lora": File(lora.name, digest_file(lora))}),)


def test_every_cell_says_what_it_was_drawn_with_in_its_row_and_in_the_file(drawn, tiny_base) -> None:
    grids, lora = drawn
    assert len(grids.kept) == 12
    scheduler = json.loads((Path(tiny_base.model) / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    for row in grids.kept:
        told = read_told(grids.path(row))
        assert replace(told, epoch=Drawn.of(row).epoch) == Drawn.of(row)
        assert (told.negative_prompt, told.sampling_steps, told.guidance_scale, told.size_px) == (
            'grau, "é"',
            2,
            3.0,
            64,
        )
        assert (told.base, told.batch) == (family("sd15").digest(tiny_base), 3)
        assert told.scheduler.split(" ")[0] == scheduler
        assert len(told.scheduler.split(" ")[1]) == 16
    last = read_told(grids.path(grids.row("e0001/p02/s0007@0.5")))
    assert (last.prompt, last.seed, last.strength, last.checkpoint) == (PROMPTS[1], 7, 0.5, digest_file(lora))


@pytest.mark.parametrize("id", ["e0000/p01/s0001", "e0001/p02/s0007", "e0001/p02/s0007@0.5"])
def test_a_cell_is_drawn_again_to_the_pixel(drawn, tiny_base, id) -> None:
    grids, lora = drawn
    path = grids.path(grids.row(id))
    again = redraw(path, read_told(path), None if id.startswith("e0000") else lora, tiny_base)
    assert (again.differing, again.values, again.most) == (0, 64 * 64 * 3, 0)
    assert again.in_words() == "the same to the pixel (12288 values)"


def test_a_cell_of_another_sampler_is_drawn_again_by_it(drawn, tiny_base, tmp_path: Path) -> None:
    grids, lora = drawn
    checkpoints = Manifest(lora.parent, _one_checkpoint(lora))
    settings = SETTINGS.model_copy(update={"sampler": "euler_a", "strengths": (1.0,)})
    theirs = draw_grids(checkpoints, tmp_path, settings, tiny_base, PROMPTS).manifest
    path = theirs.path(theirs.row("e0001/p01/s0007"))
    told = read_told(path)
    assert (told.sampler, told.scheduler.split(" ")[0]) == ("euler_a", "EulerAncestralDiscreteScheduler")
    assert path.read_bytes() != grids.path(grids.row("e0001/p01/s0007")).read_bytes()
    assert redraw(path, told, lora, tiny_base).differing == 0
    own = draw_grids(checkpoints, tmp_path, SETTINGS.model_copy(update={"strengths": (1.0,)}), tiny_base, PROMPTS)
    assert own.report.computed == len(theirs.rows)  # another sampler is another picture


def test_what_differs_is_counted(drawn, tiny_base, tmp_path: Path) -> None:
    grids, lora = drawn
    path = grids.path(grids.row("e0001/p01/s0001"))
    told = read_told(path)
    values = np.asarray(Image.open(path)).copy()
    values[3, 4] = 255 - values[3, 4]
    Image.fromarray(values).save(tmp_path / "touched.png")
    again = redraw(tmp_path / "touched.png", told, lora, tiny_base)
    assert 0 < again.differing <= 3
    assert "not the same" in again.in_words()
    assert redraw(path, replace(told, seed=8), lora, tiny_base).differing > 1000
    assert redraw(path, replace(told, strength=0.9), lora, tiny_base).differing > 1000
    other = replace(redraw(path, replace(told, seed=8), lora, tiny_base), scheduler="EulerDiscreteScheduler 1")
    assert "the scheduler is another (EulerDiscreteScheduler 1; it was DDIMScheduler" in other.in_words()


def test_another_base_model_is_told(drawn, tiny_base) -> None:
    grids, _ = drawn
    path = grids.path(grids.row("e0000/p01/s0001"))
    with pytest.raises(PipelineError, match="another base model"):
        redraw(path, read_told(path), None, tiny_base.model_copy(update={"clip_skip": 2}))


def test_a_picture_that_says_nothing_is_told(drawn, tmp_path: Path) -> None:
    grids, _ = drawn
    silent = tmp_path / "silent.png"
    picture = Image.open(grids.path(grids.row("e0000/p01/s0001")))
    picture.info = {}
    picture.save(silent)
    (tmp_path / "words.png").write_text("no picture")
    for path in (silent, tmp_path / "words.png"):
        with pytest.raises(PipelineError, match="does not say how it was drawn"):
            read_told(path)
