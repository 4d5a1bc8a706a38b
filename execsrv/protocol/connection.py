"""The handshake: the first request of every connection, and its answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from execsrv.protocol.bounds import Id, Name
from execsrv.protocol.host import EnvironmentInfo
from execsrv.protocol.messages import Wire
from execsrv.protocol.sharing import Keep, SizePolicy

MAX_TOKEN_CHARACTERS = 8192

PASS_STREAMS = "passStreams"
"""The capability of a channel over which descriptors can go along."""


class Initialize(Wire, frozen=True):
    """The first request of every connection. `token` says who asks, where no HTTP header could say it before."""

    client_name: Name
    resume_session_id: Id | None = None
    token: Annotated[str, Meta(max_length=MAX_TOKEN_CHARACTERS)] | None = None
    name: Name | None = None
    """What others of the same principal, and those who come back, call the connection."""
    keep: Keep | None = None
    """How long it goes on without a channel. None: hanging up is cancelling."""
    size_policy: SizePolicy = "owner"
    encoding: Name | None = None
    """How messages are to be written after the answer, if the server knows that encoding: "msgpack". None: as JSON."""

    def __repr__(self) -> str:
        """Show everything but the token."""
        return f"Initialize({self.client_name!r}, {'with' if self.token is not None else 'without'} a token)"


class Initialized(Wire, frozen=True):
    """The answer to `initialize`. `session_id` names the connection, not a process: what it takes to resume it.

    `protocol_version` is empty where the server is not execsrv.
    """

    session_id: str
    environment_info: EnvironmentInfo
    protocol_version: str = ""
    connection_id: str | UnsetType = UNSET
    """What others call it, where it has a name or is kept."""
    encoding: str | UnsetType = UNSET
    """How both sides write all that comes after this answer. Absent: as JSON."""
    resume_grace_ms: int | UnsetType = UNSET
    """How long it waits for a new channel. Absent: it ends with its channel."""
    max_message_bytes: int | UnsetType = UNSET
    """The largest message that the server takes. A larger one ends the channel. Absent: not reported."""


class ServerShutdown(Wire, frozen=True):
    """The server was asked to end: it starts nothing any more, and is gone within that time at the latest."""

    time_left_ms: int
