"""What web UIs show of a LoRA before it is loaded: a picture and a word sheet, under the names by which they look for them."""

import json
import shutil
from pathlib import Path

from lora_pipeline.stages.publish.card import BaseFacts, CardFacts, licence_of
from lora_pipeline.store import whole, write_text


def write_preview(picture: Path, lora: str, folder: Path) -> str:
    """`<lora>.preview.png`, which AUTOMATIC1111 and Forge (`find_preview`) and ComfyUI's model library show; returns its name."""
    name = f"{Path(lora).stem}.preview.png"
    with whole(folder / name) as aside:
        shutil.copyfile(picture, aside)
    return name


def write_info(card: CardFacts, base: BaseFacts, lora: str, folder: Path) -> str:
    """`<lora>.json`, which AUTOMATIC1111 and Forge read as a LoRA's user metadata: what to write in a prompt, how strong, and what to mind.

    Without a `preferred weight` they take their own default. There is no `<lora>.civitai.info`: that is what civitai answers of a model that it
    has, by its numbers there, and what else stands in it (`trainedWords`) is the `activation text` here.
    """
    name = f"{Path(lora).stem}.json"
    tree: dict[str, str | float] = {
        "description": f"A LoRA of {card.trigger} {card.class_word} for {base.model}",
        "activation text": f"{card.trigger} {card.class_word}",
        **({} if card.strength_value is None else {"preferred weight": card.strength_value}),
        "negative text": str(card.settings["grade"].get("negative_prompt", "")),
        "notes": f"Licence: {licence_of(card, base)}. {card.commercial(base)}",
    }
    write_text(folder / name, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    return name
