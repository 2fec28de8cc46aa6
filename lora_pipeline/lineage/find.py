"""What was meant: an epoch, a LoRA file, a drawn picture or a photo, by one of its many names."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from lora_pipeline.errors import PipelineError
from lora_pipeline.families.lora_file import read_metadata
from lora_pipeline.lineage.left import KeptCheckpoint, KeptRun, Left
from lora_pipeline.store import digest_file

_GRID_ID = re.compile(r"e(\d+)/p\d+/s\d+(?:@.+)?")
_EPOCH = re.compile(r"(?:epoch\s*)?0*(\d+)", re.IGNORECASE)

Found = tuple[str, KeptRun | None, KeptCheckpoint | None]  # what was asked about; no run: the base model


def find_checkpoint(left: Left, asked: str) -> Found | None:
    """The checkpoint that is meant, or None if nothing of the kind is. Raises PipelineError where it is meant but not there."""
    if number := _EPOCH.fullmatch(asked.strip()):
        return _of_epoch(left, int(number[1]))
    if asked.endswith(".safetensors"):
        return _of_file(left, asked)
    return _of_drawn(left, asked)


def _of_epoch(left: Left, epoch: int) -> Found:
    run = left.current
    if epoch == 0:
        return "epoch 0", None, None
    if run is None:
        raise PipelineError(f"{left.subject} has no checkpoint yet; train first (the asset lora_checkpoints)")
    one = run.epoch(epoch)
    if one is None:
        epochs = ", ".join(str(each.epoch) for each in run.checkpoints) or "none"
        raise PipelineError(f"the current run of {left.subject} has no epoch {epoch}; it has: {epochs}")
    return f"epoch {epoch}", run, one


def _of_file(left: Left, asked: str) -> Found | None:
    released = {left.released.path(row, role): row for row in left.released.kept for role in row.files}
    there = {one.path: one.digest for run in left.runs for one in run.checkpoints}
    named = [path for path in (*released, *there) if _is(path, asked)]
    path = Path(asked).expanduser() if Path(asked).expanduser().is_file() else named[0] if len(named) == 1 else None
    if path is None and named:
        # one file name in several runs: the current run's, which stands first
        path = named[0]
    if path is None:
        return None
    digest = digest_file(path)
    for row in left.released.kept:
        if digest in {file.digest for file in row.files.values()}:
            digest = str(row.data["checkpoint"])
    found = left.by_digest(digest) or _by_header(left, path)
    if found is None:
        raise PipelineError(
            f"{path} is not a LoRA of {left.subject} whose run is kept: neither its bytes nor its header are those of a checkpoint "
            f"under {', '.join(str(run.folder) for run in left.runs) or 'its work folder'}"
        )
    return str(path), *found


def _by_header(left: Left, path: Path) -> tuple[KeptRun, KeptCheckpoint] | None:
    """By what training wrote into the file's header: a file whose numbers were cast since."""
    try:
        told = read_metadata(path)
        key, epoch = told.get("run", ""), int(told.get("epoch", "0"))
    except (OSError, ValueError):
        return None
    run = next((run for run in left.runs if key and run.key == key), None)
    one = None if run is None else run.epoch(epoch)
    return None if run is None or one is None else (run, one)


def _of_drawn(left: Left, asked: str) -> Found | None:
    for row in left.grids.rows:
        drawn = left.grids.path(row) if "picture" in row.files else None
        if row.id == asked.removesuffix(".png") or (drawn is not None and _is(drawn, asked)):
            found = left.by_digest(str(row.data.get("checkpoint", "")))
            if found is not None:
                return f"picture {row.id}", *found
            if row.data.get("checkpoint") == "":
                return f"picture {row.id}", None, None
            number = _GRID_ID.fullmatch(row.id)
            return _of_epoch(left, int(number[1])) if number else None
    for run in left.runs:
        for path, epoch in run.samples:
            one = run.epoch(epoch)
            if one is not None and _is(path, asked):
                return f"sample {path.name}", run, one
    return None


def _is(path: Path, asked: str) -> bool:
    """Whether the path is meant: the whole of it, or its end."""
    given = Path(asked).expanduser()
    return given.resolve() == path.resolve() or path.parts[-len(given.parts) :] == given.parts


def find_photo(left: Left, asked: str) -> str | None:
    ids = left.photos
    if asked in ids:
        return asked
    given = Path(asked).expanduser().resolve()
    for row in left.stages["collect"].rows:
        if row.data.get("path") and Path(str(row.data["path"])).resolve() == given:
            return row.id
    ends = [id for id in ids if Path(id).parts[-len(Path(asked).parts) :] == Path(asked).parts]
    if len(ends) > 1:
        raise PipelineError(
            f"{len(ends)} photos of {left.subject} are named '{asked}': {', '.join(ends)}; give the path within the photo folder"
        )
    return ends[0] if ends else None


def checkpoint_names(left: Left) -> list[str]:
    current = left.current
    epochs = [str(one.epoch) for one in current.checkpoints] if current else []
    loras = [one.path.name for run in left.runs for one in run.checkpoints]
    released = [
        Path(file.path).name
        for row in left.released.kept
        for role, file in row.files.items()
        if role in {"lora", "webui"}
    ]
    return list(dict.fromkeys([*epochs, *released, *loras, *(row.id for row in left.grids.rows)]))


def unknown(left: Left, asked: str, what: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(asked, names, n=3, cutoff=0.4) or difflib.get_close_matches(
        Path(asked).name, names, n=3, cutoff=0.4
    )
    hint = (
        f"did you mean {' or '.join(repr(name) for name in near)}?"
        if near
        else f"there are: {', '.join(names[:12]) or 'none yet'}{', …' if len(names) > 12 else ''}"
    )
    return f"{left.subject} has no {what} '{asked}'; {hint}"
