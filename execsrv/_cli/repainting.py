"""What a program has made of the terminal, so that it can be undone when the program is left, or dies, in the midst.

Pure. Only the modes are followed, not the picture.
"""

from __future__ import annotations

import re

_MODE = re.compile(rb"\x1b(?:\[\?([0-9;]{1,64})([hl])|([=>c])|\[(!p))")
_OPEN = re.compile(rb"\x1b(?:\[(?:\?[0-9;]{0,64})?|\[!)?\Z")
"""The beginning of such a sequence at the end of a piece of output."""

_ON_AT_FIRST = {7, 25}
"""Private modes that a terminal has before anybody touches it: lines wrap, and the cursor is shown."""

_UNDONE = {
    1,
    5,
    6,
    7,
    9,
    25,
    47,
    66,
    1000,
    1001,
    1002,
    1003,
    1004,
    1005,
    1006,
    1015,
    1016,
    1047,
    1049,
    2004,
    2026,
    2031,
}
"""Those that would be in the way of whoever has the terminal next: keys, mouse, cursor, the second screen."""


class Modes:
    """The modes of a terminal that differ from those of a new one."""

    def __init__(self) -> None:
        self.switched: set[int] = set()
        self._has_keypad = False
        self._has_printed = False
        self._rest = b""

    def note(self, output: bytes) -> None:
        """Follow what a program prints."""
        self._has_printed = True
        if not self._rest and b"\x1b" not in output:
            return
        text = self._rest + output
        opened = _OPEN.search(text, max(0, len(text) - 80))
        self._rest = text[opened.start() :] if opened is not None else b""
        for numbers, switch, keypad, reset in _MODE.findall(text):
            if reset or keypad == b"c":
                self.switched.clear()
                self._has_keypad = False
            elif keypad:
                self._has_keypad = keypad == b"="
            else:
                for number in {int(part[:5]) for part in numbers.split(b";") if part} & _UNDONE:
                    (self.switched.add if (switch == b"h") != (number in _ON_AT_FIRST) else self.switched.discard)(
                        number
                    )

    def undo(self) -> bytes:
        """Return what makes the terminal as it was."""
        if not (self.switched or self._has_keypad):
            return b"\x1b[m" if self._has_printed else b""
        # The second screen last: what it restores is not to be touched by the others.
        numbers = sorted(self.switched, key=lambda number: (number in (47, 1047, 1049), number))
        undone = b"".join(b"\x1b[?%d%s" % (number, b"h" if number in _ON_AT_FIRST else b"l") for number in numbers)
        return b"\x1b[m" + undone + (b"\x1b>" if self._has_keypad else b"")
