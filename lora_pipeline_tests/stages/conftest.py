"""What the tests of several stages need."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_pipeline.settings import BaseSettings, NetworkType

RandomLora = Callable[..., Path]


@pytest.fixture(scope="session")
def random_lora() -> RandomLora:
    """Write a LoRA of random weights, strong enough to be seen: rank 4, alpha 2 (`conv`: of convolutions), as `fit` would save it."""

    def make(
        base: BaseSettings, path: Path, seed: int, conv: tuple[int, float] | None = None, kind: NetworkType = "lora"
    ) -> Path:
        import torch

        from lora_pipeline.families import family
        from lora_pipeline.stages.fit.adapter import inject

        plug = family(base.family)
        unet = plug.open_denoiser(base, "cpu", "float32")
        inject(unet, (*plug.lora_targets, *(plug.conv_targets if conv else ())), 4, 2, seed, conv=conv, kind=kind)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for name, parameter in unet.named_parameters():
                if any(zero in name for zero in ("lora_B", "lokr_w2", "hada_w2_a")):
                    torch.nn.init.normal_(parameter, std=0.3)
        plug.save_lora(unet, path, {"epoch": "3"})
        return path

    return make
