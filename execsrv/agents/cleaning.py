"""Output as text that a model can be given: UTF-8 wherever it was cut, and without control sequences if so wished.

A character, a sequence or a line end may come in pieces: what is not whole yet is held back until the rest has come.
Of a sequence never more than `_LONGEST` characters are held, so no output makes this slow or large. Pure: no I/O.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

_LONGEST = 128
"""Characters of a sequence with numbers in it. What is longer is no sequence, and is text."""

_SEQUENCE = re.compile(
    rf"\x1b\[[0-?]{{0,{_LONGEST}}}[ -/]{{0,8}}[@-~]"  # CSI: colours, the cursor
    r"|\x1b[ -/]{1,8}[0-~]|\x1b[0-OQ-WYZ\\`-~]"  # escapes of two or three characters
)
_BEGUN = re.compile(rf"\x1b(?:\[[0-?]{{0,{_LONGEST}}}[ -/]{{0,8}}|[ -/]{{0,8}})\Z")
_STRING = re.compile(r"\x1b[\]PX^_]")
"""The beginning of a title, a link or a picture, which goes on to an end of its own."""

_STRING_END = re.compile("\x07|\x1b\\\\|\x18|\x1a|\x9c")
_MARKS = re.compile(r"\x1b\[|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters that stand alone, and what is left of a sequence that is none."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Cleaner:
    """The text of one stream. With `strip`, control sequences and characters are left out, and lines end with "\\n"."""

    def __init__(self, strip: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = strip
        self._begun = ""
        """A sequence, or a string's end, whose rest is to come."""
        self._is_in_string = False
        self._is_behind_return = False

    def clean(self, data: bytes, final: bool = False) -> str:
        """Return what comes next as text, as far as it is whole; with `final`, all of it."""
        text = self._decoder.decode(data, final)
        if not self._strip:
            return text
        if self._begun or self._is_in_string or _CONTROLS.search(text):
            text = "".join(map(_without_controls, self._outside_strings(self._begun + text, final)))
        if self._is_behind_return and text:
            text, self._is_behind_return = text.removeprefix("\n"), False
        if "\r" in text:
            self._is_behind_return = text.endswith("\r")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text

    def _outside_strings(self, text: str, final: bool) -> Iterator[str]:
        """Yield the parts of text that are in no string. What may go on to be a sequence is held back at the end."""
        at, self._begun = 0, ""
        while True:
            if self._is_in_string:
                if (end := _STRING_END.search(text, at)) is None:
                    self._begun = "\x1b" if text.endswith("\x1b") else ""
                    return
                self._is_in_string, at = False, end.end()
            if (start := _STRING.search(text, at)) is None:
                break
            yield text[at : start.start()]
            self._is_in_string, at = True, start.end()
        rest = text[at:]
        if begun := _BEGUN.search(rest):
            rest, self._begun = rest[: begun.start()], "" if final else begun.group()
        yield rest


def _without_controls(text: str) -> str:
    return _MARKS.sub("", _SEQUENCE.sub("", text))


def shortened(head: bytes, tail: bytes, omitted: int, max_bytes: int) -> tuple[str, int]:
    """Return text of at most so many bytes, and how many are missing in its middle, which it says itself.

    `head` and `tail` are UTF-8 with `omitted` bytes between them. Where some are, `max_bytes` is at most as much as
    both together. Characters are left whole.
    """
    if not omitted and len(head) + len(tail) <= max_bytes:
        return (head + tail).decode(), 0
    if not omitted:
        head = tail = head + tail
        total = len(head)
    else:
        total = len(head) + omitted + len(tail)
    first = head[: _boundary(head, min(max_bytes // 2, len(head)))]
    rest = min(max_bytes - max_bytes // 2, len(tail))
    start = len(tail) - rest
    while start < len(tail) and tail[start] & 0xC0 == 0x80:
        start += 1
    last = tail[start:]
    missing = total - len(first) - len(last)
    return f"{first.decode()}\n[... {missing} bytes of output left out ...]\n{last.decode()}", missing


def _boundary(data: bytes, at: int) -> int:
    """Return the last place up to `at` that is not within a character."""
    while 0 < at < len(data) and data[at] & 0xC0 == 0x80:
        at -= 1
    return at
