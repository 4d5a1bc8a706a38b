"""Peers who are let in and ask for as much as they can, together, as fast as they can. A neighbour is somebody else."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from execsrv._doors.tokens import new_token, sha256
from execsrv.limits import MIB
from tests.attack.neighbour import Neighbour, open_neighbour
from tests.attack.test_floods import START, Raw, open_raw
from tests.faults.daemon import RUN, Daemon, alive_with, marked_env, running_daemon, until
from tests.processes import resident

PEERS = 8
SECONDS = 1.5
"""How long they go on asking. Nothing is asserted of how far they get."""

MARK = f"{RUN}-crowd"
LARGE = "AAAA" * 10_000


class Place(NamedTuple):
    """Where things are that peers ask for."""

    folder: Path
    deaf: int
    """A port at which nobody answers."""


Ask = Callable[[int, Place], tuple[str, dict[str, Any]]]


def start(number: int, *argv: str, **others: Any) -> tuple[str, dict[str, Any]]:
    params = {**START, "processId": f"p{number}", "argv": argv, "env": marked_env(MARK), **others}
    return "process/start", params


def walk(number: int, place: Place) -> tuple[str, dict[str, Any]]:
    options = {"maxDepth": 64, "maxDirectories": 9999, "maxEntries": 99999, "followDirectorySymlinks": True}
    return "fs/walk", {"path": "/usr", "options": options}


def relay(number: int, place: Place) -> tuple[str, dict[str, Any]]:
    params = {"method": "GET", "url": f"http://127.0.0.1:{place.deaf}/", "requestId": f"r{number}"}
    return "http/request", params


FLOODS: dict[str, Ask] = {
    "starts": lambda number, place: start(number, "true"),
    "starts that fail": lambda number, place: start(number, "/none"),
    "sleepers": lambda number, place: start(number, "sleep", "1000"),
    "terminals": lambda number, place: start(number, "sleep", "1000", tty=True),
    "wide windows": lambda number, place: start(number, "yes", windowBytes=16 * MIB),
    "printers": lambda number, place: start(number, "yes", windowBytes=4096, overflow="drop"),
    "watches": lambda number, place: ("fs/watch", {"watchId": f"w{number}", "path": "/usr"}),
    "missing": lambda number, place: ("fs/watchMissing", {"watchId": number, "missing": [f"{place.folder}/x{number}"]}),
    "relays": relay,
    "walks": walk,
    "handles": lambda number, place: ("fs/open", {"handleId": f"h{number}", "path": f"{place.folder}/large"}),
    "files": lambda number, place: ("fs/readFile", {"path": f"{place.folder}/large"}),
    "long names": lambda number, place: start(number, "true", processId=f"{number}".ljust(256, "x")),
    "waits": lambda number, place: ("process/waitFor", {"processId": "p", "pattern": "(a*)*b"}),
    "writes": lambda number, place: (
        "process/write",
        {"processId": "p", "chunk": "A" * 60_000, "writeId": f"{number}"},
    ),
    "nothing there": lambda number, place: (f"no/method/{number}", {"x": ["y"] * 100}),
    "deep": lambda number, place: ("process/list", {"x": json.loads("[" * 900 + "]" * 900)}),
    "other connections": lambda number, place: ("initialize", {"clientName": "x", "resumeSessionId": f"{number}"}),
}
EVERY_DAY = {"starts"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "large").write_bytes(bytes(20 * MIB))
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as deaf:
        yield Place(tmp_path, deaf.getsockname()[1])


@pytest.fixture(params=["unix", pytest.param("websocket", marks=pytest.mark.slow)])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Daemon, str]]:
    """A daemon, and the token of somebody else."""
    token = new_token()
    (tmp_path / "tokens").write_text(f"neighbour owner {sha256(token)} never\n")
    (tmp_path / "tokens").chmod(0o600)
    with running_daemon(tmp_path, request.param, "--token-file", f"{tmp_path}/tokens") as daemon:
        yield daemon, token


async def ask(raw: Raw, messages: Iterator[bytes], reads: bool) -> None:
    """Ask until there is no more time, or the server has had enough; read the answers, or not."""

    async def read() -> None:
        with suppress(trio.BrokenResourceError):
            while await raw.stream.receive_some():
                pass

    with trio.move_on_after(SECONDS):
        async with trio.open_nursery() as nursery:
            if reads:
                nursery.start_soon(read)
            with suppress(trio.BrokenResourceError):
                for message in messages:
                    await raw.say(message)
            await trio.sleep_forever()


def messages(what: Ask, place: Place, first: int) -> Iterator[bytes]:
    """Yield requests without an end."""
    number = first * 10_000_000
    while True:
        number += 1
        method, params = what(number, place)
        yield json.dumps({"id": number, "method": method, "params": params}).encode()


async def until_as_before(daemon: Daemon, neighbour: Neighbour, before: int, growth: int) -> None:
    """See that all that they have started has gone with them, and what they held is given back."""
    await until(lambda: not alive_with(MARK), lambda: f"still alive: {alive_with(MARK)}")
    await neighbour.answered()
    await until(lambda: resident(daemon.pid) < before + growth, lambda: f"{resident(daemon.pid)} of {before}")
    daemon.check()


@pytest.mark.parametrize("reads", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["heard", "unheard"])
@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=() if what in EVERY_DAY else pytest.mark.slow) for what in FLOODS]
)
async def test_a_crowd_that_asks_for_all(shared: tuple[Daemon, str], place: Place, what: str, reads: bool) -> None:
    daemon, token = shared
    async with open_neighbour(daemon.url, token) as neighbour:
        before = resident(daemon.pid)
        async with AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(open_raw(daemon, ready=True)) for _ in range(PEERS)]
            for raw in crowd:
                method, params = start(0, "sleep", "1000", processId="p", pipeStdin=True)
                await raw.say(json.dumps({"id": 0, "method": method, "params": params}).encode())
            async with trio.open_nursery() as nursery:
                for number, raw in enumerate(crowd):
                    nursery.start_soon(ask, raw, messages(FLOODS[what], place, number), reads)
            await neighbour.answered()
            assert resident(daemon.pid) < before + 900 * MIB  # what one principal may have, and the allocator's fifth
        await until_as_before(daemon, neighbour, before, 96 * MIB)


@pytest.mark.slow
async def test_a_crowd_that_comes_and_goes(shared: tuple[Daemon, str]) -> None:
    """Each with a command that has to be killed for them."""
    daemon, token = shared

    async def come_and_go() -> None:
        while True:
            with suppress(trio.BrokenResourceError, OSError, AssertionError):
                async with open_raw(daemon, ready=True) as raw:
                    method, params = start(0, "sh", "-c", "sleep 1000 & sleep 1000")
                    await raw.say(json.dumps({"id": 1, "method": method, "params": params}).encode())
                    await raw.hear(b'"id":1')

    async with open_neighbour(daemon.url, token) as neighbour:
        before = resident(daemon.pid)
        with trio.move_on_after(2 * SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(2 * PEERS):
                    nursery.start_soon(come_and_go)
        await until_as_before(daemon, neighbour, before, 64 * MIB)
