"""The way of a request to its handler, and of what becomes of it to the outbox.

A handler is run at once, in the order of the requests. Its answer is there at once too, or is made by a task where it
has to wait, or comes when a start that is under way has its outcome. Whatever is raised is an answer. As long as a
request waits, its parameters count against the budget of who asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio
from msgspec import Raw, Struct

from execsrv._budget.weight import weight_of
from execsrv._nursery import owned
from execsrv._server.failures import failure_of
from execsrv._server.handshake import Handshake, State
from execsrv._server.methods import HANDLERS, handler_of
from execsrv._server.methods.table import Answer, Caller, Handler, Later
from execsrv._server.outbox import Outbox
from execsrv._server.starting import Deferred
from execsrv._wire.bounds import LARGE_BYTES
from execsrv._wire.call_bounds import decode_call, decode_in_steps
from execsrv._wire.quoting import quoted
from execsrv._wire.turns import in_turns
from execsrv.errors import BusyError, UnknownMethodError
from execsrv.limits import KIB
from execsrv.protocol import METHODS, Initialize, Initialized, MessageId, Request, Response
from execsrv.protocol.methods import Method

Greet = Callable[[Initialize], Awaitable[Initialized]]

_WAITING_BYTES = 4 * KIB
"""The cost of a request that waits, beside its parameters: most of it is the task, where it has one."""


class Dispatch:
    """The requests of one channel. The tasks of those that have to wait are its owner's."""

    def __init__(self, caller: Caller, handshake: Handshake, greet: Greet, outbox: Outbox) -> None:
        """`greet` does what `initialize` asks for: before it, there are no sessions to be asked for anything."""
        self._caller = caller
        self._handshake = handshake
        self._greet = greet
        self._outbox = outbox
        self._nursery: trio.Nursery | None = None
        self._in_flight = 0  # requests that wait in a task

    def __repr__(self) -> str:
        return f"<Dispatch in_flight={self._in_flight}>"

    @property
    def is_idle(self) -> bool:
        """True where no request waits for its answer, but for those to sessions that are being started."""
        return not self._in_flight

    def open(self, nursery: trio.Nursery) -> None:
        """Have requests wait in this nursery from now on, until it is cancelled."""
        self._nursery = nursery

    async def answer(self, request: Request) -> None:
        """Answer a request, or have it answered by a task where it has to wait for something."""
        try:
            answer, held = await owned(self._handle, request)
        except Exception as error:
            self._outbox.put(failure_of(request.id, error, request.method))
            return
        self._give(request.id, request.method, answer, held)

    async def _handle(self, request: Request) -> tuple[Answer, int]:
        """Do everything of a request that happens at once. Return with the answer what was taken for it meanwhile.

        Raises whatever is to be answered.
        """
        method = METHODS.get(request.method)
        if method is None:
            raise UnknownMethodError(f"unknown method {quoted(request.method)}", method=request.method)
        if self._handshake.state is State.READY:
            if self._caller.principal.role < method.role:
                self._caller.principal.check(method.role, f"`{request.method}`")
            self._caller.allowance.requests.take()
            if request.method not in HANDLERS:
                self._load(request.method, method)
        if isinstance(request.params, Raw) and len(request.params) > LARGE_BYTES:
            params = await in_turns(decode_in_steps(request.params, method.params))
        else:
            params = decode_call(request.params, method.params)
        self._handshake.check_request(method)
        if isinstance(params, Initialize):
            return await self._greet(params), 0
        handler = handler_of(request.method)
        id = getattr(params, handler.of, "")
        if handler.of == "process_id" and self._caller.shared.visits.by_id:
            self._caller.shared.visits.check(id, method.role)
        if (starting := self._caller.sessions.starting(id)) is not None:
            size = len(getattr(params, handler.brings, b""))
            if await starting.lets_wait(size, ends=handler.ends):
                return Deferred(starting, partial(self._run, handler, params)), self._take(request)
        held = self._take(request) if handler.holds else 0
        try:
            return self._run(handler, params), held
        except BaseException:
            self._caller.allowance.for_messages.give(held)
            raise

    def _run(self, handler: Handler, params: Struct) -> Answer:
        """Do what a handler does at once. Raises `BusyError` where it may have to wait and too many requests do.

        As many again may look, without any time to wait: so a wait is given up, for which there must be room.
        """
        bound = self._caller.config.requests_in_flight
        looks = getattr(params, "timeout_ms", None) == 0
        if handler.waits and self._in_flight >= bound * (1 + looks):
            raise BusyError(f"requests_in_flight ({bound}) are waiting", limit="requests_in_flight", value=bound)
        return handler.run(self._caller, params)

    def _load(self, name: str, method: Method) -> None:
        """Load what a method needs that nobody has called yet, even where no descriptor is left for it."""
        with self._caller.sessions.supervisor.spare_descriptors():
            if method.params is not Initialize:  # which has no handler, and is refused now
                handler_of(name)

    def _take(self, request: Request) -> int:
        """Take what a request needs that waits, and return how much that is. Raises `LimitExceededError`."""
        size = weight_of(request.params)
        self._caller.allowance.for_messages.take(size)
        return size

    def _give(self, id: MessageId, method: str, answer: Answer, held: int) -> None:
        """Send an answer, now or when it is there, and give back then what was taken. Nothing holds the message."""
        if isinstance(answer, Deferred):
            self._caller.allowance.for_messages.add(_WAITING_BYTES)
            answer.starting.then(partial(self._go_on, id, method, answer, held))
            return
        if isinstance(answer, Struct):
            self._caller.allowance.for_messages.give(held)
            self._outbox.put(Response(id, answer))
        elif self._nursery is None or self._nursery.cancel_scope.cancel_called:  # it may take no more tasks already
            self._caller.allowance.for_messages.give(held)
            answer.close()
        else:
            self._in_flight += 1
            self._caller.allowance.for_messages.add(_WAITING_BYTES)
            self._nursery.start_soon(owned, self._finish, id, method, answer, held + _WAITING_BYTES)

    def _go_on(self, id: MessageId, method: str, deferred: Deferred[Struct], held: int) -> None:
        """Do what waited for a start, now that its outcome is known, and answer it where there is somebody to."""
        self._caller.allowance.for_messages.give(_WAITING_BYTES)
        try:
            answer: Answer = deferred.run()
        except Exception as error:
            self._caller.allowance.for_messages.give(held)
            self._outbox.put(failure_of(id, error, method))
        else:
            self._give(id, method, answer, held)

    async def _finish(self, id: MessageId, method: str, answer: Later[Struct], held: int) -> None:
        """Answer a request when the rest of its handler is done."""
        try:
            self._outbox.put(Response(id, await owned(lambda: answer)))
        except Exception as error:
            self._outbox.put(failure_of(id, error, method))
        finally:
            self._in_flight -= 1
            self._caller.allowance.for_messages.give(held)
