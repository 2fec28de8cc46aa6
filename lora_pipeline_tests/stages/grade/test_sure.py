"""How sure the choice is: by pairs of pictures, not by the epochs' own spread."""

import numpy as np
import pytest

from lora_pipeline.stages.grade.sure import doubt, nearest_in

PICTURES = np.random.default_rng(1).uniform(0.2, 0.6, 36)


def test_an_epoch_that_is_nearer_in_every_picture_is_surely_so_however_far_these_lie_apart() -> None:
    told = {4: list(PICTURES + 0.01), 5: list(PICTURES)}
    assert nearest_in(told) == {4: 0.0, 5: 1.0}
    assert doubt(told) == ""


def test_what_is_nearer_as_often_as_farther_is_not_sure() -> None:
    flips = np.where(np.arange(36) % 2 == 0, 0.1, -0.1)
    told = {3: list(PICTURES + 0.3), 4: list(PICTURES + flips), 5: list(PICTURES)}
    shares = nearest_in(told)
    assert shares[3] == 0
    assert shares[4] == pytest.approx(0.5, abs=0.06)
    words = doubt(told)
    assert f"epoch 4 in {shares[4]:.0%}" in words
    assert f"epoch 5 in {shares[5]:.0%}" in words
    assert "epoch 3" not in words
    assert "grade.seeds" in words


def test_a_picture_without_a_distance_is_left_out_of_all() -> None:
    assert nearest_in({4: [0.3, 0.3, None], 5: [0.2, 0.2, 0.9]}) == {4: 0.0, 5: 1.0}


def test_one_epoch_or_one_picture_says_nothing() -> None:
    assert doubt({5: list(PICTURES)}) == ""
    assert doubt({4: [0.3], 5: [0.2]}) == ""
    assert doubt({}) == ""
