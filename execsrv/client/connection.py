"""One connection to a server, as long as that may take: its greeting, its channels one after the other, its processes.

Where a channel is lost and there is time to reconnect, the next one takes the connection over: unanswered calls are
asked again, and each process catches up with what was printed meanwhile.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from itertools import count
from weakref import WeakSet

import trio
from msgspec import UNSET, Struct, structs

from execsrv._wire.channel import CLOSED_IN_ORDER, GONE_AWAY, MessageChannel
from execsrv._wire.codecs import decode_params
from execsrv.client.calls import Calls, R
from execsrv.client.greeting_wishes import Wishes, names_msgpack
from execsrv.client.leaving import leave_for_good
from execsrv.client.mirror import Mirror
from execsrv.client.presence import Presence
from execsrv.client.tokens import ReadToken
from execsrv.client.told import entry_of
from execsrv.errors import (
    AlreadyAttachedError,
    BadAnswerError,
    BusyError,
    ConnectionFailedError,
    ConnectionLostError,
    ExecsrvError,
    InvalidParamsError,
    LimitExceededError,
    RequestError,
    UnauthorizedError,
    UnknownProcessError,
)
from execsrv.limits import ClientConfig
from execsrv.protocol import (
    PROTOCOL_VERSION,
    ConnectionPresence,
    Initialize,
    Initialized,
    Notification,
    ProcessOutputRead,
    ProcessRead,
    ServerShutdown,
)

OpenChannel = Callable[[], AbstractAsyncContextManager[MessageChannel]]
"""Opens a channel to the server. Raises `ConnectionFailedError`."""

_RETRY_SECONDS = 0.1

_SOON_SECONDS = 1.0
"""A channel that lasts longer is one, though it brings nothing: a wait for something may be all that was asked."""


class Connection:
    """State that the tasks of one client share: its calls, its processes, and the server's greeting."""

    greeting: Initialized

    def __init__(self, config: ClientConfig, nursery: trio.Nursery, read_token: ReadToken) -> None:
        """`read_token` gives what is said in the greeting of each channel."""
        self.config = config
        self._read_token = read_token
        self.nursery = nursery
        self.calls = Calls(self._heard, config.max_message_bytes)
        self.mirrors: dict[str, Mirror] = {}
        self.watchers: list[Callable[[Mirror], None]] = []
        """Called with the mirror of each process, before anything is known of it: to tap it."""
        self.directory: str | None = None
        """Where commands start whose start names no directory. None: where the server runs."""
        self._ids = count(1)
        self._first_letters = "p"  # of the ids of processes
        self._listeners: WeakSet[Presence] = WeakSet()
        self.ends_at: float | None = None
        """The time, of `time.monotonic`, at which the server is gone at the latest: it has said that it ends."""
        self._greeted, self._life = False, trio.CancelScope()
        self._tried_at = self._taken_up_at = -math.inf  # to take the connection up, and that it was
        self._turned = trio.lowlevel.ParkingLot()

    @property
    def is_interrupted(self) -> bool:
        """True while a lost connection is being taken up again."""
        return self.calls.is_interrupted

    async def wait_interrupted(self, wanted: bool) -> None:
        """Wait until the connection is interrupted, or is not."""
        while self.is_interrupted is not wanted:
            await self._turned.park()

    def _turn(self, interrupted: bool) -> None:
        self.calls.is_interrupted = interrupted
        self._turned.unpark_all()

    @property
    def is_execsrv(self) -> bool:
        """True where the server says that it knows windows, and resuming."""
        return self.greeting.protocol_version == PROTOCOL_VERSION

    @contextmanager
    def new_mirror(self, id: str | None = None) -> Iterator[Mirror]:
        """Listen for what the server tells of a process, in this block: a new one, or one that has an id."""
        if id is not None and id in self.mirrors:
            raise InvalidParamsError(f"process {id} is read here already", field="id")
        while id is None or id in self.mirrors:
            id = f"{self._first_letters}{next(self._ids)}"
        mirror = Mirror(id, self.calls, self.config.window_bytes, self.is_execsrv, self.nursery.start_soon)
        self.mirrors[mirror.id] = mirror
        for watch in self.watchers:
            watch(mirror)
        try:
            yield mirror
        finally:
            del self.mirrors[mirror.id]
            mirror.reader.end()

    @trio.lowlevel.enable_ki_protection  # an interrupt goes to the main task, and falls into no nursery of ours
    async def stay(
        self, open_channel: OpenChannel, wishes: Wishes, reconnect: float, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Speak over one channel and, as long as that may take, over its successors. Raises `ConnectionFailedError`.

        Once it has begun, `end` reaches it, and no cancel from outside: commands are ended over it.
        """
        why = "the connection is closed"
        try:
            with self._life:
                why = await self._speak(open_channel, wishes, partial(self._greet, wishes, task_status))
                if not self._greeted:
                    raise ConnectionFailedError(f"handshake failed: {why}")
                while reconnect > 0 and self.is_execsrv:
                    why = await self._resume(open_channel, wishes, reconnect)
        except _EndedError as error:
            why = f"{why}; {error}"
        finally:
            self.calls.end(why)
            for mirror in self.mirrors.values():
                mirror.lose(ConnectionLostError(why))
            for listener in self._listeners:
                listener.end()

    def end(self) -> None:
        """Have it end."""
        self._life.cancel()

    async def _resume(self, open_channel: OpenChannel, wishes: Wishes, reconnect: float) -> str:
        """Speak over a new channel, as soon as there is one, and return why it ended.

        One that ends soon is as good as none where it brings nothing to who waits for an answer, or a refusal: what one
        side cannot take would be sent again for ever. Raises `_EndedError` when none comes in time.
        """
        deadline, why = trio.current_time() + reconnect, ""
        while True:
            self._interrupt()
            await trio.sleep_until(self._tried_at + _RETRY_SECONDS)
            self._tried_at, self._taken_up_at = trio.current_time(), math.inf
            with trio.CancelScope(deadline=deadline) as scope:
                try:
                    why = await self._speak(open_channel, wishes, partial(self._greet_again, wishes, scope))
                except (ConnectionFailedError, AlreadyAttachedError) as error:
                    why = str(error)
            lasted = trio.current_time() - self._taken_up_at
            soon = {"something": _RETRY_SECONDS, "nothing": _SOON_SECONDS, "refusal": reconnect}[self.calls.brought]
            if lasted >= min(soon, reconnect):
                return why
            if scope.cancelled_caught or trio.current_time() >= deadline:
                raise _EndedError(f"no way back within {reconnect} s: {why or 'no answer'}")

    def _interrupt(self) -> None:
        self._turn(True)
        self.calls.interrupted()
        for mirror in self.mirrors.values():
            mirror.interrupted()

    async def _speak(self, open_channel: OpenChannel, wishes: Wishes, greet: Callable[[], Awaitable[None]]) -> str:
        """Speak over a new channel until it ends, and return why. Raises as `open_channel` and `greet` do."""
        async with open_channel() as channel:
            code = CLOSED_IN_ORDER
            try:
                why = await self.calls.run(channel, greet, self.config.ping_interval, self.config.ping_timeout)
                code = GONE_AWAY  # we may come back
                return why
            except (ConnectionFailedError, AlreadyAttachedError):
                code = GONE_AWAY if self._greeted else CLOSED_IN_ORDER
                raise
            finally:
                with trio.move_on_after(self.config.flush_timeout, shield=True):
                    if self._life.cancel_called and not self.is_interrupted and wishes.let_end(self.greeting):
                        await leave_for_good(channel)
                    await channel.aclose(code)

    async def _greet(self, wishes: Wishes, task_status: trio.TaskStatus[None]) -> None:
        try:
            with trio.fail_after(self.config.handshake_timeout):
                try:
                    hello = self._agree(wishes.hello(await self._read_token()))
                    self.greeting = await self._ask_to_be_let_in(hello)
                    self.calls.learn_bound(self.greeting.max_message_bytes)
                    await self.calls.tell("initialized")
                except trio.BrokenResourceError:
                    await trio.sleep_forever()  # the reader hears of the end, and of what was said before it
        except (trio.TooSlowError, RequestError, BadAnswerError, ConnectionLostError) as error:
            told = f"handshake failed: {str(error) or f'no answer within {self.config.handshake_timeout} s'}"
            raise ConnectionFailedError(told, is_final=isinstance(error, UnauthorizedError)) from error
        if self.is_execsrv:  # which keeps to windows
            self.calls.hear_at_once()
        self._greeted = self._life.shield = True
        task_status.started()

    async def _ask_to_be_let_in(self, hello: Initialize) -> Initialized:
        """Greet, and again while the server takes the connection for attached: it may not know that a channel died."""
        if hello.resume_session_id is not None:
            self._first_letters = f"p{secrets.token_hex(3)}-"  # others have counted from 1 as well
        return await self._ask_in_time("initialize", hello, Initialized, AlreadyAttachedError)

    async def _ask_in_time(self, method: str, params: Struct, result: type[R], *not_now: type[RequestError]) -> R:
        """Ask, and again while the server answers that it cannot now, as long as there is time for it."""
        while True:
            try:
                return await self.calls.ask_first(method, params, result)
            except not_now:
                if trio.current_effective_deadline() - trio.current_time() < 2 * _RETRY_SECONDS:
                    raise
                await trio.sleep(_RETRY_SECONDS)

    def _agree(self, hello: Initialize) -> Initialize:
        """Return the greeting with the encoding that is asked for, which the channel looks for in the answer."""
        encoding = self.calls.agree(self.config.encoding, names_msgpack)
        return hello if encoding is UNSET else structs.replace(hello, encoding=encoding)

    async def _greet_again(self, wishes: Wishes, scope: trio.CancelScope) -> None:
        """Take the connection over, and catch up with every process."""
        try:
            hello = self._agree(wishes.hello_again(self.greeting.session_id, await self._read_token()))
            self.calls.learn_bound((await self.calls.ask_first("initialize", hello, Initialized)).max_message_bytes)
            await self.calls.tell("initialized")
            for mirror in [mirror for mirror in self.mirrors.values() if mirror.hearing == "interrupted"]:
                rest = ProcessRead(mirror.id, mirror.last_seq), ProcessOutputRead
                try:
                    mirror.resumed(await self._ask_in_time("process/read", *rest, BusyError, LimitExceededError))
                except UnknownProcessError as error:
                    mirror.not_there(str(error))
        except trio.BrokenResourceError as error:
            raise ConnectionFailedError("the connection was lost again") from error
        except (AlreadyAttachedError, ConnectionFailedError):
            raise  # a token that cannot be read now may be there at the next try
        except ExecsrvError as error:
            raise _EndedError(str(error)) from error
        scope.deadline, self._taken_up_at = math.inf, trio.current_time()
        self._turn(False)

    def _heard(self, told: Notification) -> Callable[[], Awaitable[None]] | None:
        """Give what the server tells to the process that it is about. Return a wait, where that has no room for more.

        Raises `ExecsrvError` for what cannot be, and then has done nothing.
        """
        match told.method:
            case "connection/presence":
                self._tell_presence(decode_params(told.params, ConnectionPresence))
                return None
            case "server/shutdown":
                self.ends_at = time.monotonic() + decode_params(told.params, ServerShutdown).time_left_ms / 1000
                return None
        if (of_process := entry_of(told)) is None:
            return None  # a newer server may tell more
        id, entry = of_process
        if (mirror := self.mirrors.get(id)) is None:
            return None
        mirror.arrived(entry)
        return None if mirror.acknowledges or mirror.has_room else mirror.wait_room

    # -- who comes and goes --

    def new_presence(self) -> Presence:
        """Listen from now on for who comes and goes."""
        presence = Presence()
        self._listeners.add(presence)
        if self.calls.lost is not None:
            presence.end()
        return presence

    def _tell_presence(self, told: ConnectionPresence) -> None:
        if told.happened == "revoked" and told.member is not None:
            for mirror in self.mirrors.values():
                if mirror.membership == (told.connection_id, told.member.member_id):
                    mirror.lose(ConnectionLostError(f"put out of connection {told.connection_id}"))
        for listener in self._listeners:
            listener.tell(told)


class _EndedError(Exception):
    """There is nothing to come back to."""
