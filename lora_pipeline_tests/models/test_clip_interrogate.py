"""CLIP interrogation: transformers' real class at no size ranks the phrases as its own forward pass does."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_pipeline.errors import ModelError
from lora_pipeline.models.clip_interrogate import PHRASES, SURE_FROM, ClipInterrogator
from lora_pipeline.records import Crop

CROP = Crop("a.jpg", "whole", (0, 0, 64, 64), 64, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer: Any = CLIPTokenizer(vocab={name: at for at, name in enumerate(names)}, merges=[], model_max_length=77)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": len(names) - 2, "eos_token_id": len(names) - 1, "pad_token_id": len(names) - 1}
    config = CLIPConfig(
        text_config={**size, **ends, "vocab_size": len(names), "max_position_embeddings": 77},
        vision_config={**size, "image_size": 32, "patch_size": 16},
        projection_dim=16,
        logit_scale_init_value=3.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = CLIPModel(config)
    model.save_pretrained(folder)
    size_px = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor: Any = CLIPProcessor(CLIPImageProcessor(**size_px), tokenizer)
    processor.save_pretrained(folder)
    return folder


def test_phrases_are_ranked_as_the_models_own_forward_pass_ranks_them(folder: Path) -> None:
    import torch
    from transformers import CLIPModel, CLIPProcessor

    picture = Image.radial_gradient("L").convert("RGB")
    chances = ClipInterrogator.open(str(folder)).chances(picture)
    assert {name: tuple(those) for name, those in chances.items()} == PHRASES
    model: Any = CLIPModel.from_pretrained(folder)
    processor: Any = CLIPProcessor.from_pretrained(folder)
    for name in ("light", "setting"):
        texts = [f"a photo, {phrase}" for phrase in PHRASES[name]]
        with torch.inference_mode():
            inputs = processor(text=texts, images=picture, padding=True, return_tensors="pt")
            expected = model(**inputs).logits_per_image[0].softmax(0).tolist()
        assert list(chances[name].values()) == pytest.approx(expected, abs=1e-5)


def test_the_best_of_each_list_is_said_where_it_is_sure(folder: Path) -> None:
    picture = Image.new("RGB", (64, 48), "red")
    clip = ClipInterrogator.open(str(folder))
    said = clip.words(picture, CROP).split(", ")
    sure = [
        max(those, key=lambda one: those[one])
        for those in clip.chances(picture).values()
        if max(those.values()) >= SURE_FROM
    ]
    assert said == (sure or [""])
    assert 0 < len(sure) < len(PHRASES)  # random weights are sure of some, not of all
    assert ClipInterrogator.open(str(folder)).words(picture, CROP).split(", ") == said


def test_no_phrase_stands_in_two_lists() -> None:
    every = [phrase for phrases in PHRASES.values() for phrase in phrases]
    assert len(set(every)) == len(every)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"describe\.clip_model names the folder .*hf download openai/clip-vit-large-patch14"
    ):
        ClipInterrogator.open(str(tmp_path))
