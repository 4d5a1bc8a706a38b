"""Messages as msgpack: the same as in JSON, from the answer to `initialize` on, and only where both sides agree."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import trio
import trio_websocket
from hypothesis import given
from hypothesis import strategies as st

import execsrv
from execsrv._wire.bounds import LARGE_BYTES, MessageBound
from execsrv._wire.call_bounds import decode_call
from execsrv._wire.codecs import Codec, decode_params
from execsrv._wire.framing import FrameBuffer
from execsrv._wire.last_word import Follower, first_and_last
from execsrv._wire.msgpack_values import count_values
from execsrv._wire.packed import PackedCodec
from execsrv._wire.unreadable import UnreadableError
from execsrv.errors import CutOffError, InvalidParamsError, ProtocolError
from execsrv.limits import MIB, ClientConfig, ServerConfig
from execsrv.protocol import (
    METHODS,
    ErrorObject,
    Failure,
    FileWrite,
    Message,
    Notification,
    ProcessOutput,
    ProcessStart,
    ProcessWrite,
    Request,
    Response,
)
from tests.conftest import OpenServer, Server
from tests.peers import ENV, PATIENCE
from tests.test_codec import at_once
from tests.test_pieces import LARGE

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


def encoded(message: Message) -> bytes:
    buffer = bytearray(b"left from before, and longer than that")
    PackedCodec().encode_into(message, buffer, 4)
    assert buffer[:4] == b"left"
    return bytes(buffer[4:])


def decode(value: Any) -> Message:
    return PackedCodec().decode(value if isinstance(value, bytes) else pack(value))


# -- messages --


def test_encodes_each_kind_of_message() -> None:
    output = Notification("process/output", ProcessOutput("p", 1, "stdout", b"h\xff\n"))
    assert unpack(encoded(output)) == {
        "method": "process/output",
        "params": {"processId": "p", "seq": 1, "stream": "stdout", "chunk": b"h\xff\n"},
    }
    assert unpack(encoded(Request(1, "m"))) == {"id": 1, "method": "m"}
    assert unpack(encoded(Response("a", {}))) == {"id": "a", "result": {}}
    error = Failure(None, ErrorObject(-32600, "no", {"kind": "k"}))
    assert unpack(encoded(error)) == {"id": None, "error": {"code": -32600, "message": "no", "data": {"kind": "k"}}}


def test_decodes_each_kind_of_message() -> None:
    assert decode({"id": -7, "method": "m"}) == Request(-7, "m", None)
    assert decode({"jsonrpc": "2.0", "id": "x", "method": "m", "params": None}) == Request(
        "x", "m", msgspec.Raw(b"\xc0")
    )
    assert decode({"method": "n", "params": {}}) == Notification("n", msgspec.Raw(b"\x80"))
    assert decode({"id": 1, "result": {"a": 1}}) == Response(1, msgspec.Raw(pack({"a": 1})))
    error = {"code": 1, "message": "m", "data": {"kind": "k", "stages": ["a"]}}
    assert decode({"id": None, "error": error}) == Failure(None, ErrorObject(1, "m", error["data"]))
    assert decode({"id": 1, "error": {**error, "data": b"no facts"}}) == Failure(1, ErrorObject(1, "m", None))


def test_output_is_decoded_in_one_step_and_all_that_only_looks_like_it_in_two() -> None:
    params = {"processId": "p", "seq": 1, "stream": "stdout", "chunk": b"a"}
    output = {"method": "process/output", "params": params}
    assert decode(output) == Notification("process/output", ProcessOutput("p", 1, "stdout", b"a"))
    assert decode({**output, "id": 1}) == Request(1, "process/output", msgspec.Raw(pack(params)))
    assert decode({**output, "params": {"seq": "x"}}) == Notification("process/output", msgspec.Raw(pack({"seq": "x"})))
    with pytest.raises(ProtocolError, match="malformed message"):
        decode(pack(output) + b"\xc0")


@pytest.mark.parametrize("number", range(len(LARGE)))
def test_the_pieces_are_the_whole(number: int) -> None:
    whole, pieces = encoded(LARGE[number]), bytearray(b"what was here before")
    list(PackedCodec().encode_large_into(LARGE[number], pieces, 4))
    assert pieces[:4] == b"what"
    assert unpack(pieces[4:]) == unpack(whole)


@pytest.mark.parametrize("number", range(len(LARGE)))
def test_both_encodings_say_the_same(number: int) -> None:
    message, text = LARGE[number], bytearray()
    Codec().encode_into(message, text)
    from_json = at_once(Codec().decode_large(text))
    packed = encoded(message)
    from_msgpack = at_once(PackedCodec().decode_large(packed))
    match message, from_json, from_msgpack:
        case (Response(_, result), Response(), Response()) if isinstance(result, msgspec.Struct):
            type_ = type(result)
            assert decode_params(from_msgpack.result, type_) == decode_params(from_json.result, type_) == result
        case (Request(_, method), Request(), Request()):
            type_ = METHODS[method].params
            assert decode_call(from_msgpack.params, type_) == decode_call(from_json.params, type_)
        case _:
            assert type(from_json) is type(from_msgpack)
    assert len(packed) < len(text)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it begins with nothing"),
        (b"\xc1", "it begins with c1"),
        (b'{"method":"initialized"}', "it looks like JSON"),
        (pack([]), "Expected `object`, got `array`"),
        (pack({}), "neither a `method`"),
        (pack({"id": 1}), "neither a `method`"),
        (pack({"id": None, "result": {}}), "neither a `method`"),
        (pack({"method": 7}), "Expected `str`, got `int`"),
        (pack({7: 7}), "Expected `str`"),
        (pack({"method": "m"})[:-1], "truncated"),
        (pack({"method": "m"}) + b"\xc0", "trailing"),
        (b"\x81\xa6method\xa1\xff", "(?i:invalid UTF-8)"),
        (pack({"id": 1, "error": "text"}), "Expected `object`, got `str`"),
    ],
)
def test_says_what_is_no_message(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=f"malformed message: .*{why}") as caught:
        decode(data)
    assert not isinstance(caught.value, UnreadableError)


DEEP = b"\x91" * 100_000 + b"\xc0"


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (pack({"id": None, "method": "m"}), None),
        (pack({"id": 1.0, "method": "m"}), None),
        (pack({"id": 2**63, "method": "m"}), None),
        (pack({"id": b"x", "method": "m"}), None),
        (pack({"id": "x" * 257, "method": "m"}), None),
        (pack({"id": "\xe4" * 200, "method": "m"}), None),
        (pack({"id": 1, "method": 7}), 1),
        (b"\x82\xa2id\xa1a\xa6method\xa1\xff", "a"),
        (b"\x83\xa2id\x07\xa6method\xa1m\xa6params" + DEEP, 7),
        (b"\x83\xa6method\xa1m\xa2id\xa1x\xa6params" + DEEP, "x"),
        (b"\x83\xa6method\xa1\xff\xa2id\x07\xa6params" + DEEP, 7),
        (b"\x83\xa6params" + DEEP + b"\xa2id\x07\xa6method\xa1m", None),
    ],
)
def test_a_call_that_cannot_be_read_is_told_apart(data: bytes, id: int | str | None) -> None:
    with pytest.raises(UnreadableError) as caught:
        decode(data)
    assert caught.value.id == id


@pytest.mark.parametrize("end", [0, 1, 2, 3, 10, 30, 60])
def test_a_message_nested_too_deeply_may_end_anywhere(end: int) -> None:
    whole = b"\x83\xa2id\xa1a\xa6method\xa1m\xa6params" + DEEP
    with pytest.raises(ProtocolError):
        decode(whole[:end] or b"\x91")


# -- parameters --


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"processId": "p", "writeId": "1", "chunk": "YQ=="}, r"Expected `bytes`, got `str` - at `\$\.chunk`"),
        ({"processId": b"p", "chunk": b""}, r"Expected `str`, got `bytes` - at `\$\.processId`"),
        ({"processId": "p"}, "missing required field `chunk`"),
        ({"processId": "\xe4" * 200, "writeId": "1", "chunk": b""}, "at most 256 bytes"),
        ([], "Expected `object`, got `array`"),
        (7, "Expected `object`, got `int`"),
        (1.5, "Expected `object`, got `float`"),
        (None, "missing required field"),
        (msgspec.Raw(b"\x81\xa9processId\xa1\xff"), "(?i:invalid UTF-8)"),
    ],
)
def test_says_which_parameter_is_wrong(params: Any, why: str) -> None:
    request = decode({"id": 1, "method": "process/write", "params": params})
    assert isinstance(request, Request)
    with pytest.raises(InvalidParamsError, match=why):
        decode_call(request.params, ProcessWrite)


def test_a_large_call_is_bounded_but_for_its_payload() -> None:
    def params_of(value: dict[str, Any]) -> Any:
        request = at_once(PackedCodec().decode_large(pack({"id": 1, "method": "m", "params": value})))
        assert isinstance(request, Request)
        return request.params

    payload = os.urandom(3 * MIB)
    assert decode_call(params_of({"path": "/x", "dataBase64": payload}), FileWrite) == FileWrite(
        path="/x", data_base64=payload
    )
    start = {"argv": ["x"], "cwd": "/", "tty": False, "env": {"A": "x" * 9 * MIB}}
    with pytest.raises(InvalidParamsError, match=r"`env` has .* bytes of msgpack: at most 8388608"):
        decode_call(params_of(start), ProcessStart)


# -- how many values --

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=300),
    lambda children: st.lists(children, max_size=20) | st.dictionaries(st.text(max_size=3), children, max_size=20),
    max_leaves=60,
)


def count(value: Any) -> int:
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(map(count, parts))


@given(values)
def test_values_are_counted_without_decoding_them(value: Any) -> None:
    assert list(count_values(pack(value), 1000))[-1] == count(value)


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65535, 65536])
def test_values_of_each_size_are_counted(size: int) -> None:
    for value in (
        b"x" * size,
        "x" * size,
        [1] * size,
        dict.fromkeys(range(size), 1),
        msgspec.msgpack.Ext(1, b"x" * size),
    ):
        assert list(count_values(pack([value, 1.5, value]), 10**9)) == [2 * count(value) + 2]


def test_a_count_has_steps_and_ends_with_what_there_is() -> None:
    assert list(count_values(pack([1] * 25), 10)) == [10, 20, 26]
    assert list(count_values(b"\xdd\xff\xff\xff\xff" + b"\x01" * 7, 10)) == [8]
    assert list(count_values(b"\xc6\xff\xff\xff\xff", 10)) == [1]
    assert list(count_values(b"", 10)) == [0]


def test_a_message_of_many_values_is_refused_before_it_is_decoded() -> None:
    few = pack({"id": 5, "method": "m", "params": {"x": [1] * (MIB - 10)}})
    assert len(few) > LARGE_BYTES
    assert isinstance(at_once(PackedCodec().decode_large(few)), Request)
    many = pack({"id": 5, "method": "m", "params": {"x": [1] * (MIB + 20_000)}})
    with pytest.raises(UnreadableError, match="may have 1048576 values") as caught:
        at_once(PackedCodec().decode_large(many))
    assert caught.value.id == 5


def test_a_large_id_is_not_made_a_text() -> None:
    for head in ({"id": "x" * 2 * MIB, "method": "m"}, {"id": 1, "method": "m" * 2 * MIB}):
        with pytest.raises(UnreadableError, match="its id or its method has"):
            at_once(PackedCodec().decode_large(pack(head)))


# -- frames --


def frame(data: Any) -> bytes:
    payload: bytes = data if isinstance(data, bytes) else pack(data)
    return len(payload).to_bytes(4, "little") + payload


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000])
def test_frames_come_in_any_pieces(size: int) -> None:
    told = [b"", b"a", b"\n{}\n", bytes(300), b"z"]
    data, buffer, heard = b"".join(map(frame, told)), FrameBuffer(MessageBound(1000)), []
    for at in range(0, len(data), size):
        buffer.feed(data[at : at + size])
        while (message := buffer.next_message()) is not None:
            heard.append(message)
    assert heard == told
    assert buffer.next_message(at_end=True) is None
    assert not buffer.has_more
    assert len(buffer) == 0


def test_a_frame_may_be_so_long() -> None:
    buffer = FrameBuffer(MessageBound(10), frame(b"x" * 10) + frame(b"x" * 11)[:4])
    assert buffer.next_message() == b"x" * 10
    with pytest.raises(ProtocolError, match=r"message is larger than max_message_bytes \(10\)"):
        buffer.next_message()


@pytest.mark.parametrize("end", [1, 3, 4, 5, 8])
def test_a_frame_that_is_cut_is_no_message(end: int) -> None:
    buffer = FrameBuffer(MessageBound(10), frame(b"hello")[:end])
    assert buffer.next_message() is None
    with pytest.raises(CutOffError):
        buffer.next_message(at_end=True)


def test_a_large_frame_is_handed_over_and_not_copied() -> None:
    payload = os.urandom(2 * LARGE_BYTES)
    buffer = FrameBuffer(MessageBound(4 * LARGE_BYTES))
    buffer.feed(frame(b"a") + frame(payload) + frame(b"z"))
    assert [buffer.next_message() for _ in range(4)] == [b"a", payload, b"z", None]
    assert len(buffer) == 0


# -- who passes bytes on --


def heard(data: bytes, size: int) -> bool:
    """Whether who hears these bytes, in pieces of a size, takes them for those of a client that leaves."""
    follower = Follower()
    for at in range(0, len(data), size):
        follower.feed(data[at : at + size])
    return follower.is_leaving


@pytest.mark.parametrize("size", [1, 3, 100, 10_000])
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_client_that_leaves_is_known_wherever_it_was_cut_before(is_packed: bool, size: int) -> None:
    first, last = map(msgspec.json.encode, messages := first_and_last())
    first, last = first + b"\n", (frame(messages[1]) if is_packed else last + b"\n")
    greeting = b'{"id":1,"method":"initialize","params":{"clientName":"x","encoding":"msgpack"}}\n'
    write = {"id": 2, "method": "process/write", "params": {"processId": "p", "chunk": frame(first_and_last()[1])}}
    said = first + greeting + frame(write)
    for cut in range(0, len(said) - len(first), 7):
        before = said[: len(said) - cut]
        assert heard(before + last, size)
        assert not heard(before, size)
        assert not heard(before + last + b"\0", size)
    assert not heard(first, size)
    assert not heard(greeting + last, size)
    for end in range(len(last) - len(b'"}}\n')):
        assert not heard(said + last[:end], size)


# -- on a channel --

HELLO = {"id": 1, "method": "initialize", "params": {"clientName": "test", "encoding": "msgpack"}}
READY = {"method": "initialized"}
LIST = {"id": 2, "method": "process/list"}


class Raw:
    """Bytes to a server and back, and no code of ours in between."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.heard = b""

    async def line(self) -> Any:
        while b"\n" not in self.heard:
            await self._more()
        line, _, self.heard = self.heard.partition(b"\n")
        return json.loads(line)

    async def frame(self) -> Any:
        while len(self.heard) < 4 or len(self.heard) < 4 + int.from_bytes(self.heard[:4], "little"):
            await self._more()
        end = 4 + int.from_bytes(self.heard[:4], "little")
        data, self.heard = self.heard[4:end], self.heard[end:]
        return unpack(data)

    async def _more(self) -> None:
        with trio.fail_after(PATIENCE):
            data = await self.stream.receive_some()
        assert data, self.heard
        self.heard += data

    async def end(self) -> None:
        """Wait for the end."""
        with trio.fail_after(PATIENCE):
            assert await self.stream.receive_some() == b""
        assert not self.heard


@asynccontextmanager
async def open_raw(server: Server, hello: Any = HELLO) -> AsyncIterator[Raw]:
    """A connection that has asked for msgpack, and was given it."""
    async with await trio.open_unix_socket((await server.url()).removeprefix("unix://")) as stream:
        raw = Raw(stream)
        await stream.send_all(json.dumps(hello).encode() + b"\n")
        assert (await raw.line())["result"].get("encoding") == "msgpack"
        yield raw


@pytest.fixture
def on_unix(open_server: OpenServer) -> Server:
    return open_server("unix", ServerConfig(max_message_bytes=MIB))


async def test_everything_behind_the_answer_is_msgpack(on_unix: Server) -> None:
    async with open_raw(on_unix) as raw:
        await raw.stream.send_all(frame(READY) + frame(LIST))
        assert await raw.frame() == {"id": 2, "result": {"processes": []}}
        start = {"processId": "p", "argv": ["printf", r"\377"], "cwd": "/", "env": ENV, "tty": False}
        await raw.stream.send_all(frame({"id": 3, "method": "process/start", "params": start}))
        assert (await raw.frame())["id"] == 3
        assert (await raw.frame())["params"] == {"processId": "p", "seq": 1, "stream": "stdout", "chunk": b"\xff"}


@pytest.mark.parametrize("encoding", [None, "json", "cbor", "MSGPACK"])
async def test_without_an_encoding_that_the_server_knows_it_stays_json(on_unix: Server, encoding: str | None) -> None:
    async with await trio.open_unix_socket((await on_unix.url()).removeprefix("unix://")) as stream:
        raw = Raw(stream)
        hello = {**HELLO, "params": {"clientName": "test", "encoding": encoding}}
        await stream.send_all(json.dumps(hello).encode() + b"\n")
        assert "encoding" not in (await raw.line())["result"]
        await stream.send_all(json.dumps(READY).encode() + b"\n" + json.dumps(LIST).encode() + b"\n")
        assert await raw.line() == {"id": 2, "result": {"processes": []}}


async def test_a_refused_greeting_and_the_answers_before_it_are_json(on_unix: Server) -> None:
    async with await trio.open_unix_socket((await on_unix.url()).removeprefix("unix://")) as stream:
        raw = Raw(stream)
        refused = {**HELLO, "params": {"clientName": "test", "encoding": "msgpack", "resumeSessionId": "x"}}
        for message in (refused, {**LIST, "id": "early"}, HELLO):
            await stream.send_all(json.dumps(message).encode() + b"\n")
        assert "error" in await raw.line()
        assert (await raw.line())["id"] == "early"
        assert (await raw.line())["result"]["encoding"] == "msgpack"
        await stream.send_all(frame(READY) + frame(LIST))
        assert (await raw.frame())["id"] == 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b'{"method":"initialized"}\n', "message is larger than max_message_bytes"),
        (frame(b'{"method":"initialized"}'), "it looks like JSON, where msgpack was agreed upon"),
        (frame(b""), "it begins with nothing"),
        (frame(pack(READY) + b"\xc0"), "trailing characters"),
        ((MIB + 1).to_bytes(4, "little"), "message is larger than max_message_bytes"),
    ],
)
async def test_what_is_no_message_closes_the_channel_with_a_word(on_unix: Server, said: bytes, why: str) -> None:
    async with open_raw(on_unix) as raw:
        await raw.stream.send_all(said)
        told = await raw.frame()
        assert told["id"] is None
        assert why in told["error"]["message"]
        await raw.end()


async def test_a_call_that_cannot_be_read_is_answered_and_all_goes_on(on_unix: Server) -> None:
    async with open_raw(on_unix) as raw:
        await raw.stream.send_all(frame(READY) + frame({"id": 1.5, "method": "process/list"}) + frame(LIST))
        told = await raw.frame()
        assert (told["id"], told["error"]["data"]["kind"]) == (None, "invalid-request")
        assert (await raw.frame())["id"] == 2


async def test_a_peer_that_is_cut_off_anywhere_harms_nobody(on_unix: Server) -> None:
    said = frame(READY) + frame({"id": 2, "method": "process/write", "params": {"processId": "p", "chunk": b"x"}})
    for end in range(len(said)):
        async with open_raw(on_unix) as raw:
            await raw.stream.send_all(said[:end])
    async with open_raw(on_unix) as raw:
        await raw.stream.send_all(frame(READY) + frame(LIST))
        assert (await raw.frame())["id"] == 2


async def test_on_a_websocket_msgpack_is_in_binary_frames(open_server: OpenServer) -> None:
    url = await open_server("websocket", ServerConfig()).url()
    async with trio_websocket.open_websocket_url(url) as websocket:

        async def binary() -> bytes:
            message = await websocket.get_message()
            assert isinstance(message, bytes)
            return message

        await websocket.send_message(json.dumps(HELLO))
        answer = await websocket.get_message()
        assert isinstance(answer, str)
        assert json.loads(answer)["result"]["encoding"] == "msgpack"
        await websocket.send_message(pack(READY))
        await websocket.send_message(pack(LIST))
        assert unpack(await binary()) == {"id": 2, "result": {"processes": []}}
        await websocket.send_message('{"method":"initialized"}')
        told = unpack(await binary())
        assert "it looks like JSON" in told["error"]["message"]


PAGE = Path(__file__).parent.parent / "docs" / "msgpack.md"


def test_the_page_has_the_bytes_of_what_it_says() -> None:
    assert [(mark, unpack(data[4:])["method"]) for mark, data in on_the_page()] == [
        ("->", "initialized"),
        ("->", "process/start"),
        ("<-", "process/output"),
    ]


def on_the_page() -> list[tuple[str, bytes]]:
    """Each message that the page shows in bytes."""
    found = []
    for mark, block in re.findall(r"^```text\n(->|<-)( (?:[0-9a-f]{2} ){4}.*?)^```", PAGE.read_text(), re.S | re.M):
        columns = [line[:50] for line in f"  {block}".splitlines()]
        found.append((mark, bytes.fromhex("".join(columns))))
    return found


async def test_the_exchange_of_the_page(on_unix: Server) -> None:
    async with open_raw(on_unix) as raw:
        for mark, data in on_the_page():
            if mark == "->":
                await raw.stream.send_all(data)
            else:
                while (heard := frame(await raw.frame())) != data:
                    assert unpack(heard[4:])["id"] == 2


# -- the client --


@asynccontextmanager
async def overheard(url: str, folder: str) -> AsyncIterator[tuple[str, Callable[[], bytes], Callable[[], None]]]:
    """A unix socket that leads to another one, all that has passed it from the client, and a way to cut it."""
    heard = bytearray()
    cuts: list[trio.CancelScope] = []

    async def serve(ours: trio.SocketStream) -> None:
        async with await trio.open_unix_socket(url.removeprefix("unix://")) as theirs, trio.open_nursery() as nursery:
            cuts.append(nursery.cancel_scope)

            async def back() -> None:
                with suppress(trio.BrokenResourceError):  # who has said the last word hears no answer to it
                    async for data in theirs:
                        await ours.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(back)
            with suppress(trio.BrokenResourceError):
                async for data in ours:
                    heard.extend(data)
                    await theirs.send_all(data)
            nursery.cancel_scope.cancel()

    listener = trio.socket.socket(trio.socket.AF_UNIX)
    await listener.bind(f"{folder}/heard")
    listener.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listener)])
        yield f"unix://{folder}/heard", lambda: bytes(heard), lambda: cuts[-1].cancel()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_a_client_asks_for_msgpack_unless_it_is_told_not_to(
    on_unix: Server, encoding: Literal["msgpack", "json"], tmp_path: Path
) -> None:
    async with overheard(await on_unix.url(), str(tmp_path)) as (url, heard, _):
        async with execsrv.connect(url, config=ClientConfig(encoding=encoding)) as client:
            assert (await client.run(["cat"], input=b"\xff\0")).stdout == b"\xff\0"
        greeting, _, rest = heard().partition(b"\n")
        assert (b"msgpack" in greeting) is (encoding == "msgpack")
        assert (b'"process/write"' in rest) is (encoding == "json")
        assert (b"\xadprocess/write" in rest) is (encoding == "msgpack")


OLD_SERVER = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    match message["method"]:
        case "initialize":
            shell = {"name": "sh", "path": "/bin/sh"}
            machine = {"shell": shell, "executorVersion": "1", "cwd": "file:///", "platformOs": "linux"}
            machine |= {"userHomeDir": "file:///", "tempDir": "file:///"}
            answer = {"sessionId": "s", "environmentInfo": machine}
        case "fs/readFile":
            answer = {"dataBase64": "/w=="}
        case _:
            answer = {}
    if "id" in message:
        print(json.dumps({"id": message["id"], "result": answer}), flush=True)
"""


async def test_a_server_that_knows_json_only_is_spoken_with_in_json() -> None:
    async with execsrv.launch([sys.executable, "-c", OLD_SERVER]) as client:
        assert await client.files.read("/x") == b"\xff"


async def test_a_connection_is_taken_up_again_in_msgpack(open_server: OpenServer, tmp_path: Path) -> None:
    server = open_server("unix", ServerConfig(resume_grace=PATIENCE))
    async with (
        overheard(await server.url(), str(tmp_path)) as (url, heard, cut),
        execsrv.connect(url, reconnect=PATIENCE) as client,
        client.start(["cat"], stdin=True) as process,
    ):
        await process.stdin.send_all(b"one\n")
        assert await anext(aiter(process.lines())) == "one"
        cut()
        await process.stdin.send_all(b"\xfftwo\n")
        await process.wait_for(output=b"\xfftwo")
        assert heard().count(b'"initialize"') == 2
        assert heard().count(b"\xabinitialized") == 2
