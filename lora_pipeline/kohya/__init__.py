"""kohya: settings and picture folders of kohya-ss/sd-scripts, its GUI and civitai's trainer → changes to a recipe, and a table of every key."""

from lora_pipeline.kohya.bring import bring, recipe_there
from lora_pipeline.kohya.imported import Imported, Row
from lora_pipeline.kohya.read import read

__all__ = ["Imported", "Row", "bring", "read", "recipe_there"]
