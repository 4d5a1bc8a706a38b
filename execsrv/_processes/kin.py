"""Telling whether somebody who comes from outside is of one of our sessions: a process, or whoever holds a socket.

A command that may reach our door must not come in by it as the user that it runs as. Where it cannot be told, the
answer is yes. All of this reads the process table, and so runs in threads; it changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from execsrv._processes import proc
from execsrv._processes.membership import Register


class Kin:
    """All processes of all sessions of a server."""

    def __init__(self, register: Register, *, sole: bool) -> None:
        """With `sole`, all children of this process but its helpers are of sessions, whatever they carry."""
        self._register = register
        self._sole = sole

    def __repr__(self) -> str:
        return f"<Kin of {len(self._register.trees)} sessions>"

    def __bool__(self) -> bool:
        """Return True where there may be any."""
        return bool(self._register.trees or self._register.starting or (self._sole and self._strays()))

    def has_process(self, pid: int) -> bool:
        """Return True for one of them, and for a process that is gone, which may have been one."""
        own = os.getpid()
        below = 0
        while pid not in (own, 0, 1):
            if pid in self._register.helpers:
                return False
            if self._register.session_of(pid) is not None:
                return True
            parent = proc.parent(pid)
            if not parent and not below and not proc.living(pid):
                return True
            pid, below = parent, pid
        return pid == own and below != 0 and self._sole

    def has_socket(self, inode: int, uid: int) -> bool:
        """Return True where one of them holds a socket that a user has made, or may hold it.

        Another process that shows the socket among its descriptors settles the question. Where none does, a process of
        ours may still hold it: its descriptors cannot be read, or the socket is on its way in a message (SCM_RIGHTS)
        that nobody has received yet. The answer is then False only if somebody else hides its descriptors, this server
        is neither that user nor root, and all of ours show theirs.
        """
        link = f"socket:[{inode}]"
        own = os.getpid()
        if link in _open_files(f"/proc/{own}"):
            return False
        members = self._members()
        hides = False
        for pid in reversed(proc.listed()):  # who came last is asked first
            try:
                # Who hides its descriptors is root's in this table.
                is_asked = pid != own and pid not in members and os.stat(f"/proc/{pid}").st_uid in (uid, 0)
                if is_asked and link in _open_files(f"/proc/{pid}"):
                    return self.has_process(pid)
            except PermissionError:
                hides = True
            except (FileNotFoundError, ProcessLookupError):
                pass  # it is gone
        if not hides or os.geteuid() in (uid, 0):
            return True
        return not all(_shows_all(pid, link) for pid in members)

    def _strays(self) -> set[int]:
        """Return those children that the kernel has given us: the first thread gets them."""
        return set(proc.children_of_thread(os.getpid())) - self._register.helpers

    def _children(self) -> set[int]:
        return set(proc.children(os.getpid())) - self._register.helpers

    def _members(self) -> set[int]:
        if self._sole:
            return set(proc.family(self._children()))
        return {pid for pid, _ in proc.walk(self._register.session_of)}


def _shows_all(pid: int, link: str) -> bool:
    """Return True where a process shows all that it has open, in every thread, and this is not among it."""
    try:
        # Each thread may have descriptors of its own.
        tasks = [f"/proc/{pid}/task/{thread}" for thread in _listed(f"/proc/{pid}/task")]
        return all(link not in _open_files(task) for task in tasks) and proc.living(pid)
    except PermissionError:
        return False


def _open_files(task: str) -> Iterator[str]:
    """Yield what is open in a folder of the process table. Raises `PermissionError` where that is not shown."""
    for descriptor in _listed(f"{task}/fd"):
        try:
            yield os.readlink(f"{task}/fd/{descriptor}")
        except (FileNotFoundError, ProcessLookupError):
            pass  # closed meanwhile


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError):
        return []  # it is gone
