"""One connection is one nursery. This file is its task tree, top to bottom:

    serve_connection           the connection: owns the sessions, ends with the peer
    ├─ talk                    one channel to the peer
    │  ├─ reader               takes requests in order, waits for no handler
    │  ├─ a task per request that has to wait
    │  └─ writer               the only one that sends; pulls from the outbox
    └─ session, session, ...   `Session.run`: a nursery each

However it ends (the peer hangs up or breaks the protocol, a write fails, the server shuts down), the nursery is
cancelled, and a session that is cancelled kills its processes. There is no other clean-up.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

import trio
from msgspec import Struct

from execsrv._codec import decode_params
from execsrv._files.files import open_files
from execsrv._handlers import HANDLERS
from execsrv._handshake import Handshake
from execsrv._outbox import Outbox
from execsrv._sessions import Sessions
from execsrv._transports import MessageChannel
from execsrv.errors import Busy, InternalError, ProtocolError, RequestError, UnknownMethod
from execsrv.limits import DEFAULTS, Limits
from execsrv.protocol import METHODS, ErrorObject, Failure, Request, Response

log = logging.getLogger(__name__)

GOING_AWAY = 1001
"""RFC 6455 section 7.4.1: the server is going down."""


async def serve_connection(channel: MessageChannel, limits: Limits = DEFAULTS) -> None:
    """Serve one peer until it hangs up. Takes ownership of the channel.

    Cancelling ends all its sessions and closes the channel, saying that the server goes away.
    """
    goodbye = ProtocolError("the server is shutting down", GOING_AWAY)
    try:
        async with trio.open_nursery() as nursery:
            goodbye = await Connection(nursery, limits).talk(channel)
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(limits.flush_seconds, shield=True):
            await channel.aclose(goodbye.close_code, str(goodbye))


class Connection:
    """The sessions of one peer, and the conversation with it. Owns every session, through its nursery."""

    def __init__(self, nursery: trio.Nursery, limits: Limits) -> None:
        self._limits = limits
        self._outbox = Outbox(limits.requests_in_flight)
        self._sessions = Sessions(nursery, limits, self._outbox.has_news)
        self._in_flight = 0

    def __repr__(self) -> str:
        return f"<Connection {self._sessions.connection_id} sessions={len(self._sessions)}>"

    async def talk(self, channel: MessageChannel) -> ProtocolError:
        """Speak with the peer until one side ends it; with what to close the channel.

        What was asked before the peer stopped sending is still answered, as far as it needs no waiting.
        """
        goodbye = ProtocolError("", close_code=1000)
        async with (
            open_files(self._limits, self._outbox.put, self._outbox.wait_answered) as self._sessions.files,
            trio.open_nursery() as tree,
        ):
            tree.start_soon(self._write, channel, tree.cancel_scope)
            try:
                await self._read(channel, tree)
            except ProtocolError as error:
                goodbye = error
                log.warning("ending connection %s: %s", self._sessions.connection_id, error)
                told = ErrorObject(error.code, str(error), {"kind": error.kind})
                self._outbox.put(Failure(None, told))
            with trio.move_on_after(self._limits.flush_seconds):
                await self._outbox.wait_answered()
            tree.cancel_scope.cancel()
        return goodbye

    async def _read(self, channel: MessageChannel, tree: trio.Nursery) -> None:
        """Take message after message, in order, until the peer's end. Raises `ProtocolError`."""
        handshake = Handshake()
        while (message := await channel.receive()) is not None:
            if not isinstance(message, Request):
                handshake.check_other(message)
                continue
            try:
                answer = self._handle(message, handshake)
            except Exception as error:
                self._outbox.put(self._failure(message, error))
            else:
                if isinstance(answer, Struct):
                    self._outbox.put(Response(message.id, answer))
                else:
                    self._in_flight += 1
                    tree.start_soon(self._finish, message, answer)
            await self._outbox.wait_room()

    def _handle(self, request: Request, handshake: Handshake) -> Struct | Coroutine[Any, Any, Struct]:
        """Everything of a request that happens at once. Raises whatever is to be answered."""
        method = METHODS.get(request.method)
        if method is None:
            raise UnknownMethod(f"unknown method `{request.method}`", method=request.method)
        params = decode_params(request.params, method.params)
        handshake.check_request(method)
        if method.waits and self._in_flight >= self._limits.requests_in_flight:
            bound = self._limits.requests_in_flight
            raise Busy(f"requests_in_flight ({bound}) are waiting", limit="requests_in_flight", value=bound)
        answer = HANDLERS[request.method](self._sessions, params)
        if method.family is None:
            handshake.greeted()
        return answer

    async def _finish(self, request: Request, answer: Coroutine[Any, Any, Struct]) -> None:
        """The rest of a request that has to wait for something."""
        try:
            self._outbox.put(Response(request.id, await answer))
        except Exception as error:
            self._outbox.put(self._failure(request, error))
        finally:
            self._in_flight -= 1

    async def _write(self, channel: MessageChannel, talking: trio.CancelScope) -> None:
        """Send what the outbox gives, one message after the other. A peer that is gone ends the talk."""
        try:
            while True:
                await channel.send(await self._outbox.take(self._sessions.next_notification))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            talking.cancel()

    def _failure(self, request: Request, error: Exception) -> Failure:
        """The answer to a request that was refused, or that hit a fault of ours."""
        if not isinstance(error, RequestError):
            log.error("internal error in %s", request.method, exc_info=error)
            error = InternalError(f"internal error in `{request.method}`: {type(error).__name__}")
        code, message, data = error.to_wire()
        most = self._limits.error_text_characters
        data = {name: value[:most] if isinstance(value, str) else value for name, value in data.items()}
        return Failure(request.id, ErrorObject(code, message[:most], data))
