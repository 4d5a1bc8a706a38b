"""Fixtures: a server on every transport, raw peers that speak the protocol to it, and clients."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import hypothesis
import pytest
import trio

from execsrv import Client, connect_in_process, connect_stdio, connect_unix, connect_websocket, serve
from execsrv._budget.allowance import Allowance
from execsrv._processes import spawn
from execsrv._processes.supervisor import Supervisor
from execsrv._server.serving import serve_descriptors
from execsrv._server.single_connection import serve_connection
from execsrv._wire.channel import MessageChannel
from execsrv._wire.lines import LineChannel
from execsrv._wire.memory import open_memory_pair
from execsrv._wire.websocket import open_websocket
from execsrv.client.client import open_client
from execsrv.limits import CLIENT_DEFAULTS, ClientConfig, ServerConfig
from tests.elsewhere import own_network
from tests.faults.daemon import running_daemon
from tests.measured import choose, collecting, measured
from tests.over_runner import WAYS, OverRunner, is_wanted
from tests.peers import PATIENCE, Peer, open_peer
from tests.processes import resident

# How long an example takes, to run or to make, says nothing on a busy machine.
hypothesis.settings.register_profile(
    "execsrv", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], max_examples=50
)
hypothesis.settings.register_profile("slow", parent=hypothesis.settings.get_profile("execsrv"), max_examples=200)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-survivors", action="store_true", help="every escape with every ending in every placement")
    parser.addoption("--slow", action="store_true", help="also what takes long: the same as other tests, but much more")
    parser.addoption("--measure-all", action="store_true", help="have coverage measure every test, and no sample")
    parser.addoption("--not-yet", action="store_true", help="also what is known to fail")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("slow" if config.getoption("--slow") else "execsrv")
    config.addinivalue_line("markers", "slow: more of what another test shows with less; runs with --slow")
    config.addinivalue_line("markers", "few(count=1): so many of its cases, of those named; with --slow all of them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is slow, and what a module's `NOT_YET` names with a reason: a test, a case of it, or the beginning."""
    slow = config.getoption("--slow")
    items[:] = [item for item in items if _is_wanted(item, slow=slow)]
    left_out = set() if slow else _left_out(items)
    for item in items:
        if item in left_out or (item.get_closest_marker("slow") and not slow):
            item.add_marker(pytest.mark.skip(reason="slow: runs with --slow"))
        if config.getoption("--not-yet"):
            continue
        for name, reason in getattr(getattr(item, "module", None), "NOT_YET", {}).items():
            if item.name == name or item.name.startswith((f"{name}[", f"{name}-")):
                item.add_marker(pytest.mark.skip(reason=f"not yet: {reason}"))
    wanted = [item for item in items if item.get_closest_marker("skip") is None]
    choose(wanted, everything=config.getoption("--measure-all"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looking for garbage, and never look through thousands of tests for it afterwards."""
    gc.disable()
    try:
        with collecting():
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Have it measured, or not, with its fixtures."""
    with measured(item):
        return (yield)


def _is_wanted(item: pytest.Item, *, slow: bool) -> bool:
    transport = item.callspec.params.get("transport") if hasattr(item, "callspec") else None
    test = getattr(item, "originalname", item.name)
    return is_wanted(getattr(getattr(item, "module", None), "__name__", ""), test, transport, slow=slow)


SAME_ELSEWHERE = {"transport", "run_args", "place"}
"""Fixtures that have the same done in several places: over each transport, by `execsrv run` here and on a server."""


def _left_out(items: list[pytest.Item]) -> set[pytest.Item]:
    """The cases that run with --slow only: of a test with `few` all but so many, and half of one in several places.

    They are drawn by lot, always the same for one test and others for another: so each place has its turn.
    """
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("slow") is None:
            cases[item.nodeid.partition("[")[0]].append(item)
    left_out: set[pytest.Item] = set()
    for test, all_of_it in cases.items():
        if (few := all_of_it[0].get_closest_marker("few")) is not None:
            [count] = few.args or [1]
        elif SAME_ELSEWHERE.intersection(getattr(all_of_it[0], "fixturenames", ())):
            count = (len(all_of_it) + 1) // 2
        else:
            continue
        left_out.update(Random(test).sample(all_of_it, len(all_of_it) - min(count, len(all_of_it))))
    return left_out


TRANSPORTS = ["memory", "stdio", "unix", "websocket"]
BYTE_TRANSPORTS = TRANSPORTS[1:]
PACKED = "packed"
"""A unix socket, on which raw peers speak msgpack. Clients speak it on every transport of bytes."""


def with_packed() -> Any:
    """A fixture `transport` for a module whose tests, or most of them, are about what is said on the wire."""

    def transport(request: pytest.FixtureRequest) -> str:
        return str(request.param)

    return pytest.fixture(transport, params=[*TRANSPORTS, PACKED, *WAYS])


@pytest.fixture(params=["posix_spawn", "portable_spawn"])
def starter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way of starting processes in turn, for tests whose meaning could differ between them."""
    way = import_module(f"execsrv._processes.{request.param}")
    if request.param == "posix_spawn" and not way.available:
        pytest.skip("this C library lacks a piece of posix_spawn")
    monkeypatch.setattr(spawn, "start", way.start)


T = TypeVar("T")


class Server:
    """A server on one transport, and ways to it. Its connections end with the test."""

    def __init__(self, transport: str, config: ServerConfig, nursery: trio.Nursery, path: str) -> None:
        self.transport = transport
        self.config = config
        self._nursery = nursery
        self._path = path
        self._url: str | None = None
        self.host = "127.0.0.1"
        self.shutdown = trio.Event()
        """What asks it to end in order."""

    async def _hold(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter a context for the rest of the test, in a task of its own: fixtures and tests are different tasks."""

        async def hold(*, task_status: trio.TaskStatus[T]) -> None:
            async with context as value:
                task_status.started(value)
                await trio.sleep_forever()

        value: T = await self._nursery.start(hold)
        return value

    async def url(self) -> str:
        """Where it listens; started when first asked for."""
        if self._url is None:
            self._url = await self._listen(
                f"ws://{self.host}:0" if self.transport == "websocket" else f"unix://{self._path}"
            )
        return self._url

    async def _listen(self, where: str) -> str:
        config = self.config
        if self.host != "127.0.0.1":
            config = replace(config, allow_plain_network=True, allow_anybody=True)
        url: str = await self._nursery.start(partial(serve, where, config, shutdown_trigger=self.shutdown.wait))
        return url

    async def streams(self) -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        """A connection as bytes, for what no channel of ours would send. Not for memory, nor websocket."""
        if self.transport in ("unix", PACKED):
            stream = await trio.open_unix_socket((await self.url()).removeprefix("unix://"))
            return stream, stream
        server_in, ours_out = os.pipe()
        ours_in, server_out = os.pipe()
        await self._nursery.start(self._serve_pipes, server_in, server_out)
        return trio.lowlevel.FdStream(ours_out), trio.lowlevel.FdStream(ours_in)

    async def _serve_pipes(self, server_in: int, server_out: int, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            task_status.started()
            await serve_descriptors(
                Supervisor(), server_in, server_out, self.config, shutdown_trigger=self.shutdown.wait
            )
        finally:
            os.close(server_in)
            os.close(server_out)

    @asynccontextmanager
    async def open_channel(self) -> AsyncIterator[MessageChannel]:
        """A new connection, before its handshake."""
        match self.transport:
            case "memory" | "runner" | "relayed":
                ours, theirs = open_memory_pair()
                self._nursery.start_soon(
                    partial(serve_connection, theirs, Supervisor(), self.config, shutdown_trigger=self.shutdown.wait)
                )
                yield OverRunner(ours, WAYS[self.transport]) if self.transport in WAYS else ours
                await ours.aclose()
            case "websocket":
                async with open_websocket(await self.url(), ServerConfig()) as websocket:
                    yield websocket
            case _:
                lines = LineChannel(*await self.streams(), ServerConfig())
                try:
                    yield lines
                finally:
                    await lines.aclose()

    @asynccontextmanager
    async def open_peer(self) -> AsyncIterator[Peer]:
        """A raw peer on a new connection, before its handshake; leaving hangs up."""
        encoding = "msgpack" if self.transport == PACKED else None
        async with self.open_channel() as channel, open_peer(channel, encoding) as peer:
            yield peer

    async def peer(self, ready: bool = True) -> Peer:
        """A raw peer on a new connection, for the rest of the test, with the handshake done if `ready`."""
        peer = await self._hold(self.open_peer())
        if ready:
            await peer.handshake()
        return peer

    async def client(self, config: ClientConfig = CLIENT_DEFAULTS) -> Client:
        """The real client on a new connection, for the rest of the test."""
        return await self._hold(self.open_client(config))

    @asynccontextmanager
    async def open_client(self, config: ClientConfig = CLIENT_DEFAULTS) -> AsyncIterator[Client]:
        """The real client on a new connection; leaving hangs up."""
        match self.transport:
            case "runner" | "relayed":
                connection = open_client(self.open_channel, config)
            case "memory":
                connection = connect_in_process(config=self.config, client_config=config)
            case "websocket":
                connection = connect_websocket(await self.url(), config=config)
            case "unix" | "packed":
                connection = connect_unix((await self.url()).removeprefix("unix://"), config=config)
            case _:
                connection = connect_stdio(*await self.streams(), config=config)
        async with connection as client:
            yield client


async def end(process: trio.Process) -> None:
    """Ask it to end: it has more time for that on a busy machine than `trio.run_process` would give it."""
    process.terminate()
    await trio.sleep(PATIENCE)
    process.kill()


class Daemon(Server):
    """A server in a process of its own, which nothing else is measured with. Listens, with the default limits."""

    pid = 0

    async def _listen(self, where: str) -> str:
        argv = [sys.executable, "-m", "execsrv", "serve", "--listen", where]
        run = partial(trio.run_process, argv, stdout=subprocess.PIPE, check=False, deliver_cancel=end)
        process = await self._nursery.start(run)
        self.pid = process.pid
        said = b""
        while not said.endswith(b"\n"):
            said += (piece := await process.stdout.receive_some())
            assert piece, "it does not listen"
        return said.decode().strip()

    def resident(self) -> int:
        """Bytes of memory that it has, once it listens."""
        return resident(self.pid)


OpenServer = Callable[[str, ServerConfig], Server]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The URL of a daemon on a unix socket."""
    folder = tmp_path / "server"
    folder.mkdir()
    with running_daemon(folder, "unix") as daemon:
        yield daemon.url


@pytest.fixture
async def open_server(tmp_path: object) -> AsyncIterator[OpenServer]:
    """Makes servers with limits of one's own."""
    async with trio.open_nursery() as nursery:
        # Short, since the path of a unix socket must fit into 108 bytes.
        paths = (f"{tmp_path}/s{number}" for number in count())
        yield lambda transport, config: Server(transport, config, nursery, next(paths))
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="session", autouse=True)
def no_settings() -> Iterator[None]:
    """What a contributor has set for servers, or for these tests, is not to reach the servers that they start."""
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("EXECSRV_")]:
            environment.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def default_signals() -> Iterator[None]:
    """What we were told to ignore (`nohup`, a background job of a script), those that the tests start are not to.

    We ignore it still, by doing nothing about it: that is not inherited.
    """
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def allowances() -> Iterator[list[Allowance]]:
    """Gives those of servers in this process. All that was taken of them is given back once the peers have gone, and
    nobody keeps anything there."""
    made: list[Allowance] = []

    class Noted(Allowance):
        def __init__(self, config: ServerConfig, above: Allowance | None = None) -> None:
            super().__init__(config, above)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("execsrv._budget.allowance.Allowance", Noted)
        yield made
    assert [budget for allowance in made for budget in allowance.budgets if budget.taken or budget.keepers] == []


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder for files, without links in its path, and not the one with the server's socket.

    A server that lies may make it too deep for pytest to remove.
    """
    folder = Path(os.path.realpath(tmp_path)) / "files"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture(params=[*TRANSPORTS, *WAYS])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(open_server: OpenServer, transport: str) -> Server:
    """A server with the default limits, on every transport in turn."""
    return open_server(transport, ServerConfig())


@pytest.fixture(params=["unix", "websocket"])
async def daemon(request: pytest.FixtureRequest, tmp_path: object) -> AsyncIterator[Daemon]:
    """A server in a process of its own, on each transport that can listen."""
    async with trio.open_nursery() as nursery:
        yield Daemon(request.param, ServerConfig(), nursery, f"{tmp_path}/daemon")
        nursery.cancel_scope.cancel()


@pytest.fixture
async def peer(server: Server) -> Peer:
    """A raw peer, ready for calls, on every transport in turn."""
    return await server.peer()


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Give an address that is not the loopback's, in a network of the test's own."""
    with ExitStack() as stack:
        try:
            address = stack.enter_context(own_network())
        except OSError as error:
            pytest.skip(f"not allowed to make a network: {error}")
        yield address
