"""A section of the settings as Dagster config: every field optional, since the subject's recipe has the default."""

from enum import Enum
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import dagster as dg
from pydantic import Field, create_model

from lora_pipeline.settings import Section


def launchpad(section: type[Section]) -> type[dg.Config]:
    """The same fields, with their sentences, each of them optional.

    What is not given keeps the value of the subject's recipe and `subject.yaml`; ranges are checked when the stage begins.
    Dagster refuses a misspelt key before the run starts, and lists the right ones.
    """
    fields: dict[str, Any] = {
        name: (_type(name, field.annotation) | None, Field(default=None, description=field.description))
        for name, field in section.model_fields.items()
    }
    return create_model(
        section.__name__.replace("Settings", "Config"), __base__=dg.Config, __doc__=section.__doc__, **fields
    )


def given(config: dg.Config) -> dict[str, Any]:
    """The fields that the launchpad did fill in."""
    fields = {name: getattr(config, name) for name in type(config).model_fields}
    return {name: _plain(value) for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in cast(list[Any], value)]
    return value.value if isinstance(value, Enum) else value


def _type(name: str, annotation: Any) -> Any:
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        return Enum(name, {str(value): value for value in values})
    if get_origin(annotation) is tuple:
        return list[_type(f"{name}_item", get_args(annotation)[0])]
    if get_origin(annotation) is dict:
        number = get_args(annotation)[1]
        return dict[str, get_args(number)[0] if get_origin(number) is Annotated else number]
    return annotation
