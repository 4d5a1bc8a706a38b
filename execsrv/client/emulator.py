"""A terminal emulator: pyte, with what it lacks for full-screen programs. Pure: no I/O. Needs the extra `screen`.

Added are the alternate screen, sizes that change with the cursor in its place, sub-parameters of colours, wide
characters of which one half was overwritten, and patience with sequences that pyte takes for text or for others.
Whatever a program prints, feeding never raises, and keeps no more of an unfinished sequence than `_OPEN_BYTES`, and of
answers that nobody takes than `_ANSWER_BYTES`.
"""

from __future__ import annotations

import codecs
import copy
import re
from collections.abc import Iterator
from typing import Any

import pyte
from wcwidth import wcwidth

_ALTERNATE = {47, 1047, 1049}
"""Private modes of xterm for a second screen, which full-screen programs use."""

_OPEN_BYTES = 4096
_ANSWER_BYTES = 4096  # as much as the kernel keeps for a program that does not read its terminal

_SEQUENCE = re.compile(
    r"\x1b\](?P<osc>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    r"|\x1b[PX^_][^\x1b]*\x1b\\"
    r"|\x1b\[(?P<intro>[<=>])[0-9;:]*[ -/]*(?P<final>[@-~])"
    r"|\x1b\[(?P<colour>[0-9;]*:[0-9;:]*)m"
    r"|\x1b\[[?0-9;:]*[ -/]+[@-~]"
    r"|\x1b\[\?[0-9;:]*[@-IL-bd-gi-km-~]"
)
"""Sequences that pyte does not know, or not all of."""

_OPEN = re.compile(r"\x1b(?:\[[<=>?0-9;: -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[()#% ]?)?\Z")
"""The beginning of a sequence that goes on."""

_RUN = re.compile(r"\x1b?[^\x1b]*")
"""A sequence with the text behind it."""


class Emulator(pyte.Screen):  # type: ignore[misc,unused-ignore]  # it has no types
    """Picture of a terminal as a person would see it. `answers` are the terminal's, for the program to read."""

    buffer: Any
    cursor: Any

    def __init__(self, rows: int, cols: int) -> None:
        self.is_alternate = False
        self.answers = ""
        self._behind: tuple[Any, Any] | None = None
        self._open = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        super().__init__(cols, rows)
        self._stream = pyte.Stream(self)

    def feed(self, data: bytes) -> None:
        """Take in output."""
        text = self._open + self._decoder.decode(data)
        self._open = ""
        if (unfinished := _OPEN.search(text)) is not None and len(text) - unfinished.start() <= _OPEN_BYTES:
            self._open = text[unfinished.start() :]
            text = text[: unfinished.start()]
        at = 0
        for sequence in _SEQUENCE.finditer(text):
            self._feed(text[at : sequence.start()])
            self._take(sequence)
            at = sequence.end()
        self._feed(text[at:])

    def _feed(self, text: str) -> None:
        for run in _RUN.findall(text):
            try:
                self._stream.feed(run)
            except Exception:  # pyte trusts that sequences are well made
                self._stream = pyte.Stream(self)

    def _take(self, sequence: re.Match[str]) -> None:
        """Do what a sequence says that pyte has no word for."""
        if (osc := sequence["osc"]) is not None:
            code, _, value = osc.partition(";")
            if code in ("0", "2"):
                self.set_title(value)
        elif sequence["colour"] is not None:
            self._feed(f"\x1b[{';'.join(map(_flat, sequence['colour'].split(';')))}m")
        elif sequence["intro"] == ">" and sequence["final"] == "c":
            self.write_process_input("\x1b[>0;0;0c")

    @property
    def display(self) -> list[str]:
        """The rows as text. Where one half of a wide character was overwritten, the other is a space."""
        return ["".join(self._cells(self.buffer[y])) for y in range(self.lines)]

    def _cells(self, row: Any) -> Iterator[str]:
        x = 0
        while x < self.columns:
            text = row[x].data
            is_wide = text != "" and wcwidth(text[0]) == 2
            is_whole = is_wide and (x + 1 == self.columns or row[x + 1].data == "")
            yield text if is_whole or (text and not is_wide) else " "
            x += 1 + is_whole

    def write_process_input(self, data: str) -> None:
        """Keep an answer to the program, unless too many have not been taken."""
        if len(self.answers) + len(data) <= _ANSWER_BYTES:
            self.answers += data

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Change the size, as xterm does: rows go at the top as far as the cursor needs it, others at the bottom."""
        lines, columns = lines or self.lines, columns or self.columns
        if (lines, columns) == (self.lines, self.columns):
            return
        for buffer, cursor in [(self.buffer, self.cursor), *([self._behind] if self._behind else [])]:
            up = max(0, cursor.y - lines + 1)
            cursor.y -= up
            if columns < self.columns:
                cursor.x = min(cursor.x, columns - 1)
            for y in sorted(buffer):
                row = buffer.pop(y)
                for x in [x for x in row if x >= columns]:
                    del row[x]
                if 0 <= y - up < lines:
                    buffer[y - up] = row
        self.tabstops = {stop for stop in self.tabstops if stop < columns}
        self.tabstops.update(stop for stop in range(8, columns, 8) if stop >= self.columns)
        self.lines, self.columns = lines, columns
        self.set_margins()
        self.dirty.update(range(lines))

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        """Switch modes on."""
        modes = _without_width(modes, **kwargs)
        if kwargs.get("private") and _ALTERNATE & set(modes) and not self.is_alternate:
            self._behind = self.buffer, copy.copy(self.cursor)
            self.is_alternate = True
            self.buffer = copy.copy(self.buffer)  # of the same kind
            self.buffer.clear()
            self.dirty.update(range(self.lines))
        super().set_mode(*modes, **kwargs)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        """Switch modes off."""
        modes = _without_width(modes, **kwargs)
        super().reset_mode(*modes, **kwargs)
        if kwargs.get("private") and _ALTERNATE & set(modes) and self._behind is not None:
            self.buffer, self.cursor = self._behind
            self._behind, self.is_alternate = None, False
            self.ensure_hbounds()
            self.ensure_vbounds()
            self.dirty.update(range(self.lines))

    def reset(self) -> None:
        """Begin anew, as ESC c has it."""
        self._behind, self.is_alternate = None, False
        super().reset()


def _without_width(modes: tuple[int, ...], private: bool = False) -> tuple[int, ...]:
    """Leave out the mode for 80 or 132 columns: a terminal keeps its size, as xterm does unless its user says so."""
    return tuple(mode for mode in modes if mode != (3 if private else 3 << 5))  # as pyte has it among the others


def _flat(parameter: str) -> str:
    """Return a parameter with its sub-parameters as older terminals have them."""
    first, *rest = parameter.split(":")
    if not rest:
        return parameter
    if first == "4":  # the kind of an underline
        return "24" if rest[0] == "0" else "4"
    if first in ("38", "48"):
        kept = [part for part in rest if part]
        return ";".join([first, kept[0], *(kept[-3:] if kept[:1] == ["2"] else kept[1:2])]) if kept else ""
    return first if first not in ("58",) else ""
