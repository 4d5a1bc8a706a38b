"""Metadata, and the entries of directories and trees. Opens nothing but directories.

Links are followed through `Roots`, so that not even the kind of a file outside is told.

These functions block for as long as the file system does, so they run in threads. A walk stops when the task that wants
it is cancelled.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from typing import Literal

import trio

from execsrv._files.holding import hold
from execsrv._files.roots import Place, Roots
from execsrv._files.statx import birth_time
from execsrv._wire.paths import uri_from_path
from execsrv._wire.quoting import shown
from execsrv.errors import FileRefusedError, LimitExceededError
from execsrv.limits import ServerConfig
from execsrv.protocol import DirectoryEntry, FileMetadata, Walked, WalkEntry, WalkError, WalkOptions

_MILLISECOND = 1_000_000
_CHECK_EVERY = 1024

_ENTRIES_BYTES = _CHECK_EVERY * 512
"""About so much memory is taken by so many entries."""

_WALK_DEPTH, _WALK_DIRECTORIES = 64, 10_000
"""Largest depth and number of directories of one `fs/walk`, as in the Codex exec-server."""


def metadata(place: Place) -> FileMetadata:
    """Return the metadata of a place. Raises `OSError`, and `FileRefusedError` for a link that was not followed."""
    status = place.status()
    if stat.S_ISLNK(status.st_mode):
        raise FileRefusedError("path contains a symbolic link")
    return FileMetadata(
        is_directory=stat.S_ISDIR(status.st_mode),
        is_file=stat.S_ISREG(status.st_mode),
        is_symlink=place.through_link,
        size=status.st_size,
        created_at_ms=birth_time(place.directory, place.name) // _MILLISECOND,
        modified_at_ms=status.st_mtime_ns // _MILLISECOND,
    )


@contextmanager
def open_directory(place: Place) -> Iterator[int]:
    """Open the directory at a place, and give its descriptor. Raises `OSError`."""
    descriptor = place.open(os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_directory(roots: Roots, place: Place, config: ServerConfig) -> list[DirectoryEntry]:
    """Return all entries that may be read but `.` and `..`, sorted by name.

    Raises `LimitExceededError` for too large a directory.
    """
    found: list[DirectoryEntry] = []
    size = 0
    with open_directory(place) as descriptor, os.scandir(descriptor) as entries:
        for entry in entries:
            size += 3 * len(os.fsencode(entry.name))
            if len(found) >= config.directory_entries or size > config.listing_bytes:
                raise too_large("listing_bytes" if size > config.listing_bytes else "directory_entries", config)
            if len(found) % _CHECK_EVERY == 0:
                trio.from_thread.check_cancelled()
                hold_entries(len(found))
            path = posixpath.join(place.path, entry.name)
            if not roots.may(path, "read"):
                continue
            kind = _kind(roots, entry, path)
            name = shown(entry.name)
            addressed = uri_from_path(path) if os.fsencode(name) != os.fsencode(entry.name) else None
            found.append(DirectoryEntry(name, kind == "directory", kind == "file", entry.is_symlink(), addressed))
    found.sort(key=lambda entry: entry.file_name)
    return found


def hold_entries(number: int) -> None:
    """Take memory for what a listing has found, now that it has found so many. Raises `LimitExceededError`."""
    if number and number % _CHECK_EVERY == 0:
        hold(_ENTRIES_BYTES)


def too_large(bound: str, config: ServerConfig) -> LimitExceededError:
    """Return the error for a directory that exceeds this bound."""
    value = getattr(config, bound)
    message = f"the directory is too large to list: {bound} ({value}) would be exceeded"
    return LimitExceededError(message, limit=bound, value=value)


def _kind(roots: Roots, entry: os.DirEntry[str], path: str) -> Literal["file", "directory"] | None:
    """Return the kind of what an entry leads to, or None for any other kind and for a link that leads nowhere."""
    if entry.is_symlink():
        try:
            with roots.at(path) as target:
                mode = target.status().st_mode
        except (OSError, FileRefusedError):
            return None
        return "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else None


class Walk:
    """One walk through a tree, breadth first, and its findings so far."""

    def __init__(self, roots: Roots, options: WalkOptions, config: ServerConfig) -> None:
        """Raises `FileRefusedError` for options that no walk may have."""
        if not (options.max_directories and options.max_entries):
            raise FileRefusedError("filesystem walk limits must be greater than zero")
        depth, directories, entries = _WALK_DEPTH, _WALK_DIRECTORIES, config.directory_entries
        if options.max_depth > depth or options.max_directories > directories or options.max_entries > entries:
            maximums = f"depth={depth}, directories={directories}, entries={entries}"
            raise FileRefusedError(f"filesystem walk limits exceed maximums: {maximums}")
        self._roots = roots
        self._options = options
        self._bytes_left = config.listing_bytes
        self._entries_left = options.max_entries
        self._entries: list[WalkEntry] = []
        self._errors: list[WalkError] = []
        self._truncated = False
        self._read: set[tuple[int, int]] = set()

    def run(self, path: str) -> Walked:
        """Walk the tree at `path`. Raises `OSError` when that cannot be read; the result has errors further down."""
        with self._roots.at(path) as top:
            is_tree = stat.S_ISDIR(top.status().st_mode)
            is_tree &= self._options.follow_directory_symlinks or not top.through_link
        waiting = deque([(posixpath.normpath(path), 0)] if is_tree else [])
        while waiting and not self._truncated:
            trio.from_thread.check_cancelled()
            directory, depth = waiting.popleft()
            try:
                found = self._list(directory)
            except OSError as error:
                if depth == 0:
                    raise
                self._errors.append(WalkError(uri_from_path(directory), error_text(error)))
                continue
            if depth < self._options.max_depth:
                waiting.extend((child, depth + 1) for child in found)
        return Walked(self._entries, self._errors, self._truncated)

    def _list(self, directory: str) -> list[str]:
        """Add the entries of a directory to the findings, and return the directories among them that are to follow."""
        with (
            self._roots.at(directory) as place,
            open_directory(place) as descriptor,
        ):
            status = os.fstat(descriptor)
            identity = status.st_dev, status.st_ino
            if identity in self._read:
                return []
            if len(self._read) >= self._options.max_directories:
                self._truncated = True
                return []
            self._read.add(identity)
            with os.scandir(descriptor) as entries:
                # One more than may be looked at, to know whether there is one.
                known = (
                    entry
                    for entry in _cancellable(entries)
                    if self._roots.may(posixpath.join(place.path, entry.name), "read")
                    if not self._leads_nowhere(directory, entry)
                )
                smallest = first_by_name(known, self._entries_left + 1)
            return [path for entry in smallest if (path := self._enter(directory, entry)) is not None]

    def _enter(self, directory: str, entry: os.DirEntry[str]) -> str | None:
        """Add one entry to the findings, while there is room. Return its path if it is a directory to be walked."""
        path = posixpath.join(directory, entry.name)
        uri = uri_from_path(path)
        self._entries_left -= 1
        self._bytes_left -= len(uri)
        if self._entries_left < 0 or self._bytes_left < 0:
            self._truncated = True
            return None
        kind = _kind(self._roots, entry, path)
        if kind is None or (entry.is_symlink() and not self._follows(kind)):
            return None
        self._entries.append(WalkEntry(uri, kind))
        hold_entries(len(self._entries))
        pruned = bool(self._options.prune_hidden_directories) and entry.name.startswith(".")
        return path if kind == "directory" and not pruned else None

    def _leads_nowhere(self, directory: str, entry: os.DirEntry[str]) -> bool:
        return entry.is_symlink() and _kind(self._roots, entry, posixpath.join(directory, entry.name)) is None

    def _follows(self, kind: str) -> bool:
        return kind == "directory" and self._options.follow_directory_symlinks


def first_by_name(entries: Iterator[os.DirEntry[str]], most: int) -> list[os.DirEntry[str]]:
    """Return the first entries in the order of their names, at most so many; few more are held at a time.

    They are sorted in parts: a sort holds the interpreter, and with it the server's loop, until it is done.
    """

    def name(entry: os.DirEntry[str]) -> str:
        return entry.name

    parts: list[list[os.DirEntry[str]]] = []
    while part := sorted(islice(entries, _CHECK_EVERY), key=name):
        parts.append(part)
        if sum(map(len, parts)) >= 2 * most + _CHECK_EVERY:
            parts = [list(islice(merge(*parts, key=name), most))]
    return list(islice(merge(*parts, key=name), most))


def _cancellable(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    for number, entry in enumerate(entries):
        if number % _CHECK_EVERY == 0:
            trio.from_thread.check_cancelled()
        yield entry


def error_text(error: OSError) -> str:
    """Return the text for an error of the operating system, as Codex clients know it."""
    return f"{error.strerror or error} (os error {error.errno or 0})"
