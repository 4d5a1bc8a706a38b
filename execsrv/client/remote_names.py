"""Names on the server's machine: directories, links, renames and removals, and the facts of what is there.

A request that was asked again, since the connection was interrupted before its answer, may find its own work done
already: that is no error. Where somebody else may have done it as well, nobody can tell, and that is one.
"""

from __future__ import annotations

import errno
import posixpath
from contextlib import suppress
from typing import Any

import trio

from execsrv._nursery import happened
from execsrv._wire.paths import escaped, part_name
from execsrv.client.file_calls import FileCalls
from execsrv.client.file_info import FileInfo, info
from execsrv.client.file_paths import doing, is_missing, sent
from execsrv.client.pending import PendingCall
from execsrv.errors import ConnectionLostError, FileError
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
from execsrv.protocol.file_extras import Kept


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
            asked = await self.calls.post("fs/createDirectory", params)
            try:
                await self.calls.answer_to(asked, Nothing)
            except FileError as error:
                if error.errno != errno.EEXIST:
                    raise
                if not accept and asked.repeated:
                    raise _unknown(f"{path!r} was to be made: it is there") from error
                if not accept or not (await self.stat(path, follow=follow)).is_directory:
                    raise

    async def make_parents(self, path: str, permissions: int | None = None) -> None:
        """Make a directory and those above it, as far as they are missing. `permissions` are as with `make`."""
        with doing("make", path):
            await self.calls.call("fs/createDirectory", DirectoryCreate(sent(path), permissions=permissions), Nothing)

    async def change(self, path: str, **facts: Any) -> None:
        """Set permissions, times or size of a file."""
        with doing("change", path):
            await self.calls.call("fs/change", FileChange(sent(path), **facts), Nothing)

    async def rename(self, source: str, destination: str, keep: Kept = "nothing") -> None:
        """Give what is ours alone another path, in place of the file that may be there: `keep` facts of it."""
        await self.renamed(await self.post_rename(source, destination, keep), destination)

    async def post_rename(self, source: str, destination: str, keep: Kept = "nothing") -> PendingCall:
        """Ask for a rename without waiting for the answer."""
        params = FileRename(source_path=sent(source), destination_path=sent(destination), keep=keep)
        return await self.calls.post("fs/rename", params)

    async def renamed(self, asked: PendingCall, destination: str) -> None:
        """Wait for the answer to a rename of what is ours alone."""
        try:
            await self.calls.answer_to(asked, Nothing)
        except FileError as error:
            if not asked.repeated or error.errno != errno.ENOENT or await self.find(destination) is None:
                raise

    async def move(self, source: str, destination: str) -> None:
        """Give something another path; to another file system it is copied, and then removed."""
        with doing("move", source, destination):
            before = await self._status(source)
            params = FileRename(source_path=sent(source), destination_path=sent(destination), across=True)
            asked = await self.calls.post("fs/rename", params)
            try:
                await self.calls.answer_to(asked, Nothing)
            except FileError as error:
                # What was removed in parts, once it had been copied, finds its copy in the way.
                if not asked.repeated or error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                    raise
                try:
                    after = await self._status(destination)
                except FileError:
                    after = None
                if error.errno != errno.ENOENT or after is None or not _is_same(before, after):
                    raise _unknown(f"{source!r} was to be moved") from error

    async def copy(self, source: str, destination: str) -> None:
        """Copy a file, a link or a tree, on the server."""
        params = FileCopy(source_path=sent(source), destination_path=sent(destination), recursive=True)
        with doing("copy", source, destination):
            await self.calls.call("fs/copy", params, Nothing)

    async def remove(self, path: str, *, recursive: bool = False, accept: bool = False) -> None:
        """Remove a file, a link, or a directory; with `accept`, nothing may be there."""
        with doing("remove", path):
            asked = await self.calls.post("fs/remove", FileRemove(sent(path), recursive=recursive, force=accept))
            try:
                await self.calls.answer_to(asked, Nothing)
            except FileError as error:
                if asked.repeated and error.errno == errno.ENOENT:
                    raise _unknown(f"{path!r} was to be removed: it is not there") from error
                raise

    async def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        with doing("link", path):
            await self._made_link(await self._post_link(path, target), path, target)

    async def put_link(self, path: str, target: str, modified_ns: int, key: str) -> None:
        """Make a symbolic link with that time, in place of the file or link that may be there.

        With a `key`, what a cut has left beside the place is found, and replaced too.
        """
        folder, name = posixpath.split(path)
        part = posixpath.join(folder, part_name(name, key))
        with doing("link", path):
            if key:
                await self.remove(part, accept=True)
            asked = await self._post_link(part, target)
            try:
                await self._made_link(asked, part, target)
                await self.change(part, modified_at_ns=modified_ns, of_link=True)
                await self.rename(part, path)
            except BaseException:
                await self._drop(part, asked)
                raise

    async def _post_link(self, path: str, target: str) -> PendingCall:
        return await self.calls.post("fs/symlink", LinkCreate(sent(path), target=escaped(target)))

    async def _made_link(self, asked: PendingCall, path: str, target: str) -> None:
        """Wait for the answer. A link to there that is found when it was asked again is the one."""
        try:
            await self.calls.answer_to(asked, Nothing)
        except FileError as error:
            if not asked.repeated or error.errno != errno.EEXIST:
                raise
            found = await self.find(path)
            if found is None or found.target != target:
                raise

    async def _drop(self, part: str, *asked: PendingCall) -> None:
        """Remove a part, once that has been answered which makes it."""
        # The error under way is the one to know.
        with trio.move_on_after(self.patience, shield=True), suppress(Exception):
            for each in asked:
                await happened(each.answered)
            await self.remove(part, accept=True)

    async def _status(self, path: str) -> FileStatus:
        """Return the facts of what is at a path itself, for a call with another name."""
        return await self.calls.call("fs/stat", FileStat(sent(path), of_link=True), FileStatus)


def _is_same(before: FileStatus, after: FileStatus) -> bool:
    """Return whether that has been moved there, if need be to another file system."""
    return (before.kind, before.modified_at_ns) == (after.kind, after.modified_at_ns)


def _unknown(what: str) -> ConnectionLostError:
    """Return the error for a change that was asked for again, and that somebody else may have made as well."""
    return ConnectionLostError(f"the connection was interrupted while {what}, and whether by this call is not known")
