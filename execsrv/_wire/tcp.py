"""The kernel's knowledge of a TCP connection that nobody on the other side has ended."""

from __future__ import annotations

import ipaddress
import socket
import struct

import trio

_HEAD = struct.Struct("=BBBBBBBx")
"""The first fields of `struct tcp_info` in <linux/tcp.h>: state, congestion state, retransmits, probes, ..."""
_LAST_ACK_RECEIVED = 56
"""The offset of `tcpi_last_ack_recv` in it: milliseconds since the peer's machine acknowledged anything."""


def unacknowledged_seconds(stream_socket: trio.socket.SocketType) -> float:
    """Return for how many seconds the peer's machine has not answered what it was sent, 0 if it answers.

    A machine whose program does not read still acknowledges what comes, or says that it has no room for it.
    """
    info = stream_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    _, _, retransmits, probes, *_ = _HEAD.unpack_from(info)
    if not retransmits and probes < 2:
        return 0.0
    (milliseconds,) = struct.unpack_from("=I", info, _LAST_ACK_RECEIVED)
    return float(milliseconds) / 1000


def is_local(stream: trio.abc.Stream) -> bool:
    """Return True where the peer is on this machine, by a loopback address or a unix socket.

    There the kernel tells of every end, a crash too: whoever says nothing stands still, or its machine was asleep.
    """
    plain = getattr(stream, "transport_stream", stream)
    if not isinstance(plain, trio.SocketStream):
        return False
    if plain.socket.family == socket.AF_UNIX:
        return True
    try:
        host = plain.socket.getpeername()[0]
    except OSError:  # it has gone already
        return False
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
