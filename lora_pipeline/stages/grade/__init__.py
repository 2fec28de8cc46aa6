"""grade: checkpoints × prompts × seeds → pictures, a labelled grid, scores with reasons, and the chosen epoch.

Two callables stand for all models: `draw` makes pictures, `embed` says whose face is in one. Everything here can be run with
others in their place. One folder holds five tables: `grids` (a row a picture), `grid` and `grid_chosen` (the labelled picture),
`embedded` and `looks` (what was seen in a picture), `scores` (a row an epoch).
"""

from lora_pipeline.stages.grade.draw import CODE_VERSION, GRIDS, Draw, Drawn, Wanted, draw_grids
from lora_pipeline.stages.grade.grid import make_grid
from lora_pipeline.stages.grade.look import look
from lora_pipeline.stages.grade.plot import scores_plot
from lora_pipeline.stages.grade.score import SCORES, Embed, score

__all__ = [
    "CODE_VERSION",
    "GRIDS",
    "SCORES",
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
