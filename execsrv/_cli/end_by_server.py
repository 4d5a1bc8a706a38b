"""The end of a command that a server brings about, or that cannot be heard of, since the connection is interrupted."""

from __future__ import annotations

import trio

from execsrv.client import Client
from execsrv.client.inside import connection_of

ENDED_BY_SERVER = {
    "disconnected": "the server ended the command with the connection",
    "shutdown": "the server ended the command because it is shutting down",
}

_BACK_SECONDS = 1.0
"""Time that an interrupted connection has to come back."""


async def until_unheard(client: Client) -> None:
    """Wait until the connection is interrupted, and does not come back soon."""
    connection = connection_of(client)
    while True:
        await connection.wait_interrupted(True)
        with trio.move_on_after(_BACK_SECONDS) as patience:
            await connection.wait_interrupted(False)
        if patience.cancelled_caught:
            return
