"""grade: checkpoints × prompts × seeds → pictures, a labelled grid, scores with reasons, and the chosen epoch.

Callables and protocols stand for all models: `draw` makes pictures, `ReadFaces` says whose face is in one, an `Embedder` what it shows, a
`Judge` how it agrees with its prompt. Everything here can be run with others in their place. `draw_grids` and `score` each have a folder,
whose table is their manifest; beside it lie what `make_grid` and `make_prompt_grids` laid out (`grid`, `by_prompt`), the page to judge by
(`page`), the prompts that a language model wrote (`by_llm`), the chart, what was seen in each picture (`see`, `by_strength`), and what each
strength comes to (`strength`).
"""

from lora_pipeline.stages.grade.by_llm import TABLE as LLM_PROMPTS
from lora_pipeline.stages.grade.by_llm import llm_prompts
from lora_pipeline.stages.grade.draw import CODE_VERSION, Draw, Drawn, Wanted, draw_grids
from lora_pipeline.stages.grade.grid import make_grid, make_prompt_grids
from lora_pipeline.stages.grade.likeness import MEDIAN, cosines, identity_distances
from lora_pipeline.stages.grade.looks import look
from lora_pipeline.stages.grade.page import make_page
from lora_pipeline.stages.grade.plot import make_chart
from lora_pipeline.stages.grade.prompts import Prompts, prompts_of, read_prompts, varied
from lora_pipeline.stages.grade.redraw import Redrawn, read_told, redraw
from lora_pipeline.stages.grade.score import score
from lora_pipeline.stages.grade.see import TRAINED, Embedder, Judge, ReadFaces, embedded
from lora_pipeline.stages.grade.strength import TABLE as STRENGTHS
from lora_pipeline.stages.grade.strength import Strength, recommend_strength, recommended, sweep

__all__ = [
    "CODE_VERSION",
    "LLM_PROMPTS",
    "MEDIAN",
    "STRENGTHS",
    "TRAINED",
    "Draw",
    "Drawn",
    "Embedder",
    "Judge",
    "Prompts",
    "ReadFaces",
    "Redrawn",
    "Strength",
    "Wanted",
    "cosines",
    "draw_grids",
    "embedded",
    "identity_distances",
    "llm_prompts",
    "look",
    "make_chart",
    "make_grid",
    "make_page",
    "make_prompt_grids",
    "prompts_of",
    "read_prompts",
    "read_told",
    "recommend_strength",
    "recommended",
    "redraw",
    "score",
    "sweep",
    "varied",
]
