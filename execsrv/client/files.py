"""Files of the server's machine: `Client.files`.

Paths are absolute. What is written appears whole or not at all. Only `put` and `get` read and write on this machine.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, overload

from execsrv.client.file_arguments import MODES, checked_mode, checked_progress, content_of, nanoseconds
from execsrv.client.file_handles import OpenFile, RemoteFile
from execsrv.client.file_info import FileInfo
from execsrv.client.file_paths import ServerPath, doing, is_missing, path_text, plain_path, writable_path
from execsrv.client.parameters import Data, count, flag, pieces
from execsrv.client.remote_changes import RemoteChanges, check_waiting
from execsrv.client.remote_path import RemotePath
from execsrv.client.text import text_mode
from execsrv.client.transfer import Progress, Transfer, Transferred
from execsrv.client.tree_changes import Changes, open_changes
from execsrv.errors import FileError, InvalidParamsError

if TYPE_CHECKING:
    from execsrv.client.policy import Policy

_MESSAGE_BYTES = 4 * 1024 * 1024
"""The most that is written in one message."""


class Files:
    """Files of the server's machine, with the rights of its account.

    Every method raises `FileError` for what the system refuses, of which `NotFoundError`, `FileRefusedError` and
    `OutsideRootsError` are kinds; `TypeError` and `InvalidParamsError` for an argument that is none; and
    `ConnectionLostError`. Cancelling stops waiting; whether a change under way is still made is then unknown.
    """

    def __init__(self, remote: RemoteChanges) -> None:
        self._remote = remote

    def under(self, policy: Policy) -> Files:
        """Return these files under a policy, which the server keeps in every call."""
        return Files(RemoteChanges(self._remote.calls.under(policy), self._remote.config))

    def path(self, path: ServerPath, *more: str) -> RemotePath:
        """Return a path object: `client.files.path("/srv") / "a.txt"`."""
        return RemotePath(self, os.path.join(path_text("path", path), *more))

    # -- contents --

    @overload
    async def read(self, path: ServerPath) -> bytes: ...
    @overload
    async def read(self, path: ServerPath, *, encoding: str, errors: str = "strict") -> str: ...
    async def read(self, path: ServerPath, *, encoding: str | None = None, errors: str = "strict") -> bytes | str:
        """Return the content of a file, as text with an `encoding`. Raises `UnicodeDecodeError`.

        Raises `LimitExceededError` for one of more than `max_read_bytes` (512 MiB), which `open` and `get` take.
        """
        name = path_text("path", path)
        way = None if encoding is None else text_mode(True, encoding, errors)
        with doing("read", name):
            data = await self._remote.read_whole(name)
        if way is None:
            return data
        try:
            return data.decode(*way)
        except UnicodeDecodeError as error:
            error.reason += f" in {name!r}"
            raise

    async def write(
        self,
        path: ServerPath,
        data: Data | str,
        *,
        encoding: str = "utf-8",
        mode: int | None = None,
        atomic: bool = True,
    ) -> None:
        """Write a file whole: others see the old content or the new, and a failure changes nothing.

        A file that is there keeps its mode, unless one is given. Without `atomic` it is written in place, which keeps
        its other names, and leaves a part of the content after a failure. Nobody may read the new content whom a `mode`
        does not let.
        """
        name = writable_path(path)
        content = content_of(data, encoding)
        flag("atomic", atomic)
        checked_mode(mode)
        with doing("write", name):
            if not atomic and mode is not None:
                await self._remote.narrow(name, mode)
            if len(content) <= _MESSAGE_BYTES:
                await self._remote.write_whole(name, content, mode if atomic else None, None, atomic=atomic)
            elif atomic:
                await self._remote.write_content(name, content, mode)
        if not atomic and len(content) > _MESSAGE_BYTES:
            async with self.open(name, "wb") as file:
                await file.write(content)
        if not atomic and mode is not None:
            await self._remote.change(name, permissions=mode)

    async def append(self, path: ServerPath, data: Data | str, *, encoding: str = "utf-8") -> None:
        """Append to a file, wherever its end is at the moment; make it if it is missing.

        Raises `ConnectionLostError`, with no saying whether the data has arrived, when the connection is interrupted.
        """
        name = writable_path(path)
        content = content_of(data, encoding)
        with doing("append to", name):
            for piece in pieces(content, _MESSAGE_BYTES):
                await self._remote.append(name, piece)

    @asynccontextmanager
    async def open(self, path: ServerPath, mode: str = "rb") -> AsyncIterator[RemoteFile]:
        """Open a file for reading and writing anywhere in it; it is closed when the block is left.

        `mode` is "rb", "wb", "ab", "xb", "r+b" or "w+b", as for `open`. There is no text mode, and no buffer.
        """
        name = path_text("path", path) if mode == "rb" else writable_path(path)
        if mode not in (*MODES, "w+b"):
            raise InvalidParamsError(f"mode must be one of {', '.join([*MODES, 'w+b'])}, got {mode!r}", field="mode")
        file = OpenFile(self._remote.calls, name, MODES.get(mode, "update"))
        try:
            with doing("open", name):
                if mode == "w+b":
                    await self._remote.write_whole(name, b"", None, None, atomic=False)
                if mode == "r+b":
                    await self._remote.stat(name)
                await file.open()
                found = await self._remote.find(name, follow=True)
            remote = RemoteFile(file, self._remote.calls, mode, found, self._remote.max_read_bytes)
            yield remote
            await remote.aclose()
        except BaseException:
            await file.abandon(self._remote.patience)
            raise

    # -- facts --

    async def stat(self, path: ServerPath, *, follow: bool = True) -> FileInfo:
        """Return the facts of a file, of a link itself without `follow`."""
        return await self._remote.stat(path_text("path", path), follow=flag("follow", follow))

    async def exists(self, path: ServerPath) -> bool:
        """Return whether anything is at a path. False for a dangling link."""
        try:
            await self.stat(path)
        except FileError as error:
            if not is_missing(error):
                raise
            return False
        return True

    async def list(self, path: ServerPath) -> list[FileInfo]:
        """Return the entries of a directory, sorted by name. Of links they are the facts of the link."""
        return await self._remote.list(path_text("path", path))

    async def walk(self, path: ServerPath) -> AsyncIterator[FileInfo]:
        """Yield all that is below a directory, each directory before what is in it. No link is followed.

        What disappears meanwhile is left out; a directory that cannot be read is an error.
        """
        top = path_text("path", path)
        with doing("list", top):
            remote = await self._remote.below(top)
            waiting = (await remote.list(top))[::-1]
        while waiting:
            yield (found := waiting.pop())
            if found.is_directory:
                try:
                    waiting += (await remote.list(found.path))[::-1]
                except FileError as error:
                    if not is_missing(error):
                        raise
                check_waiting(len(waiting), top)

    async def resolve(self, path: ServerPath) -> str:
        """Return the path of something that exists, without links in it."""
        return await self._remote.resolve(path_text("path", path))

    # -- changes --

    async def copy(self, source: ServerPath, destination: ServerPath) -> None:
        """Copy a file, a link, or a tree into what is there, on the server. Modes are kept."""
        await self._remote.copy(path_text("source", source), path_text("destination", destination))

    async def move(self, source: ServerPath, destination: ServerPath) -> None:
        """Give a file, a link or a directory another path, in place of the file or empty directory that is there.

        To another file system it is copied with all that it has, and then removed. What cannot be copied there, such as
        a fifo, is a `FileError` that changes nothing.
        """
        await self._remote.move(path_text("source", source), path_text("destination", destination))

    async def remove(self, path: ServerPath, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link or an empty directory; with `recursive`, a directory with all that is in it."""
        name = path_text("path", path)
        recursive, accept = flag("recursive", recursive), flag("missing_ok", missing_ok)
        await self._remote.remove(name, recursive=recursive, accept=accept)

    async def make(
        self, path: ServerPath, *, parents: bool = True, exist_ok: bool = True, mode: int | None = None
    ) -> None:
        """Make a directory, and with `parents` those above it that are missing.

        `mode`, less the server's umask, is for the directory itself where it is made.
        """
        name = path_text("path", path)
        flag("parents", parents)
        checked_mode(mode)
        if flag("exist_ok", exist_ok) and parents:
            await self._remote.make_parents(name, mode)
            return
        if parents:
            await self._remote.make_parents(os.path.dirname(name.rstrip("/")) or "/")
        await self._remote.make(name, accept=exist_ok, permissions=mode)

    async def link(self, path: ServerPath, target: str | os.PathLike[str]) -> None:
        """Make a symbolic link at a path. `target` is written into it as it is."""
        await self._remote.link(path_text("path", path), plain_path("target", target))

    async def change(
        self,
        path: ServerPath,
        *,
        mode: int | None = None,
        modified: float | None = None,
        accessed: float | None = None,
        size: int | None = None,
    ) -> None:
        """Set mode, times (seconds since the epoch) or size of a file; what is not given stays."""
        await self._remote.change(
            path_text("path", path),
            permissions=checked_mode(mode),
            modified_at_ns=nanoseconds("modified", modified),
            accessed_at_ns=nanoseconds("accessed", accessed),
            size=size,
        )

    def watch(self, path: ServerPath, *, recursive: bool = False) -> AbstractAsyncContextManager[Changes]:
        """Watch a directory, and with `recursive` all below it: `async with ... as changes`, then `async for`.

        No change is missed from when the block is entered. Where some are lost after all (the connection was
        interrupted, there were too many), one of kind `lost` says so.
        """
        name = path_text("path", path)
        return open_changes(self._remote.calls, name, flag("recursive", recursive), self._remote.patience)

    # -- to and from this machine --

    async def put(
        self,
        source: str | os.PathLike[str],
        destination: ServerPath,
        *,
        progress: Progress | None = None,
        limit: int = 8,
        resume: bool = False,
    ) -> Transferred:
        """Copy a file or a tree of this machine to `destination`, which is the copy itself, not the directory for it.

        Modes, times and links are kept; a tree is merged into one that is there. Each file appears whole, and larger
        ones are compared by SHA-256. An interrupted connection is waited for, as long as `reconnect` allows. `limit`
        files are under way at a time; `progress(source, destination, done, total)` is called for each as it goes on.

        With `resume` an earlier copy is taken up: files that are there with the same size, time and mode are passed
        over, and where the connection was lost in the midst of a larger one, it goes on there. For that, a part stays
        beside the place of each file that was under way.

        Raises `OSError` for this machine's side, and `LimitExceededError` for a file that grows without end
        (`max_read_bytes`). The first error ends it, and leaves the files that are done.
        """
        transfer = Transfer(
            self._remote, checked_progress(progress), count("limit", limit), resume=flag("resume", resume)
        )
        return await transfer.put(plain_path("source", source), path_text("destination", destination))

    async def get(
        self,
        source: ServerPath,
        destination: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        limit: int = 8,
        resume: bool = False,
    ) -> Transferred:
        """Copy a file or a tree of the server to `destination` on this machine, in the same way as `put`.

        Raises `FileError` for a file that changes while it is read. Raises `LimitExceededError` for one that grows
        without end (`max_read_bytes`), and for a tree of more entries than `max_tree_entries`.
        """
        transfer = Transfer(
            self._remote, checked_progress(progress), count("limit", limit), resume=flag("resume", resume)
        )
        return await transfer.get(path_text("source", source), plain_path("destination", destination))
