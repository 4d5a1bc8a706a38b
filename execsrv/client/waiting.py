"""One wait for something to happen to a process: the server's part, and that of regular expressions.

The server does all but those. They are applied here, to what `process/read` gives from a place of its own: a badly made
one takes the time of who made it, and of nobody else.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import trio
from msgspec import Struct

from execsrv._nursery import open_helpers
from execsrv.client.inside import mirror_of
from execsrv.errors import ExecsrvError, InvalidParamsError
from execsrv.limits import KIB
from execsrv.protocol import Chunk, InputWait, ProcessHappened, ProcessOutputRead, ProcessRead, ProcessWaitFor, Stream

if TYPE_CHECKING:
    from execsrv.client.process import Process

Pattern = str | bytes | re.Pattern[str] | re.Pattern[bytes]
Kind = Literal["output", "port", "idle", "exit", "tree_empty", "no_echo", "input"]

_PLAIN = re.compile(rb"(?:[^\\.^$*+?{}\[\]|()]|\\[^0-9A-Za-z])*", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)

_LOOKBACK = 16 * KIB
"""Distance before what is new in which a match may begin."""

_READ_SECONDS = 2.0
"""Time that one request waits for output. It is asked again; after a cancel it ends by itself."""

_LONGER_SECONDS = 0.05
"""Time in which a match that reaches to the end of what has come may grow."""

_GIVE_UP_SECONDS = 1.0


class Happened(Struct, frozen=True, kw_only=True):
    """The thing that was waited for.

    `kind` is "output", "port", "idle", "exit", "tree_empty", "no_echo" or "input". `match` is the match of the pattern
    number `index`, in the stream `stream`. `missed` is True if output was no longer retained when it was to be looked
    at. `seq` and `offset` are the place after the match, for another wait. `input` is the process that waits for input.
    """

    kind: Kind
    match: Any = None
    index: int | None = None
    stream: Stream | None = None
    missed: bool = False
    seq: int = 0
    offset: int | None = None
    input: InputWait | None = None


class _Recent:
    """The last output of one stream, and where its pieces are."""

    def __init__(self) -> None:
        self.data = b""
        self._pieces: deque[tuple[int, int, int]] = deque()  # numbers in the log, offsets there, and sizes

    def add(self, chunk: Chunk, skip: int) -> None:
        """Add a chunk without its first bytes, and forget what lies too far before it."""
        beyond = max(0, len(self.data) - _LOOKBACK) // 4 * 4  # a character has up to four bytes
        new = chunk.chunk[skip:]
        self.data = self.data[beyond:] + new
        while beyond:
            seq, offset, size = self._pieces.popleft()
            if size > beyond:
                self._pieces.appendleft((seq, offset + beyond, size - beyond))
            beyond = max(0, beyond - size)
        self._pieces.append((chunk.seq, skip, len(new)))

    def place(self, end: int) -> tuple[int, int]:
        """Return the number of the piece in which the first `end` bytes end, and the offset there."""
        *earlier, (last, offset, _) = self._pieces
        for seq, start, size in earlier:  # it ends there where a pattern looks ahead
            if end <= size:
                return seq, start + end
            end -= size
        return last, offset + end


class Wait:
    """One wait: what the server sees, and what only a regular expression does."""

    def __init__(self, process: Process, params: ProcessWaitFor, patterns: list[re.Pattern[Any]]) -> None:
        self._process = process
        self._params = params
        self._patterns = patterns
        self._mirror = mirror_of(process)
        self._calls = self._mirror.calls
        self._happened: Happened | ProcessHappened | None = None
        self._scope = trio.CancelScope()
        self._looked = trio.lowlevel.ParkingLot()
        self._place = 0 if patterns else math.inf
        self._recent: defaultdict[Stream, _Recent] = defaultdict(_Recent)
        self._growing: Happened | None = None
        self._missed = False

    async def run(self) -> Happened | ProcessHappened:
        """Return what happened first."""
        with self._scope:
            async with open_helpers() as helpers:
                helpers.start_soon(self._ask)
                if self._patterns:
                    helpers.start_soon(self._search)
                # In this task, which may have read before, and does not now: so the output may be let go.
                with suppress(trio.ClosedResourceError):  # behind its block, the server alone is asked
                    await self._mirror.reader.wait_exited()
                await trio.sleep_forever()
        assert self._happened is not None
        return self._happened

    def _decide(self, happened: Happened | ProcessHappened) -> None:
        if self._happened is None:
            self._happened = happened
            self._scope.cancel()

    async def _ask(self) -> None:
        """Ask the server, and look at all that came before its answer. After a cancel, let it stop waiting."""
        asked = await self._calls.post("process/waitFor", self._params)
        try:
            happened = await self._calls.answer_to(asked, ProcessHappened)
        except trio.Cancelled:
            with trio.move_on_after(_GIVE_UP_SECONDS, shield=True):
                await self._give_up()
            raise
        while self._place < happened.seq:
            await self._looked.park()
        self._decide(self._growing or happened)

    async def _give_up(self) -> None:
        params = ProcessWaitFor(self._process.id, timeout_ms=0, wait_id=self._params.wait_id)
        try:
            await self._calls.post("process/waitFor", params)
        except ExecsrvError:
            return  # the server stops waiting with the connection

    async def _search(self) -> None:
        """Apply the patterns to what is retained and what comes."""
        params = self._params
        skip = params.after_offset or 0
        after = (params.after_seq or 0) - (params.after_offset is not None)
        is_told = params.after_seq is not None
        longest = math.inf
        while True:
            wait = _READ_SECONDS if self._growing is None else _LONGER_SECONDS
            ask = ProcessRead(params.process_id, max(0, after), None, round(wait * 1000))
            read = await self._calls.call("process/read", ask, ProcessOutputRead)
            if read.gap is not None:
                self._missed = self._missed or is_told
                self._recent.clear()
                skip = 0
            for chunk in read.chunks:
                self._look(chunk, skip)
                skip = 0
            is_told = True
            if self._growing is None:
                longest = math.inf
            elif read.closed or not read.chunks or trio.current_time() >= longest:
                self._decide(self._growing)
            else:
                longest = min(longest, trio.current_time() + _LONGER_SECONDS)
            after = read.next_seq - 1
            self._place = after
            self._looked.unpark_all()
            if read.closed:
                self._place = math.inf
                return

    def _look(self, chunk: Chunk, skip: int) -> None:
        recent = self._recent[chunk.stream]
        recent.add(chunk, skip)
        data = recent.data
        if self._happened is not None:
            return
        encoding = encoding_of(self._process)
        # Where all bytes come in twos and fours, one alone cannot be escaped.
        errors = "surrogateescape" if "\n".encode(encoding) == b"\n" else "replace"
        text: str | None = None
        first: tuple[int, int, int, Any] | None = None
        match: Any
        for index, pattern in enumerate(self._patterns):
            if isinstance(pattern.pattern, bytes):
                if (match := pattern.search(data)) is None:
                    continue
                start, end = match.span()
            else:
                if text is None:  # without the beginning of a character, whose end comes with the next chunk
                    text = codecs.getincrementaldecoder(encoding)(errors).decode(data)
                if (match := pattern.search(text)) is None:
                    continue
                start, end = (len(text[:at].encode(encoding, errors)) for at in match.span())
            if first is None or start < first[0]:
                first = start, end, index, match
        if first is not None:
            _, end, index, match = first
            seq, offset = recent.place(end)
            happened = Happened(
                kind="output",
                match=match,
                index=index,
                stream=chunk.stream,
                missed=self._missed,
                seq=seq,
                offset=offset,
            )
            if match.end() < len(match.string):
                self._decide(happened)
            else:
                self._growing = happened


def encoding_of(process: Process) -> str:
    """Return the encoding in which text patterns are looked for in the output of a process."""
    mode = mirror_of(process).text
    return "utf-8" if mode is None else mode.encoding


def compiled(output: Any) -> list[re.Pattern[Any]]:
    """Return patterns compiled. Raises `InvalidParamsError` and `TypeError`."""
    given = [] if output is None else list(output) if isinstance(output, list | tuple) else [output]
    found: list[re.Pattern[Any]] = []
    for pattern in given:
        if not isinstance(pattern, str | bytes | re.Pattern):
            raise TypeError(f"output must be a pattern of bytes or text, got {type(pattern).__name__}")
        try:
            if isinstance(pattern, str):
                pattern.encode()  # no output decodes to what cannot be
            found.append(re.compile(pattern))
        except (re.error, UnicodeEncodeError) as error:
            raise InvalidParamsError(f"output: {error} in {pattern!r}", field="output") from None
    return found


def literals(process: Process, patterns: list[re.Pattern[Any]]) -> list[bytes] | None:
    """Return the byte strings that patterns stand for, None where not all of them do.

    Raises `InvalidParamsError` for one that the encoding of the process does not have.
    """
    found: list[bytes] = []
    for pattern in patterns:
        source: str | bytes = pattern.pattern
        if pattern.flags & ~re.UNICODE:
            return None
        plain = source.encode() if isinstance(source, str) else source
        if not _PLAIN.fullmatch(plain):
            return None
        plain = _ESCAPED.sub(rb"\1", plain)
        if isinstance(source, str):
            try:
                plain = plain.decode().encode(encoding_of(process))
            except UnicodeEncodeError as error:  # no output decodes to it
                raise InvalidParamsError(f"output: {error} in {source!r}", field="output") from None
        if not 1 <= len(plain) <= 4096:
            return None
        found.append(plain)
    return found if len(found) <= 16 else None
