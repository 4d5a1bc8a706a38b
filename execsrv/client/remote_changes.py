"""All that can be done with files of the server, on plain paths: one request each, or a few that belong together.

A request that was asked again, since the connection was interrupted before its answer, may find its own work done
already: that is no error.
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
from contextlib import suppress
from typing import Any

import trio
from msgspec import Struct

from execsrv._wire.paths import escaped, part_name
from execsrv.client.blocks import Progressed, Read, Write, agreed, receive, send
from execsrv.client.file_calls import FileCalls
from execsrv.client.file_handles import OpenFile, check_size
from execsrv.client.file_info import FileInfo, info
from execsrv.client.file_paths import doing, heard, is_missing, sent
from execsrv.client.local_files import Threads
from execsrv.client.unfinished import is_kept, part_for
from execsrv.errors import BadAnswerError, FileError, LimitExceededError, NotFoundError
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig
from execsrv.protocol import (
    CanonicalPath,
    DirectoryCreate,
    FileAppend,
    FileChange,
    FileCopy,
    FileData,
    FileList,
    FilePath,
    FileRemove,
    FileRename,
    FileStat,
    FileStatus,
    FileWrite,
    LinkCreate,
    Nothing,
)

_MOST_WAITING = 1_000_000
"""The most entries of a tree that are remembered at a time: there are more only where a server makes them up."""


class RemoteChanges:
    """Files of one server: no more than the settings allow is gathered, whatever that says of them."""

    def __init__(self, calls: FileCalls, config: ClientConfig) -> None:
        self.calls = calls
        self.config = config
        self.patience = config.leave_timeout
        self.max_read_bytes = config.max_read_bytes
        self.max_tree_entries = config.max_tree_entries
        self.threads = Threads()
        self._takes_any = config.max_message_bytes >= CLIENT_DEFAULTS.max_message_bytes  # that a file may be sent in

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

    async def list(self, path: str) -> list[FileInfo]:
        """Return the entries of a directory, sorted by name, of links their own facts."""
        with doing("list", path):
            listing = await self.calls.call("fs/list", FilePath(sent(path)), FileList)
        found = []
        for entry in listing.entries:
            name = entry.file_name if entry.path is None else posixpath.basename(heard("fs/list", entry.path))
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise BadAnswerError("fs/list", f"{name!r} is no name of a file")
            found.append(info("fs/list", posixpath.join(path, name), entry.status))
        return found

    async def resolve(self, path: str) -> str:
        """Return the path of something that exists, without links in it."""
        with doing("resolve", path):
            answer = await self.calls.call("fs/canonicalize", FilePath(sent(path)), CanonicalPath)
        return heard("fs/canonicalize", answer.path)

    # -- contents --

    async def read_whole(self, path: str) -> bytes:
        """Return the content of a file. Raises `LimitExceededError` for more than `max_read_bytes`."""
        if self._takes_any and (data := await self.read_small(path)) is not None:
            check_size(len(data), self.max_read_bytes)
            return data
        blocks: list[bytes] = []

        async def take(offset: int, data: bytes, sha256: hashlib._Hash) -> None:
            check_size(offset + len(data), self.max_read_bytes)
            await self.threads.run(lambda: sha256.update(data))
            blocks.append(data)

        size = (await self.stat(path)).size
        check_size(size, self.max_read_bytes)
        await self.read_blocks(path, size, take, lambda done: None)
        return b"".join(blocks)

    async def read_small(self, path: str) -> bytes | None:
        """Return the content of a file that the server sends in one message, None for a larger one."""
        try:
            return (await self.calls.call("fs/readFile", FilePath(sent(path)), FileData)).data_base64
        except FileError as error:
            if error.facts.get("limit") != "max_file_bytes":
                raise
            return None

    async def read_blocks(
        self, path: str, size: int, write: Write, progressed: Progressed, part: tuple[int, Read] | None = None
    ) -> int:
        """Give a file of about this size to `write`, block by block, and return how many bytes it has.

        Of a `part` that is here already, its size and what reads it, only that is read which differs.
        """
        file = OpenFile(self.calls, path, "read")
        try:
            await file.open()
            begin = 0 if part is None else await agreed(file, *part)
            return await receive(file, size, write, progressed, begin)
        finally:
            await file.abandon(self.patience)

    async def write_whole(
        self, path: str, data: bytes, permissions: int | None, modified_ns: int | None, *, atomic: bool = True
    ) -> None:
        """Put a file that fits into one message at a path; without `atomic`, write it in place."""
        params = FileWrite(
            sent(path), data_base64=data, atomic=atomic, permissions=permissions, modified_at_ns=modified_ns
        )
        await self.calls.call("fs/writeFile", params, Nothing)

    async def append(self, path: str, data: bytes) -> None:
        """Write behind the end of a file, or make it."""
        await self.calls.call("fs/append", FileAppend(sent(path), data_base64=data), Nothing)

    async def write_blocks(
        self,
        path: str,
        read: Read,
        permissions: int | None,
        modified_ns: int | None,
        progressed: Progressed,
        key: str = "",
    ) -> int:
        """Put a file of any size at a path, once it is whole, and return how many bytes it has.

        A failure removes the part that was written beside it, where the connection still allows that. With a `key`, one
        that `is_kept` leaves it, and the next time it is taken up.
        """
        path, permissions = await self._place_for(path, permissions)
        part, there = await part_for(path, key, self.find)
        file = OpenFile(self.calls, part, "update", None if permissions is None else 0o600)
        try:
            await file.open()
            begin = await agreed(file, there, read) if there else 0
            if begin < there:
                await self.change(part, size=begin)
            size = await send(file, read, progressed, begin)
            await file.close()
            if permissions is not None or modified_ns is not None:
                await self.change(part, permissions=permissions, modified_at_ns=modified_ns)
            await self.rename(part, path)
        except BaseException as error:
            await file.abandon(self.patience)
            if not key or not is_kept(error):
                await self._drop(part)
            raise
        return size

    async def _place_for(self, path: str, permissions: int | None) -> tuple[str, int | None]:
        """Return the path of a new file behind the links at `path`, and its permissions: those of the old one.

        They let it run with nobody's rights but those of who runs it, as `fs/writeFile` does.
        """
        try:
            found = await self.calls.call("fs/stat", FileStat(sent(path), of_link=True), FileStatus)
            if found.kind == "symlink":
                path = await self.resolve(path)
                found = await self.calls.call("fs/stat", FileStat(sent(path)), FileStatus)
        except NotFoundError:
            return path, permissions
        if found.kind != "file":
            number = errno.EISDIR if found.kind == "directory" else errno.EINVAL
            raise FileError(f"there is a {found.kind}", errno=number)
        return path, found.permissions & 0o777 if permissions is None else permissions

    async def _drop(self, part: str) -> None:
        # The error under way is the one to know.
        with trio.move_on_after(self.patience, shield=True), suppress(Exception):
            await self.remove(part)

    # -- names --

    async def make(self, path: str, *, accept: bool, follow: bool = True) -> None:
        """Make a directory; with `accept` one may be there, through a link only with `follow`."""
        with doing("make", path):
            try:
                await self._once("fs/createDirectory", DirectoryCreate(sent(path), recursive=False), errno.EEXIST)
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
        """Rename, or copy to another file system and remove."""
        with doing("move", source, destination):
            try:
                await self.rename(source, destination)
            except FileError as error:
                if error.errno != errno.EXDEV:
                    raise
                await self.copy(source, destination)
                await self.remove(source, recursive=True)

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


def check_waiting(count: int, path: str) -> None:
    """Raise `LimitExceededError` where so many entries of the tree at a path are not to be remembered at a time."""
    if count > _MOST_WAITING:
        message = f"the tree {path!r} has more than {_MOST_WAITING} entries to be remembered at a time"
        raise LimitExceededError(message, limit="max_waiting_entries", value=_MOST_WAITING)
