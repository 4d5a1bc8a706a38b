"""Directories by a text, as they are given on a command line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from execsrv.directories.endpoint import Directory, Endpoint
from execsrv.directories.joined import FileDirectory
from execsrv.errors import InvalidConfigError


def _of_ray(name: str) -> Directory:
    try:
        adapter = import_module("execsrv.adapters.ray")  # by its name: it stands above, and Ray takes long to import
    except ImportError as error:
        raise InvalidConfigError("cannot use a pool of `ray://` without Ray: pip install 'execsrv[ray]'") from error
    found: Directory = adapter.RayDirectory(name) if name else adapter.RayDirectory()
    return found


_BY_SCHEME: dict[str, Callable[[str], Directory]] = {"ray": _of_ray}


def directory_of(text: str) -> Directory | list[Endpoint]:
    """Return the directory, or the servers, that a text names.

    A text with URLs, and commas between them, is these servers; `ray://NAME` is those that Ray keeps under that name;
    any other is the path of a file that servers join. Raises `InvalidConfigError` for an empty one, and for one whose
    extra is not installed.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme in _BY_SCHEME:
        return _BY_SCHEME[scheme](rest)
    words = [word for word in text.split(",") if word]
    if not words:
        raise InvalidConfigError("a pool needs the path of a file, or URLs of servers with commas between them")
    if "://" in words[0] or words[0].startswith("exec:"):
        return [Endpoint(word) for word in words]
    return FileDirectory(text)
