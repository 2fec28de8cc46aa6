"""What the tests of several stages need."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_pipeline.settings import BaseSettings, NetworkType

RandomLora = Callable[..., Path]


@pytest.fixture(scope="session")
def random_lora() -> RandomLora:
    """Write a LoRA of random weights, strong enough to be seen, as `fit` would save it: rank 4, alpha 2.

    `kind`: of the denoiser's; `conv`: rank and alpha of convolutions; `texts`: of the text encoders too.
    """

    def make(
        base: BaseSettings,
        path: Path,
        seed: int,
        conv: tuple[int, float] | None = None,
        kind: NetworkType = "lora",
        texts: bool = False,
    ) -> Path:
        import torch

        from lora_pipeline.families import family
        from lora_pipeline.stages.fit.adapter import inject

        plug = family(base.family)
        unet = plug.open_denoiser(base, "cpu", "float32")
        inject(unet, (*plug.lora_targets, *(plug.conv_targets if conv else ())), 4, 2, seed, conv=conv, kind=kind)
        encoders = plug.open_trained_texts(base).encoders if texts else {}
        for encoder in encoders.values():
            inject(encoder, plug.text_targets, 4, 2, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for part in (unet, *encoders.values()):
                for name, parameter in part.named_parameters():
                    if any(zero in name for zero in ("lora_B", "lokr_w2", "hada_w2_a")):
                        torch.nn.init.normal_(parameter, std=0.3)
        plug.save_lora(unet, path, {"epoch": "3"}, encoders)
        return path

    return make
