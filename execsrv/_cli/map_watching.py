"""How far `execsrv map` is: the line at the foot of the terminal, and the sum at the end."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from execsrv._cli.manners import Manners, span
from execsrv._cli.progress import BAR_CELLS, Foot, Meter, has_terminal, keep_drawn
from execsrv._nursery import open_helpers

_PIECE = 1 << 20


class Tally:
    """The commands by how they ended."""

    def __init__(self, manners: Manners) -> None:
        self._manners = manners
        self.foot = Foot()
        self._meter = Meter()
        self._before = 0
        self._failed_before = 0
        self._failed = 0
        self._unknown = 0

    @property
    def went_wrong(self) -> bool:
        """True when not every command has succeeded, as far as is known."""
        return bool(self._failed or self._failed_before or self._unknown)

    def ended(self, *, failed: bool, unknown: bool) -> None:
        """Count a command that has ended now."""
        self._meter.add(1)
        self._failed += failed
        self._unknown += unknown

    def was_there(self, *, failed: bool, unknown: bool) -> None:
        """Count a command that an earlier run has told of."""
        self._meter.add(1, moved=False)
        self._before += 1
        self._failed_before += failed
        self._unknown += unknown

    def knows_all(self, running: int) -> None:
        """Note that no more come than those that run."""
        self._meter.total = self._meter.done + running

    @asynccontextmanager
    async def drawn(self) -> AsyncIterator[None]:
        """Show how far it is for a block, where somebody sees it."""
        if self._manners.quiet or not has_terminal():
            yield
            return
        async with open_helpers() as nursery:
            nursery.start_soon(self._count)
            nursery.start_soon(keep_drawn, self.foot, self._shown)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                self.foot.clear()

    async def _count(self) -> None:
        """Learn how many there will be, where stdin is a file."""
        limiter = trio.CapacityLimiter(1)
        try:
            count = await trio.to_thread.run_sync(_lines_of_stdin, abandon_on_cancel=True, limiter=limiter)
        except OSError:
            return  # whoever reads it hears of that too
        if self._meter.total is None:
            self._meter.total = count

    def _shown(self) -> str:
        meter = self._meter
        rate = meter.rate
        words = [f"{count} {what}" for count, what in ((self._failed, "failed"), (self._unknown, "unknown")) if count]
        words.append(f"{rate:.0f}/s")
        if meter.total is None:
            return "  ".join([f"{meter.done} done", *words])
        part = min(1.0, meter.done / meter.total) if meter.total else 1.0
        if rate > 0 and meter.total > meter.done:
            words.append(f"{span((meter.total - meter.done) / rate)} left")
        bar = "#" * int(part * BAR_CELLS)
        return "  ".join([f"{part:4.0%} [{bar:<{BAR_CELLS}}] {meter.done} of {meter.total}", *words])

    def report(self) -> None:
        """Say how many there were, and how they ended."""
        now = self._meter.done - self._before
        words = [f"{now} commands, {self._failed} failed"]
        if self._unknown:
            words.append(f"{self._unknown} unknown")
        if self._before:
            words.append(f"{self._before} had ended before")
        if self._failed_before:
            words.append(f"{self._failed_before} of them failed")
        self._manners.note(", ".join(words))


def _lines_of_stdin() -> int | None:
    """Return how many lines that are not blank are ahead in our stdin, None where it is no file."""
    if not stat.S_ISREG(os.fstat(0).st_mode):
        return None
    at, count, rest = os.lseek(0, 0, os.SEEK_CUR), 0, b""
    while data := os.pread(0, _PIECE, at):
        at += len(data)
        *whole, rest = (rest + data).split(b"\n")
        count += sum(1 for line in whole if line.strip())
        if len(rest) > _PIECE:
            return None  # no lines that could be commands
    return count + bool(rest.strip())
