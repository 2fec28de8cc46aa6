"""What an asset shows in the UI: counts, what was dropped and why, a contact sheet, the settings that were really used."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from lora_pipeline.flow import Step, Work, used_settings
from lora_pipeline.manifest import Manifest, Outcome
from lora_pipeline.records import Row

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ROWS = 200  # of a table in the UI: more is slow to show, and the manifest has them all
MAX_PICTURES = 48  # on a contact sheet, for the same reason
MAX_BYTES = 190_000  # of a picture inside the metadata; larger ones make the event log slow


def metadata(step: Step, work: Work, outcome: Outcome) -> dict[str, Any]:
    """What every asset shows."""
    made, report = outcome.manifest, outcome.report
    return {
        "computed": report.computed,
        "reused": report.reused,
        "kept": len(made.kept),
        "dropped": report.dropped,
        "failed": report.failed,
        "seconds": round(report.seconds, 2),
        "not kept, and why": reasons(made),
        "settings used": dg.MetadataValue.json(used_settings(step, work)),
        "manifest": dg.MetadataValue.path(str((made.folder / "manifest.parquet").absolute())),
        "manifest digest": made.digest,
    }


def reasons(made: Manifest) -> dg.TableMetadataValue:
    """The rows that are not kept, as a table: what, state, reason."""
    rows = [row for row in made.rows if row.state != "kept"]
    return table(("what", "state", "reason"), [(row.id, row.state, row.reason) for row in rows])


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.TableMetadataValue:
    """A table of texts; rows over a limit are counted in a last one."""
    shown = [dict(zip(columns, map(str, row), strict=True)) for row in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        shown.append(dict.fromkeys(columns, "") | {columns[0]: f"… and {len(rows) - MAX_ROWS} more in the manifest"})
    schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in columns])
    return dg.TableMetadataValue(records=[dg.TableRecord(row) for row in shown], schema=schema)


def sheet(
    made: Manifest, rows: Sequence[Row], role: str = "picture", labels: Sequence[str] | None = None
) -> dg.MarkdownMetadataValue:
    """A contact sheet of some rows' pictures."""
    from PIL import Image

    from lora_pipeline.pictures import contact_sheet

    shown = [row for row in rows if role in row.files][:MAX_PICTURES]
    pictures = [Image.open(made.path(row, role)) for row in shown]
    return picture(
        contact_sheet(pictures, labels=list(labels or [row.id for row in shown])[: len(shown)]), "contact sheet"
    )


def picture(image: "Image | Path", words: str) -> dg.MarkdownMetadataValue:
    """A picture inside the metadata, as a JPEG made small enough for the event log."""
    from PIL import Image

    shown = (Image.open(image) if isinstance(image, Path) else image).convert("RGB")
    for quality in (85, 70, 55, 40, 25, 10):
        buffer = io.BytesIO()
        shown.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_BYTES:
            break
    data = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![{words}](data:image/jpeg;base64,{data})")
