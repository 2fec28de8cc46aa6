"""Memory that does not suffice: its name, and the same training with less of it."""

from collections.abc import Generator
from contextlib import contextmanager

from lora_pipeline.errors import OutOfMemory
from lora_pipeline.settings import FitSettings

CHANGED = ("batch_size", "gradient_accumulation_steps", "gradient_checkpointing")
# torch has a class for a graphics card's memory alone: Apple's, and the CPU's, is an error like any other, known by its words.
_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


@contextmanager
def named(settings: FitSettings) -> Generator[None]:
    """What torch says when it is refused memory becomes an OutOfMemory, with what would need less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = str(error)
        if not isinstance(error, MemoryError) and not any(words in told.lower() for words in _WORDS):
            raise
        first = told.splitlines()[0] if told else type(error).__name__
        raise OutOfMemory(f"memory does not suffice at {at(settings)}: {_what_helps(settings)} ({first})") from error


def with_less(settings: FitSettings) -> FitSettings | None:
    """The same training in less memory: checkpointing, and half the batch at double accumulation. None if it has both to the full.

    A batch that is odd is divided by its least divisor, and the accumulation multiplied by it, so that a step learns from as many
    pictures as before.
    """
    if settings.gradient_checkpointing and settings.batch_size == 1:
        return None
    into = next((part for part in range(2, settings.batch_size + 1) if settings.batch_size % part == 0), 1)
    less = {
        "batch_size": settings.batch_size // into,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps * into,
        "gradient_checkpointing": True,
    }
    return settings.model_copy(update=less)


def at(settings: FitSettings) -> str:
    """What memory hangs on, in words."""
    checkpointing = "with" if settings.gradient_checkpointing else "without"
    accumulation = settings.gradient_accumulation_steps
    return f"batch size {settings.batch_size} × {accumulation} {checkpointing} gradient checkpointing"


def _what_helps(settings: FitSettings) -> str:
    helps = [
        *(["lower fit.batch_size"] if settings.batch_size > 1 else []),
        *([] if settings.gradient_checkpointing else ["switch fit.gradient_checkpointing on"]),
        *(["set fit.mixed_precision to bf16"] if settings.mixed_precision == "no" else []),
        "train at a lower encode.resolution_px",
    ]
    if with_less(settings) is not None and not settings.retry_with_less_memory:
        helps.append("let fit.retry_with_less_memory begin again with less")
    return ", or ".join(helps)
