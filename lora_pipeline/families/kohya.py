"""Names by which programs other than diffusers know a LoRA's modules: those that kohya-ss began.

kohya-ss/sd-scripts (Stable Diffusion, SDXL, SD 3.5, FLUX.1) and kohya-ss/musubi-tuner (the newer ones) write them; AUTOMATIC1111,
Forge and ComfyUI read them. They are the module's name in the model's first, own code, with underscores for dots. Where that is not
diffusers' code, a layer there may be several here: `qkv` is `to_q`, `to_k` and `to_v`, one over the other.

Each family's own file holds its names; diffusers' converters (loaders/lora_conversion_utils.py) are what the tests judge them by.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

UNET = "lora_unet_"  # the denoiser, whatever it is
QKV = (1, 1, 1)
# LoRA's text encoder by its folder: where there is one, and where there are several. Only CLIP's; nobody's reader is sure of T5's.
ONE_CLIP = {"text_encoder": "lora_te_"}
TWO_CLIPS = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}

_NUMBER = re.compile(r"^(\w+)\.(\d+)\.")


@dataclass(frozen=True)
class Place:
    """Where a module's LoRA stands in a file for other programs.

    Args:
        module: its name there, such as `lora_unet_double_blocks_0_img_attn_qkv`.
        part: which part of that layer's rows it is, counted from 0.
        parts: sizes of all that layer's parts to each other; one part if the layer is the same here and there.
    """

    module: str
    part: int = 0
    parts: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Naming:
    """What other programs call a family and its modules.

    Args:
        version: of the base model, as sd-scripts' or musubi-tuner's `ss_base_model_version` says it.
        network_module: their trainer's part that would have made such a file (`ss_network_module`).
        implementation: the code whose names these are (`modelspec.implementation`).
        place: of a module by its name in a diffusers file ("unet.mid_block.attentions.0.proj_in"); None if it has no known name.
    """

    version: str
    network_module: str
    implementation: str
    place: Callable[[str], Place | None]


def flat(prefix: str, name: str) -> Place:
    """The place of a module that is called the same here and there."""
    return Place(prefix + name.replace(".", "_"))


def of_clip(module: str, prefixes: Mapping[str, str]) -> Place | None:
    """The place of a CLIP text encoder's module; None if it is no such.

    Args:
        module: as `Naming.place` has it.
        prefixes: the encoders' prefixes by their folders.
    """
    folder, _, name = module.partition(".")
    if folder not in prefixes:
        return None
    # transformers 5 keeps CLIPTextModel's parts without the "text_model" that everybody's names begin with
    return flat(prefixes[folder], name if name.startswith("text_") else f"text_model.{name}")


def fused(there: str, here: str, names: tuple[str, ...], parts: tuple[int, ...] = QKV) -> dict[str, Place]:
    """Entries of a table for `placed`: one layer there, several here.

    Args:
        there: the layer's name there, with a star for the block's number.
        here: what the modules' names here begin with, with a star too.
        names: their endings, in order.
        parts: their sizes to each other.
    """
    return {f"{here}.{name}": Place(f"{UNET}{there}", part, parts) for part, name in enumerate(names)}


def same(pairs: Mapping[str, str]) -> dict[str, Place]:
    """Entries of a table for `placed` of layers that are one here and there: name here → name there, stars for the numbers."""
    return {here: Place(f"{UNET}{there}") for here, there in pairs.items()}


def placed(module: str, table: Mapping[str, Place]) -> Place | None:
    """The place of a transformer's module by a table of names with a star for the block's number."""
    name = module.removeprefix("transformer.")
    number = _NUMBER.match(name)
    place = table.get(_NUMBER.sub(r"\1.*.", name))
    if name == module or number is None or place is None:
        return None
    return Place(place.module.replace("*", number[2]), place.part, place.parts)
