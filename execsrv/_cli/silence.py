"""The line at the foot of the terminal while the command of `execsrv run` is silent for long: that it runs, since when.

The line is taken away before anything of the command is written. Where the command has left the cursor in the midst of
a line, there is none.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

import trio

from execsrv._cli.manners import one_line, size, span
from execsrv._cli.progress import Foot

SILENT_SECONDS = 10.0
"""So long a command may be silent before anything is said of it."""

_SAY_SECONDS = 1.0
_LINE_BYTES = 1024
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)")


class Silence:
    """The output of one command as it passes, and the line about it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, foot: Foot | None = None) -> None:
        self._clock = clock
        self._foot = Foot() if foot is None else foot
        self._began = self._heard_at = clock()
        self._bytes = 0
        self._line = b""
        self._is_within_line = False

    def output(self, target: int, data: bytes) -> None:
        """Make room for what is about to be written to our stdout (1) or stderr (2)."""
        self._foot.clear()
        self._heard_at = self._clock()
        self._bytes += len(data)
        end = data[-_LINE_BYTES:].rstrip(b"\r\n")
        if end:
            self._line = end.rpartition(b"\n")[2]
        if os.isatty(target):
            self._is_within_line = not data.endswith(b"\n")

    async def watch(self) -> None:
        """Say again and again how things stand, while there is nothing else to see. Leaves nothing behind."""
        try:
            while True:
                await trio.sleep(_SAY_SECONDS)
                if self.is_long and not self._is_within_line and _is_in_foreground():
                    self._foot.draw(self.text)
        finally:
            self._foot.clear()

    @property
    def is_long(self) -> bool:
        """True where nothing has come for so long that it is worth a word."""
        return self._clock() - self._heard_at >= SILENT_SECONDS

    @property
    def text(self) -> str:
        """The line."""
        now = self._clock()
        running = f"execsrv: running for {span(now - self._began)}"
        if not self._bytes:
            return f"{running}, and nothing came"
        line = one_line(_ESCAPES.sub("", self._line.decode(errors="replace")).rpartition("\r")[2].strip())
        return f"{running}, silent for {span(now - self._heard_at)}, {size(self._bytes)} came; the last: {line}"


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:  # a terminal that is not ours: nobody stops us
        return True
