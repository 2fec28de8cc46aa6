"""LoRA's kin, on layers small enough to be reckoned by hand."""

import math

import pytest

from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit import adapter

torch = pytest.importorskip("torch")


class Layers(torch.nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.line = torch.nn.Linear(48, 64, dtype=dtype)
        self.fold = torch.nn.Conv2d(6, 8, 3, dtype=dtype)


def put(kind, seed=0, dtype=torch.float32, **how):
    torch.manual_seed(7)
    root = torch.nn.ModuleDict({"one": Layers(dtype)}).requires_grad_(False)
    return root, adapter.inject(
        root, ("line", "fold"), how.pop("dim", 4), how.pop("alpha", 6.0), seed, kind=kind, **how
    )


def of(parameters, layer, matrix):
    return parameters[f"one.{layer}.{matrix}.default"].detach()


def added(root, layer):
    return root.get_submodule(f"one.{layer}").get_delta_weight("default").detach()


def shake(parameters):
    torch.manual_seed(3)
    for one in parameters.values():
        torch.nn.init.normal_(one)


def test_a_loha_adds_the_product_number_by_number_of_two_low_ranks():
    root, own = put("loha")
    assert not added(root, "line").any()
    shake(own)
    for layer, shape in (("line", (64, 48)), ("fold", (8, 6, 3, 3))):
        first, second = (of(own, layer, f"hada_w{n}_a") @ of(own, layer, f"hada_w{n}_b") for n in (1, 2))
        assert torch.allclose(added(root, layer), (6 / 4 * first * second).reshape(shape), atol=1e-5)
    assert torch.linalg.matrix_rank(added(root, "line")) == 16  # of 4 · 4, with the numbers of a LoRA of rank 8


def test_a_loha_begins_as_lycoris_begins_it():
    """normal_(w1_b, 1), normal_(w1_a, 0.1), normal_(w2_b, 1), constant_(w2_a, 0): so that a learning rate means the same."""
    _, own = put("loha", dim=32)
    spreads = {matrix: float(of(own, "line", matrix).std()) for matrix in ("hada_w1_a", "hada_w1_b", "hada_w2_b")}
    assert spreads == pytest.approx({"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0}, rel=0.1)
    assert not of(own, "line", "hada_w2_a").any()


def test_a_lokr_adds_kronecker_s_product():
    root, own = put("lokr", dim=2, factor=4)
    assert not added(root, "line").any()
    shake(own)
    blocks = of(own, "line", "lokr_w2_a") @ of(own, "line", "lokr_w2_b")  # 64 = 4 · 16, 48 = 4 · 12
    assert (of(own, "line", "lokr_w1").shape, blocks.shape) == ((4, 4), (16, 12))
    corner = added(root, "line")[16 * 3 : 16 * 4, 12 * 1 : 12 * 2]  # the block of row 3, column 1
    assert torch.allclose(corner, 6 / 2 * of(own, "line", "lokr_w1")[3, 1] * blocks, atol=1e-5)


def test_a_lokr_that_is_whole_is_not_scaled():
    """As LyCORIS has it ("use scale = 1") and as ComfyUI reads it, which scales only what was cut in two."""
    root, own = put("lokr", dim=8, alpha=2.0, factor=4)  # the second matrix is 16 × 12, of which 8 is the half
    shake(own)
    assert torch.allclose(added(root, "line"), torch.kron(of(own, "line", "lokr_w1"), of(own, "line", "lokr_w2")))
    root, own = put("lokr", dim=7, alpha=2.0, factor=4)
    assert "one.line.lokr_w2_a.default" in own
    assert root.get_submodule("one.line").scaling["default"] == pytest.approx(2 / 7)


@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_convolutions_have_a_dim_and_an_alpha_of_their_own(kind):
    root, _ = put(kind, dim=2, conv=(1, 5.0), factor=2)
    scales = [root.get_submodule(f"one.{layer}").scaling["default"] for layer in ("line", "fold")]
    assert scales == [6 / 2, 5 / 1]


@pytest.mark.parametrize("kind", ["lora", "dora", "lokr", "loha"])
def test_what_is_learnt_is_float32_and_the_seed_s_and_the_base_stays_as_it_is(kind):
    root, own = put(kind, dtype=torch.bfloat16)
    assert {one.dtype for one in own.values()} == {torch.float32}
    assert root.get_submodule("one.line").base_layer.weight.dtype == torch.bfloat16
    assert {name for name, one in root.named_parameters() if one.requires_grad} == set(own)
    same, other = put(kind, dtype=torch.bfloat16)[1], put(kind, seed=1, dtype=torch.bfloat16)[1]
    assert all(torch.equal(own[name], same[name]) for name in own)
    assert any(not torch.equal(own[name], other[name]) for name in own)


def test_a_rank_stabilised_alpha_is_root_dim_times_as_great():
    """Kalajdzievski 2023, eq. 3: alpha / √dim = (alpha · √dim) / dim. A worked case: alpha 4, dim 16 → 16, so that 16 / 16 = 4 / √16."""
    settings = FitSettings(
        network_dim=16, network_alpha=4, network_conv_dim=9, network_conv_alpha=1, rank_stabilised=True
    )
    assert adapter.alpha_of(settings) == 16
    assert adapter.conv_alpha_of(settings) == 3
    assert adapter.alpha_of(settings.model_copy(update={"network_dim": 8})) == pytest.approx(4 * math.sqrt(8))
