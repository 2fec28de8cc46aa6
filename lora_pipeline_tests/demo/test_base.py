"""The bundled base model loads, is small, and does as it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_pipeline.demo.architecture import LATENT_CHANNELS, MAX_TOKENS, caption_words, new_tokenizer
from lora_pipeline.demo.measure import BASE, generate, measure, open_base
from lora_pipeline.demo.photos import subject_identity
from lora_pipeline.demo.reader import PHRASES, load_reader, read
from lora_pipeline.demo.strangers import draw_shard, read_shards
from lora_pipeline.demo.train_denoiser import training_caption
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
@pytest.mark.xfail(strict=True, reason="the shipped base has not been trained for long enough: README, base model")
def test_it_does_as_it_is_told(base: Any) -> None:
    found = measure(base, pictures=24)
    for kind in ("hair", "shirt", "glasses"):
        assert found.followed[kind] >= 0.7, found.followed
    assert found.faces_kept >= 0.9
    assert found.faces_generated >= 0.8
