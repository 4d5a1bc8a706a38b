"""The few frames of a websocket that are written without the library, and the count of those that it is to read.

See RFC 6455 section 5.2. Pure: no I/O.
"""

from __future__ import annotations

import struct

from execsrv._wire.bounds import MessageBound

_FINAL_TEXT, _FINAL_BINARY = 0x81, 0x82
_FINAL_CLOSE = 0x88
_MAX_REASON_BYTES = 123
_OPCODE = 0xF
_CONTINUATION, _TEXT, _BINARY, _CONTROL = 0x0, 0x1, 0x2, 0x8
_FINAL = 0x80
_MASKED = 0x80
_NO_MASK = bytes(4)

MAX_HEADER = 10
"""The room that `put_header` needs in front of a payload."""

PING, MASKED_PING = b"\x89\0", b"\x89\x80\0\0\0\0"
"""A ping without a payload, as a server and as a client sends it."""


def put_header(buffer: memoryview, size: int, *, is_binary: bool = False) -> int:
    """Write the header of a final frame, of text else, to end where the payload begins. Return where it starts."""
    first = _FINAL_BINARY if is_binary else _FINAL_TEXT
    if size < 126:
        struct.pack_into("!BB", buffer, 8, first, size)
        return 8
    if size < 65536:
        struct.pack_into("!BBH", buffer, 6, first, 126, size)
        return 6
    struct.pack_into("!BBQ", buffer, 0, first, 127, size)
    return 0


def fitting(reason: str) -> str:
    """Return as much of a reason as a close frame has room for."""
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """Return a close frame, masked as a client's has to be, for a reason that is `fitting`."""
    payload = struct.pack("!H", code) + reason.encode()
    if masked:
        return bytes([_FINAL_CLOSE, _MASKED | len(payload)]) + _NO_MASK + payload
    return bytes([_FINAL_CLOSE, len(payload)]) + payload


class FrameCounter:
    """Walks over the frames that come in, so that they can be taken a few at a time, and bounds their messages.

    Those of text become binary ones: the library would make letters of them, which may take four times the memory, and
    bounds a message by their number. It counts an empty part as nothing, but keeps every one.
    """

    def __init__(self, bound: MessageBound) -> None:
        self._bound = bound
        self._bytes = self._parts = 0  # of the message that is coming in
        self._header = bytearray()  # as much as is there of the next frame's
        self._payload_left = 0
        self._is_data = False  # the frame that is coming in
        self._is_last = False  # the frame that is coming in: it ends a message
        self.excess = ""
        """Tells which bound a message has gone beyond, and by how much it may not."""

    def walk(self, data: bytearray, start: int, most: int) -> int:
        """Walk on over up to `most` frames in what came, from `start`. Return where it stopped.

        That is at the end of a message at the latest, where the peer is not known.
        """
        at, end = start, len(data)
        while at < end and most > 0 and not self.excess:
            if self._payload_left:
                step = min(self._payload_left, end - at)
                self._payload_left -= step
                at += step
                if self._is_data:
                    self._bound.come(step)
                if self.is_between_messages and not self._bound.is_known:
                    break
                continue
            if not self._header and data[at] & _OPCODE == _TEXT:
                data[at] ^= _TEXT ^ _BINARY
            missing = self._header_size() - len(self._header)
            self._header += data[at : at + missing]
            at = min(end, at + missing)
            if len(self._header) == self._header_size():
                self._begin_frame()
                most -= 1
        return at

    @property
    def is_between_messages(self) -> bool:
        """Return True where the last frame was the end of a message."""
        return self._is_last and not self._payload_left and not self._header

    def _header_size(self) -> int:
        """Return the size of the header, as far as its beginning tells."""
        if len(self._header) < 2:
            return 2
        length = self._header[1] & 0x7F
        return 2 + (2 if length == 126 else 8 if length == 127 else 0) + (4 if self._header[1] & _MASKED else 0)

    def _begin_frame(self) -> None:
        header = self._header
        size = header[1] & 0x7F
        if size == 126:
            size = int.from_bytes(header[2:4], "big")
        elif size == 127:
            size = int.from_bytes(header[2:10], "big")
        opcode = header[0] & _OPCODE
        self._is_data = opcode < _CONTROL
        self._is_last = bool(header[0] & _FINAL) and self._is_data
        self._payload_left = size
        header.clear()
        if not self._is_data:
            return
        if opcode != _CONTINUATION:
            self._bytes = self._parts = 0
        self._bytes += size
        self._parts += 1
        if self._bytes > self._bound.max_bytes:
            self.excess = self._bound.complaint()
        elif self._parts > self._bound.max_parts:
            self.excess = f"message has more than {self._bound.max_parts} parts"
