"""`execsrv play`: an asciicast on this terminal, at the pace at which it was made, or another."""

from __future__ import annotations

import json
import os
import re
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

from execsrv._cli.manners import Manners, print_json, span
from execsrv._cli.repainting import Modes
from execsrv._cli.replaying import Replay
from execsrv._cli.streams import say
from execsrv._cli.terminal import raw_terminal, window, write_now
from execsrv._wire.writing import write_all
from execsrv.errors import ExecsrvError

_MOST_LINE_BYTES = 16 * 1024 * 1024
_MOST_SECONDS = 1e9
"""No time in a recording is longer, and none that is waited for."""

_FASTER = 1.5
_EXIT_CODE = re.compile("-?[0-9]{1,10}")


class Moment(NamedTuple):
    """One event, so many seconds after the one before it. The code is "o", "i", "r", "m" or "x"."""

    after: float
    code: str
    data: str


class Cast:
    """A recording that is read from its file as it is played."""

    def __init__(self, path: str) -> None:
        """Read the header. Raises `OSError`, and `ExecsrvError` for another file."""
        self.path = path
        self._file = open(0 if path == "-" else path, "rb", closefd=path != "-")  # noqa: SIM115
        try:
            self.header = self._parsed(self._file.readline(_MOST_LINE_BYTES), 1)
        except BaseException:
            self._file.close()
            raise
        self._version = self.header.get("version") if isinstance(self.header, dict) else None
        if self._version not in (2, 3):
            self._file.close()
            raise ExecsrvError(f"`{path}` is no asciicast of version 2 or 3")

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        place = self.header if self._version == 2 else self.header.get("term", {})
        names = ("width", "height") if self._version == 2 else ("cols", "rows")
        cols, rows = (place.get(name) for name in names) if isinstance(place, dict) else (None, None)
        return (cols, rows) if isinstance(cols, int) and isinstance(rows, int) else (80, 24)

    @property
    def idle_limit(self) -> float | None:
        """The longest silence that the recording wants to have."""
        limit = self.header.get("idle_time_limit")
        return float(limit) if isinstance(limit, int | float) and 0 < limit <= _MOST_SECONDS else None

    def moments(self) -> Iterator[Moment]:
        """Yield what happened, in order. A line that was cut off ends it. Raises `ExecsrvError`."""
        last, number = 0.0, 1
        with self._file:
            while line := self._file.readline(_MOST_LINE_BYTES):
                number += 1
                if not line.strip() or line.startswith(b"#"):
                    continue
                if not line.endswith(b"\n") and len(line) < _MOST_LINE_BYTES:
                    try:
                        json.loads(line)
                    except (ValueError, RecursionError):
                        return  # it is still being written, or its writer was killed
                found = self._parsed(line, number)
                match found:
                    case [int() | float() as at, str() as code, str() as data] if abs(at) <= _MOST_SECONDS:
                        after = at - last if self._version == 2 else at
                        last = at
                        yield Moment(max(0.0, after), code, data)
                    case _:
                        raise ExecsrvError(f"`{self.path}`, line {number}: no event of an asciicast")

    def _parsed(self, line: bytes, number: int) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            raise ExecsrvError(f"`{self.path}`, line {number}: no JSON, so this is no asciicast") from None


def play(*, path: str, speed: float, idle_limit: float | None, all_at_once: bool, manners: Manners) -> int:
    """Play a recording."""
    cast = Cast(path)
    if manners.as_json:
        print_json(_summary(cast))
        return 0
    output = _Output()
    player = _Player(speed, cast.idle_limit if idle_limit is None else idle_limit, output)
    has_keys = path != "-" and os.isatty(0)
    with ExitStack() as at_terminal:
        at_terminal.callback(output.undo)
        if all_at_once or not os.isatty(1):
            for moment in cast.moments():
                if moment.code == "o":
                    output.write(moment.data)
            return 0
        cols, rows = cast.size
        ours = window()
        if ours is not None and (os.get_terminal_size(1).columns < cols or os.get_terminal_size(1).lines < rows):
            manners.note(f"the recording has {cols} columns and {rows} rows, which is more than this terminal has")
        at_terminal.enter_context(raw_terminal(has_keys))
        done = player.run(cast, has_keys)
    if manners.verbose and done:
        say(f"execsrv: played {span(player.played)} of `{path}`")
    return 0


def _summary(cast: Cast) -> dict[str, Any]:
    seconds, output, exit_code = 0.0, 0, None
    for moment in cast.moments():
        seconds += moment.after
        output += len(moment.data.encode(errors="replace")) if moment.code == "o" else 0
        exit_code = int(moment.data) if moment.code == "x" and _EXIT_CODE.fullmatch(moment.data) else exit_code
    cols, rows = cast.size
    return {
        "command": cast.header.get("command"),
        "title": cast.header.get("title"),
        "timestamp": cast.header.get("timestamp"),
        "cols": cols,
        "rows": rows,
        "seconds": round(seconds, 3),
        "outputBytes": output,
        "exitCode": exit_code,
    }


class _Output:
    """The recorded output on our stdout. A terminal is asked for nothing by it, and left as it was."""

    def __init__(self) -> None:
        self._is_terminal = os.isatty(1)
        self._replay = Replay()
        self._modes = Modes()

    def write(self, text: str) -> None:
        """Write what the program has printed. Raises `OSError`."""
        data = text.encode(errors="replace")
        if self._is_terminal:
            data = self._replay.take(data)
            self._modes.note(data)
        write_all(1, data)

    def undo(self) -> None:
        """End what the program may have left on a terminal: another screen, a hidden cursor, a mouse, colors."""
        if self._is_terminal:
            write_now(self._modes.undo() + b"\r\n")


class _Player:
    """Plays, and does what keys say in between."""

    def __init__(self, speed: float, idle_limit: float | None, output: _Output) -> None:
        self.played = 0.0
        self._speed = speed
        self._idle_limit = idle_limit
        self._output = output
        self._paused = False
        self._to_marker = False

    def run(self, cast: Cast, has_keys: bool) -> bool:
        """Play to the end. Return False where the user has ended it before."""
        for moment in cast.moments():
            after = moment.after if self._idle_limit is None else min(moment.after, self._idle_limit)
            if not self._to_marker and not self._wait(after, has_keys):
                return False
            self.played += moment.after
            if moment.code == "o":
                self._output.write(moment.data)
            elif moment.code == "m" and self._to_marker:
                self._to_marker, self._paused = False, True
        return True

    def _wait(self, seconds: float, has_keys: bool) -> bool:
        """Wait for the next moment. Return False where the user wants no more."""
        if not has_keys:
            time.sleep(min(seconds / self._speed, _MOST_SECONDS))
            return True
        left = seconds
        while left > 0 or self._paused:
            began = time.monotonic()
            patience = None if self._paused else min(left / self._speed, _MOST_SECONDS)
            ready, _, _ = select.select([0], [], [], patience)
            if not self._paused:
                left -= (time.monotonic() - began) * self._speed
            if not ready:
                continue
            for key in os.read(0, 64) or b"q":
                match bytes([key]):
                    case b"q" | b"\x03" | b"\x04":
                        return False
                    case b" ":
                        self._paused = not self._paused
                    case b"." if self._paused:
                        return True
                    case b"]":
                        self._to_marker, self._paused = True, False
                        return True
                    case b"+" | b"=":
                        self._speed *= _FASTER
                    case b"-":
                        self._speed /= _FASTER
        return True
