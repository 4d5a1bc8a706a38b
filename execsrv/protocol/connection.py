"""The handshake: the first request of every connection, and its answer."""

from __future__ import annotations

from execsrv.protocol.host import EnvironmentInfo
from execsrv.protocol.messages import Id, Wire


class Initialize(Wire, frozen=True):
    """The first request of every connection."""

    client_name: str
    resume_session_id: Id | None = None


class Initialized(Wire, frozen=True):
    """The answer to `initialize`. `session_id` names the connection, not a process: what it takes to resume it.

    `protocol_version` is empty where the server is not execsrv.
    """

    session_id: str
    environment_info: EnvironmentInfo
    protocol_version: str = ""
