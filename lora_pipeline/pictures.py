"""Opening and saving pictures: any file in, an upright sRGB picture without metadata out."""

import io
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.errors import PhotoError
from lora_pipeline.store import whole

if TYPE_CHECKING:
    from PIL.Image import Image

_opening = threading.Lock()  # warnings filters are global to the process


def open_upright(path: Path, max_megapixels: float = 200.0) -> "Image":
    """Open a photo as people see it: first frame, EXIF orientation turned, ICC profile converted to sRGB, 8 bits, RGB.

    Alpha is laid over white; 16-bit grey is scaled to 8; CMYK goes through its profile if it has one. The picture that comes
    back carries no EXIF (no GPS), no profile, no comment.

    Raises:
        PhotoError: the file is empty, is no picture, is cut short, is too large, or cannot be read; the message says which.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    _register_heif()
    try:
        if path.stat().st_size == 0:
            raise PhotoError("the file is empty (0 bytes)")
        with warnings.catch_warnings(), _opening:
            warnings.simplefilter("ignore")
            opened = Image.open(path)
        with opened:
            if opened.width * opened.height > max_megapixels * 1e6:
                raise PhotoError(
                    f"{opened.width} × {opened.height} pixels are more than {max_megapixels:g} megapixels: a decompression bomb?"
                )
            opened.seek(0)
            opened.load()
            picture = ImageOps.exif_transpose(opened)
            upright = _to_rgb(picture)
    except UnidentifiedImageError:
        raise PhotoError("the file is not a picture that can be read here") from None
    except Image.DecompressionBombError:
        raise PhotoError(f"more than {max_megapixels:g} megapixels: a decompression bomb?") from None
    except PermissionError:
        raise PhotoError("the file may not be read (permissions)") from None
    except FileNotFoundError:
        raise PhotoError("the file is gone") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise PhotoError(f"the picture is damaged or cut short: {error}") from None
    return upright


def _to_rgb(picture: "Image") -> "Image":
    from PIL import Image, ImageCms

    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I") or picture.mode == "F":
        import numpy as np

        values = np.asarray(picture, dtype=np.float32)
        top = 65535.0 if picture.mode.startswith("I") and values.max(initial=0) > 255 else 255.0
        picture, profile = Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8)), None
    if picture.mode in {"P", "PA"} or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    alpha = picture.getchannel("A") if "A" in picture.getbands() else None
    if picture.mode in {"LA", "La"}:
        picture = picture.convert("RGBA")
    if alpha is not None:
        picture = picture.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            picture = converted or picture
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile, or one of another colour space: the pixels as they are
    picture = picture.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture, mask=alpha)
        picture = white
    clean = Image.new("RGB", picture.size)
    clean.paste(picture)
    return clean


@cache
def _register_heif() -> None:
    import pillow_heif  # pyright: ignore[reportMissingTypeStubs]

    pillow_heif.register_heif_opener()  # pyright: ignore[reportUnknownMemberType]


def save(picture: "Image", path: Path) -> None:
    """Write a picture whole, without metadata; the suffix names the format (PNG is lossless, JPEG is at quality 92)."""
    with whole(path) as aside:
        if path.suffix.lower() in {".jpg", ".jpeg"}:
            picture.save(aside, quality=92)
        else:
            picture.save(aside)


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
