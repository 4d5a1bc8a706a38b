"""Who opened a channel, as the machine knows it: the user at the other end of a unix socket, or of loopback TCP.

Nothing that the peer says counts here. `look` blocks for as long as the kernel takes, and so runs in a thread.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import struct
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, Protocol

import trio

from execsrv._wire import inet_diag

_CREDENTIALS = struct.Struct("=iII")
"""`struct ucred` of unix(7): pid, uid, gid."""

_SO_PEERPIDFD = 77  # <asm-generic/socket.h>, since Linux 6.5

_HUNG_UP = "it has hung up already"
_NOT_LOOPBACK = "it does not come from the loopback address"
_ALL_UIDS = ["0", "0", "4294967295"]

Socket = socket.socket | trio.socket.SocketType


class Commands(Protocol):
    """All processes of all commands of this server."""

    def __bool__(self) -> bool:
        """Return True where there may be any."""

    def has_process(self, pid: int) -> bool:
        """Return True where this process may be one of them."""

    def has_socket(self, inode: int, uid: int) -> bool:
        """Return True where one of them may hold this socket, which a user has made."""


class Peer(NamedTuple):
    """The other end of a channel. `uid` is None where it is not known, and `why` says why it is not."""

    uid: int | None
    why: str = ""
    is_ours: bool = False
    """True where it is, or may be, a command of this server."""


def look(other: socket.socket, commands: Commands, matters: Callable[[int], bool]) -> Peer:
    """Return who is at the other end of a socket. Blocks.

    Where a user does not matter, it is not looked whether it is a command: that takes longer.
    """
    has_commands = bool(commands)  # before anything else: a command that has ended since does not hold its socket
    try:
        if other.family == socket.AF_UNIX:
            return _at_unix(other, commands, matters)
        ours, theirs = other.getsockname()[:2], other.getpeername()[:2]
    except OSError:
        return Peer(None, _HUNG_UP)
    if not (is_loopback(ours[0]) and is_loopback(theirs[0])):
        return Peer(None, _NOT_LOOPBACK)
    holder = inet_diag.holder(theirs, ours)
    if holder is None:
        return Peer(None, "the kernel does not tell whose connection this is")
    peer = _of(holder.uid)
    if has_commands and peer.uid is not None and matters(peer.uid) and commands.has_socket(holder.inode, holder.uid):
        return peer._replace(is_ours=True)
    return peer if _is_connected(other) else Peer(None, _HUNG_UP)


def look_now(other: Socket, commands: Commands, matters: Callable[[int], bool]) -> Peer | None:
    """Return what `look` does where that takes but a fraction of a millisecond, else None."""
    try:
        if other.family == socket.AF_UNIX:
            return _at_unix(other, commands, matters)
        if commands:
            return None  # it has to be told from them
        ours, theirs = other.getsockname()[:2], other.getpeername()[:2]
        if not (is_loopback(ours[0]) and is_loopback(theirs[0])):
            return Peer(None, _NOT_LOOPBACK)
        holder = inet_diag.holder_now(theirs, ours)
    except OSError:
        return None
    return _of(holder.uid) if holder is not None and _is_connected(other) else None


def _is_connected(other: Socket) -> bool:
    """Return True where a connection still stands, so that its address was nobody else's while it was looked up."""
    try:
        other.getpeername()
    except OSError:
        return False
    return True


def _at_unix(other: Socket, commands: Commands, matters: Callable[[int], bool]) -> Peer:
    pid, uid, _ = _CREDENTIALS.unpack(other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    peer = _of(uid)
    # A pid of 0 is one that our pid namespace does not have, and a command of ours is always in it.
    if pid == 0 or peer.uid is None or not matters(peer.uid):
        return peer
    return peer._replace(is_ours=commands.has_process(pid) or _has_ended(other))


def _has_ended(other: Socket) -> bool:
    """Return True where whoever connected has ended, so that its pid may be another's. Older kernels do not tell."""
    try:
        handle = other.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        return error.errno in (errno.ESRCH, errno.ENODATA, errno.EINVAL)  # it has been reaped already
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(0))
    finally:
        os.close(handle)


def is_loopback(host: str) -> bool:
    """Return True for an address that leads nowhere but to this machine."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _of(uid: int) -> Peer:
    """Return the peer with a uid, unless that stands for all users that our user namespace has no number for."""
    if uid == _overflow_uid() and not _has_all_uids():
        return Peer(None, "its user has no number in the user namespace of this server")
    return Peer(uid)


@cache
def _overflow_uid() -> int:
    try:
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534


def _has_all_uids() -> bool:
    """Return True where every user has a number here, by user_namespaces(7)."""
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split() == _ALL_UIDS
    except OSError:
        return os.path.exists("/proc/self") and not os.path.exists("/proc/self/ns/user")
