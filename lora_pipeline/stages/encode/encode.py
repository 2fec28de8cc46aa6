"""Pictures and captions, each encoded once: latents and text embeddings are remembered apart, then joined."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lora_pipeline.balance import NO_ROOM, balanced
from lora_pipeline.errors import PhotoError
from lora_pipeline.families import Family, PictureEncoder, TextEncoder, best_device, family, give_back_memory
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Box, Example, Row
from lora_pipeline.settings import BaseSettings, EncodeSettings
from lora_pipeline.stages.encode.buckets import Planned, Size, box_in_bucket, into_bucket, placed, plan
from lora_pipeline.stages.encode.regularisation import Pooled, Words, gather
from lora_pipeline.stages.encode.visible import hidden_pixels, visible_cells
from lora_pipeline.store import whole

if TYPE_CHECKING:
    from PIL.Image import Image

CODE_VERSION = "2"
LATENTS, TEXTS = "latents", "texts"


def encode(
    pictures: Manifest,
    captions: Manifest,
    folder: Path,
    settings: EncodeSettings,
    base: BaseSettings,
    batch_size: int = 1,
    words: Words = Words("", ""),
    pool: Sequence[Pooled] = (),
    progress: Progress = silent,
    faces: bool = False,
) -> Outcome:
    """Bring the training set up to date.

    Three tables in one folder (and a fourth of regularisation pictures, if there are any): `latents` (a row a picture; made of the picture, its mask and the autoencoder), `texts` (a row a
    caption; made of the words and the text encoder), and the `manifest`, which joins them and is what training reads. So a
    new caption encodes no picture, a new number of repeats encodes nothing, and a run that has nothing to encode opens no model.

    Args:
        pictures: rows with the files `picture` (RGB) and `mask` (L, 255 train, 0 hidden; absent: nothing is hidden) and a
            crop's data.
        captions: rows of `Caption` under the same ids.
        folder: the stage's.
        settings: size, buckets, repeats, flip, words around each caption.
        base: whose autoencoder and text encoder are used.
        batch_size: that training will use; a bucket with fewer pictures × repeats joins its neighbour.
        words: what the subject is called, for the captions of regularisation pictures.
        pool: other subjects of the class, for regularisation pictures where the settings ask for theirs.
        progress: told after each picture and each caption.
        faces: whether training will weigh the subject's face, so that each row says where it is. It encodes nothing anew.

    Returns:
        Rows of `Example` with the files

        - `latents`: safetensors of `latents` (C×h×w float32, scaled) and `visible` (1×h×w float32, 1 where the loss counts), and
          with `settings.flip` the mirrored picture's `latents_mirrored` and `visible_mirrored`; and `framing` (6 float32), see `Family.predict`;
        - `text`: safetensors of what the family's denoiser is conditioned on (float32, no batch axis).

        A picture that is wholly hidden is dropped; one without a caption, or that cannot be read, has failed.

    Raises:
        ModelError: the base model's weights are missing or gated.
        SettingsError: the regularisation pictures' folder is not there or empty, or no other subject has any that may be used.
    """
    base_family = family(base.family)
    base_family.check(base)
    keep_area_px = settings.resolution_px**2 if settings.bucket_no_upscale else 0
    own = {str(row.data["photo_digest"]) for row in pictures.rows if row.data.get("photo_digest")}
    others = gather(settings, base, folder, words, pool, own, progress)
    sources = [(table, row) for table in (pictures, others) for row in table.kept]
    sizes = {row.id: (_pixels(row, "width_px"), _pixels(row, "height_px")) for _, row in sources}
    planned = plan(sizes, settings, batch_size)
    autoencoder = base_family.digest(base, "pictures")
    latents = refresh(
        folder,
        [
            Item(
                row.id,
                [*_digests(row), autoencoder, list(bucket or ()), keep_area_px, settings.flip],
                _Picture(table, row, bucket, keep_area_px, settings.flip),
            )
            for table, row in sources
            for bucket in [planned[row.id].bucket if row.id in planned else None]
        ],
        _Encoders(base_family, base).encode_picture,
        settings=None,  # the bucket stands for those that count here
        code_version=CODE_VERSION,
        name=LATENTS,
        what="encoding pictures",
        progress=progress,
    )
    give_back_memory()
    pictured = {row.id: row for _, row in sources}
    told = {row.id: _words(row, settings) for row in captions.kept if row.id in pictured}
    told |= {row.id: str(row.data["text"]) for row in others.kept}
    text_encoder = base_family.digest(base, "texts")
    texts = refresh(
        folder,
        [Item(id, [text, text_encoder], (id, text)) for id, text in told.items()],
        _Encoders(base_family, base).encode_text,
        settings=None,
        code_version=CODE_VERSION,
        name=TEXTS,
        what="encoding captions",
        progress=progress,
    )
    give_back_memory()
    captioned = {row.id: row for row in (*captions.rows, *others.kept)}
    encoded = {row.id: row for row in texts.manifest.rows}
    beside = {row.id for row in others.kept}
    whole_ids = {row.id for row in latents.manifest.kept} & {row.id for row in texts.manifest.kept}
    room = balanced(sorted(whole_ids & beside), len(whole_ids - beside) * settings.repeats)
    joins = [
        _Join(
            row,
            pictured[row.id],
            captioned.get(row.id),
            encoded.get(row.id),
            told.get(row.id, ""),
            settings,
            planned.get(row.id),
            room.get(row.id, 0) if row.id in beside else None,
            _face(pictured[row.id], planned.get(row.id), keep_area_px) if faces and row.id not in beside else None,
        )
        for row in latents.manifest.rows
    ]
    joined = refresh(
        folder,
        [Item(join.picture.id, join.inputs, join) for join in joins],
        _joined,
        settings=settings,
        code_version=CODE_VERSION,
        what="joining",
    )
    seconds = latents.report.seconds + texts.report.seconds + joined.report.seconds
    return Outcome(joined.manifest, replace(joined.report, seconds=seconds))


@dataclass(frozen=True)
class _Picture:
    pictures: Manifest
    row: Row
    bucket: Size | None
    keep_area_px: int
    flip: bool


@dataclass(frozen=True)
class _Join:
    latents: Row
    picture: Row
    caption: Row | None
    text: Row | None
    words: str
    settings: EncodeSettings
    planned: Planned | None
    room: int | None  # how often a regularisation picture is seen in an epoch; None for a picture of the subject
    face: Box | None  # of the subject, in the bucket; None also where nobody asks

    @property
    def inputs(self) -> list[Any]:
        """What the joined row is made of: keys stand for files, states and reasons for what has none."""
        rows = (self.latents, self.caption, self.text)
        told = ["" if row is None else f"{row.key} {row.state} {row.reason}" for row in rows]
        own = None if self.planned is None else self.planned.own
        face = [] if self.face is None else [self.face]  # told only where there is one: other rows keep their keys
        return [*told, str(self.picture.data.get("photo_digest", "")), own, self.room, *face]


@dataclass(frozen=True)
class _Encoders:
    """Both encoders, each opened when the first picture or text needs it, and gone with this."""

    family: Family
    base: BaseSettings

    @cached_property
    def pictures(self) -> PictureEncoder:
        return self.family.open_pictures(self.base, best_device(), "float32")

    @cached_property
    def texts(self) -> TextEncoder:
        return self.family.open_texts(self.base, best_device(), "float32")

    def encode_picture(self, job: _Picture, folder: Path) -> Made:
        """Latents and visible cells of one picture, and of its mirror image."""
        import torch
        from PIL import ImageOps

        picture, bucket = open_upright(job.pictures.path(job.row, "picture")), job.bucket
        if bucket is None:
            raise PhotoError(
                f"it is {picture.width} × {picture.height} pixels, less than a bucket's step, and encode.bucket_no_upscale is on"
            )
        visible = self._visible(job, picture.size, bucket)
        data: dict[str, Any] = {
            "bucket": bucket,
            "hidden": 1 - float(visible.mean()),
            "reach_px": self.pictures.reach_px,
        }
        if not visible.any():
            return Made(
                data,
                state="dropped",
                reason="all of it is hidden, or so near to a hidden face that it is kept out of the loss",
            )
        looks = {"": into_bucket(picture, bucket, job.keep_area_px)}
        if job.flip:
            looks["_mirrored"] = ImageOps.mirror(looks[""])
        encoded = self.pictures.encode(torch.stack([_tensor(look) for look in looks.values()]))
        tensors: dict[str, Any] = {"framing": torch.tensor(_framing(picture.size, bucket, job.keep_area_px))}
        for number, name in enumerate(looks):
            cells = visible[:, ::-1] if name else visible
            tensors[f"latents{name}"] = encoded[number].contiguous()
            tensors[f"visible{name}"] = torch.from_numpy(cells[None].astype(np.float32))
        path = f"{LATENTS}/{_slug(job.row.id)}.safetensors"
        _write(folder / path, tensors)
        return Made(data, {"latents": path})

    def _visible(self, job: _Picture, picture_px: Size, bucket: Size) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        from PIL import Image

        mask = Image.new("L", picture_px, 255)
        if "mask" in job.row.files:
            with Image.open(job.pictures.path(job.row, "mask")) as opened:
                mask = opened.convert("L")
            if mask.size != picture_px:
                raise PhotoError(
                    f"its mask is {mask.width} × {mask.height} pixels and the picture {picture_px[0]} × {picture_px[1]}"
                )
        return visible_cells(
            hidden_pixels(mask, bucket, job.keep_area_px), self.pictures.factor_px, self.pictures.reach_px
        )

    def encode_text(self, captioned: tuple[str, str], folder: Path) -> Made:
        """What the denoiser is told of one caption."""
        id, text = captioned
        path = f"{TEXTS}/{_slug(id)}.safetensors"
        _write(folder / path, self.texts.encode([text])[0])
        return Made({"cut_tokens": self.texts.cut_tokens(text)}, {"text": path})


def _joined(join: _Join, _: Path) -> Made:
    if join.latents.state != "kept":
        return Made(join.latents.data, state=join.latents.state, reason=join.latents.reason)
    if join.caption is None:
        return Made(state="failed", reason="it has no caption")
    if join.text is None or join.text.state != "kept":
        reason = join.caption.reason if join.text is None else join.text.reason
        return Made(state="failed", reason=f"its caption cannot be used: {reason}")
    if join.room == 0:
        return Made(state="dropped", reason=NO_ROOM)
    example = Example(
        photo=str(join.picture.data.get("photo", join.picture.id)),
        bucket=tuple(join.latents.data["bucket"]),  # type: ignore[arg-type]
        repeats=join.settings.repeats if join.room is None else join.room,
        caption=join.words,
        hidden=round(float(join.latents.data["hidden"]), 6),  # type: ignore[arg-type]
        cut_tokens=int(join.text.data["cut_tokens"]),  # type: ignore[arg-type]
        photo_digest=str(join.picture.data.get("photo_digest", "")),
        own_bucket=None if join.planned is None else join.planned.own,
        regularisation=join.room is not None,
        loss_weight=1.0 if join.room is None else join.settings.prior_loss_weight,
        face=join.face,
    )
    return Made(example.data(), {"latents": join.latents.files["latents"].path, "text": join.text.files["text"].path})


def _face(picture: Row, planned: Planned | None, keep_area_px: int) -> Box | None:
    """Where the subject's face is in the bucket that the picture comes into."""
    box = cast("list[int] | None", picture.data.get("face"))
    if box is None or planned is None:
        return None
    left, top, right, bottom = box
    size = (_pixels(picture, "width_px"), _pixels(picture, "height_px"))
    return box_in_bucket((left, top, right, bottom), size, planned.bucket, keep_area_px)


def _framing(picture_px: Size, bucket: Size, keep_area_px: int) -> list[float]:
    """Height and width of the picture, top and left of what is cut out of it, height and width of that; its mirror image has the same,
    since what is cut out is the middle."""
    _, (left, top, right, bottom) = placed(picture_px, bucket, keep_area_px)
    return [float(side) for side in (picture_px[1], picture_px[0], top, left, bottom - top, right - left)]


def _words(caption: Row, settings: EncodeSettings) -> str:
    """A caption between its prefix and suffix, a space between them (`process_caption` of sd-scripts)."""
    return " ".join(filter(None, (settings.caption_prefix, str(caption.data["text"]), settings.caption_suffix)))


def _pixels(row: Row, name: str) -> int:
    return int(row.data[name])  # type: ignore[arg-type]  # a crop's data


def _digests(row: Row) -> list[str]:
    return [row.files[role].digest if role in row.files else "" for role in ("picture", "mask")]


def _tensor(picture: "Image") -> Any:
    import torch

    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def _write(path: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    with whole(path) as aside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside)


def _slug(id: str) -> str:
    """A file name for an id: its hash, which tells nobody a photo's own name."""
    return hashlib.sha256(id.encode()).hexdigest()[:16]
