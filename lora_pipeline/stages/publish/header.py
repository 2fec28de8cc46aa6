"""The words in a released file's header: what other programs show of a LoRA, and what says where it came from.

`ss_…` and `sshs_…` as kohya-ss/sd-scripts writes them (train_network.py, library/train_util.py), `modelspec.…` as Stability AI's ModelSpec
1.0.1 has them, and ours. What sd-scripts says and we do not: times, since equal results shall have equal bytes; paths and names of
photos, which are nobody's business.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_pipeline.families.kohya import Naming
from lora_pipeline.families.lora_file import lora_bytes, without_header
from lora_pipeline.families.protocol import PredictionKind
from lora_pipeline.records import Checkpoint, Example
from lora_pipeline.stages.publish.card import BaseFacts, CardFacts, licence_of
from lora_pipeline.store import digest_bytes

_LEGACY_AT, _LEGACY_LENGTH = 0x100000, 0x10000


@dataclass(frozen=True)
class Told:
    """What the header tells beside the card.

    Args:
        architecture: the base's, as ModelSpec names it.
        naming: what other programs call the family.
        kind: what the base predicts.
        rank, alpha: of the LoRA.
        lineage: digest of the lineage record without its list of files.
        checkpoint: digest of the checkpoint's file.
    """

    architecture: str
    naming: Naming
    kind: PredictionKind
    rank: int
    alpha: float
    lineage: str
    checkpoint: str


def words(card: CardFacts, base: BaseFacts, checkpoint: Checkpoint, told: Told) -> dict[str, str]:
    """The header's words but for the hashes, which hang on the tensors (`hashes`)."""
    return {
        **_modelspec(card, base, checkpoint, told),
        **_network(card, base, told),
        **_course(card, checkpoint, told),
        **_data(card),
        "lora_pipeline.lineage": told.lineage,
        "lora_pipeline.checkpoint": told.checkpoint,
        "lora_pipeline.run": checkpoint.run,
        "lora_pipeline.training_set": checkpoint.trained_on,
        "lora_pipeline.base": base.digest,
    }


def hashes(tensors: Mapping[str, Any], told: Mapping[str, str]) -> dict[str, str]:
    """Hashes of a file of these tensors whose header says `told`.

    - `modelspec.hash_sha256`: of all that follows the header.
    - `sshs_model_hash`: the same, as sd-webui-additional-networks (and AUTOMATIC1111, for its list of LoRAs) reckons it.
    - `sshs_legacy_hash`: that extension's older one, of 64 KiB from the first MiB on, of a file whose header says the ss_ words alone.
    """
    trained = {key: word for key, word in told.items() if key.startswith("ss_")}
    data = lora_bytes(tensors, trained)
    digest = digest_bytes(without_header(data))
    legacy = digest_bytes(data[_LEGACY_AT : _LEGACY_AT + _LEGACY_LENGTH])[:8]
    return {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest, "sshs_legacy_hash": legacy}


def _modelspec(card: CardFacts, base: BaseFacts, checkpoint: Checkpoint, told: Told) -> dict[str, str]:
    side_px = card.settings["encode"]["resolution_px"]
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{told.architecture}/lora",
        "title": card.trigger,
        "description": f"LoRA of {card.name} ({card.kind}), epoch {checkpoint.epoch}, from {len(card.photos)} photos",
        "license": licence_of(card, base),
        "trigger_phrase": f"{card.trigger} {card.class_word}",
        "usage_hint": f"Trigger words: {card.trigger} {card.class_word}",
        "category": card.kind,
        "tags": ", ".join(dict.fromkeys((card.trigger, card.class_word, card.kind))),
        "resolution": f"{side_px}x{side_px}",
    }
    prediction = {"epsilon": "epsilon", "v_prediction": "v"}.get(told.kind)  # sd-scripts says none of a flow
    if prediction:
        spec["prediction_type"] = prediction
    return {f"modelspec.{key}": word for key, word in spec.items()}


def _network(card: CardFacts, base: BaseFacts, told: Told) -> dict[str, str]:
    fit = card.settings["fit"]
    version = told.naming.version + ("_v" if told.kind == "v_prediction" and told.naming.version == "sd_v1" else "")
    said = {
        "ss_output_name": card.trigger,
        "ss_base_model_version": version,
        "ss_v2": "False",
        "ss_sd_model_name": base.model,
        "ss_network_dim": str(told.rank),
        "ss_network_alpha": f"{told.alpha:g}",
        "ss_network_dropout": str(fit["network_dropout"] or None),
        "ss_clip_skip": str(base.clip_skip if base.clip_skip > 1 else None),
    }
    if base.vae:
        said["ss_vae_name"] = base.vae
    if base.where == "file":  # of a folder or a hub id, there is no one file whose hash a web UI could know
        said |= {"ss_new_sd_model_hash": base.file_digest, "ss_sd_model_hash": base.file_legacy}
    return said


def _course(card: CardFacts, checkpoint: Checkpoint, told: Told) -> dict[str, str]:
    """How it was trained."""
    fit = card.settings["fit"]
    batches = math.ceil(_batches(card.examples, fit["batch_size"]) / fit["num_processes"])  # of each process
    steps = math.ceil(batches / fit["gradient_accumulation_steps"])
    said: dict[str, Any] = {
        "ss_session_id": int(checkpoint.run[:8], 16),  # which files are of one run; sd-scripts draws it
        "ss_epoch": checkpoint.epoch,
        "ss_num_epochs": fit["epochs"],
        "ss_num_batches_per_epoch": batches,
        "ss_steps": checkpoint.epoch * steps,
        "ss_max_train_steps": fit["epochs"] * steps,
        "ss_batch_size_per_device": fit["batch_size"],
        "ss_total_batch_size": fit["batch_size"] * fit["num_processes"] * fit["gradient_accumulation_steps"],
        "ss_gradient_accumulation_steps": fit["gradient_accumulation_steps"],
        "ss_gradient_checkpointing": fit["gradient_checkpointing"],
        "ss_learning_rate": fit["unet_lr"],
        "ss_unet_lr": fit["unet_lr"],
        "ss_text_encoder_lr": fit["text_encoder_lr"]
        if fit["text_encoder_2_lr"] is None
        else [fit["text_encoder_lr"], fit["text_encoder_2_lr"]],
        "ss_lr_scheduler": fit["lr_scheduler"],
        "ss_lr_warmup_steps": fit["lr_warmup_steps"],
        "ss_optimizer": f"{fit['optimizer_type']}(weight_decay={fit['weight_decay']:g})",
        "ss_max_grad_norm": fit["max_grad_norm"],
        "ss_mixed_precision": fit["mixed_precision"],
        "ss_full_fp16": False,
        "ss_seed": fit["seed"],
        "ss_min_snr_gamma": fit["min_snr_gamma"] or None,
        "ss_debiased_estimation": fit["debiased_estimation_loss"],
        "ss_noise_offset": fit["noise_offset"] or None,
        "ss_noise_offset_random_strength": fit["noise_offset_random_strength"],
        "ss_adaptive_noise_scale": fit["adaptive_noise_scale"] or None,
        "ss_loss_type": fit["loss_type"],
        "ss_huber_schedule": fit["huber_schedule"],
        "ss_huber_c": fit["huber_c"],
        "ss_caption_dropout_rate": fit["caption_dropout_rate"],
        "ss_caption_tag_dropout_rate": fit["caption_tag_dropout_rate"],
        "ss_shuffle_caption": fit["shuffle_caption"],
        "ss_keep_tokens": fit["keep_tokens"],
        "ss_cache_latents": True,
    }
    if told.kind == "flow":
        names = ("timestep_sampling", "sigmoid_scale", "discrete_flow_shift", "logit_mean", "logit_std")
        said |= {f"ss_{name}": fit[name] for name in names}
    return {key: str(value) for key, value in said.items()}


def _data(card: CardFacts) -> dict[str, str]:
    """What it was trained on: buckets, and kohya's folders (`10_ohwx woman`), of which there need never have been any."""
    encode, side_px = card.settings["encode"], card.settings["encode"]["resolution_px"]
    folders: dict[str, dict[str, int]] = {}
    others: dict[str, dict[str, int]] = {}
    tags: dict[str, Counter[str]] = {}
    for one in card.examples:
        folder = _folder(card, one)
        counted = (others if one.regularisation else folders).setdefault(
            folder, {"n_repeats": one.repeats, "img_count": 0}
        )
        counted["img_count"] += 1
        tags.setdefault(folder, Counter()).update(_tags(one.caption))
    looks = _looks(card.examples)
    buckets = {
        str(number): {"resolution": list(size), "count": looks[size]} for number, size in enumerate(sorted(looks))
    }
    said: dict[str, Any] = {
        "ss_num_train_images": sum(one.repeats for one in card.examples if not one.regularisation),
        "ss_num_reg_images": sum(one.repeats for one in card.examples if one.regularisation),
        "ss_dataset_dirs": _json(folders),
        "ss_reg_dataset_dirs": _json(others),
        "ss_tag_frequency": _json(tags),
        "ss_bucket_info": _json({"buckets": buckets}),
        "ss_resolution": (side_px, side_px),
        "ss_enable_bucket": True,
        "ss_bucket_no_upscale": encode["bucket_no_upscale"],
        "ss_min_bucket_reso": encode["bucket_min_px"] or side_px // 2,
        "ss_max_bucket_reso": encode["bucket_max_px"] or side_px * 2,
        "ss_flip_aug": encode["flip"],
        "ss_color_aug": False,
        "ss_random_crop": False,
    }
    weights = {one.loss_weight for one in card.examples if one.regularisation}
    if weights:
        said["ss_prior_loss_weight"] = max(weights)
    return {key: str(value) for key, value in said.items()}


def _folder(card: CardFacts, one: Example) -> str:
    return (
        f"{one.repeats}_{card.class_word}" if one.regularisation else f"{one.repeats}_{card.trigger} {card.class_word}"
    )


def _tags(caption: str) -> list[str]:
    """A caption between its commas, as sd-scripts counts it (`set_tag_frequency`)."""
    return [tag.lower() for part in caption.split(",") if (tag := part.strip())]


def _looks(examples: Sequence[Example]) -> Counter[tuple[int, int]]:
    looks: Counter[tuple[int, int]] = Counter()
    for one in examples:
        looks[one.bucket] += one.repeats
    return looks


def _batches(examples: Sequence[Example], size: int) -> int:
    """Batches of an epoch: none mixes buckets."""
    return sum(math.ceil(count / size) for count in _looks(examples).values())


def _json(tree: Any) -> str:
    return json.dumps(tree, sort_keys=True, ensure_ascii=False)
