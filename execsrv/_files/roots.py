"""From a path to a place, one component at a time and never out of the roots.

Every component is opened beneath the directory before it, and no link is left to the kernel: a link is read, and walked
like the rest. So nothing leads out of a root, whatever is renamed or replaced meanwhile. However deep the path is, one
descriptor is held. A place is a name in an open directory. Its users must refuse a link there (`O_NOFOLLOW`): a link
that was there has been walked already, and a new one could lead anywhere. Two ways are closed within the roots too: to
the processes in a /proc, and through links that somebody else has put where everybody may put some. The rules of a
policy may narrow the roots: they are asked about every step and about the place at the end, by its path without links.
No command with that policy can change what such a path means: no place that is there can be moved, nor a folder above.

These functions block for as long as the file system does, so they run in threads.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass

from execsrv._files import procfs
from execsrv._files.rules import Rules, Use
from execsrv.errors import OutsideRootsError

MAX_LINKS = 40
"""Links that one walk follows, as many as the kernel's (path_resolution(7))."""

MAX_PATH_BYTES = 4095
"""Longest path, as for the kernel: PATH_MAX without the final NUL."""

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

Visit = Callable[[int, str], None]
"""Function that is told of every directory, and of the name in it, before that name is looked up."""


@dataclass(frozen=True, slots=True)
class Place:
    """A name in an open directory, for something that exists or could be made. "." stands for the directory itself."""

    directory: int
    name: str
    path: str
    """The path of the place, without links in it."""
    asked: str
    """The path that was asked for."""
    through_link: bool = False
    """True when the path that was asked for names a link, which was followed to this place."""

    def status(self) -> os.stat_result:
        """Return the status of what is there; of a link, its own. Raises `OSError`."""
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def open(self, flags: int, mode: int = 0o666) -> int:
        """Open what is there, and return a descriptor. A fifo does not block. Raises `OSError`: ELOOP for a link."""
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(self.name, flags, mode, dir_fd=self.directory)


class Roots:
    """Directories that may be reached, known by exactly the paths given here."""

    def __init__(self, paths: Sequence[str]) -> None:
        roots = {posixpath.normpath("/" + path.lstrip("/")) for path in paths}
        self._roots = sorted((components(root) for root in roots), key=len, reverse=True)
        self._make_rules: Callable[[], Rules] | None = None
        self._rules: Rules | None = None

    def under(self, rules: Callable[[], Rules]) -> Roots:
        """Return these roots, narrowed by rules, which are made when the first place is looked for."""
        narrowed: Roots = copy(self)
        narrowed._make_rules, narrowed._rules = rules, None
        return narrowed

    @property
    def rules(self) -> Rules | None:
        """The rules that narrow them, None where none do. Making them blocks as long as the file systems do."""
        if self._make_rules is not None and self._rules is None:
            self._rules = self._make_rules()
        return self._rules

    def may(self, path: str, use: Use) -> bool:
        """Tell whether the rules let a path, one of a place, be used so."""
        return self.rules is None or self.rules.may(self.real(path), use)

    def check(self, path: str, use: Use) -> None:
        """Raise `PermissionError` where the rules do not let a path, one of a place, be used so."""
        if self.rules is not None:
            self.rules.check(self.real(path), use)

    def real(self, path: str) -> str:
        """Return the path of a place with the links on the way to its root followed, as rules have it."""
        found = self.split(path)
        assert found is not None
        root, names = found
        return path if root == "/" else posixpath.join(posixpath.realpath(root), *names)

    def split(self, path: str) -> tuple[str, list[str]] | None:
        """Return the nearest root above an absolute path, and the names below it; None outside of all roots."""
        names = components(path)
        for root in self._roots:
            if names[: len(root)] == root:
                return "/" + "/".join(root), names[len(root) :]
        return None

    @contextmanager
    def at(
        self,
        path: str,
        *,
        follow: bool = True,
        follow_last: bool | None = None,
        make: bool = False,
        use: Use = "read",
        visit: Visit | None = None,
    ) -> Iterator[Place]:
        """Give the place of an absolute path, until the block is left. Its directory must exist, the place need not.

        It is for that `use`; where the rules do not allow that, this is a `PermissionError`.

        Without `follow`, a link in the middle is ENOTDIR. `follow_last` is for the last component, and is `follow`
        unless given. With `make`, directories that are missing in the middle are made. `..` is resolved as text, as in
        a URI; within a link it goes up from the directory of the link. Raises `OSError` and `OutsideRootsError`.
        """
        walk = _Walk(self, follow, follow if follow_last is None else follow_last, make, visit)
        try:
            place = walk.to(path)
            self.check(place.path, use)
            yield place
        finally:
            walk.leave()


class _Walk:
    """One walk: the directory that it has reached, and the components that are left, the next one last."""

    def __init__(self, roots: Roots, follow: bool, follow_last: bool, make: bool, visit: Visit | None) -> None:
        self._roots = roots
        self._follow = follow
        self._follow_last = follow_last
        self._make = make
        self._visit = visit
        self._directory: int | None = None
        self._path = ""
        self._todo: list[str] = []
        self._links = 0

    def to(self, path: str) -> Place:
        """Walk to the place of `path`."""
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise failure(errno.ENAMETOOLONG)
        self._start(posixpath.normpath(path))
        through_link = False
        while self._todo:
            name = self._todo.pop()
            if name == "..":
                self._up()
                continue
            assert self._directory is not None
            if self._roots.rules is not None:
                self._roots.rules.check_way(self._roots.real(posixpath.join(self._path, name)))
            if self._visit:
                self._visit(self._directory, name)
            last = not self._todo
            procfs.check_step(self._directory, name, None if last else self._todo[-1])
            if last:
                link = self._link(name) if self._follow_last else None
                if link is None:
                    place = posixpath.join(self._path, name)
                    return Place(self._directory, name, place, path, through_link)
                through_link = True
            else:
                link = self._down(name)
            if link is not None:
                self._take(link)
        assert self._directory is not None
        return Place(self._directory, ".", self._path, path, through_link)

    def leave(self) -> None:
        """Close the directory that the walk has reached."""
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def _start(self, path: str) -> None:
        """Begin at the root above `path`, and put the names below that root before the components that are left.

        Nothing outside of the roots is looked at: there the next names are resolved as text, until a root is reached.
        """
        while (found := self._roots.split(path)) is None:
            if not self._todo:
                raise OutsideRootsError("the path leads out of the directories that may be reached")
            path = posixpath.normpath(posixpath.join(path, self._todo.pop()))
        root, names = found
        self._todo.extend(reversed(names))
        self._enter(os.open(root, DIRECTORY), root)
        if root != "/":
            assert self._directory is not None
            procfs.check_root(self._directory)

    def _up(self) -> None:
        """Walk again, from the root, to the directory above. `..` could lead out: this one may have been moved."""
        above = posixpath.dirname(self._path)
        while self._todo and self._todo[-1] == "..":
            above = posixpath.dirname(above)
            self._todo.pop()
        self._start(above)

    def _down(self, name: str) -> str | None:
        """Go into the directory `name`, or return the target if `name` is a link."""
        try:
            child = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=self._directory)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP) and self._follow:
                link = self._link(name)
                if link is not None:
                    return link
            if error.errno == errno.ELOOP:
                raise failure(errno.ENOTDIR) from None
            if error.errno != errno.ENOENT or not self._make:
                raise
            self._roots.check(posixpath.join(self._path, name), "write")
            child = self._made(name)
        self._enter(child, posixpath.join(self._path, name))
        return None

    def _made(self, name: str) -> int:
        try:
            os.mkdir(name, dir_fd=self._directory)
        except FileExistsError:
            pass  # somebody else was quicker
        return os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=self._directory)

    def _enter(self, directory: int, path: str) -> None:
        self.leave()
        self._directory, self._path = directory, path

    def _link(self, name: str) -> str | None:
        """Return the target of the link `name`, or None where there is no link.

        Raises `PermissionError` where a kernel with `fs.protected_symlinks` would, here for links in the middle too.
        """
        assert self._directory is not None
        try:
            target = os.readlink(name, dir_fd=self._directory)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise
        directory = os.fstat(self._directory)
        return _trusted_link(self._directory, name, directory.st_uid) if _is_shared(directory) else target

    def _take(self, link: str) -> None:
        """Put the target of a link before the components that are left."""
        self._links += 1
        if self._links > MAX_LINKS:
            raise failure(errno.ELOOP)
        if link.startswith("/"):
            self._start(link)
        else:
            self._todo.extend(reversed(components(link)))


def _is_shared(directory: os.stat_result) -> bool:
    """Return whether everybody may make entries in a directory that only their owners may remove, as in /tmp."""
    shared = stat.S_ISVTX | stat.S_IWOTH
    return directory.st_mode & shared == shared


def _trusted_link(directory: int, name: str, owner: int) -> str | None:
    """Return the target of a link that is ours or the directory's owner's. Raises `PermissionError` for another's."""
    link = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(link)
        if not stat.S_ISLNK(found.st_mode):
            return None
        if found.st_uid not in (os.geteuid(), owner):
            raise failure(errno.EACCES)
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def components(path: str) -> list[str]:
    """Return the names in a path, `..` among them, without empty ones and `.`."""
    return [name for name in path.split("/") if name not in ("", ".")]


def failure(number: int) -> OSError:
    """Return the error that the kernel would have raised."""
    return OSError(number, os.strerror(number))


def is_directory(place: Place) -> bool:
    """Return whether a directory is there. Raises `OSError` where nothing is."""
    return stat.S_ISDIR(place.status().st_mode)
