"""The words of a look: the same from the same clock, and varied as its settings say."""

from collections import Counter

import pytest

from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.captions import caption_of, varies

TEXT = "jx265 woman,  close portrait, red shirt, beach"
TIDY = "jx265 woman, close portrait, red shirt, beach"


def told(count=1000, text=TEXT, **settings):
    return [caption_of(text, FitSettings(**settings), seen) for seen in range(count)]


def test_by_default_the_words_are_the_captions():
    assert not varies(FitSettings(keep_tokens=3))
    assert set(told(10)) == {TEXT}


def test_words_are_a_function_of_seed_and_clock():
    settings = {"shuffle_caption": True, "caption_dropout_rate": 0.2, "caption_tag_dropout_rate": 0.3}
    assert told(50, **settings) == told(50, **settings)
    assert told(50, **settings) != told(50, seed=43, **settings)
    assert len(set(told(50, **settings))) > 10


def test_all_orders_of_the_tags_that_are_not_kept_come_as_often():
    counts = Counter(told(1200, shuffle_caption=True, keep_tokens=1))
    assert len(counts) == 6
    assert all(
        one.startswith("jx265 woman, ") and sorted(one.split(", ")) == sorted(TIDY.split(", ")) for one in counts
    )
    assert min(counts.values()) > 150


@pytest.mark.parametrize("keep", [4, 9])
def test_what_is_kept_is_not_moved(keep):
    assert set(told(50, shuffle_caption=True, caption_tag_dropout_rate=1, keep_tokens=keep)) == {TIDY}


def test_a_rate_of_one_leaves_the_kept_tags_alone():
    assert set(told(20, caption_tag_dropout_rate=1, keep_tokens=2)) == {"jx265 woman, close portrait"}
    assert set(told(20, caption_tag_dropout_rate=1)) == {""}


def test_tags_are_dropped_one_by_one_in_their_order():
    captions = told(2000, caption_tag_dropout_rate=0.25, keep_tokens=1)
    for tag in ("close portrait", "red shirt", "beach"):
        assert sum(tag in one for one in captions) == pytest.approx(1500, abs=80)
    assert sum(one == TIDY for one in captions) == pytest.approx(2000 * 0.75**3, abs=80)
    assert all([tag for tag in TIDY.split(", ") if tag in one] == one.split(", ") for one in captions)


def test_a_share_of_captions_is_empty_and_the_others_untouched():
    counts = Counter(told(2000, caption_dropout_rate=0.1))
    assert counts[""] == pytest.approx(200, abs=45)
    assert set(counts) == {"", TEXT}
    assert set(told(20, caption_dropout_rate=1, keep_tokens=4)) == {""}
