import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lora_pipeline import manifest
from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade import draw_grids, make_page, score

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SETTINGS = GradeSettings(seeds=(1, 2), strengths=(0.5, 1.0, 1.25), batch_size=4, size_px=64, negative_prompt="hats")
PROMPTS = ("a photo of ohwx woman", "</script><b>an oil painting</b> of ohwx woman")
SUBJECT = [(0.0, 0.0), (0.2, 0.0)]


@pytest.fixture
def grids(checkpoints, painter, base, tmp_path: Path):
    def make(reds, settings=SETTINGS, prompts=PROMPTS):
        return draw_grids(checkpoints(reds), tmp_path / "grids", settings, base, prompts, painter).manifest

    return make


@pytest.fixture
def judged(checkpoints, embed, tmp_path: Path):
    def make(grids, reds):
        return score(grids, checkpoints(reds), tmp_path / "scores", SETTINGS, SUBJECT, embed, "person").manifest

    return make


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    (tmp_path / "fit" / "runs" / "a b").mkdir(parents=True)
    Image.new("RGB", (80, 40), "orange").save(tmp_path / "fit" / "runs" / "a b" / "loss.png")
    return tmp_path / "fit" / "runs" / "a b" / "loss.png"


def data_of(page: Path) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)


def test_the_page_names_every_picture_from_where_it_lies(grids, checkpoints, curve, tmp_path: Path) -> None:
    made = grids([100, 255])
    outcome = make_page(made, checkpoints([100, 255]), "ann", "Ann", curve)
    page = outcome.manifest.path(outcome.manifest.rows[0], "page")
    assert page == tmp_path / "grids" / "index.html"
    data = data_of(page)
    assert data["strengths"] == [0, 0.5, 1, 1.25]
    assert [one["words"] for one in data["prompts"]] == list(PROMPTS)
    assert set(data["pictures"]) == {row.id for row in made.rows}
    paths = {id: one["path"] for id, one in data["pictures"].items() if "path" in one}
    assert len(paths) == 4 + 12
    assert all((page.parent / path).is_file() for path in [*paths.values(), data["curves"][0]["path"]])
    assert "not finite" in data["pictures"]["e0002/p01/s0001"]["why"]
    assert data["hows"][0]["negative prompt"] == "hats"
    assert data["epochs"][1]["lora"] == checkpoints([100, 255]).row("0001").files["lora"].digest
    assert str(tmp_path) not in page.read_text()  # no path of this machine
    assert not re.search(r"(src|href)=[\"']?(https?:)?//|@import|url\(", page.read_text())  # nothing from elsewhere


def test_scores_come_onto_it_and_stay_as_long_as_the_pictures_do(
    grids, judged, checkpoints, curve, tmp_path: Path
) -> None:
    made, page = grids([100, 40]), tmp_path / "grids" / "index.html"
    make_page(made, checkpoints([100, 40]), "ann", "Ann", curve)
    assert data_of(page)["scores"] == []
    scores = judged(made, [100, 40])
    chart = scores.folder / "chart.png"
    chart.write_bytes(curve.read_bytes())
    how = (made, checkpoints([100, 40]), "ann", "Ann", curve, scores, chart)
    make_page(*how)
    data = data_of(page)
    assert [(page.parent / one["path"]).resolve() for one in data["curves"]] == [chart, curve]
    own = "identity distance (less is better)"
    assert {own, "faces found", "reason", "learned"} <= set(data["scores"])  # all there is, by its own name
    assert "identity distance" not in data["scores"]  # once
    assert [one["chosen"] for one in data["epochs"]] == [bool(row.data["chosen"]) for row in scores.rows]
    assert data["epochs"][2]["scores"][own].startswith(f"{scores.rows[2].data['identity_distance']:.4g} (")
    before = page.read_bytes()
    assert (
        make_page(made, checkpoints([100, 40]), "ann", "Ann", curve).report.computed == 0
    )  # drawing again found all there
    assert make_page(*how).report.computed == 0
    assert page.read_bytes() == before
    with manifest.planning():
        make_page(made, checkpoints([100, 40]), "ann", "Ann", curve)
        with pytest.raises(manifest.Stale):
            make_page(grids_of_other(made), checkpoints([100, 40]), "ann", "Ann", curve)
    make_page(grids([100, 41]), checkpoints([100, 41]), "ann", "Ann", curve)
    assert data_of(page)["scores"] == []  # those were of other pictures


def grids_of_other(made):
    return manifest.Manifest(made.folder, made.rows[:-1])


def test_the_hundredth_prompt_stands_after_the_ninety_ninth(grids, checkpoints, tmp_path: Path) -> None:
    prompts = tuple(f"prompt {number}" for number in range(1, 103))
    made = grids([100], SETTINGS.model_copy(update={"seeds": (1,), "strengths": (1.0,)}), prompts)
    make_page(made, checkpoints([100]), "ann", "Ann", None)
    assert [one["words"] for one in data_of(tmp_path / "grids" / "index.html")["prompts"]] == list(prompts)


def test_a_prompt_shows_its_own_seeds(grids, checkpoints, tmp_path: Path) -> None:
    made = grids([100], SETTINGS.model_copy(update={"seeds_apart": 100}), ("one", "two"))
    make_page(made, checkpoints([100]), "ann", "Ann", None)
    prompts = data_of(tmp_path / "grids" / "index.html")["prompts"]
    assert [one["seeds"] for one in prompts] == [[1, 2], [101, 102]]


def test_any_field_of_a_score_is_told(grids, checkpoints, tmp_path: Path) -> None:
    made = grids([100])
    told = {
        "epoch": 1,
        "chosen": True,
        "reason": "why",
        "interval": [0.25, 0.5],
        "vetoes": {"copies": 2},
        "gone": None,
        "none": [],
        "measures": [
            {"name": "sharpness", "better": "same", "value": 0.51234, "low": 0.25, "high": 0.75},
            {"name": "spread", "value": None, "low": None},
        ],
        "good": False,
    }
    scores = manifest.write(tmp_path / "other", [manifest.Row("0001", "key", data=told)])
    make_page(made, checkpoints([100]), "ann", "Ann", None, scores)
    data = data_of(tmp_path / "grids" / "index.html")
    shown = {name: data["epochs"][1]["scores"][name] for name in data["scores"]}
    assert shown == {  # what is empty for every epoch is left out
        "reason": "why",
        "interval": "0.25, 0.5",
        "vetoes": "copies 2",
        "good": "no",
        "sharpness (same is better)": "0.5123 (0.25 to 0.75)",
    }
    assert data["epochs"][1]["chosen"] is True
    assert data["epochs"][0]["scores"] == {}
    assert data["curves"] == []


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")
def test_the_page_in_a_browser(grids, judged, checkpoints, curve, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    made = grids([100, 40])
    make_page(made, checkpoints([100, 40]), "ann", "Ann: ohwx woman", curve, judged(made, [100, 40]))
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(request.url))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "grids" / "index.html").as_uri())

        def shown() -> list[str]:
            return page.locator("td .seeds img").evaluate_all("(all) => all.map((one) => one.getAttribute('src'))")

        assert len(shown()) == 2 * 3 * 2
        assert shown()[:6] == [f"pictures/e{epoch:04d}/p01/s{seed:04d}.png" for epoch in (0, 1, 2) for seed in (1, 2)]
        assert page.locator("thead th.chosen").inner_text() == "epoch 2 ✓"
        assert "identity distance" in page.locator("tbody").inner_text()
        assert "</script><b>an oil painting</b> of ohwx woman" in page.locator("tbody").inner_text()
        slider = page.locator("input[type=range]")
        slider.fill("3")
        assert shown()[2] == "pictures/e0001/p01/s0001@1.25.png"
        assert shown()[0] == "pictures/e0000/p01/s0001.png"
        assert page.locator("header output").inner_text() == "1.25"
        slider.fill("0")
        assert set(shown()) == {f"pictures/e0000/p0{prompt}/s000{seed}.png" for prompt in (1, 2) for seed in (1, 2)}
        slider.fill("1")
        page.locator("td .seeds button").nth(3).click()
        dialog = page.locator("dialog")
        words = dialog.inner_text()
        for word in ("ohwx woman", "hats", "0.5", "lora-pipeline redraw ann e0001/p01/s0002@0.5", "PlainScheduler"):
            assert word in words
        page.keyboard.press("ArrowRight")
        assert dialog.locator("img").get_attribute("src") == "pictures/e0002/p01/s0002@0.5.png"
        assert dialog.locator("img").evaluate("(img) => img.naturalWidth") == 64
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        browser.close()
    assert faults == []
    assert all(url.startswith("file://") for url in asked)
