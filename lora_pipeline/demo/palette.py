"""The colours of the drawn world: plain words and the RGB (0..255) that each is drawn with.

Captions, the measuring captioner and the tests all name colours with these words and no others.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Rgb: TypeAlias = tuple[int, int, int]

SHIRT_COLOURS: Final[dict[str, Rgb]] = {
    "red": (200, 44, 48),
    "orange": (238, 134, 38),
    "yellow": (244, 208, 62),
    "green": (56, 148, 78),
    "blue": (46, 94, 190),
    "purple": (122, 66, 168),
    "pink": (240, 142, 178),
    "white": (242, 242, 240),
    "grey": (138, 142, 148),
    "black": (38, 38, 44),
    "brown": (122, 80, 48),
}

HAIR_COLOURS: Final[dict[str, Rgb]] = {
    "black": (34, 30, 34),
    "brown": (98, 60, 36),
    "blonde": (226, 186, 108),
    "red": (178, 74, 34),
    "grey": (164, 164, 170),
}

BACKGROUND_COLOURS: Final[dict[str, Rgb]] = {
    "red": (196, 88, 82),
    "orange": (234, 166, 100),
    "yellow": (240, 220, 138),
    "green": (126, 182, 134),
    "blue": (122, 168, 220),
    "purple": (160, 128, 196),
    "pink": (244, 190, 204),
    "white": (240, 240, 238),
    "grey": (156, 160, 166),
    "brown": (158, 122, 92),
}

SKINS: Final[tuple[Rgb, ...]] = (
    (252, 224, 202),
    (246, 206, 176),
    (234, 184, 146),
    (216, 160, 118),
    (190, 130, 88),
    (156, 100, 66),
    (118, 74, 50),
)

IRISES: Final[tuple[Rgb, ...]] = ((70, 112, 160), (78, 120, 80), (96, 60, 34), (52, 36, 28), (120, 132, 140))

LIPS: Final[tuple[Rgb, ...]] = ((196, 92, 88), (176, 58, 72), (206, 112, 104), (150, 62, 62), (214, 92, 116))

TROUSERS: Final[tuple[Rgb, ...]] = ((48, 62, 96), (58, 58, 62), (112, 96, 78), (30, 32, 38), (92, 106, 126))


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """`a` moved towards `b` by `share` (0..1)."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def scaled(a: Rgb, r: float, g: float, b: float) -> Rgb:
    """`a` with each channel multiplied, kept within 0..255."""
    return (min(255, max(0, round(a[0] * r))), min(255, max(0, round(a[1] * g))), min(255, max(0, round(a[2] * b))))
