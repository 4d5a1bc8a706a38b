"""The weight of a message: about how many bytes of memory it takes, as long as it waits. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Struct, UnsetType
from msgspec.structs import fields

THING_BYTES = 256
"""The cost of anything beside the bytes and letters that are in it."""

_LOOKED_AT = 256
"""So many things of a list are weighed. The others are taken to be like them."""

_FLAT = (bytes, bytearray, str, msgspec.Raw)

_LIGHT = (int, float, bool, type(None), UnsetType)


def weight_of(value: Any) -> int:
    """Return the weight of a struct, of a plain value, or of raw JSON."""
    # Every message is weighed, most of them small ones with many fields: so each step of this counts.
    if isinstance(value, Struct):
        weight = THING_BYTES
        for held in _heavy_values(type(value))(value):
            if held:  # most are empty, or None
                weight += len(held) if type(held) is str else weight_of(held)
        return weight
    if isinstance(value, _FLAT):
        return len(value)
    if isinstance(value, list | tuple):
        return _weight_of_all(value)
    if isinstance(value, dict):
        return _weight_of_all([*value, *value.values()])
    return 8


def _weight_of_all(things: Sequence[Any]) -> int:
    if len(things) <= _LOOKED_AT:
        return sum([16 + (len(thing) if type(thing) is str else weight_of(thing)) for thing in things])
    every = len(things) / _LOOKED_AT
    some = [things[int(number * every)] for number in range(_LOOKED_AT)]
    return int(every * _weight_of_all(some))


@cache
def _heavy_values(type_: type[Struct]) -> Callable[[Struct], tuple[Any, ...]]:
    """Return what gets the values of the heavy fields of a struct."""
    names = heavy_fields(type_)
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


@cache
def heavy_fields(type_: type[Struct]) -> tuple[str, ...]:
    """Return the names of the fields that may hold more than a number or a word."""
    return tuple(field.name for field in fields(type_) if not _is_light(field.type))


def _is_light(type_: Any) -> bool:
    if get_origin(type_) is Annotated:
        return _is_light(get_args(type_)[0])
    if get_origin(type_) in (Union, UnionType):
        return all(map(_is_light, get_args(type_)))
    return type_ in _LIGHT or get_origin(type_) is Literal
