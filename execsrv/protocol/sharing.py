"""`connection/*`: connections that others may see and join, in roles."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from execsrv.protocol.bounds import Id, Name
from execsrv.protocol.listing import ConnectionRef
from execsrv.protocol.messages import Told, Wire

JoinRole = Literal["viewer", "writer", "owner"]
"""A viewer reads. A writer types, resizes and signals too. An owner may also let others in, and end the connection."""

SizePolicy = Literal["owner", "smallest", "latest"]
"""Whose size a terminal has where several look at it: the owner's, the smallest, or that of who said one last."""

Coming = Literal["joined", "left", "revoked", "ownerLeft", "ownerBack", "ended"]
"""Words for what a connection's presence tells."""

MOST_NAME_CHARACTERS = 64

Keep = Annotated[int, Meta(ge=1, le=2**53)] | Literal["untilIdle"]
"""Seconds for which a connection goes on without its channel, or as long as there is anything to come back for."""

Seconds = Annotated[int, Meta(ge=1, le=2**53)]


class JoinedMember(Wire, frozen=True):
    """Somebody who has joined a connection."""

    member_id: str
    principal: str
    client_name: str
    role: Told[JoinRole]


class ListedConnection(Wire, frozen=True):
    """One line of `connection/list`."""

    connection_id: str
    name: str | None
    principal: str
    """Whose it is."""
    client_name: str
    role: Told[JoinRole]
    """The most that the asker may be there."""
    is_own: bool
    """True for the connection that asks."""
    attached: bool
    """True while its owner is there."""
    keep: Seconds | Told[Literal["untilIdle"]] | None
    age_ms: int
    ends_in_ms: int | None
    """The time at which it ends unless its owner comes back, None while that one is there."""
    running: int
    """Its processes that run."""
    ended: int
    """Its processes that have ended, and can still be read."""
    members: list[JoinedMember]


class ConnectionList(Wire, frozen=True):
    """The connections that the asker may join, and its own, oldest first."""

    connections: list[ListedConnection]


class ConnectionJoin(Wire, frozen=True):
    """Join a connection, in a role. To join it again changes the role."""

    connection: ConnectionRef
    role: JoinRole = "viewer"
    grant: Annotated[str, Meta(max_length=256)] | None = None
    """The secret of a grant, for a client that has no other right to be there."""


class ConnectionJoined(Wire, frozen=True):
    """The connection that was joined."""

    connection_id: str
    name: str | None
    member_id: str
    role: Told[JoinRole]
    members: list[JoinedMember]


class ConnectionId(Wire, frozen=True):
    """Names a connection."""

    connection: ConnectionRef


class ConnectionEnd(Wire, frozen=True):
    """End a connection."""

    connection: ConnectionRef | None = None
    """None: this one, in order, as soon as its channel has ended."""


class ConnectionGrant(Wire, frozen=True):
    """Let somebody join a connection: a principal by its name, or whoever has the secret of the answer."""

    role: Literal["viewer", "writer"]
    connection: ConnectionRef | None = None
    """None: this one."""
    principal: Name | None = None
    expires_seconds: Seconds | None = None


class ConnectionGranted(Wire, frozen=True):
    """A grant. `secret` is empty where a principal was named."""

    grant_id: str
    connection_id: str
    role: Told[JoinRole]
    secret: str = ""


class ConnectionRevoke(Wire, frozen=True):
    """Take a grant back, or remove a member who has joined. Whoever came in by the grant has to leave."""

    grant_id: Id | None = None
    member_id: Id | None = None
    connection: ConnectionRef | None = None
    """None: this one."""


class ConnectionRevoked(Wire, frozen=True):
    """The number of those who had to leave."""

    left: int


class ConnectionPresence(Wire, frozen=True):
    """<- somebody came to a connection or left it; or its owner did; or it has ended."""

    connection_id: str
    happened: Told[Coming]
    member: JoinedMember | None = None
