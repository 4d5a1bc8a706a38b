"""Messages to JSON and back; lines out of bytes, however they are cut."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Generator
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from execsrv._wire.bounds import MessageBound
from execsrv._wire.codecs import Codec, decode_params
from execsrv._wire.framing import LineBuffer
from execsrv._wire.unreadable import UnreadableError
from execsrv.errors import InvalidParamsError, ProtocolError
from execsrv.limits import MIB
from execsrv.protocol import (
    ErrorObject,
    Failure,
    Message,
    Notification,
    ProcessOutput,
    ProcessStart,
    ProcessWrite,
    Request,
    Response,
)

T = TypeVar("T")


def encoded(codec: Codec, message: Request | Notification | Response | Failure) -> object:
    buffer = bytearray(b"what was here before, and is longer than the message")
    codec.encode_into(message, buffer, 4)
    assert buffer[:4] == b"what"
    return json.loads(buffer[4:])


def test_encodes_each_kind_of_message() -> None:
    codec = Codec()
    output = Notification("process/output", ProcessOutput("p", 1, "stdout", b"hi\n"))
    assert encoded(codec, output) == {
        "method": "process/output",
        "params": {"processId": "p", "seq": 1, "stream": "stdout", "chunk": "aGkK"},
    }
    assert encoded(codec, Request(1, "m")) == {"id": 1, "method": "m"}
    assert encoded(codec, Response("a", {})) == {"id": "a", "result": {}}
    error = Failure(None, ErrorObject(-32600, "no", {"kind": "k"}))
    assert encoded(codec, error) == {"id": None, "error": {"code": -32600, "message": "no", "data": {"kind": "k"}}}


def at_once(steps: Generator[None, None, T]) -> T:
    """Do all steps, and return what they give."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def decode(text: str) -> Message:
    return Codec().decode(text.encode())


def test_decodes_each_kind_of_message() -> None:
    assert decode('{"id":-7,"method":"m"}') == Request(-7, "m", None)
    assert decode('{"id":"x","method":"m","params":null,"trace":1,"extra":[]}') == Request(
        "x", "m", msgspec.Raw(b"null")
    )
    assert decode('{"method":"n","params":{}}') == Notification("n", msgspec.Raw(b"{}"))
    assert decode('{"id":1,"result":{"a":1}}') == Response(1, msgspec.Raw(b'{"a":1}'))
    assert decode('{"id":null,"error":{"code":1,"message":"m"}}') == Failure(None, ErrorObject(1, "m"))


def test_output_is_decoded_in_one_step_and_all_that_only_looks_like_it_in_two() -> None:
    begins = '{"method":"process/output","params":{"processId":"p","seq":1,"stream":"stdout","chunk":"YQ=="}'
    output = decode(begins + ',"trace":[1]}')
    assert output == Notification("process/output", ProcessOutput("p", 1, "stdout", b"a"))
    raw = msgspec.Raw(b'{"processId":"p","seq":1,"stream":"stdout","chunk":"YQ=="}')
    assert decode(begins + ',"id":1}') == Request(1, "process/output", raw)
    assert decode(begins + ',"method":"process/other"}') == Notification("process/other", raw)
    assert decode('{"method":"process/output","params":{"seq":"x"}}') == Notification(
        "process/output", msgspec.Raw(b'{"seq":"x"}')
    )
    assert decode('{"method":"process/output","params":null}') == Notification("process/output", msgspec.Raw(b"null"))
    codec = Codec()
    codec.decode((begins + ',"jsonrpc":"2.0"}').encode())
    assert encoded(codec, Response(1, None)) == {"jsonrpc": "2.0", "id": 1, "result": None}
    for cut in (begins, begins + ',"id":null}', begins + "} {}", begins.replace("YQ==", "\\ud800") + ',"id":1.5}'):
        with pytest.raises(ProtocolError, match="malformed message"):
            decode(cut)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "[1]",
        "1",
        "null",
        '"text"',
        "{}",
        '{"id":1}',
        '{"id":null,"method":"m"}',
        '{"id":1.5,"method":"m"}',
        '{"id":9223372036854775808,"method":"m"}',
        '{"id":true,"method":"m"}',
        '{"id":[],"method":"m"}',
        '{"id":1,"method":7}',
        '{"id":1,"method":"m"',
        '{"id":1,"method":"m"} {"id":2,"method":"m"}',
        '{"id":1,"error":"text"}',
        '{"result":1}',
        '{"id":1,"method":"m","params":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_says_what_is_no_message(text: str) -> None:
    with pytest.raises(ProtocolError, match="malformed message"):
        decode(text)


def test_jsonrpc_is_mirrored_once_it_was_seen() -> None:
    codec = Codec()
    codec.decode(b'{"id":1,"method":"m"}')
    assert encoded(codec, Response(1, {})) == {"id": 1, "result": {}}
    codec.decode(b'{"jsonrpc":"2.0","id":1,"method":"m"}')
    assert encoded(codec, Response(1, {})) == {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ("{}", "processId"),
        ('{"processId":1,"chunk":"","writeId":"w"}', r"Expected `str`, got `int` - at `\$.processId`"),
        ('{"processId":"p","chunk":"a!","writeId":"w"}', r"at `\$.chunk`"),
        ('{"processId":"p","chunk":"","writeId":"w', "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("null", "missing required field `processId`"),
    ],
)
def test_bad_params_name_the_field(params: str, complaint: str) -> None:
    with pytest.raises(InvalidParamsError, match=complaint):
        decode_params(msgspec.Raw(params.encode()), ProcessWrite)


def test_params_come_raw_plain_or_as_they_are() -> None:
    start = ProcessStart(["a"], "/", {}, tty=False)
    assert decode_params(start, ProcessStart) is start
    assert decode_params({"argv": ["a"], "cwd": "/", "env": {}, "tty": False}, ProcessStart) == start
    assert decode_params(msgspec.Raw(msgspec.json.encode(start)), ProcessStart) == start


def lines_of(buffer: LineBuffer, at_end: bool = False) -> list[bytes | bytearray]:
    return list(iter(lambda: buffer.next_message(at_end), None))


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20)), st.data())
def test_lines_are_the_same_however_they_are_cut(texts: list[str], data: st.DataObject) -> None:
    stream = "".join(f"{text}\n" for text in texts).encode()
    buffer, heard = LineBuffer(MessageBound(1000)), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        buffer.feed(stream[:size])
        stream = stream[size:]
        heard += lines_of(buffer)
    lines = [text.lstrip(" \t\ufeff").encode() for text in texts]  # which is nothing in front of a message
    assert heard == [line for line in lines if line]
    assert lines_of(buffer, at_end=True) == []


@pytest.mark.parametrize("space", ["\v", "\f", "\x1c", "\x85", "\u00a0", "\u2028"])
def test_what_json_does_not_call_white_space_is_a_line(space: str) -> None:
    buffer = LineBuffer(MessageBound(1000))
    buffer.feed(f"\n \t\r\n{space}\n{{}}\n".encode())
    assert lines_of(buffer) == [space.encode(), b"{}"]


def test_last_line_needs_no_end() -> None:
    buffer = LineBuffer(MessageBound(100))
    buffer.feed(b"\r\none\r\n\n  \ntwo")
    assert lines_of(buffer) == [b"one\r"]
    assert lines_of(buffer, at_end=True) == [b"two"]


@pytest.mark.parametrize("data", [b"12345678901", b"12345678901\n", b"1\n12345678901\n"])
def test_line_too_long_is_refused_before_it_is_complete(data: bytes) -> None:
    buffer = LineBuffer(MessageBound(10))

    def feed_bytewise() -> None:
        for byte in data:
            buffer.feed(bytes([byte]))
            lines_of(buffer)

    with pytest.raises(ProtocolError, match=r"larger than max_message_bytes \(10\)") as caught:
        feed_bytewise()
    assert caught.value.close_code == 1009


def test_longest_line_is_taken() -> None:
    buffer = LineBuffer(MessageBound(10))
    buffer.feed(b"1234567890\n")
    assert lines_of(buffer) == [b"1234567890"]


@pytest.mark.parametrize("before", [0, 2**20 - 28, 2**21], ids=["at once", "at an edge", "late"])
@pytest.mark.parametrize("bad", [b"\xff", b"\xf0\x9f\x98", b"\xed\xa0\x80"])
def test_invalid_utf8_is_refused_wherever_it_is(bad: bytes, before: int) -> None:
    start = b'{"method":"m","skipped":"' + b"x" * before
    assert Codec().decode(start + "\N{GRINNING FACE}".encode() + b'"}') == Notification("m")
    with pytest.raises(ProtocolError, match="invalid UTF-8") as caught:
        Codec().decode(start + bad + b'"}')
    assert caught.value.close_code == 1007


def test_a_large_line_is_let_go_of_when_it_was_taken() -> None:
    buffer = LineBuffer(MessageBound(4 * MIB))
    tracemalloc.start()
    try:
        buffer.feed(b"x" * 3 * MIB + b"\ny")
        line = buffer.next_message()
        assert line is not None
        del line
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()
    assert buffer.next_message(at_end=True) == b"y"


def test_a_large_message_has_a_bounded_number_of_values() -> None:
    few = '{"id":"a","method":"m","params":[' + "[]," * (MIB // 2) + "0]}"
    assert isinstance(at_once(Codec().decode_large(few.encode())), Request)
    with pytest.raises(UnreadableError, match="a message may have 1048576 commas") as caught:
        at_once(Codec().decode_large(few.replace("[],", "[],[],[],").encode()))
    assert caught.value.id == "a"


@pytest.mark.parametrize(
    ("begins", "id"), [('{"id":7,"method":"m","x":"', 7), ('{"method":"m","x":"\\ud83d\\ude00', None)]
)
def test_a_large_call_that_cannot_be_read_ends_nothing(begins: str, id: int | None) -> None:
    with pytest.raises(UnreadableError) as caught:
        decode(begins + "x" * MIB + '\\ud83d","id":7}')
    assert caught.value.id == id


def test_an_id_is_bounded_in_bytes() -> None:
    assert decode(f'{{"id":"{"x" * 256}","method":"m"}}') == Request("x" * 256, "m")
    grin = "\N{GRINNING FACE}"
    with pytest.raises(UnreadableError, match="a string of up to 256 bytes"):
        decode(f'{{"id":"{grin * 65}","method":"m"}}')


@pytest.mark.parametrize("head", ['{"id":1,"method":"%"}', '{"method":"m","id":"%"}', '{"method":"%"}'])
def test_a_large_id_or_method_costs_no_letters(head: str) -> None:
    data = head.replace("%", "x" * 8 * MIB + "\N{GRINNING FACE}").encode()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="its id or its method has 8388614 bytes"):
            at_once(Codec().decode_large(data))
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB  # all letters would be 32
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("before", ["", "  ", '{"id":0}\n'])
def test_a_large_line_is_handed_over_and_not_copied(before: str) -> None:
    buffer = LineBuffer(MessageBound(16 * MIB))
    line = b'{"id":1,"method":"m","params":"' + b"x" * 8 * MIB + b'"}'
    buffer.feed(before.encode() + line + b"\n" + b'{"id":2}\n{"id')
    if "id" in before:
        assert buffer.next_message() == b'{"id":0}'
    tracemalloc.start()
    try:
        taken = buffer.next_message()
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    assert taken == line
    assert lines_of(buffer) == [b'{"id":2}']
    buffer.feed(b'":3}\n')
    assert lines_of(buffer) == [b'{"id":3}']
    request = at_once(Codec().decode_large(taken))
    assert isinstance(request, Request)
    assert len(request.params) == 8 * MIB + 2
