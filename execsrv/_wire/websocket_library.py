"""The stream and the nursery that trio-websocket is given, so that neither its peer nor it can do harm.

It handles all frames of one read without a pause, keeps every part of a message, and lets its nursery fail when a peer
does what it does not expect.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import wsproto.utilities

from execsrv._nursery import open_helpers, owned
from execsrv._wire.at_once import AtOnce
from execsrv._wire.bounds import MessageBound
from execsrv._wire.channel import FAILED
from execsrv._wire.room import wait_for_room
from execsrv._wire.tcp import is_local, unacknowledged_seconds
from execsrv._wire.unreachable import NO_HTTP, why_unreachable
from execsrv._wire.websocket_frames import FrameReader
from execsrv.errors import ConnectionFailedError, ProtocolError

logger = logging.getLogger(__name__)

HEAD_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 16 * 1024
RECEIVE_BYTES = 256 * 1024

_FRAMES_A_TURN = 4
"""Frames that are read before others have their turn, and messages that are handed over at once at most."""
_SENT_BYTES = 256 * 1024
"""More than that is not encrypted at once."""


class Wire(trio.abc.Stream):
    """The stream that the library reads and writes, with writes that take turns.

    Until it is `opened` it gives the library the head of the HTTP exchange and no byte more, since the library would
    not look again at what came with it; and an end is an error, since the library would wait for ever.

    A cancelled write leaves the frame `is_cut`. Nothing may follow it: the peer would read that as the rest of it.

    What comes is read as the library asks for it, a few frames at a time. The library is given what is no message, and
    when the messages before that were handled. More is read only then: they may have raised the bounds.
    A message beyond its bounds ends the reading, and `refusal` says why; so does a library that fails.
    """

    def __init__(self, stream: trio.abc.Stream, bound: MessageBound, head: bytes = b"", rest: bytes = b"") -> None:
        self.opened = trio.Event()
        self._hung_up = trio.Event()
        self._is_drained = False
        self._stream = stream
        self._head = head
        self._data: bytes | bytearray = rest
        self._at = 0  # so much of the data was read
        self.bound = bound
        self._news = trio.lowlevel.ParkingLot()  # for who receives
        self._handled = trio.lowlevel.ParkingLot()
        self._discards = False  # nobody receives any more
        self.is_over = False  # the library reads no more
        self._frames = FrameReader(bound, is_server=bool(head))
        self._answer = None if head else bytearray()  # the head of the server's answer, as long as that is coming in
        self.refusal: ProtocolError | None = None
        self.is_server = bool(head)
        self._turn = trio.Lock()
        self._at_once = AtOnce(stream)
        self.is_cut = False
        self.heard_at = trio.current_time()

    @property
    def is_sending(self) -> bool:
        """Return True while a write waits for the peer to read, or for an acknowledgement, or its rest for its turn."""
        return self._turn.locked() or self._at_once.has_rest

    @property
    def is_local(self) -> bool:
        """Return True where the peer is on this machine."""
        return is_local(self._stream)

    @property
    def lost_for(self) -> float:
        """Seconds for which the peer's machine has left unanswered what was sent, by the kernel's word."""
        plain = getattr(self._stream, "transport_stream", self._stream)
        return unacknowledged_seconds(plain.socket) if isinstance(plain, trio.SocketStream) else 0.0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # which cuts nothing yet
        try:
            self._turn.acquire_nowait()  # which saves a turn of the scheduler where nobody else is sending
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            if self.is_cut:
                raise trio.BrokenResourceError
            if rest := self._at_once.take_rest():
                await self._stream.send_all(rest)
            for start in range(0, len(data), _SENT_BYTES):
                await self._stream.send_all(data[start : start + _SENT_BYTES])
        except trio.Cancelled:
            self.is_cut = True
            raise
        finally:
            self._turn.release()

    @property
    def has_room(self) -> bool:
        """True for a server on a plain socket, as long as nobody is sending."""
        return self.is_server and self._at_once.has_room and not self.is_cut and not self._turn.locked()

    def send_now(self, data: memoryview) -> bool:
        """Send what the system takes at once, and return whether that was all. The next `send_all` sends the rest."""
        return self._at_once.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._head:
            head, self._head = self._head, b""
            return head
        if self.is_server and not self.opened.is_set():
            await self.opened.wait()
        self.tell_news()
        if self._frames.messages:
            await self._hand_over()
        while (library := await self._receive_frames(max_bytes)) is not None:
            if self._frames.messages and self.opened.is_set():  # else they came with the answer to the handshake
                await self._hand_over()
            if library:
                return library
        return b""

    async def _hand_over(self) -> None:
        """Wait until the messages that came were handled."""
        self.tell_news()
        while self._frames.messages and not self._discards:
            await self._handled.park()
        self._frames.messages.clear()

    def tell_news(self) -> None:
        """End every `wait_news`."""
        self._news.unpark_all()

    async def wait_news(self) -> None:
        """Wait for a message, or for the library to have handled something else, such as an end.

        Whoever waits has handled the messages before.
        """
        self._handled.unpark_all()
        await self._news.park()

    async def _receive_frames(self, max_bytes: int | None) -> bytearray | None:
        """Read a few frames, and return what the library is to be given of them, None at the end."""
        if self.refusal is not None:
            raise trio.BrokenResourceError
        if not self.bound.is_paid():
            try:
                await wait_for_room(self.bound)
            except ProtocolError as error:
                self.refusal = error
                raise trio.BrokenResourceError from error
        if self._at < len(self._data):
            await trio.lowlevel.checkpoint()
        else:
            self._at, self._data = 0, await self._receive(max_bytes)
            self.heard_at = trio.current_time()
            if not self._data:
                if not self.opened.is_set():
                    raise ConnectionFailedError("the peer hung up in the handshake")
                return None
        library = bytearray()
        if self._answer is not None:
            self._at = self._skip_answer()
            library += self._data[: self._at]
        self._at = self._frames.walk(self._data, self._at, _FRAMES_A_TURN, library)
        if self._at == len(self._data):
            self._at, self._data = 0, b""
        if self._frames.excess is not None:
            self.refusal = self._frames.excess
        return library

    @property
    def has_message(self) -> bool:
        """True where `next_message` has one."""
        return bool(self._frames.messages)

    def next_message(self) -> bytearray | None:
        """Return the payload of the next message, None where none is there."""
        return self._frames.messages.popleft() if self._frames.messages else None

    def discard(self) -> None:
        """Read on, and forget the messages that come: nobody receives them any more."""
        self._discards = True
        self._handled.unpark_all()

    def _skip_answer(self) -> int:
        """Return where the server's answer ends in what came, and the frames begin. Raises `ConnectionFailedError`."""
        assert self._answer is not None
        before = len(self._answer)
        self._answer += self._data
        if not self._answer.startswith(b"HTTP/"[: len(self._answer)]):
            raise ConnectionFailedError(NO_HTTP)  # the library would wait for the end of a head
        end = self._answer.find(HEAD_END)
        if end < 0 and len(self._answer) <= MAX_HEAD_BYTES:
            return len(self._data)
        self._answer = None
        return len(self._data) if end < 0 else end + len(HEAD_END) - before

    async def _receive(self, max_bytes: int | None) -> bytes | bytearray:
        if self._is_drained:
            await self._hung_up.wait()
            return b""
        try:
            # No more at once than one message may have: what a stranger has sent is no more than that in here.
            data = await self._stream.receive_some(min(max_bytes or RECEIVE_BYTES, self.bound.max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._hung_up.set()
            if not self.opened.is_set():
                raise ConnectionFailedError(why_unreachable(error)) from error  # else the library would wait for ever
            raise
        if not data:
            self._hung_up.set()
        return data

    async def drain(self) -> None:
        """Read until the peer hangs up: to close before would take back what it was told last."""
        try:
            self._is_drained = True  # the library waits, if it comes to read only now
            while await self._stream.receive_some(RECEIVE_BYTES):
                pass
        except trio.BusyResourceError:
            self._is_drained = False  # the library reads, and goes on
            await self._hung_up.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._hung_up.set()

    async def aclose(self) -> None:
        """Do nothing: whoever opened the stream closes it. The library would do it before we have said why."""


class ReaderNursery:
    """The nursery that the library starts its reader in. A reader that fails later ends its channel, and no more."""

    def __init__(self, nursery: trio.Nursery, wire: Wire) -> None:
        self._nursery = nursery
        self._wire = wire

    def start_soon(self, read: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, read)

    async def _run(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            await owned(read)
        except Exception as error:
            if not self._wire.opened.is_set():
                raise  # to those who wait for the handshake
            # It answers a ping that comes behind our close frame, and may not.
            if not isinstance(error, wsproto.utilities.LocalProtocolError):
                logger.error("the reader of a websocket failed", exc_info=error)
                self._wire.refusal = ProtocolError("internal error", FAILED)
        finally:
            self._wire.is_over = True
            self._wire.tell_news()


@asynccontextmanager
async def open_shielded() -> AsyncIterator[trio.Nursery]:
    """Open a nursery for the library's reader. The reader, not the block, is shielded, and ends with the block.

    It has to outlive a cancelled block, since it hears the answer to our close frame.
    """

    async def host(*, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            task_status.started(nursery)
            await trio.sleep_forever()

    async with open_helpers() as nursery:
        # Shielded, or a cancel at this very moment would leave the host behind, waiting for ever.
        with trio.CancelScope(shield=True):
            hosted = await nursery.start(host)
        try:
            yield hosted
        finally:
            hosted.cancel_scope.cancel()
