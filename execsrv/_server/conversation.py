"""The conversation with a peer over one channel: requests in, answers and notifications out.

    Conversation.run
    ├─ reader (_read)               takes requests in order, waits for no handler
    ├─ Dispatch._finish, one for each request that has to wait
    ├─ Relay._stream, one for each HTTP body that is streamed
    ├─ writer (_write)              sends what is not sent at once; pulls from the outbox
    ├─ _watch                       for a peer that is gone without a word
    ├─ _bound_silence               for a peer that says nothing and waits for nothing, where that is bounded
    ├─ _prove                       the same at once, when somebody else wants its connection
    └─ _stop                        when the server ends in order

From `initialize` on it belongs to a connection, a new one or one that has lost its channel. When the channel is at its
end, so is the connection; or it waits for another channel, where the server's settings have it so and the peer broke no
rule. Cancelling closes the channel, saying that the server goes away.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from execsrv._budget.allowance import Allowance
from execsrv._doors.principal import Identify, Principal
from execsrv._files.channel import open_files
from execsrv._http.channel import open_http
from execsrv._nursery import is_cancelled, open_helpers, owned
from execsrv._policies import rules_of
from execsrv._server.connection import Connection
from execsrv._server.connections import Connections
from execsrv._server.dispatch import Dispatch
from execsrv._server.failures import cut, failure_of
from execsrv._server.handshake import Handshake, State
from execsrv._server.host import environment_info, look_up_account
from execsrv._server.outbox import Outbox, send_all_of
from execsrv._server.sessions import Sessions
from execsrv._server.sharing import Shared, Terms
from execsrv._wire.channel import CLOSED_IN_ORDER, FAILED, GONE_AWAY, MessageChannel
from execsrv._wire.unreadable import UnreadableError
from execsrv.errors import ProtocolError
from execsrv.protocol import (
    PROTOCOL_VERSION,
    ErrorObject,
    Failure,
    Initialize,
    Initialized,
    Notification,
    Request,
    ServerShutdown,
)

if TYPE_CHECKING:
    from execsrv._files.files import Files
    from execsrv._http.relay import Relay

logger = logging.getLogger(__name__)

_PROOF_SECONDS = 5.0
"""The time that a peer has to answer a ping when somebody else wants its connection."""


class Conversation:
    """One peer over one channel, from the first byte to the last.

    It is the `Caller` of the handlers: `sessions` are those of its connection; its files and its relay end with the
    channel.
    """

    principal: Principal
    allowance: Allowance
    sessions: Sessions
    shared: Shared
    files: Callable[[], Files]
    relay: Callable[[], Relay]

    def __init__(
        self,
        channel: MessageChannel,
        connections: Connections,
        identify: Identify,
        greeted: Callable[[], None] = lambda: None,
        origin: str = "",
    ) -> None:
        """`greeted` is called when the peer has said who it is, and was let in. `origin` is where it comes from."""
        self.config = connections.config
        self.passing = channel.passing
        self._channel = channel
        self._connections = connections
        self._identify = identify
        self._greeted = greeted
        self._origin = origin
        self._connection: Connection | None = None
        self.allowance = connections.allowances.server  # until it is known whose
        self._outbox = Outbox(self.config.unread_answer_bytes, channel=channel)
        self._handshake = Handshake()
        self._is_warned = False  # that the server is to end
        self._reading = trio.CancelScope()
        self._heard_at = 0.0
        self._goodbye = ProtocolError("the server is shutting down", GONE_AWAY)
        self._is_lost = False  # the channel is, by a hang-up, an accident, or a mistake of the peer

    def __repr__(self) -> str:
        return f"<Conversation {self._handshake.state.name} {self._connection}>"

    async def run(self) -> None:
        """Speak until one side ends it, and close the channel, which it takes ownership of.

        What was asked before the peer stopped sending is still answered, as far as it needs no waiting; and where its
        commands end with it, a peer that still listens is told how.
        """
        try:
            # Files and relay around the rest: requests are at their end before what they use is closed.
            needed = self.config, lambda: self.allowance, self._outbox.tell, self._outbox.wait_answered
            async with open_files(*needed, rules_of) as (self.files, watches), open_http(*needed) as (self.relay, asks):
                try:
                    await self._converse(lambda: watches() or asks())
                finally:
                    del self.files, self.relay  # which know us, too: all of us would wait for the collector
        finally:
            self._outbox.close()
            with trio.move_on_after(self.config.flush_timeout, shield=True):
                await self._channel.aclose(self._goodbye.close_code, str(self._goodbye))

    async def _converse(self, is_to_tell: Callable[[], bool]) -> None:
        """Hear and answer until one side ends it. Then the connection ends too, or waits for another channel.

        `is_to_tell` returns True while its files or its relay will tell the peer something.
        """
        lasting = False
        dispatch = Dispatch(self, self._handshake, self._greet, self._outbox)
        try:
            async with open_helpers() as tree:
                for task in (self._write, self._watch, self._prove, self._stop):
                    tree.start_soon(owned, task)
                dispatch.open(tree)
                if self.config.idle_connection_timeout:
                    tree.start_soon(owned, self._bound_silence, dispatch, is_to_tell)
                with self._reading:
                    await self._read(dispatch)
                if trio.current_time() >= self._reading.deadline:
                    self._refuse(ProtocolError(f"no `initialize` within {self.config.handshake_timeout} s"))
                lasting = self._is_lost and self._connection is not None and self._connection.may_last
                if not lasting:
                    await self._end_sessions()
                with trio.move_on_after(self.config.flush_timeout):
                    await self._outbox.wait_answered()
        except BaseException:
            if not is_cancelled():  # a fault of ours, which costs no more than the channel
                self._goodbye = ProtocolError("internal error", FAILED)
                lasting = self._connection is not None and self._connection.may_last
            raise
        finally:
            if self._connection is not None and lasting:
                self._connection.detach()
            elif self._connection is not None:
                self._connection.end()

    # -- in --

    async def _read(self, dispatch: Dispatch) -> None:
        """Take message after message, in order, until the peer's end or its first mistake."""
        self._reading.deadline = trio.current_time() + self.config.handshake_timeout
        try:
            while await self._read_one(dispatch):
                await self._outbox.wait_room()
            self._hung_up()
        except ProtocolError as error:
            self._refuse(error)

    async def _read_one(self, dispatch: Dispatch) -> bool:
        """Take one message, and return False where there is none any more. Raises `ProtocolError`."""
        try:
            message = await self._channel.receive()
        except UnreadableError as unreadable:
            self._outbox.put(failure_of(unreadable.id, unreadable.error))
            return True
        if self._outbox.closed:  # its connection has ended, and the writer has had no turn to say so
            return False
        self._heard_at = trio.current_time()
        if isinstance(message, Request):
            await dispatch.answer(message)
        elif message is not None:
            self._handshake.check_other(message)
            if self._connections.draining.is_set():
                self._warn()
        return message is not None

    async def _greet(self, params: Initialize) -> Initialized:
        """Attach to a new connection, or to the one to be resumed: nothing else can be handled before."""
        await look_up_account(self._connections.account_thread)
        principal = self._identify(params.token)
        if params.resume_session_id is None:
            terms = Terms(params.client_name, params.name, params.keep, params.size_policy)
            connection = await self._connections.open(principal, self._origin, terms)
        else:
            connection = self._connections.find(params.resume_session_id, principal)
        connection.attach(self._outbox)
        connection.visits.principal = principal  # a lesser role does not take up what comes of this one
        if params.resume_session_id is not None and connection.sessions.page is not None:
            connection.sessions.page.resumed(self._origin)
        connection.sessions.supervisor.expect_starts()
        self.principal, self._connection, self.sessions = principal, connection, connection.sessions
        self.shared = connection.shared
        self.allowance = connection.allowance
        self._outbox.draw_on(self.allowance.for_messages)
        self._reading.deadline = math.inf
        self._handshake.greeted()
        self._channel.trust(self.allowance.for_messages)
        self._greeted()
        machine = environment_info(self.config, passes=self.passing is not None)
        encoding = self._channel.agree(params.encoding, lambda answer: isinstance(answer.result, Initialized))
        told = connection.shared.public_id, encoding, connection.grace_ms, self.config.max_message_bytes
        return Initialized(connection.id, machine, PROTOCOL_VERSION, *told)

    # -- out --

    async def _write(self) -> None:
        """Send what the outbox gives. A peer that is gone ends the conversation."""
        try:
            await send_all_of(self._outbox, self._channel)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._gone()

    # -- ends --

    def _refuse(self, error: ProtocolError) -> None:
        """Tell the peer in which way it broke the protocol, as the last word on this channel."""
        logger.warning("closing a channel: %s", text := cut(str(error)))
        self._goodbye = error
        self._is_lost = True
        self._outbox.put(Failure(None, ErrorObject(error.code, text, {"kind": error.kind, **error.facts})))

    def _hung_up(self) -> None:
        """Note that the peer is gone, or says no more."""
        self._is_lost = True
        self._goodbye = ProtocolError("", close_code=CLOSED_IN_ORDER)

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

    async def _bound_silence(self, dispatch: Dispatch, is_to_tell: Callable[[], bool]) -> None:
        """End the conversation when the peer has said nothing for too long, and waits for nothing."""
        patience = self.config.idle_connection_timeout
        self._heard_at = trio.current_time()
        while True:
            await trio.sleep_until(self._heard_at + patience)
            own = self._connection
            if own is None or not own.is_empty or own.is_shared or not dispatch.is_idle or is_to_tell():
                self._heard_at = trio.current_time()
            elif trio.current_time() >= self._heard_at + patience:
                self._refuse(ProtocolError(f"idle_connection_timeout ({patience:g} s) is over", GONE_AWAY))
                self._reading.cancel()
                return

    async def _prove(self) -> None:
        """End the conversation when somebody else wants its connection, and the peer does not show that it is there."""
        while True:
            await self._outbox.wait_doubted()
            if not await self._channel.is_alive(_PROOF_SECONDS):
                logger.warning("a peer does not answer, and another one wants its connection")
                self._gone()

    def _warn(self) -> None:
        """Tell a peer that listens, once, that the server is to end, and in which time."""
        if self._handshake.state is State.READY and not self._is_warned:
            self._is_warned = True
            left = max(0.0, self._connections.ends_at - trio.current_time())
            self._outbox.put(Notification("server/shutdown", ServerShutdown(round(left * 1000))))

    async def _stop(self) -> None:
        """End the conversation when the server is to end, after a word about it."""
        await self._connections.draining.wait()
        self._warn()
        await self._connections.stopping.wait()
        self._reading.cancel()

    async def _end_sessions(self) -> None:
        """End all that runs, and tell the peer as long as it listens, but wait for no slow reader."""
        if self._connection is None or self._outbox.closed:
            return
        if self._connections.stopping.is_set():
            await self.sessions.shut_down(grace := self.config.shutdown_grace_period)
        else:
            grace = await self.sessions.hang_up(self.config.hangup_grace)
        with trio.move_on_after(grace + self.config.flush_timeout):
            await self.sessions.wait_over()
            await self._outbox.wait_empty()
