"""Streams that are passed: a client on a unix socket gets the very pipes of a command, and no byte is copied."""

from __future__ import annotations

import array
import asyncio
import base64
import errno
import fcntl
import gc
import json
import os
import platform
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import trio

import execsrv.asyncio
import execsrv.sync
from execsrv import DEVNULL, PIPE, STDOUT, Client, Process, connect_unix
from execsrv._lent import Lent
from execsrv._wire.passing_channel import PassingChannel
from execsrv.errors import (
    CommandTimeoutError,
    ConnectionLostError,
    InvalidParamsError,
    OutputTruncatedError,
    SpawnError,
    StdinClosedError,
)
from execsrv.limits import ServerConfig
from execsrv.protocol import Notification, ProcessStarted, Response
from tests import deny
from tests.conftest import OpenServer, Server
from tests.late import undone_late
from tests.peers import ENV, PATIENCE, b64
from tests.processes import new_mark, until_gone, until_marked

Passing = bool | Literal["kept"]


class Stranger:
    """A client that a stranger would write: a plain socket, and the bytes of the protocol page."""

    def __init__(self, connection: trio.socket.SocketType, *, packed: bool = False) -> None:
        self.connection = connection
        self.packed = packed
        self.turned = False
        self.descriptors: list[int] = []
        self.flags = 0
        self.heard: list[dict[str, Any]] = []
        self._received = b""

    async def say(self, message: dict[str, Any], along: list[int] | None = None) -> None:
        if self.turned:
            data = msgspec.msgpack.encode(message)
            data = len(data).to_bytes(4, "little") + data
        else:
            data = json.dumps(message).encode() + b"\n"
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", along))] if along else []
        assert await self.connection.sendmsg([data], control) == len(data)

    async def hear(self, room: int = 3) -> dict[str, Any]:
        """The next message, with what comes along until it is whole."""
        while (message := self._next()) is None:
            with trio.fail_after(PATIENCE):
                data, things, flags, _ = await self.connection.recvmsg(65536, socket.CMSG_SPACE(room * 4))
            assert data, "the server hung up"
            self.flags |= flags
            for _, _, content in things:
                self.descriptors += array.array("i", content)
            self._received += data
        self.heard.append(message)
        return message

    def _next(self) -> dict[str, Any] | None:
        if self.turned:
            end = 4 + int.from_bytes(self._received[:4], "little")
            if len(self._received) < max(4, end):
                return None
            data, self._received = self._received[4:end], self._received[end:]
            return dict(msgspec.msgpack.decode(data))
        data, newline, rest = self._received.partition(b"\n")
        if not newline:
            return None
        self._received = rest
        return dict(json.loads(data))

    async def ask(self, id: int, method: str, params: Any, room: int = 3) -> dict[str, Any]:
        await self.say({"id": id, "method": method, "params": params})
        while True:
            if (message := await self.hear(room)).get("id") == id:
                return message

    async def told(self, method: str) -> dict[str, Any]:
        while True:
            for message in self.heard:
                if message.get("method") == method:
                    return dict(message["params"])
            await self.hear()

    async def handshake(self) -> dict[str, Any]:
        hello = {"clientName": "stranger"} | ({"encoding": "msgpack"} if self.packed else {})
        answer = await self.ask(1, "initialize", hello)
        self.turned = self.packed
        await self.say({"method": "initialized"})
        return dict(answer["result"])

    async def start(self, id: str, argv: list[str], room: int = 3, **params: Any) -> dict[str, Any]:
        return await self.ask(2, "process/start", start(id, argv, **params), room)


def start(id: str, argv: list[str], **params: Any) -> dict[str, Any]:
    return {"processId": id, "argv": argv, "cwd": "/", "env": ENV, "tty": False, "passStreams": True, **params}


def astray(mark: str, first: str = "") -> list[str]:
    """A command that carries a mark, and has started another one in a session of its own that does."""
    other = """bash -c 'exec -a "$0" sleep 1000' "$0" """
    return ["bash", "-c", f'{first}setsid {other}& exec -a "$0" sleep 1000', mark]


def pipes() -> set[str]:
    """The pipes that this process has open, each end by itself. The server runs in it too."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("pipe:"):
            found.add(f"{name} {target}")
    return found


async def until_no_more(before: set[str]) -> None:
    """Wait until this process has no pipes but those from before."""
    with trio.fail_after(PATIENCE):
        while pipes() - before:  # nothing tells
            gc.collect()
            await trio.sleep(0.01)


async def read_all(descriptor: int) -> bytes:
    data = b""
    async with trio.lowlevel.FdStream(descriptor) as stream:
        with trio.fail_after(PATIENCE):
            async for piece in stream:
                data += piece
    return data


@pytest.fixture
def server(open_server: OpenServer) -> Server:
    return open_server("unix", ServerConfig())


@pytest.fixture(params=["json", "msgpack"])
async def stranger(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Stranger]:
    with trio.socket.socket(socket.AF_UNIX) as connection:
        await connection.connect((await server.url()).removeprefix("unix://"))
        found = Stranger(connection, packed=request.param == "msgpack")
        try:
            yield found
        finally:
            for descriptor in found.descriptors:
                os.close(descriptor)


# -- the wire, as a stranger speaks it --


async def test_the_answer_brings_the_very_pipes(stranger: Stranger) -> None:
    info = (await stranger.handshake())["environmentInfo"]
    assert info["capabilities"]["passStreams"] is True
    script = "read line; echo got $line; echo aside >&2; exit 7"
    result = (await stranger.start("p", ["sh", "-c", script], pipeStdin=True))["result"]
    assert result["passed"] == ["stdin", "stdout", "stderr"]
    stdin, stdout, stderr = stranger.descriptors
    stranger.descriptors.clear()
    for descriptor, access in ((stdin, os.O_WRONLY), (stdout, os.O_RDONLY), (stderr, os.O_RDONLY)):
        assert stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        assert os.get_blocking(descriptor) is False
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == access
    os.write(stdin, b"this\n")
    os.close(stdin)
    assert await read_all(stdout) == b"got this\n"
    assert await read_all(stderr) == b"aside\n"
    exited, closed = await stranger.told("process/exited"), await stranger.told("process/closed")
    assert (exited["seq"], exited["exitCode"], exited["reason"]) == (1, 7, "exited")
    assert (closed["seq"], closed["totals"], closed["remaining"]) == (2, {}, [])
    assert not [message for message in stranger.heard if message.get("method") == "process/output"]


@pytest.mark.parametrize(
    ("params", "passed"),
    [
        ({}, ["stdout", "stderr"]),
        ({"pipeStdin": True, "stdout": "null"}, ["stdin", "stderr"]),
        ({"stderr": "stdout"}, ["stdout"]),
        ({"stdout": "null", "stderr": "null"}, []),
    ],
)
async def test_pipes_are_passed_and_nothing_else(stranger: Stranger, params: dict[str, Any], passed: list[str]) -> None:
    await stranger.handshake()
    result = (await stranger.start("p", ["true"], **params))["result"]
    assert result["passed"] == passed
    assert len(stranger.descriptors) == len(passed)
    assert (await stranger.told("process/closed"))["seq"] == 2


async def test_each_answer_brings_its_own(stranger: Stranger) -> None:
    """Many starts at once, with other answers in between: the order of the answers is that of the descriptors."""
    await stranger.handshake()
    for number in range(20):
        params = start(f"p{number}", ["echo", str(number)], stderr="null")
        await stranger.say({"id": f"s{number}", "method": "process/start", "params": params})
        await stranger.say({"id": f"o{number}", "method": "process/list", "params": {}})
    answered: list[int] = []
    while len(answered) < 20:
        if str(id := (await stranger.hear()).get("id")).startswith("s"):
            answered.append(int(str(id)[1:]))
    descriptors, stranger.descriptors = stranger.descriptors, []
    assert [await read_all(each) for each in descriptors] == [b"%d\n" % number for number in answered]


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"tty": True}, "a terminal stays the server's"),
        ({"key": "k"}, "a start with a key"),
        ({"idleTimeoutMs": 5}, "idleTimeoutMs"),
        ({"overflow": "drop"}, "overflow"),
        ({"runner": ["nowhere"]}, "over a runner"),
    ],
)
async def test_what_cannot_go_together_is_refused(server: Server, params: dict[str, Any], why: str) -> None:
    peer = await server.peer()
    code, message, data = await peer.refused("process/start", start("p", ["true"], **params))
    assert (code, data) == (-32602, {"kind": "invalid-params", "field": "passStreams"})
    assert message.startswith("passStreams: ")
    assert why in message
    assert (await peer.call("process/list"))["processes"] == []


@pytest.mark.parametrize("transport", ["memory", "stdio", "websocket"])
async def test_only_a_unix_socket_passes(open_server: OpenServer, transport: str) -> None:
    async with open_server(transport, ServerConfig()).open_peer() as peer:
        info = (await peer.handshake())["environmentInfo"]
        assert "passStreams" not in info["capabilities"]
        code, message, data = await peer.refused("process/start", start("p", ["true"]))
        assert (code, data) == (-32602, {"kind": "invalid-params", "field": "passStreams"})
        assert message == "passStreams: descriptors go over a unix socket, and this channel is none"
        await peer.start("q", ["true"])


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("process/write", {"chunk": b64(b"x"), "writeId": "w"}),
        ("process/closeStdin", {}),
        ("process/waitFor", {"output": [b64(b"x")]}),
        ("process/waitFor", {"idleMs": 5, "exited": True}),
        ("process/waitFor", {"input": True}),
    ],
)
async def test_nothing_of_its_streams_is_asked_of_the_server(
    server: Server, method: str, params: dict[str, Any]
) -> None:
    peer = await server.peer()
    await peer.start("p", ["sleep", "1000"], passStreams=True, pipeStdin=True)
    code, message, data = await peer.refused(method, {"processId": "p", **params})
    assert (code, data) == (-32602, {"kind": "invalid-params", "field": "processId"})
    assert message.startswith("process p: its streams were passed to its client, and can only be ")


async def test_nobody_else_sees_its_streams(server: Server) -> None:
    peer = await server.peer()
    await peer.start("p", ["sleep", "1000"], passStreams=True)
    (listed,) = (await peer.call("process/list"))["processes"]
    assert listed["passStreams"] is True
    other = await server.peer()
    await other.call("connection/join", {"connection": listed["connectionId"]})
    params = {"connection": listed["connectionId"], "processId": "p"}
    code, message, _ = await other.refused("process/attach", params)
    assert (code, message) == (-32602, "process p: its streams were passed to its client, and can only be seen there")


async def test_its_ends_are_the_servers(server: Server) -> None:
    """Signals, deadlines, facts and the ends of all that descends from it are as with any process."""
    peer = await server.peer()
    await peer.start("late", ["sleep", "1000"], passStreams=True, timeoutMs=100)
    assert (await peer.until_told("late", "exited"))["reason"] == "timeout"
    mark = new_mark()
    await peer.start("p", astray(mark), passStreams=True)
    await until_marked(mark, 2)
    assert (await peer.call("process/wait", {"processId": "p", "timeoutMs": 0}))["running"] is True
    assert (await peer.call("process/snapshot", {"processId": "p"})).get("stdout") is None
    assert (await peer.call("process/signal", {"processId": "p", "signal": "TERM", "target": "leader"}))[
        "received"
    ] == 1
    closed = await peer.until_told("p", "closed")
    assert [each["name"] for each in closed["remaining"]] == ["sleep"]
    await peer.call("process/terminate", {"processId": "p"})
    await until_gone(mark)
    read = await peer.call("process/read", {"processId": "p"})
    assert (read["chunks"], read["exited"], read["exitCode"], read["closed"]) == ([], True, 143, True)
    await peer.start("q", ["sh", "-c", "sleep 1000 & exec sleep 1000"], passStreams=True)
    await peer.call("process/terminate", {"processId": "q"})
    assert (await peer.until_told("q", "closed"))["treeEmpty"]


async def test_who_is_resumed_hears_of_the_end(open_server: OpenServer) -> None:
    server = open_server("unix", ServerConfig(resume_grace=PATIENCE))
    async with server.open_peer() as first:
        connection = (await first.handshake())["sessionId"]
        await first.start("p", ["sh", "-c", "sleep 0.2; exit 3"], passStreams=True)
    async with server.open_peer() as second:
        await second.call("initialize", {"clientName": "test", "resumeSessionId": connection})
        await second.channel.send(Notification("initialized"))
        assert (await second.call("process/wait", {"processId": "p"}))["exitCode"] == 3
        read = await second.call("process/read", {"processId": "p", "afterSeq": 0})
        assert read["exit"]["exitCode"] == 3


# -- descriptors never leak --


async def test_hanging_up_ends_it_and_closes_all(server: Server) -> None:
    before, mark = pipes(), new_mark()
    with trio.socket.socket(socket.AF_UNIX) as connection:
        await connection.connect((await server.url()).removeprefix("unix://"))
        stranger = Stranger(connection)
        await stranger.handshake()
        await stranger.start("p", astray(mark, "trap '' TERM; "), pipeStdin=True)
        await until_marked(mark, 2)
        with trio.fail_after(PATIENCE):
            while len(pipes() - before) > 3:  # noqa: ASYNC110  # the server lets go of its own when it has sent them
                await trio.sleep(0.01)
        assert len(pipes() - before) == 3
        for descriptor in stranger.descriptors:
            os.close(descriptor)
    await until_gone(mark)
    await until_no_more(before)


async def test_answers_that_nobody_reads_keep_no_descriptors(server: Server) -> None:
    before = pipes()
    with trio.socket.socket(socket.AF_UNIX) as connection:
        await connection.connect((await server.url()).removeprefix("unix://"))
        stranger = Stranger(connection)
        await stranger.handshake()
        for number in range(30):
            params = start(f"p{number}", ["sleep", "1000"], pipeStdin=True)
            await stranger.say({"id": number, "method": "process/start", "params": params})
        with trio.fail_after(PATIENCE):
            while not stranger.flags & socket.MSG_CTRUNC:  # the first of them, for which it gives no room
                await stranger.hear(room=0)
    await until_no_more(before)


async def test_so_many_answers_may_be_unread_and_no_more(server: Server) -> None:
    """A peer that reads nothing is refused further starts, before any of it runs."""
    before, other, starts = pipes(), await server.peer(), 120

    async def until_over(id: str) -> None:
        with trio.fail_after(PATIENCE):
            while True:
                listed = (await other.call("process/list", {"all": True}))["processes"]
                if any(each["processId"] == id and each["closed"] for each in listed):
                    return

    with trio.socket.socket(socket.AF_UNIX) as connection:
        await connection.connect((await server.url()).removeprefix("unix://"))
        stranger = Stranger(connection)
        await stranger.handshake()
        for number in range(starts):
            passing = start(f"p{number}", ["true"])
            await stranger.say({"id": number, "method": "process/start", "params": passing})
            plain = start(f"q{number}", ["true"], passStreams=False, stdout="null", stderr="null")
            await stranger.say({"id": -number, "method": "process/start", "params": plain})
            await until_over(f"q{number}")
        answers: list[dict[str, Any]] = []
        while len(answers) < 2 * starts:
            if "id" in (message := await stranger.hear()):
                answers.append(message)
        passed = [each for each in answers if "result" in each and "passed" in each["result"]]
        refused = [each["error"]["data"] for each in answers if "error" in each]
        assert len(stranger.descriptors) == 2 * len(passed)
        assert len(passed) + len(refused) == starts
        assert refused == [{"kind": "busy"}] * len(refused) != []
        for descriptor in stranger.descriptors:
            os.close(descriptor)
    await until_no_more(before)


async def test_what_a_peer_sends_along_unasked_is_closed_at_once(stranger: Stranger) -> None:
    read, write = os.pipe()
    await stranger.say({"id": 1, "method": "initialize", "params": {"clientName": "stranger"}}, along=[write] * 100)
    os.close(write)
    assert "result" in await stranger.hear()
    assert await read_all(read) == b""
    await stranger.say({"method": "initialized"})
    read, write = os.pipe()
    await stranger.say({"id": 2, "method": "process/start", "params": start("p", ["cat"])}, along=[write])
    os.close(write)
    assert len((await stranger.hear())["result"]["passed"]) == 2
    assert await read_all(read) == b""


async def test_a_start_that_fails_brings_nothing(stranger: Stranger) -> None:
    before = pipes()
    await stranger.handshake()
    assert (await stranger.start("p", ["no-such-program"]))["error"]["data"]["kind"] == "spawnNotFound"
    assert not stranger.descriptors
    await until_no_more(before)


# -- what the kernel does where there is no room --


@asynccontextmanager
async def channel_pair() -> AsyncIterator[tuple[PassingChannel, PassingChannel]]:
    """A server's end and a client's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        server, client = (
            PassingChannel(trio.SocketStream(trio.socket.from_stdlib_socket(end)), ServerConfig(), is_known=is_client)
            for end, is_client in ((ours, False), (theirs, True))
        )
        yield server, client
        await server.aclose()
        await client.aclose()


def lent_pipe() -> tuple[int, Lent]:
    read, write = os.pipe()
    return write, Lent(read)


@contextmanager
def no_more_descriptors(but: int = 0) -> Iterator[None]:
    """In this block, this process gets no new descriptor, or only so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(but + 1)]
    for descriptor in free:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(free), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("free", [0, 1])
async def test_descriptors_for_which_a_client_has_no_room_are_lost_and_the_next_are_not(free: int) -> None:
    before = pipes()
    async with channel_pair() as (server, client):
        for number in range(2):
            client.passing.expect()
            (write, read), (other_write, other_read) = lent_pipe(), lent_pipe()
            os.write(write, b"%d" % number)
            os.close(write)
            os.close(other_write)
            answer = ProcessStarted("p", passed=["stdout", "stderr"])
            server.passing.lend(answer, [read, other_read], ProcessStarted("p"))
            del read, other_read
            await server.send(Response(number, answer))
        with no_more_descriptors(but=free):
            assert await client.receive() is not None
        assert len(client.passing.answered(names_some=True)) == free
        assert await client.receive() is not None
        first, _ = client.passing.answered(names_some=True)
        assert await read_all(first.take()) == b"1"
        del first, _
    await until_no_more(before)


async def test_a_client_that_has_no_room_has_an_error_and_goes_on(server: Server) -> None:
    """The command that had started is ended, and the connection lives."""
    code = f"""
import execsrv, os, resource, sys, trio
async def main():
    async with execsrv.connect_unix({(await server.url()).removeprefix("unix://")!r}) as client:
        await client.run(["true"], pass_streams=True)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            async with client.start(["sleep", "1000"], pass_streams=True):
                print("started")
        except execsrv.SpawnError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print((await client.run(["echo", "well"], pass_streams=True)).stdout)
trio.run(main)
"""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process([sys.executable, "-c", code], capture_stdout=True)
    lost, well = done.stdout.decode().splitlines()
    assert lost.startswith("cannot start with its streams passed: they were lost on the way")
    assert well == "b'well\\n'"
    peer = await server.peer()
    listed = (await peer.call("process/list", {"all": True}))["processes"]
    assert not [each for each in listed if each["running"]]


IN_FLIGHT = """
import os, resource, socket, trio
from execsrv._lent import Lent
from execsrv._wire.codecs import decode_params
from execsrv._wire.passing_channel import PassingChannel
from execsrv.limits import ServerConfig
from execsrv.protocol import ProcessStarted, Response

async def main():
    ours, theirs = socket.socketpair()
    server = PassingChannel(trio.SocketStream(trio.socket.from_stdlib_socket(ours)), ServerConfig(), is_known=False)
    client = PassingChannel(trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), ServerConfig())
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
    for number in range(60):
        read, write = os.pipe()
        os.write(write, b"%d" % number)
        os.close(write)
        client.passing.expect()
        answer = ProcessStarted("p", passed=["stdout"])
        server.passing.lend(answer, [Lent(read)], ProcessStarted("p"))
        await server.send(Response(number, answer))
    passed = 0
    for number in range(60):
        names = decode_params((await client.receive()).result, ProcessStarted).passed or []
        for lent in client.passing.answered(names_some=bool(names)):
            assert os.read(lent.descriptor, 10) == b"%d" % number
            passed += 1
    print(passed)
trio.run(main)
"""


async def test_where_too_many_are_on_their_way_the_answer_names_none() -> None:
    """The kernel bounds them for whoever has no rights to more, by the limit of open files."""
    drop = ["setpriv", "--bounding-set=-sys_resource,-sys_admin"] if os.geteuid() == 0 else []
    with trio.fail_after(PATIENCE):
        done = await trio.run_process([*drop, sys.executable, "-c", IN_FLIGHT], capture_stdout=True)
    assert 0 < int(done.stdout) < 60


# -- the client --


@pytest.fixture(params=[True, "kept"], ids=["passed", "kept"])
def passing(request: pytest.FixtureRequest) -> Passing:
    """The two ways, which a client cannot tell from each other by the streams."""
    way: Passing = request.param
    return way


@pytest.fixture
async def client(server: Server) -> Client:
    return await server.client()


async def test_a_process_with_passed_streams_is_used_as_any(client: Client, passing: Passing) -> None:
    script = "read line; echo got $line; echo aside >&2; exit 7"
    async with client.start(["sh", "-c", script], stdin=PIPE, pass_streams=passing) as process:
        with trio.fail_after(PATIENCE):
            await process.stdin.send_all(b"this\n")
            await process.stdin.aclose()
            assert await process.stdout.receive_some(3) == b"got"
            assert [piece async for piece in process.stdout] == [b" this\n"]
            assert await process.stderr.receive_some() == b"aside\n"
            assert (await process.wait()).exit_code == 7
            assert process.returncode == 7
            assert (await process.snapshot()).totals == ({"stdout": 9, "stderr": 6} if passing == "kept" else {})
            with pytest.raises(trio.ClosedResourceError):
                await process.stdin.send_all(b"more")
            with pytest.raises(StdinClosedError):
                await process.write(b"more")
    with pytest.raises(trio.ClosedResourceError):
        await process.stdout.receive_some()


async def test_much_goes_through_both_ways(client: Client, passing: Passing) -> None:
    data = os.urandom(1 << 20) * 8
    result = await client.run(["sh", "-c", "tee /dev/stderr"], input=data, pass_streams=passing)
    assert result.stdout == data
    assert result.stderr == data
    assert result.totals == (dict.fromkeys(("stdout", "stderr"), len(data)) if passing == "kept" else {})


async def test_text_bounds_and_times_of_run_hold(client: Client, passing: Passing) -> None:
    result = await client.run(["sort"], input="b\na\n", text=True, pass_streams=passing)
    assert (result.stdout, result.exit_code) == ("a\nb\n", 0)
    with pytest.raises(OutputTruncatedError):
        await client.run(["yes"], max_bytes=1000, pass_streams=passing)
    cut = await client.run(["seq", "10000"], max_bytes=1000, truncate=True, pass_streams=passing)
    assert cut.omitted_bytes > 0
    with pytest.raises(CommandTimeoutError) as late:
        await client.run(["sh", "-c", "echo begun; exec sleep 1000"], timeout=0.3, grace=0.1, pass_streams=passing)
    assert (late.value.stdout, late.value.reason) == (b"begun\n", "timeout")
    left = await client.run(["sh", "-c", "sleep 1000 & echo done"], pass_streams=passing)
    assert (left.stdout, len(left.ended)) == (b"done\n", 1)


async def test_a_slow_reader_holds_up_the_command_and_nobody_else(client: Client, passing: Passing) -> None:
    async with (
        client.start(["yes"], pass_streams=passing) as slow,
        client.start(["yes"], pass_streams=passing) as other,
    ):
        with trio.fail_after(PATIENCE):
            got = 0
            while got < 16 << 20:
                got += len(await other.stdout.receive_some())
            assert (await slow.stdout.receive_some(2)) == b"y\n"
            assert (await client.run(["echo", "beside"])).stdout == b"beside\n"


async def test_what_needs_a_server_that_sees_it_says_so(client: Client, tmp_path: Path) -> None:
    async with client.start(["cat"], stdin=PIPE, pass_streams=True) as process:
        uses: list[Callable[[], Awaitable[object]]] = [
            process.next_event,
            process.lines().__anext__,
            process.text().__anext__,
            process.output.__anext__,
            partial(process.expect, "x"),
        ]
        for use in uses:
            with pytest.raises(InvalidParamsError, match="pass_streams: only stdin, stdout and stderr are read") as no:
                await use()
            assert no.value.facts == {"field": "pass_streams"}
        for wait in (
            partial(process.wait_for, output="x"),
            partial(process.wait_for, idle=1),
            partial(process.wait_for, input=True),
        ):
            with pytest.raises(InvalidParamsError, match="its streams were passed to its client"):
                await wait()
        with pytest.raises(InvalidParamsError, match="pass_streams"):
            process.leave_running()
        with pytest.raises(InvalidParamsError, match="cannot be recorded"):
            async with client.record(process, tmp_path / "demo.cast"):
                pass
        await process.kill()
        assert (await process.wait_for(exit=True)).kind == "exit"
    with pytest.raises(InvalidParamsError, match="cannot be recorded"):
        async with client.start(["true"], pass_streams=True, record=tmp_path / "demo.cast"):
            pass
    with pytest.raises(InvalidParamsError, match="passStreams: a terminal"):
        await client.run(["true"], tty=True, pass_streams=True)


@pytest.mark.parametrize("transport", ["memory", "stdio", "websocket"])
async def test_a_client_elsewhere_has_a_clear_error(open_server: OpenServer, transport: str) -> None:
    client = await open_server(transport, ServerConfig()).client()
    with pytest.raises(InvalidParamsError, match="pass_streams: this client is not on a unix socket") as refused:
        await client.run(["true"], pass_streams=True)
    assert refused.value.facts == {"field": "pass_streams"}


async def test_leaving_ends_it_though_nobody_reads(client: Client, passing: Passing) -> None:
    """It may still say what it likes when it is asked to end: that is thrown away, as with any process."""
    before, mark = pipes(), new_mark()
    script = """trap 'head -c 1000000 /dev/zero; exit' TERM; bash -c 'exec -a "$0" sleep 1000' "$0" & yes & wait"""
    async with client.start(["bash", "-c", script, mark], pass_streams=passing, grace=PATIENCE) as process:
        await until_marked(mark, 1)
    assert process.closed is not None
    assert (process.reason, process.exit_code) == ("terminated", 0)
    await until_gone(mark)
    await until_no_more(before)


async def test_a_start_that_is_cancelled_leaves_no_descriptors(client: Client, passing: Passing) -> None:
    """At any moment: before it is asked, on its way, and behind the answer."""
    before = pipes()
    for turns in range(40):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel(turns: int = turns, scope: trio.CancelScope = scope) -> None:
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel)
                async with client.start(["sleep", "1000"], stdin=PIPE, pass_streams=passing):
                    await trio.sleep_forever()
    await until_no_more(before)
    assert (await client.run(["echo", "well"], pass_streams=passing)).stdout == b"well\n"


@pytest.mark.few
async def test_many_at_once_each_have_their_own(client: Client, passing: Passing) -> None:
    before = pipes()

    async def one(number: int) -> None:
        result = await client.run(["cat"], input=b"%d" % number, pass_streams=passing)
        assert result.stdout == b"%d" % number

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
    await until_no_more(before)


# -- the beginning and the end of what is passed --


async def until_printed(process: Process, count: int) -> None:
    while (await process.snapshot()).totals["stdout"] < count:  # noqa: ASYNC110  # nothing tells
        await trio.sleep(0.01)


async def test_a_stranger_has_them_kept(stranger: Stranger) -> None:
    await stranger.handshake()
    script = "echo this; echo aside >&2; exec sleep 1000"
    result = (await stranger.start("p", ["sh", "-c", script], passStreams="kept"))["result"]
    assert result["passed"] == ["stdout", "stderr"]
    stdout, stderr = stranger.descriptors
    stranger.descriptors.clear()
    for descriptor, said in ((stdout, b"this\n"), (stderr, b"aside\n")):
        assert os.get_blocking(descriptor) is False
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        async with trio.lowlevel.FdStream(descriptor) as stream:
            assert await stream.receive_some() == said
    shot = (await stranger.ask(3, "process/snapshot", {"processId": "p"}))["result"]
    assert shot["totals"] == {"stdout": 5, "stderr": 6}
    head = shot["stdout"]["head"]
    assert (head if stranger.packed else base64.b64decode(head)) == b"this\n"
    (listed,) = (await stranger.ask(4, "process/list", {}))["result"]["processes"]
    assert listed["passStreams"] is True


async def test_the_middle_is_left_out_and_nothing_of_what_is_read(client: Client) -> None:
    lines = "".join(f"{number}\n" for number in range(1, 1_000_001)).encode()
    async with client.start(["seq", "1000000"], pass_streams="kept") as process:
        with trio.fail_after(PATIENCE):
            assert b"".join([piece async for piece in process.stdout]) == lines
            assert (await process.wait()).exit_code == 0
        shot = (await process.snapshot()).stdout
    assert shot is not None
    assert lines.startswith(shot.head)
    assert lines.endswith(shot.tail)
    assert len(shot.head) + len(shot.tail) + shot.omitted_bytes == shot.total_bytes == len(lines)
    assert min(len(shot.head), len(shot.tail)) > 10_000


async def test_who_does_not_read_holds_the_command_up_and_hears_of_its_end(client: Client) -> None:
    script = "import os, sys; os.write(1, b'x' * 3000); sys.stdin.readline(); os.write(1, bytes(200_000))"
    async with client.start([sys.executable, "-c", script], stdin=PIPE, pass_streams="kept") as process:
        with trio.fail_after(PATIENCE):
            await until_printed(process, 3000)
            await process.write(b"go on\n")
            await until_printed(
                process, 60_000
            )  # the client's pipe is full then, and the rest is more than the other holds
            assert process.exit_code is None
            assert await process.stdout.receive_some(3000) == b"x" * 3000
            assert sum([len(piece) async for piece in process.stdout]) == 200_000
            assert (await process.wait()).exit_code == 0
            assert (await process.snapshot()).totals["stdout"] == 203_000
    async with client.start(["sh", "-c", "echo said; exit 3"], pass_streams="kept") as process:
        with trio.fail_after(PATIENCE):
            assert (await process.wait()).exit_code == 3
            assert (await process.snapshot()).totals["stdout"] == 5
            assert [piece async for piece in process.stdout] == [b"said\n"]


async def test_who_closes_it_tells_the_command(client: Client) -> None:
    """Whether it is just printing, waits for room, or has not begun to."""
    before = pipes()
    for script in ("exec yes", "sleep 0.2; exec yes", "echo first; sleep 0.2; exec yes"):
        async with client.start(["sh", "-c", script], pass_streams="kept") as process:
            if script.startswith("echo"):
                assert await process.stdout.receive_some() == b"first\n"
            await process.stdout.aclose()
            with trio.fail_after(PATIENCE):
                assert (await process.wait()).signal == "SIGPIPE"
    await until_no_more(before)


async def test_one_stream_of_both_and_none_are_kept_as_they_are(client: Client) -> None:
    both = await client.run(["sh", "-c", "echo one; echo two >&2"], stderr=STDOUT, pass_streams="kept")
    assert (both.stdout, both.totals) == (b"one\ntwo\n", {"stdout": 8})
    none = await client.run(["sh", "-c", "echo one; exit 2"], stdout=DEVNULL, stderr=DEVNULL, pass_streams="kept")
    assert (none.exit_code, none.totals) == (2, {})


async def test_a_machine_that_refuses_it_is_told_and_starts_nothing(tmp_path: Path) -> None:
    """A filter of system calls, as a container may have one."""
    tee = {"x86_64": 276, "aarch64": 77}[platform.machine()]
    serve = [sys.executable, "-m", "execsrv", "serve", "--listen", f"unix://{tmp_path}/socket"]
    command = [sys.executable, deny.__file__, str(errno.EPERM), str(tee), *serve]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:  # noqa: ASYNC220
        try:
            assert daemon.stdout is not None
            await trio.to_thread.run_sync(daemon.stdout.readline)
            async with connect_unix(tmp_path / "socket") as client:
                with pytest.raises(SpawnError, match="cannot start with its streams passed and kept") as refused:
                    await client.run(["touch", tmp_path / "made"], pass_streams="kept")
                assert not (tmp_path / "made").exists()
                assert (refused.value.facts["stage"], refused.value.facts["errno"]) == ("resources", errno.EPERM)
                assert (await client.run(["echo", "well"], pass_streams=True)).stdout == b"well\n"
        finally:
            daemon.terminate()


async def test_another_word_is_an_error_that_names_it(client: Client, server: Server) -> None:
    with pytest.raises(InvalidParamsError, match="pass_streams must be True, False or 'kept', got 'all'"):
        await client.run(["true"], pass_streams="all")  # type: ignore[call-overload]
    peer = await server.peer()
    code, message, _ = await peer.refused("process/start", start("p", ["true"], passStreams="all"))
    assert code == -32602
    assert "passStreams" in message


async def test_streams_go_on_while_the_connection_is_interrupted(open_server: OpenServer) -> None:
    server = open_server("unix", ServerConfig(resume_grace=PATIENCE))
    path = (await server.url()).removeprefix("unix://")
    async with (
        connect_unix(path, reconnect=PATIENCE) as client,
        client.start(["cat"], stdin=PIPE, pass_streams=True) as process,
    ):
        with trio.fail_after(PATIENCE):
            calls = client._connection.calls
            assert isinstance(calls._channel, PassingChannel)
            calls._channel._socket.shutdown(socket.SHUT_RDWR)
            await process.write(b"still\n")
            assert await process.stdout.receive_some() == b"still\n"
            await process.close_stdin()
            assert (await process.wait()).exit_code == 0


async def test_the_end_of_the_server_ends_the_streams(tmp_path: Path) -> None:
    """Killed without a word, it leaves nothing behind, and a reader has the end."""
    before, mark = pipes(), new_mark()
    command = [sys.executable, "-m", "execsrv", "serve", "--listen", f"unix://{tmp_path}/socket"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:  # noqa: ASYNC220
        try:
            assert daemon.stdout is not None
            await trio.to_thread.run_sync(daemon.stdout.readline)
            async with (
                connect_unix(tmp_path / "socket") as client,
                client.start(astray(mark), pass_streams=True) as process,
            ):
                await until_marked(mark, 2)
                daemon.kill()
                with trio.fail_after(PATIENCE):
                    assert await process.stdout.receive_some() == b""
                    with pytest.raises(ConnectionLostError):
                        await process.wait()
        finally:
            daemon.kill()
    await until_gone(mark)
    await until_no_more(before)


async def test_plain_code_and_asyncio_have_them_too(server: Server) -> None:
    url = await server.url()

    def plain() -> None:
        with (
            execsrv.sync.connect(url) as client,
            client.start(["cat"], stdin=PIPE, pass_streams=True) as process,
        ):
            process.stdin.write(b"one\ntwo\n")
            process.stdin.close()
            assert process.stdout.readline() == b"one\n"
            assert process.stdout.read() == b"two\n"
            assert process.wait().exit_code == 0

    async def others() -> None:
        async with (
            execsrv.asyncio.connect(url) as client,
            client.start(["cat"], stdin=PIPE, pass_streams=True) as process,
        ):
            await process.write(b"one\n")
            await process.close_stdin()
            assert await process.stdout.read() == b"one\n"
            assert (await process.wait()).exit_code == 0

    with trio.fail_after(PATIENCE):
        await trio.to_thread.run_sync(plain)
        await trio.to_thread.run_sync(lambda: asyncio.run(others()))


async def test_what_was_read_for_somebody_who_was_cancelled_is_read_by_the_next(server: Server) -> None:
    client = await server.client()
    async with client.start(["printf", "abcdefgh"], pass_streams=True) as process:
        with trio.fail_after(PATIENCE):
            await undone_late(partial(process.stdout.receive_some, 6))
            assert await process.stdout.receive_some(2) == b"ab"
            await undone_late(partial(process.stdout.receive_some, 3))
            assert await process.stdout.receive_some(3) == b"cde"
            assert await process.stdout.receive_some(10) == b"f"
            assert await process.stdout.receive_some(10) == b"gh"
            await undone_late(process.stdout.receive_some)
            assert await process.stdout.receive_some() == b""
