"""What the scores' tables show."""

from dataclasses import replace
from pathlib import Path

from lora_pipeline.assets.grade import _HOW, _how, _measures
from lora_pipeline.assets.publish import _why
from lora_pipeline.flow import Work
from lora_pipeline.manifest import Manifest, write
from lora_pipeline.records import Measure, Row, Score
from lora_pipeline.settings import Settings
from lora_pipeline.stages.grade import Drawn
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject

NEAR = Measure("identity distance", "likeness", "less", 0.2145, 0.2, 0.38, base=0.51, ceiling=0.18)
SHARP = Measure("sharpness", "damage", "same", 869.0, base=652.0)


def test_a_measure_is_a_row_with_its_interval_its_control_and_its_ceiling() -> None:
    base = Score(0, 0.51, 1.0, measures=(replace(NEAR, value=0.51, low=None, high=None), replace(SHARP, value=652.0)))
    shown = _measures([base, Score(1, 0.2145, 1.0, measures=(NEAR, SHARP, replace(SHARP, name="noise", value=None)))])
    assert [dict(record.data) for record in shown.records] == [
        {
            "about": "likeness",
            "measure": "identity distance",
            "better": "↓ less",
            "base model": "0.51",
            "epoch 1": "0.214 (0.2 to 0.38)",
            "ceiling": "0.18",
        },
        {
            "about": "damage",
            "measure": "sharpness",
            "better": "= as the base model",
            "base model": "652",
            "epoch 1": "869",
            "ceiling": "",
        },
        {
            "about": "damage",
            "measure": "noise",
            "better": "= as the base model",
            "base model": "",
            "epoch 1": "",
            "ceiling": "",
        },
    ]


def test_who_chose_is_told() -> None:
    score = Score(1, 0.2, 1.0)
    assert score.role == ""
    assert replace(score, runner_up=True).role == "runner-up"
    assert replace(score, chosen=True).role == "✓"
    assert replace(score, chosen=True, picked=True).role == "✓ picked by a person"


def test_what_a_grid_was_drawn_with_is_told() -> None:
    drawn = [
        Drawn(1, "a woman", seed, "f", strength, "hats", 25, 7.0, 512, "DDIM 01")
        for seed in (1, 2)
        for strength in (0.5, 1.0)
    ]
    rows = [Row(f"e0001/p01/s000{one.seed}@{one.strength:g}", "k", data=one.data()) for one in drawn]
    other = Row("e0001/p10/s0009", "k", data=Drawn(1, "a man", 9, "f").data())
    assert dict(zip(_HOW, _how("p01", Manifest(Path(), (*rows, other))), strict=True)) == {
        "seeds": "1, 2",
        "strengths": "0.5, 1",
        "steps": 25,
        "guidance": 7.0,
        "size (px)": 512,
        "scheduler": "DDIM 01",
        "negative prompt": "hats",
    }
    assert _how("p02", Manifest(Path(), (other,))) == ("",) * 7  # none of its pictures could be drawn


def test_a_release_shows_which_epoch_it_is_and_who_chose_it(tmp_path: Path) -> None:
    dog = Subject(name="rex", kind="pet", photos=tmp_path, trigger="zx1", class_word="dog", recipe="sd15_pet")
    work = Work(Store(tmp_path), dog, Settings())
    assert _why(work) == {}
    scores = [
        Score(1, 0.2, 1.0),
        Score(2, 0.3, 1.0, chosen=True, picked=True, reason="epoch 2 is chosen: a person did"),
    ]
    work.folder("scores").mkdir(parents=True)
    write(work.folder("scores"), [Row(f"{one.epoch:04d}", "k", data=one.data()) for one in scores])
    assert _why(work) == {"epoch": 2, "chosen by": "a person", "why": "epoch 2 is chosen: a person did"}
