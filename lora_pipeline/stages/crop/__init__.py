"""crop: kept photos → faces (box, landmarks, identity, whose it is) and crops at the training size in several framings.

Three tables lie in the stage's folder: `faces` (the search, remembered a photo), `decided` (whose each face is), and the manifest
with a row a crop; where they are asked for, also `poses` and `expressions` (remembered a face), `things` and `cut_out` (where a pet or
product is, remembered a photo). A photo without the subject's face, or that cannot be used, is one row with its reason.
"""

from lora_pipeline.stages.crop.angle import yaw_deg
from lora_pipeline.stages.crop.crop import CODE_VERSION, crop
from lora_pipeline.stages.crop.whose import decided_faces, subject_descriptors

__all__ = ["CODE_VERSION", "crop", "decided_faces", "subject_descriptors", "yaw_deg"]
