"""Who hears how far along it is."""

import pytest

from lora_pipeline import progress


def test_nobody() -> None:
    progress.silent("photos", 1, 2)


def test_a_log_hears_a_line_every_few_seconds_with_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    said: list[str] = []
    tell = progress.lines(said.append, every_s=3)
    for done in range(1, 11):
        tell("photos", done, 10)
        now += 1
    # Begun at 0 s with one done; the fourth is done at 3 s, so six more take 4.5 s.
    assert said == [
        "photos: 4 of 10, about 4 s left",
        "photos: 7 of 10, about 3 s left",
        "photos: 10 of 10, about 0 s left",
    ]


def test_a_short_task_stays_quiet_and_the_next_of_its_name_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    said: list[str] = []
    tell = progress.lines(said.append, every_s=3)
    tell("photos", 1, 1)
    now = 100.0
    tell("photos", 1, 2)
    tell("crops", 1, 2)
    assert said == []


def test_two_tasks_at_once_have_a_bar_each(capsys: pytest.CaptureFixture[str]) -> None:
    tell = progress.bars()
    for done in (1, 2):
        tell("photos", done, 2)
        tell("crops", done, 4)
    tell("photos", 1, 5)  # another task of the same name, after the first has ended
    shown = capsys.readouterr().err
    assert "photos: 100%" in shown
    assert "crops:" in shown
    assert "0/5" in shown
