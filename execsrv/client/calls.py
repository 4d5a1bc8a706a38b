"""Requests and their answers, from the side that asks, over one channel or one after the other.

Two tasks while there is a channel: a reader, which hands each answer to the call that waits for it, and a writer, so
that a call that is cancelled never leaves half a message behind. Beside it only the greeting is sent, and what the
channel takes whole while it waits. Where the channel is replaced, what was not answered is asked again; nearly
everything has the same effect twice as once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Literal, TypeVar

import trio
from msgspec import Struct, UnsetType

from execsrv._lent import Lent
from execsrv._nursery import happened, open_helpers
from execsrv._wire.channel import MessageChannel
from execsrv._wire.codecs import decode_params
from execsrv.client.parameters import ENVELOPE_BYTES, check_size, checked, told_bound
from execsrv.client.pending import PendingCall
from execsrv.errors import (
    BadAnswerError,
    ConnectionLostError,
    CutOffError,
    ExecsrvError,
    InvalidParamsError,
    LimitExceededError,
    RequestError,
)
from execsrv.protocol import (
    ErrorObject,
    Failure,
    Message,
    MessageId,
    Notification,
    ProcessStarted,
    Request,
    Response,
)

R = TypeVar("R", bound=Struct)


class Calls:
    """The requests of one client. `heard` is called with each notification, in order.

    Where it returns a wait, nothing more is heard until that is over. No request is larger than `max_bytes`.
    """

    def __init__(self, heard: Callable[[Notification], Callable[[], Awaitable[None]] | None], max_bytes: int) -> None:
        self._heard = heard
        self._max_bytes = self._own_bytes = max(max_bytes, ENVELOPE_BYTES)  # less is for what we take in
        self._ids = count(1)
        self._pending: dict[MessageId | None, PendingCall] = {}
        self._outbound, self._to_write = trio.open_memory_channel[PendingCall](0)
        self._overdue: list[PendingCall] = []
        self._channel: MessageChannel | None = None
        self.is_interrupted = False
        """True while a lost connection is being taken up again."""
        self.brought: Literal["nothing", "something", "refusal"] = "something"
        """What the last channel has, to who waited for an answer. A refusal: one side cannot take a message."""
        self.lost: ConnectionLostError | None = None
        self.ended = trio.Event()
        """Set when there will be no further channel."""

    async def run(
        self, channel: MessageChannel, greet: Callable[[], Awaitable[None]], ping_interval: float, ping_timeout: float
    ) -> str:
        """Speak over this channel until it ends, and return why it did.

        `greet` is called first, and may use `ask_first`; then what earlier channels left unanswered is asked again.
        A server that leaves a ping unanswered for `ping_timeout` seconds is gone. Raises what `greet` raises.
        """
        self._channel = channel
        why = "the server ended the connection"
        async with open_helpers() as nursery:

            async def read() -> None:
                nonlocal why
                why = await self._read(channel) or why
                nursery.cancel_scope.cancel()

            async def watch() -> None:
                nonlocal why
                await channel.wait_gone(ping_interval, ping_timeout)
                why = "the server does not answer"
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            nursery.start_soon(watch)
            await greet()
            await self._write(channel)
        return why

    def interrupted(self) -> None:
        """Let what must not be asked again fail: the channel is gone, and there may be another."""
        for id, asked in list(self._pending.items()):
            if asked.sent and not asked.may_be_repeated:
                del self._pending[id]
                asked.answered.set()

    def end(self, reason: str) -> None:
        """Let every call fail with `ConnectionLostError`: there will be no other channel."""
        self.lost = ConnectionLostError(reason)
        self.ended.set()
        self._to_write.close()
        for asked in self._pending.values():
            asked.answered.set()

    @property
    def can_pass(self) -> bool:
        """True where descriptors can come with an answer."""
        return self._channel is not None and self._channel.passing is not None

    def check(self) -> None:
        """Raise `ConnectionLostError` where there will be no further channel."""
        if self.lost is not None:
            raise self._lost()

    async def call(self, method: str, params: Struct, result: type[R]) -> R:
        """Ask and wait for the answer.

        Raises, before anything is sent, `InvalidParamsError` and `LimitExceededError` for parameters that no server
        takes; the error that the server answered; `BadAnswerError` for an answer that is none; `ConnectionLostError`.

        Cancelling stops waiting; whether the server still does what was asked is then unknown.
        """
        return await self.answer_to(await self.post(method, params), result)

    @trio.lowlevel.enable_ki_protection  # msgspec drops an interrupt that falls into its first look at a type
    async def answer_to(self, asked: PendingCall, result: type[R]) -> R:
        """Wait for the answer to what was posted. Raises as `call` does."""
        await happened(asked.answered)
        match asked.answer:
            case Response(_, value):
                try:
                    return decode_params(value, result)
                except InvalidParamsError as error:
                    raise BadAnswerError(asked.request.method, str(error)) from None
            case Failure(_, error):
                refused = RequestError.from_wire(error.code, error.message, error.data)
                refused.method = asked.request.method
                raise refused
            case None:
                raise self._lost()

    async def post(self, method: str, params: Struct) -> PendingCall:
        """Ask without waiting for the answer. Raises `RequestError` before anything is sent, `ConnectionLostError`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        asked = self._register(method, params)
        try:
            # Where the writer waits for something to send, nothing can be overtaken, and nothing is left for it here.
            if self._channel and self._channel.has_room and self._outbound.statistics().tasks_waiting_receive:
                was_taken = self._channel.send_now(asked.request)
                assert was_taken  # as by each client's end that has room
            else:
                await self._outbound.send(asked)
        except BaseException as error:
            self._pending.pop(asked.request.id, None)
            if isinstance(error, trio.BrokenResourceError):
                raise self._lost() from None
            raise
        asked.sent = True
        return asked

    def ask_overdue(self, method: str, params: Struct) -> PendingCall:
        """Ask as soon as the writer can, on this channel or the next, ahead of all that waits."""
        asked = self._register(method, params)
        asked.sent = True
        try:
            self._outbound.send_nowait(asked)
        except (trio.WouldBlock, trio.BrokenResourceError):  # it is busy, or there is no further channel
            self._overdue.append(asked)
        return asked

    async def tell(self, method: str) -> None:
        """Notify the server, ahead of all that waits to be sent: for `greet`."""
        assert self._channel is not None
        await self._channel.send(Notification(method))

    def agree(self, encoding: str, is_last: Callable[[Response], bool]) -> str | UnsetType:
        """Have the channel speak this encoding behind the answer that `is_last`. Return what to ask for."""
        assert self._channel is not None
        return self._channel.agree(encoding, is_last)

    async def ask_first(self, method: str, params: Struct, result: type[R]) -> R:
        """Ask ahead of all that waits to be sent, and wait for the answer: for `greet`."""
        assert self._channel is not None
        asked = self._register(method, params)
        try:
            await self._channel.send(asked.request)
            return await self.answer_to(asked, result)
        finally:
            self._pending.pop(asked.request.id, None)

    def _register(self, method: str, params: Struct) -> PendingCall:
        asked = PendingCall(Request(next(self._ids), method, checked(method, params)))
        check_size(asked.request, self._max_bytes, self._channel)
        self._pending[asked.request.id] = asked
        return asked

    def _lost(self) -> ConnectionLostError:
        return ConnectionLostError(*(self.lost.args if self.lost else ("the connection was interrupted",)))

    async def _write(self, channel: MessageChannel) -> None:
        try:
            self._overdue.clear()  # they are among these
            again = [asked for asked in self._pending.values() if asked.sent]
            self.brought = "nothing" if again else "something"
            for asked in again:
                asked.repeated = True
                await self._send(channel, asked)
            while True:
                asked = self._overdue.pop(0) if self._overdue else await self._to_write.receive()
                asked.sent = True
                await self._send(channel, asked)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # What the server said before it went is still worth reading; its end ends the reader too.
            await trio.sleep_forever()

    async def _send(self, channel: MessageChannel, asked: PendingCall) -> None:
        if asked.passes and channel.passing is not None:
            channel.passing.expect()
        await channel.send(asked.request)

    @trio.lowlevel.enable_ki_protection  # as `answer_to`
    async def _read(self, channel: MessageChannel) -> str | None:
        """Take message after message until the end, and return why it came, if that was said."""
        said = None
        try:
            while (message := await channel.receive()) is not None:
                self.brought = "something"
                match message:
                    case Failure(None, error):
                        said, self.brought = f"the server ended the connection: {error.message}", "refusal"
                        self.learn_bound(told_bound(error.data), ended=True)
                    case Response() | Failure():
                        self._answer(message)
                    case Notification():
                        if (wait := self._heard(message)) is not None:
                            await wait()
                    case Request(id, method):
                        return f"the server sent a request `{method}` ({id!r}), which clients do not answer"
        except CutOffError:
            return "the server ended the connection in the middle of a message"
        except ExecsrvError as error:
            self.brought = "refusal"
            return f"the server broke the protocol: {error}"
        return said or (channel.goodbye and f"the server ended the connection: {channel.goodbye}")

    def learn_bound(self, bound: int | UnsetType, *, ended: bool = False) -> None:
        """Keep to the server's bound of a message, where that is known. What `ended` a channel fails if it is above."""
        if isinstance(bound, int):
            self._max_bytes = min(bound, self._own_bytes)
            for asked in [asked for asked in self._pending.values() if ended and asked.sent]:
                try:
                    check_size(asked.request, self._max_bytes, self._channel)
                except LimitExceededError as error:
                    self._answer(Failure(asked.request.id, ErrorObject(*error.to_wire())))

    def hear_at_once(self) -> None:
        """Have what arrives heard without a turn of the loop, where the channel can: `heard` returns no waits."""
        assert self._channel is not None
        self._channel.hear(self._hear)

    def _hear(self, message: Message) -> bool:
        """Take a message at once. Return False for one that `_read` has more to say of."""
        try:
            match message:
                case Notification():
                    self._heard(message)
                case Response():
                    self._answer(message)
                case _:
                    return False
        except ExecsrvError:
            return False  # nothing was done: `_read` meets with it again
        return True

    def _answer(self, message: Response | Failure) -> None:
        if (asked := self._pending.pop(message.id, None)) is not None:
            asked.answer = message
            if asked.passes:
                asked.lent = self._lent_with(message)
            asked.answered.set()

    def _lent_with(self, answer: Response | Failure) -> Sequence[Lent]:
        """Return the descriptors that came with an answer, as far as any did."""
        if self._channel is None or self._channel.passing is None:
            return ()
        names_some = False
        if isinstance(answer, Response):
            with suppress(InvalidParamsError):  # which is for who has asked
                names_some = bool(decode_params(answer.result, ProcessStarted).passed)
        return self._channel.passing.answered(names_some=names_some)
