"""Paths on the server's machine: as users write them, as the wire carries them, and as errors show them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from execsrv._wire.paths import path_from_wire, uri_from_path
from execsrv.errors import BadAnswerError, FileError, InvalidParamsError, RequestError

ServerPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path that users give: absolute, on the server's machine. Bytes that are not UTF-8 may be in it."""


def path_text(name: str, path: ServerPath) -> str:
    """Return an absolute path as a string. Raises as `plain_path` does, for one that is not absolute too."""
    text = plain_path(name, path)
    if not text.startswith("/"):
        raise InvalidParamsError(f"{name} must be an absolute path on the server's machine, got {text!r}", field=name)
    return text


def writable_path(path: ServerPath) -> str:
    """Return the absolute path of a file to write. Raises as `path_text` does, and `FileError` as the system does.

    The server would pass over a slash at the end, and make a file where a directory was named.
    """
    text = path_text("path", path)
    if text.endswith("/"):
        why = os.strerror(errno.EISDIR)
        raise FileError(f"cannot write {text!r}: {why}", errno=errno.EISDIR, path=text)
    return text


def plain_path(name: str, path: ServerPath) -> str:
    """Return any path as a string, odd bytes as surrogates (`os.fsdecode`).

    Raises `TypeError` for what is no path, and `InvalidParamsError`, both naming the argument.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name} must be a path, got {type(path).__name__}") from None
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise InvalidParamsError(f"{name}: {text!r} is no path that a file can have", field=name) from None
    if "\0" in text:
        raise InvalidParamsError(f"{name}: a path cannot contain a NUL character: {text!r}", field=name)
    return text


def sent(path: str) -> str:
    """Return an absolute path as the wire carries it: as it is, or as a URI where it is not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return uri_from_path(path)
    return path


def sent_path(name: str, path: str | os.PathLike[str]) -> str:
    """Return an absolute path, or a `file:` URI, as the wire carries it. Raises as `path_text` does."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise TypeError(f"{name} must be a string or a path, got {type(path).__name__}")
    text = os.fspath(path)
    return text if text.startswith("file:") else sent(path_text(name, text))


def heard(method: str, uri: str) -> str:
    """Return the absolute path of a URI that a server has answered. Raises `BadAnswerError`."""
    try:
        return path_from_wire(uri, "path")
    except InvalidParamsError as error:
        raise BadAnswerError(method, str(error)) from None


def is_missing(error: RequestError) -> bool:
    """Return whether an error says that nothing is at a path, or that it leads round in links: there is nothing too."""
    return isinstance(error, FileError) and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@contextmanager
def doing(what: str, *paths: str) -> Iterator[None]:
    """Let the errors of the server say what could not be done, and with which paths; `facts["path"]` is the first.

    Of several around each other the outermost has its way.
    """
    try:
        yield
    except RequestError as error:
        said = error.__dict__.setdefault("said", error.message)
        error.args = (f"cannot {what} {' to '.join(map(repr, paths))}: {said}",)
        error.facts["path"] = paths[0]
        raise
