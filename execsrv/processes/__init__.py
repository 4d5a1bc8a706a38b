"""Processes on terminals and pipes without a server: the surface of the founding process library, for trio.

    async with execsrv.processes.open_processes():
        spawned = await execsrv.processes.spawn_pty_process("python3", ["-i"], "/src", {"TERM": "xterm"})
        await spawned.session.writer_sender().send(b"1+1\\n")
        print(await spawned.stdout_rx.receive())

The block owns what is spawned in it: leaving it kills all that is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from execsrv.processes.handle import ProcessHandle, SpawnedProcess, StdinWriter, TerminalSize, checked
from execsrv.processes.owner import Processes, StrPath, current_processes, open_processes
from execsrv.processes.receivers import OutputReceiver, combine_output_receivers

__all__ = [
    "OutputReceiver",
    "ProcessHandle",
    "Processes",
    "SpawnedProcess",
    "StdinWriter",
    "TerminalSize",
    "combine_output_receivers",
    "conpty_supported",
    "open_processes",
    "spawn_pipe_process",
    "spawn_pipe_process_no_stdin",
    "spawn_pty_process",
]

for _public in (OutputReceiver, ProcessHandle, Processes, SpawnedProcess, StdinWriter, TerminalSize):
    _public.__module__ = __name__  # where people find them


async def spawn_pty_process(
    program: StrPath,
    args: Sequence[str],
    cwd: StrPath,
    env: Mapping[str, str],
    arg0: str | None = None,
    size: TerminalSize = TerminalSize(),  # noqa: B008  # immutable
) -> SpawnedProcess:
    """Spawn a process on a new terminal, which has its size from the first instant.

    It has exactly the environment `env`, in whose PATH a bare `program` is looked up; `arg0` is what it sees as its
    name. Its owner is the block of `open_processes` around this call.

    Raises `SpawnError`, `InvalidParamsError`, and `RuntimeError` without an owner. Cancelling leaves nothing running.
    """
    return await current_processes().spawn(program, args, cwd, env, arg0, size=checked(size), pipe_stdin=True)


async def spawn_pipe_process(
    program: StrPath, args: Sequence[str], cwd: StrPath, env: Mapping[str, str], arg0: str | None = None
) -> SpawnedProcess:
    """Spawn a process on pipes, one of them its stdin. Everything else is as with `spawn_pty_process`."""
    return await current_processes().spawn(program, args, cwd, env, arg0, size=None, pipe_stdin=True)


async def spawn_pipe_process_no_stdin(
    program: StrPath, args: Sequence[str], cwd: StrPath, env: Mapping[str, str], arg0: str | None = None
) -> SpawnedProcess:
    """Spawn a process on pipes whose stdin is at its end from the beginning, as `spawn_pipe_process` does else."""
    return await current_processes().spawn(program, args, cwd, env, arg0, size=None, pipe_stdin=False)


def conpty_supported() -> bool:
    """Return True: terminals of their own are to be had wherever execsrv runs. Only old Windows has none."""
    return True
