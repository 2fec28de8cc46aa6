"""What is there and what is missing: framings, head angles, light, expressions, backgrounds, counted and held against the plan.

Left and right are the picture's: a head whose nose points to the picture's left shows a `left` angle.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lora_pipeline.manifest import Manifest
from lora_pipeline.records import KNOWN_ONLY, Face, Record
from lora_pipeline.settings import COVERED, CropSettings
from lora_pipeline.stages.crop.choice import LEFT_OUT
from lora_pipeline.stages.crop.shot import Shot, unlike
from lora_pipeline.store import write_text

COVERAGE = "coverage.json"

FRONTAL_TO_DEG, PROFILE_FROM_DEG = 12.0, 45.0
"""Yaw under which a head faces the camera, and from which it is seen from its side. Measured yaw is good to about ±10° and ends at 60°."""

LEVEL_TO_DEG = 12.0
"""Pitch, from the median of the person's own (it is measured on a mean head, which theirs is not), to which a head looks straight ahead."""

SAME_BACKGROUND = 0.3
"""Backgrounds that share all but so much of their colours are one. Of the drawn subject's photos, walls of one colour in one light differ by
0.01 to 0.2, of different colours by 0.3 to 1."""

BACKGROUNDS = "backgrounds"
FRAMINGS, YAWS, PITCHES, LIGHTS = COVERED[:3], COVERED[3:8], COVERED[8:10], COVERED[10:13]
ASPECTS = {
    name: aspect
    for aspect, names in (("framing", FRAMINGS), ("yaw", YAWS), ("pitch", PITCHES), ("light", LIGHTS))
    for name in names
}
"""What of a picture each name of a plan is about."""


@dataclass(frozen=True)
class Cell(Record):
    """One line of the table.

    Args:
        aspect: framing, yaw, pitch, light, expression or backgrounds.
        name: as the plan calls it.
        there: how many photos show it; of `backgrounds`, how many different ones there are.
        wanted: how many the plan asks for; 0 if it does not.
        photos: which, by id; none of `backgrounds`.
        left_out: how many photos more would show it, if their crops had been chosen.
    """

    aspect: str
    name: str
    there: int
    wanted: int
    photos: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def missing(self) -> int:
        """How many more photos it takes."""
        return max(0, self.wanted - self.there)

    def in_words(self) -> str:
        """What to add ("no profile left: add 2"), or that it is there and was not chosen; empty if nothing is missing."""
        if not self.missing:
            return ""
        there = f"{self.there} of {self.wanted}" if self.there else "no"
        to_do = [f"{self.left_out} more were left out"] if self.left_out else []
        if self.missing > self.left_out:
            to_do.append(f"add {self.missing - self.left_out}")
        return f"{there} {self.name}: {', '.join(to_do)}"


@dataclass(frozen=True)
class Coverage:
    """What the pictures of a set show.

    Args:
        pictures, photos: how many crops there are, of how many photos.
        cells: in the order of the plan's names, expressions last.
        shares: framing → share of the pictures that it has, and that it should have (None if nothing is asked).
    """

    pictures: int
    photos: int
    cells: tuple[Cell, ...]
    shares: Mapping[str, tuple[float, float | None]]

    @property
    def missing(self) -> list[str]:
        """A sentence for each cell in which photos are missing."""
        return [words for cell in self.cells if (words := cell.in_words())]

    def share_in_words(self, framing: str) -> str:
        """A framing's share of the pictures ("48%, wanted 50%"); empty for another name."""
        if framing not in self.shares:
            return ""
        there, wanted = self.shares[framing]
        return f"{there:.0%}" + (f", wanted {wanted:.0%}" if wanted is not None else "")

    def save(self, folder: Path) -> None:
        """Write `coverage.json`: the numbers of this record, and the sentences under `missing`."""
        told = {
            "pictures": self.pictures,
            "photos": self.photos,
            "cells": [{**cell.data(), "missing": cell.missing} for cell in self.cells],
            "framing_shares": {
                framing: {"there": round(there, 4), "wanted": wanted}
                for framing, (there, wanted) in self.shares.items()
            },
            "missing": self.missing,
        }
        write_text(folder / COVERAGE, json.dumps(told, indent=1))


def yaw_cell(yaw_deg: float) -> str:
    """Which of the five head angles a yaw is (degrees, positive to the picture's right)."""
    if abs(yaw_deg) < FRONTAL_TO_DEG:
        return "frontal"
    turned = "profile" if abs(yaw_deg) >= PROFILE_FROM_DEG else "three-quarter"
    return f"{turned} {'right' if yaw_deg > 0 else 'left'}"


def shown(face: Face | None, shot: Shot | None, level_deg: float = 0.0) -> tuple[str, ...]:
    """What a photo shows, in the plan's names, but for framings and backgrounds.

    Of a face that the detector did not find (turned away, half hidden), the angle is a guess, and none is told.

    Args:
        level_deg: the pitch of a head that looks straight ahead: `level`.
    """
    cells = [shot.light] if shot else []
    if face is None or face.confidence == KNOWN_ONLY:
        return tuple(cells)
    cells.append(yaw_cell(face.yaw_deg))
    if face.pitch_deg is not None and abs(face.pitch_deg - level_deg) >= LEVEL_TO_DEG:
        cells.append("up" if face.pitch_deg > level_deg else "down")
    if face.expression:
        cells.append(f"expression {face.expression[0][0]}")
    return tuple(cells)


def level(faces: Iterable[Face]) -> float:
    """The median pitch of a person's faces (degrees, positive when the nose points up); 0 where none is measured."""
    pitches = [face.pitch_deg for face in faces if face.pitch_deg is not None]
    return median(pitches) if pitches else 0.0


def kinds(shots: Sequence[Shot]) -> int:
    """How many different backgrounds there are: each one that is unlike all before it is a new one."""
    import numpy as np

    backgrounds = np.array([shot.background for shot in shots])  # N×64
    seen: list[int] = []
    for number, background in enumerate(backgrounds):
        if (unlike(backgrounds[seen], background) > SAME_BACKGROUND).all():
            seen.append(number)
    return len(seen)


def cover(made: Manifest, faces: Mapping[str, Face], shots: Mapping[str, Shot], settings: CropSettings) -> Coverage:
    """Count what the kept crops show.

    Args:
        made: rows are `records.Crop`.
        faces: photo's id → the subject's face on it.
        shots: photo's id → what was measured of it.
        settings: the plan and the shares that are asked for.
    """
    by_cell: dict[str, set[str]] = {}
    level_deg = level(faces.values())
    framings: dict[str, int] = {}
    left_out: dict[str, set[str]] = {}
    for row in made.rows:
        if row.state != "kept" and not row.reason.startswith(LEFT_OUT):
            continue
        photo, framing = str(row.data["photo"]), str(row.data["framing"])
        if row.state == "kept":
            framings[framing] = framings.get(framing, 0) + 1
        for name in (framing, *shown(faces.get(photo), shots.get(photo), level_deg)):
            (by_cell if row.state == "kept" else left_out).setdefault(name, set()).add(photo)
    photos = sorted({str(row.data["photo"]) for row in made.kept})
    expressions = sorted({name for name in (*by_cell, *settings.coverage) if name.startswith("expression ")})
    # Beside what is seen or asked for, the lines that a person looks for: how the subject is framed, where the head is turned.
    always = {*settings.framings, *YAWS} if faces else set[str]()
    names = [
        name
        for name in (*COVERED, *expressions)
        if name != BACKGROUNDS and (name in always or name in by_cell or settings.coverage.get(name))
    ]
    cells = [
        Cell(
            ASPECTS.get(name, "expression"),
            name,
            len(by_cell.get(name, ())),
            settings.coverage.get(name, 0),
            tuple(sorted(by_cell.get(name, ()))),
            len(left_out.get(name, set()) - by_cell.get(name, set())),
        )
        for name in names
    ]
    different = kinds([shots[photo] for photo in photos if photo in shots])
    cells.append(Cell(BACKGROUNDS, BACKGROUNDS, different, settings.coverage.get(BACKGROUNDS, 0)))
    asked, total = shares(settings), max(1, len(made.kept))
    return Coverage(
        len(made.kept),
        len(photos),
        tuple(cells),
        {name: (framings.get(name, 0) / total, asked.get(name)) for name in sorted({*framings, *asked})},
    )


def shares(settings: CropSettings) -> dict[str, float]:
    """The shares of framings that are asked for, brought to a sum of 1; empty if none are."""
    total = math.fsum(settings.framing_shares.values())
    return {framing: share / total for framing, share in settings.framing_shares.items()}
