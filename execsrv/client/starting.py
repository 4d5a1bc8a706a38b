"""Starting a process: the request, what becomes of it, and the end when its block is left."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Literal

from execsrv.client.attaching import leave
from execsrv.client.connection import Connection
from execsrv.client.ending import end
from execsrv.client.given import made
from execsrv.client.mirror import Mirror
from execsrv.client.parameters import (
    PIPE,
    Path,
    everything,
    flag,
    grace_milliseconds,
    milliseconds,
    names,
    overflow_way,
    references,
    seconds,
    stderr_place,
    stdin_pipe,
    stdout_place,
    string,
    terminal_modes,
    terminal_size,
    variables,
    words,
)
from execsrv.client.policy import Policy, sandbox_of
from execsrv.client.process import Process
from execsrv.client.start_request import check_known, limits_of, passing, place, snapshot_of
from execsrv.client.text import TextMode, process_text
from execsrv.errors import BadAnswerError, ConnectionLostError, ProcessExistsError
from execsrv.protocol import (
    OutputFile,
    ProcessList,
    ProcessListing,
    ProcessOutputRead,
    ProcessRead,
    ProcessStart,
    ProcessStarted,
    ProcessWait,
    ProcessWaited,
    Size,
)
from execsrv.protocol.process_limits import ProcessLimits

if TYPE_CHECKING:
    from execsrv.client.passed import PassedStreams
    from execsrv.record import Recording

LEAVE_GRACE_SECONDS = 0.5
"""Time that a command has after SIGTERM when its block is left, unless its user says otherwise: as when a client hangs
up."""


class Starting:
    """A client as it starts processes."""

    _connection: Connection

    @asynccontextmanager
    async def start(
        self,
        argv: Sequence[Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        env_add: Mapping[str, str] | None = None,
        env_remove: Collection[str] = (),
        secret_env: Mapping[str, Path] | None = None,
        stdin: bool | int = False,
        stdout: int | Path | OutputFile = PIPE,
        stderr: int | Path | OutputFile = PIPE,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        tty: bool = False,
        size: tuple[int, int] | tuple[int, int, int, int] | None = None,
        modes: Mapping[str, bool | int] | None = None,
        arg0: str | None = None,
        umask: int | None = None,
        nice: int | None = None,
        oom_score_adj: int | None = None,
        sandbox: Policy | None = None,
        limits: ProcessLimits | None = None,
        user: str | None = None,
        runner: str | Sequence[str] | None = None,
        shell_snapshot: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the server's to keep
        idle_timeout: float | None = None,
        grace: float | None = None,
        end_with_leader: bool = False,
        overflow: Literal["block", "drop"] = "block",
        prepared: bool = False,
        pass_streams: bool | Literal["kept"] = False,
        record: Path | Recording | None = None,
        id: str | None = None,
        key: str | None = None,
    ) -> AsyncIterator[Process]:
        """Start a command; leaving the block ends everything that descends from it.

        What still runs then is asked to end, and killed after `grace` seconds (0.5 s). Leaving waits until that is
        done, but only a moment longer than that: an interrupted connection, or a process that the kernel is busy with,
        does not hold it up, and the kill follows.

        `cwd` is a path on the server's machine, by default where the server runs. Without `env` the command has the
        server's environment, with it exactly that; `env_add` is laid on top, and the variables in `env_remove` are
        taken out. `secret_env` names variables whose values the server reads: from a file of its machine, by an
        absolute path, or from its own secrets, by a name. A `stdin` of `PIPE` gives it a pipe to write to. `stdout` and
        `stderr` are `PIPE`, `DEVNULL`, or a file on the server, by its absolute path or as an `OutputFile`; a `stderr`
        of `STDOUT` is one stream with stdout, in the order of writing. `tty` gives it a terminal instead of all of
        them, of `size` rows and columns (24, 80), and width and height in pixels where they are known, and with `modes`
        by their names in stty(1). `arg0` is what the program sees as its name. `umask`, `nice` and `oom_score_adj` are
        the server's unless they are given. So is `user`, a user of the server's machine, or `USER:GROUP`; another user
        than the server's needs a server that runs as root.

        `sandbox` is a policy by which it is confined; `Process.confined` says what it got. If the server cannot enforce
        the policy, the start raises `SandboxUnavailableError`, and nothing has run. `limits` are the most that it may
        take; a limit that the server cannot enforce raises `LimitUnavailableError` in the same way. With limits,
        `Process.closed` says what it has used.

        `runner` starts it in a place that the server cannot enter itself: one of the server's own, by its name, or the
        words of a command that gets there, as `["sudo", "-n", "-u", "box"]`. Directory, environment and pids are those
        of that place.

        `shell_snapshot` is a scope of your choice: in it, the login files of `["bash", "-lc", line]` run only once, and
        the next such shells get what these set up.

        `text`, `encoding` and `errors` say how its output is read as text (UTF-8, "strict"). Input may then be a
        string.

        The server ends it `timeout` seconds after its start, and when it has neither printed nor been given anything
        for `idle_timeout` seconds. With `end_with_leader`, it also ends what lives on after the process that was
        started. Each time it allows `grace` seconds, by default as the server is configured. With an `overflow` of
        "drop" a command never waits for a slow reader, which gets a `Gap` instead. A `prepared` command is run exactly
        as given: its program is an absolute path, and nothing is inherited.

        With `pass_streams`, on a unix socket, this client gets the very pipes of the command, and nothing that goes
        through them is copied: `stdin`, `stdout` and `stderr` are these pipes, and `communicate` and `run` read them.
        Whatever needs a server that sees the output is then an `InvalidParamsError`: `lines`, `expect` and other
        readers, `idle_timeout`, `overflow`, `record`. So are `tty`, `runner` and `key`. With "kept" the server still
        keeps the beginning and the end of the output, for `snapshot`.

        `record` is the path of a file on this machine, or a `Recording`: what the process prints is recorded there
        until the end of the block, as an asciicast.

        `id` is its name on the server, by default the next number. With a `key`, which is then its name, the same start
        once more gives the same process; a different request with that key is a `KeyConflictError`.

        Raises `RequestError`, of which `SpawnError` and `InvalidParamsError` are kinds, and `ConnectionLostError`.
        Raises `TypeError` for an `argv` that is one string, and `OSError` for a file that cannot be recorded to.
        """
        connection = self._connection
        flag("prepared", prepared)
        flag("end_with_leader", end_with_leader)
        if passing(pass_streams):
            from execsrv.client.passed import check_can_pass, streams_of

            check_can_pass(connection, record)
        leaving = LEAVE_GRACE_SECONDS if grace is None else seconds("grace", grace, zero=True)
        mode = process_text(text, encoding, errors)
        pipe_stdin = stdin_pipe(stdin)
        id = key if id is None else id
        once = None if key is None else string("key", key)
        wants_key = connection.is_execsrv and (id is not None or sandbox is not None) and not pass_streams
        if once is None and wants_key:
            # Asked again over another channel, it is told from another process that has this id already, and answered
            # as the first time: with its confinement, which nothing else tells.
            once = f"once {secrets.token_hex(8)}"
        command = words(argv)
        with connection.new_mirror(None if id is None else string("id", id)) as mirror:
            if key is not None:
                mirror.begin(0, attached=False)
            params = ProcessStart(
                argv=command,
                cwd=place(connection, cwd, prepared) if runner is None or cwd is not None else None,
                env=variables(env, env_add),
                env_remove=names("env_remove", env_remove),
                secret_env=references(secret_env),
                env_policy=everything(env is None and not prepared),
                tty=tty,
                process_id=mirror.id,
                pipe_stdin=pipe_stdin and not tty,
                stdout=stdout_place(stdout),
                stderr=stderr_place(stderr),
                times=connection.is_execsrv,
                arg0=None if arg0 is None else string("arg0", arg0),
                size=terminal_size(size),
                modes=terminal_modes(modes),
                umask=umask,
                nice=nice,
                oom_score_adj=oom_score_adj,
                sandbox=None if sandbox is None else sandbox_of(sandbox),
                limits=limits if limits is None else limits_of(limits),
                user=None if user is None else string("user", user),
                runner=runner if runner is None or isinstance(runner, str) else words(runner, "runner"),
                shell_snapshot=snapshot_of(shell_snapshot, command),
                window_bytes=connection.config.window_bytes if connection.is_execsrv else None,
                timeout_ms=milliseconds("timeout", timeout),
                idle_timeout_ms=milliseconds("idle_timeout", idle_timeout),
                grace_ms=None if grace is None else grace_milliseconds(leaving),
                end_with_leader=end_with_leader,
                overflow=overflow_way(overflow),
                kind="prepared" if prepared else "direct",
                key=once,
                pass_streams=pass_streams,
            )
            check_known(connection, params)
            async with _recorded(mirror, record, mode, params):
                streams: PassedStreams | None = None
                try:
                    mirror.start = await connection.calls.post("process/start", params)
                    pid = await _begun(connection, mirror, may_be_taken=id is not None)
                    if pass_streams:
                        streams = streams_of(mirror)
                    yield made(Process, mirror, params, pid, mode, streams)
                finally:
                    async with nullcontext() if streams is None else streams.left():
                        if mirror.is_left:
                            await leave(connection, mirror)
                        else:
                            await end(mirror, leaving, connection.config.leave_timeout)


def _recorded(
    mirror: Mirror, record: Path | Recording | None, text: TextMode | None, params: ProcessStart
) -> AbstractAsyncContextManager[None]:
    """Record a process that is read in that way in a block, where that is wanted."""
    if record is None:
        return nullcontext()
    from execsrv.client import recorder

    size = params.size or Size() if params.tty else None
    return recorder.recorded(mirror, recorder.recording(record, text), params.argv, size)


async def _begun(connection: Connection, mirror: Mirror, *, may_be_taken: bool) -> int | None:
    """Wait until it runs, and return its pid. It may have run before this answer: what it has printed is read then.

    Raises the server's error, and `ConnectionLostError`, which names it.
    """
    try:
        pid = await _pid_of(connection, mirror, may_be_taken=may_be_taken)
        if mirror.hearing == "awaits its log":
            mirror.resumed(await connection.calls.call("process/read", ProcessRead(mirror.id), ProcessOutputRead))
    except (ConnectionLostError, BadAnswerError) as lost:
        lost.process = mirror.id
        raise
    return pid


async def _pid_of(connection: Connection, mirror: Mirror, *, may_be_taken: bool) -> int | None:
    """Wait for the answer to a start, whose id somebody else may have taken. Raises the server's error."""
    assert mirror.start is not None
    try:
        answer = await connection.calls.answer_to(mirror.start, ProcessStarted)
    except ProcessExistsError:
        if may_be_taken or not mirror.start.repeated:
            raise
        # It had started before the connection was interrupted.
        mirror.started = True
        return await _pid_listed(connection, mirror.id)
    except BadAnswerError:
        mirror.is_unsure = True
        raise
    mirror.started = True
    mirror.confined = answer.sandbox or None
    mirror.passed = answer.passed
    return answer.pid


async def _pid_listed(connection: Connection, id: str) -> int | None:
    """Return the pid of a process that the server knows, once it has been started."""
    while True:
        listing = await connection.calls.call("process/list", ProcessListing(), ProcessList)
        listed = next((listed for listed in listing.processes if listed.process_id == id), None)
        if listed is None or listed.pid is not None:
            return None if listed is None else listed.pid
        # It is answered when the start is over, and refused when that failed.
        await connection.calls.call("process/wait", ProcessWait(id, timeout_ms=0), ProcessWaited)
