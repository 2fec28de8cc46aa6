"""The released files, made from the chosen checkpoint."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lora_pipeline.errors import PipelineError
from lora_pipeline.families import family
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Checkpoint, Score
from lora_pipeline.settings import BaseSettings, PublishSettings
from lora_pipeline.stages.publish.card import BaseFacts, CardFacts, Chosen, base_facts, without_paths, write_card
from lora_pipeline.stages.publish.webui import renamed
from lora_pipeline.store import digest_bytes, digest_file, write_text

CODE_VERSION = "1"
ID = "released"
PACKAGES = ("lora-pipeline", "torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_ADAPTER = "lora_adapter_metadata"  # where diffusers keeps rank and alpha, by which it scales
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class _Job:
    lora: Path
    checkpoint: Checkpoint
    digest: str
    scores: tuple[Score, ...]
    learned: bool | None
    base: BaseFacts
    card: CardFacts
    precision: str


def publish(
    scores: Manifest,
    checkpoints: Manifest,
    folder: Path,
    settings: PublishSettings,
    base: BaseSettings,
    card: CardFacts,
    progress: Progress = silent,
) -> Outcome:
    """Release the chosen epoch.

    One row, `released`, with the files (named by the trigger word if that can be a file's name, else by the subject):

    - `lora`: `<name>.safetensors`, the checkpoint in the precision asked for. Its keys are diffusers', rank and alpha stand in its
      metadata, and `load_lora_weights` takes it.
    - `webui`: `<name>-webui.safetensors`, the same numbers by kohya-ss/sd-scripts' key names with alpha as a tensor, which programs
      other than diffusers scale by; absent if the LoRA reaches more than a U-Net, for which the names differ by program.
    - `card`: `README.md`, the model card.
    - `lineage`: `lineage.json`: subject, photos with digests, training set, run, epoch, base model, settings, versions of packages.

    None holds a time or a path of this machine, so equal results have equal bytes.

    Args:
        scores: rows of `Score`, one of them chosen.
        checkpoints: rows of `Checkpoint` with the file role `lora`.
        folder: the stage's folder.
        settings: precision.
        base: what was trained on.
        card: everything else that the card and the lineage tell.
        progress: told when it is done.

    Raises:
        PipelineError: no epoch is chosen, or its checkpoint is not there.
    """
    judged = {Score.of(row): row.data.get("learned") for row in scores.kept}
    chosen = next((score for score in judged if score.chosen), None)
    if chosen is None:
        raise PipelineError(
            "no epoch is chosen, so there is nothing to release; score them first (the asset checkpoint_scores)"
        )
    row = next((row for row in checkpoints.kept if Checkpoint.of(row).epoch == chosen.epoch), None)
    if row is None:
        raise PipelineError(
            f"epoch {chosen.epoch} is chosen, but has no checkpoint any more; train and score again (the assets lora_checkpoints to checkpoint_scores)"
        )
    card = replace(card, settings=without_paths(card.settings))
    facts = base_facts(base, family(base.family).digest(base))
    learned = judged[chosen]
    job = _Job(
        checkpoints.path(row, "lora"), Checkpoint.of(row), row.files["lora"].digest, tuple(judged), learned if isinstance(learned, bool) else None, facts, card, settings.precision
    )  # fmt: skip
    inputs = [
        job.digest,
        job.checkpoint.data(),
        [score.data() for score in judged],
        job.learned,
        asdict(facts),
        asdict(card),
    ]
    return refresh(
        folder,
        [Item(ID, inputs, job)],
        _make,
        settings=settings,
        code_version=CODE_VERSION,
        what="release the LoRA",
        progress=progress,
    )


def _make(job: _Job, folder: Path) -> Made:
    card, checkpoint = job.card, job.checkpoint
    name = card.trigger if _FILE_NAME.fullmatch(card.trigger) else card.name
    files = {"lora": f"{name}.safetensors", "card": "README.md", "lineage": "lineage.json"}
    chosen = Chosen(checkpoint, job.scores, job.learned, job.precision)
    if _write_loras(job, name, folder):
        files["webui"] = f"{name}-webui.safetensors"
    digests = {files[role]: digest_file(folder / files[role]) for role in ("lora", "webui") if role in files}
    write_text(folder / files["card"], write_card(card, job.base, chosen, files))
    write_text(
        folder / files["lineage"],
        json.dumps(_lineage(job, digests), indent=1, sort_keys=True, ensure_ascii=False) + "\n",
    )
    told = {
        "epoch": checkpoint.epoch,
        "run": checkpoint.run,
        "trained_on": checkpoint.trained_on,
        "checkpoint": job.digest,
    }
    return Made({**told, "learned": job.learned, "precision": job.precision}, files)


def _write_loras(job: _Job, name: str, folder: Path) -> bool:
    """Write the files that hold numbers. Whether there is one for other programs too."""
    import torch
    from safetensors.torch import load_file

    from lora_pipeline.families.lora_file import read_metadata, write_lora

    dtype = getattr(torch, _DTYPES[job.precision])
    tensors: dict[str, Any] = {}
    for key, tensor in load_file(job.lora).items():
        tensors[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if not torch.isfinite(tensors[key]).all():
            fault = (
                "is not finite"
                if not torch.isfinite(tensor).all()
                else f"is too large for {job.precision} (publish.precision): choose bf16 or fp32"
            )
            raise PipelineError(f"a weight of epoch {job.checkpoint.epoch}'s LoRA ({key}) {fault}")
    kept = read_metadata(job.lora)
    rank, alpha, alphas = _rank_and_alphas(kept, job.card.settings)
    words = {**kept, **_words(job, rank, alpha)}
    write_lora(
        folder / f"{name}.safetensors",
        tensors,
        {**words, "modelspec.implementation": "diffusers", "modelspec.hash_sha256": _hash(tensors)},
    )
    other = renamed(tensors, alpha, alphas)
    if other is None:
        return False
    words = {key: word for key, word in words.items() if key != _ADAPTER}
    more = {
        "modelspec.implementation": "sd-scripts",
        "modelspec.hash_sha256": _hash(other),
        "ss_network_module": "networks.lora",
    }
    write_lora(folder / f"{name}-webui.safetensors", other, {**words, **more})
    return True


def _rank_and_alphas(metadata: Mapping[str, str], settings: Mapping[str, Any]) -> tuple[int, float, dict[str, float]]:
    """Rank and alpha of most modules, and the alphas of the others by name."""
    adapter: dict[str, Any] = json.loads(metadata.get(_ADAPTER, "{}"))
    rank = next(
        (value for key, value in adapter.items() if key.endswith(".r") or key == "r"), settings["fit"]["network_dim"]
    )
    alpha = next(
        (value for key, value in adapter.items() if key.endswith("lora_alpha")), settings["fit"]["network_alpha"]
    )
    alphas: dict[str, float] = next((value for key, value in adapter.items() if key.endswith("alpha_pattern")), {})
    return int(rank), float(alpha), alphas


def _words(job: _Job, rank: int, alpha: float) -> dict[str, str]:
    """The header's words: Stability AI's ModelSpec 1.0, without its date (equal results have equal bytes), and what kohya's readers look for."""
    card, side_px = job.card, job.card.settings["encode"]["resolution_px"]
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{family(job.base.family).architecture}/lora",
        "modelspec.title": card.trigger,
        "modelspec.description": f"LoRA of {card.name} ({card.kind}), epoch {job.checkpoint.epoch}, from {len(card.photos)} photos",
        "modelspec.license": card.licence or job.base.licence,
        "modelspec.trigger_phrase": f"{card.trigger} {card.class_word}",
        "modelspec.usage_hint": f"Trigger words: {card.trigger} {card.class_word}",
        "modelspec.category": card.kind,
        "modelspec.resolution": f"{side_px}x{side_px}",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_epoch": str(job.checkpoint.epoch),
        "ss_output_name": card.trigger,
        "ss_sd_model_name": job.base.model,
    }


def _hash(tensors: Mapping[str, Any]) -> str:
    """SHA-256 of all that follows a .safetensors file's header, as ModelSpec writes it."""
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return f"0x{digest_bytes(data[8 + int.from_bytes(data[:8], 'little') :])}"


def _lineage(job: _Job, digests: Mapping[str, str]) -> dict[str, Any]:
    card, checkpoint = job.card, job.checkpoint
    settings = {
        **card.settings,
        "base": {**card.settings.get("base", {}), "model": job.base.model, "vae": job.base.vae},
    }
    return {
        "subject": {
            "name": card.name,
            "kind": card.kind,
            "trigger": card.trigger,
            "class": card.class_word,
            "consent": card.consent,
        },
        "photos": [{"path": path, "digest": digest} for path, digest in card.photos],
        "counts": dict(card.counts),
        "training_set": checkpoint.trained_on,
        "run": checkpoint.run,
        "epoch": checkpoint.epoch,
        "images_seen": checkpoint.images_seen,
        "checkpoint": job.digest,
        "learned": job.learned,
        "scores": [score.data() for score in job.scores],
        "base": asdict(job.base),
        "settings": settings,
        "files": dict(digests),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
