"""Opening and saving pictures: any file in, an upright sRGB picture without metadata out."""

import io
import re
import struct
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.errors import PassingError, PhotoError
from lora_pipeline.store import whole

if TYPE_CHECKING:
    from PIL._imagingcms import CmsProfile
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

# Formats that are told apart by their first bytes and read by Pillow itself: EPS would start a program, TGA takes any file.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF", "JPEG2000", "PPM", "PSD", "QOI")
EXIF_ORIENTATION, EXIF_CHANGED, EXIF_SUB_IFD, EXIF_TAKEN = 0x0112, 0x0132, 0x8769, 0x9003
TURNS = {  # to the upright picture, by orientation: EXIF 2.3, 4.6.4
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    RuntimeError,
    ArithmeticError,
    struct.error,
)

_opening = threading.Lock()  # Pillow's own limit is global to the process


@dataclass(frozen=True)
class Opened:
    """A photo, opened.

    Args:
        picture: upright, sRGB, 8 bits, RGB, without metadata.
        format: Pillow's name of the file's format ("JPEG", "HEIF", …).
        taken: when, as the EXIF says ("2026:03:01 12:30:00"), or empty.
    """

    picture: "Image"
    format: str
    taken: str


def open_upright(path: Path, max_megapixels: float = 200.0) -> "Image":
    """Open a photo as people see it: first frame, EXIF orientation turned, ICC profile converted to sRGB, 8 bits, RGB.

    Alpha is laid over white; 16-bit grey is scaled to 8; CMYK goes through its profile if it has one. The picture that comes
    back carries no EXIF (no GPS), no profile, no comment.

    Raises:
        PhotoError: the file is empty, is no picture, is cut short, is too large, or cannot be read; the message says which.
    """
    return open_photo(path, max_megapixels).picture


def open_photo(path: Path, max_megapixels: float = 200.0) -> Opened:
    """Open a photo as `open_upright` does, and say what file it was. Raises PhotoError as it does."""
    with _reading(path, max_megapixels) as opened:
        opened.seek(0)
        taken = _taken(opened)  # before `load`, after which a TIFF's tags are out of reach
        opened.load()
        return Opened(_to_rgb(_turned(opened)), opened.format or "", taken)


@contextmanager
def _reading(path: Path, max_megapixels: float) -> "Generator[ImageFile]":
    from PIL import Image, UnidentifiedImageError

    _get_ready()
    try:
        if path.stat().st_size == 0:
            raise PhotoError("the file is empty (0 bytes)")
        with _opening:
            # The limit is ours, below, and comes from the settings.
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                opened = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        with opened:
            if opened.width * opened.height > max_megapixels * 1e6:
                size = f"{opened.width} × {opened.height} pixels"
                raise PhotoError(f"{size} are more than {max_megapixels:g} megapixels: a decompression bomb?")
            yield opened
    except UnidentifiedImageError:
        raise PhotoError("the file is not a picture that can be read here") from None
    except Image.DecompressionBombError:
        raise PhotoError("a frame is far larger than the picture: a decompression bomb?") from None
    except PermissionError:
        raise PassingError("the file may not be read (permissions)") from None
    except FileNotFoundError:
        raise PassingError("the file is gone") from None
    except MemoryError:
        raise PassingError("the picture is too large for this machine's memory") from None
    except DAMAGED as error:
        raise PhotoError(f"the picture is damaged or cut short: {error}") from None


def _turned(opened: "ImageFile") -> "Image":
    """Pillow's own way of turning writes the whole EXIF anew, and fails where any tag is odd."""
    from PIL import Image

    orientation = _tag(opened, EXIF_ORIENTATION)
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return opened.transpose(Image.Transpose[turn]) if turn else opened


def _taken(opened: "ImageFile") -> str:
    told = _tag(opened, EXIF_TAKEN, EXIF_SUB_IFD) or _tag(opened, EXIF_CHANGED)
    return told if isinstance(told, str) and re.fullmatch(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d", told) else ""


def _tag(opened: "ImageFile", tag: int, directory: int | None = None) -> object:
    """A value of the EXIF, or None; an EXIF that is broken does not make the picture so."""
    try:
        exif = opened.getexif()
        return (exif.get_ifd(directory) if directory else exif).get(tag)
    except DAMAGED:
        return None


def _to_rgb(picture: "Image") -> "Image":
    from PIL import Image

    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I") or picture.mode == "F":
        picture, profile = _to_8_bits(picture), None
    if picture.mode in {"P", "PA", "LA", "La", "RGBa"} or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    if alpha is not None:
        picture = picture.convert("RGB")
    if profile:
        picture = _to_srgb(picture, profile)
    clean = picture.convert("RGB")  # a copy, also of an RGB picture
    if alpha is not None:
        clean = Image.new("RGB", picture.size, "white")
        clean.paste(picture, mask=alpha)
    clean.info = {}
    return clean


def _to_8_bits(picture: "Image") -> "Image":
    """Grey of 16 or 32 bits or of floats → 8 bits. A file does not say what its white is, so the values must."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(picture, dtype=np.float32))
    brightest = float(values.max(initial=0))
    if picture.mode.startswith("I;16"):
        white = 65535.0
    elif picture.mode == "F":
        white = 1.0 if brightest <= 1 else 255.0 if brightest <= 255 else 65535.0
    else:
        white = 255.0 if brightest <= 255 else 65535.0
    return Image.fromarray((values / white * 255).clip(0, 255).round().astype(np.uint8))


def _to_srgb(picture: "Image", profile: bytes) -> "Image":
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).startswith("sRGB"):
            return picture  # half of opening's time, for nothing
        return ImageCms.profileToProfile(picture, source, _srgb(), outputMode="RGB") or picture
    except (ImageCms.PyCMSError, OSError):
        return picture  # a broken profile, or one of another colour space: the pixels as they are


@cache
def _srgb() -> "CmsProfile":
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")


@cache
def _get_ready() -> None:
    import pillow_heif  # pyright: ignore[reportMissingTypeStubs]
    from PIL import Image

    # What is wrong with a picture that opens all the same (odd tags, an extra chunk) is of no interest to the person.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    Image.init()
    pillow_heif.register_heif_opener()  # pyright: ignore[reportUnknownMemberType]


def save(picture: "Image", path: Path) -> None:
    """Write a picture whole, without metadata; the suffix names the format (PNG is lossless, JPEG is at quality 92)."""
    plain = picture.copy()
    plain.info = {}  # writers take profiles and comments from there
    with whole(path) as aside:
        if path.suffix.lower() in {".jpg", ".jpeg"}:
            plain.save(aside, quality=92)
        else:
            plain.save(aside)


def contact_sheet(
    pictures: Sequence["Image"], labels: Sequence[str] | None = None, columns: int = 8, side_px: int = 96
) -> "Image":
    """Pictures in rows, each fitted into a square, with a line of text under it if labels are given."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    line_px = 14 if labels else 0
    rows = max(1, -(-len(pictures) // columns))
    columns = max(1, min(columns, len(pictures)))
    sheet = Image.new("RGB", (columns * (side_px + 4) + 4, rows * (side_px + line_px + 4) + 4), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for number, picture in enumerate(pictures):
        left, top = 4 + number % columns * (side_px + 4), 4 + number // columns * (side_px + line_px + 4)
        fitted = ImageOps.contain(picture.convert("RGB"), (side_px, side_px))
        sheet.paste(fitted, (left + (side_px - fitted.width) // 2, top + (side_px - fitted.height) // 2))
        if labels:
            text = labels[number]
            while text and draw.textlength(text, font=font) > side_px:
                text = text[:-1]
            draw.text((left, top + side_px + 1), text, fill="black", font=font)
    return sheet
