"""Starting a command with the standard library alone, where the C library's `posix_spawn` lacks a piece.

That is so with musl and with glibc before 2.34, and for a command that wishes what the C library cannot grant: a umask,
a niceness, a score for the killer of processes, another user. It means what `posix_spawn.start` means, and is several
times slower: Python code has to run between fork and exec.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import subprocess
import termios
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from execsrv._processes import carried_limits
from execsrv._processes.accounts import Account
from execsrv._processes.command import Command
from execsrv._processes.rlimit_mark import Mark

if TYPE_CHECKING:
    from execsrv._processes.limiting.entry import Entry
    from execsrv._processes.limiting.group import LimitGroup

own_score: int | None = None
"""An open descriptor of our own /proc/self/oom_score_adj, where our memory is closed. A child of ours cannot open its
own then, so it gets its score by inheriting it."""


def start(
    command: Command,
    directory: int | None,
    stdio: Sequence[int | None] | bytes,
    child: ctypes.c_int,
    mark: Mark | None = None,
    group: LimitGroup | None = None,
) -> None:
    """Start `command` and write its pid into `child`. It leads a new session, unless it has `inherited` ours.

    `directory` is a descriptor of its working directory, None for ours. `stdio` is either the three descriptors that
    become its 0, 1 and 2, None for one that is to be closed, or the name of a terminal that becomes all three and its
    controlling terminal. It inherits no other, but for `pass_fds` and its `named` file. The wishes of the command
    are granted in the child, and the limits of its `group`. It puts the mark on itself too: this process may have no
    right to, where the child is another user's.

    Raises `OSError` when it could not be executed, and `LimitUnavailableError`; then nothing was left behind. All given
    descriptors stay the caller's, and must be 3 or above where they get another number.
    """
    terminal = os.open(stdio, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC) if isinstance(stdio, bytes) else None
    entry: Entry | None = None
    descriptors = (terminal, terminal, terminal) if isinstance(stdio, bytes) else stdio
    inherited = command.inherited
    lent_score: bytes | None = None
    ignored = inherited.ignored if inherited is not None else frozenset[int]()

    def prepare() -> None:
        for number in signal.valid_signals():
            if number not in (signal.SIGKILL, signal.SIGSTOP, *ignored):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if terminal is not None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for target, descriptor in enumerate(descriptors):
            if descriptor is None:
                os.close(target)
        for slot, value in carried_limits.commands_limits:
            resource.setrlimit(slot, (value, resource.getrlimit(slot)[1]))
        if mark is not None:
            with suppress(OSError, ValueError):  # it is looked after when it runs
                resource.setrlimit(mark.slot, (mark.value, resource.getrlimit(mark.slot)[1]))
        if command.nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, command.nice)
        if lent_score is not None and own_score is not None:
            os.pwrite(own_score, lent_score, 0)  # the server's again, from the first moment on in which it can be
        elif command.oom_score_adj is not None:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(command.oom_score_adj))
        if entry is not None:
            entry.step_in()

    account = command.account
    passed = () if inherited is None else tuple(inherited.pass_fds)
    named = -1 if command.named is None else command.named.file.descriptor
    if command.named is not None:
        passed = (*passed, named)
    env = dict(entry.split(b"=", 1) for entry in command.env_with(named))
    try:
        if group is not None:
            entry = group.open_entry()
        lent_score = None if command.oom_score_adj is None else _lend_score(command.oom_score_adj)
        if account is not None:
            give_streams(account, descriptors if inherited is None or terminal is not None else ())
        popen = subprocess.Popen(
            command.argv,
            executable=command.program,
            env=env,
            # Not in `prepare`, whose errors have no number.
            cwd=None if directory is None else f"/proc/self/fd/{directory}",
            stdin=descriptors[0],
            stdout=descriptors[1],
            stderr=descriptors[2],
            start_new_session=inherited is None or terminal is not None,
            pass_fds=passed,
            umask=-1 if command.umask is None else command.umask,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else account.groups,
            preexec_fn=prepare,
        )
        child.value = popen.pid
    except subprocess.SubprocessError:
        if entry is not None:
            entry.check()
        raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
    finally:
        if lent_score is not None and own_score is not None and not child.value:
            os.pwrite(own_score, lent_score, 0)
        if terminal is not None:
            os.close(terminal)
        if entry is not None:
            entry.close()
    # The pid is all that we keep; the exit status is read by its owner, never by this object.
    popen.returncode = 0


def give_streams(account: Account, descriptors: Sequence[int | None]) -> None:
    """Make the terminal or the pipes of a command its user's, who may open them again by name: /dev/stdout."""
    for descriptor in {descriptor for descriptor in descriptors if descriptor is not None}:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or os.isatty(descriptor):
            os.fchown(descriptor, account.uid, -1)


def _lend_score(score: int) -> bytes | None:
    """Take the score that a child is to have for a moment, and return our own; None where it can set it itself."""
    if own_score is None:
        return None
    ours = os.pread(own_score, 16, 0)
    try:
        os.pwrite(own_score, b"%d" % score, 0)
    except PermissionError:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from None
    return ours
