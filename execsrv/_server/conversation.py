"""The conversation with a peer over one channel: requests in, answers and notifications out.

    Conversation.run
    ├─ reader (_read)               takes requests in order, waits for no handler
    ├─ _finish, one for each request that has to wait
    ├─ Relay._stream, one for each HTTP body that is streamed
    ├─ writer (_write)              the only one that sends; pulls from the outbox
    ├─ _watch                       for a peer that is gone without a word
    └─ _stop                        when the server ends in order

From `initialize` on it belongs to a connection, a new one or one that has lost its channel. When the channel is at its
end, so is the connection, or it waits for another channel: that is the server's configuration, and the peer's good
behaviour. Cancelling closes the channel, saying that the server goes away.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from execsrv._files.channel import open_files
from execsrv._http.relay import Relay, open_relay
from execsrv._nursery import open_helpers
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connection import Connection, Connections, open_connections
from execsrv._server.methods import HANDLERS, tell_of_environment
from execsrv._server.methods.table import Answer, Later
from execsrv._server.outbox import Outbox
from execsrv._server.sessions import Sessions
from execsrv._wire.channel import MessageChannel
from execsrv._wire.codecs import decode_params
from execsrv._wire.handshake import Handshake
from execsrv.errors import BusyError, CutOffError, InternalError, ProtocolError, RequestError, UnknownMethodError
from execsrv.limits import DEFAULTS, ServerConfig
from execsrv.protocol import (
    METHODS,
    PROTOCOL_VERSION,
    ErrorObject,
    Failure,
    Initialize,
    Initialized,
    Request,
    Response,
    Unit,
)

if TYPE_CHECKING:
    from execsrv._files.files import Files

logger = logging.getLogger(__name__)

_GOING_AWAY = 1001
"""RFC 6455 section 7.4.1: the server is going down."""

_ERROR_TEXT_CHARACTERS = 1000
"""An error that quotes a request is cut to this, since errors wait for their reader too."""


async def serve_connection(
    channel: MessageChannel,
    supervisor: Supervisor,
    config: ServerConfig = DEFAULTS,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
) -> None:
    """Serve one peer until it hangs up, or until the trigger returns. Takes ownership of the channel.

    Nothing can be resumed, since there is no other channel. Cancelling ends all its sessions and closes the channel.
    """
    config = replace(config, resume_grace=0, handshake_timeout=math.inf)

    async def stop() -> None:
        await shutdown_trigger()
        await connections.stop()

    async with open_connections(supervisor, config) as connections, open_helpers() as nursery:
        nursery.start_soon(stop)
        await Conversation(channel, connections).run()


class Conversation:
    """One peer over one channel, from the first byte to the last.

    It is the `Caller` of the handlers: `sessions` are those of its connection; its files and its relay end with the
    channel.
    """

    sessions: Sessions
    files: Callable[[], Files]
    relay: Relay

    def __init__(self, channel: MessageChannel, connections: Connections) -> None:
        self.config = connections.config
        self._channel = channel
        self._connections = connections
        self._connection: Connection | None = None
        self._outbox = Outbox()
        self._handshake = Handshake()
        self._in_flight = 0  # requests that wait
        self._reading = trio.CancelScope()
        self._goodbye = ProtocolError("the server is shutting down", _GOING_AWAY)
        self._has_left = False  # the peer, of its own accord or by accident

    def __repr__(self) -> str:
        return f"<Conversation {self._handshake.state.name} {self._connection}>"

    async def run(self) -> None:
        """Speak until one side ends it, and close the channel, which it takes ownership of.

        What was asked before the peer stopped sending is still answered, as far as it needs no waiting; and where its
        commands end with it, a peer that still listens is told how.
        """
        try:
            # Files and relay around the rest: requests are at their end before what they use is closed.
            tell, answers_left = self._outbox.tell, self._outbox.wait_answered
            async with (
                open_files(self.config, tell, answers_left) as self.files,
                open_relay(self.config, tell, answers_left) as self.relay,
            ):
                await self._converse()
        finally:
            with trio.move_on_after(self.config.flush_timeout, shield=True):
                await self._channel.aclose(self._goodbye.close_code, str(self._goodbye))

    async def _converse(self) -> None:
        """Hear and answer until one side ends it. Then the connection ends too, or waits for another channel."""
        lasting = False
        try:
            async with trio.open_nursery() as tree:
                for task in (self._write, self._watch, self._stop):
                    tree.start_soon(task)
                with self._reading:
                    await self._read(tree)
                if trio.current_time() >= self._reading.deadline:
                    self._refuse(ProtocolError(f"no `initialize` within {self.config.handshake_timeout} s"))
                lasting = self._has_left and self.config.resume_grace > 0
                if not lasting:
                    await self._end_sessions()
                with trio.move_on_after(self.config.flush_timeout):
                    await self._outbox.wait_answered()
                tree.cancel_scope.cancel()
        finally:
            if self._connection is not None and lasting:
                self._connection.detach()
            elif self._connection is not None:
                self._connection.end()

    # -- in --

    async def _read(self, tree: trio.Nursery) -> None:
        """Take message after message, in order, until the peer's end or its first mistake."""
        self._reading.deadline = trio.current_time() + self.config.handshake_timeout
        try:
            while (message := await self._channel.receive()) is not None:
                if not isinstance(message, Request):
                    self._handshake.check_other(message)
                    continue
                await self._answer(message, tree)
                await self._outbox.wait_room()
            self._hung_up()
        except ProtocolError as error:
            if isinstance(error, CutOffError) and self.config.resume_grace > 0:
                self._hung_up()
            else:
                self._refuse(error)

    async def _answer(self, request: Request, tree: trio.Nursery) -> None:
        """Answer a request, or have it answered by a task where it has to wait for something."""
        try:
            answer = await self._handle(request)
        except Exception as error:
            self._outbox.put(self._failure(request, error))
            return
        if isinstance(answer, Struct):
            self._outbox.put(Response(request.id, answer))
        else:
            self._in_flight += 1
            tree.start_soon(self._finish, request, answer)

    async def _handle(self, request: Request) -> Answer:
        """Do everything of a request that happens at once. Raises whatever is to be answered."""
        method = METHODS.get(request.method)
        if method is None:
            raise UnknownMethodError(f"unknown method `{request.method}`", method=request.method)
        params = decode_params(request.params, method.params)
        self._handshake.check_request(method)
        if isinstance(params, Initialize):
            return await self._greet(params)
        handler = HANDLERS[request.method]
        bound = self.config.requests_in_flight
        if handler.waits and self._in_flight >= bound:
            raise BusyError(f"requests_in_flight ({bound}) are waiting", limit="requests_in_flight", value=bound)
        return handler.run(self, params)

    async def _greet(self, params: Initialize) -> Initialized:
        """Attach to a new connection, or to the one to be resumed: nothing else can be handled before."""
        if params.resume_session_id is None:
            connection = await self._connections.open()
        else:
            connection = self._connections.find(params.resume_session_id)
        connection.attach(self._outbox)
        self._connection, self.sessions = connection, connection.sessions
        self._reading.deadline = math.inf
        self._handshake.greeted()
        return Initialized(connection.id, tell_of_environment(self, Unit()), PROTOCOL_VERSION)

    async def _finish(self, request: Request, answer: Later[Struct]) -> None:
        """Answer a request when the rest of its handler is done."""
        try:
            self._outbox.put(Response(request.id, await answer))
        except Exception as error:
            self._outbox.put(self._failure(request, error))
        finally:
            self._in_flight -= 1

    def _failure(self, request: Request, error: Exception) -> Failure:
        """Return the answer to a request that was refused, or that hit a fault of ours."""
        if not isinstance(error, RequestError):
            logger.error("internal error in %s", request.method, exc_info=error)
            error = InternalError(f"internal error in `{request.method}`: {type(error).__name__}")
        code, message, data = error.to_wire()
        most = _ERROR_TEXT_CHARACTERS
        data = {name: value[:most] if isinstance(value, str) else value for name, value in data.items()}
        return Failure(request.id, ErrorObject(code, message[:most], data))

    # -- out --

    async def _write(self) -> None:
        """Send what the outbox gives, one message after the other. A peer that is gone ends the conversation."""
        try:
            while True:
                await self._channel.send(await self._outbox.take())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone()

    # -- ends --

    def _refuse(self, error: ProtocolError) -> None:
        """Tell the peer in which way it broke the protocol, as the last word."""
        text = str(error)[:_ERROR_TEXT_CHARACTERS]
        logger.warning("ending a connection: %s", text)
        self._goodbye = error
        self._outbox.put(Failure(None, ErrorObject(error.code, text, {"kind": error.kind})))

    def _hung_up(self) -> None:
        """Note that the peer is gone, or says no more."""
        self._has_left = True
        self._goodbye = ProtocolError("", close_code=1000)

    def _gone(self) -> None:
        """Stop: the peer can be neither heard nor told anything."""
        self._hung_up()
        self._outbox.close()
        self._reading.cancel()

    async def _watch(self) -> None:
        """End the conversation when the peer is gone without a word."""
        await self._channel.wait_gone(self.config.ping_interval, self.config.ping_timeout)
        logger.warning("a peer does not answer any more")
        self._gone()

    async def _stop(self) -> None:
        """End the conversation when the server is to end."""
        await self._connections.stopping.wait()
        self._reading.cancel()

    async def _end_sessions(self) -> None:
        """End all that runs, and tell the peer as long as it listens, but wait for no slow reader."""
        if self._connection is None or self._outbox.closed:
            return
        stopping = self._connections.stopping.is_set()
        grace = self.config.shutdown_grace_period if stopping else 0.0
        self.sessions.terminate_all("shutdown" if stopping else "disconnected", grace)
        with trio.move_on_after(grace + self.config.flush_timeout):
            await self.sessions.wait_over()
            await self._outbox.wait_empty()
