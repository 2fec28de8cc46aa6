"""Photos as `curate` would hand them over."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lora_pipeline.manifest import Manifest
from lora_pipeline.pictures import open_upright
from lora_pipeline.records import Box, Quality, Row
from lora_pipeline.store import digest_file

Curated = Callable[..., Manifest]


@pytest.fixture(scope="session")
def curated() -> Curated:
    """Make a manifest of kept photos out of files; `trims` gives some of them a trim box by name."""

    def make(files: list[Path], trims: dict[str, Box] | None = None) -> Manifest:
        rows = []
        for file in files:
            size = open_upright(file).size if file.stat().st_size else (100, 100)
            trim = (trims or {}).get(file.name, (0, 0, *size))
            quality = Quality(str(file), digest_file(file), *size, trim, 100.0, 0.5, 0.2, "0" * 16)
            rows.append(Row(file.name, "", data=quality.data()))
        return Manifest(files[0].parent, tuple(rows))

    return make
