"""The few frames of a websocket that are written without the library, and the payloads that are read without it.

See RFC 6455 section 5.2. Pure: no I/O.
"""

from __future__ import annotations

import struct
from collections import deque
from functools import cache

from execsrv._wire.bounds import TOO_LARGE, MessageBound
from execsrv.errors import ProtocolError

_FINAL_TEXT, _FINAL_BINARY = 0x81, 0x82
_FINAL_CLOSE = 0x88
_MAX_REASON_BYTES = 123
_RESERVED, _OPCODE = 0x70, 0xF
_CONTINUATION, _BINARY = 0x0, 0x2
_FINAL = 0x80
_MASKED = 0x80
_SIZE = 0x7F
_SIZE_OF_2, _SIZE_OF_8 = 126, 127
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


@cache
def _masked(byte: int) -> bytes:
    """Return what a byte of a mask makes of each byte."""
    return bytes(byte ^ other for other in range(256))


class FrameReader:
    """Walks over the frames that come in, and takes the messages out of them.

    The library is given the rest. It would copy a payload six times, make letters of a text, which may take four times
    the memory, bound a message by their number, and have a turn of the loop for each. A frame that it is to refuse it
    gets as it came. Of a message it never sees the beginning: so it refuses a continuation, and that is what it is
    given for a frame that is not in the order of its message.
    """

    def __init__(self, bound: MessageBound, *, is_server: bool) -> None:
        self._bound = bound
        self._mask_bit = _MASKED if is_server else 0
        self._header = bytearray()  # as much as is there of the next frame's
        self._payload_left = 0
        self._key = _NO_MASK  # turned to where the payload goes on
        self._message = bytearray()  # as much as is there of the message that is coming in
        self._bytes = self._parts = 0  # of that message, with all of the frame that is coming in
        self._is_amid = False  # a message has begun whose last frame has not come
        self._is_last = False  # the frame that is coming in: it ends a message
        self._is_data = False  # that frame: the library is not given it
        self.messages: deque[bytearray] = deque()
        """Payloads of the messages that are complete, in order."""
        self.excess: ProtocolError | None = None
        """The error of a message that has gone beyond a bound."""

    def walk(self, data: bytes | bytearray, start: int, most: int, library: bytearray) -> int:
        """Walk on over up to `most` frames in what came, from `start`. Return where it stopped.

        Adds to `library` what that is to be given. Stops behind a frame for it, which it may refuse: then nothing that
        comes behind is a message. Where the peer is not known, stops at the end of a message too.
        """
        at, end = start, len(data)
        with memoryview(data) as view:
            while at < end and most > 0 and not self.excess:
                if self._payload_left:
                    step = min(self._payload_left, end - at)
                    with view[at : at + step] as piece:
                        self._take(piece, library)
                    at += step
                else:
                    missing = self._header_size() - len(self._header)
                    self._header += view[at : at + missing]
                    at = min(end, at + missing)
                    if len(self._header) < self._header_size():
                        continue
                    self._begin_frame(library)
                    most -= 1
                if not self._payload_left and not self.excess:
                    self._end_frame()
                if not self._payload_left and (not self._is_data or (self._is_last and not self._bound.is_known)):
                    break
        return at

    def _header_size(self) -> int:
        """Return the size of the header, as far as its beginning tells."""
        if len(self._header) < 2:
            return 2
        size = self._header[1] & _SIZE
        more = 2 if size == _SIZE_OF_2 else 8 if size == _SIZE_OF_8 else 0
        return 2 + more + (4 if self._header[1] & _MASKED else 0)

    def _begin_frame(self, library: bytearray) -> None:
        header = bytes(self._header)
        self._header.clear()
        first, size = header[0], header[1] & _SIZE
        is_short = True
        if size == _SIZE_OF_2:
            size = int.from_bytes(header[2:4], "big")
            is_short = size >= _SIZE_OF_2
        elif size == _SIZE_OF_8:
            size = int.from_bytes(header[2:10], "big")
            is_short = size >= 1 << 16
        self._payload_left = size
        opcode = first & _OPCODE
        is_first = opcode != _CONTINUATION
        is_right = not first & _RESERVED and header[1] & _MASKED == self._mask_bit and is_short
        is_in_order = is_first != self._is_amid
        self._is_data = is_right and opcode <= _BINARY and is_in_order
        self._is_last = self._is_data and bool(first & _FINAL)
        if not self._is_data:
            library.append(first if is_in_order or opcode > _BINARY else first & ~_OPCODE)
            library += header[1:]
            return
        self._key = header[-4:] if self._mask_bit else _NO_MASK
        if is_first:
            self._bytes = self._parts = 0
        self._bytes += size
        self._parts += 1
        if self._bytes > self._bound.max_bytes:
            self.excess = self._bound.too_large()
        elif self._parts > self._bound.max_parts:
            self.excess = ProtocolError(f"message has more than {self._bound.max_parts} parts", TOO_LARGE)

    def _take(self, piece: memoryview, library: bytearray) -> None:
        """Take a piece of a frame's payload."""
        self._payload_left -= len(piece)
        if not self._is_data:
            library += piece
            return
        start = len(self._message)
        self._message += piece
        self._bound.come(len(piece))
        if self._key != _NO_MASK:
            for at, byte in enumerate(self._key, start):
                self._message[at::4] = self._message[at::4].translate(_masked(byte))
            turn = len(piece) % 4
            self._key = self._key[turn:] + self._key[:turn]

    def _end_frame(self) -> None:
        """Add the message to those that are complete, where this frame was its last."""
        if not self._is_data:
            return
        self._is_amid = not self._is_last
        if self._is_last:
            self.messages.append(self._message)
            self._message = bytearray()
