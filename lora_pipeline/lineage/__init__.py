"""Where everything came from and what became of it.

- `record.py` writes down after each stage what was made of what (`things.py`), in one SQLite file; `graph.py` reads one thing's lineage from it,
  both ways, and `tree.py`, `page.py` and `prov.py` tell it.
- `ask.py` answers what the manifests and the kept runs of one subject can say: also why a photo went nowhere.
"""

from lora_pipeline.lineage.answers import Descent, Lineage, Made, TrainedPhoto, TrainedPicture
from lora_pipeline.lineage.ask import ask, made_from, photos_of
from lora_pipeline.lineage.environment import differing, environment
from lora_pipeline.lineage.forgotten import forgotten
from lora_pipeline.lineage.graph import Entry, Graph, Making, graph, graph_of
from lora_pipeline.lineage.record import MADE_WITH, record, record_all
from lora_pipeline.lineage.things import as_json

__all__ = [
    "MADE_WITH",
    "Descent",
    "Entry",
    "Graph",
    "Lineage",
    "Made",
    "Making",
    "TrainedPhoto",
    "TrainedPicture",
    "as_json",
    "ask",
    "differing",
    "environment",
    "forgotten",
    "graph",
    "graph_of",
    "made_from",
    "photos_of",
    "record",
    "record_all",
]
