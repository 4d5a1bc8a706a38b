# Written by tests/facades.py from execsrv.client.client: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client under asyncio. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from execsrv._portal.awaiting import Held, Items, Opened, Opening
from execsrv.client.client import Client as TrioClient
from execsrv.client.keywords import MapKeywords, RunKeywords, StartKeywords
from execsrv.client.parameters import PIPE, Data, Path
from execsrv.client.policy import Policy
from execsrv.client.result import Result
from execsrv.client.sharing import After
from execsrv.errors import CommandError
from execsrv.protocol import (
    ConnectionGranted,
    ConnectionPresence,
    EnvironmentInfo,
    JoinRole,
    ListedConnection,
    ListedProcess,
    OutputFile,
)
from execsrv.protocol.ceilings import Ceiling
from execsrv.protocol.process_limits import ProcessLimits
from execsrv.record import Recording

if TYPE_CHECKING:
    from execsrv.asyncio.files import Files
    from execsrv.asyncio.http import Http
    from execsrv.asyncio.many import Results
    from execsrv.asyncio.process import Process
    from execsrv.asyncio.sharing import Joined


class Client(Held, of=TrioClient):
    """Runs commands on a server. Made by `connect_*` and `launch`; leaving their block ends all its commands."""

    @property
    def info(self) -> EnvironmentInfo:
        """Facts of the server's machine: its shell, directories and system."""
        return self._get("info")

    @property
    def connection_id(self) -> str:
        """Name that the server gave to this connection."""
        return self._get("connection_id")

    @property
    def server_ends_in(self) -> float | None:
        """Seconds until the server is gone at the latest, once it has said that it ends. None before.

        What runs may go on until then, if the server has a `drain_period`; nothing new is started.
        """
        return self._get("server_ends_in")

    @property
    def files(self) -> Files:
        """Files of the server's machine."""
        return self._get("files")

    @property
    def http(self) -> Http:
        """HTTP requests from the server's machine."""
        return self._get("http")

    def record(
        self,
        process: Process,
        path: Path,
        *,
        input: bool = False,
        title: str | None = None,
        idle_time_limit: float | None = None,
    ) -> Opening[Opened[None]]:
        """Record, in this block, what a process prints from here on, as an asciicast v3 in a file on this machine.

        New sizes of its terminal and its exit code are recorded too. With `input`, so is what is written to it: note
        that passwords are input. Players show `title`, and shorten a silence to `idle_time_limit` seconds.

        Readers of the process get the same as without a recording, and a slow disk never slows it down: the recording
        leaves output out instead, with a marker there. Raises `OSError` if the file cannot be opened, and at the end of
        the block if it could not be written; the file then holds what was written before.
        """
        return self._enter("record", process, path, input=input, title=title, idle_time_limit=idle_time_limit)

    @property
    def shared_id(self) -> str | None:
        """Number under which others find this connection, None where it has no name and is not kept."""
        return self._get("shared_id")

    async def connections(self) -> list[ListedConnection]:
        """Return the connections that this client may join, and its own, oldest first."""
        return await self._wait("connections")

    async def processes(
        self, *, all: bool = False, connection: str | None = None, usage: bool = False
    ) -> list[ListedProcess]:
        """Return every process of this connection that the server still knows, oldest first.

        Those of another `connection` instead, by name or number, or with `all` those of all that this client may join.
        With `usage`, each has what it takes of processors and memory; a value that one lacks is `msgspec.UNSET`.
        """
        return await self._wait("processes", all=all, connection=connection, usage=usage)

    def join(self, connection: str, role: JoinRole = "viewer", *, grant: str | None = None) -> Opening[Joined]:
        """Join another connection for a block, by its name or its number.

        A "viewer" reads its processes. A "writer" types, resizes and signals too. An "owner" may also end it. Whoever
        is of another user or token has to be given a grant there; `grant` is the secret of one that names nobody.

        Raises `UnknownConnectionError`, also for what is not to be seen, `ForbiddenError` and `LimitExceededError`.
        """
        return self._enter("join", connection, role, grant=grant)

    def attach(
        self,
        process: str,
        *,
        after: After = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> Opening[Process]:
        """Attach to a process of this connection that was left running, for a block, as a `Process`.

        It begins after entry `after` of its output, by default with all that is retained; "now" is only what comes.
        Its output waits for the reader here. Leaving the block leaves the process as it is. `text`, `encoding` and
        `errors` are those of `start`.

        Raises `UnknownProcessError`.
        """
        return self._enter("attach", process, after=after, text=text, encoding=encoding, errors=errors)

    async def grant(
        self,
        role: Literal["viewer", "writer"] = "viewer",
        *,
        principal: str | None = None,
        expires: float | None = None,
        connection: str | None = None,
    ) -> ConnectionGranted:
        """Let somebody join this connection, or another one of the same user or token.

        Either the named `principal`, as it is in the list of connections ("uid 1000", "token ci"), or whoever has the
        `secret` of the answer. After `expires` seconds the grant is over, and whoever came in by it has to leave.
        """
        return await self._wait("grant", role, principal=principal, expires=expires, connection=connection)

    async def revoke(
        self, grant_id: str | None = None, *, member_id: str | None = None, connection: str | None = None
    ) -> int:
        """Take a grant back, or remove a member who has joined. Return how many have to leave.

        The result is also 0 if the answer was lost with a channel: then it was done, but how many had to leave is not
        known.
        """
        return await self._wait("revoke", grant_id, member_id=member_id, connection=connection)

    async def end_connection(self, connection: str) -> None:
        """End another connection of the same user or token, with all that runs there. Its name is free at once."""
        return await self._wait("end_connection", connection)

    async def limits(self) -> list[Ceiling]:
        """Return the ceilings of the server, with what is in use of each.

        What others use is reported only to an owner.
        """
        return await self._wait("limits")

    def presence(self) -> Items[ConnectionPresence]:
        """Iterate over who comes and goes, here and in connections that were joined, from this call on.

        A slow reader misses some of it; `connections` has who is there.
        """
        return self._iterate("presence")

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[RunKeywords],
    ) -> Result[str]: ...

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | None = None,
        text: Literal[False] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Result[bytes]: ...

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: Literal[True] | None = None,
        encoding: str,
        errors: str | None = None,
        **options: Unpack[RunKeywords],
    ) -> Result[str]: ...

    @overload
    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: Literal[True] | None = None,
        encoding: None = None,
        errors: str,
        **options: Unpack[RunKeywords],
    ) -> Result[str]: ...

    @overload
    async def run(
        self, argv: Sequence[Path], *, input: Data | str | None = None, text: bool, **options: Unpack[RunKeywords]
    ) -> Result[Any]: ...

    async def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | str | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        timeout: float | None = None,
        check: bool = False,
        max_bytes: int | None = None,
        truncate: bool = False,
        **options: Unpack[StartKeywords],
    ) -> Result[Any]:
        r"""Run a command to its end and return its result. Its stdin is `input`, or empty.

        With `text`, or an `encoding` (UTF-8) or `errors` ("strict"), input and output are strings, and lines end with
        "\n". Other keywords are those of `start`: `cwd`, `env`, `env_add`, `env_remove`, `secret_env`, `stdout`,
        `stderr`, `tty`, `size`, `modes`, `arg0`, `umask`, `nice`, `oom_score_adj`, `sandbox`, `limits`, `user`,
        `runner`, `shell_snapshot`, `idle_timeout`, `grace`, `overflow`, `prepared`, `pass_streams` and `record`.

        It ends with the process that was started. Processes left behind by that one are asked to end once they are
        silent, and killed after `grace` (2 s); until then, what they print is collected. `Result.ended` names them. All
        that descends from the command is gone when this returns, or when it is cancelled.

        Each stream is kept up to `max_bytes` (64 MiB). More is an error, unless `truncate` is set: then the beginning
        and the end are kept.

        Raises `SpawnError`; `CommandTimeoutError` after `timeout` seconds, when the command was asked to end and then
        killed, and, with `check`, `CommandFailedError`; `OutputTruncatedError`; `OutputNotTextError`;
        `InvalidParamsError`; `ConnectionLostError`. All but the first have the output that had arrived.
        """
        return await self._wait(
            "run",
            argv,
            input=input,
            text=text,
            encoding=encoding,
            errors=errors,
            timeout=timeout,
            check=check,
            max_bytes=max_bytes,
            truncate=truncate,
            **options,
        )

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[False] = False,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[MapKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[False] = False,
        text: Literal[True] | None = None,
        encoding: str,
        errors: str | None = None,
        **options: Unpack[MapKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[False] = False,
        text: Literal[True] | None = None,
        encoding: None = None,
        errors: str,
        **options: Unpack[MapKeywords],
    ) -> Results[Result[str]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[False] = False,
        text: Literal[False] | None = None,
        **options: Unpack[MapKeywords],
    ) -> Results[Result[bytes]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[False] = False,
        text: bool,
        **options: Unpack[MapKeywords],
    ) -> Results[Result[Any]]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[True],
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[MapKeywords],
    ) -> Results[Result[str] | CommandError]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: Literal[True],
        text: Literal[False] | None = None,
        **options: Unpack[MapKeywords],
    ) -> Results[Result[bytes] | CommandError]: ...

    @overload
    def map(
        self,
        commands: Iterable[Sequence[Path]],
        *,
        limit: int = 20,
        return_errors: bool,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[MapKeywords],
    ) -> Results[Result[Any] | CommandError]: ...

    def map(
        self, commands: Iterable[Sequence[Path]], *, limit: int = 20, return_errors: bool = False, **options: Any
    ) -> Results[Any]:
        """Run many commands, at most `limit` at a time, and iterate over their results in the order in which they end.

        `Result.argv` says which command a result belongs to. Other keywords are those of `run`, without `input` and
        `record`. `commands` may be endless: the next one is taken when there is room, and results that nobody takes
        hold up further starts.

        Leaving the loop early, even by an error, ends what still runs. An error of a command is a `CommandError` with
        its `argv`. If the command could not be run, its cause is a `SpawnError` or another `RequestError`. An error
        ends all other commands; with `return_errors` it is among the results instead. Raises `ConnectionLostError`.
        """
        return self._plain("map", commands, limit=limit, return_errors=return_errors, **options)

    def start(
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
        timeout: float | None = None,
        idle_timeout: float | None = None,
        grace: float | None = None,
        end_with_leader: bool = False,
        overflow: Literal["block", "drop"] = "block",
        prepared: bool = False,
        pass_streams: bool | Literal["kept"] = False,
        record: Path | Recording | None = None,
        id: str | None = None,
        key: str | None = None,
    ) -> Opening[Process]:
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
        return self._enter(
            "start",
            argv,
            cwd=cwd,
            env=env,
            env_add=env_add,
            env_remove=env_remove,
            secret_env=secret_env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            encoding=encoding,
            errors=errors,
            tty=tty,
            size=size,
            modes=modes,
            arg0=arg0,
            umask=umask,
            nice=nice,
            oom_score_adj=oom_score_adj,
            sandbox=sandbox,
            limits=limits,
            user=user,
            runner=runner,
            shell_snapshot=shell_snapshot,
            timeout=timeout,
            idle_timeout=idle_timeout,
            grace=grace,
            end_with_leader=end_with_leader,
            overflow=overflow,
            prepared=prepared,
            pass_streams=pass_streams,
            record=record,
            id=id,
            key=key,
        )
