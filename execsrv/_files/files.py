"""File methods of one channel: a method for each `fs/*`, which works in a thread.

The channel's open files and its watch belong to it, and end with it. No request waits for another, except that those
on one handle take turns.

Every method raises `RequestError`: `NotFoundError` for ENOENT, `FileRefusedError` for EACCES, EPERM and EINVAL, and
`FileError` for any other error of the system.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from execsrv._budget.allowance import Allowance
from execsrv._files import AnswersLeft, Tell, changes, contents, details, listings, moves
from execsrv._files.blocks import Blocks
from execsrv._files.roots import Place
from execsrv._files.rules import Use
from execsrv._files.threads import Call, RulesOf, Work, follows
from execsrv._files.tree_watch import TreeWatches
from execsrv._files.watch import Watches
from execsrv._wire.paths import uri_from_path
from execsrv.errors import FileError, FileRefusedError, InvalidParamsError, NotFoundError
from execsrv.limits import ServerConfig
from execsrv.protocol import (
    CanonicalPath,
    DirectoryCreate,
    DirectoryEntry,
    DirectoryListing,
    FileAppend,
    FileChange,
    FileCopy,
    FileData,
    FileList,
    FileMetadata,
    FilePath,
    FileRemove,
    FileRename,
    FileStat,
    FileStatus,
    FileWalk,
    FileWrite,
    LinkCreate,
    ListedFile,
    Nothing,
    Walked,
)


class Files:
    """File methods of one channel. `open_files` makes them. The watch runs in `nursery`; `aclose` must follow."""

    def __init__(
        self,
        config: ServerConfig,
        nursery: trio.Nursery,
        tell: Tell,
        answers_left: AnswersLeft,
        allowance: Allowance,
        rules_of: RulesOf,
    ) -> None:
        self._work = Work(config, answers_left, allowance, rules_of)
        self.blocks = Blocks(self._work)
        self.watches = Watches(self._work, nursery, tell)
        self.tree_watches = TreeWatches(self._work)

    async def aclose(self) -> None:
        """Close the open files, and end the watches."""
        self.tree_watches.close()
        await self.blocks.aclose()

    # -- whole files --

    async def read_file(self, params: FilePath) -> FileData:
        """Return the content of a file. A large one is read when the answers before it have left."""
        path, roots = self._work.path(params), self._work.roots_of(params)

        def read(most: int) -> bytes | None:
            with roots.at(path, follow=follows(params)) as place:
                return contents.read_file(place, most)

        limit = self._work.config.max_file_bytes
        data = await self._work.in_thread(lambda: read(min(self._work.config.file_block_bytes, limit)))
        if data is None:
            async with self._work.large_answer():
                data = await self._work.in_thread(lambda: read(limit))
        if data is None:
            raise FileRefusedError(
                f"file is too large to read: limit is {limit} bytes", limit="max_file_bytes", value=limit
            )
        return FileData(data)

    def write_file(self, params: FileWrite) -> Call[Nothing]:
        """Make or replace a file. Raises `BusyError`."""

        def write(place: Place) -> None:
            if params.atomic:
                contents.put_file(place, params.data_base64, params.permissions, params.modified_at_ns)
            else:
                contents.write_file(place, params.data_base64)

        if not params.atomic and not (params.permissions is params.modified_at_ns is None):
            raise InvalidParamsError("permissions, modifiedAtNs: only with atomic", field="permissions")
        return self._written(params, len(params.data_base64), write, "replace" if params.atomic else "write")

    def append(self, params: FileAppend) -> Call[Nothing]:
        """Write behind the end of a file. Raises `BusyError`."""
        data = params.data_base64
        return self._written(params, len(data), lambda place: contents.append_file(place, data))

    def _written(
        self, params: FilePath, size: int, write: Callable[[Place], None], use: Use = "write"
    ) -> Call[Nothing]:
        self._work.check_queue(size)
        return self._work.write(size, lambda: self._work.in_place(params, write, use=use))

    # -- names --

    async def create_directory(self, params: DirectoryCreate) -> Nothing:
        """Make a directory."""
        path, recursive = self._work.path(params), params.recursive is not False
        roots, follow = self._work.roots_of(params), follows(params)
        made_with = 0o777 if params.permissions is None else params.permissions
        await self._work.in_thread(
            lambda: changes.create_directory(roots, path, recursive=recursive, follow=follow, permissions=made_with)
        )
        return Nothing()

    async def get_metadata(self, params: FilePath) -> FileMetadata:
        """Return the metadata of what a path leads to."""
        return await self._work.in_place(params, listings.metadata)

    async def canonicalize(self, params: FilePath) -> CanonicalPath:
        """Return the path of something that exists, without links in it."""

        def canonical(place: Place) -> str:
            place.status()
            return place.path

        return CanonicalPath(uri_from_path(await self._work.in_place(params, canonical)))

    async def read_directory(self, params: FilePath) -> DirectoryListing:
        """Return the entries of a directory."""
        path, roots = self._work.path(params), self._work.roots_of(params)

        def read() -> list[DirectoryEntry]:
            with roots.at(path, follow=follows(params)) as place:
                return listings.read_directory(roots, place, self._work.config)

        async with self._work.large_answer():
            return DirectoryListing(await self._work.in_thread(read))

    async def stat(self, params: FileStat) -> FileStatus:
        """Return the facts of what a path leads to, or of a link itself."""
        last = False if params.of_link else None
        return await self._work.in_place(params, details.status, follow_last=last)

    async def list(self, params: FilePath) -> FileList:
        """Return the entries of a directory, each with its facts."""
        path, roots = self._work.path(params), self._work.roots_of(params)

        def read() -> list[ListedFile]:
            with roots.at(path, follow=follows(params)) as place:
                return details.list_directory(roots, place, self._work.config)

        async with self._work.large_answer():
            return FileList(await self._work.in_thread(read))

    async def check_directory(self, path: str) -> None:
        """Raise an error unless `path`, which is absolute, leads to a directory that can be read."""
        self._work.check_allowed()

        def check() -> None:
            with self._work.roots.at(path) as place, listings.open_directory(place):
                pass

        await self._work.in_thread(check)

    async def walk(self, params: FileWalk) -> Walked:
        """Return the entries of a tree."""
        path = self._work.path(params)
        walk = listings.Walk(self._work.roots_of(params), params.options, self._work.config)
        async with self._work.large_answer():
            return await self._work.in_thread(lambda: walk.run(path))

    async def remove(self, params: FileRemove) -> Nothing:
        """Remove a file, a link or a tree."""
        recursive, force, follow = params.recursive is not False, params.force is not False, follows(params)
        if recursive and not follow:
            raise FileError("recursive no-follow removal is unsupported")

        def remove(place: Place) -> None:
            changes.remove(place, recursive=recursive, no_links=not follow)

        try:
            await self._work.in_place(params, remove, follow_last=False, use="replace")
        except NotFoundError:
            if not force:
                raise
        return Nothing()

    async def copy(self, params: FileCopy) -> Nothing:
        """Copy a file, a link or a tree."""
        source = self._work.checked(params.source_path, "sourcePath")
        destination = self._work.checked(params.destination_path, "destinationPath")
        roots, config = self._work.roots_of(params), self._work.config
        await self._work.in_thread(
            lambda: changes.copy(roots, source, destination, recursive=params.recursive, config=config)
        )
        return Nothing()

    async def change(self, params: FileChange) -> Nothing:
        """Set permissions, times or size of a file."""
        last = False if params.of_link else None
        await self._work.in_place(params, lambda place: details.change(place, params), follow_last=last, use="write")
        return Nothing()

    async def rename(self, params: FileRename) -> Nothing:
        """Give a file, a link or a directory another path."""
        source = self._work.checked(params.source_path, "sourcePath")
        destination = self._work.checked(params.destination_path, "destinationPath")
        roots, config = self._work.roots_of(params), self._work.config
        if params.across:
            await self._work.in_thread(lambda: moves.move(roots, source, destination, config))
        else:
            await self._work.in_thread(lambda: details.rename(roots, source, destination, params.keep))
        return Nothing()

    async def symlink(self, params: LinkCreate) -> Nothing:
        """Make a symbolic link."""
        target = params.target
        await self._work.in_place(
            params, lambda place: details.make_link(place, target), follow_last=False, use="write"
        )
        return Nothing()
