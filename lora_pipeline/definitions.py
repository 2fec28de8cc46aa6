"""The table of contents: what Dagster loads."""

import os

import dagster as dg

from lora_pipeline.assets.collect import source_photos
from lora_pipeline.assets.conceal import blurred_set
from lora_pipeline.assets.crop import face_crops
from lora_pipeline.assets.curate import curated_photos
from lora_pipeline.assets.describe import captions
from lora_pipeline.assets.encode import training_set
from lora_pipeline.assets.fit import epoch_checkpoint, lora_checkpoints
from lora_pipeline.assets.grade import checkpoint_scores, validation_grids
from lora_pipeline.assets.publish import released_lora
from lora_pipeline.assets.resources import House
from lora_pipeline.assets.sensors import JOB, nightly, photos_changed, subject_folders

FLOW = [
    source_photos,
    curated_photos,
    face_crops,
    blurred_set,
    captions,
    training_set,
    lora_checkpoints,
    validation_grids,
    checkpoint_scores,
    released_lora,
]

# In one process by default: the graph is a chain, each stage uses all cores itself and training has a process of its own,
# so a process a step would only add its start (benchmarks/executor asks how much). Both honour the pool `gpu`.
EXECUTORS = {"in_process": dg.in_process_executor, "multiprocess": dg.multiprocess_executor}
executor = EXECUTORS[os.environ.get("LORA_PIPELINE_EXECUTOR", "in_process")]

photos_to_lora = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets(*FLOW),
    description="From the photos of one subject to its released LoRA.",
)

defs = dg.Definitions(
    assets=[*FLOW, epoch_checkpoint],
    jobs=[photos_to_lora],
    sensors=[
        subject_folders,
        photos_changed,
        dg.AutomationConditionSensorDefinition("on_changed_data", target=dg.AssetSelection.assets(*FLOW)),
    ],
    schedules=[nightly],
    resources={"house": House()},
    executor=executor,
)
