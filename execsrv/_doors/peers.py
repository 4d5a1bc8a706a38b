"""Who opened a channel, as the machine itself knows it: the uid of the other end of a unix socket, or of loopback TCP.

Nothing that the peer says is asked for. It is looked up in a thread: `inet_diag` says why that may block.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

import trio

from execsrv._doors import inet_diag

_CREDENTIALS = struct.Struct("=iII")
"""`struct ucred` of unix(7): pid, uid, gid."""

_UID_MAP_OF_ALL = ["0", "0", "4294967295"]

HasProcess = Callable[[int], bool]
"""Tells whether a process, by its pid, is of a session of this server."""
HasSocket = Callable[[int], bool]
"""Tells whether a process of a session of this server holds a socket, by its inode."""


class Peer(NamedTuple):
    """The other end of a channel. `uid` is None where it is unknown, and `why` says why.

    `is_ours`: it is, or may be, a command of this server.
    """

    uid: int | None
    is_ours: bool = False
    why: str = ""


def look(peer: socket.socket, has_process: HasProcess, has_socket: HasSocket) -> Peer:
    """Find out who is at the other end of a socket. Blocks for a moment."""
    try:
        if peer.family == socket.AF_UNIX:
            pid, uid, _ = _CREDENTIALS.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            # A pid of 0 is in another pid namespace: whoever is below us is in ours.
            return _known(uid, pid != 0 and has_process(pid))
        ours, theirs = peer.getsockname()[:2], peer.getpeername()[:2]
    except OSError:
        return Peer(None, why="it has hung up already")
    if not is_loopback(theirs[0]) or not is_loopback(ours[0]):
        return Peer(None, why="it is not on the loopback address")
    holder = inet_diag.holder(theirs, ours)
    if holder is None:
        return Peer(None, why="the kernel does not say whose connection it is")
    return _known(holder.uid, has_socket(holder.inode))


def is_loopback(host: str) -> bool:
    """Return True for an address of this machine alone."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _known(uid: int, is_ours: bool) -> Peer:
    if uid == _overflow_uid() and not _knows_all_uids():
        return Peer(None, why="its user has no number in our user namespace")
    return Peer(uid, is_ours)


def _overflow_uid() -> int:
    """Return the uid that stands for all that have none in our user namespace (user_namespaces(7))."""
    try:
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534


def _knows_all_uids() -> bool:
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split() == _UID_MAP_OF_ALL
    except OSError:
        return True  # a kernel without user namespaces


async def look_in_thread(
    stream: trio.SocketStream, has_process: HasProcess, has_socket: HasSocket, limiter: trio.CapacityLimiter
) -> Peer:
    """Find out who is at the other end of a stream. Cancelling leaves the thread behind."""
    # Its own descriptor: ours may be closed, and given to another, while the thread still asks.
    own = socket.socket(fileno=os.dup(stream.socket.fileno()))
    ...
