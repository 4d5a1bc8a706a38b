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
from execsrv.errors import ExecsrvError, NotFoundError
from execsrv.protocol import Nothing, TreeChanges, TreeWatch, WatchId

_ids = count(1)


class FileChanged(Struct, frozen=True):
    """A change of the entry at `path`. `lost` is about the directory that is watched: look at all of it again."""

    kind: Literal["created", "changed", "removed", "lost"]
    path: str


class _Watch:
    """One watch of the server, begun anew where it is lost."""

    def __init__(self, calls: FileCalls, path: str, recursive: bool) -> None:
        self.path = path
        self._is_over = False
        self._calls = calls
        self._recursive = recursive
        self._id = ""
        self._begun: PendingCall | None = None
        self._asked: PendingCall | None = None
        self._is_lost = False  # and nobody has been told yet

    async def start(self) -> None:
        """Begin it. Cancelled, it may have begun all the same."""
        id = self._id = f"w{next(_ids)}"
        wanted = TreeWatch(watch_id=id, path=sent(self.path), recursive=self._recursive)
        self._begun = await self._calls.post("fs/watch", wanted)
        await self._wait_begun()

    async def _wait_begun(self) -> None:
        assert self._begun is not None
        try:
            with doing("watch", self.path):
                await self._calls.answer_to(self._begun, Nothing)
        except ExecsrvError:
            self._is_lost = False  # who waits again learns that anew, and begins another
            raise

    async def end(self, patience: float) -> None:
        """End it, which takes so many seconds at most."""
        self._is_over = True
        with trio.move_on_after(patience, shield=True) as waiting:
            if self._begun is not None:
                await happened(self._begun.answered)  # what has not begun yet cannot be ended
        await self._calls.take_leave("fs/unwatch", WatchId(self._id), 0 if waiting.cancelled_caught else patience)

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` behind its block."""
        if self._is_over:
            raise trio.ClosedResourceError(f"the block of the watch of {self.path!r} was left")

    async def next(self) -> list[FileChanged]:
        """Wait for changes, and return them. Cancelling loses none."""
        if self._is_lost:  # a wait was cancelled while it was begun anew
            await self._wait_begun()
            return self._lost()
        if self._asked is None:
            self._asked = await self._calls.post("fs/readChanges", WatchId(self._id))
        try:
            answer = await self._calls.answer_to(self._asked, TreeChanges)
        except NotFoundError:
            # The channel, and the watch with it, were lost, or the directory is gone.
            self._asked = None
            self.check_open()  # else nobody would end the new one
            self._is_lost = True
            await self.start()
            return self._lost()
        self._asked = None
        found = [FileChanged(change.kind, heard("fs/readChanges", change.path)) for change in answer.changes]
        return found + self._lost() if answer.lost else found

    def _lost(self) -> list[FileChanged]:
        self._is_lost = False
        return [FileChanged("lost", self.path)]


class Changes:
    """The changes of one watch, in their order: `async for change in changes`. Cancelling loses none."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        self._told: list[FileChanged] = []
        self._busy = False

    def __repr__(self) -> str:
        return f"<Changes of {self._watch.path!r}>"

    def __aiter__(self) -> Changes:
        return self

    async def __anext__(self) -> FileChanged:
        """Return the next change. Raises `NotFoundError` when the directory itself is gone, after saying so.

        `trio.ClosedResourceError` is for who asks after the block.
        """
        self._watch.check_open()
        if self._busy:
            raise trio.BusyResourceError(f"another task is waiting for changes of {self._watch.path!r}")
        self._busy = True
        try:
            while not self._told:
                self._told = (await self._watch.next())[::-1]
            change = self._told.pop()
            undo_if_late(partial(self._told.append, change))
            return change
        finally:
            self._busy = False


@asynccontextmanager
async def open_changes(calls: FileCalls, path: str, recursive: bool, patience: float) -> AsyncIterator[Changes]:
    """Watch a directory as long as the block lasts."""
    watch = _Watch(calls, path, recursive)
    try:
        await watch.start()
        yield Changes(watch)
    finally:
        await watch.end(patience)
