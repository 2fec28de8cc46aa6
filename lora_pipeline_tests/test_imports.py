"""Heavy imports come late: the terminal and Dagster load nothing that they do not need."""

import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "ultralytics",
    "cv2",
    "dlib",
    "matplotlib",
    "gradio",
    "onnxruntime",
    "insightface",
    "huggingface_hub",
}


@pytest.mark.parametrize("module", ["lora_pipeline.definitions", "lora_pipeline.flow", "lora_pipeline.cli"])
def test_loading_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*{HEAVY!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_terminal_does_not_load_dagster_or_pandas_for_its_help() -> None:
    code = "import sys, lora_pipeline.cli; print(*{'dagster', 'pandas', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
