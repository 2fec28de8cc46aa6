"""What the tests of several stages need."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_pipeline.settings import BaseSettings

RandomLora = Callable[[BaseSettings, Path, int], Path]


@pytest.fixture(scope="session")
def random_lora() -> RandomLora:
    """Write a LoRA of random weights, strong enough to be seen: rank 4, alpha 2, as `fit` would save it."""

    def make(base: BaseSettings, path: Path, seed: int) -> Path:
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        from lora_pipeline.families import family

        plug = family(base.family)
        unet = plug.open_denoiser(base, "cpu", "float32")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(LoraConfig(r=4, lora_alpha=2, target_modules=list(plug.lora_targets)), unet)
            for name, parameter in unet.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.3)
        plug.save_lora(unet, path, {"epoch": "3"})
        return path

    return make
