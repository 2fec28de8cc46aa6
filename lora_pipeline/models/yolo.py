"""An ultralytics YOLO: boxes of what its weights were trained to find."""

import multiprocessing
import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import ModelError
from lora_pipeline.models.dlib_faces import MOST_ENLARGED, Loose

if TYPE_CHECKING:
    from PIL.Image import Image


def ultralytics_yolo() -> Any:
    """The class `ultralytics.YOLO`, without what importing it does to the process."""
    from PIL import Image

    os.environ.setdefault("YOLO_OFFLINE", "true")  # ultralytics tells its makers of each use otherwise
    opens = Image.open
    from ultralytics import YOLO

    # It puts its own function in the place of Image.open, which at the first file that is no picture installs a package by pip.
    Image.open = opens
    return YOLO


@dataclass(frozen=True)
class Yolo:
    """A YOLO detector. Its weights are read when the first picture comes.

    Args:
        setting: which names the file, for messages: "crop.yolo_weights".
        file: an ultralytics `.pt` file.
    """

    setting: str
    file: Path

    @classmethod
    def open(cls, setting: str, weights: str, how: str) -> "Yolo":
        """Raises ModelError, which ends in `how` to mend it, if the file is missing."""
        file = Path(weights).expanduser()
        if not file.is_file():
            raise ModelError(f"{setting} names {file}, which is not there; {how}")
        return cls(setting, file)

    @cached_property
    def _model(self) -> Any:
        try:
            model = ultralytics_yolo()(str(self.file), task="detect")
        except Exception as error:
            raise ModelError(
                f"{self.setting}: {self.file} cannot be opened as an ultralytics YOLO detector ({error})"
            ) from error
        if multiprocessing.parent_process():
            import torch

            torch.set_num_threads(1)  # each other core has a worker of its own
        return model

    @property
    def classes(self) -> dict[int, str]:
        """What it finds: a class's number → its name. Raises ModelError if the weights cannot be opened."""
        return self._model.names

    def find(
        self, picture: "Image", search_px: int, sure: float, classes: Collection[int] | None = None
    ) -> list[tuple[Loose, float]]:
        """Boxes and confidences (0 to 1), surest first. Runs on the first CUDA device if there is one.

        Args:
            picture: H×W, 8-bit RGB, any size.
            search_px: size of the long side at which it is searched; a small picture is enlarged at most twice.
            sure: least confidence that counts.
            classes: numbers of those that are wanted; None for all.

        Returns:
            boxes (left, top, right, bottom) in the picture's pixels, not rounded.

        Raises ModelError if the weights cannot be opened.
        """
        import numpy as np
        import torch

        side_px = int(min(search_px, MOST_ENLARGED * max(picture.size)))
        result = self._model.predict(
            np.asarray(picture.convert("RGB"))[:, :, ::-1],  # ultralytics takes arrays as BGR
            imgsz=max(32, -(-side_px // 32) * 32),
            conf=sure,
            classes=None if classes is None else list(classes),
            device="cuda" if torch.cuda.is_available() else "cpu",
            verbose=False,
        )[0]
        return [
            ((left, top, right, bottom), float(confidence))
            for (left, top, right, bottom), confidence in zip(
                result.boxes.xyxy.tolist(), result.boxes.conf.tolist(), strict=True
            )
        ]
