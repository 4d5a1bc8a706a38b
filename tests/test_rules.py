"""The pure rules: who may say what when, paths, errors, signals."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execsrv._processes.signals import signal_name, signal_number
from execsrv._server.handshake import Handshake
from execsrv._wire.paths import path_from_wire, uri_from_path
from execsrv.errors import InvalidParamsError, NotReadyError, ProtocolError, RequestError, SpawnError
from execsrv.protocol import METHODS, ErrorObject, Failure, Message, Notification, Request, Response

EXEC = METHODS["process/start"]
INITIALIZE = METHODS["initialize"]
INITIALIZED = Notification("initialized")


def test_handshake_goes_through_its_states() -> None:
    handshake = Handshake()
    with pytest.raises(NotReadyError, match=r"^client must call initialize before using exec methods$"):
        handshake.check_request(EXEC)
    handshake.check_request(INITIALIZE)
    handshake.check_request(INITIALIZE)  # the first one failed, so it may be tried again
    handshake.greeted()
    with pytest.raises(NotReadyError, match=r"^initialize may only be sent once per connection$"):
        handshake.check_request(INITIALIZE)
    with pytest.raises(NotReadyError, match=r"^client must send initialized before using exec methods$"):
        handshake.check_request(EXEC)
    handshake.check_other(INITIALIZED)
    handshake.check_request(EXEC)
    handshake.check_other(INITIALIZED)
    handshake.check_request(EXEC)
    with pytest.raises(NotReadyError, match="only be sent once"):
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
    with pytest.raises(InvalidParamsError, match=complaint) as caught:
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
    assert (back.message, back.stage, back.errno, back.kind, back.code) == ("no", "cwd", 2, "spawnNotFound", -32603)
    kinds = {2: "spawnNotFound", 13: "spawnPermissionDenied", 20: "spawnFailed", 7: "spawnFailed", 0: "spawnFailed"}
    for number, kind in kinds.items():
        back = RequestError.from_wire(*SpawnError("no", stage="program", errno=number).to_wire())
        assert (type(back), back.kind, back.facts["errno"]) == (SpawnError, kind, number)
    foreign = RequestError.from_wire(-1, "odd", None)
    assert type(foreign) is RequestError
    assert (foreign.code, foreign.kind, foreign.message) == (-1, "refused", "odd")


# -- signals --


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigterm", 15), (15, 15), ("interrupt", 2), ("SIGRTMIN+2", signal.SIGRTMIN + 2)],
)
def test_signals_by_name_and_number(wanted: str | int, number: int) -> None:
    assert signal_number(wanted) == number


@pytest.mark.parametrize("wanted", ["", "NOPE", "SIGSIGTERM", 0, -1, 65, 32])
def test_an_unknown_signal_is_refused_with_what_is_allowed(wanted: str | int) -> None:
    with pytest.raises(InvalidParamsError, match=r"unknown signal .*SIGTERM.*, or SIGRTMIN\+N$") as refused:
        signal_number(wanted)
    assert {"SIGWINCH", "SIGRTMIN+3"} < set(refused.value.facts["allowed"])
    assert "SIGRTMIN+3" not in str(refused.value)


def test_every_signal_has_a_name() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(signal.SIGRTMIN) == "SIGRTMIN"
    assert signal_name(signal.SIGRTMAX) == "SIGRTMAX"
    assert signal_name(signal.SIGRTMIN + 1) == "SIGRTMIN+1"
    assert signal_name(99) == "SIG99"
