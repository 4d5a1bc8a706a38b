"""The kernel's word on who holds the other end of a TCP connection of this machine: its uid, and the socket's inode.

It is asked for the one socket by its four-tuple, over netlink (sock_diag(7)), which takes no rights and no walk. Where
that is not to be had, its table is read instead. A socket that nobody holds any more has no inode, and a uid that means
nothing: 0. So only one with an inode counts.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NETLINK_SOCK_DIAG = 4
_ALL_STATES = 0xFFFFFFFF

_MESSAGE = struct.Struct("=IHHII")
"""`struct nlmsghdr` of <linux/netlink.h>: length, type, flags, sequence number, port."""
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI8s")
"""`struct inet_diag_req_v2` of <linux/inet_diag.h>: family, protocol, extensions, states, and the socket's id."""
_ANSWER = struct.Struct("=BBxx2s2s16s16sI8sIIIII")
"""`struct inet_diag_msg`: family, state, the socket's id, expires, two queues, uid, inode."""
_NO_COOKIE = b"\xff" * 8

_ESTABLISHED = 1
_CONNECTED = {_ESTABLISHED, 4, 5, 8}
"""States of <net/tcp_states.h>: established, and where one side has said all it had to say."""

_ANSWER_BYTES = 4096
_ANSWER_SECONDS = 1.0
_PORT = struct.Struct(">H")
_WORD = struct.Struct("=I")

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class End(NamedTuple):
    """One end of a connection."""

    ip: IP
    port: int


class Holder(NamedTuple):
    """The user whose socket it is, and the number of that socket."""

    uid: int
    inode: int


def holder(address: tuple[str, int], peer: tuple[str, int], *, even_unheld: bool = False) -> Holder | None:
    """Return who holds the socket at `address` that is connected to `peer`, None where nobody does, or it is unknown.

    With `even_unheld` a connection that waits to be accepted is told too: it has no inode, and its uid means nothing.
    Blocks for as long as the kernel needs: it may have to load a module, or to write a long table.
    """
    ends = End(_plain(address[0]), address[1]), End(_plain(peer[0]), peer[1])
    if ends[0].ip.version != ends[1].ip.version:
        return None
    try:
        found = _asked(*ends)
    except OSError:  # it knows of none, which the table may confirm, or may not be asked
        try:
            found = _from_tables(*ends)
        except OSError:
            return None
    return found if found is not None and (found.inode or even_unheld) else None


def holder_now(address: tuple[str, int], peer: tuple[str, int]) -> Holder | None:
    """Return what `holder` does, at once. Raises `OSError` where that would take longer, or nothing is known."""
    ends = End(_plain(address[0]), address[1]), End(_plain(peer[0]), peer[1])
    if ends[0].ip.version != ends[1].ip.version:
        return None
    found = _asked(*ends, patience=0)
    return found if found is not None and found.inode else None


def _plain(text: str | bytes) -> IP:
    """Return an address without its scope, and one of IPv4 as such."""
    address = ipaddress.ip_address(text.partition("%")[0] if isinstance(text, str) else text)
    return getattr(address, "ipv4_mapped", None) or address


def _asked(end: End, peer: End, patience: float = _ANSWER_SECONDS) -> Holder | None:
    """Ask the kernel for the one socket. Raises `OSError` where it knows of none, or cannot be asked."""
    family = socket.AF_INET if end.ip.version == 4 else socket.AF_INET6
    id = (*map(_PORT.pack, (end.port, peer.port)), *(side.ip.packed.ljust(16, b"\0") for side in (end, peer)))
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES, *id, 0, _NO_COOKIE)
    head = _MESSAGE.pack(_MESSAGE.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(patience)
        kernel.connect((0, 0))  # nobody but the kernel is heard
        kernel.send(head + body)
        answer = kernel.recv(_ANSWER_BYTES)
    if _MESSAGE.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        (number,) = struct.unpack_from("=i", answer, _MESSAGE.size)
        raise OSError(-number, os.strerror(-number))
    family, state, *ports, from_, to, _, _, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _MESSAGE.size)
    size = 4 if family == socket.AF_INET else 16
    found = [End(_plain(side[:size]), _PORT.unpack(port)[0]) for side, port in zip((from_, to), ports, strict=True)]
    # Where nothing is connected, what listens there is found instead.
    return Holder(uid, inode) if found == [end, peer] and _counts(state, inode) else None


def _counts(state: int, inode: int) -> bool:
    """Return True for a connection that somebody holds, or will accept: then nobody holds it yet."""
    return state in _CONNECTED and (inode != 0 or state == _ESTABLISHED)


def _from_tables(end: End, peer: End) -> Holder | None:
    """Look the socket up in the tables of all. Raises `OSError` where there is none of them."""
    found: Holder | None = None
    for table in ("tcp", "tcp6"):  # a socket of IPv6 may have an address of IPv4
        try:
            with open(f"/proc/thread-self/net/{table}", "rb") as lines:
                next(lines, None)
                found = found or _in_table(lines, end, peer)
        except FileNotFoundError:
            if table == "tcp":
                raise
    return found


def _in_table(lines: Iterable[bytes], end: End, peer: End) -> Holder | None:
    suffixes = [b":%04X" % side.port for side in (end, peer)]
    for line in lines:
        words = line.split(None, 10)
        if words[1].endswith(suffixes[0]) and words[2].endswith(suffixes[1]):
            state, uid, inode = int(words[3], 16), int(words[7]), int(words[9])
            if [_end(words[1]), _end(words[2])] == [end, peer] and _counts(state, inode):
                return Holder(uid, inode)
    return None


def _end(text: bytes) -> End:
    """Read `ADDRESS:PORT` of a table: the address is in words of 4 bytes, each as this machine would print it."""
    address, _, port = text.partition(b":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    return End(_plain(b"".join(map(_WORD.pack, words))), int(port, 16))
