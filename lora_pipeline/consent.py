"""What a subject's consent covers: the one place that decides it.

Who is about to go past it asks `refuse` first; who only shows something else instead asks `objection`.
"""

import datetime

from lora_pipeline.errors import SubjectError
from lora_pipeline.store import digest_file
from lora_pipeline.subject import FILE, Consent, Subject, Use

_WORDS: dict[Use, str] = {
    "training": "training on their photos",
    "share_file": "giving the LoRA to others",
    "share_pictures": "showing others pictures drawn with the LoRA",
    "outside_services": "sending their photos to an outside service",
    "commercial": "commercial use",
}


def objection(subject: Subject, use: Use, today: datetime.date | None = None) -> str:
    """Why the subject's consent does not cover a use, as a sentence for the person; empty if it does.

    A person needs a consent for anything. A pet, product or style needs none, but one that is recorded counts.

    Args:
        subject: whose `document`, if it has one, is an absolute path (`Subject.placed`).
        use: what is about to be done.
        today: the day on which it is done; None is now. The last day of a consent is covered.
    """
    consent = subject.consent
    where = f"{subject.name}/{FILE}"
    if consent is None:
        if subject.kind != "person":
            return ""
        return f"no consent is recorded for {subject.name}, so {_WORDS[use]} is not covered: write in {where} who agreed (consent: given_by, given_on, scope)"
    if (left := days_left(consent, today)) is not None and left < 0:
        return (
            f"the consent of {consent.given_by} ended on {consent.until}, so {_WORDS[use]} is not covered any more; "
            f"if they agree anew, write given_on and until in {where}"
        )
    if changed := _changed_document(consent):
        return f"{changed}, so {_WORDS[use]} is not covered; ask them which one they signed, and write its path and SHA-256 in {where} (consent: document, document_sha256)"
    if use not in consent.uses:
        return (
            f"the consent of {consent.given_by} does not cover {_WORDS[use]} (it covers {', '.join(consent.uses) or 'nothing'}); "
            f"if they agree, add {use} to consent: uses in {where}"
        )
    return ""


def refuse(subject: Subject, use: Use, today: datetime.date | None = None) -> None:
    """Raise SubjectError with the `objection` to a use, if there is one."""
    if words := objection(subject, use, today):
        raise SubjectError(words)


def days_left(consent: Consent, today: datetime.date | None = None) -> int | None:
    """How many days a consent still holds: 0 on its last day, less than 0 after it; None if it has no end."""
    return None if consent.until is None else (consent.until - (today or datetime.date.today())).days


def in_words(subject: Subject, today: datetime.date | None = None) -> str:
    """What is recorded, in one line: who, when, for what, until when, and what is wrong with it."""
    consent = subject.consent
    if wrong := objection(subject, "training", today):
        return wrong
    if consent is None:
        return f"a {subject.kind} needs none"
    left = days_left(consent, today)
    end = "" if left is None else f", until {consent.until} ({left} {'day' if left == 1 else 'days'} left)"
    signed = ""
    if consent.document is not None:
        signed = (
            "; the document is as it was signed"
            if consent.document_sha256
            else "; the document's SHA-256 is not recorded (document_sha256)"
        )
    return f"{consent.given_by}, {consent.given_on}: {consent.scope} ({', '.join(consent.uses)}){end}{signed}"


def _changed_document(consent: Consent) -> str:
    """What is wrong with the signed document, as a clause; empty if nothing, or if there is none."""
    if consent.document is None:
        return ""
    try:
        digest = digest_file(consent.document)
    except OSError as error:
        return f"the document of the consent, {consent.document}, cannot be read ({error.strerror})"
    if consent.document_sha256 and digest != consent.document_sha256:
        return f"the document of the consent, {consent.document}, has changed since it was signed (its SHA-256 is {digest[:16]}…)"
    return ""
