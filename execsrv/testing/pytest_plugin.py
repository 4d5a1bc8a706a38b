"""Fixtures for pytest, which loads this by itself: a server, a client for the world of each test, and what they start.

A run that asks for none of them pays for no more than this module, which loads nothing else of execsrv. With
`PYTEST_DISABLE_PLUGIN_AUTOLOAD` it is loaded by `-p execsrv.testing.pytest_plugin`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from execsrv.testing.faults import FaultyLine
    from execsrv.testing.running_server import RunningServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--execsrv-url`."""
    parser.getgroup("execsrv").addoption(
        "--execsrv-url",
        metavar="URL",
        help="the server of `exec_server`: ws://HOST:PORT, unix://PATH, ssh://HOST and so on; default: a new one",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell with the failure of a test what the processes are that it has started, and what they have printed."""
    report = yield
    if report.failed and "execsrv.testing.worlds" in sys.modules:  # else no test has had a client
        from execsrv.testing.worlds import NOTES

        notes = item.stash.get(NOTES, None)
        if notes is not None and (text := notes.text()):
            report.sections.append(("processes of exec_client", text))
            del item.stash[NOTES]
    return report


@pytest.fixture(scope="session")
def exec_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """A server for the whole run, in a process of its own: `exec_server.url`.

    It is that of `--execsrv-url`, where one is given, and ends with the run otherwise. Under pytest-xdist each worker
    has its own.
    """
    from execsrv.testing.no_strays import unmarked
    from execsrv.testing.running_server import RunningServer, serving

    if url := request.config.getoption("--execsrv-url"):
        yield RunningServer(url)
        return
    with ExitStack() as stack:
        with unmarked():  # a test that asks for it on its way may have `no_strays` already
            server = stack.enter_context(serving())
        yield server


@pytest.fixture
def exec_serve() -> Iterator[Callable[..., RunningServer]]:
    """A function that starts servers for one test: `exec_serve("ws://127.0.0.1:0", "--max-connections", "2")`.

    Its parameters are those of `execsrv.testing.serving`.
    """
    from execsrv.testing.running_server import serving

    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(serving(*args, **options))


@pytest.fixture
def exec_client(request: pytest.FixtureRequest, exec_server: RunningServer) -> Iterator[Any]:
    """A client of `exec_server` for one test, which ends all that the test has started.

    It is an `execsrv.Client` in a test of trio, an `execsrv.asyncio.Client` in one of asyncio, and an
    `execsrv.sync.Client` in a plain function.
    """
    from execsrv.testing.worlds import portal_client, world_of

    if (world := world_of(request)) == "trio":
        yield request.getfixturevalue("_exec_client_of_trio")
        return
    with portal_client(world, exec_server, request.node) as client:
        yield client


@pytest.fixture
async def _exec_client_of_trio(request: pytest.FixtureRequest, exec_server: RunningServer) -> AsyncIterator[Any]:
    from execsrv.testing.worlds import open_noted

    async with open_noted(exec_server, request.node) as client:
        yield client


@pytest.fixture
def exec_process(request: pytest.FixtureRequest, exec_server: RunningServer) -> Iterator[Any]:
    """A function that starts a process for the rest of the test, by the parameters of `Client.start`.

    In a test of trio or asyncio it is awaited: `process = await exec_process(["server"])`.
    """
    from execsrv.testing.worlds import portal_starter, world_of

    if (world := world_of(request)) == "trio":
        yield request.getfixturevalue("_exec_process_of_trio")
        return
    with portal_starter(world, request.getfixturevalue("exec_client")) as start:
        yield start


@pytest.fixture
async def _exec_process_of_trio(_exec_client_of_trio: Any) -> AsyncIterator[Any]:
    from execsrv.testing.worlds import open_trio_starter

    async with open_trio_starter(_exec_client_of_trio) as start:
        yield start


@pytest.fixture
def exec_shell(request: pytest.FixtureRequest, exec_server: RunningServer) -> Iterator[Any]:
    """A bash for one test, which keeps its directory and variables: `exec_shell.run_command("cd src")`.

    It is that of `execsrv.replwrap`, in the world of the test.
    """
    from execsrv.testing.worlds import portal_shell, world_of

    if (world := world_of(request)) == "trio":
        yield request.getfixturevalue("_exec_shell_of_trio")
        return
    with portal_shell(world, request.getfixturevalue("exec_client")) as shell:
        yield shell


@pytest.fixture
async def _exec_shell_of_trio(_exec_client_of_trio: Any) -> AsyncIterator[Any]:
    from execsrv.client import replwrap

    async with replwrap.bash(_exec_client_of_trio) as shell:
        yield shell


@pytest.fixture
def exec_line(exec_server: RunningServer) -> Iterator[FaultyLine]:
    """A line in front of `exec_server`, for clients that connect to `exec_line.url`, which does wrong things on demand.

    `exec_line.expect(Fault("cut", "server", at=100))` says which, and where.
    """
    from functools import partial

    from execsrv._portal import blocking
    from execsrv.testing.faults import open_faulty_line

    with blocking.entered({}, partial(open_faulty_line, exec_server.url)) as opened:
        yield opened.value


@pytest.fixture
def exec_replay() -> Iterator[Callable[..., str]]:
    """A function that plays the server of a recorded conversation, and gives its URL: `exec_replay("talk.jsonl")`.

    The test fails when a client says something else than what was recorded.
    """
    from execsrv.testing.conversations import replaying

    with ExitStack() as stack:
        yield lambda path: stack.enter_context(replaying(path))


@pytest.fixture
def no_strays() -> Iterator[None]:
    """Fail a test that leaves processes behind, two seconds after it, and kill them, by `assert_no_strays`.

    `pytestmark = pytest.mark.usefixtures("no_strays")` asks for it in a whole module.
    """
    from execsrv.testing import assert_no_strays

    with assert_no_strays():
        yield
