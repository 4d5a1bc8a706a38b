"""The owner of spawned processes: a block with one nursery, and a task in it for each process.

    open_processes
    └─ _own                starts one process, waits for its end, and kills what is left of it
       ├─ _pump            a stream each, into its `Output`
       └─ Stdin.feed       what the process has not read yet

Leaving the block kills all of them. There is no other way for one to outlive its handle.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial

import trio

from execsrv._nursery import check_trio, contain, open_helpers, owned, started
from execsrv._processes import streams
from execsrv._processes.attempt import Attempt
from execsrv._processes.command import Command, settle
from execsrv._processes.environment import check_names
from execsrv._processes.leader import ExitStatus
from execsrv._processes.own_streams import PIPE_BYTES
from execsrv._processes.spawn import widen
from execsrv._processes.supervisor import Supervisor, open_supervisor
from execsrv._threads import MOST_THREADS, SharedThreads
from execsrv.errors import InvalidParamsError
from execsrv.processes.handle import Running, SpawnedProcess, TerminalSize, handed_out
from execsrv.processes.receivers import Output
from execsrv.protocol import Size

StrPath = str | os.PathLike[str]

_current: ContextVar[Processes] = ContextVar("execsrv.processes")


class Processes:
    """The processes that are spawned in one block of `open_processes`, which owns them."""

    def __init__(self, supervisor: Supervisor, nursery: trio.Nursery) -> None:
        self._supervisor = supervisor
        self._nursery: trio.Nursery | None = nursery
        self._threads = SharedThreads(supervisor.threads, MOST_THREADS)
        self._running = 0

    def __repr__(self) -> str:
        return f"<Processes {'closed' if self._nursery is None else 'open'} running={self._running}>"

    async def spawn(
        self,
        program: StrPath,
        args: Sequence[str],
        cwd: StrPath,
        env: Mapping[str, str],
        arg0: str | None,
        *,
        size: TerminalSize | None,
        pipe_stdin: bool,
    ) -> SpawnedProcess:
        """Spawn a process on a terminal of that size, or on pipes. It has exactly this environment.

        Raises `SpawnError`, `InvalidParamsError`, and `RuntimeError` once the block was left. Cancelling leaves nothing
        running.
        """
        if self._nursery is None:
            raise RuntimeError("cannot spawn: the block of `open_processes` was left")
        if isinstance(args, str | bytes):
            raise TypeError(f"args must be a list of strings such as ['-c', '...'], not {args!r}")
        argv = [os.fspath(program), *args]
        place, variables = os.fspath(cwd), dict(env)
        strings: list[tuple[str, object]] = [
            ("program", argv[0]),
            ("cwd", place),
            ("arg0", "" if arg0 is None else arg0),
        ]
        strings += [(f"args[{i}]", word) for i, word in enumerate(argv[1:])]
        strings += [(f"env[{name!r}]", text) for name in variables for text in (name, variables[name])]
        for name, text in strings:
            if not isinstance(text, str):
                raise InvalidParamsError(
                    f"{name} must be a string, got {type(text).__name__}", field=name.partition("[")[0]
                )
        check_names(variables, "env")
        if not os.path.isabs(place):
            place = os.path.join(os.getcwd(), place)  # which fails where ours was removed
        own = partial(
            self._own,
            partial(settle, argv, place, variables, arg0),
            None if size is None else Size(*size),
            pipe_stdin,
        )
        running: Running = await started(self._nursery, own)
        return handed_out(running)

    def close(self) -> None:
        """Spawn nothing from now on."""
        self._nursery = None

    @trio.lowlevel.enable_ki_protection
    async def _own(
        self,
        settle: Callable[[], Command],
        size: Size | None,
        pipe_stdin: bool,
        *,
        task_status: trio.TaskStatus[Running],
    ) -> None:
        """Start a process and see it to its end. From its first instant on it has an owner."""
        attempt = self._supervisor.new_attempt()
        running: Running | None = None
        self._running += 1
        try:
            running = await owned(self._start, attempt, settle, size, pipe_stdin)
            task_status.started(running)
            await contain("process", _live, running)
        finally:
            self._running -= 1
            if running is not None:
                running.end_outputs()
            await owned(attempt.end)
            if running is not None:  # not before: a terminal that goes sends SIGHUP
                running.let_go()
                running.leader_ended(running.status or ExitStatus(255))

    async def _start(
        self, attempt: Attempt, settle: Callable[[], Command], size: Size | None, pipe_stdin: bool
    ) -> Running:
        spawned = await attempt.start(settle, self._threads, size=size, pipe_stdin=pipe_stdin)
        running = Running(spawned)
        attempt.pass_streams()
        return running


async def _live(running: Running) -> None:
    """Go from running to the moment when nothing of it lives, or its user wants no more of it."""
    with running.life:
        async with trio.open_nursery() as feeding:
            if running.stdin.was_open:
                feeding.start_soon(owned, running.stdin.feed)
            async with trio.open_nursery() as pumps:
                for stream, descriptor in running.descriptors.items():
                    pumps.start_soon(owned, _pump, running.outputs[stream], descriptor, stream == "pty")
                running.leader_ended(await owned(running.tree.leader.wait_exited))
            feeding.cancel_scope.cancel()
        running.let_go()
        await running.tree.wait_alone()


async def _pump(output: Output, descriptor: int, is_terminal: bool) -> None:
    """Move one stream to its receiver until its end. While that lags, read nothing: the process waits."""
    widened = is_terminal
    while True:
        await output.wait_room()
        await trio.lowlevel.wait_readable(descriptor)
        chunk = streams.read(descriptor, is_terminal)
        if chunk is None:
            continue
        if not chunk:
            output.end()
            return
        output.put(chunk)
        if not widened and len(chunk) >= streams.PIPE_CHUNK_BYTES:
            widened = True
            widen(descriptor, PIPE_BYTES)


@asynccontextmanager
async def open_processes(*, own_process: bool = False) -> AsyncIterator[Processes]:
    """Own the processes that are spawned in this block, by the functions of this module too.

    Leaving the block, by cancellation too, kills everything that descends from them. The functions find the innermost
    block of their task, or of the task that started theirs. Blocks may be nested.

    `own_process` is that of `connect_in_process`: the same holds then when this program is killed or crashes, and for
    what takes to flight in its first instant.
    """
    check_trio()
    async with open_supervisor(own_process=own_process) as supervisor, open_helpers() as nursery:
        processes = Processes(supervisor, nursery)
        token = _current.set(processes)
        try:
            yield processes
        finally:
            _current.reset(token)
            processes.close()


def current_processes() -> Processes:
    """Return the innermost block of `open_processes` around this task. Raises `RuntimeError` outside of any."""
    check_trio()
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError(
            "a spawned process needs an owner: spawn it in a block of `async with execsrv.processes.open_processes()`"
        ) from None
