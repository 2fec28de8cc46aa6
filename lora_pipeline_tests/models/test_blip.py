"""BLIP: transformers' real class at no size, built from a config, writes words through our protocol."""

from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.errors import ModelError
from lora_pipeline.models.blip import Blip
from lora_pipeline.records import Crop

pytestmark = pytest.mark.slow
CROP = Crop("a.jpg", "whole", (0, 0, 64, 64), 64, 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    folder = tmp_path_factory.mktemp("blip")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "man", "red", "on", "the", "beach"]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer: Any = BertTokenizer(str(folder / "vocab.txt"))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {
        "vocab_size": len(tokenizer),
        "bos_token_id": len(tokenizer) - 1,
        "sep_token_id": 3,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    config = BlipConfig(
        text_config={**size, **words, "encoder_hidden_size": 16, "max_position_embeddings": 64},
        vision_config={**size, "image_size": 32, "patch_size": 16},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = BlipForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor: Any = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    processor.save_pretrained(folder)
    return folder


def test_the_real_class_writes_the_same_words_for_the_same_picture(folder: Path) -> None:
    from PIL import Image

    picture = Image.new("RGB", (64, 64), "red")
    words = Blip.open(str(folder)).words(picture, CROP)
    assert words
    assert set(words.split()) <= {"a", "dog", "man", "red", "on", "the", "beach"}
    assert Blip.open(str(folder)).words(picture, CROP) == words


def test_changed_weights_change_the_identity(folder: Path) -> None:
    before = Blip.open(str(folder)).identity
    assert before == Blip.open(str(folder)).identity
    (folder / "more.txt").write_text("a")
    assert Blip.open(str(folder)).identity != before


def test_what_is_missing_is_said_with_what_to_download_and_which_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ModelError, match=r"describe\.blip_model names the folder .*hf download Salesforce/blip-image-captioning-base"
    ):
        Blip.open(str(tmp_path / "nowhere"))
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise OSError("there is no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        ModelError, match=r"someone/blip cannot be opened \(there is no network\).*describe\.captioner to measured"
    ):
        Blip.open("someone/blip")
    (tmp_path / "config.json").write_text("{}")
    from PIL import Image

    empty = Blip.open(str(tmp_path))
    with pytest.raises(ModelError, match="cannot be opened"):
        empty.words(Image.new("RGB", (8, 8)), CROP)
