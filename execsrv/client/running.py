"""Commands that are run to their end: one, or many of them, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal, Unpack, overload

from execsrv.client.keywords import MapKeywords, RunKeywords, StartKeywords
from execsrv.client.many import Results
from execsrv.client.parameters import Data, Path, check_bound, flag, seconds
from execsrv.client.process import collected
from execsrv.client.result import END_GRACE_SECONDS, Result
from execsrv.client.start_words import MAP_WORDS, START_WORDS, refused
from execsrv.client.starting import Starting
from execsrv.client.text import as_bytes, text_mode
from execsrv.errors import CommandError


class Running(Starting):
    """A client as it runs commands."""

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
        timeout: float | None = None,  # noqa: ASYNC109  # the word of subprocess.run; it ends the command too
        check: bool = False,
        max_bytes: int | None = None,
        truncate: bool = False,
        **options: Unpack[StartKeywords],
    ) -> Result[Any]:
        """Run a command to its end and return its result. Its stdin is `input`, or empty.

        With `text`, or an `encoding` (UTF-8) or `errors` ("strict"), input and output are strings, and lines end with
        "\\n". Other keywords are those of `start`: `cwd`, `env`, `env_add`, `env_remove`, `secret_env`, `stdout`,
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
        if not options.keys() <= START_WORDS:
            raise refused("run", options.keys() - START_WORDS)
        mode = text_mode(text, encoding, errors)
        data = as_bytes(input, mode)
        if (record := options.get("record")) is not None:
            from execsrv.client import recorder

            options["record"] = recorder.recording(record, mode)
        patience = seconds("timeout", timeout)
        check_bound(max_bytes)
        flag("check", check)
        flag("truncate", truncate)
        if data is None and options.get("tty"):
            data = b""  # a terminal gets its end-of-file character then
        grace = options.get("grace")
        async with self.start(argv, stdin=data is not None, end_with_leader=True, **options) as process:
            with collected(process, mode, max_bytes, truncate) as output:
                result = await output.run(
                    data,
                    patience,
                    END_GRACE_SECONDS if grace is None else grace,
                    self._connection.config.leave_timeout,
                )
        return result.check() if check else result

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
        flag("return_errors", return_errors)
        if not options.keys() <= MAP_WORDS:
            raise refused("map", options.keys() - MAP_WORDS)
        connection, run = self._connection, partial(self.run, **options)
        return Results(connection.calls.check, connection.nursery, run, commands, limit, return_errors)
