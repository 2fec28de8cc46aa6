"""Weights laid out once: the same answers and gradients as torch's own layers, and only where nothing of them is trained."""

import math
from functools import partial

import psutil
import pytest

from lora_pipeline.families import family
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit import prepack as room
from lora_pipeline.stages.fit.prepack import WORTH, prepack
from lora_pipeline.stages.fit.trainer import Trainer, read_cached

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"),
    reason="no oneDNN for AVX2 or AVX-512 here",
)
SETTINGS = FitSettings(epochs=4, batch_size=2, network_dim=4, network_alpha=2, unet_lr=1e-3)


def linear(**how):
    return torch.nn.Linear(96, 64, **how)


def convolution(window=3, **how):
    return torch.nn.Conv2d(32, 48, window, **how)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (linear(), (2, 7, 96)),
        (linear(bias=False), (5, 96)),
        (convolution(padding=1), (2, 32, 9, 7)),
        (convolution(padding=1, bias=False), (1, 32, 4, 4)),
        (convolution(), (1, 32, 8, 8)),
        (convolution((5, 3), padding=(2, 0)), (3, 32, 8, 8)),
        (convolution(padding=1, stride=2), (2, 32, 9, 7)),
        (convolution(padding=1, stride=2), (2, 32, 8, 8)),
        (convolution(padding=1, stride=(3, 2)), (2, 32, 8, 8)),
    ],
    ids=str,
)
def test_a_layer_answers_as_torchs_own(layer, size):
    layer.requires_grad_(False)
    shape = layer.weight.shape
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=drawn, requires_grad=True)
    wanted = layer(x)
    g = torch.randn(wanted.shape, generator=drawn)
    (wanted_gradient,) = torch.autograd.grad(wanted, x, g)
    assert prepack(layer, worth=0) == 1
    for given in (x, x.detach().contiguous(memory_format=torch.channels_last).requires_grad_() if x.ndim == 4 else x):
        answer = layer(given)
        (gradient,) = torch.autograd.grad(answer, given, g)
        torch.testing.assert_close(answer, wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-5, atol=1e-5)
    assert layer.weight.shape == shape
    assert layer.weight.isnan().all()


class Own(torch.nn.Linear):
    """A layer of somebody's own."""


@pytest.mark.parametrize(
    "layer",
    [
        Own(8, 8),
        linear(dtype=torch.bfloat16),
        convolution(1),
        convolution(dilation=2),
        convolution(groups=2),
        convolution(padding="same"),
        convolution(padding=1, padding_mode="reflect"),
        torch.nn.Conv1d(8, 8, 3),
        torch.nn.LayerNorm(8),
    ],
    ids=str,
)
def test_other_layers_are_left_alone(layer):
    assert prepack(layer.requires_grad_(False), worth=0) == 0
    assert layer.weight.isfinite().all()


def test_what_is_trained_or_small_is_left_alone():
    assert prepack(linear(), worth=0) == 0
    trained_bias = linear()
    trained_bias.weight.requires_grad_(False)
    assert prepack(trained_bias, worth=0) == 0
    two = torch.nn.Sequential(torch.nn.Linear(1024, 512), torch.nn.Linear(1024, 511)).requires_grad_(False)
    assert prepack(two) == 1
    assert two[0].weight.isnan().all()
    assert two[1].weight.numel() < WORTH


def test_a_machine_without_the_memory_for_both_copies_keeps_the_weights(monkeypatch):
    layer = linear().requires_grad_(False)
    total = psutil.virtual_memory()._replace(total=4 * layer.weight.nbytes - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: total)
    assert prepack(layer, worth=0) == 0
    assert layer.weight.isfinite().all()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: total._replace(total=4 * layer.weight.nbytes))
    assert prepack(layer, worth=0) == 1


@pytest.fixture
def trainers(tmp_path, make_training_set, tiny_base, monkeypatch):
    """A function that gives two trainers of the same run: one with every weight laid out, whatever its size, and one with none."""
    examples = read_cached(make_training_set(tmp_path / "set", pictures=5, repeats=1, buckets=((64, 64), (96, 32))))

    def make(**changes):
        settings = SETTINGS.model_copy(update=changes)
        both = []
        for worth in (0, 10**9):
            monkeypatch.setattr(room, "prepack", partial(prepack, worth=worth))
            both.append(Trainer(examples, family(tiny_base.family), tiny_base, settings, "cpu"))
        return both

    return make


def taken(trainer, count=6):
    steps = trainer.steps()
    return [next(steps).loss for _ in range(count)]


def laid_out(trainer):
    return sum(one.isnan().all().item() for one in trainer.module.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": True},
        {"network_type": "loha"},
        {"network_type": "lokr", "network_factor": 4},
        {"network_conv_dim": 2},
    ],
    ids=str,
)
def test_a_run_learns_the_same(trainers, changes):
    packed, plain = trainers(**changes)
    assert laid_out(packed) > 50
    assert laid_out(plain) == 0
    assert taken(packed) == pytest.approx(taken(plain), rel=1e-5)
    theirs = plain.state()["adapter"]
    for name, learnt in packed.state()["adapter"].items():
        torch.testing.assert_close(learnt, theirs[name], rtol=1e-3, atol=1e-5)


def test_a_run_goes_on_to_the_bit(trainers):
    straight, _ = trainers()
    losses = taken(straight, 6)
    first, _ = trainers()
    assert taken(first, 3) == losses[:3]
    second, _ = trainers()
    second.resume(first.state())
    assert taken(second, 3) == losses[3:]


def test_samples_are_drawn_through_it(trainers, tiny_base):
    pictures = []
    for trainer in trainers():
        taken(trainer, 2)
        with trainer.drawing() as module:
            pipeline = trainer.family.pipeline(tiny_base, "cpu", "float32", module)
            told = {"prompt": "a photo", "width": 64, "height": 64, "num_inference_steps": 3, "output_type": "np"}
            pictures.append(pipeline(**told, generator=torch.Generator().manual_seed(3)).images[0])
    assert abs(pictures[0] - pictures[1]).max() < 1e-4
    assert pictures[0].std() > 0.01


@pytest.mark.parametrize("changes", [{"network_type": "dora"}, {"mixed_precision": "bf16"}], ids=str)
def test_a_run_that_reads_weights_otherwise_keeps_them(trainers, changes):
    packed, _ = trainers(**changes)
    assert laid_out(packed) == 0
    assert all(math.isfinite(loss) for loss in taken(packed, 2))
