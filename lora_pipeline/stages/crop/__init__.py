"""crop: kept photos → faces (box, landmarks, identity, whose it is) and crops at the training size in several framings.

Four tables lie in the stage's folder: `faces` (the search, remembered a photo), `decided` (whose each face is), `shots` (sharpness at
the face, light and background, remembered a photo), and the manifest with a row a crop; and `coverage.json`: what the crops show. Where
they are asked for, also `poses` and `expressions` (remembered a face), `persons` (everybody, whole), `things` and `cut_out` (where a pet or
product is), these remembered a photo. A photo without the subject's face, or that cannot be used, is one row with its reason.
"""

from lora_pipeline.stages.crop.angle import yaw_deg
from lora_pipeline.stages.crop.coverage import COVERAGE, Coverage
from lora_pipeline.stages.crop.crop import CODE_VERSION, coverage, crop
from lora_pipeline.stages.crop.persons import unseen_persons
from lora_pipeline.stages.crop.whose import decided_faces, subject_descriptors

__all__ = [
    "CODE_VERSION",
    "COVERAGE",
    "Coverage",
    "coverage",
    "crop",
    "decided_faces",
    "subject_descriptors",
    "unseen_persons",
    "yaw_deg",
]
