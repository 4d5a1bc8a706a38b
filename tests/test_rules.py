"""The pure rules: who may say what when, paths, the log of a session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execsrv._handshake import Handshake
from execsrv._output import ENTRY_BYTES, Closed, Exited, HeadTail, OutputLog
from execsrv._paths import path_from_wire, uri_from_path
from execsrv.errors import InvalidParams, NotReady, ProtocolError, RequestError, SpawnError
from execsrv.protocol import METHODS, Chunk, ErrorObject, Failure, Message, Notification, Request, Response

EXEC = METHODS["process/start"]
INITIALIZE = METHODS["initialize"]
INITIALIZED = Notification("initialized")


def test_handshake_goes_through_its_states() -> None:
    handshake = Handshake()
    with pytest.raises(NotReady, match=r"^client must call initialize before using exec methods$"):
        handshake.check_request(EXEC)
    handshake.check_request(INITIALIZE)
    handshake.check_request(INITIALIZE)  # the first one failed, so it may be tried again
    handshake.greeted()
    with pytest.raises(NotReady, match=r"^initialize may only be sent once per connection$"):
        handshake.check_request(INITIALIZE)
    with pytest.raises(NotReady, match=r"^client must send initialized before using exec methods$"):
        handshake.check_request(EXEC)
    handshake.check_other(INITIALIZED)
    handshake.check_request(EXEC)
    handshake.check_other(INITIALIZED)
    handshake.check_request(EXEC)
    with pytest.raises(NotReady, match="only be sent once"):
        handshake.check_request(INITIALIZE)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (Notification("other"), "unexpected notification `other`"),
        (Notification("process/start"), "unexpected notification `process/start`"),
        (Response(1, {}), "unexpected answer to a request 1"),
        (Failure(None, ErrorObject(1, "")), "unexpected answer to a request None"),
        (Request(1, "initialize"), "is not a notification"),
    ],
)
@pytest.mark.parametrize("ready", [False, True])
def test_what_no_client_may_say(message: Message, complaint: str, ready: bool) -> None:
    handshake = Handshake()
    if ready:
        handshake.greeted()
    with pytest.raises(ProtocolError, match=complaint):
        handshake.check_other(message)


def test_initialized_before_initialize() -> None:
    with pytest.raises(ProtocolError, match="initialized before initialize"):
        Handshake().check_other(INITIALIZED)


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ("/tmp/a b", "/tmp/a b"),
        ("/", "/"),
        ("file:///tmp/a%20b%C3%A9", "/tmp/a bé"),
        ("file://localhost/tmp/", "/tmp"),
        ("FILE:///tmp", "/tmp"),
        ("file:w", "/w"),
        ("file:///a/./b/../c", "/a/c"),
        ("file:///a%2Fb", "/a/b"),
        ("file:///a%FF", "/a\udcff"),
        ("file:///", "/"),
    ],
)
def test_paths_on_the_wire(wire: str, path: str) -> None:
    assert path_from_wire(wire, "cwd") == path


@pytest.mark.parametrize(
    ("wire", "complaint"),
    [
        ("", "relative URL without a base"),
        ("tmp", "relative URL without a base"),
        ("~", "relative URL without a base"),
        ("http://h/x", "unsupported path URI scheme `http`"),
        (r"C:\x", "unsupported path URI scheme `c`"),
        ("file:///a?x=1", "query parameters are not allowed"),
        ("file:///a#x", "fragments are not allowed"),
        ("file://host/tmp", "not a path of this machine"),
        ("file:///C:/x", "not a path of this machine"),
        ("file:///a%00b", "not a path of this machine"),
        ("/a\0b", "NUL"),
        ("file:///a\nb", "control characters"),
        ("file://[/x", "invalid URI"),
    ],
)
def test_what_is_no_path(wire: str, complaint: str) -> None:
    with pytest.raises(InvalidParams, match=complaint) as caught:
        path_from_wire(wire, "cwd")
    assert caught.value.message.startswith("cwd: ")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_uris_lead_back_to_their_path(name: str) -> None:
    path = path_from_wire("/" + name, "path")
    if "//" not in path and not path.endswith("/") and not {".", ".."} & set(path.split("/")) and path[2:3] != ":":
        assert path_from_wire(uri_from_path(path), "path") == path


def test_errors_come_back_from_the_wire_as_they_went() -> None:
    error = SpawnError("no", stage="cwd", errno=2)
    back = RequestError.from_wire(*error.to_wire())
    assert isinstance(back, SpawnError)
    assert (back.message, back.stage, back.errno, back.kind, back.code) == ("no", "cwd", 2, "spawn-failed", -32603)
    foreign = RequestError.from_wire(-1, "odd", None)
    assert type(foreign) is RequestError
    assert (foreign.code, foreign.kind, foreign.message) == (-1, "refused", "odd")


# -- the log --


def test_log_numbers_everything_in_one_order() -> None:
    log = OutputLog(1000, 1000)
    log.append("stdout", b"a")
    log.append("stderr", b"b")
    log.append_exited(3, None, "exited")
    log.append("stdout", b"c")
    log.append_closed()
    taken = [log.take() for _ in range(5)]
    assert taken == [
        Chunk(1, "stdout", b"a"),
        Chunk(2, "stderr", b"b"),
        Exited(3, 3, None, "exited"),
        Chunk(4, "stdout", b"c"),
        Closed(5),
    ]
    assert not log.has_news
    with pytest.raises(LookupError):
        log.take()
    with pytest.raises(ValueError, match="expected entry 6"):
        log.add(Chunk(8, "stdout", b""))


def test_log_pages() -> None:
    log = OutputLog(10_000, 10_000)
    for letter in b"abc":
        log.append("stdout", bytes([letter]) * 10)
    log.append_exited(0, None, "exited")
    assert [chunk.seq for chunk in log.read(0, None)[0]] == [1, 2, 3]
    assert log.read(0, None)[1] == 5
    assert ([c.seq for c in log.read(0, 20)[0]], log.read(0, 20)[1]) == ([1, 2], 3)
    assert ([c.seq for c in log.read(2, 0)[0]], log.read(2, 0)[1]) == ([3], 5)
    assert log.read(99, None) == ([], 5)


Action = st.one_of(
    st.binary(max_size=40).map(lambda data: ("append", data)),
    st.just(("take", b"")),
    st.just(("acknowledge", b"")),
)


@given(st.booleans(), st.integers(0, 2000), st.integers(1, 2000), st.lists(Action, max_size=60))
def test_log_gives_its_reader_everything_and_keeps_its_bounds(
    acknowledged: bool, retained: int, window: int, actions: list[tuple[str, bytes]]
) -> None:
    log = OutputLog(retained, window, acknowledged)
    written, heard = b"", b""
    for what, data in actions:
        if what == "append" and log.has_room:
            log.append("stdout", data)
            written += data
        elif what == "take" and log.has_news:
            entry = log.take()
            assert isinstance(entry, Chunk)
            heard += entry.chunk
        elif what == "acknowledge" and acknowledged:
            log.acknowledge(log.last_taken + 3)  # more than was taken does not count
        kept = sum(len(chunk.chunk) + ENTRY_BYTES for chunk in log.read(0, None)[0])
        assert kept <= max(retained, window + 40 + ENTRY_BYTES) + 40 + ENTRY_BYTES
        assert written.endswith(b"".join(chunk.chunk for chunk in log.read(0, None)[0]))
    while log.has_news:
        entry = log.take()
        assert isinstance(entry, Chunk)
        heard += entry.chunk
    assert heard == written
    log.acknowledge(log.last_taken)
    assert log.has_room


@given(st.integers(0, 50), st.lists(st.binary(max_size=20)))
def test_head_and_tail_and_what_is_between(bound: int, pieces: list[bytes]) -> None:
    kept = HeadTail(bound)
    for piece in pieces:
        kept.append(piece)
    whole = b"".join(pieces)
    assert kept.total_bytes == len(whole)
    assert len(bytes(kept)) + kept.omitted_bytes == len(whole)
    if len(whole) <= bound:
        assert bytes(kept) == whole
    else:
        assert bytes(kept) == whole[: bound // 2] + whole[len(whole) - (bound - bound // 2) :]
