# Written by tests/facades.py from execsrv.client.client: change that, and run `python -m tests.facades`.
# mypy: disable-error-code="no-any-return"
"""The client in plain code. The words are explained where they are defined, in the client for trio."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from execsrv._portal.blocking import Held, Items, Opened
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
    from execsrv.sync.files import Files
    from execsrv.sync.http import Http
    from execsrv.sync.many import Results
    from execsrv.sync.process import Process
    from execsrv.sync.sharing import Joined


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

        What runs may go on until then, where the server has a `drain_period`; nothing is started any more.
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
    ) -> Opened[None]:
        """Record, in this block, what a process prints from here on, as an asciicast v3 in a file on this machine.

        The new sizes of its terminal and its exit code are recorded too, and with `input` what is written to it:
        passwords are input. Players show `title`, and shorten a silence to `idle_time_limit` seconds.

        Readers of the process get the same as without, and a slow disk never slows it down: the recording leaves output
        out instead, with a marker there. Raises `OSError` where the file cannot be opened, and at the end of the block
        where it could not be written; it holds what had been written then.
        """
        return self._enter("record", process, path, input=input, title=title, idle_time_limit=idle_time_limit)

    @property
    def shared_id(self) -> str | None:
        """Number under which others find this connection, None where it has no name and is not kept."""
        return self._get("shared_id")

    def connections(self) -> list[ListedConnection]:
        """Return the connections that this client may join, and its own, oldest first."""
        return self._wait("connections")

    def processes(
        self, *, all: bool = False, connection: str | None = None, usage: bool = False
    ) -> list[ListedProcess]:
        """Return every process of this connection that the server still knows, oldest first.

        Those of another `connection` instead, by name or number, or with `all` those of all that this client may join.
        With `usage`, each with what it takes of processors and memory. What one has nothing of is `msgspec.UNSET`.
        """
        return self._wait("processes", all=all, connection=connection, usage=usage)

    def join(self, connection: str, role: JoinRole = "viewer", *, grant: str | None = None) -> Joined:
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
    ) -> Process:
        """Attach to a process of this connection that was left running, for a block, as a `Process`.

        It begins behind entry `after` of its output, by default with all that is retained; "now" is only what comes.
        Its output waits for who reads here. Leaving the block leaves the process as it is. `text`, `encoding` and
        `errors` are those of `start`.

        Raises `UnknownProcessError`.
        """
        return self._enter("attach", process, after=after, text=text, encoding=encoding, errors=errors)

    def grant(
        self,
        role: Literal["viewer", "writer"] = "viewer",
        *,
        principal: str | None = None,
        expires: float | None = None,
        connection: str | None = None,
    ) -> ConnectionGranted:
        """Let somebody join this connection, or another one of the same user or token.

        That is the `principal` of that name, as it is in the list of connections ("uid 1000", "token ci"), or whoever
        has the `secret` of the answer. After `expires` seconds it is over, and who has come in by it has to leave.
        """
        return self._wait("grant", role, principal=principal, expires=expires, connection=connection)

    def revoke(
        self, grant_id: str | None = None, *, member_id: str | None = None, connection: str | None = None
    ) -> int:
        """Take a grant back, or put out one who has joined. Return how many have to leave.

        That is 0 where the answer was lost with a channel: it was done, and how many had to leave is not known.
        """
        return self._wait("revoke", grant_id, member_id=member_id, connection=connection)

    def end_connection(self, connection: str) -> None:
        """End another connection of the same user or token, with all that runs there. Its name is free at once."""
        return self._wait("end_connection", connection)

    def limits(self) -> list[Ceiling]:
        """Return the ceilings of the server, with what is in use of each.

        What others use is told to an owner alone.
        """
        return self._wait("limits")

    def presence(self) -> Items[ConnectionPresence]:
        """Iterate over who comes and goes, here and in connections that were joined, from this call on.

        Who reads too slowly is not told everything; `connections` has who is there.
        """
        return self._iterate("presence")

    @overload
    def run(
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
    def run(
        self,
        argv: Sequence[Path],
        *,
        input: Data | None = None,
        text: Literal[False] | None = None,
        **options: Unpack[RunKeywords],
    ) -> Result[bytes]: ...

    @overload
    def run(
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
    def run(
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
    def run(
        self, argv: Sequence[Path], *, input: Data | str | None = None, text: bool, **options: Unpack[RunKeywords]
    ) -> Result[Any]: ...

    def run(
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

        It ends with the process that was started. What that has started, and left behind, is collected from while it
        prints, then asked to end, and killed after `grace` (2 s): `Result.ended`. All that descends from the command is
        gone when this returns, or when it is cancelled.

        Each stream is kept up to `max_bytes` (64 MiB). More is an error, unless it may `truncate`: then the beginning
        and the end are kept.

        Raises `SpawnError`; `CommandTimeoutError` after `timeout` seconds, when the command was asked to end and then
        killed, and, with `check`, `CommandFailedError`; `OutputTruncatedError`; `OutputNotTextError`;
        `InvalidParamsError`; `ConnectionLostError`. All but the first know what had arrived.
        """
        return self._wait(
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

        `Result.argv` tells whose it is. Other keywords are those of `run`, without `input` and `record`. `commands` may
        be endless: the next is taken when there is room, and results that nobody takes hold up further starts.

        Leaving the loop early, by an error too, ends what still runs. An error of a command is a `CommandError` with
        its `argv`, whose cause is a `SpawnError` or another `RequestError` where it could not be run. It ends all
        others, unless `return_errors` has it among the results. Raises `ConnectionLostError`.
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
    ) -> Process:
        """Start a command; leaving the block ends everything that descends from it.

        What still runs then is asked to end, and killed after `grace` seconds (0.5 s). Leaving waits until that is
        done, for a moment longer at most: an interrupted connection, or a process that the kernel is busy with, does
        not hold it up, and the kill follows.

        `cwd` is a path on the server's machine, by default where the server runs. Without `env` the command has the
        server's environment, with it exactly that; `env_add` is laid on top, and the variables in `env_remove` are
        taken out. `secret_env` names variables whose values the server reads: from a file of its machine, by an
        absolute path, or from its own secrets, by a name. A `stdin` of `PIPE` gives it a pipe to write to. `stdout` and
        `stderr` are `PIPE`, `DEVNULL`, or a file on the server, by its absolute path or as an `OutputFile`; a `stderr`
        of `STDOUT` is one stream with stdout, in the order of writing. `tty` gives it a terminal instead of all of
        them, of `size` rows and columns (24, 80), and width and height in pixels where they are known, and with `modes`
        by their names in stty(1). `arg0` is what the program sees as its name. `umask`, `nice` and `oom_score_adj` are
        the server's unless they are given. So is `user`, one of its machine, or `USER:GROUP`; another one takes a
        server that is root.

        `sandbox` is a policy by which it is confined; `Process.confined` tells what it has. Where the server cannot
        keep it, the start is a `SandboxUnavailableError`, and nothing has run. `limits` are the most that it may take;
        one that the server cannot keep is a `LimitUnavailableError` in the same way. `Process.closed` tells what it has
        used then.

        `runner` starts it in a place that the server cannot enter itself: one of the server's own, by its name, or the
        words of a command that gets there, as `["sudo", "-n", "-u", "box"]`. Directory, environment and pids are those
        of that place.

        `shell_snapshot` is a scope of the user's choice: `["bash", "-lc", line]` has its login files run once in it,
        and the next such shells are given what these have made.

        `text`, `encoding` and `errors` are how its output is read as text (UTF-8, "strict"), and input may be a string.

        The server ends it `timeout` seconds after its start, and when it has neither printed nor been given anything
        for `idle_timeout` seconds; and, with `end_with_leader`, what lives on after the process that was started. It
        gives `grace` each time, by default as it is configured. With an `overflow` of "drop" a command never waits for
        a slow reader, who gets a `Gap`. A `prepared` command is run exactly as given: its program is an absolute path,
        and nothing is inherited.

        With `pass_streams`, on a unix socket, this client gets the very pipes of the command, and nothing that goes
        through them is copied: `stdin`, `stdout` and `stderr` are those, and `communicate` and `run` read them. What
        needs a server that sees the output is an `InvalidParamsError` then: `lines`, `expect` and other readers,
        `idle_timeout`, `overflow`, `record`; and so are `tty`, `runner` and `key`. With "kept" the server keeps the
        beginning and the end of the output all the same, for `snapshot`.

        `record` is the path of a file on this machine, or a `Recording`: what the process prints is recorded there to
        the end of the block, as an asciicast.

        `id` is its name on the server, where another than the next number is wanted. With a `key`, which is its name
        then, the same start once more is the same process; with another request it is a `KeyConflictError`.

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
