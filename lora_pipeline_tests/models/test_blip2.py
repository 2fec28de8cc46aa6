"""BLIP-2: transformers' real class at no size, built from a config, writes words through our protocol."""

from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.errors import ModelError
from lora_pipeline.models.blip2 import Blip2
from lora_pipeline.records import Crop

CROP = Crop("a.jpg", "whole", (0, 0, 64, 64), 64, 64)
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "man", "red", "on", "the", "beach", "<image>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("blip2")
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**size, "image_size": 32, "patch_size": 16},
        qformer_config={**size, "vocab_size": 8, "encoder_hidden_size": 16},
        text_config={
            **{"model_type": "opt", "vocab_size": len(tokenizer), "hidden_size": 16, "word_embed_proj_dim": 16},
            **{"ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 128},
            **{"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
        },
        num_query_tokens=4,
        image_token_index=WORDS.index("<image>"),
        image_text_hidden_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model: Any = Blip2ForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor: Any = Blip2Processor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer, num_query_tokens=4)
    processor.save_pretrained(folder)
    return folder


def test_the_real_class_writes_the_same_words_for_the_same_picture(folder: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (64, 64), "red")
    words = Blip2.open(str(folder)).words(picture, CROP)
    assert words
    assert set(words.split()) <= set(WORDS[4:11])
    assert Blip2.open(str(folder)).words(picture, CROP) == words


def test_what_is_missing_is_said_with_what_to_download_and_which_setting(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"describe\.blip2_model names the folder .*hf download Salesforce/blip2-opt-2\.7b"
    ):
        Blip2.open(str(tmp_path / "nowhere"))
