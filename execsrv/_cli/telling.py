"""The decision whether something is said of a command that is silent for long. What is said is in `silence.py`."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from execsrv._cli.job import RunOptions


def shows_progress(options: RunOptions) -> bool:
    """Return whether something is said of a command that is silent for long.

    Without being asked for it is where its output comes through us in any case.
    """
    if options.progress is False or options.quiet or options.as_json or options.tty or not os.isatty(2):
        return False
    comes_through_us = options.url is not None or options.idle_timeout is not None or options.record is not None
    return os.environ.get("TERM") != "dumb" and bool(options.progress or comes_through_us)


def watch_silence(options: RunOptions, nursery: trio.Nursery) -> Callable[[int, bytes], None]:
    """Say something of a command that is silent for long, where that is wanted, as a task in the nursery.

    Return the function that is to be called before each output, with where it goes.
    """
    if not shows_progress(options):
        return lambda target, data: None
    from execsrv._cli.silence import Silence  # for those who sit at a terminal

    silence = Silence()
    nursery.start_soon(silence.watch)
    return silence.output
