"""One connection over one channel, without a listener: on stdio, and inside another program."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from execsrv._doors.principal import Identify, owner
from execsrv._nursery import open_helpers, owned
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connections import open_connections
from execsrv._server.conversation import Conversation
from execsrv._wire.channel import MessageChannel
from execsrv.limits import DEFAULTS, ServerConfig


async def serve_connection(
    channel: MessageChannel,
    supervisor: Supervisor,
    config: ServerConfig = DEFAULTS,
    *,
    identify: Identify = owner,
    origin: str = "this program",
    shutdown_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
    hurry_trigger: Callable[[], Awaitable[object]] = trio.sleep_forever,
) -> None:
    """Serve one peer until it hangs up, or until the trigger returns. Takes ownership of the channel.

    When `hurry_trigger` returns as well, what runs is not waited for.

    `origin` is where the peer comes from, for the journal. Nothing can be resumed, since there is no other channel; the
    peer may have all that there is. Cancelling ends all of its sessions and closes the channel.
    """
    config = replace(config, resume_grace=0, max_keep=0, handshake_timeout=math.inf, principal_percent=100)

    async def stop() -> None:
        await shutdown_trigger()
        await connections.drain(hurry_trigger)
        await connections.stop()

    async with open_connections(supervisor, config) as connections, open_helpers() as nursery:
        connections.accepts = True
        nursery.start_soon(owned, stop)
        await Conversation(channel, connections, identify, origin=origin).run()
