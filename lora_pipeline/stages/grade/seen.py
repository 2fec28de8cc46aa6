"""What one picture shows, by whatever looked at it: what every score is computed from."""

from dataclasses import dataclass, field

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Glance:
    """What is measured of a picture without a model.

    Args:
        look: `looks.look`.
        prints: `memorising.prints`.
        thumb: `memorising.thumb`.
        sharpness, noise, saturation: see `damage`.
    """

    look: Vector
    prints: tuple[str, str]
    thumb: Vector
    sharpness: float
    noise: float
    saturation: float


@dataclass(frozen=True)
class Seen:
    """A picture. What was not asked of it, or not found in it, is None.

    Args:
        photo: of a training picture, the photo's id; else empty.
        prompt: of a validation picture, as the model saw it; empty if the picture could not be drawn.
        seed: of its first noise.
        descriptor: whose the largest face is.
        faces: how many there are.
        face_height: of the largest, as a share of the picture's height.
        glance: None if there is no picture.
        vectors: embeddings of length 1, by the embedder's name.
        agreement: with its prompt, by the judge's name.
    """

    photo: str = ""
    prompt: str = ""
    seed: int = 0
    descriptor: Vector | None = None
    faces: int = 0
    face_height: float | None = None
    glance: Glance | None = None
    vectors: dict[str, Vector] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
