"""The checks of captions, and what the UI shows of them."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lora_pipeline.assets import describe as room
from lora_pipeline.assets.checks import captions_differ, captions_long_enough, no_empty_caption, trigger_rare
from lora_pipeline.flow import Work
from lora_pipeline.manifest import Manifest, Report
from lora_pipeline.records import Caption, Row
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject
from lora_pipeline.summary import summary


def work(tmp_path: Path, trigger: str = "jx265", **settings: dict[str, Any]) -> Work:
    given = {
        "name": "jane",
        "kind": "pet",
        "photos": tmp_path,
        "trigger": trigger,
        "class": "dog",
        "recipe": "sd15_pet",
    }
    subject = Subject.model_validate({**given, "settings": settings})
    return Work(Store(tmp_path / "data"), subject, subject.whole_settings())


def made(tmp_path: Path, *texts: str, source: str = "measured") -> Manifest:
    rows = [
        Row(f"{at}.jpg@whole", "k", data={**Caption(f"{at}.jpg", text, source).data(), "note": ""})
        for at, text in enumerate(texts)
    ]
    return Manifest(tmp_path, tuple(rows))


def test_a_caption_that_is_missing_or_lacks_the_trigger_word_stops_the_run(tmp_path: Path) -> None:
    pictures = made(tmp_path, "", "", "")
    told = no_empty_caption(work(tmp_path), pictures, made(tmp_path, "jx265 dog", "at sea", "jx2655 dog"))
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert told.description == "2 captions lack the trigger word jx265: 1.jpg@whole, 2.jpg@whole"
    told = no_empty_caption(work(tmp_path), pictures, made(tmp_path, "jx265 dog", " "))
    assert told.description == "2 pictures have no caption: 1.jpg@whole, 2.jpg@whole"
    assert not told.passed
    assert no_empty_caption(work(tmp_path), pictures, made(tmp_path, *["jx265 dog"] * 3)).passed
    assert not no_empty_caption(work(tmp_path), made(tmp_path), made(tmp_path)).passed


def test_one_caption_for_most_photos_is_a_warning(tmp_path: Path) -> None:
    told = captions_differ(work(tmp_path), made(tmp_path, "jx265 dog", "jx265 dog", "jx265 dog", "jx265 at sea"))
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert told.description is not None
    assert told.description.startswith("3 of 4 photos have the same caption, 'jx265 dog': 0.jpg, 1.jpg, 2.jpg")
    assert captions_differ(work(tmp_path), made(tmp_path, "a", "a", "b", "c")).passed  # half may
    assert captions_differ(work(tmp_path), made(tmp_path, "a")).passed
    assert captions_differ(work(tmp_path, check={"max_same_caption": 1.0}), made(tmp_path, "a", "a", "a")).passed


def test_crops_of_one_photo_may_have_its_caption(tmp_path: Path) -> None:
    rows = [Row(f"a.jpg@{at}", "k", data={**Caption("a.jpg", "same", "hand").data(), "note": ""}) for at in range(3)]
    other = made(tmp_path, "jx265 dog").rows
    assert captions_differ(work(tmp_path), Manifest(tmp_path, (*rows, *other))).passed


def test_captions_that_are_too_short_are_a_warning(tmp_path: Path) -> None:
    told = captions_long_enough(work(tmp_path, describe={"min_words": 3}), made(tmp_path, "one two", "one two three"))
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert told.description == "1 of 2 captions have fewer than 3 words: 0.jpg@whole"
    assert captions_long_enough(work(tmp_path), made(tmp_path, "one")).passed


@pytest.mark.parametrize(("trigger", "rare"), [("jx265", True), ("Tim", False), ("zxqwvbnmklk", False)])
def test_a_trigger_word_that_the_base_knows_or_splits_badly_is_a_warning(
    tmp_path: Path, trigger: str, rare: bool
) -> None:
    told = trigger_rare(work(tmp_path, trigger))
    assert (told.passed, told.severity) == (rare, dg.AssetCheckSeverity.WARN)


def test_the_table_says_who_wrote_a_caption_hands_first_and_what_was_done_to_it(tmp_path: Path) -> None:
    measured, by_hand = made(tmp_path, "jx265 dog", "jx265 by hand").rows
    by_hand = by_hand.with_data(source="hand")
    records = room.by_whom(Manifest(tmp_path, (measured, by_hand))).records
    assert [dict(record.data) for record in records] == [
        {"picture": "1.jpg@whole", "by": "hand", "caption": "jx265 by hand"},
        {"picture": "0.jpg@whole", "by": "measured", "caption": "jx265 dog"},
    ]
    noted = room.by_whom(Manifest(tmp_path, (measured.with_data(note="put first"), by_hand))).records
    assert [record.data["what was done to it"] for record in noted] == ["", "put first"]


def test_a_warning_does_not_hide_what_a_run_came_to(tmp_path: Path) -> None:
    warned = ["captions, check trigger_rare: 'Tim' is known"]
    through = summary(work(tmp_path), {"captions": Report(), "released_lora": Report()}, warned)
    assert warned[0] in through
    assert "grid: " in through
    assert "grid: " not in summary(work(tmp_path), {"captions": Report()}, warned)
