"""Arguments of users as parameters of the wire. Nothing is asked of a server here, and nothing done.

A wrong type or value that the wire would refuse is refused by `checked`, in the same words for every transport.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Literal, TypeVar

import msgspec

from execsrv._wire.channel import MessageChannel
from execsrv.client.file_paths import sent_path
from execsrv.errors import InvalidParamsError, LimitExceededError
from execsrv.limits import MIB
from execsrv.protocol import METHODS, EnvPolicy, OutputFile, Request, Size

P = TypeVar("P", bound=msgspec.Struct)

Path = str | os.PathLike[str]
Data = bytes | bytearray | memoryview

PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
"""The constants of `subprocess` themselves."""

MAX_COLLECTED_BYTES = 64 * MIB
"""The most of a stream that is kept, unless its user says otherwise."""

_EVERYTHING = EnvPolicy(inherit="all", ignore_default_excludes=True, exclude=[], set={}, include_only=[])
_MAX_MILLISECONDS = 2**53

WRITE_BYTES = 256 * 1024
"""Input that goes into one message. Any server takes so much, and more of it in one would be no faster."""

_QUOTED_CHARACTERS = 500
"""The most of a wrong argument that its error shows."""

ENVELOPE_BYTES = 64 * 1024
"""Room in a message for what is around its parameters, in any encoding."""


def checked(method: str, params: msgspec.Struct) -> msgspec.Struct:
    """Return the parameters as a server would read them. Raises `InvalidParamsError`, with the field that is wrong."""
    try:
        return msgspec.convert(msgspec.to_builtins(params, builtin_types=(bytes,)), METHODS[method].params)
    except msgspec.ValidationError as error:
        raise InvalidParamsError(str(error)) from None
    except (TypeError, ValueError, OverflowError) as error:
        field = _unsendable(params)
        raise InvalidParamsError(f"{field}: {error}" if field else str(error), field=field) from None


def _unsendable(params: msgspec.Struct) -> str | None:
    """Return the name of the parameter that is of no type of JSON, or no UTF-8."""
    for name, field in zip(params.__struct_encode_fields__, params.__struct_fields__, strict=True):
        try:
            msgspec.json.encode(getattr(params, field))
        except (TypeError, ValueError, OverflowError):
            return name
    return None


def check_size(request: Request, max_bytes: int, channel: MessageChannel | None) -> None:
    """Raise `LimitExceededError` for a request of a size above `max_bytes`, naming the largest of its parameters."""
    if request.method in ("process/write", "fs/writeBlock"):
        return  # it is cut already
    if channel is None or len(msgspec.json.encode(request.params)) <= max_bytes - ENVELOPE_BYTES:
        return
    if (size := channel.size_of(request)) <= max_bytes:
        return
    plain = msgspec.to_builtins(request.params, builtin_types=(bytes,))
    field, largest = max(_strings("", plain), key=lambda named: named[1], default=("params", size))
    raise LimitExceededError(
        f"{field} is too large with {largest} bytes: the message would have {size},"
        f" and none may have more than max_message_bytes ({max_bytes})",
        limit="max_message_bytes",
        value=max_bytes,
        field=field,
    )


def told_bound(data: dict[str, Any] | None) -> int | msgspec.UnsetType:
    """Return the bound of a message that a server names as the reason for its error, if it does."""
    match data:
        case {"limit": "max_message_bytes", "value": int(bound)}:
            return bound
        case _:
            return msgspec.UNSET


def _strings(name: str, value: Any) -> Iterator[tuple[str, int]]:
    """Yield name and size of each string in parameters."""
    match value:
        case dict():
            for key, part in value.items():
                yield from _strings(f"{name}[{key[:100]!r}]" if name else key, part)
        case list():
            for index, part in enumerate(value):
                yield from _strings(f"{name}[{index}]", part)
        case str():
            yield name, len(value.encode())
        case bytes():
            yield name, len(value)


def pieces(data: Data, size: int) -> Iterator[bytes]:
    """Yield data in pieces of up to `size` bytes, and one empty piece for none."""
    view = memoryview(data)
    with view, view.cast("B") if view.c_contiguous else memoryview(bytes(view)) as plain:
        for start in range(0, max(len(plain), 1), size):
            yield bytes(plain[start : start + size])


def words(argv: Sequence[Path], name: str = "argv") -> list[str]:
    """Return a command as strings. Raises `TypeError` for one string, and for what is neither string nor path."""
    if isinstance(argv, str):
        line = argv[:_QUOTED_CHARACTERS]
        example = json.dumps(shlex.split(line) if line.count("'") % 2 == line.count('"') % 2 == 0 else line.split())
        raise TypeError(f"{name} must be a list of words, got the string {line!r}: write {example}")
    if isinstance(argv, bytes):
        raise TypeError(f"{name} must be a list of words, got the bytes {argv[:_QUOTED_CHARACTERS]!r}")
    if not isinstance(argv, list | tuple) and (not isinstance(argv, Iterable) or isinstance(argv, Mapping | Set)):
        raise TypeError(f"{name} must be a list of words, got {type(argv).__name__}")
    return [string(f"{name}[{index}]", word) for index, word in enumerate(argv)]


def variables(env: Mapping[str, str] | None, added: Mapping[str, str] | None) -> dict[str, str]:
    """Return the variables of an environment as they are sent, with what is laid on top. Raises as `text` does."""
    return {**_variables("env", env), **_variables("env_add", added)}


def _variables(name: str, env: Mapping[str, Path] | None) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise TypeError(f"{name} must be a mapping of strings, got {type(env).__name__}")
    for key, value in env.items():
        if value is None:
            raise TypeError(f"{name}[{key!r}] must be a string, got None: env_remove takes a variable out")
    return {string(name, key): string(f"{name}[{key!r}]", value) for key, value in env.items()}


def references(secret_env: Mapping[str, Path] | None) -> dict[str, str]:
    """Return the places of secret values as they are sent. Raises as `variables` does."""
    return _variables("secret_env", secret_env)


def terminal_modes(modes: Mapping[str, bool | int] | None) -> dict[str, bool | int]:
    """Return the modes of a terminal as they are sent. Raises `TypeError` for what is no mapping."""
    if modes is None:
        return {}
    if not isinstance(modes, Mapping):
        raise TypeError(f"modes must be a mapping of names, got {type(modes).__name__}")
    return dict(modes)


def names(name: str, values: Collection[str]) -> list[str]:
    """Return names as they are sent. Raises `TypeError` for one string."""
    if isinstance(values, str | bytes):
        given = values[:_QUOTED_CHARACTERS]
        raise TypeError(f"{name} must be a list of names, got {given!r}: write [{given!r}]")
    if not isinstance(values, list | tuple | Iterable):
        raise TypeError(f"{name} must be a list of names, got {type(values).__name__}")
    return [string(f"{name}[{index}]", value) for index, value in enumerate(values)]


def stdin_pipe(stdin: bool | int) -> bool:
    """Return whether a command gets a pipe to read from: True or `PIPE`, not False or `DEVNULL`."""
    if stdin is True or stdin is False:
        return stdin
    if stdin in (PIPE, DEVNULL):
        return stdin == PIPE
    raise InvalidParamsError(f"stdin must be PIPE or DEVNULL, got {stdin!r}", field="stdin")


def stdout_place(stdout: int | Path | OutputFile) -> Literal["pipe", "null"] | OutputFile:
    """Return the place of a command's stdout as it is sent. Raises `InvalidParamsError` for what is none."""
    if stdout in (PIPE, DEVNULL):
        return "pipe" if stdout == PIPE else "null"
    return _file("stdout", stdout, "PIPE, DEVNULL, a path or an OutputFile")


def stderr_place(stderr: int | Path | OutputFile) -> Literal["pipe", "null", "stdout"] | OutputFile:
    """Return the place of a command's stderr as it is sent. Raises `InvalidParamsError` for what is none."""
    if stderr == STDOUT:
        return "stdout"
    if stderr in (PIPE, DEVNULL):
        return "pipe" if stderr == PIPE else "null"
    return _file("stderr", stderr, "PIPE, DEVNULL, STDOUT, a path or an OutputFile")


def _file(name: str, place: object, wanted: str) -> OutputFile:
    if isinstance(place, str | os.PathLike):
        return OutputFile(sent_path(name, place))
    if isinstance(place, OutputFile):
        return OutputFile(sent_path(f"{name}.path", place.path), place.append)
    raise InvalidParamsError(f"{name} must be {wanted}, got {place!r}", field=name)


def everything(inherit: bool) -> EnvPolicy | None:
    """Return the policy for all of the server's environment, or None for nothing of it."""
    return _EVERYTHING if inherit else None


def flag(name: str, value: bool) -> bool:
    """Return a bool that is one. Raises `InvalidParamsError` otherwise."""
    if not isinstance(value, bool):
        raise InvalidParamsError(f"{name} must be True or False, got {value!r}", field=name)
    return value


def overflow_way(overflow: Literal["block", "drop"]) -> Literal["block", "drop"]:
    """Return what becomes of output that nobody reads. Raises `InvalidParamsError` for another word."""
    if overflow not in ("block", "drop"):
        raise InvalidParamsError(f"overflow must be 'block' or 'drop', got {overflow!r}", field="overflow")
    return overflow


def terminal_size(size: tuple[int, int] | tuple[int, int, int, int] | None) -> Size | None:
    """Return rows and columns, and width and height in pixels, as they are sent. `checked` looks at the numbers."""
    if size is None:
        return None
    try:
        rows, columns, *pixels = size
        if len(pixels) not in (0, 2):
            raise ValueError
    except (TypeError, ValueError):
        raise InvalidParamsError(f"size must be (rows, columns), got {size!r}", field="size") from None
    return Size(rows, columns, *pixels)


def string(name: str, value: Any) -> str:
    """Return a string that can be sent. Raises `TypeError` for another type, `InvalidParamsError` without UTF-8."""
    try:
        string = os.fspath(value)
    except TypeError:
        string = value
    if not isinstance(string, str):
        raise TypeError(f"{name} must be a string or a path, got {type(value).__name__}")
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
        got = value if value > -_MAX_MILLISECONDS or isinstance(value, float) else "less"
        raise InvalidParamsError(f"{name} must be {'at least' if zero else 'above'} 0 s, got {got}", field=name)
    if math.inf != value > _MAX_MILLISECONDS / 1000:
        raise InvalidParamsError(f"{name} must be at most {_MAX_MILLISECONDS // 1000} s or math.inf", field=name)
    return value


def count(name: str, value: int) -> int:
    """Return a number above 0. Raises `InvalidParamsError` for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidParamsError(f"{name} must be a number above 0, got {value!r}", field=name)
    return value


def check_bound(max_bytes: int | None) -> int:
    """Return a bound on collected output, the default one for None. Raises `InvalidParamsError` for no number."""
    if max_bytes is None:
        return MAX_COLLECTED_BYTES
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 0:
        raise InvalidParamsError(f"max_bytes must be a number of bytes, got {max_bytes!r}", field="max_bytes")
    return max_bytes


def milliseconds(name: str, value: float | None) -> int | None:
    """Return a time as it is sent, None for an infinite one. Raises as `seconds` does."""
    time = seconds(name, value)
    return None if time == math.inf else max(1, round(time * 1000))


def grace_milliseconds(grace: float) -> int:
    """Return the time after SIGTERM, in seconds, as it is sent. An infinite one is longer than anybody waits."""
    return _MAX_MILLISECONDS if grace == math.inf else math.ceil(grace * 1000)
