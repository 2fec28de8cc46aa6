"""A release put on a hub: a server on loopback that speaks the endpoints that huggingface_hub asks for such a commit."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline import manifest
from lora_pipeline.records import File, Row
from lora_pipeline.stages.publish import copies
from lora_pipeline.store import Store, digest_bytes
from lora_pipeline.subject import Subject, new

FILES = {
    "lora": ("zx1.safetensors", b"the numbers"),
    "webui": ("zx1-webui.safetensors", b"the same numbers"),
    "card": ("README.md", b"# zx1"),
    "lineage": ("lineage.json", b'{"photos": [{"path": "holiday/jane.jpg"}]}'),
    "picture 01": ("images/01.png", b"a picture"),
    "preview": ("zx1-webui.preview.png", b"a picture"),
}


@dataclass
class Hub:
    """What a hub holds, and what it was asked."""

    address: str = ""
    private: bool | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        told: Any = json.loads(body) if body and method == "POST" and "/commit/" not in path else {}
        if path == "/api/repos/create":
            if self.private is not None:
                return 409, {"url": f"{self.address}/jane/zx1"}
            self.private = told["visibility"] == "private"
            return 200, {"url": f"{self.address}/jane/zx1"}
        if path == "/api/models/jane/zx1":
            return 200, {
                "id": "jane/zx1",
                "private": self.private,
                "siblings": [{"rfilename": one} for one in self.files],
            }
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            modes = [
                (one["path"], "lfs" if one["path"].endswith(".safetensors") else "regular") for one in told["files"]
            ]
            return 200, {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.address}/store/{one['oid']}"}}}
                for one in told["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if path.startswith("/store/"):
            self.stored[path.removeprefix("/store/")] = body
            return 200, {}
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                self.commit(line["key"], line["value"])
            return 200, {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": f"{self.address}/jane/zx1/commit/{'0' * 40}",
            }
        return 404, {"error": path}

    def commit(self, key: str, value: Any) -> None:
        if key == "file":
            self.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.files[value["path"]] = self.stored[value["oid"]]
        elif key == "deletedFile":
            del self.files[value["path"]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b"".join(iter(self.chunk, b""))
            path = self.path.partition("?")[0]
            allowed = path.startswith("/store/") or self.headers.get("Authorization") == "Bearer hf_jane"
            status, told = hub.answer(self.command, path, body) if allowed else (401, {"error": "who are you?"})
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def chunk(self) -> bytes:
            data = self.rfile.read(int(self.rfile.readline(), 16))
            self.rfile.readline()
            return data

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()


def push(
    hub: Hub, home: Path, *more: str, uses: tuple[str, ...] = ("training", "share_file", "share_pictures")
) -> subprocess.CompletedProcess[str]:
    """Release as the terminal does, in a process of its own, since huggingface_hub reads its address when it is imported."""
    store = Store(home / "data")
    if not store.subject("jane").exists():
        consent = {"given_by": "Jane", "given_on": "2026-01-01", "scope": "tests", "uses": uses}
        given = {"name": "jane", "kind": "person", "photos": home, "trigger": "zx1", "class": "woman"}
        new(store, Subject.model_validate({**given, "recipe": "bundled_person", "consent": consent}))
    folder = store.work("jane", "publish")
    for name, data in FILES.values():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    files = {role: File(name, digest_bytes(data)) for role, (name, data) in FILES.items()}
    manifest.write(folder, [Row("released", "k", data={"run": "r" * 64, "epoch": 3}, files=files)])
    where = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "lora_pipeline.cli",
            "release",
            "jane",
            "--push-to-hub",
            "jane/zx1",
            "--home",
            str(home),
            *more,
        ],
        env={**os.environ, "HF_TOKEN": "hf_jane", **where},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_goes_there_in_private_without_the_photos_names(hub: Hub, tmp_path: Path) -> None:
    done = push(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{hub.address}/jane/zx1/commit/{'0' * 40}"
    assert hub.private is True
    assert hub.files == {name: data for role, (name, data) in FILES.items() if role != "lineage"}
    there = copies(Store(tmp_path / "data").work("jane", "publish"))
    assert [one.to for one in there] == [f"{hub.address}/jane/zx1/zx1{end}.safetensors" for end in ("", "-webui")]

    hub.files["images/02.png"] = b"of an earlier release"
    assert push(hub, tmp_path).returncode == 0
    assert "images/02.png" not in hub.files


def test_what_is_public_already_is_not_added_to_unasked(hub: Hub, tmp_path: Path) -> None:
    hub.private = False
    done = push(hub, tmp_path)
    assert done.returncode == 2
    assert "jane/zx1 is there already, and public: make it private first, or say --public" in done.stderr
    assert not hub.files
    done = push(hub, tmp_path, "--public")
    assert done.returncode == 0, done.stderr
    assert "zx1.safetensors" in hub.files


@pytest.mark.parametrize(
    ("uses", "words"),
    [
        (("training", "share_pictures"), "giving the LoRA to others (it covers training, share_pictures)"),
        (("training", "share_file"), "showing others pictures drawn with the LoRA (it covers training, share_file)"),
    ],
)
def test_without_the_consent_to_share_nothing_is_asked(hub: Hub, tmp_path: Path, uses, words: str) -> None:
    done = push(hub, tmp_path, uses=uses)
    assert done.returncode == 2
    assert f"does not cover {words}" in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.private is None
