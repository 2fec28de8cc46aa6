"""Where a base model's weights are: in the package, in a folder, in one file, or on the hub. Imports neither torch nor diffusers."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_pipeline.errors import ModelError
from lora_pipeline.manifest import key_of
from lora_pipeline.settings import BaseSettings
from lora_pipeline.store import DigestCache, digest_bytes

BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).parents[1] / "demo" / "base"
SINGLE_FILE = ".safetensors"
TOKEN_VARIABLE = "HF_TOKEN"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Weights:
    """Where one model lies.

    Args:
        named: as it was written in the settings.
        path: a folder or a .safetensors file on this disk; None for a hub id.
        hub: the hub id, or empty.
        revision: commit, tag or branch of the hub id; empty for its newest.
    """

    named: str
    path: Path | None = None
    hub: str = ""
    revision: str = ""

    @property
    def is_file(self) -> bool:
        """Whether all of it is in one .safetensors file."""
        return self.path is not None and self.path.is_file()


def weights_of(named: str, revision: str = "") -> Weights:
    """Understand what was written in the settings. Raises ModelError if it is neither there nor a hub id."""
    if named == BUNDLED:
        if not (BUNDLED_FOLDER / "model_index.json").exists():
            raise ModelError(
                f"the small model that ships here is missing: {BUNDLED_FOLDER} has no model_index.json; install the package again"
            )
        return Weights(named, path=BUNDLED_FOLDER)
    path = Path(named).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == SINGLE_FILE):
        return Weights(named, path=path.resolve())
    if path.is_file():
        raise ModelError(
            f"base model {path}: only diffusers folders and {SINGLE_FILE} files are read; other files may run code"
        )
    if _HUB_ID.fullmatch(named) and path.suffix != SINGLE_FILE and not named.startswith((".", "/", "~")):
        return Weights(named, hub=named, revision=revision)
    raise ModelError(
        f"base model '{named}' is not there: no such folder or {SINGLE_FILE} file, and no hub id (owner/name); set base.model"
    )


def base_path(base: BaseSettings) -> Path | None:
    """Folder or file of the base model on this disk; None if it is a hub id. Raises ModelError if it is missing."""
    return weights_of(base.model, base.revision).path


def digest_of(weights: Weights, parts: Sequence[str]) -> str:
    """Identity of some of a model's folders: of names and bytes on disk, id@commit#parts on the hub. Of a single file: of its bytes.

    Digests of files that have not changed are remembered in the person's cache folder, since gigabytes take seconds to read.
    """
    if weights.path is None:
        return f"{weights.hub}@{commit_of(weights)}#{','.join(parts)}"
    path = weights.path
    remembered = DigestCache(_cache_folder() / f"{digest_bytes(f'{path} {parts}'.encode())[:16]}.json")
    if path.is_file():
        digest = remembered.digest(path)
    else:
        files = sorted(file for part in parts for file in (path / part).rglob("*") if file.is_file())
        digest = key_of([(file.relative_to(path).as_posix(), remembered.digest(file)) for file in files])
    try:
        remembered.save()
    except OSError:  # a home that may not be written to costs time, nothing else
        return digest
    return digest


def commit_of(weights: Weights) -> str:
    """The commit of a hub id: the pinned one, else the one that was downloaded, else the hub's newest. Raises ModelError."""
    if _COMMIT.fullmatch(weights.revision):
        return weights.revision
    from huggingface_hub import constants

    branch = weights.revision or "main"
    reference = Path(constants.HF_HUB_CACHE) / f"models--{weights.hub.replace('/', '--')}" / "refs" / branch
    if reference.is_file():
        return reference.read_text(encoding="utf-8").strip()
    return str(_ask_hub(weights).sha)


def check_hub(weights: Weights, needed: Sequence[str]) -> None:
    """Make sure that a hub id's files are in the cache, or may be downloaded.

    Args:
        needed: files of the repository that say that it was downloaded before.

    Raises:
        ModelError: no such model or commit, a licence not accepted, or the hub cannot be reached.
    """
    if all(cached(weights, name) is not None for name in needed):
        return
    _ask_hub(weights)


def cached(weights: Weights, name: str) -> Path | None:
    """A hub id's file if it was downloaded before. Never asks the hub."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(weights.hub, name, revision=weights.revision or "main")
    return Path(found) if isinstance(found, str) else None


def read_json(weights: Weights, name: str) -> dict[str, Any] | None:
    """A JSON file of the model's folder, or None if it is not on this disk. Raises ModelError if it is damaged."""
    file = cached(weights, name) if weights.path is None else weights.path / name
    if file is None or not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"base model {weights.named}: {file} is damaged: {error}") from None


def _ask_hub(weights: Weights) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    page = f"https://huggingface.co/{weights.hub}"
    try:
        hub.auth_check(weights.hub)
        return hub.model_info(weights.hub, revision=weights.revision or None)
    except GatedRepoError:
        raise ModelError(
            f"base model {weights.hub} is gated: accept its licence at {page} while logged in, "
            f"make a token at https://huggingface.co/settings/tokens and put it into the variable {TOKEN_VARIABLE}"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(
            f"base model {weights.hub} has no revision '{weights.revision}'; see {page}/commits and set base.revision"
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"base model {weights.hub}: the hub has no such model, or it is private ({page}); mend base.model, "
            f"or put a token that may read it into the variable {TOKEN_VARIABLE}"
        ) from None
    except Exception as error:  # the hub's client changed its HTTP library twice; only its two calls are in this block
        raise ModelError(
            f"base model {weights.hub} was not downloaded yet, and the hub cannot be reached "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}); try again later, or set base.model to a folder on this disk"
        ) from None


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lora-pipeline" / "digests"
