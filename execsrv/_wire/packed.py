"""Messages to msgpack and back: the same structs as in JSON, with bytes as bytes. Pure: no I/O.

It is spoken where `initialize` has agreed on it (`encoded_channel.py`). As in JSON the parameters stay raw, for
`decode_params`. There is no `jsonrpc` member.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NoReturn

import msgspec
from msgspec import UNSET, Struct, UnsetType

from execsrv._wire.codecs import NO_MESSAGE, OUTPUT, Output, is_packed, message_in
from execsrv._wire.msgpack_values import count_values, end_of
from execsrv._wire.pieces import MSGPACK_PIECES, write_pieces
from execsrv._wire.unreadable import InvalidCallError, UnreadableError, refuse_id
from execsrv.errors import InvalidParamsError, ProtocolError
from execsrv.protocol import Envelope, Message, MessageId, Notification

_envelopes = msgspec.msgpack.Decoder(Envelope)
_outputs = msgspec.msgpack.Decoder(Output)
_ids = msgspec.msgpack.Decoder(MessageId)
_encoder = msgspec.msgpack.Encoder()

_OUTPUT_BEGINS = b"\x82\xa6method\xae" + OUTPUT.encode()
_A_NUMBER = msgspec.Raw(b"\xcc\0")
_MOST_HEAD_BYTES = 4096
_MOST_VALUES = 1024 * 1024
_VALUES_A_STEP = 16 * 1024
_MOST_EARLY = 8
_QUOTED_BYTES = 16


class PackedCodec:
    """The msgpack of one connection, with the methods of `Codec`."""

    piece_bytes = MSGPACK_PIECES.piece_bytes

    def decode(self, data: bytes | bytearray) -> Message:
        """Return the message in these bytes. Raises as `Codec.decode` does."""
        if data.startswith(_OUTPUT_BEGINS) and (output := _read_output(data)) is not None:
            return output
        try:
            envelope = _envelopes.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            _refuse(data, error)
        if not isinstance(envelope.params, UnsetType) and not is_packed(envelope.params):
            envelope = msgspec.structs.replace(envelope, params=_A_NUMBER)  # a small one looks as if it were JSON
        if (message := message_in(envelope)) is None:
            raise ProtocolError(f"malformed message: {NO_MESSAGE}; {_beginning(data)}")
        return message

    def decode_large(self, data: bytes | bytearray) -> Generator[None, None, Message]:
        """Decode as `decode` does, in steps of which none takes long. Gives the message at the end."""
        count = 0
        for count in count_values(data, _VALUES_A_STEP):
            yield
            if count > _MOST_VALUES:
                text = f"a message may have {_MOST_VALUES} values, and this one has more"
                raise UnreadableError(_early_id(data), InvalidParamsError(text))
        _check_head(data)
        yield
        return self.decode(data)

    def encode_into(self, message: Message, buffer: bytearray, offset: int = 0) -> None:
        """Write the msgpack of `message` into `buffer` from `offset` on, and cut off the rest of the buffer."""
        _encoder.encode_into(message, buffer, offset)

    def encode_large_into(self, message: Message, buffer: bytearray, offset: int = 0) -> Iterator[None]:
        """Write as `encode_into` does, in steps of which none takes long."""
        del buffer[offset:]
        return write_pieces(message, buffer, MSGPACK_PIECES)


class _Head(Struct):
    """The members of a call that say what is asked, each as it was written."""

    id: msgspec.Raw | UnsetType = UNSET
    method: msgspec.Raw | UnsetType = UNSET


_heads = msgspec.msgpack.Decoder(_Head)


def _read_output(data: bytes | bytearray) -> Notification | None:
    try:
        output = _outputs.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return output.message()


def _refuse(data: bytes | bytearray, error: Exception) -> NoReturn:
    """Raise `UnreadableError` for a call that was refused with `error`, and `ProtocolError` where it is none."""
    why = "invalid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
    head = _Head()
    try:
        head = _heads.decode(data)
    except RecursionError:
        raise UnreadableError(_early_id(data), InvalidParamsError("nested too deeply")) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    if isinstance(head.method, UnsetType) or isinstance(head.id, UnsetType):
        raise ProtocolError(f"malformed message: {why}; {_beginning(data)}") from None
    id = _id_in(head.id)
    if id is None:
        refuse_id(f"the msgpack {bytes(head.id)[:_QUOTED_BYTES].hex(' ')}")
    raise UnreadableError(id, InvalidCallError(f"invalid request: {why}")) from None


def _check_head(data: bytes | bytearray) -> None:
    """Raise for a large message whose id or method is large, before letters are made of it."""
    try:
        head = _heads.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return  # to be told by who decodes all of it
    for member in (head.id, head.method):
        if not isinstance(member, UnsetType) and len(member) > _MOST_HEAD_BYTES:
            text = f"its id or its method has {len(member)} bytes"
            raise UnreadableError(_early_id(data), InvalidParamsError(text))


def _early_id(data: bytes | bytearray) -> MessageId | None:
    """Return the id of a message that is not to be decoded, where it stands in front of all that is large."""
    at = end_of(data, 0)
    for _ in range(_MOST_EARLY):
        key, at = data[at : (after := end_of(data, at))], after
        value, at = data[at : (after := end_of(data, at))], after
        if key == b"\xa2id":
            return _id_in(value)
        if key != b"\xa6method":
            return None
    return None


def _id_in(written: bytes | bytearray | msgspec.Raw) -> MessageId | None:
    """Return the id that is written there, None where there is none that can be repeated."""
    if len(written) > _MOST_HEAD_BYTES:
        return None
    try:
        id: MessageId = _ids.decode(written)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return id


def _beginning(data: bytes | bytearray) -> str:
    """Return how a message begins, for who looks why it was refused."""
    if data[:1] == b"{":
        return "it looks like JSON, where msgpack was agreed upon"
    return f"it begins with {data[:_QUOTED_BYTES].hex(' ') or 'nothing'}"
