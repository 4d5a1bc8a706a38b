"""Watches of directories, and of all below them, read change by change.

The kernel's own queue holds what nobody has read yet: it is bounded, and says when it ran over. A watch belongs to its
channel. Links are not followed. A directory that appears is watched from then on, and what is found in it is told too,
since it may have been made before the watch was there.
"""

from __future__ import annotations

import os
import posixpath
import threading
from collections import deque
from contextlib import suppress
from typing import Literal

import trio

from execsrv._files.inotify import Change, Event, Inotify
from execsrv._files.listings import open_directory
from execsrv._files.roots import Roots
from execsrv._files.threads import Call, Work, file_error
from execsrv._nursery import happened
from execsrv._wire.paths import uri_from_path
from execsrv.errors import FileRefusedError, LimitExceededError, NotFoundError
from execsrv.limits import MIB
from execsrv.protocol import Nothing, TreeChange, TreeChanges, TreeWatch, WatchId

_WATCHES = 32
"""Watches that one channel may have."""

_DIRECTORIES = 10_000
"""Directories of one watch, as many as one `fs/walk` reads."""

_DIRECTORY_BYTES = 512
"""The cost of one of them: its path, and the kernel's watch."""

_FOUND_BYTES = 4 * MIB
"""Paths that one answer tells of what was found in new directories, as they are sent at the most."""

_CREATED = Change.CREATE | Change.MOVED_TO
_REMOVED = Change.DELETE | Change.MOVED_FROM
_CHANGED = Change.MODIFY | Change.ATTRIB
_OWN_END = Change.DELETE_SELF | Change.MOVE_SELF


class _Watch:
    """One watched tree. `start` and `take` run in threads, one at a time; one may outlast the owner, who closes it."""

    def __init__(self, roots: Roots, path: str, recursive: bool) -> None:
        """Raises `OSError` when there are too many already."""
        self.inotify = Inotify()
        self._roots = roots
        self._top = path
        self._real_top = path  # without links, as soon as it is known
        self._recursive = recursive
        self._paths: dict[int, str] = {}
        self._room = 0  # in the answer that is being made, for what is found
        self._lock = threading.Lock()  # for the two flags; never held for long
        self._at_work = False
        self.over = False
        self.being_read = False
        self.started = trio.Event()  # or over
        self.is_alive = True  # until the directory at the top is gone
        self.has_lost = False  # True when changes were taken that nobody was told of
        self.held_bytes = 0  # what was taken for it of a budget

    def close(self) -> None:
        """Let go of the descriptor, at once or when the thread that uses it is done."""
        with self._lock:
            if self.over:
                return
            self.over = True
            trio.lowlevel.notify_closing(self.inotify.descriptor)
            if not self._at_work:
                self.inotify.close()

    def start(self) -> None:
        """Watch the tree. Raises `OSError`, and `LimitExceededError` for too many directories."""
        if self._enter():
            try:
                self._add(self._top, [])
            finally:
                self._leave()

    def take(self) -> TreeChanges:
        """Return the changes that are there, and watch the directories that are new."""
        changes: list[TreeChange] = []
        lost = self.has_lost
        self._room = _FOUND_BYTES
        if self._enter():
            try:
                with suppress(BlockingIOError):
                    for event in self.inotify.read():
                        lost |= bool(event.change & Change.OVERFLOW) or not self._tell(event, changes)
            finally:
                self._leave()
        return TreeChanges(changes, lost)

    @property
    def weight(self) -> int:
        """The bytes that its directories take."""
        return len(self._paths) * _DIRECTORY_BYTES

    def _enter(self) -> bool:
        with self._lock:
            self._at_work = not self.over
            return self._at_work

    def _leave(self) -> None:
        with self._lock:
            self._at_work = False
            if self.over:
                self.inotify.close()

    def _tell(self, event: Event, changes: list[TreeChange]) -> bool:
        """Add the change that an event stands for. Return False when others have got lost."""
        directory = self._paths.get(event.watch)
        if directory is None:
            return True
        if event.change & (Change.IGNORED | _OWN_END | Change.UNMOUNT):
            if directory == self._top:
                _add(changes, "removed", directory)
                self._paths.clear()
                self.is_alive = False
            elif event.change & Change.IGNORED:
                del self._paths[event.watch]
            return True
        path = posixpath.join(directory, os.fsdecode(event.name)) if event.name else directory
        if not self._is_shown(path):
            return True
        is_directory = bool(event.change & Change.ISDIR)
        is_new = bool(event.change & _CREATED)
        if event.change & _REMOVED:
            _add(changes, "removed", path)
            if is_directory and event.change & Change.MOVED_FROM:
                self._forget(path)
        elif is_new or event.change & _CHANGED:
            _add(changes, "created" if is_new else "changed", path)
            if is_directory and self._recursive and (is_new or path not in self._paths.values()):  # closed until now
                return self._add_new(path, changes)
        return True

    def _add_new(self, path: str, changes: list[TreeChange]) -> bool:
        found: list[str] = []
        try:
            self._add(path, found)
        except FileNotFoundError:
            pass  # gone again
        except (OSError, LimitExceededError):
            return False
        for entry in found:
            _add(changes, "created", entry)
        return self._room >= 0

    def _add(self, top: str, found: list[str]) -> None:
        """Watch a directory, and all below it where that was asked for. Adds to `found` what is in it and has room."""
        waiting = deque([top])
        while waiting:
            trio.from_thread.check_cancelled()
            path = waiting.popleft()
            try:
                with self._roots.at(path, follow=path == self._top) as place, open_directory(place) as directory:
                    watch = self.inotify.add(directory, _CREATED | _REMOVED | _CHANGED | _OWN_END)
                    self._paths[watch] = path
                    if path == self._top:
                        self._real_top = place.path
                    if len(self._paths) > _DIRECTORIES:
                        message = f"a watch has at most {_DIRECTORIES} directories, and more are below this one"
                        raise LimitExceededError(message, limit="watched directories", value=_DIRECTORIES)
                    if not self._recursive:
                        return
                    with os.scandir(directory) as entries:
                        for entry in entries:
                            child = posixpath.join(path, entry.name)
                            if not self._is_shown(child):
                                continue
                            self._room -= 3 * len(os.fsencode(child))
                            if self._room >= 0:
                                found.append(child)
                            if entry.is_dir(follow_symlinks=False):
                                waiting.append(child)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                if path == top:
                    raise  # others: gone meanwhile, or closed to us

    def _is_shown(self, path: str) -> bool:
        """Tell whether the rules let a path in the tree be read."""
        if self._roots.rules is None:
            return True
        below = path[len(self._top) :].strip("/")
        return self._roots.may(posixpath.join(self._real_top, below) if below else self._real_top, "read")

    def _forget(self, path: str) -> None:
        """Stop to watch a directory that was moved; where it is still in the tree, it is found again there."""
        for watch, directory in list(self._paths.items()):
            if directory == path or directory.startswith(f"{path}/"):
                del self._paths[watch]
                self.inotify.remove(watch)


def _add(changes: list[TreeChange], kind: Literal["created", "changed", "removed"], path: str) -> None:
    change = TreeChange(kind, uri_from_path(path))
    if not changes or changes[-1] != change:
        changes.append(change)


class TreeWatches:
    """The watches of one channel. `close` must follow."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._by_id: dict[str, _Watch] = {}

    def close(self) -> None:
        """End every watch."""
        for id, watch in list(self._by_id.items()):
            self._end(id, watch)

    def watch(self, params: TreeWatch) -> Call[Nothing]:
        """Begin to watch; a read may follow at once. Raises `FileRefusedError` for an id in use and for too many."""
        path, roots = posixpath.normpath(self._work.checked(params.path, "path")), self._work.roots_of(params)
        if params.watch_id in self._by_id:
            raise FileRefusedError(f"watch `{params.watch_id}` already exists", field="watchId")
        if len(self._by_id) >= _WATCHES:
            raise FileRefusedError(f"at most {_WATCHES} watches may be open per connection")
        self._work.allowance.watches.take()
        try:
            watch = _Watch(roots, path, params.recursive)
        except OSError as error:
            self._work.allowance.watches.give()
            raise file_error(error) from error
        self._by_id[params.watch_id] = watch
        return self._start(params.watch_id, watch)

    async def _start(self, id: str, watch: _Watch) -> Nothing:
        """Raises as a listing does."""
        try:
            await self._work.in_thread(watch.start)
            self._weigh(watch)
        except BaseException:
            self._end(id, watch)
            raise
        watch.started.set()
        return Nothing()

    async def read(self, params: WatchId) -> TreeChanges:
        """Wait for changes, and return those that are there. Raises `NotFoundError` once the directory is gone."""
        self._work.check_allowed()
        watch = self._by_id.get(params.watch_id)
        if watch is None or not watch.is_alive:
            self._end(params.watch_id, watch)
            raise _unknown(params.watch_id)
        if watch.being_read:
            raise FileRefusedError(f"watch `{params.watch_id}` is being read already", field="watchId")
        watch.being_read = True
        try:
            await happened(watch.started)
            while watch.is_alive and not watch.over:
                if not watch.has_lost:
                    await trio.lowlevel.wait_readable(watch.inotify.descriptor)
                told = await self._work.in_thread(watch.take)
                watch.has_lost = True
                self._weigh(watch)
                watch.has_lost = False
                if told.changes or told.lost:
                    return told
            raise _unknown(params.watch_id)
        except trio.ClosedResourceError:
            raise _unknown(params.watch_id) from None
        finally:
            watch.being_read = False

    def unwatch(self, params: WatchId) -> Nothing:
        """End a watch. An id that names none is accepted."""
        self._work.check_allowed()
        self._end(params.watch_id, self._by_id.get(params.watch_id))
        return Nothing()

    def _end(self, id: str, watch: _Watch | None) -> None:
        """End a watch, unless that was done, and the id may be that of another one."""
        if watch is not None and self._by_id.get(id) is watch:
            del self._by_id[id]
            watch.close()
            watch.started.set()
            self._work.allowance.for_files.give(watch.held_bytes)
            self._work.allowance.watches.give()

    def _weigh(self, watch: _Watch) -> None:
        """Take what its directories cost, and give back what those cost that have gone. Raises `LimitExceededError`."""
        if not watch.over and (more := watch.weight - watch.held_bytes):
            if more > 0:
                self._work.allowance.for_files.take(more)
            else:
                self._work.allowance.for_files.give(-more)
            watch.held_bytes += more


def _unknown(id: str) -> NotFoundError:
    return NotFoundError(f"unknown watch `{id}`")
