"""One command of a runner, as its server knows it: what was said about it, in the only order that is allowed.

    started -> ready -> (output, credited)* -> exit, when all that the leader wrote was sent
            -> error                         -> tree_empty, whenever nothing lives; each framed stream has its end

It sends what the session asks for, and checks what the runner says: a runner that says it twice, out of order, without
credit or of a stream that is not there has broken the protocol. Nothing that a runner says reaches the system calls of
this machine: its pids are told to people.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import trio
from msgspec import Struct
from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._processes.arrivals import Arrivals
from execsrv._processes.leader import ExitStatus
from execsrv._runner.link import Link
from execsrv._runner.version_2_messages import (
    DATA_BYTES,
    STDIN_WINDOW_BYTES,
    Credit,
    Data,
    Eof,
    Error,
    Exit,
    Forget,
    SpawnReady,
    SpawnRequest,
    StdinDone,
    TreeEmpty,
)
from execsrv.errors import ProtocolError
from execsrv.limits import KIB
from execsrv.protocol import Layer, Stream
from execsrv.protocol.process_limits import ProcessUsage, Reached

WINDOW_BYTES = 256 * KIB
"""The credit for each stream: as much as a session lets wait for its reader anyway."""

_CREDIT_BYTES = WINDOW_BYTES // 4
"""So much is taken before it is credited again: a message for each piece would cost more than the piece."""


class RemoteCommand:
    """A command, from its request on. Whoever makes it calls `forget` in the end."""

    def __init__(self, link: Link, streams: Sequence[Stream], *, passes: bool) -> None:
        """`streams` are those that come framed. With `passes`, its end can be waited for by a descriptor.

        Raises `OSError` where there is none for that.
        """
        self.link = link
        self.pid = 0
        self.error: Error | None = None
        self.started = trio.Event()
        """Set when it is known what became of the start; also when the runner is lost."""
        self.ended = trio.Event()
        self.status: ExitStatus | None = None
        self.empty = trio.Event()
        """Set when nothing of it lives, or nothing more can be known."""
        self.layer: Layer | None = None
        self.cpu_ms = 0
        self.limit: Reached | None = None
        """The limit that its leader has died of."""
        self.usage: ProcessUsage | None = None
        self.is_over = False
        """True when the runner can say nothing more about it."""
        self.arrivals = Arrivals(streams, self._took)
        self.signal = _EndSignal() if passes else None
        self.input_credit = STDIN_WINDOW_BYTES
        self.input_closed = False
        """True when nobody reads its input any more."""
        self.input_news = trio.lowlevel.ParkingLot()
        self.facts: SpawnReady | None = None
        self._credit = dict.fromkeys(streams, WINDOW_BYTES)
        self._taken = dict.fromkeys(streams, 0)
        self._input_left = 0  # bytes that were sent and not yet taken
        self.id = link.enter(self)

    def __repr__(self) -> str:
        state = "lost" if self.is_lost else "ended" if self.status else "running" if self.pid else "starting"
        return f"<RemoteCommand {self.id} {state} pid={self.pid}>"

    @property
    def is_lost(self) -> bool:
        """True when its runner went before it was over."""
        return self.status is not None and self.status.is_lost

    # -- what the runner says --

    def heard(self, message: Struct) -> None:
        """Take a message about it. Raises `ProtocolError`."""
        if isinstance(message, Error) and message.code == "failed" and self.facts is not None:
            self.link.leave(self.id)
            self.link.end_questions(self.id)
            self.lost()  # a fault of the runner's own, which has killed it
            return
        if self.started.is_set() == isinstance(message, SpawnReady | Error) or self.error is not None:
            raise ProtocolError(f"{_name(message)} out of order")
        match message:
            case Data():
                self._arrived(message)
            case StdinDone():
                self._input_taken(message)
            case SpawnReady():
                self.facts, self.pid = message, message.process_id
                self.started.set()
            case Error():
                self.error = message
                self.started.set()
            case Eof():
                self._check_open(message.stream)
                self.arrivals.end(message.stream)
            case Exit():
                if self.status is not None:
                    raise ProtocolError("a second exit")
                self.limit = message.limit
                self._end(ExitStatus(message.exit_code, message.signal))
            case TreeEmpty():
                if self.empty.is_set():
                    raise ProtocolError("a second tree_empty")
                self.layer, self.cpu_ms, self.usage = message.layer, message.cpu_ms, message.usage
                self.empty.set()
                self.link.end_questions(self.id)
                self.arrivals.last()

    def _check_open(self, stream: str) -> None:
        if stream not in self._credit or not self.arrivals.is_open(stream):
            raise ProtocolError(f"something of a stream that is not there, or has ended: {stream}")

    def _arrived(self, message: Data) -> None:
        stream, size = message.stream, len(message.data)
        if stream == "stdin":
            raise ProtocolError("input from a runner")
        self._check_open(stream)
        if size > min(DATA_BYTES, self._credit[stream]):
            raise ProtocolError(f"{size} bytes of {stream}, and {self._credit[stream]} of credit")
        self._credit[stream] -= size
        self.arrivals.put(stream, message.data)

    def _took(self, stream: Stream, size: int) -> None:
        self._taken[stream] += size
        if self._taken[stream] >= _CREDIT_BYTES and self.arrivals.is_open(stream):
            self._credit[stream] += self._taken[stream]
            self.link.send(Credit(self.id, stream, self._taken[stream]))
            self._taken[stream] = 0

    def _input_taken(self, message: StdinDone) -> None:
        if message.bytes > self._input_left:
            raise ProtocolError("more input taken than was given")
        self._input_left -= message.bytes
        self.input_credit += message.bytes
        self.input_closed |= message.closed
        self.input_news.unpark_all()

    def _end(self, status: ExitStatus) -> None:
        self.status = status
        self.ended.set()
        if self.signal is not None:
            self.signal.set()
        self.arrivals.leader_ended()

    def lost(self) -> None:
        """Hear that the runner is gone. What has arrived stays."""
        self.is_over = True
        self.started.set()
        if self.status is None:
            self._end(ExitStatus(255, is_lost=True))
        for stream in self._credit:
            self.arrivals.end(stream)
        self.input_closed = True
        self.input_news.unpark_all()
        self.empty.set()
        self.arrivals.last()

    # -- what its session asks for --

    def request(self, request: SpawnRequest, lent: Sequence[Lent]) -> None:
        """Have the runner start it, with descriptors that go along.

        Raises `UnicodeEncodeError`, and `ProtocolError` for a request that is too large. Then the runner does not know
        of it, and is not to hear its id: that would be a breach of the protocol.
        """
        try:
            self.link.send(replace(request, id=self.id), lent)
        except (UnicodeEncodeError, ProtocolError):
            self.is_over = True
            self.link.leave(self.id)
            raise

    def give(self, data: memoryview) -> int:
        """Send input, as far as it is credited and there is room. Return how much that was."""
        taken = 0
        while taken < len(data) and self.input_credit > 0 and self.link.has_room:
            piece = data[taken : taken + min(DATA_BYTES, self.input_credit)]
            self.link.send(Data(self.id, "stdin", bytes(piece)))
            taken += len(piece)
            self.input_credit -= len(piece)
            self._input_left += len(piece)
        return taken

    def forget(self) -> None:
        """Let go of it: the runner ends what is left."""
        if not self.is_over:
            self.is_over = True
            self.link.send(Forget(self.id))
            self.link.leave(self.id)
        if self.signal is not None:
            self.signal.close()


class _EndSignal:
    """A descriptor that can be read from once it is set."""

    def __init__(self) -> None:
        self.descriptor: int | None = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        if self.descriptor is not None:
            os.eventfd_write(self.descriptor, 1)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _name(message: Struct) -> str:
    return type(message).__name__
