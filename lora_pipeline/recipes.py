"""Named starting points: each a function that returns the whole settings, so a result can be repeated from a name."""

from collections.abc import Callable

from lora_pipeline.errors import SettingsError
from lora_pipeline.settings import (
    BaseSettings,
    CropSettings,
    CurateSettings,
    EncodeSettings,
    FitSettings,
    GradeSettings,
    Settings,
)


def sd15_person() -> Settings:
    """A person on Stable Diffusion 1.5: 512 px, dim 32, three framings a photo."""
    return Settings()


def sd15_pet() -> Settings:
    """A pet on Stable Diffusion 1.5: whole pictures, no faces."""
    return sd15_person().changed(
        {
            "crop": {"framings": ("whole",)},
            "grade": {
                "prompts": (
                    "a photo of {trigger} {class}",
                    "a photo of {trigger} {class} on a beach",
                    "a photo of {trigger} {class} wearing a red hat",
                    "an oil painting of {trigger} {class}",
                )
            },
        },
        "sd15_pet",
    )


def sd15_product() -> Settings:
    """A thing on Stable Diffusion 1.5: whole pictures, no faces."""
    return sd15_pet().changed(
        {
            "grade": {
                "prompts": (
                    "a photo of {trigger} {class}",
                    "a photo of {trigger} {class} on a wooden table",
                    "a photo of {trigger} {class} in the snow",
                    "a photo of {trigger} {class} with a city in the background",
                )
            }
        },
        "sd15_product",
    )


def sd15_style() -> Settings:
    """A style on Stable Diffusion 1.5: whole pictures, no faces, prompts of other things."""
    return sd15_pet().changed(
        {
            "grade": {
                "prompts": (
                    "a house by a lake, {trigger} {class}",
                    "a portrait of an old man, {trigger} {class}",
                    "a cat on a sofa, {trigger} {class}",
                    "a city street at night, {trigger} {class}",
                )
            }
        },
        "sd15_style",
    )


def bundled_person() -> Settings:
    """A drawn person on the small base model that ships here: 128 px, minutes on two cores."""
    return Settings(
        base=BaseSettings(family="sd15", model="bundled", licence="AGPL-3.0-or-later"),
        curate=CurateSettings(min_side_px=200),
        crop=CropSettings(size_px=128, search_px=800, same_person_distance=0.45),
        encode=EncodeSettings(resolution_px=128, bucket_step_px=32, repeats=5),
        fit=FitSettings(
            epochs=6,
            batch_size=4,
            network_dim=16,
            network_alpha=16,
            unet_lr=1e-3,
            lr_scheduler_num_cycles=1,
            # The base predicts v and ends in noise alone, where the weight of min-SNR is 0: nothing would be learnt there.
            min_snr_gamma=0,
        ),
        grade=GradeSettings(
            # Mostly close: dlib's descriptor wants a face of some 70 px. On drawn pictures of the subject, it lies 0.17 from
            # the mean in close portraits, 0.28 in medium shots and 0.32 with glasses, so more of those would hide the LoRA's part.
            prompts=(
                "{trigger} {class}, close portrait, facing the camera, green shirt, white background",
                "{trigger} {class}, close portrait, facing the camera, red shirt, blue background",
                "{trigger} {class}, close portrait, facing the camera, yellow shirt, grey background, bright light",
                "{trigger} {class}, close portrait, facing the camera, black shirt, pink background",
                "{trigger} {class}, close portrait, facing the camera, wearing glasses, orange shirt, blue background",
                "{trigger} {class}, medium shot, facing the camera, purple shirt, green background",
            ),
            seeds=(1, 2),
            sampling_steps=20,
            guidance_scale=2.0,
            size_px=128,
            batch_size=12,
        ),
    )


def bundled_pet() -> Settings:
    """Whole pictures on the small base model that ships here: proves the way of the data, not the picture's quality."""
    return bundled_person().changed(
        {
            "crop": {"framings": ("whole",)},
            "grade": {
                "prompts": ("a photo of {trigger} {class}", "{trigger} {class}, white background"),
                "seeds": (1, 2),
            },
        },
        "bundled_pet",
    )


RECIPES: dict[str, Callable[[], Settings]] = {
    recipe.__name__: recipe for recipe in (sd15_person, sd15_pet, sd15_product, sd15_style, bundled_person, bundled_pet)
}


def recipe(name: str) -> Settings:
    """The settings of a named recipe. Raises SettingsError with the nearest name."""
    if name not in RECIPES:
        import difflib

        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(RECIPES)}"
        raise SettingsError(f"there is no recipe '{name}'; {hint}")
    return RECIPES[name]()
