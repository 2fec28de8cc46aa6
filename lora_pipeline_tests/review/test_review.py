"""The page as a person uses it, in headless Chromium; and what lies behind it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from lora_pipeline import flow, manifest, people, subject, verdicts
from lora_pipeline.assets.resources import House
from lora_pipeline.demo.photos import draw_subject_photos
from lora_pipeline.flow import Work
from lora_pipeline.records import Row, Score
from lora_pipeline.review import decide
from lora_pipeline.review.gather import copies, faces, photos, pictures
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
BROKEN = {"IMG_3110.jpg", "IMG_3111.jpg", "notes.jpg"}
UNTIL_CAPTIONS = ("source_photos", "curated_photos", "face_crops", "blurred_set", "captions")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a subject of which the stages up to the captions have run."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "photos"
    folder.mkdir()
    draw_subject_photos(folder)
    for file in sorted(folder.iterdir())[14:]:
        if file.name not in BROKEN:
            file.unlink()
    given = {"name": "demo", "kind": "person", "photos": folder, "trigger": "jx265", "class": "woman"}
    consent = {"given_by": "nobody", "given_on": "2026-01-01", "scope": "the person is drawn"}
    subject.new(Store(home / "data"), Subject.model_validate({**given, "recipe": "bundled_person", "consent": consent}))
    for step in flow.STEPS[: len(UNTIL_CAPTIONS)]:
        flow.take(step, flow.work(Store(home / "data"), "demo"))
    return home


@pytest.fixture
def work(drawn: Path, tmp_path: Path) -> Work:
    shutil.copytree(drawn / "data", tmp_path / "data")
    return flow.work(Store(tmp_path / "data"), "demo")


def test_every_photo_is_there_with_the_reason_why_it_is_left_out(work: Work) -> None:
    every = {one.id: one for one in photos(work)}
    assert len(every) == 17
    assert {id for id, one in every.items() if one.state == "unreadable"} == BROKEN
    assert all(one.reason for one in every.values() if one.state != "used")
    used = {one.photo for one in pictures(work)}
    assert {id for id, one in every.items() if one.state == "used"} == used
    for group in copies([*every.values()]):
        assert group[0].id == group[0].best
        assert len(group) > 1


def test_every_face_is_shown_and_each_word_of_a_person_is_shown_with_it(work: Work) -> None:
    before = {one.id: one for one in faces(work)}
    assert {"subject"} < {one.whose for one in before.values()}
    assert all(one.picture.stat().st_size > 500 for one in before.values())
    stranger = next(id for id, one in before.items() if one.whose != "subject")
    decide.face(work, stranger, "Anna")
    after = {one.id: one for one in faces(work)}
    assert (after[stranger].whose, after[stranger].by_hand) == ("Anna", True)
    assert people.read(work.store.subject("demo")).name(stranger) == "Anna"


def test_a_caption_by_hand_goes_where_describe_looks_for_it(work: Work) -> None:
    photo = pictures(work)[0].photo
    file = decide.caption(work, photo, "{trigger} in the\n rain ")
    assert file.read_text() == "{trigger} in the rain\n"
    flow.describe(work)
    assert {(one.caption, one.source) for one in pictures(work) if one.photo == photo} == {
        ("jx265 in the rain", "hand")
    }
    decide.no_caption(work, photo)
    flow.describe(work)
    assert {one.source for one in pictures(work)} == {"measured"}


def test_an_older_caption_under_a_shorter_name_is_the_one_that_is_mended(work: Work) -> None:
    photo = pictures(work)[0].photo
    short = work.store.subject("demo") / "captions" / f"{Path(photo).stem}.txt"
    short.write_text("old")
    assert decide.caption(work, photo, "new") == short


def test_what_is_decided_is_told_in_a_sentence(work: Work) -> None:
    assert decide.by_hand(work) == "Nothing is decided by hand yet."
    decide.photo(work, "a.jpg", "drop")
    decide.caption(work, "holiday/b.jpg", "words")
    assert decide.by_hand(work).startswith("Decided by hand: 1 photo, 1 caption. ")


@contextmanager
def served(home: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "LORA_PIPELINE_HOME": str(home)}
    command = [sys.executable, "-m", "lora_pipeline.cli", "review", "demo", "--port", str(port)]
    log = (home / "review.log").open("w")
    child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while not answers(url):
            assert child.poll() is None, (home / "review.log").read_text()
            assert time.monotonic() < end, "the page did not start"
            time.sleep(0.5)
        yield url
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(30)
        log.close()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def materialize(store: Store) -> None:
    """What a click on Materialize does, for the assets up to the captions."""
    from lora_pipeline.definitions import defs

    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("subject", ["demo"])
        assets = [defs.get_assets_def(name) for name in UNTIL_CAPTIONS]
        house = {"house": House(data=str(store.data))}
        assert dg.materialize(assets, instance=instance, partition_key="demo", resources=house).success


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")
def test_a_photo_is_dropped_and_a_caption_mended_on_the_page(work: Work) -> None:
    from playwright.sync_api import expect, sync_playwright

    home = work.store.data.parent
    shown = Path(os.environ.get("LORA_PIPELINE_SCREENSHOTS", home))
    before = photos(work)
    used = [one.id for one in before if one.state == "used"]
    left_out = next(one.id for one in before if one.state == "left out" and one.best)
    judged = [Score(epoch, 0.3, 1.0, chosen=epoch == 2, reason=f"epoch {epoch}") for epoch in range(3)]
    manifest.write(work.folder("scores"), [Row(f"{one.epoch:04d}", "key", data=one.data()) for one in judged])
    elsewhere: list[str] = []
    with served(home) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(60_000)
        page.on("request", lambda asked: elsewhere.append(asked.url) if not mine(asked.url, url) else None)
        page.goto(url)
        page.locator("#photos").get_by_text(used[0], exact=True).click()
        expect(page.locator("#about-photo")).to_contain_text("sharpness")
        page.screenshot(path=shown / "review.png")
        page.locator("#drop").click()
        expect(page.locator("#about-photo")).to_contain_text("by hand, from the next run on: drop")
        page.get_by_text("left out (", exact=False).click()
        page.locator("#photos").get_by_text(left_out, exact=False).first.click()
        expect(page.locator("#about-photo")).to_contain_text(left_out)
        page.locator("#keep").click()
        expect(page.get_by_text("Decided by hand: 2 photos.", exact=False)).to_be_visible()
        page.get_by_role("tab", name="Captions").click()
        page.locator("#captions button").last.click()
        expect(page.locator("#about-caption")).to_contain_text("caption by measured")
        page.locator("#caption textarea").fill("{trigger} as a queen of spades")
        page.locator("#save-caption").click()
        expect(page.locator("#about-caption")).to_contain_text("saved in")
        page.get_by_role("tab", name="Faces").click()
        page.locator("#faces button").last.click()
        page.get_by_role("button", name="Not a face").click()
        expect(page.get_by_text("2 photos, 1 face, 1 caption", exact=False)).to_be_visible()
        page.get_by_role("tab", name="Coverage").click()
        expect(
            page.get_by_text("frontal: add", exact=False).or_(page.get_by_text("full: add", exact=False)).first
        ).to_be_visible()
        page.screenshot(path=shown / "coverage.png")
        page.get_by_role("tab", name="Epochs").click()
        page.locator("#epoch").get_by_text("1", exact=True).click()
        page.locator("#release").click()
        expect(page.locator("#about-epochs")).to_contain_text("released by the next run: epoch 1")
        browser.close()
    assert elsewhere == []
    assert decide.picked(work) == 1
    assert [*people.read(work.store.subject("demo")).decisions.values()] == ["not_a_face"]
    assert not [*home.glob("data/work/demo/review/shown-*")]
    assert verdicts.read(work.store.subject("demo")) == {used[0]: "drop", left_out: "keep"}

    materialize(work.store)
    after = {one.id: one for one in photos(work)}
    assert (after[used[0]].state, after[used[0]].reason) == ("left out", "dropped by hand")
    assert after[left_out].state == "used"
    (mended,) = {one.photo for one in pictures(work) if one.source == "hand"}
    assert {one.caption for one in pictures(work) if one.photo == mended} == {"jx265 as a queen of spades"}


def mine(asked: str, url: str) -> bool:
    return asked.startswith((url, "data:", "blob:"))
