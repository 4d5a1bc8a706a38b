"""The settings of a server for connections: how many there may be, and when one of them is lost."""

# No `from __future__ import annotations`: `dataclasses.fields` is to give the types themselves, not their text.

from typing import Annotated

from msgspec import Meta

from execsrv._setting_units import CONNECTIONS, Count, Seconds
from execsrv.limits.group import Settings, group


@group(frozen=True, kw_only=True)
class ConnectionSettings(Settings):
    """A part of `ServerConfig`."""

    max_connections: Annotated[
        Count, CONNECTIONS, Meta(ge=1, description="Connections that the server keeps at once. One more is refused.")
    ] = 256

    max_connections_per_principal: Annotated[
        Count,
        CONNECTIONS,
        Meta(ge=1, description="As many of them may be of one user, token or certificate. One more is refused."),
    ] = 192

    max_handshakes: Annotated[
        Count,
        CONNECTIONS,
        Meta(
            ge=1,
            description="Peers that have connected and not said who they are. One more replaces"
            " another: of the address or the user that has most of them, the one that has waited longest.",
        ),
    ] = 128

    idle_connection_timeout: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(
            ge=0,
            description="How long a connection may say nothing that has no sessions and waits for nothing: no answer,"
            " HTTP body or watch, and nobody's coming or going. Then its channel ends. At 0, for as long as it likes.",
        ),
    ] = 0.0

    requests_in_flight: Annotated[
        Count,
        CONNECTIONS,
        Meta(
            ge=1,
            description="Requests of one connection that may wait at once (for output, for a program that reads). One"
            " more that might have to is answered `busy`.",
        ),
    ] = 256

    ping_interval: Annotated[
        Seconds, CONNECTIONS, Meta(gt=0, description="How often a websocket's client is asked for a sign of life.")
    ] = 20.0

    ping_timeout: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(gt=0, description="How long the client may leave that unanswered. Then its channel ends."),
    ] = 20.0

    max_keep: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(
            ge=0,
            description="The longest time for which a client may have its connection kept without a channel (`keep`)."
            " At 0, none is kept.",
        ),
    ] = 7 * 86400.0

    max_kept: Annotated[
        Count,
        CONNECTIONS,
        Meta(
            ge=0,
            description="Connections that may be there with `keep`. One more is refused. One principal may have"
            " `principal_percent` of them.",
        ),
    ] = 64

    resume_grace: Annotated[
        Seconds,
        CONNECTIONS,
        Meta(
            ge=0,
            description="How long a connection waits for a new channel when it has lost its own, with all its sessions"
            " running. At 0, hanging up is cancelling.",
        ),
    ] = 0.0
