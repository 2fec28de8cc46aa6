"""What the record keeps of a photo that was forgotten: its digest and what it went into, so that files can be recalled; no name, no place, no words."""

from collections.abc import Collection

from lora_pipeline.lineage.record import FILE, opened, writing
from lora_pipeline.store import Store


def forgotten(store: Store, photos: Collection[str], subject: str = "") -> int:
    """Take names, places and captions of photos, and of all that shows them, out of the record.

    What the stages leave is not touched: it is to be removed first, or the next `record` would tell of it again.

    Args:
        photos: SHA-256 of their files; whosever set they were in.
        subject: forget this subject whole: its name, prompts and settings too.

    Returns:
        How many things were blanked.

    Raises:
        PipelineError: see `record.opened`.
    """
    if not (store.data / FILE).exists():
        return 0
    digests = [photo for photo in photos if photo]
    with opened(store) as book:
        book.execute("PRAGMA secure_delete = ON")  # what is blanked is not left lying in the file
        with writing(book):
            book.execute("CREATE TEMP TABLE gone (uid TEXT PRIMARY KEY)")
            book.executemany(
                "INSERT OR IGNORE INTO gone SELECT uid FROM things WHERE photo = ?", [(one,) for one in digests]
            )
            if subject:
                book.execute("INSERT OR IGNORE INTO gone SELECT uid FROM things WHERE subject = ?", (subject,))
                book.execute("UPDATE makings SET settings = NULL WHERE uid IN gone")
                book.execute("DELETE FROM recorded WHERE subject = ?", (subject,))
                book.execute("UPDATE things SET subject = '' WHERE subject = ?", (subject,))
            book.execute("UPDATE things SET id = '', path = '', facts = '{}' WHERE uid IN gone")
            book.execute("DELETE FROM stands WHERE uid IN gone")
            used = "SELECT settings FROM makings WHERE settings NOTNULL UNION SELECT environment FROM makings WHERE environment NOTNULL"
            book.execute(f"DELETE FROM told WHERE digest NOT IN ({used})")
            count = int(book.execute("SELECT count(*) FROM gone").fetchone()[0])
            book.execute("DROP TABLE gone")
        return count
