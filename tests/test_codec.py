"""Messages to JSON and back; lines out of bytes, however they are cut."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from execsrv._wire.bounds import MessageBound
from execsrv._wire.codecs import Codec, LineBuffer, decode_params
from execsrv.errors import InvalidParamsError, ProtocolError
from execsrv.protocol import (
    ErrorObject,
    Failure,
    Notification,
    ProcessOutput,
    ProcessStart,
    ProcessWrite,
    Request,
    Response,
)


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


def test_decodes_each_kind_of_message() -> None:
    decode = Codec().decode
    assert decode('{"id":-7,"method":"m"}') == Request(-7, "m", None)
    assert decode('{"id":"x","method":"m","params":null,"trace":1,"extra":[]}') == Request(
        "x", "m", msgspec.Raw(b"null")
    )
    assert decode('{"method":"n","params":{}}') == Notification("n", msgspec.Raw(b"{}"))
    assert decode('{"id":1,"result":{"a":1}}') == Response(1, msgspec.Raw(b'{"a":1}'))
    assert decode('{"id":null,"error":{"code":1,"message":"m"}}') == Failure(None, ErrorObject(1, "m"))


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
        Codec().decode(text)


def test_jsonrpc_is_mirrored_once_it_was_seen() -> None:
    codec = Codec()
    codec.decode('{"id":1,"method":"m"}')
    assert encoded(codec, Response(1, {})) == {"id": 1, "result": {}}
    codec.decode('{"jsonrpc":"2.0","id":1,"method":"m"}')
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


def lines_of(buffer: LineBuffer, at_end: bool = False) -> list[str]:
    return list(iter(lambda: buffer.next_line(at_end), None))


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20)), st.data())
def test_lines_are_the_same_however_they_are_cut(texts: list[str], data: st.DataObject) -> None:
    stream = "".join(f"{text}\n" for text in texts).encode()
    buffer, heard = LineBuffer(MessageBound(1000)), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        buffer.feed(stream[:size])
        stream = stream[size:]
        heard += lines_of(buffer)
    texts = [text.lstrip(" \t\ufeff") for text in texts]  # which is nothing in front of a message
    assert heard == [text for text in texts if text and not text.isspace()]
    assert lines_of(buffer, at_end=True) == []


def test_last_line_needs_no_end() -> None:
    buffer = LineBuffer(MessageBound(100))
    buffer.feed(b"\r\none\r\n\n  \ntwo")
    assert lines_of(buffer) == ["one\r"]
    assert lines_of(buffer, at_end=True) == ["two"]


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
    assert lines_of(buffer) == ["1234567890"]


def test_invalid_utf8_is_refused() -> None:
    buffer = LineBuffer(MessageBound(10))
    buffer.feed(b"a\xff\n")
    with pytest.raises(ProtocolError, match="invalid UTF-8"):
        buffer.next_line()
