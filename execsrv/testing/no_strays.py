"""A block for the tests of programs that start processes, which fails when it leaves any behind.

    def test_something():
        with execsrv.testing.assert_no_strays():
            ...

It needs nothing of execsrv's server, and works as well for `subprocess`. In pytest it is the fixture `no_strays`, with
this in `conftest.py`:

    pytest_plugins = ["execsrv.testing.pytest_plugin"]
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from execsrv._processes import proc, rlimit_mark
from execsrv._processes.proc import walk
from execsrv._processes.rlimit_mark import Mark, ServerMark

_HELPERS = tuple(b"from multiprocessing.%s import main" % name for name in (b"resource_tracker", b"forkserver"))
"""The programs by which `multiprocessing` starts its helpers."""

_before: list[Mark] = []
"""What is in the limit of the block's mark outside of the block."""


@contextmanager
def assert_no_strays(within: float = 2.0) -> Iterator[None]:
    """Fail when something that was started in the block lives longer than `within` seconds after it; and kill it.

    It is found however it was started, and whatever it did to get away: this process carries a mark as long as the
    block lasts, which all that descends from it inherits. The helpers of this interpreter's `multiprocessing`, which
    live as long as it does, are no strays. They are killed for a block that raises too: its own error leaves, with a
    note of them.

    Blocks cannot be nested. Inside a session of execsrv, what a server started in the block has itself started is not
    seen.

    Raises `AssertionError` with the pid and the command line of each, and `RuntimeError` where no limit has room for
    such a mark.
    """
    mark = rlimit_mark.new_server_mark()
    if mark is None:
        raise RuntimeError("cannot look for strays: no limit of this process has room for a mark")
    _before.append(Mark(mark.slot, rlimit_mark.own_limit(mark.slot)[0]))
    try:
        with mark.of(0).carried():
            yield
    except BaseException as error:
        if left := _end(mark, within):
            error.add_note(left)
        raise
    finally:
        _before.pop()
    if left := _end(mark, within):
        raise AssertionError(left)


@contextmanager
def unmarked() -> Iterator[None]:
    """Start, in this block, what is to outlive a block of `assert_no_strays` around it, where there is one."""
    with _before[-1].carried() if _before else nullcontext():
        yield


def _end(mark: ServerMark, within: float) -> str:
    """Wait for the end of what was started, kill what lives on then, and say what that was."""
    deadline = time.monotonic() + within
    while (left := _strays(mark)) and time.monotonic() < deadline:
        time.sleep(0.002)
    if not left:
        return ""
    found = ", ".join(f"{pid} ({proc.command_line(pid)})" for pid in left)
    _kill(mark, within)
    return f"left behind, {within} s after the block: {found}"


def _strays(mark: ServerMark) -> list[int]:
    return [pid for pid, _ in walk(mark.session_of) if not _is_helper(pid)]


def _is_helper(pid: int) -> bool:
    """Tell whether a process is what `multiprocessing` keeps beside this interpreter until its end."""
    words = proc.table(pid, "cmdline").split(b"\0")
    return any(word.startswith(_HELPERS) for word in words) and proc.parent(pid) == os.getpid()


def _kill(mark: ServerMark, within: float) -> None:
    def carries(pid: int) -> bool:
        return mark.session_of(pid) is not None

    deadline = time.monotonic() + within
    while (left := _strays(mark)) and time.monotonic() < deadline:
        for pid in left:
            proc.send(pid, signal.SIGKILL, carries)
        time.sleep(0.002)
