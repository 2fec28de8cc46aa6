"""Which models' terms go with a release: those of models that had a part in it, and no others'."""

from pathlib import Path
from typing import Any

import pytest

from lora_pipeline import flow
from lora_pipeline.records import Kind
from lora_pipeline.settings import Settings
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject

INSIGHT = {"detector": "insightface"}
UP = {"head_pose": True, "coverage": {"up": 3}}


@pytest.mark.parametrize(
    ("kind", "crop", "told"),
    [
        ("person", {}, []),
        ("person", INSIGHT, ["InsightFace"]),
        ("product", INSIGHT, ["InsightFace"]),  # it finds the strangers who are hidden
        ("style", INSIGHT, []),
        ("person", {"head_pose": True, "best": 20}, []),  # pitch is written down, and chooses nothing
        ("person", UP, []),
        ("person", {**UP, "best": 20}, ["dlib's 68 landmarks"]),
        ("person", {**UP, **INSIGHT, "framing_shares": {"close": 1.0}}, ["InsightFace", "dlib's 68 landmarks"]),
        ("product", {**UP, "best": 20}, []),
    ],
)
def test_terms_go_with_what_was_chosen_by_a_model(
    tmp_path: Path, kind: Kind, crop: dict[str, Any], told: list[str]
) -> None:
    subject = Subject(name="a", kind=kind, photos=tmp_path, trigger="qz3", class_word="x", recipe="sd15_person")
    work = flow.Work(Store(tmp_path), subject, Settings().changed({"crop": crop}, "test"))
    research = flow._research(work)
    assert len(research) == len(told)
    assert all(one.startswith(name) for one, name in zip(research, told, strict=True))
