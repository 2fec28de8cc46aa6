"""Several processes train as one does with a batch as many times as large, and whatever ends one ends all."""

import socket
import subprocess
import sys
from contextlib import closing

import psutil
import pytest
import yaml
from safetensors.numpy import load_file

from lora_pipeline.errors import TrainingError
from lora_pipeline.manifest import write
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.group import Group, joined
from lora_pipeline.stages.fit.job import Job, steps_in
from lora_pipeline.stages.fit.process import environment, in_own_process
from lora_pipeline.stages.fit.reports import StepReport
from lora_pipeline.stages.fit.run import run

TWO = FitSettings(
    epochs=3,
    batch_size=2,
    num_processes=2,
    network_dim=4,
    network_alpha=2,
    unet_lr=1e-2,
    lr_warmup_steps=2,
    state_every_steps=1,
)


@pytest.fixture
def job_in(tmp_path, make_training_set, tiny_base):
    """A function: a new job in a folder of that name, of 7 square pictures, of one of which a part is hidden, and 5 wide ones."""

    def make(name, settings):
        training_set = make_training_set(tmp_path / "set", pictures=12, repeats=1, buckets=buckets)
        (tmp_path / name).mkdir()
        write(tmp_path / name, training_set.rows, "trained_on")
        return Job("key", tmp_path / name, training_set.folder, "digest", settings, tiny_base, "")

    buckets = ((64, 64), (96, 32)) * 5 + ((64, 64),) * 2
    return make


def workers():
    """The training processes that this one has started, by rank."""
    children = psutil.Process().children(recursive=True)
    ranks = {child.environ().get("RANK"): child for child in children if "lora_pipeline.stages.fit" in child.cmdline()}
    return {int(rank): child for rank, child in ranks.items() if rank is not None}


def same_course(job, other, wanted):
    """Assert that a run took the other one's course, step by step, and ended with its LoRA; its steps."""
    told = steps_in(job.steps_file)
    assert [report.step for report in told] == list(range(1, 13))
    for report, its in zip(told, wanted, strict=True):
        assert report.pictures == its.pictures
        assert (report.images_seen, report.learning_rate) == (its.images_seen, its.learning_rate)
        assert report.loss == pytest.approx(its.loss, rel=1e-5)
        assert report.gradient_norm == pytest.approx(its.gradient_norm, rel=1e-5)
    ended, alone = (load_file(one.run / "epoch-0003.safetensors") for one in (job, other))
    assert ended.keys() == alone.keys()
    for name, numbers in ended.items():
        assert numbers == pytest.approx(alone[name], abs=5e-5), name
    assert max(abs(numbers).max() for name, numbers in alone.items() if "lora_B" in name) > 0.01  # it has learnt
    return told


@pytest.mark.slow
@pytest.mark.parametrize("text_encoder_lr", [0, 5e-3])
def test_two_processes_killed_and_stopped_and_gone_on_end_where_one_does_with_twice_the_batch(job_in, text_encoder_lr):
    """Batches of 2 + 2, 2 + 1, 2 + 2 and 1 + none are those of 4, 3, 4 and 1."""
    settings = TWO.model_copy(update={"text_encoder_lr": text_encoder_lr})
    one, two = job_in("one", settings.model_copy(update={"num_processes": 1, "batch_size": 4})), job_in("two", settings)
    wanted = [report for report in run(one, device="cpu") if isinstance(report, StepReport)]

    file = two.write()
    with closing(in_own_process(file, 2)) as reports:
        next(reports)
        started = workers()
        assert sorted(started) == [0, 1]
        started[1].kill()
        with pytest.raises(TrainingError, match="killed, most likely since"):
            list(reports)
    assert not any(one.is_running() for one in started.values())

    with closing(in_own_process(file, 2)) as reports:
        next(reports)
        workers()[1].terminate()
        with pytest.raises(TrainingError, match="stopped from outside"):
            list(reports)
    reached = len(steps_in(two.steps_file))
    assert 1 <= reached < 12
    assert two.state.exists()

    list(in_own_process(file, 2))
    assert {len(step.pictures) for step in same_course(two, one, wanted)} == {4, 3, 1}
    assert not two.state.parent.exists()


@pytest.mark.slow
def test_two_machines_of_one_process_each_train_as_one_does_with_twice_the_batch(job_in, tmp_path, monkeypatch):
    """Each is accelerate's configuration, as `accelerate config` writes it: the main one is started by the stage, the other by hand."""
    one, two = job_in("one", TWO.model_copy(update={"num_processes": 1, "batch_size": 4})), job_in("two", TWO)
    wanted = [report for report in run(one, device="cpu") if isinstance(report, StepReport)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for rank in range(2):
        configuration = {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": "MULTI_GPU",
            "num_machines": 2,
            "machine_rank": rank,
            "num_processes": 2,
            "main_process_ip": "127.0.0.1",
            "main_process_port": port,
            "rdzv_backend": "static",
        }
        folder = tmp_path / f"machine{rank}" / "accelerate"
        folder.mkdir(parents=True)
        (folder / "default_config.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    file = two.write()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "machine1"))
    by_hand = [sys.executable, "-m", "accelerate.commands.launch", "-m", "lora_pipeline.stages.fit", str(file)]
    with subprocess.Popen(by_hand, stdin=subprocess.PIPE, env=environment(2)) as other:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "machine0"))
        try:
            list(in_own_process(file, 2))
            assert other.wait(timeout=60) == 0
        finally:
            other.kill()
    same_course(two, one, wanted)


def test_one_process_is_alone_and_needs_no_accelerate():
    code = (
        "import sys\n"
        "from lora_pipeline.settings import FitSettings\n"
        "from lora_pipeline.stages.fit.group import Group, joined\n"
        "assert joined(FitSettings(), 'cpu') == Group()\n"
        "assert not {'torch', 'accelerate'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_alone_the_sum_is_what_there_is():
    assert Group().leads
    assert Group().total(3.5) == 3.5


def test_other_than_the_processes_that_are_wanted_are_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainingError, match=r"fit.num_processes is 4, and 3 were started: .*num_machines"):
        joined(FitSettings(num_processes=4), "cpu")


def test_more_processes_than_graphics_cards_are_told(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match=r"2 processes on this machine, which has 1 graphics card"):
        joined(FitSettings(num_processes=4), "cuda")
    with pytest.raises(TrainingError, match=r"one device \(mps\): set it to 1"):
        joined(FitSettings(num_processes=4), "mps")
