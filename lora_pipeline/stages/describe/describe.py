"""The stage: one caption a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_pipeline.errors import PhotoError
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Caption, Crop, Row
from lora_pipeline.settings import DescribeSettings
from lora_pipeline.stages.describe import rules
from lora_pipeline.stages.describe.captioner import Accountable, Captioner
from lora_pipeline.stages.describe.hand import Written, caption, filled, written
from lora_pipeline.stages.describe.measured import Measured

CODE_VERSION = "1"
WORDS_VERSION = "1"
"""Of the table of captioners' words, which is dear to make anew: raised only if the same captioner's words would be others."""
HAND = "hand"
WORDS = "words"
LOOKED_AT = ("framing", "width_px", "height_px", "face", "strangers", "yaw_deg")
"""Of a crop's data, what captioners may read. The rest is for the rules, which ask no captioner again."""


@dataclass(frozen=True)
class _Seen:
    """A picture that a captioner is to look at."""

    picture: Path
    crop: Crop


@dataclass(frozen=True)
class _Task:
    """A caption to be put together.

    Args:
        crop: of the picture.
        by_hand: what a person wrote, or None.
        words: what the captioner said, without what never changes.
        note: on what became of its words.
        failed: why it said nothing.
        weak: words for the photo's weaknesses.
    """

    crop: Crop
    by_hand: Written | None
    words: str = ""
    note: str = ""
    failed: str = ""
    weak: tuple[str, ...] = ()


def describe(
    pictures: Manifest,
    folder: Path,
    settings: DescribeSettings,
    captions: Path,
    trigger: str,
    class_word: str,
    captioner: Captioner | None = None,
    progress: Progress = silent,
    tokens: Mapping[str, Sequence[str]] | None = None,
) -> Outcome:
    """Write a caption for each kept picture: a person's, if there is one for its photo, else the captioner's.

    Two tables in one folder: `words`, what the captioner said of each picture that no hand has described, and the `manifest`, the captions
    that the rules make of it. So a new rule asks no captioner again.

    A caption by a captioner is "{trigger} {class}, ", the photo's tags if `folder_tags` is set, and its words as `rules` leave them, cut after
    `max_words`, then the tokens of angle and expression that are asked for, and the photo's own. One by hand is taken as it stands, with {trigger} and
    {class} filled in; if the trigger word is not in it, it is put first. `note` says what was added or left out.

    Args:
        pictures: rows are `records.Crop` with a file `picture`; only kept ones are read.
        folder: the stage's. Row ids are those of the pictures, data those of `records.Caption` and `note`. No files.
        captions: folder of `<photo id>.txt` or `<photo's stem>.txt`, UTF-8; it need not exist. An empty file fails the row.
        captioner: who writes; None is the one that the settings name.
        tokens: by photo, what a captioner's caption says of its weaknesses ("blurry", "jpeg artifacts") after all else, so that the flaw has
            a word of its own and is not learnt as the subject. A photo without any is left as it is.

    Raises:
        ModelError: the captioner's weights are missing, or its service refuses.
    """
    writer = captioner or open_captioner(settings, trigger, class_word)
    hands = {row.id: written(captions, Crop.of(row).photo) for row in pictures.kept}
    said = _words(pictures, hands, folder, writer, progress)
    # A phrase is counted once a photo, however many crops of it there are.
    texts: dict[str, list[str]] = {}
    for row in said.kept:
        texts.setdefault(str(row.data["photo"]), []).append(str(row.data["words"]))
    constant = rules.constant(texts, settings.subject_words, settings.drop_constant)
    by_captioner = {row.id: row for row in said.rows}
    items: list[Item[_Task]] = []
    for row in pictures.kept:
        crop, by_hand = Crop.of(row), hands[row.id]
        if by_hand:
            inputs, task = [HAND, by_hand.text, by_hand.unreadable], _Task(crop, by_hand)
        else:
            task = _task(crop, by_captioner[row.id], constant, tuple((tokens or {}).get(crop.photo, ())))
            inputs = ["", crop.data(), writer.name, task.words, task.note, task.failed, *task.weak]
        items.append(Item(row.id, [trigger, class_word, *inputs], task))

    def make(task: _Task, _: Path) -> Made:
        if task.by_hand:
            text, note = caption(task.by_hand, trigger, class_word)
            return Made({**Caption(task.crop.photo, text, HAND).data(), "note": note})
        if task.failed:
            raise PhotoError(task.failed)
        text = ruled(task.words, task.crop, settings, trigger, class_word, task.weak)
        return Made({**Caption(task.crop.photo, text, writer.name).data(), "note": task.note})

    return refresh(
        folder, items, make, settings=settings, code_version=CODE_VERSION, what="describe", progress=progress
    )


def ruled(
    words: str, crop: Crop, settings: DescribeSettings, trigger: str, class_word: str, weak: Sequence[str] = ()
) -> str:
    """The caption that the rules make of a captioner's words, from which what never changes is gone already."""
    tags = list(crop.tags if settings.folder_tags else ())
    if settings.blacklist:
        words = rules.blacked_out(words, settings.blacklist)
        tags = [left for tag in tags if (left := rules.blacked_out(tag, settings.blacklist))]
    if settings.tag_order:
        words = rules.ordered(words, settings.tag_order)
    text = rules.fronted(words, filled(settings.front, trigger, class_word), trigger, tags)
    text = rules.cut(text, settings.max_words)
    measured = rules.angle_token(crop.yaw_deg) if settings.angle_tokens else ()
    scored = rules.expression_token(crop.expression) if settings.expression_tokens else ()
    return rules.added(text, (*measured, *scored, *weak))


def _words(
    pictures: Manifest, hands: Mapping[str, Written | None], folder: Path, writer: Captioner, progress: Progress
) -> Manifest:
    """What the captioner says of each picture that no hand has described, from the memo where it has said it before."""
    items = [
        Item(
            row.id,
            [
                row.files["picture"].digest,
                {name: row.data.get(name) for name in LOOKED_AT},
                writer.identity,
            ],
            _Seen(pictures.path(row), Crop.of(row)),
        )
        for row in pictures.kept
        if not hands[row.id]
    ]

    def look(seen: _Seen, _: Path) -> Made:
        from PIL import Image

        with Image.open(seen.picture) as opened:
            picture = opened.convert("RGB")
        if isinstance(writer, Accountable):
            words, took = writer.accounted(picture, seen.crop)
        else:
            words, took = writer.words(picture, seen.crop), {}
        return Made({"photo": seen.crop.photo, "words": words, **took})

    return refresh(
        folder, items, look, settings=None, code_version=WORDS_VERSION, name=WORDS, what=WORDS, progress=progress
    ).manifest


def _task(crop: Crop, said: Row, constant: frozenset[str], weak: tuple[str, ...]) -> _Task:
    if said.state != "kept":
        return _Task(crop, None, failed=said.reason)
    words, left_out = rules.without(str(said.data["words"]), constant)
    notes = [
        str(said.data.get("note") or ""),
        f"left out, since it never changes: {', '.join(left_out)}" if left_out else "",
    ]
    return _Task(crop, None, words, "; ".join(note for note in notes if note), weak=weak)


def sends_out(settings: DescribeSettings) -> bool:
    """Whether the captioner that the settings name sends pictures out of the person's own machine and network."""
    from lora_pipeline.models.llm import is_outside

    return settings.captioner == "llm" and is_outside(settings.llm_address)


def open_captioner(settings: DescribeSettings, trigger: str = "", class_word: str = "") -> Captioner:
    """The captioner that the settings name. Raises ModelError, in words, if its weights are missing.

    Args:
        trigger, class_word: fill in what an LLM is asked.
    """
    match settings.captioner:
        case "measured":
            return Measured()
        case "blip":
            from lora_pipeline.models.blip import Blip

            return Blip.open(settings.blip_model, settings.blip_revision)
        case "blip2":
            from lora_pipeline.models.blip2 import Blip2

            return Blip2.open(settings.blip2_model, settings.blip2_revision)
        case "florence2":
            from lora_pipeline.models.florence2 import Florence2

            return Florence2.open(settings.florence2_model, settings.florence2_revision, settings.florence2_task)
        case "wd14":
            from lora_pipeline.models.wd14 import Wd14

            thresholds = (settings.wd14_threshold, settings.wd14_character_threshold)
            return Wd14.open(settings.wd14_model, settings.wd14_revision, *thresholds)
        case "clip":
            from lora_pipeline.models.clip_interrogate import ClipInterrogator

            return ClipInterrogator.open(settings.clip_model, settings.clip_revision)
        case "llm":
            from lora_pipeline.models.llm import Llm

            def ready(text: str) -> str:
                limits = text.replace("{min_words}", str(settings.min_words or min(10, settings.max_words)))
                return filled(limits.replace("{max_words}", str(settings.max_words)), trigger, class_word)

            openings = tuple(ready(opening) for opening in settings.llm_openings)
            article = "an" if class_word[:1].lower() in set("aeiou") else "a"
            return Llm(
                settings.llm_address,
                settings.llm_model,
                ready(settings.llm_instruction),
                openings,
                f"{openings[0]} {article} {class_word}, " if openings else "",
                settings.min_words,
                settings.max_words,
                settings.llm_key_env,
                settings.llm_attempts,
                settings.llm_timeout_s,
                settings.llm_requests_per_minute,
            )
