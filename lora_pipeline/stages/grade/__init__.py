"""grade: checkpoints × prompts × seeds → pictures, a labelled grid, scores with reasons, and the chosen epoch.

Callables and protocols stand for all models: `draw` makes pictures, `ReadFaces` says whose face is in one, an `Embedder` what it shows, a `Judge`
how it agrees with its prompt. Everything here can be run with others in their place. `draw_grids` and `score` each have a folder, whose
table is their manifest; beside it lie what `make_grid` laid out (`grid`), the chart, and what was seen in each picture (`see`).
"""

from lora_pipeline.stages.grade.draw import CODE_VERSION, Draw, Drawn, Wanted, draw_grids
from lora_pipeline.stages.grade.grid import make_grid
from lora_pipeline.stages.grade.looks import look
from lora_pipeline.stages.grade.plot import make_chart
from lora_pipeline.stages.grade.score import score
from lora_pipeline.stages.grade.see import Embedder, Judge, ReadFaces

__all__ = [
    "CODE_VERSION",
    "Draw",
    "Drawn",
    "Embedder",
    "Judge",
    "ReadFaces",
    "Wanted",
    "draw_grids",
    "look",
    "make_chart",
    "make_grid",
    "score",
]
