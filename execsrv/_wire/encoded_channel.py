"""The part of a transport that is the same for all whose messages are bytes: lines, frames and websockets.

A message is written into one buffer, which is kept for the next. A large one is written and read in turns with others.

Messages are JSON. Where both sides agree on msgpack, all that comes behind an answer in either direction is msgpack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from execsrv._memory import let_go
from execsrv._wire.bounds import LARGE_BYTES
from execsrv._wire.codecs import Codec
from execsrv._wire.packed import PackedCodec
from execsrv._wire.pieces import is_large
from execsrv._wire.turns import each_in_turn, in_turns
from execsrv.protocol import Message, Response
from execsrv.protocol.messages import MSGPACK

if TYPE_CHECKING:
    from execsrv._wire.passing import Passing


class EncodedChannel:
    """One end of a channel of bytes: a `MessageChannel`, once `_send_written` and the rest are there."""

    passing: Passing | None = None
    goodbye = ""

    def __init__(self, offset: int = 0) -> None:
        """Leave so many bytes free in front of each message."""
        self._offset = self._start = offset
        self._codec: Codec | PackedCodec = Codec()
        self._buffer = bytearray(offset)
        self._is_last_json: Callable[[Response], bool] | None = None

    def agree(self, encoding: str | None, is_last: Callable[[Response], bool]) -> str | UnsetType:
        """Go over to msgpack, where it is that, behind the answer for which `is_last` is true."""
        self._is_last_json = is_last if encoding == MSGPACK else None
        return UNSET if self._is_last_json is None else MSGPACK

    def _turn_behind(self, message: Message) -> None:
        """Go over to msgpack, if this is the last in JSON."""
        if self._is_last_json is not None and isinstance(message, Response) and self._is_last_json(message):
            self._is_last_json = None
            self._codec = PackedCodec()
            self._turn()

    def _turn(self) -> None:
        """Read what comes as msgpack is framed, where a transport has another way for it."""

    @property
    def is_packed(self) -> bool:
        """True where messages are msgpack by now."""
        return isinstance(self._codec, PackedCodec)

    async def send(self, message: Message) -> None:
        """Send a message. Raises `trio.BrokenResourceError` when the peer is gone."""
        try:
            if is_large(message, self._codec.piece_bytes):
                await each_in_turn(self._codec.encode_large_into(message, self._buffer, self._offset))
            else:
                self._codec.encode_into(message, self._buffer, self._offset)
            self._finish(message)
            await self._send_written()
        finally:  # also where the peer has gone: this may be around for a while yet
            if len(self._buffer) > LARGE_BYTES:
                let_go([(self._buffer, len(self._buffer))])
                self._buffer = bytearray(self._offset)

    def _finish(self, message: Message) -> None:
        """Frame what the buffer has. Where that is the last JSON, the peer's next may be here before it is sent."""
        self._start = self._frame()
        if self._is_last_json is not None:
            self._turn_behind(message)

    def _frame(self) -> int:
        """Write into the buffer what there is around a message, and return where that starts."""
        raise NotImplementedError

    async def _send_written(self) -> None:
        """Send what the buffer has from `_start` on. Raises as `send` does."""
        raise NotImplementedError

    async def _read(self, data: bytes | bytearray) -> Message:
        """Return the message in these bytes. Raises as `Codec.decode` does."""
        if len(data) > LARGE_BYTES:
            return await in_turns(self._codec.decode_large(data))
        message = self._codec.decode(data)
        if self._is_last_json is not None:
            self._turn_behind(message)
        return message

    @property
    def has_room(self) -> bool:
        """Return False, where a transport does not say otherwise."""
        return False

    def send_now(self, message: Message) -> bool:
        """Send a message at once, and return whether all of it was taken."""
        self._codec.encode_into(message, self._buffer, self._offset)
        self._finish(message)
        return self._send_written_now()

    def _send_written_now(self) -> bool:
        """Send what is taken at once of what the buffer has. Return as `send_now` does."""
        raise NotImplementedError

    async def send_rest(self) -> None:
        """Do nothing, where a transport does not say otherwise: nothing was sent at once."""

    def size_of(self, message: Message) -> int:
        """Return how many bytes a message has, as msgpack also where only the answer that turns to it is awaited."""
        codec = self._codec if self._is_last_json is None else PackedCodec()
        codec.encode_into(message, encoded := bytearray())
        return len(encoded)

    def hear(self, take: Callable[[Message], bool]) -> None:
        """Do nothing: messages are there when `receive` has read them."""
