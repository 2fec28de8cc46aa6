"""Whether a trigger word is a good one for a base model, and rare ones made of a name.

A good trigger word means nothing yet and is short: "jx265" is five tokens that say nothing together, while "Tim" is one token that the base
has seen on thousands of faces, and training has to fight those.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from lora_pipeline.errors import ModelError, SettingsError
from lora_pipeline.families.vocabulary import Vocabulary, vocabularies
from lora_pipeline.settings import Settings

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
OFFERED = 8


@dataclass(frozen=True)
class Judged:
    """A trigger word, seen by the tokenizer that likes it least.

    Args:
        word: the trigger word.
        tokens: what it is split into.
        by: whose tokenizer; empty if none was at hand.
        against: what speaks against it, a clause; empty if nothing.
    """

    word: str
    tokens: tuple[str, ...]
    by: str
    against: str

    @property
    def in_words(self) -> str:
        """A sentence for the person."""
        if not self.by:
            return f"'{self.word}' is not checked: no tokenizer of the base model is on this disk yet"
        split = f"{len(self.tokens)} token{'s' if len(self.tokens) > 1 else ''} of {self.by} ({' '.join(self.tokens)})"
        if not self.against:
            return f"'{self.word}' is {split}, and no word or name that it knows"
        return f"'{self.word}' {self.against}: it is {split}; `lora-pipeline trigger NAME` offers rare ones"


def judged(word: str, settings: Settings) -> Judged:
    """A trigger word before the tokenizers of the settings' base model that are at hand; a base that is not there has none."""
    return judge(word, at_hand(settings), settings.check.max_trigger_tokens)


def at_hand(settings: Settings) -> list[Vocabulary]:
    """The tokenizers of the settings' base model, if any are at hand. What is wrong with the base is for others to say."""
    try:
        return vocabularies(settings.base)
    except ModelError:
        return []


def judge(word: str, by: Sequence[Vocabulary], max_tokens: int) -> Judged:
    """A trigger word before all of a base model's tokenizers.

    Args:
        word: one or several words; the base knows several if it knows each.
        by: the tokenizers.
        max_tokens: into which it may be split.
    """
    worst = Judged(word, (), "", "")
    for vocabulary in by:
        pieces = [vocabulary.tokens(part) for part in word.split()]
        tokens = tuple(token for part in pieces for token in part)
        against = ""
        if all(len(part) == 1 for part in pieces):
            against = "is known to the base already, as a word or a name"
        elif len(tokens) > max_tokens:
            against = f"is split into more tokens than check.max_trigger_tokens ({max_tokens})"
        judged = Judged(word, tokens, vocabulary.of, against)
        if (bool(against), len(tokens)) > (bool(worst.against), len(worst.tokens)):
            worst = judged
    return worst


def shifted(name: str, far: int) -> str:
    """A Caesar shift: ("Tim", 1) → "ujn". Small letters, accents and all that is no letter left out."""
    letters = [letter for letter in unicodedata.normalize("NFKD", name).lower() if letter in ALPHABET]
    return "".join(ALPHABET[(ALPHABET.index(letter) + far) % len(ALPHABET)] for letter in letters)


def offers(name: str, by: Sequence[Vocabulary], max_tokens: int) -> list[Judged]:
    """The name's Caesar shifts that nothing speaks against, those of the fewest tokens first, then the smallest shift; `OFFERED` at most.

    Raises SettingsError if the name has too few letters from a to z to be shifted, or none of its shifts will do.
    """
    if len(shifted(name, 0)) < 2:
        raise SettingsError(f"'{name}' has not two letters from a to z; give a name that has, spelt in them")
    all_shifts = [judge(shifted(name, far), by, max_tokens) for far in range(1, len(ALPHABET))]
    good = sorted((one for one in all_shifts if not one.against), key=lambda one: len(one.tokens))
    if not good:
        raise SettingsError(
            f"no shift of '{name}' is rare and of {max_tokens} tokens at most; give another name, a shorter or a longer one"
        )
    return good[:OFFERED]
