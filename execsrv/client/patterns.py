"""The patterns of a dialogue, and the search for them in text that comes in pieces. Pure: no I/O.

The searchers are pexpect's own, which is loaded with this module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pexpect import EOF, TIMEOUT
from pexpect.expect import searcher_re, searcher_string

from execsrv.client.inside import mirror_of
from execsrv.errors import InvalidParamsError
from execsrv.limits import KIB

if TYPE_CHECKING:
    from execsrv.client.process import Process

T = TypeVar("T", str, bytes)

_LOOKBACK = 8 * KIB
"""Distance before what is new in which a match of a regular expression is looked for at once."""


class Search(Generic[T]):
    """The search for the first match in text that comes in pieces. Pure: no I/O.

    For byte strings and with a `window` (pexpect's `searchwindowsize`) that is one pass. A regular expression may match
    from anywhere: all of the text is searched again whenever it has doubled, and at the end, so that only matches that
    begin more than `_LOOKBACK` before what is new are found late.
    """

    def __init__(self, empty: T, searcher: Any, window: int | None = None) -> None:
        self._searcher = searcher
        self._empty: T = empty
        self._pieces: list[T] = []
        self._recent: T = empty
        self.size = 0
        self._all_searched = -1
        longest = getattr(searcher, "longest_string", None)
        self._is_one_pass = longest is not None or window is not None
        self._lookback = max(0, longest - 1) if longest is not None else window or _LOOKBACK

    @property
    def may_be_late(self) -> bool:
        """True while `search_all` can find more than was found at once."""
        return not self._is_one_pass and self._all_searched != self.size

    @property
    def text(self) -> T:
        """All that has come."""
        if len(self._pieces) > 1:
            self._pieces = [self._empty.join(self._pieces)]
        return self._pieces[0] if self._pieces else self._empty

    def add(self, piece: T) -> tuple[int, int, int] | None:
        """Search what comes next. Return the index of a pattern, the start and the end of its match, or None.

        The first piece is searched also if it is empty: there are patterns that match nothing at all.
        """
        if not piece and self._pieces:
            return None
        self._pieces.append(piece)
        self.size += len(piece)
        seen = self._recent + piece
        self._recent = seen[max(0, len(seen) - self._lookback) :]
        if not self._is_one_pass and (self.size <= _LOOKBACK or self.size >= 2 * self._all_searched):
            return self.search_all()
        found = self._searcher.search(seen, len(piece), None)
        if found < 0:
            return None
        if not self._is_one_pass:
            return self.search_all()  # for one that begins earlier
        before = self.size - len(seen)
        return found, before + self._searcher.start, before + self._searcher.end

    def search_all(self) -> tuple[int, int, int] | None:
        """Search everything again, as far as that can bring anything new. Returns as `add` does."""
        if self._is_one_pass or self._all_searched == self.size:
            return None
        self._all_searched = self.size
        found = self._searcher.search(self.text, self.size, None)
        return None if found < 0 else (found, self._searcher.start, self._searcher.end)


def as_text(process: Process, name: str, value: Any) -> Any:
    """Return a string or bytes as what the output of a process is. Raises `TypeError`."""
    mode = mirror_of(process).text
    if isinstance(value, bytes) and mode is None:
        return value
    if isinstance(value, str):
        if mode is not None:
            return value
        try:
            return value.encode("ascii")
        except UnicodeEncodeError:
            raise TypeError(f"{name} must be bytes or ASCII: process {process.id} was started without text") from None
    wanted = "bytes" if mode is None else "a string"
    raise TypeError(f"{name} must be {wanted}, EOF or TIMEOUT, got {type(value).__name__}")


def listed(patterns: Any) -> list[Any]:
    """Return a list of patterns, or of the only one."""
    return list(patterns) if isinstance(patterns, Sequence) and not isinstance(patterns, str | bytes) else [patterns]


def literals(process: Process, patterns: Any) -> Any:
    """Return the searcher for strings."""
    words = [
        word if word in (EOF, TIMEOUT) else as_text(process, f"patterns[{index}]", word)
        for index, word in enumerate(listed(patterns))
    ]
    return searcher_string(words)


def compiled(process: Process, patterns: Any) -> list[Any]:
    """Return regular expressions compiled. In those that come as text, a dot is any character."""
    found: list[Any] = []
    for index, pattern in enumerate(listed(patterns)):
        if pattern in (EOF, TIMEOUT):
            found.append(pattern)
        elif isinstance(pattern, re.Pattern):
            as_text(process, f"patterns[{index}]", pattern.pattern)
            found.append(pattern if isinstance(pattern.pattern, str) == (mirror_of(process).text is not None) else None)
            if found[-1] is None:
                found[-1] = re.compile(pattern.pattern.encode("ascii"), pattern.flags & ~re.UNICODE)
        else:
            try:
                found.append(re.compile(as_text(process, f"patterns[{index}]", pattern), re.DOTALL))
            except re.error as error:
                message = f"patterns[{index}]: {error} in {pattern!r}"
                raise InvalidParamsError(message, field="patterns") from None
    return found


def expressions(process: Process, patterns: Any) -> Any:
    """Return the searcher for regular expressions."""
    return searcher_re(compiled(process, patterns))
