"""Directories by a text, as they are given on a command line."""

from __future__ import annotations

from execsrv.directories.endpoint import Directory, Endpoint
from execsrv.directories.joined import FileDirectory
from execsrv.errors import InvalidConfigError


def directory_of(text: str) -> Directory | list[Endpoint]:
    """Return the directory, or the servers, that a text names.

    A text with URLs, and commas between them, is these servers; any other is the path of a file that servers join.
    Raises `InvalidConfigError` for an empty one.
    """
    words = [word for word in text.split(",") if word]
    if not words:
        raise InvalidConfigError("a pool needs the path of a file, or URLs of servers with commas between them")
    if "://" in words[0] or words[0].startswith("exec:"):
        return [Endpoint(word) for word in words]
    return FileDirectory(text)
