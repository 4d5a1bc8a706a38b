"""Every field of a call has a bound, in bytes, and what is beyond it costs nothing before it is refused."""

from __future__ import annotations

import json
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import msgspec.inspect as inspect
import pytest

from execsrv._wire.call_bounds import decode_call, decode_in_steps
from execsrv.errors import InvalidParamsError
from execsrv.limits import MIB
from execsrv.protocol import METHODS, HttpRequest, ProcessRead, ProcessStart, ProcessWait, ProcessWrite
from tests.conftest import Daemon, Server
from tests.peers import Peer, b64
from tests.test_bad_input import open_raw
from tests.test_codec import at_once

GRIN = "\N{GRINNING FACE}"


def unbounded(kind: inspect.Type, where: str) -> Iterator[str]:
    """Yield every place in a type in which a peer may say as much as it likes. A payload may be a whole message."""
    match kind:
        case inspect.Metadata(type=inner):
            yield from unbounded(inner, where)
        case inspect.StructType(fields=fields):
            for field in fields:
                yield from unbounded(field.type, f"{where}.{field.encode_name}")
        case inspect.UnionType(types=types):
            for part in types:
                yield from unbounded(part, where)
        case inspect.StrType(max_length=None):
            yield f"{where}: text"
        case inspect.IntType(ge=low, le=high) if None in (low, high):
            yield f"{where}: number"
        case inspect.ListType(item_type=item, max_length=most):
            if most is None:
                yield f"{where}: list"
            yield from unbounded(item, f"{where}[]")
        case inspect.DictType(key_type=key, value_type=value, max_length=most):
            if most is None:
                yield f"{where}: table"
            yield from unbounded(key, f"{where} key")
            yield from unbounded(value, f"{where} value")
        case inspect.StrType() | inspect.IntType() | inspect.BytesType() | inspect.BoolType() | inspect.NoneType():
            pass
        case inspect.LiteralType():
            pass
        case _:
            yield f"{where}: {type(kind).__name__}"  # `Any` among them


@pytest.mark.parametrize("method", METHODS)
def test_every_field_of_every_call_has_a_bound(method: str) -> None:
    assert list(unbounded(inspect.type_info(METHODS[method].params), method)) == []


WRITE = {"processId": "p", "chunk": "", "writeId": "w"}
START = {"argv": ["a"], "cwd": "/", "env": {}, "tty": False}


def decoded(type_: type[msgspec.Struct], params: object) -> msgspec.Struct:
    return decode_call(msgspec.Raw(json.dumps(params, ensure_ascii=False).encode()), type_)


@pytest.mark.parametrize("field", ["processId", "writeId"])
def test_names_are_bounded_in_bytes(field: str) -> None:
    decoded(ProcessWrite, {**WRITE, field: "x" * 256})
    decoded(ProcessWrite, {**WRITE, field: GRIN * 64})
    with pytest.raises(InvalidParamsError, match="Expected `str` of length <= 256"):
        decoded(ProcessWrite, {**WRITE, field: "x" * 257})
    with pytest.raises(InvalidParamsError, match=rf"Expected `str` of at most 256 bytes - at `\$\.{field}`"):
        decoded(ProcessWrite, {**WRITE, field: GRIN * 65})


TOO_MUCH: list[tuple[type[msgspec.Struct], dict[str, Any], str]] = [
    (ProcessWrite, {**WRITE, "processId": GRIN * MIB}, "processId"),
    (ProcessWrite, {**WRITE, "writeId": "x" * MIB}, "writeId"),
    (ProcessRead, {"processId": "p", "afterSeq": 10**299_999}, "afterSeq"),
    (ProcessStart, {**START, "cwd": "/" + GRIN * MIB}, "cwd"),
    (ProcessStart, {**START, "argv": ["x" * 9 * MIB]}, "argv"),
    (ProcessStart, {**START, "env": {"A": GRIN * 3 * MIB}}, "env"),
    (ProcessStart, {**START, "sandbox": [[]] * 3 * MIB}, "sandbox"),
    (HttpRequest, {"method": "GET", "url": "http://" + "x" * MIB, "requestId": "r"}, "url"),
]


@pytest.mark.parametrize(("type_", "params", "field"), TOO_MUCH, ids=lambda value: value if value is str else "")
def test_what_is_too_large_is_refused_before_it_is_decoded(
    type_: type[msgspec.Struct], params: dict[str, Any], field: str
) -> None:
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    raw = msgspec.Raw(json.dumps(params, ensure_ascii=False).encode())
    sys.set_int_max_str_digits(digits)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParamsError, match=f"`{field}` has [0-9]+ bytes of JSON: at most"):
            decode_call(raw, type_)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def stepwise(type_: type[msgspec.Struct], params: str) -> msgspec.Struct:
    return at_once(decode_in_steps(msgspec.Raw(params.encode()), type_))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("argv", ["a"] * 300_000),
        ("argv", [1] * 300_000),
        ("env", {str(number): "" for number in range(70_000)}),
        ("envPolicy", {"exclude": [{}] * 100_000}),
        ("modes", [[[]] * 10] * 30_000),
    ],
)
def test_many_values_are_refused_before_they_are_decoded(field: str, value: Any) -> None:
    params = {"processId": "p", "argv": ["true"], "cwd": "/", "env": {}, "tty": False, field: value}
    raw = msgspec.Raw(json.dumps(params).encode())
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParamsError, match=f"`{field}` has more than [0-9]+ values") as refused:
            decode_call(raw, ProcessStart)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(raw)
    finally:
        tracemalloc.stop()
    assert refused.value.facts["field"] == field


def test_commas_within_texts_are_no_values() -> None:
    text = '\\,",' * 200_000
    argv, env = ["\\", text, '"', ","], {text: text}
    params = {"processId": "p", "argv": argv, "cwd": "/", "env": env, "tty": False}
    call = decode_call(msgspec.Raw(json.dumps(params).encode()), ProcessStart)
    assert (call.argv, call.env) == (argv, env)


@pytest.mark.parametrize("size", [10, 3 * MIB, 3 * MIB + 1, 9 * MIB + 2])
def test_a_large_payload_is_decoded_step_by_step(size: int) -> None:
    data = os.urandom(size)
    text = json.dumps({"x": [GRIN], **WRITE, "chunk": b64(data)})
    assert stepwise(ProcessWrite, text) == ProcessWrite("p", data, "w")
    assert stepwise(ProcessWrite, text.replace("/", r"\/")) == ProcessWrite("p", data, "w")
    assert stepwise(ProcessStart, json.dumps({**START, "chunk": b64(data)})) == ProcessStart(["a"], "/", {}, False)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda text: text.replace("A", "!", 1), r"Invalid base64 encoded string - at `\$.chunk`"),
        (lambda text: text.replace("AAAA", "AA==", 1), r"Invalid base64 encoded string - at `\$.chunk`"),
        (lambda text: text[: 4 * MIB - 2] + "==" + text[4 * MIB :], r"Invalid base64 encoded string - at `\$.chunk`"),
        (lambda text: text + "A", r"Invalid base64 encoded string - at `\$.chunk`"),
    ],
)
def test_a_large_payload_is_as_strict_as_a_small_one(spoil: Callable[[str], str], complaint: str) -> None:
    text = json.dumps({**WRITE, "chunk": "%"}).replace("%", spoil(b64(bytes(9 * MIB))))
    with pytest.raises(InvalidParamsError, match=complaint):
        stepwise(ProcessWrite, text)
    with pytest.raises(InvalidParamsError, match=complaint):
        decode_call(msgspec.Raw(text.encode()), ProcessWrite)
    with pytest.raises(InvalidParamsError, match="missing required field `writeId`"):
        stepwise(ProcessWrite, json.dumps({"processId": "p", "chunk": b64(bytes(9 * MIB))}))


def test_a_payload_may_be_large_and_so_may_what_nobody_knows() -> None:
    assert decoded(ProcessWrite, {**WRITE, "chunk": b64(bytes(3 * MIB)), "x": [GRIN * MIB]}) == ProcessWrite(
        "p", bytes(3 * MIB), "w"
    )
    assert decoded(ProcessStart, {**START, "argv": ["x" * MIB] * 6}) == ProcessStart(["x" * MIB] * 6, "/", {}, False)
    with pytest.raises(InvalidParamsError, match="missing required field"):
        decoded(ProcessWait, {"x": "x" * MIB})
    with pytest.raises(InvalidParamsError, match="Expected `object`, got `array`"):
        decoded(ProcessWait, [0] * MIB)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("process/start", {**START, "argv": [""] * (256 * 1024 + 1)}),
        ("process/start", {**START, "envRemove": ["A"] * 70_000}),
        ("process/start", {**START, "modes": {f"m{number}": True for number in range(257)}}),
        ("process/signal", {"processId": "p", "signal": "x" * 300}),
        ("process/signal", {"processId": "p", "signal": 2**70}),
        ("http/request", {"method": "GET", "url": "http://" + "x" * 20_000, "requestId": "r"}),
        ("capabilityRoots/discoverV1", {"roots": [{"id": "r", "path": "/"}] * 1025}),
        ("environmentConfig/read", {"cwd": "/", "configPaths": [["a"]] * 1025, "requirementsPaths": []}),
        ("fs/watchMissing", {"watchId": 1, "missing": ["/a"] * 4097}),
        ("fs/readFile", {"path": "/" + "x" * 17_000}),
        ("fs/readBlock", {"handleId": "h", "offset": 2**63, "len": 1}),
        ("fs/walk", {"path": "/", "options": {"maxDepth": 2**54}}),
    ],
)
async def test_what_is_beyond_a_bound_ends_nothing(peer: Peer, method: str, params: dict[str, Any]) -> None:
    code, _, data = await peer.refused(method, params)
    assert (code, data["kind"]) == (-32602, "invalid-params")
    assert await peer.call("environment/status") == {"status": "ready"}


@pytest.mark.few
async def test_a_request_that_waits_does_not_hold_its_message(daemon: Daemon) -> None:
    async with open_raw(daemon) as raw:
        await raw.send(b'{"id":0,"method":"initialize","params":{"clientName":"x"}}')
        await raw.receive()
        await raw.send(b'{"method":"initialized"}')
        start = {"processId": "p", "argv": ["sleep", "1000"], "cwd": "/", "env": {}, "tty": False}
        await raw.send(json.dumps({"id": 1, "method": "process/start", "params": start}).encode())
        await raw.receive()
        before = daemon.resident()
        padding = "x" * 8 * MIB
        for id in range(2, 18):
            params = {"processId": "p", "padding": padding}
            await raw.send(json.dumps({"id": id, "method": "process/wait", "params": params}).encode())
        await raw.send(b'{"id":"last","method":"environment/status"}')
        assert json.loads(await raw.receive())["id"] == "last"
        assert daemon.resident() < before + 64 * MIB


async def test_large_messages_of_many_are_all_done(server: Server) -> None:
    """Each waits for its turn, and those that are cancelled meanwhile lose nothing of others."""
    if server.transport == "memory":
        pytest.skip("there is no text to decode")
    chunk = b64(bytes(3 * MIB))
    peers = [await server.peer() for _ in range(3)]
    ids = []
    for peer in peers:
        await peer.start("cat", ["sh", "-c", "cat | wc -c"], pipeStdin=True)
        ids.append(await peer.post("process/write", {"processId": "cat", "chunk": chunk, "writeId": "w"}))
    for peer, id in zip(peers, ids, strict=True):
        await peer.answer(id)
        await peer.call("process/closeStdin", {"processId": "cat"})
        await peer.until_output("cat", b"3145728\n")
