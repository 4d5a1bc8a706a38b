"""A control group of the server's own, where it may make one: whatever it does, nothing that it starts can leave it.

The guardian moves the server into a new group, below the one it was started in, with what it has started by then; all
that descends from it later is born there. When the server is gone, `cgroup.kill` ends the rest in one atomic step, also
what has shed its mark. See cgroups(7).

Where controllers are handed on to it, the groups that hold limits of sessions are beside it, and end with it; so is
that of the guardian, as nobody may be above then.

One group for the server and not one for each session without limits: a process is moved into a group in 13 ms (the
kernel waits for all processors), eight times what a start takes; and a child can be born in another group only by a
`posix_spawn` of glibc 2.39.

Standard library only: the guardian runs this too.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import time
from pathlib import Path

from execsrv._processes import proc

PREFIX = "execsrv-"
LIMITING = ("memory", "pids", "cpu", "cpuacct")
"""Controllers that hold limits of sessions, or count what they use."""

_GUARDIAN = "-guardian"
_ROUND_MILLISECONDS = 20
_GONE = (errno.ENOENT, errno.ENODEV)


def own_folder(controller: str = "") -> Path | None:
    """Return the folder of the control group that this process is in, as `folder_of` does."""
    return folder_of("self", controller)


def folder_of(pid: int | str, controller: str = "") -> Path | None:
    """Return the folder of the control group that a process is in, None without.

    It is that of a v2 tree (pure or hybrid), or with a controller, that of its v1 hierarchy.
    """
    try:
        lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
        group = next(path for _, names, path in lines if controller in names.split(","))
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, _, more = line.partition(" - ")
            kind, _, options = more.split(" ", 2)
            root, mounted = fields.split()[3:5]
            inside = os.path.relpath(group, root)
            wanted = kind == "cgroup" and controller in options.split(",") if controller else kind == "cgroup2"
            if wanted and not inside.startswith(".."):
                return Path(mounted, inside)
    except (OSError, StopIteration, ValueError):
        pass
    return None


def mounts() -> list[bytes]:
    """Return the folders at which control groups are mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, more = line.partition(b" - ")
        if more.startswith((b"cgroup ", b"cgroup2 ")):
            found.append(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), fields.split()[4]))
    return found


def server_name(server: int, number: int) -> str:
    """Return the name of a server's own group. Those that it makes beside it begin so too."""
    return f"{PREFIX}{server}-{number:x}"


def place_of(prefix: str) -> Path | None:
    """Return the folder for the groups whose names begin so: that of ours, or the group in which we were started."""
    here = own_folder()
    return here.parent if here is not None and here.name.startswith(prefix) else here


def make(name: str) -> Path | None:
    """Return a group of that name below the one that we are in. It is made unless we are in it: then we step out.

    Return None where there is none to be had, or it has no `cgroup.kill` (Linux 5.14). Empty groups that earlier
    servers had to leave behind are removed.
    """
    above = place_of(name)
    if above is None:
        return None
    folder = above / name
    if own_folder() == folder:
        return folder if enter(above) or step_aside(folder) else None
    remove_empty(above)
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    if not (folder / "cgroup.kill").exists() or not os.access(folder.parent / "cgroup.procs", os.W_OK):
        remove(folder)
        return None
    return folder


def enter(folder: Path, pid: int = 0) -> bool:
    """Put a process (0: this one) into a group, which takes some 13 ms. Return whether it is in."""
    try:
        (folder / "cgroup.procs").write_text(str(pid))
    except OSError:
        return False
    return True


def step_aside(folder: Path) -> bool:
    """Step into a group beside that of our server: where controllers are handed on, nobody may be above."""
    aside = folder.with_name(folder.name + _GUARDIAN)
    try:
        aside.mkdir(exist_ok=True)
    except OSError:
        return False
    return enter(aside)


def hands_on(above: Path) -> bool:
    """Tell whether controllers that hold limits could be handed on to the groups in a folder."""
    try:
        return not {*LIMITING}.isdisjoint((above / "cgroup.controllers").read_text().split())
    except OSError:
        return False


def step_out(folder: Path, pid: int = 0) -> bool:
    """Put a process (0: this one) back above the group of a server that is over. Return whether it is there.

    No controllers are handed on from there any more, if that is in the way.
    """
    above = folder.parent
    if enter(above, pid):
        return True
    try:
        handed_on = (above / "cgroup.subtree_control").read_text().split()
        (above / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in handed_on))
    except OSError:
        return False
    return enter(above, pid)


def with_limits(folder: Path) -> list[Path]:
    """Return the group of a server, and those beside it that hold the limits of its sessions."""
    return [folder, *folder.parent.glob(f"{folder.name}-limits-*")]


def leave(folder: Path) -> None:
    """Remove the group of a server that is over, and our own beside it."""
    aside = folder.with_name(folder.name + _GUARDIAN)
    if own_folder() == aside:
        step_out(folder)
    remove(aside)
    remove(folder)


def leave_own(server: int) -> None:
    """Have a server step out of its group with all others there, unless sessions of it have limits beside it."""
    here = own_folder()
    if here is None or not here.name.startswith(f"{PREFIX}{server}-"):
        return
    if not any(here.parent.glob(f"{PREFIX}{server}-*-limits-*")):
        for pid in members(here):
            step_out(here, pid)
        remove(here)


def holds(folder: Path) -> bool:
    """Tell whether anything lives in a group or below it. An error but that it is gone says nothing, so it may."""
    try:
        return "populated 1" in (folder / "cgroup.events").read_text()
    except OSError as error:
        return error.errno not in _GONE


def members(folder: Path) -> list[int]:
    """Return the processes that have a thread in a group or below it.

    By their threads: one whose first thread had ended when it was moved is not listed as a process.
    """
    found: set[int] = set()
    for below in [folder, *folder.rglob("*/")]:
        try:
            threads = (below / "cgroup.threads").read_text().split()
        except OSError as error:
            if error.errno in _GONE:
                continue  # removed meanwhile
            raise
        found |= {proc.process_of(int(thread)) for thread in threads}
    return sorted(found - {0})


def kill(folder: Path, seconds: float) -> bool:
    """Kill all that is in a group and below, and wait that long for it to be gone. Return whether it is."""
    deadline = time.monotonic() + seconds
    try:
        events = os.open(folder / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return not holds(folder)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        (folder / "cgroup.kill").write_text("1")
        while holds(folder) and time.monotonic() < deadline:
            # The kernel's own way leaves out a process whose first thread has ended, but not the others.
            for pid in members(folder):
                proc.send(pid, signal.SIGKILL, lambda pid: pid in members(folder))
            poll.poll(_ROUND_MILLISECONDS)
            os.pread(events, 100, 0)
    except OSError:
        pass
    finally:
        os.close(events)
    return not holds(folder)


def kill_others(folder: Path, spared: int) -> bool:
    """Kill all that is in a group and below, but for one process. Return whether nothing is left but that."""
    try:
        for number in (signal.SIGSTOP, signal.SIGKILL):  # who is stopped forks no more
            for pid in members(folder):
                if pid != spared:
                    proc.send(pid, number, lambda pid: pid in members(folder))
        return not set(members(folder)) - {spared}
    except OSError:
        return False


def remove(folder: Path) -> None:
    """Remove an empty group, with the empty ones below it that inner servers have left. One in use stays."""
    try:
        for below in [entry for entry in folder.iterdir() if entry.is_dir()]:
            remove(below)
        folder.rmdir()
    except OSError:
        pass


def remove_empty(folder: Path) -> None:
    """Remove the empty groups of servers that are gone directly in a folder. One that lives may be about to use its."""
    try:
        for left in folder.glob(f"{PREFIX}*"):
            server = left.name.removeprefix(PREFIX).partition("-")[0]
            if not (server.isdigit() and proc.living(int(server))):
                remove(left)
    except OSError:
        pass


def limits_name(server: int, number: int, session: int | str) -> str:
    """Return the name of the groups that hold the limits of a session of a server, or "*" for a pattern of all."""
    return f"{server_name(server, number)}-limits-{session}"


def remove_limits(server: int, number: int) -> None:
    """Remove the groups that hold the limits of the sessions of a server, which are over."""
    for folder in (place_of(server_name(server, number)), *map(own_folder, LIMITING)):
        if folder is not None:
            for left in folder.glob(limits_name(server, number, "*")):
                remove(left)
