"""The Dagster UI as a person uses it: `lora-pipeline ui`, one click on Materialize all, an epoch's picture, the grid."""

import json
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
from typing import Any

import pytest

from lora_pipeline import subject
from lora_pipeline.demo.photos import draw_subject_photos
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SMALL = {"encode": {"repeats": 12}, "fit": {"epochs": 2}, "grade": {"seeds": [1], "sampling_steps": 4}}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    draw_subject_photos(photos)
    for file in sorted(photos.iterdir())[16:]:
        file.unlink()
    consent = {"given_by": "nobody", "given_on": "2026-01-01", "scope": "the person is drawn"}
    given = {
        "name": "demo",
        "kind": "person",
        "photos": photos,
        "trigger": "jx265",
        "class": "woman",
        "recipe": "bundled_person",
        "consent": consent,
    }
    subject.new(Store(tmp_path / "data"), Subject.model_validate({**given, "settings": SMALL}))
    return tmp_path


@contextmanager
def served(home: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "LORA_PIPELINE_HOME": str(home)}
    log = (home / "ui.log").open("w")
    command = [sys.executable, "-m", "lora_pipeline.cli", "ui", "--port", str(port)]
    ui = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: _answers(url), 180, "the UI did not start")
        yield url
    finally:
        ui.send_signal(signal.SIGINT)
        ui.wait(60)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _wait(holds: Any, seconds: float, words: str) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, words
        time.sleep(1)


def test_one_click_from_photos_to_release(home: Path) -> None:
    from playwright.sync_api import sync_playwright

    pictures = Path(os.environ.get("LORA_PIPELINE_SCREENSHOTS", home))
    with served(home) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.set_default_timeout(120_000)
        _materialize_all(page, url)
        run = _newest_run(url)

        # Terminate, in the midst of training: it ends at a step's edge, and the next run goes on from there.
        page.goto(f"{url}/runs/{run['runId']}")
        page.get_by_role("button", name="Terminate").first.wait_for()
        _wait(lambda: _steps(home) != "", 600, "training did not begin")
        page.get_by_role("button", name="Terminate").first.click()
        page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
        _wait(lambda: _newest_run(url)["status"] == "CANCELED", 120, "the run was not terminated")
        assert not _materialized(url, "lora_checkpoints")
        before = _steps(home)

        _materialize_all(page, url)
        # An epoch is there before training, and the run, have ended.
        page.goto(f"{url}/assets/epoch_checkpoint?partition=demo%7C0001")
        _wait(lambda: _materialized(url, "epoch_checkpoint"), 600, "no epoch appeared")
        assert not _materialized(url, "released_lora")
        _wait(lambda: _materialized(url, "released_lora"), 900, "the run did not reach the release")
        assert _steps(home).startswith(before)

        page.goto(f"{url}/asset-groups")
        page.get_by_text("released_lora").first.wait_for()
        page.wait_for_timeout(5000)
        page.screenshot(path=pictures / "graph.png")
        for asset, words, name in (
            ("epoch_checkpoint?view=partitions&partition=0001%7Cdemo", "sample", "epoch"),
            ("lora_checkpoints?view=partitions&partition=demo", "loss curve", "checkpoints"),
            ("validation_grids?view=partitions&partition=demo", "grid", "grids"),
        ):
            page.goto(f"{url}/assets/{asset}")
            page.get_by_text(words, exact=True).first.wait_for()
            row = page.get_by_role("row").filter(has=page.get_by_text(words, exact=True)).first
            row.get_by_text("Show Markdown").click()
            shown = page.locator("img[src^='data:image']").first
            shown.wait_for()
            assert shown.evaluate("picture => picture.naturalWidth") >= 100
            page.wait_for_timeout(1000)
            page.screenshot(path=pictures / f"{name}.png")
            page.keyboard.press("Escape")
        browser.close()


def _materialize_all(page: Any, url: str) -> None:
    """Click, choose the partition, launch, and wait until the run is there."""
    before = _newest_run(url)
    page.goto(f"{url}/asset-groups")
    page.get_by_role("button", name="Materialize all").first.click()
    page.get_by_text("Select a partition or create one").click()
    page.wait_for_timeout(2000)  # the list slides open, and a click on a moving line misses it
    page.get_by_text("demo", exact=True).first.click()
    page.wait_for_timeout(1000)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Launch 1 run").click()
    _wait(lambda: _newest_run(url) != before, 60, "no run was launched")


def _newest_run(url: str) -> dict[str, str]:
    runs = _ask(url, "{ runsOrError(limit: 1) { ... on Runs { results { runId status } } } }")["runsOrError"]["results"]
    return runs[0] if runs else {}


def _steps(home: Path) -> str:
    """A line a step trained, with the seconds that it took: a step done again leaves another line."""
    return "".join(log.read_text() for log in home.glob("data/work/demo/fit/runs/*/steps.jsonl"))


def _materialized(url: str, asset: str) -> bool:
    path = json.dumps([asset])
    query = f"{{ assetOrError(assetKey: {{path: {path}}}) {{ ... on Asset {{ assetMaterializations(limit: 1) {{ runId }} }} }} }}"
    return bool(_ask(url, query)["assetOrError"].get("assetMaterializations"))


def _ask(url: str, query: str) -> Any:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]
