"""`put` and `get`: files and trees from one machine to the other, with modes, times and links.

    put, get
    ├─ one walk through the tree, which makes the directories
    └─ a task for each file, up to `limit` at a time

Each file is written beside its place and renamed, so nobody sees half of one. A small file is one message; a larger one
a flow of blocks. Only directories are remembered to the end, when they get their modes and times.

One that takes up an earlier copy passes over what is there already, and goes on in the parts that this has left.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial

import trio
from msgspec import Struct

from execsrv._nursery import open_helpers
from execsrv.client import local_files as local
from execsrv.client import local_sources as sources
from execsrv.client.file_info import FileInfo
from execsrv.client.file_paths import doing, writable_path
from execsrv.client.local_sources import LocalEntry
from execsrv.client.remote_changes import RemoteChanges, check_waiting
from execsrv.client.unfinished import entries_there, is_kept, is_same, part_key
from execsrv.errors import FileError, LimitExceededError, NotFoundError

Progress = Callable[[str, str, int, int], None]
"""Function that is told of each file, as it goes on: source, destination, bytes done, bytes in all."""

SMALL_BYTES = 256 * 1024
"""The largest file that is sent as one message."""

FILE_PERMISSIONS = 0o777
"""The bits of a file's mode that go along: a copy has another owner, and is not to run with the rights of that one."""

_MOST_FILES = 100
"""The most files that are under way at a time, whatever limit was given: a server has 128 handles for a connection."""


class Transferred(Struct, kw_only=True):
    """The result of `put` and `get`. `skipped` are paths of what is no file, directory or link (fifos, sockets).

    `unchanged` files were there already, and are not among `files` and `bytes`.
    """

    files: int = 0
    bytes: int = 0
    unchanged: int = 0
    skipped: list[str] = []


class Transfer:
    """One `put` or `get`."""

    def __init__(self, remote: RemoteChanges, progress: Progress | None, limit: int, *, resume: bool) -> None:
        self._remote = remote
        self._resume = resume
        self._threads = remote.threads
        self._progress = progress
        self._limit = min(limit, _MOST_FILES)
        self._places = trio.Semaphore(self._limit)
        self._directories: list[Callable[[], Awaitable[None]]] = []
        self._done = Transferred()
        self._made = "", (0, 0)  # the directory at the top of the copy, and its device and inode
        self._has_failed = False
        self._entries = 0

    async def put(self, source: str, destination: str) -> Transferred:
        """Copy a file or a tree of this machine to the server."""
        top = await self._threads.run(lambda: sources.look(source))
        if not top.is_directory:
            destination = writable_path(destination)
        waiting = [(top, destination, await self._remote.find(destination, follow=True) if self._resume else None)]
        async with open_helpers() as nursery:
            while waiting:
                entry, to, found = waiting.pop()
                if entry.is_directory:
                    children = await self._put_directory(entry, to, top)
                    there = await entries_there(self._remote, to, children) if found is not None else {}
                    for child in reversed(children):
                        waiting.append((child, posixpath.join(to, child.name), there.get(child.name)))
                elif entry.target is not None:
                    if found is None or found.target != entry.target:
                        key = part_key(entry.target) if self._resume else ""
                        await self._remote.put_link(to, entry.target, entry.modified_ns, key)
                elif entry.is_file and is_same(found, entry.size, entry.modified_ns, entry.mode & FILE_PERMISSIONS):
                    self._pass_over(entry.path, to, entry.size)
                elif entry.is_file:
                    await self._start(nursery, partial(self._put_file, entry, to))
                else:
                    self._skip("put", entry.path, is_top=entry is top)
            await self._wait_files()
        return await self._finished()

    async def _put_directory(self, entry: LocalEntry, to: str, top: LocalEntry) -> list[LocalEntry]:
        """Make a directory on the server, and return what else is to be put into it."""
        if entry is not top and entry.identity == self._made[1] and await self._is_same(entry.path, self._made[0]):
            raise FileError(f"cannot put {top.path!r} into itself: {entry.path!r} is the copy", path=top.path)
        mode, modified = stat.S_IMODE(entry.mode), entry.modified_ns
        # Nobody gets into it who will not. We have to, until it is full.
        await self._remote.make(to, accept=True, follow=entry is top, permissions=mode & 0o777 | stat.S_IRWXU)
        if entry is top:
            made = await self._remote.stat(to)
            self._made = to, (made.device, made.inode)
        self._directories.append(
            lambda: self._remote.change(to, permissions=mode, modified_at_ns=modified, of_link=entry is not top)
        )
        return await self._threads.run(lambda: sources.entries(entry))

    async def _put_file(self, entry: LocalEntry, to: str) -> None:
        mode, path = entry.mode & FILE_PERMISSIONS, entry.path
        tell = partial(self._tell, path, to, entry.size)
        with doing("put", path, to):
            data = None
            if entry.size <= SMALL_BYTES:
                data = await self._threads.run(lambda: sources.read_whole(entry, SMALL_BYTES), path)
            if data is not None:
                await self._remote.write_whole(to, data, mode, entry.modified_ns)
                size = len(data)
                tell(size)
            else:
                descriptor = await self._threads.run(lambda: sources.open_source(entry), path)
                try:

                    async def read(offset: int, size: int, sha256: hashlib._Hash) -> bytes:
                        data = await self._threads.run(lambda: local.read_at(descriptor, offset, size, sha256), path)
                        self._check_growth(entry.size, offset + len(data))
                        if not data:
                            await self._threads.run(lambda: sources.check_same(descriptor, entry, offset))
                        return data

                    # With some of its content: nobody there can tell the name before, and put something else in place.
                    first = await read(0, SMALL_BYTES, hashlib.sha256()) if self._resume else b""
                    key = part_key(entry.size, entry.modified_ns, first) if self._resume else ""
                    size = await self._remote.write_blocks(to, read, mode, entry.modified_ns, tell, key)
                finally:
                    os.close(descriptor)
        self._count(size)

    async def get(self, source: str, destination: str) -> Transferred:
        """Copy a file or a tree of the server to this machine."""
        with doing("get", source):
            top = await self._remote.stat(source)
            if top.is_directory:
                self._remote = await self._remote.below(source)
        waiting = [(top, destination)]
        async with open_helpers() as nursery:
            while waiting:
                info, to = waiting.pop()
                self._check_entries(source)
                if info.is_directory:
                    children = await self._get_directory(info, to, top)
                    waiting += [(child, os.path.join(to, child.name)) for child in reversed(children)]
                    check_waiting(len(waiting) + len(self._directories) + len(self._done.skipped), source)
                elif info.target is not None:
                    await self._threads.run(partial(local.make_link, to, info.target, info.modified_ns), to)
                elif info.is_file and self._resume and await self._is_here(info, to):
                    self._pass_over(info.path, to, info.size)
                elif info.is_file:
                    await self._start(nursery, partial(self._get_file, info, to))
                else:
                    self._skip("get", info.path, is_top=info is top)
            await self._wait_files()
        return await self._finished()

    async def _get_directory(self, info: FileInfo, to: str, top: FileInfo) -> list[FileInfo]:
        """Make a directory on this machine, and return what else is to be put into it."""
        numbers = info.device, info.inode
        if info is not top and numbers == self._made[1] and await self._is_same(self._made[0], info.path):
            raise FileError(f"cannot get {top.path!r} into itself: {info.path!r} is the copy", path=top.path)
        await self._threads.run(lambda: local.make_directory(to, follow=info is top), to)
        if info is top:
            self._made = to, (await self._threads.run(lambda: sources.look(to))).identity
        finish = partial(local.finish_directory, to, info.mode, info.modified_ns)
        self._directories.append(lambda: self._threads.run(finish, to))
        return await self._remote.list(info.path)

    async def _get_file(self, info: FileInfo, to: str) -> None:
        tell = partial(self._tell, info.path, to, info.size)
        with doing("get", info.path, to):
            data = await self._remote.read_small(info.path) if 0 < info.size <= SMALL_BYTES else None
            if data is not None:
                write = partial(local.write_whole, to, data, info.mode & FILE_PERMISSIONS, info.modified_ns)
                await self._threads.run(write, to)
                size = len(data)
                tell(size)
            else:
                size = await self._get_blocks(info, to, tell)
        self._count(size)

    async def _get_blocks(self, info: FileInfo, to: str, tell: Callable[[int], None]) -> int:
        key = part_key(info.path, info.size, info.modified_ns) if self._resume else ""
        part = await self._threads.run(lambda: local.Part(to, key), to)
        try:

            async def write(offset: int, data: bytes, sha256: hashlib._Hash) -> None:
                self._check_growth(info.size, offset + len(data))
                await self._threads.run(lambda: local.write_at(part.descriptor, offset, data, sha256), to)

            async def read(offset: int, size: int, sha256: hashlib._Hash) -> bytes:
                return await self._threads.run(lambda: local.read_at(part.descriptor, offset, size, sha256), to)

            here = (part.size, read) if part.size else None
            size = await self._remote.read_blocks(info, write, tell, here)
            await self._threads.run(lambda: part.finish(info.mode & FILE_PERMISSIONS, info.modified_ns, size), to)
        except BaseException as error:
            if key and is_kept(error):
                part.leave()
            raise
        finally:
            part.drop()
        if not size:
            tell(0)
        return size

    def _check_entries(self, source: str) -> None:
        """Raise `LimitExceededError` for a tree that has more entries than one `get` takes."""
        self._entries += 1
        most = self._remote.max_tree_entries
        if self._entries > most:
            message = f"cannot get {source!r}: the tree has more than max_tree_entries ({most})"
            raise LimitExceededError(message, limit="max_tree_entries", value=most)

    # -- both ways --

    def _check_growth(self, size: int, reached: int) -> None:
        """Raise `LimitExceededError` for a file that grows on and on while it is read."""
        most = self._remote.max_read_bytes
        if reached > size + most:
            message = f"it has grown by more than max_read_bytes ({most}) while it was read"
            raise LimitExceededError(message, limit="max_read_bytes", value=most)

    async def _is_same(self, here: str, there: str) -> bool:
        """Return whether directories of both machines, with the same numbers, are one: by a file that both then have.

        Where none can be made here, they are not.
        """
        with ExitStack() as stack:
            try:
                name = await self._threads.run(lambda: stack.enter_context(local.sign(here)))
                await self._remote.stat(posixpath.join(there, name), follow=False)
            except (OSError, NotFoundError):
                return False
        return True

    async def _start(self, nursery: trio.Nursery, copy: Callable[[], Awaitable[None]]) -> None:
        await self._places.acquire()

        async def run() -> None:
            try:
                await copy()
            except Exception:
                if self._has_failed:
                    return  # the first error says it for all that end with it
                self._has_failed = True
                raise
            finally:
                self._places.release()

        nursery.start_soon(run)

    async def _wait_files(self) -> None:
        """Wait for the files that are under way: until all places are free."""
        for _ in range(self._limit):
            await self._places.acquire()

    async def _finished(self) -> Transferred:
        for finish in reversed(self._directories):
            await finish()
        return self._done

    async def _is_here(self, info: FileInfo, to: str) -> bool:
        mode = info.mode & FILE_PERMISSIONS
        return await self._threads.run(lambda: local.is_there(to, info.size, info.modified_ns, mode))

    def _pass_over(self, source: str, to: str, size: int) -> None:
        self._done.unchanged += 1
        self._tell(source, to, size, size)

    def _skip(self, what: str, path: str, *, is_top: bool) -> None:
        if is_top:
            raise FileError(f"cannot {what} {path!r}: it is no file, directory or link", path=path)
        self._done.skipped.append(path)

    def _count(self, size: int) -> None:
        self._done.files += 1
        self._done.bytes += size

    def _tell(self, source: str, destination: str, total: int, done: int) -> None:
        if self._progress is not None:
            self._progress(source, destination, done, max(done, total))
