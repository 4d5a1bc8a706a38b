"""Output of the past, as it may be shown on a terminal again: without what a terminal would answer.

The answers were for a program that has asked long ago. Now they would be typed into whatever reads the keys. Pure.
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
_OPEN = re.compile(rb"\x1b(?:\[[<=>?0-9;:$* ]*|\][^\x07\x1b]*\x1b?|[P_][^\x1b]*\x1b?)?\Z")
"""The beginning of a sequence at the end of a piece of output."""


class Replay:
    """Passes output on without what asks a terminal for something, however it is cut into pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, output: bytes) -> bytes:
        """Return what can be shown by now."""
        text = self._rest + output
        opened = _OPEN.search(text, max(0, len(text) - _MOST_OPEN)) if b"\x1b" in text else None
        end = len(text) if opened is None else opened.start()
        self._rest = text[end:]
        return _ASKS.sub(b"", text[:end])

    def rest(self) -> bytes:
        """Return what was held back. What comes behind it is not of the past."""
        rest, self._rest = self._rest, b""
        return rest
