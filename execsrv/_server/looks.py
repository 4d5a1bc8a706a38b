"""The looks of those who wait for something (`process/waitFor`), and their tries of ports: many hold up nobody long."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import trio

from execsrv._wire.quoting import quoted
from execsrv.errors import InvalidParamsError
from execsrv.protocol import PortWish

T = TypeVar("T")

TURN_SECONDS = 0.004
"""So long all looks of a server together may hold up everybody else."""

_ATTEMPT_SECONDS = 1.0
"""The time that one attempt to connect may take."""

_LOOPBACK = ("127.0.0.1", "::1")

MOST_TRIES = 4
"""So many ports one connection tries at once. Each has a descriptor, and some never answer."""


class Round:
    """What the looks of one server have taken since everybody else had a turn."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.turn = trio.Lock()

    def __repr__(self) -> str:
        return f"<Round spent={self.spent:.6f}>"


class Looks:
    """Those of one connection."""

    def __init__(self, round: Round) -> None:
        """The `round` is their server's."""
        self.tries = trio.CapacityLimiter(MOST_TRIES)
        """Held by whoever tries a port, and by its pause behind that."""
        self._round = round
        self._turn = trio.Lock()

    def __repr__(self) -> str:
        return f"<Looks {self._round} tries={self.tries.borrowed_tokens}>"

    async def take_turn(self) -> None:
        """Wait where others are to have their turn before the next look. Of each connection one look is next."""
        if self._round.spent < TURN_SECONDS and not self._round.turn.locked():
            return
        async with self._turn, self._round.turn:
            if self._round.spent >= TURN_SECONDS:
                await trio.lowlevel.checkpoint()
                self._round.spent = 0.0

    def timed(self, look: Callable[[], T]) -> T:
        """Take a look."""
        began = time.perf_counter()
        try:
            return look()
        finally:
            self._round.spent += time.perf_counter() - began


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
