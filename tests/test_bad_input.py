"""Bytes that are no message of ours, on every transport that carries bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket

from execsrv.limits import ServerConfig
from tests.conftest import BYTE_TRANSPORTS, Server
from tests.peers import PATIENCE

OpenServer = Callable[[str, ServerConfig], Server]


class Raw:
    """A connection of bytes: one message in a frame or a line."""

    def __init__(self, send: Callable[[bytes], Any], receive: Callable[[], Any]) -> None:
        self.send = send
        self.receive = receive

    async def rest(self) -> list[Any]:
        """Everything said from here to the end of the connection."""
        said = []
        with trio.fail_after(PATIENCE):
            while (text := await self.receive()) is not None:
                said.append(json.loads(text))
        return said


@asynccontextmanager
async def open_raw(server: Server, close_reasons: list[Any] | None = None) -> AsyncIterator[Raw]:
    if server.transport == "websocket":
        async with trio_websocket.open_websocket_url(await server.url()) as websocket:

            async def receive_frame() -> str | bytes | None:
                try:
                    return await websocket.get_message()
                except trio_websocket.ConnectionClosed as closed:
                    if close_reasons is not None and closed.reason is not None:
                        close_reasons.append((closed.reason.code, closed.reason.reason))
                    return None

            try:
                yield Raw(websocket.send_message, receive_frame)
            finally:
                # A client that was hung up on keeps its socket open.
                await trio.aclose_forcefully(websocket._stream)
        return
    out, into = await server.streams()
    buffer = bytearray()

    async def receive_line() -> bytes | None:
        while b"\n" not in buffer:
            try:
                data = await into.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                assert not buffer
                return None
            buffer.extend(data)
        line, _, rest = bytes(buffer).partition(b"\n")
        buffer[:] = rest
        return line

    try:
        yield Raw(lambda data: out.send_all(data + b"\n"), receive_line)
    finally:
        await trio.aclose_forcefully(out)
        await trio.aclose_forcefully(into)


@pytest.fixture(params=BYTE_TRANSPORTS)
def bytes_server(open_server: OpenServer, request: pytest.FixtureRequest) -> Server:
    return open_server(request.param, ServerConfig())


@pytest.mark.parametrize(
    "garbage",
    [
        b"nonsense",
        b"{",
        b"[]",
        b"7",
        b'{"id":1}',
        b'{"id":null,"method":"initialize"}',
        b'{"id":1,"method":5}',
        b'{"id":1.5,"method":"initialize"}',
        b'{"id":"' + b"x" * 257 + b'","method":"initialize"}',
        b'{"method":"initialize","id":1,"params":{"clientName":"\xff"}}',
        b'{"id":1,"method":"x","params":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
async def test_what_is_no_message_ends_the_connection_with_a_reason(bytes_server: Server, garbage: bytes) -> None:
    neighbour = await bytes_server.peer()
    reasons: list[Any] = []
    async with open_raw(bytes_server, reasons) as raw:
        await raw.send(garbage)
        (said,) = await raw.rest()
        assert said["id"] is None
        assert said["error"]["code"] == -32600
        assert said["error"]["message"].startswith("malformed message: ")
        assert said["error"]["data"] == {"kind": "protocol-error"}
    if bytes_server.transport == "websocket":
        ((code, reason),) = reasons
        assert code in (1002, 1007)
        assert reason.startswith("malformed message: ")
    assert await neighbour.run("a", ["echo", "unharmed"]) == (0, b"unharmed\n", b"")


async def test_a_message_that_is_too_large_ends_the_connection(open_server: OpenServer) -> None:
    for transport in BYTE_TRANSPORTS:
        server = open_server(transport, ServerConfig(max_message_bytes=1000))
        reasons: list[Any] = []
        async with open_raw(server, reasons) as raw:
            await raw.send(json.dumps({"id": 1, "method": "x" * 900}).encode())
            assert json.loads(await raw.receive())["error"]["code"] == -32601
            await raw.send(json.dumps({"id": 1, "method": "x" * 1000}).encode())
            said = await raw.rest()
        if transport == "websocket":
            assert reasons == [(1009, "Exceeded maximum message size: 1000 bytes")]
        else:
            assert "larger than max_message_bytes (1000)" in said[0]["error"]["message"]


async def test_jsonrpc_member_is_mirrored(bytes_server: Server) -> None:
    async with open_raw(bytes_server) as raw:
        await raw.send(b'{"id":1,"method":"nope"}')
        assert "jsonrpc" not in json.loads(await raw.receive())
        await raw.send(b'{"jsonrpc":"2.0","id":"two","method":"nope"}')
        assert json.loads(await raw.receive()) == {
            "jsonrpc": "2.0",
            "id": "two",
            "error": {
                "code": -32601,
                "message": "unknown method `nope`",
                "data": {"kind": "unknown-method", "method": "nope"},
            },
        }


async def test_binary_frames_are_taken_and_text_is_sent(open_server: OpenServer) -> None:
    server = open_server("websocket", ServerConfig())
    async with open_raw(server) as raw:
        await raw.send(b'{"id":1,"method":"nope"}')  # bytes go out as a binary frame
        assert isinstance(await raw.receive(), str)
        await raw.send('{"id":2,"method":"nope"}')  # type: ignore[arg-type]
        assert json.loads(await raw.receive())["id"] == 2


async def test_a_line_may_end_in_carriage_return_and_the_last_one_in_nothing(open_server: OpenServer) -> None:
    server = open_server("unix", ServerConfig())
    out, into = await server.streams()
    assert isinstance(out, trio.SocketStream)
    await out.send_all(b'\r\n\n{"id":1,"method":"nope"}\r\n{"id":2,"method":"nope"}')
    await out.send_eof()
    said = bytearray()
    with trio.fail_after(PATIENCE):
        while data := await into.receive_some():
            said += data
    assert [json.loads(line)["id"] for line in said.splitlines()] == [1, 2]
    await out.aclose()


async def test_whole_bytewise_and_with_trailing_data(open_server: OpenServer) -> None:
    server = open_server("stdio", ServerConfig())
    out, into = await server.streams()
    text = b'{"id":1,"method":"nope"}\n{"id":2,"method":"n\xc3\xb6pe"}\n{"id":'
    for byte in text:
        await out.send_all(bytes([byte]))
    await out.send_all(b'3,"method":"nope"}\n')
    said = bytearray()
    with trio.fail_after(PATIENCE):
        while said.count(b"\n") < 3:
            said += await into.receive_some()
    assert [json.loads(line)["id"] for line in said.splitlines()] == [1, 2, 3]
    await trio.aclose_forcefully(out)
    await trio.aclose_forcefully(into)
