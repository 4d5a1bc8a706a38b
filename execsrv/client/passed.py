"""The streams of a process whose server has passed them to this client: its very pipes, with no server in between.

They are read and written here, and nothing of them is told or kept by the server.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio
from msgspec import UnsetType

from execsrv._lent import Lent
from execsrv._wire.forks import keep_from_forks
from execsrv.client.connection import Connection
from execsrv.client.inbox import PARTS, Part
from execsrv.client.late import undo_if_late
from execsrv.client.mirror import Mirror
from execsrv.client.parameters import Data
from execsrv.client.streams import Output
from execsrv.errors import ConnectionLostError, InvalidParamsError, SpawnError, StdinClosedError
from execsrv.limits import KIB, MIB
from execsrv.protocol import Response
from execsrv.protocol.connection import PASS_STREAMS

_READ_BYTES = 64 * KIB
"""The size of a read, unless its caller says otherwise. More falls out of the processor's cache and is slower."""

_PIPE_BYTES = MIB
"""The width asked for a pipe that is busy: Linux allows as much without rights. Refused, the pipe stays as it was."""


def check_can_pass(connection: Connection, record: object) -> None:
    """Raise `InvalidParamsError` where no streams can be passed to this client."""
    why = ""
    if not connection.calls.can_pass:
        why = "this client is not on a unix socket"
    elif not connection.greeting.environment_info.capabilities.get(PASS_STREAMS):
        why = "this server has no such thing"
    elif record is not None:
        why = "what is printed is not told to this client, and cannot be recorded"
    if why:
        raise InvalidParamsError(f"pass_streams: {why}", field="pass_streams")


class PassedStreams:
    """The pipes of one process. Whoever holds this enters `left` in the end, or calls `close`."""

    def __init__(self, id: str, names: Sequence[str] | UnsetType, lent: Sequence[Lent]) -> None:
        """Take over the descriptors that came with an answer. Raises `SpawnError` where they are not those it names."""
        names = names or ()
        if isinstance(names, UnsetType) or len(names) != len(lent):
            raise SpawnError(_LOST, stage="resources", errno=errno.EMFILE)
        for name, each in zip(names, lent, strict=True):
            access = os.O_WRONLY if name == "stdin" else os.O_RDONLY
            if not _is_pipe(each.descriptor, access):
                raise SpawnError(f"cannot start: its {name} is no pipe", stage="resources", errno=errno.EBADF)
        self._id = id
        self._ends = {name: trio.lowlevel.FdStream(each.take()) for name, each in zip(names, lent, strict=True)}
        for end in self._ends.values():
            keep_from_forks(end)
        self._narrow = set(self._ends)
        self._given_back: dict[Part, bytes] = {}
        self.outputs: dict[Part, Output] = {
            part: Output(id, part, partial(self._receive, part), partial(self._close_output, part)) for part in PARTS
        }

    def __repr__(self) -> str:
        return f"<PassedStreams of process {self._id}: {', '.join(self._ends)}>"

    async def write(self, data: Data) -> None:
        """Write all of it. Raises `StdinClosedError`. After a cancel, a part may have been written."""
        try:
            with memoryview(data) as view, view.cast("B") if view.c_contiguous else memoryview(bytes(view)) as plain:
                if len(plain) > _READ_BYTES:
                    self._widen("stdin")
                await self._ends["stdin"].send_all(plain)
        except (KeyError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise StdinClosedError(f"stdin is closed for process {self._id}") from None

    async def close_stdin(self) -> None:
        """Close its stdin. Raises `StdinClosedError` for a process that has none."""
        if "stdin" not in self._ends:
            raise StdinClosedError(f"stdin is closed for process {self._id}")
        await self._ends["stdin"].aclose()

    async def _receive(self, part: Part, most: int | None, check_open: Callable[[], None]) -> bytes:
        check_open()
        if (end := self._ends.get(part)) is None:
            await trio.lowlevel.checkpoint()
            return b""
        most = most or _READ_BYTES
        if part in self._given_back:
            await trio.lowlevel.checkpoint()
            data = self._given_back.pop(part)
            if rest := data[most:]:
                self._given_back[part], data = rest, data[:most]
        else:
            data = bytes(await end.receive_some(most))
            if len(data) >= _READ_BYTES:
                self._widen(part)
        undo_if_late(partial(self._give_back, part, data))
        return data

    def _give_back(self, part: Part, data: bytes) -> None:
        if data:
            self._given_back[part] = data + self._given_back.get(part, b"")

    def _widen(self, name: str) -> None:
        if name in self._narrow:
            self._narrow.remove(name)
            with suppress(OSError):
                fcntl.fcntl(self._ends[name].fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def _close_output(self, part: Part) -> None:
        if part in self._ends:
            self._ends[part].close()

    # -- the end of the block --

    @asynccontextmanager
    async def left(self) -> AsyncIterator[None]:
        """Throw away, in this block, what still is printed, so that whoever is asked to end can do so; then close."""
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as discarding:
                    for part in PARTS:
                        discarding.start_soon(self._discard, part)
                    yield
                    discarding.cancel_scope.cancel()
        finally:
            self.close()

    async def _discard(self, part: Part) -> None:
        # Where another task reads, or the user has closed it, there is nothing to be done.
        with suppress(trio.BusyResourceError, trio.ClosedResourceError):
            while await self._receive(part, None, lambda: None):
                pass

    def close(self) -> None:
        """Close all of them."""
        for end in self._ends.values():
            end.close()


def streams_of(mirror: Mirror) -> PassedStreams:
    """Return the streams that came with the answer to a start. Raises `SpawnError` and `ConnectionLostError`."""
    mirror.reader.is_passed = True
    start = mirror.start
    assert start is not None
    if not isinstance(start.answer, Response):  # it is known by other means to run
        raise ConnectionLostError(f"the streams of process {mirror.id} were lost with the connection")
    lent, start.lent = start.lent, ()
    return PassedStreams(mirror.id, mirror.passed, lent)


_LOST = (
    "cannot start with its streams passed: they were lost on the way, as where one side has no descriptor left, or"
    " something stands between this client and the socket of the server"
)


def _is_pipe(descriptor: int, access: int) -> bool:
    """Return True for an end of a pipe for that: anything else would be another's trap."""
    is_fifo = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    return is_fifo and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == access
