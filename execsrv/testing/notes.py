"""Notes on the processes that a test has started, for the report on it when it fails.

They are taken from what arrives at the client anyway, and hold the end of each stream only. The one look at the process
table is when a process is ended that still runs.
"""

from __future__ import annotations

import shlex
from collections import deque

from execsrv._log.entries import Entry, Exited
from execsrv._processes import proc
from execsrv._wire.codecs import decode_params
from execsrv.client.connection import Connection
from execsrv.client.mirror import Mirror
from execsrv.errors import InvalidParamsError
from execsrv.protocol import Chunk, ProcessStart, ProcessStarted, Response

_MOST_PROCESSES = 20
_TAIL_BYTES = 4096
_TAIL_LINES = 20


class Note:
    """One process: a tap on its mirror."""

    def __init__(self, mirror: Mirror, is_here: bool) -> None:
        self._mirror = mirror
        self._is_here = is_here
        self._tails: dict[str, bytes] = {}
        self._exited: Exited | None = None
        self._tree: list[str] | None = None

    def arrived(self, entry: Entry) -> None:
        """Keep the end of its output, and how it ended."""
        match entry:
            case Chunk():
                kept = self._tails.get(entry.stream, b"") + entry.chunk[-_TAIL_BYTES:]
                self._tails[entry.stream] = kept[-_TAIL_BYTES:]
            case Exited():
                self._exited = entry

    def wrote(self, data: bytes) -> None:
        """Pass over input: passwords are."""

    def resized(self, rows: int, cols: int) -> None:
        """Pass over sizes."""

    def leaving(self) -> None:
        """Look at its tree, which is about to be ended, where it has started."""
        has_started = self._mirror.started or self._pid is not None
        if self._tree is None and self._exited is None and has_started:
            self._tree = self._members()

    @property
    def _pid(self) -> int | None:
        pending = self._mirror.start
        if pending is None or not isinstance(pending.answer, Response):
            return None
        try:
            return decode_params(pending.answer.result, ProcessStarted).pid
        except InvalidParamsError:
            return None

    def _members(self) -> list[str]:
        pid = self._pid
        if not self._is_here or pid is None:
            return []
        found: list[str] = []
        depths = {0: -1}
        for member, parent in proc.family([pid]).items():
            depths[member] = depths.get(parent, -1) + 1
            found.append(f"{'  ' * depths[member]}{member} {proc.command_line(member)}")
        return found

    def lines(self) -> list[str]:
        """Return it for people; nothing where it was never started."""
        pending = self._mirror.start
        if pending is None or not isinstance(pending.request.params, ProcessStart):
            return []
        self.leaving()
        command = shlex.join(pending.request.params.argv)
        if self._tree is not None:
            how = "was running"
        elif self._exited is None:
            how = "did not start" if self._mirror.was_refused else "may have started: it was not answered"
        elif self._exited.signal is not None:
            how = f"died of {self._exited.signal}"
        else:
            how = f"ended with exit code {self._exited.exit_code}"
        pid = "" if self._pid is None else f" (pid {self._pid})"
        found = [f"{command}{pid} {how}"]
        if self._tree:
            found += ["  its processes:", *(f"    {line}" for line in self._tree)]
        for stream, tail in sorted(self._tails.items()):
            said = tail.decode(errors="replace").splitlines()[-_TAIL_LINES:]
            found += [f"  the end of its {stream}:", *(f"    {line}" for line in said)]
        return found


class Notes:
    """The last processes of one client."""

    def __init__(self, connection: Connection, *, is_here: bool) -> None:
        """`is_here` says that the server's processes are those of this machine."""
        self._is_here = is_here
        self._notes: deque[Note] = deque(maxlen=_MOST_PROCESSES)
        self._count = 0
        connection.watchers.append(self._watch)

    def _watch(self, mirror: Mirror) -> None:
        note = Note(mirror, self._is_here)
        mirror.taps.append(note)
        self._notes.append(note)
        self._count += 1

    def text(self) -> str:
        """Return what is known of them, for people; empty where there were none."""
        lines = [line for note in self._notes for line in note.lines()]
        if left_out := self._count - len(self._notes):
            lines.insert(0, f"{left_out} more before these")
        return "\n".join(lines)
