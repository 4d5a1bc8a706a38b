"""Room for what a peer sends: where its budget is used up, no more is read until others have given back."""

from __future__ import annotations

import trio

from execsrv._wire.bounds import MessageBound

_PATIENCE = 10.0
"""So long a peer is kept waiting. Then it is hung up on: others may be waiting in the same way for what it holds."""

_AGAIN_SECONDS = 0.05


async def wait_for_room(bound: MessageBound) -> None:
    """Wait until what has come in is paid for. Raises `ProtocolError`."""
    with trio.move_on_after(_PATIENCE):
        while not bound.is_paid():  # noqa: ASYNC110  # a budget wakes nobody: whoever gives back knows of no one
            await trio.sleep(_AGAIN_SECONDS)
        return
    raise bound.unpaid()
