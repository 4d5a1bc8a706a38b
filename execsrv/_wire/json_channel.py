"""The part of a transport that is the same for all whose messages are JSON in bytes: lines and websockets.

A message is written into one buffer, which is kept for the next. A large one is written and read in turns with others.
"""

from __future__ import annotations

from collections.abc import Callable

from execsrv._wire.bounds import LARGE_BYTES
from execsrv._wire.codecs import Codec
from execsrv._wire.pieces import is_large
from execsrv._wire.turns import each_in_turn, in_turns
from execsrv.protocol import Message


class JsonChannel:
    """One end of a channel of bytes: a `MessageChannel`, once `_send_written` and the rest are there."""

    def __init__(self, offset: int = 0) -> None:
        """Leave so many bytes free in front of each message."""
        self._offset = offset
        self._codec = Codec()
        self._buffer = bytearray(offset)

    async def send(self, message: Message) -> None:
        """Send a message. Raises `trio.BrokenResourceError` when the peer is gone."""
        try:
            if is_large(message):
                await each_in_turn(self._codec.encode_large_into(message, self._buffer, self._offset))
            else:
                self._codec.encode_into(message, self._buffer, self._offset)
            await self._send_written()
        finally:  # also where the peer has gone: this may be around for a while yet
            if len(self._buffer) > LARGE_BYTES:
                self._buffer = bytearray(self._offset)

    async def _send_written(self) -> None:
        """Send what the buffer has. Raises as `send` does."""
        raise NotImplementedError

    async def _read(self, data: bytes | bytearray) -> Message:
        """Return the message in these bytes. Raises as `Codec.decode` does."""
        if len(data) > LARGE_BYTES:
            return await in_turns(self._codec.decode_large(data))
        return self._codec.decode(data)

    @property
    def has_room(self) -> bool:
        """Return False, where a transport does not say otherwise."""
        return False

    def send_now(self, message: Message) -> bool:
        """Send a message at once, and return whether all of it was taken."""
        self._codec.encode_into(message, self._buffer, self._offset)
        return self._send_written_now()

    def _send_written_now(self) -> bool:
        """Send what is taken at once of what the buffer has. Return as `send_now` does."""
        raise NotImplementedError

    async def send_rest(self) -> None:
        """Do nothing, where a transport does not say otherwise: nothing was sent at once."""

    def hear(self, take: Callable[[Message], bool]) -> None:
        """Do nothing: messages are there when `receive` has read them."""
