"""One connection is one nursery: the sessions of one peer.

    Connection.run             outlives its channel by `resume_grace` at most
    ├─ _stop                   ends it in order with the server, where no conversation does
    ├─ _go_on_alone            while it is kept without a channel
    ├─ Sessions._forget_ended  lets go of ended sessions
    └─ session, session, ...   `Session.run`: a nursery each

The conversation (`conversation.py`) belongs to a channel, and a channel can be replaced. A connection that has lost its
own goes on for the grace, and whoever names its id takes it over. With a grace of 0, hanging up is cancelling. However
a connection ends, its nursery is cancelled, and a session that is cancelled ends its processes: it asks them, and kills
what is left after its grace. There is no other clean-up.
"""

from __future__ import annotations

import math
import uuid

import trio
from msgspec import UNSET, UnsetType

from execsrv._budget.allowance import Allowance
from execsrv._doors.principal import Principal
from execsrv._nursery import open_helpers, owned
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connection_names import Directory
from execsrv._server.outbox import Outbox
from execsrv._server.sessions import Sessions
from execsrv._server.sharing import NO_TERMS, Terms
from execsrv._server.visits import Visits
from execsrv.errors import AlreadyAttachedError, UnknownConnectionError
from execsrv.limits import ServerConfig


class Connection:
    """The sessions of one peer, whatever channel it has at the moment. Owns every one of them, through its nursery.

    `id` is a secret between the server and the peer, and nobody but its `principal` may resume it, in no lesser role.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        config: ServerConfig,
        stopping: trio.Event,
        principal: Principal,
        allowance: Allowance,
        terms: Terms = NO_TERMS,
        directory: Directory | None = None,
    ) -> None:
        """`stopping` is set when the server is to end in order. The `allowance` is its principal's.

        It is in the `directory` from now on: `close` must follow.
        """
        self.allowance = allowance
        self.id = str(uuid.uuid4())
        self.visits = Visits(principal, terms.client_name, allowance.for_connections)
        self.sessions = Sessions(supervisor, config, allowance, self.visits.by_id)
        self._life = trio.CancelScope()
        self.shared = (directory or Directory()).add(principal, self.sessions, self.visits, terms, self._life)
        self._config = config
        self._stopping = stopping
        self._outbox: Outbox | None = None
        self._detached = trio.lowlevel.ParkingLot()
        self._without_channel = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._ended = False

    def __repr__(self) -> str:
        waits = self.deadline < math.inf
        state = "ended" if self._ended else "attached" if self._outbox else "waiting" if waits else "new"
        return f"<Connection {state} sessions={len(self.sessions)}>"

    @property
    def principal(self) -> Principal:
        """Whose it is, in the role of who was the last to take it up."""
        return self.visits.principal

    @property
    def deadline(self) -> float:
        """The time at which it ends unless it is resumed, infinite while it has a channel."""
        return self._life.deadline

    @property
    def is_empty(self) -> bool:
        """True where it has no session: none that runs, is being started, or can still be read."""
        return not len(self.sessions) and not self.sessions.being_started()

    @property
    def is_shared(self) -> bool:
        """True where others are here, or may come by a grant, or where it has joined others."""
        return bool(self.shared.members or self.shared.grants or self.visits.members)

    @property
    def is_waiting_for_nothing(self) -> bool:
        """True where it waits to be resumed, and has nothing to come back for. It is neither kept nor shared."""
        is_kept = self.shared.terms.keep is not None
        return self.deadline < math.inf and self.is_empty and not is_kept and not self.is_shared

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the sessions until it is ended, or was without a channel for the grace. Then all of them end."""
        try:
            async with open_helpers() as nursery:
                self._nursery = self.shared.nursery = nursery
                self.sessions.open(nursery)
                nursery.start_soon(owned, self._stop)
                task_status.started()
                try:
                    with self._life:
                        await trio.sleep_forever()
                finally:
                    self._ended = True
                    self.sessions.close()
                    if self._outbox is not None:
                        self._outbox.close()
        finally:
            await self.sessions.end_rest()

    def attach(self, outbox: Outbox) -> None:
        """Tell the peer there what happens from now on.

        Raises `AlreadyAttachedError` while another outbox is attached, whose peer then has to show that it is there.
        Raises `UnknownConnectionError` once its sessions are ending.
        """
        if self._life.cancel_called:
            raise UnknownConnectionError(f"unknown session id {self.id}")
        if self._outbox is not None:
            self._outbox.doubt()
            raise AlreadyAttachedError(f"session {self.id} is already attached to another connection")
        self._outbox = outbox
        self._without_channel.cancel()
        is_back = self._life.deadline < math.inf
        self._life.deadline = self.shared.ends_at = math.inf
        self.visits.attach(outbox)
        self.sessions.attach(outbox)
        if is_back:
            self.shared.tell("ownerBack")
        self.shared.owner = self.visits

    def detach(self) -> None:
        """Go on without a channel. A new one may come within the grace, or for as long as it is to be kept."""
        self._outbox = None
        keep = self.shared.terms.keep
        kept = 0 if keep is None else self._config.max_keep if keep == "untilIdle" else keep
        self._life.deadline = self.shared.ends_at = trio.current_time() + max(self._config.resume_grace, kept)
        self._detached.unpark_all()
        self.sessions.detach()
        self.visits.detach_all()
        self.shared.owner = None
        self.shared.sizes.leave_all(self.visits)
        self.shared.tell("ownerLeft")
        if kept and not self._ended and self._nursery is not None:
            self._without_channel = trio.CancelScope()
            self._nursery.start_soon(owned, self._go_on_alone, self._without_channel)

    @property
    def grace_ms(self) -> int | UnsetType:
        """The time for which it waits for a new channel, as its client is told."""
        return round(self._config.resume_grace * 1000) or UNSET

    @property
    def may_last(self) -> bool:
        """True where it goes on without a channel, for the grace or because its client has asked for that."""
        is_kept = self._config.resume_grace > 0 or self.shared.terms.keep is not None
        return is_kept and not self.shared.ends_with_channel

    async def _go_on_alone(self, scope: trio.CancelScope) -> None:
        """Have its sessions wait for nobody once the grace is over. End when it is idle, where that was asked for."""
        with scope:
            await trio.sleep(self._config.resume_grace)
            self.sessions.let_run()
            if self.shared.terms.keep == "untilIdle":
                await self.sessions.wait_forgotten()
                self.end()

    def end(self) -> None:
        """End all that runs, and let go of it. Its name is free at once."""
        self._life.cancel()

    def close(self) -> None:
        """Leave the directory, and everything that it has joined."""
        self.shared.directory.remove(self.shared)
        self._nursery = None
        self.visits.close()

    async def _stop(self) -> None:
        """End in order with the server, as soon as there is no channel: with one, the conversation does it."""
        await self._stopping.wait()
        while self._outbox is not None:
            await self._detached.park()
        await self.sessions.shut_down(self._config.shutdown_grace_period)
        await self.sessions.wait_over()
        self.end()
