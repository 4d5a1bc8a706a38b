"""The parameters of a call, bounded: before they are decoded in bytes and in values, and then each text in bytes. Pure.

A call may have a payload of many bytes. Whatever else it has is small, and looked at in a large call first: decoding it
would take the memory and the time that its bounds are to spare.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from execsrv._wire.codecs import decode_params, is_packed
from execsrv.errors import InvalidParamsError

S = TypeVar("S", bound=Struct)

_SMALL_BYTES = 256 * 1024
"""Parameters of so many bytes are decoded as they are: that takes a moment, whatever is in them."""

_MOST_TEXT_BYTES = 64 * 1024
"""A text or a number within larger ones."""

_STEP_LETTERS = 4 * 1024 * 1024
"""Letters of a payload that are decoded at once."""

_encoder = msgspec.json.Encoder()
_base64 = msgspec.json.Decoder(bytes)

_MOST_STRUCTURE_BYTES = 8 * 1024 * 1024
"""A list, a table, or a struct within larger ones: more than the kernel takes of argv and environment."""

_MOST_VALUES = 512 * 1024
"""The values of a list, a table, or a struct, where its type does not say how many it may have."""

_FEW_VALUES = 4096
"""Each may have so many, since names that are not known here are passed over."""

_BLOCK_BYTES = 64 * 1024
"""Of JSON whose values are counted."""


def decode_in_steps(params: msgspec.Raw, type_: type[S]) -> Generator[None, None, S]:
    """Decode as `decode_call` does, with a step for each piece of a large base64. Gives the struct at the end."""
    shape = _shape(type_)
    members = _check_members(params, shape)
    payload = None if members is None or is_packed(params) else _payload_in(members, shape)
    if payload is None:
        return decode_call(params, type_)
    name, written, text = payload
    pieces: list[bytes] = []
    for start in range(1, len(text) - 1, _STEP_LETTERS):
        yield
        end = min(start + _STEP_LETTERS, len(text) - 1)
        letters = bytes(text[start:end])
        if b"\\" in letters:  # so that it is to be read as a string first
            return decode_call(params, type_)
        pieces.append(_piece(letters, written, is_last=end == len(text) - 1))
    yield
    payload_bytes = b"".join(pieces)
    pieces.clear()
    yield
    others = {key: getattr(members, key) for key in shape.keys if getattr(members, key) is not UNSET}
    rest = msgspec.Raw(_encoder.encode({**others, written: ""}))
    return msgspec.structs.replace(decode_call(rest, type_), **{name: payload_bytes})


def _payload_in(members: Any, shape: _Shape) -> tuple[str, str, memoryview] | None:
    """Return the large payload of a call: its attribute, its name, and its text with the quotes; None without any."""
    for name, written in shape.payloads:
        raw = getattr(members, written)
        if raw is not UNSET and len(raw) > _STEP_LETTERS:
            text = memoryview(raw)
            return (name, written, text) if text[0] == ord('"') else None
    return None


def _piece(letters: bytes, written: str, *, is_last: bool) -> bytes:
    """Return the bytes that a piece of base64 stands for. Raises `InvalidParamsError`, also for an end in between."""
    try:
        if b"=" in letters and not is_last:
            raise msgspec.ValidationError("Invalid base64 encoded string")
        return _base64.decode(b'"' + letters + b'"')
    except msgspec.ValidationError as error:
        raise InvalidParamsError(f"{error} - at `$.{written}`") from None


def decode_call(params: Any, type_: type[S]) -> S:
    """Return the parameters of a call as their struct. Raises `InvalidParamsError`, with the field that is wrong."""
    shape = _shape(type_)
    if isinstance(params, msgspec.Raw) and len(params) > _SMALL_BYTES:
        _check_members(params, shape)
    decoded = decode_params(params, type_)
    for name, written, most in shape.texts:
        text = getattr(decoded, name)
        if isinstance(text, str) and 4 * len(text) > most and not text.isascii() and len(text.encode()) > most:
            raise InvalidParamsError(f"Expected `str` of at most {most} bytes - at `$.{written}`")
    return decoded


class _Shape(NamedTuple):
    """The members of some parameters."""

    keys: tuple[str, ...]
    """All of them, as written."""
    payloads: tuple[tuple[str, str], ...]
    """Those that are bytes: as attributes, and as written."""
    texts: tuple[tuple[str, str, int], ...]
    """Each text with a bound: as an attribute, as written, and how many bytes it may have."""
    bounds: dict[str, int]
    """How many bytes, as written, each may have that is no payload."""
    counts: dict[str, int]
    """How many values each list and table may have in all. JSON tells only at their end how many there were."""
    members: msgspec.json.Decoder[Any]
    """Gives all of them as they were written."""
    packed_members: msgspec.msgpack.Decoder[Any]
    """The same for msgpack."""


def _check_members(params: msgspec.Raw, shape: _Shape) -> Any:
    """Return the members as they were written, None where they cannot be read: who decodes all of it tells why."""
    try:
        members = (shape.packed_members if is_packed(params) else shape.members).decode(params)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    encoding = "msgpack" if is_packed(params) else "JSON"
    for written, most in shape.bounds.items():
        member = getattr(members, written)
        if member is not UNSET and len(member) > most:
            raise InvalidParamsError(
                f"`{written}` has {len(member)} bytes of {encoding}: at most {most}", field=written
            )
    if is_packed(params):
        return members  # which tell how many values follow in front of them: the bound of each list is looked at first
    for written, most in shape.counts.items():
        member = getattr(members, written)
        if member is not UNSET and _has_more(bytes(member), most):
            raise InvalidParamsError(f"`{written}` has more than {most} values", field=written)
    return members


def _has_more(json: bytes, most: int) -> bool:
    """Return True where a list or a table has more values than so many, as soon as that is clear."""
    if json.count(b",") < most:
        return False
    plain = json.replace(rb"\\", b"").replace(rb"\"", b"")
    commas, in_text = 0, False
    for start in range(0, len(plain), _BLOCK_BYTES):
        parts = plain[start : start + _BLOCK_BYTES].split(b'"')
        commas += b"".join(parts[in_text::2]).count(b",")  # not those within texts
        in_text ^= len(parts) % 2 == 0
        if commas >= most:
            return True
    return False


@cache
def _shape(type_: type[Struct]) -> _Shape:
    payloads, texts, bounds, counts = [], [], {}, {}
    hints = get_type_hints(type_, include_extras=True)
    for name, written in zip(type_.__struct_fields__, type_.__struct_encode_fields__, strict=True):
        kinds = dict(_kinds(hints[name]))
        if bytes in kinds:
            payloads.append((name, written))
            continue
        is_scalar = kinds.keys() <= {str, int, bool, NoneType, Literal}
        bounds[written] = _MOST_TEXT_BYTES if is_scalar else _MOST_STRUCTURE_BYTES
        if not is_scalar:
            counts[written] = min(max(_values(hints[name]), _FEW_VALUES), _MOST_VALUES)
        if kinds.get(str) is not None:
            texts.append((name, written, kinds[str]))
            bounds[written] = max(bounds[written], min(kinds[str], _MOST_STRUCTURE_BYTES))
    keys = type_.__struct_encode_fields__
    members = msgspec.defstruct(type_.__name__, [(key, msgspec.Raw | UnsetType, UNSET) for key in keys])
    decoders = msgspec.json.Decoder(members), msgspec.msgpack.Decoder(members)
    return _Shape(keys, tuple(payloads), tuple(texts), bounds, counts, *decoders)


def _values(hint: Any, length: int = _MOST_VALUES) -> int:
    """Return how many values something of a type has at most, itself included. No struct is within itself."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        lengths = [meta.max_length for meta in parts[1:] if isinstance(meta, Meta) and meta.max_length is not None]
        return _values(parts[0], min([length, *lengths]))
    if origin in (Union, UnionType):
        return max(map(_values, parts))
    if origin in (list, dict):
        return 1 + length * _values(parts[-1])
    if isinstance(hint, type) and issubclass(hint, Struct):
        return 1 + sum(map(_values, get_type_hints(hint, include_extras=True).values()))
    return _MOST_VALUES if hint in (Any, msgspec.Raw) else 1


def _kinds(hint: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each of the types that a field may have, with the bound of its length."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    elif origin is Annotated:
        inner, *metas = get_args(hint)
        lengths = [meta.max_length for meta in metas if isinstance(meta, Meta) and meta.max_length is not None]
        for kind, length in _kinds(inner):
            yield kind, min(lengths, default=length)
    else:
        yield origin or hint, None
