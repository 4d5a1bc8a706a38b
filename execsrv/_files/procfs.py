"""The directories of processes in /proc, which no file method enters: not the server's own, and no other's.

They hold memory, environments and open files: whoever reaches them has every secret of the server, and may write into
its memory. A /proc is known by its kind, since it may be mounted anywhere, and for any namespace of processes.
"""

from __future__ import annotations

import ctypes
import errno
import os

_PROC_SUPER_MAGIC = 0x9FA0
_ROOT_INODE = 1

_TOLD = frozenset({"cgroup", "limits", "mountinfo", "mounts", "net", "status"})
"""Facts of a process that hold no secret and no address, and can be read only.

/proc/mounts and /proc/net are links to them."""

_libc = ctypes.CDLL(None, use_errno=True)


def check_step(directory: int, name: str, following: str | None) -> None:
    """Raise `PermissionError` for a name in an open directory that leads to a process, or to the memory of all.

    `following` is the next name on the way, None at its end.
    """
    if not (name.isdecimal() or name == "kcore") or following in _TOLD:
        return
    if os.fstat(directory).st_ino == _ROOT_INODE and _is_proc(directory):
        raise _refused()


def check_root(directory: int) -> None:
    """Raise `PermissionError` for an open directory that is in one of a process."""
    if not _is_proc(directory):
        return
    here = os.dup(directory)
    try:
        while os.fstat(here).st_ino != _ROOT_INODE and _is_proc(here):
            try:
                os.stat("environ", dir_fd=here)
            except FileNotFoundError:
                pass
            else:
                raise _refused()
            above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = above
    finally:
        os.close(here)


def _is_proc(directory: int) -> bool:
    """Return whether an open directory is in a /proc. The type is the first word of `struct statfs`: statfs(2)."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(directory, buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ctypes.c_long.from_buffer(buffer).value == _PROC_SUPER_MAGIC


def _refused() -> PermissionError:
    return PermissionError(errno.EACCES, "Permission denied: file methods do not enter the directories of processes")
