"""What the terminal asks: a lineage in words, as a page, and as W3C PROV."""

import webbrowser
from contextlib import suppress
from pathlib import Path

from lora_pipeline.errors import PipelineError
from lora_pipeline.lineage.ask import ask, made_from, photos_of
from lora_pipeline.lineage.graph import Graph, graph, graph_of
from lora_pipeline.lineage.page import page
from lora_pipeline.lineage.prov import prov_json
from lora_pipeline.lineage.record import record_all
from lora_pipeline.lineage.tree import lines
from lora_pipeline.store import Store, write_text


def tell(
    store: Store, thing: str, of: str = "", to: Path | None = None, show: bool = False, prov: Path | None = None
) -> list[str]:
    """Answer in lines, and write what was asked for.

    Args:
        thing: a file or a hash, see `graph`; or a subject, if `of` is given.
        of: an epoch, a LoRA file, a drawn picture or a photo of the subject, see `ask`.
        to: write the page here.
        show: show the page in the browser; without `to`, it is `data/lineage.html`.
        prov: write the W3C PROV here.

    Raises:
        SubjectError, PipelineError: there is no such subject or thing; the message says what there is.
    """
    record_all(store)
    if not of:
        whole = graph(store, thing)
        told = lines(whole)
        told += _why_not(store, whole)
    else:
        told = ask(store, thing, of)
        whole = _graph_of(store, thing, of) if to or show or prov else None
    if whole is not None and (to or show):
        file = (to or store.data / "lineage.html").expanduser().resolve()
        write_text(file, page(whole))
        told += ["", f"drawn: {file}"]
        if show and not webbrowser.open(file.as_uri()):
            told.append("no browser could be started; open the file yourself")
    if whole is not None and prov:
        write_text(prov.expanduser().resolve(), prov_json(whole))
        told += ["", f"as W3C PROV: {prov}"]
    return told


def _graph_of(store: Store, subject: str, of: str) -> Graph:
    """What `ask` was asked about, in the record."""
    try:
        trained = photos_of(store, subject, of)
    except PipelineError:
        photo = made_from(store, subject, of)
        found = graph_of(store, [photo.digest], subject)
        if not found.asked:
            raise PipelineError(
                f"{photo.photo} could not be used, so nothing was made of it, and there is nothing to draw"
            ) from None
        return found
    if trained.lora is None:
        raise PipelineError(
            f"{of} was drawn by the base model alone: nothing was made of anything, so there is nothing to draw"
        )
    return graph(store, str(trained.lora))


def _why_not(store: Store, whole: Graph) -> list[str]:
    """Of a photo that nothing was made of: where it stopped, and why."""
    told: list[str] = []
    for uid in whole.asked:
        one = whole.entries[uid]
        if one.kind == "photo" and one.id and uid not in whole.children:
            with suppress(PipelineError):  # it has left the source since
                told += ["", *made_from(store, one.subject, one.id).lines()]
    return told
