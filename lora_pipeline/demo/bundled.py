"""The bundled subject, made where a person would have put theirs."""

import datetime
from typing import get_args

from lora_pipeline.demo.photos import draw_subject_photos
from lora_pipeline.store import Store
from lora_pipeline.subject import FILE, Consent, Subject, Use, new

NAME = "demo"


def bundle(store: Store) -> str:
    """Draw the bundled subject's photos and write its subject.yaml, unless they are there. Returns its name."""
    folder = store.subject(NAME)
    if not (folder / FILE).exists():
        photos = folder / "photos"
        photos.mkdir(parents=True, exist_ok=True)
        draw_subject_photos(photos)
        consent = Consent(
            given_by="nobody",
            given_on=datetime.date(2026, 1, 1),
            scope="the person is drawn and does not exist",
            uses=get_args(Use),
        )
        subject = Subject.model_validate(
            {
                "name": NAME,
                "kind": "person",
                "photos": "photos",
                "trigger": "jx265",
                "class": "woman",
                "recipe": "bundled_person",
                "consent": consent,
            }
        )
        new(store, subject)
    return NAME
