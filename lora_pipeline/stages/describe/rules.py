"""What is done to a captioner's words before they are a caption: pure functions, each with worked examples.

A phrase is what stands between two commas. A hand's caption is never put through any of these.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

KNOWN_FROM_PHOTOS = 4
"""In fewer photos nothing is known not to change."""
SHOWN_FROM = 0.05
"""Share of an expression from which it is said."""
THREE_QUARTER_FROM_DEG, PROFILE_FROM_DEG = 12.0, 45.0
"""Head yaw from which a head is no longer frontal (as `measured` has it), and from which it is a profile."""

_CONNECTS = ("with", "has", "having", "and")
_OWNS = ("a", "an", "the", "her", "his", "their", "its", "some")
# What may follow a phrase that is taken out of a sentence: after "in" or "tied", say, more would be told of it.
_GOES_ON = ("wearing", "standing", "sitting", "looking", "smiling", "walking", "holding", "posing", "who", "is", "does")
_END = rf"\s*(?:[,.;]|$)|\s+(?:{'|'.join(_GOES_ON)})\b"
_PRONOUN = re.compile(r"(?:she|he|they|it|her|his|their|its)[.]?", re.IGNORECASE)


def phrases(text: str) -> list[str]:
    """What stands between commas: "a, b c ,, d" → ["a", "b c", "d"]."""
    return [phrase for part in text.split(",") if (phrase := " ".join(part.split()))]


def begins_with(text: str, opening: str) -> bool:
    """Whether a text begins with these words: "jx265 is here" with "jx265 is", not with "jx26" nor "jx265 i"."""
    return re.match(rf"{re.escape(opening)}(?!\w)", text) is not None


def fronted(words: str, front: str, trigger: str, tags: Iterable[str] = ()) -> str:
    """Trigger and class word before the words, then the tags; but words that begin with the trigger stand first themselves.

    - ("a dog", "jx265 woman", "jx265") → "jx265 woman, a dog"
    - ("a dog", "jx265 woman", "jx265", ["beach"]) → "jx265 woman, beach, a dog"
    - ("jx265 is at sea.", "jx265 woman", "jx265", ["beach"]) → "jx265 is at sea, beach"
    """
    if begins_with(words, trigger):
        return added(words, tags)
    return ", ".join([front, *tags, words])


def added(text: str, tokens: Iterable[str]) -> str:
    """Tokens after a text: ("jx265 is at sea.", ["blurry"]) → "jx265 is at sea, blurry"; without any, the text as it is."""
    tokens = list(tokens)
    return ", ".join([text.rstrip("."), *tokens]) if tokens else text


def cut(text: str, max_words: int) -> str:
    """The first words: ("jx265 woman, one two, three", 4) → "jx265 woman, one two"."""
    return " ".join(text.split()[:max_words]).rstrip(",")


def about(text: str, subject_words: Collection[str]) -> set[str]:
    """What a text says of the subject, in small letters: phrases that hold one of the words, and what a sentence gives it by with, has or and.

    - "1girl, long brown hair, red shirt" with {"hair"} → {"long brown hair"}
    - "a woman with long brown hair and blue eyes wearing a hat" with {"hair", "eyes"} → {"long brown hair", "blue eyes"}
    - "a woman with brown hair tied in a bun" → nothing: what is said of the hair goes on, and may change
    - "1girl, red shirt" with no words → {"1girl", "red shirt"}
    """
    said = [phrase.lower().rstrip(".") for phrase in phrases(text)]
    if not subject_words:
        return set(said)
    held = re.compile(rf"\b(?:{'|'.join(map(re.escape, subject_words))})\b", re.IGNORECASE)
    joined = re.compile(rf"\b(?:{'|'.join((*_CONNECTS, *_GOES_ON))})\b")
    tags = {phrase for phrase in said if held.search(phrase) and not joined.search(phrase) and len(phrase.split()) <= 4}
    word = rf"(?!(?:{'|'.join((*_CONNECTS, *_OWNS))})\b)[\w-]+"
    given = re.compile(
        rf"\b(?:{'|'.join(_CONNECTS)})\s+(?:(?:{'|'.join(_OWNS)})\s+)?((?:{word}\s+){{0,3}}{held.pattern})(?=\s+and\b|{_END})",
        re.IGNORECASE,
    )
    return tags | {" ".join(found.lower().split()) for found in given.findall(text)}


def constant(said: Mapping[str, Iterable[str]], subject_words: Collection[str], share: float) -> frozenset[str]:
    """What is said of the subject in more than this share of the photos, in captions (an iterable) by photo.

    Nothing if share is 0, or if there are fewer than `KNOWN_FROM_PHOTOS` photos.

    - brown hair in 4 of 5 photos, a red shirt in all: with {"hair"} and 0.7 → {"brown hair"}
    """
    if not share or len(said) < KNOWN_FROM_PHOTOS:
        return frozenset()
    seen = Counter(
        phrase for texts in said.values() for phrase in {one for text in texts for one in about(text, subject_words)}
    )
    return frozenset(phrase for phrase, photos in seen.items() if photos > share * len(said))


def without(text: str, dropped: Collection[str]) -> tuple[str, list[str]]:
    """A text without some of what it says of the subject (as `about` gives it), and what was left out of it, sorted.

    - ("1girl, brown hair, red shirt", {"brown hair"}) → "1girl, red shirt"
    - ("a woman with brown hair and a red shirt", {"brown hair"}) → "a woman with a red shirt"
    - ("a woman with a red shirt and brown hair, at sea", {"brown hair"}) → "a woman with a red shirt, at sea"
    - ("at sea. She has brown hair and blue eyes.", {"brown hair", "blue eyes"}) → "at sea."
    """
    left_out: set[str] = set()
    for phrase in sorted(dropped, key=len, reverse=True):
        before = text
        text = (
            ", ".join(one for one in phrases(text) if one.lower().rstrip(".") != phrase)
            if _is_phrase(text, phrase)
            else text
        )
        given = re.compile(
            rf"\s*\b(?P<by>{'|'.join(_CONNECTS)})\s+(?:(?:{'|'.join(_OWNS)})\s+)?{re.escape(phrase)}(?:(?P<more>\s+and\b)|(?={_END}))",
            re.IGNORECASE,
        )
        text = given.sub(lambda found: f" {found['by']}" if found["more"] else "", text)
        if text != before:
            left_out.add(phrase)
    return (_tidy(text), sorted(left_out)) if left_out else (text, [])


def _is_phrase(text: str, phrase: str) -> bool:
    return phrase in {one.lower().rstrip(".") for one in phrases(text)}


def blacked_out(text: str, blacklist: Iterable[str]) -> str:
    """A text without these words and phrases, whole words in any case.

    - ("1girl, solo, signature on a wall", ["solo", "signature"]) → "1girl, on a wall"
    """
    for word in blacklist:
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", "", text, flags=re.IGNORECASE)
    return _tidy(text)


def ordered(text: str, first: Sequence[str]) -> str:
    """Phrases that hold one of these words first, in this order; the others as they were said.

    - ("at sea, smiling, red shirt", ["shirt", "smiling"]) → "red shirt, smiling, at sea"
    """

    def place(phrase: str) -> int:
        holds = [re.search(rf"(?<!\w){re.escape(word)}(?!\w)", phrase, re.IGNORECASE) for word in first]
        return next((number for number, found in enumerate(holds) if found), len(first))

    return ", ".join(sorted(phrases(text), key=place))


def angle_token(yaw_deg: float | None) -> tuple[str, ...]:
    """The head's angle, left and right being the picture's: 0 → "frontal", -30 → "three-quarter left", 60 → "right profile"; None → none."""
    if yaw_deg is None:
        return ()
    side = "right" if yaw_deg > 0 else "left"
    if abs(yaw_deg) >= PROFILE_FROM_DEG:
        return (f"{side} profile",)
    return (f"three-quarter {side}",) if abs(yaw_deg) >= THREE_QUARTER_FROM_DEG else ("frontal",)


def expression_token(scores: Iterable[tuple[str, float]]) -> tuple[str, ...]:
    """Expressions with their per cent, the strongest first: [("sad", 0.05), ("neutral", 0.9), ("angry", 0.01)] → "neutral_90 sad_5"."""
    said = sorted(((score, label) for label, score in scores if score >= SHOWN_FROM), key=lambda one: (-one[0], one[1]))
    return (" ".join(f"{'_'.join(label.split())}_{round(100 * score)}" for score, label in said),) if said else ()


def _tidy(text: str) -> str:
    """One space between words, none before a comma or full stop, no empty phrases, no sentence that is a pronoun alone."""
    sentences = [
        sentence for part in re.split(r"(?<=[.!?])\s+", text) if not _PRONOUN.fullmatch(sentence := part.strip())
    ]
    one_space = re.sub(r"\s+([,.;])", r"\1", " ".join(" ".join(sentences).split()))
    return ", ".join(phrase for phrase in phrases(one_space) if phrase not in {".", ";"})
