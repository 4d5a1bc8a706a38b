"""A runner of version 1 without frames: its one command is in a file, and its streams are FIFOs. The old way.

The file is read, removed in any case, and obeyed once. The exit status is the command's; 192 says that its time was
over. There is no channel here, so a server that has gone is seen by nobody: the runner ends with its command, or on a
signal.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Collection
from contextlib import suppress
from functools import partial

import msgspec
import trio
from msgspec import Struct
from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._nursery import owned
from execsrv._processes.command import Command
from execsrv._processes.leader import ExitStatus
from execsrv._processes.supervisor import Supervisor
from execsrv._runner.frames import MAX_PAYLOAD_BYTES
from execsrv._runner.named import check_own, open_fifo
from execsrv._runner.version_1 import settled
from execsrv._runner.version_1_messages import TIMED_OUT, SpawnRequest
from execsrv._threads import SharedThreads
from execsrv.errors import ConnectionFailedError, ProtocolError
from execsrv.protocol.bounds import PathText, Variables, Word, Words


class FileRequest(Struct, frozen=True):
    """The request in a file."""

    command: Words
    cwd: PathText
    env_map: Variables
    policy_json_or_preset: Word
    sandbox_policy_cwd: PathText
    stdin_pipe: PathText
    stdout_pipe: PathText
    stderr_pipe: PathText
    timeout_ms: int | None = None


_requests = msgspec.json.Decoder(FileRequest)


async def run_filed(supervisor: Supervisor, path: str, peers: Collection[int]) -> int:
    """Run the command of a request file to its end; return the exit status of the runner.

    Raises `ProtocolError` for what is no request, `ConnectionFailedError` for a file or a FIFO that is not to be
    trusted, and what a start does. Cancelling kills the command.
    """
    request = taken(path, peers)
    settle_it = settled(
        SpawnRequest(
            request.command,
            request.cwd,
            request.env_map,
            request.policy_json_or_preset,
            request.sandbox_policy_cwd,
            tty=False,
        )
    )
    ends = [
        Lent(await open_fifo(request.stdin_pipe, os.O_RDONLY, peers)),
        Lent(await open_fifo(request.stdout_pipe, os.O_WRONLY, peers)),
        Lent(await open_fifo(request.stderr_pipe, os.O_WRONLY, peers)),
    ]

    def settle_all() -> Command:
        stdin, stdout, stderr = ends
        return replace(settle_it(), stdin=stdin, stdout=stdout, stderr=stderr)

    attempt = supervisor.new_attempt()
    try:
        start = partial(attempt.start, size=None, pipe_stdin=False)
        spawned = await owned(start, settle_all, SharedThreads(supervisor.threads))
        ends.clear()  # they are the command's now: when it ends, its readers see that
        timeout = math.inf if request.timeout_ms is None else request.timeout_ms / 1000
        with trio.move_on_after(timeout) as waiting:
            await spawned.tree.leader.wait_exited()
        await spawned.tree.kill()
        status = spawned.tree.leader.exit_status() or ExitStatus(255)
    finally:
        await owned(attempt.end)
    return TIMED_OUT if waiting.cancelled_caught else status.code


def taken(path: str, peers: Collection[int]) -> FileRequest:
    """Return the request in a file, which is removed in any case."""
    try:
        data = _read(path, peers)
    except OSError as error:
        raise ConnectionFailedError(f"cannot read {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            os.unlink(path)
    try:
        return _requests.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ProtocolError("parse runner request json") from None


def _read(path: str, peers: Collection[int]) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        check_own(facts, peers)
        data = file.read(MAX_PAYLOAD_BYTES + 1)
    if len(data) > MAX_PAYLOAD_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_PAYLOAD_BYTES} bytes", path)
    return data
