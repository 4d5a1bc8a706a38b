"""The signals that end a program of ours, and a way to hear them."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import trio

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@contextmanager
def received(*further: signal.Signals) -> Iterator[AsyncIterator[int]]:
    """Hear the signals that ask us to end, and further ones, as they come. As long as this lasts they do nothing else.

    A signal that our parent told us to ignore (`nohup`, a background job of a script) stays ignored.
    """
    wanted = [number for number in (*ENDING, *further) if signal.getsignal(number) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*wanted) as signals:
        yield signals
