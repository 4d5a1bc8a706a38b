"""Accepting peers, on a machine that may have no descriptors left. Who they are is asked elsewhere."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from execsrv._doors.newcomers import Door
from execsrv._nursery import contain

logger = logging.getLogger(__name__)

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_NO_ROOM_SECONDS = 0.1

_SPARE_DESCRIPTORS = 16
"""So many are not left to silent peers: it takes some to find out who a peer is, and to serve it."""


async def accept(
    listener: trio.SocketListener,
    peers: trio.Nursery,
    what: str,
    serve: Callable[[trio.SocketStream], Awaitable[None]],
    door: Door,
    single: bool = False,
) -> None:
    """Accept peers for ever, with `single` instead of each other. The log calls what fails `what`.

    Where the machine has no room for one, it takes the place of one at the door, and waits where nobody is.
    """
    former: trio.SocketStream | None = None
    while True:
        # Without this, the last descriptor would be missed, and its peer hung up on, though nobody else has come.
        await trio.lowlevel.wait_readable(listener.socket)
        try:
            peer = await listener.accept()
            if single:
                if former is not None:
                    with suppress(OSError):
                        former.socket.shutdown(trio.socket.SHUT_RDWR)
                former = peer
            missing = _missing_descriptors(peer.socket.fileno())
            if missing > 0:
                await door.make_descriptors(missing, "few descriptors are left", _NO_ROOM_SECONDS)
            peers.start_soon(contain, what, serve, peer)
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_ROOM:
                raise
            why = os.strerror(getattr(error, "errno", errno.ENOMEM))
            logger.warning("cannot accept a peer yet: %s", why)
            if not await door.make_descriptors(_SPARE_DESCRIPTORS, why, _NO_ROOM_SECONDS):
                await trio.sleep(_NO_ROOM_SECONDS)


def _missing_descriptors(newest: int) -> int:
    """Return how many descriptors are to be let go of, so that some are spare, 0 where the limit cannot be read."""
    try:
        return newest + 1 + _SPARE_DESCRIPTORS - resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except OSError:  # a machine that refuses `prlimit64`: then `accept` says when there are no more
        return 0
