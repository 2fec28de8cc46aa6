"""Validation pictures: the base model and every checkpoint draw the same prompts from the same seeds."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lora_pipeline.errors import ModelError, PipelineError
from lora_pipeline.families import best_device, family
from lora_pipeline.families.samplers import OWN, sample_with
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, is_planning, key_of, read, refresh
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Checkpoint, Record, Row, Value
from lora_pipeline.settings import BaseSettings, GradeSettings
from lora_pipeline.store import digest_bytes, whole

if TYPE_CHECKING:
    from PIL.Image import Image

CODE_VERSION = "1"
TOLD = "lora_pipeline"  # the PNG's text that says how it was drawn


@dataclass(frozen=True)
class Wanted:
    """A picture to be drawn: its prompt, the seed of its first noise, and the strength of the LoRA."""

    prompt: str
    seed: int
    strength: float = 1.0


class Draw(Protocol):
    """Draws pictures with the base model, or with a LoRA file on it."""

    def __call__(self, lora: Path | None, wanted: Sequence[Wanted]) -> "Sequence[Image | None]":
        """One picture for each wanted, in order; None where the model's numbers were not finite.

        A picture's `info` may say with which `scheduler` it was drawn.

        Args:
            lora: a LoRA file, or None for the base model alone.
            wanted: pictures to be drawn at once, all of one strength.
        """
        ...


@dataclass(frozen=True)
class Drawn(Record):
    """A validation picture, and all that it takes to draw it again to the pixel.

    A picture that was drawn before this was recorded has `sampling_steps` 0.

    Args:
        epoch: 0 for the base model.
        prompt: filled in, as the model saw it.
        seed: of its first noise.
        checkpoint: SHA-256 of the LoRA file it was drawn with; empty for the base model.
        strength: of the LoRA, 1 as it was trained; 0 for the base model.
        negative_prompt: what it was drawn away from.
        sampling_steps: denoising steps.
        guidance_scale: classifier-free guidance.
        size_px: side.
        scheduler: name of its class, and the first 16 digits of the SHA-256 of its configuration.
        base: digest of the base model's weights.
        batch: pictures in the batch that it was drawn in, on which its last bits depend (see `through`).
        sampler: as in `GradeSettings`.
    """

    epoch: int
    prompt: str
    seed: int
    checkpoint: str
    strength: float = 1.0
    negative_prompt: str = ""
    sampling_steps: int = 0
    guidance_scale: float = 0.0
    size_px: int = 0
    scheduler: str = ""
    base: str = ""
    batch: int = 0
    sampler: str = OWN

    def data(self) -> dict[str, Value]:
        """Without the base model's own sampler: such a picture's row is what it has been before others could be asked for."""
        return {name: value for name, value in super().data().items() if (name, value) != ("sampler", OWN)}


@dataclass(frozen=True)
class _Job:
    id: str
    drawn: Drawn
    lora: Path | None

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.drawn.prompt, self.drawn.seed, self.drawn.strength)


def draw_grids(
    checkpoints: Manifest,
    folder: Path,
    settings: GradeSettings,
    base: BaseSettings,
    prompts: Sequence[str],
    draw: Draw | None = None,
    progress: Progress = silent,
    others: Collection[str] = (),
) -> Outcome:
    """Bring the validation pictures up to date, drawing only those that are not there.

    A picture's key is its checkpoint's digest, prompt, negative prompt, seed, steps, guidance, size, strength if that is not 1, sampler if it is
    not the base's own, and the base's digest, so a new epoch, prompt, seed or strength draws its own pictures alone; one whose prompt only moved in the list
    is copied. Pictures of an epoch at one strength are drawn `batch_size` at a time (or all, if they are fewer), each from its own noise,
    so that a picture depends neither on which others are drawn with it nor on its place among them; see `through`.

    What a picture was drawn with stands in its row and in the PNG itself, where `redraw.read_told` finds it.

    Args:
        checkpoints: rows of `Checkpoint` with the file role `lora`.
        folder: the stage's folder; ids are `e0003/p02/s0001` (epoch, prompt counted from 1, seed), with `@0.5` at their end for
            a strength other than 1, and pictures are `pictures/<id>.png`. Epoch 0 is the base model, which has no strengths.
        settings: negative prompt, seeds, strengths, steps, guidance, sampler, size and batch size.
        base: what the checkpoints were trained on.
        prompts: filled in with the trigger and class word.
        draw: None is the base's own pipeline, opened when the first picture is drawn.
        progress: told after each picture.
        others: those of the prompts that are judged for drift alone, and so are drawn at strength 1 alone.

    Raises:
        PipelineError: there are no checkpoints.
        ModelError: the base model cannot be opened.
    """
    if not checkpoints.kept:
        raise PipelineError(
            "there are no checkpoints to draw with; train first (the asset lora_checkpoints), and see there why none was made"
        )
    base_digest = family(base.family).digest(base)
    at_once = min(settings.batch_size, len(prompts) * len(set(settings.seeds)))
    how = (settings.negative_prompt, settings.sampling_steps, settings.guidance_scale, settings.size_px)
    sampler = [] if settings.sampler == OWN else [settings.sampler]
    items: list[Item[_Job]] = []
    for epoch, checkpoint, lora in _epochs(checkpoints):
        for strength in dict.fromkeys(settings.strengths) if lora else (0.0,):
            at = "" if strength in {0.0, 1.0} else f"@{strength:g}"
            for number, prompt in enumerate(prompts, start=1):
                if at and prompt in others:
                    continue
                for first in dict.fromkeys(settings.seeds):
                    seed = first + (number - 1) * settings.seeds_apart
                    id = f"e{epoch:04d}/p{number:02d}/s{seed:04d}{at}"
                    drawn = Drawn(
                        epoch,
                        prompt,
                        seed,
                        checkpoint,
                        strength,
                        *how,
                        base=base_digest,
                        batch=at_once,
                        sampler=settings.sampler,
                    )  # its scheduler is known when it is drawn
                    inputs = [checkpoint, prompt, seed, *how, base_digest, *([strength] if at else []), *sampler]
                    items.append(Item(id, inputs, _Job(id, drawn, lora)))

    before = {row.id: row for row in read(folder).rows}
    keys = {item.id: key_of(item.inputs, None, CODE_VERSION) for item in items}
    absent = [item.payload for item in items if not _stands(before.get(item.id), keys[item.id], folder)]
    moved = _moved(absent, keys, before.values(), folder)
    drawing = [job for job in absent if job.id not in moved]
    if drawing and draw is None and not is_planning():
        family(base.family).check(base)
    batches = _Batches(draw or through(base, settings, at_once), drawing, at_once)

    def make(job: _Job, folder: Path) -> Made:
        path = f"pictures/{job.id}.png"
        if job.id in moved:
            data, was = moved[job.id]
            with whole(folder / path) as aside:
                aside.write_bytes(data)
            return Made({**was, "epoch": job.drawn.epoch}, {"picture": path})
        picture = batches.picture(job)
        if picture is None:
            raise PipelineError(
                f"epoch {job.drawn.epoch} gives numbers that are not finite (NaN) for '{job.drawn.prompt}', so there is no picture: "
                "its training has run away; try a lower learning rate (fit.unet_lr)"
            )
        drawn = replace(job.drawn, scheduler=str(picture.info.get("scheduler", "")))
        _save(picture, drawn, folder / path)
        return Made(drawn.data(), {"picture": path})

    return refresh(
        folder,
        items,
        make,
        settings=None,
        code_version=CODE_VERSION,
        what="draw validation pictures",
        progress=progress,
    )


def _save(picture: "Image", drawn: Drawn, path: Path) -> None:
    """Write a PNG that says how it was drawn, but for its place in the grid, which may change."""
    from PIL.PngImagePlugin import PngInfo

    told = PngInfo()
    how = {name: value for name, value in drawn.data().items() if name != "epoch"}
    told.add_itxt(TOLD, json.dumps(how, ensure_ascii=False, sort_keys=True))
    with whole(path) as aside:
        picture.save(aside, pnginfo=told)


def _epochs(checkpoints: Manifest) -> list[tuple[int, str, Path | None]]:
    """(epoch, digest of its file, its file), the base model first."""
    made = [
        (Checkpoint.of(row).epoch, row.files["lora"].digest, checkpoints.path(row, "lora")) for row in checkpoints.kept
    ]
    return [(0, "", None), *sorted(made, key=lambda one: one[0])]


def _stands(row: Row | None, key: str, folder: Path) -> bool:
    """Whether `refresh` will most likely reuse a row. It has the last word: a wrong guess here costs time, not truth."""
    return row is not None and row.key == key and all((folder / file.path).exists() for file in row.files.values())


def _moved(
    absent: Sequence[_Job], keys: Mapping[str, str], before: Iterable[Row], folder: Path
) -> dict[str, tuple[bytes, Mapping[str, Value]]]:
    """Bytes and data of pictures that are there under another id: the list of prompts was reordered. Read now, before they are written over."""
    there = {row.key: row for row in before if "picture" in row.files}
    moved: dict[str, tuple[bytes, Mapping[str, Value]]] = {}
    for job in absent:
        row = there.get(keys[job.id])
        if row is not None and (file := folder / row.files["picture"].path).exists():
            data = file.read_bytes()
            if digest_bytes(data) == row.files["picture"].digest:
                moved[job.id] = data, row.data
    return moved


@dataclass
class _Batches:
    """Draws a batch when its first picture is asked for, and keeps the others until they are."""

    draw: Draw
    todo: list[_Job]
    size: int
    ready: "dict[str, Image | None]" = field(default_factory=dict)

    def picture(self, job: _Job) -> "Image | None":
        if job.id not in self.ready:
            others = [
                one
                for one in self.todo
                if (one.drawn.epoch, one.drawn.strength) == (job.drawn.epoch, job.drawn.strength)
                and one.id > job.id
                and one.id not in self.ready
            ]
            batch = [job, *others][: self.size]
            self.todo = [one for one in self.todo if one not in batch]
            self.ready.update(
                zip([one.id for one in batch], self.draw(job.lora, [one.wanted for one in batch]), strict=True)
            )
        return self.ready.pop(job.id)


def through(base: BaseSettings, settings: GradeSettings, at_once: int = 1) -> Draw:
    """A `Draw` through the base's stock pipeline, which is opened at the first call, on a GPU if there is one (then in 16 bits).

    Each picture's first noise comes from its own generator, seeded on the CPU. A batch that is not full is filled up with copies of its
    last picture: sums of float32 depend on the batch's size in their last bits (measured on two models: one level of 255 in 2 to 8
    values of 100,000), but at one size neither on a picture's place nor on its neighbours. So a run that was killed draws, when it
    is run again, the same bits.

    Args:
        at_once: size of every batch, if not more are wanted.
    """
    base_family = family(base.family)
    opened: list[Any] = []
    loaded: list[Path | None] = []
    strong: list[float] = []

    def draw(lora: Path | None, wanted: Sequence[Wanted]) -> "list[Image | None]":
        import numpy as np
        import torch
        from PIL import Image

        if not opened:
            device = best_device()
            try:
                opened.append(base_family.pipeline(base, device, base_family.half if device == "cuda" else "float32"))
            except ModelError as error:
                raise RuntimeError(str(error)) from error  # no fault of the picture's: its row is tried again next time
            sample_with(opened[0], settings.sampler)  # a ModelError of its ends the run: no picture can be drawn so
        pipeline = opened[0]
        if loaded != [lora]:
            loaded.clear()
            pipeline.unload_lora_weights()
            if lora is not None:
                base_family.load_lora(pipeline, lora)
            loaded.append(lora)
            strong[:] = [1.0]
        if lora is not None and strong != [wanted[0].strength]:
            base_family.set_strength(pipeline, wanted[0].strength)
            strong[:] = [wanted[0].strength]
        batch = [*wanted, *[wanted[-1]] * (at_once - len(wanted))]
        values = pipeline(
            prompt=[one.prompt for one in batch],
            generator=[torch.Generator("cpu").manual_seed(one.seed) for one in batch],
            num_inference_steps=settings.sampling_steps,
            **base_family.guided(settings.guidance_scale, [settings.negative_prompt] * len(batch)),
            height=settings.size_px,
            width=settings.size_px,
            output_type="np",
        ).images  # B×H×W×3 float32, 0 to 1
        pictures = [
            Image.fromarray((value * 255).round().astype(np.uint8)) if np.isfinite(value).all() else None
            for value in values[: len(wanted)]
        ]
        for picture in pictures:
            if picture is not None:
                picture.info["scheduler"] = _scheduler(pipeline)
        return pictures

    return draw


def _scheduler(pipeline: Any) -> str:
    # Which diffusers wrote or read it is no part of how it draws.
    config = {name: value for name, value in dict(pipeline.scheduler.config).items() if not name.startswith("_")}
    digest = digest_bytes(json.dumps(config, sort_keys=True, default=str).encode())
    return f"{type(pipeline.scheduler).__name__} {digest[:16]}"
