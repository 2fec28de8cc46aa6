"""The labelled pictures: of all prompts, a row an epoch and a column a prompt; of each prompt, a column an epoch and a row a strength and seed."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Checkpoint, Row, Score
from lora_pipeline.stages.grade.draw import Drawn
from lora_pipeline.store import whole

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

CODE_VERSION = "2"
TOLD = "lora_pipeline.cells"  # the PNG's text that says how each of its pictures was drawn
PICTURE_SIDE_PX = 256  # of one picture in grid.png; all of it is in `pictures/`
LONGEST_SIDE_PX = 8192  # of grid.png
SEEDS_SHOWN = 2  # the others are in `by_prompt/` and on the page
SMALL_WIDTH_PX = 1280
SMALL_BYTES = 200_000

_GAP_PX = 3
_BLACK, _GREY, _PALE, _GREEN = (20, 20, 20), (110, 110, 110), (235, 235, 235), (30, 140, 60)


@dataclass(frozen=True)
class _Line:
    """One row of the grid: what stands at its left, and a picture a column and seed (None: it could not be drawn)."""

    title: str
    under: tuple[str, ...]
    pictures: tuple[tuple[Path | None, ...], ...]
    chosen: bool = False


@dataclass(frozen=True)
class _Table:
    headings: tuple[str, ...]
    lines: tuple[_Line, ...]
    side_px: int  # of the pictures on disk
    title: str = ""  # over all of it
    under: str = ""  # the title, in grey


def make_grid(
    grids: Manifest, checkpoints: Manifest, folder: Path, scores: Manifest | None = None, progress: Progress = silent
) -> Outcome:
    """Lay all validation pictures out in one, for a person to judge by.

    Args:
        grids: as `draw_grids` made it. Shown are those of strength 1.
        checkpoints: the losses are read from it.
        folder: where `grid.png` is written and, under 200 kB for a web page, `grid_small.jpg`. Its table is `grid`, with one
            row, whose files have the roles `picture` and `small`. With and without scores are two pictures: give each a folder.
        scores: if known, each row shows its distance, and the chosen epoch is framed.
        progress: told when it is done.
    """
    table = _table(grids, checkpoints, scores)
    seen = [[row.id, row.files["picture"].digest if row.files else ""] for row in _as_trained(grids)]
    told = [[line.title, list(line.under), line.chosen] for line in table.lines]

    def make(table: _Table, folder: Path) -> Made:
        _save(_full(table), _as_trained(grids), folder / "grid.png")
        with whole(folder / "grid_small.jpg") as aside:
            aside.write_bytes(_small(table))
        return Made(
            {"epochs": len(table.lines), "prompts": len(table.headings)},
            {"picture": "grid.png", "small": "grid_small.jpg"},
        )

    items = [Item("grid", [seen, list(table.headings), told], table)]
    return refresh(
        folder,
        items,
        make,
        settings=None,
        code_version=CODE_VERSION,
        name="grid",
        what="lay out the grid",
        progress=progress,
    )


def make_prompt_grids(grids: Manifest, folder: Path, progress: Progress = silent) -> Outcome:
    """Lay out each prompt's pictures in one: a column an epoch, the base model's first as control, a row a strength and seed.

    Args:
        grids: as `draw_grids` made it.
        folder: where `by_prompt/p01.png` and so on are written. Its table is `by_prompt`, with a row a prompt, whose file has the
            role `picture`.
        progress: told after each.
    """
    items: list[Item[tuple[str, _Table, list[Row]]]] = []
    for prompt in prompts_in(grids):
        rows = [row for row in grids.rows if row.id.split("/")[1] == prompt]
        table = _prompt_table(grids, rows)
        seen = [[row.id, row.files["picture"].digest if row.files else ""] for row in rows]
        items.append(Item(prompt, [seen, list(table.headings), table.title, table.under], (prompt, table, rows)))

    def make(one: tuple[str, _Table, list[Row]], folder: Path) -> Made:
        prompt, table, rows = one
        _save(_full(table), rows, folder / f"by_prompt/{prompt}.png")
        return Made({"prompt": table.title}, {"picture": f"by_prompt/{prompt}.png"})

    return refresh(
        folder,
        items,
        make,
        settings=None,
        code_version=CODE_VERSION,
        name="by_prompt",
        what="lay out a grid a prompt",
        progress=progress,
    )


def _save(picture: "Image", rows: Sequence[Row], path: Path) -> None:
    """Write a PNG that says of each picture in it, by its id, all that it takes to draw it again: the words in the picture are cut where they are long."""
    from PIL.PngImagePlugin import PngInfo

    told = PngInfo()
    cells = {row.id: dict(row.data) for row in rows if row.state == "kept"}
    told.add_itxt(TOLD, json.dumps(cells, ensure_ascii=False, sort_keys=True))
    with whole(path) as aside:
        picture.save(aside, pnginfo=told)


def _prompt_table(grids: Manifest, rows: Sequence[Row]) -> _Table:
    paths = {row.id: grids.path(row) for row in rows if row.state == "kept"}
    drawn = next((Drawn.of(row) for row in rows if row.state == "kept"), None)
    epochs = sorted({_epoch_of(row) for row in rows})
    ends = sorted({_end(row) for row in rows}, key=lambda end: (_strength(end), int(end.split("@")[0][1:])))
    lines: list[_Line] = []
    for end in ends:
        seed, prompt = end.split("@")[0], rows[0].id.split("/")[1]
        # the base model has no strengths: its picture of that seed stands beside each of them
        cells = [(paths.get(f"e{epoch:04d}/{prompt}/{end if epoch else seed}"),) for epoch in epochs]
        lines.append(_Line(f"strength {_strength(end):g}", (f"seed {int(seed[1:])}",), tuple(cells)))
    headings = tuple(f"epoch {epoch}" if epoch else "base model (strength 0)" for epoch in epochs)
    title, under = ("", "") if drawn is None else (drawn.prompt, _how_told(drawn))
    return _Table(headings, tuple(lines), _side_px(list(paths.values())), title, under)


def _how_told(drawn: Drawn) -> str:
    """What all pictures of a prompt have in common, in a line; empty of pictures that do not know it."""
    if not drawn.sampling_steps:
        return ""
    away = f"away from “{drawn.negative_prompt}”, " if drawn.negative_prompt else ""
    how = f"{drawn.sampling_steps} steps, guidance {drawn.guidance_scale:g}, {drawn.size_px} px"
    return f"{away}{how}, {drawn.scheduler.split(' ')[0]}".removesuffix(", ")


def _table(grids: Manifest, checkpoints: Manifest, scores: Manifest | None) -> _Table:
    cells: dict[int, dict[str, list[Path | None]]] = {}
    headings: dict[str, str] = {}
    rows = _as_trained(grids)
    for row in rows:
        epoch, column = _epoch_of(row), row.id.split("/")[1]
        path = grids.path(row) if row.state == "kept" else None
        cells.setdefault(epoch, {}).setdefault(column, []).append(path)
        if row.state == "kept":
            headings[column] = Drawn.of(row).prompt
    columns = prompts_in(grids)
    losses = {Checkpoint.of(row).epoch: Checkpoint.of(row).loss for row in checkpoints.kept}
    judged = {} if scores is None else {Score.of(row).epoch: Score.of(row) for row in scores.rows}
    lines: list[_Line] = []
    for epoch in sorted(cells):
        score = judged.get(epoch)
        pictures = tuple(tuple(cells[epoch].get(column, [])[:SEEDS_SHOWN]) for column in columns)
        under = [f"loss {losses[epoch]:.4f}"] if epoch in losses else []
        under += _told(score)
        lines.append(
            _Line(
                "base model" if epoch == 0 else f"epoch {epoch}",
                tuple(under),
                pictures,
                score is not None and score.chosen,
            )
        )
    side_px = _side_px([path for line in lines for cell in line.pictures for path in cell if path is not None])
    return _Table(tuple(headings.get(column, "") for column in columns), tuple(lines), side_px)


def _side_px(paths: Sequence[Path]) -> int:
    return min(PICTURE_SIDE_PX, open_upright(paths[0]).width) if paths else PICTURE_SIDE_PX


def _as_trained(grids: Manifest) -> list[Row]:
    """The rows of strength 1, and the base model's."""
    return [row for row in grids.rows if "@" not in row.id]


def prompts_in(grids: Manifest) -> list[str]:
    """`p01` and so on, in the order of the settings: p100 comes after p99."""
    return sorted({row.id.split("/")[1] for row in grids.rows}, key=lambda prompt: int(prompt[1:]))


def _end(row: Row) -> str:
    return row.id.split("/")[2]  # s0001, or s0001@0.5


def _strength(end: str) -> float:
    return float(end.partition("@")[2] or 1)


def _epoch_of(row: Row) -> int:
    return int(row.id.split("/")[0].removeprefix("e"))  # a failed row has no data


def _told(score: Score | None) -> list[str]:
    if score is None:
        return []
    distance = score.picture_distance if score.identity_distance is None else score.identity_distance
    told = [] if distance is None else [f"distance {distance:.2f}"]
    return [*told, "chosen"] if score.chosen else told


def _full(table: _Table) -> "Image":
    side_px = table.side_px
    picture = _compose(table, side_px)
    while max(picture.size) > LONGEST_SIDE_PX and side_px > 16:
        side_px = max(16, int(side_px * LONGEST_SIDE_PX / max(picture.size) * 0.98))
        picture = _compose(table, side_px)
    return picture


def _small(table: _Table) -> bytes:
    """A JPEG under 200 kB, laid out anew at that size rather than shrunk, so that the words stay legible."""
    across = len(table.headings) * max((len(cell) for line in table.lines for cell in line.pictures), default=1)
    side_px = min(table.side_px, max(24, SMALL_WIDTH_PX // max(across, 1)))
    while True:
        picture = _compose(table, side_px)
        if picture.width <= SMALL_WIDTH_PX or side_px <= 24:
            data = io.BytesIO()
            picture.save(data, "JPEG", quality=82)
            if data.tell() <= SMALL_BYTES or side_px <= 24:
                break
        side_px = max(24, int(side_px * 0.85))
    while data.tell() > SMALL_BYTES and min(picture.size) > 64:
        picture = picture.resize((int(picture.width * 0.8), int(picture.height * 0.8)))
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=75)
    return data.getvalue()


def _compose(table: _Table, side_px: int) -> "Image":
    from PIL import Image, ImageDraw

    text_px = max(11, min(20, side_px // 9))
    font, bold = _font("DejaVuSans.ttf", text_px), _font("DejaVuSans-Bold.ttf", text_px)
    line_px = round(text_px * 1.3)
    seeds = max((len(cell) for line in table.lines for cell in line.pictures), default=1)
    cell_px = seeds * (side_px + _GAP_PX) - _GAP_PX
    column_px = max(cell_px, 9 * text_px)
    between_px = max(8, side_px // 12)
    left_px = (
        max(int(font.getlength(word)) for word in ("distance 0.00 ", "loss 0.0000 ", "base model  ")) + 2 * between_px
    )
    headings = [_wrap(heading, font, column_px, 6) for heading in table.headings]
    wide_px = left_px + len(headings) * (column_px + between_px) - 2 * between_px
    title = _wrap(table.title, bold, wide_px, 4) if table.title else []
    told = [*title, *(_wrap(table.under, font, wide_px, 4) if table.under else [])]
    over_px = len(told) * line_px + (between_px if told else 0)
    top_px = over_px + max((len(words) for words in headings), default=0) * line_px + 2 * between_px
    row_px = max(side_px, 4 * line_px) + between_px

    sheet = Image.new(
        "RGB",
        (left_px + len(headings) * (column_px + between_px), top_px + len(table.lines) * row_px + between_px // 2),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for number, word in enumerate(told):
        ours = number < len(title)
        place = (between_px, between_px + number * line_px)
        pen.text(place, word, fill=_BLACK if ours else _GREY, font=bold if ours else font)
    for column, words in enumerate(headings):
        x = left_px + column * (column_px + between_px)
        for number, word in enumerate(words):
            pen.text((x, top_px - between_px - (len(words) - number) * line_px), word, fill=_BLACK, font=font)
    for number, line in enumerate(table.lines):
        y = top_px + number * row_px
        pen.text((between_px, y), line.title, fill=_GREEN if line.chosen else _BLACK, font=bold)
        for place, word in enumerate(line.under, start=1):
            pen.text(
                (between_px, y + place * line_px),
                word,
                fill=_GREEN if word == "chosen" else _GREY,
                font=bold if word == "chosen" else font,
            )
        for column, cell in enumerate(line.pictures):
            x = left_px + column * (column_px + between_px)
            for place, path in enumerate(cell):
                _paste(sheet, path, (x + place * (side_px + _GAP_PX), y), side_px)
        if line.chosen:
            inset = between_px // 2 - 1
            box = (inset - 1, y - inset, sheet.width - inset, y + max(side_px, 4 * line_px) + inset)
            pen.rectangle(box, outline=_GREEN, width=max(2, side_px // 48))
    return sheet


def _paste(sheet: "Image", path: Path | None, place: tuple[int, int], side_px: int) -> None:
    from PIL import Image, ImageDraw

    if path is None:
        pen = ImageDraw.Draw(sheet)
        x, y = place
        pen.rectangle((x, y, x + side_px - 1, y + side_px - 1), fill=_PALE)
        font = _font("DejaVuSans.ttf", max(8, side_px // 9))
        pen.text((x + side_px / 2, y + side_px / 2), "no picture", fill=_GREY, font=font, anchor="mm")
        return
    picture = open_upright(path)
    sheet.paste(
        picture if picture.width == side_px else picture.resize((side_px, side_px), Image.Resampling.LANCZOS), place
    )


@cache
def _font(name: str, size_px: int) -> "FreeTypeFont":
    """A font that holds Latin with accents, Greek and Cyrillic; matplotlib brings it along."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size_px)


def _wrap(text: str, font: "FreeTypeFont", width_px: int, most: int) -> list[str]:
    """Text in lines no wider than that; a word too long is broken; what does not fit into `most` lines ends in an ellipsis."""
    lines: list[str] = [""]
    for word in _pieces(text.split(), font, width_px):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > most:
        last = lines[most - 1]
        while last and font.getlength(f"{last}…") > width_px:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last.rstrip()}…"]
    return lines


def _pieces(words: Sequence[str], font: "FreeTypeFont", width_px: int) -> list[str]:
    pieces: list[str] = []
    for word in words:
        rest = word
        while font.getlength(rest) > width_px and len(rest) > 1:
            fits = max(1, next((n for n in range(len(rest), 0, -1) if font.getlength(rest[:n]) <= width_px), 1))
            pieces.append(rest[:fits])
            rest = rest[fits:]
        pieces.append(rest)
    return pieces
