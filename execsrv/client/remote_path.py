"""Paths on the server's machine as objects, in the words of `pathlib`."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from execsrv.client.file_info import FileInfo
from execsrv.client.file_paths import is_missing
from execsrv.client.parameters import Data
from execsrv.client.remote_changes import check_waiting
from execsrv.errors import FileError, InvalidParamsError, OutsideRootsError

if TYPE_CHECKING:
    from execsrv.client.file_handles import RemoteFile
    from execsrv.client.files import Files


class RemotePath:
    """An absolute path on the server's machine, made by `Files.path`, for wherever a path of the server is asked for.

    Methods that touch the server are those of `pathlib.Path`, awaited; those that give several paths are async
    iterators. Nothing is asked of the server before one of them is called.
    """

    __slots__ = ("_files", "_path")

    def __init__(self, files: Files, path: str | PurePosixPath) -> None:
        self._files = files
        self._path = PurePosixPath(path)

    def _made(self, path: str | PurePosixPath) -> RemotePath:
        return RemotePath(self._files, path)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __str__(self) -> str:
        return str(self._path)

    def __fspath__(self) -> str:
        return str(self._path)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemotePath):
            return NotImplemented
        return (self._path, self._files) == (other._path, other._files)

    def __hash__(self) -> int:
        return hash(self._path)

    def __lt__(self, other: RemotePath) -> bool:
        return self._path < other._path

    # -- names --

    def __truediv__(self, other: str | os.PathLike[str]) -> RemotePath:
        return self._made(self._path / other)

    def joinpath(self, *others: str | os.PathLike[str]) -> RemotePath:
        """Return this path with others after it; an absolute one replaces it."""
        return self._made(self._path.joinpath(*others))

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self._path.name

    @property
    def stem(self) -> str:
        """Last part without its suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """Suffix of the last part, with its dot."""
        return self._path.suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts, "/" first."""
        return self._path.parts

    @property
    def parent(self) -> RemotePath:
        """The directory that this is in."""
        return self._made(self._path.parent)

    @property
    def parents(self) -> Sequence[RemotePath]:
        """The directories above, the nearest first."""
        return [self._made(path) for path in self._path.parents]

    def with_name(self, name: str) -> RemotePath:
        """Return the path of another name beside this one."""
        return self._made(self._path.with_name(name))

    def with_suffix(self, suffix: str) -> RemotePath:
        """Return this path with another suffix."""
        return self._made(self._path.with_suffix(suffix))

    def relative_to(self, other: str | os.PathLike[str]) -> PurePosixPath:
        """Return the way from `other` to here. Raises `ValueError` where it is not above."""
        return self._path.relative_to(os.fspath(other))

    def is_relative_to(self, other: str | os.PathLike[str]) -> bool:
        """Return whether `other` is above, or here."""
        return self._path.is_relative_to(os.fspath(other))

    def match(self, pattern: str) -> bool:
        """Return whether the path matches a pattern, as `PurePath.match` does."""
        return self._path.match(pattern)

    # -- contents --

    async def read_bytes(self) -> bytes:
        """Return the content of the file."""
        return await self._files.read(self)

    async def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the content of the file as text."""
        return await self._files.read(self, encoding=encoding, errors=errors)

    async def write_bytes(self, data: Data) -> None:
        """Write the file whole."""
        await self._files.write(self, data)

    async def write_text(self, data: str, encoding: str = "utf-8") -> None:
        """Write the file whole, as text."""
        await self._files.write(self, data, encoding=encoding)

    def open(self, mode: str = "rb") -> AbstractAsyncContextManager[RemoteFile]:
        """Open the file: `async with path.open("r+b") as file`."""
        return self._files.open(self, mode)

    # -- facts --

    async def stat(self, *, follow_symlinks: bool = True) -> FileInfo:
        """Return the facts of what the path leads to."""
        return await self._files.stat(self, follow=follow_symlinks)

    async def lstat(self) -> FileInfo:
        """Return the facts of what is at the path, of a link its own."""
        return await self._files.stat(self, follow=False)

    async def exists(self) -> bool:
        """Return whether the path leads to anything."""
        return await self._files.exists(self)

    async def is_file(self) -> bool:
        """Return whether the path leads to a regular file."""
        return await self._kind() == "file"

    async def is_dir(self) -> bool:
        """Return whether the path leads to a directory."""
        return await self._kind() == "directory"

    async def is_symlink(self) -> bool:
        """Return whether a link is at the path."""
        return await self._kind(follow=False) == "symlink"

    async def _kind(self, follow: bool = True) -> str | None:
        try:
            return (await self._files.stat(self, follow=follow)).kind
        except FileError as error:
            if not is_missing(error):
                raise
            return None

    async def readlink(self) -> str:
        """Return where the link leads, as it is written in it. Raises `FileError` where no link is."""
        target = (await self.lstat()).target
        if target is None:
            raise FileError(f"cannot read the link {str(self)!r}: it is none", errno=errno.EINVAL, path=str(self))
        return target

    async def resolve(self) -> RemotePath:
        """Return the path without links. Raises `NotFoundError` where nothing is."""
        return self._made(await self._files.resolve(self))

    async def iterdir(self) -> AsyncIterator[RemotePath]:
        """Yield the entries of the directory, sorted by name."""
        for found in await self._files.list(self):
            yield self._made(found.path)

    async def glob(self, pattern: str) -> AsyncIterator[RemotePath]:
        """Yield what matches a relative pattern; `**` stands for any number of directories. No link is followed there.

        A leading dot is nothing special, as in `pathlib`, and what may not be looked into is left out.
        """
        parts: Sequence[str] = PurePosixPath(pattern).parts
        if not parts or parts[0] == "/":
            raise InvalidParamsError(f"pattern must be relative and not empty, got {pattern!r}", field="pattern")
        # No generator within a generator: one that is left early would not close the others.
        seen: set[str] = set()
        pending: list[tuple[RemotePath, Sequence[str]]] = [(self, parts)]
        while pending:
            path, parts = pending.pop()
            if parts:
                pending += reversed(await self._next_of(path, parts))
                check_waiting(len(pending), str(self))
            elif str(path) not in seen:
                seen.add(str(path))
                yield path

    def rglob(self, pattern: str) -> AsyncIterator[RemotePath]:
        """Yield what matches a pattern in this directory or in any below it."""
        return self.glob(f"**/{pattern}")

    async def _next_of(self, path: RemotePath, parts: Sequence[str]) -> list[tuple[RemotePath, Sequence[str]]]:
        """Return what to look at next from a path on, each with the rest of the pattern, which is empty for a match."""
        first, rest = parts[0], parts[1:]
        try:
            if not any(letter in first for letter in "*?["):  # which may be there though nobody may list it
                named = path / first
                if not rest:
                    await named.lstat()
                return [(named, rest)]
            listed = await self._files.list(path)
        except FileError as error:
            leads_out = isinstance(error, OutsideRootsError) and path != self
            if not (leads_out or is_missing(error) or error.errno == errno.EACCES):
                raise
            return []
        if first == "**":
            below = [(self._made(found.path), parts) for found in listed if found.is_directory]
            return [(path, rest), *below]
        return [
            (self._made(found.path), rest)
            for found in listed
            if fnmatchcase(found.name, first) and (not rest or found.is_directory or found.is_symlink)
        ]

    # -- changes --

    async def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory here, with that mode, less the server's umask. One that is there keeps its own."""
        await self._files.make(self, mode=mode, parents=parents, exist_ok=exist_ok)

    async def rmdir(self) -> None:
        """Remove the directory, which must be empty. Raises `FileError` for anything else."""
        found = await self.lstat()
        if not found.is_directory:
            raise FileError(f"cannot remove {str(self)!r}: it is no directory", errno=errno.ENOTDIR, path=str(self))
        await self._files.remove(self)

    async def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file or link. Raises `FileError` for a directory."""
        if await self._kind(follow=False) == "directory":
            raise FileError(f"cannot remove {str(self)!r}: it is a directory", errno=errno.EISDIR, path=str(self))
        await self._files.remove(self, missing_ok=missing_ok)

    async def rename(self, target: str | os.PathLike[str]) -> RemotePath:
        """Give it another path, in place of the file that may be there, and return that path."""
        await self._files.move(self, os.fspath(target))
        return self._made(os.fspath(target))

    replace = rename

    async def symlink_to(self, target: str | os.PathLike[str]) -> None:
        """Make a symbolic link here."""
        await self._files.link(self, target)

    async def chmod(self, mode: int) -> None:
        """Set the mode."""
        await self._files.change(self, mode=mode)

    async def touch(self, exist_ok: bool = True) -> None:
        """Make an empty file, or give the file or directory that is there the present time."""
        if exist_ok:
            try:
                await self._files.append(self, b"")
            except FileError as error:
                if error.errno != errno.EISDIR:
                    raise
                await self._files.change(self, modified=time.time())
            return
        async with self._files.open(self, "xb"):
            pass
