"""An interrupt, as Ctrl-C sends one to all that is in front of a terminal: when it reaches us, and as what.

One that our parent told us to ignore, by `nohup` or as a background job of a script, stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Have an interrupt raise `KeyboardInterrupt` in the block, which may have something to put back.

    Outside of it an interrupt ends us at once and without a word.
    """
    is_deadly = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if is_deadly:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if is_deadly:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def left_to_another() -> Iterator[None]:
    """Leave Ctrl-C and Ctrl-\\ to a program that has our terminal in the block. It may mean something else by them."""
    heard = [number for number in (signal.SIGINT, signal.SIGQUIT) if signal.getsignal(number) is not signal.SIG_IGN]
    # A handler, since it would inherit that they are ignored.
    before = {number: signal.signal(number, lambda *_: None) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
