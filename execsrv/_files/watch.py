"""Waiting, without polling, until paths that are missing may have come into being.

Every directory on the way to a path is watched before the next name is looked up in it, so no change can slip in
between, and a directory on the way that is renamed or replaced is noticed too. A client that is told takes it as a
hint, and looks again. Mounts that appear are not noticed.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from os import fsencode

import trio

from execsrv._files import Tell
from execsrv._files.inotify import Change, Inotify
from execsrv._files.roots import Roots
from execsrv._files.threads import Call, Work
from execsrv._wire.paths import path_from_wire
from execsrv.errors import FileRefusedError
from execsrv.protocol import MissingChanged, Notification, Watching, WatchMissing

_WAY = Change.CREATE | Change.DELETE | Change.MOVED_FROM | Change.MOVED_TO | Change.ATTRIB
_LOST = Change.UNMOUNT | Change.OVERFLOW | Change.IGNORED

_WATCHED_PATHS = 256
"""Paths in one `fs/watchMissing`. With more, nothing is watched."""


class Watch:
    """The way to some paths, watched for one `fs/watchMissing`. Its owner closes it.

    `start` runs in a thread, which may outlast its owner. A watch that is closed under that thread is closed for good
    when the thread is done: the number of a descriptor must not go to another file while somebody uses it.
    """

    def __init__(self) -> None:
        """Raises `OSError` when there are too many already."""
        self._inotify = Inotify()
        self._names: defaultdict[int, set[bytes]] = defaultdict(set)
        self._lock = threading.Lock()  # for the two flags; never held for long
        self._starting = False
        self._over = False

    def close(self) -> None:
        """Let go of the descriptor, at once or when the thread that starts the watch is done."""
        with self._lock:
            self._over = True
            if not self._starting:
                self._inotify.close()

    def start(self, roots: Roots, missing: Sequence[str], present: str | None) -> bool:
        """Watch the ways to these paths, and return whether there is anything to wait for. Blocks; for a thread."""
        with self._lock:
            if self._over:
                return False
            self._starting = True
        try:
            return self._start(roots, missing, present)
        finally:
            with self._lock:
                self._starting = False
                if self._over:
                    self._inotify.close()

    def _start(self, roots: Roots, missing: Sequence[str], present: str | None) -> bool:
        if not missing:
            return False
        with suppress(OSError, FileRefusedError):
            if any(self._exists(roots, path, _WAY) for path in missing):
                return False
            return present is None or self._exists(roots, present, _WAY | Change.MODIFY)
        return False

    def _exists(self, roots: Roots, path: str, changes: int) -> bool:
        """Watch the way to a path, and return whether something is at its end."""

        def visit(directory: int, name: str) -> None:
            self._names[self._inotify.add(directory, changes)].add(fsencode(name))

        try:
            with roots.at(path, visit=visit) as place:
                place.status()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    async def wait_changed(self) -> None:
        """Wait for the first change of what is watched. Cancelling loses nothing."""
        while True:
            await trio.lowlevel.wait_readable(self._inotify.descriptor)
            with suppress(BlockingIOError):
                for event in self._inotify.read():
                    if event.change & _LOST or event.name in self._names[event.watch]:
                        return


class Watches:
    """The one watch that a channel may have at a time. Its task, in `nursery`, owns it."""

    def __init__(self, work: Work, nursery: trio.Nursery, tell: Tell) -> None:
        self._work = work
        self._nursery = nursery
        self._tell = tell
        self._last_id = -1
        self._watching = trio.CancelScope()

    def watch_missing(self, params: WatchMissing) -> Call[Watching]:
        """Replace the watch that the channel has by another one, which ends when it has told once.

        Raises `InvalidParamsError` and `FilesDisabledError`.
        """
        self._work.check_allowed()
        roots = self._work.roots_of(params)
        missing = [path_from_wire(path, "missing") for path in params.missing]
        present = None if params.present is None else path_from_wire(params.present, "present")
        if params.watch_id <= self._last_id or len(missing) > _WATCHED_PATHS:
            return _not_watching()
        self._last_id = params.watch_id
        self._watching.cancel()
        self._watching = trio.CancelScope()
        return self._start(params.watch_id, self._watching, roots, missing, present)

    async def _start(
        self, id: int, watching: trio.CancelScope, roots: Roots, missing: list[str], present: str | None
    ) -> Watching:
        with ExitStack() as owned:
            watches = self._work.allowance.watches
            watches.take()
            owned.callback(watches.give)
            try:
                watch = owned.enter_context(closing(Watch()))
            except OSError:
                return Watching(False)
            if not await self._work.in_thread(lambda: watch.start(roots, missing, present)):
                return Watching(False)
            # Not `nursery.start`: the answer must be there before the task can tell anything.
            self._nursery.start_soon(self._watch, id, watching, watch, owned.pop_all())
        return Watching(True)

    async def _watch(self, id: int, watching: trio.CancelScope, watch: Watch, owned: ExitStack) -> None:
        with owned, watching:
            await watch.wait_changed()
            await self._tell(Notification("fs/missingChanged", MissingChanged(id)))


async def _not_watching() -> Watching:
    return Watching(False)
