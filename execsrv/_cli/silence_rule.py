"""The decision whether something is said of a command that is silent for long. What is said is in `silence.py`."""

from __future__ import annotations

import os

import trio

from execsrv._cli.job import Recorder, RunOptions


def shows_progress(options: RunOptions) -> bool:
    """Return whether something is said of a command that is silent for long.

    Without being asked for it is where its output comes through us in any case.
    """
    if options.progress is False or options.quiet or options.as_json or options.tty or not os.isatty(2):
        return False
    reasons = options.url, options.idle_timeout, options.record, options.junit
    comes_through_us = any(reason is not None for reason in reasons)
    return os.environ.get("TERM") != "dumb" and bool(options.progress or comes_through_us)


def watch_silence(options: RunOptions, nursery: trio.Nursery) -> list[Recorder]:
    """Say something of a command that is silent for long, where that is wanted, as a task in the nursery.

    Return those that are to be given its output.
    """
    if not shows_progress(options):
        return []
    from execsrv._cli.silence import Silence  # for those who sit at a terminal

    silence = Silence()
    nursery.start_soon(silence.watch)
    return [silence]
