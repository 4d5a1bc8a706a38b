"""A unix socket over which descriptors go along with answers.

Only a client takes any: what a peer of a server sends along, the kernel closes at once, since nobody takes it.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence

import trio
from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._wire.lines import LineChannel
from execsrv._wire.passing import Passing
from execsrv.limits import Limits
from execsrv.protocol import Message, Response

_MOST_AT_ONCE = 3
"""Descriptors of one answer: those of stdin, stdout and stderr."""

_ROOM = socket.CMSG_SPACE(_MOST_AT_ONCE * array.array("i").itemsize)


class PassingChannel(LineChannel):
    """A unix socket, over which descriptors can go along (`MessageChannel`). Owns it."""

    passing: Passing

    def __init__(self, stream: trio.SocketStream, limits: Limits, *, is_known: bool = True) -> None:
        """Without `is_known` it is a server's, as any `LineChannel`, and takes no descriptors."""
        super().__init__(stream, stream, limits, is_known=is_known)
        self.passing = Passing()
        self._socket = stream.socket
        self._takes = is_known

    @property
    def has_room(self) -> bool:
        """True as for any channel, unless descriptors wait for their answer: `send` has them go along."""
        return super().has_room and not self.passing.has_some

    async def send(self, message: Message) -> None:
        """Send a message, and what goes along with it. Raises `trio.BrokenResourceError` when the peer is gone."""
        if not self.passing.has_some or (along := self.passing.along_with(message)) is None:
            await super().send(message)
            return
        await self.send_rest()
        self._codec.encode_into(message, self._buffer, self._offset)
        self._finish(message)
        numbers, otherwise = array.array("i", [each.descriptor for each in along.lent]), along.otherwise
        with memoryview(self._buffer) as view, view[self._start :] as frame:
            try:
                sent = await self._socket.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
            except OSError:  # too many of its user are on their way already; or the peer is gone, which is told below
                sent = 0
            del along
            if sent:
                await self._out.send_all(frame[sent:])
                return
        assert isinstance(message, Response)
        await super().send(replace(message, result=otherwise))

    async def _receive_some(self, most: int) -> bytes | bytearray:
        if not self._takes:
            return await super()._receive_some(most)
        try:
            data, things, flags, _ = await self._socket.recvmsg(most, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise trio.BrokenResourceError from error
        if things or flags & socket.MSG_CTRUNC:  # some are lost where there is no room for them here
            self.passing.came(_lent(things))
        return data

    async def _close(self) -> None:
        self.passing.close()
        await super()._close()


def _lent(things: Sequence[tuple[int, int, bytes]]) -> list[Lent]:
    """Return the descriptors in control data."""
    found = array.array("i")
    for level, kind, content in things:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return [Lent(descriptor) for descriptor in found]
