"""Validation pictures: the base model and every checkpoint draw the same prompts from the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lora_pipeline.errors import ModelError, PipelineError
from lora_pipeline.families import best_device, family
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, is_planning, key_of, read, refresh
from lora_pipeline.pictures import save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Checkpoint, Record, Row
from lora_pipeline.settings import BaseSettings, GradeSettings
from lora_pipeline.store import digest_bytes, whole

if TYPE_CHECKING:
    from PIL.Image import Image

CODE_VERSION = "1"


@dataclass(frozen=True)
class Wanted:
    """A picture to be drawn: its prompt, and the seed of its first noise."""

    prompt: str
    seed: int


class Draw(Protocol):
    """Draws pictures with the base model, or with a LoRA file on it."""

    def __call__(self, lora: Path | None, wanted: Sequence[Wanted]) -> "Sequence[Image | None]":
        """One picture for each wanted, in order; None where the model's numbers were not finite.

        Args:
            lora: a LoRA file, or None for the base model alone.
            wanted: pictures to be drawn at once.
        """
        ...


@dataclass(frozen=True)
class Drawn(Record):
    """A validation picture.

    Args:
        epoch: 0 for the base model.
        prompt: filled in, as the model saw it.
        seed: of its first noise.
        checkpoint: SHA-256 of the LoRA file it was drawn with; empty for the base model.
    """

    epoch: int
    prompt: str
    seed: int
    checkpoint: str


@dataclass(frozen=True)
class _Job:
    id: str
    drawn: Drawn
    lora: Path | None

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.drawn.prompt, self.drawn.seed)


def draw_grids(
    checkpoints: Manifest,
    folder: Path,
    settings: GradeSettings,
    base: BaseSettings,
    prompts: Sequence[str],
    draw: Draw | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Bring the validation pictures up to date, drawing only those that are not there.

    A picture's key is its checkpoint's digest, prompt, negative prompt, seed, steps, guidance, size and the base's digest, so
    a new epoch, prompt or seed draws its own pictures alone; one whose prompt only moved in the list is copied. Pictures of
    an epoch are drawn `batch_size` at a time (or all, if they are fewer), each from its own noise, so that a picture depends
    neither on which others are drawn with it nor on its place among them; see `through`.

    Args:
        checkpoints: rows of `Checkpoint` with the file role `lora`.
        folder: the stage's folder; ids are `e0003/p02/s0001` (epoch, prompt counted from 1, seed), and
            pictures are `pictures/<id>.png`. Epoch 0 is the base model.
        settings: seeds, steps, guidance, size and batch size.
        base: what the checkpoints were trained on.
        prompts: filled in with the trigger and class word.
        draw: None is the base's own pipeline, opened when the first picture is drawn.
        progress: told after each picture.

    Raises:
        PipelineError: there are no checkpoints.
        ModelError: the base model cannot be opened.
    """
    if not checkpoints.kept:
        raise PipelineError(
            "there are no checkpoints to draw with; train first (the asset lora_checkpoints), and see there why none was made"
        )
    base_digest = family(base.family).digest(base)
    items: list[Item[_Job]] = []
    for epoch, checkpoint, lora in _epochs(checkpoints):
        for number, prompt in enumerate(prompts, start=1):
            for seed in dict.fromkeys(settings.seeds):
                id = f"e{epoch:04d}/p{number:02d}/s{seed:04d}"
                how = [settings.negative_prompt, settings.sampling_steps, settings.guidance_scale, settings.size_px]
                inputs = [checkpoint, prompt, seed, *how, base_digest]
                items.append(Item(id, inputs, _Job(id, Drawn(epoch, prompt, seed, checkpoint), lora)))

    before = {row.id: row for row in read(folder).rows}
    keys = {item.id: key_of(item.inputs, None, CODE_VERSION) for item in items}
    absent = [item.payload for item in items if not _stands(before.get(item.id), keys[item.id], folder)]
    moved = _moved(absent, keys, before.values(), folder)
    at_once = min(settings.batch_size, len(prompts) * len(set(settings.seeds)))
    drawing = [job for job in absent if job.id not in moved]
    if drawing and draw is None and not is_planning():
        family(base.family).check(base)
    batches = _Batches(draw or through(base, settings, at_once), drawing, at_once)

    def make(job: _Job, folder: Path) -> Made:
        path = f"pictures/{job.id}.png"
        if job.id in moved:
            with whole(folder / path) as aside:
                aside.write_bytes(moved[job.id])
        else:
            picture = batches.picture(job)
            if picture is None:
                raise PipelineError(
                    f"epoch {job.drawn.epoch} gives numbers that are not finite (NaN) for '{job.drawn.prompt}', so there is no picture: "
                    "its training has run away; try a lower learning rate (fit.unet_lr)"
                )
            save(picture, folder / path)
        return Made(job.drawn.data(), {"picture": path})

    return refresh(
        folder,
        items,
        make,
        settings=None,
        code_version=CODE_VERSION,
        what="draw validation pictures",
        progress=progress,
    )


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
    absent: Sequence[_Job], keys: Mapping[str, str], before: "Sequence[Row] | Any", folder: Path
) -> dict[str, bytes]:
    """The bytes of pictures that are there under another id: the list of prompts was reordered. Read now, before they are written over."""
    there = {row.key: row.files["picture"] for row in before if "picture" in row.files}
    moved: dict[str, bytes] = {}
    for job in absent:
        file = there.get(keys[job.id])
        if file is not None and (folder / file.path).exists():
            data = (folder / file.path).read_bytes()
            if digest_bytes(data) == file.digest:
                moved[job.id] = data
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
                if one.drawn.epoch == job.drawn.epoch and one.id > job.id and one.id not in self.ready
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
        pipeline = opened[0]
        if loaded != [lora]:
            loaded.clear()
            pipeline.unload_lora_weights()
            if lora is not None:
                base_family.load_lora(pipeline, lora)
            loaded.append(lora)
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
        return [
            Image.fromarray((value * 255).round().astype(np.uint8)) if np.isfinite(value).all() else None
            for value in values[: len(wanted)]
        ]

    return draw
