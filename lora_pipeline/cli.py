"""The terminal: arguments → settings → call. It decides nothing."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_pipeline.errors import PipelineError, SettingsError
from lora_pipeline.store import Store, default_store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="From a heap of photos of one subject to a LoRA you would put your name to.",
)

# In the order in which a person needs them; `--help` shows the commands in this file's.
START, WORK, RESULT, RECORD = "To begin", "Day by day", "What came of it", "What was made of what"

Home = Annotated[
    Path | None, typer.Option(help="Folder that holds data/. Default: LORA_PIPELINE_HOME, or the checkout.")
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting for this run: section.field=value. May be repeated."),
]


def _store(home: Path | None) -> Store:
    return default_store() if home is None else Store(home.expanduser().resolve() / "data")


@app.command(rich_help_panel=START)
def demo(home: Home = None, verbose: bool = False) -> None:
    """Draw the bundled subject's photos, if they are not there, and run."""
    from lora_pipeline.demo.bundled import bundle

    store = _store(home)
    _run(store, bundle(store), [], verbose)


@app.command(rich_help_panel=START)
def new(
    name: Annotated[str, typer.Argument(help="Name of the subject: small letters, digits, - and _.")],
    kind: Annotated[str, typer.Option(help="person, pet, product or style.")],
    trigger: Annotated[str, typer.Option(help="Trigger word: a made-up word that will mean this subject.")],
    class_word: Annotated[
        str, typer.Option("--class", help="Class word: the common word for its like, such as woman or dog.")
    ],
    photos: Annotated[
        Path | None,
        typer.Option(help="Folder of photos and videos, a .zip of one, or a video. It is only ever read."),
    ] = None,
    immich: Annotated[
        str, typer.Option(help="In place of --photos: address of an Immich server, such as http://192.168.1.5:2283.")
    ] = "",
    photoprism: Annotated[
        str,
        typer.Option(
            help="In place of --photos: PhotoPrism's index, mysql://user@host:3306/photoprism without the password, or the file index.db."
        ),
    ] = "",
    originals: Annotated[
        Path | None, typer.Option(help="With --photoprism: its originals folder, as seen from this machine.")
    ] = None,
    sidecar: Annotated[
        Path | None, typer.Option(help="With --photoprism: its side-car folder, where JPEGs of HEIC photos lie.")
    ] = None,
    person: Annotated[str, typer.Option(help="With --immich or --photoprism: the subject's name there.")] = "",
    recipe: Annotated[str, typer.Option(help="Recipe to start from.")] = "sd15_person",
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="A photo that shows the subject alone, to know its face by. May be repeated."),
    ] = None,
    consent: Annotated[
        str,
        typer.Option(help="For a person, who agreed, when, to what: 'Jane Doe, 2026-11-01, a LoRA for her own use'."),
    ] = "",
    home: Home = None,
) -> None:
    """Make a new subject."""
    from pydantic import ValidationError

    from lora_pipeline import trigger as trigger_word
    from lora_pipeline.settings import sentences
    from lora_pipeline.stages.collect import captions_beside
    from lora_pipeline.subject import Subject
    from lora_pipeline.subject import new as write

    given: dict[str, Any] = {"name": name, "kind": kind, "trigger": trigger, "class": class_word, "recipe": recipe}
    given |= _photos_from(photos, immich, photoprism, originals, sidecar, person)
    references = [path.expanduser().resolve() for path in reference or ()]
    given |= {"reference": references or None, "consent": _consent(consent)}
    try:
        subject = Subject.model_validate(given)
    except ValidationError as error:
        raise SettingsError(sentences(error)) from None
    print(f"made {write(_store(home), subject)}")
    if (judged := trigger_word.judged(subject.trigger, subject.whole_settings())).against:
        print(judged.in_words)
    if subject.kind == "person" and subject.consent is None:
        print("No consent is recorded yet: fill in `consent` there. Without it nothing is trained.")
    secret = "" if isinstance(library := subject.origin, Path) else library.secret_env
    if secret and secret not in os.environ:
        print(
            f"Set the environment variable {secret} before the run: the library's password or key is read from there."
        )
    if photos is not None and (many := captions_beside(photos.expanduser())):
        folder = _store(home).subject(name) / "captions"
        print(f"Captions of {many} photos lie beside them (.txt) and are not read there: copy them to {folder}.")
    print(f"next: lora-pipeline run {name}")


def _photos_from(
    photos: Path | None, immich: str, photoprism: str, originals: Path | None, sidecar: Path | None, person: str
) -> dict[str, Any]:
    """`photos` or `source` of subject.yaml, of the flags of `new`. Raises SettingsError, which names the flags."""
    if sum(map(bool, (photos, immich, photoprism))) != 1:
        raise SettingsError("say where the photos come from, with one of --photos, --immich and --photoprism")
    if photos is not None and person:
        raise SettingsError("--person is a name in a library: it goes with --immich or --photoprism")
    if not photoprism and (originals or sidecar):
        raise SettingsError("--originals and --sidecar go with --photoprism")
    if photos is not None:
        return {"photos": photos.expanduser().resolve()}
    if not person:
        raise SettingsError("--person: say by which name the library knows the subject")
    if immich:
        return {"source": {"immich": {"person": person, "address": immich}}}
    if originals is None:
        raise SettingsError("--originals: name PhotoPrism's originals folder, as seen from this machine")
    database = photoprism if "://" in photoprism else str(Path(photoprism).expanduser().resolve())
    folders = {"originals": originals.expanduser().resolve(), "sidecar": sidecar and sidecar.expanduser().resolve()}
    return {"source": {"photoprism": {"person": person, "database": database, **folders}}}


@app.command("import", rich_help_panel=START)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="A JSON of civitai's trainer or the kohya_ss GUI, a TOML of sd-scripts, or a folder '<repeats>_<token> <class>'. Only read."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the subject, new or there.")],
    photos: Annotated[
        Path | None, typer.Option(help="Folder of photos of a new subject. It is only ever read.")
    ] = None,
    kind: Annotated[
        str, typer.Option(help="person, pet, product or style. Default: what the file says, or person.")
    ] = "",
    trigger: Annotated[str, typer.Option(help="Trigger word of a new subject.")] = "",
    class_word: Annotated[str, typer.Option("--class", help="Class word of a new subject.")] = "",
    recipe: Annotated[str, typer.Option(help="Recipe to start from. Default: that of the file's base model.")] = "",
    consent: Annotated[str, typer.Option(help="For a person, who agreed, when, to what: as in `new`.")] = "",
    change: Annotated[bool, typer.Option("--change", help="Change the settings of a subject that is there.")] = False,
    home: Home = None,
) -> None:
    """Take over settings or pictures from kohya's or civitai's trainer, and say what became of every key."""
    from lora_pipeline.kohya import bring, read, recipe_there

    store = _store(home)
    found = read(source, recipe_there(store, name) or recipe, kind)
    print(found.table(), end="\n\n")
    given: dict[str, Any] = {"photos": photos and photos.expanduser().resolve(), "kind": kind, "trigger": trigger}
    given |= {"class": class_word, "recipe": recipe, "consent": _consent(consent)}
    print("\n".join(bring(store, found, name, given, change)))


def _consent(words: str) -> dict[str, str] | None:
    if not words:
        return None
    parts = [part.strip() for part in words.split(",", 2)]
    if len(parts) < 3:
        raise SettingsError(
            "--consent: say who agreed, when and to what, with commas: 'Jane Doe, 2026-11-01, a LoRA for her own use'"
        )
    return dict(zip(("given_by", "given_on", "scope"), parts, strict=True))


@app.command(rich_help_panel=START)
def trigger(
    name: Annotated[str, typer.Argument(help="The subject's name or nickname, to make trigger words of.")],
    recipe: Annotated[str, typer.Option(help="Recipe whose base model is to read them.")] = "sd15_person",
) -> None:
    """Offer rare trigger words: Caesar shifts of a name that the base's tokenizer neither knows nor splits badly."""
    from lora_pipeline.recipes import recipe as named
    from lora_pipeline.summary import trigger_words

    print(trigger_words(name, named(recipe)))


@app.command(rich_help_panel=START)
def settings(recipe: Annotated[str, typer.Argument(help="A recipe.")] = "sd15_person") -> None:
    """Every setting with its value in a recipe, its sentence, unit and range."""
    from lora_pipeline.summary import all_settings

    print(all_settings(recipe))


@app.command(rich_help_panel=WORK)
def run(
    name: str,
    changes: Change = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File of validation prompts for this run, one a line, or DreamBooth's own: --set grade.prompts_file, and no list beside it.",
        ),
    ] = None,
    home: Home = None,
    verbose: bool = False,
) -> None:
    """Take a subject from its photos to its LoRA, computing only what changed."""
    from lora_pipeline.changes import prompts_from

    _run(_store(home), name, [*(changes or []), *([] if prompts is None else prompts_from(prompts))], verbose)


def _run(store: Store, name: str, changes: list[str], verbose: bool) -> None:
    from lora_pipeline.changes import by_asset
    from lora_pipeline.flow import work
    from lora_pipeline.summary import summary

    asked = by_asset(work(store, name).settings, changes)
    from lora_pipeline.assets.launch import run as launch
    from lora_pipeline.definitions import defs

    good, reports, faults = launch(defs, store, name, asked, verbose)
    print(summary(work(store, name), reports, faults))
    if not good:
        raise typer.Exit(1)


@app.command(rich_help_panel=WORK)
def status(name: str, home: Home = None) -> None:
    """What is fresh, what is stale and why, what each stage kept and dropped, which faces are unsure, what the pictures show and lack."""
    from lora_pipeline import flow
    from lora_pipeline import trigger as trigger_word
    from lora_pipeline.summary import agreed, coverage, standing, unsettled

    work = flow.work(_store(home), name)
    print(agreed(work), standing(flow.status(work)), sep="\n\n")
    if words := unsettled(work):
        print(f"\n{words}")
    if (seen := flow.coverage(work)).pictures:
        print(f"\n{coverage(seen)}")
    if (judged := trigger_word.judged(work.subject.trigger, work.settings)).against:
        print(f"\n{judged.in_words}")


@app.command(rich_help_panel=WORK)
def review(name: str, home: Home = None, port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 7860) -> None:
    """A local page: photos, copies, faces, crops, captions; what is decided there wins from the next run on."""
    from lora_pipeline.flow import work
    from lora_pipeline.progress import bars
    from lora_pipeline.review import serve

    serve(work(_store(home), name, bars()), port)


@app.command(rich_help_panel=WORK)
def forecast(name: str, changes: Change = None, home: Home = None) -> None:
    """What training would take: steps, hours, energy, money, memory. Makes the training set of these settings, and trains nothing."""
    from dataclasses import replace

    from lora_pipeline import flow
    from lora_pipeline.changes import changed
    from lora_pipeline.progress import bars
    from lora_pipeline.summary import outlook

    work = flow.work(_store(home), name, bars())
    work = replace(work, settings=changed(work.settings, changes or []))
    flow.make_training_set(work)
    good, words = outlook(work, flow.forecast(work))
    print(words)
    if not good:
        raise typer.Exit(1)


@app.command(rich_help_panel=WORK)
def ui(home: Home = None, port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000) -> None:
    """The Dagster UI on 127.0.0.1."""
    from lora_pipeline.assets.launch import ui as serve

    raise typer.Exit(serve(_store(home), port))


@app.command(rich_help_panel=RESULT)
def redraw(
    name: Annotated[str, typer.Argument(help="The subject.")],
    of: Annotated[str, typer.Argument(help="A validation picture: its id, such as e0003/p02/s0001, or a PNG.")],
    home: Home = None,
) -> None:
    """Draw a validation picture again from what it says of itself, and compare to the pixel."""
    from lora_pipeline import flow

    work = flow.work(_store(home), name)
    again = flow.redraw(work, of)
    print(f"{of}: {again.in_words()}")
    if again.differing:
        raise typer.Exit(1)


@app.command(rich_help_panel=RESULT)
def release(
    name: Annotated[str, typer.Argument(help="The subject.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder of ComfyUI, AUTOMATIC1111 or Forge, to lay the LoRA into.")
    ] = None,
    push_to_hub: Annotated[
        str, typer.Option(help="user/repo on the Hugging Face hub, private. Needs the consent share_file.")
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="With --push-to-hub: for everybody to see.")] = False,
    home: Home = None,
) -> None:
    """Bring what is released to where it is used."""
    from lora_pipeline import flow

    work = flow.work(_store(home), name)
    if to is None and not push_to_hub:
        raise SettingsError("release: say where to: --to FOLDER, --push-to-hub user/repo, or both")
    if to is not None:
        print("\n".join(f"{path}" for path in flow.place(work, to)))
    if push_to_hub:
        print(flow.push(work, push_to_hub, public))


@app.command("export-dataset", rich_help_panel=RESULT)
def export_dataset(
    name: Annotated[str, typer.Argument(help="The subject.")],
    to: Annotated[Path, typer.Option(help="Folder to be made, or the .zip; nothing may be there.")],
    format: Annotated[
        str, typer.Option(help="kohya (a folder of sd-scripts), zip (the same in a file) or hf.")
    ] = "kohya",
    home: Home = None,
) -> None:
    """Write the finished set, concealed pictures, captions, masks and repeats, for another trainer."""
    from lora_pipeline import export, flow
    from lora_pipeline.progress import bars

    print(export.export_dataset(flow.work(_store(home), name, bars()), format, to.expanduser().resolve()))


@app.command(rich_help_panel=RECORD)
def lineage(
    thing: Annotated[
        str,
        typer.Argument(
            help="A file (a LoRA, a photo, a drawn picture, wherever it lies), or 8 or more digits of a hash. Or a subject, and then OF."
        ),
    ],
    of: Annotated[
        str,
        typer.Argument(
            help="Of a subject: an epoch, a LoRA file or a grid picture (which photos made it?), or a photo (what did it go into, or why not?)."
        ),
    ] = "",
    show: Annotated[bool, typer.Option("--open", help="Draw it, and show the page in the browser.")] = False,
    to: Annotated[Path | None, typer.Option(help="Draw it, and write the page to this file (HTML).")] = None,
    prov: Annotated[Path | None, typer.Option(help="Write it to this file as W3C PROV (JSON).")] = None,
    home: Home = None,
) -> None:
    """What this was made of, to the photos, and what was made of it, to the releases."""
    from lora_pipeline import recall
    from lora_pipeline.lineage.tell import tell

    store = _store(home)
    told = "\n".join(tell(store, thing, of, to, show, prov))
    called_back = [f"{folder}: {why}" for folder, why in recall.everywhere(store) if str(folder) in told]
    print("\n".join([told, *called_back]))


@app.command(rich_help_panel=RECORD)
def reproduce(
    checkpoint: Annotated[str, typer.Argument(help="A LoRA file, wherever it lies, or 8 or more digits of its hash.")],
    home: Home = None,
) -> None:
    """Train a checkpoint again from the record, in a scratch folder, and compare: on a CPU, the same bytes."""
    from lora_pipeline.progress import bars
    from lora_pipeline.reproduce import reproduce as again

    done = again(_store(home), checkpoint, bars())
    print("\n".join(done.lines()))
    if not done.same:
        raise typer.Exit(1)


@app.command(rich_help_panel=RECORD)
def forget(
    name: Annotated[str, typer.Argument(help="The subject.")],
    what: Annotated[
        str,
        typer.Argument(
            help="A photo; a person, by a face's id (photo#n) or a name in people.yaml; or nothing: the whole subject."
        ),
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this it is only shown.")] = False,
    home: Home = None,
) -> None:
    """Forget a photo, a person or a subject: shows what depends on it, and with --yes removes that and marks what was trained on it."""
    import datetime

    from lora_pipeline.forget import carry_out, plan

    store = _store(home)
    planned = plan(store, name, what)
    print("\n".join(planned.lines()))
    if not yes:
        print(
            "\nNothing was removed. With --yes it is done, and Dagster's log of this subject's runs goes too: it holds contact sheets."
        )
        return
    from lora_pipeline.assets.launch import forget_runs

    runs = forget_runs(store, name)
    files = carry_out(store, planned, datetime.date.today())
    print(f"\nDone: {files} files removed, {runs} runs taken out of Dagster's log.")


def main() -> None:
    """The command `lora-pipeline`. A person's mistake is told in words, without a stack trace."""
    try:
        app()
    except PipelineError as error:
        print(f"lora-pipeline: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
