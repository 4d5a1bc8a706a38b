"""Bytes that are no message of ours, on every transport that carries bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket

from execsrv._wire.unreadable import with_whole_numbers
from execsrv.limits import ServerConfig
from execsrv.protocol import Notification
from tests.conftest import BYTE_TRANSPORTS, OpenServer, Server
from tests.peers import PATIENCE


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
        b"DEBUG: something\x1b[2J",
        b"\x0b",
        b"[" * 5000 + b"]" * 5000,
        b'{"method":5}',
        b'{"method":"\\ud83d"}',
        b'{"id":1,"error":[]}',
        b'{"id":1}',
        b'{"method":"initialize","id":1,"params":{"clientName":"\xff"}}',
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
        assert said[0]["error"]["message"] == (reason := "message is larger than max_message_bytes (1000)")
        if transport == "websocket":
            assert reasons == [(1009, reason)]


HALF = b'"done \\ud83d"'
START = b'{"processId":"x","argv":["echo",%s],"cwd":"/","env":{},"tty":false}'
INVALID, NO_CALL, UNKNOWN = (-32602, "invalid-params"), (-32600, "invalid-request"), (-32601, "unknown-method")


@pytest.mark.few(20)
@pytest.mark.parametrize(
    ("call", "id", "code_and_kind"),
    [
        (b'{"id":300,"method":"process/start","params":' + START % HALF + b"}", 300, INVALID),
        (b'{"method":"process/start","params":' + START % b'"\\udc00"' + b',"id":"last"}', "last", INVALID),
        (b'{"id":2,"method":"command/exec","params":{"argv":[],"cwd":' + HALF + b',"env":{},"tty":false}}', 2, INVALID),
        (b'{"id":2,"method":"fs/readFile","params":{"path":' + HALF + b"}}", 2, INVALID),
        (b'{"id":2,"method":"nope \\ud83d","params":{}}', 2, INVALID),
        (b'{"id":2,"method":"nope","x":{' + HALF + b":1}}", 2, INVALID),
        (b'{"id":2,"method":"nope","x":"\\\\ud83d \\ud83d\\ude00 \\ud83d\\ud83d\\ude00"}', 2, INVALID),
        (b'{"id":2,"method":"x","params":"' + b"\\ud83d" * 5000 + b'"}', None, INVALID),
        (b'{"id":' + HALF + b',"method":"process/list"}', None, INVALID),
        (b'{"id":null,"method":"process/list"}', None, NO_CALL),
        (b'{"id":1.5,"method":"process/list"}', None, NO_CALL),
        (b'{"id":1e400,"method":"process/list"}', None, NO_CALL),
        (b'{"id":9007199254740993.0,"method":"process/list"}', None, NO_CALL),
        (b'{"id":9223372036854775808,"method":"process/list"}', None, NO_CALL),
        (b'{"id":true,"method":"process/list"}', None, NO_CALL),
        (b'{"id":{"a":[]},"method":"process/list"}', None, NO_CALL),
        (b'{"id":"' + b"x" * 257 + b'","method":"process/list"}', None, NO_CALL),
        (b'{"id":1,"method":5}', 1, NO_CALL),
        (b'{"id":1,"method":null,"params":7}', 1, NO_CALL),
        (b'{"jsonrpc":"2.0","id":"d","method":"x","params":' + b"[" * 5000 + b"]" * 5000 + b"}", "d", INVALID),
        (b'{"params":' + b"[" * 5000 + b"]" * 5000 + b',"id":1,"method":"x"}', None, INVALID),
        (b'{"id":-1,"method":"initialized"}', -1, UNKNOWN),
        (b'{"id":"","method":"initialized","params":{}}', "", UNKNOWN),
        (b'{"id":1,"method":"process/list","params":[]}', 1, INVALID),
        (b'{"id":1,"method":"process/list","params":7}', 1, INVALID),
        (b'{"id":1,"method":"process/list","params":"x"}', 1, INVALID),
    ],
)
async def test_the_content_of_a_call_ends_nothing(
    bytes_server: Server, call: bytes, id: object, code_and_kind: tuple[int, str]
) -> None:
    async with open_raw(bytes_server) as raw:
        await raw.send(b'{"id":0,"method":"initialize","params":{"clientName":"x"}}')
        await raw.receive()
        await raw.send(b'{"method":"initialized"}')
        await raw.send(b'{"id":1,"method":"process/start","params":' + START % b'"unharmed"' + b"}")
        while "process/closed" not in str(text := await raw.receive()):
            assert text
        await raw.send(call)
        said = json.loads(await raw.receive())
        assert said["id"] == id
        assert type(said["id"]) is type(id)
        assert (said["error"]["code"], said["error"]["data"]["kind"]) == code_and_kind
        await raw.send(b'{"id":"next","method":"process/list"}')
        assert len(json.loads(await raw.receive())["result"]["processes"]) == 1


async def test_a_whole_number_may_have_a_point(bytes_server: Server) -> None:
    async with open_raw(bytes_server) as raw:
        await raw.send(b'{"id":3.0,"method":"initialize","params":{"clientName":"x"}}')
        said = json.loads(await raw.receive())
        assert said["id"] == 3
        assert isinstance(said["id"], int)
        await raw.send(b'{"method":"initialized"}')
        start = b'{"processId":"a","argv":["printf","%s","3.0, 1e3"],"cwd":"/","env":{},"tty":false,"timeoutMs":6e4}'
        await raw.send(b'{"id":-1e3,"method":"process/start","params":' + start + b"}")
        assert json.loads(await raw.receive())["id"] == -1000
        output = json.loads(await raw.receive())["params"]
        assert base64.b64decode(output["chunk"]) == b"3.0, 1e3"
        read = b'{"processId":"a","afterSeq":1.0,"maxBytes":0.1E+4,"waitMs":-0.0}'
        await raw.send(b'{"id":2,"method":"process/read","params":' + read + b"}")
        while "id" not in (said := json.loads(await raw.receive())):
            pass
        assert said["id"] == 2
        assert "result" in said
        await raw.send(b'{"id":2,"method":"process/read","params":{"processId":"a","afterSeq":15e-1}}')
        while "id" not in (said := json.loads(await raw.receive())):
            pass
        assert said["error"]["message"].startswith("Expected `int")


@pytest.mark.parametrize("number", [b"7" * 900_000, b"1." + b"7" * 900_000, b"-" + b"1" * 900_000 + b".0"])
async def test_a_number_of_any_length_is_read_in_a_moment(bytes_server: Server, number: bytes) -> None:
    async with open_raw(bytes_server) as raw:
        await raw.send(b'{"id":1,"method":"initialize","params":{"clientName":"x"}}')
        assert json.loads(await raw.receive())["id"] == 1
        await raw.send(b'{"method":"initialized"}')
        params = b'{"processId":"a","afterSeq":1.5,"other":' + number + b"}"
        await raw.send(b'{"id":2,"method":"process/read","params":' + params + b"}")
        said = json.loads(await raw.receive())
        assert said["id"] == 2
        assert "Expected `int" in said["error"]["message"]


def test_many_numbers_are_not_all_looked_at() -> None:
    rewritten = with_whole_numbers(b"[" + b"1.0," * 50_000 + b"1]")
    assert rewritten is not None
    assert rewritten.startswith(b"[1,1,1,")
    assert rewritten.count(b"1.0,") == 40_000


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b" \t", b"\r\n"])
async def test_what_means_nothing_is_passed_over(bytes_server: Server, mark: bytes) -> None:
    async with open_raw(bytes_server) as raw:
        await raw.send(mark + b'{"id":1,"method":"nope"}')
        assert json.loads(await raw.receive())["id"] == 1
        await raw.send(b'{"method":"$/cancelRequest","params":{"id":1}}')
        if bytes_server.transport != "websocket":
            await raw.send(mark)
        await raw.send(b'{"id":2,"method":"nope"}')
        assert json.loads(await raw.receive())["id"] == 2


@pytest.mark.parametrize(
    "mistake",
    [
        b"DEBUG: something",
        b"[]",
        b'{"method":"exit"}',
        b'{"id":1,"result":{}}',
        b'{"id":1,"error":{"code":1,"message":"m","data":[[[]]]}}',
        b'{"method":"x\xff"}',
    ],
)
async def test_a_protocol_error_is_a_lost_channel(open_server: OpenServer, mistake: bytes) -> None:
    for transport in ("unix", "websocket"):
        server = open_server(transport, ServerConfig(resume_grace=PATIENCE))
        async with open_raw(server) as raw:
            await raw.send(b'{"id":0,"method":"initialize","params":{"clientName":"x"}}')
            session = json.loads(await raw.receive())["result"]["sessionId"]
            await raw.send(b'{"method":"initialized"}')
            await raw.send(
                b'{"id":1,"method":"process/start","params":'
                + START.replace(b'"echo",%s', b'"/bin/sleep","1000"')
                + b"}"
            )
            await raw.receive()
            await raw.send(mistake)
            (said,) = await raw.rest()
            assert said["id"] is None
            assert said["error"]["data"] == {"kind": "protocol-error"}
        peer = await server.peer(ready=False)
        await peer.call("initialize", {"clientName": "x", "resumeSessionId": session})
        await peer.channel.send(Notification("initialized"))
        assert [process["running"] for process in (await peer.call("process/list"))["processes"]] == [True]


async def test_the_beginning_of_what_is_no_message_is_quoted(bytes_server: Server) -> None:
    async with open_raw(bytes_server) as raw:
        await raw.send(b"\x1b[31mDEBUG: " + b"x" * 10_000)
        (said,) = await raw.rest()
        quote = "`\\x1b[31mDEBUG: " + "x" * 48 + "...`"
        assert said["error"]["message"].endswith(f"; it begins with {quote}")


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
