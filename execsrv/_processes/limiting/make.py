"""Making the control groups of a command, and finding out beforehand whether this machine lets us.

A group that cannot be made as it was asked for is refused, with the step, its errno and what it takes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from pathlib import Path

from execsrv._processes import cgroup, portable_spawn
from execsrv._processes.command import Command
from execsrv._processes.limiting.entry import unavailable
from execsrv._processes.limiting.files import V1, Setting
from execsrv._processes.limiting.group import LimitGroup, Part
from execsrv.protocol import ProcessLimits


def make(limits: ProcessLimits, server: int, session: int) -> LimitGroup:
    """Return the limits of a session of a server, with the groups that they take.

    Raises `LimitUnavailableError` for one that cannot be kept. Then nothing is left behind.
    """
    made = LimitGroup(limits)
    name = cgroup.limits_name(os.getpid(), server, session)
    try:
        for field, controller, value in (
            ("memoryBytes", "memory", limits.memory_bytes),
            ("processes", "pids", limits.processes),
            ("cpuPercent", "cpu", limits.cpu_percent),
        ):
            if value is not None:
                above = cgroup.own_folder(controller)
                if above is None:
                    need = f"control groups of version 1 with the controller {controller}"
                    raise unavailable(field, f"find the controller {controller}", errno.ENOENT, need)
                _add(made, field, controller, value, above, name)
        if made.parts and (above := cgroup.own_folder("cpuacct")) is not None:
            _add(made, "cpuSeconds", "cpuacct", 0, above, name)  # which only counts
    except BaseException:
        made.remove()
        raise
    return made


def _add(made: LimitGroup, field: str, controller: str, value: int, above: Path, name: str) -> None:
    """Make the group of a controller below a folder, unless it has that of another, and set its limit."""
    folder = above / name
    if folder not in made.folders:
        _clean(above)
        try:
            folder.mkdir()
        except OSError as error:
            need = f"the right to make a control group in {above}"
            raise unavailable(field, f"make {folder}", error.errno or 0, need) from None
    made.parts.append(Part(controller, folder, V1))
    for setting in V1.settings[controller](value):
        _set(field, folder, setting)


def _set(field: str, folder: Path, setting: Setting) -> None:
    file = folder / setting.file
    if setting.of_swap and not file.exists():
        if _has_swap():
            raise unavailable(
                field, f"find {file}", errno.ENOENT, "a kernel that counts swap, or a machine without any"
            )
        return
    try:
        file.write_text(setting.text)
    except OSError as error:
        need = f"a value that the groups above {folder} leave room for"
        raise unavailable(field, f"write {setting.text} to {file}", error.errno or 0, need) from None


_cleaned = set[Path]()


def _clean(above: Path) -> None:
    """Remove what servers that were killed together with their guardians had to leave behind, once."""
    if above not in _cleaned:
        _cleaned.add(above)
        cgroup.remove_empty(above)


def _has_swap() -> bool:
    with open("/proc/swaps") as swaps:
        return len(swaps.readlines()) > 1


def trial(limits: ProcessLimits) -> int:
    """Run a command with limits that take control groups, and return which version of those has kept them.

    Raises `LimitUnavailableError`, and `OSError` where no command can be run at all.
    """
    group = make(limits, secrets.randbits(31), 0)
    try:
        child = ctypes.c_int()
        with open(os.devnull, "r+") as null:
            command = Command(b"/bin/sh", (b"sh", b"-c", b":"), (), None)
            portable_spawn.start(command, None, [null.fileno()] * 3, child, None, group)
        os.waitpid(child.value, 0)
        return group.parts[0].version.number
    finally:
        group.remove()
