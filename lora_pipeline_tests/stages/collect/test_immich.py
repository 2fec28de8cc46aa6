"""A small server that speaks Immich's documented API: people, metadata search, faces of an asset, originals."""

import base64
import hashlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from lora_pipeline.errors import SourceError
from lora_pipeline.manifest import Outcome, planning
from lora_pipeline.records import Photo
from lora_pipeline.settings import CollectSettings
from lora_pipeline.stages.collect import collect, glance
from lora_pipeline.store import digest_bytes
from lora_pipeline.subject import Immich

KEY = "k3y"
PAGE = 2  # the server gives no more at once, whatever is asked for
JANE, JANE_AGAIN, JOHN = ("11111111-0000-4000-8000-00000000000" + one for one in "123")


def photo(shade: int) -> bytes:
    """80 × 40 pixels, upright 40 × 80."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 8
    Image.new("RGB", (80, 40), (shade, 80, 80)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@dataclass
class Server:
    """What the server holds, and what it was asked."""

    address: str = ""
    people: list[dict[str, Any]] = field(default_factory=list)
    assets: dict[str, dict[str, Any]] = field(default_factory=dict)
    originals: dict[str, bytes] = field(default_factory=dict)
    faces: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def person(self, id: str, name: str, hidden: bool = False) -> None:
        self.people.append({"id": id, "name": name, "birthDate": None, "isHidden": hidden, "thumbnailPath": "/t.jpg"})

    def asset(self, number: int, name: str, person: str = JANE, data: bytes | None = None, **said: Any) -> str:
        """An asset on which a person's face is at a quarter to a half of the preview, and nobody's beside it."""
        id = f"a{number:07d}-0000-4000-8000-000000000000"
        self.originals[id] = photo(number) if data is None else data
        self.assets[id] = {
            "id": id,
            "type": "IMAGE",
            "originalFileName": name,
            "originalPath": f"/upload/{id}",
            "checksum": base64.b64encode(hashlib.sha1(self.originals[id]).digest()).decode(),
            "fileModifiedAt": "2024-05-01T10:00:00.000Z",
            "isTrashed": False,
            "isOffline": False,
            "isArchived": False,
            "visibility": "timeline",
            **said,
        }
        known = next(one for one in self.people if one["id"] == person)
        box = {"imageWidth": 720, "imageHeight": 1440, "boundingBoxX1": 180, "boundingBoxX2": 360}
        box |= {"boundingBoxY1": 720, "boundingBoxY2": 1080, "sourceType": "machine-learning"}
        self.faces[id] = [
            {"id": f"f{id}", **box, "person": known},
            {"id": f"g{id}", **box, "boundingBoxX1": 0, "person": None},
        ]
        return id

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> Any:
        if (method, path) == ("GET", "/api/people"):
            assert query["withHidden"] == ["true"]
            start = (int(query["page"][0]) - 1) * PAGE
            part = self.people[start : start + PAGE]
            return {
                "people": part,
                "total": len(self.people),
                "hidden": 0,
                "hasNextPage": start + PAGE < len(self.people),
            }
        if (method, path) == ("POST", "/api/search/metadata"):
            (person,) = body["personIds"]  # with several, Immich finds what shows all of them
            shown = [
                asset
                for id, asset in self.assets.items()
                if asset["type"] == body["type"]
                and any((face["person"] or {}).get("id") == person for face in self.faces[id])
            ]
            start = (body["page"] - 1) * PAGE
            more = str(body["page"] + 1) if start + PAGE < len(shown) else None
            part = shown[start : start + PAGE]
            none = {"total": 0, "count": 0, "items": [], "facets": []}
            return {"albums": none, "assets": {"count": len(part), "items": part, "facets": [], "nextPage": more}}
        if (method, path) == ("GET", "/api/faces"):
            return self.faces[query["id"][0]]
        parts = path.split("/")
        if method == "GET" and parts[:3] == ["", "api", "assets"] and parts[4:] == ["original"]:
            return self.originals.get(parts[3])
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.give("GET", {})

        def do_POST(self) -> None:
            self.give("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def give(self, method: str, body: dict[str, Any]) -> None:
            asked = urlsplit(self.path)
            server.asked.append(f"{method} {asked.path}")
            if self.headers["x-api-key"] != KEY:
                return self.send(401, b'{"message": "Invalid API key"}')
            told = server.answer(method, asked.path, parse_qs(asked.query), body)
            if told is None:
                return self.send(404, b'{"message": "Not found"}')
            return self.send(200, told if isinstance(told, bytes) else json.dumps(told).encode())

        def send(self, code: int, data: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMMICH_API_KEY", KEY)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        server.address = f"http://127.0.0.1:{http.server_address[1]}"
        server.person("11111111-0000-4000-8000-000000000009", "")
        server.person(JOHN, "John Doe")
        server.person(JANE, "Jane Doe")
        yield server
        http.shutdown()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def run(server: Server, work: Path, **changes: Any) -> Outcome:
    source = Immich.model_validate({"person": "Jane Doe", "address": server.address, **changes})
    return collect(source, work, CollectSettings())


def states(outcome: Outcome) -> dict[str, str]:
    return {row.id.partition("/")[2]: row.reason or row.state for row in outcome.manifest.rows}


def test_the_photos_of_a_person_with_the_face(server: Server, work: Path) -> None:
    first = server.asset(1, "IMG 1.jpg")
    for number in range(2, 6):
        server.asset(number, "IMG.jpg")  # Immich is content with equal names
    server.asset(6, "other.jpg", JOHN)
    server.asset(7, "film.mov", type="VIDEO")
    told = run(server, work)
    assert sorted(states(told)) == ["IMG 1.jpg", "IMG.jpg"]
    assert len(told.manifest.kept) == 5
    found = Photo.of(told.manifest.row(f"{first}/IMG 1.jpg"))
    assert (found.width_px, found.height_px, found.digest) == (40, 80, digest_bytes(photo(1)))
    # Of the preview's 720 × 1440 pixels, in those of the upright picture; nobody's face beside it is not hers.
    assert found.known_faces == ((10, 40, 20, 60),)
    assert Path(found.path).read_bytes() == photo(1)
    assert Path(found.path).parent == work / "originals"


def test_an_original_is_fetched_once_and_swept_when_it_leaves(server: Server, work: Path) -> None:
    ids = [server.asset(number, f"{number}.jpg") for number in range(3)]
    run(server, work)
    fetched = [asked for asked in server.asked if asked.endswith("/original")]
    assert sorted(fetched) == [f"GET /api/assets/{id}/original" for id in ids]
    with planning():
        run(server, work)
    again = run(server, work)
    assert (again.report.computed, again.report.reused) == (0, 3)
    del server.assets[ids[0]]
    box = server.faces[ids[1]][0]
    box["boundingBoxX2"] = 720
    told = run(server, work)
    assert set(states(told)) == {"1.jpg", "2.jpg"}
    assert Photo.of(told.manifest.row(f"{ids[1]}/1.jpg")).known_faces == ((10, 40, 40, 60),)
    # The box has moved, the file is the same: it is not fetched again.
    assert [asked for asked in server.asked if asked.endswith("/original")] == fetched
    assert len(list((work / "originals").iterdir())) == 2
    server.asset(2, "2.jpg", data=photo(99))
    assert run(server, work).report.computed == 1
    assert {path.read_bytes() for path in (work / "originals").iterdir()} == {photo(1), photo(99)}
    assert {asked.split()[0] for asked in server.asked if "search/metadata" not in asked} == {"GET"}


def test_what_immich_leaves_out_is_left_out_with_its_reason(server: Server, work: Path) -> None:
    server.asset(1, "good.jpg", visibility="archive")
    server.asset(2, "trashed.jpg", isTrashed=True)
    server.asset(3, "locked.jpg", visibility="locked")
    server.asset(4, "offline.jpg", isOffline=True)
    server.asset(5, "raw.NEF")
    server.asset(6, "broken.jpg", data=b"no picture")
    assert states(run(server, work)) == {
        "good.jpg": "kept",
        "trashed.jpg": "it is in Immich's trash",
        "locked.jpg": "it is locked in Immich",
        "offline.jpg": "its file is offline, says Immich",
        "raw.NEF": "a camera's raw file: export it as JPEG, PNG or TIFF",
        "broken.jpg": "the file is not a picture that can be read here",
    }


def test_an_original_that_does_not_come_now_is_asked_for_again(server: Server, work: Path) -> None:
    id = server.asset(1, "a.jpg")
    server.asset(2, "b.jpg")
    data = server.originals.pop(id)
    assert states(run(server, work))["a.jpg"].startswith("it could not be fetched from Immich")
    server.originals[id] = data
    told = run(server, work)
    assert (states(told)["a.jpg"], told.report.computed) == ("kept", 1)


def test_two_people_of_one_name_are_one_and_a_misspelt_name_is_told(server: Server, work: Path) -> None:
    server.person(JANE_AGAIN, "jane doe", hidden=True)
    server.asset(1, "a.jpg")
    server.asset(2, "b.jpg", JANE_AGAIN)
    assert set(states(run(server, work))) == {"a.jpg", "b.jpg"}
    with pytest.raises(SourceError, match="knows nobody named 'Jane Dow'; did you mean 'Jane Doe'"):
        run(server, work, person="Jane Dow")
    with pytest.raises(SourceError, match="no photo on which it has recognised John Doe"):
        run(server, work, person="John Doe")


def test_a_server_out_of_reach_is_told_in_words(server: Server, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"http://127.0.0.1:1 does not answer: .*is source.immich.address right"):
        run(server, work, address="http://127.0.0.1:1")
    server.people[0].pop("name")
    with pytest.raises(SourceError, match="answers otherwise than its API says"):
        run(server, work)
    monkeypatch.setenv("OTHER_KEY", "wr0ng")
    with pytest.raises(SourceError, match="the key in OTHER_KEY is not accepted; it needs person") as told:
        run(server, work, key_env="OTHER_KEY")
    assert "wr0ng" not in str(told.value)
    monkeypatch.delenv("OTHER_KEY")
    with pytest.raises(SourceError, match="environment variable OTHER_KEY, which is not set"):
        run(server, work, key_env="OTHER_KEY")


def test_a_glance_tells_whether_anything_changed_and_fetches_nothing(server: Server) -> None:
    ids = [server.asset(number, f"{number}.jpg") for number in range(3)]
    server.asset(9, "other.jpg", JOHN)
    source = Immich(person="Jane Doe", address=server.address)
    seen = [glance(source), glance(source)]
    assert seen[0] == seen[1]
    server.asset(8, "more.jpg", JOHN)
    assert glance(source) == seen[0]
    server.asset(3, "3.jpg")
    seen.append(glance(source))
    server.assets[ids[0]]["isTrashed"] = True
    seen.append(glance(source))
    server.asset(1, "1.jpg", data=photo(99))
    seen.append(glance(source))
    del server.assets[ids[2]]
    seen.append(glance(source))
    assert len(set(seen)) == 5
    assert {asked.partition(" ")[2] for asked in server.asked} == {"/api/people", "/api/search/metadata"}
    with pytest.raises(SourceError, match="does not answer"):
        glance(Immich(person="Jane Doe", address="http://127.0.0.1:1"))
