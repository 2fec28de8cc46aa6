"""What every asset is given: where the data lies."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from lora_pipeline.store import Store, default_store


class House(dg.ConfigurableResource[None]):
    """The data folder of this installation."""

    data: str = Field(
        default="",
        description="Folder with subjects/ and work/; empty is data/ of LORA_PIPELINE_HOME, or of the checkout.",
    )

    @property
    def store(self) -> Store:
        """The store over that folder."""
        return Store(Path(self.data)) if self.data else default_store()
