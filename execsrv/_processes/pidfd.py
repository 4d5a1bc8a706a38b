"""Pidfds, and what is left where a machine refuses them.

Container engines and sandboxes answer EPERM or ENOSYS to calls that they do not know, whatever the kernel could do. So
each call is tried on this machine, once, on this very process, and its error is never taken for news of a process: only
ESRCH, and its like for a thread's id, say that there is none.

Standard library only: the guardian runs this too.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable
from functools import cache

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors that only say that we have no means to ask just now."""

_GONE = (errno.ESRCH, errno.ENOENT, errno.EINVAL)
"""No such process; the last two, by the kernel's age, are for the id of a thread that leads none."""

_SEND_SIGNAL, _OPEN = 424, 434  # <asm-generic/unistd.h>


def refusal(call: Callable[[], object]) -> int:
    """Return the errno with which a call is refused here, 0 where it works. Raises `OSError` when that cannot be said.

    It cannot without a descriptor or memory to try with.
    """
    try:
        call()
    except OSError as error:
        if error.errno in SHORT:
            raise
        return error.errno or errno.ENOSYS
    return 0


@cache
def open_refusal() -> int:
    """Return the errno with which this machine refuses `pidfd_open`, 0 where it works."""
    return refusal(lambda: os.close(_open(os.getpid())))


@cache
def send_refusal() -> int:
    """Return the errno with which this machine refuses `pidfd_send_signal`, 0 where it works. Needs a pidfd."""

    def send_nothing() -> None:
        pidfd = _open(os.getpid())
        try:
            _send(pidfd, 0)
        finally:
            os.close(pidfd)

    return open_refusal() or refusal(send_nothing)


def open_pidfd(pid: int) -> int | None:
    """Return a pidfd of a process, None where this machine refuses one.

    Raises `ProcessLookupError` when there is no such process, and `OSError` without a descriptor to have one.
    """
    try:
        return _open(pid)
    except OSError as error:
        if error.errno in SHORT:
            raise
        if error.errno in _GONE and not open_refusal():
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
        return None


def has_ended(pidfd: int) -> bool:
    """Tell whether the process that a pidfd names has ended: it is a zombie, or reaped."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def send_signal(pid: int, pidfd: int | None, number: int, flags: int = 0) -> None:
    """Send a signal to a process, through its pidfd where that can be, else by its number.

    By number it may reach a stranger who was given it in the instant since the caller looked, unless the process is a
    child that we have not reaped. Raises `PermissionError` where we may not, and `ProcessLookupError`.
    """
    if pidfd is not None:
        try:
            _send(pidfd, number, flags)
            return
        except ProcessLookupError:
            raise
        except OSError:
            if flags or not send_refusal():
                raise
    os.kill(pid, number)


# Some interpreters were built on a system that is older than the kernel that they run on.


def _open(pid: int) -> int:
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    return _call(_OPEN, pid, 0)


def _send(pidfd: int, number: int, flags: int = 0) -> None:
    if hasattr(signal, "pidfd_send_signal"):
        signal.pidfd_send_signal(pidfd, number, None, flags)
    else:
        _call(_SEND_SIGNAL, pidfd, number, 0, flags)


def _call(*words: int) -> int:
    import ctypes  # seldom needed

    result = int(ctypes.CDLL(None, use_errno=True).syscall(*map(ctypes.c_long, words)))
    if result < 0:
        raise OSError(number := ctypes.get_errno(), os.strerror(number))
    return result
