"""The reasons for which a command could not be started, made of what was asked and the system's number."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from typing import ParamSpec

from execsrv._processes.command import MOST_STRING_BYTES, Command, spawn_error
from execsrv._processes.pidfd import SHORT
from execsrv.errors import SpawnError

P = ParamSpec("P")


def shortage_told(start: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Do that. Raises `SpawnError` where something on the way could not be looked at for want of descriptors."""
    try:
        start(*args, **kwargs)
    except OSError as error:
        if error.errno not in SHORT:
            raise
        raise spawn_error("resources", error.errno, "start") from error


def of_no_means() -> SpawnError:
    """Return the error of a start whose processes nobody could keep hold of."""
    message = (
        "cannot start: this machine has no means to keep hold of processes, so nothing would end what takes flight"
    )
    return SpawnError(f"{message}; `execsrv doctor` says what it refuses", stage="resources", errno=errno.ENOSYS)


def of_directory(command: Command, number: int) -> SpawnError:
    """Return the error of a directory that cannot be entered."""
    return spawn_error("cwd", number, f"start in `{os.fsdecode(command.cwd or b'.')}`")


def of_program(command: Command, number: int) -> SpawnError:
    """Return which of the steps between fork and exec has failed: the number alone does not tell."""
    program = f"run `{os.fsdecode(command.program)}`"
    if number == errno.EACCES:
        if command.cwd is not None and not os.access(command.cwd, os.X_OK):
            return of_directory(command, number)
        return spawn_error("permission", number, program)
    if number == errno.EPERM and command.has_wishes:
        return of_wishes(command, number)
    if number == errno.ENOEXEC:
        return spawn_error("format", number, program)
    if number == errno.E2BIG:
        return spawn_error("arguments", number, f"{program}, {_too_long(command)}")
    if number in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return spawn_error("resources", number, program)
    if number == errno.ENOENT and os.path.exists(os.path.join(command.cwd or b".", command.program)):
        program += ", whose interpreter is missing"
    return spawn_error("program", number, program)


def of_wishes(command: Command, number: int) -> SpawnError:
    """Return the error of a process that may not differ from ours as it was asked for."""
    wishes = {
        "umask": command.umask,
        "nice": command.nice,
        "oomScoreAdj": command.oom_score_adj,
        "user": None if command.account is None else command.account.name,
    }
    named = ", ".join(f"{name} {value}" for name, value in wishes.items() if value is not None)
    return spawn_error("permission", number, f"run `{os.fsdecode(command.program)}` with {named}")


def _too_long(command: Command) -> str:
    """Return which string is longer than the kernel takes, or that all of them are together."""
    named = [(f"argv[{i}]", word) for i, word in enumerate(command.argv)]
    named += [(f"env `{os.fsdecode(word.partition(b'=')[0])[:100]}`", word) for word in command.env]
    for name, word in named:
        if len(word) > MOST_STRING_BYTES:
            return f"{name} has {len(word)} bytes and the kernel takes at most {MOST_STRING_BYTES} of one string"
    total = sum(len(word) + 9 for _, word in named)  # each with its end and a pointer
    # execve(2): a quarter of the stack, and never more than three quarters of 8 MiB.
    try:
        stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    except OSError:  # some machines refuse to tell
        stack = resource.RLIM_INFINITY
    most = 6 << 20 if stack == resource.RLIM_INFINITY else min(stack // 4, 6 << 20)
    return f"argv and env have {total} bytes and the kernel takes about {most} of all together"
