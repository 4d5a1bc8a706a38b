"""The few frames of a websocket that are written without the library (RFC 6455 section 5.2). Pure: no I/O."""

from __future__ import annotations

import struct

_FINAL_TEXT = 0x81
_FINAL_CLOSE = 0x88
_MAX_REASON_BYTES = 123

MAX_HEADER = 10
"""The room that `put_header` needs in front of a payload."""

PING, MASKED_PING = b"\x89\0", b"\x89\x80\0\0\0\0"
"""A ping without a payload, as a server and as a client sends it."""


def put_header(buffer: memoryview, size: int) -> int:
    """Write the header of a final text frame, to end where the payload begins. Return where it starts."""
    if size < 126:
        struct.pack_into("!BB", buffer, 8, _FINAL_TEXT, size)
        return 8
    if size < 65536:
        struct.pack_into("!BBH", buffer, 6, _FINAL_TEXT, 126, size)
        return 6
    struct.pack_into("!BBQ", buffer, 0, _FINAL_TEXT, 127, size)
    return 0


def fitting(reason: str) -> str:
    """Return as much of a reason as a close frame has room for."""
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


def close_frame(code: int, reason: str) -> bytes:
    """Return a server's close frame, for a reason that is `fitting`."""
    payload = struct.pack("!H", code) + reason.encode()
    return bytes([_FINAL_CLOSE, len(payload)]) + payload
