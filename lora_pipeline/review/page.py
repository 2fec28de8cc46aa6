"""The page: a tab a question, pictures to click, and what can be decided of the one that was clicked. Gradio draws it, on loopback only."""

import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_pipeline import flow
from lora_pipeline.errors import PipelineError
from lora_pipeline.flow import Work
from lora_pipeline.records import Score
from lora_pipeline.review import decide
from lora_pipeline.review.gather import Photo, Picture, copies, faces, grids, photos, pictures, scores

if TYPE_CHECKING:
    import gradio as gr

AT_ONCE = 60  # pictures of a gallery at a time: more make a browser slow
STYLE = """
.caption-label { white-space: normal !important; max-width: 100%; font-size: 11px !important; line-height: 1.25 !important; }
footer { display: none !important; }
"""

Cell = tuple[str, Path | None, str]
"""Id, picture, label."""


def serve(work: Work, port: int) -> None:
    """Serve the page on 127.0.0.1 until interrupted. Raises PipelineError if there is nothing to look at, or the port is taken."""
    own = work.folder("collect").parent
    if not work.made("collect").rows:
        name = work.subject.name
        raise PipelineError(f"there is nothing of {name} to look at yet; `lora-pipeline run {name}` first")
    # Gradio would tell its makers of each start, and leave copies of what it shows in the system's folder for temporary files.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    work.folder(flow.REVIEW).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shown-", dir=work.folder(flow.REVIEW)) as copies:
        os.environ["GRADIO_TEMP_DIR"] = copies
        from gradio import themes

        built = page(work)
        # Its own theme fetches fonts from a server.
        theme = themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        try:
            built.launch(
                server_name="127.0.0.1",
                server_port=port,
                quiet=True,
                prevent_thread_lock=True,
                allowed_paths=[str(own)],
                theme=theme,
                css=STYLE,
            )
        except OSError:
            raise PipelineError(f"port {port} of 127.0.0.1 is taken; choose another with --port") from None
        # A shell's & leaves the one ignored; and whichever comes, what was shown is taken away at the end.
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, signal.default_int_handler)
        print(f"{work.subject.name}: http://127.0.0.1:{port}  (Ctrl+C ends it)", flush=True)  # noqa: T201
        built.block_thread()


def page(work: Work) -> "gr.Blocks":
    """The page of one subject, not yet served."""
    import gradio as gr

    with gr.Blocks(title=f"{work.subject.name} · review", analytics_enabled=False, fill_width=True) as built:
        gr.Markdown(
            f"## {work.subject.name}\nWhat you decide here wins over everything measured, from the next run on."
        )
        told = gr.Markdown(decide.by_hand(work))
        with gr.Tab("Photos"):
            _photos(work, built, told)
        with gr.Tab("Copies"):
            _gallery(built, lambda: _groups(photos(work)), "copies")
        if work.subject.kind == "person":
            with gr.Tab("Faces"):
                _faces(work, built, told)
        with gr.Tab("Crops"):
            _crops(work, built)
        with gr.Tab("Captions"):
            _captions(work, built, told)
        with gr.Tab("Coverage"):
            _coverage(work, built)
        with gr.Tab("Epochs"):
            _epochs(work, built, told)
    return built


@dataclass(frozen=True)
class _Gallery:
    """A gallery with its pages, and how it is filled anew.

    Args:
        which, number, gallery, ids: its parts; `ids` holds those of the pictures on the page.
        fill: (kind, page number) → values of the four.
    """

    which: "gr.Radio"
    number: "gr.Number"
    gallery: "gr.Gallery"
    ids: "gr.State"
    fill: Callable[[str | None, float | None], list[Any]]

    @property
    def parts(self) -> list[Any]:
        return [self.which, self.number, self.gallery, self.ids]

    def refill(self, event: Any) -> None:
        """Fill it anew after an event."""
        event.then(self.fill, [self.which, self.number], self.parts, show_progress="hidden")


def _gallery(built: "gr.Blocks", shown: Callable[[], Mapping[str, Sequence[Cell]]], name: str) -> _Gallery:
    """A gallery of pictures by kind.

    Args:
        shown: the pictures of each kind, in the order in which kinds are offered.
        name: of the gallery in the page's HTML.
    """
    import gradio as gr

    def fill(kind: str | None, number: float | None) -> list[Any]:
        kinds = shown()
        now = kind if kind and kind in kinds else next((one for one in kinds if kinds[one]), next(iter(kinds), ""))
        every = kinds.get(now, ())
        pages = max(1, -(-len(every) // AT_ONCE))
        at = min(max(1, int(number or 1)), pages)
        some = every[(at - 1) * AT_ONCE : at * AT_ONCE]
        choices = [(f"{one} ({len(cells)})", one) for one, cells in kinds.items()]
        return [
            gr.Radio(choices=choices, value=now or None),
            gr.Number(value=at, maximum=pages, label=f"page, 1 to {pages}", visible=pages > 1),
            gr.Gallery(value=[(path or _no_picture(), label) for _, path, label in some], selected_index=None),
            [id for id, _, _ in some],
        ]

    with gr.Row():
        which = gr.Radio(choices=[], label="Show", elem_id=f"{name}-which", scale=4)
        number = gr.Number(value=1, precision=0, minimum=1, visible=False, scale=1)
    gallery = gr.Gallery(
        show_label=False,
        columns=6,
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        elem_id=name,
        buttons=[],
    )
    one = _Gallery(which, number, gallery, gr.State([]), fill)
    for listen in (which.input, number.input):
        listen(fill, [which, number], one.parts, show_progress="hidden")
    built.load(fill, [which, number], one.parts, show_progress="hidden")
    return one


def _no_picture() -> Any:
    from PIL import Image

    return Image.new("RGB", (64, 64), "lightgrey")


def _photos(work: Work, built: "gr.Blocks", told: "gr.Markdown") -> None:
    import gradio as gr

    def shown() -> Mapping[str, Sequence[Cell]]:
        every = photos(work)
        return {
            state: [(one.id, one.thumbnail, _label(one)) for one in every if one.state == state]
            for state in ("used", "left out", "unreadable")
        }

    with gr.Row():
        with gr.Column(scale=3):
            gallery = _gallery(built, shown, "photos")
        with gr.Column(scale=1):
            about = gr.Markdown("Click a photo.", elem_id="about-photo")
            chosen = gr.State("")
            keep = gr.Button("Keep", elem_id="keep")
            drop = gr.Button("Drop", elem_id="drop")
            measured = gr.Button("As measured", elem_id="as-measured")

    def click(ids: list[str], event: gr.SelectData) -> tuple[str, str]:
        id = ids[event.index]
        return id, _about(photos(work), id)

    gallery.gallery.select(click, [gallery.ids], [chosen, about])
    for button, verdict in ((keep, "keep"), (drop, "drop"), (measured, None)):

        def decided(id: str, verdict: Any = verdict) -> tuple[str, str]:
            if id:
                decide.photo(work, id, verdict)
            return decide.by_hand(work), _about(photos(work), id)

        gallery.refill(button.click(decided, [chosen], [told, about]))


def _label(photo: Photo) -> str:
    hand = {"keep": " · kept by hand", "drop": " · dropped by hand"}.get(photo.verdict, "")
    return f"{photo.id}{hand}" + (f": {photo.reason}" if photo.reason else "")


def _about(every: Sequence[Photo], id: str) -> str:
    photo = next((one for one in every if one.id == id), None)
    if photo is None:
        return "Click a photo."
    lines = [f"**{photo.id}**", f"{photo.state}{': ' + photo.reason if photo.reason else ''}"]
    if photo.verdict:
        lines.append(f"by hand, from the next run on: **{photo.verdict}**")
    if photo.best:
        lines.append("the best of its copies" if photo.best == photo.id else f"copy of {photo.best}")
    return "\n\n".join([*lines, *(f"{what}: {value}" for what, value in photo.facts)])


def _groups(every: Sequence[Photo]) -> dict[str, list[Cell]]:
    """Each group of copies under the name of its best, after all of them together."""
    groups = copies(every)
    cells = {
        group[0].id: [
            (one.id, one.thumbnail, f"{one.id}: {'the best' if one.id == one.best else one.reason or 'kept too'}")
            for one in group
        ]
        for group in groups
    }
    return {"all groups": [cell for group in cells.values() for cell in group], **cells} if cells else {"no copies": []}


def _faces(work: Work, built: "gr.Blocks", told: "gr.Markdown") -> None:
    import gradio as gr

    def shown() -> Mapping[str, Sequence[Cell]]:
        kinds: dict[str, list[Cell]] = {kind: [] for kind in ("unsure", "subject", "stranger", "not_a_face")}
        for face in faces(work):
            label = f"{face.id}{' · by hand' if face.by_hand else ''}"
            kinds.setdefault(face.whose, []).append((face.id, face.picture, label))
        return kinds

    with gr.Row():
        with gr.Column(scale=3):
            gallery = _gallery(built, shown, "faces")
        with gr.Column(scale=1):
            about = gr.Markdown("Click a face.")
            chosen = gr.State("")
            buttons = [
                (gr.Button("The subject's"), "subject"),
                (gr.Button("A stranger's"), "stranger"),
                (gr.Button("Not a face"), "not_a_face"),
            ]
            name = gr.Textbox(label="or this stranger's name")
            named = gr.Button("Name the stranger")
            measured = gr.Button("As measured")

    def click(ids: list[str], event: gr.SelectData) -> tuple[str, str]:
        return ids[event.index], f"**{ids[event.index]}**"

    def decided(id: str, whose: str | None) -> str:
        if id and (whose is None or whose.strip()):
            decide.face(work, id, whose and whose.strip())
        return decide.by_hand(work)

    gallery.gallery.select(click, [gallery.ids], [chosen, about])
    for button, whose in (*buttons, (measured, None)):
        gallery.refill(button.click(decided, [chosen, gr.State(whose)], [told]))
    gallery.refill(named.click(decided, [chosen, name], [told]))


def _crops(work: Work, built: "gr.Blocks") -> None:
    import gradio as gr

    def shown() -> Mapping[str, Sequence[Cell]]:
        every = pictures(work)
        hidden = [one for one in every if one.hidden]
        return {
            "with hidden faces": [(one.id, one.concealed, f"{one.id}: {one.hidden} hidden") for one in hidden],
            "all": [(one.id, one.concealed or one.cut, one.id) for one in every],
        }

    gallery = _gallery(built, shown, "crops")
    with gr.Row():
        before = gr.Image(label="as it was cut", interactive=False, buttons=[])
        after = gr.Image(label="as it is trained on", interactive=False, buttons=[])

    def click(ids: list[str], event: gr.SelectData) -> tuple[Path, Path | None]:
        picture = _picture(pictures(work), ids[event.index])
        return picture.cut, picture.concealed

    gallery.gallery.select(click, [gallery.ids], [before, after])


def _picture(every: Sequence[Picture], id: str) -> Picture:
    return next(one for one in every if one.id == id)


def _captions(work: Work, built: "gr.Blocks", told: "gr.Markdown") -> None:
    import gradio as gr

    def shown() -> Mapping[str, Sequence[Cell]]:
        every = pictures(work)
        sources = dict.fromkeys(one.source or "none yet" for one in every)
        cells = [(one.source or "none yet", (one.id, one.concealed or one.cut, one.caption)) for one in every]
        return {"all": [cell for _, cell in cells]} | {
            f"by {source}": [cell for own, cell in cells if own == source] for source in sources
        }

    gallery = _gallery(built, shown, "captions")
    about = gr.Markdown("Click a picture.", elem_id="about-caption")
    chosen = gr.State("")
    text = gr.Textbox(label="its caption; {trigger} and {class} are filled in", lines=3, elem_id="caption")
    with gr.Row():
        save = gr.Button("Save by hand", elem_id="save-caption")
        away = gr.Button("Leave it to the captioner")

    def click(ids: list[str], event: gr.SelectData) -> tuple[str, str, str]:
        picture = _picture(pictures(work), ids[event.index])
        file = decide.caption_file(work, picture.photo)
        by_hand = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        words = f"**{picture.id}**, caption by {picture.source or 'nobody yet'}; one by hand is for all pictures of {picture.photo}"
        return picture.photo, words, by_hand or picture.caption

    def saved(photo: str, text: str) -> tuple[str, str]:
        if not photo:
            return decide.by_hand(work), "Click a picture first."
        if not text.strip():
            return decide.by_hand(work), "A caption has words."
        return decide.by_hand(work), f"**{photo}**: saved in {decide.caption(work, photo, text)}"

    def taken_away(photo: str) -> tuple[str, str]:
        if photo:
            decide.no_caption(work, photo)
        return decide.by_hand(work), f"**{photo}**: from the next run on, the captioner writes it."

    gallery.gallery.select(click, [gallery.ids], [chosen, about, text])
    save.click(saved, [chosen, text], [told, about])
    away.click(taken_away, [chosen], [told, about])


def _coverage(work: Work, built: "gr.Blocks") -> None:
    import gradio as gr

    def counted() -> tuple[Any, str]:
        import pandas as pd

        seen = flow.coverage(work)
        rows = [(cell.name, "there", cell.there) for cell in seen.cells]
        rows += [(cell.name, "missing", cell.missing) for cell in seen.cells if cell.missing]
        order = [cell.name for cell in seen.cells]
        words = "\n".join(f"- {one}" for one in seen.missing) or "Nothing is missing."
        return gr.BarPlot(pd.DataFrame(rows, columns=["what", "state", "photos"]), sort=order), words

    missing = gr.Markdown()
    chart = gr.BarPlot(
        x="what",
        y="photos",
        color="state",
        color_map={"there": "#2b6cb0", "missing": "#d9a05b"},
        title="What the photos show",
        x_label_angle=-40,
        height=400,
        buttons=[],
    )
    built.load(counted, None, [chart, missing], show_progress="hidden")


def _epochs(work: Work, built: "gr.Blocks", told: "gr.Markdown") -> None:
    import gradio as gr

    def shown(prompt: str | None) -> list[Any]:
        drawn, judged = grids(work), scores(work)
        now = prompt if prompt in drawn else next(iter(drawn), None)
        epochs, picked = [one.epoch for one in judged if one.epoch], decide.picked(work)
        chosen = next((one.epoch for one in judged if one.chosen), None)
        return [
            _whose_choice(judged, picked),
            gr.Radio(choices=[(str(one), one) for one in epochs], value=picked if picked in epochs else chosen),
            _decisions(judged),
            _measured(judged),
            gr.Dropdown(choices=list(drawn), value=now),
            drawn.get(now or ""),
        ]

    about = gr.Markdown(elem_id="about-epochs")
    with gr.Row():
        which = gr.Radio(label="Epoch", elem_id="epoch", scale=4)
        release = gr.Button("Release this epoch", elem_id="release")
        rule = gr.Button("Let the rule choose", elem_id="rule")
    widths: list[str | int] = ["9%", "11%", "15%", "20%", "45%"]
    decisions = gr.Dataframe(
        label="what speaks for and against each", wrap=True, interactive=False, buttons=[], column_widths=widths
    )
    with gr.Accordion("Everything measured, with its 95 % interval", open=False):
        measures = gr.Dataframe(wrap=True, interactive=False, buttons=[])
    prompt = gr.Dropdown(label="prompt")
    grid = gr.Image(show_label=False, interactive=False, buttons=["fullscreen"], elem_id="epochs-grid")
    parts = [about, which, decisions, measures, prompt, grid]

    def decided(epoch: int | None) -> str:
        try:
            decide.epoch(work, epoch)
        except PipelineError as error:
            raise gr.Error(str(error)) from None
        return decide.by_hand(work)

    def released(epoch: int | None) -> str:
        return decided(epoch) if epoch else decide.by_hand(work)

    def grid_of(prompt: str) -> Path | None:
        return grids(work).get(prompt)

    built.load(shown, [prompt], parts, show_progress="hidden")
    prompt.input(grid_of, [prompt], [grid], show_progress="hidden")
    for event in (release.click(released, [which], [told]), rule.click(lambda: decided(None), None, [told])):
        event.then(shown, [prompt], parts, show_progress="hidden")


def _whose_choice(judged: Sequence[Score], picked: int) -> str:
    """Which epoch is chosen and why, and what a person has said of it since."""
    if not judged:
        return "Nothing is judged yet: `lora-pipeline run` draws and judges the epochs."
    lines = [f"**{_sentence(one.reason)}** {_sentence(one.advice)}" for one in judged if one.chosen]
    if picked and picked not in [one.epoch for one in judged]:
        lines.append(f"Epoch {picked} is picked by hand, but there is none any more: the next run would stop at it.")
    elif picked:
        lines.append(f"Picked by hand, and released by the next run: **epoch {picked}**.")
    elif any(one.picked for one in judged):
        lines.append("From the next run on, the rule chooses.")
    return "\n\n".join(lines)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _decisions(judged: Sequence[Score]) -> Any:
    import pandas as pd

    rows = [
        (
            one.epoch or "base model",
            one.role,
            next((measure.told for measure in one.measures if measure.about == "likeness"), ""),
            "; ".join(one.vetoes),
            one.reason,
        )
        for one in judged
    ]
    likeness = next((one.name for score in judged for one in score.measures if one.about == "likeness"), "likeness")
    return pd.DataFrame(rows, columns=["epoch", "chosen", likeness, "vetoes", "reason"])


def _measured(judged: Sequence[Score]) -> Any:
    """A row a measure, a column an epoch."""
    import pandas as pd

    told = dict.fromkeys((one.about, one.name) for score in judged for one in score.measures)
    columns: dict[str, list[str]] = {"about": [about for about, _ in told], "measure": [name for _, name in told]}
    for score in judged:
        by_name = {one.name: one.told for one in score.measures}
        columns[f"epoch {score.epoch}" if score.epoch else "base model"] = [by_name.get(name, "") for _, name in told]
    return pd.DataFrame(columns)
