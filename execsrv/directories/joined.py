"""A file that servers join: one line of JSON for each, an `Endpoint`.

Whoever changes it has it locked, and puts a new file in its place: whoever reads it sees all of the one or all of the
other. A server that was killed leaves its line behind, which says no more than that there was one.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from execsrv.directories.endpoint import Endpoint
from execsrv.errors import InvalidConfigError

_MOST_BYTES = 16 << 20

Path = str | os.PathLike[str]


class FileDirectory:
    """A directory for `Pool`: the servers that have joined a file, by `execsrv serve --join FILE`."""

    def __init__(self, path: Path) -> None:
        self._path = os.fspath(path)
        self._was_there = False
        self._is_missing = False

    def __repr__(self) -> str:
        return f"<FileDirectory {self._path}{', which is not there' if self._is_missing else ''}>"

    def __call__(self) -> list[Endpoint]:
        """Return the servers, none where the file is not there yet. Raises `OSError` and `InvalidConfigError`."""
        try:
            servers = joined(self._path)
        except FileNotFoundError:
            if self._was_there:  # that it is gone says nothing of its servers
                raise
            self._is_missing = True
            return []
        self._was_there, self._is_missing = True, False
        return servers


def joined(path: Path) -> list[Endpoint]:
    """Return the servers that have joined a file.

    Raises `OSError`, and `InvalidConfigError` for a line that is none, and for a file of another user, or to which
    others may write: they would have our commands, and our token, go where they like.
    """
    with open(path, "rb") as file:
        facts = os.fstat(file.fileno())
        if facts.st_uid not in (os.geteuid(), 0) or facts.st_mode & 0o022:
            raise InvalidConfigError(f"cannot trust `{os.fspath(path)}`: others than this user may write to it")
        return [*_endpoints(path, file.read(_MOST_BYTES))]


def join(path: Path, endpoint: Endpoint) -> None:
    """Add a server to a file, in place of one with its URL. The file is for this user alone.

    Raises `OSError`, and `InvalidConfigError` for a file that is none of ours, or a server that is no text.
    """
    path = _real(path)
    with _locked(path):
        try:
            _write(path, [*_others(path, endpoint.url), endpoint])
        except UnicodeEncodeError:
            raise InvalidConfigError(f"{endpoint!r} is not UTF-8") from None


def leave(path: Path, url: str) -> None:
    """Take a server out of a file. Raises as `join` does."""
    path = _real(path)
    with _locked(path):
        _write(path, _others(path, url))


def _real(path: Path) -> str:
    """Return the path of a file behind its links, which stay. One that leads nowhere may be anybody's: not followed."""
    return os.path.realpath(path) if os.path.exists(path) else os.fspath(path)


def _others(path: Path, url: str) -> list[Endpoint]:
    try:
        return [each for each in joined(path) if each.url != url]
    except FileNotFoundError:
        return []


def _endpoints(path: Path, content: bytes) -> Iterator[Endpoint]:
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line, type=Endpoint)
        except msgspec.MsgspecError as error:
            raise InvalidConfigError(f"`{os.fspath(path)}` line {number} is no server: {error}") from None


def _write(path: Path, endpoints: Iterable[Endpoint]) -> None:
    """Put a new file in place of the old one."""
    folder = os.path.dirname(os.path.abspath(path))
    descriptor, new = tempfile.mkstemp(prefix=".execsrv-", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            file.writelines(msgspec.json.encode(each) + b"\n" for each in endpoints)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others from changing the file. The lock is a file of its own, since the file itself is replaced."""
    lock = f"{os.fspath(path)}.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if (uid := os.fstat(descriptor).st_uid) not in (os.geteuid(), 0):  # who could keep it locked for ever
            raise InvalidConfigError(f"cannot trust `{lock}`: it belongs to uid {uid}")
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # which holds over NFS as well
        yield
    finally:
        os.close(descriptor)
