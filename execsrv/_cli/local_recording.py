"""The recording of a command that runs here: its output becomes an asciicast on its way to our own streams."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from execsrv._cli.terminal import size_of, window
from execsrv._wire.writing import write_all
from execsrv.record.asciicast import Asciicast
from execsrv.record.file import open_file, whole_lines


class LocalRecording:
    """A file to which lines are written as things happen. To be used in the threads that write the output."""

    def __init__(self, path: str, argv: Sequence[str], *, is_terminal: bool) -> None:
        """Create the file, or empty it. Raises `OSError`."""
        self.error: OSError | None = None
        """The end of the recording, and not of the command: from then on nothing more is written."""
        self._path = path
        self._descriptor = open_file(path)
        self.exit_code: int | None = None
        """Once it is known."""
        self._cast = Asciicast(time.monotonic(), is_terminal=is_terminal)
        ours = window() if is_terminal else None
        rows, cols = size_of(ours)[:2] if ours is not None else (24, 80)
        self._write(
            self._cast.header(
                rows, cols, timestamp=time.time(), command=shlex.join(argv), title=None, idle_time_limit=None
            )
        )

    def output(self, target: int, data: bytes) -> None:
        """Record output that goes to our stdout (1) or stderr (2)."""
        self._write(self._cast.output(time.monotonic(), "stderr" if target == 2 else "stdout", data))

    def resized(self, rows: int, cols: int) -> None:
        """Record a new size of the terminal."""
        self._write(self._cast.resized(time.monotonic(), rows, cols))

    def close(self) -> None:
        """Record the end, and close the file."""
        self._write(self._cast.end(time.monotonic(), self.exit_code))
        os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        if line and self.error is None:
            try:
                with whole_lines(self._descriptor, line):
                    write_all(self._descriptor, line)
            except OSError as error:
                self.error = OSError(error.errno, f"cannot write the recording: {error.strerror}", self._path)


@contextmanager
def recorded(path: str, argv: Sequence[str], *, is_terminal: bool) -> Iterator[LocalRecording]:
    """Record in this block. Raises `OSError`, at its end where the file could not be written and it has no error."""
    recording = LocalRecording(path, argv, is_terminal=is_terminal)
    try:
        yield recording
    finally:
        recording.close()
    if recording.error is not None:
        raise recording.error
