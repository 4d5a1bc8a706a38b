"""The values in a piece of msgpack, counted without decoding them: each costs memory and time. Pure: no I/O.

See the format's own page, https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class _Head(NamedTuple):
    """What the first byte of a value tells of it."""

    size: int
    """The bytes of it, with the first one, that there are in any case."""
    length: int = 0
    """The bytes behind the first one that are a number: of bytes that follow, or of values."""
    values: int = 0
    """The values that follow: for each of that number, or all of them where there is none."""


def _heads() -> Iterator[_Head]:
    """Yield what each first byte tells, from 0x00 to 0xff."""
    yield from [_Head(1)] * 0x80  # small numbers
    yield from [_Head(1, values=2 * count) for count in range(16)]  # small maps
    yield from [_Head(1, values=count) for count in range(16)]  # small arrays
    yield from [_Head(1 + size) for size in range(32)]  # short strings
    yield from [_Head(1)] * 4  # nil, one that is never used, false, true
    yield from [_Head(1 + length, length) for length in (1, 2, 4)]  # bin
    yield from [_Head(2 + length, length) for length in (1, 2, 4)]  # ext, with the type behind the length
    yield from [_Head(1 + size) for size in (4, 8)]  # float
    yield from [_Head(1 + size) for size in (1, 2, 4, 8)] * 2  # uint, int
    yield from [_Head(2 + size) for size in (1, 2, 4, 8, 16)]  # fixext
    yield from [_Head(1 + length, length) for length in (1, 2, 4)]  # str
    yield from [_Head(1 + length, length, 1) for length in (2, 4)]  # array
    yield from [_Head(1 + length, length, 2) for length in (2, 4)]  # map
    yield from [_Head(1)] * 0x20  # small negative numbers


_HEADS = list(_heads())


def count_values(data: bytes | bytearray, step: int) -> Iterator[int]:
    """Yield how many values there are in the first one, with itself: every so many of them, and at the end."""
    at, left, count = 0, 1, 0
    while left and at < len(data):
        size, length, values = _HEADS[data[at]]
        if length:
            number = int.from_bytes(data[at + 1 : at + 1 + length], "big")
            left += number * values
            size += 0 if values else number
        else:
            left += values
        at += size
        left -= 1
        count += 1
        if count % step == 0:
            yield count
    yield count


def end_of(data: bytes | bytearray, at: int) -> int:
    """Return where the value that begins there ends, but for the values in it."""
    if at >= len(data):
        return at
    size, length, values = _HEADS[data[at]]
    number = 0 if values else int.from_bytes(data[at + 1 : at + 1 + length], "big")
    return at + size + number
