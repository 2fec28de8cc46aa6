"""Writing a LoRA file so that equal weights have equal bytes."""

import json
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from lora_pipeline.store import whole

ADAPTER = "lora_adapter_metadata"  # diffusers' LORA_ADAPTER_METADATA_KEY: rank and alpha, by which it scales


def write_lora(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write torch tensors and words as a whole .safetensors; see `lora_bytes`."""
    data = lora_bytes(tensors, metadata)
    with whole(path) as aside:
        aside.write_bytes(data)


def lora_bytes(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """A .safetensors of torch tensors and words; the words stand in order of their names.

    The library itself writes metadata in an order that differs from process to process, and a digest would differ with it.
    """
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    length = struct.unpack("<Q", data[:8])[0]
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    head = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of eight bytes
    return struct.pack("<Q", len(head)) + head + data[8 + length :]


def without_header(data: bytes) -> bytes:
    """What follows a .safetensors' header: the tensors alone."""
    return data[8 + struct.unpack("<Q", data[:8])[0] :]


def alpha_in(metadata: Mapping[str, str], module: str) -> float | None:
    """The alpha by which diffusers scales a module's LoRA, out of a file's words; None if they do not say.

    Args:
        metadata: of a file of `Family.save_lora`.
        module: "unet.mid_block.attentions.0.proj_in".
    """
    adapter: dict[str, Any] = json.loads(metadata.get(ADAPTER, "{}"))
    part, _, name = module.partition(".")
    own: dict[str, float] = adapter.get(f"{part}.alpha_pattern") or {}
    for pattern, alpha in own.items():  # as peft's get_pattern_key matches them
        if re.match(rf"(.*\.)?({pattern})$", name):
            return float(alpha)
    alpha = adapter.get(f"{part}.lora_alpha", adapter.get(f"{part}.alpha"))  # the latter of a LoKr or LoHa
    return None if alpha is None else float(alpha)


def lycoris_kind(keys: Iterable[str]) -> Literal["lokr", "loha", ""]:
    """Which of the two a file holds, by its tensors' names; empty: a LoRA or DoRA."""
    names = list(keys)
    return "lokr" if any(".lokr_" in key for key in names) else "loha" if any(".hada_" in key for key in names) else ""


def read_metadata(path: Path) -> dict[str, str]:
    """The words in a .safetensors file's header."""
    with path.open("rb") as handle:
        length = struct.unpack("<Q", handle.read(8))[0]
        return json.loads(handle.read(length)).get("__metadata__", {})
