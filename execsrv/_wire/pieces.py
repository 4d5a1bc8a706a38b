"""The JSON of large messages, written piece by piece. Pure: no I/O.

A message is large by a few of the values in it: bytes, lists, tables. What is around them is encoded with marks in
their places, and each is then written where its mark is. The encoder itself escapes the mark in any text.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from execsrv._budget.weight import heavy_fields, weight_of
from execsrv.protocol import Message, Notification

LARGE_BYTES = 256 * 1024
"""Messages of more bytes, about, are written in pieces."""

_PIECE_BYTES = 192 * 1024
"""So many bytes are encoded at once: a multiple of 3, so that the base64 of the pieces is that of the whole."""

_MARK = b"\0"
_MARKED = Raw(_MARK)

_encode = msgspec.json.encode


def is_large(message: Message) -> bool:
    """Return whether a message is to be written in pieces. A notification never is: it has one chunk at most."""
    return not isinstance(message, Notification) and weight_of(message) > LARGE_BYTES


def write_pieces(value: Any, buffer: bytearray) -> Iterator[None]:
    """Write the JSON of a value behind what is in the buffer, with a step for each piece."""
    if weight_of(value) <= _PIECE_BYTES:
        buffer += _encode(value)
    elif isinstance(value, bytes):
        yield from _write_bytes(value, buffer)
    elif isinstance(value, list):
        yield from _write_list(value, buffer)
    elif isinstance(value, Struct):
        large = _large({name: getattr(value, name) for name in heavy_fields(type(value))})
        yield from _write_around(msgspec.structs.replace(value, **dict.fromkeys(large, _MARKED)), large, buffer)
    elif isinstance(value, dict):
        large = _large(value)
        yield from _write_around(value | dict.fromkeys(large, _MARKED), large, buffer)
    else:
        buffer += _encode(value)


def _large(values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in values.items() if weight_of(value) > _PIECE_BYTES}


def _write_around(marked: Any, large: dict[Any, Any], buffer: bytearray) -> Iterator[None]:
    """Write a struct or a table, and the large values in it at their marks, which have the same order."""
    *before, rest = _encode(marked).split(_MARK)
    for text, value in zip(before, large.values(), strict=True):
        buffer += text
        yield
        yield from write_pieces(value, buffer)
    buffer += rest


def _write_bytes(value: bytes, buffer: bytearray) -> Iterator[None]:
    buffer += b'"'
    with memoryview(value) as view:
        for start in range(0, len(view), _PIECE_BYTES):
            buffer += b2a_base64(view[start : start + _PIECE_BYTES], newline=False)
            yield
    buffer += b'"'


def _write_list(value: list[Any], buffer: bytearray) -> Iterator[None]:
    """Write so many things at a time as are about a piece; where some weigh more than others, each by itself."""
    count = max(1, len(value) * _PIECE_BYTES // weight_of(value))
    buffer += b"["
    for start in range(0, len(value), count):
        things = value[start : start + count]
        if count > 1 and weight_of(things) <= 2 * _PIECE_BYTES:
            buffer += _encode(things)[1:-1] + b","
            yield
            continue
        for thing in things:
            yield from write_pieces(thing, buffer)
            yield
            buffer += b","
    buffer[-1:] = b"]"
