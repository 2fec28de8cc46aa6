"""`--set section.field=value`: changes for one run, as the launchpad of each asset takes them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lora_pipeline.errors import SettingsError
from lora_pipeline.flow import STEPS
from lora_pipeline.settings import Settings


def by_asset(settings: Settings, changes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Changes as asset → field → value.

    Raises:
        SettingsError: one is not of the form section.field=value, is misspelt (with the nearest name), out of range, or
            belongs to a section that only `subject.yaml` can change.
    """
    tree = _tree(changes)
    settings.changed(tree, "--set")
    offered = {step.sections[0] for step in STEPS}
    for section in tree:
        if section not in offered:
            raise SettingsError(
                f"--set {section}: several stages must agree on it, so it is changed in subject.yaml alone"
            )
    return {step.noun: tree[step.sections[0]] for step in STEPS if step.sections[0] in tree}


def changed(settings: Settings, changes: Sequence[str]) -> Settings:
    """These settings with any fields changed, for what makes no asset. Raises SettingsError as `by_asset`, but for no section."""
    return settings.changed(_tree(changes), "--set")


def prompts_from(file: Path) -> list[str]:
    """Changes by which the validation prompts are those of a file, and of no list."""
    return ["grade.prompt_list=none", f"grade.prompts_file={json.dumps(str(file.expanduser().resolve()))}"]


def _tree(changes: Sequence[str]) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        section, dot, field = name.strip().partition(".")
        if not equals or not dot:
            raise SettingsError(f"--set {change}: write it as section.field=value, such as fit.epochs=8")
        tree.setdefault(section, {})[field] = yaml.safe_load(text)
    return tree
