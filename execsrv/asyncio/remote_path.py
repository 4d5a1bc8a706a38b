# Written by tests/facades.py from execsrv.client.remote_path: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from execsrv._portal.awaiting import Facade, Items, Opening
from execsrv.client.file_info import FileInfo
from execsrv.client.parameters import Data
from execsrv.client.remote_path import RemotePath as TrioRemotePath

if TYPE_CHECKING:
    from execsrv.asyncio.file_handles import RemoteFile


class RemotePath(Facade, of=TrioRemotePath):
    """An absolute path on the server's machine, made by `Files.path`, for wherever a path of the server is asked for.

    Methods that touch the server are those of `pathlib.Path`, awaited; those that give several paths are async
    iterators. Nothing is asked of the server before one of them is called.
    """

    def __str__(self) -> str:
        return self._plain("__str__")

    def __fspath__(self) -> str:
        return self._plain("__fspath__")

    def __eq__(self, other: object) -> bool:
        return self._plain("__eq__", other)

    def __hash__(self) -> int:
        return self._plain("__hash__")

    def __lt__(self, other: RemotePath) -> bool:
        return self._plain("__lt__", other)

    def __truediv__(self, other: str | os.PathLike[str]) -> RemotePath:
        return self._plain("__truediv__", other)

    def joinpath(self, *others: str | os.PathLike[str]) -> RemotePath:
        """Return this path with others after it; an absolute one replaces it."""
        return self._plain("joinpath", *others)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self._get("name")

    @property
    def stem(self) -> str:
        """Last part without its suffix."""
        return self._get("stem")

    @property
    def suffix(self) -> str:
        """Suffix of the last part, with its dot."""
        return self._get("suffix")

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts, "/" first."""
        return self._get("parts")

    @property
    def parent(self) -> RemotePath:
        """The directory that this is in."""
        return self._get("parent")

    @property
    def parents(self) -> Sequence[RemotePath]:
        """The directories above, the nearest first."""
        return self._get("parents")

    def with_name(self, name: str) -> RemotePath:
        """Return the path of another name beside this one."""
        return self._plain("with_name", name)

    def with_suffix(self, suffix: str) -> RemotePath:
        """Return this path with another suffix."""
        return self._plain("with_suffix", suffix)

    def relative_to(self, other: str | os.PathLike[str]) -> PurePosixPath:
        """Return the way from `other` to here. Raises `ValueError` where it is not above."""
        return self._plain("relative_to", other)

    def is_relative_to(self, other: str | os.PathLike[str]) -> bool:
        """Return whether `other` is above, or here."""
        return self._plain("is_relative_to", other)

    def match(self, pattern: str) -> bool:
        """Return whether the path matches a pattern, as `PurePath.match` does."""
        return self._plain("match", pattern)

    async def read_bytes(self) -> bytes:
        """Return the content of the file."""
        return await self._wait("read_bytes")

    async def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the content of the file as text."""
        return await self._wait("read_text", encoding, errors)

    async def write_bytes(self, data: Data) -> None:
        """Write the file whole."""
        return await self._wait("write_bytes", data)

    async def write_text(self, data: str, encoding: str = "utf-8") -> None:
        """Write the file whole, as text."""
        return await self._wait("write_text", data, encoding)

    def open(self, mode: str = "rb") -> Opening[RemoteFile]:
        """Open the file: `async with path.open("r+b") as file`."""
        return self._enter("open", mode)

    async def stat(self, *, follow_symlinks: bool = True) -> FileInfo:
        """Return the facts of what the path leads to."""
        return await self._wait("stat", follow_symlinks=follow_symlinks)

    async def lstat(self) -> FileInfo:
        """Return the facts of what is at the path, of a link its own."""
        return await self._wait("lstat")

    async def exists(self) -> bool:
        """Return whether the path leads to anything."""
        return await self._wait("exists")

    async def is_file(self) -> bool:
        """Return whether the path leads to a regular file."""
        return await self._wait("is_file")

    async def is_dir(self) -> bool:
        """Return whether the path leads to a directory."""
        return await self._wait("is_dir")

    async def is_symlink(self) -> bool:
        """Return whether a link is at the path."""
        return await self._wait("is_symlink")

    async def readlink(self) -> str:
        """Return where the link leads, as it is written in it. Raises `FileError` where no link is."""
        return await self._wait("readlink")

    async def resolve(self) -> RemotePath:
        """Return the path without links. Raises `NotFoundError` where nothing is."""
        return await self._wait("resolve")

    def iterdir(self) -> Items[RemotePath]:
        """Yield the entries of the directory, sorted by name."""
        return self._iterate("iterdir")

    def glob(self, pattern: str) -> Items[RemotePath]:
        """Yield what matches a relative pattern; `**` stands for any number of directories. No link is followed there.

        A leading dot is nothing special, as in `pathlib`, and what may not be looked into is left out.
        """
        return self._iterate("glob", pattern)

    def rglob(self, pattern: str) -> Items[RemotePath]:
        """Yield what matches a pattern in this directory or in any below it."""
        return self._iterate("rglob", pattern)

    async def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory here, with that mode, less the server's umask. One that is there keeps its own."""
        return await self._wait("mkdir", mode, parents, exist_ok)

    async def rmdir(self) -> None:
        """Remove the directory, which must be empty. Raises `FileError` for anything else."""
        return await self._wait("rmdir")

    async def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file or link. Raises `FileError` for a directory."""
        return await self._wait("unlink", missing_ok)

    async def rename(self, target: str | os.PathLike[str]) -> RemotePath:
        """Give it another path, in place of the file that may be there, and return that path."""
        return await self._wait("rename", target)

    replace = rename

    async def symlink_to(self, target: str | os.PathLike[str]) -> None:
        """Make a symbolic link here."""
        return await self._wait("symlink_to", target)

    async def chmod(self, mode: int) -> None:
        """Set the mode."""
        return await self._wait("chmod", mode)

    async def touch(self, exist_ok: bool = True) -> None:
        """Make an empty file, or give the file or directory that is there the present time."""
        return await self._wait("touch", exist_ok)
