"""Limits of commands, for tests: the machine's means, and the control groups that are there."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from execsrv._processes import cgroup
from execsrv._processes.limiting.make import trial
from execsrv.errors import LimitUnavailableError
from execsrv.protocol.process_limits import ProcessLimits


@cache
def _groups() -> bool:
    try:
        return bool(trial(ProcessLimits(memory_bytes=64 << 20, processes=10, cpu_percent=50)))
    except LimitUnavailableError:
        return False


needs_groups = pytest.mark.skipif(not _groups(), reason="no control group can be made here")


def groups_of(server: int | None = None) -> list[Path]:
    """The control groups that hold limits of the sessions of a server, by its pid: ours without one."""
    folders = {folder for name in cgroup.LIMITING if (folder := cgroup.own_folder(name)) is not None}
    found = [folder.glob(f"{cgroup.PREFIX}{server or os.getpid()}-*-limits-*") for folder in folders]
    return sorted(path for paths in found for path in paths)
