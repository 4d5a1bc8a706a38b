"""Output as text that a model can be given: UTF-8 wherever it was cut, and without control sequences if so wished.

A character, a sequence or a line end may come in pieces: what is not whole yet is held back until the rest has come.
Of a sequence never more than `_LONGEST` characters are held, or `_LONGEST_STRING` of a title and its like, and no line
end: so no output makes this slow or large, and none hides what follows it. Pure: no I/O.
"""

from __future__ import annotations

import codecs
import re

_LONGEST = 128
"""Characters of a sequence with numbers in it. What is longer is no sequence, and is text."""

_LONGEST_STRING = 4096
"""Characters of a title, a link or a picture, which are on one line. What is longer, or goes on, is text."""

_CSI = rf"\[[0-?]{{0,{_LONGEST}}}+[ -/]{{0,8}}+"
_STRING = rf"[\]PX^_][^\n\x07\x18\x1a\x1b\x9c]{{0,{_LONGEST_STRING}}}+"
_LEFT_OUT = re.compile(
    rf"\x1b{_CSI}[@-~]"  # colours, the cursor
    rf"|\x1b{_STRING}(?:[\x07\x18\x1a\x9c]|\x1b\\)"  # what has an end of its own
    r"|\x1b[ -/]{1,8}[0-~]|\x1b[0-OQ-WYZ\\`-~]"  # escapes of two or three characters
    r"|\x1b[\[\]PX^_]"  # the beginning of what is none of these
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
_BEGUN = re.compile(rf"\x1b(?:(?P<string>{_STRING})\x1b?|{_CSI}|[ -/]{{0,8}})\Z")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Cleaner:
    """The text of one stream. With `strip`, control sequences and characters are left out, and lines end with "\\n"."""

    def __init__(self, strip: bool) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = strip
        self._begun = ""
        """A sequence whose rest is to come."""
        self._is_behind_return = False

    def clean(self, data: bytes, final: bool = False) -> str:
        """Return what comes next as text, as far as it is whole; with `final`, all of it."""
        text = self._decoder.decode(data, final)
        if not self._strip:
            return text
        if self._begun or _CONTROLS.search(text):
            text = self._without_controls(self._begun + text, final)
        if self._is_behind_return and text:
            text, self._is_behind_return = text.removeprefix("\n"), False
        if "\r" in text:
            self._is_behind_return = text.endswith("\r")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text

    def give_up(self) -> str:
        """Return as text what was held back as the beginning of a title and its like: nobody waits for its end."""
        begun = _BEGUN.match(self._begun)
        if begun is None or begun["string"] is None:
            return ""
        self._begun = ""
        return _LEFT_OUT.sub("", begun.group())

    def _without_controls(self, text: str, final: bool) -> str:
        """Return text without sequences and controls. What may go on to be a sequence is held back at its end."""
        self._begun = ""
        if (begun := _BEGUN.search(text)) and not (final and begun["string"]):
            text, self._begun = text[: begun.start()], "" if final else begun.group()
        return _LEFT_OUT.sub("", text)


def shortened(head: bytes, tail: bytes, omitted: int, max_bytes: int) -> tuple[str, int]:
    """Return text of at most so many bytes, and how many are missing in its middle, which it says itself.

    `head` and `tail` are UTF-8 with `omitted` bytes between them, where a character may be cut. Where some are,
    `max_bytes` is at most as much as both together. Characters are left whole.
    """
    if not omitted and len(head) + len(tail) <= max_bytes:
        return (head + tail).decode(), 0
    if not omitted:
        head = tail = head + tail
        total = len(head)
    else:
        total = len(head) + omitted + len(tail)
    half = max_bytes // 2
    # What cannot be decoded is the rest of a character that was cut.
    first = head[:half].decode(errors="ignore")
    last = tail[max(0, len(tail) - (max_bytes - half)) :].decode(errors="ignore")
    missing = total - len(first.encode()) - len(last.encode())
    return f"{first}\n[... {missing} bytes of output left out ...]\n{last}", missing
