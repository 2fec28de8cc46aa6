"""A caption without a model: framing, head angle, glasses, colours and light, measured.

The words are the house vocabulary; the demo world's captions are made of the same (a test compares them). What belongs to the
person (hair, beard, the face's shape) is left out on purpose: what the caption names, the trigger word does not learn.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from lora_pipeline.records import Box, Crop

Rgb = tuple[int, int, int]

FRAMINGS = {"close": "close portrait", "medium": "medium shot", "full": "full body"}
CLOSE_FROM, MEDIUM_FROM = 0.335, 0.185
"""Height of the face's box as a share of the picture's short side, from which a picture is close, or medium."""

TURNED_AT_DEG = 12.0
"""A head turned less faces the camera."""

GLASSES = "wearing glasses"
BRIDGE = (0.458, 0.13, 0.548, 0.48)
"""Where the frame of glasses crosses the nose, brow to cheek: left, top, right, bottom as shares of a face's box (of dlib's kind)."""
BRIDGE_FROM = 0.38
"""How much darker than its surroundings, as a share of the cheeks' luma, a bar across the nose is a frame's. Drawn faces at 512 px that look at the
camera: 0.38 to 0.8 with glasses, under 0.2 in 98 % without. Real ones without: up to 0.33, where brows are knit."""
BRIDGE_SEEN_TO_DEG = 15.0
"""In a head turned further, its own brow stands there."""
BRIDGE_SEEN_FROM_PX = 24
"""Height of a face's box in which a frame is at least a pixel thick."""

LIGHTS = {"bright": "bright light", "soft": "soft light", "dim": "dim light"}
DIM_TO = 180.0
"""Where the brightest channel value (its 99.8th percentile, 0 to 255) is lower, the light is dim."""
BRIGHT_FROM = 0.63
"""Mean luma (0 to 1) from which a picture is bright, if its colours do not say so themselves."""
PLAIN_TO = 16.0
"""Colours whose distances from the palette (Lab, summed over shirt and background) are less are flat enough to tell the light by."""
DIM_GAINS, BRIGHT_GAIN, BRIGHT_POWER = (0.62, 0.63, 0.68), 1.03, 0.82
"""What dim light multiplies the channels by; and bright light: v → gain · v^power, v 0 to 1."""

SHIRT_COLOURS: dict[str, Rgb] = {
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
BACKGROUND_COLOURS: dict[str, Rgb] = {
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


class Measured:
    """The captioner that needs no weights."""

    name = "measured"
    identity = "measured 2"

    def words(self, picture: "Image", crop: "Crop") -> str:
        """Framing, angle, glasses, shirt, background and light, those that can be seen, in that order: see `Captioner.words`."""
        import numpy as np

        scale = min(1.0, SIDE_PX / max(picture.size))
        small = picture.convert("RGB").resize(
            (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        )
        pixels = np.asarray(small, dtype=np.float64)  # H×W×3, 0 to 255
        colours, light = _colours_and_light(pixels, crop, scale)
        phrases: list[str] = []
        if crop.face:
            share = (crop.face[3] - crop.face[1]) / min(picture.size)
            framing = "close" if share >= CLOSE_FROM else "medium" if share >= MEDIUM_FROM else "full"
            phrases += [FRAMINGS[framing], angle(crop.yaw_deg or 0.0)]
            if _wears_glasses(picture, crop.face, crop.yaw_deg or 0.0):
                phrases.append(GLASSES)
        phrases += [f"{colour} {thing}" for thing, colour in colours.items()]
        return ", ".join([*phrases, LIGHTS[light]])


def angle(yaw_deg: float) -> str:
    """The words for a head's angle; left and right are the picture's."""
    if abs(yaw_deg) < TURNED_AT_DEG:
        return "facing the camera"
    return "turned to the right" if yaw_deg > 0 else "turned to the left"


def _wears_glasses(picture: "Image", face: "Box", yaw_deg: float) -> bool:
    seen = abs(yaw_deg) < BRIDGE_SEEN_TO_DEG and face[3] - face[1] >= BRIDGE_SEEN_FROM_PX
    return seen and bridge(picture, face) > BRIDGE_FROM


def bridge(picture: "Image", face: "Box") -> float:
    """How much darker the darkest row across the bridge of the nose is than those above and below it, as a share of the cheeks' luma.

    The frame of glasses is the one thing that crosses there: it is how Jing and Mariani (2000, "Glasses detection and extraction by deformable
    contour") tell that there are some.
    """
    import numpy as np
    from PIL import Image

    grey = picture.convert("L")
    left, top, width, height = face[0], face[1], face[2] - face[0], face[3] - face[1]

    def part(shares: tuple[float, float, float, float], size: tuple[int, int]) -> "NDArray[np.float64]":
        box = (left + shares[0] * width, top + shares[1] * height, left + shares[2] * width, top + shares[3] * height)
        return np.asarray(grey.resize(size, Image.Resampling.BICUBIC, box=box), dtype=np.float64)

    rows = np.median(part(BRIDGE, (9, 32)), axis=1)
    cheeks = float(np.median(part((0.3, 0.55, 0.7, 0.75), (40, 20))))
    darker = max(
        min(rows[max(0, row - 7) : row - 1].max(), rows[row + 2 : row + 8].max()) - rows[row]
        for row in range(2, len(rows) - 2)
    )
    return float(darker) / max(cheeks, 1.0)


SIDE_PX = 256
"""Long side at which colours are measured."""

Seen = tuple[str, float]
"""A colour's word, and how far (Lab) what was seen is from it."""


def _colours_and_light(pixels: "NDArray[np.float64]", crop: "Crop", scale: float) -> tuple[dict[str, str], str]:
    """Colour by thing, in the caption's order, and the light, by which colours look other than they are.

    Dim light is plain to see. Whether light is bright or soft is told by which of the two makes shirt and background nearer
    to plain colours; where neither does, as on most photographs, by how bright the picture is.
    """
    import numpy as np

    face = tuple(round(value * scale) for value in crop.face) if crop.face else None
    background = _background(pixels, crop, scale, face)
    shirt = _shirt(pixels, face) if face else None
    if float(np.percentile(pixels.max(2), 99.8)) < DIM_TO:
        seen = {"dim": _seen(shirt, background, "dim")}
    else:
        seen = {light: _seen(shirt, background, light) for light in ("soft", "bright")}
    fits = {light: sum(distance for _, distance in things.values()) for light, things in seen.items()}
    light = min(fits, key=lambda one: fits[one])
    if light != "dim" and (shirt is None or fits[light] > PLAIN_TO):
        light = "bright" if float((pixels @ LUMA).mean()) / 255 >= BRIGHT_FROM else "soft"
    return {thing: word for thing, (word, _) in seen[light].items()}, light


LUMA = (0.299, 0.587, 0.114)


def _seen(
    shirt: "tuple[NDArray[np.float64], NDArray[np.float64]] | None", background: "NDArray[np.float64]", light: str
) -> dict[str, Seen]:
    """Shirt (if there is a face to find it by) and background, under a light."""
    import numpy as np

    behind = lab(_unlit(background, light))
    things: dict[str, Seen] = {}
    if shirt is not None:
        cloth, skin = lab(_unlit(shirt[0], light)), lab(_unlit(shirt[1], light))
        ground = np.median(behind, axis=0)
        # What looks like the background, or like skin, is most likely that, unless nothing else is there.
        other = np.linalg.norm(cloth - ground, axis=1) > 12
        clothed = other & (np.linalg.norm(cloth - skin, axis=1) > 14)
        mask = next((mask for mask in (clothed, other) if mask.sum() > 0.15 * len(cloth)), None)
        things["shirt"] = _most(cloth if mask is None else cloth[mask], SHIRT_COLOURS)
    things["background"] = _most(behind, BACKGROUND_COLOURS)
    return things


def _most(colours: "NDArray[np.float64]", palette: dict[str, Rgb]) -> Seen:
    """The word that most pixels (N×3, Lab) are nearest to, and the median distance of those from the palette's own shade.

    Each word has two shades, the strong one of cloth and the pale one of walls: a wall may be navy, a shirt sky blue.
    """
    import numpy as np

    shades = [*palette.items(), *SHIRT_COLOURS.items(), *BACKGROUND_COLOURS.items()]
    words = list(dict.fromkeys(word for word, _ in shades))
    plain = lab(np.array([colour for _, colour in shades], dtype=np.float64))
    distances = np.linalg.norm(colours[:, None] - plain[None], axis=2)  # pixels × shades
    nearest = np.array([words.index(word) for word, _ in shades])[distances.argmin(1)]
    most = int(np.bincount(nearest, minlength=len(words)).argmax())
    own = next(number for number, (word, _) in enumerate(shades) if word == words[most])
    return words[most], float(np.median(distances[nearest == most, own]))


def _shirt(
    pixels: "NDArray[np.float64]", face: tuple[int, ...]
) -> "tuple[NDArray[np.float64], NDArray[np.float64]] | None":
    """Pixels (N×3) of the chest below the face, and the colour of its skin; None if the picture ends at the neck."""
    import numpy as np

    high, middle = face[3] - face[1], (face[0] + face[2]) / 2
    across = slice(max(0, round(middle - high)), max(0, round(middle + high)))
    # Below a face that fills the picture, the collar in the lowest rows is all there is.
    top = min(round(face[3] + 0.35 * high), round(0.94 * len(pixels)))
    chest = pixels[max(top, face[3]) : max(0, round(face[3] + 2.2 * high)), across].reshape(-1, 3)
    inner = slice(max(0, round(middle - high / 4)), max(1, round(middle + high / 4)))
    cheeks = pixels[max(0, round(face[1] + 0.45 * high)) : max(1, round(face[1] + 0.75 * high)), inner].reshape(-1, 3)
    return (chest, np.median(cheeks, axis=0)) if len(chest) >= 16 and len(cheeks) else None


def _background(
    pixels: "NDArray[np.float64]", crop: "Crop", scale: float, face: tuple[int, ...] | None
) -> "NDArray[np.float64]":
    """Pixels (N×3) along the top and down both sides as far as the face's middle, without strangers' heads or the subject's."""
    import numpy as np

    height, width = pixels.shape[:2]
    down = max(height // 4, (face[1] + face[3]) // 2 if face else height // 2)
    edge = max(2, round(0.08 * min(width, height)))
    where = np.zeros((height, width), dtype=bool)
    where[:edge] = where[:down, :edge] = where[:down, width - edge :] = True
    heads = [tuple(round(value * scale) for value in box) for box in crop.strangers] + ([face] if face else [])
    for left, top, right, bottom in heads:
        beyond = round(0.5 * max(right - left, bottom - top))
        where[max(0, top - beyond) : bottom + beyond, max(0, left - beyond) : right + beyond] = False
    return pixels[where] if where.any() else pixels.reshape(-1, 3)


def _unlit(colours: "NDArray[np.float64]", light: str) -> "NDArray[np.float64]":
    """Colours (…×3, 0 to 255) as they are in soft light."""
    import numpy as np

    if light == "dim":
        return np.clip(colours / np.array(DIM_GAINS), 0, 255)
    if light == "bright":
        return 255 * np.clip(colours / 255 / BRIGHT_GAIN, 0, 1) ** (1 / BRIGHT_POWER)
    return colours


def lab(rgb: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """sRGB (…×3, 0 to 255) as CIE L*a*b* (D65; L 0 to 100).

    IEC 61966-2-1 for the linear values and their matrix to XYZ; CIE 15:2004, equations 8.3 to 8.11.
    """
    import numpy as np

    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)
