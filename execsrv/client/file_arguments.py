"""Arguments about files, as they are sent. Each raises an error that names the argument, before anything is done."""

from __future__ import annotations

from execsrv.client.parameters import Data
from execsrv.client.text import as_bytes, text_mode
from execsrv.client.transfer import Progress
from execsrv.errors import InvalidParamsError
from execsrv.protocol.files import OpenMode

MODES: dict[str, OpenMode] = {
    "rb": "read",
    "wb": "replace",
    "ab": "append",
    "xb": "create",
    "r+b": "update",
}

_MOST_SECONDS = 2**33
"""The bound on times, in seconds before and after 1970. Nanoseconds in 64 bits reach a little further."""


def content_of(data: Data | str, encoding: str) -> bytes:
    """Return the content of a file as bytes."""
    if (content := as_bytes(data, text_mode(None, encoding, None), "data")) is None:
        raise TypeError("data must be bytes or a string, got None")
    return bytes(content)


def nanoseconds(name: str, value: float | None) -> int | None:
    """Return a time in nanoseconds, None for none."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < _MOST_SECONDS:
        raise InvalidParamsError(f"{name} must be a number of seconds since 1970, got {value!r}", field=name)
    return round(value * 1e9)


def checked_mode(mode: int | None) -> int | None:
    """Return a mode that is a number, or None."""
    if not isinstance(mode, int | None) or isinstance(mode, bool):
        raise TypeError(f"mode must be a number, such as 0o644, got {type(mode).__name__}")
    if mode is not None and not 0 <= mode <= 0o7777:
        raise InvalidParamsError(f"mode must be from 0 to 0o7777, got {mode}", field="mode")
    return mode


def checked_progress(progress: Progress | None) -> Progress | None:
    """Return what is to be told of progress, if that can be called."""
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a function, got {type(progress).__name__}")
    return progress
