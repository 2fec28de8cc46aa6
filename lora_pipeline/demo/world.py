"""A drawn world: people who can be drawn again and again, with known truth.

A person is an `Identity`, a picture of somebody is a `Scene`, and `draw` makes a `Drawing`: the picture and what is true of
it. Everything is decided by the two dataclasses, so the same ones give the same pixels at any size.

Inside a face, coordinates are in half face heights: (0, 0) is between the ears, y = -1 the top of the skull, y = 1 the chin.
Left and right are the picture's, never the person's: a head with yaw_deg > 0 looks towards the picture's right edge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
from PIL import Image

from lora_pipeline.demo.brush import Canvas, Points, ellipse, points, ribbon, smooth
from lora_pipeline.demo.palette import (
    BACKGROUND_COLOURS,
    HAIR_COLOURS,
    IRISES,
    LIPS,
    SHIRT_COLOURS,
    SKINS,
    TROUSERS,
    Rgb,
    mix,
    scaled,
)

__all__ = [
    "BACKGROUND_COLOURS",
    "FRAMING_PHRASES",
    "HAIR_COLOURS",
    "LIGHT_PHRASES",
    "SHIRT_COLOURS",
    "TURNED_AT_DEG",
    "Drawing",
    "FaceTruth",
    "Identity",
    "Scene",
    "angle_phrase",
    "caption_for",
    "draw",
    "phrases_for",
    "random_identity",
    "random_scene",
    "truth_of",
]

ClassWord: TypeAlias = Literal["woman", "man"]
HairStyle: TypeAlias = Literal["long", "wavy", "bob", "bun", "ponytail", "short", "side", "curly", "receding"]
Fringe: TypeAlias = Literal["centre", "left", "right", "full", "swept"]
Beard: TypeAlias = Literal["none", "stubble", "moustache", "goatee", "full"]
Expression: TypeAlias = Literal["neutral", "smile", "laugh", "serious"]
Framing: TypeAlias = Literal["close", "medium", "full"]
Light: TypeAlias = Literal["bright", "soft", "dim"]
Backdrop: TypeAlias = Literal["plain", "spots", "panels"]

FRAMING_PHRASES: Final[dict[Framing, str]] = {"close": "close portrait", "medium": "medium shot", "full": "full body"}
LIGHT_PHRASES: Final[dict[Light, str]] = {"bright": "bright light", "soft": "soft light", "dim": "dim light"}
TURNED_AT_DEG: Final = 12.0
"""A head turned less than this is said to face the camera."""

HALF_FACE: Final[dict[Framing, float]] = {"close": 0.29, "medium": 0.165, "full": 0.088}
"""Half the face's height as a share of the picture's shorter side."""


@dataclass(frozen=True, slots=True)
class Identity:
    """All that makes a person, and stays with them from picture to picture. Lengths are in half face heights."""

    name: str
    class_word: ClassWord
    skin: Rgb
    hair_colour: str
    """A word of `HAIR_COLOURS`."""
    hair_style: HairStyle
    fringe: Fringe
    hairline: float
    """How far above the centre the hair begins, 0.45..0.75."""
    hair_volume: float
    """0.05..0.3, how far the hair stands off the skull."""
    face_width: float
    """Half the face's width, 0.62..0.86."""
    jaw: float
    """0 (pointed) .. 1 (square)."""
    eye_spacing: float
    """Half the distance of the pupils, 0.28..0.4."""
    eye_height: float
    """The eyes' y, -0.12..0.08."""
    eye_size: float
    """Half an eye's width, 0.14..0.21."""
    eye_open: float
    """An eye's height as a share of its width, 0.35..0.7."""
    eye_tilt: float
    """How far the outer corner is raised, -0.05..0.07."""
    iris: Rgb
    brow_height: float
    """Above the eye, 0.2..0.34."""
    brow_thickness: float
    """0.025..0.075."""
    brow_arch: float
    """-0.02..0.09."""
    brow_slope: float
    """How far the outer end is raised, -0.07..0.07."""
    nose_length: float
    """The tip's y, 0.26..0.48."""
    nose_width: float
    """Half of it, 0.1..0.22."""
    mouth_height: float
    """The mouth's y, 0.56..0.7."""
    mouth_width: float
    """Half of it, 0.2..0.36."""
    lip_fullness: float
    """0.04..0.12."""
    lips: Rgb
    beard: Beard
    blush: float
    """0..1."""
    freckles: bool
    pattern_seed: int
    """Where strands and freckles lie."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that makes a picture of somebody, and changes from picture to picture."""

    framing: Framing = "close"
    yaw_deg: float = 0.0
    """-35..35; above 0 the head is turned to the picture's right."""
    tilt_deg: float = 0.0
    """-10..10; above 0 the head leans to the picture's right."""
    expression: Expression = "neutral"
    glasses: bool = False
    shirt_colour: str = "blue"
    """A word of `SHIRT_COLOURS`."""
    background_colour: str = "grey"
    """A word of `BACKGROUND_COLOURS`."""
    backdrop: Backdrop = "plain"
    light: Light = "soft"
    light_from: float = -0.5
    """-1 (the left) .. 1 (the right)."""
    zoom: float = 1.0
    """0.88..1.12, the face's size against its framing's usual one."""
    offset_x: float = 0.0
    """-0.06..0.06 of the shorter side."""
    offset_y: float = 0.0
    """-0.04..0.04 of the shorter side."""
    size_px: tuple[int, int] = (128, 128)
    """Width, height."""
    others: tuple[Identity, ...] = ()
    """At most two other people, standing at the left, then at the right."""
    pattern_seed: int = 0
    """Where the background's shapes lie, and what the others wear."""


@dataclass(frozen=True, slots=True)
class FaceTruth:
    """One face that was drawn."""

    identity: Identity
    box: tuple[int, int, int, int]
    """x, y, width, height in px: cheek to cheek, from above the brows to the chin."""
    is_subject: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture (RGB) and what is true of it."""

    picture: Image.Image
    identity: Identity
    scene: Scene
    faces: tuple[FaceTruth, ...]
    """The subject's first."""


def random_identity(rng: np.random.Generator, class_word: ClassWord | None = None, name: str = "") -> Identity:
    """A stranger. Every number is drawn far apart, so that two strangers seldom look alike."""
    word: ClassWord = class_word or ("woman" if rng.random() < 0.5 else "man")
    woman = word == "woman"
    skin_at = float(rng.uniform(0, len(SKINS) - 1.001))
    skin = mix(SKINS[int(skin_at)], SKINS[int(skin_at) + 1], skin_at % 1)
    women_styles: tuple[HairStyle, ...] = ("long", "wavy", "bob", "bun", "ponytail")
    men_styles: tuple[HairStyle, ...] = ("short", "side", "curly", "receding")
    fringes: tuple[Fringe, ...] = ("centre", "left", "right", "full", "swept")
    beards: tuple[Beard, ...] = ("none", "none", "stubble", "moustache", "goatee", "full", "full")
    hair_colour = str(rng.choice(list(HAIR_COLOURS)))
    lips = LIPS[int(rng.integers(len(LIPS)))]

    def wide(low: float, high: float) -> float:
        # Beta(0.6, 0.6) favours the ends of the range: people in the middle would all resemble each other.
        return float(low + (high - low) * rng.beta(0.6, 0.6))

    return Identity(
        name=name,
        class_word=word,
        skin=skin,
        hair_colour=hair_colour,
        hair_style=str(rng.choice(women_styles if woman else men_styles)),  # type: ignore[arg-type]
        fringe=str(rng.choice(fringes)),  # type: ignore[arg-type]
        hairline=wide(0.48, 0.72),
        hair_volume=wide(0.08, 0.26),
        face_width=wide(0.64, 0.8) if woman else wide(0.67, 0.86),
        jaw=wide(0.0, 0.75) if woman else wide(0.25, 1.0),
        eye_spacing=wide(0.29, 0.385),
        eye_height=wide(-0.12, 0.06),
        eye_size=wide(0.155, 0.21) if woman else wide(0.135, 0.185),
        eye_open=wide(0.42, 0.72) if woman else wide(0.34, 0.62),
        eye_tilt=wide(-0.05, 0.07),
        iris=IRISES[int(rng.integers(len(IRISES)))],
        brow_height=wide(0.19, 0.33),
        brow_thickness=wide(0.02, 0.055) if woman else wide(0.035, 0.08),
        brow_arch=wide(-0.01, 0.09),
        brow_slope=wide(-0.08, 0.07),
        nose_length=wide(0.26, 0.46),
        nose_width=wide(0.1, 0.18) if woman else wide(0.12, 0.22),
        mouth_height=wide(0.57, 0.69),
        mouth_width=wide(0.21, 0.33) if woman else wide(0.22, 0.37),
        lip_fullness=wide(0.06, 0.13) if woman else wide(0.03, 0.085),
        lips=mix(lips, skin, 0.15) if woman else mix(lips, skin, 0.55),
        beard="none" if woman else str(rng.choice(beards)),  # type: ignore[arg-type]
        blush=float(rng.uniform(0.2, 1.0)) if woman else float(rng.uniform(0.0, 0.3)),
        freckles=bool(rng.random() < 0.2),
        pattern_seed=int(rng.integers(1 << 30)),
    )


def random_scene(rng: np.random.Generator, size_px: tuple[int, int] = (128, 128)) -> Scene:
    """Any scene of one person: mostly close or medium, half of them facing the camera."""
    turn = rng.random()
    yaw = rng.uniform(-8, 8) if turn < 0.5 else rng.uniform(16, 32) * (1 if turn < 0.75 else -1)
    expressions: tuple[Expression, ...] = ("neutral", "smile", "laugh", "serious")
    return Scene(
        framing=str(rng.choice(("close", "medium", "full"), p=(0.6, 0.3, 0.1))),  # type: ignore[arg-type]
        yaw_deg=float(yaw),
        tilt_deg=float(rng.normal(0, 3.0)),
        expression=str(rng.choice(expressions, p=(0.3, 0.4, 0.15, 0.15))),  # type: ignore[arg-type]
        glasses=bool(rng.random() < 0.3),
        shirt_colour=str(rng.choice(list(SHIRT_COLOURS))),
        background_colour=str(rng.choice(list(BACKGROUND_COLOURS))),
        backdrop=str(rng.choice(("plain", "spots", "panels"))),  # type: ignore[arg-type]
        light=str(rng.choice(("bright", "soft", "dim"), p=(0.3, 0.45, 0.25))),  # type: ignore[arg-type]
        light_from=float(rng.uniform(-1, 1)),
        zoom=float(rng.uniform(0.9, 1.1)),
        offset_x=float(rng.uniform(-0.05, 0.05)),
        offset_y=float(rng.uniform(-0.03, 0.03)),
        size_px=size_px,
        pattern_seed=int(rng.integers(1 << 30)),
    )


# ---------------------------------------------------------------------------------------------------------------- words


def angle_phrase(yaw_deg: float) -> str:
    """The words for a head's angle; left and right are the picture's."""
    if abs(yaw_deg) < TURNED_AT_DEG:
        return "facing the camera"
    return "turned to the right" if yaw_deg > 0 else "turned to the left"


def phrases_for(identity: Identity, scene: Scene) -> tuple[str, ...]:
    """What can be said of a picture after its first phrase, in the caption's order."""
    return (
        FRAMING_PHRASES[scene.framing],
        angle_phrase(scene.yaw_deg),
        f"{identity.hair_colour} hair",
        "wearing glasses" if scene.glasses else "no glasses",
        f"{scene.shirt_colour} shirt",
        f"{scene.background_colour} background",
        LIGHT_PHRASES[scene.light],
    )


def caption_for(drawing: Drawing, name: str | None = None) -> str:
    """The whole caption: "{name} {class}, {framing}, {angle}, {hair} hair, {glasses}, {shirt} shirt, …"."""
    called = drawing.identity.name if name is None else name
    first = f"{called} {drawing.identity.class_word}".strip()
    return ", ".join((first, *phrases_for(drawing.identity, drawing.scene)))


# -------------------------------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a head stands in the picture, and the way from face coordinates to pixels."""

    person: Identity
    scene: Scene
    x: float
    y: float
    unit: float
    """Half the face's height in px."""

    @property
    def sin(self) -> float:
        return float(np.sin(np.radians(self.scene.yaw_deg)))

    @property
    def cos(self) -> float:
        return float(np.cos(np.radians(self.scene.yaw_deg)))

    def flat(self, shape: Points, follow: float = 0.0) -> Points:
        """Tilted, scaled and moved, but not turned; `follow` moves it sideways with the turn of the head."""
        lean = np.radians(self.scene.tilt_deg)
        x, y = shape[:, 0] + follow * self.sin, shape[:, 1]
        # The head leans about the neck, not about the nose.
        below = y - 1.0
        return np.stack(
            [
                self.x + self.unit * (x * np.cos(lean) - below * np.sin(lean)),
                self.y + self.unit * (1.0 + x * np.sin(lean) + below * np.cos(lean)),
            ],
            axis=1,
        )

    def on_face(self, shape: Points) -> Points:
        """Painted on the front of the head, so turned with it: an ellipsoid 0.62 deep."""
        width = self.person.face_width
        inside = 1 - 0.9 * (shape[:, 0] / width) ** 2 - 0.55 * (shape[:, 1] / 1.1) ** 2
        depth = 0.62 * np.sqrt(np.clip(inside, 0.04, 1.0))
        turned = np.stack([shape[:, 0] * (0.25 + 0.75 * self.cos) + depth * self.sin, shape[:, 1]], axis=1)
        return self.flat(turned)

    def body(self, shape: Points) -> Points:
        """Below the neck: neither turned nor tilted."""
        return np.array([self.x, self.y]) + self.unit * shape


def _face_outline(at: _Place) -> Points:
    person = at.person
    down = np.concatenate([np.linspace(0, 0.8, 9), np.array([0.88, 0.94, 0.98, 1.0])])
    power = 2.0 + 2.2 * person.jaw
    lower = person.face_width * np.sqrt(np.clip(1 - down**power, 0, 1)) * (1 - (0.16 - 0.14 * person.jaw) * down)
    up = np.linspace(0, 1, 10)[1:]
    upper = person.face_width * np.sqrt(np.clip(1 - up**2.4, 0, 1))
    right_x = np.concatenate([upper[::-1], lower])
    right_y = np.concatenate([-up[::-1], down])
    x, y = np.concatenate([right_x, -right_x[::-1]]), np.concatenate([right_y, right_y[::-1]])
    # The chin swings further than the skull when the head turns.
    return at.flat(np.stack([x + at.sin * (0.14 + 0.14 * y), y], axis=1))


def _neck_and_body(canvas: Canvas, at: _Place) -> None:
    person, scene = at.person, at.scene
    woman = person.class_word == "woman"
    shirt = SHIRT_COLOURS[scene.shirt_colour]
    dark_skin, dark_shirt = scaled(person.skin, 0.78, 0.68, 0.66), scaled(shirt, 0.72, 0.72, 0.76)
    neck, wide = (0.31, 1.3) if woman else (0.42, 1.62)
    hip = 1.0 if woman else 1.25
    if scene.framing == "full":
        trousers = TROUSERS[scene.pattern_seed % len(TROUSERS)]
        for side in (-1, 1):
            leg = points((0.05, 4.6), (hip, 4.6), (0.95, 9.0), (0.35, 9.0)) * np.array([side, 1.0])
            canvas.fill(at.body(leg), trousers)
            canvas.fill(at.body(ellipse(0.72 * side, 9.1, 0.5, 0.22)), scaled(trousers, 0.5, 0.5, 0.5))
        canvas.fill(at.body(points((-hip, 4.5), (hip, 4.5), (hip * 0.95, 5.3), (-hip * 0.95, 5.3))), trousers)
    for side in (-1, 1):
        arm = smooth(points((wide * 0.7, 1.72), (wide + 0.06, 2.5), (wide + 0.2, 3.6), (wide + 0.05, 4.9)), False)
        flip = np.array([side, 1.0])
        canvas.fill(at.body(ellipse((wide + 0.05) * side, 5.0, 0.23, 0.28)), person.skin)
        canvas.fill(at.body(ribbon(arm * flip, np.linspace(0.3, 0.24, len(arm)))), mix(shirt, dark_shirt, 0.45))
        canvas.fill(at.body(ellipse(wide * 0.72 * side, 1.76, 0.3, 0.3)), shirt)
    torso = smooth(
        points(
            (-neck * 0.9, 1.12),
            (-wide * 0.72, 1.45),
            (-wide, 1.82),
            (-wide * 1.02, 2.6),
            (-hip, 4.9),
            (hip, 4.9),
            (wide * 1.02, 2.6),
            (wide, 1.82),
            (wide * 0.72, 1.45),
            (neck * 0.9, 1.12),
        )
    )
    canvas.fill(at.body(torso), shirt)
    within = canvas.mask(at.body(torso))
    for side in (-1, 1):
        near = 0.55 if side * scene.light_from < 0 else 0.25
        canvas.shade(at.body(ellipse(side * wide * 1.05, 3.4, 0.5, 2.2)), dark_shirt, near, 0.35 * at.unit, within)
    neck_shape = at.body(points((-neck, 0.5), (neck, 0.5), (neck * 1.05, 1.3), (-neck * 1.05, 1.3)))
    collar = at.body(smooth(points((-neck * 1.25, 1.16), (0, 1.2), (neck * 1.25, 1.16), (0.12, 1.62), (-0.12, 1.62))))
    canvas.fill(collar, person.skin)
    canvas.fill(neck_shape, person.skin)
    both = canvas.mask(neck_shape, collar)
    shadow = at.flat(ellipse(0, 0.88, 0.62, 0.3), 0.2)
    canvas.shade(shadow, dark_skin, 0.95, 0.08 * at.unit, both)


def _hair_behind(canvas: Canvas, at: _Place) -> None:
    person = at.person
    hair = HAIR_COLOURS[person.hair_colour]
    back, side = scaled(hair, 0.72, 0.7, 0.72), person.face_width + person.hair_volume
    match person.hair_style:
        case "long":
            shape = points(
                (-side, -0.3),
                (0, -1.0),
                (side, -0.3),
                (side + 0.1, 0.9),
                (side, 1.75),
                (-side, 1.75),
                (-side - 0.1, 0.9),
            )
        case "wavy":
            shape = points(
                (-side - 0.02, -0.3), (0, -1.0), (side + 0.02, -0.3), (side + 0.22, 0.25), (side + 0.06, 0.6),
                (side + 0.28, 1.0), (side + 0.05, 1.4), (0, 1.2), (-side - 0.05, 1.4), (-side - 0.28, 1.0),
                (-side - 0.06, 0.6), (-side - 0.22, 0.25),
            )  # fmt: skip
        case "bob":
            shape = points(
                (-side, -0.3),
                (0, -1.0),
                (side, -0.3),
                (side + 0.14, 0.5),
                (side - 0.1, 0.86),
                (-side + 0.1, 0.86),
                (-side - 0.14, 0.5),
            )
        case "ponytail":
            shape = points(
                (0.3, -0.9),
                (side + 0.25, -0.6),
                (side + 0.5, 0.2),
                (side + 0.3, 1.2),
                (side + 0.12, 0.6),
                (side - 0.05, -0.1),
            )
        case "bun":
            shape = ellipse(0.0, -1.18 - person.hair_volume, 0.36, 0.32)
        case _:
            return
    canvas.fill(at.flat(smooth(shape), -0.12), back)


def _hair_cap(canvas: Canvas, at: _Place) -> None:
    """The hair on the skull."""
    person = at.person
    hair = HAIR_COLOURS[person.hair_colour]
    dark, shine = scaled(hair, 0.62, 0.6, 0.62), mix(hair, (255, 240, 220), 0.35)
    line, volume, width = -person.hairline, person.hair_volume, person.face_width
    low = {"short": -0.12, "side": -0.05, "curly": 0.0, "receding": -0.05, "bun": 0.0, "ponytail": -0.05}.get(
        person.hair_style, 0.35
    )
    thick = volume * (1.25 if person.hair_style == "curly" else 1.0)
    turn = np.linspace(np.pi, 2 * np.pi, 17)
    stand_off = np.where(low > 0.2, 1.0, 0.25 + 0.75 * np.clip(-1.6 * np.sin(turn), 0, 1))
    outer = np.stack(
        [(width + 0.03 + (0.03 + thick * 0.55) * stand_off) * np.cos(turn), -0.12 + (0.95 + thick) * np.sin(turn)],
        axis=1,
    )
    if low <= 0.2:
        # Sideburns: short hair runs out to a point before the ear.
        outer = np.concatenate([points((-width * 0.97, low + 0.14)), outer, points((width * 0.97, low + 0.14))])
    if person.hair_style == "curly":
        outer = outer * (1 + 0.04 * np.cos(np.arange(len(outer)) * np.pi))[:, None]
    inner_x = width * 0.93
    match person.fringe:
        case "centre":
            inner = points(
                (inner_x, low),
                (inner_x * 0.9, line + 0.3),
                (inner_x * 0.5, line + 0.06),
                (0, line - 0.12),
                (-inner_x * 0.5, line + 0.06),
                (-inner_x * 0.9, line + 0.3),
                (-inner_x, low),
            )
        case "full":
            inner = points(
                (inner_x, low),
                (inner_x * 0.93, line + 0.3),
                (inner_x * 0.6, line + 0.22),
                (0, line + 0.19),
                (-inner_x * 0.6, line + 0.22),
                (-inner_x * 0.93, line + 0.3),
                (-inner_x, low),
            )
        case "swept":
            inner = points(
                (inner_x, low),
                (inner_x * 0.95, line + 0.12),
                (inner_x * 0.5, line - 0.08),
                (0, line - 0.1),
                (-inner_x * 0.5, line - 0.08),
                (-inner_x * 0.95, line + 0.12),
                (-inner_x, low),
            )
        case _:
            sign = 1 if person.fringe == "left" else -1
            inner = points(
                (inner_x, low),
                (inner_x * 0.94, line + 0.34),
                (inner_x * 0.45, line + 0.2),
                (-0.15, line + 0.02),
                (-inner_x * 0.5, line - 0.1),
                (-inner_x * 0.9, line + 0.2),
                (-inner_x, low),
            )
            if sign < 0:
                inner = inner[::-1] * np.array([-1.0, 1.0])
    if person.hair_style == "receding":
        inner = inner + np.where(np.abs(inner[:, :1]) > 0.2, 1, 0) * np.array([0.0, -0.16]) * (inner[:, 1:] < -0.2)
    outer_px = at.flat(outer, -0.06)
    # The hairline lies on the head, so it turns with it; the outline of the hair hardly does.
    inner_curve = smooth(inner, closed=False)
    inner_px = 0.62 * at.on_face(inner_curve) + 0.38 * at.flat(inner_curve)
    outline = np.concatenate([smooth(outer_px, closed=False), inner_px])
    canvas.fill(outline, hair)
    within = canvas.mask(outline)
    canvas.shade(inner_px, dark, 0.5, 0.07 * at.unit, within)
    for side in (-1, 1):
        canvas.shade(at.flat(ellipse(side * (width + 0.08), -0.2, 0.14, 0.6)), dark, 0.6, 0.08 * at.unit, within)
    rng = np.random.default_rng(person.pattern_seed)
    crown = -0.12 - (0.95 + thick)
    for start in np.linspace(-0.75, 0.75, 7) + rng.uniform(-0.06, 0.06, 7):
        strand = smooth(
            points((0.25 * start, crown + 0.06), (start * 0.75, crown + 0.22), (start * 1.02, line + 0.1)), False
        )
        canvas.shade(at.flat(ribbon(strand, np.full(len(strand), 0.012)), -0.02), dark, 0.6, 0.015 * at.unit, within)
    shine_at = at.flat(ellipse(0.34 * at.scene.light_from, crown + 0.3, 0.34, 0.09), 0.1)
    canvas.shade(shine_at, shine, 0.75, 0.07 * at.unit, within)


def _eyes(canvas: Canvas, at: _Place) -> None:
    person, scene = at.person, at.scene
    dark = scaled(person.skin, 0.55, 0.44, 0.42)
    brow = mix(scaled(HAIR_COLOURS[person.hair_colour], 0.62, 0.6, 0.6), (40, 28, 24), 0.35)
    squint = {"neutral": 1.0, "smile": 0.95, "laugh": 0.85, "serious": 0.95}[scene.expression]
    size, tall = person.eye_size, person.eye_size * person.eye_open * squint
    y = person.eye_height
    for side in (-1, 1):
        x = side * person.eye_spacing
        flip = np.array([side, 1.0])

        def eye(shape: Points, x: float = x, flip: Points = flip) -> Points:
            return at.on_face(shape * flip + np.array([x, y]))

        canvas.shade(eye(ellipse(-0.02, -0.1, size * 1.3, 0.13)), dark, 0.4, 0.07 * at.unit)
        canvas.shade(eye(ellipse(0, tall * 1.15, size, 0.04)), dark, 0.28, 0.035 * at.unit)
        rise = person.eye_tilt
        upper = smooth(
            points((-size, 0.03), (-size * 0.45, -tall * 0.85), (size * 0.3, -tall - rise * 0.4), (size, -rise)), False
        )
        lower = smooth(
            points((size, -rise), (size * 0.35, tall * 0.75), (-size * 0.4, tall * 0.72), (-size, 0.03)), False
        )
        almond = eye(np.concatenate([upper, lower]))
        canvas.fill(almond, (244, 241, 238))
        within = canvas.mask(almond)
        look = 0.1 * size * at.sin
        canvas.shade(eye(upper), (90, 80, 90), 0.7, 0.025 * at.unit, within)
        radius = min(size * 0.56, tall * 1.12)
        canvas.fill(eye(ellipse(look * side, -0.01, radius, radius)), scaled(person.iris, 0.62, 0.62, 0.62), within)
        canvas.fill(eye(ellipse(look * side, 0.0, radius * 0.78, radius * 0.78)), person.iris, within)
        canvas.fill(eye(ellipse(look * side, -0.01, radius * 0.46, radius * 0.46)), (16, 12, 14), within)
        spark = eye(
            ellipse(
                (0.4 * radius) * side * (1 if scene.light_from > 0 else -1),
                -radius * 0.4,
                radius * 0.24,
                radius * 0.24,
                10,
            )
        )
        canvas.fill(spark, (255, 255, 255), within)
        lash = (0.028 if person.class_word == "woman" else 0.017) + 0.004
        widths = np.linspace(0.5, 1.25, len(upper)) * lash
        canvas.fill(eye(ribbon(upper, widths)), (34, 22, 22))
        if person.class_word == "woman":
            canvas.fill(
                eye(points((size * 0.9, -rise - 0.02), (size * 1.24, -rise - 0.085), (size * 0.96, -rise + 0.02))),
                (34, 22, 22),
            )
        canvas.fill(eye(ribbon(lower, np.full(len(lower), 0.007))), scaled(dark, 0.9, 0.9, 0.9))
        crease = upper * np.array([1.02, 1.0]) - np.array([0.0, 0.055])
        canvas.shade(eye(ribbon(crease, np.full(len(crease), 0.012))), dark, 0.7, 0.012 * at.unit)
        thick = person.brow_thickness
        lift = {"neutral": 0.0, "smile": 0.01, "laugh": 0.02, "serious": -0.015}[scene.expression]
        by = -person.brow_height - lift
        furrow = 0.015 if scene.expression == "serious" else 0.0
        path = smooth(
            points(
                (-size * 1.1, by + furrow + 0.02),
                (-size * 0.2, by - person.brow_arch * 0.5 - person.brow_slope * 0.3),
                (size * 0.6, by - person.brow_arch - person.brow_slope * 0.7),
                (size * 1.45, by + 0.03 - person.brow_slope),
            ),
            False,
        )
        shape = np.sin(np.linspace(0.9, np.pi * 0.97, len(path)))
        canvas.fill(eye(ribbon(path, thick * (0.25 + 0.75 * shape))), brow)


def _nose_and_mouth(canvas: Canvas, at: _Place) -> None:
    person, scene = at.person, at.scene
    shadow, deep = scaled(person.skin, 0.74, 0.62, 0.58), scaled(person.skin, 0.5, 0.36, 0.34)
    shine = mix(person.skin, (255, 250, 240), 0.55)
    tip, wing = person.nose_length, person.nose_width
    dark_side = 1 if scene.light_from < 0 else -1
    bridge = smooth(
        points((dark_side * 0.07, person.eye_height - 0.1), (dark_side * 0.075, 0.12), (dark_side * wing * 0.95, tip)),
        False,
    )
    canvas.shade(at.on_face(ribbon(bridge, np.linspace(0.02, 0.05, len(bridge)))), shadow, 0.85, 0.035 * at.unit)
    canvas.shade(at.on_face(ellipse(0, tip + 0.06, wing * 1.05, 0.035)), shadow, 0.9, 0.03 * at.unit)
    canvas.shade(at.on_face(ellipse(-dark_side * 0.01, tip * 0.45, 0.035, tip * 0.4)), shine, 0.6, 0.035 * at.unit)
    canvas.shade(at.on_face(ellipse(-dark_side * 0.02, tip - 0.04, 0.06, 0.05)), shine, 0.65, 0.03 * at.unit)
    for side in (-1, 1):
        canvas.fill(at.on_face(ellipse(side * wing * 0.48, tip + 0.035, wing * 0.26, 0.024, 14)), deep)
        curve = smooth(
            points((side * wing * 0.98, tip - 0.07), (side * wing * 1.12, tip), (side * wing * 0.8, tip + 0.05)), False
        )
        canvas.shade(at.on_face(ribbon(curve, np.full(len(curve), 0.016))), deep, 0.75, 0.012 * at.unit)

    y, wide, full = person.mouth_height, person.mouth_width, person.lip_fullness
    smile = {"neutral": 0.015, "smile": 0.05, "laugh": 0.06, "serious": -0.012}[scene.expression]
    wide = wide * {"neutral": 1.0, "smile": 1.08, "laugh": 1.1, "serious": 0.97}[scene.expression]
    part = {"neutral": 0.0, "smile": 0.02, "laugh": 0.085, "serious": 0.0}[scene.expression]
    dark_lip, light_lip = scaled(person.lips, 0.72, 0.66, 0.66), mix(person.lips, (255, 220, 214), 0.35)
    seam_top = smooth(
        points(
            (-wide, y - smile),
            (-wide * 0.5, y - part * 0.4),
            (0, y - part * 0.3 + 0.01),
            (wide * 0.5, y - part * 0.4),
            (wide, y - smile),
        ),
        False,
    )
    seam_low = smooth(
        points(
            (wide, y - smile),
            (wide * 0.55, y + part * 0.75),
            (0, y + part + smile * 0.15),
            (-wide * 0.55, y + part * 0.75),
            (-wide, y - smile),
        ),
        False,
    )
    upper = smooth(
        points(
            (-wide, y - smile),
            (-wide * 0.3, y - full * 0.85),
            (0, y - full * 0.62),
            (wide * 0.3, y - full * 0.85),
            (wide, y - smile),
        ),
        False,
    )
    under = smooth(
        points(
            (wide, y - smile),
            (wide * 0.5, y + part + full * 0.8),
            (0, y + part + full * 1.1),
            (-wide * 0.5, y + part + full * 0.8),
            (-wide, y - smile),
        ),
        False,
    )
    canvas.shade(at.on_face(ellipse(0, y + part + full * 1.1 + 0.06, wide * 0.6, 0.035)), shadow, 0.8, 0.035 * at.unit)
    canvas.fill(at.on_face(np.concatenate([upper, seam_top[::-1]])), dark_lip)
    canvas.fill(at.on_face(np.concatenate([seam_low, under[::-1]])), person.lips)
    canvas.shade(
        at.on_face(ellipse(0, y + part + full * 0.55, wide * 0.35, full * 0.18)), light_lip, 0.7, 0.02 * at.unit
    )
    if part:
        gap = at.on_face(np.concatenate([seam_top, seam_low]))
        canvas.fill(gap, (92, 34, 38))
        teeth = at.on_face(np.concatenate([seam_top, seam_low * np.array([0.94, 1.0]) - np.array([0.0, part * 0.45])]))
        canvas.fill(teeth, (246, 242, 236), canvas.mask(gap))
    else:
        canvas.fill(
            at.on_face(ribbon(seam_top, np.sin(np.linspace(0.4, np.pi - 0.4, len(seam_top))) * 0.016)), (84, 36, 36)
        )
    if smile > 0.03:
        for side in (-1, 1):
            fold = smooth(
                points(
                    (side * (wing + 0.07), tip + 0.02),
                    (side * (wide + 0.06), y - 0.12),
                    (side * (wide + 0.09), y + 0.0),
                ),
                False,
            )
            canvas.shade(at.on_face(ribbon(fold, np.full(len(fold), 0.01))), shadow, 0.5, 0.02 * at.unit)


def _beard(canvas: Canvas, at: _Place, face: Image.Image) -> None:
    person = at.person
    hair = scaled(HAIR_COLOURS[person.hair_colour], 0.85, 0.82, 0.82)
    y, wide = person.mouth_height, person.mouth_width
    moustache = smooth(
        points(
            (-wide * 1.15, y + 0.02),
            (-wide * 0.5, y - 0.13),
            (0, y - 0.12),
            (wide * 0.5, y - 0.13),
            (wide * 1.15, y + 0.02),
            (0, y - 0.02),
        )
    )
    if person.beard in ("full", "stubble"):
        side = person.face_width * 1.05
        cheek = points(
            (-side, 0.05),
            (-side * 0.86, 0.42),
            (-wide * 1.25, y - 0.12),
            (-wide * 0.6, y - 0.14),
            (0, y - 0.13),
            (wide * 0.6, y - 0.14),
            (wide * 1.25, y - 0.12),
            (side * 0.86, 0.42),
            (side, 0.05),
            (side, 1.15),
            (-side, 1.15),
        )
        shape = 0.5 * at.on_face(cheek) + 0.5 * at.flat(cheek, 0.25)
        if person.beard == "full":
            canvas.shade(shape, hair, 0.96, 0.022 * at.unit, face)
        else:
            canvas.shade(shape, mix(hair, person.skin, 0.3), 0.42, 0.06 * at.unit, face)
    if person.beard in ("moustache", "goatee"):
        canvas.shade(at.on_face(moustache), hair, 0.97, 0.014 * at.unit)
    if person.beard == "goatee":
        chin = smooth(
            points(
                (-wide * 0.8, y + 0.16),
                (0, y + 0.15),
                (wide * 0.8, y + 0.16),
                (wide * 0.75, 1.05),
                (-wide * 0.75, 1.05),
            )
        )
        canvas.shade(at.on_face(chin), hair, 0.96, 0.022 * at.unit, face)


def _glasses(canvas: Canvas, at: _Place) -> None:
    person = at.person
    y, x, size = person.eye_height + 0.02, person.eye_spacing, person.eye_size
    width = min(size * 1.5, x - 0.06)
    frame, thick = (36, 30, 38), 0.042 * at.unit
    for side in (-1, 1):
        turn = np.linspace(0, 2 * np.pi, 33)
        # A superellipse: rounder than a box, straighter than a circle.
        rim = np.stack(
            [np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.7, np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.7],
            axis=1,
        )
        rim = rim * np.array([width, 0.215]) + np.array([side * x, y])
        lens = at.on_face(rim)
        canvas.shade(lens, (235, 245, 255), 0.14, 0.01 * at.unit)
        canvas.line(lens, frame, thick)
        temple = points((side * (x + width), y - 0.08), (side * person.face_width * 1.0, y - 0.1))
        canvas.line(at.on_face(temple), frame, thick)
    canvas.line(
        at.on_face(smooth(points((-x + width, y - 0.05), (0, y - 0.08), (x - width, y - 0.05)), False)), frame, thick
    )


def _head(canvas: Canvas, at: _Place) -> None:
    person, scene = at.person, at.scene
    skin = person.skin
    shadow, deep = scaled(skin, 0.76, 0.65, 0.62), scaled(skin, 0.58, 0.46, 0.44)
    shine = mix(skin, (255, 248, 236), 0.5)
    width = person.face_width
    for side in (-1, 1):
        ear = ellipse(side * (width + 0.02 - 0.18 * max(0.0, side * at.sin)) - 0.06 * at.sin, 0.1, 0.11, 0.2)
        canvas.fill(at.flat(ear), scaled(skin, 0.93, 0.86, 0.84))
        canvas.shade(at.flat(ear * 1.0), deep, 0.3, 0.06 * at.unit)
    outline = _face_outline(at)
    canvas.fill(outline, skin)
    face = canvas.mask(outline)
    dark_side = 1 if scene.light_from < 0 else -1
    power = min(1.0, 0.45 + 0.5 * abs(scene.light_from))
    edge = at.flat(ellipse(dark_side * width * 1.12, 0.15, width * 0.34, 1.0), 0.2)
    canvas.shade(edge, shadow, 0.85 * power, 0.16 * at.unit, face)
    canvas.shade(
        at.flat(ellipse(-dark_side * width * 1.15, 0.3, width * 0.24, 0.8), 0.2), shadow, 0.5, 0.12 * at.unit, face
    )
    canvas.shade(at.flat(ellipse(0, 1.08, width * 0.75, 0.14), 0.28), shadow, 0.7, 0.09 * at.unit, face)
    canvas.shade(at.on_face(ellipse(0, -0.48, width * 0.42, 0.15)), shine, 0.45, 0.12 * at.unit, face)
    canvas.shade(at.on_face(ellipse(0, 0.88, 0.14, 0.08)), shine, 0.4, 0.07 * at.unit, face)
    for side in (-1, 1):
        cheek = ellipse(side * width * 0.58, 0.32, 0.17, 0.13)
        canvas.shade(at.on_face(cheek), (232, 110, 100), 0.34 * person.blush, 0.09 * at.unit, face)
        canvas.shade(at.on_face(cheek - np.array([0.0, 0.12])), shine, 0.4, 0.07 * at.unit, face)
    if person.freckles:
        rng = np.random.default_rng(person.pattern_seed + 1)
        for _ in range(16):
            side = 1 if rng.random() < 0.5 else -1
            spot = ellipse(side * rng.uniform(0.12, 0.46), rng.uniform(0.14, 0.38), 0.018, 0.018, 8)
            canvas.fill(at.on_face(spot), mix(skin, deep, 0.6), face)
    _beard(canvas, at, face)
    _nose_and_mouth(canvas, at)
    _eyes(canvas, at)
    _hair_cap(canvas, at)
    if scene.glasses:
        _glasses(canvas, at)


def _background(canvas: Canvas, scene: Scene) -> None:
    colour = BACKGROUND_COLOURS[scene.background_colour]
    width, height, short = canvas.width, canvas.height, min(canvas.width, canvas.height)
    rng = np.random.default_rng(scene.pattern_seed)
    light, dark = mix(colour, (255, 255, 255), 0.35), scaled(colour, 0.84, 0.84, 0.86)
    glow = ellipse(width * (0.5 + 0.35 * scene.light_from), height * 0.25, width * 0.4, height * 0.3)
    canvas.shade(glow, light, 0.7, 0.22 * short)
    canvas.shade(ellipse(width * 0.5, height * 1.05, width * 0.8, height * 0.2), dark, 0.6, 0.15 * short)
    if scene.backdrop == "spots":
        for _ in range(6):
            x, y, r = rng.uniform(0, width), rng.uniform(0, height * 0.8), short * rng.uniform(0.05, 0.12)
            canvas.shade(ellipse(x, y, r, r), light if rng.random() < 0.6 else dark, 0.55, 0.012 * short)
    elif scene.backdrop == "panels":
        step, start = short * rng.uniform(0.22, 0.34), rng.uniform(-0.2, 0.0) * short
        for i in range(1, int(width / step) + 3, 2):
            left = start + i * step
            canvas.shade(
                points((left, 0), (left + step, 0), (left + step, height), (left, height)), dark, 0.4, 0.006 * short
            )


def _lit(picture: Image.Image, scene: Scene) -> Image.Image:
    """The whole picture under its light: bright lifts it, dim lowers it and cools it."""
    if scene.light == "soft":
        return picture
    if scene.light == "bright":
        curves = [[min(255, round(255 * (v / 255) ** 0.82 * 1.03)) for v in range(256)]] * 3
    else:
        curves = [[round(v * gain) for v in range(256)] for gain in (0.62, 0.63, 0.68)]
    return picture.point(curves[0] + curves[1] + curves[2])


def _truth(at: _Place, is_subject: bool) -> FaceTruth:
    width = at.person.face_width
    outline = at.flat(points((-width, -0.55), (width, -0.55), (width, 1.0), (-width, 1.0)), 0.2)
    left, top = outline.min(axis=0)
    right, bottom = outline.max(axis=0)
    box = (round(float(left)), round(float(top)), round(float(right - left)), round(float(bottom - top)))
    return FaceTruth(at.person, box, is_subject)


def _places(identity: Identity, scene: Scene) -> tuple[_Place, ...]:
    """Where everybody stands, the subject first."""
    width, height = scene.size_px
    short = min(width, height)
    unit = short * HALF_FACE[scene.framing] * scene.zoom
    usual = {"close": 0.47, "medium": 0.36, "full": 0.14}[scene.framing]
    main = _Place(identity, scene, width / 2 + scene.offset_x * short, height * usual + scene.offset_y * short, unit)
    rng = np.random.default_rng(scene.pattern_seed + 2)
    places = [main]
    for other, side in zip(scene.others, (-1, 1), strict=False):
        theirs = replace(
            scene,
            shirt_colour=str(rng.choice(list(SHIRT_COLOURS))),
            yaw_deg=float(rng.uniform(-10, 10)),
            tilt_deg=float(rng.normal(0, 2)),
            glasses=bool(rng.random() < 0.3),
            expression="smile",
        )
        size = unit * float(rng.uniform(0.82, 0.95))
        down = float(rng.uniform(-0.1, 0.35))
        places.append(_Place(other, theirs, main.x + side * unit * 2.75, main.y + unit * down, size))
    return tuple(places)


def truth_of(identity: Identity, scene: Scene) -> tuple[FaceTruth, ...]:
    """The faces that `draw` would draw, without drawing them."""
    return tuple(_truth(at, number == 0) for number, at in enumerate(_places(identity, scene)))


def draw(identity: Identity, scene: Scene, oversample: int | None = None) -> Drawing:
    """The picture of `identity` in `scene`.

    `oversample` (1..4) is how many times larger it is drawn before it is averaged down; left out, 3 for small pictures and 2
    for large ones.
    """
    width, height = scene.size_px
    times = oversample or (3 if min(width, height) <= 256 else 2)
    canvas = Canvas(width, height, times, BACKGROUND_COLOURS[scene.background_colour])
    _background(canvas, scene)
    places = _places(identity, scene)
    for at in (*places[1:], places[0]):
        _hair_behind(canvas, at)
        _neck_and_body(canvas, at)
        _head(canvas, at)
    return Drawing(_lit(canvas.finished(), scene), identity, scene, truth_of(identity, scene))
