"""The client of a test, in the world that the test lives in: trio, asyncio, or plain code.

A client under asyncio, and in plain code, lives in the portal's thread. So plain fixtures open and close it, whichever
plugin runs the test.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import pytest
import trio

from execsrv.client.client import Client
from execsrv.client.connect import connect
from execsrv.client.inside import connection_of
from execsrv.client.process import Process
from execsrv.testing.notes import Notes
from execsrv.testing.running_server import RunningServer

World = Literal["trio", "asyncio", "plain"]

NOTES = pytest.StashKey[Notes]()


def world_of(request: pytest.FixtureRequest) -> World:
    """Return the world of a test. Raises `pytest.UsageError` for a coroutine that nobody runs."""
    node = request.node
    test = getattr(node, "obj", None)
    if not _is_coroutine(test):  # whatever it is marked with: the plugins leave it to pytest
        return "plain"
    if "anyio_backend" in request.fixturenames:
        name = request.getfixturevalue("anyio_backend_name")
        return "trio" if name == "trio" else "asyncio"
    if node.get_closest_marker("trio") is not None:
        return "trio"
    if node.get_closest_marker("asyncio") is not None:
        return "asyncio"
    if inspect.iscoroutinefunction(test):
        raise pytest.UsageError(
            f"{node.name} is a coroutine, and neither pytest-trio, pytest-asyncio nor anyio is told to run it"
        )
    return "plain"


def _is_coroutine(test: Any) -> bool:
    """Tell whether a test is a coroutine function, also inside of what runs it: a wrapper, or Hypothesis."""
    if hasattr(test, "hypothesis"):
        test = test.hypothesis.inner_test
        test = getattr(test, "_anyio_original_func", test)  # behind the first backend; it does not say `__wrapped__`
    return inspect.iscoroutinefunction(inspect.unwrap(test, stop=inspect.iscoroutinefunction))


@asynccontextmanager
async def open_noted(server: RunningServer, node: pytest.Item) -> AsyncIterator[Client]:
    """Connect for one test, and take notes for the report on it."""
    async with connect(server.url) as client:
        node.stash[NOTES] = Notes(connection_of(client), is_here=server.pid is not None)
        yield client


@contextmanager
def portal_client(world: World, server: RunningServer, node: pytest.Item) -> Iterator[Any]:
    """Connect for one test of asyncio or plain code. Leaving the block ends all that it has started."""
    from execsrv._portal.fixtures import opened

    with opened(_client_class(world), open_noted, server, node) as client:
        yield client


@contextmanager
def portal_shell(world: World, client: Any) -> Iterator[Any]:
    """Run a bash for one test of asyncio or plain code."""
    from execsrv._portal.fixtures import opened
    from execsrv.client import replwrap

    with opened(_client_class(world), replwrap.bash, client, within=client) as shell:
        yield shell


@contextmanager
def portal_starter(world: World, client: Any) -> Iterator[Callable[..., Any]]:
    """Give a function that starts processes for the rest of a test of asyncio or plain code."""
    from execsrv._portal.fixtures import leave

    kept: list[Any] = []

    def start(*args: Any, **options: Any) -> Any:
        kept.append(client.start(*args, **options))
        return kept[-1]

    async def start_awaited(*args: Any, **options: Any) -> Any:
        kept.append(await client.start(*args, **options))
        return kept[-1]

    try:
        yield start if world == "plain" else start_awaited
    finally:
        for process in kept:
            leave(process)


def _client_class(world: World) -> Any:
    if world == "plain":
        from execsrv.sync import Client as PlainClient

        return PlainClient
    from execsrv.asyncio import Client as AwaitingClient

    return AwaitingClient


@asynccontextmanager
async def open_trio_starter(client: Client) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Give a function that starts processes for the rest of a test of trio."""
    async with trio.open_nursery() as nursery:

        async def keep(options: Any, *, task_status: trio.TaskStatus[Process]) -> None:
            async with client.start(*options[0], **options[1]) as process:
                task_status.started(process)
                await trio.sleep_forever()

        async def start(*args: Any, **options: Any) -> Process:
            process: Process = await nursery.start(keep, (args, options))
            return process

        yield start
        nursery.cancel_scope.cancel()
