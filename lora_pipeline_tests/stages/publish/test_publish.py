import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lora_pipeline import manifest
from lora_pipeline.errors import PipelineError
from lora_pipeline.families import family
from lora_pipeline.families.lora_file import lora_bytes, read_metadata, write_lora
from lora_pipeline.families.samplers import sample_with
from lora_pipeline.manifest import Manifest
from lora_pipeline.models.faces import terms
from lora_pipeline.records import Checkpoint, Example, File, Measure, Row, Score
from lora_pipeline.settings import BaseSettings, CropSettings, PublishSettings, Settings
from lora_pipeline.stages.publish import CardFacts, Hidden, publish
from lora_pipeline.stages.publish.card import BaseFacts, base_facts
from lora_pipeline.stages.publish.header import hashes
from lora_pipeline.stages.publish.notice import notice
from lora_pipeline.store import digest_file

SETTINGS = Settings().changed(
    {"grade": {"sampling_steps": 3, "size_px": 64}, "fit": {"network_dim": 4, "network_alpha": 2}}, "test"
)
CARD = CardFacts(
    name="anna",
    kind="person",
    trigger="ohwx",
    class_word="woman",
    consent={"given_by": "Anna A.", "given_on": "2026-01-31", "scope": "pictures for her own page"},
    settings=SETTINGS.model_dump(mode="json"),
    photos=(("a.jpg", "1" * 64), ("b.jpg", "2" * 64)),
    counts={"face_crops": 6, "training_set": 6},
    examples=(
        Example("holiday/a.jpg", (512, 512), 10, "ohwx woman, red shirt, Beach", 0.0),
        Example("b.jpg", (512, 512), 10, "ohwx woman, blue shirt", 0.1),
        Example("b.jpg", (448, 576), 5, "ohwx woman", 0.0),
        Example("other.jpg", (512, 512), 2, "woman", 0.0, loss_weight=0.5, regularisation=True),
    ),
)


@pytest.fixture(scope="session")
def loras(tiny_base: BaseSettings, random_lora, tmp_path_factory) -> Path:
    """Two epochs' LoRA files of the tiny model."""
    folder = tmp_path_factory.mktemp("loras")
    for epoch in (1, 2):
        random_lora(tiny_base, folder / f"e{epoch:04d}.safetensors", epoch)
    return folder


@pytest.fixture
def checkpoints(loras: Path, tmp_path: Path) -> Manifest:
    (tmp_path / "fit").mkdir()
    rows: list[Row] = []
    for epoch in (1, 2):
        name = f"e{epoch:04d}.safetensors"
        (tmp_path / "fit" / name).write_bytes((loras / name).read_bytes())
        record = Checkpoint(epoch, "f" * 64, "d" * 64, loss=0.1, learning_rate=1e-4, images_seen=epoch * 6)
        rows.append(
            Row(
                f"{epoch:04d}", f"key{epoch}", data=record.data(), files={"lora": File(name, digest_file(loras / name))}
            )
        )
    return manifest.write(tmp_path / "fit", rows)


def judged(folder: Path, chosen: int | None = 2, learned: bool | None = True, picked: bool = False) -> Manifest:
    scores = [
        Score(
            epoch,
            0.5 - epoch / 10,
            1.0,
            None,
            epoch == chosen,
            f"the reason of {epoch}",
            picked=picked and epoch == chosen,
        )
        for epoch in (0, 1, 2)
    ]
    return manifest.write(
        folder,
        [
            Row(f"{one.epoch:04d}", f"k{one.epoch}", data={**one.data(), "learned": learned and one.epoch > 0})
            for one in scores
        ],
    )


@pytest.mark.parametrize(("precision", "worst"), [("fp32", 1), ("fp16", 2), ("bf16", 12)])
def test_both_files_draw_what_the_checkpoint_draws(tiny_base, checkpoints, tmp_path: Path, precision, worst) -> None:
    made = publish(
        judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(precision=precision), tiny_base, CARD
    )
    row = made.manifest.row("released")
    pipeline = family(tiny_base.family).pipeline(tiny_base, "cpu", "float32")
    without = drawn(pipeline, None)
    epoch, earlier = (drawn(pipeline, checkpoints.path(checkpoints.row(f"000{n}"), "lora")) for n in (2, 1))
    assert np.abs(epoch - without).max() > 30
    assert np.abs(epoch - earlier).max() > 30
    for role in ("lora", "webui"):
        assert np.abs(drawn(pipeline, made.manifest.path(row, role)) - epoch).max() <= worst


def drawn(pipeline, lora: Path | None, unload: bool = True) -> np.ndarray:
    import torch

    if unload:
        pipeline.unload_lora_weights()
    if lora is not None:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    how = {"num_inference_steps": 3, "height": 64, "width": 64, "generator": torch.Generator("cpu").manual_seed(1)}
    return np.asarray(pipeline("a photo of ohwx woman", **how).images[0]).astype(int)


def test_convolutions_keep_their_own_alpha_in_both_files(tiny_base, checkpoints, random_lora, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    random_lora(tiny_base, checkpoints.path(checkpoints.row("0002"), "lora"), 2, conv=(3, 7.0))
    made = publish(
        judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(precision="fp32"), tiny_base, CARD
    )
    row = made.manifest.row("released")
    other = load_file(made.manifest.path(row, "webui"))
    alphas = {key: float(alpha) for key, alpha in other.items() if key.endswith(".alpha")}
    for key, alpha in alphas.items():
        down = other[key.replace(".alpha", ".lora_down.weight")]
        wide = down.ndim == 4 and down.shape[-1] == 3
        assert (alpha, down.shape[0]) == ((7.0, 3) if wide else (2.0, 4)), key
    assert alphas["lora_unet_mid_block_resnets_0_conv1.alpha"] == 7
    pipeline = family(tiny_base.family).pipeline(tiny_base, "cpu", "float32")
    epoch = drawn(pipeline, checkpoints.path(checkpoints.row("0002"), "lora"))
    for role in ("lora", "webui"):
        assert np.abs(drawn(pipeline, made.manifest.path(row, role)) - epoch).max() <= 1


def test_a_dora_has_no_file_for_other_programs_and_the_card_says_why(
    tiny_base, checkpoints, random_lora, tmp_path: Path
) -> None:
    random_lora(tiny_base, checkpoints.path(checkpoints.row("0002"), "lora"), 2, kind="dora")
    settings = SETTINGS.changed({"fit": {"network_type": "dora"}}, "test").model_dump(mode="json")
    card = replace(CARD, settings=settings)
    made = publish(
        judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(precision="fp32"), tiny_base, card
    )
    row = made.manifest.row("released")
    assert set(row.files) == {"lora", "card", "lineage"}
    assert "it is a DoRA" in made.manifest.path(row, "card").read_text()
    pipeline = family(tiny_base.family).pipeline(tiny_base, "cpu", "float32")
    epoch = drawn(pipeline, checkpoints.path(checkpoints.row("0002"), "lora"))
    assert np.abs(drawn(pipeline, made.manifest.path(row, "lora")) - epoch).max() <= 1


@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_a_lokr_or_loha_has_a_file_for_other_programs_and_the_cards_code_loads_the_other(
    tiny_base, checkpoints, random_lora, tmp_path: Path, monkeypatch, kind
) -> None:
    random_lora(tiny_base, checkpoints.path(checkpoints.row("0002"), "lora"), 2, kind=kind)
    settings = SETTINGS.changed({"fit": {"network_type": kind}}, "test").model_dump(mode="json")
    how = (PublishSettings(precision="fp32"), tiny_base, replace(CARD, settings=settings))
    made = publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", *how)
    row = made.manifest.row("released")
    assert set(row.files) == {"lora", "webui", "info", "card", "lineage"}
    words = read_metadata(made.manifest.path(row, "webui"))
    assert (words["ss_network_module"], words["ss_network_dim"]) == ("lycoris.kohya", "4")
    code = made.manifest.path(row, "card").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, object] = {}
    exec(code.replace(f"PATH/TO/{Path(tiny_base.model).name}", tiny_base.model), names)
    plug = family(tiny_base.family)
    loaded = drawn(names["pipeline"], None, unload=False)
    pipeline = plug.pipeline(tiny_base, "cpu", "float32")
    plug.load_lora(pipeline, checkpoints.path(checkpoints.row("0002"), "lora"))
    epoch = drawn(pipeline, None, unload=False)
    assert np.abs(loaded - epoch).max() <= 1
    assert np.abs(drawn(pipeline, None) - epoch).max() > 30


def test_the_files_headers_say_what_they_are(tiny_base, checkpoints, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    made = publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    files = made.manifest.row("released").files
    assert {role: file.path for role, file in files.items()} == {
        "lora": "ohwx.safetensors",
        "webui": "ohwx-webui.safetensors",
        "info": "ohwx-webui.json",
        "card": "README.md",
        "lineage": "lineage.json",
    }
    lora, webui = (tmp_path / "out" / files[role].path for role in ("lora", "webui"))
    words = read_metadata(lora)
    assert words["modelspec.trigger_phrase"] == "ohwx woman"
    assert (words["ss_network_dim"], words["ss_network_alpha"], words["ss_epoch"]) == ("4", "2", "2")
    assert json.loads(words["lora_adapter_metadata"])["unet.lora_alpha"] == 2
    assert words["epoch"] == "3"  # as the checkpoint's header said
    assert {str(tensor.dtype) for tensor in load_file(lora).values()} == {"torch.float16"}
    other = load_file(webui)
    assert {key.rpartition(".")[0] for key in other if key.endswith(".alpha")} == {key.split(".")[0] for key in other}
    assert {float(other[key]) for key in other if key.endswith(".alpha")} == {2.0}
    data = lora.read_bytes()
    assert (
        words["modelspec.hash_sha256"]
        == "0x" + hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    )


def test_the_header_says_what_web_uis_show(tiny_base, checkpoints, tmp_path: Path) -> None:
    made = publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    words = read_metadata(made.manifest.path(made.manifest.row("released"), "webui"))
    assert {key: words[key] for key in words if key.startswith("ss_") and words[key].startswith("{")} == {
        "ss_dataset_dirs": json.dumps(
            {"10_ohwx woman": {"img_count": 2, "n_repeats": 10}, "5_ohwx woman": {"img_count": 1, "n_repeats": 5}}
        ),
        "ss_reg_dataset_dirs": json.dumps({"2_woman": {"img_count": 1, "n_repeats": 2}}),
        "ss_tag_frequency": json.dumps(
            {
                "10_ohwx woman": {"beach": 1, "blue shirt": 1, "ohwx woman": 2, "red shirt": 1},
                "2_woman": {"woman": 1},
                "5_ohwx woman": {"ohwx woman": 1},
            }
        ),
        "ss_bucket_info": json.dumps(
            {"buckets": {"0": {"count": 5, "resolution": [448, 576]}, "1": {"count": 22, "resolution": [512, 512]}}}
        ),
    }
    said = {
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": Path(tiny_base.model).name,
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "2",
        "ss_output_name": "ohwx",
        "ss_resolution": "(512, 512)",
        "ss_num_train_images": "25",
        "ss_num_reg_images": "2",
        "ss_prior_loss_weight": "0.5",
        "ss_num_batches_per_epoch": "14",  # 22 / 2 and 5 / 2, rounded up
        "ss_epoch": "2",
        "ss_num_epochs": "10",
        "ss_steps": "28",
        "ss_max_train_steps": "140",
        "ss_learning_rate": "0.0001",
        "ss_unet_lr": "0.0001",
        "ss_text_encoder_lr": "0.0",
        "ss_optimizer": "AdamW(weight_decay=0.01)",
        "ss_lr_scheduler": "cosine_with_restarts",
        "ss_seed": "42",
        "ss_min_snr_gamma": "5.0",
        "ss_noise_offset": "None",
        "ss_mixed_precision": "no",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "ohwx",
        "modelspec.license": "creativeml-openrail-m; the consent covers no commercial use",
        "modelspec.trigger_phrase": "ohwx woman",
        "modelspec.resolution": "512x512",
        "modelspec.prediction_type": "epsilon",
        "lora_pipeline.run": "f" * 64,
        "lora_pipeline.training_set": "d" * 64,
    }
    assert {key: words.get(key) for key in said} == said
    told = json.loads((tmp_path / "out" / "lineage.json").read_text())
    del told["files"]
    whole = json.dumps(told, sort_keys=True, ensure_ascii=False).encode()
    assert words["lora_pipeline.lineage"] == hashlib.sha256(whole).hexdigest()


def test_the_header_counts_what_each_process_does_as_sd_scripts_does(tiny_base, checkpoints, tmp_path: Path) -> None:
    fit = {"num_processes": 4, "gradient_accumulation_steps": 3}
    card = replace(CARD, settings=SETTINGS.changed({"fit": fit}, "test").model_dump(mode="json"))
    made = publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, card)
    words = read_metadata(made.manifest.path(made.manifest.row("released"), "webui"))
    told = {
        key: int(words[f"ss_{key}"])
        for key in ("batch_size_per_device", "total_batch_size", "num_batches_per_epoch", "max_train_steps")
    }
    assert told == {
        "batch_size_per_device": 2,
        "total_batch_size": 2 * 4 * 3,
        "num_batches_per_epoch": 4,  # 14 ÷ 4, rounded up
        "max_train_steps": 10 * 2,  # 4 ÷ 3, rounded up
    }


def test_no_photos_name_is_in_a_files_header(tiny_base, checkpoints, tmp_path: Path) -> None:
    made = publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    for role in ("lora", "webui"):
        header = str(read_metadata(made.manifest.path(made.manifest.row("released"), role)))
        assert not any(name in header for name in ("a.jpg", "b.jpg", "other.jpg", "holiday", str(tmp_path)))


def test_the_hashes_are_sd_scripts_own(tiny_base, checkpoints, tmp_path: Path) -> None:
    """sshs_model_hash of the file as it lies there, as sd-webui-additional-networks reckons it; the older one of its ss_ words alone."""
    import torch

    made = publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    path = made.manifest.path(made.manifest.row("released"), "webui")
    data, words = path.read_bytes(), read_metadata(path)
    assert words["sshs_model_hash"] == hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert words["sshs_legacy_hash"] == hashlib.sha256(b"").hexdigest()[:8]  # a file of under a MiB

    large = {"a": torch.arange(400_000, dtype=torch.float32)}
    trained = lora_bytes(large, {"ss_epoch": "1"})
    got = hashes(large, {"ss_epoch": "1", "modelspec.title": "anything"})
    assert got["sshs_legacy_hash"] == hashlib.sha256(trained[0x100000:0x110000]).hexdigest()[:8]


def test_a_model_in_one_file_is_named_by_the_hashes_that_web_uis_know(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "model.safetensors").write_bytes(data)
    base = BaseSettings(model=str(tmp_path / "model.safetensors"))
    facts = base_facts(base, family("sd15").digest(base))
    assert facts.file_digest == hashlib.sha256(data).hexdigest()
    assert facts.file_legacy == hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]


@pytest.mark.parametrize(
    ("licence", "model", "wanted"),
    [
        ("flux-1-dev-non-commercial-license", "/there", True),
        ("FLUX.1 [dev] Non-Commercial License", "/there", True),
        ("apache-2.0", "black-forest-labs/FLUX.1-schnell", False),
        ("other", "black-forest-labs/FLUX.1-dev", True),
        ("creativeml-openrail-m", "/there", False),
    ],
)
def test_flux_s_notice_goes_along_where_its_licence_holds(licence, model, wanted) -> None:
    told = notice(BaseFacts("flux", model, "hub", "", "", "d", licence))
    assert (told is not None) == wanted
    if told is not None:
        assert told.startswith("The FLUX.1 [dev] Model is licensed by Black Forest Labs")
        assert "modifies" in told  # section 3 c of that licence


def test_a_release_on_flux_has_its_notice_its_names_and_no_epsilon(tiny, random_lora, tmp_path: Path) -> None:
    made = flux_release(tiny, random_lora, tmp_path, lambda key: key)
    row = made.manifest.row("released")
    assert row.files["notice"].path == "NOTICE.txt"
    assert (tmp_path / "out" / "NOTICE.txt").read_text().startswith("The FLUX.1 [dev] Model is licensed")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`NOTICE.txt` must go along" in card
    header = yaml.safe_load(card.split("---\n")[1])
    assert (header["license"], header["license_name"]) == ("other", "flux-1-dev-non-commercial-license")
    words = read_metadata(made.manifest.path(row, "webui"))
    assert words["ss_base_model_version"] == "flux1"
    assert words["ss_network_module"] == "networks.lora_flux"
    assert words["ss_network_alpha"] == "2"  # as it was trained, though its joined layers have a multiple
    assert words["modelspec.architecture"] == "flux-1-dev/lora"
    assert words["ss_timestep_sampling"] == "uniform"
    assert "modelspec.prediction_type" not in words


def test_what_has_no_name_elsewhere_is_released_for_diffusers_alone_and_the_card_says_why(
    tiny, random_lora, tmp_path: Path
) -> None:
    made = flux_release(
        tiny, random_lora, tmp_path, lambda key: key.replace("transformer_blocks.0.ff.net.2", "x_embedder")
    )
    assert set(made.manifest.row("released").files) == {"lora", "card", "lineage", "notice"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "no file for other programs (ComfyUI, AUTOMATIC1111, Forge): transformer.x_embedder has no name there" in card
    )


def flux_release(tiny, random_lora, folder: Path, rename):
    """A release of a random LoRA of a small FLUX, some of its modules renamed."""
    from safetensors.torch import load_file

    base = BaseSettings(
        family="flux", model=str(tiny.build_flux(folder / "base")), licence="flux-1-dev-non-commercial-license"
    )
    (folder / "fit").mkdir()
    file = random_lora(base, folder / "fit" / "e.safetensors", 1)
    write_lora(file, {rename(key): tensor for key, tensor in load_file(file).items()}, read_metadata(file))
    record = Checkpoint(2, "f" * 64, "d" * 64, loss=0.1, learning_rate=1e-4, images_seen=12)
    row = Row("0002", "key", data=record.data(), files={"lora": File(file.name, digest_file(file))})
    checkpoints = manifest.write(folder / "fit", [row])
    return publish(judged(folder / "s"), checkpoints, folder / "out", PublishSettings(), base, CARD)


def test_a_rerun_makes_nothing_and_equal_results_have_equal_bytes(tiny_base, checkpoints, tmp_path: Path) -> None:
    scores = judged(tmp_path / "s")
    first = publish(scores, checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    again = publish(scores, checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    assert (first.report.computed, again.report.computed) == (1, 0)
    assert (
        publish(scores, checkpoints, tmp_path / "other", PublishSettings(), tiny_base, CARD).manifest.rows
        == first.manifest.rows
    )


@pytest.mark.parametrize("change", ["trigger", "consent", "chosen", "precision", "checkpoint"])
def test_whatever_is_told_is_part_of_the_key(tiny_base, checkpoints, tmp_path: Path, change) -> None:
    publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    card = (
        replace(CARD, trigger="zxq")
        if change == "trigger"
        else replace(CARD, consent=None)
        if change == "consent"
        else CARD
    )
    if change == "checkpoint":  # the same epoch of another run
        other = replace(checkpoints.row("0002"), files=checkpoints.row("0001").files)
        checkpoints = Manifest(checkpoints.folder, (checkpoints.row("0001"), other))
    settings = PublishSettings(precision="bf16" if change == "precision" else "fp16")
    made = publish(
        judged(tmp_path / "s", 1 if change == "chosen" else 2), checkpoints, tmp_path / "out", settings, tiny_base, card
    )
    assert made.report.computed == 1
    there = {
        path.name
        for path in (tmp_path / "out").iterdir()
        if path.suffix != ".parquet" and not path.name.startswith("manifest.")
    }
    loras = {f"{card.trigger}.safetensors", f"{card.trigger}-webui.safetensors", f"{card.trigger}-webui.json"}
    assert there == loras | {"README.md", "lineage.json"}


def test_no_photos_own_name_is_in_anything_released(tiny_base, checkpoints, tmp_path: Path) -> None:
    card = replace(CARD, photos=(("Trip to Rome/IMG_4711.jpg", "1" * 64), ("IMG_4712.jpg", "2" * 64)))
    publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, card)
    released = [
        path for path in (tmp_path / "out").rglob("*") if path.is_file() and not path.name.startswith("manifest.")
    ]
    assert len(released) >= 4
    for path in released:
        assert b"IMG_47" not in path.read_bytes(), path.name
        assert b"Rome" not in path.read_bytes(), path.name


def test_the_lineage_names_photos_run_base_and_versions_and_no_path_of_this_machine(
    tiny_base, checkpoints, tmp_path: Path
) -> None:
    weights = f"{Path(tiny_base.model).parent}/face.pt"
    server = {"llm_address": "http://192.168.7.5:8000/v1"}
    changes = {"crop": {"yolo_weights": weights}, "describe": server}
    settings = SETTINGS.changed(changes, "test").model_copy(update={"base": tiny_base})
    card = replace(CARD, settings=settings.model_dump(mode="json"))
    publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, card)
    told = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert told["photos"] == [{"digest": "1" * 64}, {"digest": "2" * 64}]
    assert (told["training_set"], told["run"], told["epoch"]) == ("d" * 64, "f" * 64, 2)
    assert told["base"]["digest"] == family("sd15").digest(tiny_base)
    assert told["base"]["model"] == Path(tiny_base.model).name == told["settings"]["base"]["model"]
    assert told["settings"]["fit"]["network_dim"] == 4
    assert told["versions"]["torch"]
    assert told["files"] == {
        name: digest_file(tmp_path / "out" / name) for name in ("ohwx.safetensors", "ohwx-webui.safetensors")
    }
    for name in ("README.md", "lineage.json", "ohwx.safetensors", "ohwx-webui.safetensors"):
        released = (tmp_path / "out" / name).read_bytes()
        assert str(Path(tiny_base.model).parent).encode() not in released
        assert b"192.168.7.5" not in released


@pytest.mark.parametrize(("skip", "sampler", "lines"), [(1, "base", 4), (2, "base", 6), (1, "euler_a", 5)])
def test_the_cards_code_runs_as_written(
    tiny_base, checkpoints, random_lora, tmp_path: Path, monkeypatch, skip: int, sampler: str, lines: int
) -> None:
    base = tiny_base.model_copy(update={"clip_skip": skip})
    random_lora(base, checkpoints.path(checkpoints.row("0002"), "lora"), 2, texts=True)
    grade = {**CARD.settings["grade"], "sampler": sampler}
    card = replace(CARD, settings={**CARD.settings, "grade": grade})
    publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), base, card)
    text = (tmp_path / "out" / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == lines
    assert (f"**clip skip {skip}**" in text) == (skip > 1)
    monkeypatch.chdir(tmp_path / "out")
    found: dict[str, Any] = {}
    exec(code.replace(f"PATH/TO/{Path(tiny_base.model).name}", tiny_base.model), found)
    assert (tmp_path / "out" / "picture.png").exists()
    mine = family("sd15").pipeline(base, "cpu", "float32")
    mine.load_lora_weights(str(tmp_path / "out"), weight_name="ohwx.safetensors")
    sample_with(mine, sampler)
    how = {"num_inference_steps": 3, "height": 64, "width": 64}
    pictures = [
        np.asarray(one("ohwx woman", generator=torch.Generator().manual_seed(1), **how).images[0]).astype(int)
        for one in (found["pipeline"], mine)
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.mark.parametrize(
    ("skip", "said", "second", "rates"), [(1, "None", None, "5e-05"), (2, "2", 1e-5, "[5e-05, 1e-05]")]
)
def test_the_header_says_rate_and_clip_skip_of_text_encoders(
    tiny_base, checkpoints, random_lora, tmp_path: Path, skip: int, said: str, second: float | None, rates: str
) -> None:
    base = tiny_base.model_copy(update={"clip_skip": skip})
    random_lora(base, checkpoints.path(checkpoints.row("0002"), "lora"), 2, texts=True)
    changes = {"fit": {"text_encoder_lr": 5e-5, "text_encoder_2_lr": second}}
    card = replace(CARD, settings=SETTINGS.changed(changes, "test").model_dump(mode="json"))
    made = publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), base, card)
    for role in ("lora", "webui"):
        words = read_metadata(made.manifest.path(made.manifest.row("released"), role))
        assert (words["ss_clip_skip"], words["ss_text_encoder_lr"], words["ss_unet_lr"]) == (said, rates, "0.0001")


def test_the_card_tells_everything(tiny_base, checkpoints, tmp_path: Path) -> None:
    publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    text = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["instance_prompt"] == "ohwx woman"
    for said in (
        "Given by Anna A. on 2026-01-31",
        "It covers: training.",
        "There are none here: the consent does not cover showing others pictures",
        "forbids in its Attachment A",
        "2 photos",
        "close, medium, full",
        "The reason of 2.",
        "| base model | 0.500 |",
        "epoch 2 of 2",
        "network_dim: 4",
    ):
        assert said in text, said
    assert "has not learned" not in text
    assert "recognising this person" in text


def test_the_card_says_the_strength_that_a_sweep_recommends(tiny_base, checkpoints, tmp_path: Path) -> None:
    for strength, value in (("", None), ("at strength 0.8 the identity distance is 0.21", 0.8)):
        card = replace(CARD, strength=strength, strength_value=value)
        publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, card)
        text = (tmp_path / "out" / "README.md").read_text()
        assert text.count("Recommended strength") == bool(strength)
        assert strength in text
        info = json.loads((tmp_path / "out" / "ohwx-webui.json").read_text())
        assert info.get("preferred weight") == value


def test_the_card_says_who_chose_the_epoch(tiny_base, checkpoints, tmp_path: Path) -> None:
    for picked, words in ((False, "chosen by measurement"), (True, "picked by a person")):
        scores = judged(tmp_path / "s", picked=picked)
        made = publish(scores, checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD).manifest
        assert f"this is epoch 2 of 2, {words}." in made.path(made.row("released"), "card").read_text()


@pytest.fixture
def grids(checkpoints: Manifest, tmp_path: Path) -> Manifest:
    """Both epochs and the base model, two prompts, two seeds, and the second epoch at half its strength too: each picture of its own grey."""
    from PIL import Image

    rows: list[Row] = []
    drawn = [(0, "", 1.0), *((int(row.id), row.files["lora"].digest, 1.0) for row in checkpoints.kept)]
    drawn.insert(2, (2, checkpoints.row("0002").files["lora"].digest, 0.5))
    for number, (epoch, digest, strength) in enumerate(drawn):
        for prompt in ("a photo of ohwx woman", "ohwx woman on a beach"):
            for seed in (1, 2):
                file = f"{number}-{prompt[0]}-{seed}.png"
                Image.new("RGB", (8, 8), (50 * number, seed, len(prompt))).save(tmp_path / file)
                told = {"epoch": epoch, "prompt": prompt, "seed": seed, "checkpoint": digest, "strength": strength}
                told |= {"negative_prompt": "hats", "sampling_steps": 3, "guidance_scale": 5.0, "size_px": 8}
                told |= {"scheduler": "DDIMScheduler 0123"}
                rows.append(Row(file, "k", data=told, files={"picture": File(file, digest_file(tmp_path / file))}))
    return Manifest(tmp_path, tuple(rows))


def test_pictures_of_the_chosen_epoch_stand_on_the_card_where_they_may_be_shown(
    tiny_base, checkpoints, grids, tmp_path: Path
) -> None:
    how = (checkpoints, tmp_path / "out", PublishSettings(), tiny_base)
    made = publish(judged(tmp_path / "s"), *how, replace(CARD, may_show=True), grids=grids)
    row = made.manifest.row("released")
    text = made.manifest.path(row, "card").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert [(one["text"], one["output"]["url"]) for one in header["widget"]] == [
        ("a photo of ohwx woman", "images/01.png"),
        ("ohwx woman on a beach", "images/02.png"),
    ]
    for role, source in (("picture 01", "3-a-1.png"), ("picture 02", "3-o-1.png"), ("preview", "3-a-1.png")):
        assert made.manifest.path(row, role).read_bytes() == (tmp_path / source).read_bytes()
    assert row.files["preview"].path == "ohwx-webui.preview.png"
    assert "![ohwx woman on a beach](images/02.png)\n*ohwx woman on a beach*, seed 1" in text
    assert text.count("3 steps, guidance 5, 8 px, scheduler DDIMScheduler 0123, negative prompt “hats”.") == 1
    assert publish(judged(tmp_path / "s"), *how, replace(CARD, may_show=True), grids=grids).report.reused == 1

    made = publish(judged(tmp_path / "s"), *how, CARD, grids=grids)
    assert not {role for role in made.manifest.row("released").files if "p" in role} - {"webui"}
    assert not [*(tmp_path / "out" / "images").glob("*"), *(tmp_path / "out").glob("*.png")]
    assert "widget" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("uses", "licence", "told", "chip"),
    [
        (
            ("training",),
            "creativeml-openrail-m",
            "No commercial use: the consent does not cover it, whatever the licence allows.",
            "other",
        ),
        (("commercial",), "creativeml-openrail-m", "and the consent covers it.", "creativeml-openrail-m"),
        (("commercial",), "FLUX.1 [dev] Non-Commercial License", "forbids it, whatever the consent covers", "other"),
        (("commercial",), "my own", "as far as the base model's licence allows it: read that", "my own"),
    ],
)
def test_the_card_says_whether_it_may_be_used_for_money(
    tiny_base, checkpoints, tmp_path: Path, uses, licence: str, told: str, chip: str
) -> None:
    assert CARD.consent is not None
    card = replace(CARD, consent={**CARD.consent, "uses": list(uses), "until": "2030-01-01"})
    base = tiny_base.model_copy(update={"licence": licence})
    publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), base, card)
    text = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert told in text
    assert "It holds until 2030-01-01." in text
    assert header["license"] == chip
    if uses == ("training",):
        assert header["license_name"] == "creativeml-openrail-m-the-consent-covers-no-commercial-use"
    assert told in json.loads((tmp_path / "out" / "ohwx-webui.json").read_text())["notes"]


def test_models_for_research_that_had_a_part_in_it_stand_on_the_card(tiny_base, checkpoints, tmp_path: Path) -> None:
    assert CARD.consent is not None
    told = terms(CropSettings(detector="insightface", insightface_models="x"))
    card = replace(CARD, consent={**CARD.consent, "uses": ["commercial"]}, research=tuple(told))
    base = tiny_base.model_copy(update={"licence": "creativeml-openrail-m"})
    publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), base, card)
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"{told[0]}. No weights of theirs are in this file." in text
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "other"
    assert header["license_name"] == "creativeml-openrail-m-made-with-models-for-non-commercial-research"
    notes = json.loads((tmp_path / "out" / "ohwx-webui.json").read_text())["notes"]
    for words in (text, notes):
        assert "No commercial use: models for non-commercial research had a part in it" in words
        assert "Commercial use is allowed" not in words


def test_the_record_says_that_strangers_were_hidden(tiny_base, checkpoints, tmp_path: Path) -> None:
    card = replace(CARD, hidden=Hidden(5, 3, "gaussian"), recalled="recalled on 2026-02-01: why")
    publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, card)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "On 3 of the pictures 5 faces of other people were found. All of them are hidden (gaussian)" in text
    assert "**This LoRA is recalled on 2026-02-01: why. Do not use it, and remove every copy.**" in text
    told = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert told["hidden"] == {"faces": 5, "pictures": 3, "method": "gaussian"}


def test_the_card_warns_where_a_warning_is_due(tiny_base, checkpoints, tmp_path: Path) -> None:
    publish(
        judged(tmp_path / "s", learned=False),
        checkpoints,
        tmp_path / "out",
        PublishSettings(),
        tiny_base,
        replace(CARD, consent=None),
    )
    text = (tmp_path / "out" / "README.md").read_text()
    assert "**This LoRA has not learned its subject.** The reason of 2." in text
    assert "**None is recorded.**" in text


def test_a_trigger_that_cannot_name_a_file_gives_way_to_the_subjects_name(
    tiny_base, checkpoints, tmp_path: Path
) -> None:
    made = publish(
        judged(tmp_path / "s"),
        checkpoints,
        tmp_path / "out",
        PublishSettings(),
        tiny_base,
        replace(CARD, trigger="../ohwx"),
    )
    assert made.manifest.row("released").files["lora"].path == "anna.safetensors"


def test_a_weight_too_large_for_the_precision_is_told(tiny_base, checkpoints, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = checkpoints.path(checkpoints.row("0002"), "lora")
    tensors = load_file(path)
    first = next(iter(tensors))
    tensors[first][0, 0] = 1e6
    save_file(tensors, path, read_metadata(path))
    made = publish(judged(tmp_path / "s"), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    assert made.report.failed == 1
    assert "too large for fp16" in made.manifest.rows[0].reason


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        ((), "by colours and edges alone, a weak measure; less"),
        ((Measure("distance by colours and edges", "likeness", "less", 0.3),), "by colours and edges alone, a weak"),
        ((Measure("distance by DINOv2", "likeness", "less", 0.3),), "to the training pictures by DINOv2; less"),
    ],
)
def test_the_card_of_a_thing_says_what_its_distance_was_taken_by(
    measures, words: str, tiny_base, checkpoints, tmp_path: Path
) -> None:
    rows = [
        Row(row.id, row.key, data=replace(Score.of(row), measures=measures).data())
        for row in judged(tmp_path / "s").rows
    ]
    scores = manifest.write(tmp_path / "s", rows)
    made = publish(scores, checkpoints, tmp_path / "out", PublishSettings(), tiny_base, replace(CARD, kind="product"))
    card = made.manifest.path(made.manifest.rows[0], "card").read_text(encoding="utf-8")
    assert words in card


def test_without_a_choice_or_its_checkpoint_it_says_what_to_do(tiny_base, checkpoints, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="checkpoint_scores"):
        publish(judged(tmp_path / "s", None), checkpoints, tmp_path / "out", PublishSettings(), tiny_base, CARD)
    with pytest.raises(PipelineError, match="no checkpoint any more"):
        publish(
            judged(tmp_path / "s", 2),
            Manifest(tmp_path, checkpoints.rows[:1]),
            tmp_path / "out",
            PublishSettings(),
            tiny_base,
            CARD,
        )
