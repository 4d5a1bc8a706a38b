"""The rules of a policy for one call: what it may do with a path.

The nearest place above a path decides for it; without any, nothing may be done there. `/dev` and `/proc` are closed to
a call with rules, as a confined command has its own of them. All paths here are without links.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Iterator, Mapping
from typing import Literal

Access = Literal["none", "read", "write"]

Use = Literal["read", "write", "replace"]
"""The thing that is done with a path: it is read, written, or removed or renamed with all that is in it."""


class Rules:
    """What may be done with which path. `check` refuses the rest."""

    def __init__(self, places: Mapping[str, Access]) -> None:
        self._places: dict[str, Access] = {**places, "/dev": "none", "/proc": "none"}
        self._above = {folder for place in self._places for folder in _above(place)}
        reached = [place for place, access in self._places.items() if access != "none"]
        self._ways = {folder for place in reached for folder in _above(place)}

    def access(self, path: str) -> Access:
        """Return the access to a path."""
        for place in (path, *_above(path)):
            if place in self._places:
                return self._places[place]
        return "none"

    def may(self, path: str, use: Use) -> bool:
        """Tell whether a path may be used so.

        A place of its own may not be replaced, nor what such a one is in: the policy would no longer be about it.
        """
        access = self.access(path)
        if use == "replace" and (path in self._places or path in self._above):
            return False
        return access == "write" if use != "read" else access != "none"

    def check(self, path: str, use: Use) -> None:
        """Raise `PermissionError` for a path that may not be used so."""
        if not self.may(path, use):
            raise denied("read" if use == "read" else "written")

    def check_way(self, path: str) -> None:
        """Raise `PermissionError` for a path that is neither to be read nor leads to one that is."""
        if path not in self._ways:
            self.check(path, "read")


def denied(done: str) -> PermissionError:
    """Return the error for a path that may not be read or written."""
    return PermissionError(errno.EACCES, f"Permission denied: the policy of this call does not let it be {done}")


def _above(path: str) -> Iterator[str]:
    """Yield the folders that a path is in, from the innermost on."""
    while path != "/":
        path = posixpath.dirname(path)
        yield path
