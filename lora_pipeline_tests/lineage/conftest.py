"""A house whose stages have left manifests and files of the real shapes, so small that a thousand photos are there in a second."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from lora_pipeline import manifest
from lora_pipeline.manifest import Manifest, key_of
from lora_pipeline.records import Caption, Checkpoint, Crop, Example, File, Photo, Row, Score
from lora_pipeline.store import Store, digest_file


@dataclass
class House:
    """One subject's work.

    Args:
        photos: what the person's files hold, by name.
        strangers: names of photos with a face to be hidden.
        written: whether what the stages make is written; else only their manifests are.
    """

    store: Store
    subject: str = "anna"
    photos: dict[str, str] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)
    written: bool = True
    caption: str = "ohwx woman, <close> portrait"

    def work(self, stage: str) -> Path:
        return self.store.work(self.subject, stage)

    def _file(self, stage: str, name: str, text: str) -> File:
        path = self.work(stage) / "made" / f"{name}.bin"
        if self.written and not (path.exists() and path.read_text() == text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return File(path.relative_to(self.work(stage)).as_posix(), key_of(text))

    def _leave(self, stage: str, rows: list[Row]) -> Manifest:
        self.work(stage).mkdir(parents=True, exist_ok=True)
        (self.work(stage) / "settings.json").write_text(json.dumps({stage: {"seed": 1}, "code_version": "7"}))
        return manifest.write(self.work(stage), rows)

    def up_to_the_training_set(self) -> Manifest:
        """What the first six stages leave: of each photo one crop, the strangers' hidden in it, a caption, and an example."""
        folder = self.store.subject(self.subject) / "photos"
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "subject.yaml").write_text(f"name: {self.subject}")
        stages: dict[str, list[Row]] = {stage: [] for stage in ("collect", "crop", "conceal", "describe", "encode")}
        for name, text in self.photos.items():
            (folder / name).write_text(text)
            digest, id = digest_file(folder / name), f"{name}@close"
            photo = Photo(str(folder / name), digest, 9, 9, "JPEG").data()
            stages["collect"].append(Row(name, key_of("photo", digest), data=photo))
            boxes = ((0, 0, 3, 3),) if name in self.strangers else ()
            crop = Crop(name, "close", (0, 0, 9, 9), 9, 9, strangers=boxes, photo_digest=digest)
            cut = self._file("crop", name, f"cut {text}")
            stages["crop"].append(Row(id, key_of("crop", digest), data=crop.data(), files={"picture": cut}))
            hidden = self._file("conceal", name, f"cut {text}, hidden" if boxes else f"cut {text}")
            data = {**crop.data(), "hidden": len(boxes)}
            stages["conceal"].append(Row(id, key_of("picture", cut.digest), data=data, files={"picture": hidden}))
            caption = Caption(name, self.caption, "measured").data()
            stages["describe"].append(Row(id, key_of("caption", hidden.digest), data=caption))
            example = Example(name, (64, 64), 10, self.caption, 0.25 * len(boxes), photo_digest=digest)
            files = {"latents": self._file("encode", name, f"latents {text}"), "text": File("text", key_of("words"))}
            key = key_of("example", hidden.digest, self.caption)
            stages["encode"].append(Row(id, key, data=example.data(), files=files))
        return [self._leave(stage, rows) for stage, rows in stages.items()][-1]

    def trained(self, epochs: int = 2, seed: int = 1) -> str:
        """A run of the training set as it stands, and its key."""
        examples = manifest.read(self.work("encode"))
        key = key_of("run", examples.digest, seed)
        folder = self.work("fit") / "runs" / key[:16]
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        manifest.write(folder, examples.rows, "trained_on")
        job = {"key": key, "trained_on": examples.digest, "settings": {"epochs": epochs, "seed": seed}}
        (folder / "job.json").write_text(json.dumps({**job, "base": {"model": "bundled"}, "training_set": "elsewhere"}))
        (folder / "made_with.json").write_text(json.dumps({"device": "cpu", "versions": {"torch": "2.6.0"}}))
        rows: list[Row] = []
        lines: list[str] = []
        for epoch in range(1, epochs + 1):
            lora, sample = f"epoch-{epoch:04d}.safetensors", f"samples/epoch-{epoch:04d}.png"
            told = {"run": key, "epoch": str(epoch)}
            save_file({"weight": np.array([epoch, seed, len(examples.rows)], np.float32)}, folder / lora, told)
            Image.new("RGB", (8, 8), (epoch, seed, 0)).save(folder / sample)
            digests = {file: digest_file(folder / file) for file in (lora, sample)}
            lines.append(json.dumps({"epoch": epoch, "file": lora, "sample": sample, "digests": digests}))
            data = Checkpoint(epoch, key, examples.digest, loss=0.1, learning_rate=1e-4, images_seen=epoch).data()
            files = {"lora": File(f"runs/{folder.name}/{lora}", digests[lora])}
            rows.append(Row(f"{epoch:04d}", key_of(key, epoch), data=data, files=files))
        (folder / "epochs.jsonl").write_text("\n".join([*lines, '{"epoch": 9, "fi']))  # cut off by a kill
        self._leave("fit", rows)
        return key

    def judged(self, epoch: int, picked: bool = False) -> None:
        """What was said of each epoch that was drawn, one of them chosen."""
        rows: list[Row] = []
        for row in manifest.read(self.work("grids")).rows:
            number = int(row.id[1:5])
            reason = f"epoch {number} is {'' if number == epoch else 'not '}chosen"
            score = Score(number, 0.1 * number, 1.0, chosen=number == epoch, reason=reason, picked=picked)
            rows.append(Row(f"{number:04d}", key_of("score", score.data()), data={**score.data(), "learned": True}))
        self._leave("scores", rows)
        seen = [Row(f"drawn/{row.id}", row.key) for row in manifest.read(self.work("grids")).rows]
        manifest.write(self.work("scores"), [Row("trained/a.jpg@close", "k"), *seen], "looks")

    def drawn_and_released(self, epoch: int) -> Path:
        """Grid pictures of the base and of each epoch, what was said of them, and a release of one: its LoRA, in half precision."""
        checkpoints = manifest.read(self.work("fit"))
        rows: list[Row] = []
        for number, digest in enumerate(["", *(row.files["lora"].digest for row in checkpoints.rows)]):
            id = f"e{number:04d}/p01/s0001"
            file = self._file("grids", id, f"drawn with {digest}")
            data = {"epoch": number, "prompt": "ohwx woman", "seed": 1, "checkpoint": digest}
            rows.append(Row(id, key_of("grid", digest), data=data, files={"picture": file}))
        self._leave("grids", rows)
        self.judged(epoch)
        checkpoint = checkpoints.rows[epoch - 1].files["lora"].digest
        lora = self.work("publish") / "ohwx.safetensors"
        lora.parent.mkdir(parents=True, exist_ok=True)
        run = str(checkpoints.rows[0].data["run"])
        told = {"lora_pipeline.checkpoint": checkpoint, "lora_pipeline.run": run, "epoch": str(epoch)}
        save_file({"weight": np.array([epoch], np.float16)}, lora, told)
        data = {"epoch": epoch, "checkpoint": checkpoint, "precision": "fp16"}
        files = {"lora": File(lora.name, digest_file(lora))}
        self._leave("publish", [Row("released", key_of("release", checkpoint), data=data, files=files)])
        return lora


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Two photos, one with a stranger, all the way to a release of epoch 2."""
    made = House(Store(tmp_path / "data"), photos={"a.jpg": "photo a", "b.jpg": "photo b"}, strangers={"b.jpg"})
    made.up_to_the_training_set()
    made.trained()
    made.drawn_and_released(2)
    return made
