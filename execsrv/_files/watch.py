"""Waiting, without polling, until paths that are missing may have come into being.

On the way to each path every directory is watched before the next name is looked up in it, so nothing can slip in
between, and a directory on the way that is renamed or replaced is noticed too. What is told is a hint: look again.
Mounts that appear are not noticed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from os import fsencode

import trio

from execsrv._files import Tell, can_watch
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
    """What one `fs/watchMissing` watches."""

    def __init__(self) -> None:
        """Raises `OSError` when there are too many already."""
        self._inotify = Inotify()
        self._names: defaultdict[int, set[bytes]] = defaultdict(set)

    def start(self, roots: Roots, missing: Sequence[str], present: str | None) -> bool:
        """Watch; False when there is no need to, or no way. Blocks; for a thread."""
        if not missing:
            return False
        with suppress(OSError, FileRefusedError):
            if any(self._exists(roots, path, _WAY) for path in missing):
                return False
            return present is None or self._exists(roots, present, _WAY | Change.MODIFY)
        return False

    def _exists(self, roots: Roots, path: str, changes: int) -> bool:
        """Watch the way to a path; whether something is there at the end of it."""

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
    """The one watch that a channel has at a time, and the ids that it has used. Its task is in `nursery`."""

    def __init__(self, work: Work, nursery: trio.Nursery, tell: Tell) -> None:
        self._work = work
        self._nursery = nursery
        self._tell = tell
        self._last_id = -1
        self._watching = trio.CancelScope()

    def watch_missing(self, params: WatchMissing) -> Call[Watching]:
        """Replace the watch. It is at its end when it has told once."""
        self._work.check_allowed()
        missing = [path_from_wire(path, "missing") for path in params.missing]
        present = None if params.present is None else path_from_wire(params.present, "present")
        if params.watch_id <= self._last_id or len(missing) > _WATCHED_PATHS or not can_watch:
            return _not_watching()
        self._last_id = params.watch_id
        self._watching.cancel()
        self._watching = trio.CancelScope()
        return self._start(params.watch_id, self._watching, missing, present)

    async def _start(self, id: int, watching: trio.CancelScope, missing: list[str], present: str | None) -> Watching:
        try:
            watch = Watch()
        except OSError:
            return Watching(False)
        if not await self._work.in_thread(lambda: watch.start(self._work.roots, missing, present)):
            return Watching(False)
        self._nursery.start_soon(self._watch, id, watching, watch)
        return Watching(True)

    async def _watch(self, id: int, watching: trio.CancelScope, watch: Watch) -> None:
        with watching:
            await watch.wait_changed()
            await self._tell(Notification("fs/missingChanged", MissingChanged(id)))


async def _not_watching() -> Watching:
    return Watching(False)
