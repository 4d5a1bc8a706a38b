"""Messages over two streams of bytes, stdio, unix sockets, pipes: each a line of JSON, or a frame of msgpack."""

from __future__ import annotations

from contextlib import suppress

import trio

from execsrv._budget.budget import Budget
from execsrv._wire.at_once import AtOnce
from execsrv._wire.bounds import MessageBound
from execsrv._wire.channel import CLOSED_IN_ORDER
from execsrv._wire.encoded_channel import EncodedChannel
from execsrv._wire.framing import LENGTH_BYTES, FrameBuffer, LineBuffer
from execsrv._wire.packed import PackedCodec
from execsrv._wire.room import wait_for_room
from execsrv._wire.unreadable import UnreadableError
from execsrv.errors import CutOffError, ProtocolError
from execsrv.limits import Limits
from execsrv.protocol import Failure, Message, Notification, Response

_RECEIVE_BYTES = 128 * 1024
"""More has the allocator of a process that is not ours give memory back, and take it again, for every read."""


class LineChannel(EncodedChannel):
    """A pair of byte streams (`MessageChannel`). Owns both. `last_word` is sent when it is closed in order."""

    def __init__(
        self,
        out: trio.abc.SendStream,
        into: trio.abc.ReceiveStream,
        limits: Limits,
        last_word: Notification | None = None,
        *,
        is_known: bool = True,
    ) -> None:
        """Without `is_known` it is a server's, and takes in small messages only, until it may `trust` the peer."""
        super().__init__(LENGTH_BYTES)
        self._at_once = None if is_known else AtOnce(out)
        self._out = out
        self._in = into
        self._bound = MessageBound(limits.max_message_bytes, is_known=is_known)
        self._lines = LineBuffer(self._bound)
        self._pieces: LineBuffer | FrameBuffer = self._lines
        self._at_end = False
        self._is_answered = False
        self._last_word = last_word

    async def _send_written(self) -> None:
        await self.send_rest()
        with memoryview(self._buffer) as view, view[self._start :] as frame:
            await self._out.send_all(frame)

    def _frame(self) -> int:
        if self.is_packed:
            self._buffer[:LENGTH_BYTES] = (len(self._buffer) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "little")
            return 0
        self._buffer += b"\n"
        return LENGTH_BYTES

    def _turn_behind(self, message: Message) -> None:
        self._is_answered |= isinstance(message, Response | Failure)
        super()._turn_behind(message)

    def _turn(self) -> None:
        self._pieces = FrameBuffer(self._bound, self._lines.take_rest())

    @property
    def has_room(self) -> bool:
        """True for a server on a socket or a pipe, where nothing is left to be sent first."""
        return self._at_once is not None and self._at_once.has_room

    def _send_written_now(self) -> bool:
        assert self._at_once is not None
        with memoryview(self._buffer) as view, view[self._start :] as frame:
            return self._at_once.send(frame)

    async def send_rest(self) -> None:
        """Send what `send_now` has left."""
        if self._at_once is not None and (rest := self._at_once.take_rest()):
            await self._out.send_all(rest)

    async def receive(self) -> Message | None:
        """Return the message on the next line, or in the next frame. A last line without its end counts."""
        self._bound.hold(len(self._pieces))
        if self._pieces.has_more:
            await trio.lowlevel.checkpoint()  # what came in one piece must not keep everybody else waiting
        while (piece := self._pieces.next_message(self._at_end)) is None:
            if self._at_end:
                return None
            try:
                data = await self._receive_some(min(_RECEIVE_BYTES, self._bound.max_bytes))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._at_end = not data
            self._pieces.feed(data)
            self._bound.hold(len(self._pieces))
            if not self._bound.is_paid():
                await wait_for_room(self._bound)
        try:
            return await self._read(piece)
        except UnreadableError:
            raise
        except ProtocolError as error:
            if self._at_end and not self._lines.last_was_whole:
                raise CutOffError(str(error), error.close_code) from None
            raise

    async def _receive_some(self, most: int) -> bytes | bytearray:
        return await self._in.receive_some(most)

    def trust(self, budget: Budget) -> None:
        """Take in large messages too."""
        self._bound.lift(budget)

    async def is_alive(self, patience: float) -> bool:
        """Return True: `receive` tells of every end."""
        return True

    async def wait_gone(self, interval: float, patience: float) -> None:
        """Wait for ever: the kernel tells of every end, and `receive` passes it on."""
        await trio.sleep_forever()

    async def aclose(self, code: int = CLOSED_IN_ORDER, reason: str = "") -> None:
        """Close both streams, with the last word where all is done (1000). There is no way to say anything else."""
        self._bound.close()
        try:
            if self._last_word is not None and code == CLOSED_IN_ORDER:
                if self._is_last_json is not None and not self._is_answered:
                    self._codec = PackedCodec()  # as the peer does by then, which has answered what we do not wait for
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self.send(self._last_word)
        finally:
            await self._close()

    async def _close(self) -> None:
        await trio.aclose_forcefully(self._out)
        await trio.aclose_forcefully(self._in)
