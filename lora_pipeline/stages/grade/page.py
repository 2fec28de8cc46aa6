"""A page to judge by: one HTML file that opens from the disk, without a server; its looks and its script are `page.html`."""

import json
import os
from pathlib import Path
from typing import Any

from lora_pipeline.manifest import Item, Made, Manifest, Outcome, Report, read, refresh
from lora_pipeline.records import Checkpoint, Row, Value
from lora_pipeline.stages.grade.draw import Drawn
from lora_pipeline.stages.grade.grid import prompts_in
from lora_pipeline.store import write_text

CODE_VERSION = "1"
FILE = "index.html"
TABLE = "page"
TEMPLATE = Path(__file__).with_name("page.html")

_HOW = {  # what stands beside a large picture, in these words
    "negative_prompt": "negative prompt",
    "sampling_steps": "steps",
    "guidance_scale": "guidance",
    "size_px": "size (px)",
    "scheduler": "scheduler, digest of its configuration",
    "base": "base model (digest)",
    "batch": "drawn in a batch of",
}


def make_page(
    grids: Manifest,
    checkpoints: Manifest,
    name: str,
    title: str,
    curve: Path | None,
    scores: Manifest | None = None,
    chart: Path | None = None,
) -> Outcome:
    """Write `index.html` beside the pictures: prompts down, epochs across, the base model first, a slider for strengths if there are several.

    It names pictures and curve by their paths from there, and holds no other path, so the subject's folder can be moved or packed.

    Args:
        grids: as `draw_grids` made it, into whose folder the page is written. Its table there is `page`, with one row.
        checkpoints: their digests are told.
        name: the subject's, for the command that draws a picture again.
        title: of the page.
        curve: picture of the losses, if there is one.
        scores: as `score` made it: every field is shown. None keeps those that the page shows, as long as the pictures are the same.
        chart: picture of the scores, if there is one.
    """
    folder = grids.folder
    if scores is None and (shown := _shown(grids)) is not None:
        return Outcome(shown, Report(reused=1))
    above = {"each epoch's distance to the subject": chart, "the loss of each step and each epoch's mean": curve}
    curves = [
        {"path": Path(os.path.relpath(file, folder)).as_posix(), "words": words}
        for words, file in above.items()
        if file is not None and file.exists()
    ]
    data = _data(grids, checkpoints, scores) | {"name": name, "title": title, "curves": curves}

    def make(data: dict[str, Any], folder: Path) -> Made:
        text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # so that no prompt ends the script
        write_text(folder / FILE, TEMPLATE.read_text(encoding="utf-8").replace("DATA", text, 1))
        return Made({"drawn": grids.digest}, {"page": FILE})

    items = [Item("page", [data, TEMPLATE.read_text(encoding="utf-8")], data)]
    return refresh(
        folder, items, make, settings=None, code_version=CODE_VERSION, name=TABLE, what="write the page of pictures"
    )


def _shown(grids: Manifest) -> Manifest | None:
    """The page's table, if it shows these very pictures."""
    made = read(grids.folder, TABLE)
    same = [row for row in made.rows if row.data.get("drawn") == grids.digest]
    return made if same and (grids.folder / FILE).exists() else None


def _data(grids: Manifest, checkpoints: Manifest, scores: Manifest | None) -> dict[str, Any]:
    judged = {} if scores is None else {int(row.id): row for row in scores.rows}
    loras = {Checkpoint.of(row).epoch: row.files["lora"].digest for row in checkpoints.kept}
    words: dict[str, str] = {}
    hows: list[dict[str, Any]] = []
    pictures: dict[str, dict[str, Any]] = {}
    places = [(row, *_place(row)) for row in grids.rows]
    seeds: dict[str, set[int]] = {}
    for row, _, prompt, seed, _ in places:
        seeds.setdefault(prompt, set()).add(seed)
        if row.state != "kept":
            pictures[row.id] = {"why": row.reason}
            continue
        drawn = Drawn.of(row)
        words[prompt] = drawn.prompt
        how = {told: getattr(drawn, field) for field, told in _HOW.items()} if drawn.sampling_steps else {}
        if how not in hows:
            hows.append(how)
        pictures[row.id] = {"path": row.files["picture"].path, "how": hows.index(how)}
    told = {epoch: _told(row) for epoch, row in judged.items()}
    return {
        "epochs": [
            {
                "epoch": epoch,
                "lora": loras.get(epoch, ""),
                "chosen": epoch in judged and bool(judged[epoch].data.get("chosen")),
                "scores": told.get(epoch, {}),
            }
            for epoch in sorted({place[1] for place in places})
        ],
        "scores": list(dict.fromkeys(name for one in told.values() for name, words in one.items() if words)),
        "prompts": [
            {"id": prompt, "words": words.get(prompt, prompt), "seeds": sorted(seeds[prompt])}
            for prompt in prompts_in(grids)
        ],
        "strengths": sorted({0.0, *(place[4] for place in places)}),
        "hows": hows,
        "pictures": pictures,
    }


def _place(row: Row) -> tuple[int, str, int, float]:
    """Epoch, prompt, seed and strength, from the id: a failed row has no data."""
    epoch, prompt, end = row.id.split("/")
    seed, _, strength = end.partition("@")
    return int(epoch[1:]), prompt, int(seed[1:]), float(strength or 1)


def _told(score: Row) -> dict[str, str]:
    """Every field of a score by its name, and each of those fields that are lists of named measures, for a person to read."""
    told: dict[str, str] = {}
    measured: set[str] = set()
    for field, value in score.data.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
            for one in value:
                better = f" ({one['better']} is better)" if one.get("better") else ""
                told[f"{one['name']}{better}"] = _measured(one)
                measured.add(str(one["name"]))
        elif field not in {"epoch", "chosen"}:
            told[_spoken(field)] = _words(value)
    return {name: words for name, words in told.items() if name not in measured}  # it stands there with its interval


def _measured(one: dict[str, Any]) -> str:
    between = "" if one.get("low") is None else f" ({_words(one['low'])} to {_words(one.get('high'))})"
    return f"{_words(one.get('value'))}{between}"


def _spoken(field: str) -> str:
    return field.replace("_", " ")


def _words(value: Value) -> str:
    """Any field of a score, whatever it is, for a person to read."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_words(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{_spoken(name)} {_words(one)}" for name, one in value.items())
    return str(value)
