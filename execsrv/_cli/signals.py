"""The signals that end a program of ours: how they are at its start, and a way to hear them."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import trio

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def reset_signals() -> None:
    """Undo what our parent did to signals that we need: none is blocked, SIGTERM ends us, and SIGCHLD is not ignored.

    HUP, INT and QUIT stay ignored where they are: that is how `nohup` and the shells ask for it.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would lose us every exit status


@contextmanager
def received(*further: signal.Signals) -> Iterator[AsyncIterator[int]]:
    """Hear the signals that ask us to end, and further ones, as they come. As long as this lasts they do nothing else.

    A signal that our parent told us to ignore (`nohup`, a background job of a script) stays ignored.
    """
    wanted = [number for number in (*ENDING, *further) if signal.getsignal(number) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*wanted) as signals:
        yield signals
