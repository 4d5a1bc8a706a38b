"""The words of `execsrv cp`: which side of a copy is where, and what path each copy gets."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from typing import NamedTuple

import trio

from execsrv._cli.finding import listing
from execsrv._cli.reach import path_there
from execsrv._wire.paths import path_from_wire
from execsrv.client import Client
from execsrv.errors import ExecsrvError, NotFoundError


class Side(NamedTuple):
    """One side of a copy. On the server it has a `name`, empty for the server's own directory."""

    path: str
    name: str | None = None

    @classmethod
    def parsed(cls, word: str) -> Side:
        """Return the place that a word names: `NAME:PATH` is on the server, as long as no slash is in NAME."""
        name, colon, path = word.partition(":")
        return cls(path, name) if colon and "/" not in name else cls(word)

    @property
    def is_there(self) -> bool:
        """True on the server."""
        return self.name is not None

    @property
    def is_directory(self) -> bool:
        """True where the path can be that of a directory alone."""
        return posixpath.basename(self.path) in ("", ".", "..")


class Copy(NamedTuple):
    """One source, and the path that its copy gets. The one on the server is absolute."""

    source: str
    destination: str


async def settled(client: Client, sources: Sequence[Side], to: Side, *, itself: bool) -> tuple[list[Copy], bool]:
    """Return what is to be copied where to, and whether that is into a directory, which it never is with `itself`.

    Raises `ExecsrvError` where it cannot be told, or two copies would have one path.
    """
    paths = [await _absolute(client, source) for source in sources]
    destination = await _absolute(client, to)
    into = not itself and await _is_directory(client, to, destination)
    if not into:
        if not itself and (len(paths) > 1 or to.is_directory):
            raise ExecsrvError(f"cannot copy into `{destination}`: there is no such directory")
        return [Copy(paths[0], destination)], False
    names = [_own_name(path) for path in paths]
    for name in names:
        if not name:
            raise ExecsrvError("cannot copy `/` into a directory: name its copy with --no-target-directory")
        if names.count(name) > 1:
            raise ExecsrvError(f"cannot copy into `{destination}`: two of the sources are called `{name}`")
    copies = zip(paths, names, strict=True)
    return [Copy(path, posixpath.join(destination, name)) for path, name in copies], True


def _own_name(path: str) -> str:
    return os.path.basename(os.path.abspath(path))


async def _is_directory(client: Client, place: Side, path: str) -> bool:
    if not place.is_there:
        return await trio.to_thread.run_sync(os.path.isdir, path or ".", limiter=trio.CapacityLimiter(1))
    try:
        return (await client.files.stat(path)).is_directory
    except NotFoundError:
        return False


async def _absolute(client: Client, place: Side) -> str:
    """Return the path of a place, absolute on the server. Raises `ExecsrvError` for a name that nobody has."""
    if place.name is None:
        return place.path
    if not place.name:
        return path_there(client, place.path)
    return posixpath.normpath(posixpath.join(await _directory_of(client, place.name), place.path))


async def _directory_of(client: Client, name: str) -> str:
    cwd = (await listing(client)).find(name).cwd
    return path_there(client, "") if cwd is None else path_from_wire(cwd, "cwd")
