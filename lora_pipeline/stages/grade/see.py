"""Looking at pictures, each once: what was seen is remembered in tables beside the scores."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lora_pipeline.manifest import Item, Made, Manifest, read, refresh
from lora_pipeline.models.faces import SeenFaces
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Row, Value
from lora_pipeline.stages.grade.damage import noise, saturation, sharpness
from lora_pipeline.stages.grade.looks import LOOK_VERSION, look
from lora_pipeline.stages.grade.memorising import prints, thumb
from lora_pipeline.stages.grade.seen import Glance, Seen, Vector

if TYPE_CHECKING:
    from PIL.Image import Image

FACES_VERSION = "2"
GLANCE_VERSION = f"{LOOK_VERSION} 1"
EMBEDDED = "embedded"
LOOKS = "looks"
PROMPTS = "prompts"
DRAWN, TRAINED = "drawn/", "trained/"
"""What a row's id begins with: a validation picture's, a training picture's."""

ReadFaces = Callable[["Image"], "SeenFaces | None"]
"""How many faces a picture has and whose the largest is, or None where no face is found. Near descriptors (Euclidean) are one person."""


class Embedder(Protocol):
    """Says what a picture shows, as numbers: near ones (cosine) show the same."""

    @property
    def identity(self) -> str:
        """Name and digest of the weights: another one looks at all pictures anew."""
        ...

    def embed(self, picture: "Image") -> Vector:
        """A vector of length 1 for an RGB picture of any size."""
        ...


class Judge(Protocol):
    """Says how well a picture and a prompt agree; more is better."""

    @property
    def name(self) -> str:
        """What the number is called."""
        ...

    @property
    def identity(self) -> str:
        """As of an `Embedder`."""
        ...

    def agreement(self, picture: "Image", prompt: str) -> float | None:
        """Of an RGB picture of any size; None if the prompt asks for nothing that can be told."""
        ...


@dataclass(frozen=True)
class Eyes:
    """What looks at the pictures.

    Args:
        faces: see `ReadFaces`; None for kinds without faces.
        faces_identity: name and version of it.
        embedders: by the name that their numbers are shown under.
        judges: of prompts.
    """

    faces: ReadFaces | None
    faces_identity: str
    embedders: Mapping[str, Embedder]
    judges: Sequence[Judge]


def glance(picture: "Image") -> Glance:
    """All that is measured without a model of an RGB picture of at least 10×10 px."""
    luma = np.asarray(picture.convert("L"), dtype=np.float64)
    return Glance(
        look(picture),
        prints(picture),
        thumb(picture),
        round(sharpness(luma), 4),
        round(noise(luma), 4),
        round(saturation(picture), 4),
    )


def see(
    grids: Manifest, rows: Sequence[Row], photos: Manifest | None, folder: Path, eyes: Eyes, progress: Progress = silent
) -> tuple[dict[str, Seen], list[Seen]]:
    """What validation pictures show, by row id, and what training pictures show. Only pictures that are new are looked at.

    Args:
        grids: as `draw_grids` made it.
        rows: of it, those that count; one that could not be drawn is seen to show nothing.
        photos: the training pictures (file role `picture`).
        folder: the stage's folder, where the tables are.
        eyes: see there.
        progress: told after each picture.
    """
    drawn = {f"{DRAWN}{row.id}": _Picture(grids, row) for row in rows if row.state == "kept"}
    trained = {f"{TRAINED}{row.id}": _Picture(photos, row) for row in photos.kept} if photos else {}
    every = {**drawn, **trained}
    tables = _Tables(folder, progress)
    glances = tables.of(LOOKS, every, [], lambda one: asdict(glance(one.opened)), GLANCE_VERSION)
    reader = eyes.faces
    faces = (
        tables.of(EMBEDDED, drawn, [eyes.faces_identity], lambda one: _faces(reader(one.opened)), FACES_VERSION)
        if reader
        else {}
    )
    vectors = {
        name: tables.of(
            _table_of(name),
            every,
            [embedder.identity],
            lambda one, embedder=embedder: {"vector": list(embedder.embed(one.opened))},
        )
        for name, embedder in eyes.embedders.items()
    }
    agreements = tables.of(
        PROMPTS,
        drawn if eyes.judges else {},
        [judge.identity for judge in eyes.judges],
        lambda one: {judge.name: judge.agreement(one.opened, one.prompt) for judge in eyes.judges},
        by_prompt=True,
    )

    def seen(id: str, one: _Picture) -> Seen:
        face, agreed = faces.get(id, {}), agreements.get(id, {})
        return Seen(
            photo="" if id in drawn else str(one.row.data.get("photo", one.row.id)),
            prompt=one.prompt,
            seed=one.seed,
            descriptor=_vector(face.get("descriptor")),
            faces=int(_number(face.get("faces")) or 0),
            face_height=_number(face.get("height")),
            glance=_glance(glances[id]) if id in glances else None,
            vectors={
                name: vector for name, told in vectors.items() if (vector := _vector(told.get(id, {}).get("vector")))
            },
            agreement={name: value for name in agreed if (value := _number(agreed[name])) is not None},
        )

    pictures = {row.id: seen(id, drawn[id]) if (id := f"{DRAWN}{row.id}") in drawn else Seen() for row in rows}
    return pictures, [seen(id, one) for id, one in trained.items()]


def embedded(folder: Path, embedder: str, pictures: Collection[str]) -> list[Vector]:
    """What an embedder saw in training pictures of these ids, as `see` has remembered it."""
    wanted = {f"{TRAINED}{id}" for id in pictures}
    rows = [row for row in read(folder, _table_of(embedder)).kept if row.id in wanted]
    return [vector for row in rows if (vector := _vector(row.data.get("vector")))]


def _table_of(embedder: str) -> str:
    return "".join(sign for sign in embedder.lower() if sign.isalnum())


@dataclass(frozen=True)
class _Picture:
    made: Manifest
    row: Row

    @property
    def opened(self) -> "Image":
        return open_upright(self.made.path(self.row))

    @property
    def prompt(self) -> str:
        return str(self.row.data.get("prompt", ""))

    @property
    def seed(self) -> int:
        return int(_number(self.row.data.get("seed")) or 0)


@dataclass(frozen=True)
class _Tables:
    folder: Path
    progress: Progress

    def of(
        self,
        name: str,
        pictures: Mapping[str, _Picture],
        inputs: list[Value],
        make: Callable[[_Picture], Mapping[str, Value]],
        version: str = "1",
        by_prompt: bool = False,
    ) -> dict[str, Mapping[str, Value]]:
        """What a table says of each picture, those that are new being looked at; without those that failed."""
        told = refresh(
            self.folder,
            [
                Item(id, [one.row.files["picture"].digest, *([one.prompt] if by_prompt else []), *inputs], one)
                for id, one in pictures.items()
            ],
            lambda one, _: Made(make(one)),
            settings=None,
            code_version=version,
            name=name,
            what="look at the pictures",
            progress=self.progress,
        )
        return {row.id: row.data for row in told.manifest.kept}


def _faces(seen: SeenFaces | None) -> Mapping[str, Value]:
    if seen is None:
        return {"descriptor": None, "faces": 0, "height": None}
    return {
        "descriptor": [float(value) for value in seen.descriptor],
        "faces": seen.count,
        "height": round(seen.height, 4),
    }


def _glance(data: Mapping[str, Value]) -> Glance:
    return Glance(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})  # pyright: ignore[reportArgumentType]


def _vector(value: Value) -> Vector | None:
    return tuple(float(number) for number in value) if isinstance(value, list) else None


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) else None
