"""Types of the ways to a server, and of a server of one's own."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import assert_type

import trio

import execsrv

CONFIG = execsrv.ClientConfig(window_bytes=5, ping_interval=1, ping_timeout=2, leave_timeout=3)


async def connecting(stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream) -> None:
    async with execsrv.connect_in_process() as client:
        assert_type(client, execsrv.Client)
    async with execsrv.connect_in_process(config=execsrv.ServerConfig(allow_http=False), own_process=True) as client:
        assert_type(client, execsrv.Client)
    async with execsrv.connect("ws://127.0.0.1:1", token="x", reconnect=5, config=CONFIG) as client:
        assert_type(client, execsrv.Client)
    async with execsrv.connect_websocket("ws://127.0.0.1:1", token="x", reconnect=5, config=CONFIG) as client:
        assert_type(client, execsrv.Client)
    async with execsrv.connect_unix(Path("/s"), reconnect=5, config=CONFIG) as client:
        assert_type(client, execsrv.Client)
    async with execsrv.connect_stdio(stdin, stdout, config=CONFIG) as client:
        assert_type(client, execsrv.Client)
    async with execsrv.launch(["execsrv", "serve"], env={"A": "1"}, config=CONFIG) as client:
        assert_type(client, execsrv.Client)


async def serving(nursery: trio.Nursery) -> None:
    await execsrv.serve()
    await execsrv.serve("unix:///s", execsrv.ServerConfig(), own_process=True, shutdown_trigger=trio.sleep_forever)
    await nursery.start(execsrv.serve, "ws://127.0.0.1:0")


def anyhow(way: Callable[[], AbstractAsyncContextManager[execsrv.Client]]) -> None:
    """Every way without arguments can be given where one is asked for."""
    anyhow(execsrv.connect_in_process)
    anyhow(lambda: execsrv.launch(["execsrv", "serve"]))


async def wrong() -> None:
    execsrv.connect("unix:///s", config=execsrv.ServerConfig())  # type: ignore[arg-type]
    execsrv.connect_in_process(config=CONFIG)  # type: ignore[arg-type]
    execsrv.connect("unix:///s", "token")  # type: ignore[call-arg]
    await execsrv.serve(5)  # type: ignore[arg-type]
    CONFIG.window_bytes = 5  # type: ignore[misc]
