"""Stand-ins for the two callables: a painter whose pictures say what they were made from, and a reader of its pictures."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline import manifest
from lora_pipeline.manifest import Manifest
from lora_pipeline.models.faces import SeenFaces
from lora_pipeline.records import Checkpoint, File, Row
from lora_pipeline.settings import BaseSettings
from lora_pipeline.stages.grade import Wanted
from lora_pipeline.store import digest_bytes
from lora_pipeline_tests.chat import Chat, serving


@dataclass
class Painter:
    """A `Draw`: plain pictures whose red is the LoRA file's first byte, green comes from the prompt, blue from the seed.

    A LoRA that begins with byte 255 "runs away": no picture. Without a LoRA red is 200, and a strength lies between the two.
    """

    calls: list[tuple[str, list[Wanted]]] = field(default_factory=list)

    def __call__(self, lora: Path | None, wanted: Sequence[Wanted]) -> list[Image.Image | None]:
        self.calls.append(("base" if lora is None else lora.name, list(wanted)))
        first = 200 if lora is None else lora.read_bytes()[0]
        pictures: list[Image.Image | None] = []
        for one in wanted:
            red = round(200 + one.strength * (first - 200))
            picture = Image.new("RGB", (64, 64), (red, sum(one.prompt.encode()) % 256, one.seed % 256))
            picture.info["scheduler"] = "PlainScheduler 0123"
            pictures.append(None if first == 255 else picture)
        return pictures

    @property
    def pictures(self) -> list[tuple[str, str, int]]:
        """What was drawn: (LoRA, prompt, seed)."""
        return [(lora, one.prompt, one.seed) for lora, wanted in self.calls for one in wanted]


def read_red(picture: Image.Image) -> SeenFaces | None:
    """A `ReadFaces`: red 0 is "no face", else one whose descriptor lies red/255 from the origin."""
    red = picture.getpixel((0, 0))[0]
    return None if red == 0 else SeenFaces(1, 0.5, (red / 255, 0.0))


MakeCheckpoints = Callable[[Sequence[int]], Manifest]


@pytest.fixture
def checkpoints(tmp_path: Path) -> MakeCheckpoints:
    """Make a manifest of checkpoints: the n-th LoRA file holds the n-th byte."""

    def make(reds: Sequence[int]) -> Manifest:
        folder = tmp_path / "fit"
        folder.mkdir(exist_ok=True)
        rows: list[Row] = []
        for epoch, red in enumerate(reds, start=1):
            data = bytes([red, epoch])
            (folder / f"e{epoch:04d}.safetensors").write_bytes(data)
            record = Checkpoint(epoch, "run", "set", loss=0.2 / epoch, learning_rate=1e-4, images_seen=epoch * 10)
            rows.append(
                Row(
                    f"{epoch:04d}",
                    f"key{epoch}{red}",
                    data=record.data(),
                    files={"lora": File(f"e{epoch:04d}.safetensors", digest_bytes(data))},
                )
            )
        return manifest.write(folder, rows)

    return make


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def embed() -> Callable[[Image.Image], SeenFaces | None]:
    return read_red


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseSettings:
    """A folder that can be digested; nothing opens it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "base"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights").write_text("one")
    return BaseSettings(model=str(folder))


@pytest.fixture
def chat() -> Generator[Chat]:
    with serving("") as server:
        yield server
