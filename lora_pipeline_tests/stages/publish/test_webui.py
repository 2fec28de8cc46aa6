"""Names for other programs, judged by diffusers' own readers of such files, with random-weight models of the real classes."""

import math

import pytest

from lora_pipeline.families import FAMILIES, family
from lora_pipeline.families.lora_file import alpha_in, read_metadata, write_lora
from lora_pipeline.settings import BaseSettings
from lora_pipeline.stages.publish.webui import Unnamed, renamed

torch = pytest.importorskip("torch")

RANK = 4
# As the real models are where a name's number depends on it. FLUX without its single-stream blocks, of which diffusers reads only the
# real width (`test_flux_single_blocks_…` has that).
LIKE = {"sd15": {"like_sd15": True}, "sdxl": {"like_sdxl": True}, "flux": {"single_blocks": 0}}


@pytest.fixture(scope="module")
def bases():
    return {}


@pytest.fixture(params=[name for name in FAMILIES if name != "sd35"])
def of_family(request, tiny, bases, tmp_path_factory):
    """A family whose files for other programs diffusers reads too, and a small base of its real shape."""
    name = request.param
    if name not in bases:
        folder = tiny.BUILD[name](tmp_path_factory.mktemp(name), **LIKE.get(name, {}))
        bases[name] = BaseSettings(family=name, model=str(folder))
    return family(name), bases[name]


def random_lora(one, base, path, alpha=2.0, targets=None, texts=False, **more):
    """A LoRA of random numbers (`texts`: of the text encoders too) as `fit` would save it; gives its tensors and its words."""
    from peft import LoraConfig, inject_adapter_in_model
    from safetensors.torch import load_file

    module = one.open_denoiser(base, "cpu", "float32")
    config = LoraConfig(r=RANK, lora_alpha=alpha, target_modules=list(targets or one.lora_targets), **more)
    inject_adapter_in_model(config, module)
    encoders = one.open_trained_texts(base).encoders if texts else {}
    for encoder in encoders.values():
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=alpha, target_modules=list(one.text_targets)), encoder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in (module, *encoders.values()):
            for name, parameter in part.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    one.save_lora(module, path, {}, encoders)
    return load_file(path), read_metadata(path)


def for_others(one, tensors, said, path):
    other = renamed(tensors, lambda module: alpha_in(said, module), one.naming.place)
    write_lora(path, other, {})
    return other


def held(one, pipeline):
    """The tensors that a pipeline's denoiser holds of its LoRA, by the names of our own file, and by what each module scales."""
    from peft import get_peft_model_state_dict

    module = getattr(pipeline, one.denoiser_folder)
    tensors = get_peft_model_state_dict(module)
    scales = {name: part.scaling["default"] for name, part in module.named_modules() if hasattr(part, "lora_A")}
    return (
        {f"{one.denoiser_folder}.{key}": tensor for key, tensor in tensors.items()},
        {f"{one.denoiser_folder}.{name}": scale for name, scale in scales.items()},
    )


def drawn(one, pipeline):
    import numpy as np

    how = {"num_inference_steps": 2, "width": 64, "height": 64, "output_type": "np", **one.guided(2.0, ["grey"])}
    return np.asarray(pipeline(prompt=["a photo"], generator=[torch.Generator().manual_seed(3)], **how).images[0])


def module_of(key):
    return key.rpartition(".lora_")[0]


def test_the_stock_pipeline_reads_the_same_numbers_and_draws_the_same_picture(of_family, tmp_path):
    import numpy as np

    one, base = of_family
    tensors, said = random_lora(one, base, tmp_path / "own.safetensors")
    for_others(one, tensors, said, tmp_path / "webui.safetensors")
    pipeline = one.pipeline(base, "cpu", "float32")
    plain = drawn(one, pipeline)
    pipeline.load_lora_weights(str(tmp_path / "own.safetensors"))
    own = drawn(one, pipeline)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(str(tmp_path / "webui.safetensors"), adapter_name="default")
    assert np.abs(drawn(one, pipeline) - own).max() < 1e-5
    assert np.abs(own - plain).max() > 1e-3

    back, scales = held(one, pipeline)
    assert set(back) == set(tensors)
    widened = one.name == "z_image"  # diffusers leaves q, k and v at the common rank, zeros in between
    for key, tensor in tensors.items():
        got, scale = back[key], scales[module_of(key)]
        if widened and ".to_out." not in key:
            assert len(got) == 3 * RANK or got.shape[1] == 3 * RANK
            at = RANK * ("to_q", "to_k", "to_v").index(module_of(key).rpartition(".")[2])
            got = got[at : at + RANK] if ".lora_A." in key else got[:, at : at + RANK]
        if ".lora_A." in key:  # where diffusers has no room for alpha, it is multiplied in; a half rounds nothing
            tensor = tensor * (0.5 / scale)
        assert torch.equal(got, tensor), key


def test_what_the_stock_pipeline_read_is_written_back_to_the_bit(of_family, tmp_path):
    """The other way: a file by their names → the stock pipeline → our file → by their names."""
    one, base = of_family
    if one.name == "z_image":
        pytest.skip("diffusers reads it at three times the rank")
    tensors, said = random_lora(one, base, tmp_path / "own.safetensors", alpha=RANK)
    theirs = for_others(one, tensors, said, tmp_path / "theirs.safetensors")
    pipeline = one.pipeline(base, "cpu", "float32")
    pipeline.load_lora_weights(str(tmp_path / "theirs.safetensors"), adapter_name="default")
    one.save_lora(getattr(pipeline, one.denoiser_folder), tmp_path / "ours.safetensors", {})
    from safetensors.torch import load_file

    read, words = load_file(tmp_path / "ours.safetensors"), read_metadata(tmp_path / "ours.safetensors")
    again = for_others(one, read, words, tmp_path / "again.safetensors")
    assert set(again) == set(theirs)
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_every_layer_of_the_u_net_has_its_name_and_its_own_alpha(tiny, tmp_path, name):
    one = family(name)
    base = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path / "base", **LIKE[name])))
    unet = one.open_denoiser(base, "cpu", "float32")
    layers = [module for module, part in unet.named_modules() if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)]
    alphas = {layers[3]: 1.0, layers[-3]: 8.0}
    tensors, said = random_lora(one, base, tmp_path / "own.safetensors", targets=layers, alpha_pattern=alphas)
    other = for_others(one, tensors, said, tmp_path / "webui.safetensors")
    assert len(other) == 3 * len(layers)
    assert all(key.startswith("lora_unet_") for key in other)
    pipeline = one.pipeline(base, "cpu", "float32")
    pipeline.load_lora_weights(str(tmp_path / "webui.safetensors"), adapter_name="default")
    back, scales = held(one, pipeline)
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)
    assert scales == {f"unet.{module}": alphas.get(module, 2.0) / RANK for module in layers}


def test_sdxl_has_the_names_that_sd_scripts_trains_by():
    place = family("sdxl").naming.place
    names = {
        "unet.down_blocks.1.attentions.0.proj_in": "lora_unet_input_blocks_4_1_proj_in",
        "unet.down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0": "lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_out_0",
        "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj": "lora_unet_middle_block_1_transformer_blocks_0_ff_net_0_proj",
        "unet.mid_block.resnets.1.conv1": "lora_unet_middle_block_2_in_layers_2",
        "unet.up_blocks.0.attentions.0.proj_out": "lora_unet_output_blocks_0_1_proj_out",
        "unet.up_blocks.1.attentions.2.transformer_blocks.1.attn1.to_k": "lora_unet_output_blocks_5_1_transformer_blocks_1_attn1_to_k",
        "text_encoder_2.text_model.encoder.layers.3.mlp.fc1": "lora_te2_text_model_encoder_layers_3_mlp_fc1",
    }
    assert {key: place(key).module for key in names} == names


@pytest.mark.parametrize(("name", "prefixes"), [("sd15", ["te"]), ("sdxl", ["te1", "te2"]), ("flux", ["te1"])])
def test_text_encoders_are_read_back_too_and_draw_the_same_picture(tiny, tmp_path, name, prefixes):
    import numpy as np

    one = family(name)
    base = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path / "base", **LIKE[name])))
    tensors, said = random_lora(one, base, tmp_path / "own.safetensors", texts=True)
    other = for_others(one, tensors, said, tmp_path / "webui.safetensors")
    for prefix in prefixes:
        module = f"lora_{prefix}_text_model_encoder_layers_1_self_attn_out_proj"
        assert float(other[f"{module}.alpha"]) == 2.0
        assert other[f"{module}.lora_down.weight"].shape == (RANK, 32)
    parts = {key.split("_text_model_")[0] for key in other if not key.startswith("lora_unet_")}
    assert parts == {f"lora_{prefix}" for prefix in prefixes}
    pipeline = one.pipeline(base, "cpu", "float32")
    pipeline.load_lora_weights(str(tmp_path / "own.safetensors"))
    own = drawn(one, pipeline)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights({key: tensor for key, tensor in other.items() if "_te" not in key})
    denoiser = drawn(one, pipeline)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(str(tmp_path / "webui.safetensors"), adapter_name="default")
    assert np.abs(drawn(one, pipeline) - own).max() < 1e-5
    assert np.abs(denoiser - own).max() > 1e-3
    for key, tensor in tensors.items():
        folder, _, rest = module_of(key).partition(".")
        if folder != one.denoiser_folder:
            encoder = getattr(pipeline, folder)
            layer = encoder.get_submodule(rest if hasattr(encoder, "text_model") else rest.removeprefix("text_model."))
            if ".lora_A." in key:  # FLUX.1's reader multiplies the scale into the matrices
                up, down = layer.lora_B["default"].weight, layer.lora_A["default"].weight
                own = tensors[key.replace(".lora_A.", ".lora_B.")] @ tensor * 2 / RANK
                assert torch.equal(up @ down * layer.scaling["default"], own), key


def random_pairs(modules):
    """A LoRA of rank 4 for modules of these (in, out), by our names."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for module, (wide, high) in modules.items():
        tensors[f"{module}.lora_A.weight"] = torch.randn(RANK, wide, generator=generator)
        tensors[f"{module}.lora_B.weight"] = torch.randn(high, RANK, generator=generator)
    return tensors


def test_flux_single_blocks_of_the_real_width_come_back_to_the_bit():
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    block = "transformer.single_transformer_blocks.37"
    tensors = random_pairs({f"{block}.attn.{name}": (3072, 3072) for name in ("to_q", "to_k", "to_v")})
    other = renamed(tensors, lambda _: 16.0, family("flux").naming.place)
    assert {key: tuple(tensor.shape) for key, tensor in other.items()} == {
        "lora_unet_single_blocks_37_linear1.lora_down.weight": (16, 3072),
        "lora_unet_single_blocks_37_linear1.lora_up.weight": (21504, 16),
        "lora_unet_single_blocks_37_linear1.alpha": (),
    }
    back = _convert_kohya_flux_lora_to_diffusers(other)
    for key, tensor in tensors.items():
        assert torch.equal(back.pop(key), tensor * 4 if ".lora_A." in key else tensor)  # alpha / rank is 4
    assert set(back) == {f"{block}.proj_mlp.lora_A.weight", f"{block}.proj_mlp.lora_B.weight"}
    assert not any(tensor.any() for tensor in back.values())  # the part that has no LoRA


def test_every_name_in_flux_s_table_is_diffusers_own():
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    double = {f"attn.{name}": (3072, 3072) for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out")}  # fmt: skip
    for feed in ("ff", "ff_context"):
        double |= {f"{feed}.net.0.proj": (3072, 12288), f"{feed}.net.2": (12288, 3072)}
    double |= {"norm1.linear": (3072, 18432), "norm1_context.linear": (3072, 18432)}
    single = {f"attn.{name}": (3072, 3072) for name in ("to_q", "to_k", "to_v")}
    single |= {"proj_mlp": (3072, 12288), "proj_out": (15360, 3072), "norm.linear": (3072, 9216)}
    tensors = random_pairs(
        {f"transformer.transformer_blocks.18.{name}": size for name, size in double.items()}
        | {f"transformer.single_transformer_blocks.0.{name}": size for name, size in single.items()}
    )
    back = _convert_kohya_flux_lora_to_diffusers(renamed(tensors, lambda _: float(RANK), family("flux").naming.place))
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


class _Blank(dict):
    """A checkpoint that has everything, of zeros, and remembers what it was asked for."""

    def __init__(self, *given):
        super().__init__(*given)
        self.asked = []

    def __missing__(self, key):
        return torch.zeros(6, 1)

    def pop(self, key, *default):  # noqa: ARG002
        self.asked.append(key)
        return super().pop(key, torch.zeros(6, 1))


def test_sd35_has_the_names_of_the_model_that_diffusers_converts():
    """diffusers reads no LoRA of these names, but whole models: so what the LoRA adds is put there as a model."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    first = {"joint_blocks.0.x_block.attn2.ln_q.weight": torch.zeros(1), "joint_blocks.1.x": torch.zeros(1)}
    blank = _Blank(first)
    convert_sd3_transformer_checkpoint_to_diffusers(blank)
    flat = {f"lora_unet_{key.removesuffix('.weight').replace('.', '_')}": key for key in blank.asked}

    names = [f"attn.{name}" for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out")]  # fmt: skip
    names += ["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"]
    names += [f"{feed}.{layer}" for feed in ("ff", "ff_context") for layer in ("net.0.proj", "net.2")]
    tensors = random_pairs({f"transformer.transformer_blocks.0.{name}": (8, 8) for name in names})
    other = renamed(tensors, lambda _: 2.0, family("sd35").naming.place)
    layers = {key.partition(".")[0] for key in other}
    added = {
        flat[layer]: float(other[f"{layer}.alpha"]) / len(other[f"{layer}.lora_down.weight"])
        * (other[f"{layer}.lora_up.weight"] @ other[f"{layer}.lora_down.weight"])
        for layer in layers
    }  # fmt: skip
    got = convert_sd3_transformer_checkpoint_to_diffusers(_Blank({**first, **added}))
    for name in names:
        up, down = (tensors[f"transformer.transformer_blocks.0.{name}.lora_{side}.weight"] for side in "BA")
        assert torch.allclose(got[f"transformer_blocks.0.{name}.weight"], 2 / RANK * up @ down, atol=1e-6), name


@pytest.mark.parametrize("alpha", [1.5, 4 * math.sqrt(RANK)])
def test_alpha_over_rank_stays_where_layers_are_joined(alpha):
    tensors = random_pairs({f"transformer.layers.0.attention.to_{one}": (8, 8) for one in "qkv"})
    other = renamed(tensors, lambda _: alpha, family("z_image").naming.place)
    name = "lora_unet_layers_0_attention_qkv"
    assert float(other[f"{name}.alpha"]) / len(other[f"{name}.lora_down.weight"]) == pytest.approx(alpha / RANK)


@pytest.mark.parametrize("name", FAMILIES)
def test_whatever_is_trained_has_a_name_there(tiny, tmp_path, name):
    one = family(name)
    base = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path / "base")))
    tensors, said = random_lora(one, base, tmp_path / "own.safetensors")
    assert for_others(one, tensors, said, tmp_path / "webui.safetensors")


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("transformer.x_embedder.lora_A.weight", "x_embedder has no name there"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector", "it is a DoRA"),
        ("text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight", "has no name there"),
    ],
)
def test_what_has_no_name_is_told(key, why):
    with pytest.raises(Unnamed, match=why):
        renamed({key: torch.zeros(2, 2)}, lambda _: 1.0, family("flux").naming.place)


def test_parts_of_one_layer_that_differ_are_told():
    place = family("flux").naming.place
    block = "transformer.transformer_blocks.0.attn"
    tensors = random_pairs({f"{block}.{name}": (8, 8) for name in ("to_q", "to_k", "to_v")})
    with pytest.raises(Unnamed, match="differ in rank or alpha"):
        renamed(tensors, lambda module: 1.0 + module.endswith("to_v"), place)
    tensors[f"{block}.to_k.lora_B.weight"] = torch.zeros(9, RANK)
    with pytest.raises(Unnamed, match="not of the sizes"):
        renamed(tensors, lambda _: 1.0, place)


def test_a_rank_stabilised_lora_scales_there_as_it_was_trained(of_family, tmp_path):
    """alpha 3 over the root of dim 4 is 1.5; a program that knows dim and alpha alone finds it as 6 / 4."""
    from lora_pipeline.settings import FitSettings
    from lora_pipeline.stages.fit.adapter import alpha_of

    one, base = of_family
    settings = FitSettings(network_dim=RANK, network_alpha=3, rank_stabilised=True)
    tensors, said = random_lora(one, base, tmp_path / "own.safetensors", alpha=alpha_of(settings))
    other = for_others(one, tensors, said, tmp_path / "webui.safetensors")
    ratios = {
        float(other[key]) / len(other[f"{module_of_alpha(key)}.lora_down.weight"])
        for key in other
        if key.endswith(".alpha")
    }
    assert ratios == {1.5}
    pipeline = one.pipeline(base, "cpu", "float32")
    pipeline.load_lora_weights(str(tmp_path / "webui.safetensors"), adapter_name="default")
    back, scales = held(one, pipeline)
    key = next(key for key in tensors if ".to_out.0.lora_A." in key)
    up = key.replace("lora_A", "lora_B")
    assert torch.allclose(scales[module_of(key)] * back[up] @ back[key], 1.5 * tensors[up] @ tensors[key], atol=1e-6)


def module_of_alpha(key):
    return key.removesuffix(".alpha")


def read_by_others(tensors):
    """What each layer gets added, out × everything else, by ComfyUI's formulas (comfy/weight_adapter/loha.py and lokr.py)."""
    added = {}
    for layer in {key.partition(".")[0] for key in tensors}:
        own = {key.partition(".")[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{layer}.")}
        alpha = float(own.pop("alpha"))
        if "hada_w1_a" in own:
            first, second = (own[f"hada_w{n}_a"] @ own[f"hada_w{n}_b"] for n in (1, 2))
            added[layer] = alpha / len(own["hada_w1_b"]) * first * second
            continue
        cut = "lokr_w2_a" in own
        blocks = own["lokr_w2_a"] @ own["lokr_w2_b"] if cut else own["lokr_w2"].flatten(1)
        added[layer] = (alpha / len(own["lokr_w2_b"]) if cut else 1) * torch.kron(own["lokr_w1"], blocks)
    return added


@pytest.mark.parametrize("name", ["sd15", "flux", "z_image"])
@pytest.mark.parametrize(("kind", "dim"), [("loha", 3), ("lokr", 2), ("lokr", 1000)], ids=str)
def test_lycoris_names_and_numbers_say_what_was_trained(tiny, tmp_path, name, kind, dim):
    from safetensors.torch import load_file

    from lora_pipeline.settings import FitSettings
    from lora_pipeline.stages.fit import adapter

    one = family(name)
    base = BaseSettings(family=name, model=str(tiny.BUILD[name](tmp_path / "base")))
    conv = dim < 1000 and bool(one.conv_targets)
    settings = FitSettings(network_conv_dim=1 if conv else 0)
    module = one.open_denoiser(base, "cpu", "float32")
    own = adapter.inject(
        module, adapter.targets_of(one, settings), dim, 1.5, 0, conv=(1, 5.0) if conv else None, kind=kind, factor=4
    )
    with torch.no_grad():
        for parameter in own.values():
            parameter.normal_()
    one.save_lora(module, tmp_path / "own.safetensors", {})
    tensors, said = load_file(tmp_path / "own.safetensors"), read_metadata(tmp_path / "own.safetensors")
    read = read_by_others(for_others(one, tensors, said, tmp_path / "webui.safetensors"))
    trained = {
        f"{one.denoiser_folder}.{key}": part
        for key, part in module.named_modules()
        if hasattr(part, "get_delta_weight")
    }
    assert trained
    seen = set()
    for key, part in trained.items():
        place = one.naming.place(key)
        rows = part.get_delta_weight("default").flatten(1)
        if kind == "lokr" and len({len(one.naming.place(other).parts) for other in trained}) > 1:
            there, begin = f"lycoris_{key.partition('.')[2].replace('.', '_')}", 0
        else:
            unit = len(rows) // place.parts[place.part]
            there, begin = place.module, unit * sum(place.parts[: place.part])
        assert torch.allclose(read[there][begin : begin + len(rows)], rows, atol=1e-4, rtol=1e-4), key
        seen.add(there)
    assert seen == set(read)


def test_diffusers_reads_a_lokr_of_flux_2_by_lycoris_names(tiny, tmp_path):
    from lora_pipeline.stages.fit import adapter

    one = family("flux2_klein")
    base = BaseSettings(family=one.name, model=str(tiny.BUILD[one.name](tmp_path / "base")))
    module = one.open_denoiser(base, "cpu", "float32")
    own = adapter.inject(module, one.lora_targets, 2, 1.0, 0, kind="lokr", factor=4)
    with torch.no_grad():
        for parameter in own.values():
            parameter.normal_()
    one.save_lora(module, tmp_path / "own.safetensors", {})
    from safetensors.torch import load_file

    for_others(
        one,
        load_file(tmp_path / "own.safetensors"),
        read_metadata(tmp_path / "own.safetensors"),
        tmp_path / "webui.safetensors",
    )
    pipeline = one.pipeline(base, "cpu", "float32")
    pipeline.load_lora_weights(str(tmp_path / "webui.safetensors"), adapter_name="default")
    trained = {key: part for key, part in module.named_modules() if hasattr(part, "get_delta_weight")}
    for key, part in trained.items():
        back = pipeline.transformer.get_submodule(key).get_delta_weight("default")
        assert torch.allclose(back, part.get_delta_weight("default"), atol=1e-5), key
