"""CLIP and DINOv2: transformers' real classes at no size, built from a config, see through our protocol."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_pipeline.errors import ModelError
from lora_pipeline.models.clip import Clip
from lora_pipeline.models.dino import Dino

pytestmark = pytest.mark.slow  # transformers takes seconds to import
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
RED, BLUE = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (64, 48), "blue")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer: Any = CLIPTokenizer(vocab={name: number for number, name in enumerate(names)}, merges=[])
    marks = {"bos_token_id": len(names) - 2, "eos_token_id": len(names) - 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = CLIPModel(
            CLIPConfig(
                text_config={**SIZE, **marks, "vocab_size": len(names), "max_position_embeddings": 24},
                vision_config={**SIZE, "image_size": 32, "patch_size": 16},
                projection_dim=16,
            )
        )
    model.save_pretrained(folder)
    small = {"height": 32, "width": 32}
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=small), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("dino")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Dinov2Model(
            Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
        ).save_pretrained(folder)
    small = {"height": 28, "width": 28}
    BitImageProcessor(size={"shortest_edge": 28}, crop_size=small).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("opened", [(Clip, "clip"), (Dino, "dino")], ids=["clip", "dino"])
def test_a_picture_has_one_embedding_of_length_1_and_another_picture_another(opened, request) -> None:
    of, fixture = opened
    model = of.open(str(request.getfixturevalue(fixture)))
    red, blue = model.embed(RED), model.embed(BLUE)
    assert len(red) == 16
    assert sum(number**2 for number in red) == pytest.approx(1, abs=1e-5)
    assert of.open(str(request.getfixturevalue(fixture))).embed(RED) == red
    assert sum(a * b for a, b in zip(red, blue, strict=True)) < 0.999


def test_agreement_is_the_models_own_cosine_and_a_long_prompt_is_cut(clip: Path) -> None:
    import torch
    from transformers import CLIPModel, CLIPProcessor

    ours = Clip.open(str(clip))
    processor: Any = CLIPProcessor.from_pretrained(clip)
    model: Any = CLIPModel.from_pretrained(clip)
    with torch.no_grad():
        told = model(**processor(text=["a red thing"], images=RED, return_tensors="pt"))
    assert ours.agreement(RED, "a red thing") == pytest.approx(
        float(told.logits_per_image.detach() / model.logit_scale.exp().detach()), abs=1e-5
    )
    assert ours.agreement(RED, "a blue thing") != ours.agreement(RED, "a red thing")
    assert ours.agreement(RED, "a photo of a red blue thing " * 9) is not None


def test_changed_weights_change_the_identity(dino: Path) -> None:
    import os

    before = Dino.open(str(dino)).identity
    assert before == Dino.open(str(dino)).identity
    os.utime(dino / "config.json", (1, 1))
    assert Dino.open(str(dino)).identity != before


def test_what_is_missing_is_told_with_its_setting(
    tmp_path: Path, dino: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ModelError, match=r"grade\.dino_model names the folder .*, which holds no config\.json; download facebook"
    ):
        Dino.open(str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"grade\.clip_model: the weights someone/no-such-clip cannot be opened"):
        Clip.open("someone/no-such-clip")
    (tmp_path / "config.json").write_text((dino / "config.json").read_text())
    with pytest.raises(ModelError, match=r"grade\.dino_model: the weights .* cannot be opened"):
        Dino.open(str(tmp_path)).embed(RED)
