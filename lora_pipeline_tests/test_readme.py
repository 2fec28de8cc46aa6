"""The README is kept true: its tree is the disk's, its paths exist, its commands are run by the tests."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lora_pipeline.demo.photos import draw_subject_photos

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Run by other tests or by .ci/run itself: the demo, the UI and the page have tests of their own, and `make test` is this.
ELSEWHERE = {"make demo", "make ui", "make check", "make test", "make bench", "lora-pipeline review jane"}


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_every_file_of_the_package_stands_in_the_tree() -> None:
    (tree,) = re.findall(r"^```tree\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    told = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.strip()}
    listed = subprocess.run(
        ["git", "ls-files", "lora_pipeline"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    parts = {Path(file).parts for file in listed}
    rooms = {part[1] for part in parts} | {part[2] for part in parts if len(part) > 3 and part[1] == "stages"}
    rooms -= {"__init__.py"}
    assert rooms <= told, f"not in the README's tree: {sorted(rooms - told)}"
    on_disk = {part for listed_parts in parts for part in listed_parts} | {path.name for path in ROOT.iterdir()}
    assert told <= on_disk, f"in the README's tree but not on disk: {sorted(told - on_disk)}"


def test_every_path_that_is_named_exists() -> None:
    named = re.findall(r"`((?:lora_pipeline|benchmarks|lora_pipeline_tests)/[\w/.-]*)`", README) + re.findall(
        r"\]\((?!http|#)([^)]+)\)", README
    )
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing


def test_make_knows_its_words() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in commands():
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command
            assert command in ELSEWHERE


@pytest.mark.slow
def test_every_command_of_the_terminal_runs(tmp_path: Path) -> None:
    """In order, in one home, as a reader would; on the small base and for one epoch, since no other weights can be had here."""
    photos = tmp_path / "jane"
    photos.mkdir()
    draw_subject_photos(photos)
    for file in sorted(photos.iterdir())[20:]:
        file.unlink()
    (tmp_path / "civitai.json").write_text(json.dumps({"params": {"maxTrainEpochs": 3, "clipSkip": 2}}))
    shutil.copytree(photos, tmp_path / "12_jx265 woman")
    (tmp_path / "ComfyUI" / "models" / "loras").mkdir(parents=True)
    environment = {**os.environ, "LORA_PIPELINE_HOME": str(tmp_path)}
    for command in commands():
        if command in ELSEWHERE:
            continue
        words = shlex.split(command.replace("~/", f"{tmp_path}/").replace("sd15_person", "bundled_person"))
        assert words[0] == "lora-pipeline", command
        done = subprocess.run(
            [sys.executable, "-m", "lora_pipeline.cli", *words[1:]],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        if words[1] == "new":  # minutes, not nights
            file = tmp_path / "data" / "subjects" / "jane" / "subject.yaml"
            small = "settings: {fit: {epochs: 1}, grade: {seeds: [1], sampling_steps: 2}}"
            file.write_text(file.read_text().replace("settings: {}", small))
