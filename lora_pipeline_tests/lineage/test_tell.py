"""A lineage told: as a tree, as a page, as W3C PROV, and in the terminal."""

import json
import subprocess
import sys
import webbrowser
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from prov.model import ProvDerivation, ProvDocument, ProvEntity, ProvGeneration, ProvUsage

from lora_pipeline import manifest
from lora_pipeline.errors import PipelineError
from lora_pipeline.lineage import graph, record
from lora_pipeline.lineage.page import page
from lora_pipeline.lineage.prov import prov_json
from lora_pipeline.lineage.tell import tell
from lora_pipeline.lineage.tree import lines
from lora_pipeline.records import Row
from lora_pipeline.store import digest_file

SVG = "{http://www.w3.org/2000/svg}"


def test_the_tree_of_a_release_word_for_word(house) -> None:
    record(house.store, "anna")
    lora = house.work("publish") / "ohwx.safetensors"
    told = lines(graph(house.store, str(lora)))
    assert told[0] == "release lora, ohwx.safetensors, of anna"
    assert told[1:3] == [f"  sha256 {digest_file(lora)}", f"  {lora}"]
    assert told[3].startswith("  made by publish, ")
    start = told.index(
        "made of: 2 photos, 2 crops, 2 pictures, 2 captions, 2 examples, 1 training set, 1 run, 1 checkpoint, 1 grid picture, 1 score"
    )
    plain = [line.rpartition("  (")[0] for line in told[start + 1 : -2]]
    training_set, run = plain[2].split()[-3], plain[1].split()[3]
    assert plain == [
        "├─ checkpoint epoch 2",
        f"│  └─ run {run} 2 epochs, seed 1, on bundled",
        f"│     └─ training set {training_set} 2 pictures",
        "│        ├─ example a.jpg@close, seen 10× an epoch",
        "│        │  ├─ picture a.jpg@close",
        "│        │  │  └─ crop a.jpg@close",
        "│        │  │     └─ photo a.jpg",
        "│        │  └─ caption a.jpg@close, by measured: ohwx woman, <close> portrait",
        "│        │     └─ picture a.jpg@close",  # …, as above
        "│        └─ example b.jpg@close, seen 10× an epoch, 25% kept out of the loss",
        "│           ├─ picture b.jpg@close, 1 face hidden",
        "│           │  └─ crop b.jpg@close",
        "│           │     └─ photo b.jpg",
        "│           └─ caption b.jpg@close, by measured: ohwx woman, <close> portrait",
        "│              └─ picture b.jpg@close, 1 face hidden",
        "└─ score epoch 2, by the rule: epoch 2 is chosen",
        "   ├─ checkpoint epoch 2",
        "   └─ grid picture e0002/p01/s0001, seed 1: ohwx woman",
        "      └─ checkpoint epoch 2",
    ]
    assert [line.endswith("…, as above") for line in told].count(True) == 4
    assert told[-1] == "went into: nothing"


def test_a_person_s_pick_is_told_as_theirs_and_many_pictures_in_one_line(house) -> None:
    house.judged(2, picked=True)
    grids = manifest.read(house.work("grids")).rows
    more = [replace(row, id=row.id.replace("s0001", f"s{seed:04d}")) for row in grids for seed in range(2, 9)]
    manifest.write(house.work("grids"), [*grids, *more])
    manifest.write(house.work("scores"), [Row(f"drawn/{row.id}", row.key) for row in [*grids, *more]], "looks")
    record(house.store, "anna")
    told = lines(graph(house.store, str(house.work("publish") / "ohwx.safetensors")))
    assert any("score epoch 2, by a person: epoch 2 is chosen" in line for line in told)
    (pictures,) = [line for line in told if "grid picture " in line and "made of" not in line]
    assert pictures.lstrip(" ├└─").startswith("grid picture e0002/p01/s0001, seed 1: ")
    assert pictures.endswith(") and 7 like it")
    assert any(line.endswith("1 checkpoint, 8 grid pictures, 1 score") for line in told)


class Shape(HTMLParser):
    """The inline SVG of a page, as XML, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words = ""
        self.feed(text)
        self.svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_has_a_box_for_each_thing_and_a_line_for_each_making(house) -> None:
    record(house.store, "anna")
    found = graph(house.store, str(house.work("publish") / "ohwx.safetensors"))
    drawn = Shape(page(found))
    groups = drawn.svg.findall(f"{SVG}g")
    assert len(groups) == len(found.entries)
    assert len(drawn.svg.findall(f"{SVG}path")) == sum(len(parents) for parents in found.parents.values())
    (asked,) = [group for group in groups if group.get("class") == "asked"]
    assert "release lora" in "".join(asked.itertext())
    assert asked.get("id") == "asked"  # the page links to it
    assert "ohwx woman, <close> portrait" in drawn.words  # escaped in the page
    boxes = [
        tuple(float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
        for group in groups
        for rect in group.findall(f"{SVG}rect")
    ]
    apart = [
        (one, other)
        for number, one in enumerate(boxes)
        for other in boxes[number + 1 :]
        if one[0] == other[0] and one[1] < other[1] + other[3] and other[1] < one[1] + one[3]
    ]
    assert apart == []  # no box lies over another
    width, height = float(drawn.svg.get("width", "")), float(drawn.svg.get("height", ""))
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)


def test_the_page_shows_drawn_pictures_and_no_photo(house) -> None:
    record(house.store, "anna")
    found = graph(house.store, str(house.store.subject("anna") / "photos" / "a.jpg"))
    images = Shape(page(found)).svg.findall(f"{SVG}g/{SVG}image")
    assert len(images) == len(found.of_kind("sample")) == 2  # what the house calls pictures are no pictures


def test_the_prov_document_is_read_by_the_prov_package(house) -> None:
    record(house.store, "anna", began=0)
    found = graph(house.store, str(house.work("publish") / "ohwx.safetensors"))
    told = prov_json(found)
    assert str(house.store.data) not in told  # no path of this machine
    document = ProvDocument.deserialize(content=told, format="json")
    entities = {str(entity.identifier): entity for entity in document.get_records(ProvEntity)}
    assert entities.keys() == {f"lp:{uid}" for uid in found.entries}
    digests = {str(*entity.get_attribute("lp:sha256")) for entity in entities.values()}
    assert digests == {one.digest for one in found.entries.values()}
    derived = {tuple(str(value) for value in one.args[:2]) for one in document.get_records(ProvDerivation)}
    assert derived == {(f"lp:{child}", f"lp:{of}") for child, parents in found.parents.items() for of in parents}
    made = {str(one.args[0]): str(one.args[1]) for one in document.get_records(ProvGeneration)}
    photos = {f"lp:{one.uid}" for one in found.of_kind("photo")}
    assert made.keys() == entities.keys() - photos
    assert len(set(made.values())) == len(made)  # else one making would have used what another was made of
    used = {tuple(str(value) for value in one.args[:2]) for one in document.get_records(ProvUsage)}
    assert used == {(made[child], of) for child, of in derived}


def test_what_is_asked_for_is_written_and_the_old_form_of_the_question_stays(house, tmp_path: Path) -> None:
    told = tell(house.store, "anna", "2", to=tmp_path / "two.html", prov=tmp_path / "two.json")
    assert told[0].startswith("2: epoch 2 of run ") or told[0].startswith("epoch 2: epoch 2 of run ")
    assert "a.jpg" in Shape((tmp_path / "two.html").read_text()).words
    assert json.loads((tmp_path / "two.json").read_text())["entity"]
    tell(house.store, "anna", "b.jpg", to=tmp_path / "b.html")
    words = Shape((tmp_path / "b.html").read_text()).words
    assert "epoch 1" in words
    assert "a.jpg@close" not in words
    with pytest.raises(PipelineError, match="nothing was made of anything"):
        tell(house.store, "anna", "e0000/p01/s0001", to=tmp_path / "base.html")
    broken = Row("broken.jpg", "k", "failed", "the file is empty")
    house._leave("collect", [*manifest.read(house.work("collect")).rows, broken])
    with pytest.raises(PipelineError, match=r"broken\.jpg could not be used"):
        tell(house.store, "anna", "broken.jpg", to=tmp_path / "broken.html")


def test_open_shows_the_page_in_the_browser(house, monkeypatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: shown.append(address) or True)
    told = tell(house.store, "anna", "2", show=True)
    assert shown == [(house.store.data / "lineage.html").as_uri()]
    assert told[-1] == f"drawn: {house.store.data / 'lineage.html'}"


def test_a_photo_that_went_nowhere_says_why(house) -> None:
    rows = manifest.read(house.work("crop")).rows
    folder = house.store.subject("anna") / "photos"
    (folder / "c.jpg").write_text("photo c")
    photo = (
        manifest.read(house.work("collect"))
        .rows[0]
        .with_data(path=str(folder / "c.jpg"), digest=digest_file(folder / "c.jpg"))
    )
    house._leave("collect", [*manifest.read(house.work("collect")).rows, replace(photo, id="c.jpg")])
    house._leave("curate", [replace(photo, id="c.jpg", state="dropped", reason="sharpness 3 is under 20")])
    house._leave("crop", list(rows))
    told = tell(house.store, str(folder / "c.jpg"))
    assert "went into: nothing" in told
    assert "is not in the training set: it stops at curated_photos: sharpness 3 is under 20" in told


def test_the_terminal_answers_of_any_file(house, tmp_path: Path) -> None:
    lora = house.work("publish") / "ohwx.safetensors"
    command = [sys.executable, "-m", "lora_pipeline.cli", "lineage", str(lora), "--home", str(house.store.data.parent)]
    done = subprocess.run([*command, "--to", str(tmp_path / "x.html")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "photo b.jpg" in done.stdout
    assert (tmp_path / "x.html").is_file()
    command[4] = "deadbeef"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing in the record has a digest that begins with deadbeef" in done.stderr
