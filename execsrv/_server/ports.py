"""Trying whether somebody listens on a port of this machine."""

from __future__ import annotations

import ipaddress
import socket

import trio

from execsrv._wire.quoting import quoted
from execsrv.errors import InvalidParamsError
from execsrv.protocol import PortWish

_ATTEMPT_SECONDS = 1.0
"""The time that one attempt to connect may take."""

_LOOPBACK = ("127.0.0.1", "::1")


def addresses_of(wish: PortWish | None) -> tuple[str, ...]:
    """Return where to try it. Raises `InvalidParamsError` for a name."""
    if wish is None or wish.host is None:
        return _LOOPBACK
    try:
        return (str(ipaddress.ip_address(wish.host)),)
    except ValueError:
        message = f"port.host: {quoted(wish.host)} is not an IP address, and names are not looked up"
        raise InvalidParamsError(message, field="port") from None


async def accepts(address: str, port: int) -> bool:
    """Connect, hang up at once, and return whether somebody took it in time."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with trio.move_on_after(_ATTEMPT_SECONDS), trio.socket.socket(family, socket.SOCK_STREAM) as attempt:
            await attempt.connect((address, port))
            # A connection to a port on which nobody listens may meet itself.
            return bool(attempt.getsockname() != attempt.getpeername())
    except OSError:
        pass
    return False
