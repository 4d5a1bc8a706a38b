"""The file methods of one channel: what `fs/*` does, one method each, in threads.

Owns the open files and the watch, and ends them with the channel. No request waits for another, except those on one
handle, which take turns. Where the channel ends in the middle, a thread that hangs in the file system is left behind,
and what it holds is closed when it comes back; a long work stops at its next step.

Every method raises `RequestError`: `NotFound` for ENOENT, `FileRefused` for EACCES, EPERM and EINVAL, `FileError` for
the rest of what the system says.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import trio

from execsrv._background import open_background
from execsrv._files import changes, contents, listings
from execsrv._files.handles import MAX_OFFSET, Handle, Handles, Turn
from execsrv._files.kernel import has_inotify
from execsrv._files.roots import Place, Roots
from execsrv._files.watch import Watch
from execsrv._paths import path_from_wire, uri_from_path
from execsrv.errors import Busy, FileError, FileRefused, FilesDisabled, NotFound
from execsrv.limits import Limits
from execsrv.protocol import (
    Block,
    BlockRead,
    BlockWrite,
    CanonicalPath,
    DirectoryCreate,
    DirectoryListing,
    FileCopy,
    FileData,
    FileHandle,
    FileMetadata,
    FileOpen,
    FilePath,
    FileRemove,
    FileWalk,
    FileWrite,
    MissingChanged,
    Nothing,
    Notification,
    Walked,
    Watching,
    WatchMissing,
)

T = TypeVar("T")
Call = Coroutine[Any, Any, T]


def file_capabilities(limits: Limits) -> dict[str, bool]:
    """What a client may be told it can do, under the names of the Codex exec-server."""
    return {"fsWatchMissing": has_inotify, "fileWriteStreaming": True} if limits.allow_files else {}


@asynccontextmanager
async def open_files(
    limits: Limits, notify: Callable[[Notification], None], answers_left: Callable[[], Awaitable[None]]
) -> AsyncIterator[Files]:
    """The file methods for one channel; leaving closes its files and ends its watch.

    `notify` is called once for each watch at most. `answers_left` waits until the answers so far have been sent: what
    is large is read only then, so that a slow peer cannot make it pile up here.
    """
    async with open_background() as nursery:
        files = Files(limits, nursery, notify, answers_left)
        try:
            yield files
        finally:
            await files.aclose()


class Files:
    """See the module; made by `open_files`."""

    def __init__(
        self,
        limits: Limits,
        nursery: trio.Nursery,
        notify: Callable[[Notification], None],
        answers_left: Callable[[], Awaitable[None]],
    ) -> None:
        self._limits = limits
        self._nursery = nursery
        self._notify = notify
        self._answers_left = answers_left
        self._roots = Roots(limits.file_roots)
        self._handles = Handles(limits.file_handles)
        self._threads = trio.CapacityLimiter(limits.file_threads)
        self._large = trio.Semaphore(limits.large_answers)
        self._queued_bytes = 0
        self._last_watch_id = -1
        self._watching = trio.CancelScope()

    async def aclose(self) -> None:
        """Close what is open, in the background where the file system hangs."""
        if not self._handles:
            return
        with trio.move_on_after(self._limits.flush_seconds, shield=True):
            # A limiter of its own: every other place may be taken by what hangs.
            await trio.to_thread.run_sync(
                self._handles.close_all, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
            )

    # -- whole files --

    async def read_file(self, params: FilePath) -> FileData:
        """All of a file. What is large waits until the answers before it have left."""
        path = self._path(params)

        def read(most: int) -> bytes | None:
            with self._roots.at(path, follow=follows(params)) as place:
                return contents.read_file(place, most)

        limit = self._limits.max_file_bytes
        data = await self._in_thread(lambda: read(min(self._limits.file_block_bytes, limit)))
        if data is None:
            async with self._large_answer():
                data = await self._in_thread(lambda: read(limit))
        if data is None:
            raise FileRefused(f"file is too large to read: limit is {limit} bytes", limit="max_file_bytes", value=limit)
        return FileData(data)

    def write_file(self, params: FileWrite) -> Call[Nothing]:
        """Make or replace a file. Raises `Busy`."""

        def write(place: Place) -> None:
            contents.write_file(place, params.data_base64)

        self._check_queue(len(params.data_base64))
        return self._write(len(params.data_base64), lambda: self._in_place(params, write))

    # -- names --

    async def create_directory(self, params: DirectoryCreate) -> Nothing:
        """Make a directory."""
        path, recursive = self._path(params), params.recursive is not False
        await self._in_thread(
            lambda: changes.create_directory(self._roots, path, recursive=recursive, follow=follows(params))
        )
        return Nothing()

    async def get_metadata(self, params: FilePath) -> FileMetadata:
        """What a path leads to."""
        return await self._in_place(params, listings.metadata)

    async def canonicalize(self, params: FilePath) -> CanonicalPath:
        """The path without links of something that exists."""

        def canonical(place: Place) -> str:
            place.status()
            return place.path

        return CanonicalPath(uri_from_path(await self._in_place(params, canonical)))

    async def read_directory(self, params: FilePath) -> DirectoryListing:
        """What is in a directory."""
        async with self._large_answer():
            return DirectoryListing(
                await self._in_place(params, lambda place: listings.read_directory(self._roots, place, self._limits))
            )

    async def walk(self, params: FileWalk) -> Walked:
        """What is in a tree."""
        path = self._path(params)
        walk = listings.Walk(self._roots, params.options, self._limits)
        async with self._large_answer():
            return await self._in_thread(lambda: walk.run(path))

    async def remove(self, params: FileRemove) -> Nothing:
        """Remove a file, a link or a tree."""
        recursive, force, follow = params.recursive is not False, params.force is not False, follows(params)
        if recursive and not follow:
            raise FileError("recursive no-follow removal is unsupported")

        def remove(place: Place) -> None:
            changes.remove(place, recursive=recursive, no_links=not follow)

        try:
            await self._in_place(params, remove, follow_last=False)
        except NotFound:
            if not force:
                raise
        return Nothing()

    async def copy(self, params: FileCopy) -> Nothing:
        """Copy a file, a link or a tree."""
        source = self._checked(params.source_path, "sourcePath")
        destination = self._checked(params.destination_path, "destinationPath")
        await self._in_thread(
            lambda: changes.copy(self._roots, source, destination, recursive=params.recursive, limits=self._limits)
        )
        return Nothing()

    # -- blocks --

    def open(self, params: FileOpen) -> Call[FileHandle]:
        """Open a file for blocks. Raises `FileRefused`."""
        self._path(params)
        handle = self._handles.claim(params.handle_id)
        return self._open(handle, handle.take_turn(), params)

    async def _open(self, handle: Handle, turn: Turn, params: FileOpen) -> FileHandle:
        async with turn.taken():
            with self._forgotten_on_failure(handle):
                await self._in_place(params, lambda place: handle.open(place, params.mode == "replace"))
        return FileHandle(handle.id)

    def read_block(self, params: BlockRead) -> Call[Block]:
        """A piece of an open file. Raises `NotFound` and `FileRefused`."""
        self._check_block("read", params.len)
        handle = self._find(params.handle_id)
        return self._read_block(handle, handle.take_turn(), params)

    async def _read_block(self, handle: Handle, turn: Turn, params: BlockRead) -> Block:
        async with turn.taken():
            with self._forgotten_on_failure(handle):
                chunk = await self._in_thread(lambda: handle.read(params.offset, params.len))
        return Block(chunk, eof=len(chunk) < params.len)

    def write_block(self, params: BlockWrite) -> Call[Nothing]:
        """Write a piece of an open file. Raises `NotFound`, `FileRefused` and `Busy`."""
        self._check_block("write", len(params.chunk))
        if params.offset + len(params.chunk) > MAX_OFFSET:
            raise FileRefused("file write range exceeds the signed 64-bit file offset limit")
        handle = self._find(params.handle_id)
        self._check_queue(len(params.chunk))
        turn = handle.take_turn()
        return self._write(len(params.chunk), lambda: self._write_block(handle, turn, params))

    async def _write_block(self, handle: Handle, turn: Turn, params: BlockWrite) -> None:
        async with turn.taken():
            await self._in_thread(lambda: handle.write(params.offset, params.chunk))

    def close(self, params: FileHandle) -> Call[Nothing]:
        """Close an open file, behind all that was asked of it. One that is not open does no harm."""
        try:
            handle = self._find(params.handle_id)
        except NotFound:
            return _nothing()
        return self._close(handle, handle.take_turn())

    async def _close(self, handle: Handle, turn: Turn) -> Nothing:
        async with turn.taken():
            try:
                await self._in_thread(handle.close)
            finally:
                self._handles.forget(handle)
        return Nothing()

    @contextmanager
    def _forgotten_on_failure(self, handle: Handle) -> Iterator[None]:
        """A handle that could not be opened or read is not open any more, and its id is free."""
        try:
            yield
        except FileError:
            self._handles.forget(handle)
            raise

    # -- the watch --

    def watch_missing(self, params: WatchMissing) -> Call[Watching]:
        """Replace the watch. It is at its end when it has told once."""
        self._check_allowed()
        missing = [path_from_wire(path, "missing") for path in params.missing]
        present = None if params.present is None else path_from_wire(params.present, "present")
        if params.watch_id <= self._last_watch_id or len(missing) > self._limits.watched_paths or not has_inotify:
            return _not_watching()
        self._last_watch_id = params.watch_id
        self._watching.cancel()
        self._watching = trio.CancelScope()
        return self._start_watch(params.watch_id, self._watching, missing, present)

    async def _start_watch(
        self, id: int, watching: trio.CancelScope, missing: list[str], present: str | None
    ) -> Watching:
        try:
            watch = Watch()
        except OSError:
            return Watching(False)
        if not await self._in_thread(lambda: watch.start(self._roots, missing, present)):
            return Watching(False)
        self._nursery.start_soon(self._watch, id, watching, watch)
        return Watching(True)

    async def _watch(self, id: int, watching: trio.CancelScope, watch: Watch) -> None:
        with watching:
            await watch.wait_changed()
            self._notify(Notification("fs/missingChanged", MissingChanged(id)))

    # -- shared --

    def _path(self, params: FilePath | FileWalk) -> str:
        return self._checked(params.path, "path")

    def _checked(self, path: str, field: str) -> str:
        self._check_allowed()
        return path_from_wire(path, field)

    def _check_allowed(self) -> None:
        if not self._limits.allow_files:
            raise FilesDisabled("the file methods are switched off on this server")

    def _find(self, id: str) -> Handle:
        self._check_allowed()
        return self._handles.find(id)

    def _check_block(self, what: str, size: int) -> None:
        most = self._limits.file_block_bytes
        if not 1 <= size <= most:
            raise FileRefused(f"file {what} block length must be between 1 and {most}")

    def _check_queue(self, size: int) -> None:
        self._check_allowed()
        bound = self._limits.queued_file_bytes
        if self._queued_bytes and self._queued_bytes + size > bound:
            raise Busy(f"queued_file_bytes ({bound}) are being written", limit="queued_file_bytes", value=bound)

    def _write(self, size: int, write: Callable[[], Awaitable[None]]) -> Call[Nothing]:
        """Count what is under way to files, from now on."""
        self._queued_bytes += size

        async def counted() -> Nothing:
            try:
                await write()
            finally:
                self._queued_bytes -= size
            return Nothing()

        return counted()

    @asynccontextmanager
    async def _large_answer(self) -> AsyncIterator[None]:
        async with self._large:
            await self._answers_left()
            yield

    async def _in_place(self, params: FilePath, work: Callable[[Place], T], *, follow_last: bool | None = None) -> T:
        """Do something, in a thread, with what the path of a call leads to."""
        path = self._path(params)

        def find_and_work() -> T:
            with self._roots.at(path, follow=follows(params), follow_last=follow_last) as place:
                return work(place)

        return await self._in_thread(find_and_work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Cancelling leaves a thread behind that cannot be waited for; it ends at its next step."""
        try:
            return await trio.to_thread.run_sync(work, limiter=self._threads, abandon_on_cancel=True)
        except OSError as error:
            raise file_error(error) from error


def follows(params: FilePath) -> bool:
    """Whether links are to be followed, as they are unless refused."""
    return params.follow_symlinks is not False


def file_error(error: OSError) -> FileError:
    """How an error of the system is answered."""
    number = error.errno or 0
    if number == errno.ENOENT:
        kind: type[FileError] = NotFound
    elif number in (errno.EACCES, errno.EPERM, errno.EINVAL):
        kind = FileRefused
    else:
        kind = FileError
    return kind(listings.error_text(error), errno=number)


async def _nothing() -> Nothing:
    return Nothing()


async def _not_watching() -> Watching:
    return Watching(False)
