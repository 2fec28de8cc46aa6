"""The benchmark of the choice: its truth tells a drawn subject from strangers, and its numbers are the formulas'."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.choice import truth
from benchmarks.choice.ask import compared, regret, said, standard_error, table
from benchmarks.choice.runs import ALONE, ANN, BEA, CLASS_WORD, FEW, RUNS, TRIGGER, Run, given, prepare
from benchmarks.choice.truth import Judged, Ruler, fresh_prompts, judge
from lora_pipeline.demo.faces import descriptor
from lora_pipeline.demo.photos import subject_identity, subject_truth
from lora_pipeline.demo.world import Scene, draw
from lora_pipeline.flow import Work, work
from lora_pipeline.manifest import write
from lora_pipeline.recipes import bundled_person
from lora_pipeline.records import Row, Score
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject


def judged(epoch: int, *pictures: float) -> Judged:
    return Judged(epoch, pictures, (1.0,) * len(pictures))


def test_regret_is_a_share_of_the_range() -> None:
    assert regret([0.1, 0.5, 0.4], 1) == 0
    assert regret([0.1, 0.5, 0.4], 2) == pytest.approx(0.25)
    assert regret([0.1, 0.5, 0.4], 0) == 1
    assert regret([0.3, 0.3], 0) == regret([0.3], 0) == 0


def test_a_run_is_broken_if_no_epoch_is_surely_better_than_the_base_model() -> None:
    base = judged(0, 0.0, 0.1, 0.0, 0.1)
    assert standard_error(judged(1, 0.4, 0.1, 0.0, 0.1), base) == pytest.approx(0.1)  # 0.4, 0, 0, 0: 0.2 / sqrt(4)
    assert said(base, [judged(1, 0.4, 0.1, 0.0, 0.1)]) == "broken"  # 0.1 better, 0.1 the standard error
    assert said(base, [judged(1, 0.4, 0.1, 0.0, 0.1), judged(2, 0.3, 0.4, 0.3, 0.2)]) == "good"  # 0.25 better
    assert said(base, [judged(1, 0.3, 0.3, 0.3, 0.2)]) == "poor"
    assert said(base, [base]) == said(judged(0, 0.5, 0.5), [judged(1, 0.0, 0.1)]) == "broken"


def test_the_choice_stands_beside_the_truth() -> None:
    scores = [
        Score(0, 0.5, 1.0),
        Score(1, 0.3, 1.0, chosen=True, reason="epoch 1 is chosen", advice="stop"),
        Score(2, 0.2, 1.0, vetoes=("copies",)),
    ]
    rows = [Row(f"{one.epoch:04d}", "k", data={**one.data(), "learned": one.epoch > 0}) for one in scores]
    epochs = [judged(0, 0.1, 0.1), judged(1, 0.4, 0.4), Judged(2, (0.8, 0.8), (1.0, 0.5)), judged(3, 0.2, 0.2)]
    rows.append(Row("0003", "k", data={**Score(3, 0.25, 1.0).data(), "learned": True}))
    told = compared(epochs, rows)
    assert told["truth, the base model first"] == [0.1, 0.4, 0.6, 0.2]
    assert (told["chosen"], told["best"], told["regret"]) == (1, 2, 0.5)
    assert (told["truth says"], told["called broken"]) == ("good", False)
    assert told["vetoes"] == {"2": ["copies"]}
    row = {"run": "plain", "subject": 30, **told}
    assert "| plain | 30 | 3 | 0.100 | 1 | 0.400 | 2 | 0.600 | 50.0% of the range | good | no |" in table([row])
    stopped = {"run": "hot", "subject": 30, "truth says": "broken", "called broken": True}
    heads, _, line = table([stopped]).splitlines()
    assert line.count("|") == heads.count("|")
    rows[1] = replace(rows[1], data={**rows[1].data, "learned": False})
    assert compared(epochs, rows)["called broken"]


def test_the_ruler_tells_the_subject_from_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "VIEWS", 10)
    ruler = Ruler.of(subject_identity(ANN))
    assert 0.1 < ruler.near < 0.35 < 0.45 < ruler.far
    own, other = (descriptor(draw(subject_identity(seed), Scene(shirt_colour="red")).picture) for seed in (ANN, BEA))
    assert ruler.likeness(own) > 0.7
    assert ruler.likeness(other) < 0.3
    assert ruler.likeness(None) == 0
    assert ruler.likeness(ruler.mean) == 1
    assert Ruler(np.zeros(2), 0.2, 0.6).likeness(np.array([0.3, 0.0])) == pytest.approx(0.75)


def test_fresh_prompts_say_what_can_be_read_and_are_none_of_the_recipes() -> None:
    prompts = fresh_prompts(200)
    assert prompts[:5] == fresh_prompts(5)
    assert all(len(prompt.split(", ")) == 7 for prompt in prompts)  # trigger and class, and six things
    assert not any("hair" in prompt or "full body" in prompt for prompt in prompts)
    filled = {
        text.replace("{trigger}", TRIGGER).replace("{class}", CLASS_WORD) for text in bundled_person().grade.prompts
    }
    assert len(set(prompts)) > 190
    assert not filled & set(prompts)


def test_there_are_twelve_runs_of_settings_that_hold() -> None:
    assert len({run.name for run in RUNS}) == len(RUNS) == 12
    for run in RUNS:
        bundled_person().changed(run.changes, run.name)


@pytest.mark.slow
def test_each_run_is_given_its_photos(tmp_path: Path) -> None:
    truths = subject_truth(ANN)
    few, groups = (given(Run("a", ANN, photos)) for photos in ("few", "groups"))
    assert len(few) == FEW
    assert all(len(truths[name].faces) == 1 for name in few)
    assert not any(truths[name].blurred or truths[name].duplicate_of for name in (*few, *groups))
    assert sum(len(truths[name].faces) > 1 for name in groups) == len(groups) - ALONE > 3
    store, run = Store(tmp_path), Run("a_few", ANN, "few", {"fit": {"epochs": 3}})
    prepare(run, store)
    assert {file.name for file in (store.subject("a_few") / "photos").iterdir()} == set(few)
    assert work(store, "a_few").settings.fit.epochs == 3
    prepare(replace(run, changes={}), store)  # as the runs stand now, and the photos stay
    assert work(store, "a_few").settings.fit.epochs == 6


@pytest.mark.slow
def test_an_epoch_that_was_judged_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "VIEWS", 4)
    subject = Subject(
        name="ann", kind="person", photos=tmp_path, trigger=TRIGGER, class_word=CLASS_WORD, recipe="bundled_person"
    )
    settings = bundled_person().changed({"grade": {"sampling_steps": 6}}, "test")
    there = Work(Store(tmp_path), subject, settings)
    there.folder("fit").mkdir(parents=True)
    write(there.folder("fit"), [])
    (base,) = judge(there, ANN, tmp_path / "truth", 2)
    sheet = tmp_path / "truth" / "e0000.png"
    drawn = sheet.stat().st_mtime_ns
    assert base.epoch == 0
    assert len(base.likeness) == len(base.following) == 2
    assert base.truth < 0.4 < float(np.mean(base.following))  # a stranger, in what was asked for
    assert judge(there, ANN, tmp_path / "truth", 2) == [base]
    assert sheet.stat().st_mtime_ns == drawn
    judge(there, ANN, tmp_path / "truth", 1)
    assert sheet.stat().st_mtime_ns != drawn
