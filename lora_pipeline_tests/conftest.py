"""Fixtures that several rooms' tests use."""

import importlib.util
import os
from pathlib import Path

import pytest

from lora_pipeline.settings import BaseSettings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as lora_pipeline.families does; some tests import torch first


@pytest.fixture(scope="session")
def tiny():
    """The module `tiny.py` beside this file (tests are not a package)."""
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).with_name("tiny.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_base(tiny, tmp_path_factory) -> BaseSettings:
    """A random-weight pipeline of the real classes: 64 px pictures, 8×8 latents of 4 channels."""
    return BaseSettings(family="sd15", model=str(tiny.build(tmp_path_factory.mktemp("tiny_base"))))
