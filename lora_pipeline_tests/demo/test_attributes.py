"""What a prompt asks for, against pictures of known truth."""

import numpy as np

from lora_pipeline.demo.attributes import Attributes
from lora_pipeline.demo.world import draw, phrases_for, random_identity, random_scene


def test_drawn_pictures_show_what_they_show_and_not_what_they_do_not() -> None:
    rng, judge = np.random.default_rng(11), Attributes()
    right, wrong = [], []
    for _ in range(12):
        identity, scene = random_identity(rng), random_scene(rng)
        picture, phrases = draw(identity, scene).picture, phrases_for(identity, scene)
        right.append(judge.agreement(picture, ", ".join((identity.class_word, *phrases))))
        other = "purple shirt" if "purple shirt" not in phrases else "green shirt"
        wrong.append(judge.agreement(picture, f"jx265 {identity.class_word}, {other}"))
    assert np.mean(right) > 0.9
    assert np.mean(wrong) < 0.1


def test_a_prompt_that_asks_for_nothing_readable_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    picture = draw(random_identity(rng), random_scene(rng, size_px=(256, 256))).picture
    assert Attributes().agreement(picture, "an oil painting of jx265 woman") is None
    assert Attributes().agreement(picture, "woman, close portrait, red shirt") in {0.0, 0.5, 1.0}
