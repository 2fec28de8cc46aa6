"""A vision model behind an address: what is sent, what comes back, and what goes wrong with it."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_pipeline import flow, manifest
from lora_pipeline.assets.describe import spent
from lora_pipeline.errors import ModelError, PassingError, SettingsError, SubjectError
from lora_pipeline.flow import Work
from lora_pipeline.models.llm import Llm, is_outside
from lora_pipeline.records import Crop, File, Row
from lora_pipeline.settings import DescribeSettings
from lora_pipeline.stages.describe import open_captioner
from lora_pipeline.store import Store, digest_file
from lora_pipeline.subject import Consent, Subject
from lora_pipeline_tests.chat import Answer, serving

CROP = Crop("a.jpg", "whole", (0, 0, 64, 64), 64, 64)
PICTURE = Image.new("RGB", (40, 24), (200, 30, 30))
GOOD = "jx265 is standing at the sea in a red shirt"


def llm(address: str, waits: list[float] | None = None, **more: Any) -> Llm:
    """As the settings make it, but that it writes down how long it would wait."""
    told = {"openings": ("jx265 is", "jx265 does"), "mended": "jx265 is a woman, ", "instruction": "Describe jx265."}
    noted = [] if waits is None else waits
    return Llm(**{"address": address, "model": "seer", **told, "sleep": noted.append, **more})


def test_a_picture_and_the_instruction_go_there_and_a_caption_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "secret-1")
    tagged = PICTURE.copy()
    tagged.info["exif"] = b"Exif\0\0where it was taken"
    with serving(GOOD) as chat:
        words, took = llm(chat.address).accounted(tagged, CROP)
    assert words == GOOD
    assert took == {"requests": 1, "tokens_in": 100, "tokens_out": 10, "note": ""}
    assert chat.paths == ["/v1/chat/completions"]
    assert chat.headers[0]["Authorization"] == "Bearer secret-1"
    (asked,) = chat.asked
    assert set(asked) == {"model", "messages"}
    text, picture = asked["messages"][0]["content"]
    assert (asked["model"], text) == ("seer", {"type": "text", "text": "Describe jx265."})
    kind, data = picture["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sent:
        assert (sent.size, dict(sent.getexif())) == ((40, 24), {})
        assert sent.getpixel((20, 12)) == pytest.approx((200, 30, 30), abs=4)


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_API_KEY", raising=False)
    with serving(GOOD) as chat:
        llm(chat.address).words(PICTURE, CROP)
    assert "Authorization" not in chat.headers[0]


def test_what_is_busy_or_fails_is_asked_again_later_and_longer_each_time() -> None:
    waits: list[float] = []
    with serving((500, {}, "oops"), (429, {"Retry-After": "7"}, "slow down"), (503, {}, "loading"), GOOD) as chat:
        words, took = llm(chat.address, waits).accounted(PICTURE, CROP)
    assert (words, took["requests"], len(chat.asked)) == (GOOD, 4, 4)
    assert waits == [1, 7, 4]


def test_a_picture_without_an_answer_is_tried_by_the_next_run_and_three_in_a_row_end_this_one() -> None:
    with serving((500, {}, "out of memory")) as chat:
        captioner = llm(chat.address, attempts=2)
        for _ in range(2):
            with pytest.raises(PassingError, match=r"answered 500 \(out of memory\) at the last of 2 attempts"):
                captioner.words(PICTURE, CROP)
        with pytest.raises(ModelError, match="3 pictures in a row; the captions that it gave are kept"):
            captioner.words(PICTURE, CROP)
    assert len(chat.asked) == 6
    with pytest.raises(PassingError, match="does not answer"):  # nobody listens there any more
        llm(chat.address, attempts=1).words(PICTURE, CROP)


def test_an_answer_in_between_ends_the_row() -> None:
    fails: Answer = (500, {}, "oops")
    with serving(fails, fails, GOOD, fails) as chat:
        captioner = llm(chat.address, attempts=1)
        for good in (False, False, True, False, False):
            if good:
                assert captioner.words(PICTURE, CROP) == GOOD
            else:
                with pytest.raises(PassingError):
                    captioner.words(PICTURE, CROP)


def test_a_refused_key_ends_the_run_at_once_and_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-2")
    with serving((401, {}, "bad key")) as chat, pytest.raises(ModelError) as told:
        llm(chat.address, key_env="MY_KEY").words(PICTURE, CROP)
    assert len(chat.asked) == 1
    assert "401 (bad key)" in str(told.value)
    assert "the environment variable MY_KEY is set" in str(told.value)
    assert "secret-2" not in str(told.value)


def test_a_refused_picture_stops_no_other() -> None:
    with serving((400, {}, "content policy")) as chat, pytest.raises(PassingError, match=r"400 \(content policy\)"):
        llm(chat.address).words(PICTURE, CROP)
    assert len(chat.asked) == 1


def test_what_does_not_begin_as_it_should_is_asked_for_once_more() -> None:
    with serving("A woman at the sea.", GOOD) as chat:
        words, took = llm(chat.address).accounted(PICTURE, CROP)
    assert (words, took["requests"], took["tokens_in"], took["note"]) == (GOOD, 2, 200, "asked twice")
    first, answer, again = chat.asked[1]["messages"]
    assert first == chat.asked[0]["messages"][0]
    assert answer == {"role": "assistant", "content": "A woman at the sea."}
    assert "begins with 'jx265 is' or 'jx265 does'" in again["content"]


@pytest.mark.parametrize("said", ["A woman at the sea.", "jx2650 is a woman"])
def test_and_then_mended(said: str) -> None:
    with serving(said) as chat:
        words, took = llm(chat.address).accounted(PICTURE, CROP)
    assert words == f"jx265 is a woman, {said[0].lower()}{said[1:]}"
    assert took["note"] == "asked twice, then 'jx265 is a woman' was put first"
    assert len(chat.asked) == 2


def test_what_is_too_short_is_asked_for_once_more() -> None:
    with serving("jx265 is here", GOOD) as chat:
        assert llm(chat.address, min_words=5, max_words=20).words(PICTURE, CROP) == GOOD
    assert "has 5 to 20 words" in chat.asked[1]["messages"][2]["content"]
    with serving("jx265 is here") as chat:  # a check says that it is short
        assert llm(chat.address, min_words=5).words(PICTURE, CROP) == "jx265 is here"


def test_thoughts_lines_and_quotation_marks_are_no_caption() -> None:
    with serving('<think>Who is\nthis?</think>\n"jx265 is\n at sea"') as chat:
        assert llm(chat.address).words(PICTURE, CROP) == "jx265 is at sea"
    with serving("") as chat, pytest.raises(PassingError, match="without a caption"):
        llm(chat.address).words(PICTURE, CROP)


def test_no_more_requests_a_minute_than_allowed() -> None:
    waits: list[float] = []
    with serving(GOOD) as chat:
        captioner = llm(chat.address, waits, requests_per_minute=30)
        for _ in range(3):
            captioner.words(PICTURE, CROP)
    assert waits == pytest.approx([2, 2], abs=0.5)


def test_a_proxy_does_not_see_what_stays_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with serving(GOOD) as chat:
        assert llm(chat.address, attempts=1).words(PICTURE, CROP) == GOOD


@pytest.mark.parametrize(
    ("address", "outside"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://localhost:11434/v1", False),
        ("http://[::1]:8000/v1", False),
        ("http://192.168.1.5:8000/v1", False),
        ("http://10.0.0.2/v1", False),
        ("https://8.8.8.8/v1", True),
        ("https://api.openai.com/v1", True),
        ("http://localhost.example.com/v1", True),
        ("http://127.0.0.1.example.com/v1", True),
    ],
)
def test_what_is_outside(address: str, outside: bool) -> None:
    assert is_outside(address) == outside


def test_only_what_changes_its_words_is_its_identity() -> None:
    address = "http://127.0.0.1:1/v1"
    assert llm(address).identity == llm(address, attempts=9, key_env="OTHER", requests_per_minute=3).identity
    assert llm(address).identity != llm(address, instruction="Say more.").identity
    assert llm(address).identity != llm("http://127.0.0.1:2/v1").identity


def test_the_settings_fill_in_what_it_is_asked() -> None:
    settings = DescribeSettings(captioner="llm", min_words=12, max_words=40)
    captioner = open_captioner(settings, "jx265", "actress")
    assert isinstance(captioner, Llm)
    for words in (
        "The actress in it is called jx265",
        "12 to 40 words",
        "'jx265 is' or 'jx265 does'",
        "hair",
        "outfit",
        "mood",
    ):
        assert words in captioner.instruction
    assert captioner.openings == ("jx265 is", "jx265 does")
    assert captioner.mended == "jx265 is an actress, "


def subject(tmp_path: Path, address: str, kind: str = "person", **more: Any) -> Work:
    given = {"name": "jane", "kind": kind, "photos": tmp_path, "trigger": "jx265", "class": "woman", **more}
    describe = {"captioner": "llm", "llm_address": address, "llm_price_in": 5, "llm_price_out": 100, "llm_attempts": 1}
    whole = Subject.model_validate({**given, "recipe": "sd15_pet", "settings": {"describe": describe}})
    work = Work(Store(tmp_path / "data"), whole, whole.whole_settings())
    folder = work.folder("conceal")
    folder.mkdir(parents=True)
    rows: list[Row] = []
    for number in range(2):
        Image.new("RGB", (32, 32), (90 * number, 0, 0)).save(folder / f"{number}.png")
        crop = Crop(f"{number}.jpg", "whole", (0, 0, 32, 32), 32, 32)
        file = File(f"{number}.png", digest_file(folder / f"{number}.png"))
        rows.append(Row(f"{number}.jpg@whole", "k", data=crop.data(), files={"picture": file}))
    manifest.write(folder, rows)
    return work


def texts(work: Work) -> dict[str, object]:
    return {row.id: row.data["text"] for row in flow.describe(work).manifest.kept}


def test_captions_are_paid_for_once_whatever_the_rules_are(tmp_path: Path) -> None:
    with serving(GOOD) as chat:
        work = subject(tmp_path, chat.address)
        assert set(texts(work).values()) == {GOOD}
        assert set(texts(work).values()) == {GOOD}
        ruled = Work(work.store, work.subject, work.settings.changed({"describe": {"blacklist": ["red"]}}, "test"))
        assert set(texts(ruled).values()) == {"jx265 is standing at the sea in a shirt"}
    assert len(chat.asked) == 2
    assert spent(work) == {
        "requests to the language model": 2,
        "tokens sent": 200,
        "tokens answered": 20,
        "cost": 0.003,  # 200 · 5 and 20 · 100 a million
    }


def test_what_has_failed_is_asked_again_by_the_next_run_and_what_has_not_is_not(tmp_path: Path) -> None:
    with serving(GOOD, (400, {}, "content policy"), "jx265 is dark") as chat:
        work = subject(tmp_path, chat.address)
        made = flow.describe(work).manifest
        assert [(row.state, "content policy" in row.reason) for row in made.rows] == [("kept", False), ("failed", True)]
        assert texts(work) == {"0.jpg@whole": GOOD, "1.jpg@whole": "jx265 is dark"}
    assert len(chat.asked) == 3


def test_nothing_of_a_person_goes_outside_without_their_word(tmp_path: Path) -> None:
    outside = "https://192.0.2.1.example.invalid/v1"
    words = "sending their photos to an outside service"
    with pytest.raises(SubjectError, match=words):
        flow.describe(subject(tmp_path / "none", outside))
    agreed = {"given_by": "Jane", "given_on": "2026-01-01", "scope": "a LoRA"}
    with pytest.raises(SubjectError, match=words):
        flow.describe(subject(tmp_path / "some", outside, consent=agreed))
    with pytest.raises(SettingsError, match="unencrypted"):
        flow.describe(subject(tmp_path / "thing", "http://192.0.2.1.example.invalid/v1", "product"))


@pytest.mark.parametrize("kind", ["person", "product"])
def test_with_it_or_for_a_thing_it_does(tmp_path: Path, kind: str) -> None:
    work = subject(tmp_path, "https://192.0.2.1.example.invalid/v1", kind)
    if kind == "person":
        agreed = {
            "given_by": "Jane",
            "given_on": "2026-01-01",
            "scope": "a LoRA",
            "uses": ["training", "outside_services"],
        }
        consent = Consent.model_validate(agreed)
        work = Work(work.store, work.subject.model_copy(update={"consent": consent}), work.settings)
    made = flow.describe(work).manifest
    assert all("does not answer" in row.reason for row in made.rows)  # it was asked


def test_an_answer_in_parts_is_read_too_and_one_in_other_words_is_refused() -> None:
    class Answered:
        status_code = 200

        def __init__(self, content: Any) -> None:
            self.content = content

        def json(self) -> Any:
            return {"choices": [{"message": {"content": self.content}}]}

    captioner = llm("http://127.0.0.1:1/v1")
    parts = [{"type": "text", "text": "jx265 is"}, {"type": "text", "text": "at sea"}]
    assert captioner._read(Answered(parts), 1)[0] == "jx265 is at sea"  # pyright: ignore[reportPrivateUsage]
    for nonsense in (7, ["words"]):
        with pytest.raises(PassingError, match="answered in no words"):
            captioner._read(Answered(nonsense), 1)  # pyright: ignore[reportPrivateUsage]
