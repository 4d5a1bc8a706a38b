"""Telling a server what is not needed any more: a reader, an open file, a watch. It is told, and nobody is held up."""

from __future__ import annotations

from contextlib import suppress

import trio
from msgspec import Struct

from execsrv._nursery import happened
from execsrv._wire.channel import MessageChannel
from execsrv.client.calls import Calls
from execsrv.errors import RequestError
from execsrv.protocol import ConnectionEnd, Request

_LAST_ID = 0
"""Other requests are counted from 1."""


async def take_leave(calls: Calls, method: str, params: Struct, patience: float) -> None:
    """Tell the server, and wait for its answer, whatever that is, for `patience` seconds at most. Cannot be cancelled.

    What cannot be sent in that time is sent as soon as it can be, on this channel or the next: until then the server
    keeps what it has for us, and may wait for us.
    """
    if calls.lost is not None:
        return  # the server lets go of it with the connection
    try:
        asked = calls.ask_overdue(method, params)
    except RequestError:
        return  # what no server takes, none can have
    if calls.is_interrupted:
        return
    with trio.move_on_after(patience, shield=True):
        await happened(asked.answered)


async def leave_for_good(channel: MessageChannel) -> None:
    """Tell the server, as the last thing on a channel, that nobody comes back for the connection. It may be gone."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await channel.send(Request(_LAST_ID, "connection/end", ConnectionEnd()))
