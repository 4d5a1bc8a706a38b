"""The two descriptors of a runner's channel: a pair of pipes, or a unix socket, which may bring descriptors along."""

from __future__ import annotations

import array
import os
import socket
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from execsrv._lent import Lent
from execsrv._wire.stdio import PipeReceiveStream, receive_stream, send_stream
from execsrv.errors import ProtocolError

_READ_BYTES = 256 * 1024
_MOST_DESCRIPTORS = 64
"""So many may wait for the request that they belong to."""

_LOST = -1
"""Stands behind those descriptors of a message of which some could not come."""

_ROOM = socket.CMSG_SPACE(253 * array.array("i").itemsize)
"""What the kernel brings along at most in one read: SCM_MAX_FD."""


class Channel:
    """Bytes both ways. `descriptors` are those that came along and that nobody has taken, oldest first."""

    def __init__(
        self, incoming: trio.abc.ReceiveStream | trio.socket.SocketType, outgoing: trio.abc.SendStream
    ) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self.descriptors: deque[int] = deque()

    async def receive(self) -> bytes:
        """Return what comes next, empty at the end, which a broken channel has too.

        Raises `ProtocolError` for more descriptors than anybody waits for.
        """
        try:
            if isinstance(self._incoming, trio.socket.SocketType):
                return await self._receive_both(self._incoming)
            return bytes(await self._incoming.receive_some(_READ_BYTES))
        except (OSError, trio.BrokenResourceError):
            return b""

    async def _receive_both(self, incoming: trio.socket.SocketType) -> bytes:
        data, things, flags, _ = await incoming.recvmsg(_READ_BYTES, _ROOM, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in things:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
                self.descriptors.extend(found)
        if flags & socket.MSG_CTRUNC:  # this process has no more
            self.descriptors.append(_LOST)
        if len(self.descriptors) > _MOST_DESCRIPTORS:
            raise ProtocolError(f"more than {_MOST_DESCRIPTORS} descriptors came for no request")
        return data

    def take(self, count: int) -> list[Lent] | None:
        """Return the oldest descriptors, so many, and None where not all of them have found room in this process.

        Raises `ProtocolError` where so many did not come.
        """
        taken: list[Lent] = []
        while len(taken) < count:
            if not self.descriptors:
                raise ProtocolError(f"{count} descriptors were to come along with a spawn_request")
            if (descriptor := self.descriptors.popleft()) == _LOST:
                return None
            taken.append(Lent(descriptor))
        return taken

    async def send_all(self, data: bytes) -> None:
        """Send. Raises `trio.BrokenResourceError` where nobody reads any more. To cancel it breaks the channel."""
        await self._outgoing.send_all(data)

    def close(self) -> None:
        """Close the descriptors that nobody has taken."""
        while self.descriptors:
            if (descriptor := self.descriptors.popleft()) != _LOST:
                os.close(descriptor)


@contextmanager
def open_channel(descriptor_in: int, descriptor_out: int) -> Iterator[Channel]:
    """Open a channel over two descriptors, which may be one and the same, and stay the caller's."""
    unix = _unix_socket(descriptor_in)
    outgoing = send_stream(descriptor_out)
    incoming = receive_stream(descriptor_in) if unix is None else trio.socket.from_stdlib_socket(unix)
    channel = Channel(incoming, outgoing)
    try:
        yield channel
    finally:
        channel.close()
        for stream in (incoming, outgoing):
            if isinstance(stream, PipeReceiveStream | trio.lowlevel.FdStream | trio.socket.SocketType):
                stream.close()


def _unix_socket(descriptor: int) -> socket.socket | None:
    """Return a descriptor as a socket, where it is a stream of the kind that brings descriptors along."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return None
    found = socket.socket(fileno=os.dup(descriptor))
    if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM:
        return found
    found.close()
    return None
