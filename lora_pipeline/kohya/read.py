"""A file or folder of another trainer → `Imported`."""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from lora_pipeline.errors import SettingsError
from lora_pipeline.families import family as family_of
from lora_pipeline.kohya.folder import read_folder, trigger_and_class
from lora_pipeline.kohya.imported import Imported, Row
from lora_pipeline.kohya.rules import (
    ALIASES,
    BESIDE,
    BUCKET_DEFAULTS,
    CIVITAI,
    CIVITAI_WEIGHT_DECAYS,
    DATASET_DEFAULTS,
    FLOW_DEFAULTS,
    KNOWN,
    READ_FIRST,
    RULES,
    SECRET,
    TRAINING_DEFAULTS,
    WEIGHT_DECAYS,
    Context,
    off,
    sets,
)
from lora_pipeline.recipes import FAMILIES_ELSEWHERE, is_flow, recipe, recipe_of

WHOLE = Row(
    "(whole photos)",
    "",
    "set",
    "sd-scripts trains on whole photos; take it out for crops in several framings, each of which counts as a picture",
    (("crop.framings", ("whole",)),),
)


@dataclass(frozen=True)
class Entry:
    """One key of a file.

    Args:
        where: the tables it stands in, for the reader.
        key: as it stands there.
        value: its value.
        level: how near to the pictures: of two that say otherwise, the nearer wins.
    """

    where: str
    key: str
    value: Any
    level: int = 0

    @property
    def name(self) -> str:
        """sd-scripts' name of the key."""
        return ALIASES.get(self.key, self.key)


def read(source: Path, recipe_name: str = "", kind: str = "") -> Imported:
    """Read a JSON of civitai's trainer or of the kohya_ss GUI, a TOML of sd-scripts, or a folder of pictures with repeats in its name.

    Args:
        source: file or folder; it is only read.
        recipe_name: to start from; empty is the one of the file's base model and of `kind`.
        kind: of the subject; empty is what the file says, else a person.

    Raises:
        SettingsError: it is not there, none of these, damaged, or the recipe is unknown.
        SubjectError: the folder is no such folder.
    """
    source = source.expanduser()
    if source.is_dir():
        found = read_folder(source)
        return replace(found, recipe=recipe_name or recipe_of("sd15", kind or "person"))
    entries, what = _entries(source)
    if not any(entry.key in KNOWN for entry in entries):
        keys = ", ".join(entry.key for entry in entries[:5]) or "no key at all"
        raise SettingsError(
            f"{source}: no settings of kohya's or civitai's trainer (it has {keys}); import reads their JSON and TOML files"
        )
    first = {entry.key: entry.value for entry in entries}
    kind = kind or {"style": "style"}.get(str(first.get("type", "")).lower(), "person")
    family, told = _family(first)
    name = recipe_name or recipe_of(family or "sd15", kind)
    base = recipe(name).base
    civitai = what == "civitai JSON"
    values = _values(entries)
    plug = family_of(base.family)
    context = Context(values, is_flow(base.family), civitai, len(plug.trained_texts), plug.clip_skips)
    rows = [*_rows(entries, context, told if family in ("", base.family) else _other(family, base.family, name))]
    rows += _unsaid(context, what)
    photos, trigger, class_word = _subject(entries)
    return Imported(source, what, name, tuple(rows), photos, trigger, class_word, kind)


def _entries(source: Path) -> tuple[list[Entry], str]:
    try:
        text = source.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"{source} is no text: import reads a .json, a .toml or a folder of pictures") from None
    except OSError as error:
        raise SettingsError(f"{source} cannot be read: {error.strerror}") from None
    try:
        tree: Any = json.loads(text) if source.suffix.lower() == ".json" else tomllib.loads(text)
    except ValueError as error:
        form = "JSON" if source.suffix.lower() == ".json" else "TOML"
        raise SettingsError(f"{source} is not {form}: {error}") from None
    if not isinstance(tree, dict):
        raise SettingsError(f"{source} holds no keys, but {type(tree).__name__}")
    tree = cast(dict[str, Any], tree)
    if source.suffix.lower() == ".json":
        entries = [*_flat(tree, "")]
        civitai = "params" in tree or any(entry.key in CIVITAI for entry in entries)
        return entries, "civitai JSON" if civitai else "kohya_ss JSON"
    if "datasets" in tree:
        return [*_dataset(tree)], "sd-scripts dataset TOML"
    return [*_flat(tree, "")], "sd-scripts TOML"  # whose tables mean nothing: `read_config_from_file` of train_util.py


def _flat(tree: Mapping[str, Any], where: str) -> Iterator[Entry]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and key not in RULES:
            yield from _flat(cast(Mapping[str, Any], value), f"{where}{key}.")
        else:
            yield Entry(where, key, value)


def _dataset(tree: Mapping[str, Any]) -> Iterator[Entry]:
    """Of two that say otherwise the nearer to the pictures wins: config_util.py, `BlueprintGenerator`."""
    for key, value in tree.items():
        if key == "general":
            yield from (Entry("general.", name, one, 1) for name, one in cast(Mapping[str, Any], value).items())
        elif key != "datasets":
            yield from _flat({key: value}, "")
    for number, dataset in enumerate(cast(Sequence[Mapping[str, Any]], tree["datasets"]), 1):
        where = f"datasets[{number}]."
        yield from (Entry(where, name, one, 2) for name, one in dataset.items() if name != "subsets")
        for count, subset in enumerate(cast(Sequence[Mapping[str, Any]], dataset.get("subsets", [])), 1):
            regular = bool(subset.get("is_reg"))
            for name, one in subset.items():
                # what regularisation pictures ask for is told, but is not the subject's
                yield Entry(f"{where}subsets[{count}].", name, one, -1 if regular and name != "is_reg" else 3)


def _values(entries: Sequence[Entry]) -> dict[str, Any]:
    """By sd-scripts' name: of the highest level, the first. Empty ones are not given."""
    found: dict[str, Entry] = {}
    for entry in entries:
        given = entry.value not in (None, "") and entry.level >= 0
        if given and (entry.name not in found or entry.level > found[entry.name].level):
            found[entry.name] = entry
    return {name: entry.value for name, entry in found.items()}


def _rows(entries: Sequence[Entry], context: Context, base: Mapping[str, Row]) -> Iterator[Row]:
    for entry in entries:
        key = f"{entry.where}{entry.key}"
        rule = RULES.get(entry.name)
        if entry.level < 0:
            yield Row(key, entry.value, "by hand", BESIDE)
        elif entry.key in base:
            yield replace(base[entry.key], key=key, given=entry.value)
        elif entry.key == "image_dir" and len(_folders(entries)) > 1:
            yield Row(key, entry.value, "by hand", "a subject has one folder of photos: choose it with --photos")
        elif entry.key in READ_FIRST:
            yield Row(key, entry.value, "as here", READ_FIRST[entry.key])
        elif rule is None:
            yield Row(key, entry.value, "unknown", _nearest(entry.key))
        elif entry.value in (None, ""):
            yield Row(key, entry.value, "no matter", "empty")
        elif entry.name != "is_reg" and entry.value != context.values[entry.name]:
            yield _outdone(key, entry, entries, context)
        else:
            verdict = rule(entry.value, context)
            yield Row(
                key, "(not shown)" if entry.key in SECRET else entry.value, verdict.fate, verdict.words, verdict.sets
            )


def _outdone(key: str, entry: Entry, entries: Sequence[Entry], context: Context) -> Row:
    value = context.values[entry.name]
    if any(other.name == entry.name and other.level > entry.level for other in entries):
        return Row(key, entry.value, "no matter", f"nearer to the pictures stands {value}")
    return Row(
        key, entry.value, "not yet", f"a value of its own for each dataset or subset; the first, {value}, is taken"
    )


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, KNOWN, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else "no trainer's key is like it; nothing is set"


def _unsaid(context: Context, what: str) -> Iterator[Row]:
    """What the trainer does when told nothing, where a recipe may do otherwise."""
    values = context.values
    yield WHOLE
    optimizer = str(values.get("optimizer_type", "AdamW")).lower()
    if context.civitai:
        if "optimizer_args" not in values and "optimizer_type" in values:
            own = {} if context.flow else CIVITAI_WEIGHT_DECAYS
            decay = own.get(optimizer, WEIGHT_DECAYS.get(optimizer, 0))
            yield _default("optimizerArgs", f"weight_decay={decay}", {"fit__weight_decay": decay}, "civitai's trainer")
        return
    if what == "sd-scripts dataset TOML":
        if "num_repeats" not in values:
            yield _default("num_repeats", 1, {"encode__repeats": 1}, "sd-scripts")
        return
    defaults = dict(TRAINING_DEFAULTS)
    if "dataset_config" not in values:
        defaults |= DATASET_DEFAULTS
    if values.get("enable_bucket"):
        defaults |= BUCKET_DEFAULTS
    if context.flow:
        defaults |= FLOW_DEFAULTS
    if "lr_warmup" in values:
        del defaults["lr_warmup_steps"]
    if "unet_lr" in values:
        del defaults["learning_rate"]
    if not off(values.get("max_train_epochs")) or not off(values.get("epoch")):
        del defaults["max_train_steps"]
    if "text_encoder_lr" in values or values.get("network_train_text_encoder_only"):
        del defaults["network_train_unet_only"]
    for key, value in defaults.items():
        if key not in values:
            verdict = RULES[key](value, context)
            if verdict.fate != "no matter":
                yield Row(f"({key})", value, verdict.fate, _by_default(verdict.words, "sd-scripts"), verdict.sets)
    if "weight_decay" not in str(values.get("optimizer_args", "")):
        decay = WEIGHT_DECAYS.get(optimizer, 0)
        yield _default("weight_decay", decay, {"fit__weight_decay": decay}, f"the optimiser {optimizer}")


def _default(key: str, value: Any, fields: Mapping[str, Any], whose: str) -> Row:
    verdict = sets(**fields)
    return Row(f"({key})", value, verdict.fate, _by_default(verdict.words, whose), verdict.sets)


def _by_default(words: str, whose: str) -> str:
    return "; ".join(part for part in (words, f"not in the file: what {whose} does then") if part)


def _family(first: Mapping[str, Any]) -> tuple[str, dict[str, Row]]:
    """The base model's family, as far as the file says it, and the rows of the keys that said so."""
    rows: dict[str, Row] = {}
    found = ""
    for key in ("baseModel", "baseModelType", "network_module", "sdxl", "flux1_checkbox", "sd3_checkbox"):
        if key not in first:
            continue
        said = FAMILIES_ELSEWHERE.get(key if first[key] is True else str(first[key]).lower())
        if said is None:
            if key == "baseModel" and not off(first[key]):
                words = "a model of somebody's own: download it, and set base.model to the file"
                rows[key] = Row(key, "", "by hand", words)
            elif key == "network_module":
                continue
            else:
                rows[key] = Row(
                    key, "", "as here" if off(first[key]) else "by hand", "choose --recipe" * (not off(first[key]))
                )
            continue
        found = found or said.family
        words = f"the family {said.family}"
        if said.own_weights:
            words += f", but trained there on {said.own_weights}: download it, and set base.model to the file"
        rows[key] = Row(key, "", "by hand" if said.own_weights else "as here", words)
    model = str(first.get("pretrained_model_name_or_path", "")).lower()
    if not found and any(word in model for word in ("xl", "pony", "illustrious")):
        found = FAMILIES_ELSEWHERE["sdxl"].family
    return found, {key: row for key, row in rows.items() if key != "network_module"}


def _other(family: str, own: str, name: str) -> dict[str, Row]:
    words = f"the family {family}, but the recipe {name} is of {own}: choose --recipe"
    keys = ("baseModel", "baseModelType", "sdxl", "flux1_checkbox", "sd3_checkbox")
    return {key: Row(key, "", "by hand", words) for key in keys}


def _subject(entries: Sequence[Entry]) -> tuple[Path | None, str, str]:
    folders = _folders(entries)
    tokens = [str(entry.value) for entry in entries if entry.key == "class_tokens" and entry.level >= 0]
    trigger, class_word = trigger_and_class(tokens[0]) if tokens else ("", "")
    word = next((str(entry.value) for entry in entries if entry.key == "triggerWord"), "")
    return Path(folders.pop()).absolute() if len(folders) == 1 else None, word or trigger, class_word


def _folders(entries: Sequence[Entry]) -> set[str]:
    return {str(entry.value) for entry in entries if entry.key == "image_dir" and entry.level >= 0}
