"""`execsrv runner`: the runner as a process, with its channel, its signals and its exit status."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import NamedTuple

import trio

from execsrv._cli.daemon_log import open_log
from execsrv._cli.descriptors import raise_descriptor_limit
from execsrv._cli.signals import received, reset_signals
from execsrv._cli.usage import UsageError
from execsrv._nursery import open_helpers
from execsrv._processes.own_memory import close_memory
from execsrv._processes.supervisor import open_supervisor
from execsrv._processes.withheld import NOTHING
from execsrv._runner.channel import open_channel
from execsrv._runner.serve import serve_runner
from execsrv._wire.stdio import taken_stdio
from execsrv.errors import ExecsrvError


class _Names(NamedTuple):
    """The names that the command line gives, instead of stdin and stdout."""

    request_file: str | None
    pipe: str | None
    pipe_in: str | None
    pipe_out: str | None
    peers: tuple[int, ...]


def runner(
    *,
    request_file: str | None,
    pipe: str | None,
    pipe_in: str | None,
    pipe_out: str | None,
    peer_uid: tuple[int, ...],
) -> int:
    """Serve over stdin and stdout, or over what is named; return the exit status. Raises `UsageError`."""
    if (pipe_in is None) != (pipe_out is None) and request_file is None:
        raise UsageError(f"no {'pipe-in' if pipe_in is None else 'pipe-out'} provided")
    names = _Names(request_file, pipe, pipe_in, pipe_out, peer_uid)
    reset_signals()
    raise_descriptor_limit()
    close_memory(NOTHING, allow_debugging=False)
    with open_log("warning", "text") as log:
        try:
            with taken_stdio() as ends:
                status = trio.run(_run, names, *ends)
            if status and request_file is not None:
                log.say(f"runner child exited with code {status}")
            return status
        except (ExecsrvError, OSError) as error:
            log.say(f"execsrv: runner: {error}")
            return 1


async def _run(names: _Names, stdin: int, stdout: int) -> int:
    """Serve until the other side hangs up, or a signal comes."""
    status = 1
    async with open_helpers() as nursery:
        with trio.CancelScope() as serving:
            await nursery.start(_end_on_signal, serving)
            with ExitStack() as stack:
                channel = None
                if names.request_file is None:
                    ends = await _ends(names, stdin, stdout, stack)
                    channel = stack.enter_context(open_channel(*ends))
                async with open_supervisor(own_process=True, sole=True) as supervisor:
                    if channel is not None:
                        status = await serve_runner(supervisor, channel)
                    elif names.request_file is not None:
                        from execsrv._runner.version_1_files import run_filed  # the old way

                        status = await run_filed(supervisor, names.request_file, names.peers)
    return status


async def _ends(names: _Names, stdin: int, stdout: int, stack: ExitStack) -> tuple[int, int]:
    """Return the two descriptors of the channel. Those that are opened here are the stack's."""
    if names.pipe is names.pipe_in is names.pipe_out is None:
        return stdin, stdout
    from execsrv._runner.named import open_fifo, open_socket  # few do

    if names.pipe_in is not None and names.pipe_out is not None:
        incoming = await open_fifo(names.pipe_in, os.O_RDONLY, names.peers)
        stack.callback(os.close, incoming)
        outgoing = await open_fifo(names.pipe_out, os.O_WRONLY, names.peers)
        stack.callback(os.close, outgoing)
        return incoming, outgoing
    assert names.pipe is not None
    both = await open_socket(names.pipe, names.peers)
    stack.callback(os.close, both)
    return both, both


async def _end_on_signal(
    serving: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with received() as signals:
        task_status.started()
        async for _ in signals:
            serving.cancel()
