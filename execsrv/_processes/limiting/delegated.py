"""The place for groups of version 2: a folder whose controllers are ours to hand on, and in which no process is.

The kernel hands controllers on only where no process is; the root is the one exception. So the server and all that
descends from it step into the server's own group below the one that they were started in, unless its guardian has put
them there already: for the first command with a limit that takes it, and only where everybody there is ours. See "No
Internal Process Constraint" in the kernel's admin-guide/cgroup-v2.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Collection
from pathlib import Path

from execsrv._processes import cgroup, pidfd, proc
from execsrv._processes.limiting.entry import unavailable
from execsrv._processes.spare_descriptors import check_descriptors

_TRIES = 20
"""So often it is begun again because somebody was born meanwhile in the group that all are to leave."""

_LOOKS = 5
"""So often processes that seem to be strangers are looked for among our own."""

_turn = threading.Lock()


def open_place(field: str, controllers: Collection[str], server: int, *, moves: bool) -> Path:
    """Return the folder for groups of commands with these controllers.

    Unless it `moves`, this process stays in its group. Raises `LimitUnavailableError`, and `OSError` without a
    descriptor to look with.
    """
    name = cgroup.server_name(os.getpid(), server)
    with _turn:
        place = cgroup.place_of(f"{cgroup.PREFIX}{os.getpid()}-")
        if place is None:
            check_descriptors()
            need = f"control groups with the controllers {', '.join(controllers)}"
            raise unavailable(field, "find its control group", errno.ENOENT, need)
        missing = set(controllers) - set(_words(place, "cgroup.subtree_control"))
        if missing:
            _hand_on(field, sorted(missing), place, name, moves)
        if moves and cgroup.own_folder() == place:
            # A command is born where we are, and our guardian puts there whom it finds above. So nobody is to be born
            # above who is to step into a group of its own.
            _enter(field, place / name, os.getpid())
        return place


def _hand_on(field: str, controllers: list[str], place: Path, name: str, moves: bool) -> None:
    """Have the groups in a folder get controllers. Raises `LimitUnavailableError`."""
    wanted = ", ".join(controllers)
    if lacking := set(controllers) - set(_words(place, "cgroup.controllers")):
        need = f"a control group with these controllers delegated to it, as by Delegate=yes of systemd: {wanted}"
        raise unavailable(field, f"find {', '.join(sorted(lacking))} in {place}", errno.ENOENT, need)
    for _ in range(_TRIES):
        if (place / "cgroup.type").exists():  # which the root has not
            _leave(field, place, name, moves)
        try:
            (place / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in controllers))
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                need = f"the right to hand the controllers {wanted} on"
                raise unavailable(field, f"write to {place}/cgroup.subtree_control", error.errno or 0, need) from None
    raise unavailable(field, f"leave {place}", errno.EBUSY, "all who are there to be put into a group below")


def _words(place: Path, file: str) -> list[str]:
    try:
        return (place / file).read_text().split()
    except OSError as error:
        if error.errno in pidfd.SHORT:
            raise
        return []


def _leave(field: str, place: Path, name: str, moves: bool) -> None:
    """Have all who are in a group step into groups below it. Raises `LimitUnavailableError` for a stranger."""
    there = {int(pid) for pid in _words(place, "cgroup.procs")}
    if not there:
        return
    family = set(proc.family([os.getpid()]))
    if there & family and not moves:
        need = "a server that may step into a group below: with `--cgroup`, or with `own_process` in another program"
        raise unavailable(field, f"leave {place}", errno.EBUSY, need)
    if strangers := _strangers(there - family):
        step = f"hand controllers on in {place}, where others are: {_named(strangers)}"
        need = "a control group of its own, as of a service or by `systemd-run --user --scope -p Delegate=yes`"
        raise unavailable(field, step, errno.EBUSY, need)
    for pid in sorted(there):
        _enter(field, place / name, pid)


def _strangers(there: set[int]) -> set[int]:
    """Return who lives of these and does not descend from us.

    They are looked for again: a look misses who loses its parent meanwhile, and with it all that descends from it.
    """
    for _ in range(_LOOKS):
        there = {pid for pid in there if proc.living(pid)}
        if not there:
            break
        there -= set(proc.family([os.getpid()]))
    return there


def _enter(field: str, folder: Path, pid: int) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        need = f"the right to make a control group in {folder.parent}"
        raise unavailable(field, f"make {folder}", error.errno or 0, need) from None
    cgroup.enter(folder, pid)


def _named(pids: set[int]) -> str:
    return ", ".join(f"{pid} ({proc.name(pid)})" for pid in sorted(pids)[:5])
