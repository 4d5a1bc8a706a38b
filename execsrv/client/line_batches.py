"""Lines in batches, for who pays for each time that lines are asked for: whoever is in another thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from execsrv._log.entries import Gap
from execsrv.client.iteration import Iteration
from execsrv.client.late import undo_if_late
from execsrv.client.reader import Reader
from execsrv.client.text import LineTaker
from execsrv.errors import LimitExceededError
from execsrv.protocol import Chunk


class Lines(Iteration[str]):
    """The lines of a process, one at a time, or as many as are there already."""

    def __init__(self, take: Callable[[], Awaitable[str | None]], taker: LineTaker, reader: Reader) -> None:
        super().__init__(take)
        self._taker = taker
        self._reader = reader

    async def take_batch(self, most: int) -> list[tuple[str, Chunk]]:
        """Return up to so many lines that are there, one at least, each with its bytes; none at the end.

        Cancelling loses nothing.
        """
        line = await self._take()
        lines: list[tuple[str, Chunk]] = []
        while line is not None:
            lines.append((line, self._taker.last))
            if len(lines) >= most or self._taker.is_before_gap:
                break
            try:
                taken = self._taker.take()
            except (LimitExceededError, UnicodeDecodeError):
                break  # it is still there, and raised when it is the next
            assert not isinstance(taken, Gap)
            line = taken
        undo_if_late(partial(self.give_back, [chunk for _, chunk in lines]))
        return lines

    def give_back(self, chunks: list[Chunk]) -> None:
        """Let lines that were taken last be the next again, in their order, for whoever reads."""
        joined: list[list[Chunk]] = []
        for chunk in chunks:
            if joined and joined[-1][0].stream == chunk.stream:
                joined[-1].append(chunk)
            else:
                joined.append([chunk])
        for first, *rest in reversed(joined):
            data = b"".join([first.chunk, *(chunk.chunk for chunk in rest)])
            self._reader.give_back(Chunk(first.seq, first.stream, data, first.at_ms))
