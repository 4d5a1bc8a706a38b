"""An interrupt, as Ctrl-C sends one to all that is in front of a terminal: when it reaches us, and as what.

One that our parent told us to ignore, by `nohup` or as a background job of a script, stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_LIKE_AN_INTERRUPT = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextmanager
def interruptible(told: list[signal.Signals]) -> Iterator[None]:
    """Have an interrupt raise `KeyboardInterrupt` in the block, which may have something to put back.

    So does another signal that would end us, which is added to those that we were `told`. A second one of its kind ends
    us at once. Outside of the block each of them ends us at once and without a word.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        told.append(signal.Signals(number))
        signal.raise_signal(signal.SIGINT)  # whoever runs in the block knows how to take it, as trio does

    deadly = [number for number in _LIKE_AN_INTERRUPT if signal.getsignal(number) is signal.SIG_DFL]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in deadly:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in (*deadly, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def left_to_another() -> Iterator[None]:
    """Leave Ctrl-C and Ctrl-\\ to a program that has our terminal in the block. It may mean something else by them.

    A signal that means us ends us at once.
    """

    def pass_over(_: int, __: object) -> None:
        """Do nothing. That a signal is ignored, the other program would inherit."""

    keys, meaning_us = (signal.SIGINT, signal.SIGQUIT), (signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in (*keys, *meaning_us) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_over if number in keys else signal.SIG_DFL) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
