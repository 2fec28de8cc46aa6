"""The bundled subject: a folder of "photos" of one drawn woman, with what real folders have.

Duplicates at other sizes, blurred ones, pixels stored sideways under an orientation tag, GPS positions, strangers in frame,
a truncated file, an empty one, a text called .jpg, a screenshot. What is true of each is known: `subject_truth`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lora_pipeline.demo.world import (
    FaceTruth,
    Framing,
    Identity,
    Scene,
    draw,
    random_identity,
    random_scene,
    truth_of,
)

SUBJECT_SEED: Final = 30
SUBJECT_CLASS: Final = "woman"

_SIZES: Final = (
    (960, 1280),
    (1200, 900),
    (1000, 1000),
    (820, 1100),
    (1280, 860),
    (900, 1200),
    (760, 960),
    (1100, 1100),
)
_GPS_EVERY: Final = 5
_BACK_TO_STORED: Final = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""For an EXIF orientation, the turn that takes the upright picture to the stored one."""


@dataclass(frozen=True, slots=True)
class PhotoTruth:
    """What is true of one file of the folder."""

    name: str
    readable: bool
    """False for the truncated file, the empty one and the text."""
    scene: Scene | None
    """None where nobody was drawn."""
    size_px: tuple[int, int]
    """Width, height of the upright picture; (0, 0) where there is none."""
    faces: tuple[FaceTruth, ...]
    """Boxes in px of the upright picture, the subject's first."""
    duplicate_of: str | None = None
    """The photo that this one is a smaller, re-encoded copy of."""
    blurred: bool = False
    orientation: int = 1
    """The EXIF orientation tag."""
    gps: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    truth: PhotoTruth
    kind: str
    """jpg, png or webp."""
    blur_px: float
    copy_size_px: tuple[int, int] | None


def subject_identity(seed: int = SUBJECT_SEED) -> Identity:
    """The person whose photos they are."""
    return random_identity(np.random.default_rng((seed, 0)), SUBJECT_CLASS, name="")


def draw_subject_photos(folder: Path, seed: int = SUBJECT_SEED) -> None:
    """Writes the whole folder: the same seed gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = subject_identity(seed)
    upright: dict[str, Image.Image] = {}
    for plan in _plans(seed):
        truth, path = plan.truth, folder / plan.truth.name
        if truth.duplicate_of is not None and plan.copy_size_px is not None:
            picture = upright[truth.duplicate_of].resize(plan.copy_size_px, Image.Resampling.LANCZOS)
        elif truth.scene is not None:
            picture = draw(identity, truth.scene).picture
            upright[truth.name] = picture
        else:
            picture = _screenshot()
        if plan.blur_px:
            picture = picture.filter(ImageFilter.GaussianBlur(plan.blur_px))
        path.write_bytes(_encoded(picture, plan))
    whole = (folder / _ordinary_name(0)).read_bytes()
    (folder / "IMG_3110.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "IMG_3111.jpg").write_bytes(b"")
    (folder / "notes.jpg").write_bytes(b"Ask grandma for the holiday pictures.\n")


def draw_one_more(folder: Path, number: int = 0, seed: int = SUBJECT_SEED) -> Path:
    """Adds one more good photo (a close one, facing the camera) and gives back its path."""
    rng = np.random.default_rng((seed, 100 + number))
    scene = replace(
        random_scene(rng, (1000, 1200)), framing="close", yaw_deg=float(rng.uniform(-6, 6)), glasses=False, light="soft"
    )
    path = folder / f"one_more_{number:02d}.jpg"
    draw(subject_identity(seed), scene).picture.save(path, quality=92)
    return path


def subject_truth(seed: int = SUBJECT_SEED) -> dict[str, PhotoTruth]:
    """What is true of every file that `draw_subject_photos` writes, by file name."""
    truths = {plan.truth.name: plan.truth for plan in _plans(seed)}
    for name in ("IMG_3110.jpg", "IMG_3111.jpg", "notes.jpg"):
        truths[name] = PhotoTruth(name, readable=False, scene=None, size_px=(0, 0), faces=())
    return truths


def _ordinary_name(number: int) -> str:
    kind = {3: "png", 9: "webp", 14: "png", 20: "webp", 26: "png"}.get(number, "jpg")
    return f"IMG_{2040 + 3 * number}.{kind}" if number % 4 else f"DSC_{118 + number:04d}.{kind}"


def _scene(number: int, rng: np.random.Generator) -> Scene:
    """Photo `number`'s scene: every fifth with strangers, every sixth with glasses, a third turned to either side."""
    framings: tuple[Framing, ...] = ("close", "medium", "close", "close", "medium", "close", "full")
    yaw = rng.uniform(-7, 7) if number % 3 else float(rng.uniform(15, 30)) * (1 if number % 2 else -1)
    scene = replace(
        random_scene(rng, _SIZES[number % len(_SIZES)]),
        framing=framings[number % len(framings)],
        yaw_deg=float(yaw),
        glasses=number % 6 == 4,
    )
    if number % 5 == 2:
        strangers = tuple(random_identity(rng) for _ in range(1 + number % 2))
        scene = replace(scene, framing="medium", size_px=(1320, 940), others=strangers, zoom=0.95, offset_x=0.0)
    return scene


def _plans(seed: int) -> list[_Plan]:
    identity = subject_identity(seed)
    rng = np.random.default_rng((seed, 1))
    plans: list[_Plan] = []
    for number in range(30):
        scene, name = _scene(number, rng), _ordinary_name(number)
        blurred = number in (7, 16, 24)
        orientation = {5: 6, 11: 8, 18: 3, 23: 6}.get(number, 1)
        truth = PhotoTruth(
            name,
            readable=True,
            scene=scene,
            size_px=scene.size_px,
            faces=truth_of(identity, scene),
            blurred=blurred,
            orientation=orientation,
            gps=number % _GPS_EVERY == 1 and name.endswith("jpg"),
        )
        plans.append(_Plan(truth, name.rpartition(".")[2], 0.012 * min(scene.size_px) if blurred else 0.0, None))
    for number, share in ((0, 0.6), (6, 0.5), (8, 0.75), (13, 0.62), (21, 0.55), (0, 0.8)):
        origin = plans[number].truth
        size = (round(origin.size_px[0] * share), round(origin.size_px[1] * share))
        faces = tuple(
            replace(face, box=tuple(round(v * share) for v in face.box))  # type: ignore[arg-type]
            for face in origin.faces
        )
        name = f"{origin.name.rpartition('.')[0]}_{size[0]}.jpg"
        truth = replace(
            origin, name=name, size_px=size, faces=faces, duplicate_of=origin.name, orientation=1, gps=False
        )
        plans.append(_Plan(truth, "jpg", 0.0, size))
    screenshot = PhotoTruth("Screenshot_20250309.png", readable=True, scene=None, size_px=(720, 1280), faces=())
    plans.append(_Plan(screenshot, "png", 0.0, None))
    return plans


def _encoded(picture: Image.Image, plan: _Plan) -> bytes:
    truth, out = plan.truth, BytesIO()
    exif = Image.Exif()
    if truth.orientation != 1:
        picture = picture.transpose(_BACK_TO_STORED[truth.orientation])
        exif[0x0112] = truth.orientation
    if truth.gps:
        exif[0x0110] = "Pencil 4"
        exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 22.0, 14.0), 3: "E", 4: (4.0, 53.0, 42.0)})
    if plan.kind == "png":
        picture.save(out, "PNG", compress_level=3, exif=exif)
    elif plan.kind == "webp":
        picture.save(out, "WEBP", quality=88, method=2, exif=exif)
    else:
        picture.save(out, "JPEG", quality=78 if truth.duplicate_of else 92, exif=exif)
    return out.getvalue()


def _screenshot() -> Image.Image:
    """A list of settings on a telephone: nobody in it."""
    picture = Image.new("RGB", (720, 1280), (246, 246, 250))
    brush = ImageDraw.Draw(picture)
    brush.rectangle((0, 0, 720, 120), fill=(58, 92, 168))
    brush.rectangle((40, 44, 300, 76), fill=(235, 240, 250))
    for row in range(9):
        top = 150 + row * 122
        brush.rounded_rectangle((24, top, 696, top + 104), 18, fill=(255, 255, 255), outline=(222, 222, 230), width=2)
        brush.rounded_rectangle(
            (48, top + 26, 100, top + 78), 12, fill=((row * 53) % 200 + 30, 150, (row * 91) % 200 + 40)
        )
        brush.rectangle((128, top + 30, 128 + 160 + (row * 67) % 220, top + 46), fill=(90, 90, 100))
        brush.rectangle((128, top + 60, 128 + 90 + (row * 41) % 260, top + 72), fill=(180, 180, 190))
        brush.rounded_rectangle((600, top + 36, 664, top + 68), 16, fill=(88, 190, 120) if row % 2 else (200, 200, 206))
    return picture
