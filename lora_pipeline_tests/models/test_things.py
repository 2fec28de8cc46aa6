"""Grounding DINO and SAM: transformers' real classes at no size, built from configs; and what they answer, taken to the picture's pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.errors import ModelError
from lora_pipeline.models.grounding_dino import GroundingDino
from lora_pipeline.models.sam import Sam

pytestmark = pytest.mark.slow
PICTURE = Image.effect_noise((200, 120), 90).convert("RGB")


def tiny_grounding_dino(folder: Path) -> Path:
    """Random weights: 80,000 numbers, nine queries, eleven words."""
    import torch
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "dog", "red", "mug"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer: Any = BertTokenizer(str(folder / "vocab.txt"))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ends = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=4, out_indices=[1, 2, 3]
        ),
        text_config=BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, **size),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=9,
        max_text_len=32,
        num_feature_levels=3,
        **ends,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = GroundingDinoForObjectDetection(config)
    model.save_pretrained(folder)
    pictures = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def tiny_sam(folder: Path) -> Path:
    """Random weights: pictures of 64 px."""
    import torch
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 16, "output_channels": 32}
    config = SamConfig(
        vision_config={**vision, "image_size": 64, "patch_size": 16, "global_attn_indexes": [0], "num_pos_feats": 16},
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = SamModel(config)
    model.save_pretrained(folder)
    SamProcessor(SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_grounding_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam(tmp_path_factory.mktemp("sam"))


def test_the_real_detector_runs_and_what_it_finds_lies_in_the_picture_surest_first(dino: Path) -> None:
    finds = GroundingDino.open(str(dino)).find(PICTURE, "A dog", 0.01)
    assert finds
    for (left, top, right, bottom), _ in finds:
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 120
    scores = [score for _, score in finds]
    assert scores == sorted(scores, reverse=True)
    assert GroundingDino.open(str(dino)).find(PICTURE, "A dog", 0.01) == finds
    assert all(score > scores[1] for _, score in GroundingDino.open(str(dino)).find(PICTURE, "A dog", scores[1] + 5e-4))


def test_boxes_are_taken_to_the_pictures_pixels_and_words_to_what_it_was_trained_on(dino: Path) -> None:
    """In place of the network, one that answers as a trained one would: middles and sizes as shares of the picture."""
    import torch
    from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoObjectDetectionOutput

    detector = GroundingDino.open(str(dino))
    processor, _ = detector._opened
    asked: dict[str, Any] = {}

    class Answers:
        device = torch.device("cpu")

        def __call__(self, **inputs: Any) -> GroundingDinoObjectDetectionOutput:
            asked.update(inputs)
            logits = torch.full((1, 3, 32), -20.0)
            logits[0, 0, 2], logits[0, 1, 2] = -1.0, 2.0  # 0.269 and 0.881; the third is sure of nothing
            boxes = torch.tensor([[[0.5, 0.5, 0.1, 0.1], [0.25, 0.5, 0.2, 0.5], [0.5, 0.5, 1.0, 1.0]]])
            return GroundingDinoObjectDetectionOutput(logits=logits, pred_boxes=boxes)

    vars(detector)["_opened"] = (processor, Answers())
    assert detector.find(PICTURE, "A Red mug. ", 0.2) == [((30, 30, 70, 90), 0.881), ((90, 54, 110, 66), 0.269)]
    assert processor.tokenizer.decode(asked["input_ids"][0]) == "[CLS] a red mug. [SEP]"
    assert asked["pixel_values"].shape[-1] > asked["pixel_values"].shape[-2]
    assert [box for box, _ in detector.find(PICTURE, "mug", 0.5)] == [(30, 30, 70, 90)]


def test_a_box_that_reaches_out_of_the_picture_is_cut_to_it(dino: Path) -> None:
    import torch
    from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoObjectDetectionOutput

    detector = GroundingDino.open(str(dino))

    class Answers:
        device = torch.device("cpu")

        def __call__(self, **_: Any) -> GroundingDinoObjectDetectionOutput:
            boxes = torch.tensor([[[0.95, 0.5, 0.2, 1.2], [1.2, 0.5, 0.2, 0.5]]])
            logits = torch.full((1, 2, 32), -20.0)
            logits[..., 1] = 0.0
            return GroundingDinoObjectDetectionOutput(logits=logits, pred_boxes=boxes)

    vars(detector)["_opened"] = (detector._opened[0], Answers())
    assert detector.find(PICTURE, "mug", 0.2) == [((170, 0, 200, 120), 0.5)]


def test_the_real_segmenter_masks_the_picture_and_other_boxes_give_other_masks(sam: Path) -> None:
    segmenter = Sam.open(str(sam))
    mask = segmenter.mask(PICTURE, (20, 20, 90, 100))
    assert (mask.shape, mask.dtype) == ((120, 200), np.bool_)
    assert np.array_equal(Sam.open(str(sam)).mask(PICTURE, (20, 20, 90, 100)), mask)
    assert not np.array_equal(segmenter.mask(PICTURE, (150, 60, 190, 110)), mask)


def test_a_mask_is_taken_to_the_pictures_pixels(sam: Path) -> None:
    """In place of the network, one that sees the thing in the left half: of the picture's share of SAM's square, not of the square."""
    import torch

    segmenter = Sam.open(str(sam))
    processor, _ = segmenter._opened
    asked: dict[str, Any] = {}

    class Answers:
        device = torch.device("cpu")

        def __call__(self, **inputs: Any) -> Any:
            asked.update(inputs)
            masks = torch.full((1, 1, 1, 16, 16), -5.0)
            masks[..., :5, :8] = 5.0  # the picture fills 16 × 9.6 of the square's 16 × 16
            return type("Output", (), {"pred_masks": masks})()

    vars(segmenter)["_opened"] = (processor, Answers())
    mask = segmenter.mask(PICTURE, (20, 30, 100, 90))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], columns[0]) == (0, 0)
    assert rows[-1] == pytest.approx(120 * 5 / 9.6, abs=8)
    assert columns[-1] == pytest.approx(100, abs=8)
    assert asked["multimask_output"] is False
    assert asked["input_boxes"].flatten().tolist() == pytest.approx(
        [20 * 0.32, 30 * 0.32, 100 * 0.32, 90 * 0.32], abs=0.5
    )


@pytest.mark.parametrize(("door", "setting"), [(GroundingDino, "subject_model"), (Sam, "segment_model")])
def test_what_is_missing_is_said_with_what_to_download(tmp_path: Path, door: Any, setting: str) -> None:
    with pytest.raises(
        ModelError, match=rf"crop\.{setting} names the folder .*nowhere.*hf download .*leave that empty"
    ):
        door.open(str(tmp_path / "nowhere"))
