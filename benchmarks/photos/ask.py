"""How many photos of 12 megapixels a second go through collect, curate and crop, is every core at work, and does memory grow with photos? (Wanted: memory flat from 1,000 to 10,000.)

Photos are JPEGs: scenes of the drawn subject blown up, with a sensor's noise, and, where `../shared/data` is, the real photos there. There
are some 60 of them, and each further one is a copy with other bytes behind its end: another content, so every stage does its whole work
again, and `curate.keep_duplicates` lets all of them go on.

Those whose number grows are of an eighth of a megapixel, and faces are searched for at that size and cut at 128 px, which takes a fraction of the time: what a
photo's pixels take is given back with each photo, and what could grow is what is remembered of it.

YOLO is the real class (yolov8n) with random weights: as quick as a trained one, but it finds no face, so that landmarks, descriptors and crops,
which are dlib's and alike with both detectors, are in the seconds of dlib_hog alone.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.manifest import Outcome

if TYPE_CHECKING:
    import psutil

PHOTOS = 2000
DRAWN = 40
SIZE_PX, SMALL_PX = (4032, 3024), (416, 312)
QUALITY = 85
NOISE = 3.0
"""Standard deviation of the sensor's noise, levels of 255."""
REAL = Path(__file__).parents[3] / "shared" / "data"
ROOM_MIB = 3.0
"""What a photo and its crops take on disk: 2, and some room."""
LOOK_S = 0.5


def ask(photos: int = PHOTOS) -> dict[str, object]:
    """Photos a second by detector at so many photos, and memory from half as many small ones to five times as many; raises OSError if the disk has no room.

    The small photos grow in one working folder, as a person's do: each stage computes the new ones alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if shutil.disk_usage(home).free < (needed := 1.5 * photos * ROOM_MIB * 2**20):
            raise OSError(
                f"{home} has no room for {photos} photos or {5 * photos} small ones: {needed / 2**30:.0f} GiB"
            )
        large, small = home / "large", home / "small"
        originals = draw(large / "originals", SIZE_PX)
        fill(large / "photos", originals, photos)
        hog = measured(large, {"detector": "dlib_hog"})
        yolo = measured(large, {"detector": "yolo", "yolo_weights": str(random_yolo(large))})
        shutil.rmtree(large)
        smalls = draw(small / "originals", SMALL_PX)
        growing: list[dict[str, object]] = []
        for number in (photos // 2, 5 * photos):
            fill(small / "photos", smalls, number)
            growing.append(measured(small, {"detector": "dlib_hog", "search_px": SMALL_PX[0], "size_px": 128}))
    return {
        "distinct photos": len(originals),
        "mean MiB of a photo": round(sum(len(data) for data in originals) / len(originals) / 2**20, 2),
        "dlib_hog": hog,
        "yolo": yolo,
        f"dlib_hog, photos of {SMALL_PX[0]}x{SMALL_PX[1]} growing": growing,
    }


def draw(folder: Path, size_px: tuple[int, int]) -> list[bytes]:
    """The distinct photos as JPEGs of the area of `size_px`: drawn ones, then the real ones that there are."""
    import numpy as np
    from PIL import Image

    from lora_pipeline.demo.photos import subject_identity
    from lora_pipeline.demo.world import draw as drawn
    from lora_pipeline.demo.world import random_scene
    from lora_pipeline.pictures import open_upright

    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    pictures = [drawn(subject_identity(), random_scene(random, (1008, 756))).picture for _ in range(DRAWN)]
    pictures += [open_upright(path) for path in sorted(REAL.glob("*/photos/*"))]
    photos: list[bytes] = []
    for number, picture in enumerate(pictures):
        scale = (size_px[0] * size_px[1] / picture.width / picture.height) ** 0.5
        size = round(picture.width * scale), round(picture.height * scale)
        pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        grain = random.standard_normal((*pixels.shape[:2], 1), dtype=np.float32) * NOISE
        file = folder / f"{number:03d}.jpg"
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(file, quality=QUALITY)
        photos.append(file.read_bytes())
    return photos


def fill(folder: Path, originals: list[bytes], photos: int) -> None:
    """Add photos until there are so many."""
    folder.mkdir(exist_ok=True)
    for number in range(photos):
        file = folder / f"{number:06d}.jpg"
        if not file.exists():
            # Behind the JPEG's last marker, so the picture is the same and the content another.
            file.write_bytes(originals[number % len(originals)] + number.to_bytes(4))


def random_yolo(home: Path) -> Path:
    """yolov8n from its own description."""
    os.environ["YOLO_CONFIG_DIR"] = str(home)
    from lora_pipeline.models.yolo import ultralytics_yolo

    model = ultralytics_yolo()("yolov8n.yaml")
    model.save(home / "face.pt")
    return home / "face.pt"


def measured(home: Path, settings: dict[str, object]) -> dict[str, object]:
    """Run the three stages in a process of their own, and look meanwhile at the memory of it and of its workers; `settings` are crop's."""
    import psutil

    command = [sys.executable, "-m", "benchmarks.photos.ask", str(home), json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        peak, anonymous = 0, 0
        while run.poll() is None:
            process = psutil.Process(run.pid)
            peak, anonymous = max(peak, _memory(process)), max(anonymous, _anonymous(process))
            time.sleep(LOOK_S)
        told = run.stdout.read() if run.stdout else ""
    if run.returncode:
        raise RuntimeError(f"the stages ended with {run.returncode}")
    taken = {"peak MiB": round(peak / 2**20), "peak MiB without files": round(anonymous / 2**20)}
    return {**json.loads(told.splitlines()[-1]), **taken}


def _memory(process: "psutil.Process") -> int:
    """Bytes of a process and all below it; what they share counts once (proportional set size)."""
    import psutil

    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            told = one.memory_full_info()
            total += getattr(told, "pss", told.rss)
        except psutil.Error:
            continue  # it has ended meanwhile
    return total


def _anonymous(process: "psutil.Process") -> int:
    """Of these the bytes that lie in no file: a library's pages come and go as the system has room, these only as the program wills. 0 where it is not told."""
    import psutil

    total = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(OSError, psutil.Error):
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return total * 2**10


def main() -> None:
    """Run the three stages once, and print what they did and took."""
    from lora_pipeline.manifest import read
    from lora_pipeline.settings import CollectSettings, CropSettings, CurateSettings
    from lora_pipeline.stages.collect import collect
    from lora_pipeline.stages.crop import crop, decided_faces
    from lora_pipeline.stages.curate import curate

    home, settings = Path(sys.argv[1]), CropSettings.model_validate_json(sys.argv[2])
    work = home / "work" / settings.detector
    took: dict[str, tuple[float, float]] = {}

    def timed(name: str, stage: Callable[[], Outcome]) -> Outcome:
        wall, cpu = time.monotonic(), _cpu_s()
        outcome = stage()
        took[name] = time.monotonic() - wall, _cpu_s() - cpu
        return outcome

    # As in a run, a stage reads the manifest before it, and no other is remembered.
    collected = timed("collect", lambda: collect(home / "photos", work / "collect", CollectSettings())).report
    keep_all = CurateSettings(keep_duplicates=True, min_side_px=0, min_true_side_px=0)
    kept = timed("curate", lambda: curate(read(work / "collect"), work / "curate", keep_all)).report
    crops = timed("crop", lambda: crop(read(work / "curate"), work / "crop", settings, "person", None))
    seconds, cpu_s = (sum(one[number] for one in took.values()) for number in (0, 1))
    answer = {
        "photos": collected.computed + collected.reused,
        "of these new": collected.computed,
        "kept by curate": kept.computed + kept.reused - kept.dropped - kept.failed,
        "faces": sum(len(faces) for faces in decided_faces(work / "crop").values()),
        "crops": len(crops.manifest.kept),
        "new photos a second": round(collected.computed / seconds, 2),
        "wall s": {name: round(one[0], 1) for name, one in took.items()},
        "share of the cores at work": {
            name: round(one[1] / one[0] / (os.cpu_count() or 1), 2) for name, one in took.items()
        },
        "cpu s a new photo": round(cpu_s / collected.computed, 2),
    }
    print(json.dumps(answer))


def _cpu_s() -> float:
    """Of this process and of the workers that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
