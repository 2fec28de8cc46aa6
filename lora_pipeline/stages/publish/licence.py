"""What a base model's licence says of what is made with it: whether for money, and what it forbids."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """A licence in a sentence each; the licence itself is what counts.

    Args:
        sale: whether it allows commercial use; None if it does so on conditions, or if that is not known here.
        forbids: what it forbids, as sentences.
    """

    sale: bool | None
    forbids: str


_RAIL = (
    "The base model's licence allows commercial use, and forbids in its Attachment A, which binds everybody to whom this goes on: breaking the law, harming or "
    "exploiting minors, false information meant to harm, spreading personal data that can harm somebody, defaming or harassing "
    "others, deciding by machine alone what binds somebody, discriminating against people, medical advice, and use in law "
    "enforcement, justice, immigration or asylum to predict what somebody will do."
)
# By what the licence's name holds, in small letters and words apart.
_KNOWN = (
    ("flux 1 dev", Terms(False, "The base model's licence allows no commercial use of the model or of what is derived from it, such as this LoRA; no training of a model that competes with it; and what its section 4 lists: unlawful, harassing, deceiving, exploiting and discriminating uses.")),
    ("openrail", Terms(True, _RAIL)),
    ("open rail", Terms(True, _RAIL)),
    ("stability", Terms(None, "The base model's licence allows commercial use up to one million US dollars of yearly revenue (over that, Stability AI sells a licence), and forbids what Stability AI's Acceptable Use Policy lists, and training another foundation model with it or with its pictures.")),
    ("non commercial", Terms(False, "The base model's licence allows no commercial use.")),
    ("agpl", Terms(True, "The base model's licence allows commercial use. Whoever passes this LoRA on, or lets others use it over a network, must do so under the same licence.")),
    ("apache", Terms(True, "The base model's licence allows commercial use, and forbids none but of its authors' names and marks; its text and notices go along.")),
    ("mit", Terms(True, "The base model's licence allows commercial use, and forbids none; its text goes along.")),
)  # fmt: skip
_UNKNOWN = Terms(
    None, "What the base model's licence forbids is not known here: read it before you use or pass on this LoRA."
)


def terms(licence: str) -> Terms:
    """What a licence allows and forbids, by its name on Hugging Face or in words."""
    said = f" {re.sub(r'[^a-z0-9]+', ' ', licence.lower())} "
    return next((known for name, known in _KNOWN if f" {name}" in said), _UNKNOWN)
