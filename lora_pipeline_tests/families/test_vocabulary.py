"""Words as tokens: CLIP's vocabulary that ships here is the real one, and a base's own tokenizers come before it."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest

from lora_pipeline.errors import ModelError
from lora_pipeline.families import FAMILIES
from lora_pipeline.families.vocabulary import CLIP_READERS, MERGES, clip, vocabularies
from lora_pipeline.families.weights import BUNDLED_FOLDER
from lora_pipeline.settings import BaseSettings

TEXTS = ["jx265 woman", "Tim", "A photo of Zoë's café, 2024!", "ujn", "don't", "  two   spaces "]


def test_clips_vocabulary_is_the_one_that_clip_has() -> None:
    """Against numbers of openai/clip-vit-large-patch14's vocab.json, and against transformers' own tokenizer of the same merges."""
    from transformers import CLIPTokenizer

    with gzip.open(MERGES, "rt", encoding="utf-8") as file:
        pairs = [tuple(line.split()) for line in file.read().splitlines()]
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [*map(chr, seen), *(chr(256 + number) for number in range(256 - len(seen)))]
    tokens = [
        *letters,
        *(f"{one}</w>" for one in letters),
        *("".join(pair) for pair in pairs),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    numbers = {token: number for number, token in enumerate(tokens)}
    assert (len(numbers), numbers["a</w>"], numbers["photo</w>"], numbers["cat</w>"]) == (49408, 320, 1125, 2368)
    theirs: Any = CLIPTokenizer(vocab=numbers, merges=pairs)
    ours = clip()
    for text in TEXTS:
        assert len(ours.tokens(text)) == len(theirs.tokenize(text)), text
    assert ours.tokens("Tim") == ["Tim"]
    assert ours.tokens("jx265") == ["j", "x", "2", "6", "5"]
    assert ours.tokens("ujn José") == ["u", "jn", "José"]


def test_a_bases_own_tokenizer_comes_first(tmp_path: Path) -> None:
    (own,) = vocabularies(BaseSettings(model="bundled"))
    assert own.tokens("woman tim") == ["woman", "t", "i", "m"]
    # Stable Diffusion 1.5's folder has vocab.json and merges.txt alone.
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "tokenizer").mkdir(exist_ok=True)
        shutil.copy(BUNDLED_FOLDER / "tokenizer" / name, tmp_path / "tokenizer")
    (same,) = vocabularies(BaseSettings(model=str(tmp_path)))
    assert [same.tokens(text) for text in TEXTS] == [own.tokens(text) for text in TEXTS]
    (tmp_path / "tokenizer" / "vocab.json").write_text("{")
    with pytest.raises(ModelError, match="its tokenizer cannot be read"):
        vocabularies(BaseSettings(model=str(tmp_path)))


def test_without_weights_it_is_clips_where_the_family_reads_clip() -> None:
    assert set(FAMILIES) >= CLIP_READERS
    for name in FAMILIES:
        found = vocabularies(BaseSettings(family=name, model="nobody/has-this"))
        assert [one.of for one in found] == (["CLIP's vocabulary"] if name in CLIP_READERS else [])


def test_all_of_a_bases_tokenizers_are_asked(tiny: Any, tmp_path: Path) -> None:
    found = vocabularies(BaseSettings(family="flux", model=str(tiny.build_flux(tmp_path))))
    assert [one.of.split()[-1] for one in found] == ["tokenizer", "tokenizer_2"]
    assert [one.tokens("tim") for one in found] == [["t", "i", "m"], ["t", "i", "m"]]
