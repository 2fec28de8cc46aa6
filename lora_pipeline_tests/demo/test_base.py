"""The bundled base model loads, is small, and does as it is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_pipeline.demo import train_autoencoder, train_denoiser
from lora_pipeline.demo.architecture import LATENT_CHANNELS, MAX_TOKENS, caption_words, new_tokenizer
from lora_pipeline.demo.measure import BASE, generate, measure, open_base
from lora_pipeline.demo.photos import subject_identity
from lora_pipeline.demo.reader import PHRASES, load_reader, read
from lora_pipeline.demo.strangers import draw_shard, draw_shards, read_shards
from lora_pipeline.demo.train_base import train_base
from lora_pipeline.demo.train_denoiser import ROUNDS, face_weights, round_of, said_in, training_caption
from lora_pipeline.demo.world import draw, phrases_for, random_identity, random_scene


@pytest.fixture(scope="module")
def base() -> Any:
    return open_base()


def test_it_is_at_most_25_mb() -> None:
    assert sum(path.stat().st_size for path in BASE.rglob("*") if path.is_file()) <= 25_000_000


def test_every_caption_word_is_one_token_and_any_name_can_be_told() -> None:
    tokenizer = new_tokenizer()
    for word in caption_words():
        assert len(tokenizer(word).input_ids) == 3, word
    for name in ("jx265", "zürich-9", "猫"):
        tokens = tokenizer(f"{name} woman").input_ids
        assert tokenizer.unk_token_id not in tokens[1:-1]
    longest = "a photo of abcde999 woman, " + ", ".join(
        max(options, key=lambda o: len(o.split())) for options in PHRASES.values()
    )
    assert len(tokenizer(longest).input_ids) <= MAX_TOKENS


def test_the_tokenizer_is_the_same_in_every_process() -> None:
    """Its tokens' numbers are what the text encoder has learnt."""
    code = (
        "from lora_pipeline.demo.architecture import new_tokenizer; print(new_tokenizer().backend_tokenizer.to_str())"
    )
    told = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(3)}
    assert told == {new_tokenizer().backend_tokenizer.to_str() + "\n"}


def test_the_saved_tokenizer_is_the_one_in_the_code(base: Any) -> None:
    text = "jx265 woman, close portrait, turned to the left, red hair"
    assert base.tokenizer(text).input_ids == new_tokenizer()(text).input_ids


def test_it_follows_its_own_config(base: Any) -> None:
    assert (
        base.vae.config.latent_channels
        == base.unet.config.in_channels
        == base.unet.config.out_channels
        == LATENT_CHANNELS
    )
    assert base.unet.config.sample_size * 8 == 128
    assert base.scheduler.config.prediction_type == "v_prediction"
    assert len({str(part.dtype) for part in (base.vae, base.unet, base.text_encoder)}) == 1


def test_a_seed_gives_the_same_picture_in_any_batch(base: Any) -> None:
    prompts = ["woman, close portrait", "man, red shirt"]
    together = generate(base, prompts, seed=3, guidance=4.0, steps=3)
    alone = generate(base, prompts[1:], seed=4, guidance=4.0, steps=3)
    assert together[1].size == (128, 128)
    assert np.abs(np.asarray(together[1]).astype(int) - np.asarray(alone[0]).astype(int)).max() <= 3


def test_latents_have_a_spread_of_about_one(base: Any) -> None:
    import torch

    rng = np.random.default_rng(0)
    pixels = np.stack([np.asarray(draw(random_identity(rng), random_scene(rng)).picture) for _ in range(8)])
    with torch.no_grad():
        latents = base.vae.encode(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode()
    assert 0.85 < float(latents.std()) * base.vae.config.scaling_factor < 1.15


def test_the_reader_tells_the_truth_of_drawn_pictures() -> None:
    rng = np.random.default_rng(61)
    people = [(random_identity(rng), random_scene(rng)) for _ in range(60)]
    seen = read(load_reader(), [draw(*somebody).picture for somebody in people])
    told = [dict(zip(PHRASES, phrases_for(*somebody), strict=True)) for somebody in people]
    for kind in PHRASES:
        assert np.mean([s[kind] == t[kind] for s, t in zip(seen, told, strict=True)]) >= (
            0.75 if kind == "angle" else 0.9
        ), kind


def test_training_captions_are_cut_shuffled_and_sometimes_empty() -> None:
    rng = np.random.default_rng(0)
    phrases = ("close portrait", "red hair", "no glasses", "blue shirt")
    said = [training_caption("woman", phrases, rng) for _ in range(400)]
    assert 0.05 < np.mean([caption == "" for caption in said]) < 0.15
    assert all("woman" in caption for caption in said if caption)
    assert len(set(said)) > 200


def test_what_a_caption_says_is_read_off_it() -> None:
    assert said_in("") == [0] * (1 + len(PHRASES))
    told = said_in("a photo of jx265 woman, red shirt, close portrait")
    kinds = ["class", *PHRASES]
    said = {kind: number for kind, number in zip(kinds, told, strict=True) if number}
    assert said == {"class": 1, "framing": 1, "shirt": PHRASES["shirt"].index("red shirt") + 1}


def test_faces_weigh_more_and_all_together_as_much_as_before() -> None:
    weights = face_weights(np.array([[40, 48, 30, 32], [-9, -9, 400, 400]], np.int32), 3.0)
    assert weights.shape == (2, 1, 16, 16)
    assert weights.mean(axis=(1, 2, 3)) == pytest.approx(1)
    inside = weights[0, 0] > 1
    assert [range(at.min(), at.max() + 1) for at in np.nonzero(inside)] == [range(6, 10), range(5, 9)]
    assert weights[0, 0, 6, 5] / weights[0, 0, 0, 0] == pytest.approx(3)
    assert (weights[1] == 1).all()  # all face is no face


def test_every_step_belongs_to_a_round_and_a_longer_training_to_the_last() -> None:
    steps = (0, ROUNDS[0] - 1, ROUNDS[0], ROUNDS[1], ROUNDS[2] + 5)
    assert [round_of(step) for step in steps] == [0, 0, 1, 2, 2]


@pytest.mark.slow
def test_the_base_is_trained_by_one_command_that_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything of `train_base`, a few steps of each, on one thread: several add up in an order of their own."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr("lora_pipeline.demo.strangers.SHARD_PICTURES", 64)
    monkeypatch.setattr(train_denoiser, "READING_STEPS", 3)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # other processes would not know of 64
    whole = train_base(tmp_path / "a", tmp_path / "whole", 2, autoencoder_steps=4, denoiser_steps=4)
    draw_shards(tmp_path / "b" / "strangers", 2, 1)
    train_autoencoder.train(tmp_path / "b", 4, stop_at=2)
    train_base(tmp_path / "b", tmp_path / "x", 2, 4, denoiser_steps=4)
    (tmp_path / "b" / "denoiser.pt").unlink()
    train_denoiser.train(tmp_path / "b", 4, stop_at=1)
    again = train_base(tmp_path / "b", tmp_path / "again", 2, 4, denoiser_steps=4)
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert names == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert [name for name in names if (whole / name).read_bytes() != (again / name).read_bytes()] == []
    assert generate(open_base(again), ["woman, red hair"], 0, 4.0, 2)[0].size == (128, 128)
    torch.set_num_threads(threads)


def test_a_shard_is_drawn_once_and_never_shows_the_subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_pipeline.demo.strangers.SHARD_PICTURES", 3)
    path = draw_shard(tmp_path, 0)
    stamp = path.stat().st_mtime_ns
    assert draw_shard(tmp_path, 0).stat().st_mtime_ns == stamp
    data = read_shards([path])
    assert data.pictures.shape == (3, 128, 128, 3)
    assert [len(phrases) for phrases in data.phrases] == [len(PHRASES)] * 3
    assert subject_identity() != random_identity(np.random.default_rng(77_000))


@pytest.mark.slow
def test_it_does_as_it_is_told(base: Any) -> None:
    found = measure(base, pictures=24)
    for kind in ("hair", "shirt", "glasses"):
        assert found.followed[kind] >= 0.7, found.followed
    assert found.faces_kept >= 0.9
    assert found.faces_generated >= 0.8
