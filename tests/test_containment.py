"""One peer, or one fault of ours, ends what it belongs to and nothing else."""

from __future__ import annotations

import inspect
import json
import logging
import re
import tracemalloc
from collections.abc import Callable

import pytest
import trio

from execsrv._server import conversation
from execsrv.limits import ServerConfig
from execsrv.protocol import Notification
from tests.conftest import OpenServer, Server
from tests.peers import ENV, PATIENCE, b64

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
EMPTY_PART = b"\x00\x80\0\0\0\0"


def frame(payload: bytes, head: int = 0x81) -> bytes:
    """A frame of a client, with a mask that changes nothing."""
    size = len(payload)
    return (
        bytes([head]) + (bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")) + bytes(4) + payload
    )


class RawPeer:
    """A peer without any task: nothing but bytes on a socket."""

    def __init__(self, stream: trio.SocketStream, packed: Callable[[bytes], bytes]) -> None:
        self.stream = stream
        self.packed = packed
        self.heard = b""

    async def say(self, *messages: object) -> None:
        await self.stream.send_all(b"".join(self.packed(json.dumps(message).encode()) for message in messages))

    async def until(self, words: bytes) -> bool:
        """Hear until these words were said, and return whether they were, or the end came first."""
        with trio.fail_after(PATIENCE):
            while words not in self.heard:
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    return False
                if not data:
                    return False
                self.heard += data
        return True


async def raw_peer(server: Server) -> RawPeer:
    url = await server.url()
    if server.transport == "unix":
        return RawPeer(await trio.open_unix_socket(url.removeprefix("unix://")), lambda message: message + b"\n")
    host, _, port = url.removeprefix("ws://").rpartition(":")
    connection = trio.socket.socket()  # without the tasks of `open_tcp_stream`
    await connection.connect((host, int(port)))
    peer = RawPeer(trio.SocketStream(connection), frame)
    await peer.stream.send_all(UPGRADE)
    await peer.until(b"\r\n\r\n")
    return peer


def greeting(resume: str | None = None) -> tuple[object, object]:
    params = {"clientName": "x"} | ({"resumeSessionId": resume} if resume else {})
    return {"id": 0, "method": "initialize", "params": params}, {"method": "initialized"}


def start(id: str, *argv: str, **params: object) -> object:
    params = {"processId": id, "argv": argv, "cwd": "/", "env": ENV, "tty": False, **params}
    return {"id": id, "method": "process/start", "params": params}


@pytest.mark.parametrize(
    "beyond",
    [
        b"\x01\x81\0\0\0\0x" * 1 + b"\x00\x81\0\0\0\0y" * 1000 + b"\x89\x80\0\0\0\0",
        b"\x82\xfe\x03\xe9\0\0\0\0" + b"x" * 1001 + b"\x89\x80\0\0\0\0",
        frame("\N{GRINNING FACE}".encode() * 251, 0x81) + b"\x89\x80\0\0\0\0",
        b"\x01\x80\0\0\0\0" + EMPTY_PART * 70_000 + b"\x89\x80\0\0\0\0",
    ],
)
async def test_a_message_beyond_its_bounds_with_a_ping_behind_it_ends_one_channel(
    open_server: OpenServer, beyond: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = open_server("websocket", ServerConfig(max_message_bytes=1000))
    neighbour = await server.peer()
    await neighbour.start("a", ["cat"], pipeStdin=True)
    peer = await raw_peer(server)
    async with peer.stream:
        await peer.say(*greeting(), start("nap", "sleep", "1000"))
        assert await peer.until(b'"pid"')
        await peer.stream.send_all(beyond)
        assert await peer.until(b"\x03\xf1message ")
        assert re.search(b"message (is larger than max_message_bytes .1000.|has more than 65536 parts)", peer.heard)
    await neighbour.call("process/closeStdin", {"processId": "a"})
    await neighbour.until_told("a", "closed")
    assert await neighbour.run("b", ["echo", "unharmed"]) == (0, b"unharmed\n", b"")
    assert not [record for record in caplog.records if record.exc_info]


class Inject(trio.abc.Instrument):
    """Lets one of the tasks that are spawned from now on fail at its n-th step, counted over all of them."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error
        self.tasks: set[trio.lowlevel.Task] = set()
        self.hit = ""

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.tasks.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self.tasks.discard(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self.tasks and not self.hit and self.can_fail(task):
            self.step -= 1
            if self.step == 0:
                self.hit = task.name
                task._next_send_fn, task._next_send = task.coro.throw, self.error

    @staticmethod
    def can_fail(task: trio.lowlevel.Task) -> bool:
        """Whether it waits, and not for the end of a nursery: to fail there would break trio."""
        if inspect.getcoroutinestate(task.coro) == inspect.CORO_CREATED:
            return False
        return all(frame.f_code.co_name != "_nested_child_finished" for frame, _ in task.iter_await_frames())


async def a_cancel() -> BaseException:
    """A `Cancelled` that belongs to no scope."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            return error
    raise AssertionError


async def an_error(kind: str) -> BaseException:
    match kind:
        case "RuntimeError":
            return RuntimeError("injected")
        case "MemoryError":
            return MemoryError("injected")
        case "RecursionError":
            return RecursionError("injected")
        case "Cancelled":
            return await a_cancel()
    return BaseExceptionGroup("injected", [await a_cancel(), ExceptionGroup("x", [RuntimeError("injected")])])


KINDS = ["RuntimeError", "MemoryError", "RecursionError", "Cancelled", "both"]
SOME_STEPS = [1, 2, 3, 5, 8, 13, 21, 34, 55, 70, 89]
EVERY_STEP = pytest.param(range(1, 160), marks=pytest.mark.slow)


SOME_KINDS = [("RuntimeError", "unix"), ("Cancelled", "unix"), ("MemoryError", "websocket"), ("both", "websocket")]


@pytest.mark.parametrize(
    ("kind", "transport"),
    [
        pytest.param(kind, transport, marks=() if (kind, transport) in SOME_KINDS else pytest.mark.slow)
        for kind in KINDS
        for transport in ("unix", "websocket")
    ],
)
@pytest.mark.parametrize("steps", [SOME_STEPS, EVERY_STEP])
async def test_a_fault_of_ours_at_any_step_ends_what_it_belongs_to(
    open_server: OpenServer, transport: str, kind: str, steps: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = open_server(transport, ServerConfig(flush_timeout=1))
    neighbour = await server.peer()
    await neighbour.start("a", ["cat"], pipeStdin=True)
    for step in steps:
        caplog.clear()
        inject = Inject(step, await an_error(kind))
        trio.lowlevel.add_instrument(inject)
        try:
            peer = await raw_peer(server)
            async with peer.stream:
                try:
                    write = {"processId": "c", "chunk": b64(b"hello"), "writeId": "1"}
                    await peer.say(
                        *greeting(),
                        start("c", "cat", pipeStdin=True),
                        {"id": 3, "method": "process/write", "params": write},
                        {"id": 4, "method": "process/read", "params": {"processId": "c", "waitMs": 1000}},
                        {"id": 5, "method": "process/closeStdin", "params": {"processId": "c"}},
                    )
                    with trio.move_on_after(3):
                        await peer.until(b"process/closed")
                except trio.BrokenResourceError:
                    pass
            with trio.fail_after(PATIENCE):
                while inject.tasks:  # noqa: ASYNC110  # an instrument may wake nobody
                    await trio.sleep(0.001)
        finally:
            trio.lowlevel.remove_instrument(inject)
        text = f"step {step} of {inject.hit}"
        await neighbour.call("environment/status")
        if inject.hit:
            told = caplog.text + peer.heard.decode(errors="replace")
            causes = ["injected", "a cancel has left", "internal error", "has failed"]
            if kind == "Cancelled":
                causes.append("process/closed")  # in a task that was being cancelled it changes nothing
            assert any(cause in told for cause in causes), text
    await neighbour.call("process/closeStdin", {"processId": "a"})
    await neighbour.until_told("a", "closed")


async def test_a_session_that_fails_ends_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from execsrv._server.session import Session

    peer = await server.peer()
    real = Session._exit_and_drain

    async def fail(session: Session) -> None:
        if session.id == "lives":  # which may have been answered before it gets here
            return await real(session)
        raise RuntimeError("injected")

    monkeypatch.setattr(Session, "_exit_and_drain", fail)
    await peer.start("lives", ["cat"], pipeStdin=True)
    await peer.start("fails", ["sleep", "1000"])
    exited = await peer.until_told("fails", "exited")
    await peer.until_told("fails", "closed")
    assert (exited["exitCode"], exited["signal"]) == (137, "SIGKILL")
    assert "session `fails` has failed" in caplog.text
    running = {each["processId"]: each["running"] for each in (await peer.call("process/list"))["processes"]}
    assert running == {"lives": True, "fails": False}


async def test_who_holds_a_connection_in_silence_is_let_go_when_somebody_else_wants_it(
    open_server: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "_PROOF_SECONDS", 0.2)
    config = ServerConfig(resume_grace=PATIENCE, ping_interval=1000, ping_timeout=1000)
    server = open_server("websocket", config)
    silent = await raw_peer(server)
    await silent.say(*greeting(), start("nap", "sleep", "1000"))
    assert await silent.until(b'"pid"')
    match = re.search(rb'"sessionId":"([^"]+)"', silent.heard)
    assert match
    resume = {"clientName": "x", "resumeSessionId": match[1].decode()}
    with trio.fail_after(PATIENCE):
        while True:
            async with server.open_peer() as peer:
                answer = await peer.answer(await peer.post("initialize", resume))
                if hasattr(answer, "result"):
                    await peer.channel.send(Notification("initialized"))
                    assert [each["running"] for each in (await peer.call("process/list"))["processes"]] == [True]
                    break
                assert answer.error.code == -32010
    await silent.stream.aclose()


async def test_who_holds_a_connection_and_answers_keeps_it(
    open_server: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proofs = []
    monkeypatch.setattr(conversation, "_PROOF_SECONDS", 0.2)
    server = open_server("websocket", ServerConfig(resume_grace=PATIENCE, ping_interval=1000, ping_timeout=1000))
    holder = await server.peer(ready=False)
    greeted = await holder.handshake()
    from execsrv._wire.websocket import WebSocketChannel

    is_alive = WebSocketChannel.is_alive
    proven = trio.Event()

    async def watched(channel: WebSocketChannel, patience: float) -> bool:
        proofs.append(await is_alive(channel, patience))
        proven.set()
        return proofs[-1]

    monkeypatch.setattr(WebSocketChannel, "is_alive", watched)
    other = await server.peer(ready=False)
    resume = {"clientName": "x", "resumeSessionId": greeted["sessionId"]}
    assert (await other.refused("initialize", resume))[0] == -32010
    with trio.fail_after(PATIENCE):
        await proven.wait()
    assert proofs == [True]
    assert (await other.refused("initialize", resume))[0] == -32010
    assert await holder.run("a", ["echo", "mine"]) == (0, b"mine\n", b"")


async def test_a_flood_of_empty_parts_leaves_the_others_their_turn(open_server: OpenServer) -> None:
    """Of 256 KiB that are read at once, only a few frames are handled before others have their turn."""
    server = open_server("websocket", ServerConfig())
    neighbour = await server.peer()
    flooder = await raw_peer(server)
    await flooder.say(*greeting())  # a stranger's message has no more than some hundred parts
    assert await flooder.until(b'"sessionId"')
    sent = 0

    async def flood() -> None:
        nonlocal sent
        message = frame(b'{"id":1,"method":"x"}', 0x01) + EMPTY_PART * 60_000 + b"\x80\x80\0\0\0\0"
        while True:
            for start in range(0, len(message), 4096):
                await flooder.stream.send_all(message[start : start + 4096])
                sent += 4096

    async def hear() -> None:
        while await flooder.stream.receive_some():
            pass

    async with flooder.stream, trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        nursery.start_soon(hear)
        filled = -1
        while filled != sent:  # until the sockets are full
            filled = sent
            for _ in range(3):
                await neighbour.call("environment/status")
        for _ in range(50):
            await neighbour.call("environment/status")
        consumed = sent - filled
        nursery.cancel_scope.cancel()
    assert consumed < 4 * 1024 * 1024


async def test_members_that_nobody_asked_for_are_not_built(open_server: OpenServer) -> None:
    """As objects they would take 25 times their size, before anybody has said who it is."""
    server = open_server("unix", ServerConfig())
    peer = await raw_peer(server)
    nothing = b"[" + b"[]," * 20_000 + b"[]]"  # as much as a stranger may say in one message
    async with peer.stream:
        tracemalloc.start()
        try:
            await peer.stream.send_all(b'{"jsonrpc":' + nothing + b',"id":1,"method":"nope"}\n')
            assert await peer.until(b"unknown method")
            params = b'{"processId":"a","argv":["x"],"cwd":"/","env":{},"tty":false,"sandbox":{"permissions":{"x":'
            await peer.stream.send_all(b'{"id":2,"method":"process/start","params":' + params + nothing + b"}}}}\n")
            assert await peer.until(b"call initialize")
            await peer.stream.send_all(b'{"id":1,"error":{"code":1,"message":"m","data":' + nothing + b"}}\n")
            assert await peer.until(b"never sent")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 10 * len(nothing)
