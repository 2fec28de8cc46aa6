"""What is true of an epoch: how well it draws a subject who can be drawn again, on prompts that the pipeline's choice never saw.

The formula was fixed before any run was judged by it:

    likeness  l = clip((far - d) / (far - near), 0, 1), or 0 where no face is found
    following f = of the six things that the prompt says, the share that the reader sees
    truth     t = l f of a picture; of an epoch the mean of its pictures

d is the distance of the face's descriptor (dlib's) to the mean of `VIEWS` freshly drawn views of the subject; near the median distance of those views
to their mean, and far that of as many drawn strangers of her class. So 1 is the subject herself in the picture that was asked for, and 0 a
stranger, no face, or nothing of what was asked for. The prompts say framing (close or medium, where a face can be told), head angle, glasses,
shirt, background and light, drawn as the world draws scenes; hair belongs to her, and is not said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.choice.prompts import fresh_phrases, scene
from benchmarks.choice.runs import CLASS_WORD, TRIGGER
from lora_pipeline.demo.attributes import Attributes
from lora_pipeline.demo.faces import descriptor
from lora_pipeline.demo.photos import subject_identity
from lora_pipeline.demo.world import Identity, Scene, draw, random_identity
from lora_pipeline.families import family
from lora_pipeline.flow import Work
from lora_pipeline.manifest import Item, Made, Manifest, refresh
from lora_pipeline.stages.grade import Wanted
from lora_pipeline.stages.grade.draw import through
from lora_pipeline.store import whole

VIEWS = 60
BATCH = 20
VIEWS_SEED, STRANGERS_SEED = 990_002, 990_003
FIRST_NOISE = 990_100  # far above the seeds of validation pictures
SHOWN, COLUMNS = 40, 10
VERSION = "1"


@dataclass(frozen=True)
class Ruler:
    """How near a face is to a drawn subject.

    Args:
        mean: of the descriptors of her views.
        near, far: median distances to it of her views, and of strangers.
    """

    mean: np.ndarray
    near: float
    far: float

    @classmethod
    def of(cls, identity: Identity) -> "Ruler":
        """By freshly drawn views of her and of strangers of her class."""
        rng = np.random.default_rng(VIEWS_SEED)
        own = _known([(identity, scene(rng)) for _ in range(VIEWS)])
        rng = np.random.default_rng(STRANGERS_SEED)
        others = _known([(random_identity(rng, identity.class_word), scene(rng)) for _ in range(VIEWS)])
        mean = own.mean(0)
        near, far = (float(np.median(np.linalg.norm(some - mean, axis=1))) for some in (own, others))
        return cls(mean, near, far)

    def likeness(self, face: np.ndarray | None) -> float:
        """Of a descriptor, 0 to 1; 0 where there is none."""
        if face is None:
            return 0.0
        distance = float(np.linalg.norm(face - self.mean))
        return float(np.clip((self.far - distance) / (self.far - self.near), 0.0, 1.0))


@dataclass(frozen=True)
class Judged:
    """An epoch (0 is the base model), picture by picture, in the order of the prompts.

    Args:
        likeness, following: 0 to 1 each; see above.
    """

    epoch: int
    likeness: tuple[float, ...]
    following: tuple[float, ...]

    @cached_property
    def pictures(self) -> np.ndarray:
        """The truth of each picture, 0 to 1."""
        return np.asarray(self.likeness) * np.asarray(self.following)

    @property
    def truth(self) -> float:
        """Of the epoch, 0 to 1."""
        return float(self.pictures.mean())


def fresh_prompts(count: int) -> list[str]:
    """So many, always the same first ones."""
    return [f"{TRIGGER} {CLASS_WORD}, {told}" for told in fresh_phrases(count)]


def judge(work: Work, seed: int, folder: Path, pictures: int) -> list[Judged]:
    """The base model and every epoch of a run, by so many fresh pictures each, in order; an epoch that was judged already is not drawn again.

    Args:
        work: whose checkpoints are there.
        seed: of the drawn subject.
        folder: for the table, and of each epoch a sheet of its first pictures.
        pictures: one a prompt, each from a first noise of its own, the same in every epoch.
    """
    prompts = fresh_prompts(pictures)
    wanted = [Wanted(prompt, FIRST_NOISE + number) for number, prompt in enumerate(prompts)]
    settings, base = work.settings.grade, work.settings.base
    how = [settings.sampling_steps, settings.guidance_scale, settings.size_px, family(base.family).digest(base)]
    told = [[one.prompt, one.seed] for one in wanted]
    drawing = through(base, settings, min(BATCH, pictures))
    reader, ruler = Attributes(), Ruler.of(subject_identity(seed))

    def make(checkpoint: tuple[int, Path | None], folder: Path) -> Made:
        epoch, lora = checkpoint
        drawn: list[Any] = []
        for start in range(0, len(wanted), BATCH):
            drawn += drawing(lora, wanted[start : start + BATCH])
        # numbers that are not finite make no picture, which shows neither her nor what was asked for
        likeness = [0.0 if one is None else ruler.likeness(descriptor(one)) for one in drawn]
        following = [
            0.0 if one is None else reader.agreement(one, prompt) or 0.0
            for one, prompt in zip(drawn, prompts, strict=True)
        ]
        sheet = f"e{epoch:04d}.png"
        with whole(folder / sheet) as aside:
            _sheet(drawn[:SHOWN], settings.size_px).save(aside)
        return Made({"likeness": likeness, "following": following}, {"sheet": sheet})

    items = [
        Item(f"{epoch:04d}", [seed, lora_digest, told, how, reader.identity], (epoch, lora))
        for epoch, lora_digest, lora in _epochs(work.made("fit"))
    ]
    rows = refresh(folder, items, make, settings=None, code_version=VERSION, what="draw fresh pictures").manifest.rows
    if failed := [row for row in rows if row.state != "kept"]:
        raise RuntimeError(f"epoch {failed[0].id} of {work.subject.name} could not be judged: {failed[0].reason}")
    return [
        Judged(int(row.id), tuple(row.data["likeness"]), tuple(row.data["following"]))  # type: ignore[arg-type]
        for row in sorted(rows, key=lambda row: row.id)
    ]


def _epochs(checkpoints: Manifest) -> list[tuple[int, str, Path | None]]:
    made = [(int(row.id), row.files["lora"].digest, checkpoints.path(row, "lora")) for row in checkpoints.kept]
    return [(0, "", None), *sorted(made, key=lambda one: one[0])]


def _known(people: Sequence[tuple[Identity, Scene]]) -> np.ndarray:
    """Descriptors of those in whom dlib finds a face."""
    found = [descriptor(draw(identity, scene).picture) for identity, scene in people]
    return np.stack([one for one in found if one is not None])


def _sheet(pictures: Sequence[Any], side_px: int) -> Any:
    from PIL import Image

    sheet = Image.new("RGB", (min(COLUMNS, len(pictures)) * side_px, -(-len(pictures) // COLUMNS) * side_px))
    for number, picture in enumerate(pictures):
        if picture is not None:
            sheet.paste(picture, (number % COLUMNS * side_px, number // COLUMNS * side_px))
    return sheet
