"""The protocol on a process's own stdin and stdout."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from execsrv._wire.writing import write_all

_READ_BYTES = 64 * 1024


@contextmanager
def taken_stdio() -> Iterator[tuple[int, int]]:
    """Move the descriptors of stdin and stdout away for the protocol, and give them.

    As long as it lasts, descriptor 0 is empty and descriptor 1 is stderr: nothing that prints, in this process or
    below it, can get in between the messages, and nothing can take one of them.
    """
    _flush()
    protocol_in, protocol_out = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.dup2(empty, 0)
        os.dup2(2, 1)
        yield protocol_in, protocol_out
    finally:
        _flush()
        os.dup2(protocol_in, 0)
        os.dup2(protocol_out, 1)
        for descriptor in (protocol_in, protocol_out, empty):
            os.close(descriptor)


def _flush() -> None:
    if sys.stdout is not None:  # as it is where a program was started without one
        sys.stdout.flush()


class PipeReceiveStream(trio.abc.ReceiveStream):
    """A pipe, or whatever else the kernel can wait for.

    It is waited for before each read: a stream of trio takes a turn of the loop first, and then waits all the same.
    """

    def __init__(self, descriptor: int) -> None:
        """Take ownership of the descriptor."""
        self._stream = trio.lowlevel.FdStream(descriptor)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while True:
            if (descriptor := self._stream.fileno()) < 0:
                raise trio.ClosedResourceError("file was already closed")
            await trio.lowlevel.wait_readable(descriptor)
            try:
                return os.read(descriptor, max_bytes or _READ_BYTES)
            except BlockingIOError:
                pass  # whoever shares it was faster
            except OSError as error:
                raise trio.BrokenResourceError(f"cannot read descriptor {descriptor}") from error

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


class FileReceiveStream(trio.abc.ReceiveStream):
    """A file that the kernel cannot wait for (a plain file, /dev/null), read in threads. Does not own it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = trio.CapacityLimiter(1)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await trio.to_thread.run_sync(os.read, self._descriptor, max_bytes or _READ_BYTES, limiter=self._thread)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class FileSendStream(trio.abc.SendStream):
    """A file that the kernel cannot wait for, written in threads. Does not own it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = trio.CapacityLimiter(1)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.to_thread.run_sync(write_all, self._descriptor, bytes(data), limiter=self._thread)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def receive_stream(descriptor: int) -> trio.abc.ReceiveStream:
    """Return a stream from a descriptor, which stays the caller's."""
    return PipeReceiveStream(os.dup(descriptor)) if _can_wait(descriptor) else FileReceiveStream(descriptor)


def send_stream(descriptor: int) -> trio.abc.SendStream:
    """Return a stream to a descriptor, which stays the caller's."""
    return trio.lowlevel.FdStream(os.dup(descriptor)) if _can_wait(descriptor) else FileSendStream(descriptor)


def _can_wait(descriptor: int) -> bool:
    """Return True if the kernel can say when this descriptor is ready."""
    with select.epoll() as poll:
        try:
            poll.register(descriptor, 0)
        except PermissionError:
            return False
    return True


async def read_shared(descriptor: int) -> bytes:
    """Return the next bytes of a descriptor that others share, empty at the end. Its modes are left alone.

    Cancelling loses nothing, except from a plain file.
    """
    if not _can_wait(descriptor):
        return await trio.to_thread.run_sync(
            os.read, descriptor, _READ_BYTES, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True
        )
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        try:
            return os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            pass  # whoever shares it was faster
