"""Several descriptors that one task waits for together.

A task for each of them would be a large part of what a short command costs.
"""

from __future__ import annotations

import select
from collections.abc import Iterable

import trio

from execsrv._processes.command import spawn_error


class Watch:
    """Descriptors, of which one that can be read from or is at its end is waited for. Its holder closes it first."""

    def __init__(self, descriptors: Iterable[int | None]) -> None:
        """Wait for these from now on. Raises `SpawnError` where the machine gives no means to."""
        try:
            self._epoll = select.epoll()
            for descriptor in descriptors:
                if descriptor is not None:
                    self.add(descriptor)
        except OSError as error:
            raise spawn_error("resources", error.errno or 0, "start") from error

    def add(self, descriptor: int, events: int = select.EPOLLIN) -> None:
        """Wait for it too: for these events, and for its end in any case."""
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Wait for other events of it from now on."""
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Wait for it no more."""
        self._epoll.unregister(descriptor)

    async def wait(self) -> list[int]:
        """Wait until there is one to read from, and return them. Cancelling loses nothing."""
        await trio.lowlevel.wait_readable(self._epoll.fileno())
        return self.ready()

    def ready(self) -> list[int]:
        """Return those that can be read from now."""
        return [descriptor for descriptor, _ in self._epoll.poll(0)]

    def close(self) -> None:
        """Let go of all of them. It may be called again."""
        self._epoll.close()
