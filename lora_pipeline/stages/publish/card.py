"""The model card: what the LoRA is, how to use it, what it was made from, and what it must not be used for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import yaml

from lora_pipeline.families import base_path, family
from lora_pipeline.families.samplers import OWN, SAMPLERS
from lora_pipeline.records import Checkpoint, Example, Kind, Score
from lora_pipeline.settings import BaseSettings
from lora_pipeline.stages.publish.licence import terms
from lora_pipeline.store import digest_bytes

BUNDLED = "bundled"

# How diffusers, or else peft, is told to load the file, by what it holds.
_LOADS = {
    "lora": 'pipeline.load_lora_weights(".", weight_name="{file}")',
    "lokr": 'pipeline.{part}.load_lora_adapter(".", weight_name="{file}", prefix="{part}")',
    "loha": """import json
from peft import LoHaConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors import safe_open

file, prefix = safe_open("{file}", "pt"), "{part}."
config = json.loads(file.metadata()["lora_adapter_metadata"])
inject_adapter_in_model(LoHaConfig(**{{key.removeprefix(prefix): config[key] for key in config}}), pipeline.{part})
set_peft_model_state_dict(pipeline.{part}, {{key.removeprefix(prefix): file.get_tensor(key) for key in file.keys()}})""",
}
_LOADED = {
    "lokr": "It is a LoKr, which `load_lora_weights` of diffusers reads for a few models only.\n",
    "loha": "It is a LoHa, which diffusers does not read, and so peft puts it in.\n",
}


@dataclass(frozen=True)
class Hidden:
    """Other people's faces on the pictures that were trained on.

    Args:
        faces: how many there are, each of them hidden.
        pictures: on how many pictures.
        method: what they are covered with.
    """

    faces: int
    pictures: int
    method: str


@dataclass(frozen=True)
class CardFacts:
    """What the card and the lineage tell beside the scores.

    Args:
        name: the subject's.
        kind: person, pet, product or style.
        trigger, class_word: as in the captions.
        consent: for a person, who gave it, when, to what (`given_by`, `given_on`, `scope`, and `uses` and `until` where they are told); else None.
        settings: the whole tree as it was really used, as JSON values.
        photos: (id, SHA-256) of every photo that was trained on, sorted.
        counts: what → how many, in the order in which they are told.
        licence: of the LoRA; empty for the base model's.
        examples: what was trained on, of which the files' headers tell sizes, repeats and tags, and never a photo's name.
        strength: which one is recommended, and why; empty where no sweep over strengths says so.
        strength_value: that strength itself, None likewise.
        research: what the makers of models that are for non-commercial research say, a sentence each, where those models had a part in
            what is released: it holds none of their weights, but they chose what it was trained on, or which epoch it is.
        hidden: other people's faces; None where none is looked for.
        may_show: whether pictures drawn with the LoRA may be shown; without it the card has none.
        recalled: why the LoRA must not be used any more; empty if it may.
    """

    name: str
    kind: Kind
    trigger: str
    class_word: str
    consent: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    photos: tuple[tuple[str, str], ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    licence: str = ""
    examples: tuple[Example, ...] = ()
    strength: str = ""
    strength_value: float | None = None
    research: tuple[str, ...] = ()
    hidden: Hidden | None = None
    may_show: bool = False
    recalled: str = ""

    @property
    def may_sell(self) -> bool:
        """Whether the consent, where one is needed, covers commercial use."""
        if self.consent is None:
            return self.kind != "person"
        return "commercial" in self.consent.get("uses", ())

    def commercial(self, base: "BaseFacts") -> str:
        """Whether the LoRA may be used for money, as a sentence: by consent, and by the base model's licence."""
        sale = terms(base.licence).sale
        if not self.may_sell:
            return "No commercial use: the consent does not cover it, whatever the licence allows."
        if self.research:
            return "No commercial use: models for non-commercial research had a part in it, whatever the base model's licence allows."
        if sale is False:
            return "No commercial use: the base model's licence forbids it, whatever the consent covers."
        if sale is None:
            return "Commercial use as far as the base model's licence allows it: read that first."
        return "Commercial use is allowed by the base model's licence" + (
            ", and the consent covers it." if self.consent is not None else "."
        )


@dataclass(frozen=True)
class Shown:
    """A validation picture on the card.

    Args:
        file: its path beside the card.
        prompt, seed: with which it was drawn.
        how: the rest of what it was drawn with, in words.
    """

    file: str
    prompt: str
    seed: int
    how: str = ""


@dataclass(frozen=True)
class BaseFacts:
    """The base model as others may know it: of a path on this machine only the last part.

    Args:
        model: hub id, `bundled`, or the name of a folder or file.
        where: `hub`, `bundled`, `folder` or `file`.
        digest: identity of its weights.
        file_digest: SHA-256 of a model in one file, by which web UIs know it; else empty.
        file_legacy: the older hash of it, eight digits; else empty.
        clip_skip: see `BaseSettings`.
    """

    family: str
    model: str
    where: str
    revision: str
    vae: str
    digest: str
    licence: str
    file_digest: str = ""
    file_legacy: str = ""
    clip_skip: int = 1


@dataclass(frozen=True)
class Chosen:
    """The chosen epoch among all. `learned` is None where it cannot be said whether the subject was learned."""

    checkpoint: Checkpoint
    scores: tuple[Score, ...]
    learned: bool | None
    precision: str


def licence_of(card: CardFacts, base: BaseFacts) -> str:
    """The LoRA's own licence by name, the base model's if it has none, and that there is no commercial use where the consent does not cover that,
    or models for research had a part in it.

    A consent takes nothing from a licence, which is about the numbers and not about the person; but who reads the licence alone must not
    think that all which it allows is agreed to.
    """
    own = card.licence or base.licence
    if terms(base.licence).sale is False:
        return own
    limits = [] if card.may_sell else ["the consent covers no commercial use"]
    limits += ["made with models for non-commercial research"] if card.research else []
    return "; ".join([own, *limits])


def base_facts(base: BaseSettings, digest: str) -> BaseFacts:
    """What may be told of a base model. Raises ModelError if it is missing."""
    path = base_path(base)
    where = BUNDLED if base.model == BUNDLED else "hub" if path is None else "file" if path.is_file() else "folder"
    model = base.model if path is None or base.model == BUNDLED else path.name
    vae = Path(base.vae).name if base.vae and Path(base.vae).exists() else base.vae
    facts = BaseFacts(base.family, model, where, base.revision, vae, digest, base.licence, clip_skip=base.clip_skip)
    if where != "file" or path is None:
        return facts
    with path.open("rb") as handle:  # AUTOMATIC1111's first hash of a model: of 64 KiB from the first MiB on
        handle.seek(0x100000)
        legacy = digest_bytes(handle.read(0x10000))[:8]
    return replace(facts, file_digest=digest.partition("+")[0], file_legacy=legacy)


def without_paths(tree: Any) -> Any:
    """Settings as others may know them: of a path on this machine only the last part, and no address in the person's own network."""
    if isinstance(tree, Mapping):
        return {name: without_paths(value) for name, value in cast(Mapping[str, Any], tree).items()}
    if isinstance(tree, list | tuple):
        return [without_paths(value) for value in cast(Sequence[Any], tree)]
    if isinstance(tree, str) and (Path(tree).is_absolute() or tree.startswith("~/")):
        return Path(tree).name
    if isinstance(tree, str) and tree.startswith("http://") and urlsplit(tree).hostname != "127.0.0.1":
        return "http://…"  # whoever is outside is asked by https
    return tree


def write_card(
    card: CardFacts,
    base: BaseFacts,
    chosen: Chosen,
    files: Mapping[str, str],
    unnamed: str = "",
    licence_page: str = "",
    pictures: Sequence[Shown] = (),
) -> str:
    """The card as Markdown, with the header of a Hugging Face model card.

    Args:
        card, base, chosen: what there is to tell.
        files: names of the files by role.
        unnamed: why there is no file for other programs, where there is none.
        licence_page: of the base model's licence, where that is none that Hugging Face has a name for.
        pictures: that lie beside the card.
    """
    parts = [
        _header(card, base, licence_page, pictures),
        _what(card, base, chosen),
        *_pictures(card, pictures),
        _use(card, base, files, unnamed),
        _made_from(card, chosen),
        _why(card, chosen),
        _settings(card, base),
        _consent(card),
        _licence(card, base, files),
        _limits(card),
    ]
    return "\n".join(parts)


def _header(card: CardFacts, base: BaseFacts, licence_page: str, pictures: Sequence[Shown]) -> str:
    tree: dict[str, Any] = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["lora", "text-to-image", "diffusers", "template:diffusion-lora"],
        "license": card.licence or base.licence,
        "instance_prompt": f"{card.trigger} {card.class_word}",
    }
    own = licence_of(card, base)
    if own != tree["license"]:  # no licence that Hugging Face has a name for, and it wants these in small letters
        tree |= {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", own.lower()).strip("-")}
    if licence_page:  # as that licence's own model card has it
        tree |= {"license": "other", "license_name": own, "license_link": licence_page}
    if base.where == "hub":
        tree |= {"base_model": base.model, "base_model_relation": "adapter"}
    if pictures:
        tree["widget"] = [{"text": one.prompt, "output": {"url": one.file}} for one in pictures]
    return f"---\n{yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)}---\n"


def _what(card: CardFacts, base: BaseFacts, chosen: Chosen) -> str:
    whole = {"person": "a person", "pet": "a pet", "product": "a product", "style": "a style"}[card.kind]
    photos = f"{len(card.photos)} {'photo' if len(card.photos) == 1 else 'photos'}"
    warning = (
        f"\n**This LoRA has not learned its subject.** {_chosen(chosen).reason[:1].upper()}{_chosen(chosen).reason[1:]}.\n"
        if chosen.learned is False
        else ""
    )
    by = "picked by a person" if _chosen(chosen).picked else "chosen by measurement"
    recalled = f"\n**This LoRA is {card.recalled}. Do not use it, and remove every copy.**\n" if card.recalled else ""
    return f"""# {card.trigger}
{recalled}
A LoRA (a small addition to an image model) of {whole}, `{card.name}`, for the base model `{base.model}` ({base.family}).
It was trained on {photos}; this is epoch {chosen.checkpoint.epoch} of {max(score.epoch for score in chosen.scores)}, {by}.
The words **`{card.trigger} {card.class_word}`** in a prompt call it up.
{warning}"""


def _pictures(card: CardFacts, pictures: Sequence[Shown]) -> list[str]:
    if not card.may_show:
        return [
            "## Pictures\n\nThere are none here: the consent does not cover showing others pictures drawn with this LoRA.\n"
        ]
    if not pictures:
        return []
    shown = "\n\n".join(f"![{one.prompt}]({one.file})\n*{one.prompt}*, seed {one.seed}" for one in pictures)
    how = "".join(f" {_sentence(told)}" for told in dict.fromkeys(one.how for one in pictures) if told)
    return [
        f"## Pictures\n\nDrawn by this epoch, none of them picked by hand: of each prompt the first seed.{how}\n\n{shown}\n"
    ]


def _use(card: CardFacts, base: BaseFacts, files: Mapping[str, str], unnamed: str) -> str:
    where = {
        "hub": f'DiffusionPipeline.from_pretrained("{base.model}"{f", revision={base.revision!r}" if base.revision else ""})',
        "bundled": 'DiffusionPipeline.from_pretrained("PATH/TO/lora_pipeline/demo/base")',
        "folder": f'DiffusionPipeline.from_pretrained("PATH/TO/{base.model}")',
        "file": f'StableDiffusionPipeline.from_single_file("PATH/TO/{base.model}")',
    }[base.where]
    imports = where.split(".")[0]
    grade = card.settings["grade"]
    size_px = grade["size_px"]
    how = f"num_inference_steps={grade['sampling_steps']}, guidance_scale={grade['guidance_scale']:g}, height={size_px}, width={size_px}"
    type_ = card.settings["fit"].get("network_type", "lora")
    part = family(base.family).denoiser_folder
    others = "ComfyUI" if type_ == "lokr" and part == "transformer" else "ComfyUI, AUTOMATIC1111, Forge"
    other = (
        f"\nOther programs ({others}) load `{files['webui']}`: the same numbers by the names that they know.\n"
        if "webui" in files
        else f"\nThere is no file for other programs ({others}): {unnamed}.\n"
    )
    before = ""
    if (sampler := SAMPLERS.get(grade.get("sampler", OWN))) is not None:
        imports += f", {sampler}"
        before += f"pipeline.scheduler = {sampler}.from_config(pipeline.scheduler.config)\n"
    if base.clip_skip > 1:
        before += f"""clip = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
clip.encoder.layers = clip.encoder.layers[:{1 - base.clip_skip}]  # clip skip {base.clip_skip}
"""
        other += f"\nIt was trained with **clip skip {base.clip_skip}**, as AUTOMATIC1111 and kohya's trainers count it: set it there too.\n"
    if card.strength:
        other += f"\n**Recommended strength**: {card.strength}.\n"
    return f"""## Use

```python
from diffusers import {imports}
pipeline = {where}
{before}{_LOADS.get(type_, _LOADS["lora"]).format(file=files["lora"], part=part)}
pipeline("a photo of {card.trigger} {card.class_word}", {how}).images[0].save("picture.png")
```
{_LOADED.get(type_, "")}{other}"""


def _made_from(card: CardFacts, chosen: Chosen) -> str:
    framings = ", ".join(card.settings.get("crop", {}).get("framings", ())) or "whole"
    counts = "".join(f"| {what.replace('_', ' ')} | {number} |\n" for what, number in card.counts.items())
    return f"""## Made from

{len(card.photos)} photos (their digests are in `lineage.json`, which stays with who made this), cut in these framings: {framings}.
{_hidden(card)}Up to this epoch the training saw {chosen.checkpoint.images_seen} pictures, repeats counted.

| what | number |
|---|---|
| photos trained on | {len(card.photos)} |
{counts}
Training set `{chosen.checkpoint.trained_on[:16]}`, run `{chosen.checkpoint.run[:16]}`.
"""


def _hidden(card: CardFacts) -> str:
    hidden = card.hidden
    if hidden is None:
        return ""
    if not hidden.faces:
        return "No other person's face was found on the pictures.\n"
    return f"On {hidden.pictures} of the pictures {hidden.faces} faces of other people were found. All of them are hidden ({hidden.method}) and kept out of the loss.\n"


def _why(card: CardFacts, chosen: Chosen) -> str:
    faces = card.kind == "person"
    rows = "".join(
        f"| {'base model' if one.epoch == 0 else one.epoch} | {_number(one.identity_distance if faces else one.picture_distance)} |"
        + (f" {one.faces_found:.0%} |" if faces else "")
        + f" {'**chosen**' if one.chosen else ''} | {one.reason} |\n"
        for one in chosen.scores
    )
    measure = (
        "Identity distance: mean Euclidean distance of the face descriptors in an epoch's validation pictures to the mean of the subject's, in a picture without a face that of the base model's; less is nearer."
        if faces
        else f"Distance: of the validation pictures to the training pictures {_by(chosen)}; less is nearer."
    )
    return f"""## Why this epoch

{_sentence(_chosen(chosen).reason)}

| epoch | {"identity distance" if faces else "distance"} |{" faces found |" if faces else ""} | why |
|---|---|{"---|" if faces else ""}---|---|
{rows}
{measure}
"""


def _settings(card: CardFacts, base: BaseFacts) -> str:
    shown = {
        section: card.settings[section]
        for section in ("crop", "conceal", "describe", "encode", "fit", "grade")
        if section in card.settings
    }
    tree = {
        "base": {
            "family": base.family,
            "model": base.model,
            "revision": base.revision,
            "vae": base.vae,
            "clip_skip": base.clip_skip,
        },
        **shown,
    }
    return f"""## Settings

```yaml
{yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)}```
"""


def _consent(card: CardFacts) -> str:
    if card.consent is not None:
        told = card.consent
        uses = [str(use).replace("_", " ") for use in told.get("uses", ("training",))]
        until = f" It holds until {told['until']}." if told.get("until") else ""
        return f"## Consent\n\nGiven by {told.get('given_by')} on {told.get('given_on')}, for: {told.get('scope')}\n\nIt covers: {', '.join(uses)}.{until}\n"
    if card.kind == "person":
        return (
            "## Consent\n\n**None is recorded.** Do not use or pass on this LoRA before the person shown has agreed.\n"
        )
    return "## Consent\n\nThe subject is not a person, so none is recorded.\n"


def _licence(card: CardFacts, base: BaseFacts, files: Mapping[str, str]) -> str:
    name = licence_of(card, base)
    own = f"`{name}`" if name != base.licence else f"`{name}`, as the base model's, of which it is made"
    research = "".join(f"\n{_sentence(told)} No weights of theirs are in this file.\n" for told in card.research)
    along = f"`{files['notice']}` must go along wherever this LoRA goes.\n" if "notice" in files else ""
    return f"""## Licence

Base model `{base.model}`: `{base.licence}`. This LoRA: {own}. The base model's terms hold for every picture drawn with it.

{terms(base.licence).forbids}

{card.commercial(base)}
{research}{along}"""


def _limits(card: CardFacts) -> str:
    person = """- pictures of this person beyond what they agreed to (see Consent), or after they have withdrawn it;
- pictures meant to pass for photographs of things that did not happen, in advertising, news, or evidence of any kind;
- sexual, degrading or hateful pictures, or ones that harass, threaten or impersonate;
- recognising this person, or deciding anything about them.
"""
    thing = """- pictures meant to deceive about what the subject is, does or looks like, or about who made them;
- sexual, degrading or hateful pictures;
- passing off works as another maker's.
"""
    return f"""## Not to be used for

{person if card.kind == "person" else thing}
What it draws may be wrong in any detail, and carries the base model's biases.
"""


def _by(chosen: Chosen) -> str:
    """What the distance of things was taken by: an embedder, or what needs none."""
    weak = "by colours and edges"
    by = next((one.name.removeprefix("distance ") for one in _chosen(chosen).measures), weak)
    return f"{weak} alone, a weak measure" if by == weak else by


def _chosen(chosen: Chosen) -> Score:
    return next(one for one in chosen.scores if one.chosen)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
