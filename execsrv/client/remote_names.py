"""Names on the server's machine: directories, links, renames and removals, and the facts of what is there.

A request that was asked again, since the connection was interrupted before its answer, may find its own work done
already: that is no error.
"""

from __future__ import annotations

import errno
import posixpath
from contextlib import suppress
from typing import Any

import trio
from msgspec import Struct

from execsrv._wire.paths import escaped, part_name
from execsrv.client.file_calls import FileCalls
from execsrv.client.file_info import FileInfo, info
from execsrv.client.file_paths import doing, is_missing, sent
from execsrv.errors import FileError
from execsrv.protocol import (
    DirectoryCreate,
    FileChange,
    FileCopy,
    FileRemove,
    FileRename,
    FileStat,
    FileStatus,
    LinkCreate,
    Nothing,
)


class RemoteNames:
    """Names and facts of the files of one server."""

    def __init__(self, calls: FileCalls, patience: float) -> None:
        self.calls = calls
        self.patience = patience

    # -- facts --

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Return the facts of what a path leads to, or of the link itself."""
        with doing("stat", path):
            return info(
                "fs/stat", path, await self.calls.call("fs/stat", FileStat(sent(path), of_link=not follow), FileStatus)
            )

    async def find(self, path: str, *, follow: bool = False) -> FileInfo | None:
        """Return the facts of what is at a path, None where nothing is."""
        try:
            return await self.stat(path, follow=follow)
        except FileError as error:
            if not is_missing(error):
                raise
            return None

    # -- names --

    async def make(self, path: str, *, accept: bool, follow: bool = True, permissions: int | None = None) -> None:
        """Make a directory; with `accept` one may be there, through a link only with `follow`.

        `permissions`, less the server's umask, are for one that is made.
        """
        params = DirectoryCreate(sent(path), recursive=False, permissions=permissions)
        with doing("make", path):
            try:
                await self._once("fs/createDirectory", params, errno.EEXIST)
            except FileError as error:
                if error.errno != errno.EEXIST or not accept:
                    raise
                if not (await self.stat(path, follow=follow)).is_directory:
                    raise

    async def make_parents(self, path: str) -> None:
        """Make a directory and those above it, as far as they are missing."""
        with doing("make", path):
            await self.calls.call("fs/createDirectory", DirectoryCreate(sent(path)), Nothing)

    async def change(self, path: str, **facts: Any) -> None:
        """Set permissions, times or size of a file."""
        with doing("change", path):
            await self.calls.call("fs/change", FileChange(sent(path), **facts), Nothing)

    async def rename(self, source: str, destination: str) -> None:
        """Give something another path, in place of the file that may be there."""
        await self._once(
            "fs/rename", FileRename(source_path=sent(source), destination_path=sent(destination)), errno.ENOENT
        )

    async def move(self, source: str, destination: str) -> None:
        """Give something another path; to another file system it is copied, and then removed."""
        params = FileRename(source_path=sent(source), destination_path=sent(destination), across=True)
        with doing("move", source, destination):
            await self._once("fs/rename", params, errno.ENOENT)

    async def copy(self, source: str, destination: str) -> None:
        """Copy a file, a link or a tree, on the server."""
        params = FileCopy(source_path=sent(source), destination_path=sent(destination), recursive=True)
        with doing("copy", source, destination):
            await self.calls.call("fs/copy", params, Nothing)

    async def remove(self, path: str, *, recursive: bool = False, accept: bool = False) -> None:
        """Remove a file, a link, or a directory; with `accept`, nothing may be there."""
        with doing("remove", path):
            await self._once("fs/remove", FileRemove(sent(path), recursive=recursive, force=accept), errno.ENOENT)

    async def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        with doing("link", path):
            await self._once("fs/symlink", LinkCreate(sent(path), target=escaped(target)), errno.EEXIST)

    async def put_link(self, path: str, target: str, modified_ns: int, key: str) -> None:
        """Make a symbolic link with that time, in place of the file or link that may be there.

        With a `key`, what a cut has left beside the place is found, and replaced too.
        """
        folder, name = posixpath.split(path)
        part = posixpath.join(folder, part_name(name, key))
        with doing("link", path):
            if key:
                await self.remove(part, accept=True)
            try:
                await self.link(part, target)
                await self.change(part, modified_at_ns=modified_ns, of_link=True)
                await self.rename(part, path)
            except BaseException:
                await self._drop(part)
                raise

    async def _once(self, method: str, params: Struct, done: int) -> None:
        """Ask for a change. `done` is the error that says, when it was asked again, that it has been made."""
        asked = await self.calls.post(method, params)
        try:
            await self.calls.answer_to(asked, Nothing)
        except FileError as error:
            if not asked.repeated or error.errno != done:
                raise

    async def _drop(self, part: str) -> None:
        # The error under way is the one to know.
        with trio.move_on_after(self.patience, shield=True), suppress(Exception):
            await self.remove(part)
