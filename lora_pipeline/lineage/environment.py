"""With what something was made: libraries and device, as far as they can change a bit of it. Nothing that names the machine."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lora_pipeline.families import best_device

PACKAGES = (
    "lora-pipeline",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "safetensors",
    "numpy",
    "pillow",
    "opencv-python",
    "dlib-bin",
)


def environment(device: str = "") -> dict[str, Any]:
    """What is at hand now, or with a `device` (`cuda`, `mps`, `cpu`) what a run on it has.

    `python`, `system`, `versions` of packages (None for one that is not installed), and of torch, if it is loaded: `device` (`cpu`,
    `mps`, or the card's name), `instructions` of the CPU that its kernels use, and `threads`. Without torch the device is the CPU.
    """
    told: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": "cpu",
        "versions": {name: _version(name) for name in PACKAGES},
    }
    if "torch" in sys.modules:
        import torch

        device = device or best_device()
        told["device"] = torch.cuda.get_device_name() if device == "cuda" else device
        told["instructions"] = torch.backends.cpu.get_cpu_capability()
        told["threads"] = torch.get_num_threads()
    return told


def differing(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What two environments differ in, as `torch: 2.6.0 → 2.7.1`."""
    before, after = ({**told, **told.get("versions", {}), "versions": None} for told in (then, now))
    names = dict.fromkeys([*before, *after])
    return [f"{name}: {before.get(name)} → {after.get(name)}" for name in names if before.get(name) != after.get(name)]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
