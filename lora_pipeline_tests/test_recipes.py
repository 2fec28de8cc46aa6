"""The named starting points have the numbers that they are known by."""

import inspect

import pytest

from lora_pipeline.families import FAMILIES
from lora_pipeline.recipes import FAMILIES_ELSEWHERE, RECIPES, is_flow, recipe, recipe_of
from lora_pipeline.records import Example
from lora_pipeline.stages.encode.buckets import plan
from lora_pipeline.stages.fit.order import batches, grouped, looks_per_bucket


def steps(name: str, photos: int, size_px: tuple[int, int] = (512, 512)) -> int:
    """Steps of a run, counted as the trainer takes them."""
    whole = recipe(name)
    fit, encode = whole.fit, whole.encode
    planned = plan({str(number): size_px for number in range(photos)}, encode, fit.batch_size)
    examples = [Example(id, one.bucket, encode.repeats, caption="", hidden=0) for id, one in planned.items()]
    assert len(looks_per_bucket(examples)) == 1
    return sum(
        len(grouped(batches(examples, epoch, fit.batch_size, fit.seed, encode.flip), fit.gradient_accumulation_steps))
        for epoch in range(1, fit.epochs + 1)
    )


def test_sd15_product_65_photos_are_1950_steps():
    assert steps("sd15_product", 65) == 1950
    assert steps("sd15_product", 65, (640, 448)) == 1950


def test_flux_person():
    whole = recipe("flux_person")
    fit = whole.fit
    assert (whole.base.family, whole.encode.resolution_px, whole.encode.repeats, whole.encode.flip) == (
        "flux",
        1024,
        30,
        False,
    )
    assert (fit.network_dim, fit.network_alpha, fit.optimizer_type, fit.unet_lr) == (2, 16, "AdamW8bit", 5e-4)
    assert (fit.batch_size, fit.epochs, fit.lr_scheduler, fit.lr_scheduler_num_cycles) == (
        4,
        13,
        "cosine_with_restarts",
        3,
    )
    assert fit.noise_offset == 0.1
    assert fit.min_snr_gamma == 0  # as sd-scripts treats the 5 for a flow
    assert steps("flux_person", 20, (1024, 1024)) == 13 * 150  # ⌈20 · 30 ÷ 4⌉ an epoch


def test_sd15_dreambooth():
    whole = recipe("sd15_dreambooth")
    assert (whole.base.family, whole.base.vae) == ("sd15", "stabilityai/sd-vae-ft-mse")
    assert whole.base.model != recipe("sd15_person").base.model  # a fine-tune
    assert (whole.encode.regularisation_generated, whole.encode.prior_loss_weight) == (200, 1.0)
    assert steps("sd15_dreambooth", 40) == 10 * 100  # 40 pictures × 5 ÷ 2; with as many looks at the class it is
    assert 2 * steps("sd15_dreambooth", 40) == steps("sd15_person", 40)  # as long as this


@pytest.mark.parametrize("name", RECIPES)
def test_the_base_draws_the_class_as_it_draws_the_subject(name):
    whole = recipe(name)
    assert whole.encode.regularisation_guidance_scale == whole.grade.guidance_scale
    assert whole.encode.regularisation_sampling_steps == whole.grade.sampling_steps


def test_sd15_portrait_and_sdxl_person():
    portrait = recipe("sd15_portrait")
    assert (portrait.fit.network_dim, portrait.fit.min_snr_gamma, portrait.describe.max_words) == (64, 5, 100)
    assert all("{class}" in prompt for prompt in portrait.grade.prompts)
    sdxl = recipe("sdxl_person")
    assert (sdxl.base.family, sdxl.encode.resolution_px, sdxl.crop.size_px, sdxl.fit.epochs) == ("sdxl", 1024, 1024, 10)
    assert sdxl.check.min_photos == 20
    assert len(sdxl.crop.framings) > 1


def test_a_person_has_a_plan_of_framings_and_angles_and_the_bundled_one_keeps_its_crops():
    for name in ("sd15_person", "sd15_portrait", "sdxl_person", "flux_person"):
        crop = recipe(name).crop
        assert {"close", "medium", "frontal", "profile left", "profile right"} <= set(crop.coverage)
        assert crop.avoid_others
        assert (crop.framing_shares, crop.best) == ({}, 0)  # every framing of every photo
    assert not any(name in recipe("sd15_pet").crop.coverage for name in ("close", "frontal"))
    bundled = recipe("bundled_person").crop
    assert (bundled.avoid_others, bundled.best, bundled.framing_shares, bundled.shape) == (False, 0, {}, "square")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipes_sizes_and_family_go_together(name):
    whole = recipe(name)
    assert whole.base.family in FAMILIES
    assert whole.crop.size_px == whole.encode.resolution_px == whole.grade.size_px
    assert not (is_flow(whole.base.family) and whole.fit.min_snr_gamma)


def test_a_family_is_known_to_be_a_flow_before_its_weights_are_there():
    for name, family in FAMILIES.items():
        assert is_flow(name) == ("flow_schedule" in inspect.getsource(type(family).noise)), name


def test_what_other_trainers_name_is_a_family_here():
    assert {one.family for one in FAMILIES_ELSEWHERE.values()} <= set(FAMILIES)
    assert (recipe_of("sd15", "product"), recipe_of("sdxl", "pet")) == ("sd15_product", "sdxl_person")


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_vision_model_is_asked_names_the_subject_and_asks_for_what_is_checked(name):
    describe = recipe(name).describe
    assert describe.captioner == "measured"
    for word in ("{trigger}", "{min_words}", "{max_words}"):
        assert word in describe.llm_instruction
    assert all(f"'{opening}'" in describe.llm_instruction for opening in describe.llm_openings)
    asked_of_people = ("hair", "outfit", "setting", "environment", "mood")
    if name.endswith("_person"):
        assert all(word in describe.llm_instruction for word in asked_of_people)
