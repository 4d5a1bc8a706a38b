"""Resolving a policy: from paths that a caller has named to the places of a `Confinement`.

Only the file system is asked here, for links and for what is missing, and what cannot be seen is not taken for missing.
Nothing is added to what the caller wants and nothing relaxed: what cannot be kept is refused.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from execsrv._processes.confine.places import Access, Confinement, Place, covers, nearest
from execsrv._processes.confine.view import DEVICES, OWN
from execsrv._processes.confine.ways import Way, way_to
from execsrv._processes.pidfd import SHORT
from execsrv._wire.quoting import shown
from execsrv.errors import SandboxUnavailableError

MINIMAL = (
    *"/bin /sbin /usr /lib /lib32 /lib64 /libx32 /nix/store /run/current-system/sw".split(),
    *(
        f"/etc/{name}"
        for name in (
            "alternatives ca-certificates crypto-policies group host.conf hosts ld.so.cache ld.so.conf ld.so.conf.d"
            " locale.alias locale.conf localtime mime.types nsswitch.conf os-release passwd pki protocols resolv.conf"
            " services ssl"
        ).split()
    ),
)
"""Places that programs need to run at all. Nothing that only an administrator may read is among them."""

MOST_MATCHES = 1024
_MOST_LOOKED_AT = 100_000
_MOST_DEPTH = 32
_RANK: dict[Access, int] = {"read": 0, "write": 1, "none": 2}


class Wish(NamedTuple):
    """A place that a caller names by an absolute path. It `may_be_missing` where its absence needs no protection."""

    path: str
    access: Access
    may_be_missing: bool = False


def resolve(wishes: Iterable[Wish], *, network: bool) -> Confinement:
    """Return what a command may do. Raises `SandboxUnavailableError` for a policy that cannot be kept.

    Raises `OSError` without a descriptor to look with. Blocks as long as the file systems do.
    """
    found: dict[bytes, Place] = {}
    notes: list[str] = []
    unseen: list[tuple[Wish, Way]] = []
    seen: list[tuple[Wish, Way]] = []
    for wish in wishes:
        wish = wish._replace(path="/" + os.path.normpath(wish.path).lstrip("/"))
        way = way_to(os.fsencode(wish.path))
        if any(covers(own, way.path) for own in OWN):
            _check_own(wish, way.path, notes)
            if wish.access != "write":
                seen.append((wish, way))
        elif way.error:
            unseen.append((wish, way))
        else:
            seen.append((wish, way))
            before = found.get(way.path)
            if before is None or _RANK[wish.access] > _RANK[before.access]:
                found[way.path] = Place(way.path, wish.access, stat.S_ISDIR(way.mode), wish.access == "none")
    places = _without_idle(sorted(found.values(), key=lambda place: place.depth))
    for wish, way in unseen:
        _check_unseen(wish, way, places, notes)
    lasting = [Place(way.path, wish.access) for wish, way in seen if _replaceable_link(way, places) is None]
    for wish, way in seen:
        _check_links(wish, way, places, lasting)
    return Confinement(tuple(places), network, tuple(map(shown, notes)))


def _without_idle(places: list[Place]) -> list[Place]:
    """Leave out the places that say what the next one above them says."""
    kept: list[Place] = []
    for place in places:
        above = nearest(kept, place.path)
        before = "none" if above is None else above.access
        if above is not None and above.is_hidden and place.access != "none":
            raise _refused(f"{os.fsdecode(place.path)} is to be seen inside of {os.fsdecode(above.path)}, which is not")
        if place.access != before:
            kept.append(place)
    return kept


def _refused(why: str) -> SandboxUnavailableError:
    return SandboxUnavailableError(f"this policy cannot be kept: {shown(why)}", field="sandbox")


def _check_own(wish: Wish, path: bytes, notes: list[str]) -> None:
    """Look at a wish for a folder of which a confined command has its own."""
    if wish.access != "none":
        if path not in OWN:
            notes.append(f"{wish.path}: a confined command has a /dev and a /proc of its own")
    elif os.path.dirname(path) != b"/dev" or os.path.basename(path) in DEVICES:
        raise _refused(f"{wish.path} cannot be denied, as a confined command has its own")


def _check_unseen(wish: Wish, way: Way, places: list[Place], notes: list[str]) -> None:
    """Look at a wish for what is not there, or cannot be seen. Nobody can make it where nothing may be written.

    What is closed to us may be opened by whoever has closed it: a command, where it is in a folder that it may write.
    """
    above = nearest(places, way.path)
    if wish.access == "write" and (way.is_missing or way.error == errno.EACCES):
        why = "it is missing" if way.is_missing else "it is closed to this server"
        notes.append(f"{wish.path}: {why}, so nothing can be written there")
    elif not way.is_missing:
        raise _refused(f"{wish.path} cannot be looked at: {os.strerror(way.error)}")
    elif wish.may_be_missing:
        return
    elif link := _replaceable_link(way, places):
        raise _refused(f"{wish.path} is to be {_kept_as(wish)}, and {link} is a link that a command could replace")
    elif above is not None and above.access == "write":
        raise _refused(f"{wish.path} is to be {_kept_as(wish)} and is missing, so a command could make it")


def _kept_as(wish: Wish) -> str:
    return "hidden" if wish.access == "none" else "protected"


def _check_links(wish: Wish, way: Way, places: list[Place], lasting: list[Place]) -> None:
    """Refuse what is named through a link that a command with this policy may replace, or may have made before.

    To write there is allowed where a `lasting` wish, which leads through no such link, lets the command write anyway.
    """
    link = _replaceable_link(way, places)
    if link is None:
        return
    if wish.access != "write":
        raise _refused(f"{wish.path} is to be protected, and {link} is a link that a command could replace")
    above = nearest(sorted(lasting, key=lambda place: _RANK[place.access], reverse=True), way.path)
    if above is None or above.access != "write":
        raise _refused(f"{wish.path} is to be written, and {link} is a link that a command could have put there")


def _replaceable_link(way: Way, places: list[Place]) -> str | None:
    """Return a link on the way to a place that lies where the command may write, None where there is none."""
    for link in way.links:
        above = nearest(places, os.path.dirname(link))
        if above is not None and above.access == "write":
            return os.fsdecode(link)
    return None


def matches(pattern: str, most_depth: int | None) -> Iterator[str]:
    """Yield the paths that have the form of an absolute pattern.

    Raises `SandboxUnavailableError` for too many, and for a form that others read in another way.
    """
    if re.search(r"[\[\]{}\\]", pattern):
        raise _refused(f"the pattern {pattern} has more than *, ? and **")
    parts = [part for part in pattern.split("/") if part]
    fixed = next((place for place, part in enumerate(parts) if re.search(r"[*?]", part)), len(parts))
    root = "/" + "/".join(parts[:fixed])
    if fixed == len(parts):
        if not way_to(os.fsencode(root)).is_missing:
            yield root
        return
    form = parts[fixed:]
    expression = re.compile(_expression(form), re.DOTALL)
    reach = math.inf if "**" in form else len(form) - 1
    most = _MOST_DEPTH if most_depth is None else most_depth
    count = looked_at = 0
    todo = [""]
    while todo:
        below = todo.pop()
        depth = below.count("/") + 1 if below else 0
        for name, is_folder in _entries(os.path.join(root, below) if below else root, pattern):
            looked_at += 1
            path = os.path.join(below, name)
            if expression.fullmatch(path):
                count += 1
                yield os.path.join(root, path)
            if count > MOST_MATCHES or looked_at > _MOST_LOOKED_AT:
                raise _refused(f"the pattern {pattern} has more than {MOST_MATCHES} matches, or too much to look at")
            if not is_folder or depth >= reach:
                continue
            if depth < most:
                todo.append(path)
            elif most_depth is None:
                raise _refused(f"the pattern {pattern} goes deeper than {_MOST_DEPTH} folders")


def _entries(folder: str, pattern: str) -> Iterator[tuple[str, bool]]:
    """Yield the names in a folder, if there is one, and tell of each whether it is a folder itself, and no link to one.

    Raises `SandboxUnavailableError` for a folder that cannot be looked into, and `OSError` for want of descriptors.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name, entry.is_dir(follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):  # it never was there, or has gone meanwhile
        return
    except OSError as error:
        if error.errno in SHORT:
            raise
        raise _refused(f"{folder} cannot be looked into, for {pattern}: {os.strerror(error.errno or 0)}") from None


def _expression(parts: list[str]) -> str:
    """Return a glob as a regular expression for a path below its fixed part."""
    made = ""
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        if part == "**":
            made += ".*" if last else "(?:.*/)?"
            continue
        for character in part:
            made += {"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character))
        made += "" if last else "/"
    return made
