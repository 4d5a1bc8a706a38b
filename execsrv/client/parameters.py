"""Arguments of users as parameters of the wire. Nothing is asked of a server here, and nothing done.

A wrong type or value that the wire would refuse is refused by `checked`, in the same words for every transport.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar

import msgspec
from msgspec import Struct

from execsrv.errors import InvalidParamsError
from execsrv.protocol import METHODS, EnvPolicy, Size

P = TypeVar("P", bound=Struct)

Path = str | os.PathLike[str]
Data = bytes | bytearray | memoryview

_EVERYTHING = EnvPolicy(inherit="all", ignore_default_excludes=True, exclude=[], set={}, include_only=[])
_MAX_MILLISECONDS = 2**53


class StartOptions(TypedDict, total=False):
    """Keywords that `Client.run` passes on to `Client.start`, where they are explained."""

    cwd: Path | None
    env: Mapping[str, str] | None
    inherit_env: bool | None
    tty: bool
    size: tuple[int, int] | None
    arg0: str | None
    idle_timeout: float | None
    overflow: Literal["block", "drop"]
    prepared: bool


def checked(method: str, params: Struct) -> Struct:
    """Return the parameters as a server would read them. Raises `InvalidParamsError`, with the field that is wrong."""
    try:
        return msgspec.convert(msgspec.to_builtins(params, builtin_types=(bytes,)), METHODS[method].params)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidParamsError(str(error)) from None


def words(argv: Sequence[Path]) -> list[str]:
    """Return a command as strings. Raises `TypeError` for one string, and for what is neither string nor path."""
    if isinstance(argv, str):
        example = json.dumps(shlex.split(argv) if argv.count("'") % 2 == argv.count('"') % 2 == 0 else argv.split())
        raise TypeError(f"argv must be a list of words, got the string {argv!r}: write {example}")
    if isinstance(argv, bytes):
        raise TypeError(f"argv must be a list of words, got the bytes {argv!r}")
    return [text(f"argv[{index}]", word) for index, word in enumerate(argv)]


def variables(env: Mapping[str, str] | None) -> dict[str, str]:
    """Return variables of an environment as they are sent. Raises as `text` does."""
    return {text("env", name): text(f"env[{name!r}]", value) for name, value in (env or {}).items()}


def everything(inherit: bool) -> EnvPolicy | None:
    """Return the policy for all of the server's environment, or None for nothing of it."""
    return _EVERYTHING if inherit else None


def check_input(data: Data | None) -> None:
    """Raise `TypeError` for input that is not bytes."""
    if not isinstance(data, bytes | bytearray | memoryview | None):
        raise TypeError(f"input must be bytes, got {type(data).__name__}")


def flag(name: str, value: bool) -> bool:
    """Return a bool that is one. Raises `InvalidParamsError` otherwise."""
    if not isinstance(value, bool):
        raise InvalidParamsError(f"{name} must be True or False, got {value!r}", field=name)
    return value


def terminal_size(size: tuple[int, int] | None) -> Size | None:
    """Return rows and columns as they are sent. `checked` looks at the numbers."""
    if size is None:
        return None
    try:
        rows, columns = size
    except (TypeError, ValueError):
        raise InvalidParamsError(f"size must be (rows, columns), got {size!r}", field="size") from None
    return Size(rows, columns)


def text(name: str, value: Any) -> str:
    """Return a string that can be sent. Raises `TypeError` for another type, `InvalidParamsError` without UTF-8."""
    try:
        string = os.fspath(value)
    except TypeError:
        string = value
    if not isinstance(string, str):
        raise TypeError(f"{name} must be a string or a path of one, got {type(value).__name__}")
    try:
        string.encode()
    except UnicodeEncodeError:
        raise InvalidParamsError(f"{name}: {string!r} cannot be sent as UTF-8", field=name) from None
    return string


def seconds(name: str, value: float | None, *, zero: bool = False) -> float:
    """Return a time, infinite for None. Raises `InvalidParamsError` for what is no time, or (without `zero`) none."""
    if value is None:
        return math.inf
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidParamsError(f"{name} must be a number of seconds, got {value!r}", field=name)
    if not (value > 0 or (zero and value == 0)):  # which is how to find a NaN too
        raise InvalidParamsError(f"{name} must be {'at least' if zero else 'above'} 0 s, got {value}", field=name)
    if math.inf != value > _MAX_MILLISECONDS / 1000:
        raise InvalidParamsError(f"{name} must be at most {_MAX_MILLISECONDS // 1000} s or math.inf", field=name)
    return value


def milliseconds(name: str, value: float | None) -> int | None:
    """Return a time as it is sent, None for an infinite one. Raises as `seconds` does."""
    time = seconds(name, value)
    return None if time == math.inf else max(1, round(time * 1000))
