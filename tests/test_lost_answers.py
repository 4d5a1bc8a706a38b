"""Answers that are lost with their channel: what was asked is done once, and answered as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv import Client, Policy, ServerConfig, connect
from execsrv.errors import (
    ConnectionLostError,
    FileError,
    InvalidParamsError,
    LimitExceededError,
    NotFoundError,
    ProcessExistsError,
    UnknownConnectionError,
)
from execsrv.testing.faults import Fault, FaultyLine, open_faulty_line
from tests.confined import needs_confinement
from tests.conftest import OpenServer, Server
from tests.over_runner import LAUNCH
from tests.peers import PATIENCE


@pytest.fixture
def server(open_server: OpenServer) -> Server:
    return open_server("unix", ServerConfig(resume_grace=300))


@asynccontextmanager
async def cut_off(server: Server, tmp_path: Path) -> AsyncIterator[tuple[FaultyLine, Client]]:
    """A client that comes back, and its line."""
    async with open_faulty_line(await server.url(), f"{tmp_path}/line") as line:
        with trio.fail_after(PATIENCE):
            async with connect(line.url, reconnect=PATIENCE) as client:
                yield line, client
                line.expect()


def lose_next(line: FaultyLine) -> None:
    """Let the next answer be lost: the server has done by then what was asked. Nothing else may be told meanwhile."""
    line.expect(Fault("cut", "server", 1))


async def test_a_start_under_an_id_of_ones_own_is_told_from_another_process(server: Server, tmp_path: Path) -> None:
    async with cut_off(server, tmp_path) as (line, client):
        async with client.start(["sleep", "1000"], id="dev") as first:
            first.leave_running()
        lose_next(line)
        with pytest.raises(ProcessExistsError):
            async with client.start(["sleep", "1001"], id="dev", grace=0):
                pass
        assert [listed.running for listed in await client.processes()] == [True]
        lose_next(line)
        async with client.start(["sh", "-c", "read x; echo $x; echo end"], id="own", stdin=True) as own:
            assert own.pid != first.pid
            assert (await own.communicate(b"once\n")).stdout == b"once\nend\n"
        assert [listed.process_id for listed in await client.processes()] == ["dev", "own"]


async def test_a_start_that_hangs_keeps_nobody_from_coming_back(server: Server, tmp_path: Path) -> None:
    """Nothing can be read of it yet; when it has begun, nothing is missing."""
    go, launched = tmp_path / "go", tmp_path / "launched"
    os.mkfifo(go)
    hanging = ["sh", "-c", f'echo once >> {launched}; read x < {go}; exec "$@"', "sh", *LAUNCH]
    results: list[execsrv.Result[bytes]] = []
    async with cut_off(server, tmp_path) as (line, client), client.start(["cat"], stdin=True) as other:

        async def run() -> None:
            results.append(await client.run(["echo", "begun"], runner=hanging))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            while [listed.pid for listed in await client.processes()][1:] != [None]:
                pass
            for _ in range(2):
                lose_next(line)
                assert [listed.pid for listed in await client.processes()] == [other.pid, None]
            await other.write(b"here\n")
            assert await other.stdout.receive_some() == b"here\n"
            gate = os.open(go, os.O_RDWR)
            os.write(gate, b"go\n")
            while not results:
                await client.processes()
            os.close(gate)
    assert launched.read_text() == "once\n"
    assert [result.stdout for result in results] == [b"begun\n"]


@pytest.mark.parametrize("runner", [None, LAUNCH], ids=["here", "over a runner"])
async def test_the_end_of_input_is_typed_once_on_a_terminal(
    server: Server, tmp_path: Path, runner: list[str] | None
) -> None:
    script = "stty -echo; echo ready; cat; echo first; cat; echo second"
    async with (
        cut_off(server, tmp_path) as (line, client),
        client.start(["sh", "-c", script], tty=True, runner=runner) as process,
    ):
        await process.expect("ready\r\n")
        lose_next(line)
        await process.close_stdin()
        await process.expect("first\r\n")
        await process.write(b"more\n")
        await process.expect("more\r\n")
        await process.close_stdin()
        await process.expect("second\r\n")


async def test_a_server_that_has_no_room_for_a_moment_is_asked_again(open_server: OpenServer, tmp_path: Path) -> None:
    """What is left unread by the cut is read as soon as it may be."""
    server = open_server("unix", ServerConfig(resume_grace=300, requests_per_second=1, principal_percent=100))
    go = tmp_path / "go"
    os.mkfifo(go)
    async with (
        connect(await server.url()) as other,
        cut_off(server, tmp_path) as (line, client),
        client.start(["sh", "-c", f"read x < {go}; echo $x"]) as process,
    ):
        lose_next(line)
        with pytest.raises(LimitExceededError, match="requests_per_second"):
            while True:
                await other.processes()
        gate = os.open(go, os.O_RDWR)
        os.write(gate, b"there\n")
        assert await process.stdout.receive_some() == b"there\n"
        os.close(gate)


async def test_what_has_been_ended_was_ended_by_the_call_that_is_asked_again(server: Server, tmp_path: Path) -> None:
    async with (
        cut_off(server, tmp_path) as (line, client),
        connect(await server.url(), name="other", keep=60),
        client.start(["sleep", "1000"]) as killed,
        client.start(["sleep", "1000"]) as terminated,
        client.start(["true"]) as over,
    ):
        await over.wait()
        await over.next_event()
        for process in (killed, terminated):
            lose_next(line)
            assert await (process.kill() if process is killed else process.terminate()) is True
            assert (await process.wait()).reason == "terminated"
        lose_next(line)
        assert await over.kill() is False
        granted = await client.grant("viewer")
        lose_next(line)
        assert await client.revoke(granted.grant_id) == 0
        with pytest.raises(InvalidParamsError, match="unknown grant"):
            await client.revoke(granted.grant_id)
        lose_next(line)
        await client.end_connection("other")
        with pytest.raises(UnknownConnectionError):
            await client.end_connection("other")


async def test_a_file_that_may_have_been_made_is_not_said_to_be_of_others(server: Server, tmp_path: Path) -> None:
    new, there = tmp_path / "new", tmp_path / "there"
    there.write_text("theirs")
    async with cut_off(server, tmp_path) as (line, client):
        assert await client.files.exists(tmp_path)
        for path in (new, there):
            lose_next(line)
            with pytest.raises(ConnectionLostError, match="whether it was there before is not known"):
                async with client.files.open(path, "xb"):
                    pass
        with pytest.raises(FileError, match="File exists"):
            async with client.files.open(there, "xb"):
                pass
    assert (new.read_text(), there.read_text()) == ("", "theirs")


async def test_a_change_of_a_name_is_told_as_it_was(server: Server, tmp_path: Path) -> None:
    """Nobody hears that it was made who may not have made it."""
    here = tmp_path / "here"
    (here / "tree").mkdir(parents=True)
    (here / "tree/link").symlink_to("x")
    (here / "theirs").symlink_to("other")
    async with cut_off(server, tmp_path) as (line, client):
        files = client.files
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: files.make(here / "made", parents=False, exist_ok=False),
            lambda: files.path(here / "tree").mkdir(),
            lambda: files.remove(here / "theirs"),
            lambda: files.remove(here / "missing"),
        )
        for call in calls:
            lose_next(line)
            with pytest.raises(ConnectionLostError, match="and whether by this call is not known"):
                await call()
        lose_next(line)
        await files.make(here / "made")
        lose_next(line)
        await files.remove(here / "made", missing_ok=True)
        lose_next(line)
        await files.link(here / "ours", "target")
        lose_next(line)
        with pytest.raises(FileError, match="File exists"):
            await files.link(here / "ours", "another")
        for path, to in ((here / "tree", here / "copy"), (here / "ours", here / "copied")):
            lose_next(line)
            await files.copy(path, to)
        lose_next(line)
        with pytest.raises(NotFoundError):
            await files.move(here / "missing", here / "moved")
        line.expect()
        await files.stat(here / "tree")
        line.expect(Fault("cut", "server", line.passed["server"] + 3))  # in the answer behind that of the first look
        await files.move(here / "tree", here / "moved")
    assert sorted(os.listdir(here)) == ["copied", "copy", "moved", "ours"]
    assert os.readlink(here / "copy/link") == os.readlink(here / "moved/link") == "x"


@needs_confinement
async def test_a_confined_command_is_known_to_be_confined(server: Server, tmp_path: Path) -> None:
    async with cut_off(server, tmp_path) as (line, client):
        lose_next(line)
        async with client.start(["cat"], stdin=True, sandbox=Policy.read_only(network=False)) as process:
            assert process.confined is not None
            assert (await process.communicate(b"in\n")).stdout == b"in\n"
