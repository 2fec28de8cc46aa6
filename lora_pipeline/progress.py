"""How far along: one callable, read by a terminal's bar, by Dagster's log, or by nobody."""

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol


class Progress(Protocol):
    """Told after each finished item: how many of how many are done, of what."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def bars() -> Progress:
    """A tqdm bar a task, for a terminal."""
    from tqdm import tqdm

    open_bars: dict[str, Any] = {}

    def tell(what: str, done: int, total: int) -> None:
        bar = open_bars.get(what) or open_bars.setdefault(what, tqdm(total=total, desc=what, file=sys.stderr))
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
            open_bars.pop(what, None)

    return tell


def lines(say: Callable[[str], object], every_s: float = 3.0) -> Progress:
    """A line of text every few seconds, for a log. The first comes after `every_s`, so short tasks stay quiet."""
    started: dict[str, float] = {}
    spoken: dict[str, float] = {}

    def tell(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        begun = started.setdefault(what, now)
        if now - spoken.get(what, begun) >= every_s:
            spoken[what] = now
            left_s = (now - begun) / max(done, 1) * (total - done)
            say(f"{what}: {done} of {total}, about {left_s:.0f} s left")
        if done >= total:
            started.pop(what, None)
            spoken.pop(what, None)

    return tell
