"""A line at the foot of the terminal that says how far something is. It is on stderr, and leaves nothing behind.

Nobody waits for it: while the terminal takes nothing, it is not drawn.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from unicodedata import combining, east_asian_width

import trio

from execsrv._cli.manners import size, span

DRAW_SECONDS = 0.1
"""So often a line is drawn anew."""

_RATE_SECONDS = 5.0
"""A rate is that of so long a time."""

BAR_CELLS = 20
"""Width of a bar."""

_CLEAR = "\r\x1b[K"


def has_terminal() -> bool:
    """Return whether there is a terminal to draw at."""
    return os.isatty(2) and os.environ.get("TERM") != "dumb"


def columns() -> int:
    """Return the width of the terminal."""
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


class Foot:
    """The line. Whoever else writes to the terminal calls `clear` before."""

    def __init__(self) -> None:
        self._is_drawn = False

    def draw(self, text: str) -> None:
        """Show a text, cut to the width of the terminal."""
        if self._write(_CLEAR + cut(text, columns() - 1)):
            self._is_drawn = True

    def clear(self) -> None:
        """Take the line away."""
        if self._is_drawn:
            self._write(_CLEAR)
            self._is_drawn = False  # also where that was not possible: what comes next is not to be taken away

    def _write(self, text: str) -> bool:
        """Write as far as that needs no waiting; return whether anything was written."""
        if not select.select([], [2], [], 0)[1]:
            return False
        try:
            os.write(2, text.encode(errors="replace"))
        except OSError:
            return False
        return True


def cut(text: str, cells: int) -> str:
    """Return a text that takes so many cells of a terminal at most, with an ellipsis where something is missing."""
    taken = fitting = 0
    for index, letter in enumerate(text):
        taken += 2 if east_asian_width(letter) in "WF" else not combining(letter)
        if taken > cells:
            return text[:fitting] + "…" if cells > 0 else ""
        if taken < cells:
            fitting = index + 1
    return text


async def keep_drawn(foot: Foot, text: Callable[[], str]) -> None:
    """Draw a text again and again."""
    while True:
        foot.draw(text())
        await trio.sleep(DRAW_SECONDS)


class Meter:
    """Bytes as they come: how many, how fast, and how long the rest takes. `total` is None until it is known."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._began, 0)])
        self.done = 0
        self.total: int | None = None

    def add(self, count: int, *, moved: bool = True) -> None:
        """Count bytes. Those that were there already are not `moved`, and none of the rate."""
        self.done += count
        if not moved:
            self._marks = deque((at, done + count) for at, done in self._marks)

    @property
    def rate(self) -> float:
        """Bytes a second, of late."""
        now = self._clock()
        if now - self._marks[-1][0] >= DRAW_SECONDS:
            self._marks.append((now, self.done))
        while len(self._marks) > 1 and now - self._marks[0][0] > _RATE_SECONDS:
            self._marks.popleft()
        then, done = self._marks[0]
        return (self.done - done) / (now - then) if now > then else 0.0

    def shown(self) -> str:
        """Return it as a bar with figures, without one while the total is not known."""
        rate = self.rate
        figures = f"{size(self.done)}  {size(rate)}/s"
        if self.total is None:
            return figures
        part = min(1.0, self.done / self.total) if self.total else 1.0
        percent = min(100, 100 * self.done // self.total) if self.total else 100  # never 100 before the end
        bar = "#" * int(part * BAR_CELLS)
        rest = f"  {span((self.total - self.done) / rate)} left" if rate > 0 and self.total > self.done else ""
        return f"{percent:3}% [{bar:<{BAR_CELLS}}] {size(self.done)} of {size(self.total)}  {size(rate)}/s{rest}"
