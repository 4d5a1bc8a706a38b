"""The one command of `execsrv run`, here or there: what was asked for, its times, what signals mean, and its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import trio
from msgspec import Struct

from execsrv._cli.heard_signals import Heard
from execsrv._cli.register.kinds import OWN_FAILURE
from execsrv._cli.register.running import DEFAULT_GRACE_SECONDS
from execsrv._cli.streams import say
from execsrv._wire.writing import write_all
from execsrv.protocol import Member
from execsrv.protocol.process_limits import ProcessUsage

TIMED_OUT = 124
"""The exit status as in timeout(1). As in env(1), 126 is not executable and 127 not found."""

_AFTERMATH_SECONDS = 2.0
"""The most of the grace for what outlives the command: its caller waits for nothing else."""

QUIET_SECONDS = 0.2
"""Silence after which streams count as at their end, and time for what is about to end by itself."""

FLOOD_SECONDS = 2.0
"""The most time for which streams are read that are not quiet after the end of the command."""

_AGAIN_SECONDS = 5.0
"""For so long a second SIGINT means more than the first. Later it is just another one."""

_ECHO_SECONDS = 0.01
"""A parent that leads our process group and asks twice in so short a time has asked us and then all: timeout(1)."""

_NAMED = 5
"""So many processes that outlived the command are named."""


class RunOptions(Struct, frozen=True):
    """A command and its options. Without a `url` it runs here; that of a `pool` is its text.

    `env` is `NAME=VALUE`, `secret_env` is `NAME=SECRET`. Times are in seconds. With `is_init` signals are passed on as
    they come, and mean nothing to us.
    """

    argv: Sequence[str]
    url: str | None = None
    pool: str | None = None
    label: Sequence[str] = ()
    tty: bool = False
    interactive: bool = False
    no_stdin: bool = False
    detach: bool = False
    name: str | None = None
    user: str | None = None
    runner: str | None = None
    cwd: str | None = None
    env: Sequence[str] = ()
    env_file: Sequence[str] = ()
    secret_env: Sequence[str] = ()
    pass_fd: Sequence[int] = ()
    sandbox: str | None = None
    no_network: bool = False
    read_only: bool = False
    hide: Sequence[str] = ()
    or_landlock: bool = False
    limit_memory: int | None = None
    limit_processes: int | None = None
    limit_cpu: int | None = None
    limit_cpu_time: float | None = None
    limit_file_size: int | None = None
    limit_open_files: int | None = None
    limit_core: int | None = None
    limit_address_space: int | None = None
    timeout: float | None = None
    idle_timeout: float | None = None
    grace: float = DEFAULT_GRACE_SECONDS
    leave: bool = False
    is_init: bool = False
    record: str | None = None
    progress: bool | None = None
    junit: str | None = None
    reconnect: float = 0
    no_bring: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    server_uid: Sequence[int] = ()
    allow_plain_network: bool = False
    token_file: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    @property
    def has_limits(self) -> bool:
        """True where the command is to take no more than it was given."""
        return any(getattr(self, name) is not None for name in self.__struct_fields__ if name.startswith("limit_"))

    @property
    def confines(self) -> bool:
        """True where the command is to have fewer rights."""
        return bool(self.sandbox is not None or self.no_network or self.read_only or self.hide or self.or_landlock)

    @property
    def aftermath(self) -> float:
        """The grace for what outlives the command, in seconds."""
        return min(self.grace, _AFTERMATH_SECONDS)


class Recorder(Protocol):
    """Something that takes output too."""

    def output(self, target: int, data: bytes, /) -> None: ...


class Ended(NamedTuple):
    """The end of a command: the exit status for this process, or the signal that it died of.

    `why` says in words what execsrv had to do with it: the time was over, or it failed itself.
    """

    code: int
    signal: str | None = None
    why: str = ""
    is_said: bool = False
    """Nothing more is to be said of it: it was not started, or goes on without us."""
    usage: ProcessUsage | None = None
    """What it has used, where it had limits."""


Cause = Literal["timeout", "idle"]


class Clocks:
    """The times of a command: the one in which it has to be done, and the one for which it may be silent."""

    def __init__(self, options: RunOptions) -> None:
        self.ended_by: Cause | None = None
        """The one that has ended the command, as whoever ends it notes."""
        self._options = options
        self._silence = trio.CancelScope()

    def watch(self, nursery: trio.Nursery, end: Callable[[Cause], Awaitable[None]]) -> None:
        """Call `end` when one of them is over, in a task of the nursery."""
        if (timeout := self._options.timeout) is not None:
            nursery.start_soon(_end_at, trio.CancelScope(deadline=trio.current_time() + timeout), "timeout", end)
        if self._options.idle_timeout is not None:
            self.touch()
            nursery.start_soon(_end_at, self._silence, "idle", end)

    def touch(self) -> None:
        """Have the silence begin now."""
        if self._options.idle_timeout is not None:
            self._silence.deadline = trio.current_time() + self._options.idle_timeout


async def _end_at(clock: trio.CancelScope, cause: Cause, end: Callable[[Cause], Awaitable[None]]) -> None:
    with clock:
        await trio.sleep_forever()
    await end(cause)


class Passing:
    """The way of our signals to a command that runs: which are told to it, and by which it is killed."""

    def __init__(
        self,
        options: RunOptions,
        *,
        resize: Callable[[], object],
        send: Callable[[Heard], object],
        kill: Callable[[int, float], object],
        is_hung_up: bool,
    ) -> None:
        """`kill` is given the signal, and the seconds until then. `is_hung_up` is true of one that we alone hear of."""
        self.raw_again: Callable[[], None] = lambda: None
        """Makes our terminal raw once more."""
        self._options = options
        self._resize = resize
        self._send = send
        self._kill = kill
        self._is_hung_up = is_hung_up
        self._insistence = _Insistence()

    def is_of_terminal(self, number: int) -> bool:
        """Do what a signal means for the command's terminal. Return True where it means nothing else."""
        if not self._options.tty or number not in (signal.SIGWINCH, signal.SIGCONT):
            return False
        if number == signal.SIGCONT:
            self.raw_again()
        self._resize()
        return number == signal.SIGWINCH

    def hear(self, heard: Heard) -> None:
        """Pass a signal on. A second that asks for the end kills, and the first does where its grace is over."""
        weight = "first" if self._options.is_init else self._insistence.weigh(heard)
        if weight == "second":
            self._kill(heard.number, 0)
        elif weight == "first":
            self._send(heard)
            hangs_up = heard.number == signal.SIGHUP and heard.by_kernel and self._is_hung_up
            if heard.number == signal.SIGTERM or hangs_up:
                self._kill(heard.number, self._options.grace)


class _Insistence:
    """Tells the second request to end from the first."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}

    def weigh(self, heard: Heard) -> Literal["first", "echo", "second"]:
        """Return which request a signal is. All that do not insist are the first."""
        number = heard.number
        if number not in (signal.SIGTERM, signal.SIGINT):
            return "first"
        now = trio.current_time()
        asked = self._heard.get(signal.SIGTERM)
        if asked is None and number == signal.SIGINT:
            asked = self._heard.get(signal.SIGINT)
            if asked is not None and now - asked > _AGAIN_SECONDS:
                asked = None
        self._heard[number] = now
        if asked is None:
            return "first"
        is_echo = heard.sender == os.getpgrp() == os.getppid() and now - asked < _ECHO_SECONDS
        return "echo" if is_echo else "second"


_threads = {1: trio.CapacityLimiter(1), 2: trio.CapacityLimiter(1)}
"""For each of our own streams: who does not read one holds up nobody at the other."""


async def pass_on(
    target: int, output: bytes, recording: Recorder | None = None, others: Iterable[Recorder] = ()
) -> None:
    """Write output of the command to our own stdout (1) or stderr (2). Raises `OSError`, which names it.

    A recording is written to in a thread, as a file may be slow; others only look at what they are given.
    """
    for other in others:
        other.output(target, output)
    limiter = _threads[target]
    if recording is not None:
        await trio.to_thread.run_sync(recording.output, target, output, limiter=limiter)
    try:
        await trio.to_thread.run_sync(write_all, target, output, limiter=limiter, abandon_on_cancel=True)
    except BrokenPipeError:
        raise  # nobody reads it: no failure of ours
    except OSError as error:
        name = "stdout" if target == 1 else "stderr"
        raise OSError(error.errno, f"cannot write to {name}: {error.strerror}") from None


def timed_out(options: RunOptions, *, idle: bool) -> Ended:
    """Say that the time of a command was over, and return its end."""
    why = f"was idle for {options.idle_timeout:g} s" if idle else f"was not done after {options.timeout:g} s"
    if not options.quiet:
        say(f"execsrv: ended the command, which {why}", patience=FLOOD_SECONDS)
    return Ended(TIMED_OUT, why=why)


def say_ended(options: RunOptions, left: list[Member]) -> None:
    """Name those that were ended because they outlived the command, unless nobody wants to know."""
    if options.quiet:
        return
    names = [f"{member.name} (pid {member.pid})" for member in left[:_NAMED]]
    if len(left) > _NAMED:
        names.append(f"{len(left) - _NAMED} more")
    say(f"execsrv: ended {', '.join(names[:-1])}{' and ' if names[:-1] else ''}{names[-1]}, which outlived the command")


def failed(text: str) -> Ended:
    """Say in one line why execsrv itself failed, and return that as the end."""
    why = " ".join(text.split())
    say(f"execsrv: {why}")
    return Ended(OWN_FAILURE, why=why)
