"""Peers that send too much of something. Each time a neighbour is answered exactly, and the server stays small."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv.limits import MIB
from execsrv.protocol import Failure
from tests.attack.neighbour import open_neighbour
from tests.faults.daemon import Daemon, connected, running_daemon, until
from tests.peers import PATIENCE
from tests.processes import resident
from tests.test_admission import INITIALIZE, UPGRADE, frame

INITIALIZED = b'{"method":"initialized"}'
GRIN = "\N{GRINNING FACE}"


@pytest.fixture(params=["unix", pytest.param("websocket", marks=pytest.mark.slow)])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, request.param) as daemon:
        yield daemon


@pytest.fixture
def websocket_daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, "websocket") as daemon:
        yield daemon


class Raw:
    """A connection as bytes, which says each message in the way of its transport."""

    def __init__(self, stream: trio.SocketStream, is_websocket: bool) -> None:
        self.stream = stream
        self._is_websocket = is_websocket

    async def say(self, *messages: bytes) -> None:
        written = map(frame, messages) if self._is_websocket else (message + b"\n" for message in messages)
        await self.stream.send_all(b"".join(written))

    async def hear(self, what: bytes) -> bytes:
        """Read until this was said; all that was."""
        heard = b""
        with trio.fail_after(2 * PATIENCE):
            while what not in heard[-2 * MIB :]:
                heard += (piece := await self.stream.receive_some())
                assert piece, heard[-2000:]
        return heard


@asynccontextmanager
async def open_raw(daemon: Daemon, *, ready: bool = False) -> AsyncIterator[Raw]:
    is_websocket = daemon.url.startswith("ws:")
    if is_websocket:
        host, _, port = daemon.url.removeprefix("ws://").rpartition(":")
        stream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(UPGRADE)
    else:
        stream = await trio.open_unix_socket(daemon.url.removeprefix("unix://"))
    async with stream:
        raw = Raw(stream, is_websocket)
        if ready:
            await raw.say(INITIALIZE)
            await raw.hear(b"protocolVersion")
            await raw.say(INITIALIZED)
        yield raw


async def until_small(daemon: Daemon, before: int, growth: int) -> None:
    """See that the server has grown by no more than that, once it has given back what it can."""
    await until(lambda: resident(daemon.pid) < before + growth, lambda: f"{resident(daemon.pid)} of {before}")


async def check_usable(daemon: Daemon) -> None:
    async with connected(daemon.url) as peer:
        assert await peer.run("new", ["echo", "fine"]) == (0, b"fine\n", b"")
    daemon.check()


# -- before anybody has said who it is --


async def test_unfinished_messages_of_many_strangers(daemon: Daemon) -> None:
    async with open_neighbour(daemon.url) as neighbour:
        before = resident(daemon.pid)
        async with AsyncExitStack() as crowd:
            for _ in range(200):
                raw = await crowd.enter_async_context(open_raw(daemon))
                start = b"\x01\xff" + (64 * MIB).to_bytes(8, "big") + bytes(4) if daemon.url.startswith("ws:") else b""
                with suppress(trio.BrokenResourceError), trio.move_on_after(0.1):
                    await raw.stream.send_all(start + b"x" * MIB)
            await neighbour.answered()
            assert resident(daemon.pid) < before + 64 * MIB
            await check_usable(daemon)


@pytest.mark.slow
async def test_handshakes_a_byte_at_a_time(websocket_daemon: Daemon) -> None:
    daemon = websocket_daemon
    async with open_neighbour(daemon.url) as neighbour, AsyncExitStack() as crowd:
        host, _, port = daemon.url.removeprefix("ws://").rpartition(":")
        slow = [await crowd.enter_async_context(await trio.open_tcp_stream(host, int(port))) for _ in range(300)]
        for byte in UPGRADE[:8]:
            for stream in slow:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(bytes([byte]))
            await check_usable(daemon)
        await neighbour.answered()


@pytest.mark.parametrize("ready", [False, True], ids=["stranger", "known"])
async def test_endless_fragments(websocket_daemon: Daemon, ready: bool) -> None:
    daemon = websocket_daemon
    async with open_neighbour(daemon.url) as neighbour, open_raw(daemon, ready=ready) as raw:
        before = resident(daemon.pid)
        with suppress(trio.BrokenResourceError), trio.move_on_after(PATIENCE):
            await raw.stream.send_all(frame(b"{", first=0x01) + frame(b"", first=0x00) * 70_000)
            await raw.hear(b" parts")
        await neighbour.answered()
        await until_small(daemon, before, 32 * MIB)
    await check_usable(daemon)


@pytest.mark.parametrize("ready", [False, True], ids=["stranger", "known"])
async def test_pings_whose_pongs_nobody_reads(websocket_daemon: Daemon, ready: bool) -> None:
    daemon = websocket_daemon
    async with open_neighbour(daemon.url) as neighbour, open_raw(daemon, ready=ready) as raw:
        before = resident(daemon.pid)
        with suppress(trio.BrokenResourceError), trio.move_on_after(1):
            while True:
                await raw.stream.send_all(frame(b"x" * 125, first=0x89) * 1000)
        await neighbour.answered()
        assert resident(daemon.pid) < before + 32 * MIB
    await check_usable(daemon)


# -- one message that is much work --

START: dict[str, Any] = {"processId": "p", "argv": ["true"], "cwd": "/", "env": {}, "tty": False}
POLICY = {"inherit": "all", "ignoreDefaultExcludes": True, "exclude": [], "set": {}, "includeOnly": []}
EVERY_DAY = {"PATH of many folders", "many patterns", "many empty words"}
MUCH_WORK: dict[str, tuple[str, object]] = {
    "PATH of many folders": ("process/start", {**START, "env": {"PATH": ":" * 7 * MIB}}),
    "many patterns": ("process/start", {**START, "envPolicy": {**POLICY, "exclude": ["*a*b*c*"] * 40_000}}),
    "long patterns": ("process/start", {**START, "envPolicy": {**POLICY, "exclude": ["*a" * 2000] * 1000}}),
    "many empty words": ("process/start", {**START, "argv": ["true"] + [""] * 2_000_000}),
    "many variables": ("process/start", {**START, "env": {f"{number}": "" for number in range(400_000)}}),
    "nested sandbox": ("process/start", {**START, "sandbox": [[]] * 5_000_000}),
    "long host": ("http/request", {"method": "GET", "url": "http://" + "ü" * 200_000, "requestId": "r"}),
    "long name": ("process/start", {**START, "processId": "x" * 8 * MIB + GRIN}),
    "long directory": ("process/start", {**START, "cwd": "/" + "x" * 8 * MIB + GRIN}),
    "many roots": ("capabilityRoots/discoverV1", {"roots": [{"id": "r", "path": "/"}] * 400_000}),
    "many paths": ("fs/watchMissing", {"watchId": 1, "missing": ["/a"] * 800_000}),
    "many keys": ("environmentConfig/read", {"cwd": "/", "configPaths": [["a"]] * 800_000, "requirementsPaths": []}),
}


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=() if what in EVERY_DAY else pytest.mark.slow) for what in MUCH_WORK]
)
async def test_a_message_that_is_much_work_is_refused(daemon: Daemon, what: str) -> None:
    method, params = MUCH_WORK[what]
    async with open_neighbour(daemon.url) as neighbour, connected(daemon.url) as peer:
        before = resident(daemon.pid)
        answer = await peer.answer(await peer.post(method, params))
        assert isinstance(answer, Failure)
        assert answer.error.data["kind"] in ("invalid-params", "spawnFailed")
        assert await peer.call("environment/status") == {"status": "ready"}
        await neighbour.answered()
        await until_small(daemon, before, 64 * MIB)
    daemon.check()


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "message",
    [
        b'{"jsonrpc":[' + b"[]," * 5_000_000 + b'[]],"id":7,"method":"process/list"}',
        b'{"id":7,"method":"process/list","params":' + b"[" * 8 * MIB + b"}",
        b'{"id":7,"method":"process/list","params":{"x":' + b"9" * 8 * MIB + b"}}",
        b'{"id":7,"method":"process/list","params":{"x":"' + b"\\ud83d\\ude00" * MIB + b'\\ud83d"}}',
        b'{"id":7,"method":"' + b"x" * 8 * MIB + GRIN.encode() + b'"}',
    ],
    ids=["jsonrpc", "nested", "a number", "surrogates", "a method"],
)
async def test_a_message_that_is_odd_and_large(daemon: Daemon, message: bytes) -> None:
    async with open_neighbour(daemon.url) as neighbour, open_raw(daemon, ready=True) as raw:
        before = resident(daemon.pid)
        await raw.say(message)
        await raw.say(b'{"id":"next","method":"environment/status"}')
        await raw.hear(b'"ready"')
        await neighbour.answered()
        await until_small(daemon, before, 64 * MIB)
    daemon.check()


# -- many messages --


@pytest.mark.slow
async def test_large_messages_of_several_at_once(daemon: Daemon) -> None:
    """All are done, or refused for want of room; and those are few for whom there is room at once."""
    chunk = "A" * (16 * MIB)
    async with open_neighbour(daemon.url) as neighbour, AsyncExitStack() as crowd, trio.open_nursery() as nursery:
        before = resident(daemon.pid)

        async def write(raw: Raw, number: int) -> None:
            await raw.say(json.dumps({"id": 1, "method": "process/start", "params": deaf}).encode())
            await raw.hear(b'"pid"')
            params = {"processId": "p", "chunk": chunk, "writeId": f"{number}"}
            with suppress(trio.BrokenResourceError, AssertionError):
                await raw.say(json.dumps({"id": 2, "method": "process/write", "params": params}).encode())
                await raw.say(b'{"id":"next","method":"environment/status"}')
                await raw.hear(b'"ready"')

        deaf = {**START, "argv": ["/bin/sleep", "1000"], "pipeStdin": True}
        for number in range(4):
            raw = await crowd.enter_async_context(open_raw(daemon, ready=True))
            nursery.start_soon(write, raw, number)
        await neighbour.answered()
        assert resident(daemon.pid) < before + 512 * MIB
    await check_usable(daemon)


async def test_a_storm_of_small_requests_whose_answers_nobody_reads(daemon: Daemon) -> None:
    async with open_neighbour(daemon.url) as neighbour, open_raw(daemon, ready=True) as raw:
        before = resident(daemon.pid)
        with suppress(trio.BrokenResourceError), trio.move_on_after(2):
            while True:
                await raw.say(*[b'{"id":1,"method":"environment/info","params":{}}'] * 1000)
        await neighbour.answered()
        assert resident(daemon.pid) < before + 32 * MIB
    await check_usable(daemon)
