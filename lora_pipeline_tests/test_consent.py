"""What a consent covers, to whom, and until when."""

import datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lora_pipeline import consent
from lora_pipeline.errors import SubjectError
from lora_pipeline.store import Store, digest_bytes, write_text
from lora_pipeline.subject import Subject, Use, load

GIVEN = {"given_by": "Ann", "given_on": "2026-01-02", "scope": "pictures for the family"}
TODAY = datetime.date(2026, 6, 1)


def subject(kind: str = "person", **more: Any) -> Subject:
    return Subject.model_validate(
        {
            "name": "ann",
            "kind": kind,
            "photos": "p",
            "trigger": "ohwx",
            "class": "woman",
            "recipe": "sd15_person",
            **more,
        }
    )


def test_what_was_written_before_uses_had_names_is_a_consent_to_training_alone() -> None:
    ann = subject(consent=GIVEN)
    covered = [use for use in get_args(Use) if not consent.objection(ann, use, TODAY)]
    assert covered == ["training"]
    told = consent.objection(ann, "share_file", TODAY)
    assert told == (
        "the consent of Ann does not cover giving the LoRA to others (it covers training); "
        "if they agree, add share_file to consent: uses in ann/subject.yaml"
    )


def test_nobody_s_consent_covers_nothing_of_a_person_and_all_of_a_thing() -> None:
    assert all(consent.objection(subject(), use, TODAY) for use in get_args(Use))
    assert not any(consent.objection(subject("product"), use, TODAY) for use in get_args(Use))
    assert consent.objection(subject("pet", consent=GIVEN), "commercial", TODAY)


@pytest.mark.parametrize(("today", "left"), [("2026-05-30", 1), ("2026-05-31", 0), ("2026-06-01", -1)])
def test_the_last_day_is_covered_and_the_next_is_not(today: str, left: int) -> None:
    ann, day = subject(consent=GIVEN | {"until": "2026-05-31"}), datetime.date.fromisoformat(today)
    assert ann.consent is not None
    assert consent.days_left(ann.consent, day) == left
    if left < 0:
        assert "ended on 2026-05-31" in consent.objection(ann, "training", day)
        assert "ended on 2026-05-31" in consent.in_words(ann, day)
    else:
        consent.refuse(ann, "training", day)
        assert f"until 2026-05-31 ({left} day{'' if left == 1 else 's'} left)" in consent.in_words(ann, day)


def test_a_document_that_changed_or_went_is_told(tmp_path: Path) -> None:
    store, paper = Store(tmp_path / "data"), b"I agree. Ann"
    given = GIVEN | {"document": "signed.pdf", "document_sha256": digest_bytes(paper)}
    tree = subject(consent=given).model_dump(mode="json", by_alias=True)
    write_text(store.subject("ann") / "subject.yaml", yaml.safe_dump(tree))
    (store.subject("ann") / "signed.pdf").write_bytes(paper)
    consent.refuse(load(store, "ann"), "training")
    assert "the document is as it was signed" in consent.in_words(load(store, "ann"))

    (store.subject("ann") / "signed.pdf").write_bytes(paper + b", to everything")
    with pytest.raises(SubjectError, match=r"signed\.pdf, has changed since it was signed"):
        consent.refuse(load(store, "ann"), "training")
    (store.subject("ann") / "signed.pdf").unlink()
    with pytest.raises(SubjectError, match=r"cannot be read \(No such file"):
        consent.refuse(load(store, "ann"), "training")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"uses": ["share"]}, "Input should be 'training', 'share_file'"),
        ({"until": "soon"}, "consent.until"),
        ({"document": "d", "document_sha256": "12"}, "String should match pattern"),
        ({"document_sha256": "0" * 64}, "name that too, as document"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    store = Store(tmp_path)
    tree = subject().model_dump(mode="json", by_alias=True) | {"consent": GIVEN | more}
    write_text(store.subject("ann") / "subject.yaml", yaml.safe_dump(tree))
    with pytest.raises(SubjectError, match=words):
        load(store, "ann")
