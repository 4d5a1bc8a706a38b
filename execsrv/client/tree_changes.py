"""Changes below a directory of the server, as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Literal

import trio
from msgspec import Struct

from execsrv._nursery import happened
from execsrv.client.file_calls import FileCalls
from execsrv.client.file_paths import doing, heard, sent
from execsrv.client.late import undo_if_late
from execsrv.client.pending import PendingCall
from execsrv.errors import NotFoundError
from execsrv.protocol import Nothing, TreeChanges, TreeWatch, WatchId

_ids = count(1)


class FileChanged(Struct, frozen=True):
    """A change of the entry at `path`. `lost` is about the directory that is watched: look at all of it again."""

    kind: Literal["created", "changed", "removed", "lost"]
    path: str


class Changes:
    """The changes of one watch, in their order: `async for change in changes`. Cancelling loses none."""

    def __init__(self, calls: FileCalls, path: str, recursive: bool) -> None:
        self._calls = calls
        self._path = path
        self._recursive = recursive
        self._id = ""
        self._begun: PendingCall | None = None
        self._asked: PendingCall | None = None
        self._told: list[FileChanged] = []
        self._busy = False
        self._is_over = False

    def __repr__(self) -> str:
        return f"<Changes of {self._path!r}>"

    async def _start(self) -> None:
        id = self._id = f"w{next(_ids)}"
        with doing("watch", self._path):
            wanted = TreeWatch(watch_id=id, path=sent(self._path), recursive=self._recursive)
            self._begun = await self._calls.post("fs/watch", wanted)
            await self._calls.answer_to(self._begun, Nothing)

    async def _end(self, patience: float) -> None:
        self._is_over = True
        with trio.move_on_after(patience, shield=True) as waiting:
            if self._begun is not None:
                await happened(self._begun.answered)  # what has not begun yet cannot be ended
        await self._calls.take_leave("fs/unwatch", WatchId(self._id), 0 if waiting.cancelled_caught else patience)

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> FileChanged:
        """Return the next change. Raises `NotFoundError` when the directory itself is gone, after saying so.

        `trio.ClosedResourceError` is for who asks after the block.
        """
        self._check_open()
        if self._busy:
            raise trio.BusyResourceError(f"another task is waiting for changes of {self._path!r}")
        self._busy = True
        try:
            while not self._told:
                self._told = (await self._next())[::-1]
            change = self._told.pop()
            undo_if_late(partial(self._told.append, change))
            return change
        finally:
            self._busy = False

    def _check_open(self) -> None:
        if self._is_over:
            raise trio.ClosedResourceError(f"the block of the watch of {self._path!r} was left")

    async def _next(self) -> list[FileChanged]:
        if self._asked is None:
            self._asked = await self._calls.post("fs/readChanges", WatchId(self._id))
        try:
            answer = await self._calls.answer_to(self._asked, TreeChanges)
        except NotFoundError:
            # The channel, and the watch with it, were lost, or the directory is gone.
            self._asked = None
            self._check_open()  # else nobody would end the new one
            await self._start()
            return [FileChanged("lost", self._path)]
        self._asked = None
        found = [FileChanged(change.kind, heard("fs/readChanges", change.path)) for change in answer.changes]
        return [*found, FileChanged("lost", self._path)] if answer.lost else found


@asynccontextmanager
async def open_changes(calls: FileCalls, path: str, recursive: bool, patience: float) -> AsyncIterator[Changes]:
    """Watch a directory as long as the block lasts."""
    changes = Changes(calls, path, recursive)
    try:
        await changes._start()  # cancelled, it may have begun all the same
        yield changes
    finally:
        await changes._end(patience)
