"""Each optimiser is its library's, and what cannot run says what to do."""

import sys
from types import SimpleNamespace

import pytest

from lora_pipeline.errors import TrainingError
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.adapter import alpha_of, inject
from lora_pipeline.stages.fit.optimizer import optimizer_of, settled

torch = pytest.importorskip("torch")
LIBRARIES = {"AdamW8bit": "bitsandbytes", "Adafactor": "transformers", "Lion": "lion_pytorch"}


def made(kind, parameters, device="cpu", **settings):
    return optimizer_of(FitSettings(optimizer_type=kind, unet_lr=0.1, **settings), parameters, device)


@pytest.mark.parametrize("kind", ["AdamW", "AdamW8bit", "Adafactor", "Lion"])
def test_a_first_step_is_the_rate_and_the_decay(kind):
    """All normalise a first gradient to ±1 and decay apart from it: 3 × (1 − 0.1 × 0.5) − 0.1 = 2.75."""
    pytest.importorskip(LIBRARIES.get(kind, "torch"))
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    weight.grad = torch.tensor([7.0])
    made(kind, [weight], weight_decay=0.5).step()
    assert weight.item() == pytest.approx(2.75, abs=1e-5)


def test_the_8_bit_moments_are_bytes():
    pytest.importorskip("bitsandbytes")
    weight = torch.nn.Parameter(torch.ones(128, 64))
    weight.grad = torch.ones(128, 64)
    optimizer = made("AdamW8bit", [weight])
    optimizer.step()
    assert optimizer.state[weight]["state1"].dtype == torch.uint8


def test_a_device_without_8_bit_moments_is_told():
    with pytest.raises(TrainingError, match=r"fit\.optimizer_type AdamW8bit.*\(mps\); set it to AdamW"):
        made("AdamW8bit", [torch.nn.Parameter(torch.ones(1))], device="mps")


@pytest.mark.parametrize(
    ("kind", "module", "package"),
    [
        ("Prodigy", "prodigyopt", "prodigyopt"),
        ("Lion", "lion_pytorch", "lion-pytorch"),
        ("AdamWScheduleFree", "schedulefree", "schedulefree"),
    ],
)
def test_a_library_that_is_not_there_is_named(monkeypatch, kind, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TrainingError, match=rf"{kind} needs the package {package}.*lora-pipeline\[optimizers\]"):
        made(kind, [torch.nn.Parameter(torch.ones(1))])


class Averaging:
    """Of schedulefree's AdamWScheduleFree, what is called."""

    def __init__(self, *_, **given):
        self.given, self.modes = given, []

    def train(self):
        self.modes.append("train")

    def eval(self):
        self.modes.append("eval")


def test_schedule_free_warms_up_by_itself_and_trains_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "schedulefree", SimpleNamespace(AdamWScheduleFree=Averaging))
    optimizer = made("AdamWScheduleFree", [], lr_warmup_steps=7, weight_decay=0.2)
    assert optimizer.given == {"lr": 0.1, "weight_decay": 0.2, "warmup_steps": 7}
    assert optimizer.modes == ["train"]


def test_an_averaging_optimizer_is_settled_while_its_weights_are_read_and_trains_on_after_an_error():
    optimizer = Averaging()

    def read():
        with settled(optimizer):
            assert optimizer.modes == ["eval"]
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        read()
    assert optimizer.modes == ["eval", "train"]
    with settled(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])):
        pass


def test_rank_stabilised_is_a_scale_of_alpha_by_the_root_of_dim():
    """dim 16, alpha 8: 8 / √16 = 2, the scale that peft's own use_rslora has."""
    from peft import LoraConfig, inject_adapter_in_model

    settings = FitSettings(network_dim=16, network_alpha=8, rank_stabilised=True)
    ours, theirs = (torch.nn.Sequential(torch.nn.Linear(32, 32)) for _ in range(2))
    inject(ours, ("0",), 16, alpha_of(settings), 0)
    inject_adapter_in_model(LoraConfig(r=16, lora_alpha=8, use_rslora=True, target_modules=["0"]), theirs)
    assert ours[0].scaling["default"] == theirs[0].scaling["default"] == 2
    assert alpha_of(FitSettings(network_dim=16, network_alpha=8)) == 8
