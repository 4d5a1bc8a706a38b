"""A policy with nothing left to decide: places in the file system, each with what a command may do there.

The nearest place above a file decides for it; without any, nothing may be done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

Access = Literal["none", "read", "write"]


class Place(Struct, frozen=True):
    """A file or a folder with all that is in it. Its path is absolute and has no links in it."""

    path: bytes
    access: Access
    is_folder: bool = True
    is_hidden: bool = False
    """True for a place without access that has been asked for, and is more than the rest that nobody has named."""

    @property
    def depth(self) -> int:
        return 0 if self.path == b"/" else self.path.count(b"/")


class Confinement(Struct, frozen=True):
    """The things that a command may do. `places` are in the order of their depth.

    `notes` are wishes of the policy that came to nothing, in words.
    """

    places: tuple[Place, ...]
    network: bool
    notes: tuple[str, ...] = ()
    may_lack_view: bool = False
    """True where it may be kept by Landlock alone, on a machine that makes no view."""

    def at(self, path: bytes) -> Place | None:
        """Return the place that decides for a path without links, None for none."""
        return nearest(self.places, path)

    def protecting(self, paths: Iterable[bytes]) -> Confinement:
        """Return the same, but that nothing in these folders may be written."""
        paths = list(paths)
        places = [
            replace(place, access="read")
            if place.access == "write" and any(covers(path, place.path) for path in paths)
            else place
            for place in self.places
        ]
        for path in paths:
            above = nearest(places, path)
            if above is not None and above.access == "write":
                places.append(Place(path, "read"))
        return replace(self, places=tuple(sorted(places, key=lambda place: place.depth)))

    def above(self, place: Place) -> Place | None:
        """Return the place that would decide without `place`."""
        return nearest((other for other in self.places if other is not place), place.path)


def covers(folder: bytes, path: bytes) -> bool:
    """Tell whether a path is that folder or in it."""
    return folder == b"/" or path == folder or path.startswith(folder + b"/")


def nearest(places: Iterable[Place], path: bytes) -> Place | None:
    """Return the longest place that covers a path."""
    return max((place for place in places if covers(place.path, path)), key=lambda place: place.depth, default=None)


def between(folder: bytes, path: bytes) -> list[bytes]:
    """Return the folders between a folder and a path in it, from the outermost on, both left out."""
    names = os.path.relpath(path, folder).split(b"/")[:-1]
    return [os.path.join(folder, *names[: count + 1]) for count in range(len(names))]
