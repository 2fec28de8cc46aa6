"""Expressions: transformers' real ViT classifier at no size, built from a config, scores a face through our own door."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_pipeline.errors import ModelError
from lora_pipeline.models.expression import Expressions

LABELS = ("Sad", "Happy", "Neutral")


def tiny_classifier(folder: Path, seed: int = 0) -> Path:
    """ViT with random weights, one layer; its labels are `LABELS`."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        initializer_range=0.5,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = ViTForImageClassification(config)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("vit"))


def test_the_real_class_scores_every_label_best_first_and_the_same_again(folder: Path) -> None:
    picture = Image.effect_noise((90, 80), 90).convert("RGB")
    scores = Expressions.open(str(folder)).scores(picture, (20, 20, 60, 60))
    assert {label for label, _ in scores} == {"sad", "happy", "neutral"}
    assert sum(share for _, share in scores) == pytest.approx(1, abs=0.002)
    assert [share for _, share in scores] == sorted((share for _, share in scores), reverse=True)
    assert Expressions.open(str(folder)).scores(picture, (20, 20, 60, 60)) == scores


def test_what_is_shown_is_the_face_with_a_fifth_around_it_and_nothing_else(folder: Path) -> None:
    reader = Expressions.open(str(folder))
    picture = Image.effect_noise((90, 80), 90).convert("RGB")
    scores = reader.scores(picture, (20, 20, 60, 60))
    elsewhere = picture.copy()
    elsewhere.paste("red", (0, 0, 11, 80))
    assert reader.scores(elsewhere, (20, 20, 60, 60)) == scores
    elsewhere.paste("red", (0, 0, 16, 80))
    assert reader.scores(elsewhere, (20, 20, 60, 60)) != scores
    assert reader.scores(picture, (0, 0, 90, 80))  # at the picture's edge


def test_the_labels_are_the_logits(folder: Path) -> None:
    """By hand, from the model itself."""
    import torch
    from transformers import ViTForImageClassification, ViTImageProcessor

    picture = Image.effect_noise((90, 80), 90).convert("RGB")
    model = ViTForImageClassification.from_pretrained(folder)
    inputs = ViTImageProcessor.from_pretrained(folder)(images=picture.crop((12, 12, 68, 68)), return_tensors="pt")
    with torch.inference_mode():
        shares = model(**inputs).logits[0].softmax(-1).tolist()
    told = dict(Expressions.open(str(folder)).scores(picture, (20, 20, 60, 60)))
    assert [told[label.lower()] for label in LABELS] == pytest.approx(shares, abs=0.001)


def test_other_weights_are_another_identity_and_missing_ones_are_told(folder: Path, tmp_path: Path) -> None:
    assert Expressions.open(str(folder)).identity == Expressions.open(str(folder)).identity
    assert Expressions.open(str(folder)).identity != Expressions.open(str(tiny_classifier(tmp_path / "b", 1))).identity
    with pytest.raises(ModelError, match=r"crop\.expression_model names the folder .*nowhere.*no config\.json"):
        Expressions.open(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"crop\.expression_model: the weights .* cannot be opened"):
        Expressions.open(str(tmp_path)).scores(Image.new("RGB", (9, 9)), (0, 0, 9, 9))
