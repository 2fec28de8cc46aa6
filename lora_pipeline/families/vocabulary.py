"""Which tokens a base model's text encoders read a word as. Neither torch nor transformers is loaded for it.

`clip_merges.txt.gz` are the 48,894 merges of CLIP's vocabulary (Radford et al. 2021; OpenAI, MIT licence, in `clip_merges.LICENSE`), with
which every family that reads CLIP can be asked before any of its weights are there.
"""

import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_pipeline.errors import ModelError
from lora_pipeline.families.weights import Weights, cached, weights_of
from lora_pipeline.settings import BaseSettings

MERGES = Path(__file__).with_name("clip_merges.txt.gz")
CLIP_READERS = frozenset({"sd15", "sdxl", "flux", "sd35"})
"""Families whose first text encoder is CLIP's."""
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


@dataclass(frozen=True)
class Vocabulary:
    """One tokenizer.

    Args:
        of: whose, for a message.
        tokens: what a text is split into, each piece as it reads.
    """

    of: str
    tokens: Callable[[str], list[str]]


def vocabularies(base: BaseSettings) -> list[Vocabulary]:
    """The tokenizers of a base model that are on this disk; else CLIP's, if the family reads it; else none. Raises ModelError: as `weights_of`."""
    weights = weights_of(base.model, base.revision)
    found = [
        Vocabulary(f"the vocabulary of {base.model}'s {folder}", _pieces(tokenizer))
        for folder in TOKENIZERS
        if (tokenizer := _at_hand(weights, folder)) is not None
    ]
    return found or ([clip()] if base.family in CLIP_READERS else [])


def clip() -> Vocabulary:
    """CLIP's vocabulary of 49,408 tokens."""
    with gzip.open(MERGES, "rt", encoding="utf-8") as file:
        pairs = [(left, right) for left, _, right in (line.rstrip("\n").partition(" ") for line in file)]
    letters = [*_byte_letters(), *(f"{letter}</w>" for letter in _byte_letters())]
    vocabulary = {token: number for number, token in enumerate([*letters, *(a + b for a, b in pairs)])}
    return Vocabulary("CLIP's vocabulary", _pieces(_clip_tokenizer(vocabulary, pairs)))


def _at_hand(weights: Weights, folder: str) -> Any:
    """A folder's tokenizer, or None if its files are not on this disk. Raises ModelError if they are damaged."""

    def file(name: str) -> Path | None:
        if weights.path is None:
            return cached(weights, f"{folder}/{name}")
        path = weights.path / folder / name
        return path if path.is_file() else None

    whole, vocabulary, merges = file("tokenizer.json"), file("vocab.json"), file("merges.txt")
    try:
        if whole is not None:
            from tokenizers import Tokenizer

            return Tokenizer.from_file(str(whole))
        if vocabulary is None or merges is None:
            return None
        numbers: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))
        if "the</w>" not in numbers and "a</w>" not in numbers:
            return None  # not of CLIP's kind, whose words end so
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [
            (left, right) for left, _, right in (line.partition(" ") for line in lines) if right and left != "#version:"
        ]
        return _clip_tokenizer(numbers, pairs)
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ModelError(f"base model {weights.named}: its {folder} cannot be read: {error}") from None


def _clip_tokenizer(vocabulary: dict[str, int], merges: Iterable[tuple[str, str]]) -> Any:
    """CLIP's byte-pair encoding, as its `simple_tokenizer.py` has it: small letters, digits one by one, pieces of words by merges."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(merges), continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])  # type: ignore[assignment]
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _pieces(tokenizer: Any) -> Callable[[str], list[str]]:
    def pieces(text: str) -> list[str]:
        told = tokenizer.encode(text, add_special_tokens=False)
        # Of the text itself, not the tokens' own letters, in which bytes and the edges of words are told by signs. T5's sign for where
        # a word begins may be a token alone, and is no piece of it.
        spans: list[tuple[int, int]] = [
            span for token, span in zip(told.tokens, told.offsets, strict=True) if token != "▁"
        ]
        return [text[start:end].strip() for start, end in spans if text[start:end].strip()]

    return pieces


def _byte_letters() -> list[str]:
    """A letter that can be seen for each of the 256 bytes, in GPT-2's order: those that can be seen anyway, then the others."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, seen), *(chr(256 + number) for number in range(256 - len(seen)))]
