"""A lifeline: a descriptor whose other end is held by whoever started the server. It closes with its holder's end.

The kernel closes it however the holder ends, by SIGKILL too. Nothing is read from it: what is written there is left
alone, and a terminal is not asked for input that may be another program's.
"""

from __future__ import annotations

import os
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from execsrv.errors import ExecsrvError


@contextmanager
def open_lifeline(descriptor: int) -> Iterator[Callable[[], Awaitable[None]]]:
    """Give a function that waits until nobody holds the other end of a descriptor. No command inherits it.

    Raises `ExecsrvError` for a descriptor that is not open, and for a file, which never closes.
    """
    with select.epoll() as poll:
        try:
            os.set_inheritable(descriptor, False)
            poll.register(descriptor, select.EPOLLRDHUP)  # EPOLLHUP and EPOLLERR are told in any case
        except PermissionError:
            raise ExecsrvError(f"cannot use descriptor {descriptor} as a lifeline: a file never closes") from None
        except OSError as error:
            raise ExecsrvError(f"cannot use descriptor {descriptor} as a lifeline: {error.strerror}") from error

        async def wait_closed() -> None:
            await trio.lowlevel.wait_readable(poll.fileno())

        yield wait_closed
