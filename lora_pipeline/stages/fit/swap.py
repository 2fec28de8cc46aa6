"""Blocks of a large transformer that wait in the computer's memory, and are on the graphics card only while they are computed.

What sd-scripts calls `--blocks_to_swap`. A block's frozen weights are copied to the device when its forward pass begins, and that copy is
forgotten when it ends. On the way back, gradient checkpointing computes the block once more, which fetches a second copy; that one lives as long as
the gradients need it. The LoRA stays on the device, where its gradients and its optimiser are.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lora_pipeline.errors import TrainingError


def swap(module: torch.nn.Module, blocks: Sequence[torch.nn.Module], count: int, device: str) -> None:
    """Put a denoiser on its device but for the frozen weights of its last `count` blocks, in place.

    It answers as before, and learns the same; each step copies those weights twice.

    Args:
        module: the denoiser on the CPU, its LoRA in it.
        blocks: those of its parts that it computes one after the other, and again on the way back.
        count: how many of them wait, 1 or more.
        device: as torch names it.

    Raises:
        TrainingError: there are not so many blocks.
    """
    if count > len(blocks):
        how_many = (
            f"{len(blocks)} blocks: set it to at most that" if blocks else "no blocks that could wait: set it to 0"
        )
        raise TrainingError(f"fit.blocks_to_swap {count}: the denoiser has {how_many}")
    waiting = [_Waiting(block, device) for block in blocks[-count:]]
    with _left_behind(waiting):
        module.to(device)


class _Waiting:
    """One block's frozen weights, and the block's forward pass among copies of them."""

    def __init__(self, block: Any, device: str) -> None:
        self.device = device
        self.weights: list[
            tuple[dict[str, Any], str, Any]
        ] = []  # the dictionary of the module that has it, its name there, and it
        for part in block.modules():
            for name, weight in part._parameters.items():
                if weight is not None and not weight.requires_grad:
                    if device.startswith("cuda"):
                        weight.data = weight.data.pin_memory()  # which the card reads by itself
                    self.weights.append((part._parameters, name, weight))
        block.forward = self._among_copies(block.forward)

    def _among_copies(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def computed(*told: Any, **named: Any) -> Any:
            for places, name, weight in self.weights:
                places[name] = weight.detach().to(self.device, non_blocking=True, copy=True)
            try:
                return forward(*told, **named)
            finally:  # also where checkpointing breaks off, having all that it needs
                self.put(back=True)

        return computed

    def put(self, back: bool) -> None:
        """Put the weights into their places, or nothing."""
        for places, name, weight in self.weights:
            places[name] = weight if back else None


@contextmanager
def _left_behind(waiting: Sequence[_Waiting]) -> Generator[None]:
    for one in waiting:
        one.put(back=False)
    try:
        yield
    finally:
        for one in waiting:
            one.put(back=True)
