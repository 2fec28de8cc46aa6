"""Partitions are made by many: the terminal, the UI's sensors, two runs at once."""

import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from lora_pipeline.assets import partitions

MAKE = """
import sys, time
import dagster as dg
from lora_pipeline.assets import partitions

with dg.DagsterInstance.from_ref(dg.DagsterInstance.local_temp(sys.argv[1]).get_ref()) as instance:
    print("ready", flush=True)
    start = float(sys.stdin.readline())
    for number in range(60):
        while time.time() < start + number * 0.03:
            pass
        partitions.add(instance, "subject", [f"subject{number}"])
"""


@pytest.mark.slow
def test_two_processes_that_make_the_same_partitions_at_once_do_not_trip_over_each_other(tmp_path: Path) -> None:
    """Dagster's own call looks and then writes, and whoever writes second is told that the name is not unique."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        command = [sys.executable, "-c", MAKE, str(tmp_path)]
        both = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for one in both:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        start = f"{time.time() + 0.5}\n"
        for one in both:
            assert one.stdin is not None
            one.stdin.write(start)
            one.stdin.flush()
        for one in both:
            told = one.communicate(timeout=60)
            assert one.returncode == 0, told
        assert len(instance.get_dynamic_partitions("subject")) == 60
        assert partitions.add(instance, "subject", ["subject3", "new"]) == ["new"]
