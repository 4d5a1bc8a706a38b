"""Starting a command: one way for pipes and for terminals.

A started command leads its own session and process group, has default signals, the environment and directory that were
settled, and no descriptor but its 0, 1 and 2. What the server keeps is non-blocking.

`spawn` makes system calls alone and touches no state of the server, so that it may wait for a slow file system wherever
its caller likes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from execsrv._processes import (
    carried_limits,
    pidfd,
    portable_spawn,
    posix_spawn,
    proc,
    spawn_errors,
    stream_ends,
    subreaper,
    terminal,
)
from execsrv._processes.command import Command, later, spawn_error
from execsrv._processes.rlimit_mark import Mark
from execsrv._processes.starting_threads import begin_start
from execsrv.errors import SpawnError
from execsrv.protocol import Size, Stream

if TYPE_CHECKING:
    from execsrv._processes.limiting.group import LimitGroup

start = posix_spawn.start if posix_spawn.available else portable_spawn.start


class Started:
    """A command from its first instant: its leader, and the server's ends of its streams.

    It is made before the command, and knows it from the moment on in which it is born, whatever happens then. The
    descriptors belong to whoever holds this. A terminal is its one output and its input at once; `held` is its other
    end, kept open so that the terminal lasts as long as its leader.
    """

    def __init__(self) -> None:
        self.child = ctypes.c_int()  # written by whatever starts it: no instruction of ours comes in between
        self.pidfd: int | None = None
        self.reaper: int | None = None
        """The first process of its pid namespace, where it has one of its own: a child of ours too."""
        self.reaper_pidfd: int | None = None
        self.born_after = -math.inf
        """A time before which it was not born."""
        self.is_watched = False
        """True when it has its mark, and its pidfd, unless this machine refuses one."""
        self.outputs: dict[Stream, int] = {}
        self.stdin: int | None = None
        self.held: int | None = None
        self.given_up = False
        """True when nobody waits for it any more: it is not to be born, or to be undone."""
        self.is_coming = False
        """True when whoever gives it up comes too late for it not to be born."""
        self.thread = 0
        """The thread that starts it."""
        self.carried: Mark | None = None
        """The mark that it has from its first instant."""
        self.siblings: Sequence[int] = ()
        """Children that the thread had before, where no mark tells them from the new one."""

    @property
    def pid(self) -> int:
        """The leader's pid, 0 before it is born."""
        return self.child.value

    def close(self) -> None:
        """Close all that is open of it. It may be called again."""
        ours = *self.outputs.values(), self.stdin, self.held, self.pidfd, self.reaper_pidfd
        descriptors = {end for end in ours if end is not None}
        self.outputs, self.stdin, self.held, self.pidfd, self.reaper_pidfd = {}, None, None, None, None
        for descriptor in descriptors:
            os.close(descriptor)

    def undo(self, mark: Mark | None) -> None:
        """Kill it at once, with what it has started in its first instant, reap it, and close its streams."""
        self.close()  # which leaves room to look for what it has started
        if not self.pid:
            return
        if self.reaper is not None:  # whose end is that of all there
            from execsrv._processes.confine import starter

            starter.dismiss(starter.Pids(self.pid, self.reaper))
        else:
            _kill_at_once(self.pid, mark)
        self.child.value = 0


def spawn(
    command: Command,
    size: Size | None,
    pipe_stdin: bool,
    mark: Mark | None,
    *,
    carries: bool,
    modes: Mapping[str, bool | int] = terminal.DEFAULT_MODES,
    started: Started | None = None,
    group: LimitGroup | None = None,
) -> Started:
    """Start `command` on a terminal of `size`, or on pipes where that is None, and return it running.

    Without `pipe_stdin` a piped command reads an empty stdin. One that `carries` its mark does so from its first
    instant, since this process carries it for that time, as it does no mark for a command without; otherwise it is put
    on the command that runs already. It has the limits of a `group` before its program runs.

    Blocks as long as the file system of the directory or of the program does. Raises `SpawnError`, and
    `LimitUnavailableError` with a group; then nothing is left behind. It fills `started`, so that another thread knows
    of it as soon as it is born.
    """
    if not subreaper.hears_children() and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        message = "cannot start: SIGCHLD is ignored in this process, so exit statuses are lost"
        raise SpawnError(message, stage="resources", errno=errno.ECHILD)
    started = started or Started()
    try:
        with stream_ends.Descriptors() as its:
            stdio = stream_ends.open_stdio(command, size, modes, pipe_stdin, started, its)
            directory = stream_ends.open_directory(command, its)
            started.thread = threading.get_native_id()
            begin_start()
            if started.given_up:  # and so carries nothing for it, whose number is of no session any more
                raise spawn_error("resources", errno.ECANCELED, "start")
            turn: AbstractContextManager[None] = nullcontext()
            if carries or mark is None:
                turn, started.carried = carried_limits.Turn(mark), mark
            else:
                started.siblings = proc.children_of_thread(started.thread)
            with turn:
                started.is_coming = True  # before the question: one of the two sees the other
                if started.given_up:
                    raise spawn_error("resources", errno.ECANCELED, "start")
                started.born_after = time.monotonic()
                put = None if carries else mark

                def begin(command: Command) -> None:
                    if command.confinement is None:
                        _start(command, directory, stdio, started.child, put, group)
                    else:
                        from execsrv._processes.confine import start as confine

                        started.reaper = confine.start(command, command.confinement, stdio, started.child, put, group)

                try:
                    begin(command)
                except SpawnError as error:
                    _begin_later(command, error, begin)
        # The command's ends are closed here, which leaves room for its pidfd.
        _hold(started, None if carries or command.confinement is not None else mark)
    except OSError as error:
        started.undo(mark)
        raise spawn_error("resources", error.errno or 0, "start") from error
    except BaseException:
        started.undo(mark)
        raise
    return started


def _begin_later(command: Command, error: SpawnError, begin: Callable[[Command], None]) -> None:
    """Start a command that may not run its program with the next of that name in its PATH, as execvp(3) does.

    It was looked up with our rights, and another user, or one who is confined, may have fewer.
    """
    for other in later(command) if _is_withheld(error) else ():
        try:
            begin(other)
        except SpawnError as found:
            if not _is_withheld(found):
                raise
        else:
            return
    raise error


def _is_withheld(error: SpawnError) -> bool:
    return (error.stage, error.errno) == ("permission", errno.EACCES)


def kill_newborn(started: Started) -> None:
    """Kill a command that another thread is starting, if it is born and still on its way to its program."""
    if not started.thread or started.pid:
        return

    def newborn() -> list[int]:
        if started.carried is not None:
            return carried_limits.born(started.thread, started.carried)
        return [pid for pid in proc.children_of_thread(started.thread) if pid not in started.siblings]

    for pid in newborn():
        proc.send(pid, signal.SIGKILL, lambda pid: pid in newborn())


def _kill_at_once(leader: int, mark: Mark | None) -> None:
    """Kill a leader that nobody knows yet, and what it has started, and reap it.

    Where nothing can be looked at, for want of descriptors, that is what is in its process group.
    """

    def members() -> list[int]:
        if mark is None:
            return []
        return [pid for pid, _ in proc.walk(lambda pid: 0 if mark.is_on(pid) else None, since=leader)]

    def send(number: int) -> None:  # by its number, which is nobody else's: we have not reaped it
        with suppress(PermissionError):
            os.kill(leader, number)

    send(signal.SIGSTOP)  # a shell whose child was killed would go on
    try:
        family = [*proc.family([leader]), *members()]
        while family:
            for pid in reversed(family):
                proc.send(pid, signal.SIGKILL, lambda pid: True)
            family = members()
    except OSError:
        with suppress(ProcessLookupError, PermissionError):  # it may lead no group yet
            os.killpg(leader, signal.SIGKILL)
    send(signal.SIGKILL)
    os.waitpid(leader, 0)


def _start(
    command: Command,
    directory: int | None,
    stdio: Sequence[int | None] | bytes,
    child: ctypes.c_int,
    mark: Mark | None,
    group: LimitGroup | None,
) -> None:
    in_child = command.has_wishes or group is not None
    if carried_limits.commands_limits and not in_child:
        ends = () if isinstance(stdio, bytes) else stdio
        named = 0 if command.named is None else command.named.file.descriptor
        in_child = not carried_limits.may_be_carried(max(directory or 0, *(end or 0 for end in ends), named))
    try:
        if in_child:
            portable_spawn.start(command, directory, stdio, child, mark, group)
        else:
            start(command, directory, stdio, child)
    except OSError as error:
        raise spawn_errors.of_program(command, error.errno or 0) from None


def _hold(started: Started, mark: Mark | None) -> None:
    """Open a pidfd of a new leader, after putting a mark on it. Who cannot be watched must not run."""
    if mark is not None:
        mark.put(started.pid)
        if proc.last_pid() != started.pid:  # it may have started something meanwhile, on a busy machine
            for child in proc.family(proc.children(started.pid)):
                mark.put(child)
    started.pidfd = pidfd.open_pidfd(started.pid)
    if started.reaper is not None:
        started.reaper_pidfd = pidfd.open_pidfd(started.reaper)
    started.is_watched = True


def widen(pipe: int, size: int) -> None:
    """Make a pipe that has shown itself busy `size` bytes wide, where this user may.

    Not done at the start: the width of all pipes of a user is bounded together (pipe(7), pipe-user-pages-soft), and
    most commands print little.
    """
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
    except OSError:
        pass  # more than this user may have: it stays as it was, and slower
