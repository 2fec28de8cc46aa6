"""`lora-pipeline import`, from the terminal's words to subject.yaml."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from lora_pipeline.cli import app
from lora_pipeline.errors import PipelineError, SettingsError, SubjectError
from lora_pipeline.store import Store
from lora_pipeline.subject import load

JSON = {"params": {"unetLR": 0.0005, "networkDim": 8, "maxTrainEpochs": 7, "textEncoderLR": 0.00005, "keepToken": 1}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home, with a picture folder and a JSON beside it."""
    folder = tmp_path / "12_jx265 woman"
    folder.mkdir()
    Image.new("RGB", (80, 60), "teal").save(folder / "a.jpg")
    (folder / "a.txt").write_text("jx265, red shirt\n")
    (tmp_path / "civitai.json").write_text(json.dumps(JSON))
    return tmp_path


def run(home: Path, source: str, *words: str) -> Result:
    given = ["import", str(home / source), "--name", "jane", "--home", str(home), *words]
    return CliRunner().invoke(app, given)


def done(result: Result) -> str:
    assert result.exception is None, result.exception
    return result.output


def failed(result: Result) -> PipelineError:
    assert isinstance(result.exception, PipelineError), result.output
    return result.exception


def store(home: Path) -> Store:
    return Store(home / "data")


def test_a_folder_becomes_a_subject_with_captions_by_hand(home):
    output = done(run(home, "12_jx265 woman", "--consent", "Jane, 2026-11-01, her own use"))
    assert "encode.repeats = 12" in output
    jane = load(store(home), "jane")
    assert (jane.photos, jane.trigger, jane.class_word, jane.kind) == (
        home / "12_jx265 woman",
        "jx265",
        "woman",
        "person",
    )
    assert jane.whole_settings().encode.repeats == 12
    assert jane.consent is not None
    assert (store(home).subject("jane") / "captions" / "a.txt").read_text() == "jx265, red shirt\n"


def test_a_json_wants_to_be_told_whose_photos(home):
    assert "add --photos, --trigger, --class" in str(failed(run(home, "civitai.json")))
    assert not store(home).subjects.exists()
    words = ["--photos", str(home / "12_jx265 woman"), "--trigger", "jx265", "--class", "woman"]
    output = done(run(home, "civitai.json", *words))
    assert "fit.text_encoder_lr = 5e-05" in output
    assert "did you mean 'keepTokens'?" in output
    assert "No consent is recorded yet" in output
    fit = load(store(home), "jane").whole_settings().fit
    assert (fit.unet_lr, fit.network_dim, fit.epochs) == (5e-4, 8, 7)


def test_a_subject_that_is_there_is_changed_only_if_asked_and_keeps_all_but_the_settings(home):
    done(run(home, "12_jx265 woman", "--consent", "Jane, 2026-11-01, her own use"))
    file = store(home).subject("jane") / "subject.yaml"
    tree = yaml.safe_load(file.read_text())
    tree["settings"]["curate"] = {"min_sharpness": 3}
    file.write_text("# mine\n" + yaml.safe_dump(tree))
    before = file.read_text()
    told = str(failed(run(home, "civitai.json", "--trigger", "other")))
    assert "nothing was changed" in told
    assert "fit.epochs: 10 → 7" in told
    assert file.read_text() == before
    output = done(run(home, "civitai.json", "--trigger", "other", "--change"))
    assert "fit.epochs: 10 → 7" in output
    assert "as it was: subject.before-1.yaml" in output
    assert (file.parent / "subject.before-1.yaml").read_text() == before
    jane = load(store(home), "jane")
    assert jane.trigger == "jx265"
    assert jane.consent is not None
    whole = jane.whole_settings()
    assert (whole.fit.epochs, whole.encode.repeats, whole.curate.min_sharpness) == (7, 12, 3)
    assert "already says all of it" in done(run(home, "civitai.json"))


def test_a_caption_by_hand_is_never_overwritten(home):
    done(run(home, "12_jx265 woman"))
    caption = store(home).subject("jane") / "captions" / "a.txt"
    caption.write_text("jx265, what I wrote\n")
    assert "kept 1 captions that are there and say otherwise: a.txt" in done(run(home, "12_jx265 woman"))
    assert caption.read_text() == "jx265, what I wrote\n"


def test_what_is_wrong_is_told_and_writes_nothing(home):
    assert isinstance(failed(run(home, "12_jx265 woman", "--kind", "pest")), SettingsError)
    assert isinstance(failed(run(home, "12_jx265 woman", "--recipe", "sd15_persn")), SettingsError)
    assert isinstance(failed(run(home, "12_jx265 woman", "--photos", str(home / "gone"))), SubjectError)
    assert "say who agreed" in str(failed(run(home, "12_jx265 woman", "--consent", "Jane")))
    assert "cannot be read" in str(failed(run(home, "gone.json")))
    assert not store(home).subjects.exists()
