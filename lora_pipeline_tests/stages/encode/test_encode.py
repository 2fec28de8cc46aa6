"""What is encoded again, and what is not; and what lies in the files."""

import subprocess
import sys
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from lora_pipeline.families import family, stock
from lora_pipeline.manifest import Item, Made, read, refresh
from lora_pipeline.pictures import save
from lora_pipeline.records import Caption, Crop, Example
from lora_pipeline.settings import BaseSettings, EncodeSettings
from lora_pipeline.stages.encode import encode

SETTINGS = EncodeSettings(resolution_px=64, bucket_step_px=16, repeats=3)


def picture_of(seed, size):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def blurred(folder, pictures, faces=MappingProxyType({})):
    """A stand-in for `conceal`: id → (seed, size, hidden box or None); and id → the subject's face."""

    def make(wanted, folder):
        name, (seed, size, hidden) = wanted
        mask = Image.new("L", size, 255)
        if hidden:
            mask.paste(0, hidden)
        stem = name.replace("/", "_").replace("#", "_")
        save(picture_of(seed, size), folder / f"{stem}.png")
        save(mask, folder / f"{stem}.mask.png")
        crop = Crop(name.split("#")[0], "close", (0, 0, *size), *size, face=faces.get(name))
        return Made(crop.data(), {"picture": f"{stem}.png", "mask": f"{stem}.mask.png"})

    items = [Item(name, [repr(wanted), faces.get(name)], (name, wanted)) for name, wanted in pictures.items()]
    return refresh(folder, items, make, settings=None, code_version="1").manifest


def captioned(folder, texts):
    """A stand-in for `describe`: id → text."""
    items = [Item(name, [text], (name, text)) for name, text in texts.items()]
    return refresh(
        folder, items, lambda job, _: Made(Caption(job[0], job[1], "hand").data()), settings=None, code_version="1"
    ).manifest


PICTURES = {
    "a.jpg#0@close": (1, (64, 64), None),
    "b.jpg#0@close": (2, (200, 200), (190, 190, 200, 200)),
    "sub/c.jpg#0@full": (3, (96, 48), None),
}
TEXTS = {name: f"a photo {name[0]}" for name in PICTURES}


@pytest.fixture
def short_reach(monkeypatch):
    """Random weights see everywhere; trained ones do not."""
    monkeypatch.setattr(stock, "measured_reach_px", lambda *_: 8)


@pytest.fixture
def counted(monkeypatch):
    """How many pictures and texts were really encoded."""
    one, counts = family("sd15"), {"pictures": 0, "texts": 0, "opened": 0}
    kind = type(one)
    open_pictures, open_texts = kind.open_pictures, kind.open_texts

    def count(opened, what):
        counts["opened"] += 1
        inner = opened.encode

        class Counting:
            def __getattr__(self, name):
                return getattr(opened, name)

            def encode(self, given):
                counts[what] += 1
                return inner(given)

        return Counting()

    monkeypatch.setattr(kind, "open_pictures", lambda *given: count(open_pictures(*given), "pictures"))
    monkeypatch.setattr(kind, "open_texts", lambda *given: count(open_texts(*given), "texts"))

    def since():
        told = dict(counts)
        counts.update(dict.fromkeys(counts, 0))
        return told

    return since


@pytest.mark.usefixtures("short_reach")
def test_only_what_changed_is_encoded(tmp_path, tiny_base, counted):
    def run(pictures=PICTURES, texts=TEXTS, settings=SETTINGS):
        made = encode(
            blurred(tmp_path / "blurred", pictures),
            captioned(tmp_path / "captions", texts),
            tmp_path / "out",
            settings,
            tiny_base,
        )
        return made, counted()

    first, told = run()
    assert told == {"pictures": 3, "texts": 3, "opened": 2}
    assert [row.state for row in first.manifest.rows] == ["kept"] * 3
    again, told = run()
    assert told == {"pictures": 0, "texts": 0, "opened": 0}
    assert again.manifest.digest == first.manifest.digest
    assert (again.report.computed, again.report.reused) == (0, 3)
    words, told = run(texts={**TEXTS, "a.jpg#0@close": "other words"})
    assert told == {"pictures": 0, "texts": 1, "opened": 1}
    assert (words.report.computed, words.report.reused) == (1, 2)
    seen, told = run(settings=SETTINGS.model_copy(update={"repeats": 5}))
    assert told == {"pictures": 0, "texts": 1, "opened": 1}  # the words went back
    assert {Example.of(row).repeats for row in seen.manifest.kept} == {5}
    other, told = run(pictures={**PICTURES, "a.jpg#0@close": (9, (64, 64), None)})
    assert told == {"pictures": 1, "texts": 0, "opened": 1}
    assert other.manifest.row("b.jpg#0@close") == first.manifest.row("b.jpg#0@close")
    fewer, told = run(pictures={name: PICTURES[name] for name in list(PICTURES)[1:]})
    assert told["pictures"] == told["texts"] == 0
    assert len(list((tmp_path / "out" / "latents").iterdir())) == len(fewer.manifest.rows) == 2


@pytest.mark.usefixtures("short_reach")
def test_prefix_and_suffix_stand_around_each_caption_that_is_encoded(tmp_path, tiny_base, counted):
    import torch
    from safetensors.torch import load_file

    settings = SETTINGS.model_copy(update={"caption_prefix": "ab", "caption_suffix": "yz"})
    pictures, captions = blurred(tmp_path / "blurred", PICTURES), captioned(tmp_path / "captions", TEXTS)
    encode(pictures, captions, tmp_path / "out", SETTINGS, tiny_base)
    counted()
    made = encode(pictures, captions, tmp_path / "out", settings, tiny_base).manifest
    assert counted() == {"pictures": 0, "texts": 3, "opened": 1}
    row = made.row("a.jpg#0@close")
    assert Example.of(row).caption == "ab a photo a yz"
    encoder = family("sd15").open_texts(tiny_base, "cpu", "float32")
    wanted = encoder.encode(["ab a photo a yz"])[0]["encoder_hidden_states"]
    assert torch.equal(load_file(made.path(row, "text"))["encoder_hidden_states"], wanted)


@pytest.mark.usefixtures("short_reach")
def test_a_picture_whose_bucket_fills_no_batch_is_encoded_in_its_neighbour_and_says_so(tmp_path, tiny_base, counted):
    def run(batch_size):
        pictures, captions = blurred(tmp_path / "blurred", PICTURES), captioned(tmp_path / "captions", TEXTS)
        return encode(pictures, captions, tmp_path / "out", SETTINGS, tiny_base, batch_size).manifest, counted()

    made, _ = run(3)  # one wide picture × 3 repeats fills a batch of 3
    wide = Example.of(made.row("sub/c.jpg#0@full"))
    assert (wide.bucket, wide.own_bucket) == ((96, 48), (96, 48))
    made, told = run(4)
    wide = Example.of(made.row("sub/c.jpg#0@full"))
    assert (wide.bucket, wide.own_bucket) == ((64, 64), (96, 48))
    assert told["pictures"] == 1  # the others' latents are what they were
    square = Example.of(made.row("a.jpg#0@close"))
    assert (square.bucket, square.own_bucket) == ((64, 64), (64, 64))


@pytest.mark.usefixtures("short_reach")
def test_where_the_face_is_in_the_bucket_is_told_where_it_is_weighed_and_encodes_nothing(tmp_path, tiny_base, counted):
    """200 px become 64: × 0.32. 96 × 48 px into 64 × 64 become 128 × 64, whose middle begins at 32."""
    faces = {"b.jpg#0@close": (50, 25, 150, 125), "sub/c.jpg#0@full": (18, 12, 48, 42)}
    pictures, captions = blurred(tmp_path / "blurred", PICTURES, faces), captioned(tmp_path / "captions", TEXTS)

    def run(batch_size, faces):
        made = encode(
            pictures, captions, tmp_path / "out", SETTINGS, tiny_base, batch_size=batch_size, faces=faces
        ).manifest
        return made, {row.id: Example.of(row).face for row in made.kept}

    plain, told = run(3, faces=False)
    assert set(told.values()) == {None}
    assert not any("face" in row.data for row in plain.rows)
    counted()
    weighed, told = run(3, faces=True)
    assert told == {"a.jpg#0@close": None, "b.jpg#0@close": (16, 8, 48, 40), "sub/c.jpg#0@full": (18, 12, 48, 42)}
    assert counted() == {"pictures": 0, "texts": 0, "opened": 0}
    assert weighed.row("a.jpg#0@close") == plain.row("a.jpg#0@close")
    assert weighed.row("b.jpg#0@close").files == plain.row("b.jpg#0@close").files
    assert run(3, faces=False)[0] == plain
    _, told = run(4, faces=True)  # one wide picture × 3 repeats fills no batch of 4: it comes into the square
    assert told["sub/c.jpg#0@full"] == (0, 16, 32, 56)


def test_a_picture_too_small_for_a_bucket_is_a_row_with_a_reason(tmp_path, tiny_base):
    pictures = {"small#0@close": (1, (60, 10), None)}
    settings = SETTINGS.model_copy(update={"bucket_no_upscale": True})
    captions = captioned(tmp_path / "captions", {"small#0@close": "a photo"})
    made = encode(blurred(tmp_path / "blurred", pictures), captions, tmp_path / "out", settings, tiny_base).manifest
    assert made.rows[0].state == "failed"
    assert made.rows[0].reason == "it is 60 × 10 pixels, less than a bucket's step, and encode.bucket_no_upscale is on"


@pytest.mark.usefixtures("short_reach")
def test_files_hold_what_training_needs(tmp_path, tiny_base):
    import torch
    from safetensors.torch import load_file

    settings = SETTINGS.model_copy(update={"flip": True})
    made = encode(
        blurred(tmp_path / "blurred", PICTURES),
        captioned(tmp_path / "captions", TEXTS),
        tmp_path / "out",
        settings,
        tiny_base,
    ).manifest
    wide = made.row("sub/c.jpg#0@full")
    example = Example.of(wide)
    assert (example.photo, example.bucket, example.caption, example.hidden) == ("sub/c.jpg", (96, 48), "a photo s", 0.0)
    tensors = load_file(made.path(wide, "latents"))
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "framing": (6,),
        "latents": (4, 6, 12),
        "visible": (1, 6, 12),
        "latents_mirrored": (4, 6, 12),
        "visible_mirrored": (1, 6, 12),
    }
    assert tensors["framing"].tolist() == [48, 96, 0, 0, 48, 96]
    assert load_file(made.path(wide, "text"))["encoder_hidden_states"].shape == (24, 32)

    half = Example.of(made.row("b.jpg#0@close"))
    tensors = load_file(made.path(made.row("b.jpg#0@close"), "latents"))
    assert 0 < half.hidden < 1
    assert half.hidden == pytest.approx(1 - float(tensors["visible"].mean()))
    assert torch.equal(tensors["visible_mirrored"], tensors["visible"].flip(2))
    assert tensors["visible"][0, -1, -1] == 0
    assert tensors["visible"][0, 0, 0] == 1

    mirrored = picture_of(1, (64, 64)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    encoder = family("sd15").open_pictures(tiny_base, "cpu", "float32")
    wanted = encoder.encode(torch.from_numpy(np.array(mirrored, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None])[
        0
    ]
    assert torch.allclose(
        load_file(made.path(made.row("a.jpg#0@close"), "latents"))["latents_mirrored"], wanted, atol=1e-5
    )


@pytest.mark.usefixtures("short_reach")
def test_what_cannot_be_trained_on_is_a_row_with_a_reason(tmp_path, tiny_base):
    pictures = {
        **PICTURES,
        "hidden.jpg#0@close": (4, (64, 64), (0, 0, 64, 64)),
        "cut.jpg#0@close": (5, (64, 64), None),
        "d.jpg#0@close": (6, (64, 64), None),
    }
    manifest = blurred(tmp_path / "blurred", pictures)
    cut = manifest.path(manifest.row("cut.jpg#0@close"))
    cut.write_bytes(cut.read_bytes()[:100])
    captions = captioned(tmp_path / "captions", {**dict.fromkeys(pictures, "a photo"), "d.jpg#0@close": ""})
    rows = tuple(
        row.but("failed", "its caption file is empty") if row.id == "d.jpg#0@close" else row
        for row in captions.rows
        if row.id[0] != "a"
    )
    made = encode(manifest, replace(captions, rows=rows), tmp_path / "out", SETTINGS, tiny_base)
    reasons = {row.id: (row.state, row.reason) for row in made.manifest.rows if row.state != "kept"}
    assert reasons["a.jpg#0@close"] == ("failed", "it has no caption")
    assert reasons["d.jpg#0@close"] == ("failed", "its caption cannot be used: its caption file is empty")
    assert reasons["hidden.jpg#0@close"][0] == "dropped"
    assert reasons["cut.jpg#0@close"][0] == "failed"
    assert "damaged" in reasons["cut.jpg#0@close"][1]
    assert (made.report.dropped, made.report.failed) == (1, 3)
    assert len(made.manifest.kept) == 2


@pytest.mark.usefixtures("short_reach")
def test_a_caption_that_does_not_fit_says_by_how_much(tmp_path, tiny_base):
    texts = {**TEXTS, "a.jpg#0@close": "a " * 30}
    made = encode(
        blurred(tmp_path / "blurred", PICTURES),
        captioned(tmp_path / "captions", texts),
        tmp_path / "out",
        SETTINGS,
        tiny_base,
    )
    cut = {row.id: Example.of(row).cut_tokens for row in made.manifest.kept}
    assert cut["a.jpg#0@close"] == 30 + 2 - 24  # a token a letter, and two ends
    assert cut["b.jpg#0@close"] == 0


def test_a_run_with_nothing_to_encode_imports_no_torch(tmp_path, tiny_base):
    encode(
        blurred(tmp_path / "blurred", PICTURES),
        captioned(tmp_path / "captions", TEXTS),
        tmp_path / "out",
        SETTINGS,
        tiny_base,
    )
    code = (
        "import sys; from pathlib import Path\n"
        "from lora_pipeline.manifest import read\n"
        "from lora_pipeline.settings import BaseSettings, EncodeSettings\n"
        "from lora_pipeline.stages.encode import encode\n"
        f"root = Path({str(tmp_path)!r})\n"
        f"settings, base = EncodeSettings.model_validate({SETTINGS.model_dump()!r}), BaseSettings.model_validate({tiny_base.model_dump()!r})\n"
        "made = encode(read(root / 'blurred'), read(root / 'captions'), root / 'out', settings, base)\n"
        "heavy = {'torch', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert (made.report.computed, made.report.reused, heavy) == (0, 3, set()), (made.report, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_latent_of_the_bundled_model_that_has_seen_a_hidden_face_is_trained_on(tmp_path):
    """Two pictures that differ under the mask alone: a gain and a shift a channel take the visible latents of one to the other's."""
    import torch
    from safetensors.torch import load_file

    hidden = (40, 40, 72, 76)
    manifest = blurred(tmp_path / "blurred", {"a#0@close": (1, (128, 128), hidden)})
    captions = captioned(tmp_path / "captions", {"a#0@close": "a photo"})
    settings, base = EncodeSettings(resolution_px=128), BaseSettings(model="bundled")
    made = encode(manifest, captions, tmp_path / "out", settings, base).manifest
    tensors = load_file(made.path(made.rows[0], "latents"))
    picture = picture_of(1, (128, 128))
    picture.paste(picture_of(7, (32, 36)), hidden)
    encoder = family("sd15").open_pictures(base, "cpu", "float32")
    other = encoder.encode(torch.from_numpy(np.array(picture, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None])[0]
    visible, spread = tensors["visible"][0] > 0, float(tensors["latents"].std())
    left = torch.zeros(int(visible.sum()))
    for own, its in zip(tensors["latents"], other, strict=True):
        terms = torch.stack([own[visible], torch.ones_like(left)], dim=1)
        left += (its[visible] - terms @ torch.linalg.lstsq(terms, its[visible, None]).solution[:, 0]).square() / len(
            other
        )
    assert 0.1 < float(visible.float().mean()) < 0.9
    assert float(left.mean().sqrt()) < 0.02 * spread
    assert float((other - tensors["latents"])[:, ~visible].std()) > 0.2 * spread


def test_tables_are_remembered_apart(tmp_path, tiny_base):
    encode(
        blurred(tmp_path / "blurred", PICTURES),
        captioned(tmp_path / "captions", TEXTS),
        tmp_path / "out",
        SETTINGS,
        tiny_base,
    )
    assert {name: len(read(tmp_path / "out", name).rows) for name in ("latents", "texts", "manifest")} == {
        "latents": 3,
        "texts": 3,
        "manifest": 3,
    }
