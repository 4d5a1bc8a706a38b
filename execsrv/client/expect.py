"""Dialogue with a process: reading its output until one of some patterns is in it.

Output is taken from the process's readers, and what lies behind a match is given back to them: whoever reads next, in
whatever way, goes on there. While a pattern is looked for, only what is new is searched, and a little before it; so the
time of one call is in proportion to the output. It begins with all that is there, since what matches must not depend on
the pieces: one more reason for a window of moderate size.
"""

from __future__ import annotations

import codecs
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import trio
from pexpect import EOF, TIMEOUT

from execsrv._log.entries import Gap, first_seq
from execsrv.client.inbox import part_of
from execsrv.client.inside import mirror_of
from execsrv.client.late import undo_if_late
from execsrv.client.patterns import Search
from execsrv.client.reading import check_missed
from execsrv.client.text import Decoder, TextMode
from execsrv.errors import CommandError, ConnectionLostError, LimitExceededError
from execsrv.limits import MIB
from execsrv.protocol import Chunk, Stream

if TYPE_CHECKING:
    from execsrv.client.process import Process

MAX_UNMATCHED_BYTES = 512 * MIB
"""The most output that is kept while no pattern matches."""

_QUIET_SECONDS = 0.05
"""The silence after which a match is looked for in all that is kept: for each MiB of it, and at least this."""

_SHOWN = 400
"""Bytes or characters of the last output that an error shows."""


class _Piece(NamedTuple):
    """Output that was taken: whole characters, where it is text."""

    chunk: Chunk
    text: Any


class _Taken:
    """The output that was taken for one `expect`, so that the rest of it can be given back."""

    def __init__(self, mode: TextMode | None, id: str) -> None:
        self._mode = mode
        self._id = id
        self._decoders: dict[Stream, Decoder] = {}
        self._pending: dict[Stream, Chunk] = {}  # the first bytes of a character
        self._pieces: list[_Piece] = []

    def add(self, chunk: Chunk, final: bool = False) -> Any:
        """Return a chunk as bytes or text, as far as it is whole characters. Raises `UnicodeDecodeError`."""
        if self._mode is None:
            self._pieces.append(_Piece(chunk, chunk.chunk))
            return chunk.chunk
        stream = chunk.stream
        decoder = self._decoders.get(stream)
        if decoder is None:
            decoder = self._decoders[stream] = Decoder(self._mode, f"{part_of(stream)} of process {self._id}")
        if (pending := self._pending.pop(stream, None)) is not None:
            chunk = Chunk(chunk.seq, stream, pending.chunk + chunk.chunk, chunk.at_ms)
        self._pending[stream] = chunk  # if it does not decode
        text, rest = decoder.decode(chunk.chunk, final)
        del self._pending[stream]
        if rest:
            self._pending[stream] = Chunk(chunk.seq, stream, rest, chunk.at_ms)
            chunk = Chunk(chunk.seq, stream, chunk.chunk[: -len(rest)], chunk.at_ms)
        if chunk.chunk:
            self._pieces.append(_Piece(chunk, text))
        return text

    def end(self) -> Any:
        """Return what is left at the end of the output. Raises `UnicodeDecodeError`."""
        return "".join(
            self.add(Chunk(last.seq, stream, b"", last.at_ms), True) for stream, last in [*self._pending.items()]
        )

    def split(self, end: int) -> tuple[list[Chunk], list[Chunk]]:
        """Return the first `end` bytes or characters, and what lies behind them, as chunks in order."""
        front: list[Chunk] = []
        rest: list[Chunk] = []
        for chunk, text in self._pieces:
            if not end:
                rest.append(chunk)
            elif len(text) <= end:
                front.append(chunk)
                end -= len(text)
            else:
                cut, end = self._bytes_of(chunk.chunk, end), 0
                front.append(Chunk(chunk.seq, chunk.stream, chunk.chunk[:cut], chunk.at_ms))
                rest.append(Chunk(chunk.seq, chunk.stream, chunk.chunk[cut:], chunk.at_ms))
        return front, [*rest, *self._pending.values()]

    def _bytes_of(self, data: bytes, characters: int) -> int:
        """Return how many bytes the first characters of a piece have."""
        if self._mode is None:
            return characters
        make = codecs.getincrementaldecoder(self._mode.encoding)
        errors = self._mode.errors
        return bisect_left(range(len(data)), characters, key=lambda size: len(make(errors).decode(data[:size])))


def unread(process: Process, ahead: Sequence[Chunk] = ()) -> Any:
    """Return as bytes or text what the next `expect` would begin with, to any thread. Raises `UnicodeDecodeError`.

    What was taken `ahead`, and will be given back to that, is before all else of its place.
    """
    entries: list[Chunk | Gap] = [*ahead]
    mirror = mirror_of(process)
    for queue in mirror.reader.inbox.queues.values():
        own, offset = [*queue.entries], queue.offset
        if own and offset and isinstance(first := own[0], Chunk):
            own[0] = Chunk(first.seq, first.stream, first.chunk[offset:], first.at_ms)
        entries += own
    taken = _Taken(mirror.text, process.id)
    chunks = takewhile(lambda entry: isinstance(entry, Chunk), sorted(entries, key=first_seq))
    return (b"" if mirror.text is None else "").join([taken.add(cast("Chunk", chunk)) for chunk in chunks])


class Expecting:
    """One `expect`: it takes output until a pattern matches, and gives back the rest."""

    def __init__(self, process: Process, searcher: Any, window: int | None) -> None:
        self._process = process
        mirror = mirror_of(process)
        self._reader = mirror.reader
        self._mode = mirror.text
        self._searcher = searcher
        self._taken = _Taken(self._mode, process.id)
        self._empty: Any = b"" if self._mode is None else ""
        self._search: Search[Any] = Search(self._empty, searcher, window)
        self._entries: deque[Chunk | Gap] = deque()
        self._found: tuple[int, int, int] | None = None
        self._is_over = False

    async def run(self, patience: float) -> int:
        """Return the index of the pattern that matched. Raises `EOF` and `TIMEOUT`, unless they are patterns."""
        process, behind = self._process, 0
        before = process.before
        process.after = process.match = process.match_index = None
        try:
            self._take_in(await self._reader.read(None, self._take_what_is_there))
            with trio.move_on_after(patience):
                while self._found is None and not self._is_over:
                    await self._wait()
            self._found = self._found or self._search.search_all()
            text = self._search.text
            if self._found is not None:
                index, start, behind = self._found
                process.before, process.after, process.match = text[:start], text[start:behind], self._searcher.match
                process.match_index = index
                return index
            if self._is_over:
                behind = len(text)
                return self._without(EOF, "printed nothing that matches before its end")
            return self._without(TIMEOUT, f"printed nothing that matches within {patience:g} s")
        except ConnectionLostError as lost:
            lost.stdout = b"".join(chunk.chunk for chunk in self._taken.split(0)[1])
            raise
        finally:
            front, rest = self._taken.split(behind)
            self._give_back([*rest, *self._entries])
            undo_if_late(partial(self._undo, front, before))

    def _give_back(self, entries: Sequence[Chunk | Gap]) -> None:
        for entry in reversed(entries):
            self._reader.give_back(entry)

    def _undo(self, front: list[Chunk], before: Any) -> None:
        """Let all be as it was: nobody has heard of the match."""
        self._give_back(front)
        process = self._process
        process.before, process.after, process.match, process.match_index = before, None, None, None

    async def _wait(self) -> None:
        """Wait for output. When it is silent for a moment, look for what began long before."""
        quiet = _QUIET_SECONDS * max(1, self._search.size / MIB)  # the search takes time in proportion to the size
        with trio.move_on_after(quiet if self._search.may_be_late else math.inf) as silence:
            self._take_in(await self._reader.read(None, self._take))
        if silence.cancelled_caught:
            self._found = self._search.search_all()

    def _take_what_is_there(self) -> list[Chunk | Gap] | None:
        return self._take() or (None if self._reader.inbox.closed else [])

    def _take(self) -> list[Chunk | Gap] | None:
        """Return all that is there, None for nothing: no more than the window."""
        entries = self._reader.inbox.take_all() or ()
        return [entry for entry in entries if isinstance(entry, Chunk | Gap)] or None

    def _take_in(self, entries: list[Chunk | Gap] | None) -> None:
        """Search output that was taken, None for the end of it."""
        self._is_over = entries is None
        self._entries.extend(entries or ())
        self._search_entries()
        while self._found is None and self._entries and isinstance(gap := self._entries.popleft(), Gap):
            check_missed(self._process, gap)
            self._search_entries()
        if self._search.size > MAX_UNMATCHED_BYTES and self._found is None:
            message = f"process {self._process.id} printed more than {MAX_UNMATCHED_BYTES} bytes without a match"
            raise LimitExceededError(message, limit="max_unmatched_bytes", value=MAX_UNMATCHED_BYTES)

    def _search_entries(self) -> None:
        """Search all output up to where some is missing, in one piece: what may match does not depend on the pieces."""
        texts: list[Any] = []
        failure: UnicodeDecodeError | None = None
        try:
            while self._entries and isinstance(entry := self._entries[0], Chunk):
                self._entries.popleft()
                texts.append(self._taken.add(entry))
            if self._is_over and self._mode is not None:
                texts.append(self._taken.end())
        except UnicodeDecodeError as error:
            failure = error
        self._found = self._search.add(self._empty.join(texts))
        if failure is not None and self._found is None:
            raise failure

    def _without(self, marker: Any, how: str) -> int:
        """Return the index of `EOF` or `TIMEOUT`, which came instead of a match, or raise it."""
        process, searcher = self._process, self._searcher
        process.before, process.after = self._search.text, marker
        index: int = searcher.eof_index if marker is EOF else searcher.timeout_index
        if index < 0:
            raise _failure(marker, process, how, searcher)
        process.match, process.match_index = marker, index
        return index


def _failure(marker: Any, process: Process, how: str, searcher: Any) -> Exception:
    """Return `EOF` or `TIMEOUT` with all that is known: the command, its end, the patterns and the last output."""
    words = CommandError(process.argv, how, exit_code=process.exit_code, signal=process.signal, reason=process.reason)
    ended = "it runs" if process.exit_code is None else f"it ended with exit code {process.exit_code}"
    last = process.before[-_SHOWN:]
    error: Exception = marker(f"{words}; {ended}; the last output is {last!r}\n{searcher}")
    for name in ("argv", "exit_code", "signal", "reason"):
        setattr(error, name, getattr(words, name))
    error.before = process.before  # type: ignore[attr-defined]  # as all that pexpect's users look for
    return error
