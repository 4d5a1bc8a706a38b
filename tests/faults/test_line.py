"""The line between a peer and the server does a wrong thing at byte N of a conversation, for every method.

Whatever it was: nothing of the peer's commands is left, a neighbour on the same server is answered exactly throughout,
the server lives, and has nothing to say about it that it did not foresee. Where a connection may be resumed, nothing
is lost.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from execsrv import connect
from execsrv.errors import ExecsrvError
from execsrv.protocol import METHODS
from execsrv.testing.faults import Fault, FaultyLine, Kind, Side, open_faulty_line
from tests.faults.conversations import CONVERSATIONS, Stage
from tests.faults.daemon import (
    Daemon,
    alive_with,
    connected,
    marked_env,
    new_mark,
    open_neighbour,
    running_daemon,
    until,
    until_gone,
)
from tests.web import open_web

TRANSPORTS = ["unix", "websocket"]
KINDS: list[Kind] = ["cut", "reset", "truncate", "delay", "duplicate", "lose"]
SIDES: list[Side] = ["client", "server"]
FAMILIES = sorted({method.split("/")[0] for method in CONVERSATIONS})
PLACES = 4
"""At how many bytes of each side a conversation meets each kind of fault; the ends are always among them."""
STALLED_SECONDS = 0.2
"""How long a peer waits behind a fault before it hangs up: an answer may never come."""


@pytest.fixture(scope="module", params=TRANSPORTS)
def daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("line"), request.param) as daemon:
        yield daemon


@pytest.fixture(scope="module", params=TRANSPORTS)
def patient_daemon(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose connections may be resumed."""
    with running_daemon(tmp_path_factory.mktemp("line"), request.param, "--resume-grace", "30") as daemon:
        yield daemon


def places(length: int, some: int, every: bool) -> list[int]:
    """Return where to break a conversation of so many bytes."""
    if every or length <= some:
        return list(range(length))
    return sorted({0, length - 1, *random.Random(length).sample(range(length), some - 2)})


def test_there_is_a_conversation_for_every_method() -> None:
    assert set(CONVERSATIONS) == set(METHODS)


async def speak(url: str, line: FaultyLine, method: str, folder: Path, mark: str, page: str) -> object:
    """Have the conversation, and hang up."""
    async with connected(line.url) as peer:
        return await CONVERSATIONS[method](Stage(peer, folder, mark, page, url))


async def meet(line: FaultyLine, fault: Fault, conversation: Callable[[], Awaitable[object]]) -> object:
    """Have the conversation with a fault in it; what came of it, None when it broke off."""
    with trio.CancelScope() as scope:

        def happened() -> None:
            scope.deadline = trio.current_time() + STALLED_SECONDS

        line.expect(fault, happened=(lambda: None) if fault.kind == "delay" else happened)
        try:
            return await conversation()
        except Exception:  # whatever such a line does to a peer; it is the server that is tried
            if fault.kind == "delay":
                raise
    return None


@pytest.mark.timeout(0)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_at_byte_n(
    daemon: Daemon, kind: Kind, family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "reset" and daemon.url.startswith("unix:"):
        pytest.skip("a unix socket knows no reset")
    every = request.config.getoption("--every-byte")
    async with open_neighbour(daemon.url), open_faulty_line(daemon.url, f"{tmp_path}/l") as line, open_web() as web:
        web.page("/page", body=b"body")
        mark = new_mark()
        for method in (method for method in CONVERSATIONS if method.split("/")[0] == family):
            conversation = partial(speak, daemon.url, line, method, tmp_path, mark, f"{web.url}/page")
            line.expect()
            recorded = await conversation()
            lengths = dict(line.passed)
            for side in SIDES:
                for at in places(lengths[side], PLACES, every):
                    answered = await meet(line, Fault(kind, side, at), conversation)
                    if kind == "delay":
                        assert answered == recorded, (method, side, at)
                    await until_gone(mark)
    daemon.check()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["cut", "truncate"])
async def test_a_short_conversation_is_cut_at_every_byte(
    daemon: Daemon, kind: Kind, side: Side, tmp_path: Path
) -> None:
    mark = new_mark()
    async with open_neighbour(daemon.url), open_faulty_line(daemon.url, f"{tmp_path}/l") as line:
        conversation = partial(speak, daemon.url, line, "process/start", tmp_path, mark, "")
        line.expect()
        await conversation()
        for at in range(line.passed[side]):
            await meet(line, Fault(kind, side, at), conversation)
            # sh, and two that sleep: what came before is going.
            await until(lambda: len(alive_with(mark)) <= 3, lambda: f"still alive: {alive_with(mark)}")
        await until_gone(mark)
    daemon.check()


# -- with a connection that may be resumed --


LOSSES: list[Kind] = ["cut", "reset", "truncate", "delay"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", LOSSES)
async def test_nothing_is_lost_where_it_is_resumed(
    patient_daemon: Daemon, kind: Kind, side: Side, tmp_path: Path
) -> None:
    if kind == "reset" and patient_daemon.url.startswith("unix:"):
        pytest.skip("a unix socket knows no reset")
    size, typed = 2_000_000, random.Random(2).randbytes(500_000)
    (tmp_path / "large").write_bytes(printed := random.Random(1).randbytes(size))
    mark = new_mark()
    argv = ["sh", "-c", f"cat {tmp_path}/large; sha256sum"]
    async with (
        open_neighbour(patient_daemon.url),
        open_faulty_line(patient_daemon.url, f"{tmp_path}/l") as line,
        connect(line.url, reconnect=30) as client,
    ):
        length = (size if side == "server" else len(typed)) * 4 // 3
        for first in (0, 100, 70_000):
            line.expect(*(Fault(kind, side, at) for at in range(first, length, length // 4)))
            result = await client.run(argv, input=typed, env=marked_env(mark))
            assert hashlib.sha256(result.stdout[:size]).digest() == hashlib.sha256(printed).digest()
            assert result.stdout[size:].split()[0].decode() == hashlib.sha256(typed).hexdigest()
            assert (result.exit_code, result.stderr, result.remaining) == (0, b"", [])
        await until_gone(mark)
    patient_daemon.check()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["cut", "truncate"])
async def test_a_short_conversation_is_resumed_from_every_byte(
    patient_daemon: Daemon, kind: Kind, side: Side, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    some = 10_000 if request.config.getoption("--every-byte") else 25
    mark = new_mark()

    async def conversation() -> None:
        async with connect(line.url, reconnect=30) as client:
            line.expect(*faults)
            async with client.start(["sh", "-c", "cat; exit 3"], stdin=True, env=marked_env(mark)) as process:
                await process.write(b"one\n")
                assert await process.next_event()
                await process.write(b"two\n")
                await process.close_stdin()
                output = b"one\n" + b"".join(
                    [event.chunk async for event in process.events() if hasattr(event, "chunk")]
                )
                assert output == b"one\ntwo\n"
                assert (await process.wait()).exit_code == 3

    async with open_neighbour(patient_daemon.url), open_faulty_line(patient_daemon.url, f"{tmp_path}/l") as line:
        faults: list[Fault] = []
        await conversation()
        for at in places(line.passed[side], some, every=False):
            faults = [Fault(kind, side, at)]
            await conversation()
            line.expect()  # times have more digits or fewer: the place of the fault may not have been reached
        await until_gone(mark)
    patient_daemon.check()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", ["cut", "truncate"])
async def test_who_has_joined_and_attached_comes_back_from_every_byte(
    patient_daemon: Daemon, kind: Kind, side: Side, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    some = 10_000 if request.config.getoption("--every-byte") else 25
    mark = new_mark()
    argv = ["sh", "-c", "echo before; cat; exit 3"]
    faults: list[Fault] = []

    async def conversation() -> None:
        """Type into what somebody else has started, and read all of it. He reads it too, and notices nothing."""
        async with (
            connect(patient_daemon.url, name=(name := f"s{new_mark()}")) as owner,
            owner.start(argv, stdin=True, id="it", env=marked_env(mark)) as started,
            connect(line.url, reconnect=30) as client,
            connect(patient_daemon.url) as other,
        ):
            line.expect(*faults)
            async with client.join(name, "writer") as joined, joined.attach("it") as process:
                await process.write(b"one\n")
                await process.write(b"two\n")
                await process.close_stdin()
                heard = b"".join([data async for data in process.output])
                assert (heard, (await process.wait()).exit_code) == (b"before\none\ntwo\n", 3)
            assert b"".join([data async for data in started.output]) == heard
            await other.end_connection(name)  # or it waits for its grace

    async with open_neighbour(patient_daemon.url), open_faulty_line(patient_daemon.url, f"{tmp_path}/l") as line:
        await conversation()
        for at in places(line.passed[side], some, every=False):
            faults = [Fault(kind, side, at)]
            await conversation()
            line.expect()
        await until_gone(mark)
    patient_daemon.check()


@pytest.mark.parametrize("side", SIDES)
async def test_who_attaches_to_his_own_comes_back_from_every_byte(
    patient_daemon: Daemon, side: Side, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    some = 10_000 if request.config.getoption("--every-byte") else 15
    mark = new_mark()
    faults: list[Fault] = []

    async def conversation() -> None:
        """Start it under a key, leave it running, and come back."""
        async with (
            connect(line.url, reconnect=30, name=(name := f"s{new_mark()}")) as client,
            connect(patient_daemon.url) as other,
        ):
            line.expect(*faults)
            argv = ["sh", "-c", "echo before; cat; exit 3"]
            async with client.start(argv, stdin=True, key="it", env=marked_env(mark)) as process:
                assert await anext(process.lines()) == "before"
                process.leave_running()
            async with client.attach("it") as process:
                await process.write(b"one\n")
                await process.close_stdin()
                assert b"".join([data async for data in process.output]) == b"before\none\n"
                assert (await process.wait()).exit_code == 3
            await other.end_connection(name)  # or it waits for its grace

    async with open_neighbour(patient_daemon.url), open_faulty_line(patient_daemon.url, f"{tmp_path}/l") as line:
        await conversation()
        for at in places(line.passed[side], some, every=False):
            faults = [Fault("cut", side, at)]
            await conversation()
            line.expect()
        await until_gone(mark)
    patient_daemon.check()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["duplicate", "lose"])
@pytest.mark.parametrize("side", SIDES)
async def test_a_wrong_byte_is_an_error_of_ours(daemon: Daemon, kind: Kind, side: Side, tmp_path: Path) -> None:
    """Nobody can tell what was meant. The client hears no end of it, or one, or an error that it knows."""
    mark = new_mark()
    async with open_neighbour(daemon.url), open_faulty_line(daemon.url, f"{tmp_path}/l") as line:
        for at in places(2500, 25, every=False):
            with trio.CancelScope() as scope:

                def happened(scope: trio.CancelScope = scope) -> None:
                    scope.deadline = trio.current_time() + STALLED_SECONDS

                line.expect(Fault(kind, side, at), happened=happened)
                try:
                    async with connect(line.url) as client:
                        await client.run(["sh", "-c", "printf 123; exit 3"], env=marked_env(mark))
                except ExecsrvError:
                    pass
            await until_gone(mark)
    daemon.check()
