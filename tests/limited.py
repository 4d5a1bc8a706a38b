"""Limits of commands, for tests: the machine's means, and the control groups that are there."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from execsrv._processes import cgroup
from execsrv._processes.limiting.make import trial
from execsrv.errors import LimitUnavailableError
from execsrv.protocol.process_limits import ProcessLimits


@cache
def version() -> int | None:
    """The version of control groups that keep limits here, None where none does."""
    try:
        return trial(ProcessLimits(memory_bytes=64 << 20, processes=10, cpu_percent=50))
    except LimitUnavailableError:
        return None


needs_groups = pytest.mark.skipif(version() is None, reason="no control group can be made here")


def groups_of(server: int) -> list[Path]:
    """The control groups that hold limits of the sessions of a server, by its pid."""
    pattern = f"{cgroup.PREFIX}{server}-*-limits-*"
    walks = [os.walk(os.fsdecode(folder)) for folder in cgroup.mounts()]  # which pass over what is removed meanwhile
    return sorted(Path(at, name) for walk in walks for at, names, _ in walk for name in fnmatch.filter(names, pattern))


@contextmanager
def alone() -> Iterator[list[str]]:
    """Words in front of a program that has to be started in a control group that it shares with nobody.

    It is beside that of this process, and has the program alone as long as that has not ended.
    """
    here = cgroup.place_of(f"{cgroup.PREFIX}{os.getpid()}-")
    if version() != 2 or here is None:
        yield []
        return
    folder = here.with_name(f"{cgroup.PREFIX}test-{os.getpid()}")
    folder.mkdir()
    try:
        yield ["sh", "-c", 'echo 0 >"$0"/cgroup.procs; exec "$@"', str(folder)]
    finally:
        cgroup.kill(folder, 60)
        cgroup.remove(folder)
