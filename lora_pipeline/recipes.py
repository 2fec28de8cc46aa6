"""Named starting points: each a function that returns the whole settings, so a result can be repeated from a name."""

from collections.abc import Callable
from dataclasses import dataclass

from lora_pipeline.errors import SettingsError
from lora_pipeline.settings import (
    BaseSettings,
    CheckSettings,
    ConcealSettings,
    CropSettings,
    CurateSettings,
    DescribeSettings,
    EncodeSettings,
    FitSettings,
    GradeSettings,
    Settings,
)

# What a vision model is asked of things and styles, of which it is not the hair and the outfit that vary.
THING_INSTRUCTION = (
    "You write the caption with which a picture trains an image model. The {class} in it is called {trigger}. Answer with one caption of "
    "{min_words} to {max_words} words in plain English and nothing else. It begins with '{trigger} is' or '{trigger} does'. Say, as far "
    "as it can be seen: from which side and how near it is seen, where it stands or who holds it, what else is there, the background and "
    "the light. Say nothing of what never changes about {trigger}: its shape, colour, material and lettering."
)
STYLE_INSTRUCTION = (
    "You write the caption with which a picture trains an image model. The picture is in a style called {trigger}. Answer with one caption "
    "of {min_words} to {max_words} words in plain English and nothing else. Say what is shown: who or what, doing what, where, and what is "
    "around it. Say nothing of the style: neither technique, nor strokes, nor palette, nor mood."
)
ANGLES = {"frontal": 8, "three-quarter left": 3, "three-quarter right": 3, "profile left": 2, "profile right": 2}
"""Of a person, for 20 to 30 photos: mostly facing the camera, each side a few times, so that the model has seen the head from all of them."""

PERSON = {"close": 8, "medium": 5, "full": 4, **ANGLES, "bright": 2, "dim": 2, "backgrounds": 8}
"""And bodies too, other light, and so many places that none becomes part of the person."""


DRAWN = {"close": 8, "medium": 5, "full": 3, "frontal": 8, "three-quarter left": 3, "three-quarter right": 3}
"""Of a drawn person, whose head turns by 35° and no farther."""


def sd15_person() -> Settings:
    """A person on Stable Diffusion 1.5: 512 px, dim 32, three framings a photo."""
    return Settings(crop=CropSettings(avoid_others=True, coverage=PERSON))


def sd15_portrait() -> Settings:
    """Portraits of a person on Stable Diffusion 1.5: dim 64, min-SNR 5, close and medium crops, captions of 30 to 100 words.

    Beside `sd15_person`, which is for any framing and for short captions. The captioner that measures writes fewer than 30 words, and a check
    says so: have a vision model write them (`describe.captioner: llm`), or write them by hand, the class word in each. The text encoder
    reads 75 tokens, some 50 to 60 words; `training_set` says what it cut.
    """
    return Settings(
        crop=CropSettings(
            framings=("close", "medium"),
            avoid_others=True,
            coverage={"close": 12, "medium": 6, **ANGLES, "backgrounds": 8},
        ),
        describe=DescribeSettings(min_words=30, max_words=100),
        fit=FitSettings(network_dim=64, network_alpha=32, min_snr_gamma=5.0),
    )


def sd15_dreambooth() -> Settings:
    """DreamBooth with prior loss, a person on a fine-tune of Stable Diffusion 1.5: Realistic Vision 5.1 and the autoencoder that goes with it.

    Ruiz et al. 2023, "DreamBooth", section 3.3, with a LoRA: 200 pictures of the class, which the fine-tune draws itself, are seen as often
    as the subject's, and their loss weighs as much (the paper's λ = 1). 5 repeats, so that an epoch with them is as long as one of
    `sd15_person`. Another fine-tune: `base.model` is its folder, its one file or its hub id; `base.vae` another autoencoder, or empty.
    """
    return sd15_person().changed(
        {
            "base": {"model": "SG161222/Realistic_Vision_V5.1_noVAE", "vae": "stabilityai/sd-vae-ft-mse"},
            "encode": {"repeats": 5, "regularisation_generated": 200, "prior_loss_weight": 1.0},
            "grade": {"max_bleeding": 0.9},  # what the regularisation pictures are there to prevent
        },
        "sd15_dreambooth",
    )


def sd15_pet() -> Settings:
    """A pet on Stable Diffusion 1.5: whole pictures, no faces."""
    return sd15_person().changed(
        {
            "crop": {"framings": ("whole",), "avoid_others": False, "coverage": {"backgrounds": 5}},
            "grade": {
                "prompts": (
                    "a photo of {trigger} {class}",
                    "a photo of {trigger} {class} on a beach",
                    "a photo of {trigger} {class} wearing a red hat",
                    "an oil painting of {trigger} {class}",
                ),
                "other_prompts": ("a photo of a {class}", "a photo of a {class} on a beach"),
            },
        },
        "sd15_pet",
    )


def sd15_product() -> Settings:
    """A thing on Stable Diffusion 1.5: whole pictures, no faces; 65 of one shape × 6 repeats ÷ batch 2 × 10 epochs are 1,950 steps."""
    return sd15_pet().changed(
        {
            "curate": {"max_clipped_highlights": 0.95},  # things are photographed on white
            "describe": {"llm_instruction": THING_INSTRUCTION, "subject_words": ()},
            "encode": {"repeats": 6},
            "fit": {"batch_size": 2, "epochs": 10},
            "grade": {
                "prompts": (
                    "a photo of {trigger} {class}",
                    "a photo of {trigger} {class} on a wooden table",
                    "a photo of {trigger} {class} in the snow",
                    "a photo of {trigger} {class} with a city in the background",
                ),
                "other_prompts": ("a photo of a {class}", "a photo of a {class} on a wooden table"),
            },
        },
        "sd15_product",
    )


def sd15_style() -> Settings:
    """A style on Stable Diffusion 1.5: whole pictures, no faces, prompts of other things."""
    return sd15_pet().changed(
        {
            "describe": {"llm_instruction": STYLE_INSTRUCTION, "llm_openings": ()},
            "crop": {"coverage": {}},
            "grade": {
                "prompts": (
                    "a house by a lake, {trigger} {class}",
                    "a portrait of an old man, {trigger} {class}",
                    "a cat on a sofa, {trigger} {class}",
                    "a city street at night, {trigger} {class}",
                ),
                "other_prompts": ("a photo of a house by a lake", "a photo of an old man"),
            },
        },
        "sd15_style",
    )


def sdxl_person() -> Settings:
    """A person on Stable Diffusion XL: 20 to 30 photos in mixed framings at 1024 px, 10 epochs."""
    return Settings(
        base=BaseSettings(
            family="sdxl", model="stabilityai/stable-diffusion-xl-base-1.0", licence="CreativeML Open RAIL++-M"
        ),
        curate=CurateSettings(min_side_px=512, min_true_side_px=256),
        crop=CropSettings(size_px=1024, framings=("close", "medium", "full"), avoid_others=True, coverage=PERSON),
        encode=EncodeSettings(resolution_px=1024, regularisation_guidance_scale=6.0),
        fit=FitSettings(
            epochs=10,
            batch_size=4,
            optimizer_type="AdamW8bit",
            gradient_checkpointing=True,
            mixed_precision="bf16",
        ),
        grade=GradeSettings(size_px=1024, guidance_scale=6.0, batch_size=2),
        check=CheckSettings(min_photos=20),
    )


def flux_person() -> Settings:
    """A person on FLUX.1-dev: dim 2, alpha 16, AdamW8bit at 5e-4, 30 repeats at 1024 px, batch 4, 13 epochs, cosine with 3 restarts.

    The text encoders are not trained. Pictures are not mirrored, since that garbles text.

    min-SNR 5 goes with these numbers wherever they are handed on. It is a weight on a diffusion's loss; for a flow, sd-scripts reads it and
    weighs nothing (`post_process_loss` in flux_train_network.py), so it is 0 here, which is the same training. (`fit.min_snr_gamma: 5` would weigh
    the error of x_0 that a flow's answer stands for, and leave the noisy half of a flow nearly untrained.) The noise offset of 0.1 is added,
    where sd-scripts' script for FLUX reads it and adds none: `fit.noise_offset: 0` is that.
    """
    return Settings(
        base=BaseSettings(
            family="flux", model="black-forest-labs/FLUX.1-dev", licence="FLUX.1 [dev] Non-Commercial License"
        ),
        curate=CurateSettings(min_side_px=512, min_true_side_px=256),
        crop=CropSettings(size_px=1024, avoid_others=True, coverage=PERSON),
        conceal=ConcealSettings(inpaint_guidance_scale=3.5),
        encode=EncodeSettings(resolution_px=1024, repeats=30, flip=False, regularisation_guidance_scale=3.5),
        fit=FitSettings(
            epochs=13,
            batch_size=4,
            network_dim=2,
            network_alpha=16,
            optimizer_type="AdamW8bit",
            unet_lr=5e-4,
            lr_scheduler="cosine_with_restarts",
            lr_scheduler_num_cycles=3,
            min_snr_gamma=0.0,
            noise_offset=0.1,
            gradient_checkpointing=True,
            mixed_precision="bf16",
            base_precision="bf16",  # as it is published: 24 GB in place of 48
        ),
        grade=GradeSettings(size_px=1024, guidance_scale=3.5, batch_size=1),
    )


def bundled_person() -> Settings:
    """A drawn person on the small base model that ships here: 128 px, minutes on two cores."""
    return Settings(
        base=BaseSettings(family="sd15", model="bundled", licence="AGPL-3.0-or-later"),
        curate=CurateSettings(min_side_px=200, min_true_side_px=32),
        crop=CropSettings(size_px=128, search_px=800, same_person_distance=0.45, coverage={**DRAWN, "backgrounds": 8}),
        conceal=ConcealSettings(inpaint_sampling_steps=20, inpaint_guidance_scale=2.0),
        encode=EncodeSettings(
            resolution_px=128,
            bucket_step_px=32,
            repeats=18,
            regularisation_sampling_steps=20,
            regularisation_guidance_scale=2.0,
        ),
        fit=FitSettings(
            epochs=6,
            batch_size=4,
            # A step takes one thread 0.14 s, and two of them 0.10 where both cores are free, 0.39 where one is not (benchmarks/threads).
            num_cpu_threads_per_process=1,
            network_dim=32,
            network_alpha=32,
            # Its transformers see 8 x 8 latents and fewer; faces are drawn by the convolutions at 16 x 16.
            network_conv_dim=32,
            network_conv_alpha=32,
            unet_lr=2e-3,
            lr_scheduler_num_cycles=1,
            # The base predicts v and ends in noise alone, where the weight of min-SNR is 0: nothing would be learnt there.
            min_snr_gamma=0,
            # Of 16 x 16 latents a face has a quarter or less, and it is what the LoRA is for.
            face_loss_weight=6.0,
            # The small base has learnt pictures whose captions say this much: one that says less comes out awry from some seeds.
            sample_prompt="{trigger} {class}, close portrait, facing the camera, green shirt, white background, soft light",
        ),
        grade=GradeSettings(
            # They say as much as the captions that the small base has learnt: one that tells no light is at times drawn in the dark.
            # Mostly close: dlib's descriptor wants a face of some 70 px. On drawn pictures of the subject, it lies 0.17 from
            # the mean in close portraits, 0.28 in medium shots and 0.32 with glasses, so more of those would hide the LoRA's part.
            prompts=(
                "{trigger} {class}, close portrait, facing the camera, green shirt, white background, soft light",
                "{trigger} {class}, close portrait, facing the camera, red shirt, blue background, soft light",
                "{trigger} {class}, close portrait, facing the camera, yellow shirt, grey background, bright light",
                "{trigger} {class}, close portrait, facing the camera, black shirt, pink background, soft light",
                "{trigger} {class}, close portrait, facing the camera, wearing glasses, orange shirt, blue background, soft light",
                "{trigger} {class}, medium shot, facing the camera, purple shirt, green background, soft light",
            ),
            other_prompts=("{class}, close portrait, facing the camera, red shirt, blue background, soft light",),
            # The small base draws a face well from one seed and awry from another: of 12 pictures, six in ten times the wrong epoch looks best.
            seeds=(1, 2, 3, 4, 5, 6),
            seeds_apart=100,
            sampling_steps=20,
            guidance_scale=2.0,
            # Noise anew at each step mends some of what went awry: one LoRA's close portraits lie 0.23 from the subject by it, 0.24 by the base's own DDIM.
            sampler="euler_a",
            size_px=128,
            batch_size=14,
            # The small base draws softly, and what the prompt says 98 times in 100: whatever is trained on it, be it good, has 1.7 to 2 times its
            # sharpness, and follows 82 to 96 times in 100.
            max_damage=3,
            min_prompt_kept=0.75,
        ),
    )


def bundled_pet() -> Settings:
    """Whole pictures on the small base model that ships here: proves the way of the data, not the picture's quality."""
    return bundled_person().changed(
        {
            "crop": {"framings": ("whole",), "coverage": {}},
            "fit": {"face_loss_weight": 1.0, "sample_prompt": "a photo of {trigger} {class}"},
            "grade": {
                "prompts": ("a photo of {trigger} {class}", "{trigger} {class}, white background"),
                "other_prompts": ("a photo of a {class}",),
                "seeds": (1, 2),
            },
        },
        "bundled_pet",
    )


RECIPES: dict[str, Callable[[], Settings]] = {
    recipe.__name__: recipe
    for recipe in (
        *(sd15_person, sd15_portrait, sd15_dreambooth, sd15_pet, sd15_product, sd15_style),
        *(sdxl_person, flux_person),
        *(bundled_person, bundled_pet),
    )
}


def recipe(name: str) -> Settings:
    """The settings of a named recipe. Raises SettingsError with the nearest name."""
    if name not in RECIPES:
        import difflib

        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(RECIPES)}"
        raise SettingsError(f"there is no recipe '{name}'; {hint}")
    return RECIPES[name]()


@dataclass(frozen=True)
class Elsewhere:
    """A base model as other trainers name it.

    Args:
        family: its family here.
        own_weights: which fine-tune of it is meant, if not the plain model.
    """

    family: str
    own_weights: str = ""


FAMILIES_ELSEWHERE: dict[str, Elsewhere] = {
    # civitai's baseModel and baseModelType
    "sd_1_5": Elsewhere("sd15"),
    "sd15": Elsewhere("sd15"),
    "anime": Elsewhere("sd15", "an anime fine-tune of it"),
    "semi": Elsewhere("sd15", "a semi-realistic fine-tune of it"),
    "realistic": Elsewhere("sd15", "a realistic fine-tune of it (Realistic Vision)"),
    "sdxl": Elsewhere("sdxl"),
    "pony": Elsewhere("sdxl", "Pony Diffusion"),
    "illustrious": Elsewhere("sdxl", "Illustrious"),
    "flux_dev": Elsewhere("flux"),
    "flux": Elsewhere("flux"),
    "qwen_image": Elsewhere("qwen_image"),
    "qwen": Elsewhere("qwen_image"),
    # sd-scripts' network_module, and what is ticked in the kohya_ss GUI
    "networks.lora_flux": Elsewhere("flux"),
    "networks.lora_sd3": Elsewhere("sd35"),
    "flux1_checkbox": Elsewhere("flux"),
    "sd3_checkbox": Elsewhere("sd35"),
}


def recipe_of(family: str, kind: str) -> str:
    """The recipe of a family and a kind of subject, or that of a person where there is none. Raises SettingsError if the family has no recipe."""
    for name in (f"{family}_{kind}", f"{family}_person"):
        if name in RECIPES:
            return name
    raise SettingsError(
        f"there is no recipe for {family} yet: choose another with --recipe, and set base.family and base.model in subject.yaml"
    )


def is_flow(family: str) -> bool:
    """Whether a family's denoisers predict a flow; asked before any weights are there to ask."""
    return family not in {"sd15", "sdxl"}
