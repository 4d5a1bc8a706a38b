"""The peers at the door: those that have connected, and have not said who they are.

There are few of them. Where one more comes than there is room for, it takes the place of who has waited longest, of the
origin that most of them have: so a crowd of silent peers is in the way of itself, and never of who speaks at once.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import trio

logger = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("=iII")
"""`struct ucred` of unix(7): pid, uid, gid."""

_NETWORK_BITS = 64
"""Of an IPv6 address: whoever has one has all that begin so."""


class Newcomer:
    """One peer at the door."""

    def __init__(self, origin: str, hang_up: Callable[[], None]) -> None:
        self.origin = origin
        self.hang_up = hang_up
        self.is_closed = trio.Event()
        """Set by whoever served the peer, when its descriptor is free."""


class Door:
    """All newcomers at the door of one server."""

    def __init__(self, most: Callable[[], int], bound: str = "max_handshakes") -> None:
        """`most` tells how many there may be: that can change while it serves. `bound` is its name, for the log."""
        self._most = most
        self._bound = bound
        self._by_origin: dict[str, dict[Newcomer, None]] = {}  # ordered sets, longest there first
        self._count = 0

    def __repr__(self) -> str:
        return f"<Door {self._count} of {self._most()} from {len(self._by_origin)}>"

    def enter(self, origin: str, hang_up: Callable[[], None]) -> Newcomer:
        """Let a peer in. Where there is no room left, `hang_up` of another one is called, which has to leave."""
        if self._count >= (most := self._most()):
            self.make_room(f"{self._bound} ({most}) are taken")
        newcomer = Newcomer(origin, hang_up)
        self._by_origin.setdefault(origin, {})[newcomer] = None
        self._count += 1
        return newcomer

    def leave(self, newcomer: Newcomer) -> None:
        """Let one go who has said who it is, or is gone. To leave again does nothing."""
        crowd = self._by_origin.get(newcomer.origin, {})
        if newcomer in crowd:
            del crowd[newcomer]
            self._count -= 1
            if not crowd:
                del self._by_origin[newcomer.origin]

    def make_room(self, why: str) -> Newcomer | None:
        """Hang up on the newcomer that has waited longest, of the origin that most have, and return it."""
        if not self._count:
            return None
        crowd = max(self._by_origin.values(), key=len)
        newcomer = next(iter(crowd))
        logger.warning("hanging up on a peer from %s: %s", newcomer.origin, why)
        self.leave(newcomer)
        newcomer.hang_up()
        return newcomer

    async def make_descriptors(self, count: int, why: str, patience: float) -> bool:
        """Make room for so many, and wait for a while until their descriptors are free. Return whether any left."""
        left = [newcomer for _ in range(count) if (newcomer := self.make_room(why)) is not None]
        with trio.move_on_after(patience):
            for newcomer in left:
                await newcomer.is_closed.wait()
        return bool(left)


def origin_of(stream: trio.SocketStream) -> str:
    """Return where a peer comes from: the user at the other end of a unix socket, else its address."""
    plain = stream.socket
    if plain.family == socket.AF_UNIX:
        credentials = plain.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        return f"uid {uid}"
    try:
        host = plain.getpeername()[0]
    except OSError:  # it has gone already
        return "nobody"
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _NETWORK_BITS), strict=False))


def shut(stream: trio.SocketStream) -> None:
    """Hang up: whoever reads or writes here is at its end, and closes it."""
    with suppress(OSError):  # the peer was faster
        stream.socket.shutdown(socket.SHUT_RDWR)
