"""Any file in, an upright sRGB picture without metadata out: drawn in each format, with pixels that are known."""

import contextlib
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from lora_pipeline.errors import PhotoError
from lora_pipeline.pictures import contact_sheet, open_photo, open_upright, save

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

RED, GREEN, BLUE, WHITE = (220, 30, 40), (20, 180, 60), (30, 50, 200), (255, 255, 255)
QUARTERS = (RED, GREEN, BLUE, WHITE)  # top left, top right, bottom left, bottom right


def quarters(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A picture whose four quarters differ, wider than high: it shows every turn and mirror."""
    picture = Image.new("RGB", size)
    width, height = size[0] // 2, size[1] // 2
    for colour, at in zip(QUARTERS, ((0, 0), (width, 0), (0, height), (width, height)), strict=True):
        picture.paste(colour, (*at, at[0] + width, at[1] + height))
    return picture


def seen(picture: Image.Image) -> list[tuple[int, ...]]:
    """The colour in the middle of each quarter."""
    width, height = picture.size
    return [
        picture.getpixel((width * x // 4, height * y // 4))  # type: ignore[misc]
        for x, y in ((1, 1), (3, 1), (1, 3), (3, 3))
    ]


def near(one: Any, other: Any, by: int) -> bool:
    return bool(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= by)


def plain(picture: Image.Image, size: tuple[int, int] = (64, 48)) -> None:
    assert picture.mode == "RGB"
    assert picture.size == size
    assert picture.info == {}
    assert not picture.getexif()


# Formats


@pytest.mark.parametrize(
    ("name", "format", "told", "by"),
    [
        ("a.jpg", "JPEG", {"quality": 95}, 4),
        ("a.jpg", "JPEG", {"quality": 95, "progressive": True}, 4),
        ("a.png", "PNG", {}, 0),
        ("a.webp", "WEBP", {"lossless": True}, 0),
        ("a.webp", "WEBP", {"quality": 95}, 6),
        ("a.tif", "TIFF", {}, 0),
        ("a.tif", "TIFF", {"compression": "tiff_lzw"}, 0),
        ("a.bmp", "BMP", {}, 0),
        ("a.ppm", "PPM", {}, 0),
        ("a.gif", "GIF", {}, 0),
        ("a.jp2", "JPEG2000", {}, 2),
        ("named_wrongly.png", "JPEG", {"quality": 95}, 4),
        ("no suffix", "PNG", {}, 0),
    ],
)
def test_formats(tmp_path: Path, name: str, format: str, told: dict[str, Any], by: int) -> None:
    quarters().save(tmp_path / name, format, **told)
    opened = open_photo(tmp_path / name)
    plain(opened.picture)
    assert near(seen(opened.picture), QUARTERS, by)
    assert opened.format == format
    assert opened.taken == ""


def test_heic_as_a_phone_writes_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    heif = pillow_heif.from_pillow(quarters())
    heif.save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    opened = open_photo(tmp_path / "a.heic")
    assert opened.format == "HEIF"
    plain(opened.picture, (48, 64))
    assert near(seen(opened.picture), seen(quarters().transpose(Image.Transpose.ROTATE_270)), 8)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(tmp_path: Path, format: str) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in (BLUE, RED)]
    quarters().save(
        tmp_path / "a", format, save_all=True, append_images=frames, **({"lossless": True} if format == "WEBP" else {})
    )
    picture = open_upright(tmp_path / "a")
    plain(picture)
    assert near(seen(picture), QUARTERS, 0)


# Which way is up

STORED: dict[int, Callable[[Image.Image], Image.Image]] = {
    # EXIF 2.3, 4.6.4: where the stored picture's first row and first column are in the upright one.
    1: lambda upright: upright,
    2: ImageOps.mirror,
    3: lambda upright: upright.transpose(Image.Transpose.ROTATE_180),
    4: ImageOps.flip,
    5: lambda upright: upright.transpose(Image.Transpose.TRANSPOSE),
    6: lambda upright: upright.transpose(Image.Transpose.ROTATE_90),
    7: lambda upright: upright.transpose(Image.Transpose.TRANSVERSE),
    8: lambda upright: upright.transpose(Image.Transpose.ROTATE_270),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_turned_upright(tmp_path: Path, orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    told = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(format, {})
    STORED[orientation](quarters()).save(tmp_path / "a", format, exif=exif, **told)
    picture = open_upright(tmp_path / "a")
    plain(picture)
    assert near(seen(picture), QUARTERS, 4)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters().save(tmp_path / "a.png", exif=exif)
    assert near(seen(open_upright(tmp_path / "a.png")), QUARTERS, 0)


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0garbage", b"Exif\0\0MM\0\xec\0\0\0\x08", b"Exif\0\0" + b"\xff" * 40, b"Exif\0\0II*\0\xff\xff\xff\xff"],
)
def test_broken_exif_does_not_cost_the_picture(tmp_path: Path, exif: bytes) -> None:
    for name, told in (("a.jpg", {"quality": 95}), ("a.webp", {"lossless": True})):
        quarters().save(tmp_path / name, exif=exif, **told)
        opened = open_photo(tmp_path / name)
        assert near(seen(opened.picture), QUARTERS, 4)
        assert opened.taken == ""


def test_odd_tags_beside_the_orientation_do_not_keep_it_from_being_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = (72, 1)
    told = exif.tobytes()
    odd = told.replace(b"\x01\x1a\x00\x05", b"\x01\x1a\x00\x01")  # XResolution as a byte
    assert odd != told
    STORED[6](quarters()).save(tmp_path / "a.jpg", quality=95, exif=odd)
    assert near(seen(open_upright(tmp_path / "a.jpg")), QUARTERS, 4)


# What must not travel


def private_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "a secret description"
    exif[0x0132] = "2026:03:01 12:30:00"
    exif.get_ifd(0x8769)[0x9003] = "2026:02:28 09:08:07"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 22.0, 14.0), 3: "E", 4: (4.0, 53.0, 42.0)})
    return exif


def private(path: Path, format: str) -> None:
    picture, exif = quarters(), private_exif()
    told: dict[str, Any] = {"exif": exif}
    if format == "JPEG":
        told |= {"comment": b"a secret comment", "xmp": b"<x>a secret xmp</x>"}
    if format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "a secret comment")
        told |= {"pnginfo": text}
    if format == "WEBP":
        told |= {"xmp": b"<x>a secret xmp</x>", "lossless": True}
    if format == "HEIF":
        heif = pillow_heif.from_pillow(picture)
        heif.save(path, exif=exif.tobytes(), quality=95)
        return
    picture.save(path, format, **told)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.parametrize("written", ["out.jpg", "out.png", "out.webp", "out.tif"])
def test_neither_place_nor_words_get_through(tmp_path: Path, format: str, written: str) -> None:
    private(tmp_path / "in", format)
    assert b"secret" in (tmp_path / "in").read_bytes()
    opened = open_photo(tmp_path / "in")
    # Pillow leaves the time of taking out of a TIFF's tags, so that of the last change stands in.
    assert opened.taken == ("2026:03:01 12:30:00" if format == "TIFF" else "2026:02:28 09:08:07")
    plain(opened.picture)
    save(opened.picture, tmp_path / written)
    assert b"secret" not in (tmp_path / written).read_bytes()
    with Image.open(tmp_path / written) as again:
        assert not again.getexif().get_ifd(0x8825)
        assert 0x0132 not in again.getexif()
        assert not {"exif", "icc_profile", "comment", "xmp", "XML:com.adobe.xmp"} & set(again.info)


@pytest.mark.parametrize("written", ["out.jpg", "out.png", "out.webp", "out.tif"])
def test_a_picture_that_has_metadata_loses_it_when_saved(tmp_path: Path, written: str) -> None:
    private(tmp_path / "in", "PNG")
    with Image.open(tmp_path / "in") as opened:
        opened.load()
        opened.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        opened.info["comment"] = b"a secret comment"
        save(opened, tmp_path / written)
        assert opened.info["comment"]  # the caller's own is left as it was
    assert b"secret" not in (tmp_path / written).read_bytes()
    with Image.open(tmp_path / written) as again:
        assert not {"exif", "icc_profile", "comment", "Comment"} & set(again.info)


@pytest.mark.parametrize("told", ["yesterday", "", "2026-02-28 09:08:07", "0000:00:00"])
def test_a_time_that_is_none_is_left_out(tmp_path: Path, told: str) -> None:
    exif = Image.Exif()
    exif[0x0132] = told
    quarters().save(tmp_path / "a.jpg", exif=exif)
    assert open_photo(tmp_path / "a.jpg").taken == ""


# Kinds of pixels


def test_grey_and_black_and_white(tmp_path: Path) -> None:
    grey = quarters().convert("L")
    grey.save(tmp_path / "l.png")
    expected = [(value,) * 3 for value in seen(grey)]
    assert seen(open_upright(tmp_path / "l.png")) == expected
    Image.new("1", (8, 8), 1).save(tmp_path / "1.png")
    assert open_upright(tmp_path / "1.png").getpixel((3, 3)) == WHITE


@pytest.mark.parametrize("brightest", [65535, 20000, 200])
def test_grey_of_16_bits(tmp_path: Path, brightest: int) -> None:
    ramp = np.linspace(0, brightest, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    picture = open_upright(tmp_path / "a.png")
    plain(picture)
    expected = np.round(ramp / 65535 * 255)
    assert near(np.asarray(picture)[..., 0], expected, 1)


def test_colours_of_16_bits(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    rows = b"".join(b"\0" + struct.pack(">3H", *(value * 257 for value in RED)) * 8 for _ in range(8))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", _deflated(rows)), (b"IEND", b"")]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))
    assert open_upright(file).getpixel((4, 4)) == RED


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_grey_of_floats(tmp_path: Path, white: float) -> None:
    values = np.full((8, 8), white, dtype=np.float32)
    values[:, :4] = white / 4
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    picture = open_upright(tmp_path / "a.tif")
    assert [picture.getpixel(at) for at in ((0, 0), (2, 4), (6, 4))] == [(0,) * 3, (64,) * 3, WHITE]


def test_whole_numbers_of_32_bits(tmp_path: Path) -> None:
    for value, expected in ((200, 200), (51400, 200)):
        Image.fromarray(np.full((8, 8), value, dtype=np.int32)).save(tmp_path / "a.tif")
        assert open_upright(tmp_path / "a.tif").getpixel((0, 0)) == (expected,) * 3


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (8, 8), (*RED, 0))
    half.paste((*RED, 255), (4, 0, 8, 8))
    half.paste((0, 0, 0, 128), (0, 4, 4, 8))
    for name, picture in (("a.png", half), ("a.tif", half)):
        picture.save(tmp_path / name)
        opened = open_upright(tmp_path / name)
        plain(opened, (8, 8))
        assert [opened.getpixel(at) for at in ((1, 1), (6, 1))] == [WHITE, RED]
        assert near(opened.getpixel((1, 6)), (127, 127, 127), 1)
    half.convert("LA").save(tmp_path / "la.png")
    assert open_upright(tmp_path / "la.png").getpixel((1, 1)) == WHITE


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    picture = quarters().quantize(8)
    transparent = picture.getpixel((48, 36))
    for name in ("a.png", "a.gif"):
        picture.save(tmp_path / name, transparency=transparent)
        opened = open_upright(tmp_path / name)
        plain(opened)
        assert near(seen(opened), QUARTERS, 0)
    picture.save(tmp_path / "other.png", transparency=picture.getpixel((16, 12)))
    assert near(seen(open_upright(tmp_path / "other.png")), (WHITE, *QUARTERS[1:]), 0)
    quarters().save(tmp_path / "rgb.png", transparency=RED)
    assert near(seen(open_upright(tmp_path / "rgb.png")), (WHITE, *QUARTERS[1:]), 0)


# Colours


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (64, 48), (255, 0, 0, 0))
    for name, told in (("a.jpg", {"quality": 95}), ("a.tif", {})):
        ink.save(tmp_path / name, **told)
        picture = open_upright(tmp_path / name)
        plain(picture)
        assert near(picture.getpixel((30, 20)), (0, 255, 255), 3)


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (64, 48), (255, 0, 0, 0))
    profile = cmyk_profile(ink_1_lab=(53.2, 80.1, 67.2))  # an ink called cyan that is sRGB's red
    for name, told in (("a.jpg", {"quality": 95}), ("a.tif", {})):
        ink.save(tmp_path / name, icc_profile=profile, **told)
        picture = open_upright(tmp_path / name)
        plain(picture)
        assert near(picture.getpixel((30, 20)), (255, 0, 0), 12)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("colour", [(200, 100, 50), (60, 180, 90), (128, 128, 128), (255, 255, 255)])
def test_a_wide_gamut_is_converted(tmp_path: Path, format: str, colour: tuple[int, int, int]) -> None:
    told = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    Image.new("RGB", (64, 48), colour).save(tmp_path / "a", format, icc_profile=adobe_rgb_profile(), **told)
    picture = open_upright(tmp_path / "a")
    plain(picture)
    expected = adobe_rgb_as_srgb(colour)
    assert near(picture.getpixel((30, 20)), expected, 3)
    if colour == (60, 180, 90):
        assert not near(colour, expected, 20)  # so this test would see pixels left as they are


def test_a_profile_called_srgb_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    quarters().save(tmp_path / "a.png", icc_profile=profile)
    assert near(seen(open_upright(tmp_path / "a.png")), QUARTERS, 0)


def test_alpha_and_a_profile_together(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (8, 8), (60, 180, 90, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 4, 8))
    picture.save(tmp_path / "a.png", icc_profile=adobe_rgb_profile())
    opened = open_upright(tmp_path / "a.png")
    assert opened.getpixel((1, 1)) == WHITE
    assert near(opened.getpixel((6, 6)), adobe_rgb_as_srgb((60, 180, 90)), 3)


@pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 200])
def test_a_broken_profile_leaves_the_pixels_as_they_are(tmp_path: Path, profile: bytes) -> None:
    quarters().save(tmp_path / "a.png", icc_profile=profile)
    assert near(seen(open_upright(tmp_path / "a.png")), QUARTERS, 0)


def test_a_profile_of_another_colour_space_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png", icc_profile=cmyk_profile((50, 0, 0)))
    assert near(seen(open_upright(tmp_path / "a.png")), QUARTERS, 0)
    quarters().convert("L").save(tmp_path / "l.png", icc_profile=adobe_rgb_profile())
    assert seen(open_upright(tmp_path / "l.png"))[3] == WHITE


def test_lab(tmp_path: Path) -> None:
    lab = Image.new("LAB", (8, 8), (136, 208, 195))  # L* 53 of 100, a* 80 and b* 67 above 128: sRGB's red
    lab.save(tmp_path / "a.tif")
    assert near(open_upright(tmp_path / "a.tif").getpixel((4, 4)), (255, 0, 0), 12)


# Files that are none


def jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"Ask grandma for the holiday pictures.\n", "not a picture that can be read here"),
        (b"\0" * 5000, "not a picture that can be read here"),
        (jpeg()[:100], "damaged or cut short"),
        (jpeg()[:20000], "the picture is damaged or cut short: image file is truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not a picture that can be read here"),
    ],
    ids=["empty", "text", "zeros", "header", "half", "program"],
)
def test_a_file_that_is_no_picture_says_why(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(PhotoError) as told:
        open_upright(tmp_path / "a.jpg")
    assert words in str(told.value)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "JPEG2000", "AVIF"])
def test_every_format_cut_short_is_a_photo_error(tmp_path: Path, format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8))
    out = io.BytesIO()
    pillow_heif.register_heif_opener()
    noise.save(out, format)
    for share in (0.02, 0.3, 0.7):
        (tmp_path / "a").write_bytes(out.getvalue()[: int(len(out.getvalue()) * share)])
        with pytest.raises(PhotoError):
            open_upright(tmp_path / "a")


def test_an_avif_whose_pixels_are_no_such(tmp_path: Path) -> None:
    out = io.BytesIO()
    quarters().save(out, "AVIF")
    head, _, body = out.getvalue().rpartition(b"mdat")
    (tmp_path / "a.avif").write_bytes(head + b"mdat" + b"\xff" * len(body))
    with pytest.raises(PhotoError, match="damaged or cut short"):
        open_upright(tmp_path / "a.avif")


def test_bytes_that_flipped_are_a_picture_or_a_photo_error_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "HEIF", "AVIF", "JPEG2000"):
        out = io.BytesIO()
        quarters().save(out, format, **({"exif": exif} if format not in {"GIF", "JPEG2000"} else {}))
        for _ in range(40):
            data = bytearray(out.getvalue())
            for at in rng.integers(0, min(len(data), 300), 5):
                data[at] = rng.integers(0, 256)
            (tmp_path / "a").write_bytes(data)
            with contextlib.suppress(PhotoError):
                plain(opened := open_upright(tmp_path / "a", 20.0), opened.size)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 100_000, 90_000, 8, 2, 0, 0, 0)),
        (b"IDAT", _deflated(b"\0" * 10_000)),
        (b"IEND", b""),
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))
    with pytest.raises(PhotoError, match="100000 × 90000 pixels are more than 200 megapixels: a decompression bomb"):
        open_upright(tmp_path / "a.png")


def test_the_limit_is_ours_and_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    quarters((1200, 900)).save(tmp_path / "a.png")
    assert open_upright(tmp_path / "a.png", max_megapixels=1.08).size == (1200, 900)
    with pytest.raises(PhotoError, match="more than 1 megapixels"):
        open_upright(tmp_path / "a.png", max_megapixels=1.0)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="the file is gone"):
        open_upright(tmp_path / "none.jpg")
    with pytest.raises(PhotoError):
        open_upright(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(PhotoError, match="may not be read"):
        open_upright(tmp_path / "a.png")


# Saving and showing


def test_saving(tmp_path: Path) -> None:
    save(quarters(), tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as again:
        assert again.format == "PNG"
        assert near(seen(again), QUARTERS, 0)
    save(quarters(), tmp_path / "a.JPG")
    with Image.open(tmp_path / "a.JPG") as again:
        assert again.format == "JPEG"
        assert near(seen(again), QUARTERS, 6)


def test_a_contact_sheet() -> None:
    pictures = [quarters(), Image.new("L", (10, 200), 7), quarters((300, 20))]
    sheet = contact_sheet(pictures, columns=2, side_px=50)
    assert sheet.size == (2 * 54 + 4, 2 * 54 + 4)
    assert near(sheet.getpixel((4 + 12, 4 + 25 - 9)), RED, 3)
    labelled = contact_sheet(
        pictures, ["a", "a name that is far too long for its place", "漢字"], columns=8, side_px=50
    )
    assert labelled.size == (3 * 54 + 4, 54 + 14 + 4)
    assert contact_sheet([]).size[0] > 0


# Profiles and chunks, by the book


def _chunk(kind: bytes, data: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _deflated(data: bytes) -> bytes:
    import zlib

    return zlib.compress(data)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2 (ICC.1:2001-04, 6.1 to 6.3)."""
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        padded = data + b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += padded
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"test", 0x02400000, kind, space, connection, b"\0" * 12, b"acsp")
    header += b"\0" * 28 + struct.pack(">3i", *_fixed(0.9642, 1.0, 0.8249)) + b"\0" * 48
    assert len(header) == 128
    return header + struct.pack(">I", len(tags)) + table + body


def _fixed(*values: float) -> list[int]:
    return [round(value * 65536) for value in values]


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *_fixed(*values))


def _described(words: bytes) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(words) + 1) + words + b"\0" + b"\0" * 78


# Columns: XYZ (adapted to D50) of the primaries of Adobe RGB (1998), from its specification, section 4.3.5.
ADOBE_TO_XYZ = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
# The same of sRGB: IEC 61966-2-1 with the Bradford transform, as in the ICC's own sRGB profile.
SRGB_TO_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def adobe_rgb_profile() -> bytes:
    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.19921875 * 256)) + b"\0\0"
    tags = {b"desc": _described(b"wide"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(0.9642, 1.0, 0.8249)}
    for name, column in zip((b"r", b"g", b"b"), ADOBE_TO_XYZ.T, strict=True):
        tags[name + b"XYZ"] = _xyz(*column)
        tags[name + b"TRC"] = gamma
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def adobe_rgb_as_srgb(colour: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    linear = np.linalg.inv(SRGB_TO_XYZ) @ ADOBE_TO_XYZ @ (np.array(colour) / 255) ** 2.19921875
    linear = linear.clip(0, 1)
    return np.round(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def cmyk_profile(ink_1_lab: tuple[float, float, float]) -> bytes:
    """A printer whose first ink has the given CIELAB colour on white paper, and whose others are black."""
    grid = b""
    for number in range(16):  # 2 × 2 × 2 × 2 corners, the last ink fastest
        others = number & 0b111
        light, a, b = (0.0, 0.0, 0.0) if others else ink_1_lab if number & 0b1000 else (100.0, 0.0, 0.0)
        grid += bytes([round(light * 2.55), round(a + 128), round(b + 128)])
    unchanged = bytes(range(256))
    one = _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *one) + unchanged * 4 + grid + unchanged * 3
    tags = {b"desc": _described(b"inks"), b"cprt": b"text\0\0\0\0none\0", b"wtpt": _xyz(0.9642, 1.0, 0.8249)}
    return _profile(b"prtr", b"CMYK", b"Lab ", {**tags, b"A2B0": lut})
