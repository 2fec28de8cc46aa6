"""An Immich server: the photos on which it has recognised a person, and where the face is.

Through its HTTP API (https://api.immich.app): `people`, `search/metadata`, `faces` and `assets/{id}/original`. Nothing is ever
sent but these questions. Each original is fetched once, into the stage's own folder.
"""

import base64
import difflib
import hashlib
import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import PassingError, SourceError
from lora_pipeline.manifest import key_of
from lora_pipeline.records import State
from lora_pipeline.stages.collect.folder import raw
from lora_pipeline.stages.collect.found import Found, Fractions
from lora_pipeline.store import whole
from lora_pipeline.subject import Immich

if TYPE_CHECKING:
    import httpx

WAIT_S = 60.0
GLANCE_WAIT_S = 15.0
PAGE = 500
AT_ONCE = 8
PERMISSIONS = "person.read, face.read, asset.read and asset.download"


def find(source: Immich, into: Path) -> list[Found]:
    """A row an asset that shows the person, in order of id; an id is the asset's and its original name.

    What is in the trash, offline, locked or hidden is a row with the reason.

    Args:
        source: which server, and who.
        into: where originals will lie when they are fetched.

    Raises:
        SourceError: the server cannot be reached, refuses the key or answers oddly, or nobody on it has the name.
    """
    with _client(source) as client:
        people = _people(client, source.person)
        assets = {asset["id"]: asset for person in people for asset in _assets(client, person)}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            faces = pool.map(partial(_faces, client, people), assets)
            found = [_found(source, asset, boxes, into) for asset, boxes in zip(assets.values(), faces, strict=True)]
    if not found:
        raise SourceError(
            f"Immich has no photo on which it has recognised {source.person}; name some faces in it first"
        )
    return sorted(found, key=lambda one: one.id)


def glance(source: Immich) -> str:
    """A digest of what the server lists now of the person's photos: another one when a photo came, went or changed.

    A request for each 500 photos, and nothing of theirs is fetched. Of faces it is not asked, so one that was only moved is not noticed.

    Raises:
        SourceError: as `find`.
    """
    with _client(source, GLANCE_WAIT_S) as client:
        assets = [asset for person in _people(client, source.person) for asset in _assets(client, person)]
        return key_of(sorted([_id(one), _version(one), *_problem(one, _name(one))] for one in assets))


def _people(client: "httpx.Client", name: str) -> set[str]:
    """Ids of all who have the name: Immich may hold one person twice, before somebody merges them."""
    names: dict[str, set[str]] = {}
    page = 1
    while True:
        told = _json(client.get("people", params={"withHidden": "true", "page": page, "size": PAGE}))
        for person in told["people"]:
            names.setdefault(person["name"], set()).add(person["id"])
        if not told.get("hasNextPage"):
            break
        page += 1
    same = [ids for one, ids in names.items() if one.casefold() == name.strip().casefold()]
    if same:
        return set().union(*same)
    named = [one for one in names if one]
    near = difflib.get_close_matches(name, named, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(named)[:12]) or 'none yet'}"
    raise SourceError(f"source.immich.person: Immich knows nobody named '{name}'; {hint}")


def _assets(client: "httpx.Client", person: str) -> Iterator[dict[str, Any]]:
    page: str | None = "1"
    while page:
        asked = {"personIds": [person], "type": "IMAGE", "page": int(page), "size": PAGE}
        told = _json(client.post("search/metadata", json=asked))["assets"]
        yield from told["items"]
        page = told["nextPage"]


def _faces(client: "httpx.Client", people: set[str], asset: str) -> tuple[Fractions, ...]:
    """Where the person's face is. Immich counts pixels of the preview that it looked at, whose size it tells."""
    boxes: list[Fractions] = []
    for face in _json(client.get("faces", params={"id": asset})):
        width, height = face["imageWidth"], face["imageHeight"]
        if (face.get("person") or {}).get("id") in people and width and height:
            left, top = face["boundingBoxX1"] / width, face["boundingBoxY1"] / height
            boxes.append((left, top, face["boundingBoxX2"] / width - left, face["boundingBoxY2"] / height - top))
    return tuple(sorted(boxes))


def _found(source: Immich, asset: dict[str, Any], faces: tuple[Fractions, ...], into: Path) -> Found:
    name, id, version = _name(asset), _id(asset), _version(asset)
    path = into / f"{key_of(id, version)[:16]}{PurePosixPath(name).suffix.lower()}"
    problem, state = _problem(asset, name)
    return Found(id, str(path), problem, state, faces=faces, version=version, fetch=partial(_fetch, source, asset))


def _name(asset: dict[str, Any]) -> str:
    return PurePosixPath(asset["originalFileName"]).name


def _id(asset: dict[str, Any]) -> str:
    return f"{asset['id']}/{_name(asset)}"


def _version(asset: dict[str, Any]) -> str:
    """The checksum of an external library's file is that of its path, so its time counts too."""
    return f"{asset['checksum']} {asset.get('fileModifiedAt', '')}"


def _problem(asset: dict[str, Any], name: str) -> tuple[str, State]:
    if asset.get("isTrashed"):
        return "it is in Immich's trash", "dropped"
    if asset.get("visibility") in {"locked", "hidden"}:
        return f"it is {asset['visibility']} in Immich", "dropped"
    if asset.get("isOffline"):
        return "its file is offline, says Immich", "dropped"
    return raw(name), "failed"


def _fetch(source: Immich, asset: dict[str, Any], path: Path) -> None:
    """Bring the original, unless it lies there already. A server that does not answer now may later: the next run tries again."""
    import httpx

    if path.is_file() and _sha1(path) == asset["checksum"]:
        return
    try:
        with _client(source) as client, client.stream("GET", f"assets/{asset['id']}/original") as answer:
            answer.raise_for_status()
            with whole(path) as aside, aside.open("wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)
    except (httpx.HTTPError, SourceError) as error:
        raise PassingError(f"it could not be fetched from Immich: {error}") from None


def _sha1(path: Path) -> str:
    """As Immich writes it: base64 (AssetResponseDto.checksum)."""
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha1").digest()).decode()


@contextmanager
def _client(source: Immich, wait_s: float = WAIT_S) -> "Generator[httpx.Client]":
    import httpx

    key = os.environ.get(source.key_env)
    if not key:
        raise SourceError(
            f"Immich's API key is looked for in the environment variable {source.key_env}, which is not set; make one under Account Settings, with the permissions {PERMISSIONS}"
        )
    address = source.address.rstrip("/").removesuffix("/api") + "/api/"
    try:
        with httpx.Client(base_url=address, headers={"x-api-key": key}, timeout=wait_s) as client:
            yield client
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        why = f"the key in {source.key_env} is not accepted; it needs {PERMISSIONS}" if code in {401, 403} else error
        raise SourceError(f"Immich at {source.address}: {why}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(
            f"Immich at {source.address} does not answer: {error}; is source.immich.address right?"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"Immich at {source.address} answers otherwise than its API says ({type(error).__name__}: {error}); is it an Immich?"
        ) from None


def _json(answer: "httpx.Response") -> Any:
    return answer.raise_for_status().json()
