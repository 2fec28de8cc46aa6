"""Dagster's event log in SQLite, in which only one process at a time claims a slot of a pool.

`SqliteEventLogStorage` looks for a free slot and then takes it, and between the two another process may do the same: SQLite has no
row locks, so two runs that come to the pool `gpu` at the same moment both get its only slot. (Asked 200 times by two processes at once,
Dagster 1.13 gave it to both in 100.) `dagster.yaml` names this class in its place; PostgreSQL's and MySQL's lock the row, and need none of it.
"""

import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import ConcurrencyClaimStatus


class OneClaimAtATime(SqliteEventLogStorage):
    """As its parent, in the place below `base_dir` (DAGSTER_HOME) where Dagster keeps it by default."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, base_dir=str(Path(config_value["base_dir"]) / "history" / "runs"))

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> ConcurrencyClaimStatus:
        with (Path(self._base_dir) / "claims.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, or its process has died
            return super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
