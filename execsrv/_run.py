"""Running commands without a client: one server for all of them, in this program, until its trio run ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

import trio

from execsrv._in_process import connect_in_process
from execsrv._nursery import check_trio, happened
from execsrv.client import Client, Result
from execsrv.client.inside import connection_of
from execsrv.client.keywords import RunKeywords
from execsrv.client.parameters import Data, Path, flag

logger = logging.getLogger(__name__)


class _Server:
    """The server of a trio run, from the first command on."""

    def __init__(self) -> None:
        self.opened = trio.Event()
        self.client: Client | None = None
        self.error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """True when another one is needed."""
        return self.error is not None or (self.client is not None and connection_of(self.client).calls.lost is not None)

    async def stay(self, own_process: bool) -> None:
        """Serve until the trio run ends. It is a task of the system: an error that left it would end the program."""
        try:
            async with connect_in_process(own_process=own_process) as client:
                self.client = client
                self.opened.set()
                await trio.sleep_forever()
        except Exception as error:
            if self.opened.is_set():
                logger.error("the server of execsrv.run has failed", exc_info=error)
            self.error = error
        finally:
            self.opened.set()


_servers: trio.lowlevel.RunVar[dict[bool, _Server]] = trio.lowlevel.RunVar("execsrv_servers")


@overload
async def run(
    argv: Sequence[Path],
    *,
    own_process: bool = True,
    input: Data | str | None = None,
    text: Literal[True],
    encoding: str | None = None,
    errors: str | None = None,
    **options: Unpack[RunKeywords],
) -> Result[str]: ...


@overload
async def run(
    argv: Sequence[Path],
    *,
    own_process: bool = True,
    input: Data | None = None,
    text: Literal[False] | None = None,
    **options: Unpack[RunKeywords],
) -> Result[bytes]: ...


@overload
async def run(
    argv: Sequence[Path],
    *,
    own_process: bool = True,
    input: Data | str | None = None,
    text: Literal[True] | None = None,
    encoding: str,
    errors: str | None = None,
    **options: Unpack[RunKeywords],
) -> Result[str]: ...


@overload
async def run(
    argv: Sequence[Path],
    *,
    own_process: bool = True,
    input: Data | str | None = None,
    text: Literal[True] | None = None,
    encoding: None = None,
    errors: str,
    **options: Unpack[RunKeywords],
) -> Result[str]: ...


@overload
async def run(
    argv: Sequence[Path],
    *,
    own_process: bool = True,
    input: Data | str | None = None,
    text: bool,
    **options: Unpack[RunKeywords],
) -> Result[Any]: ...


async def run(argv: Sequence[Path], *, own_process: bool = True, **options: Any) -> Result[Any]:
    """Run a command to its end and return its result, as `Client.run` does with the same keywords, in this program.

    All calls of a trio run share one server, which the first of them starts. It is that of
    `connect_in_process(own_process=True)`: nothing survives, not even a crash of this program, which becomes a
    subreaper, handles SIGCHLD and has a small process beside it until its trio run ends. No other thread may start
    processes meanwhile. Without `own_process` no setting of this process is changed, and the end of everything after a
    crash is not guaranteed.

    Raises `RuntimeError` outside of the main thread with `own_process`, and if trio does not run.
    """
    check_trio()
    flag("own_process", own_process)
    if own_process and threading.current_thread() is not threading.main_thread():
        raise RuntimeError("execsrv.run needs the main thread: elsewhere, own_process=False asks for less")
    client = await _shared_client(own_process)
    result: Result[Any] = await client.run(argv, **options)
    return result


async def _shared_client(own_process: bool) -> Client:
    try:
        servers = _servers.get()
    except LookupError:
        _servers.set(servers := {})
    server = servers.get(own_process)
    if server is None or server.is_over:
        server = servers[own_process] = _Server()
        trio.lowlevel.spawn_system_task(server.stay, own_process)
    await happened(server.opened)
    if server.client is None:
        assert server.error is not None
        raise server.error
    return server.client
