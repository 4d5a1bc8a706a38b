"""Making the control groups of a command, and finding out beforehand whether this machine lets us.

A group that cannot be made as it was asked for is refused, with the step, its errno and what it takes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from execsrv._processes import cgroup, portable_spawn
from execsrv._processes.command import Command
from execsrv._processes.limiting.delegated import open_place
from execsrv._processes.limiting.entry import unavailable
from execsrv._processes.limiting.files import V1, V2, Setting, Version
from execsrv._processes.limiting.group import LimitGroup, Part
from execsrv._processes.pidfd import SHORT
from execsrv.protocol.process_limits import ProcessLimits


class _Wish(NamedTuple):
    """A limit by its name on the wire, and the controller that holds it. Without a value, one that only counts."""

    field: str
    controller: str
    value: int | None


def make(limits: ProcessLimits, server: int, session: int, *, moves: bool) -> LimitGroup:
    """Return the limits of a session of a server, with the groups that they take.

    Where it `moves`, this process may be put into another group for that. Raises `LimitUnavailableError` for a limit
    that cannot be kept, and `OSError` for want of descriptors. Then nothing is left behind.
    """
    made = LimitGroup(limits)
    all_of_it = [
        _Wish("memoryBytes", "memory", limits.memory_bytes),
        _Wish("processes", "pids", limits.processes),
        _Wish("cpuPercent", "cpu", limits.cpu_percent),
    ]
    wishes = [wish for wish in all_of_it if wish.value is not None]
    if not wishes:
        return made
    name = cgroup.limits_name(os.getpid(), server, session)
    places = {controller: cgroup.own_folder(controller) for controller in cgroup.LIMITING}
    others = [wish for wish in wishes if places[wish.controller] is None]
    try:
        place = None
        if others:
            place = open_place(others[0].field, [wish.controller for wish in others], server, moves=moves)
        for wish in [*wishes, _Wish("cpuSeconds", "cpuacct", None)]:
            if (above := places[wish.controller]) is not None:
                _add(made, wish, V1, above / name)
            elif place is not None:
                _add(made, wish, V2, place / name)
    except BaseException:
        made.remove()
        raise
    return made


def _add(made: LimitGroup, wish: _Wish, version: Version, folder: Path) -> None:
    """Make the group of a controller, unless it has that of another, and set its limit."""
    if folder not in made.folders:
        _clean(folder.parent)
        try:
            folder.mkdir()
        except OSError as error:
            need = f"the right to make a control group in {folder.parent}"
            raise unavailable(wish.field, f"make {folder}", error.errno or 0, need) from None
    made.parts.append(Part(wish.controller, folder, version))
    for setting in version.settings[wish.controller](wish.value or 0):
        _set(wish.field, folder, setting)


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
        if error.errno in SHORT:
            raise
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
    group = None
    try:
        group = make(limits, secrets.randbits(31), 0, moves=True)
        child = ctypes.c_int()
        with open(os.devnull, "r+") as null:
            command = Command(b"/bin/sh", (b"sh", b"-c", b":"), (), None)
            portable_spawn.start(command, None, [null.fileno()] * 3, child, None, group)
        os.waitpid(child.value, 0)
        return group.parts[0].version.number
    finally:
        if group is not None:
            group.remove()
        cgroup.leave_own(os.getpid())
