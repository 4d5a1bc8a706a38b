"""The frames between a server and a runner, as bytes: written, and read out of whatever pieces they come in. Pure.

    frame      length of the payload (4 bytes, the least significant first), then the payload
    payload    JSON: {"version": 2, "type": "exit", "payload": {...}}
               or in version 2, bytes of a stream: 2, the stream's number, the id (4 bytes, as above), the bytes

The first frame decides the version of a channel. Errors name what is wrong, and never show what was sent: a request
holds an environment.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from execsrv._runner import version_1_messages, version_2_messages
from execsrv._runner.version_2_messages import Data
from execsrv._wire.quoting import quoted
from execsrv.errors import CutOffError, ProtocolError

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
VERSIONS = 1, 2

_SAID_BYTES = 256

_LENGTH = struct.Struct("<I")
_DATA = struct.Struct("<BBI")
_DATA_FRAME = struct.Struct("<IBBI")

_STREAMS: tuple[str, ...] = get_args(Literal["stdin", "stdout", "stderr", "pty"])
"""By their numbers."""
_NUMBERS = {name: number for number, name in enumerate(_STREAMS)}

Tables = Mapping[int, Mapping[str, type[Struct]]]

AS_RUNNER: Tables = {1: version_1_messages.MESSAGES, 2: version_2_messages.TO_RUNNER}
"""What a runner takes, by version."""

AS_SERVER: Tables = {1: version_1_messages.MESSAGES, 2: version_2_messages.FROM_RUNNER}

_NAMES = {
    kind: (version, name)
    for version, table in (
        (1, version_1_messages.MESSAGES),
        (2, version_2_messages.TO_RUNNER),
        (2, version_2_messages.FROM_RUNNER),
    )
    for name, kind in table.items()
}


class _Envelope(Struct, frozen=True):
    version: Annotated[int, Meta(ge=0, le=255)]
    type: str
    payload: msgspec.Raw


_envelopes = msgspec.json.Decoder(_Envelope)
_encoder = msgspec.json.Encoder()
_decoders: dict[type[Struct], msgspec.json.Decoder[Struct]] = {}


class UnsupportedVersionError(ProtocolError):
    """The first frame is of a version that this side does not speak."""

    def __init__(self, version: int) -> None:
        super().__init__(f"unsupported protocol version {version}")
        self.version = version


class NoFrameError(ProtocolError):
    """A channel does not begin with a frame. `told` shows that, which may hold secrets of the other side."""

    def __init__(self, size: int, said: bytes) -> None:
        super().__init__(f"frame too large: {size}")
        first = said.decode(errors="replace").strip().partition("\n")[0].rstrip()
        self.told = f"it began with {quoted(first)}, which is no frame"


def encode(message: Struct) -> bytes:
    """Return a message as a frame. Raises `ProtocolError` for one that is too large."""
    if isinstance(message, Data):
        return data_header(message.id, message.stream, len(message.data)) + message.data
    version, name = _NAMES[type(message)]
    payload = b'{"version":%d,"type":"%s","payload":%s}' % (version, name.encode(), _encoder.encode(message))
    _check_size(len(payload))
    return _LENGTH.pack(len(payload)) + payload


def data_header(id: int, stream: str, size: int) -> bytes:
    """Return what goes in front of so many bytes of a stream, which are not empty."""
    _check_size(_DATA.size + size)
    return _DATA_FRAME.pack(_DATA.size + size, 2, _NUMBERS[stream], id)


class FrameReader:
    """The messages of one channel, out of the bytes that came."""

    def __init__(self, tables: Tables) -> None:
        self.version: int | None = None
        """That of the channel, once a first frame was read."""
        self._tables = tables
        self._buffer = bytearray()
        self._start = 0

    def __repr__(self) -> str:
        return f"<FrameReader version={self.version} waiting={len(self._buffer) - self._start}>"

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next(self) -> Struct | None:
        """Return the next message, None as long as it is not whole.

        Raises `ProtocolError` for anything that is none, in whose place nothing can be read any more.
        """
        begin = self._start + _LENGTH.size
        if len(self._buffer) < begin:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer, self._start)
        if size > MAX_PAYLOAD_BYTES and self.version is None:  # which any text is
            raise NoFrameError(size, bytes(self._buffer[:_SAID_BYTES]))
        _check_size(size)
        if len(self._buffer) < begin + size:
            return None
        self._start = begin + size
        with memoryview(self._buffer) as buffer, buffer[begin : self._start] as payload:
            if self.version == 2 and size and payload[0] == 2:
                return _data(payload)
            return self._message(bytes(payload))

    def check_end(self) -> None:
        """Raise `CutOffError` where the end came in the middle of a frame."""
        if self._start < len(self._buffer):
            raise CutOffError("the end came in the middle of a frame")

    def _message(self, payload: bytes) -> Struct:
        try:
            envelope = _envelopes.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(f"malformed frame: {_complaint(error)}") from None
        if self.version is None:
            if envelope.version not in self._tables:
                raise UnsupportedVersionError(envelope.version)
            self.version = envelope.version
        elif self.version != 1 and envelope.version != self.version:
            raise ProtocolError(f"a frame of version {envelope.version} on a channel of version {self.version}")
        kind = self._tables[self.version].get(envelope.type)
        if kind is None:
            raise ProtocolError("malformed frame: its type is not known")
        decoder = _decoders.get(kind) or _decoders.setdefault(kind, msgspec.json.Decoder(kind))
        try:
            return decoder.decode(envelope.payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(f"malformed {envelope.type}: {_complaint(error)}") from None


def _data(payload: memoryview) -> Data:
    if len(payload) <= _DATA.size:
        raise ProtocolError("malformed frame: it carries no bytes")
    _, number, id = _DATA.unpack_from(payload)
    if number >= len(_STREAMS):
        raise ProtocolError("malformed frame: its stream is not known")
    return Data(id, _STREAMS[number], bytes(payload[_DATA.size :]))


def _check_size(size: int) -> None:
    if size > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"frame too large: {size}")


def _complaint(error: Exception) -> str:
    """Return what is wrong without what was sent: the library repeats values that it does not know."""
    if not isinstance(error, msgspec.ValidationError):
        return "it is no JSON" if isinstance(error, msgspec.DecodeError | ValueError) else "it is nested too deeply"
    text, _, place = str(error).partition(" - at ")
    reason = text if text.startswith(("Expected", "Object missing")) else "a value that it cannot have"
    return f"{reason} at {place}" if place else reason
