"""The frames of a runner: their bounds, both versions, whatever pieces they come in, and what is no frame."""

from __future__ import annotations

import base64
import json
import re
import struct
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from execsrv._runner import frames, version_1_messages, version_2_messages
from execsrv._runner.frames import AS_RUNNER, AS_SERVER, MAX_PAYLOAD_BYTES, FrameReader, Tables, encode
from execsrv._runner.version_2_messages import Data
from execsrv.errors import CutOffError, ProtocolError
from execsrv.protocol import Member, Size
from execsrv.protocol.process_limits import ProcessUsage

REQUEST = version_1_messages.SpawnRequest(
    command=["true"],
    cwd="/",
    env={"SECRET": "hunter2"},
    policy_json_or_preset="read-only",
    sandbox_policy_cwd="/",
    tty=False,
)
FOUNDING = [
    REQUEST,
    version_1_messages.SpawnReady(4711),
    version_1_messages.Output(b"\0out\xff", "stderr"),
    version_1_messages.Stdin("aW4="),
    version_1_messages.Terminate(),
    version_1_messages.Exit(-1, True),
    version_1_messages.Error("cannot", "spawn_failed"),
]
TO_RUNNER = [
    version_2_messages.Hello(),
    version_2_messages.SpawnRequest(1, ["sh", "-c", "é"], None, {"A": "1"}, 65536, tty=True, size=Size(33, 99)),
    Data(1, "stdin", b"\0in\xff"),
    version_2_messages.CloseStdin(1),
    version_2_messages.Resize(1, 24, 80),
    version_2_messages.Signal(1, 7, 15, "tree"),
    version_2_messages.Terminate(1, 500),
    version_2_messages.Look(1, 8),
    version_2_messages.Credit(1, "pty", 2**53),
    version_2_messages.Forget(2**32 - 1),
    version_2_messages.Ping(),
]
FROM_RUNNER = [
    version_2_messages.HelloBack([1, 2], True, 4711),
    version_2_messages.SpawnReady(1, 4712, ["mounts"], ["a gap"]),
    Data(1, "pty", b"{"),
    version_2_messages.Eof(1, "stdout"),
    version_2_messages.StdinDone(1, 3, True),
    version_2_messages.Exit(1, 153, "SIGXFSZ", "file-size"),
    version_2_messages.TreeEmpty(1, "subreaper", 12, ProcessUsage(0.5)),
    version_2_messages.Signaled(7, 2),
    version_2_messages.Looked(
        8, [Member(4712, "sh")], 3, 4096, False, version_2_messages.InputWait(4712, "sh", "read", 0, 1)
    ),
    version_2_messages.Error(None, "protocol", "what was wrong", versions=[1, 2]),
    version_2_messages.Pong(),
]
CONVERSATIONS = [(AS_RUNNER, FOUNDING), (AS_SERVER, FOUNDING), (AS_RUNNER, TO_RUNNER), (AS_SERVER, FROM_RUNNER)]


def framed(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


def read_all(tables: Tables, *pieces: bytes) -> list[msgspec.Struct]:
    reader, found = FrameReader(tables), []
    for piece in pieces:
        reader.feed(piece)
        while (message := reader.next()) is not None:
            found.append(message)
    reader.check_end()
    return found


def test_a_round_trip_of_output_as_the_founding_runner_writes_it() -> None:
    data = base64.b64encode(b"hello").decode()
    written = encode(version_1_messages.Output(b"hello", "stdout"))
    assert struct.unpack("<I", written[:4])[0] == len(written) - 4
    told = {"version": 1, "type": "output", "payload": {"data_b64": data, "stream": "stdout"}}
    assert json.loads(written[4:]) == told
    assert read_all(AS_SERVER, written) == [version_1_messages.Output(b"hello", "stdout")]


@pytest.mark.parametrize(("tables", "conversation"), CONVERSATIONS)
@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_every_message_arrives_whatever_the_pieces(
    tables: Tables, conversation: list[msgspec.Struct], size: int
) -> None:
    written = b"".join(map(encode, conversation))
    pieces = [written[at : at + size] for at in range(0, len(written), size)]
    assert read_all(tables, *pieces) == conversation


@pytest.mark.parametrize(("tables", "conversation"), CONVERSATIONS)
def test_every_message_is_in_a_conversation(tables: Tables, conversation: list[msgspec.Struct]) -> None:
    version = 1 if conversation is FOUNDING else 2
    assert {type(message) for message in conversation} - {Data} == set(tables[version].values())


@pytest.mark.parametrize("cut", range(1, 24))
def test_an_end_within_a_frame_is_no_end(cut: int) -> None:
    """The founding runner took one to three bytes for a clean end."""
    written = encode(version_1_messages.Terminate())
    reader = FrameReader(AS_RUNNER)
    reader.feed(written)
    assert reader.next() == version_1_messages.Terminate()
    reader.check_end()
    reader.feed(written[:cut])
    assert reader.next() is None
    with pytest.raises(CutOffError):
        reader.check_end()


def test_the_largest_frame_passes_and_one_byte_more_does_not() -> None:
    room = MAX_PAYLOAD_BYTES - len(json.dumps({"version": 1, "type": "stdin", "payload": {"data_b64": ""}}))
    start = b'{"version": 1, "type": "stdin", "payload": {"data_b64": "'
    exact = start + b"A" * room + b'"}}'
    assert len(exact) == MAX_PAYLOAD_BYTES
    assert read_all(AS_RUNNER, framed(exact)) == [version_1_messages.Stdin("A" * room)]
    reader = FrameReader(AS_RUNNER)
    reader.feed(struct.pack("<I", MAX_PAYLOAD_BYTES + 1))  # refused before the rest of it comes
    with pytest.raises(ProtocolError, match="frame too large: 8388609"):
        reader.next()


def test_nothing_too_large_is_written() -> None:
    with pytest.raises(ProtocolError, match="frame too large: "):
        encode(version_1_messages.Stdin("A" * MAX_PAYLOAD_BYTES))
    with pytest.raises(ProtocolError, match="frame too large: "):
        encode(Data(1, "stdin", bytes(MAX_PAYLOAD_BYTES)))


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"", "it is no JSON"),
        (b"{", "it is no JSON"),
        (b'{"version": 1, "type": "\xff", "payload": {}}', "it is no JSON"),
        (b"[" * 100_000, "Expected `object`, got `array`"),
        (b'{"version": 1, "type": "terminate", "payload": ' + b"[" * 100_000, "it is "),
        (b'{"type": "terminate", "payload": {}}', "`version`"),
        (b'{"version": 256, "type": "terminate", "payload": {}}', "$.version"),
        (b'{"version": -1, "type": "terminate", "payload": {}}', "$.version"),
        (b'{"version": 1, "payload": {}}', "`type`"),
        (b'{"version": 1, "type": "terminate"}', "`payload`"),
        (b'{"version": 1, "type": "dance", "payload": {}}', "its type is not known"),
        (b'{"version": 1, "type": "close_stdin", "payload": {"id": 1}}', "its type is not known"),
        (b'{"version": 1, "type": "exit", "payload": {"exit_code": "hunter2", "timed_out": true}}', "$.exit_code"),
        (b'{"version": 1, "type": "output", "payload": {"data_b64": "", "stream": "hunter2"}}', "cannot have"),
        (b'{"version": 3, "type": "hello", "payload": {}}', "unsupported protocol version 3"),
        (b"\2\0\1\0\0\0", "it is no JSON"),  # as long as the version is not known
    ],
)
def test_what_is_no_frame_is_refused_without_being_shown(payload: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_all(AS_RUNNER, framed(payload))
    assert complaint in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (b"\2\0\1\0\0\0", "no bytes"),
        (b"\2", "no bytes"),
        (b"\2\4\1\0\0\0x", "stream"),
        (b"\3\0\1\0\0\0x", "no JSON"),
        (b'{"version": 1, "type": "terminate", "payload": {}}', "a frame of version 1 on a channel of version 2"),
        (b'{"version": 2, "type": "resize", "payload": {"id": 4294967296, "rows": 1, "cols": 1}}', "$.id"),
    ],
)
def test_version_2_is_strict(payload: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_all(AS_RUNNER, encode(version_2_messages.Hello()), framed(payload))
    assert complaint in str(caught.value)


def test_the_founding_version_looks_at_that_of_the_first_frame_alone() -> None:
    later = framed(b'{"version": 9, "type": "terminate", "payload": {"more": 1}, "more": 2}')
    assert read_all(AS_RUNNER, encode(REQUEST), later) == [REQUEST, version_1_messages.Terminate()]


def test_a_request_of_the_founding_version_may_leave_out_what_has_a_default() -> None:
    payload = msgspec.to_builtins(REQUEST)
    del payload["timeout_ms"], payload["stdin_open"]
    payload |= {"cap_sids": ["S-1-1-0"], "codex_home": "/h", "real_codex_home": "/h"}
    written = framed(json.dumps({"version": 1, "type": "spawn_request", "payload": payload}).encode())
    assert read_all(AS_RUNNER, written) == [REQUEST]


@given(
    st.binary(max_size=200), st.sampled_from([b"", encode(version_2_messages.Hello()), encode(REQUEST)]), st.booleans()
)
def test_any_bytes_are_frames_or_an_error_of_ours(data: bytes, first: bytes, has_length: bool) -> None:
    with suppress(ProtocolError):
        read_all(AS_RUNNER, first, framed(data) if has_length else data)


def test_a_header_is_what_stands_in_front_of_the_bytes() -> None:
    data = b"x" * 1000
    header = frames.data_header(7, "stderr", len(data))
    assert len(header) == frames._DATA_FRAME.size
    assert header + data == encode(Data(7, "stderr", data))


def test_the_page_has_every_message_with_its_members() -> None:
    page = (Path(__file__).parent.parent / "docs" / "runner.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|(?: [^|]+ \|)?? ((?:`\w+`(?:, )?)*) ?\|", page, re.M)
    told = [(name, re.findall(r"`(\w+)`", members)) for name, members in rows]
    tables = (version_2_messages.TO_RUNNER, version_2_messages.FROM_RUNNER, version_1_messages.MESSAGES)
    has = [(name, list(kind.__struct_fields__)) for table in tables for name, kind in table.items()]

    def in_order(rows: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
        return sorted((name, sorted(members)) for name, members in rows)

    assert in_order(told) == in_order(has)
