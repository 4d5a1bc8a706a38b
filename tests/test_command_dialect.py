"""`exec-server.v0`, complete, on every transport; and both dialects over one set of sessions."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.conftest import with_packed
from tests.peers import ENV, Peer, b64

transport = with_packed()


def params(argv: list[str], **change: Any) -> dict[str, Any]:
    return {"argv": argv, "cwd": "/tmp", "env": ENV, "tty": False, "arg0": None, **change}


async def test_a_command_from_start_to_exit(peer: Peer) -> None:
    assert await peer.call("command/exec", params(["sh", "-c", "echo out; echo err >&2; exit 3"])) == {
        "sessionId": "session-1"
    }
    await peer.until_told("session-1", "exited")
    told = peer.told("session-1")
    assert told[-1] == ("exited", {"sessionId": "session-1", "exitCode": 3})
    assert {name for name, _ in told[:-1]} == {"outputDelta"}
    assert peer.output("session-1", "stdout") == b"out\n"
    assert peer.output("session-1", "stderr") == b"err\n"
    assert await peer.call("command/exec", params(["true"])) == {"sessionId": "session-2"}
    assert await peer.call("command/exec/terminate", {"sessionId": "missing"}) == {"running": False}


async def test_a_terminal_is_stdout_and_takes_input(peer: Peer) -> None:
    await peer.call("command/exec", params(["sh", "-c", "echo ready; read line; echo got $line"], tty=True))
    await peer.until_output("session-1", b"ready")
    written = await peer.call("command/exec/write", {"sessionId": "session-1", "chunk": b64(b"word\n")})
    assert written == {"accepted": True}
    await peer.until_told("session-1", "exited")
    assert b"got word\r\n" in peer.output("session-1", "stdout")
    assert peer.output("session-1", "stderr", "pty") == b""


async def test_stdin_of_a_pipe_is_closed(peer: Peer) -> None:
    await peer.call("command/exec", params(["sleep", "1000"]))
    code, message, _ = await peer.refused("command/exec/write", {"sessionId": "session-1", "chunk": b64(b"x")})
    assert (code, message) == (-32600, "stdin is closed for session session-1")
    code, message, _ = await peer.refused("command/exec/write", {"sessionId": "missing", "chunk": b64(b"x")})
    assert (code, message) == (-32600, "unknown session id missing")
    assert await peer.call("command/exec/terminate", {"sessionId": "session-1"}) == {"running": True}
    assert (await peer.until_told("session-1", "exited"))["exitCode"] == 137
    assert await peer.call("command/exec/terminate", {"sessionId": "session-1"}) == {"running": False}


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"argv": []}, -32602, "argv must not be empty"),
        ({"argv": "ls"}, -32602, "argv"),
        ({"cwd": "relative"}, -32602, "cwd"),
        ({"cwd": "/does/not/exist"}, -32603, "cannot start in `/does/not/exist`"),
        ({"argv": ["/does/not/exist"]}, -32603, "cannot run `/does/not/exist`"),
        ({"argv": ["a\0b"]}, -32603, "argv[0]"),
    ],
)
async def test_refusals(peer: Peer, change: dict[str, Any], code: int, text: str) -> None:
    got, message, _ = await peer.refused("command/exec", params(["true"]) | change)
    assert (got, text in message) == (code, True), message
    # A start that failed takes no number.
    assert await peer.call("command/exec", params(["true"])) == {"sessionId": "session-1"}


async def test_arg0_and_exact_environment(peer: Peer) -> None:
    await peer.call("command/exec", params(["/bin/sh", "-c", "echo $0; env"], arg0="name", env={"ONLY": "this"}))
    await peer.until_told("session-1", "exited")
    lines = set(peer.output("session-1").decode().splitlines())
    # A shell sets these three for itself.
    assert {line for line in lines if line.partition("=")[0] not in ("PWD", "SHLVL", "_", "OLDPWD")} == {
        "name",
        "ONLY=this",
    }


async def test_both_dialects_share_the_sessions(peer: Peer) -> None:
    await peer.start("session-1", ["sleep", "1000"])
    assert await peer.call("command/exec", params(["sh", "-c", "echo hi; sleep 1000"])) == {"sessionId": "session-2"}
    await peer.until_output("session-2", b"hi")
    read = await peer.call("process/read", {"processId": "session-2"})
    assert base64.b64decode(read["chunks"][0]["chunk"]) == b"hi\n"
    assert await peer.call("process/terminate", {"processId": "session-2"}) == {"running": True}
    assert (await peer.until_told("session-2", "exited"))["exitCode"] == 137
    assert await peer.call("command/exec/terminate", {"sessionId": "session-1"}) == {"running": True}
    assert (await peer.until_told("session-1", "closed"))["seq"] == 2
