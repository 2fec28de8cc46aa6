"""Every key that sd-scripts' train_network.py, its dataset files, the kohya_ss GUI and civitai's trainer write, and what it is here.

Sources: the argument parsers of kohya-ss/sd-scripts (train_util.py, train_network.py, flux_train_utils.py, custom_train_functions.py,
config_util.py) at 48d368f; the JSON that bmaltais/kohya_ss saves; the schema `trainingDetailsParams` and the list `trainingSettings` of
civitai/civitai. A key's name here is sd-scripts'; `ALIASES` has the others'.
"""

import ast
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from lora_pipeline.kohya.imported import Fate, checked


@dataclass(frozen=True)
class Context:
    """What a rule may look at besides its own value.

    Args:
        values: of all keys, by sd-scripts' name.
        flow: whether the recipe's base model is a flow.
        civitai: whether it is civitai's file.
        text_encoders: how many of the base model's text encoders can be trained here.
        clip_skips: whether another layer of its text encoder can be read.
    """

    values: Mapping[str, Any]
    flow: bool
    civitai: bool
    text_encoders: int
    clip_skips: bool

    def number(self, key: str, otherwise: float) -> float:
        """Another key's value, if it is a number."""
        try:
            return float(self.values[key])
        except (KeyError, TypeError, ValueError):
            return otherwise


@dataclass(frozen=True)
class Verdict:
    """A `Row` without its key."""

    fate: Fate
    words: str = ""
    sets: tuple[tuple[str, Any], ...] = ()


Rule = Callable[[Any, Context], Verdict]


def off(value: Any) -> bool:
    """Whether a value says that nothing is asked for."""
    return value in (None, "", "0", 0, False, [], {}, "None", "none")


def sets(words: str = "", **fields: Any) -> Verdict:
    """Settings (section__field), if their ranges allow it; else what is out of range, to do by hand."""
    found: list[tuple[str, Any]] = []
    for field, value in fields.items():
        name = field.replace("__", ".")
        value, fault = checked(name, value)
        if fault:
            return Verdict("by hand", f"{name}: {fault}; it stays the recipe's")
        found.append((name, value))
    return Verdict("set", words, tuple(found))


def to(field: str, words: str = "") -> Rule:
    """A key that means what a setting (section__field) means."""
    return lambda value, _: sets(words, **{field: value})


def not_yet(what: str, *as_here: Any) -> Rule:
    """A key of something that cannot be done here, unless its value says off, or one of `as_here`."""

    def rule(value: Any, _: Context) -> Verdict:
        if off(value) or value in as_here or str(value) in {str(one) for one in as_here}:
            return Verdict("as here")
        return Verdict("not yet", what)

    return rule


def no_matter(words: str) -> Rule:
    """A key that changes nothing of what is learnt."""
    return lambda _value, _context: Verdict("no matter", words)


def one_of(field: str, choices: Mapping[str, str], what: str) -> Rule:
    """A choice, in any case, by its name there: the name here."""

    def rule(value: Any, _: Context) -> Verdict:
        name = choices.get(str(value).lower())
        return Verdict("not yet", f"{what} {value}; it stays the recipe's") if name is None else sets(**{field: name})

    return rule


# ── single keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def learning_rate(value: Any, context: Context) -> Verdict:
    """`prepare_optimizer_params` of sd-scripts: the rate of every part that has none of its own."""
    if "unet_lr" in context.values:
        return Verdict("no matter", "unet_lr stands for it")
    return sets(fit__unet_lr=value)


def text_encoder_lr(value: Any, context: Context) -> Verdict:
    """Of one text encoder or a list of several; off where 0, or where sd-scripts is told to train the denoiser only."""
    rates = cast(list[Any], value) if isinstance(value, list) else [value]
    if context.values.get("network_train_unet_only"):
        return Verdict("as here", "network_train_unet_only: the text encoder is not trained")
    if not rates:
        return unet_only(False, context)
    if context.text_encoders:  # sd-scripts lists FLUX.1's T5 too, and trains it only if network_args say so
        rates = rates[: context.text_encoders]
    if all(off(rate) or str(rate) in {"0.0", "0.00000"} for rate in rates):
        return Verdict("as here", "the text encoder is not trained")
    if not context.text_encoders:
        return Verdict("not yet", "the text encoders of this base; only the denoiser learns")
    kind, there = adapter_there(context)
    if kind not in {"", "lora"}:
        return Verdict("not yet", f"{there} of text encoders; only the denoiser learns")
    second = {"fit__text_encoder_2_lr": rates[1]} if len(set(rates)) > 1 else {}
    verdict = sets(fit__text_encoder_lr=rates[0], **second)
    if not verdict.sets:
        return verdict
    unet_lr = context.number("unet_lr", context.number("learning_rate", TRAINING_DEFAULTS["learning_rate"]))
    prodigy = str(context.values.get("optimizer_type", "")).lower() == "prodigy"
    if prodigy and any(rate not in (0, unet_lr) for _, rate in verdict.sets):
        return Verdict(
            "by hand", "Prodigy finds one rate for all: set fit.text_encoder_lr to fit.unet_lr, or leave it 0"
        )
    return verdict


def unet_only(value: Any, context: Context) -> Verdict:
    """sd-scripts trains the text encoder too, at the rate of all, unless told otherwise."""
    if value:
        return Verdict("as here", "the text encoder is not trained")
    if context.values.get("text_encoder_lr", []) != []:
        return Verdict("as here", "see text_encoder_lr")
    verdict = text_encoder_lr(context.number("learning_rate", TRAINING_DEFAULTS["learning_rate"]), context)
    words = verdict.words or "the text encoder learns at learning_rate, having none of its own"
    return Verdict(verdict.fate, words, verdict.sets)


def clip_skip(value: Any, context: Context) -> Verdict:
    """sd-scripts reads it for Stable Diffusion 1 and 2 alone (`SdTextEncodingStrategy`); SDXL's layers are fixed."""
    if context.clip_skips:
        return sets(base__clip_skip=value or 1)
    return Verdict("as here", "this base's texts are always read with the same layers, by sd-scripts too")


def min_snr_gamma(value: Any, context: Context) -> Verdict:
    """`post_process_loss` of sd-scripts' flow trainers returns the loss as it is."""
    if context.flow and not off(value):
        return sets(
            "sd-scripts reads it for a flow and weighs nothing (min-SNR is of diffusions), so 0 is the same training",
            fit__min_snr_gamma=0,
        )
    return sets(fit__min_snr_gamma=value or 0)


def noise_offset(value: Any, context: Context) -> Verdict:
    """sd-scripts' flow trainers draw plain noise."""
    if context.flow and not off(value):
        return sets(
            "sd-scripts reads it for a flow and adds none, so 0 is the same training; fit.noise_offset would add it",
            fit__noise_offset=0,
        )
    return sets(fit__noise_offset=value or 0)


def resolution(value: Any, _: Context) -> Verdict:
    """One side, "side,side" or [side, side]; a rectangle stands for its area, as in sd-scripts' buckets."""
    try:
        parts = cast(list[Any], value) if isinstance(value, list) else str(value).split(",")
        sides = [int(float(part)) for part in parts]
    except (TypeError, ValueError):
        return Verdict("by hand", "it is no size; set encode.resolution_px")
    side = round(math.sqrt(sides[0] * sides[-1]) / 8) * 8
    words = "" if side == sides[0] == sides[-1] else "the square of that area, sides in steps of 8 px"
    return sets(words, encode__resolution_px=side, crop__size_px=side)


def enable_bucket(value: Any, context: Context) -> Verdict:
    """sd-scripts' own buckets; without them every picture is cut to the square."""
    if value:
        return sets("sd-scripts' buckets", encode__bucket_area="at_most", encode__merge_small_buckets=False)
    found = resolution(context.values.get("resolution", 512), context)
    side = dict(found.sets).get("encode.resolution_px", 512)
    return sets("every picture is cut to the square", encode__bucket_min_px=side, encode__bucket_max_px=side)


def bucket_side(field: str) -> Rule:
    """Shortest or longest side; without buckets it says nothing."""

    def rule(value: Any, context: Context) -> Verdict:
        if "enable_bucket" in context.values and not context.values["enable_bucket"]:
            return Verdict("no matter", "buckets are off")
        if context.values.get("bucket_no_upscale"):
            return Verdict("no matter", "with bucket_no_upscale sd-scripts has no shortest and longest side")
        return sets(**{field: value})

    return rule


def steps(value: Any, context: Context) -> Verdict:
    """Runs are counted in epochs here."""
    if off(value) or not off(context.values.get("max_train_epochs")):
        return Verdict("no matter", "the epochs stand for it")
    return Verdict(
        "by hand",
        "runs are counted in epochs: set fit.epochs to these steps ÷ the steps of an epoch (pictures × repeats ÷ batch, rounded up)",
    )


def target_steps(_: Any, context: Context) -> Verdict:
    """civitai's own sum: ceil(pictures × repeats × epochs ÷ batch)."""
    looks = context.number("num_repeats", 1) * context.number("max_train_epochs", 1)
    pictures = context.number("target_steps", 0) * context.number("train_batch_size", 1) / max(1.0, looks)
    return Verdict(
        "no matter",
        f"a sum of the others, which stands for {pictures:.0f} pictures; `fit` counts its own from pictures, repeats, batch and epochs",
    )


def epochs(value: Any, context: Context) -> Verdict:
    """Whole epochs; 0 in the GUI's file is none."""
    if off(value):
        return Verdict("no matter", "0 is none: see epoch" if "epoch" in context.values else "0 is none")
    return sets(fit__epochs=value)


def gui_epoch(value: Any, context: Context) -> Verdict:
    """The GUI's epochs, unless it has max_train_epochs too."""
    if not off(context.values.get("max_train_epochs")):
        return Verdict("no matter", "max_train_epochs stands for it")
    return sets(fit__epochs=value)


def num_machines(value: Any, _: Context) -> Verdict:
    """The GUI's, for `accelerate launch`."""
    if off(value) or str(value) == "1":
        return Verdict("as here")
    return Verdict("by hand", "several machines are set up in accelerate's own configuration: see the README")


def warmup_steps(value: Any, context: Context) -> Verdict:
    """A whole number of steps, of which `AcceleratedScheduler` takes one a process at each update; since 2024 a share of the run too."""
    if isinstance(value, float) and 0 < value < 1:
        return Verdict(
            "by hand", f"{value:g} of the run's steps: set fit.lr_warmup_steps to that many once they are known"
        )
    processes, there = context.number("num_processes", 1), context.number("lr_warmup_steps", 0)
    if processes > 1 and there:
        words = f"sd-scripts counts a step {processes:g} times, once a process"
        return sets(words, fit__lr_warmup_steps=math.ceil(there / processes))
    return sets(fit__lr_warmup_steps=value or 0)


def warmup_percent(value: Any, context: Context) -> Verdict:
    """The GUI's share of the run, in percent."""
    if off(value):
        return sets(fit__lr_warmup_steps=0)
    if not off(context.values.get("lr_warmup_steps")):
        return Verdict("no matter", "lr_warmup_steps stands for it")
    return Verdict("by hand", f"{value} % of the run's steps: set fit.lr_warmup_steps to that many once they are known")


def weighting(value: Any, context: Context) -> Verdict:
    """`weighting_scheme` of sd-scripts, of which `logit_normal` draws timesteps."""
    if str(value) == "logit_normal" and str(context.values.get("timestep_sampling", "sigma")) == "sigma":
        return sets(fit__timestep_sampling="logit_normal")
    if str(value) in {"none", "uniform"}:
        return Verdict("as here", "no weight")
    return Verdict("not yet", f"weighting scheme {value}")


def timestep_sampling(value: Any, context: Context) -> Verdict:
    """`get_noisy_model_input_and_timesteps` of sd-scripts' flux_train_utils.py."""
    if not context.flow:
        return Verdict("no matter", "it is of flow-matching models, which this base is not")
    if value == "sigma" and context.values.get("weighting_scheme") == "logit_normal":
        return Verdict("as here", "see weighting_scheme")
    if value in {"uniform", "sigmoid", "shift"}:
        return sets(fit__timestep_sampling=value)
    return Verdict("not yet", f"timestep sampling {value}; choose fit.timestep_sampling by hand")


def flow_only(field: str) -> Rule:
    """A number that only flow-matching models have a use for."""

    def rule(value: Any, context: Context) -> Verdict:
        if not context.flow:
            return Verdict("no matter", "it is of flow-matching models, which this base is not")
        return sets(**{field: value})

    return rule


def arguments(value: Any) -> dict[str, Any]:
    """`key=value` by key, of a list or of one text: "weight_decay=0.5, betas=0.9,0.99"."""
    if isinstance(value, list):
        parts = [str(part) for part in cast(list[Any], value)]
    else:
        parts = re.split(r"[,\s]+(?=\w+\s*=)", str(value).strip())
    found: dict[str, Any] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals:
            continue
        try:
            found[key.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            found[key.strip()] = text.strip()
    return found


# What an optimiser's library does when told nothing, which is what is done here.
OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "adamw": {"betas": (0.9, 0.999), "eps": 1e-8},
    "adamw8bit": {"betas": (0.9, 0.999), "eps": 1e-8},
    "adafactor": {"scale_parameter": False, "relative_step": False, "warmup_init": False},
    "prodigy": {
        **{"betas": (0.9, 0.999), "decouple": True, "use_bias_correction": False, "safeguard_warmup": False},
        **{"d_coef": 1.0, "d0": 1e-6, "eps": 1e-8},
    },
    "lion": {"betas": (0.9, 0.99)},
    "adamwschedulefree": {"betas": (0.9, 0.999), "eps": 1e-8},
}
WEIGHT_DECAYS = {"adamw": 0.01, "adamw8bit": 0.01}
"""Of each library when told nothing; 0 of those not named."""
CIVITAI_WEIGHT_DECAYS = {"adamw8bit": 0.1, "prodigy": 0.5}
"""`optimizerArgMap` of civitai, "in line with what is set by the worker"; a FLUX LoRA's AdamW8bit has the library's."""


def optimizer_args(value: Any, context: Context) -> Verdict:
    """The weight decay is a setting; the others are the library's own."""
    known = OPTIMIZER_DEFAULTS.get(str(context.values.get("optimizer_type", "adamw")).lower(), {})
    given = arguments(value)
    decay = given.pop("weight_decay", None)
    other = [f"{key}={one}" for key, one in given.items() if key not in known or known[key] != one]
    verdict = Verdict("as here") if decay is None else sets(fit__weight_decay=decay)
    if not other:
        return verdict
    return Verdict("not yet", "; ".join(part for part in (", ".join(other), verdict.words) if part), verdict.sets)


def adapter_there(context: Context) -> tuple[str, str]:
    """What the file trains: `network_type` here (empty: there is none such), and what it is called there."""
    lora_type = str(context.values.get("lora_type", "lora"))
    module = str(context.values.get("network_module", ""))
    if module == LYCORIS:
        # "lora" is what `create_network` of LyCORIS makes when told nothing; its LoRA trains convolutions too.
        algo = str(arguments(context.values.get("network_args", "")).get("algo", "lora")).lower()
        return ALGORITHMS.get(algo, ""), f"LyCORIS' {algo}"
    if module and module not in NETWORK_MODULES:
        return ALGORITHMS.get(module.removeprefix("networks."), ""), module
    if lora_type.lower() in PLAIN_LORA:
        return "lora", "LoRA"
    return ALGORITHMS.get(lora_type.lower().removeprefix("lycoris/"), ""), lora_type


NETWORK_MODULES = {"networks.lora", "networks.lora_flux", "networks.lora_sd3"}
LYCORIS = "lycoris.kohya"
ALGORITHMS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
PLAIN_LORA = {"lora", "standard", "flux1", "sd3"}
WITH_CONVOLUTIONS = "kohya locon"
"""`networks.lora` with the arguments conv_dim and conv_alpha."""


def network_args(value: Any, context: Context) -> Verdict:
    """conv_dim, conv_alpha, and of LyCORIS' arguments those that LoKr and LoHa know here, are settings; the others are not."""
    given = {key: one for key, one in arguments(value).items() if not off(one)}
    fields: dict[str, Any] = {}
    for key in ("conv_dim", "conv_alpha"):
        if key in given and not context.flow:  # a transformer has no convolutions
            fields[f"fit__network_{key}"] = given[key]
        given.pop(key, None)
    kind, _ = adapter_there(context)
    factor = given.pop("factor", -1)
    if kind == "lokr":
        fields["fit__network_factor"] = factor
    if str(given.pop("rs_lora", False)).lower() in TRUE:
        fields["fit__rank_stabilised"] = True
    for key, as_here in (("algo", None), ("preset", "full"), ("bypass_mode", None)):
        if as_here in (None, given.get(key)):
            given.pop(key, None)  # algo: see network_module; bypass_mode is another way to the same numbers
    given = {key: one for key, one in given.items() if str(one).lower() != "false"}
    verdict = sets(**fields) if fields else Verdict("as here")
    if not given:
        return verdict
    other = ", ".join(f"{key}={one}" for key, one in given.items())
    return Verdict("not yet", "; ".join(part for part in (other, verdict.words) if part), verdict.sets)


TRUE = {"true", "yes", "1"}  # as `str_bool` of LyCORIS


def network_module(value: Any, context: Context) -> Verdict:
    """networks.lora and its twins are LoRA; lycoris.kohya is what its argument algo says."""
    kind, there = adapter_there(context)
    if not kind:
        return Verdict("not yet", f"{there}; a plain LoRA is trained")
    if str(value) in NETWORK_MODULES:
        return Verdict("as here", "LoRA")
    fields: dict[str, Any] = {"fit__network_type": kind}
    if str(value) != LYCORIS or context.flow:
        return sets(there, **fields)
    given = arguments(context.values.get("network_args", ""))
    for key in ("dim", "alpha"):
        stands = given.get(f"conv_{key}") or context.values.get(f"network_{key}", TRAINING_DEFAULTS[f"network_{key}"])
        fields[f"fit__network_conv_{key}"] = stands
    return sets(
        f"{there}; it trains convolutions too, with network_dim and network_alpha unless told otherwise", **fields
    )


def lora_type(value: Any, context: Context) -> Verdict:
    """civitai: lora; the GUI: Standard, Flux1, Kohya LoCon, LyCORIS/LoKr …"""
    if str(value).lower() in PLAIN_LORA:
        return Verdict("as here", "LoRA")
    if str(value).lower() == WITH_CONVOLUTIONS:
        return Verdict("as here", "LoRA, on convolutions too: see conv_dim")
    kind, there = adapter_there(context)
    if not kind:
        return Verdict("not yet", f"{there}; a plain LoRA is trained")
    wide = there.lower().startswith("lycoris/") and not context.flow
    return sets("on convolutions too: see conv_dim" if wide else "", fit__network_type=kind)


def network_dropout(value: Any, context: Context) -> Verdict:
    """LyCORIS warns that its LoKr and LoHa have none, and trains without."""
    if adapter_there(context)[0] in {"lokr", "loha"}:
        return sets("" if off(value) else "LyCORIS drops nothing of a LoKr or LoHa either", fit__network_dropout=0)
    words = "" if off(value) else "peft drops the input, sd-scripts what comes after the first matrix"
    return sets(words, fit__network_dropout=value)


def lokr_factor(value: Any, context: Context) -> Verdict:
    """The GUI writes it for every type."""
    if adapter_there(context)[0] != "lokr":
        return Verdict("no matter", "it is of LyCORIS' LoKr")
    return sets(fit__network_factor=value)


def of_lycoris(value: Any, context: Context) -> Verdict:
    """Choices of LyCORIS that the GUI writes for every type."""
    if not str(context.values.get("lora_type", "")).lower().startswith("lycoris/"):
        return Verdict("no matter", "it is of LyCORIS")
    return (
        Verdict("as here") if off(value) or value == "full" else Verdict("not yet", "another form of LyCORIS' networks")
    )


def mixed_precision(value: Any, _: Context) -> Verdict:
    """sd-scripts holds the frozen base in the same format (`prepare_dtype`, `unet.to(dtype=unet_weight_dtype)` of train_network.py)."""
    return sets(
        "" if value == "no" else "and the base is held in it, as there",
        fit__mixed_precision=value,
        fit__base_precision="fp32" if value == "no" else value,
    )


def blocks_to_swap(value: Any, context: Context) -> Verdict:
    """Without checkpointing, sd-scripts fetches blocks again on the way back."""
    if off(value) or not context.flow:
        return Verdict("no matter", "how memory is used by transformers, not what is learnt")
    words = "blocks wait only with gradient checkpointing, which is switched on"
    return sets(words, fit__blocks_to_swap=value, fit__gradient_checkpointing=True)


def fp8_base(value: Any, _: Context) -> Verdict:
    """A base in 8 bits there; another 8-bit format here, which the person may choose."""
    if off(value):
        return Verdict("as here")
    return Verdict(
        "by hand", "no base is held in fp8 here; set fit.base_precision to int8 (as small) or nf4 (half of that)"
    )


def convolutions(field: str) -> Rule:
    """The GUI writes conv_dim and conv_alpha for every type, and hands them on for LoCon and its like."""

    def rule(value: Any, context: Context) -> Verdict:
        type_ = str(context.values.get("lora_type", "")).lower()
        if type_ != WITH_CONVOLUTIONS and not type_.startswith("lycoris/"):
            return Verdict("no matter", "a plain LoRA has no convolutions")
        if context.flow:
            return Verdict("no matter", "this base model has no convolutions")
        return sets(**{field: value})

    return rule


def engine(value: Any, _: Context) -> Verdict:
    """civitai's trainers: only kohya's numbers mean the same here."""
    if str(value) == "kohya":
        return Verdict("as here", "kohya's numbers mean the same here")
    return Verdict("by hand", f"the trainer {value} has its own numbers; kohya's meaning was taken: look them over")


def model(value: Any, _: Context) -> Verdict:
    """A file, a folder or a hub id means the same here."""
    return sets("mind its licence: base.licence", base__model=value)


def sample_prompts(value: Any, _: Context) -> Verdict:
    """civitai's list; sd-scripts' is a file's name."""
    if not isinstance(value, list):
        return Verdict("by hand", "a file of prompts: write them into grade.prompts")
    prompts = [text for one in cast(list[Any], value) if (text := str(one).strip())]
    return sets(grade__prompts=prompts) if prompts else Verdict("as here", "no prompts: the recipe's are drawn")


def media_type(value: Any, _: Context) -> Verdict:
    """civitai trains videos too."""
    return Verdict("as here") if value == "image" else Verdict("not yet", f"{value}")


def regularisation(value: Any, _: Context) -> Verdict:
    """Pictures of the class, for prior preservation; there in folders that are named by repeats, which the balance sets here."""
    if off(value):
        return Verdict("as here")
    return sets("seen together as often as the subject's pictures", encode__regularisation_folder=value)


def regularising(value: Any, _: Context) -> Verdict:
    """A subset of such pictures in a dataset file."""
    return Verdict("by hand", BESIDE) if value else Verdict("as here")


BESIDE = "regularisation pictures: set encode.regularisation_folder to their folder, or let the base draw them (encode.regularisation_generated)"


def another_file(what: str) -> Rule:
    """A path of something that can be imported by itself."""
    return lambda value, _: Verdict("by hand", f"{what}: import {value} too") if value else Verdict("no matter")


_TEXT_STOPS = not_yet("text encoders that stop learning before the denoiser does")
_FINE_TUNING = no_matter("it is of fine-tuning; for a LoRA, text_encoder_lr and network_train_unet_only say it")
_FILES = no_matter("each epoch leaves a LoRA file, and the newest state is kept")
_PLACES = no_matter("places, names and logs are this pipeline's own, TensorBoard's files among them")
_SPEED = no_matter("how fast, not what is learnt")
_CACHED = no_matter("latents are always cached, and text embeddings unless text encoders are trained")
_SAMPLES = no_matter("fit.sample_prompt is drawn each epoch")
_ASKED = no_matter("the base model's own scheduler is asked")

_FILE_KEYS = (
    "save_every_n_epochs", "save_every_n_steps", "save_n_epoch_ratio", "save_last_n_epochs", "save_last_n_steps",
    "save_last_n_epochs_state", "save_last_n_steps_state", "save_state", "save_state_on_train_end",
    "save_model_as", "use_safetensors",
)  # fmt: skip
_PLACE_KEYS = (
    "output_dir", "output_name", "logging_dir", "log_with", "log_prefix", "log_tracker_name", "log_tracker_config",
    "log_config", "wandb_run_name", "wandb_api_key", "training_comment", "no_metadata", "config_file", "model_list",
    "output_config", "huggingface_repo_id", "huggingface_repo_type", "huggingface_path_in_repo", "huggingface_token",
    "huggingface_repo_visibility", "save_state_to_huggingface", "async_upload",
    "tokenizer_cache_dir", "debug_dataset", "metadata_title", "metadata_author", "metadata_description",
    "metadata_license", "metadata_tags", "console_log_level", "console_log_file", "console_log_simple",
)  # fmt: skip
_SPEED_KEYS = (
    "xformers", "sdpa", "mem_eff_attn", "torch_compile", "dynamo_backend", "dynamo_mode", "dynamo_use_fullgraph",
    "dynamo_use_dynamic", "max_data_loader_n_workers", "persistent_data_loader_workers", "lowram", "highvram",
    "vae_batch_size", "ddp_timeout", "ddp_gradient_as_bucket_view", "ddp_static_graph", "gpu_ids", "multi_gpu",
    "num_cpu_threads_per_process", "main_process_port", "disable_mmap_load_safetensors",
    "extra_accelerate_launch_args", "deepspeed", "zero_stage",
)  # fmt: skip
_CACHE_KEYS = (
    "cache_latents", "cache_latents_to_disk", "skip_cache_check", "cache_text_encoder_outputs", "cache_info",
    "cache_text_encoder_outputs_to_disk", "text_encoder_batch_size", "sdxl_cache_text_encoder_outputs",
)  # fmt: skip
_BLOCK_KEYS = (
    "block_alphas", "block_dims", "conv_block_alphas", "conv_block_dims", "down_lr_weight", "mid_lr_weight", "up_lr_weight",
    "block_lr_zero_threshold",
)  # fmt: skip
_LYCORIS_KEYS = (
    "LyCORIS_preset", "bypass_mode", "constrain", "decompose_both", "rank_dropout_scale", "rescaled", "train_norm",
    "train_on_input", "unit", "use_cp", "use_scalar", "use_tucker",
)  # fmt: skip

RULES: dict[str, Rule] = {
    # the base model
    "pretrained_model_name_or_path": model,
    "vae": to("base__vae"),
    "ae": to("base__vae"),
    "v2": _ASKED,
    "v_parameterization": _ASKED,
    "model_type": not_yet("another model of the family", "flux"),
    "clip_l": no_matter("the text encoders are those of base.model"),
    "t5xxl": no_matter("the text encoders are those of base.model"),
    # the LoRA
    "network_module": network_module,
    "network_dim": to("fit__network_dim"),
    "network_alpha": to("fit__network_alpha"),
    "network_dropout": network_dropout,
    "network_args": network_args,
    "lora_type": lora_type,
    "network_weights": not_yet("going on from another LoRA file"),
    "dim_from_weights": not_yet("going on from another LoRA file"),
    "base_weights": not_yet("LoRA files merged into the base before training"),
    "base_weights_multiplier": not_yet("LoRA files merged into the base before training"),
    "scale_weight_norms": not_yet("a limit on the LoRA's norms"),
    "conv_dim": convolutions("fit__network_conv_dim"),
    "conv_alpha": convolutions("fit__network_conv_alpha"),
    "split_mode": no_matter("how memory is used, not what is learnt"),
    "network_train_unet_only": unet_only,
    "network_train_text_encoder_only": not_yet("training the text encoder alone"),
    **dict.fromkeys(("train_text_encoder", "learning_rate_te", "learning_rate_te1", "learning_rate_te2"), _FINE_TUNING),
    "text_encoder_lr": text_encoder_lr,
    "clip_skip": clip_skip,
    "max_token_length": not_yet("captions of over 75 tokens; what is longer is cut, and `training_set` says so", 75),
    "t5xxl_max_token_length": not_yet("another length for T5", 512),
    "apply_t5_attn_mask": not_yet("T5's attention mask"),
    "weighted_captions": not_yet("weights in captions, such as (word:1.2); they are read as they are written"),
    # rate and optimiser
    "learning_rate": learning_rate,
    "unet_lr": to("fit__unet_lr"),
    "optimizer_type": one_of(
        "fit__optimizer_type",
        {one.lower(): one for one in ("AdamW", "AdamW8bit", "Prodigy", "Adafactor", "Lion", "AdamWScheduleFree")},
        "the optimiser",
    ),
    "use_8bit_adam": lambda value, _: sets(fit__optimizer_type="AdamW8bit") if value else Verdict("as here"),
    "use_lion_optimizer": lambda value, _: sets(fit__optimizer_type="Lion") if value else Verdict("as here"),
    "optimizer_args": optimizer_args,
    "lr_scheduler": one_of(
        "fit__lr_scheduler",
        {
            **{one: one for one in ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial")},
            "constant_with_warmup": "constant",
        },
        "the schedule",
    ),
    "lr_scheduler_type": not_yet("a schedule from a library of the user's"),
    "lr_scheduler_args": not_yet("arguments of the schedule"),
    "lr_scheduler_num_cycles": to("fit__lr_scheduler_num_cycles"),
    "lr_scheduler_power": to("fit__lr_scheduler_power"),
    "lr_scheduler_timescale": not_yet("the schedule inverse_sqrt"),
    "lr_scheduler_min_lr_ratio": not_yet("a rate that ends above 0"),
    "lr_decay_steps": not_yet("the schedule warmup_stable_decay"),
    "lr_warmup_steps": warmup_steps,
    "lr_warmup": warmup_percent,
    "max_grad_norm": to("fit__max_grad_norm"),
    "optimizer_schedulefree_wrapper": not_yet("schedule-free around another optimiser; AdamWScheduleFree there is"),
    "schedulefree_wrapper_args": not_yet("schedule-free around another optimiser"),
    "fused_backward_pass": no_matter("how memory is used, not what is learnt"),
    # how long
    "max_train_epochs": epochs,
    "epoch": gui_epoch,
    "max_train_steps": steps,
    "target_steps": target_steps,
    "train_batch_size": to("fit__batch_size"),
    "gradient_accumulation_steps": to("fit__gradient_accumulation_steps"),
    "num_processes": lambda value, _: sets(fit__num_processes=value or 1),
    "num_machines": num_machines,
    "seed": to("fit__seed", "the same seed draws other numbers here than there"),
    "initial_epoch": not_yet("beginning in a later epoch", 1),
    "initial_step": not_yet("beginning at a later step"),
    "skip_until_initial_step": not_yet("beginning at a later step"),
    "resume": not_yet("going on from the state of another trainer's run"),
    "resume_from_huggingface": not_yet("going on from the state of another trainer's run"),
    "stop_text_encoder_training": _TEXT_STOPS,
    "stop_text_encoder_training_pct": _TEXT_STOPS,
    # the loss
    "min_snr_gamma": min_snr_gamma,
    "noise_offset": noise_offset,
    "noise_offset_random_strength": to("fit__noise_offset_random_strength"),
    "adaptive_noise_scale": lambda value, context: (
        Verdict("no matter", "there is no noise offset")
        if off(context.values.get("noise_offset")) or context.flow
        else sets(fit__adaptive_noise_scale=value)
    ),
    "noise_offset_type": not_yet("multi-resolution noise", "Original"),
    "multires_noise_iterations": not_yet("multi-resolution noise"),
    "multires_noise_discount": no_matter("it is of multires_noise_iterations"),
    "ip_noise_gamma": not_yet("noise on the input (ip_noise_gamma)"),
    "ip_noise_gamma_random_strength": not_yet("noise on the input (ip_noise_gamma)"),
    "perlin_noise": not_yet("Perlin noise"),
    "zero_terminal_snr": not_yet(
        "a schedule brought to zero terminal SNR; a base whose own schedule has it is taken as it is"
    ),
    "min_timestep": not_yet("a lowest timestep"),
    "max_timestep": not_yet("a highest timestep", 1000),
    "loss_type": one_of("fit__loss_type", {"l2": "l2", "huber": "huber", "smooth_l1": "smooth_l1"}, "the loss"),
    "huber_schedule": one_of(
        "fit__huber_schedule", {"snr": "snr", "exponential": "exponential", "constant": "constant"}, "the schedule"
    ),
    "huber_c": to("fit__huber_c"),
    "huber_scale": not_yet("a scale of the Huber threshold", 1, 1.0),
    "debiased_estimation_loss": to("fit__debiased_estimation_loss"),
    "scale_v_pred_loss_like_noise_pred": not_yet("a v-prediction's loss scaled as a noise prediction's"),
    "v_pred_like_loss": not_yet("a loss with a v-prediction's added"),
    "prior_loss_weight": to("encode__prior_loss_weight"),
    "masked_loss": lambda value, _: (
        Verdict("not yet", "masks of one's own; fit.masked_loss keeps hidden faces out of the loss")
        if value
        else Verdict("no matter", "it is of masks of one's own; fit.masked_loss keeps hidden faces out of the loss")
    ),
    "conditioning_data_dir": not_yet("masks of one's own"),
    "alpha_mask": not_yet("a picture's transparency as its mask"),
    # flow matching
    "timestep_sampling": timestep_sampling,
    "sigmoid_scale": flow_only("fit__sigmoid_scale"),
    "discrete_flow_shift": flow_only("fit__discrete_flow_shift"),
    "weighting_scheme": weighting,
    "logit_mean": flow_only("fit__logit_mean"),
    "logit_std": flow_only("fit__logit_std"),
    "mode_scale": no_matter("it is of the weighting scheme mode"),
    "model_prediction_type": not_yet("an answer that is scaled before the loss", "raw"),
    "guidance_scale": not_yet("another guidance than 1 told to a distilled model", 1, 1.0),
    # numbers and memory
    "mixed_precision": mixed_precision,
    "save_precision": one_of(
        "publish__precision",
        {"float": "fp32", "fp32": "fp32", "fp16": "fp16", "bf16": "bf16"},
        "the precision",
    ),
    "gradient_checkpointing": to("fit__gradient_checkpointing"),
    "full_fp16": not_yet("gradients in fp16; they are float32"),
    "full_bf16": not_yet("gradients in bf16; they are float32"),
    "fp8_base": fp8_base,
    "fp8_base_unet": fp8_base,
    "no_half_vae": no_matter("the autoencoder always encodes in float32"),
    "blocks_to_swap": blocks_to_swap,
    "cpu_offload_checkpointing": no_matter("how memory is used, not what is learnt"),
    # the dataset
    "train_data_dir": another_file("the picture folder"),
    "dataset_config": another_file("the dataset's file"),
    "in_json": not_yet("captions in one JSON file; side-car files there are"),
    "metadata_file": not_yet("captions in one JSON file; side-car files there are"),
    "dataset_class": not_yet("a dataset class of one's own"),
    "reg_data_dir": regularisation,
    "is_reg": regularising,
    "num_repeats": to("encode__repeats"),
    "resolution": resolution,
    "enable_bucket": enable_bucket,
    "min_bucket_reso": bucket_side("encode__bucket_min_px"),
    "max_bucket_reso": bucket_side("encode__bucket_max_px"),
    "bucket_reso_steps": to("encode__bucket_step_px"),
    "bucket_no_upscale": to("encode__bucket_no_upscale"),
    "flip_aug": lambda value, _: sets(
        "every other look is mirrored, in place of a coin's throw" if value else "", encode__flip=value
    ),
    "color_aug": not_yet("colours changed at random"),
    "random_crop": not_yet("cuts at random places"),
    "face_crop_aug_range": not_yet("cuts around the face at random; crop.framings makes fixed ones"),
    "resize_interpolation": not_yet("another way to resize; pictures are resized by Lanczos", "lanczos"),
    "network_multiplier": not_yet("a strength for each dataset", 1, 1.0),
    "custom_attributes": no_matter("sd-scripts only hands it on"),
    # captions
    "shuffle_caption": to("fit__shuffle_caption"),
    "keep_tokens": to("fit__keep_tokens"),
    "caption_dropout_rate": to("fit__caption_dropout_rate"),
    "caption_tag_dropout_rate": to("fit__caption_tag_dropout_rate"),
    "caption_dropout_every_n_epochs": not_yet("captions dropped for whole epochs"),
    "caption_prefix": to("encode__caption_prefix"),
    "caption_suffix": to("encode__caption_suffix"),
    "caption_separator": not_yet("another separator of tags", ","),
    "keep_tokens_separator": not_yet("a separator after the kept tags; fit.keep_tokens counts them"),
    "secondary_separator": not_yet("tags that stay together when shuffled"),
    "enable_wildcard": not_yet("{a|b} in captions"),
    "token_warmup_min": not_yet("captions that grow while training", 1),
    "token_warmup_step": not_yet("captions that grow while training"),
    "caption_extension": no_matter("side-car files are read by `lora-pipeline import FOLDER`"),
    "caption_extention": no_matter("side-car files are read by `lora-pipeline import FOLDER`"),
    # held-out pictures
    "validation_split": not_yet("held-out pictures"),
    "validation_seed": no_matter("it is of validation_split"),
    "validate_every_n_steps": no_matter("it is of validation_split"),
    "validate_every_n_epochs": no_matter("it is of validation_split"),
    "max_validation_steps": no_matter("it is of validation_split"),
    # pictures while training
    "samplePrompts": sample_prompts,
    "sample_prompts": sample_prompts,
    "negativePrompt": to("grade__negative_prompt"),
    **dict.fromkeys(("sample_every_n_steps", "sample_every_n_epochs", "sample_at_first", "sample_sampler"), _SAMPLES),
    # civitai
    "engine": engine,
    "mediaType": media_type,
    "staging": no_matter("civitai's own"),
    "highPriority": no_matter("civitai's own"),
    # files, places, speed
    **dict.fromkeys(_FILE_KEYS, _FILES),
    **dict.fromkeys(_PLACE_KEYS, _PLACES),
    **dict.fromkeys(_SPEED_KEYS, _SPEED),
    **dict.fromkeys(_CACHE_KEYS, _CACHED),
    # the GUI's own
    "additional_parameters": not_yet("arguments written out by hand"),
    "sdxl_no_half_vae": no_matter("the autoencoder always encodes in float32"),
    "module_dropout": not_yet("modules dropped at random"),
    "rank_dropout": not_yet("ranks dropped at random"),
    "dora_wd": not_yet("DoRA by LyCORIS; fit.network_type dora is peft's, for a LoRA alone"),
    "factor": lokr_factor,
    **dict.fromkeys(_BLOCK_KEYS, not_yet("ranks and rates by block")),
    **dict.fromkeys(_LYCORIS_KEYS, of_lycoris),
}

# Keys that are read elsewhere: which base model, whose photos.
SECRET = {"wandb_api_key", "huggingface_token"}
"""Keys whose values are shown to nobody."""

READ_FIRST: dict[str, str] = {
    **dict.fromkeys(("baseModel", "baseModelType", "sdxl", "flux1_checkbox", "sd3_checkbox"), "the recipe's"),
    "type": "the kind of a new subject: a style, or else a person unless --kind says otherwise",
    "triggerWord": "the trigger word of a new subject",
    "image_dir": "the photos of a new subject; its captions come with `lora-pipeline import FOLDER`",
    "class_tokens": "trigger word and class word of a new subject",
}

CIVITAI: dict[str, str] = {
    "unetLR": "unet_lr",
    "textEncoderLR": "text_encoder_lr",
    "clipSkip": "clip_skip",
    "loraType": "lora_type",
    "keepTokens": "keep_tokens",
    "networkDim": "network_dim",
    "networkAlpha": "network_alpha",
    "numRepeats": "num_repeats",
    "lrScheduler": "lr_scheduler",
    "lrSchedulerNumCycles": "lr_scheduler_num_cycles",
    "lrWarmupSteps": "lr_warmup_steps",
    "minSnrGamma": "min_snr_gamma",
    "noiseOffset": "noise_offset",
    "targetSteps": "target_steps",
    "enableBucket": "enable_bucket",
    "optimizerType": "optimizer_type",
    "optimizerArgs": "optimizer_args",
    "maxTrainEpochs": "max_train_epochs",
    "shuffleCaption": "shuffle_caption",
    "trainBatchSize": "train_batch_size",
    "flipAugmentation": "flip_aug",
    "gradientAccumulationSteps": "gradient_accumulation_steps",
}
ALIASES: dict[str, str] = {
    **CIVITAI,
    # the GUI
    "LoRA_type": "lora_type",
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "flux1_clip_l": "clip_l",
    "flux1_t5xxl": "t5xxl",
    # config_util.py, ARGPARSE_OPTNAME_TO_CONFIG_OPTNAME
    "batch_size": "train_batch_size",
    "dataset_repeats": "num_repeats",
}

KNOWN = (*RULES, *ALIASES, *READ_FIRST)

TRAINING_DEFAULTS: dict[str, Any] = {
    "learning_rate": 2e-6,
    "train_batch_size": 1,
    "lr_scheduler": "constant",
    "lr_scheduler_num_cycles": 1,
    "lr_warmup_steps": 0,
    "optimizer_type": "AdamW",
    "network_dim": 4,
    "network_alpha": 1,
    "network_dropout": 0,
    "gradient_accumulation_steps": 1,
    "max_train_steps": 1600,
    "max_grad_norm": 1.0,
    "min_snr_gamma": 0,
    "noise_offset": 0,
    "mixed_precision": "no",
    "network_train_unet_only": False,
}
"""What train_network.py does when told nothing, where the recipes do otherwise (its argument parser; networks/lora.py for the dim)."""
DATASET_DEFAULTS: dict[str, Any] = {
    "enable_bucket": False,
    "shuffle_caption": False,
    "keep_tokens": 0,
    "flip_aug": False,
}
FLOW_DEFAULTS: dict[str, Any] = {
    "timestep_sampling": "sigma",
    "model_prediction_type": "sigma_scaled",
    "guidance_scale": 3.5,
}
BUCKET_DEFAULTS: dict[str, Any] = {"min_bucket_reso": 256, "max_bucket_reso": 1024, "bucket_reso_steps": 64}
