"""The released LoRA in another program's tree."""

import datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lora_pipeline.errors import PipelineError
from lora_pipeline.records import File, Row
from lora_pipeline.stages.publish import copies, place
from lora_pipeline.stages.publish.place import loras_folder
from lora_pipeline.store import digest_file

TODAY = datetime.date(2026, 3, 1)


def released(folder: Path, *roles: str) -> Row:
    folder.mkdir(exist_ok=True)
    names = {
        "lora": "ohwx.safetensors",
        "webui": "ohwx-webui.safetensors",
        "preview": "ohwx-webui.preview.png",
        "info": "ohwx-webui.json",
        "card": "README.md",
        "notice": "NOTICE.txt",
    }
    for role in roles:
        (folder / names[role]).write_text(role)
    save_file({"a": np.zeros(1)}, folder / "ohwx-webui.safetensors", {"lora_pipeline.checkpoint": "c"})
    files = {role: File(names[role], digest_file(folder / names[role])) for role in roles}
    return Row("released", "k", data={"run": "r" * 64}, files=files)


@pytest.mark.parametrize(
    ("there", "named", "into"),
    [
        ("models/loras", "", "models/loras"),
        ("models/Lora", "", "models/Lora"),
        ("models/Stable-diffusion", "", "models/Lora"),  # a Forge that was never started
        ("ComfyUI/models/loras", "", "ComfyUI/models/loras"),
        ("webui/models/Stable-diffusion", "", "webui/models/Lora"),
        ("models/loras", "models", "models/loras"),
        ("models/Lora", "models/Lora", "models/Lora"),
    ],
)
def test_a_tree_is_known_by_its_folders(tmp_path: Path, there: str, named: str, into: str) -> None:
    (tmp_path / there).mkdir(parents=True)
    assert loras_folder(tmp_path / named) == tmp_path / into


def test_what_is_no_tree_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PipelineError, match=r"no folder of ComfyUI \(which has models/loras\)"):
            loras_folder(folder)


def test_what_web_uis_show_lies_beside_the_lora_and_the_copy_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "ui" / "models" / "loras").mkdir(parents=True)
    row = released(tmp_path / "out", "lora", "webui", "preview", "info", "card", "notice")
    for _ in range(2):  # a second time over the first
        laid = place(row, tmp_path / "out", tmp_path / "ui", TODAY)
    names = {path.name for path in laid}
    assert names == {"ohwx.safetensors", "ohwx.preview.png", "ohwx.json", "ohwx.md", "ohwx.NOTICE.txt"}
    assert {path.name for path in (tmp_path / "ui" / "models" / "loras").iterdir()} == names
    (copy,) = copies(tmp_path / "out")
    assert copy.to == str(tmp_path / "ui" / "models" / "loras" / "ohwx.safetensors")
    assert (copy.sha256, copy.on) == (digest_file(Path(copy.to)), "2026-03-01")


def test_another_s_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "ui" / "models" / "Lora"
    folder.mkdir(parents=True)
    row = released(tmp_path / "out", "lora", "webui", "card")
    save_file({"a": np.zeros(1)}, folder / "ohwx.safetensors", {"ss_output_name": "another"})
    before = (folder / "ohwx.safetensors").read_bytes()
    with pytest.raises(PipelineError, match="is not one of these: move it away"):
        place(row, tmp_path / "out", tmp_path / "ui", TODAY)
    assert (folder / "ohwx.safetensors").read_bytes() == before


def test_without_a_file_for_them_it_says_where_the_reason_stands(tmp_path: Path) -> None:
    (tmp_path / "models" / "loras").mkdir(parents=True)
    with pytest.raises(PipelineError, match=r"the card says why: .*README\.md"):
        place(released(tmp_path / "out", "lora", "card"), tmp_path / "out", tmp_path, TODAY)
