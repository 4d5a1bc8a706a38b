"""Messages to JSON and back. Pure: no I/O, and one message at a time. (`packed.py` does the same for msgpack.)

Decoding takes two steps. Here the envelope is read and the parameters stay raw, so that a call with bad parameters
still has an id to answer; `decode_params` is the second step, at the hand that knows the method. The text of a message
stays the bytes that came: with one letter beyond the first 65536, Python would need four bytes for each letter of it.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Generator, Iterator
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from execsrv._wire.pieces import JSON_PIECES, LARGE_BYTES, write_pieces
from execsrv._wire.quoting import quoted
from execsrv._wire.unreadable import check_head, read_again, refuse_id, refuse_many_values, with_whole_numbers
from execsrv.errors import InvalidParamsError, ProtocolError
from execsrv.protocol import (
    Envelope,
    ErrorObject,
    Failure,
    Message,
    Notification,
    ProcessOutput,
    Request,
    Response,
)

T = TypeVar("T")

_envelopes = msgspec.json.Decoder(Envelope)
_encoder = msgspec.json.Encoder()
_NULL, _PACKED_NULL = msgspec.Raw(b"null"), msgspec.Raw(b"\xc0")
_FIRST_BEYOND_ASCII = 0x80
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GOT_FLOAT = "got `float`"
_Facts = dict[str, str | int | float | bool | list[str] | None]
_MOST_FACT_BYTES = 64 * 1024
OUTPUT = "process/output"
NO_MESSAGE = "neither a `method`, nor an `id` with a `result` or an `error`"
_OUTPUT_BEGINS = b'{"method":"process/output",'
_MIRRORED = b'{"jsonrpc":"2.0"'
_CHECKED_BYTES = 2 * 1024 * 1024
_MOST_COMMAS = 1024 * 1024
_MOST_ID_BYTES = 256


class Codec:
    """The JSON of one connection. The `jsonrpc` member is written once the peer has written it."""

    piece_bytes = LARGE_BYTES
    """Messages of more bytes, about, are for `encode_large_into`."""

    def __init__(self) -> None:
        self._mirror = False

    def decode(self, data: bytes | bytearray, *, is_checked: bool = False) -> Message:
        """Return the message in these bytes of UTF-8. Large ones are for `decode_large`.

        Raises `ProtocolError` when there is none, and `UnreadableError`, which is one, for a call that can only be
        answered with an error.
        """
        if data.startswith(_BYTE_ORDER_MARK):
            data = data[len(_BYTE_ORDER_MARK) :]
        if not is_checked and not data.isascii():
            for _ in _check_large(data):
                pass
        if data.startswith(_OUTPUT_BEGINS) and (output := _read_output(data)) is not None:
            return output
        try:
            envelope = _envelopes.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            request, has_jsonrpc = read_again(data, error)
            self._mirror = self._mirror or has_jsonrpc
            return request
        if envelope.jsonrpc is not UNSET and envelope.jsonrpc != _NULL:
            self._mirror = True
        if (message := message_in(envelope)) is not None:
            return message
        beginning = str(data[:_MOST_ID_BYTES], "utf-8", "replace")
        raise ProtocolError(f"malformed message: {NO_MESSAGE}; it begins with {quoted(beginning)}")

    def decode_large(self, data: bytes | bytearray) -> Generator[None, None, Message]:
        """Decode as `decode` does, in steps of which none takes long. Gives the message at the end."""
        yield from _check_large(data)
        yield
        check_head(data)
        yield
        return self.decode(data, is_checked=True)

    def encode_into(self, message: Message, buffer: bytearray, offset: int = 0) -> None:
        """Write the JSON of `message` into `buffer` from `offset` on, and cut off the rest of the buffer."""
        if self._mirror:
            buffer[offset:] = _MIRRORED
            offset += len(_MIRRORED)
        _encoder.encode_into(message, buffer, offset)
        if self._mirror:
            buffer[offset] = ord(",")

    def encode_large_into(self, message: Message, buffer: bytearray, offset: int = 0) -> Iterator[None]:
        """Write as `encode_into` does, in steps of which none takes long."""
        buffer[offset:] = _MIRRORED if self._mirror else b""
        start = len(buffer)
        yield from write_pieces(message, buffer, JSON_PIECES)
        if self._mirror:
            buffer[start] = ord(",")


def message_in(envelope: Envelope) -> Message | None:
    """Return the message in an envelope, None where there is none. Raises `UnreadableError` for an id that is none."""
    params = None if envelope.params is UNSET else envelope.params
    if envelope.method is not UNSET:
        if envelope.id is UNSET:
            return Notification(envelope.method, params)
        if envelope.id is None:
            refuse_id("null")
        if isinstance(envelope.id, str) and len(envelope.id.encode()) > _MOST_ID_BYTES:
            refuse_id(envelope.id)
        return Request(envelope.id, envelope.method, params)
    if envelope.error is not UNSET and envelope.id is not UNSET:
        told = envelope.error
        return Failure(envelope.id, ErrorObject(told.code, told.message, _facts(told.data)))
    if envelope.result is not UNSET and envelope.id is not UNSET and envelope.id is not None:
        return Response(envelope.id, envelope.result)
    return None


class Output(msgspec.Struct):
    """Output as a server of ours writes it: nearly all that a client is sent, so it is decoded in one step."""

    params: ProcessOutput
    method: str = ""
    id: msgspec.Raw | UnsetType = UNSET
    jsonrpc: msgspec.Raw | UnsetType = UNSET

    def message(self) -> Notification | None:
        """Return the message that it is, None for one that is to be read as any other."""
        if self.method != OUTPUT or self.id is not UNSET or self.jsonrpc is not UNSET:
            return None
        return Notification(OUTPUT, self.params)


def _read_output(data: bytes | bytearray) -> Notification | None:
    """Return a message as output, None for one that is to be read as any other."""
    try:
        output: Output = _decoder(Output).decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return output.message()


def _check_large(data: bytes | bytearray) -> Iterator[None]:
    """Look, step by step, whether a message is UTF-8, and whether it has too many values to be decoded at once.

    Raises as `decode` does. No letters are kept: most of them are skipped later.
    """
    commas, check = 0, getincrementaldecoder("utf-8")().decode
    for start in range(0, len(data), _CHECKED_BYTES):
        yield
        piece = data[start : start + _CHECKED_BYTES]
        commas += piece.count(b",")
        if commas > _MOST_COMMAS:
            refuse_many_values(data, _MOST_COMMAS)
        try:
            check(piece, final=start + _CHECKED_BYTES >= len(data))
        except UnicodeDecodeError as error:
            raise ProtocolError(f"malformed message: invalid UTF-8: {error.reason}", close_code=1007) from None


@cache
def _decoder(type_: type) -> msgspec.json.Decoder[Any]:
    """Return the decoder of a type. It is made at first use: making all takes longer than the rest of the start."""
    return msgspec.json.Decoder(type_)


@cache
def _packed_decoder(type_: type) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type_)


def is_packed(raw: msgspec.Raw) -> bool:
    """Return whether raw parameters, or another table, are msgpack: no JSON begins with such a byte."""
    return memoryview(raw)[0] >= _FIRST_BEYOND_ASCII


def decode_params(params: Any, type_: type[T]) -> T:
    """Return the parameters of a call or a notification, or the result of one, as their struct.

    `params` is raw JSON or msgpack off a wire, or the struct itself or plain values from memory; null is no
    parameters. Raises `InvalidParamsError`, with the field that is wrong.
    """
    if isinstance(params, type_):
        return params
    try:
        if isinstance(params, msgspec.Raw):
            if is_packed(params):
                return _packed_decoder(type_).decode(b"\x80" if params == _PACKED_NULL else params)  # type: ignore[arg-type, no-any-return]
            text = b"{}" if params == _NULL else params
            return _decoder(type_).decode(text)  # type: ignore[arg-type, no-any-return]
        return msgspec.convert({} if params is None else params, type_)
    except UnicodeDecodeError as error:
        raise InvalidParamsError(f"invalid UTF-8: {error.reason}") from None
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        is_text = not (isinstance(params, msgspec.Raw) and is_packed(params))
        if is_text and isinstance(error, msgspec.ValidationError) and _GOT_FLOAT in str(error):
            written = params if isinstance(params, msgspec.Raw) else _encoder.encode(params)
            if (whole := with_whole_numbers(written)) is not None:
                return decode_params(msgspec.Raw(whole), type_)
        raise InvalidParamsError(str(error)) from None


def _facts(data: msgspec.Raw | UnsetType) -> dict[str, Any] | None:
    """Return what an error says of itself to programs, None where that has another form than ours."""
    if isinstance(data, UnsetType) or len(data) > _MOST_FACT_BYTES:
        return None
    try:
        return (_packed_decoder if is_packed(data) else _decoder)(_Facts).decode(data)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
