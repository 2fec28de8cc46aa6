"""Writing a LoRA file so that equal weights have equal bytes."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_pipeline.store import whole


def write_lora(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write torch tensors and words as a whole .safetensors; the words stand in order of their names.

    The library itself writes metadata in an order that differs from process to process, and a digest would differ with it.
    """
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    length = struct.unpack("<Q", data[:8])[0]
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    head = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of eight bytes
    with whole(path) as aside:
        aside.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + length :])


def read_metadata(path: Path) -> dict[str, str]:
    """The words in a .safetensors file's header."""
    with path.open("rb") as handle:
        length = struct.unpack("<Q", handle.read(8))[0]
        return json.loads(handle.read(length)).get("__metadata__", {})
