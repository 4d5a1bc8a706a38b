"""Whose server is at the other end of a line on this machine that has no TLS, by the word of the kernel.

Every user may take a port that a server has left, and would get all that a client says: its token, its commands, what
they read.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial

import trio

from execsrv._threads import run_in_thread
from execsrv._wire import inet_diag
from execsrv.errors import BusyError, ConnectionFailedError

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.0005, 0.02
"""The time between two looks at a connection that nobody has accepted so far: nothing tells when somebody has."""


async def check_server(stream: trio.SocketStream, server_uids: Collection[int]) -> None:
    """Wait until a server has accepted. Raises `ConnectionFailedError` for that of another user.

    It has to be this user's, root's or one of `server_uids`. A server whose user the machine does not tell is taken: it
    is in another network namespace, as behind the forwarded port of a container.
    """
    limiter = trio.CapacityLimiter(1)
    theirs, ours = stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
    look = partial(inet_diag.holder, theirs, ours, even_unheld=True)
    pause = _FIRST_PAUSE_SECONDS
    try:
        while (holder := await run_in_thread(look, limiter)) is not None and not holder.inode:
            await trio.sleep(pause)  # as long as it waits to be accepted, it is nobody's
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    except BusyError as error:
        raise ConnectionFailedError(f"cannot look whose server it is: {error}") from error
    if holder is not None and holder.uid not in (os.geteuid(), 0) and holder.uid not in server_uids:
        raise ConnectionFailedError(f"another user (uid {holder.uid}) listens there")
