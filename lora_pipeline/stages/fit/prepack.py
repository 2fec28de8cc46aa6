"""A frozen weight, laid out once as the CPU's kernels read it: weight prepacking, as torch's own inductor does it for inference.

oneDNN, which computes torch's convolutions on a CPU, reads a weight in blocks as wide as the processor's registers. torch keeps it in rows, and so
has it laid out anew at each call, once on the way forward and once on the way back. A training that changes the weight must; a LoRA's base
never changes. Where weights are large and pictures small, that is a third of a step and more (benchmarks/prepack).
"""

from typing import Any

import psutil
import torch
from torch import Tensor

# Numbers of a weight from which on it is worth a second copy: 2 MiB in float32, about what a core's cache holds.
WORTH = 2**19
SHARE = 0.5  # of the machine's memory that all such copies may take
_TYPICAL = 32  # height and width of what a convolution is laid out for; those of another size read it as well


def prepack(module: torch.nn.Module, worth: int = WORTH) -> int:
    """Lay out the large frozen weights of a model on the CPU once and for all, in place, and give how many were.

    Each linear layer and each convolution answers as before but for rounding, and so does the gradient by its input. It holds its weight twice
    from then on: as the way forward reads it, and as the way back does. In place of its own `weight` stands one NaN that passes for all its
    numbers, so that whatever else would read it does not go unseen.

    Only float32 is laid out, and only where torch has oneDNN for AVX2 or AVX-512, and where both copies take no more than half of the memory
    that the machine has (not of what is free just now, since a run that goes on must compute as it began); elsewhere nothing is changed.

    Args:
        module: all that is to be laid out must be frozen already.
        worth: numbers that a weight has at least.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return 0
    layers: list[Any] = [one for one in module.modules() if _can(one, worth)]
    if 2 * sum(layer.weight.nbytes for layer in layers) > SHARE * psutil.virtual_memory().total:
        return 0
    taken = {id(layer.weight) for layer in layers}
    for weight in module.parameters() if layers else ():
        if not weight.requires_grad and id(weight) not in taken:
            weight.data = (
                weight.data.clone()
            )  # out of the file that all were read from, whose pages go with the last of them
    for layer in layers:
        _lay_out(layer)
    return len(layers)


def _lay_out(layer: Any) -> None:
    laid_out: Any = _Convolution if isinstance(layer, torch.nn.Conv2d) else _Linear
    layer.forward = laid_out(layer)
    nothing = torch.full((1,), torch.nan).expand(layer.weight.shape)
    layer.weight = torch.nn.Parameter(nothing, requires_grad=False)


def _can(layer: Any, worth: int) -> bool:
    if type(layer) is torch.nn.Conv2d:  # not a subclass, which may compute otherwise
        # how a window of one is best laid out hangs on the picture's size; laid out for another, it is slower than not at all
        plain = layer.kernel_size != (1, 1) and layer.dilation == (1, 1) and layer.groups == 1
        if not plain or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return False
    elif type(layer) is not torch.nn.Linear:
        return False
    own = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    frozen = all(one.device.type == "cpu" and one.dtype == torch.float32 and not one.requires_grad for one in own)
    return frozen and layer.weight.numel() >= worth


class _Linear:
    """`torch.nn.Linear.forward` of a weight W (out × in): y = x Wᵀ + b, and ∂/∂x = g W for a gradient g by y."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        weight = layer.weight.detach()
        self.bias = layer.bias
        self.ahead = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.back = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous())

    def __call__(self, x: Tensor) -> Any:
        return _Answer.apply(x, self)

    def answer(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.ahead, self.bias, "none", [], "")

    def gradient(self, g: Tensor, _size: torch.Size) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(g, self.back, None, "none", [], "")


class _Convolution:
    """`torch.nn.Conv2d.forward` of a weight (out × in × h × w); the gradient by the input is the transposed convolution of that by the answer."""

    def __init__(self, layer: torch.nn.Conv2d) -> None:
        weight = layer.weight.detach()
        self.bias = layer.bias
        self.window, self.stride = layer.kernel_size, list(layer.stride)
        self.padding = [int(one) for one in layer.padding]
        how = (self.stride, [1, 1], 1)
        reads, gives = ([1, count, _TYPICAL, _TYPICAL] for count in (layer.in_channels, layer.out_channels))
        self.ahead = torch.ops.mkldnn._reorder_convolution_weight(weight, self.padding, *how, reads)
        uneven = [one - 1 for one in self.stride]
        self.back = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, self.padding, uneven, *how, gives)

    def __call__(self, x: Tensor) -> Any:
        return _Answer.apply(x, self)

    def answer(self, x: Tensor) -> Tensor:
        how = (self.padding, self.stride, [1, 1], 1, "none", [], "")
        return torch.ops.mkldnn._convolution_pointwise(x, self.ahead, self.bias, *how)

    def gradient(self, g: Tensor, size: torch.Size) -> Tensor:
        sides = zip(size[2:], g.shape[2:], self.stride, self.padding, self.window, strict=True)
        # rows and columns at the end that no window reaches when the stride does not divide the sides
        left = [side - ((given - 1) * stride - 2 * pad + window) for side, given, stride, pad, window in sides]
        how = (self.padding, left, self.stride, [1, 1], 1, "none", [], "")
        return torch.ops.mkldnn._convolution_transpose_pointwise(g, self.back, None, *how)


class _Answer(torch.autograd.Function):
    """A layer's answer, with the gradient by its input alone: all else of it is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: "_Linear | _Convolution") -> Tensor:
        ctx.layer, ctx.size = layer, x.shape
        return layer.answer(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.layer.gradient(gradients[0], ctx.size), None
