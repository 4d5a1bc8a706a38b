"""Large messages, written piece by piece, as JSON or as msgpack. Pure: no I/O.

A message is large by a few of the values in it: bytes, lists, tables. What is around them is encoded with marks in
their places, and each is then written where its mark is. In JSON the encoder itself escapes the mark in any text; in
msgpack, where any bytes may come, nobody can guess it.
"""

from __future__ import annotations

import os
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from execsrv._budget.weight import heavy_fields, weight_of
from execsrv.protocol import Message, Notification

LARGE_BYTES = 256 * 1024
"""Messages of more bytes, about, are written in pieces."""


class Pieces(NamedTuple):
    """The way in which one encoding writes a large value."""

    encode: Callable[[Any], bytes]
    mark: bytes
    """Stands for a value that is written behind what is around it."""
    piece_bytes: int
    """So many bytes are encoded at once."""
    write_bytes: Callable[[bytes, bytearray, int], Iterator[None]]
    write_list: Callable[[list[Any], bytearray, Pieces], Iterator[None]]


def is_large(message: Message, most: int = LARGE_BYTES) -> bool:
    """Return whether a message is to be written in pieces. A notification never is: it has one chunk at most."""
    return not isinstance(message, Notification) and weight_of(message) > most


def write_pieces(value: Any, buffer: bytearray, form: Pieces) -> Iterator[None]:
    """Write a value behind what is in the buffer, with a step for each piece."""
    if weight_of(value) <= form.piece_bytes:
        buffer += form.encode(value)
    elif isinstance(value, bytes):
        yield from form.write_bytes(value, buffer, form.piece_bytes)
    elif isinstance(value, list):
        yield from form.write_list(value, buffer, form)
    elif isinstance(value, Struct):
        large = _large({name: getattr(value, name) for name in heavy_fields(type(value))}, form)
        marked = msgspec.structs.replace(value, **dict.fromkeys(large, Raw(form.mark)))
        yield from _write_around(marked, large, buffer, form)
    elif isinstance(value, dict):
        large = _large(value, form)
        yield from _write_around(value | dict.fromkeys(large, Raw(form.mark)), large, buffer, form)
    else:
        buffer += form.encode(value)


def _large(values: Mapping[Any, Any], form: Pieces) -> dict[Any, Any]:
    return {name: value for name, value in values.items() if weight_of(value) > form.piece_bytes}


def _write_around(marked: Any, large: dict[Any, Any], buffer: bytearray, form: Pieces) -> Iterator[None]:
    """Write a struct or a table, and the large values in it at their marks, which have the same order."""
    *before, rest = form.encode(marked).split(form.mark)
    for text, value in zip(before, large.values(), strict=True):
        buffer += text
        yield
        yield from write_pieces(value, buffer, form)
    buffer += rest


def _portions(value: list[Any], form: Pieces) -> Iterator[tuple[list[Any], bool]]:
    """Yield so many things at a time as are about a piece, and whether that is so.

    Where some weigh more than others it is not, and each is to be written by itself.
    """
    count = max(1, len(value) * form.piece_bytes // weight_of(value))
    for start in range(0, len(value), count):
        things = value[start : start + count]
        yield things, count > 1 and weight_of(things) <= 2 * form.piece_bytes


# -- JSON --


def _write_base64(value: bytes, buffer: bytearray, piece_bytes: int) -> Iterator[None]:
    buffer += b'"'
    with memoryview(value) as view:
        for start in range(0, len(view), piece_bytes):
            buffer += b2a_base64(view[start : start + piece_bytes], newline=False)
            yield
    buffer += b'"'


def _write_json_list(value: list[Any], buffer: bytearray, form: Pieces) -> Iterator[None]:
    buffer += b"["
    for things, together in _portions(value, form):
        if together:
            buffer += form.encode(things)[1:-1] + b","
            yield
            continue
        for thing in things:
            yield from write_pieces(thing, buffer, form)
            yield
            buffer += b","
    buffer[-1:] = b"]"


# A multiple of 3, so that the base64 of the pieces is that of the whole.
JSON_PIECES = Pieces(msgspec.json.encode, b"\0", 192 * 1024, _write_base64, _write_json_list)


# -- msgpack --

_BIN_32, _ARRAY_16, _ARRAY_32 = b"\xc6", b"\xdc", b"\xdd"
_MOST_IN_16 = 0xFFFF
_MOST_IN_4 = 0xF


def _write_bin(value: bytes, buffer: bytearray, piece_bytes: int) -> Iterator[None]:
    buffer += _BIN_32 + len(value).to_bytes(4, "big")
    with memoryview(value) as view:
        for start in range(0, len(view), piece_bytes):
            buffer += view[start : start + piece_bytes]
            yield


def _write_array(value: list[Any], buffer: bytearray, form: Pieces) -> Iterator[None]:
    buffer += _array_head(len(value))
    for things, together in _portions(value, form):
        if together:
            buffer += form.encode(things)[len(_array_head(len(things))) :]
            yield
            continue
        for thing in things:
            yield from write_pieces(thing, buffer, form)
            yield


def _array_head(count: int) -> bytes:
    """Return what stands in front of the things of a list."""
    if count <= _MOST_IN_4:
        return bytes([0x90 | count])
    if count <= _MOST_IN_16:
        return _ARRAY_16 + count.to_bytes(2, "big")
    return _ARRAY_32 + count.to_bytes(4, "big")


MSGPACK_PIECES = Pieces(msgspec.msgpack.encode, os.urandom(16), 1024 * 1024, _write_bin, _write_array)
