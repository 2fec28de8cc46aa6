"""One .safetensors file, with the names that Stable Diffusion's own code gives, opens as the folder it was made of."""

import json
import shutil
from pathlib import Path

import pytest

from lora_pipeline.families import family
from lora_pipeline.settings import BaseSettings

torch = pytest.importorskip("torch")
HUB = "models--stable-diffusion-v1-5--stable-diffusion-v1-5"


def original_names_of_unet():
    """(diffusers' beginning, the original's), as in diffusers' scripts/convert_diffusers_to_original_stable_diffusion.py."""
    names = [
        ("time_embedding.linear_1.", "time_embed.0."),
        ("time_embedding.linear_2.", "time_embed.2."),
        ("conv_in.", "input_blocks.0.0."),
    ]
    names += [("conv_norm_out.", "out.0."), ("conv_out.", "out.2."), ("mid_block.attentions.0.", "middle_block.1.")]
    names += [(f"mid_block.resnets.{j}.", f"middle_block.{2 * j}.") for j in range(2)]
    for i in range(4):
        names += [(f"down_blocks.{i}.resnets.{j}.", f"input_blocks.{3 * i + j + 1}.0.") for j in range(2)]
        names += [(f"down_blocks.{i}.attentions.{j}.", f"input_blocks.{3 * i + j + 1}.1.") for j in range(2)]
        names += [(f"up_blocks.{i}.resnets.{j}.", f"output_blocks.{3 * i + j}.0.") for j in range(3)]
        names += [(f"up_blocks.{i}.attentions.{j}.", f"output_blocks.{3 * i + j}.1.") for j in range(3)]
        names += [(f"down_blocks.{i}.downsamplers.0.conv.", f"input_blocks.{3 * (i + 1)}.0.op.")]
        names += [(f"up_blocks.{i}.upsamplers.0.", f"output_blocks.{3 * i + 2}.{1 if i == 0 else 2}.")]
    return names


RESNET = [("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3")]
RESNET += [("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection")]


def original_names_of_vae():
    names = [
        ("conv_norm_out", "norm_out"),
        ("mid_block.attentions.0.", "mid.attn_1."),
        ("conv_shortcut", "nin_shortcut"),
    ]
    names += [(f"mid_block.resnets.{i}.", f"mid.block_{i + 1}.") for i in range(2)]
    for i in range(4):
        names += [(f"down_blocks.{i}.resnets.{j}.", f"down.{i}.block.{j}.") for j in range(2)]
        names += [(f"up_blocks.{i}.resnets.{j}.", f"up.{3 - i}.block.{j}.") for j in range(3)]
        names += [
            (f"down_blocks.{i}.downsamplers.0.", f"down.{i}.downsample."),
            (f"up_blocks.{i}.upsamplers.0.", f"up.{3 - i}.upsample."),
        ]
    return names


def as_one_file(folder: Path, file: Path) -> Path:
    """A diffusers folder's weights in one file, by the original names."""
    from safetensors.torch import load_file, save_file

    tensors = {}
    for name, tensor in load_file(folder / "unet" / "diffusion_pytorch_model.safetensors").items():
        for ours, its in original_names_of_unet():
            if name.startswith(ours):
                rest = name.removeprefix(ours)
                for part, original in RESNET if ".resnets." in ours else []:
                    rest = rest.replace(part, original)
                tensors[f"model.diffusion_model.{its}{rest}"] = tensor
    for name, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        told = name
        for ours, its in original_names_of_vae():
            told = told.replace(ours, its)
        if ".attn_1." in told:
            for ours, its in (
                ("group_norm.", "norm."),
                ("to_q.", "q."),
                ("to_k.", "k."),
                ("to_v.", "v."),
                ("to_out.0.", "proj_out."),
            ):
                told = told.replace(ours, its)
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        tensors[f"first_stage_model.{told}"] = tensor.contiguous()
    for name, tensor in load_file(folder / "text_encoder" / "model.safetensors").items():
        # transformers 5.6 dropped the first of these words from what it saves
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    save_file(tensors, file)
    return file


@pytest.fixture
def configs_on_hub(monkeypatch, tmp_path):
    """A function: put a folder's configs where the hub's cache has those of SD 1.5; nothing is asked of the network."""

    def put(folder):
        snapshot = tmp_path / "hub" / HUB / "snapshots" / ("0" * 40)
        shutil.copytree(folder, snapshot, ignore=shutil.ignore_patterns("*.safetensors"))
        (tmp_path / "hub" / HUB / "refs").mkdir()
        (tmp_path / "hub" / HUB / "refs" / "main").write_text("0" * 40)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    return put


@pytest.mark.slow
def test_a_single_file_gives_what_its_folder_gives(tiny, tmp_path, configs_on_hub):
    folder = tiny.build(tmp_path / "folder", like_sd15=True)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    configs_on_hub(folder)
    one = family("sd15")
    bases = [
        BaseSettings(model=str(folder)),
        BaseSettings(model=str(as_one_file(folder, tmp_path / "one.safetensors"))),
    ]
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = []
    for base in bases:
        one.check(base)
        pipeline = one.pipeline(base, "cpu", "float32")
        drawn = pipeline(
            "a photo",
            width=64,
            height=64,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images
        latents = one.open_pictures(base, "cpu", "float32").encode(pictures)
        words = one.open_texts(base, "cpu", "float32").encode(["a photo"])[0]["encoder_hidden_states"]
        module = one.open_denoiser(base, "cpu", "float32")
        answer = one.predict(module, latents, torch.tensor([500]), {"encoder_hidden_states": words[None]})
        seen.append((drawn, latents, words, answer))
    for ours, its in zip(*seen, strict=True):
        assert torch.allclose(ours, its, atol=1e-5)
    assert one.noise(bases[0]) == one.noise(bases[1])
