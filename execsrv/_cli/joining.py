"""A server that is in a file of servers as long as it takes connections, so that pools find it: `serve --join FILE`."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from urllib.parse import urlsplit

import trio

from execsrv._threads import run_in_thread
from execsrv._wire.urls import is_unix_url, parse_unix
from execsrv.directories import Endpoint
from execsrv.directories.joined import join, leave
from execsrv.errors import ExecsrvError, InvalidConfigError

logger = logging.getLogger(__name__)

_LEAVE_SECONDS = 5.0
"""Time that a slow disk has to take us out of the file."""


async def keep_joined(
    path: str,
    labels: Iterable[tuple[str, str]],
    wait_listening: Callable[[], Awaitable[str]],
    wait_ending: Callable[[], Awaitable[None]],
) -> None:
    """Be in the file from the moment in which the server listens to that in which it ends. Raises `ExecsrvError`."""
    endpoint = Endpoint(url_for_others(await wait_listening()), labels=dict(labels))
    thread = trio.CapacityLimiter(1)
    is_in = True  # or will be: a thread that joins goes on when we are cancelled
    try:
        try:
            await run_in_thread(partial(join, path, endpoint), thread)
        except (OSError, InvalidConfigError) as error:
            is_in = False
            raise ExecsrvError(f"cannot join `{path}`: {getattr(error, 'strerror', None) or error}") from error
        logger.info("joined %s as %s", path, endpoint.url)
        await wait_ending()
    finally:
        if is_in:
            await _leave(path, endpoint.url, thread)


async def _leave(path: str, url: str, thread: trio.CapacityLimiter) -> None:
    why: object = f"that takes more than {_LEAVE_SECONDS:g} s"
    with trio.move_on_after(_LEAVE_SECONDS, shield=True):
        try:
            await run_in_thread(partial(leave, path, url), thread)
            why = None
        except (OSError, ExecsrvError) as error:
            why = error
    if why is not None:
        logger.warning("cannot leave %s: %s", path, why)


def url_for_others(url: str) -> str:
    """Return the URL at which others reach a server. One on every address is reached by the machine's name."""
    if is_unix_url(url):
        return f"unix://{os.path.abspath(parse_unix(url))}"  # whoever reads it may be in another directory
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in ("ws", "wss") and ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        return f"{parts.scheme}://{socket.gethostname()}:{parts.port}"
    return url
