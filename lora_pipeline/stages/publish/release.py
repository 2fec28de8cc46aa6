"""The released files, made from the chosen checkpoint."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lora_pipeline.errors import PipelineError
from lora_pipeline.families import family
from lora_pipeline.families.lora_file import ADAPTER, alpha_in, lycoris_kind, read_metadata, write_lora
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Checkpoint, Row, Score
from lora_pipeline.settings import BaseSettings, PublishSettings
from lora_pipeline.stages.publish.card import (
    BaseFacts,
    CardFacts,
    Chosen,
    Shown,
    base_facts,
    without_paths,
    write_card,
)
from lora_pipeline.stages.publish.header import Told, hashes, words
from lora_pipeline.stages.publish.notice import FILE as NOTICE
from lora_pipeline.stages.publish.notice import FLUX_LICENCE_PAGE, notice
from lora_pipeline.stages.publish.preview import write_info, write_preview
from lora_pipeline.stages.publish.webui import Unnamed, renamed
from lora_pipeline.store import digest_bytes, digest_file, whole, write_text

CODE_VERSION = "2"
ID = "released"
IMAGES = "images"
MOST_PICTURES = 8
"""More make a card longer, and tell no more."""
PACKAGES = ("lora-pipeline", "torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "pillow")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_LYCORIS = "lycoris.kohya"  # the part of sd-scripts' trainer that makes LoKr and LoHa
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
    settings: BaseSettings
    pictures: tuple[tuple[Path, Shown], ...] = ()


def publish(
    scores: Manifest,
    checkpoints: Manifest,
    folder: Path,
    settings: PublishSettings,
    base: BaseSettings,
    card: CardFacts,
    progress: Progress = silent,
    grids: Manifest | None = None,
) -> Outcome:
    """Release the chosen epoch.

    One row, `released`, with the files (named by the trigger word if that can be a file's name, else by the subject):

    - `lora`: `<name>.safetensors`, the checkpoint in the precision asked for. Its keys are diffusers', rank and alpha stand in its
      metadata, and `load_lora_weights` takes it (but see the card for a LoKr or LoHa).
    - `webui`: `<name>-webui.safetensors`, the same numbers by kohya-ss/sd-scripts' key names with alpha as a tensor, which programs
      other than diffusers scale by; absent if it holds something that has no known name there, and then the card says what.
    - `notice`: `NOTICE.txt`, where the base model's licence wants one to go along (FLUX.1 [dev]'s).
    - `card`: `README.md`, the model card.
    - `info`: `<name>-webui.json`, what web UIs show of it; absent as `webui` is.
    - `picture 01` …: `images/01.png` …, one validation picture a prompt of the chosen epoch, if pictures may be shown; and `preview`, the first of
      them by the name that web UIs look for.
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
        grids: the validation pictures, rows of `Drawn` with the file role `picture`; None is none.

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
        checkpoints.path(row, "lora"), Checkpoint.of(row), row.files["lora"].digest, tuple(judged), learned if isinstance(learned, bool) else None, facts, card, settings.precision, base
    )  # fmt: skip
    if grids is not None and card.may_show:
        job = replace(job, pictures=_shown(grids, job.digest))
    inputs = [
        job.digest,
        job.checkpoint.data(),
        [score.data() for score in judged],
        job.learned,
        asdict(facts),
        asdict(card),
        [[digest_file(path), asdict(shown)] for path, shown in job.pictures],
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


def _shown(grids: Manifest, checkpoint: str) -> tuple[tuple[Path, Shown], ...]:
    """One picture a prompt: that of the first seed, drawn by the checkpoint as it was trained. The first prompts are the plainest."""
    first: dict[str, tuple[Path, Shown]] = {}
    for row in grids.kept:
        prompt, as_trained = str(row.data["prompt"]), row.data.get("strength", 1.0) == 1.0
        if (
            row.data.get("checkpoint") == checkpoint
            and as_trained
            and prompt not in first
            and len(first) < MOST_PICTURES
        ):
            shown = Shown(f"{IMAGES}/{len(first) + 1:02d}.png", prompt, int(str(row.data["seed"])), _how(row))
            first[prompt] = (grids.path(row), shown)
    return tuple(first.values())


def _how(row: Row) -> str:
    """What a picture was drawn with besides its prompt and seed; empty of one of before that was recorded. The PNG itself says it too."""
    told = row.data
    if not told.get("sampling_steps"):
        return ""
    away = f"negative prompt “{told['negative_prompt']}”" if told.get("negative_prompt") else "no negative prompt"
    return f"{told['sampling_steps']} steps, guidance {float(str(told['guidance_scale'])):g}, {told['size_px']} px, scheduler {told['scheduler']}, {away}"


def _make(job: _Job, folder: Path) -> Made:
    card, checkpoint = job.card, job.checkpoint
    name = card.trigger if _FILE_NAME.fullmatch(card.trigger) else card.name
    files = {"lora": f"{name}.safetensors", "card": "README.md", "lineage": "lineage.json"}
    chosen = Chosen(checkpoint, job.scores, job.learned, job.precision)
    unnamed = _write_loras(job, name, folder)
    if not unnamed:
        files["webui"] = f"{name}-webui.safetensors"
    goes_along = notice(job.base)
    if goes_along is not None:
        files["notice"] = NOTICE
        write_text(folder / NOTICE, goes_along)
    for number, (path, shown) in enumerate(job.pictures, start=1):
        files[f"picture {number:02d}"] = shown.file
        with whole(folder / shown.file) as aside:
            shutil.copyfile(path, aside)
    for_others = files.get("webui", files["lora"])
    if "webui" in files:
        files["info"] = write_info(card, job.base, for_others, folder)
    if job.pictures:
        files["preview"] = write_preview(job.pictures[0][0], for_others, folder)
    page = "" if goes_along is None else FLUX_LICENCE_PAGE
    digests = {files[role]: digest_file(folder / files[role]) for role in ("lora", "webui") if role in files}
    write_text(
        folder / files["card"],
        write_card(card, job.base, chosen, files, unnamed, page, [shown for _, shown in job.pictures]),
    )
    write_text(
        folder / files["lineage"],
        json.dumps({**_lineage(job), "files": digests}, indent=1, sort_keys=True, ensure_ascii=False) + "\n",
    )
    told = {
        "epoch": checkpoint.epoch,
        "run": checkpoint.run,
        "trained_on": checkpoint.trained_on,
        "checkpoint": job.digest,
    }
    return Made({**told, "learned": job.learned, "precision": job.precision}, files)


def _write_loras(job: _Job, name: str, folder: Path) -> str:
    """Write the files that hold numbers. Why there is none for other programs; empty if there is one."""
    import torch
    from safetensors.torch import load_file

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
    said = {**kept, **words(job.card, job.base, job.checkpoint, _told(job, kept, tensors))}
    _write(folder / f"{name}.safetensors", tensors, {**said, "modelspec.implementation": "diffusers"})
    naming = family(job.base.family).naming
    try:
        other = renamed(tensors, _alphas(kept, job.card.settings), naming.place)
    except Unnamed as why:
        return str(why)
    said = {key: word for key, word in said.items() if key != ADAPTER}
    module = _LYCORIS if lycoris_kind(tensors) else naming.network_module
    more = {"modelspec.implementation": naming.implementation, "ss_network_module": module}
    _write(folder / f"{name}-webui.safetensors", other, {**said, **more})
    return ""


def _write(path: Path, tensors: Mapping[str, Any], said: Mapping[str, str]) -> None:
    write_lora(path, tensors, {**said, **hashes(tensors, said)})


def _told(job: _Job, kept: Mapping[str, str], tensors: Mapping[str, Any]) -> Told:
    plug = family(job.base.family)
    # Of a LoRA whose modules differ, the one that most of it has.
    downs = [(len(tensor), key.rpartition(".lora_")[0]) for key, tensor in tensors.items() if ".lora_A." in key]
    ranks = Counter(rank for rank, _ in downs)
    alphas = Counter(_alphas(kept, job.card.settings)(module) for _, module in downs)
    fit = job.card.settings["fit"]
    return Told(
        architecture=plug.architecture,
        naming=plug.naming,
        kind=plug.noise(job.settings).kind,
        rank=ranks.most_common(1)[0][0] if ranks else fit["network_dim"],  # a LoKr has no one rank
        alpha=alphas.most_common(1)[0][0] if alphas else float(kept.get("ss_network_alpha", fit["network_alpha"])),
        lineage=digest_bytes(json.dumps(_lineage(job), sort_keys=True, ensure_ascii=False).encode()),
        checkpoint=job.digest,
    )


def _alphas(kept: Mapping[str, str], settings: Mapping[str, Any]) -> Callable[[str], float]:
    def alpha_of(module: str) -> float:
        alpha = alpha_in(kept, module)
        return float(settings["fit"]["network_alpha"]) if alpha is None else alpha

    return alpha_of


def _lineage(job: _Job) -> dict[str, Any]:
    """All of the lineage record but the released files' digests, which hang on its own."""
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
        # Digests alone: a photo's own name may say who, where or when, and the record here knows it by its digest.
        "photos": [{"digest": digest} for digest in sorted(digest for _, digest in card.photos)],
        "counts": dict(card.counts),
        "hidden": None if card.hidden is None else asdict(card.hidden),
        "training_set": checkpoint.trained_on,
        "run": checkpoint.run,
        "epoch": checkpoint.epoch,
        "images_seen": checkpoint.images_seen,
        "checkpoint": job.digest,
        "learned": job.learned,
        "scores": [score.data() for score in job.scores],
        "base": asdict(job.base),
        "settings": settings,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
