"""Weights that are missing, gated or of another kind: told in words, before any other work. Nothing here loads torch."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lora_pipeline.errors import ModelError, SettingsError
from lora_pipeline.families import FAMILIES, base_path, family, weights
from lora_pipeline.families.lora_file import read_metadata
from lora_pipeline.settings import BaseSettings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def base(model, **more):
    return BaseSettings(family="sd15", model=str(model), **more)


def folder_of(path, unet=4, vae=4, kind="StableDiffusionPipeline"):
    """Files of the right names, without weights in them."""
    for part in ("unet", "vae", "text_encoder"):
        (path / part).mkdir(parents=True)
        (path / part / "model.safetensors").write_bytes(part.encode())
    for part in ("tokenizer", "scheduler"):
        (path / part).mkdir()
        (path / part / "config.json").write_text("{}")
    (path / "unet" / "config.json").write_text(json.dumps({"in_channels": unet}))
    (path / "vae" / "config.json").write_text(json.dumps({"latent_channels": vae}))
    (path / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return path


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine that answers as huggingface.co does; `hub.answers` is status and error code a path's beginning."""
    answers: dict[str, tuple[int, str]] = {}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            status, code = next(
                (answer for path, answer in answers.items() if self.path.startswith(path)), (404, "RepoNotFound")
            )
            body = json.dumps({"id": "some/model", "sha": COMMIT}).encode()
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield answers
    server.shutdown()
    server.server_close()


def test_a_folder_of_the_right_kind_passes(tmp_path):
    family("sd15").check(base(folder_of(tmp_path / "model")))


def test_what_is_missing_in_a_folder_is_named(tmp_path):
    folder = folder_of(tmp_path / "model")
    (folder / "vae" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"missing: vae/\*\.safetensors"):
        family("sd15").check(base(folder))


def test_another_familys_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="is a StableDiffusionXLPipeline"):
        family("sd15").check(base(folder_of(tmp_path / "model", kind="StableDiffusionXLPipeline")))


def test_an_inpainting_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="inpainting"):
        family("sd15").check(base(folder_of(tmp_path / "model", unet=9)))


def test_an_autoencoder_of_other_channels_is_refused(tmp_path):
    vae = folder_of(tmp_path / "other", vae=16) / "vae"
    with pytest.raises(ModelError, match="do not belong together"):
        family("sd15").check(base(folder_of(tmp_path / "model"), vae=str(vae)))


def test_a_pickle_is_refused(tmp_path):
    file = tmp_path / "model.ckpt"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match="may run code"):
        base_path(base(file))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "model.safetensors", "a/b.safetensors", "one two"])
def test_what_is_neither_there_nor_a_hub_id_is_told(name):
    with pytest.raises(ModelError, match="is not there"):
        family("sd15").check(base(name))


def test_the_bundled_model_is_found_in_the_package_or_said_to_be_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "BUNDLED_FOLDER", tmp_path / "base")
    with pytest.raises(ModelError, match="install the package again"):
        base_path(base("bundled"))
    folder_of(tmp_path / "base")
    assert base_path(base("bundled")) == tmp_path / "base"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gated_model_names_licence_and_token(hub, name):
    hub["/api/models/some/model"] = (403, "GatedRepo")
    with pytest.raises(ModelError, match=r"accept its licence at https://huggingface.co/some/model .*HF_TOKEN"):
        family(name).check(BaseSettings(family=name, model="some/model"))


def test_a_model_that_the_hub_has_not_is_told(hub):
    assert not hub
    with pytest.raises(ModelError, match="the hub has no such model"):
        family("sd15").check(base("some/model"))


def test_a_commit_that_the_hub_has_not_is_told(hub):
    hub["/api/models/some/model/revision"] = (404, "RevisionNotFound")
    hub["/api/models/some/model"] = (200, "")
    with pytest.raises(ModelError, match="has no revision 'old'"):
        family("sd15").check(base("some/model", revision="old"))


def test_a_hub_that_cannot_be_reached_is_told(hub, monkeypatch):
    assert not hub
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be reached"):
        family("sd15").check(base("some/model"))


def test_a_hub_ids_digest_is_its_commit(hub, tmp_path):
    one = family("sd15")
    assert one.digest(base("some/model", revision=COMMIT), "texts") == f"some/model@{COMMIT}#text_encoder,tokenizer"
    hub["/api/models/some/model"] = (200, "")
    assert f"some/model@{COMMIT}#" in one.digest(base("some/model"))
    refs = tmp_path / "hub" / "models--some--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("downloaded")
    assert "some/model@downloaded#" in one.digest(base("some/model"))  # what is here, not what is newest


def test_a_single_files_digest_is_of_its_bytes_whatever_the_part(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    one = family("sd15")
    one.check(base(file))
    first = one.digest(base(file))
    assert first == one.digest(base(file), "texts")
    file.write_bytes(b"others")
    assert one.digest(base(file)) != first


def test_an_unknown_family_gets_the_nearest_name():
    with pytest.raises(SettingsError, match="did you mean 'sd15'"):
        family("sd_15")


def test_a_files_words_are_read_back(tmp_path):
    from lora_pipeline.families.lora_file import write_lora

    write_lora(tmp_path / "x.safetensors", {}, {"b": "2", "a": "1"})
    assert read_metadata(tmp_path / "x.safetensors") == {"a": "1", "b": "2"}
