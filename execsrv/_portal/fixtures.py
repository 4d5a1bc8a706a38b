"""Blocks that plain code opens and leaves for a test of either world, whose objects stand in that world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any

from execsrv._portal import blocking
from execsrv._portal.facade import Facade, unwrapped


@contextmanager
def opened(
    world: type[Facade], open: Callable[..., AbstractAsyncContextManager[Any]], *args: Any, within: Facade | None = None
) -> Iterator[Any]:
    """Open a block in the world of a facade, and within the one that another has come out of, and leave it."""
    args, _ = unwrapped(args, {})
    facade = blocking.entered(world._kinds, partial(open, *args), None if within is None else within._hold)
    try:
        yield facade
    finally:
        leave(facade)


def leave(facade: Facade) -> None:
    """Leave the block that a facade has come out of. An error by which it ends is nobody's."""
    blocking._leave(facade._hold.block)
