"""The contract of every transport: lines of bytes, websockets, memory. No transport knows a method.

A transport gives `MessageChannel`s. JSON and msgpack happen inside; in memory there is neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import UnsetType

from execsrv._budget.budget import Budget
from execsrv.protocol import Message, Response

if TYPE_CHECKING:
    from execsrv._wire.passing import Passing

CLOSED_IN_ORDER = 1000
"""RFC 6455 section 7.4.1: all is done."""

GONE_AWAY = 1001
"""The same section: one side is going away."""

FAILED = 1011
"""The same section: one side has met with what it did not expect."""


class MessageChannel(Protocol):
    """Two directions of messages to one peer. One task sends and one receives at a time."""

    @property
    def passing(self) -> Passing | None:
        """The descriptors that go along, None where none can."""

    @property
    def goodbye(self) -> str:
        """The words with which the peer has closed it, once `receive` was at the end. Empty where there are none."""

    async def send(self, message: Message) -> None:
        """Send a message. Raises `trio.BrokenResourceError` when the peer is gone.

        Cancelling may leave a part of a message sent, so that the channel can only be closed.
        """

    @property
    def has_room(self) -> bool:
        """True where `send_now` may be called, as long as nobody else has sent since.

        A client's end has room only where it takes every message whole, however large, and nothing goes along with one:
        in memory. A client relies on that.
        """

    def send_now(self, message: Message) -> bool:
        """Send a message at once: that spares a turn of the loop, and a task to wait in.

        Return False where a part of it is left, which `send_rest` must send. Transports that cannot promise it never
        have room. It is not for large messages.
        """

    async def send_rest(self) -> None:
        """Send what `send_now` has left. Raises as `send` does."""

    def size_of(self, message: Message) -> int:
        """Return how many bytes the peer counts for a message, in the encoding that is agreed upon. It is encoded."""

    async def receive(self) -> Message | None:
        """Return the next message, None at the end. Raises `ProtocolError`. Cancelling loses nothing."""

    def hear(self, take: Callable[[Message], bool]) -> None:
        """Have a message that arrives while `receive` waits taken at once, without a turn of the loop for it.

        `take` returns False for one that is to be received all the same. Transports whose messages are made of bytes
        that a task has to read do nothing.
        """

    def agree(self, encoding: str | None, is_last: Callable[[Response], bool]) -> str | UnsetType:
        """Have all messages be in this encoding behind the answer, sent or received, for which `is_last` is true.

        Return what that answer is to name: nothing, where the transport has no such encoding.
        """

    def trust(self, budget: Budget) -> None:
        """Take in messages up to `max_message_bytes` from now on, and pay for them from the budget until `aclose`.

        Before, a server's end takes in small ones only.
        """

    async def is_alive(self, patience: float) -> bool:
        """Return False when the peer has not answered a ping for `patience` seconds.

        Where the transport itself tells of every end, a peer is alive until then.
        """

    async def wait_gone(self, interval: float, patience: float) -> None:
        """Return when the peer is gone without a word, where the transport itself would not tell.

        It is asked every `interval` seconds, and may leave that unanswered for `patience` seconds.
        """

    async def aclose(self, code: int = CLOSED_IN_ORDER, reason: str = "") -> None:
        """Close it. Where the transport can say a reason to the peer, it does. Never raises for a peer that is gone.

        Cancelling closes at once, without saying anything.
        """
