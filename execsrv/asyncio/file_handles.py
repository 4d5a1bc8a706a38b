# Written by tests/facades.py from execsrv.client.file_handles: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

import io

from execsrv._portal.awaiting import Held
from execsrv.client.file_handles import RemoteFile as TrioRemoteFile
from execsrv.client.parameters import Data


class RemoteFile(Held, of=TrioRemoteFile):
    """An open file on the server's machine, with a place in it, made by `Files.open`. All is bytes, without a buffer.

    For one task at a time, as any file. A file that is open while the connection is interrupted is opened again by its
    path; one for appending then raises `ConnectionLostError`. Where another file is there by then, it is a `FileError`.
    """

    @property
    def name(self) -> str:
        """Path of the file."""
        return self._get("name")

    async def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes from the place on, all up to the end for -1, nothing at the end.

        Cancelling loses nothing: the place stays. Raises `LimitExceededError` for more than `max_read_bytes`.
        """
        return await self._take("read", size)

    async def write(self, data: Data) -> int:
        """Write all the data at the place, and return how many bytes they are. Cancelling may leave a part written."""
        return await self._wait("write", data)

    async def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the place, from the beginning, from where it is, or from the end; return it.

        The end is asked for by the path. Raises `FileError` where another file than the one opened is there by now.
        """
        return await self._wait("seek", offset, whence)

    def tell(self) -> int:
        """Return the place. In a file that others append to as well, the end is further on."""
        return self._plain("tell")

    async def truncate(self, size: int | None = None) -> int:
        """Cut the file, or make it longer, to `size` or to the place; return its size. The place stays.

        The server is asked to by the path. Raises `FileError` where another file than the one that was opened is there
        by now; one that comes there in that very moment is cut. Raises `io.UnsupportedOperation` for "rb".
        """
        return await self._wait("truncate", size)
