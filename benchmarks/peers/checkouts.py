"""The other trainers: which commit, and what they need besides what is installed here. They lie beside this repository, never in it."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BESIDE = Path(__file__).parents[3] / "lora-peers"


@dataclass(frozen=True)
class Peer:
    """Another trainer.

    Args:
        name: of its folder.
        url: of its git repository.
        commit: that is measured.
        tag: of the commit.
        script: that trains, within the repository.
        packages: installed for it alone, in place of those installed here.
    """

    name: str
    url: str
    commit: str
    tag: str
    script: str
    packages: tuple[str, ...] = ()


DIFFUSERS = Peer(
    "diffusers",
    "https://github.com/huggingface/diffusers",
    "d035dcd7cc7c88e0a154609b62887d50bba9fdc2",
    "v0.40.0",
    "examples/dreambooth/train_dreambooth_lora.py",
)
SD_SCRIPTS = Peer(
    "sd-scripts",
    "https://github.com/kohya-ss/sd-scripts",
    "ae72efb92babe89ff8e70f057e42db68440e8d61",
    "v0.10.1",
    "train_network.py",
    # Its own pins of what it imports to train Stable Diffusion 1.5 (tokenizers as transformers wants it). OpenCV, NumPy, Pillow and torch
    # are those installed here: the same kernels compute both.
    (
        "accelerate==1.6.0",
        "diffusers==0.32.1",
        "einops==0.7.0",
        "huggingface-hub==0.34.3",
        "imagesize==1.4.1",
        "safetensors==0.4.5",
        "tokenizers==0.21.4",
        "toml==0.10.2",
        "transformers==4.54.1",
        "voluptuous==0.15.2",
    ),
)


def script_of(peer: Peer, folder: Path) -> Path:
    """The peer's script, checked out into the folder if it is not there. Raises SystemExit if another commit is there."""
    there = folder / peer.name
    if not (there / peer.script).exists():
        there.mkdir(parents=True, exist_ok=True)
        for words in (("init", "--quiet"), ("fetch", "--quiet", "--depth=1", peer.url, peer.commit)):
            subprocess.run(["git", *words], cwd=there, check=True)
        subprocess.run(["git", "checkout", "--quiet", peer.commit], cwd=there, check=True)
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=there, check=True, capture_output=True, text=True)
    if asked.stdout.strip() != peer.commit:
        raise SystemExit(f"{there} is at {asked.stdout.strip()[:12]}: check out {peer.commit[:12]} ({peer.tag}) there")
    return there / peer.script


def packages_of(peer: Peer, folder: Path) -> Path | None:
    """Where the peer's own packages lie, installed if they are not there; None if it has none."""
    if not peer.packages:
        return None
    there = folder / f"{peer.name}-packages"
    if not there.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(there)]
        subprocess.run([*pip, *peer.packages], check=True)
    return there
