"""Does a model learn that strangers have blurred faces, and does the loss mask keep that from it? (Wanted: the mask cuts the share of smeared pictures at least fivefold.)

The drawn subject stands beside strangers on every photo; their faces are blurred, as in any careful data set. Two LoRAs are trained on the same
pictures with the same seeds, one with `fit.masked_loss`, one without, and draw the same prompts from the same noise. A small network that has seen drawn
strangers, covered and not, says where a picture holds a smeared face; how often it is right is measured on drawn pictures that it has not seen.
"""

import datetime
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lora_pipeline import flow
from lora_pipeline.demo.measure import open_base
from lora_pipeline.demo.photos import subject_identity
from lora_pipeline.demo.world import Drawing, draw, random_identity, random_scene
from lora_pipeline.records import Box
from lora_pipeline.settings import ConcealSettings
from lora_pipeline.stages import fit as fitting
from lora_pipeline.stages.conceal import cover
from lora_pipeline.store import Store
from lora_pipeline.subject import Consent, Subject, new

PHOTOS = 36
SIDE_PX = 128
COVERS = ConcealSettings()
PROMPTS = (
    "{} woman, medium shot, facing the camera, red shirt, blue background",
    "{} woman, medium shot, facing the camera, green shirt, white background, soft light",
    "{} woman, medium shot, facing the camera, orange shirt, grey background",
    "{} woman, full body, facing the camera, purple shirt, yellow background",
)
SEEDS = range(24)
FALSE_ALARMS = 0.01


def ask() -> dict[str, object]:
    """Share of smeared pictures by the base, and by the LoRA trained with and without the loss mask."""
    import torch

    torch.manual_seed(0)
    base = open_base()
    judge, told = judge_of_smears(base)
    with tempfile.TemporaryDirectory() as home:
        work = prepared(Path(home))
        training_set = work.made("encode")
        hidden = [float(str(row.data["hidden"])) for row in training_set.kept]
        shares = {"the base model": smeared(base, None, judge)}
        for name, masked in (("with the loss mask", True), ("without it", False)):
            settings = work.settings.fit.model_copy(update={"masked_loss": masked, "sample_prompt": ""})
            made = fitting.fit(training_set, Path(home) / name, settings, work.settings.base, "").manifest
            shares[name] = smeared(base, made.path(made.kept[-1], "lora"), judge)
    return {
        "pictures drawn by each": len(PROMPTS) * len(SEEDS),
        "training pictures": len(hidden),
        "training pictures with a hidden face": sum(share > 0 for share in hidden),
        "share of smeared pictures": shares,
        "the mask cuts it by": round(shares["without it"] / max(shares["with the loss mask"], 1e-9), 1),
        "the judge": told,
    }


def scenes(count: int, seed: int) -> list[Drawing]:
    """The subject with one or two strangers beside her, as large photos."""
    rng = np.random.default_rng((7, seed))
    drawn: list[Drawing] = []
    for number in range(count):
        strangers = tuple(random_identity(rng) for _ in range(1 + number % 2))
        scene = replace(random_scene(rng, (1320, 940)), framing="medium", others=strangers, zoom=0.95, offset_x=0.0)
        drawn.append(draw(subject_identity(), scene))
    return drawn


def prepared(home: Path) -> flow.Work:
    """The photos through all stages before training."""
    store = Store(home / "data")
    photos = home / "photos"
    photos.mkdir()
    for number, drawn in enumerate(scenes(PHOTOS, 0)):
        drawn.picture.save(photos / f"{number:02d}.png")
    consent = Consent(given_by="nobody", given_on=datetime.date(2026, 1, 1), scope="the person is drawn")
    given = {"name": "group", "kind": "person", "photos": photos, "trigger": "jx265", "class": "woman"}
    settings = {"crop": {"framings": ["medium", "full"]}, "conceal": COVERS.model_dump(), "fit": {"epochs": 4}}
    told = {**given, "recipe": "bundled_person", "consent": consent, "settings": settings}
    new(store, Subject.model_validate(told))
    work = flow.work(store, "group")
    flow.make_training_set(work)
    return work


def judge_of_smears(base: Any) -> tuple[Any, dict[str, object]]:
    """A network that says how sure it is that a picture (3 × 128 × 128, -1 to 1) holds a smeared face, 0 to 1 once `threshold` is 0.5."""
    import torch
    import torch.nn.functional as F

    clean, covered, where = examples(base, 240, 1)
    pictures = torch.cat([clean, covered])
    truth = torch.cat([torch.zeros_like(where), where])

    def convolved(inner: int, outer: int, stride: int) -> list[Any]:
        return [torch.nn.Conv2d(inner, outer, 3, stride, 1), torch.nn.GroupNorm(8, outer), torch.nn.SiLU()]

    net = torch.nn.Sequential(
        *convolved(3, 16, 1),
        *convolved(16, 32, 2),
        *convolved(32, 48, 2),
        *convolved(48, 64, 2),
        torch.nn.Conv2d(64, 1, 3, 1, 1),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    rng = np.random.default_rng(0)
    steps = 500
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        some = torch.from_numpy(rng.choice(len(pictures), 16, replace=False))
        batch, wanted = pictures[some], truth[some]
        if step % 2:
            batch, wanted = batch.flip(-1), wanted.flip(-1)
        loss = F.binary_cross_entropy_with_logits(net(batch), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def score(batch: Any) -> np.ndarray[Any, Any]:
        with torch.no_grad():
            sure = torch.cat([net(one[None]) for one in batch]).sigmoid()
            # a face's worth of it, not a speck: 3 x 3 cells of 8 px
            return F.avg_pool2d(sure, 3, 1, 1).amax(dim=(1, 2, 3)).numpy()

    clean, covered, _ = examples(base, 120, 2)
    threshold = float(np.quantile(np.concatenate([score(clean), score(drawn_by(base, None))]), 1 - FALSE_ALARMS))
    told: dict[str, object] = {
        "threshold": round(threshold, 3),
        "false alarms on drawn pictures without covers": round(float((score(clean) > threshold).mean()), 3),
        "found of drawn pictures with covers": round(float((score(covered) > threshold).mean()), 3),
    }
    return (lambda batch: score(batch) > threshold), told


def examples(base: Any, count: int, seed: int) -> tuple[Any, Any, Any]:
    """Drawn pictures as the base's autoencoder gives them back: as drawn, with covers, and where those are (16 × 16)."""
    import torch

    clean: list[Any] = []
    covered: list[Any] = []
    where: list[Any] = []
    for number, drawn in enumerate(scenes(count, seed)):
        subject, *others = [(x, y, x + width, y + height) for x, y, width, height in (face.box for face in drawn.faces)]
        # As wide about the subject as the stage's crops are.
        wide, high = drawn.picture.size
        side = high - number % 5 * 60
        left = max(0, min((subject[0] + subject[2] - side) // 2, wide - side))
        top = max(0, min(subject[1] - side // 5, high - side))
        area = (left, top, left + side, top + side)
        shown = drawn.picture.crop(area)
        mine, *theirs = [_within(box, area) for box in [subject, *others]]
        inside = [box for box in theirs if box[2] > box[0] and box[3] > box[1]]
        hidden, mask = cover(shown, inside, mine, COVERS)
        small = (SIDE_PX, SIDE_PX)
        clean.append(_tensor(shown.resize(small, Image.Resampling.LANCZOS)))
        covered.append(_tensor(hidden.resize(small, Image.Resampling.LANCZOS)))
        cells = np.asarray(mask.resize((16, 16), Image.Resampling.BOX), dtype=np.float32) / 255
        where.append(torch.from_numpy((cells < 0.5).astype(np.float32))[None])
    with torch.no_grad():

        def through(pictures: Sequence[Any]) -> Any:
            return torch.cat([base.vae(one[None], sample_posterior=False).sample.clamp(-1, 1) for one in pictures])

        return through(clean), through(covered), torch.stack(where)


def _within(box: Box, area: Box) -> Box:
    """A box in the pixels of an area, cut to it."""
    left, top, right, bottom = area
    return (
        max(box[0], left) - left,
        max(box[1], top) - top,
        min(box[2], right) - left,
        min(box[3], bottom) - top,
    )


def _tensor(picture: Image.Image) -> Any:
    import torch

    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 127.5 - 1


def drawn_by(base: Any, lora: Path | None) -> Any:
    """The prompts from the seeds: N × 3 × 128 × 128, -1 to 1."""
    import torch

    if lora is not None:
        base.load_lora_weights(str(lora))
    pictures: list[Any] = []
    for prompt in PROMPTS:
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        with torch.no_grad():
            made = base(
                [prompt.format("jx265")] * len(SEEDS),
                num_inference_steps=20,
                guidance_scale=2.0,
                generator=generators,
                height=SIDE_PX,
                width=SIDE_PX,
            ).images
        pictures += [_tensor(one) for one in made]
    if lora is not None:
        base.unload_lora_weights()
    return torch.stack(pictures)


def smeared(base: Any, lora: Path | None, judge: Any) -> float:
    """Share of pictures that hold a smeared face; a sheet of them is left beside the result."""
    pictures = drawn_by(base, lora)
    found = judge(pictures)
    sheet = Image.new("RGB", (12 * SIDE_PX, 4 * SIDE_PX))
    for number, picture in enumerate(pictures[::2][:48]):
        shown = Image.fromarray(((picture + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        if found[2 * number]:
            shown.paste("red", (0, SIDE_PX - 4, SIDE_PX, SIDE_PX))
        sheet.paste(shown, (number % 12 * SIDE_PX, number // 12 * SIDE_PX))
    name = "base" if lora is None else lora.parents[2].name.replace(" ", "_")
    sheet.save(Path(__file__).parent / f"{name}.jpg", quality=88)
    return round(float(found.mean()), 3)
