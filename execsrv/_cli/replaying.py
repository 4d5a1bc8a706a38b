"""Output of the past, as it may be shown on a terminal again: without what a terminal would answer.

The answers were for a program that has asked long ago. Now they would be typed into whatever reads the keys. Pure.

A control character of 8 bits becomes the escape that it stands for. As a bare byte, in no character of UTF-8, it is
left out: what that means depends on the terminal.
"""

from __future__ import annotations

import re

_MOST_OPEN = 4096
"""Bytes of an unfinished sequence that are waited for."""

_ASKS = re.compile(
    rb"\x1b\[[?>=]?[0-9;]*[nc]"  # status, cursor and kind
    rb"|\x1b\[(?:>[0-9;]*q|\?u|[0-9;]*x|\?[0-9;]*S)"  # name, keys, parameters, graphics
    rb"|\x1b\[\??[0-9;]*(?:\$[pw]|\*y)"  # modes, settings, checksums
    rb"|\x1b\[(?:1[1345689]|2[01])(?:;[0-9]*)*t"  # sizes and titles
    rb"|\x1bZ|\x05"
    rb"|\x1b\](?:4|5|1[0-9]|52|60|61);[^\x07\x1b]*(?:\x07|\x1b\\)"  # colors, and the clipboard
    rb"|\x1b(?:P[0-9;]*[$+]q|_)[^\x1b]*\x1b\\"  # settings, and graphics
)
_EIGHT_BITS = re.compile(
    rb"\xc2([\x80-\x9f])"
    rb"|(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2})(?:[\x80-\xbf]|\Z)"  # a character
    rb"|[\xf0-\xf4][\x80-\xbf]?\Z|[\xe0-\xef]\Z"  # the beginning of one
    rb"|([\x80-\x9f])"
)
_OPEN = re.compile(
    rb"(?:\x1b(?:\[[<=>?0-9;:$* ]*|\][^\x07\x1b]*\x1b?|[P_][^\x1b]*\x1b?)?"
    rb"|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z"
)
"""The beginning of a sequence, or of a character, at the end of a piece of output."""


class Replay:
    """Passes output on without what asks a terminal for something, however it is cut into pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, output: bytes) -> bytes:
        """Return what can be shown by now."""
        text = self._rest + output
        if not text.isascii():
            text = _EIGHT_BITS.sub(_in_seven_bits, text)
        opened = _OPEN.search(text, max(0, len(text) - _MOST_OPEN))
        end = len(text) if opened is None else opened.start()
        self._rest = text[end:]
        return _ASKS.sub(b"", text[:end])

    def rest(self) -> bytes:
        """Return what was held back. What comes behind it is not of the past."""
        rest, self._rest = self._rest, b""
        return rest


def _in_seven_bits(found: re.Match[bytes]) -> bytes:
    if found[1] is not None:
        return bytes([0x1B, found[1][0] - 0x40])
    return b"" if found[2] is not None else found[0]
