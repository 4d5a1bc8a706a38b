"""The messages that come in to a runner, one after the other."""

from __future__ import annotations

from msgspec import Struct

from execsrv._runner.channel import Channel
from execsrv._runner.frames import FrameReader


class Incoming:
    """The messages of a channel, for one reader."""

    def __init__(self, channel: Channel, frames: FrameReader) -> None:
        self._channel = channel
        self._frames = frames

    @property
    def version(self) -> int | None:
        """That of the channel, once a first message has come."""
        return self._frames.version

    async def next(self) -> Struct | None:
        """Return the next message, None at the end of the channel.

        Raises `ProtocolError` for what is no message, and for an end in the middle of one.
        """
        while (message := self._frames.next()) is None:
            if not (data := await self._channel.receive()):
                self._frames.check_end()
                return None
            self._frames.feed(data)
        return message
