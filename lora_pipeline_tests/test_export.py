"""The finished set leaves for another trainer whole, and with nothing that tells where it came from."""

import datetime
import json
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lora_pipeline import flow, recall
from lora_pipeline.cli import app
from lora_pipeline.demo.photos import subject_identity
from lora_pipeline.demo.world import Scene, draw, random_identity
from lora_pipeline.errors import SettingsError, SubjectError
from lora_pipeline.export import export_dataset
from lora_pipeline.kohya import read
from lora_pipeline.store import Store
from lora_pipeline.subject import Consent, Subject, new

WHO, WHERE = "Anna_Rome", "IMG_471"
COLOURS = ("red", "blue", "green")
# What config_util.py of sd-scripts takes within a dataset with masks; it refuses every other key.
DATASET_KEYS = {"batch_size", "bucket_no_upscale", "bucket_reso_steps", "enable_bucket", "max_bucket_reso"}
DATASET_KEYS |= {"min_bucket_reso", "resolution", "network_multiplier", "subsets"}
SUBSET_KEYS = {"image_dir", "conditioning_data_dir", "caption_extension", "cache_info", "num_repeats", "flip_aug"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> flow.Work:
    """Three photos of one person, on one of which somebody else stands beside, as a phone names and tags them."""
    home = tmp_path_factory.mktemp("home")
    photos = home / "photos"
    photos.mkdir()
    me, other = subject_identity(), random_identity(np.random.default_rng(8))
    for number, others in enumerate([(), (), (other,)]):
        scene = Scene(
            "medium",
            size_px=(900, 700),
            others=others,
            yaw_deg=4.0 * number,
            shirt_colour=COLOURS[number],
            background_colour=COLOURS[number - 1],
        )
        exif = Image.Exif()
        exif[0x010F] = "Anna's phone"
        exif.get_ifd(0x8825)[2] = (41.0, 53.0, 24.0)
        draw(me, scene).picture.save(photos / f"{WHO}_{WHERE}{number}.jpg", quality=92, exif=exif)
    given = {
        "name": "anna",
        "kind": "person",
        "photos": photos,
        "reference": photos / f"{WHO}_{WHERE}0.jpg",
        "trigger": "jx265",
        "class": "young woman",
        "recipe": "bundled_person",
        "consent": Consent(given_by="nobody", given_on=datetime.date(2026, 1, 1), scope="drawn"),
        "settings": {"encode": {"repeats": 7, "caption_suffix": "film grain"}, "crop": {"framings": ["medium"]}},
    }
    store = Store(home / "data")
    new(store, Subject.model_validate(given))
    return flow.work(store, "anna")


@pytest.fixture(scope="module")
def kohya(work: flow.Work, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("to") / "set"
    assert "wrote 3 pictures" in export_dataset(work, "kohya", to)
    return to


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_kohya_folder_has_pictures_captions_and_masks_under_neutral_names(work: flow.Work, kohya: Path) -> None:
    name = "7_jx265 young woman"
    numbers = ("0001", "0002", "0003")
    assert files(kohya) == sorted(
        [
            "dataset.toml",
            *(f"img/{name}/{number}{suffix}" for number in numbers for suffix in (".png", ".txt")),
            *(f"mask/{name}/{number}.png" for number in numbers),
        ]
    )
    concealed = work.made("conceal")
    for number, row in zip(numbers, concealed.kept, strict=True):
        assert (kohya / "img" / name / f"{number}.png").read_bytes() == concealed.path(row).read_bytes()
        with Image.open(kohya / "mask" / name / f"{number}.png") as mask:
            hidden = int((np.asarray(mask) == 0).sum())
        assert (hidden > 100) == bool(row.data["strangers"])
    assert sum(bool(row.data["strangers"]) for row in concealed.kept) == 1


def test_nothing_tells_who_where_or_when(work: flow.Work, kohya: Path, tmp_path: Path) -> None:
    export_dataset(work, "hf", tmp_path / "hf")
    for folder in (kohya, tmp_path / "hf", *(work.folder(stage) for stage in ("collect", "crop", "conceal"))):
        for path in folder.rglob("*"):
            assert WHERE not in path.name
            table = folder.name in {"collect", "crop", "conceal"} and path.suffix in {".parquet", ".json"}
            if table or not path.is_file():  # by the tables here, lineage finds a photo
                continue
            assert not any(word in path.read_bytes() for word in (WHO.encode(), WHERE.encode(), b"Anna"))
            if path.suffix in {".png", ".jpg"}:
                with Image.open(path) as opened:
                    assert not opened.getexif()
                    assert not set(opened.info) & {"exif", "icc_profile", "comment", "XML:com.adobe.xmp", "Software"}


def test_it_comes_back_by_import_with_the_same_repeats_and_captions(work: flow.Work, kohya: Path) -> None:
    back = read(kohya)
    assert (back.trigger, back.class_word) == ("jx265", "young woman")
    assert back.changes["encode"]["repeats"] == 7
    texts = [f"{row.data['text']} film grain" for row in work.made("describe").kept]
    assert list(back.captions.values()) == texts
    assert all("jx265" in text for text in texts)


def test_sd_scripts_would_take_the_toml(work: flow.Work, kohya: Path) -> None:
    tree = tomllib.loads((kohya / "dataset.toml").read_text(encoding="utf-8"))
    assert set(tree) <= {"general", "datasets"}
    (dataset,) = tree["datasets"]
    (subset,) = dataset["subsets"]
    assert set(dataset) <= DATASET_KEYS
    assert set(subset) <= SUBSET_KEYS
    assert (kohya / subset["image_dir"]).is_dir()
    assert files(kohya / subset["conditioning_data_dir"]) == [
        name for name in files(kohya / subset["image_dir"]) if name.endswith(".png")
    ]
    assert (subset["num_repeats"], subset["caption_extension"], dataset["resolution"]) == (7, ".txt", 128)
    assert read(kohya / "dataset.toml", "bundled_person").changes["encode"]["repeats"] == 7


def test_a_zip_is_the_folder_and_the_same_bytes_each_time(work: flow.Work, kohya: Path, tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        export_dataset(work, "zip", tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert sorted(archive.namelist()) == files(kohya)
        assert all(archive.read(name) == (kohya / name).read_bytes() for name in archive.namelist())


def test_an_image_folder_has_a_line_a_picture(work: flow.Work, tmp_path: Path) -> None:
    export_dataset(work, "hf", tmp_path / "set")
    lines = [json.loads(line) for line in (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == ["0001.png", "0002.png", "0003.png"]
    assert all((tmp_path / "set" / line["mask_file_name"]).is_file() for line in lines)
    assert {line["repeats"] for line in lines} == {7}
    assert all(line["text"].startswith("jx265") for line in lines)


def test_where_it_was_written_is_remembered_here_for_who_forgets(work: flow.Work, kohya: Path) -> None:
    export = recall.exports(work.folder("conceal").parent)[str(kohya)]
    assert set(export.photos) == {row.data["digest"] for row in work.made("collect").kept}


def test_nothing_is_written_over_and_nothing_without_consent(work: flow.Work, kohya: Path, tmp_path: Path) -> None:
    before = files(kohya)
    for format in ("kohya", "zip", "hf"):
        with pytest.raises(SettingsError, match="is there already"):
            export_dataset(work, format, kohya)
    assert files(kohya) == before
    with pytest.raises(SettingsError, match="kohya, zip, hf"):
        export_dataset(work, "coco", tmp_path / "set")
    alone = replace(work, subject=work.subject.model_copy(update={"consent": None}))
    with pytest.raises(SubjectError, match="no consent"):
        export_dataset(alone, "kohya", tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_the_terminal_has_it(work: flow.Work, tmp_path: Path) -> None:
    home, to = str(work.store.data.parent), str(tmp_path / "set")
    done = CliRunner().invoke(app, ["export-dataset", "anna", "--to", to, "--home", home])
    assert done.exception is None
    assert (tmp_path / "set" / "dataset.toml").is_file()
