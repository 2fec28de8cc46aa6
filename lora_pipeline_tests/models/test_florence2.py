"""Florence-2: transformers' real class at no size, built from a config, writes words through our protocol."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_pipeline.errors import ModelError
from lora_pipeline.models.florence2 import Florence2
from lora_pipeline.records import Crop

CROP = Crop("a.jpg", "whole", (0, 0, 64, 64), 64, 64)
SAID = ["dog", "man", "red", "on", "beach"]
ASKED = ["What", "does", "the", "image", "describe", "?", "Describe", "in", "detail", "what", "is", "shown", "with", "a", "paragraph", "."]  # fmt: skip
WORDS = ["<s>", "<pad>", "</s>", "<unk>", *ASKED, *SAID]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("florence2")
    plain = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    text = {"model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "max_position_embeddings": 256}
    text |= {f"{side}_layers": 1 for side in ("encoder", "decoder")}
    text |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    text |= {f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")}
    text |= {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    text |= {"init_std": 0.5}  # weights of any effect
    config = Florence2Config(
        vision_config={
            **{"depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1)},
            **{"patch_prenorm": (False, True), "embed_dim": (8, 16), "num_heads": (2, 2), "num_groups": (2, 2)},
            **{"window_size": 4, "projection_dim": 16},
        },
        text_config=text,
        image_token_id=tokenizer.image_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model: Any = Florence2ForConditionalGeneration(config)
    model.save_pretrained(folder)
    # 64 px are 8 × 8 places of the second stage, and one for the picture as a whole.
    size = {"size": {"height": 64, "width": 64}, "do_center_crop": False, "image_seq_length": 65}
    processor: Any = Florence2Processor(CLIPImageProcessor(**size), tokenizer)
    processor.save_pretrained(folder)
    return folder


def test_the_real_class_writes_the_same_words_for_the_same_picture(folder: Path) -> None:
    picture = Image.radial_gradient("L").convert("RGB")
    words = Florence2.open(str(folder)).words(picture, CROP)
    assert words
    assert set(words.split()) <= {*ASKED, *SAID}
    assert Florence2.open(str(folder)).words(picture, CROP) == words


def test_the_task_is_what_the_model_is_asked(folder: Path) -> None:
    captioners = [Florence2.open(str(folder), task=task) for task in ("caption", "more_detailed_caption")]
    processor, _ = captioners[0]._opened  # pyright: ignore[reportPrivateUsage]
    picture = Image.new("RGB", (64, 64))
    asked = [processor(text=f"<{one.task.upper()}>", images=picture)["input_ids"][0] for one in captioners]
    told = [processor.decode(ids, skip_special_tokens=True) for ids in asked]
    assert told == ["What does the image describe ?", "Describe with a paragraph what is shown in the image ."]
    assert captioners[0].identity != captioners[1].identity


def test_what_is_missing_is_said_with_what_to_download_and_which_setting(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"describe\.florence2_model names .*hf download florence-community/Florence-2-base"
    ):
        Florence2.open(str(tmp_path / "nowhere"))
