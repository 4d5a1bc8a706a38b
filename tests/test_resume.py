"""A connection that has lost its channel goes on for the grace, and whoever names its id takes it over."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import execsrv
from execsrv import ServerConfig, connect
from execsrv._doors.principal import OWNER
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connections import open_connections
from execsrv._server.outbox import Outbox
from execsrv._wire.lines import LineChannel
from execsrv.errors import ConnectionLostError, LimitExceededError, UnknownConnectionError
from execsrv.limits import KIB, MIB
from execsrv.protocol import Notification
from tests.conftest import OpenServer, Server
from tests.peers import MACHINE, PATIENCE, Peer, b64, open_peer
from tests.processes import marked, new_mark, until_gone, until_marked
from tests.relay import Line, open_line
from tests.test_reloading import running


@contextmanager
def opened(fifo: Path) -> Iterator[int]:
    """A fifo that can be written before anybody reads it."""
    descriptor = os.open(fifo, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture(params=["unix", "websocket"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(open_server: OpenServer, transport: str) -> Server:
    return open_server(transport, ServerConfig(resume_grace=300))


async def resume(peer: Peer, id: str) -> None:
    """Take a connection over as soon as its old channel is known to be gone."""
    while True:
        answer = await peer.answer(
            await peer.post("initialize", {"clientName": "again", "resumeSessionId": id}, id=os.urandom(8).hex())
        )
        if (error := getattr(answer, "error", None)) is None:
            break
        assert (error.code, error.data["kind"]) == (-32010, "already-attached")
        await trio.sleep(0.01)
    await peer.channel.send(Notification("initialized"))


async def test_a_running_process_is_taken_over(server: Server) -> None:
    async with server.open_peer() as first:
        id = (await first.handshake())["sessionId"]
        await first.start("cat", ["cat"], pipeStdin=True)
        await first.call("process/write", {"processId": "cat", "chunk": b64(b"one\n"), "writeId": "1"})
        await first.until_output("cat", b"one\n")
    async with server.open_peer() as second:
        await resume(second, id)
        assert await second.call("process/write", {"processId": "cat", "chunk": b64(b"x"), "writeId": "1"}) == {
            "status": "accepted"
        }  # and was written before, so that nothing comes of it
        await second.call("process/write", {"processId": "cat", "chunk": b64(b"two\n"), "writeId": "2"})
        params = {"processId": "cat", "afterSeq": 1, "waitMs": 60_000}
        assert [chunk["seq"] for chunk in (await second.call("process/read", params))["chunks"]] == [2]
        assert not second.told("cat")  # before that was answered
        await second.call("process/write", {"processId": "cat", "chunk": b64(b"three\n"), "writeId": "3"})
        await second.until_output("cat", b"three\n")
        assert [params["seq"] for _, params in second.told("cat")] == [3]
        read = await second.call("process/read", {"processId": "cat"})
        assert [base64.b64decode(chunk["chunk"]) for chunk in read["chunks"]] == [b"one\n", b"two\n", b"three\n"]
        await second.call("process/closeStdin", {"processId": "cat"})
        assert (await second.until_told("cat", "exited"))["exitCode"] == 0


async def test_what_ended_meanwhile_is_told_by_one_read(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    async with server.open_peer() as first:
        id = (await first.handshake())["sessionId"]
        await first.start("a", ["sh", "-c", f"echo before; read x < {go}; echo after; exit 5"])
        await first.until_output("a", b"before\n")
    async with server.open_peer() as second:
        await resume(second, id)
        assert (await second.call("process/read", {"processId": "a"}))["nextSeq"] == 2
        await second.start("probe", ["sh", "-c", f"echo > {go}"])
        await second.until_told("a", "closed")
    async with server.open_peer() as third:
        await resume(third, id)
        read = await third.call("process/read", {"processId": "a", "afterSeq": 1})
        assert [(chunk["seq"], base64.b64decode(chunk["chunk"])) for chunk in read["chunks"]] == [(2, b"after\n")]
        assert (read["exited"], read["exitCode"], read["closed"], read["nextSeq"]) == (True, 5, True, 5)
        assert read["exit"]["seq"] == 3
        assert read["close"]["totals"] == {"stdout": 13, "stderr": 0}
        assert not third.told("a")


async def test_only_one_channel_holds_a_connection(server: Server) -> None:
    async with server.open_peer() as first:
        id = (await first.handshake())["sessionId"]
        second = await server.peer(ready=False)
        code, message, data = await second.refused("initialize", {"clientName": "x", "resumeSessionId": id})
        assert (code, data["kind"]) == (-32010, "already-attached")
        assert message == f"session {id} is already attached to another connection"
        assert await first.run("p", ["echo", "mine"]) == (0, b"mine\n", b"")
    await resume(second, id)
    assert await second.run("q", ["echo", "now mine"]) == (0, b"now mine\n", b"")
    code, _, data = await (await server.peer(ready=False)).refused(
        "initialize", {"clientName": "x", "resumeSessionId": "nobody"}
    )
    assert (code, data["kind"]) == (-32600, "unknown-session")


async def test_after_the_grace_everything_is_killed_and_forgotten(open_server: OpenServer, transport: str) -> None:
    server = open_server(transport, ServerConfig(resume_grace=3))
    mark = new_mark()
    async with server.open_peer() as first:
        id = (await first.handshake())["sessionId"]
        await first.start("a", ["bash", "-c", f"exec -a {mark} sleep 1000"])
        await until_marked(mark, 1)
    async with server.open_peer() as second:
        await resume(second, id)
        assert marked(mark)
    await until_gone(mark)
    late = await server.peer(ready=False)
    while True:  # the id goes right behind the processes
        _, _, data = await late.refused("initialize", {"clientName": "x", "resumeSessionId": id})
        if data["kind"] == "unknown-session":
            break


async def test_a_broken_protocol_is_a_lost_channel(server: Server) -> None:
    mark = new_mark()
    async with server.open_peer() as peer:
        session = (await peer.handshake())["sessionId"]
        await peer.start("a", ["bash", "-c", f"exec -a {mark} sleep 1000"])
        await until_marked(mark, 1)
        await peer.channel.send(Notification("nonsense"))
        await peer.until_ended()
    again = await server.peer(ready=False)
    await again.call("initialize", {"clientName": "x", "resumeSessionId": session})
    await again.channel.send(Notification("initialized"))
    await until_marked(mark, 1)
    assert await again.call("process/terminate", {"processId": "a"}) == {"running": True}
    await until_gone(mark)


async def test_the_end_of_the_server_ends_connections_that_wait(tmp_path: Path, nursery: trio.Nursery) -> None:
    mark = new_mark()
    stop = trio.Event()
    ended = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[str]) -> None:
        await execsrv.serve(
            f"unix://{tmp_path}/s", ServerConfig(resume_grace=1000), shutdown_trigger=stop.wait, task_status=task_status
        )
        ended.set()

    await nursery.start(serve)
    with trio.fail_after(PATIENCE):
        async with (
            open_line(f"unix://{tmp_path}/s", f"{tmp_path}/line") as line,
            connect(line.url) as client,
            client.start(["bash", "-c", f"(exec -a {mark} sleep 1000)"]),
        ):
            await until_marked(mark, 1)
            line.cut()
            stop.set()
            await ended.wait()
            assert not marked(mark)


async def test_hanging_up_while_the_server_ends_delays_it_by_nothing(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Nobody can come back to a server that ends, so it does not wait for that."""
    config, stop, ended = ServerConfig(resume_grace=600, shutdown_grace_period=600), trio.Event(), trio.Event()

    async def serve(*, task_status: trio.TaskStatus[str]) -> None:
        listen = f"unix://{tmp_path}/s"
        await execsrv.serve(listen, config, shutdown_trigger=stop.wait, task_status=task_status)
        ended.set()

    await nursery.start(serve)
    gone = tmp_path / "gone"
    os.mkfifo(gone)
    stream = await trio.open_unix_socket(f"{tmp_path}/s")
    async with open_peer(LineChannel(stream, stream, config)) as peer:
        await peer.handshake()
        farewell = f"trap 'echo bye; read x < {gone}; echo bye; exit' TERM; echo ready; while :; do sleep 0.02; done"
        await peer.start("a", ["sh", "-c", farewell])
        await peer.until_output("a", b"ready")
        stop.set()
        await peer.until_output("a", b"bye")
    with opened(gone) as there, trio.fail_after(PATIENCE):
        os.write(there, b"go\n")
        await ended.wait()


async def test_who_comes_back_while_its_commands_are_killed_is_too_late() -> None:
    """Only to be told that all is well with a connection that has ended would be worse."""
    async with open_connections(Supervisor(), ServerConfig(resume_grace=0)) as connections:
        connection = await connections.open(OWNER)
        connection.attach(Outbox())
        connection.detach()
        assert connections.find(connection.id, OWNER) is connection
        with pytest.raises(UnknownConnectionError, match="unknown session id"):
            connection.attach(Outbox())


async def test_a_gap_says_how_much_was_not_kept(open_server: OpenServer, transport: str, tmp_path: Path) -> None:
    """With leave to drop, what is printed while nobody listens is kept as far as it fits."""
    server = open_server(transport, ServerConfig(resume_grace=300, retained_output_bytes_per_session=512 * 1024))
    done = tmp_path / "done"
    os.mkfifo(done)
    size = 3_000_000
    async with server.open_peer() as first:
        id = (await first.handshake())["sessionId"]
        script = f"read x < {done}; head -c {size} /dev/zero; echo > {done}; read x < {done}"
        await first.start("a", ["sh", "-c", script], overflow="drop")
    with opened(done) as go:
        os.write(go, b"go\n")
        async with server.open_peer() as second:
            await resume(second, id)
            while (snapshot := await second.call("process/snapshot", {"processId": "a"}))["totals"]["stdout"] < size:
                await second.call("process/wait", {"processId": "a", "timeoutMs": 5})
            read = await second.call("process/read", {"processId": "a"})
            got = sum(len(base64.b64decode(chunk["chunk"])) for chunk in read["chunks"])
            assert 0 < got <= 512 * 1024
            assert read["gap"]["fromSeq"] == 1
            assert read["gap"]["seq"] == read["chunks"][0]["seq"] - 1
            assert read["gap"]["printedBefore"]["stdout"] + got == size
            ends = snapshot["stdout"]
            kept = len(base64.b64decode(ends["head"])) + len(base64.b64decode(ends["tail"]))
            assert kept + ends["omittedBytes"] == ends["totalBytes"] == size


SHORT_LINES = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i + 1)); done"
PRINTING = {
    "700 kB": ("head -c 700000 /dev/zero", 700_000),
    "3,000 pieces": (SHORT_LINES, 13_890),
    "5 MB": ("head -c 5000000 /dev/zero", 5_000_000),
}


@pytest.mark.parametrize("name", PRINTING)
@pytest.mark.parametrize("options", [{}, {"windowBytes": 100_000}], ids=["no window", "window"])
async def test_what_is_printed_while_nobody_listens_is_all_there(
    server: Server, tmp_path: Path, name: str, options: dict[str, int]
) -> None:
    """One read brings the first of it, and the rest is told behind that; nothing is told before."""
    script, size = PRINTING[name]
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with server.open_peer() as first:
        id = (await first.handshake())["sessionId"]
        await first.start("a", ["sh", "-c", f"echo; read x < {gate}; {script}; exit 5"], **options)
        await first.until_output("a", b"\n")
    with opened(gate) as go:
        async with server.open_peer() as second:
            await resume(second, id)
            os.write(go, b"go\n")
            assert await second.run("probe", ["true"]) == (0, b"", b"")
            assert not second.told("a")
            read = await second.call("process/read", {"processId": "a", "afterSeq": 1, "maxBytes": 100_000})
            assert (read["gap"], read["closed"] and bool(second.told("a"))) == (None, False)
            got = sum(len(base64.b64decode(chunk["chunk"])) for chunk in read["chunks"])
            last = read["nextSeq"] - 1
            while not read["closed"]:
                if options:  # before the wait: what was read may fill the window, and nothing more is told then
                    await second.call("process/ack", {"processId": "a", "seq": last})
                for what, told in await second.until(lambda last=last: second.told("a")[last + 1 - read["nextSeq"] :]):  # type: ignore[misc]
                    assert told["seq"] == last + 1
                    last += 1
                    got += len(base64.b64decode(told.get("chunk", "")))
                    assert what != "exited" or told["exitCode"] == 5
                if what == "closed":
                    break
            assert got == size


# -- peers that are gone without a word --

QUICK_PINGS = ServerConfig(ping_interval=0.05, ping_timeout=4)
"""But not so quick that a busy machine is taken for a dead one."""


@asynccontextmanager
async def opened_line(server: Server, tmp_path: Path) -> AsyncIterator[Line]:
    async with open_line(await server.url(), f"{tmp_path}/line") as line:
        yield line


async def test_a_half_dead_channel_is_let_go(elsewhere: str, open_server: OpenServer, tmp_path: Path) -> None:
    server = open_server("websocket", replace(QUICK_PINGS, resume_grace=300))
    server.host = elsewhere
    async with opened_line(server, tmp_path) as line:
        with trio.fail_after(PATIENCE):
            async with connect(line.url) as client:
                line.silence()
                async with server.open_peer() as second:
                    await resume(second, client.connection_id)
                    assert await second.run("p", ["echo", "here"]) == (0, b"here\n", b"")


async def test_without_a_grace_a_half_dead_channel_ends_what_it_started(
    elsewhere: str, open_server: OpenServer, tmp_path: Path
) -> None:
    server = open_server("websocket", QUICK_PINGS)
    server.host = elsewhere
    mark = new_mark()
    async with opened_line(server, tmp_path) as line, connect(line.url) as client:
        async with client.start(["bash", "-c", f"exec -a {mark} sleep 1000"]):
            await until_marked(mark, 1)
            line.silence()
            await until_gone(mark)
            line.cut()
        with pytest.raises(ConnectionLostError):
            await client.run(["true"])


async def test_a_slow_reader_is_not_taken_for_dead(elsewhere: str, open_server: OpenServer, tmp_path: Path) -> None:
    """It cannot answer a ping behind output that it has not read."""
    server = open_server("websocket", QUICK_PINGS)
    server.host = elsewhere
    size = 30 * MIB
    async with server.open_channel() as channel:
        peer = Peer(channel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            await peer.handshake()
            await peer.start("a", ["head", "-c", str(size), "/dev/zero"])
            await peer.until_output("a", b"\0")
            nursery.cancel_scope.cancel()
        # Meanwhile the command is held up by us, and another peer that falls silent after us is let go.
        mark = new_mark()
        async with (
            opened_line(server, tmp_path) as line,
            connect(line.url) as client,
            client.start(["bash", "-c", f"exec -a {mark} sleep 1000"]),
        ):
            await until_marked(mark, 1)
            line.silence()
            await until_gone(mark)
            line.cut()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.listen)
            await peer.until_told("a", "closed")
            nursery.cancel_scope.cancel()
    assert len(peer.output("a")) == size


# -- the client comes back by itself --


@pytest.mark.few
async def test_a_reader_sees_an_exact_stream_through_cuts(server: Server, tmp_path: Path) -> None:
    size = 20_000_000
    async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=PATIENCE) as client:

        async def cut_now_and_then() -> None:
            for number in range(1, 9):
                await line.until_passed(number * 2_000_000)
                line.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_now_and_then)
            with trio.fail_after(PATIENCE):
                result = await client.run(["sh", "-c", f"seq 1 10000000 | head -c {size}; echo end >&2; exit 3"])
            nursery.cancel_scope.cancel()
    expected, number = bytearray(), 1
    while len(expected) < size:
        expected += b"".join(b"%d\n" % n for n in range(number, number + 100_000))
        number += 100_000
    assert result.stdout == expected[:size]
    assert (result.stderr, result.exit_code, result.omitted_bytes) == (b"end\n", 3, 0)
    assert result.totals == {"stdout": size, "stderr": 4}


async def test_input_arrives_once_through_cuts(server: Server, tmp_path: Path) -> None:
    data = os.urandom(6 * MIB)
    async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=PATIENCE) as client:

        async def cut_now_and_then() -> None:
            for number in range(1, 6):
                await line.until_passed(number * MIB)
                line.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_now_and_then)
            with trio.fail_after(PATIENCE):
                result = await client.run(["cat"], input=data)
            nursery.cancel_scope.cancel()
    assert result.stdout == data


@pytest.mark.few
async def test_calls_and_starts_survive_cuts(server: Server, tmp_path: Path) -> None:
    """Whatever is under way in the moment of a cut has its effect exactly once."""
    async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=PATIENCE) as client:

        async def cut_all_the_time() -> None:
            while True:
                await line.until_passed(line.passed + 3000)
                line.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut_all_the_time)
            with trio.fail_after(PATIENCE):
                for number in range(40):
                    script = f"import os; os.write(1, b'{number}')"
                    result = await client.run([sys.executable, "-I", "-S", "-c", script])
                    assert (result.stdout, result.exit_code) == (str(number).encode(), 0)
            nursery.cancel_scope.cancel()


async def test_a_process_that_ended_during_the_cut_is_no_loss(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=PATIENCE) as client:
        async with client.start(["sh", "-c", f"echo before; read x < {go}; echo after; kill -9 $$"]) as process:
            events = process.events()
            assert (await anext(events)).seq == 1
            target, line.target = line.target, None
            line.cut()
            with opened(go) as there:
                os.write(there, b"go\n")
                line.target = target
                with trio.fail_after(PATIENCE):
                    rest = [event async for event in events]
        assert [type(event).__name__ for event in rest] == ["Chunk", "Exited", "Closed"]
        assert isinstance(rest[1], execsrv.Exited)
        assert (rest[1].exit_code, rest[1].signal, rest[1].reason) == (137, "SIGKILL", "signaled")


async def test_a_gap_that_came_with_a_cut_is_told_exactly(open_server: OpenServer, tmp_path: Path) -> None:
    server = open_server("unix", ServerConfig(resume_grace=300, retained_output_bytes_per_session=256 * 1024))
    size = 3_000_000
    async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=PATIENCE) as client:
        argv = ["sh", "-c", f"echo first; read x; head -c {size} /dev/zero"]
        async with client.start(argv, stdin=True, overflow="drop") as process:
            assert await process.next_event() is not None
            await process.write(b"go\n")
            await process.wait()
            line.cut()
            got = omitted = 0
            async for event in process.events():
                if isinstance(event, execsrv.Chunk):
                    got += len(event.chunk)
                elif isinstance(event, execsrv.Gap):
                    omitted += sum(event.omitted.values())
            assert process.closed is not None
            assert got + omitted == size


async def test_a_server_that_forgot_is_a_lost_connection(open_server: OpenServer, tmp_path: Path) -> None:
    server = open_server("unix", ServerConfig(resume_grace=300))
    other = open_server("unix", ServerConfig(resume_grace=300))
    async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=PATIENCE) as client:
        async with client.start(["sh", "-c", "echo said; sleep 1000"]) as process:
            assert await process.next_event() is not None
            line.target = await other.url()
            line.cut()
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError, match="unknown session id"):
                await process.next_event()
        with pytest.raises(ConnectionLostError):
            await client.run(["true"])


async def test_leaving_while_the_connection_is_interrupted_is_quick_and_still_kills(
    server: Server, tmp_path: Path
) -> None:
    marks = [new_mark() for _ in range(20)]
    # Quick is what does not wait for the way back.
    with trio.fail_after(PATIENCE):
        async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=600) as client:
            async with AsyncExitStack() as stack:
                processes = [
                    await stack.enter_async_context(client.start(["bash", "-c", f"exec -a {mark} sleep 1000"]))
                    for mark in marks
                ]
                for mark in marks:
                    await until_marked(mark, 1)
                target, line.target = line.target, None
                line.cut()
                with pytest.raises(ConnectionLostError):
                    await processes[0].interrupt()  # which tells that the client has noticed
            assert all(marked(mark) for mark in marks)
            line.target = target
            for mark in marks:
                await until_gone(mark)
            line.target = None
            line.cut()


@pytest.mark.parametrize("how", ["left running", "attached to"])
async def test_what_is_left_while_the_connection_is_interrupted_waits_for_no_reader(
    open_server: OpenServer, tmp_path: Path, how: str
) -> None:
    server = open_server("unix", ServerConfig(resume_grace=300))
    mark, go = new_mark(), tmp_path / "go"
    os.mkfifo(go)
    with opened(go) as there, trio.fail_after(PATIENCE):
        async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=600) as client:
            async with AsyncExitStack() as stack:
                argv = ["bash", "-c", f"read x < {go}; head -c 8000000 /dev/zero; :"]
                process = await stack.enter_async_context(client.start(argv, arg0=mark))
                process.leave_running()
                if how == "attached to":
                    await stack.aclose()
                    await stack.enter_async_context(client.attach(process.id))
                await until_marked(mark, 1)
                target, line.target = line.target, None
                line.cut()
                await client._connection.wait_interrupted(True)
            line.target = target
            await client._connection.wait_interrupted(False)
            os.write(there, b"go\n")
            await until_gone(mark)


async def test_all_that_has_arrived_is_read_before_the_loss_is_told(server: Server, tmp_path: Path) -> None:
    config = execsrv.ClientConfig(window_bytes=64 * KIB)
    async with (
        opened_line(server, tmp_path) as line,
        connect(line.url, reconnect=0.3, config=config) as client,
        client.start(["cat"], stdin=True) as process,
    ):
        for number in range(40):
            await process.write(bytes(1000))
            while process._mirror.last_seq <= number:
                await trio.testing.wait_all_tasks_blocked(0.001)
        line.target = None
        line.cut()
        await client._connection.wait_interrupted(True)
        for _ in range(40):
            assert isinstance(await process.next_event(), execsrv.Chunk)
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError, match=r"no way back within 0\.3 s"):
            await process.next_event()


async def test_a_wait_outlasts_cuts_though_nothing_else_is_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every channel lasts for a while and brings nothing; together they last longer than a way back may take."""
    lasting, reconnect = 0.2, 1.0
    monkeypatch.setattr("execsrv.client.connection._SOON_SECONDS", lasting)
    async with (
        opened_line(server, tmp_path) as line,
        connect(line.url, reconnect=reconnect) as client,
        client.start(["cat"], stdin=True) as process,
        trio.open_nursery() as nursery,
    ):
        happened: list[execsrv.Happened] = []

        async def wait() -> None:
            happened.append(await process.wait_for(output=b"go"))

        nursery.start_soon(wait)
        for _ in range(8):
            await client._connection.wait_interrupted(False)
            await trio.sleep(1.5 * lasting)
            line.cut()
            await client._connection.wait_interrupted(True)
        with trio.fail_after(PATIENCE):
            await process.write(b"go\n")
            while not happened:
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert happened[0].kind == "output"


async def test_a_request_that_the_server_does_not_take_fails_alone(
    open_server: OpenServer, transport: str, tmp_path: Path
) -> None:
    server = open_server(transport, ServerConfig(max_message_bytes=MIB, resume_grace=300))
    async with (
        connect(await server.url(), reconnect=PATIENCE) as client,
        client.start(["cat"], stdin=True) as process,
    ):
        for _ in range(2):
            with trio.fail_after(PATIENCE), pytest.raises(LimitExceededError) as error:
                await client.files.write(tmp_path / "file", bytes(3 * MIB))
            assert (error.value.facts["limit"], error.value.facts["value"]) == ("max_message_bytes", MIB)
        await process.write(b"on\n")
        assert await anext(process.lines()) == "on"


@asynccontextmanager
async def listening(path: str, serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[None]:
    """Have a server of our own at a path, which has `PATIENCE`, and whose peers may hang up on what it says."""

    async def heed(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await serve(stream)

    with trio.socket.socket(trio.socket.AF_UNIX) as bound:
        await bound.bind(path)
        bound.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, heed, [trio.SocketListener(bound)])
            with trio.fail_after(PATIENCE):
                yield
            nursery.cancel_scope.cancel()


async def test_a_server_that_tells_its_bound_at_the_end_alone_is_believed(tmp_path: Path) -> None:
    greeting = {"sessionId": "s", "protocolVersion": "exec-server.v0", "environmentInfo": MACHINE}
    refusal = {"code": -32600, "message": "too large", "data": {"limit": "max_message_bytes", "value": MIB}}

    async def greet(stream: trio.SocketStream) -> None:
        said = b""
        async with stream:
            while data := await stream.receive_some():
                said += data
                if said.count(b"\n") == 1:
                    answer = {"id": json.loads(said)["id"], "result": greeting}
                    await stream.send_all(json.dumps(answer).encode() + b"\n")
                elif len(said) > MIB:
                    await stream.send_all(json.dumps({"id": None, "error": refusal}).encode() + b"\n")
                    return

    path = f"{tmp_path}/s"
    async with listening(path, greet), connect(f"unix://{path}", reconnect=PATIENCE) as client:
        for _ in range(2):
            with pytest.raises(LimitExceededError, match=rf"max_message_bytes \({MIB}\)"):
                await client.files.write("/file", bytes(3 * MIB))


async def test_the_bound_of_the_server_is_the_one_that_it_told_last(tmp_path: Path) -> None:
    file = tmp_path / "execsrv.toml"
    file.write_text("")
    words = ["x" * 100_000] * 15
    with running("--listen", f"unix://{tmp_path}/s", "--config", str(file), "--resume-grace", "300") as server:

        async def resume_with(bound: int) -> None:
            file.write_text(f"max_message_bytes = {bound}\n")
            server.process.send_signal(signal.SIGHUP)
            await trio.to_thread.run_sync(server.until, "reloaded the settings")
            line.cut()
            await client._connection.wait_interrupted(True)
            await client._connection.wait_interrupted(False)

        with trio.fail_after(PATIENCE):
            async with open_line(server.url, f"{tmp_path}/line") as line, connect(line.url, reconnect=300) as client:
                await resume_with(MIB)
                with pytest.raises(LimitExceededError, match=rf"max_message_bytes \({MIB}\)"):
                    await client.run(["true", *words])
                await resume_with(2 * MIB)
                assert (await client.run(["true", *words])).exit_code == 0


async def test_a_file_that_is_larger_than_a_message_of_the_client_is_read(server: Server, tmp_path: Path) -> None:
    content = os.urandom(2 * MIB)
    (tmp_path / "file").write_bytes(content)
    config = execsrv.ClientConfig(max_message_bytes=MIB)
    with trio.fail_after(PATIENCE):
        async with connect(await server.url(), reconnect=PATIENCE, config=config) as client:
            assert await client.files.read(tmp_path / "file") == content


async def test_a_server_that_greets_and_hangs_up_is_no_way_back(tmp_path: Path) -> None:
    """It is come back to at most every tenth of a second, and not longer than asked for."""
    greeting = {"sessionId": "s", "protocolVersion": "exec-server.v0", "environmentInfo": MACHINE}
    came = 0

    async def greet(stream: trio.SocketStream) -> None:
        nonlocal came
        came += 1
        said = b""
        async with stream:
            while said.count(b"\n") < 3 and (data := await stream.receive_some()):
                said += data
                if said.count(b"\n") == 1:
                    answer = {"id": json.loads(said)["id"], "result": greeting}
                    await stream.send_all(json.dumps(answer).encode() + b"\n")

    path = f"{tmp_path}/s"
    async with listening(path, greet), connect(f"unix://{path}", reconnect=1) as client:
        with pytest.raises(ConnectionLostError, match="ended the connection; no way back within 1 s: "):
            await client.files.exists("/")
    assert 2 <= came <= 12


async def test_a_read_that_is_broken_off_holds_up_nothing(server: Server, tmp_path: Path) -> None:
    """What it would have told the server about what was read, the next one tells."""
    size = 1_000_000
    config = execsrv.ClientConfig(window_bytes=64 * KIB)
    async with (
        opened_line(server, tmp_path) as line,
        connect(line.url, reconnect=600, config=config) as client,
        client.start(["head", "-c", str(size), "/dev/zero"]) as process,
    ):
        event = await process.next_event()
        assert isinstance(event, execsrv.Chunk)
        target, line.target = line.target, None
        line.cut()
        with pytest.raises(ConnectionLostError):
            await process.interrupt()  # which tells that the client has noticed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.next_event)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        line.target = target
        with trio.fail_after(PATIENCE):
            assert len(event.chunk) + sum([len(data) async for data in process.output]) == size


async def test_nobody_there_in_time_is_a_lost_connection(server: Server, tmp_path: Path) -> None:
    async with opened_line(server, tmp_path) as line, connect(line.url, reconnect=0.3) as client:
        line.target = None
        line.cut()
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError, match=r"no way back within 0\.3 s"):
            await client.run(["true"])


async def test_a_signal_is_not_repeated(server: Server, tmp_path: Path) -> None:
    """Whether it arrived is not known, and a second one may mean something else to the program."""
    async with (
        opened_line(server, tmp_path) as line,
        connect(line.url, reconnect=PATIENCE) as client,
        client.start(["sh", "-c", "trap 'echo got' INT; echo ready; while :; do sleep 0.02; done"]) as process,
    ):
        assert await process.next_event() is not None
        lost: list[Any] = []

        async def interrupt() -> None:
            try:
                await process.interrupt()
            except ConnectionLostError as error:
                lost.append(error)

        line.silence()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            await trio.testing.wait_all_tasks_blocked(0.05)
            line.cut()
        assert lost
        assert await process.terminate() is True
