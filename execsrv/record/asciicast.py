"""The lines of an asciicast v3 file, made of what happens to a process. No I/O.

A header, then one event a line: the seconds since the event before it, a letter, and a text. See
https://docs.asciinema.org/manual/asciicast/v3/.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
from dataclasses import dataclass

_LONE_NEWLINE = re.compile(r"(?<!\r)\n")


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording to be made.

    `input` records what is written to the process too: passwords are input. Players shorten a silence to
    `idle_time_limit` seconds. `title` is shown by players. `encoding` is that of what is printed: by default the one in
    which the process is read, and UTF-8 where it is read as bytes.
    """

    path: str | os.PathLike[str]
    input: bool = False
    title: str | None = None
    idle_time_limit: float | None = None
    encoding: str | None = None


class Asciicast:
    """Turns what happens to one process into lines. Times are seconds of any one clock, in order."""

    def __init__(self, began: float, *, is_terminal: bool, encoding: str = "utf-8") -> None:
        """Begin at that time. Without a terminal, each line of output gets the return that a terminal would add.

        `encoding` is that of what is read and written.
        """
        self._last_ms = round(began * 1000)
        self._is_terminal = is_terminal
        self._encoding = encoding
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        self._ends_in_return = False

    def header(
        self, rows: int, cols: int, *, timestamp: float, command: str, title: str | None, idle_time_limit: float | None
    ) -> bytes:
        """Return the first line. `timestamp` is the Unix time of the beginning."""
        header: dict[str, object] = {
            "version": 3,
            "term": {"cols": cols, "rows": rows},
            "timestamp": int(timestamp),
            "command": command,
        }
        if title is not None:
            header["title"] = title
        if idle_time_limit not in (None, math.inf):  # JSON has no word for infinity
            header["idle_time_limit"] = idle_time_limit
        return _line(header)

    def output(self, at: float, stream: str, data: bytes) -> bytes:
        """Return the line of some output, empty where it is only the beginning of a character."""
        return self._output(at, self._decode(stream, data, final=False))

    def input(self, at: float, data: bytes) -> bytes:
        """Return the line of some input, empty where it is only the beginning of a character."""
        text = self._decode("input", data, final=False)
        return self._event(at, "i", text) if text else b""

    def resized(self, at: float, rows: int, cols: int) -> bytes:
        """Return the line of a new size of the terminal."""
        return self._event(at, "r", f"{cols}x{rows}")

    def marker(self, at: float, label: str) -> bytes:
        """Return the line of a marker, which players show on their time line."""
        return self._event(at, "m", label)

    def end(self, at: float, exit_code: int | None) -> bytes:
        """Return the last lines: characters that were cut off, and the exit code if it is known."""
        rest = b"".join(
            self._output(at, self._decode(stream, b"", final=True)) for stream in self._decoders if stream != "input"
        )
        return rest if exit_code is None else rest + self._event(at, "x", str(exit_code))

    def _decode(self, stream: str, data: bytes, *, final: bool) -> str:
        decoder = self._decoders.get(stream)
        if decoder is None:
            decoder = self._decoders[stream] = codecs.getincrementaldecoder(self._encoding)("replace")
        return decoder.decode(data, final)

    def _output(self, at: float, text: str) -> bytes:
        if not text:
            return b""
        if not self._is_terminal:
            begins_behind_return, self._ends_in_return = self._ends_in_return, text.endswith("\r")
            kept = 1 if begins_behind_return and text.startswith("\n") else 0
            text = text[:kept] + _LONE_NEWLINE.sub("\r\n", text[kept:])
        return self._event(at, "o", text)

    def _event(self, at: float, code: str, data: str) -> bytes:
        # Differences of rounded times: so that what is rounded off does not add up.
        now_ms = max(self._last_ms, round(at * 1000))
        interval, self._last_ms = (now_ms - self._last_ms) / 1000, now_ms
        return _line([interval, code, data])


def _line(value: object) -> bytes:
    # ASCII alone: no separator that an editor, or a language, takes for the end of a line.
    return json.dumps(value, separators=(", ", ": ")).encode() + b"\n"
