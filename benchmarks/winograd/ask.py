"""How much quicker would a training step of the shipped base be if its 3 × 3 convolutions were computed by Winograd's minimal filtering?

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), F(4 × 4, 3 × 3): Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A gives 4 × 4 numbers of
the answer from 6 × 6 of the picture with 36 multiplications in place of 144. oneDNN no longer has it, since a weight g that is learnt would have to be
taken over at each call; a LoRA's base could be taken over once. Convolutions are more than half of a step here. All ways take the same step in
turn, in a process as training's.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.compiled.ask import in_turn, trainer_maker
from lora_pipeline.families.weights import BUNDLED_FOLDER
from lora_pipeline.stages.fit.process import environment
from lora_pipeline.stages.fit.trainer import Trainer

STEPS = 40
CHANNELS, LEAST_TILES = 64, 16  # from which on it is quicker than the plain way

PICTURE = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
WEIGHT = torch.tensor([[6.0, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]).double() / 24
ANSWER = torch.tensor([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
TILES, SUMS = torch.kron(PICTURE, PICTURE), torch.kron(ANSWER, ANSWER)  # of both directions at once


def ask() -> dict[str, object]:
    """By number of threads: see `asked`."""
    told: dict[str, object] = {}
    for threads in sorted({1, os.cpu_count() or 1}):
        command = [sys.executable, "-m", "benchmarks.winograd.ask"]
        variables = environment() | {"OMP_NUM_THREADS": str(threads)}
        answer = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout
        told[f"{threads} threads"] = json.loads(answer.splitlines()[-1])
    return told


def asked() -> dict[str, object]:
    """By way: seconds of a step (median), and the last loss."""
    with tempfile.TemporaryDirectory() as folder:
        make = trainer_maker(BUNDLED_FOLDER, Path(folder), 128, batch=4)
        filtered, last = _filtered(make()), _filtered(make())
        last.module.to(memory_format=torch.channels_last)
        return in_turn({"as it is": make(), "Winograd": filtered, "Winograd, channels last": last}, STEPS)


def _filtered(trainer: Trainer) -> Trainer:
    for layer in trainer.module.modules():
        plain = type(layer) is torch.nn.Conv2d and layer.kernel_size == (3, 3) and layer.stride == (1, 1)
        if plain and min(layer.in_channels, layer.out_channels) >= CHANNELS:
            layer.forward = Filtered(layer)
    return trainer


class Filtered:
    """A frozen convolution's answer, and the gradient by its input."""

    def __init__(self, layer: torch.nn.Conv2d) -> None:
        self.weight, self.bias = layer.weight.detach(), layer.bias
        self.ahead, self.back = Taken(self.weight), Taken(self.weight.transpose(0, 1).flip(2, 3))

    def __call__(self, x: Tensor) -> Any:
        count, _, height, width = x.shape
        if count * -(-height // 4) * -(-width // 4) < LEAST_TILES:
            return functional.conv2d(x, self.weight, self.bias, padding=1)
        return _Answer.apply(x, self)


class _Answer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Filtered) -> Tensor:
        ctx.layer = layer
        answer = layer.ahead(x)
        return answer if layer.bias is None else answer.add_(layer.bias.view(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.layer.back(gradients[0]), None


class Taken:
    """A weight (out × in × 3 × 3) taken over: G g Gᵀ."""

    def __init__(self, weight: Tensor) -> None:
        self.out, self.given, *_ = weight.shape
        taken = torch.einsum("ik,ockl,jl->ijoc", WEIGHT, weight.double(), WEIGHT).float().reshape(-1, self.given, 1, 1)
        how = ([0, 0], [1, 1], [1, 1], 36, [1, 36 * self.given, 64, 1])
        # 36 products of matrices: oneDNN is quicker at them, as a convolution of so many groups, than torch at a batch of them.
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(taken, *how)

    def __call__(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        down, across = -(-height // 4), -(-width // 4)
        framed = functional.pad(x, (1, 4 * across - width + 1, 1, 4 * down - height + 1))
        image, channel, row, column = framed.stride()
        steps = (image, 4 * row, 4 * column, row, column, channel)
        tiles = framed.as_strided((count, down, across, 6, 6, self.given), steps).reshape(-1, 36, self.given)
        read = torch.matmul(TILES, tiles).view(1, len(tiles), 1, -1).permute(0, 3, 1, 2)
        how = ([0, 0], [1, 1], [1, 1], 36, "none", [], "")
        products = torch.ops.mkldnn._convolution_pointwise(read, self.weight, None, *how)
        sums = torch.matmul(SUMS, products.permute(0, 2, 3, 1).reshape(-1, 36, self.out))
        answer = sums.view(count, down, across, 4, 4, self.out).permute(0, 1, 3, 2, 4, 5)
        whole = answer.reshape(count, 4 * down, 4 * across, self.out)[:, :height, :width]
        return whole.permute(0, 3, 1, 2)


if __name__ == "__main__":
    print(json.dumps(asked()))
