"""What the kernel knows of a TCP connection that nobody on the other side has ended."""

from __future__ import annotations

import socket
import struct
import sys

import trio

_HEAD = struct.Struct("=BBBBBBBx")
"""The first fields of `struct tcp_info` in <linux/tcp.h>: state, congestion state, retransmits, probes, ..."""
_LAST_ACK_RECEIVED = 56
"""Where `tcpi_last_ack_recv` stands in it: milliseconds since the peer's machine acknowledged anything."""


def unacknowledged_seconds(stream_socket: trio.socket.SocketType) -> float:
    """For how long the peer's machine has not answered what it was sent: 0 if it answers, or if nothing tells.

    A machine whose program does not read still acknowledges what comes, or says that it has no room for it.
    """
    if sys.platform != "linux":
        return 0.0
    info = stream_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    _, _, retransmits, probes, *_ = _HEAD.unpack_from(info)
    if not retransmits and probes < 2:
        return 0.0
    (milliseconds,) = struct.unpack_from("=I", info, _LAST_ACK_RECEIVED)
    return float(milliseconds) / 1000
