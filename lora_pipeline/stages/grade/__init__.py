"""grade: checkpoints × prompts × seeds → pictures, a labelled grid, scores with reasons, and the chosen epoch.

Two callables stand for all models: `draw` makes pictures, `embed` says whose face is in one. Everything here can be run with
others in their place. `draw_grids` and `score` each have a folder, whose table is their manifest; beside it lie what `make_grid`
laid out (`grid`), and what was seen in each picture (`embedded`, `looks`).
"""

from lora_pipeline.stages.grade.draw import CODE_VERSION, Draw, Drawn, Wanted, draw_grids
from lora_pipeline.stages.grade.grid import make_grid
from lora_pipeline.stages.grade.looks import look
from lora_pipeline.stages.grade.plot import scores_plot
from lora_pipeline.stages.grade.score import Embed, score

__all__ = [
    "CODE_VERSION",
    "Draw",
    "Drawn",
    "Embed",
    "Wanted",
    "draw_grids",
    "look",
    "make_grid",
    "score",
    "scores_plot",
]
