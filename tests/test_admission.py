"""Peers at the door: they take little, they are few, and they are in nobody's way."""

from __future__ import annotations

import base64
import json
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv._doors.newcomers import Door, Newcomer
from execsrv.errors import ConnectionFailedError, UnknownConnectionError
from execsrv.limits import KIB, ServerConfig
from execsrv.protocol import Failure, Notification
from tests.conftest import BYTE_TRANSPORTS, OpenServer, Server
from tests.peers import PATIENCE, Peer
from tests.test_bad_input import open_raw
from tests.web import Asked, head, open_web

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
INITIALIZE = b'{"id":0,"method":"initialize","params":{"clientName":"x"}}'


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """Return a frame of a client, its mask all zeros."""
    size = len(payload)
    length = b"\xff" + size.to_bytes(8, "big")
    if size < 65536:
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload


async def connect(server: Server) -> trio.SocketStream:
    """Connect to a listening server, before any byte."""
    url = await server.url()
    if server.transport == "unix":
        return await trio.open_unix_socket(url.removeprefix("unix://"))
    host, _, port = url.removeprefix("ws://").rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def everything(stream: trio.abc.ReceiveStream) -> bytes:
    """Return what comes until the end."""
    said = bytearray()
    with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            said += data
    return bytes(said)


@pytest.fixture(params=["unix", "websocket"])
def listening(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- who leaves --


def enter(door: Door, origin: str, left: list[str], name: str) -> Newcomer:
    return door.enter(origin, lambda: left.append(name))


def test_who_has_waited_longest_of_the_largest_crowd_leaves() -> None:
    door, left = Door(lambda: 4), list[str]()
    for number in range(3):
        enter(door, "10.0.0.1", left, f"crowd {number}")
    alone = enter(door, "uid 7", left, "alone")
    assert left == []
    enter(door, "10.0.0.1", left, "crowd 3")
    enter(door, "uid 8", left, "other")
    assert left == ["crowd 0", "crowd 1"]
    door.leave(alone)
    door.leave(alone)
    enter(door, "10.0.0.1", left, "crowd 4")
    assert left == ["crowd 0", "crowd 1"]
    enter(door, "10.0.0.1", left, "crowd 5")
    assert left == ["crowd 0", "crowd 1", "crowd 2"]
    assert repr(door) == "<Door 4 of 4 from 2>"
    for _ in range(9):
        door.make_room("no room")
    assert len(left) == 3 + 4


async def test_a_silent_peer_leaves_for_one_more_and_those_who_spoke_stay(
    open_server: OpenServer, listening: str
) -> None:
    server = open_server(listening, ServerConfig(max_handshakes=2, handshake_timeout=PATIENCE))
    first = await server.peer()
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await connect(server)) for _ in range(3)]
        assert await everything(silent[0]) == b""
        second = await server.peer()
        assert await everything(silent[1]) == b""
        for peer in (first, second):
            assert await peer.call("environment/status") == {"status": "ready"}


# -- how little they may say --


def largest(method: str, size: int) -> bytes:
    empty = json.dumps({"id": 1, "method": method, "x": ""}).encode()
    return empty[:-2] + b"x" * (size - len(empty)) + empty[-2:]


@pytest.mark.parametrize("transport", BYTE_TRANSPORTS)
async def test_before_initialize_messages_are_small(open_server: OpenServer, transport: str) -> None:
    server = open_server(transport, ServerConfig())
    async with open_raw(server) as raw:
        await raw.send(largest("nope", 64 * KIB))
        assert json.loads(await raw.receive())["error"]["code"] == -32601
        await raw.send(INITIALIZE)
        assert "result" in json.loads(await raw.receive())
        await raw.send(largest("nope", 1000 * KIB))
        assert json.loads(await raw.receive())["error"]["code"] == -32601
    async with open_raw(server) as raw:
        await raw.send(largest("nope", 64 * KIB + 1))
        (said,) = await raw.rest()
    assert said["error"]["message"] == "message before `initialize` is larger than 65536 bytes"


async def test_who_was_refused_is_still_a_stranger(open_server: OpenServer, listening: str) -> None:
    server = open_server(listening, ServerConfig(max_connections=1))
    await server.peer()
    async with open_raw(server) as raw:
        await raw.send(INITIALIZE)
        assert json.loads(await raw.receive())["error"]["data"]["limit"] == "max_connections"
        await raw.send(largest("nope", 64 * KIB + 1))
        (said,) = await raw.rest()
    assert "before `initialize`" in said["error"]["message"]


async def test_a_large_message_may_come_right_behind_initialize(open_server: OpenServer, listening: str) -> None:
    """Whatever is read at once: what was in front of it counts as said before."""
    server = open_server(listening, ServerConfig())
    messages = [INITIALIZE, largest("nope", 1000 * KIB), largest("last", 1000)]
    if listening == "unix":
        said = b"".join(message + b"\n" for message in messages)
    else:
        said = UPGRADE + b"".join(map(frame, messages))
    heard = b""
    async with await connect(server) as stream:
        await stream.send_all(said)
        with trio.fail_after(PATIENCE):
            while b"unknown method `last`" not in heard:
                heard += (piece := await stream.receive_some())
                assert piece, heard
    assert b"unknown method `nope`" in heard


@pytest.mark.parametrize("part", [b"", b"x"])
async def test_before_initialize_a_message_has_few_parts(open_server: OpenServer, part: bytes) -> None:
    server = open_server("websocket", ServerConfig())
    async with await connect(server) as stream:
        await stream.send_all(UPGRADE + frame(b"{", first=0x01) + frame(part, first=0x00) * 300)
        assert b"message has more than 256 parts" in await everything(stream)


# -- how many there may be --


async def test_one_user_has_a_share_of_the_connections(open_server: OpenServer, listening: str) -> None:
    server = open_server(listening, ServerConfig(max_connections_per_principal=2))
    async with server.open_peer() as first:
        await first.handshake()
        await server.peer()
        third = await server.peer(ready=False)
        code, message, data = await third.refused("initialize", {"clientName": "x"})
        assert (code, data) == (
            -32600,
            {"kind": "limit-exceeded", "limit": "max_connections_per_principal", "value": 2},
        )
        assert message == "max_connections_per_principal (2) are open"
    with trio.fail_after(PATIENCE):
        while isinstance(await third.answer(await third.post("initialize", {"clientName": "x"})), Failure):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def calling(server: Server, method: str, params: Any) -> Peer:
    """Connect and call. On a crowded machine that may come too late: then by another connection."""
    while True:
        peer = await server.peer()
        with suppress(trio.BrokenResourceError, AssertionError):
            await peer.call(method, params)
            return peer


async def started(server: Server, id: str) -> Peer:
    return await calling(server, "process/start", (await server.peer()).start_params(id, ["sleep", "1000"]))


async def test_who_is_idle_for_too_long_has_to_leave(open_server: OpenServer, listening: str) -> None:
    server = open_server(listening, ServerConfig(idle_connection_timeout=0.2))
    busy, waits = await started(server, "a"), await started(server, "b")
    wait = await waits.post("process/wait", {"processId": "b"})
    for _ in range(3):
        idle = await server.peer()
        await idle.until_ended()
        (said,) = [message for message in idle.heard if isinstance(message, Failure)]
        assert said.error.message == "idle_connection_timeout (0.2 s) is over"
    await waits.call("process/terminate", {"processId": "b"})
    await waits.answer(wait)
    assert [each["processId"] for each in (await busy.call("process/list"))["processes"]] == ["a"]


async def test_who_waits_to_be_told_of_something_is_not_idle(open_server: OpenServer, tmp_path: Path) -> None:
    server = open_server("unix", ServerConfig(idle_connection_timeout=0.2))
    all_is_sent = trio.Event()

    async def slowly(asked: Asked) -> None:
        await asked.send(head("Content-Length: 6") + b"abc")
        await all_is_sent.wait()
        await asked.send(b"def")

    async with open_web() as web:
        web.pages["/slow"] = slowly
        host = await started(server, "a")
        (own,) = [each for each in (await host.call("connection/list"))["connections"] if each["isOwn"]]
        guest = await calling(server, "connection/join", {"connection": own["connectionId"]})
        request = {"method": "GET", "url": web.url + "/slow", "requestId": "r", "streamResponse": True}
        reader = await calling(server, "http/request", request)
        watch = {"watchId": 1, "missing": [(tmp_path / "new").as_uri()]}
        watcher = await calling(server, "fs/watchMissing", watch)
        for _ in range(3):
            await (await server.peer()).until_ended()
        all_is_sent.set()
        (tmp_path / "new").touch()
        (own,) = [each for each in (await host.call("connection/list"))["connections"] if each["isOwn"]]
        await host.call("connection/revoke", {"memberId": own["members"][0]["memberId"]})
        await guest.until(lambda: "revoked" in [each["happened"] for each in told(guest, "connection/presence")])
        await watcher.until(lambda: told(watcher, "fs/missingChanged"))
        await reader.until(lambda: True in [each["done"] for each in told(reader, "http/request/bodyDelta")])
        assert told(reader, "http/request/bodyDelta")[-1].get("error") is None


def told(peer: Peer, method: str) -> list[Any]:
    return [each.params for each in peer.heard if isinstance(each, Notification) and each.method == method]


# -- connections that have nothing to come back for --


async def greeted_and_gone(server: Server, start: bool) -> str:
    """Connect, perhaps start a command, and hang up; the connection's id."""
    async with server.open_peer() as peer:
        id = (await peer.handshake())["sessionId"]
        if start:
            await peer.start("a", ["sleep", "1000"])
        return str(id)


async def resumed(peer: Peer, id: str) -> str:
    """Return how the server answers: a kind of error, or nothing."""
    answer = await peer.answer(await peer.post("initialize", {"clientName": "x", "resumeSessionId": id}))
    return answer.error.data["kind"] if isinstance(answer, Failure) else ""


async def until_waiting(server: Server, ids: list[str]) -> None:
    """Wait until the server has noticed that the channels are gone, by a probe that it refuses."""
    for id in ids:
        async with server.open_peer() as probe:
            while await resumed(probe, id) == "already-attached":  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_a_connection_without_sessions_gives_its_place_to_who_needs_one(
    open_server: OpenServer, listening: str
) -> None:
    server = open_server(listening, ServerConfig(max_connections=3, resume_grace=600))
    busy = await greeted_and_gone(server, start=True)
    first, second = [await greeted_and_gone(server, start=False) for _ in range(2)]
    await until_waiting(server, [busy, first, second])
    await until_waiting(server, [second, first])  # each was resumed, so now the second has waited longest
    new = await server.peer()
    assert await resumed(await server.peer(ready=False), second) == UnknownConnectionError.kind
    assert await resumed(await server.peer(ready=False), first) == ""
    assert await resumed(await server.peer(ready=False), busy) == ""
    last = await server.peer(ready=False)
    code, message, data = await last.refused("initialize", {"clientName": "x"})
    assert (code, data) == (-32600, {"kind": "limit-exceeded", "limit": "max_connections", "value": 3})
    assert message == "max_connections (3) are open"
    assert await new.call("environment/status") == {"status": "ready"}


async def test_a_client_that_leaves_in_order_gives_its_place_at_once_and_one_that_is_lost_does_not(
    open_server: OpenServer, listening: str
) -> None:
    server = open_server(listening, ServerConfig(max_connections_per_principal=2, resume_grace=600))
    async with server.open_peer() as lost:
        id = (await lost.handshake())["sessionId"]
        await lost.start("a", ["echo", "unread"])
        await lost.until_told("a", "closed")
    with trio.fail_after(PATIENCE):
        for _ in range(3):
            while True:
                try:
                    async with server.open_client() as client:
                        await client.run(["true"])
                    break
                except ConnectionFailedError:  # the end of the one before takes a moment
                    await trio.sleep(0.01)
        other = await greeted_and_gone(server, start=True)
        await until_waiting(server, [other, id])
    _, message, _ = await (await server.peer(ready=False)).refused("initialize", {"clientName": "x"})
    assert message == (
        "max_connections_per_principal (2) are open, 2 of them without a client: they wait to be resumed"
    )
    back = await server.peer(ready=False)
    await resumed(back, id)
    await back.channel.send(Notification("initialized"))
    read = await back.call("process/read", {"processId": "a"})
    assert base64.b64decode(read["chunks"][0]["chunk"]) == b"unread\n"
