"""Everything that can go wrong and is the person's to mend: one small tree.

A message says what, which file, why, and what to do. The terminal and Dagster show the message alone,
without a stack trace; any other exception is a fault of ours and keeps its trace.
"""


class PipelineError(Exception):
    """Base of all errors that are told to the person in words."""


class SettingsError(PipelineError):
    """A setting is misspelt, out of range or of the wrong type."""


class SubjectError(PipelineError):
    """A subject's folder or `subject.yaml` is missing or wrong."""


class SourceError(PipelineError):
    """What the photos come from (a library's index or server, an archive, a video) is out of reach or cannot be read."""


class PhotoError(PipelineError):
    """One photo cannot be used. Becomes a row with this reason; never stops the others."""


class PassingError(PhotoError):
    """One photo cannot be read just now, which says nothing of the photo: the file is gone, or may not be read. Tried again by the next run."""


class ModelError(PipelineError):
    """A model's weights are missing, gated, or not of the kind asked for."""


class TrainingError(PipelineError):
    """Training cannot start or must stop: no pictures, a loss that is not finite, no memory."""


class OutOfMemory(TrainingError):
    """What is trained does not fit into the memory that there is."""
