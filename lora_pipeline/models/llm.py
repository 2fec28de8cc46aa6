"""Captions, and prompts, by a model behind an OpenAI-compatible address: vLLM or Ollama at home, or a paid service.

Speaks `POST …/chat/completions` as https://platform.openai.com/docs/api-reference/chat describes it: a text and, for captions, a picture as a data
URL.
Of a request's options only what every such server knows is sent: the model and the messages.
"""

import base64
import io
import ipaddress
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from lora_pipeline.errors import ModelError, PassingError
from lora_pipeline.records import Value
from lora_pipeline.store import digest_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

    from lora_pipeline.records import Crop

BUSY = {408, 425, 429, 500, 502, 503, 504, 529}
"""Answers after which the same request may do."""
REFUSED = {401, 402, 403, 404}
"""Answers that no other picture would change: the key, the credit, the address or the model's name."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
GIVE_UP_AFTER = 3
"""Pictures in a row without an answer, after which it is not the pictures."""
JPEG_QUALITY = 92
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass
class _Line:
    """How the service has been.

    Args:
        asked: when the last request was made (`time.monotonic`), None before the first.
        unanswered: pictures in a row that got no answer.
    """

    asked: float | None = None
    unanswered: int = 0


@dataclass(frozen=True)
class Llm:
    """A vision model that is asked for one caption a picture.

    Args:
        address: base URL up to and with /v1.
        model: its name there.
        instruction: what it is asked, ready to send.
        openings: a caption begins with one of these, ready to compare; empty: with anything.
        mended: what is put in front of one that does not: "jx265 is a woman, ".
        min_words, max_words: that it should have.
        key_env: name of the environment variable that holds the key. The key itself is read when it is sent, and kept nowhere.
        attempts: requests at most for one answer, where the service is busy, fails, or does not answer.
        timeout_s: for one answer.
        requests_per_minute: at most; 0 is no limit.
        sleep: waits so many seconds.
    """

    address: str
    model: str
    instruction: str
    openings: tuple[str, ...] = ()
    mended: str = ""
    min_words: int = 0
    max_words: int = 60
    key_env: str = "LLM_API_KEY"
    attempts: int = 5
    timeout_s: float = 120.0
    requests_per_minute: float = 0.0
    sleep: Callable[[float], None] = time.sleep
    _line: _Line = field(default_factory=_Line)
    name = "llm"

    @property
    def identity(self) -> str:
        """Who is asked what. Neither the key nor how patiently."""
        asked = (self.address, self.model, self.instruction, self.openings, self.mended, self.min_words)
        return f"llm {self.model} {digest_bytes(repr(asked).encode())}"

    def words(self, picture: "Image", crop: "Crop") -> str:
        """See `accounted`, and `Captioner.words`."""
        return self.accounted(picture, crop)[0]

    def accounted(self, picture: "Image", crop: "Crop") -> tuple[str, Mapping[str, Value]]:
        """The caption, as one line, and what it took: see `Accountable`.

        One that is too short, or does not begin as it should, is asked for once more; if it then still does not begin so, `mended` is put
        in front.

        Raises:
            ModelError: the address or its key is refused, or `GIVE_UP_AFTER` pictures in a row got no answer.
            PassingError: this picture is refused, or got no answer or no caption.
        """
        del crop  # the model looks for itself
        ask: list[dict[str, Any]] = [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": self.instruction},
                    {"type": "image_url", "image_url": {"url": _data_url(picture)}},
                ],
            }
        ]
        said, took = self._answer(ask)
        text, note = _one_line(said), ""
        if not self._will_do(text):
            again = f"Not quite. {self._wanted()} Write that caption alone."
            ask += [{"role": "assistant", "content": text or "…"}, {"role": "user", "content": again}]
            second, took_more = self._answer(ask)
            text = _one_line(second) or text
            took = {name: took[name] + took_more[name] for name in took}
            note = "asked twice"
        if not text:
            raise PassingError(f"{self.model} at {self.address} answered without a caption; run again")
        if not self._opens(text):
            text, note = (
                f"{self.mended}{_decapitalised(text)}",
                f"asked twice, then '{self.mended.strip(' ,')}' was put first",
            )
        return text, {**took, "note": note}

    def lines(self, question: str) -> tuple[list[str], Mapping[str, Value]]:
        """The lines of its answer to a question in words alone, and what it took, as `requests`, `tokens_in` and `tokens_out`.

        Raises:
            ModelError: the address or its key is refused.
            PassingError: the question is refused, or got no answer.
        """
        text, took = self._answer([{"role": "user", "content": question}])
        return [line.strip() for line in text.splitlines() if line.strip()], took

    def _opens(self, text: str) -> bool:
        return not self.openings or any(re.match(rf"{re.escape(opening)}(?!\w)", text) for opening in self.openings)

    def _will_do(self, text: str) -> bool:
        return self._opens(text) and len(text.split()) >= max(1, self.min_words)

    def _wanted(self) -> str:
        begins = " or ".join(f"'{opening}'" for opening in self.openings)
        wanted = f"The caption has {self.min_words} to {self.max_words} words"
        return f"{wanted} and begins with {begins}." if begins else f"{wanted}."

    def _answer(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, int]]:
        """One answer's text, without a reasoning model's thoughts, and the requests and tokens it took."""
        import httpx

        key = os.environ.get(self.key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        body = {"model": self.model, "messages": list(messages)}
        url, why = f"{self.address.rstrip('/')}/chat/completions", ""
        # A proxy that the environment names is for what is outside: what is at home is not to go through it.
        with httpx.Client(timeout=self.timeout_s, trust_env=is_outside(self.address)) as client:
            for attempt in range(1, self.attempts + 1):
                self._wait_for_turn()
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1))
                try:
                    response = client.post(url, json=body, headers=headers)
                except httpx.TransportError as error:
                    why = f"does not answer ({type(error).__name__}: {error})"
                except httpx.InvalidURL as error:
                    raise ModelError(f"describe.llm_address {self.address} is no address: {error}") from None
                else:
                    if response.status_code not in BUSY:
                        self._line.unanswered = 0
                        return self._read(response, attempt)
                    why = f"answered {response.status_code} ({_said(response)})"
                    wait_s = _retry_after(response.headers.get("Retry-After", ""), wait_s)
                if attempt < self.attempts:
                    self.sleep(wait_s)
        self._line.unanswered += 1
        told = f"{self.address} {why} at the last of {self.attempts} attempts"
        if self._line.unanswered < GIVE_UP_AFTER:
            raise PassingError(f"{told}; run again later")
        raise ModelError(
            f"{told}, and so for {GIVE_UP_AFTER} pictures in a row; the captions that it gave are kept: run again later, or see "
            "describe.llm_address, describe.llm_attempts and describe.llm_requests_per_minute"
        )

    def _wait_for_turn(self) -> None:
        if self.requests_per_minute and self._line.asked is not None:
            self.sleep(max(0.0, self._line.asked + 60 / self.requests_per_minute - time.monotonic()))
        self._line.asked = time.monotonic()

    def _read(self, response: Any, requests: int) -> tuple[str, dict[str, int]]:
        if response.status_code in REFUSED:
            key = "is set" if os.environ.get(self.key_env) else "is not set"
            raise ModelError(
                f"{self.address} refused with {response.status_code} ({_said(response)}); see describe.llm_address, describe.llm_model "
                f"('{self.model}') and the key: the environment variable {self.key_env} {key}"
            )
        if response.status_code != 200:
            raise PassingError(f"{self.address} refused what was asked with {response.status_code} ({_said(response)})")
        try:
            answer = response.json()
            content = answer["choices"][0]["message"]["content"] or ""
            # Some services answer in parts, as the question was put.
            parts = [content] if isinstance(content, str) else [str(part.get("text") or "") for part in content]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise PassingError(
                f"{self.address} answered in no words that an OpenAI-compatible service uses; is /v1 missing in describe.llm_address?"
            ) from None
        usage = cast(dict[str, Any], answer.get("usage") or {})
        tokens_in, tokens_out = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        return _THOUGHTS.sub("", " ".join(parts)), {
            "requests": requests,
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
        }


def is_outside(address: str) -> bool:
    """Whether a picture that is sent there leaves the person's own machine and network.

    At home are this machine (localhost, 127.0.0.1, ::1) and private addresses (192.168.…, 10.…; RFC 1918, RFC 4193). Any other name is
    taken for outside, since who answers to it is not for us to say: write the address in numbers.
    """
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_private
    except ValueError:
        return True


def _data_url(picture: "Image") -> str:
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _one_line(text: str) -> str:
    """Without line breaks, and quotation marks around it all."""
    line = " ".join(text.split())
    return line[1:-1].strip() if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" else line


def _decapitalised(text: str) -> str:
    """ "A woman smiles" → "a woman smiles"; other first words may be names."""
    first = text.split(" ", 1)[0]
    return text[0].lower() + text[1:] if first in {"A", "An", "The", "This", "She", "He", "It", "In", "With"} else text


def _said(response: Any) -> str:
    """The service's own words for what is wrong, cut short."""
    try:
        fault = response.json()["error"]
        words = fault["message"] if isinstance(fault, dict) else fault
    except (ValueError, KeyError, TypeError):
        words = response.text
    return " ".join(str(words).split())[:200] or "without a word"


def _retry_after(header: str, otherwise_s: float) -> float:
    """Seconds that a busy service asks to wait, at most a minute."""
    try:
        return min(LONGEST_WAIT_S, max(0.0, float(header)))
    except ValueError:  # absent, or a date
        return otherwise_s
