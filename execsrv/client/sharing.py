"""The connections of a server that this one may see: listing and joining them, letting others in."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

from execsrv.client.attaching import NOW, attached_to_other, attached_to_own
from execsrv.client.connection import Connection
from execsrv.client.leaving import take_leave
from execsrv.client.parameters import seconds, string
from execsrv.client.process import Process
from execsrv.client.text import process_text
from execsrv.errors import InvalidParamsError, UnknownConnectionError
from execsrv.protocol import (
    ConnectionEnd,
    ConnectionGrant,
    ConnectionGranted,
    ConnectionId,
    ConnectionJoin,
    ConnectionJoined,
    ConnectionList,
    ConnectionPresence,
    ConnectionRevoke,
    ConnectionRevoked,
    JoinRole,
    ListedConnection,
    ListedProcess,
    Nothing,
    ProcessList,
    ProcessListing,
)
from execsrv.protocol.ceilings import Ceiling, Ceilings, CeilingsAsked

After = int | Literal["now"] | None
"""The entry of a log after which to begin. None: all that is retained. "now": what comes from now on."""


class Joined:
    """A connection that was joined. Made by `Client.join`; left with that block."""

    def __init__(self, connection: Connection, answer: ConnectionJoined) -> None:
        self._connection = connection
        self._answer = answer

    def __repr__(self) -> str:
        return f"<Joined {self.id} as {self.role}>"

    @property
    def id(self) -> str:
        """Number of the connection."""
        return self._answer.connection_id

    @property
    def name(self) -> str | None:
        """Name of the connection, None where it has none."""
        return self._answer.name

    @property
    def role(self) -> JoinRole:
        """Role in which it was joined."""
        return self._answer.role

    @property
    def member_id(self) -> str:
        """Name of this client among those who have joined."""
        return self._answer.member_id

    async def processes(self, *, usage: bool = False) -> list[ListedProcess]:
        """Return every process of the connection that the server still knows, oldest first.

        With `usage`, each has what it takes of processors and memory; a value that one lacks is `msgspec.UNSET`.
        """
        return await _listed(self._connection, ProcessListing(self.id, usage=usage))

    def attach(
        self,
        process: str,
        *,
        after: After = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> AbstractAsyncContextManager[Process]:
        """Attach to a process of the connection, for a block: as a `Process`, with all that the role allows.

        It begins after entry `after` of its output, by default with all that is retained; "now" is only what comes.
        Nobody waits for a reader here: if it is too slow, it gets a `Gap` among the events, and everything else goes
        on. Leaving the block leaves the process as it is. `text`, `encoding` and `errors` are those of `start`.

        Raises `UnknownProcessError`.
        """
        id, mode = string("process", process), process_text(text, encoding, errors)
        return attached_to_other(self._connection, self._answer, id, _after_seq(after), mode)

    async def end(self) -> None:
        """End the connection, with all that runs there. Takes the role owner."""
        await self._connection.calls.call("connection/end", ConnectionEnd(self.id), Nothing)


class Sharing:
    """A client as it sees other connections, and is seen."""

    _connection: Connection

    @property
    def shared_id(self) -> str | None:
        """Number under which others find this connection, None where it has no name and is not kept."""
        id = self._connection.greeting.connection_id
        return id if isinstance(id, str) else None

    async def connections(self) -> list[ListedConnection]:
        """Return the connections that this client may join, and its own, oldest first."""
        return (await self._connection.calls.call("connection/list", Nothing(), ConnectionList)).connections

    async def processes(
        self, *, all: bool = False, connection: str | None = None, usage: bool = False
    ) -> list[ListedProcess]:
        """Return every process of this connection that the server still knows, oldest first.

        Those of another `connection` instead, by name or number, or with `all` those of all that this client may join.
        With `usage`, each has what it takes of processors and memory; a value that one lacks is `msgspec.UNSET`.
        """
        params = ProcessListing(connection, all, usage)
        return await _listed(self._connection, params)

    @asynccontextmanager
    async def join(
        self, connection: str, role: JoinRole = "viewer", *, grant: str | None = None
    ) -> AsyncIterator[Joined]:
        """Join another connection for a block, by its name or its number.

        A "viewer" reads its processes. A "writer" types, resizes and signals too. An "owner" may also end it. Whoever
        is of another user or token has to be given a grant there; `grant` is the secret of one that names nobody.

        Raises `UnknownConnectionError`, also for what is not to be seen, `ForbiddenError` and `LimitExceededError`.
        """
        calls = self._connection.calls
        params = ConnectionJoin(string("connection", connection), role, grant)
        joined = Joined(self._connection, await calls.call("connection/join", params, ConnectionJoined))
        try:
            yield joined
        finally:
            # Or it has ended, or we were put out.
            await take_leave(calls, "connection/leave", ConnectionId(joined.id), self._connection.config.leave_timeout)

    def attach(
        self,
        process: str,
        *,
        after: After = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> AbstractAsyncContextManager[Process]:
        """Attach to a process of this connection that was left running, for a block, as a `Process`.

        It begins after entry `after` of its output, by default with all that is retained; "now" is only what comes.
        Its output waits for the reader here. Leaving the block leaves the process as it is. `text`, `encoding` and
        `errors` are those of `start`.

        Raises `UnknownProcessError`.
        """
        id, mode = string("process", process), process_text(text, encoding, errors)
        return attached_to_own(self._connection, id, _after_seq(after), mode)

    async def grant(
        self,
        role: Literal["viewer", "writer"] = "viewer",
        *,
        principal: str | None = None,
        expires: float | None = None,
        connection: str | None = None,
    ) -> ConnectionGranted:
        """Let somebody join this connection, or another one of the same user or token.

        Either the named `principal`, as it is in the list of connections ("uid 1000", "token ci"), or whoever has the
        `secret` of the answer. After `expires` seconds the grant is over, and whoever came in by it has to leave.
        """
        lasting = None if expires is None else math.ceil(seconds("expires", expires))
        params = ConnectionGrant(role, connection, principal, lasting)
        return await self._connection.calls.call("connection/grant", params, ConnectionGranted)

    async def revoke(
        self, grant_id: str | None = None, *, member_id: str | None = None, connection: str | None = None
    ) -> int:
        """Take a grant back, or remove a member who has joined. Return how many have to leave.

        The result is also 0 if the answer was lost with a channel: then it was done, but how many had to leave is not
        known.
        """
        calls = self._connection.calls
        asked = await calls.post("connection/revoke", ConnectionRevoke(grant_id, member_id, connection))
        try:
            return (await calls.answer_to(asked, ConnectionRevoked)).left
        except InvalidParamsError:
            if not asked.repeated or (grant_id is None) == (member_id is None):
                raise
            return 0  # there no more: the first one, whose answer was lost, was heard

    async def end_connection(self, connection: str) -> None:
        """End another connection of the same user or token, with all that runs there. Its name is free at once."""
        calls = self._connection.calls
        asked = await calls.post("connection/end", ConnectionEnd(string("connection", connection)))
        try:
            await calls.answer_to(asked, Nothing)
        except UnknownConnectionError:
            if not asked.repeated:
                raise

    async def limits(self) -> list[Ceiling]:
        """Return the ceilings of the server, with what is in use of each.

        What others use is reported only to an owner.
        """
        return (await self._connection.calls.call("server/limits", CeilingsAsked(), Ceilings)).limits

    def presence(self) -> AsyncIterator[ConnectionPresence]:
        """Iterate over who comes and goes, here and in connections that were joined, from this call on.

        A slow reader misses some of it; `connections` has who is there.
        """
        return self._connection.new_presence()


async def _listed(connection: Connection, params: ProcessListing) -> list[ListedProcess]:
    return (await connection.calls.call("process/list", params, ProcessList)).processes


def _after_seq(after: After) -> int | None:
    if after == "now":
        return NOW
    if after is not None and (not isinstance(after, int) or isinstance(after, bool) or after < 0):
        raise InvalidParamsError(f'after must be a number of an entry, "now" or None, got {after!r}', field="after")
    return after
