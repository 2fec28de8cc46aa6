import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_pipeline import manifest
from lora_pipeline.errors import ModelError, PipelineError
from lora_pipeline.families import family
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import File
from lora_pipeline.settings import BaseSettings, GradeSettings
from lora_pipeline.stages.grade import Drawn, Wanted, draw_grids
from lora_pipeline.stages.grade.draw import through
from lora_pipeline.store import digest_file

SETTINGS = GradeSettings(seeds=(1, 2), batch_size=3, size_px=64, sampling_steps=4, guidance_scale=3.0)
PROMPTS = ("a photo of ohwx woman", "an oil painting of ohwx woman")


def test_every_epoch_and_the_base_draw_every_prompt_from_every_seed(checkpoints, painter, base, tmp_path: Path) -> None:
    made = draw_grids(checkpoints([100, 90]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    assert [row.id for row in made.manifest.rows] == [
        f"e{epoch:04d}/p{prompt:02d}/s{seed:04d}" for epoch in (0, 1, 2) for prompt in (1, 2) for seed in (1, 2)
    ]
    assert made.report.computed == 12
    row = made.manifest.row("e0002/p02/s0001")
    digest = checkpoints([100, 90]).row("0002").files["lora"].digest
    how = {"sampling_steps": 4, "guidance_scale": 3.0, "size_px": 64, "batch": 3, "scheduler": "PlainScheduler 0123"}
    assert Drawn.of(row) == Drawn(2, PROMPTS[1], 1, digest, 1.0, **how, base=family("sd15").digest(base))
    with Image.open(made.manifest.path(row)) as picture:
        assert picture.getpixel((0, 0)) == (90, sum(PROMPTS[1].encode()) % 256, 1)
    control = Drawn.of(made.manifest.row("e0000/p01/s0001"))
    assert (control.checkpoint, control.strength) == ("", 0.0)


def test_prompts_may_have_noises_of_their_own(checkpoints, painter, base, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"seeds_apart": 100})
    made = draw_grids(checkpoints([100]), tmp_path / "grids", settings, base, PROMPTS, painter)
    ids = [row.id for row in made.manifest.rows if row.id.startswith("e0001")]
    assert ids == ["e0001/p01/s0001", "e0001/p01/s0002", "e0001/p02/s0101", "e0001/p02/s0102"]
    assert Drawn.of(made.manifest.row(ids[2])).seed == 101
    assert ("e0001.safetensors", PROMPTS[1], 101) in {
        (lora, one.prompt, one.seed) for lora, wanted in painter.calls for one in wanted
    }


def test_batches_hold_one_epoch_and_at_most_so_many(checkpoints, painter, base, tmp_path: Path) -> None:
    draw_grids(checkpoints([100, 90]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    assert [(lora, len(wanted)) for lora, wanted in painter.calls] == [
        (lora, size) for lora in ("base", "e0001.safetensors", "e0002.safetensors") for size in (3, 1)
    ]


def test_a_rerun_draws_nothing(checkpoints, painter, base, tmp_path: Path) -> None:
    first = draw_grids(checkpoints([100, 90]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    painter.calls.clear()
    again = draw_grids(checkpoints([100, 90]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    assert painter.calls == []
    assert (again.report.computed, again.report.reused) == (0, 12)
    assert again.manifest.digest == first.manifest.digest


@pytest.mark.parametrize(
    ("reds", "prompts", "changes", "drawn"),
    [
        ([100, 90, 80], PROMPTS, {}, {("e0003.safetensors", prompt, seed) for prompt in PROMPTS for seed in (1, 2)}),
        ([100, 91], PROMPTS, {}, {("e0002.safetensors", prompt, seed) for prompt in PROMPTS for seed in (1, 2)}),
        (
            [100, 90],
            (*PROMPTS, "new"),
            {},
            {(lora, "new", seed) for lora in ("base", "e0001.safetensors", "e0002.safetensors") for seed in (1, 2)},
        ),
        (
            [100, 90],
            ("new", *PROMPTS),
            {},
            {(lora, "new", seed) for lora in ("base", "e0001.safetensors", "e0002.safetensors") for seed in (1, 2)},
        ),
        ([100, 90], PROMPTS[::-1], {}, set()),
        (
            [100, 90],
            PROMPTS,
            {"seeds": (7, 1, 2)},
            {(lora, prompt, 7) for lora in ("base", "e0001.safetensors", "e0002.safetensors") for prompt in PROMPTS},
        ),
        ([100, 90], PROMPTS, {"overfit_tolerance": 0.5}, set()),
        (
            [100, 90],
            PROMPTS,
            {"strengths": (0.5, 1.0)},
            {
                (lora, prompt, seed)
                for lora in ("e0001.safetensors", "e0002.safetensors")
                for prompt in PROMPTS
                for seed in (1, 2)
            },
        ),
    ],
    ids=[
        "new epoch",
        "other checkpoint",
        "new prompt last",
        "new prompt first",
        "prompts reordered",
        "new seed",
        "a setting that changes no picture",
        "new strength",
    ],
)
def test_a_change_draws_just_what_is_new(
    checkpoints, painter, base, tmp_path: Path, reds, prompts, changes, drawn
) -> None:
    draw_grids(checkpoints([100, 90]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    painter.calls.clear()
    settings = SETTINGS.model_copy(update=changes)
    made = draw_grids(checkpoints(reds), tmp_path / "grids", settings, base, prompts, painter)
    assert set(painter.pictures) == drawn
    assert len(painter.pictures) == len(drawn)
    anew = draw_grids(checkpoints(reds), tmp_path / "anew", settings, base, prompts, painter)
    assert made.manifest.digest == anew.manifest.digest  # as if it had always been so


def test_other_batches_draw_nothing_anew(checkpoints, painter, base, tmp_path: Path) -> None:
    draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    single = SETTINGS.model_copy(update={"batch_size": 1})
    again = draw_grids(checkpoints([100]), tmp_path / "grids", single, base, PROMPTS, painter)
    assert again.report.computed == 0
    assert {row.data["batch"] for row in again.manifest.rows} == {3}  # as they were drawn


def test_the_memo_keys_are_those_of_before_strengths(checkpoints, painter, base, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"strengths": (1.0, 0.5)})
    made = draw_grids(checkpoints([100]), tmp_path / "grids", settings, base, PROMPTS, painter).manifest
    lora = checkpoints([100]).row("0001").files["lora"].digest
    inputs = [lora, PROMPTS[1], 2, "", 4, 3.0, 64, family("sd15").digest(base)]
    assert made.row("e0001/p02/s0002").key == manifest.key_of(inputs, None, "1")
    assert made.row("e0001/p02/s0002@0.5").key == manifest.key_of([*inputs, 0.5], None, "1")


def test_strengths_are_drawn_one_after_the_other_and_the_base_once(checkpoints, painter, base, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"strengths": (1.0, 0.5)})
    made = draw_grids(checkpoints([100]), tmp_path / "grids", settings, base, PROMPTS, painter).manifest
    assert [row.id for row in made.rows if "/p01/" in row.id] == [
        *("e0000/p01/s0001", "e0000/p01/s0002"),
        *("e0001/p01/s0001", "e0001/p01/s0001@0.5", "e0001/p01/s0002", "e0001/p01/s0002@0.5"),
    ]
    assert [(lora, {one.strength for one in wanted}) for lora, wanted in painter.calls] == [
        *[("base", {0.0})] * 2,
        *[("e0001.safetensors", {1.0})] * 2,
        *[("e0001.safetensors", {0.5})] * 2,
    ]
    reds = {
        id: Image.open(made.path(made.row(id))).getpixel((0, 0))[0]
        for id in ("e0000/p01/s0001", "e0001/p01/s0001@0.5", "e0001/p01/s0001")
    }
    assert list(reds.values()) == [200, 150, 100]


def test_pictures_of_others_are_drawn_as_trained_alone(checkpoints, painter, base, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"strengths": (1.0, 0.5)})
    made = draw_grids(
        checkpoints([100]), tmp_path / "grids", settings, base, PROMPTS, painter, others={PROMPTS[1]}
    ).manifest
    strong = {row.id.split("/")[1] for row in made.rows if "@" in row.id}
    assert strong == {"p01"}
    assert [row.id for row in made.rows if "/p02/" in row.id and "/s0001" in row.id] == [
        "e0000/p02/s0001",
        "e0001/p02/s0001",
    ]
    assert {one.prompt for _, wanted in painter.calls for one in wanted if one.strength == 0.5} == {PROMPTS[0]}


def test_a_run_that_is_stopped_in_the_midst_goes_on_where_it_was(checkpoints, painter, base, tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    def until_the_fourth_batch(lora, wanted):
        if len(painter.calls) == 3:
            raise Stopped
        return painter(lora, wanted)

    grids = tmp_path / "grids"
    with pytest.raises(Stopped):
        draw_grids(checkpoints([100, 90]), grids, SETTINGS, base, PROMPTS, until_the_fourth_batch)
    done = painter.pictures
    painter.calls.clear()
    made = draw_grids(checkpoints([100, 90]), grids, SETTINGS, base, PROMPTS, painter)
    assert (len(done), made.report.reused, made.report.computed) == (7, 7, 5)  # batches of 3 and 1
    assert not set(done) & set(painter.pictures)
    anew = draw_grids(checkpoints([100, 90]), tmp_path / "anew", SETTINGS, base, PROMPTS, painter)
    assert made.manifest.digest == anew.manifest.digest


@pytest.mark.parametrize(
    "change", [{"guidance_scale": 5.0}, {"sampling_steps": 5}, {"negative_prompt": "blurred"}, {"size_px": 72}]
)
def test_a_setting_of_the_picture_draws_all_anew(checkpoints, painter, base, tmp_path: Path, change) -> None:
    draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    assert (
        draw_grids(
            checkpoints([100]), tmp_path / "grids", SETTINGS.model_copy(update=change), base, PROMPTS, painter
        ).report.computed
        == 8
    )


def test_another_base_model_draws_all_anew(checkpoints, painter, base, tmp_path: Path) -> None:
    draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    (Path(base.model) / "unet" / "weights").write_text("two")
    assert draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter).report.computed == 8


def test_a_deleted_picture_and_a_gone_epoch_are_mended(checkpoints, painter, base, tmp_path: Path) -> None:
    made = draw_grids(checkpoints([100, 90]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    lost = made.manifest.path(made.manifest.row("e0001/p02/s0002"))
    lost.unlink()
    painter.calls.clear()
    again = draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    assert painter.pictures == [("e0001.safetensors", PROMPTS[1], 2)]
    assert lost.exists()
    assert not list((tmp_path / "grids").rglob("e0002/*/*.png"))
    assert again.report.reused == 7


def test_a_run_away_epoch_becomes_failed_rows_and_the_others_are_drawn(
    checkpoints, painter, base, tmp_path: Path
) -> None:
    made = draw_grids(checkpoints([255, 90]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    assert [row.id for row in made.manifest.rows if row.state == "failed"] == [
        f"e0001/p{p:02d}/s{s:04d}" for p in (1, 2) for s in (1, 2)
    ]
    assert "not finite" in made.manifest.row("e0001/p01/s0001").reason
    assert len(painter.calls) == 6  # a batch that failed is not drawn again for each of its pictures


def test_no_checkpoints_is_told_in_words(checkpoints, painter, base, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="train first"):
        draw_grids(checkpoints([]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)


def test_planning_draws_nothing(checkpoints, painter, base, tmp_path: Path) -> None:
    with manifest.planning(), pytest.raises(manifest.Stale) as stale:
        draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    assert len(stale.value.would) == 8
    assert painter.calls == []


def test_a_rerun_imports_no_torch(checkpoints, painter, base, tmp_path: Path) -> None:
    draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    code = f"""
import sys
from pathlib import Path
from lora_pipeline import manifest
from lora_pipeline.settings import BaseSettings, GradeSettings
from lora_pipeline.stages.grade import draw_grids
made = draw_grids(manifest.read(Path({str(tmp_path / "fit")!r})), Path({str(tmp_path / "grids")!r}),
    GradeSettings.model_validate_json({SETTINGS.model_dump_json()!r}), BaseSettings(model={base.model!r}), {PROMPTS!r})
print(made.report.computed, made.report.reused, *{{"torch", "diffusers", "transformers", "matplotlib"}} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        "0",
        "8",
    ]


def test_the_real_pipeline_draws_the_same_picture_alone_and_in_a_batch(tiny_base: BaseSettings, tmp_path: Path) -> None:
    draw = through(tiny_base, SETTINGS, at_once=4)
    wanted = [Wanted(prompt, seed) for prompt in PROMPTS for seed in (1, 2)]
    together = [np.asarray(picture).astype(int) for picture in draw(None, wanted) if picture is not None]
    assert len(together) == 4
    assert np.abs(together[0] - together[1]).mean() > 1  # seeds differ
    for one, picture in zip(wanted, together, strict=True):
        (alone,) = draw(None, [one])
        assert np.array_equal(np.asarray(alone), picture)


def test_the_real_pipeline_puts_a_lora_on_and_takes_it_off(
    tiny_base: BaseSettings, random_lora, tmp_path: Path
) -> None:
    one_lora, other_lora = (
        random_lora(tiny_base, tmp_path / "one_lora.safetensors", 1),
        random_lora(tiny_base, tmp_path / "other_lora.safetensors", 2),
    )
    draw, wanted = through(tiny_base, SETTINGS), [Wanted(PROMPTS[0], 1)]
    drawn = [np.asarray(draw(lora, wanted)[0]).astype(int) for lora in (None, one_lora, other_lora, one_lora, None)]
    assert np.array_equal(drawn[0], drawn[4])
    assert np.array_equal(drawn[1], drawn[3])
    for other in drawn[:1] + drawn[2:3]:
        assert np.abs(drawn[1] - other).mean() > 1


@pytest.mark.parametrize("texts", [False, True])
def test_a_strength_is_set_without_loading_anything_anew(
    tiny_base: BaseSettings, random_lora, tmp_path: Path, monkeypatch, texts
) -> None:
    lora = random_lora(tiny_base, tmp_path / "lora.safetensors", 1, texts=texts)
    plug, opened = type(family("sd15")), []
    for name in ("pipeline", "load_lora"):
        true = getattr(plug, name)
        monkeypatch.setattr(plug, name, lambda *given, name=name, true=true: (opened.append(name), true(*given))[1])
    draw = through(tiny_base, SETTINGS)
    base, full, half, none, again = (
        np.asarray(draw(path, [Wanted(PROMPTS[0], 1, strength)])[0]).astype(int)
        for path, strength in ((None, 0.0), (lora, 1.0), (lora, 0.5), (lora, 0.0), (lora, 1.0))
    )
    assert opened == ["pipeline", "load_lora"]
    assert np.abs(none - base).max() <= 1
    assert np.array_equal(again, full)
    assert min(np.abs(half - base).mean(), np.abs(half - full).mean()) > 1


def test_the_text_encoders_part_is_put_on_and_taken_off_too(
    tiny_base: BaseSettings, random_lora, tmp_path: Path
) -> None:
    denoiser, both = (
        random_lora(tiny_base, tmp_path / f"{texts}.safetensors", 1, texts=texts) for texts in (False, True)
    )
    draw, wanted = through(tiny_base, SETTINGS), [Wanted(PROMPTS[0], 1)]
    drawn = [np.asarray(draw(lora, wanted)[0]).astype(int) for lora in (None, both, denoiser, both, None)]
    assert np.array_equal(drawn[0], drawn[4])
    assert np.array_equal(drawn[1], drawn[3])
    assert np.abs(drawn[1] - drawn[2]).mean() > 1


def test_clip_skip_draws_the_base_otherwise_too(checkpoints, painter, base, tiny_base, tmp_path: Path) -> None:
    wanted = [Wanted(PROMPTS[0], 1)]
    drawn = [
        np.asarray(through(tiny_base.model_copy(update={"clip_skip": skip}), SETTINGS)(None, wanted)[0]).astype(int)
        for skip in (1, 2)
    ]
    assert np.abs(drawn[0] - drawn[1]).mean() > 0.1
    draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS, painter)
    skipping = base.model_copy(update={"clip_skip": 2})
    again = draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, skipping, PROMPTS, painter)
    assert again.report.computed == 8


def test_a_base_model_that_cannot_be_opened_is_told_and_nothing_is_remembered(
    checkpoints, base, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="model_index"):
        draw_grids(checkpoints([100]), tmp_path / "grids", SETTINGS, base, PROMPTS)
    assert manifest.read(tmp_path / "grids").rows == ()


def test_an_epoch_whose_file_is_damaged_fails_alone(
    tiny_base: BaseSettings, random_lora, checkpoints, tmp_path: Path
) -> None:
    made = checkpoints([1, 2])
    whole = random_lora(tiny_base, made.path(made.row("0002"), "lora"), 1)
    rows = [made.row("0001"), replace(made.row("0002"), files={"lora": File(whole.name, digest_file(whole))})]
    outcome = draw_grids(Manifest(made.folder, tuple(rows)), tmp_path / "grids", SETTINGS, tiny_base, PROMPTS)
    assert {row.id[:5] for row in outcome.manifest.rows if row.state == "failed"} == {"e0001"}
    assert outcome.report.failed == 4
    again = draw_grids(Manifest(made.folder, tuple(rows)), tmp_path / "grids", SETTINGS, tiny_base, PROMPTS)
    assert (again.report.computed, again.report.reused) == (4, 8)
