"""The settings: every field explains itself, and what is wrong is refused in words."""

import math
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo

from lora_pipeline.errors import SettingsError
from lora_pipeline.recipes import RECIPES, recipe
from lora_pipeline.settings import CurateSettings, Section, Settings
from lora_pipeline.subject import Consent, Subject

SECTIONS = {name: field.annotation for name, field in Settings.model_fields.items()}
NUMBERS = (int, float)


def fields() -> Iterator[tuple[str, FieldInfo]]:
    for name, section in [*SECTIONS.items(), ("subject", Subject), ("consent", Consent)]:
        assert section is not None
        assert issubclass(section, Section)
        for field, info in section.model_fields.items():
            yield f"{name}.{field}", info


@pytest.mark.parametrize(("name", "info"), [pytest.param(*field, id=field[0]) for field in fields()])
def test_every_field_has_a_sentence_and_every_number_a_range_that_it_tells(name: str, info: FieldInfo) -> None:
    assert info.description, name
    assert info.description.endswith("."), name
    if info.annotation in NUMBERS:
        bounds = {type(bound).__name__ for bound in info.metadata}
        assert bounds & {"Ge", "Gt"}, name
        assert bounds & {"Le", "Lt"}, name
        top = next(bound for bound in info.metadata if type(bound).__name__ in {"Le", "Lt"})
        most = getattr(top, "le", None) or getattr(top, "lt", None)
        assert name == "fit.seed" or f"{most:g}" in info.description.replace(",", ""), (
            f"{name} does not tell that {most} is the most"
        )


def test_sections_have_a_sentence_too() -> None:
    assert all(section is not None and section.__doc__ for section in SECTIONS.values())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_says_what_it_is_for(name: str) -> None:
    settings = recipe(name)
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    assert RECIPES[name].__doc__


def test_a_misspelt_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'sd15_person'"):
        recipe("sd15_persn")
    with pytest.raises(SettingsError, match="there are: sd15_person"):
        recipe("???")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"curate": {"min_sharpnes": 3}}, "there is no setting 'min_sharpnes'; did you mean 'min_sharpness'?"),
        ({"curates": {"min_sharpness": 3}}, "there is no setting 'curates'; did you mean 'curate'?"),
        ({"collect": {"colour": 3}}, "there is no setting 'colour'; there are: max_megapixels, subfolders"),
        (
            {"curate": {"min_sharpness": -1}},
            "curate.min_sharpness: Input should be greater than or equal to 0 (given: -1)",
        ),
        ({"curate": {"min_sharpness": math.nan}}, "curate.min_sharpness"),
        ({"curate": {"min_sharpness": "sharp"}}, "curate.min_sharpness: Input should be a valid number"),
        ({"crop": {"size_px": 100}}, "crop.size_px: Input should be a multiple of 8 (given: 100)"),
        ({"crop": {"framings": ("near",)}}, "crop.framings.0"),
        ({"crop": {"framings": ()}}, "crop.framings"),
        ({"crop": {"framing_shares": {"close": 1.5}}}, "crop.framing_shares.close"),
        (
            {"crop": {"framings": ("close",), "framing_shares": {"close": 0.5, "full": 0.5}}},
            "crop: framing_shares asks for full, which framings does not cut",
        ),
        ({"crop": {"coverage": {"frontl": 3}}}, "crop: coverage cannot ask for 'frontl'; did you mean 'frontal'?"),
        ({"crop": {"coverage": {"frontal": -3}}}, "crop.coverage.frontal"),
        ({"crop": None}, "crop: Input should be a valid dictionary"),
        ({"fit": {"adaptive_noise_scale": 0.1}}, "fit: adaptive_noise_scale adds to noise_offset, which is 0"),
        (
            {"fit": {"optimizer_type": "Prodigy", "unet_lr": 1, "text_encoder_lr": 0.5}},
            "fit: Prodigy finds one rate for all that is trained: set text_encoder_lr to 0 or to unet_lr (1)",
        ),
        (
            {"fit": {"network_type": "dora", "text_encoder_lr": 1e-5}},
            "fit: text encoders learn a lora alone, which network_type dora is not: set text_encoder_lr to 0",
        ),
        (
            {"fit": {"network_type": "lokr", "text_encoder_lr": 1e-5}},
            "fit: text encoders learn a lora alone, which network_type lokr is not: set text_encoder_lr to 0",
        ),
        ({"fit": {"epochs": 0}, "encode": {"repeats": 0}}, "encode.repeats"),
    ],
)
def test_what_is_wrong_is_refused_with_where_and_what(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as told:
        Settings().changed(changes, "ann/subject.yaml")
    assert str(told.value).startswith("ann/subject.yaml: ")
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"fit\.epochs.*; fit\.batch_size"):
        Settings().changed({"fit": {"epochs": 0, "batch_size": 0}}, "x")


def test_a_change_changes_that_field_alone() -> None:
    before = Settings()
    after = before.changed({"curate": {"min_sharpness": 33}}, "x")
    assert after.curate.min_sharpness == 33
    assert after == before.model_copy(update={"curate": CurateSettings(min_sharpness=33)})
    assert before.curate.min_sharpness != 33


def test_settings_do_not_change_under_ones_hands() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().curate.min_sharpness = 3


def test_every_choice_can_be_chosen() -> None:
    for name, info in fields():
        section, field = name.split(".")
        if section in SECTIONS and getattr(info.annotation, "__origin__", None) is not None:
            for choice in get_args(info.annotation):
                if isinstance(choice, str):
                    Settings().changed({section: {field: choice}}, name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network_type": "lokr", "network_dropout": 0.1}, "fit: network_dropout is not defined for lokr"),
        ({"network_type": "loha", "base_precision": "nf4"}, "fit: network_type loha cannot be put on a base in nf4"),
    ],
)
def test_what_does_not_go_together_is_refused(change, words) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings().changed({"fit": change}, "x")
