"""All that can be done with files of the server, on plain paths: one request each, or a few that belong together.

Names and facts are those of `RemoteNames`; here are lists and contents.
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
import stat

from execsrv._wire.paths import part_name
from execsrv.client.blocks import Progressed, Read, Write, agreed, receive, send
from execsrv.client.file_bounds import check_size
from execsrv.client.file_calls import FileCalls
from execsrv.client.file_handles import OpenFile
from execsrv.client.file_info import FileInfo, info
from execsrv.client.file_paths import doing, heard, sent
from execsrv.client.local_files import Threads
from execsrv.client.remote_names import RemoteNames
from execsrv.client.unfinished import is_kept, is_taken, part_for
from execsrv.errors import BadAnswerError, FileError, LimitExceededError, NotFoundError
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig
from execsrv.protocol import (
    CanonicalPath,
    FileAppend,
    FileData,
    FileList,
    FilePath,
    FileStat,
    FileStatus,
    FileWrite,
    Nothing,
)
from execsrv.protocol.file_extras import Kept

_MOST_LINKS = 40
"""So many links that lead to one another are followed, as Linux follows them."""

_MOST_WAITING = 1_000_000
"""The most entries of a tree that are remembered at a time: there are more only where a server makes them up."""


class RemoteChanges(RemoteNames):
    """Files of one server: no more than the settings allow is gathered, whatever that says of them."""

    def __init__(self, calls: FileCalls, config: ClientConfig) -> None:
        super().__init__(calls, config.leave_timeout)
        self.config = config
        self.max_read_bytes = config.max_read_bytes
        self.max_tree_entries = config.max_tree_entries
        self.threads = Threads()
        self._takes_any = config.max_message_bytes >= CLIENT_DEFAULTS.max_message_bytes  # that a file may be sent in

    # -- directories --

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

    async def below(self, top: str) -> RemoteChanges:
        """Return the files of a tree, by the same paths: no link in it is followed, whatever becomes of it."""
        return RemoteChanges(self.calls.below(top, await self.resolve(top)), self.config)

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

        found = await self.stat(path)
        check_size(found.size, self.max_read_bytes)
        await self.read_blocks(found, take, lambda done: None)
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
        self, found: FileInfo, write: Write, progressed: Progressed, part: tuple[int, Read] | None = None
    ) -> int:
        """Give a file that was found to `write`, block by block, and return how many bytes it has by now.

        Of a `part` that is here already, its size and what reads it, only that is read which differs.
        """
        file = OpenFile(self.calls, found.path, "read")
        file.identity = found.device, found.inode
        try:
            await file.open()
            begin = 0 if part is None else await agreed(file, *part)
            return await receive(file, found.size, write, progressed, begin)
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

    async def narrow(self, path: str, permissions: int) -> None:
        """Make a file, or take from one that is there what these permissions do not give. Its owner may write still."""
        allowed = permissions | stat.S_IWUSR
        found = await self.find(path, follow=True)
        if found is None:
            file = OpenFile(self.calls, path, "update", allowed)
            try:
                await file.open()
            finally:
                await file.abandon(self.patience)
        elif found.is_file and found.mode & ~allowed:
            await self.change(path, permissions=found.mode & allowed)

    async def write_content(self, path: str, content: bytes, permissions: int | None) -> None:
        """Put a file of any size at a path, as `write_blocks` does."""

        async def read(offset: int, size: int, sha256: hashlib._Hash) -> bytes:
            piece = content[offset : offset + size]
            await self.threads.run(lambda: sha256.update(piece))
            return piece

        await self.write_blocks(path, read, permissions, None, lambda done: None)

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
        that `is_kept` leaves it, and the next time it is taken up. Where another copy has it, this one has its own.
        """
        keep: Kept = "all" if permissions is None else "owner"
        path, permissions = await self._place_for(path, permissions)
        part, there = await part_for(path, key, self.find)
        file = OpenFile(self.calls, part, "update", None if permissions is None else 0o600, alone=bool(key))
        hidden, hiding = part, []
        try:
            await file.open()
            begin = await agreed(file, there, read) if there else 0
            if begin < there:
                await self.change(part, size=begin)
            size = await send(file, read, progressed, begin)
            if key:  # as long as nobody else can have it open: whoever finds it by its name would write into it
                hidden = posixpath.join(posixpath.dirname(path), part_name(posixpath.basename(path)))
                hiding.append(await self.post_rename(part, hidden))
                await self.renamed(hiding[0], hidden)
            await file.close()
            if permissions is not None or modified_ns is not None:
                await self.change(hidden, permissions=permissions, modified_at_ns=modified_ns)
            await self.rename(hidden, path, keep)
            return size
        except BaseException as error:
            await file.abandon(self.patience)
            if not key or not (is_kept(error) or is_taken(error)):
                await self._drop(part)
            if hiding:
                await self._drop(hidden, *hiding)
            if not key or not is_taken(error):
                raise
        return await self.write_blocks(path, read, permissions, modified_ns, progressed)

    async def _behind(self, path: str, link: FileStatus) -> str:
        """Return where a link leads: to what is there, or to where nothing is yet."""
        try:
            return await self.resolve(path)
        except NotFoundError:
            return posixpath.join(posixpath.dirname(path), info("fs/stat", path, link).target or "")

    async def _place_for(self, path: str, permissions: int | None) -> tuple[str, int | None]:
        """Return the path of a new file behind the links at `path`, and its permissions: those of the old one.

        They let it run with nobody's rights but those of who runs it, as `fs/writeFile` does.
        """
        try:
            found = await self.calls.call("fs/stat", FileStat(sent(path), of_link=True), FileStatus)
            for _ in range(_MOST_LINKS):
                if found.kind != "symlink":
                    break
                path = await self._behind(path, found)
                found = await self.calls.call("fs/stat", FileStat(sent(path), of_link=True), FileStatus)
        except NotFoundError:
            return path, permissions
        if found.kind != "file":
            number = errno.EISDIR if found.kind == "directory" else errno.EINVAL
            raise FileError(f"there is a {found.kind}", errno=number)
        return path, found.permissions & 0o777 if permissions is None else permissions


def check_waiting(count: int, path: str) -> None:
    """Raise `LimitExceededError` where so many entries of the tree at a path are not to be remembered at a time."""
    if count > _MOST_WAITING:
        message = f"the tree {path!r} has more than {_MOST_WAITING} entries to be remembered at a time"
        raise LimitExceededError(message, limit="max_waiting_entries", value=_MOST_WAITING)
