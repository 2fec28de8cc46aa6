"""The tab of the epochs: what it shows, and that a person's pick is written, honoured by the scores, and taken out again."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline import flow, manifest, subject
from lora_pipeline.errors import SubjectError
from lora_pipeline.flow import Work
from lora_pipeline.records import Checkpoint, File, Row, Score
from lora_pipeline.review import decide
from lora_pipeline.review.gather import grids, scores
from lora_pipeline.review.page import _decisions, _measured, _whose_choice
from lora_pipeline.stages.grade import Wanted, draw_grids, make_prompt_grids
from lora_pipeline.store import Store, digest_bytes, digest_file, write_text
from lora_pipeline.subject import FILE

MUG = """\
# a present from Ann
name: mug
kind: product
photos: photos
trigger: qz3
class: mug
recipe: sd15_product  # as the others
settings:
  # one seed will do
  grade: {seeds: [1], size_px: 64, max_copies: 1, max_damage: 100, other_prompts: [], prompts: ["{trigger} {class}", "a {class}"]}
  base: {model: BASE}
"""
LEARNT = (8, 60, 40)  # columns of 64 px that an epoch draws in the red of the mug


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """A product of three epochs, drawn and judged: the more of a picture is as the mug is, the better."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    base = tmp_path / "base"
    (base / "unet").mkdir(parents=True)
    (base / "unet" / "weights").write_text("one")
    store = Store(tmp_path / "data")
    (store.subject("mug") / "photos").mkdir(parents=True)
    write_text(store.subject("mug") / FILE, MUG.replace("BASE", str(base)))
    made = flow.work(store, "mug")
    rows: list[Row] = []
    for epoch, columns in enumerate(LEARNT, start=1):
        write_text(made.folder("fit") / f"{epoch}.safetensors", chr(columns))
        told = Checkpoint(epoch, "run", "set", loss=0.1, learning_rate=1e-4, images_seen=epoch)
        file = File(f"{epoch}.safetensors", digest_bytes(chr(columns).encode()))
        rows.append(Row(f"{epoch:04d}", f"{epoch}", data=told.data(), files={"lora": file}))
    checkpoints = manifest.write(made.folder("fit"), rows)
    made.folder("conceal").mkdir(parents=True)
    Image.new("RGB", (64, 64), (50, 0, 0)).save(made.folder("conceal") / "a.png")
    file = File("a.png", digest_file(made.folder("conceal") / "a.png"))
    manifest.write(made.folder("conceal"), [Row("a", "key", files={"picture": file})])

    def draw(lora: Path | None, wanted: Sequence[Wanted]) -> list[Image.Image | None]:
        picture = Image.new("RGB", (64, 64), (200, 0, 0))
        picture.paste((50, 0, 0), (0, 0, lora.read_bytes()[0] if lora else 0, 64))
        return [picture for _ in wanted]

    settings = made.settings
    drawn = draw_grids(checkpoints, made.folder("grids"), settings.grade, settings.base, ("qz3 mug", "a mug"), draw)
    make_prompt_grids(drawn.manifest, made.folder("grids"))
    flow.score(made)
    return made


def chosen(work: Work) -> Score:
    return next(one for one in scores(work) if one.chosen)


def test_the_grid_of_each_prompt_and_what_speaks_for_each_epoch_are_shown(work: Work) -> None:
    shown = grids(work)
    assert list(shown) == ["qz3 mug", "a mug"]
    assert all(path.stat().st_size > 500 for path in shown.values())
    judged = scores(work)
    assert [one.epoch for one in judged] == [0, 1, 2, 3]
    table = _decisions(judged)
    assert list(table["epoch"]) == ["base model", 1, 2, 3]
    assert list(table["chosen"]) == ["", "", "✓", "runner-up"]
    assert table["reason"][2] == chosen(work).reason
    assert list(_measured(judged).columns) == ["about", "measure", "base model", "epoch 1", "epoch 2", "epoch 3"]
    words = _whose_choice(judged, decide.picked(work))
    assert chosen(work).reason[1:] in words
    assert chosen(work).advice[1:] in words
    assert "by hand" not in words


def test_a_pick_is_written_honoured_by_the_scores_and_taken_out_again(work: Work) -> None:
    file = work.store.subject("mug") / FILE
    before = file.read_text()
    assert (chosen(work).epoch, decide.picked(work)) == (2, 0)

    decide.epoch(work, 1)
    assert file.read_text() == before.replace("grade: {seeds", "grade: {pick: 1, seeds")
    assert decide.by_hand(work).startswith("Decided by hand: epoch 1. ")
    assert "Picked by hand, and released by the next run: **epoch 1**." in _whose_choice(scores(work), 1)
    flow.score(flow.work(work.store, "mug"))
    assert (chosen(work).epoch, chosen(work).picked) == (1, True)
    assert chosen(work).role == "✓ picked by a person"

    decide.epoch(work, 3)
    assert file.read_text() == before.replace("grade: {seeds", "grade: {pick: 3, seeds")

    decide.epoch(work, None)
    assert file.read_text() == before
    assert "the rule chooses" in _whose_choice(scores(work), decide.picked(work))
    flow.score(flow.work(work.store, "mug"))
    assert (chosen(work).epoch, chosen(work).picked) == (2, False)


def test_a_pick_that_is_no_epoch_any_more_is_told(work: Work) -> None:
    decide.epoch(work, 7)
    assert "Epoch 7 is picked by hand, but there is none any more" in _whose_choice(scores(work), decide.picked(work))


def test_a_file_that_does_not_let_a_pick_in_is_left_alone(work: Work) -> None:
    file = work.store.subject("mug") / FILE
    head = file.read_text().partition("settings:")[0]
    shared = f"{head}settings:\n  curate: &few {{min_sharpness: 1}}\n  grade: *few\n"
    write_text(file, shared)
    with pytest.raises(SubjectError, match="write it by hand, under settings, grade: pick: 1"):
        decide.epoch(work, 1)
    assert file.read_text() == shared


def test_before_anything_is_drawn_the_tab_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    write_text(store.subject("mug") / FILE, MUG)
    fresh = flow.Work(store, subject.load(store, "mug"), flow.work(store, "mug").settings)
    assert (scores(fresh), grids(fresh)) == ((), {})
    assert _whose_choice((), 0).startswith("Nothing is judged yet")
    assert list(_decisions(()).columns) == ["epoch", "chosen", "likeness", "vetoes", "reason"]
    assert _measured(()).empty
