"""Searching a log for byte strings while it is written, wherever its pieces are cut. Pure: no I/O."""

from __future__ import annotations

from typing import NamedTuple

from execsrv.protocol import Chunk, Stream


class Found(NamedTuple):
    """Number (from 0) of the byte string that was found, and the end of it in the piece that made it complete."""

    number: int
    end: int


class Search:
    """Finds the first of some byte strings that is complete in one of the streams; of two, the one named first.

    The outcome depends on the streams alone, not on how they were cut into pieces. Of each stream it keeps one byte
    less than the longest of the strings has. No string costs more than going through the piece once.
    """

    def __init__(self, wanted: list[bytes]) -> None:
        self._wanted = wanted
        self._kept = max(map(len, wanted), default=1) - 1
        self._ends: dict[Stream, bytes] = {}

    def look(self, chunk: Chunk, skip: int = 0) -> Found | None:
        """Look at the next piece, or at what lies behind its first `skip` bytes."""
        if not self._wanted:
            return None
        before = self._ends.get(chunk.stream, b"")
        text = before + chunk.chunk[skip:]
        first: Found | None = None
        for index, word in enumerate(self._wanted):
            at = text.find(word, 0, first.end - 1 if first else len(text))
            if at >= 0:
                first = Found(index, at + len(word))
        if first is not None:
            return Found(first.number, first.end - len(before) + skip)
        self._ends[chunk.stream] = text[len(text) - self._kept :] if len(text) > self._kept else text
        return None

    def forget(self) -> None:
        """Start anew: what comes next does not follow what was looked at."""
        self._ends.clear()
