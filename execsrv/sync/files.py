# Written by tests/facades.py from execsrv.client.files: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client in plain code. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, overload

from execsrv._portal.blocking import Facade, Items
from execsrv.client.file_info import FileInfo
from execsrv.client.file_paths import ServerPath
from execsrv.client.files import Files as TrioFiles
from execsrv.client.parameters import Data
from execsrv.client.policy import Policy
from execsrv.client.transfer import Progress, Transferred

if TYPE_CHECKING:
    from execsrv.sync.file_handles import RemoteFile
    from execsrv.sync.remote_path import RemotePath
    from execsrv.sync.tree_changes import Changes


class Files(Facade, of=TrioFiles):
    """Files of the server's machine, with the rights of its account.

    Every method raises `FileError` for what the system refuses, of which `NotFoundError`, `FileRefusedError` and
    `OutsideRootsError` are kinds; `TypeError` and `InvalidParamsError` for an argument that is none; and
    `ConnectionLostError`. An interrupt stops waiting; whether a change under way is still made is then unknown.
    """

    def under(self, policy: Policy) -> Files:
        """Return these files under a policy, which the server keeps in every call."""
        return self._plain("under", policy)

    def path(self, path: ServerPath, *more: str) -> RemotePath:
        """Return a path object: `client.files.path("/srv") / "a.txt"`."""
        return self._plain("path", path, *more)

    @overload
    def read(self, path: ServerPath) -> bytes: ...

    @overload
    def read(self, path: ServerPath, *, encoding: str, errors: str = "strict") -> str: ...

    def read(self, path: ServerPath, *, encoding: str | None = None, errors: str = "strict") -> bytes | str:
        """Return the content of a file, as text with an `encoding`. Raises `UnicodeDecodeError`.

        Raises `LimitExceededError` for one of more than `max_read_bytes` (512 MiB), which `open` and `get` take.
        """
        return self._wait("read", path, encoding=encoding, errors=errors)

    def write(
        self,
        path: ServerPath,
        data: Data | str,
        *,
        encoding: str = "utf-8",
        mode: int | None = None,
        atomic: bool = True,
    ) -> None:
        """Write a file whole: others see the old content or the new, and a failure changes nothing.

        A file that is there keeps its mode, unless one is given. Without `atomic` it is written in place, which keeps
        its other names, and leaves a part of the content after a failure. Nobody may read the new content whom a `mode`
        does not let.
        """
        return self._wait("write", path, data, encoding=encoding, mode=mode, atomic=atomic)

    def append(self, path: ServerPath, data: Data | str, *, encoding: str = "utf-8") -> None:
        """Append to a file, wherever its end is at the moment; make it if it is missing.

        Raises `ConnectionLostError`, with no saying whether the data has arrived, when the connection is interrupted.
        """
        return self._wait("append", path, data, encoding=encoding)

    def open(self, path: ServerPath, mode: str = "rb") -> RemoteFile:
        """Open a file for reading and writing anywhere in it; it is closed when the block is left.

        `mode` is "rb", "wb", "ab", "xb", "r+b" or "w+b", as for `open`. There is no text mode, and no buffer.
        """
        return self._enter("open", path, mode)

    def stat(self, path: ServerPath, *, follow: bool = True) -> FileInfo:
        """Return the facts of a file, of a link itself without `follow`."""
        return self._wait("stat", path, follow=follow)

    def exists(self, path: ServerPath) -> bool:
        """Return whether anything is at a path. False for a dangling link."""
        return self._wait("exists", path)

    def list(self, path: ServerPath) -> list[FileInfo]:
        """Return the entries of a directory, sorted by name. Of links they are the facts of the link."""
        return self._wait("list", path)

    def walk(self, path: ServerPath) -> Items[FileInfo]:
        """Yield all that is below a directory, each directory before what is in it. No link is followed.

        What disappears meanwhile is left out; a directory that cannot be read is an error.
        """
        return self._iterate("walk", path)

    def resolve(self, path: ServerPath) -> str:
        """Return the path of something that exists, without links in it."""
        return self._wait("resolve", path)

    def copy(self, source: ServerPath, destination: ServerPath) -> None:
        """Copy a file, a link, or a tree into what is there, on the server. Modes are kept."""
        return self._wait("copy", source, destination)

    def move(self, source: ServerPath, destination: ServerPath) -> None:
        """Give a file, a link or a directory another path, in place of the file or empty directory that is there.

        To another file system it is copied with all that it has, and then removed. What cannot be copied there, such as
        a fifo, is a `FileError` that changes nothing.
        """
        return self._wait("move", source, destination)

    def remove(self, path: ServerPath, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a link or an empty directory; with `recursive`, a directory with all that is in it."""
        return self._wait("remove", path, recursive=recursive, missing_ok=missing_ok)

    def make(self, path: ServerPath, *, parents: bool = True, exist_ok: bool = True, mode: int | None = None) -> None:
        """Make a directory, and with `parents` those above it that are missing.

        `mode`, less the server's umask, is for the directory itself where it is made.
        """
        return self._wait("make", path, parents=parents, exist_ok=exist_ok, mode=mode)

    def link(self, path: ServerPath, target: str | os.PathLike[str]) -> None:
        """Make a symbolic link at a path. `target` is written into it as it is."""
        return self._wait("link", path, target)

    def change(
        self,
        path: ServerPath,
        *,
        mode: int | None = None,
        modified: float | None = None,
        accessed: float | None = None,
        size: int | None = None,
    ) -> None:
        """Set mode, times (seconds since the epoch) or size of a file; what is not given stays."""
        return self._wait("change", path, mode=mode, modified=modified, accessed=accessed, size=size)

    def watch(self, path: ServerPath, *, recursive: bool = False) -> Changes:
        """Watch a directory, and with `recursive` all below it: `with ... as changes`, then `for`.

        No change is missed from when the block is entered. Where some are lost after all (the connection was
        interrupted, there were too many), one of kind `lost` says so.
        """
        return self._enter("watch", path, recursive=recursive)

    def put(
        self,
        source: str | os.PathLike[str],
        destination: ServerPath,
        *,
        progress: Progress | None = None,
        limit: int = 8,
        resume: bool = False,
    ) -> Transferred:
        """Copy a file or a tree of this machine to `destination`, which is the copy itself, not the directory for it.

        Modes, times and links are kept; a tree is merged into one that is there. Each file appears whole, and larger
        ones are compared by SHA-256. An interrupted connection is waited for, as long as `reconnect` allows. `limit`
        files are under way at a time; `progress(source, destination, done, total)` is called for each as it goes on.

        With `resume` an earlier copy is taken up: files that are there with the same size, time and mode are passed
        over, and where the connection was lost in the midst of a larger one, it goes on there. For that, a part stays
        beside the place of each file that was under way.

        Raises `OSError` for this machine's side, and `LimitExceededError` for a file that grows without end
        (`max_read_bytes`). The first error ends it, and leaves the files that are done.
        """
        return self._wait("put", source, destination, progress=progress, limit=limit, resume=resume)

    def get(
        self,
        source: ServerPath,
        destination: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        limit: int = 8,
        resume: bool = False,
    ) -> Transferred:
        """Copy a file or a tree of the server to `destination` on this machine, in the same way as `put`.

        Raises `FileError` for a file that changes while it is read. Raises `LimitExceededError` for one that grows
        without end (`max_read_bytes`), and for a tree of more entries than `max_tree_entries`.
        """
        return self._wait("get", source, destination, progress=progress, limit=limit, resume=resume)
