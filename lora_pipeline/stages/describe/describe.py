"""The stage: one caption a picture."""

from dataclasses import dataclass
from pathlib import Path

from lora_pipeline.errors import ModelError
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Caption, Crop
from lora_pipeline.settings import DescribeSettings
from lora_pipeline.stages.describe.captioner import Captioner
from lora_pipeline.stages.describe.hand import Written, caption, written
from lora_pipeline.stages.describe.measured import Measured

CODE_VERSION = "1"
HAND = "hand"


@dataclass(frozen=True)
class _Task:
    picture: Path
    crop: Crop
    by_hand: Written | None


def describe(
    pictures: Manifest,
    folder: Path,
    settings: DescribeSettings,
    captions: Path,
    trigger: str,
    class_word: str,
    captioner: Captioner | None = None,
    progress: Progress = silent,
) -> Outcome:
    """Write a caption for each kept picture: a person's, if there is one for its photo, else the captioner's.

    A caption by a captioner is "{trigger} {class}, ", the photo's tags if `folder_tags` is set, and its words, cut after
    `max_words`. One by hand is taken as it stands, with {trigger} and {class} filled in; if the trigger word is not in it, it
    is put first and `note` says so.

    Args:
        pictures: rows are `records.Crop` with a file `picture`; only kept ones are read.
        folder: the stage's. Row ids are those of the pictures, data those of `records.Caption` and `note`. No files.
        captions: folder of `<photo id>.txt` or `<photo's stem>.txt`, UTF-8; it need not exist. An empty file fails the row.
        captioner: who writes; None is the one that the settings name.

    Raises:
        ModelError: the captioner's weights are missing.
    """
    writer = captioner or open_captioner(settings)
    items: list[Item[_Task]] = []
    for row in pictures.kept:
        crop = Crop.of(row)
        by_hand = written(captions, crop.photo)
        told = (
            [by_hand.text, by_hand.unreadable]
            if by_hand
            else [row.files["picture"].digest, crop.data(), writer.identity]
        )
        items.append(
            Item(
                row.id, [trigger, class_word, HAND if by_hand else "", *told], _Task(pictures.path(row), crop, by_hand)
            )
        )

    def make(task: _Task, _: Path) -> Made:
        if task.by_hand:
            text, note = caption(task.by_hand, trigger, class_word)
            return Made({**Caption(task.crop.photo, text, HAND).data(), "note": note})
        from PIL import Image

        with Image.open(task.picture) as opened:
            picture = opened.convert("RGB")
        try:
            words = writer.words(picture, task.crop)
        except ModelError as error:  # no fault of this picture: once the weights are there, the next run tries again
            raise RuntimeError(str(error)) from error
        tags = task.crop.tags if settings.folder_tags else ()
        text = ", ".join([f"{trigger} {class_word}", *tags, words])
        text = " ".join(text.split()[: settings.max_words]).rstrip(",")
        return Made({**Caption(task.crop.photo, text, writer.name).data(), "note": ""})

    return refresh(
        folder, items, make, settings=settings, code_version=CODE_VERSION, what="describe", progress=progress
    )


def open_captioner(settings: DescribeSettings) -> Captioner:
    """The captioner that the settings name. Raises ModelError, in words, if its weights are missing."""
    if settings.captioner == "blip":
        from lora_pipeline.models.blip import Blip

        return Blip.open(settings.blip_model, settings.blip_revision)
    return Measured()
