"""For the tests of programs that start processes: that a block leaves none behind.

    def test_something():
        with execsrv.testing.assert_no_strays():
            ...

It needs nothing of execsrv's server, and works as well for `subprocess`. In pytest it is the fixture `no_strays`, with
this in `conftest.py`:

    pytest_plugins = ["execsrv.testing.pytest_plugin"]
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from execsrv._processes import proc, rlimit_mark
from execsrv._processes.proc import walk


@contextmanager
def assert_no_strays(within: float = 2.0) -> Iterator[None]:
    """Fail when something that was started in the block lives longer than `within` seconds after it; and kill it.

    However it was started, and whatever it did to get away: this process carries a mark as long as the block lasts,
    which all that descends from it inherits. No error of the block is replaced. Blocks cannot be nested, and inside a
    session of execsrv what a server started in the block has itself started is not seen.

    Raises `AssertionError` with pid and name of each, and `RuntimeError` where there are no such marks.
    """
    mark = rlimit_mark.new_server_mark()
    if mark is None:
        raise RuntimeError("cannot look for strays: this system has no limits that could mark them")
    with mark.of(0).carried():
        yield
    deadline = time.monotonic() + within
    while (left := [pid for pid, _ in walk(mark.session_of)]) and time.monotonic() < deadline:
        time.sleep(0.002)
    if left:
        found = ", ".join(f"{pid} ({proc.name(pid)})" for pid in left)
        _kill(mark, within)
        raise AssertionError(f"left behind, {within} s after the block: {found}")


def _kill(mark: rlimit_mark.ServerMark, within: float) -> None:
    def carries(pid: int) -> bool:
        return mark.session_of(pid) is not None

    deadline = time.monotonic() + within
    while (left := list(walk(mark.session_of))) and time.monotonic() < deadline:
        for pid, _ in left:
            proc.send(pid, signal.SIGKILL, carries)
        time.sleep(0.002)
