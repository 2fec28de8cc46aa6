"""Measures the bundled base model: does its autoencoder keep faces, does its denoiser do as it is told?

    python -m lora_pipeline.demo.measure

prints a small table and writes `base/measured.json`. Pictures are asked for by random captions; what they show is read by
`reader`, whose own mistakes on drawn pictures of known truth stand in the column beside.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from lora_pipeline.demo.faces import descriptor
from lora_pipeline.demo.reader import PHRASES, load_reader, read
from lora_pipeline.demo.world import draw, phrases_for, random_identity, random_scene

BASE: Final = Path(__file__).with_name("base")
SEED: Final = 4_321
"""Prompts and drawn pictures start here, far from the strangers that the base was trained on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Shares are 0..1; distances are between dlib's descriptors (the same face below about 0.35, strangers above 0.45)."""

    pictures: int
    guidance: float
    sampling_steps: int
    followed: dict[str, float]
    """Share of generated pictures that show what was asked for, by kind of phrase."""
    ruler: dict[str, float]
    """Share of drawn pictures whose known truth the reader tells."""
    faces_generated: float
    """Share of generated close and medium pictures in which dlib finds a face."""
    faces_drawn: float
    """The same of drawn ones."""
    faces_kept: float
    """Of drawn pictures with a face found, the share in which it is found again after the autoencoder."""
    distance_kept_median: float
    """From a drawn face to itself after the autoencoder."""
    distance_kept_p90: float


def open_base(folder: Path = BASE) -> Any:
    """The bundled pipeline, in float32 on the CPU, silent."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: Any, prompts: Sequence[str], seed: int, guidance: float, steps: int, batch: int = 20
) -> list[Image.Image]:
    """One 128 x 128 picture a prompt; picture n depends on `seed` + n and its prompt alone."""
    import torch

    pictures: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        some = list(prompts[start : start + batch])
        seeds = [torch.Generator().manual_seed(seed + start + n) for n in range(len(some))]
        pictures.extend(pipeline(some, num_inference_steps=steps, guidance_scale=guidance, generator=seeds).images)
    return pictures


def measure(
    pipeline: Any, pictures: int = 200, guidance: float = 2.0, steps: int = 25, sheet: Path | None = None
) -> Measured:
    """Draws and generates `pictures` pictures each and compares."""
    rng = np.random.default_rng(SEED)
    reader = load_reader()
    drawn: list[Image.Image] = []
    asked: list[dict[str, str]] = []
    prompts: list[str] = []
    for number in range(pictures):
        identity, scene = random_identity(rng), random_scene(rng)
        phrases = phrases_for(identity, scene)
        drawn.append(draw(identity, scene).picture)
        asked.append(dict(zip(PHRASES, phrases, strict=True)))
        first = f"jx{100 + number} {identity.class_word}" if number % 2 else f"a photo of a {identity.class_word}"
        prompts.append(", ".join((first, *phrases)))
    generated = generate(pipeline, prompts, SEED, guidance, steps)
    if sheet is not None:
        _sheet(generated[:40]).save(sheet)
    near = [n for n in range(pictures) if asked[n]["framing"] != "full body"]
    originals = {n: descriptor(drawn[n]) for n in near}
    kept = dict(zip(near, _through_autoencoder(pipeline, [drawn[n] for n in near]), strict=True))
    again = {n: descriptor(kept[n]) for n in near if originals[n] is not None}
    distances = [
        float(np.linalg.norm(a - b)) for n, a in again.items() if a is not None and (b := originals[n]) is not None
    ]
    return Measured(
        pictures=pictures,
        guidance=guidance,
        sampling_steps=steps,
        followed=_agreement(read(reader, generated), asked),
        ruler=_agreement(read(reader, drawn), asked),
        faces_generated=round(float(np.mean([descriptor(generated[n]) is not None for n in near])), 3),
        faces_drawn=round(len(again) / len(near), 3),
        faces_kept=round(len(distances) / max(1, len(again)), 3),
        distance_kept_median=round(float(np.median(distances)), 3) if distances else 1.0,
        distance_kept_p90=round(float(np.percentile(distances, 90)), 3) if distances else 1.0,
    )


def _agreement(seen: Sequence[dict[str, str]], asked: Sequence[dict[str, str]]) -> dict[str, float]:
    return {
        kind: round(float(np.mean([s[kind] == a[kind] for s, a in zip(seen, asked, strict=True)])), 3)
        for kind in PHRASES
    }


def _through_autoencoder(pipeline: Any, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    import torch

    result: list[Image.Image] = []
    with torch.no_grad():
        for picture in pictures:
            pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            back = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample[0]
            result.append(Image.fromarray(((back.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()))
    return result


def _sheet(pictures: Sequence[Image.Image], columns: int = 10) -> Image.Image:
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * 128, rows * 128))
    for n, picture in enumerate(pictures):
        sheet.paste(picture, ((n % columns) * 128, (n // columns) * 128))
    return sheet


def _table(measured: Measured) -> str:
    lines = [f"{'asked for':<12}{'shown':>8}{'ruler right':>14}"]
    lines += [f"{kind:<12}{measured.followed[kind]:>8.0%}{measured.ruler[kind]:>14.0%}" for kind in PHRASES]
    lines += [
        f"faces found in generated pictures {measured.faces_generated:.0%} (in drawn ones {measured.faces_drawn:.0%})",
        f"faces found again after the autoencoder {measured.faces_kept:.0%}, "
        f"distance {measured.distance_kept_median:.2f} (median), {measured.distance_kept_p90:.2f} (9 of 10)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--sheet", type=Path, help="where to save the first 40 generated pictures as one PNG")
    arguments = parser.parse_args()
    found = measure(open_base(arguments.base), arguments.pictures, arguments.guidance, arguments.steps, arguments.sheet)
    print(_table(found))
    (arguments.base / "measured.json").write_text(json.dumps(asdict(found), indent=2) + "\n")
