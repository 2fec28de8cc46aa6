"""What a process that trains is told before it begins."""

import os
import platform
import subprocess
import sys

import pytest

from lora_pipeline.stages.fit.process import environment

CHURN = """
import resource

def churn():
    blocks = [bytearray(2**24) for _ in range(4)]

churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(variables):
    done = subprocess.run([sys.executable, "-c", CHURN], env=variables, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_memory_that_a_step_gives_back_is_kept_for_the_next():
    """Blocks of 16 MiB, as activations are: without the variables, each is asked of the system anew, page by page of 4 KiB."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    assert faults(plain) > 5 * 4 * 2**24 / 4096 / 2
    assert faults(environment()) < 100


def test_what_the_person_has_set_stays(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert environment()["MALLOC_TRIM_THRESHOLD_"] == "1"
