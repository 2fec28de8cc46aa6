"""A run from photos to release on the small base, small: its checkpoints are trained again, and its release leads back to its photos."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lora_pipeline import flow, manifest
from lora_pipeline.demo.photos import draw_subject_photos
from lora_pipeline.errors import PipelineError, SubjectError
from lora_pipeline.families.lora_file import read_metadata
from lora_pipeline.lineage import graph
from lora_pipeline.reproduce import reproduce
from lora_pipeline.store import Store, digest_file
from lora_pipeline.subject import Subject, new

pytestmark = pytest.mark.slow

SMALL = {
    "crop": {"framings": ["close"]},
    "encode": {"repeats": 1},
    "fit": {
        "epochs": 2,
        "batch_size": 2,
        "network_dim": 2,
        "network_conv_dim": 2,
        "sample_prompt": "",
        "num_cpu_threads_per_process": 0,
    },
    "grade": {"seeds": [1], "sampling_steps": 1, "prompts": ["{trigger} {class}"]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What a run with two threads leaves, whatever this machine thinks good."""
    home = tmp_path_factory.mktemp("home")
    drawn = home / "drawn"
    drawn.mkdir()
    draw_subject_photos(drawn)
    photos = home / "photos"
    photos.mkdir()
    for file in sorted(drawn.iterdir())[:5]:
        file.rename(photos / file.name)
    consent = {"given_by": "nobody", "given_on": "2026-01-01", "scope": "drawn"}
    given = {"name": "ann", "kind": "person", "photos": photos, "trigger": "zx9", "class": "woman", "consent": consent}
    new(Store(home / "data"), Subject.model_validate({**given, "recipe": "bundled_person", "settings": SMALL}))
    code = (
        "import sys; from pathlib import Path; from lora_pipeline import flow; from lora_pipeline.store import Store\n"
        "for step in flow.STEPS: flow.take(step, flow.work(Store(Path(sys.argv[1])), 'ann'))"
    )
    threads = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code, str(home / "data")], check=True, env=threads)
    return Store(home / "data")


def lora(store: Store, epoch: int) -> Path:
    (found,) = store.work("ann", "fit").glob(f"runs/*/epoch-{epoch:04d}.safetensors")
    return found


def test_the_first_of_two_epochs_has_the_same_bytes_again(made: Store) -> None:
    command = [
        sys.executable,
        "-m",
        "lora_pipeline.cli",
        "reproduce",
        str(lora(made, 1)),
        "--home",
        str(made.data.parent),
    ]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # the run had two, and has them again
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stdout + done.stderr
    assert "epoch 1 of run " in done.stdout
    assert done.stdout.endswith(f"trained again: the same bytes (sha256 {digest_file(lora(made, 1))})\n")
    assert not list(made.work("ann", "fit").glob("runs/*/state"))  # the run's own folder is left alone


def test_status_of_what_is_finished_writes_nothing_and_opens_no_model(made: Store) -> None:
    code = (
        "import sys; from pathlib import Path; from lora_pipeline import flow; from lora_pipeline.store import Store\n"
        "work = flow.work(Store(Path(sys.argv[1])), 'ann')\n"
        "print([one.step.noun for one in flow.status(work) if not one.fresh])\n"
        "print(sorted({'torch', 'transformers', 'diffusers', 'dlib', 'cv2', 'matplotlib'} & set(sys.modules)))"
    )
    before = looks(made.data)
    done = subprocess.run([sys.executable, "-c", code, str(made.data)], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
    assert looks(made.data) == before


def looks(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_a_release_alone_on_a_disk_leads_to_its_photos_and_to_its_checkpoint(made: Store, tmp_path: Path) -> None:
    (released,) = flow.work(made, "ann").made("publish").kept
    used = {row.data["photo"] for row in flow.work(made, "ann").made("encode").kept}
    for role in ("lora", "webui"):
        alone = tmp_path / f"{role} found a year later.safetensors"
        shutil.copy(made.work("ann", "publish") / released.files[role].path, alone)
        whole = graph(made, str(alone))
        assert {one.id for one in whole.of_kind("photo")} == used
        (checkpoint,) = whole.of_kind("checkpoint")
        assert checkpoint.digest == read_metadata(alone)["lora_pipeline.checkpoint"] == released.data["checkpoint"]
        # saved anew by another program, which keeps the header: other bytes
        save_file({name: tensor.float() for name, tensor in load_file(alone).items()}, alone, read_metadata(alone))
        assert {one.id for one in graph(made, str(alone)).of_kind("photo")} == used
    (run,) = whole.of_kind("run")
    assert run.makings[0].environment["threads"] == 2
    assert run.makings[0].settings["settings"]["network_dim"] == 2
    assert all(one.makings[0].environment for one in whole.of_kind("example"))


def test_what_differs_is_told(made: Store, tmp_path: Path) -> None:
    copy = Store(Path(shutil.copytree(made.data, tmp_path / "data")))
    with_what = lora(copy, 1).parent / "made_with.json"
    told = json.loads(with_what.read_text())
    with_what.write_text(json.dumps({**told, "threads": 1, "versions": {**told["versions"], "torch": "2.0.0"}}))
    done = reproduce(copy, digest_file(lora(copy, 1))[:12])
    words = "\n".join(done.lines())
    assert not done.same  # another number of threads, another last bit
    assert done.difference is not None
    assert 0 < done.difference[0] < 0.01 * done.difference[1]
    assert "made with another torch: 2.0.0 → " in words
    assert f"sha256 trained now: {done.again}" in words


def test_an_input_that_has_changed_or_gone_is_named(made: Store, tmp_path: Path) -> None:
    copy = Store(Path(shutil.copytree(made.data, tmp_path / "data")))
    job = lora(copy, 1).parent / "job.json"
    fields = json.loads(job.read_text())
    job.write_text(json.dumps({**fields, "training_set": str(copy.work("ann", "encode"))}))
    first, second, *_ = flow.work(copy, "ann").made("encode").kept
    (copy.work("ann", "encode") / first.files["latents"].path).unlink()
    (copy.work("ann", "encode") / second.files["text"].path).write_bytes(b"other words")
    with pytest.raises(PipelineError, match="2 files of its training set are not what they were") as told:
        reproduce(copy, str(lora(copy, 2)))
    assert f"{first.id}: its latents are gone" in str(told.value)
    assert f"{second.id}: its text have changed since" in str(told.value)


def test_a_run_whose_folder_is_gone_is_trained_again_from_the_record(made: Store, tmp_path: Path) -> None:
    copy = Store(Path(shutil.copytree(made.data, tmp_path / "data")))
    released = copy.work("ann", "publish") / "zx9.safetensors"
    (chosen,) = flow.work(copy, "ann").made("publish").kept
    shutil.rmtree(copy.work("ann", "fit") / "runs")
    done = reproduce(copy, str(released))
    assert done.same
    assert (done.epoch, done.digest) == (chosen.data["epoch"], chosen.data["checkpoint"])
    assert not list(copy.work("ann", "fit").glob("runs/*"))

    encode = copy.work("ann", "encode")
    first, second, third, *rest = manifest.read(encode).rows
    other = replace(third, files={**third.files, "latents": replace(third.files["latents"], digest="0" * 64)})
    manifest.write(encode, [replace(second, key="of another caption"), other, *rest])
    words = [
        replace(row, data={**row.data, "text": "other words"}) if row.id == second.id else row
        for row in manifest.read(copy.work("ann", "describe")).rows
    ]
    manifest.write(copy.work("ann", "describe"), words)
    settings = json.loads((encode / "settings.json").read_text())
    settings["encode"]["resolution_px"] = 96
    (encode / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(
        PipelineError, match=f"3 of the {3 + len(rest)} examples that it was trained on are not"
    ) as told:
        reproduce(copy, str(released))
    assert f"{first.id}: it is in the training set no more" in str(told.value)
    assert f"{second.id}: its caption is another" in str(told.value)
    assert f"{third.id}: its photo, or how it is cut, covered or encoded, is another" in str(told.value)
    assert "encode.resolution_px: it was 128, it is 96" in str(told.value)


def test_nothing_is_trained_again_without_consent(made: Store, tmp_path: Path) -> None:
    copy = Store(Path(shutil.copytree(made.data, tmp_path / "data")))
    file = copy.subject("ann") / "subject.yaml"
    file.write_text(file.read_text().replace("until: null", "until: 2026-01-02"))
    with pytest.raises(SubjectError, match="the consent of nobody ended on 2026-01-02, so training on their photos"):
        reproduce(copy, str(lora(copy, 1)))


def test_another_base_model_is_told(made: Store, tmp_path: Path) -> None:
    copy = Store(Path(shutil.copytree(made.data, tmp_path / "data")))
    with_what = lora(copy, 1).parent / "made_with.json"
    with_what.write_text(json.dumps({**json.loads(with_what.read_text()), "base": "0123456789abcdef"}))
    with pytest.raises(PipelineError, match="the base model bundled has other weights now"):
        reproduce(copy, str(lora(copy, 1)))


def test_what_is_no_checkpoint_is_told(made: Store) -> None:
    photo = flow.work(made, "ann").made("collect").kept[0].data["path"]
    with pytest.raises(PipelineError, match="is a photo, and only a checkpoint"):
        reproduce(made, str(photo))
