"""`process/*` as its peers see it, on every transport."""

from __future__ import annotations

import base64
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv.limits import ServerConfig
from execsrv.protocol import Response
from tests.conftest import Server, with_packed
from tests.peers import ENV, PATIENCE, Peer, b64

transport = with_packed()

PYTHON = sys.executable
# A shell may lose an interrupt between two commands; this says that it is ready when it can be interrupted.
READY = [PYTHON, "-c", "import os, signal; signal.signal(2, signal.SIG_DFL); os.write(1, b'ready\\n'); signal.pause()"]


async def test_initialize_tells_of_the_machine(server: Server) -> None:
    peer = await server.peer(ready=False)
    greeting = await peer.handshake()
    assert greeting["protocolVersion"] == "exec-server.v0"
    assert len(greeting["sessionId"]) == 36
    info = greeting["environmentInfo"]
    assert info["shell"]["path"].endswith(info["shell"]["name"])
    assert info["cwd"] == Path.cwd().as_uri()
    assert info["platformOs"] == ("linux" if sys.platform == "linux" else "macos")


async def test_order_of_the_handshake(server: Server) -> None:
    peer = await server.peer(ready=False)
    start = peer.start_params("a", ["true"])
    assert await peer.refused("process/start", start) == (
        -32600,
        "client must call initialize before using exec methods",
        {"kind": "not-ready"},
    )
    code, message, _ = await peer.refused("initialize", {"clientName": "x", "resumeSessionId": "gone"})
    assert (code, message) == (-32600, "unknown session id gone")
    await peer.call("initialize", {"clientName": "x"})
    _, message, _ = await peer.refused("process/start", start)
    assert message == "client must send initialized before using exec methods"
    code, message, _ = await peer.refused("initialize", {"clientName": "x"})
    assert (code, message) == (-32600, "initialize may only be sent once per connection")
    # Unknown methods and bad parameters are told whatever the state.
    assert (await peer.refused("process/fly"))[:2] == (-32601, "unknown method `process/fly`")
    assert (await peer.refused("process/start", {}))[0] == -32602


@pytest.mark.usefixtures("starter")
async def test_a_command_from_start_to_close(peer: Peer) -> None:
    result = await peer.start("p1", ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert result == {"processId": "p1", "sandboxType": "none", "pid": result["pid"]}
    assert result["pid"] == (await peer.call("process/list"))["processes"][0]["pid"]
    await peer.until_told("p1", "closed")
    told = peer.told("p1")
    assert [params["seq"] for _, params in told] == [1, 2, 3, 4]
    assert {name for name, _ in told[:2]} == {"output"}
    assert peer.output("p1", "stdout") == b"out\n"
    assert peer.output("p1", "stderr") == b"err\n"
    assert told[2] == (
        "exited",
        {"processId": "p1", "seq": 3, "exitCode": 3, "sandboxDenied": False, "signal": None, "reason": "exited"},
    )
    assert told[3] == (
        "closed",
        {
            "processId": "p1",
            "seq": 4,
            "totals": {"stdout": 4, "stderr": 4},
            "remaining": [],
            "treeEmpty": None,
            "ended": [],
        },
    )
    read = await peer.call("process/read", {"processId": "p1"})
    assert [base64.b64decode(chunk["chunk"]) for chunk in read["chunks"] if chunk["stream"] == "stdout"] == [b"out\n"]
    assert {name: read[name] for name in read if name != "chunks"} == {
        "nextSeq": 5,
        "exited": True,
        "exitCode": 3,
        "closed": True,
        "failure": None,
        "sandboxDenied": False,
        "gap": None,
        "exit": told[2][1],
        "close": told[3][1],
    }


@pytest.mark.usefixtures("starter")
async def test_environment_is_exact_and_argv0_is_what_was_asked(peer: Peer) -> None:
    env = {"ONE": "1", "TWO": "zwei ä", "EMPTY": "", "THREE": "=C"}
    code, out, _ = await peer.run("a", [PYTHON, "-c", "import sys; print(open('/proc/self/environ').read())"], env=env)
    assert code == 0
    assert out == "ONE=1\0TWO=zwei ä\0EMPTY=\0THREE==C\0\n".encode()
    code, out, _ = await peer.run("b", ["/bin/sh", "-c", "echo $0"], arg0="borrowed")
    assert out == b"borrowed\n"


@pytest.mark.few(8)
@pytest.mark.usefixtures("starter")
@pytest.mark.parametrize("cwd", ["/tmp", "file:///tmp", "file:///usr/../tmp/"])
async def test_cwd_is_a_path_or_a_uri(peer: Peer, cwd: str) -> None:
    assert await peer.run("a", ["pwd"], cwd=cwd) == (0, b"/tmp\n", b"")


@pytest.mark.parametrize("tty", [False, True])
async def test_death_by_signal_is_128_plus_its_number(peer: Peer, tty: bool) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV, signal.SIGPIPE):
        id = number.name
        await peer.start(id, ["sh", "-c", f"kill -{number.value} $$"], tty=tty)
        exited = await peer.until_told(id, "exited")
        assert (exited["exitCode"], exited["signal"], exited["reason"]) == (128 + number, number.name, "signaled")


@pytest.mark.usefixtures("starter")
async def test_own_session_default_signals_and_nothing_inherited(peer: Peer) -> None:
    script = (
        "import os,signal,json;p=os.getpid();"
        "print(json.dumps([os.getsid(0)==p, os.getpgid(0)==p, sorted(map(int,os.listdir('/proc/self/fd'))),"
        "[int(l.split()[1],16) & ~(3<<31) for l in open('/proc/self/status') if l[:6] in ('SigBlk','SigIgn')]]))"
    )
    code, out, _ = await peer.run("a", [PYTHON, "-I", "-S", "-c", script])
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25), the C library does with 32 and 33 as it likes; descriptor 3
    # is the directory being listed.
    assert out == f"[true, true, [0, 1, 2, 3], [0, {1 << 12 | 1 << 24}]]\n".encode()
    assert code == 0


async def test_stdin_is_empty_unless_asked_for(peer: Peer) -> None:
    assert await peer.run("a", ["cat"]) == (0, b"", b"")
    written = await peer.call("process/write", {"processId": "a", "chunk": b64(b"x"), "writeId": "1"})
    assert written == {"status": "stdinClosed"}
    assert await peer.call("process/write", {"processId": "zz", "chunk": "", "writeId": "1"}) == {
        "status": "unknownProcess"
    }


async def test_writes_arrive_once_in_order_and_end(peer: Peer) -> None:
    await peer.start("a", ["cat"], pipeStdin=True)
    for id, data in [("1", b"one "), ("2", b"two "), ("2", b"again "), ("3", b""), ("4", b"three")]:
        written = await peer.call("process/write", {"processId": "a", "chunk": b64(data), "writeId": id})
        assert written == {"status": "accepted"}
    assert await peer.call("process/closeStdin", {"processId": "a"}) == {}
    await peer.until_told("a", "closed")
    assert peer.output("a") == b"one two three"
    late = {"processId": "a", "chunk": b64(b"late"), "writeId": "5"}
    assert await peer.call("process/write", late) == {"status": "stdinClosed"}
    assert await peer.call("process/closeStdin", {"processId": "a"}) == {}  # once more does no harm
    await peer.run("b", ["true"])
    assert (await peer.refused("process/closeStdin", {"processId": "b"}))[2]["kind"] == "stdin-closed"


async def test_pipelined_requests_keep_their_order(peer: Peer) -> None:
    """Start, writes and the end of the input in one go: nothing overtakes."""
    pieces = [f"{number}\n".encode() * 1000 for number in range(100)]
    await peer.post("process/start", peer.start_params("a", ["cat"], pipeStdin=True))
    for number, piece in enumerate(pieces):
        await peer.post("process/write", {"processId": "a", "chunk": b64(piece), "writeId": str(number)})
    await peer.post("process/closeStdin", {"processId": "a"})
    await peer.until_told("a", "closed")
    assert peer.output("a") == b"".join(pieces)


async def test_a_child_that_does_not_read_delays_nobody(open_server: Any, transport: str) -> None:
    server = open_server(transport, ServerConfig(queued_stdin_bytes=2_500_000))
    peer = await server.peer()
    await peer.start("deaf", ["sleep", "1000"], pipeStdin=True)
    # A pipe takes a MiB of the first at most, so there is never room for another.
    ids = [
        await peer.post("process/write", {"processId": "deaf", "chunk": b64(bytes(2_000_000)), "writeId": str(number)})
        for number in range(4)
    ]
    code, message, data = await peer.refused(
        "process/write", {"processId": "deaf", "chunk": b64(bytes(2_000_000)), "writeId": "more"}
    )
    assert (code, data) == (-32600, {"kind": "limit-exceeded", "limit": "queued_stdin_bytes", "value": 2_500_000})
    assert "queued_stdin_bytes (2500000)" in message
    assert await peer.run("other", ["echo", "hi"]) == (0, b"hi\n", b"")
    assert await peer.call("process/terminate", {"processId": "deaf"}) == {"running": True}
    await peer.until_told("deaf", "closed")
    # Nothing is left unanswered: what was not taken is told.
    answers = [await peer.answer(id) for id in ids]
    assert "stdinClosed" in {answer.result["status"] for answer in answers if hasattr(answer, "result")}


async def test_a_program_that_closes_its_stdin(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "exec <&-; echo closed; sleep 1000"], pipeStdin=True)
    await peer.until_output("a", b"closed")
    written = await peer.call("process/write", {"processId": "a", "chunk": b64(b"x"), "writeId": "1"})
    assert written == {"status": "stdinClosed"}


async def test_interrupt_reaches_the_group(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done"])
    await peer.until_output("a", b"ready")
    assert await peer.call("process/signal", {"processId": "a", "signal": "interrupt"}) in (
        {"received": 1},
        {"received": 2},
    )
    assert (await peer.until_told("a", "exited"))["exitCode"] == 7
    assert peer.output("a") == b"ready\ncaught\n"
    await peer.until_told("a", "closed")
    assert await peer.call("process/signal", {"processId": "a", "signal": "interrupt"}) == {"received": 0}
    assert await peer.call("process/signal", {"processId": "zz", "signal": "interrupt"}) == {"received": 0}


async def test_terminate_kills_the_group_and_tells_whether_it_ran(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "trap '' TERM INT; echo ready; sleep 1000 & wait"])
    await peer.until_output("a", b"ready")
    assert await peer.call("process/terminate", {"processId": "a"}) == {"running": True}
    exited = await peer.until_told("a", "exited")
    assert (exited["exitCode"], exited["signal"], exited["reason"]) == (137, "SIGKILL", "terminated")
    await peer.until_told("a", "closed")
    assert await peer.call("process/terminate", {"processId": "a"}) == {"running": False}
    assert await peer.call("process/terminate", {"processId": "zz"}) == {"running": False}


async def test_a_leader_that_ended_by_itself_was_not_terminated(peer: Peer, tmp_path: Path) -> None:
    """Its output does not fit the window, so its end is told late, but truly."""
    done = tmp_path / "done"
    lives = "grep -q '^State:.[^Z]' /proc/$$/status"
    script = f"head -c 60000 /dev/zero; (while {lives}; do sleep 0.01; done; touch {done}) 2>/dev/null & exit 6"
    await peer.start("a", ["sh", "-c", script], windowBytes=1)
    with trio.fail_after(PATIENCE):
        while not done.exists():
            await trio.lowlevel.checkpoint()
    assert await peer.call("process/terminate", {"processId": "a"}) == {"running": False}
    exited = await peer.until_told("a", "exited")
    assert (exited["exitCode"], exited["reason"]) == (6, "exited")


async def test_termination_does_not_wait_for_a_reader(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "yes"], windowBytes=1)
    await peer.until_told("a", "output")
    assert await peer.call("process/terminate", {"processId": "a"}) == {"running": True}
    await peer.until_told("a", "closed")


CONFINING: list[tuple[str, Any]] = [
    ("sandbox", {"permissions": {"type": "managed", "network": "restricted"}, "cwd": "file:///tmp"}),
    ("sandbox", {"permissions": {"type": "managed", "network": "enabled"}}),
    ("sandbox", {"permissions": {"type": "managed", "network": "some", "file_system": {"type": "unrestricted"}}}),
    (
        "sandbox",
        {
            "permissions": {"type": "managed", "network": "enabled", "file_system": {"type": "restricted"}},
            "useLegacyLandlock": True,
        },
    ),
    ("sandbox", {"permissions": {"type": "new", "network": "enabled"}}),
    ("sandbox", {"permissions": {}}),
    ("sandbox", {}),
    ("networkProxy", {"proxy": {"enabled": True, "mode": "full"}}),
    ("networkProxy", {"proxy": {"enabled": False}}),
    ("networkProxy", {}),
    ("managedNetwork", {"loopbackPorts": [80]}),
]


@pytest.mark.parametrize(("field", "wish"), CONFINING)
async def test_confinement_is_refused_and_never_left_out(peer: Peer, field: str, wish: Any) -> None:
    code, _, data = await peer.refused("process/start", peer.start_params("a", ["true"]) | {field: wish})
    assert (code, data) == (-32602, {"kind": "sandboxUnavailable", "field": field})
    assert await peer.call("process/list") == {"processes": []}


async def test_a_wish_for_confinement_of_a_shape_that_is_not_known_is_refused(peer: Peer) -> None:
    for field, wish in [("sandbox", "strict"), ("sandbox", {"permissions": 1}), ("networkProxy", True)]:
        code, message, _ = await peer.refused("process/start", peer.start_params("a", ["true"]) | {field: wish})
        assert (code, f"$.{field}" in message) == (-32602, True)
    assert await peer.call("process/list") == {"processes": []}


ASKING_FOR_NOTHING: list[dict[str, Any]] = [
    {"sandbox": None, "networkProxy": None, "managedNetwork": None},
    {"enforceManagedNetwork": True},
    {"sandbox": {"permissions": {"type": "disabled"}, "cwd": "file:///"}},
    {"sandbox": {"permissions": {"type": "external", "network": "restricted"}}},
    {
        "sandbox": {
            "permissions": {"type": "managed", "file_system": {"type": "unrestricted"}, "network": "enabled"},
            "workspaceRoots": ["file:///tmp"],
        }
    },
]


@pytest.mark.parametrize("asked", ASKING_FOR_NOTHING)
async def test_a_policy_that_asks_for_nothing_is_accepted(peer: Peer, asked: dict[str, Any]) -> None:
    assert await peer.run("a", ["true"], **asked) == (0, b"", b"")


async def test_a_background_child_delays_the_close_and_not_the_exit(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "echo leader; sleep 1000 & exit 5"])
    exited = await peer.until_told("a", "exited")
    assert exited["exitCode"] == 5
    assert peer.output("a") == b"leader\n"
    # The leader is gone, what it left behind is still ours to end.
    assert await peer.call("process/terminate", {"processId": "a"}) == {"running": False}
    await peer.until_told("a", "closed")


async def test_a_background_child_goes_on_streaming(peer: Peer, tmp_path: Path) -> None:
    go = tmp_path / "go"
    script = f"(while [ ! -e {go} ]; do sleep 0.01; done; echo child) & echo leader"
    await peer.start("a", ["sh", "-c", script])
    await peer.until_told("a", "exited")
    assert peer.output("a") == b"leader\n"
    go.touch()
    await peer.until_told("a", "closed")
    assert [name for name, _ in peer.told("a")] == ["output", "exited", "output", "closed"]
    assert peer.output("a") == b"leader\nchild\n"


async def test_read_pages_and_waits(peer: Peer, tmp_path: Path) -> None:
    go = tmp_path / "go"
    await peer.start("a", ["sh", "-c", f"echo one; while [ ! -e {go} ]; do sleep 0.01; done; echo two"])
    await peer.until_output("a", b"one")
    waiting = await peer.post("process/read", {"processId": "a", "afterSeq": 1, "waitMs": 60_000})
    nothing = await peer.call("process/read", {"processId": "a", "afterSeq": 1, "waitMs": 10})
    assert (nothing["chunks"], nothing["nextSeq"], nothing["exited"]) == ([], 2, False)
    assert await peer.run("other", ["echo", "not delayed"]) == (0, b"not delayed\n", b"")
    go.touch()
    answer = await peer.answer(waiting)
    assert base64.b64decode(answer.result["chunks"][0]["chunk"]) == b"two\n"  # type: ignore[union-attr]
    await peer.until_told("a", "closed")
    page = await peer.call("process/read", {"processId": "a", "maxBytes": 1})
    assert (len(page["chunks"]), page["nextSeq"]) == (1, 2)
    page = await peer.call("process/read", {"processId": "a", "afterSeq": 1, "maxBytes": 1})
    assert (len(page["chunks"]), page["nextSeq"]) == (1, 5)
    ended = await peer.call("process/read", {"processId": "a", "afterSeq": 99, "waitMs": 60_000})
    assert (ended["chunks"], ended["nextSeq"], ended["closed"]) == ([], 5, True)
    assert (await peer.refused("process/read", {"processId": "zz"}))[:2] == (-32600, "unknown process id zz")


async def test_an_id_is_used_once(peer: Peer) -> None:
    await peer.start("a", ["sleep", "1000"])
    code, message, data = await peer.refused("process/start", peer.start_params("a", ["true"]))
    assert (code, data["kind"]) == (-32600, "process-exists")
    assert message.startswith("process ID already exists")
    await peer.refused("process/start", peer.start_params("b", ["/does/not/exist"]))
    assert await peer.run("b", ["true"]) == (0, b"", b"")
    started = await peer.call("process/start", peer.start_params("x", ["true"]) | {"processId": None})
    assert started["processId"] == "session-1"


async def test_ended_sessions_are_forgotten_beyond_the_bound(open_server: Any, transport: str) -> None:
    server = open_server(transport, ServerConfig(retained_sessions=2))
    peer = await server.peer()
    for id in "abc":
        await peer.run(id, ["echo", id])
    # Its retention begins when the leader is reaped, right behind the close.
    with trio.fail_after(PATIENCE):
        while "chunks" in str(await peer.answer(await peer.post("process/read", {"processId": "a"}))):
            await trio.lowlevel.checkpoint()
    assert (await peer.call("process/read", {"processId": "c"}))["closed"]


SPAWN_ERRORS: list[tuple[dict[str, Any], str, int]] = [
    ({"argv": ["/does/not/exist"]}, "program", 2),
    ({"argv": ["no-such-program-anywhere"]}, "program", 2),
    ({"argv": ["./not-here"]}, "program", 2),
    ({"argv": [""]}, "program", 2),
    ({"argv": ["/etc/passwd/x"]}, "program", 20),
    ({"argv": ["/etc/passwd"]}, "permission", 13),
    ({"argv": ["/tmp"]}, "permission", 13),
    ({"argv": ["true"], "cwd": "/does/not/exist"}, "cwd", 2),
    ({"argv": ["true"], "cwd": "file:///etc/passwd"}, "cwd", 20),
    ({"argv": ["true", "x" * 200_000]}, "arguments", 7),
    ({"argv": ["true", "a\0b"]}, "arguments", 22),
    ({"argv": ["true"], "env": {"A": "\0"}}, "arguments", 22),
    ({"argv": ["true"], "arg0": "\0"}, "arguments", 22),
    ({"argv": ["true"], "env": {"PATH": "/nowhere"}}, "program", 2),
]


@pytest.mark.few(12)
@pytest.mark.usefixtures("starter")
@pytest.mark.parametrize("transport", ["unix"], indirect=True)
@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(("change", "stage", "number"), SPAWN_ERRORS)
async def test_spawn_errors_name_stage_and_errno(
    peer: Peer, change: dict[str, Any], stage: str, number: int, tty: bool
) -> None:
    code, message, data = await peer.refused("process/start", peer.start_params("a", ["true"], tty=tty) | change)
    kind = {2: "spawnNotFound", 13: "spawnPermissionDenied"}.get(number, "spawnFailed")
    assert (code, data["kind"], data["stage"], data["errno"]) == (-32603, kind, stage, number)
    assert message.startswith("cannot ")
    assert await peer.run("a", ["true"]) == (0, b"", b"")


@pytest.mark.parametrize("tty", [False, True])
async def test_a_text_without_interpreter_is_a_format_error(peer: Peer, tmp_path: Path, tty: bool) -> None:
    script = tmp_path / "script"
    script.write_text("echo hi\n")
    script.chmod(0o755)
    _, _, data = await peer.refused("process/start", peer.start_params("a", [str(script)], tty=tty))
    assert (data["stage"], data["errno"]) == ("format", 8)
    script.write_text("#!/no/such/interpreter\n")
    _, message, data = await peer.refused("process/start", peer.start_params("a", [str(script)], tty=tty))
    assert (data["stage"], data["errno"]) == ("program", 2)
    assert "interpreter is missing" in message


async def test_a_name_found_only_without_the_right_to_run_it(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("")
    env = {"PATH": f"/nowhere:{tmp_path}"}
    _, _, data = await peer.refused("process/start", peer.start_params("a", ["tool"], env=env))
    assert (data["stage"], data["errno"]) == ("permission", 13)


async def test_names_are_found_in_the_path_of_the_command(peer: Peer, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "tool").write_text("#!/bin/sh\necho mine\n")
    (folder / "tool").chmod(0o755)
    assert await peer.run("a", ["tool"], env={"PATH": str(folder)}) == (0, b"mine\n", b"")
    assert await peer.run("b", ["tool"], env={"PATH": "bin"}, cwd=str(tmp_path)) == (0, b"mine\n", b"")
    assert await peer.run("c", ["bin/tool"], env={}, cwd=str(tmp_path)) == (0, b"mine\n", b"")
    assert await peer.run("d", ["true"], env={}) == (0, b"", b"")


BAD_PARAMS: list[tuple[dict[str, Any], str]] = [
    ({"argv": []}, "argv must not be empty"),
    ({"argv": "ls"}, "argv"),
    ({"argv": ["ls", 1]}, "argv"),
    ({"argv": None}, "argv"),
    ({"cwd": "relative"}, "cwd: invalid URI: relative URL without a base"),
    ({"cwd": "http://h/"}, "cwd: unsupported path URI scheme"),
    ({"cwd": 7}, "cwd"),
    ({"env": {"A": 1}}, "env"),
    ({"env": []}, "env"),
    ({"tty": "yes"}, "tty"),
    ({"size": {"rows": 0, "cols": 80}, "tty": True}, "size.rows"),
    ({"processId": 5}, "processId"),
    ({"envPolicy": {"inherit": "some"}}, "envPolicy"),
    ({"windowBytes": 0}, "windowBytes"),
]


@pytest.mark.few(20)
@pytest.mark.parametrize(("change", "named"), BAD_PARAMS)
async def test_bad_params_are_named(peer: Peer, change: dict[str, Any], named: str) -> None:
    code, message, data = await peer.refused("process/start", peer.start_params("a", ["true"]) | change)
    assert (code, data["kind"]) == (-32602, "invalid-params")
    assert named in message
    assert await peer.run("a", ["true"]) == (0, b"", b"")


@pytest.mark.parametrize("missing", ["argv", "cwd", "env", "tty"])
async def test_missing_fields_are_named(peer: Peer, missing: str) -> None:
    params = peer.start_params("a", ["true"])
    del params[missing]
    code, message, _ = await peer.refused("process/start", params)
    assert (code, f"`{missing}`" in message) == (-32602, True)


async def test_write_params(peer: Peer) -> None:
    await peer.start("a", ["cat"], pipeStdin=True)
    for params, named in [
        ({"processId": "a", "chunk": "!", "writeId": "1"}, "chunk"),
        ({"processId": "a", "chunk": "", "writeId": ""}, "writeId must not be empty"),
        ({"processId": "a", "chunk": ""}, "writeId"),
        ({"processId": "a", "writeId": "1"}, "chunk"),
    ]:
        code, message, _ = await peer.refused("process/write", params)
        assert (code, named in message) == (-32602, True), message


POLICY = {"inherit": "all", "ignoreDefaultExcludes": True, "exclude": [], "set": {}, "includeOnly": []}


@pytest.mark.parametrize(
    ("policy", "env", "expected"),
    [
        ({"inherit": "none"}, {"A": "1"}, {"A": "1"}),
        ({"inherit": "none", "set": {"B": "2"}}, {"A": "1"}, {"A": "1", "B": "2"}),
        ({"inherit": "core", "exclude": ["h*", "L*", "USER", "SHELL", "TMPDIR", "Te*", "tmp"]}, {}, {"PATH": "kept"}),
        ({"inherit": "none", "set": {"B": "2", "C": "3"}, "includeOnly": ["b"]}, {}, {"B": "2"}),
        ({"includeOnly": ["XS_*"]}, {}, {"XS_KEY": "k", "XS_PLAIN": "p"}),
        ({"includeOnly": ["XS_*"], "ignoreDefaultExcludes": False}, {}, {"XS_PLAIN": "p"}),
        ({"includeOnly": ["XS_*"]}, {"XS_KEY": "mine"}, {"XS_KEY": "mine", "XS_PLAIN": "p"}),
    ],
)
async def test_env_policy(
    peer: Peer,
    monkeypatch: pytest.MonkeyPatch,
    policy: dict[str, Any],
    env: dict[str, str],
    expected: dict[str, str],
) -> None:
    monkeypatch.setenv("XS_KEY", "k")
    monkeypatch.setenv("XS_PLAIN", "p")
    monkeypatch.setenv("PATH", "kept")
    _, out, _ = await peer.run("a", ["/usr/bin/env", "-0"], env=env, envPolicy=POLICY | policy)
    assert dict(line.split("=", 1) for line in out.decode().split("\0") if line) == expected


# -- terminals --


@pytest.mark.usefixtures("starter")
async def test_a_terminal_is_a_terminal(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all"], tty=True)
    await peer.until_told("a", "closed")
    name, size, everything = peer.output("a", "pty").decode().split("\r\n")[:3]
    assert name.startswith("/dev/")
    assert (size, everything) == ("24 80", "all")


async def test_size_from_the_first_instant_and_later(peer: Peer) -> None:
    script = "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    await peer.start("a", ["sh", "-c", script], tty=True, size={"rows": 50, "cols": 132})
    await peer.until_output("a", b"ready")
    assert await peer.call("process/resize", {"processId": "a", "rows": 10, "cols": 20}) == {}
    await peer.until_told("a", "closed")
    assert peer.output("a") == b"50 132\r\nready\r\n10 20\r\n"
    for params in ({"rows": 0, "cols": 1}, {"rows": 1, "cols": 65536}, {"rows": 1}):
        assert (await peer.refused("process/resize", {"processId": "a", **params}))[0] == -32602
    assert await peer.call("process/resize", {"processId": "a", "rows": 9, "cols": 9}) == {}
    assert (await peer.refused("process/resize", {"processId": "zz", "rows": 9, "cols": 9}))[2]["kind"] == (
        "unknown-process"
    )
    await peer.run("pipes", ["true"])
    assert (await peer.refused("process/resize", {"processId": "pipes", "rows": 9, "cols": 9}))[0] == -32602


@pytest.mark.few(4)
@pytest.mark.usefixtures("starter")
async def test_keys_do_what_they_do_in_a_terminal(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "echo ready; cat; echo $?"], tty=True)
    await peer.until_output("a", b"ready")
    await peer.call("process/write", {"processId": "a", "chunk": b64(b"typed\n"), "writeId": "1"})
    await peer.until_output("a", b"typed\r\ntyped\r\n")
    await peer.call("process/closeStdin", {"processId": "a"})  # Ctrl-D
    exited = await peer.until_told("a", "exited")
    assert exited["exitCode"] == 0
    await peer.start("b", READY, tty=True)
    await peer.until_output("b", b"ready")
    await peer.call("process/write", {"processId": "b", "chunk": b64(b"\x03"), "writeId": "1"})
    assert (await peer.until_told("b", "exited"))["exitCode"] == 130


async def test_a_terminal_hangs_up_with_its_leader(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "sleep 1000 & echo started"], tty=True)
    await peer.until_told("a", "closed")
    assert peer.output("a") == b"started\r\n"


@pytest.mark.few
@pytest.mark.parametrize("tty", [False, True])
async def test_output_is_complete_however_fast_the_program_exits(peer: Peer, tty: bool) -> None:
    for round in range(60):
        size = (round * 7919) % 150_000
        id = f"p{round}"
        await peer.start(id, ["sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x"], tty=tty)
        await peer.until_told(id, "closed")
        assert len(peer.output(id)) == size
        names = [name for name, _ in peer.told(id)]
        assert names[-2:] == ["exited", "closed"]
        assert [params["seq"] for _, params in peer.told(id)] == list(range(1, len(names) + 1))


async def test_binary_output_is_untouched(peer: Peer) -> None:
    everything = bytes(range(256)) * 4
    script = f"import sys; sys.stdout.buffer.write({everything!r})"
    assert await peer.run("a", [PYTHON, "-c", script]) == (0, everything, b"")


@pytest.mark.few(2)
async def test_many_at_once(peer: Peer) -> None:
    for number in range(50):
        params = peer.start_params(f"p{number}", ["sh", "-c", f"echo {number}; exit {number}"])
        await peer.post("process/start", params)
    for number in range(50):
        await peer.until_told(f"p{number}", "closed")
        assert (await peer.until_told(f"p{number}", "exited"))["exitCode"] == number
        assert peer.output(f"p{number}") == f"{number}\n".encode()


async def test_connections_do_not_share(server: Server) -> None:
    one, two = await server.peer(), await server.peer()
    await one.start("a", ["sleep", "1000"])
    assert await two.call("process/terminate", {"processId": "a"}) == {"running": False}
    assert await two.run("a", ["echo", "mine"], env=ENV) == (0, b"mine\n", b"")
    assert await one.call("process/terminate", {"processId": "a"}) == {"running": True}


async def test_too_many_requests_are_told_so(open_server: Any, transport: str) -> None:
    server = open_server(transport, ServerConfig(requests_in_flight=3))
    peer = await server.peer()
    await peer.start("a", ["sleep", "1000"])
    waiting = [await peer.post("process/read", {"processId": "a", "waitMs": 60_000}) for _ in range(3)]
    code, message, data = await peer.refused("process/read", {"processId": "a"})
    assert (code, data) == (-32001, {"kind": "busy", "limit": "requests_in_flight", "value": 3})
    assert message == "requests_in_flight (3) are waiting"
    # What need not wait is done all the same, and ends what waits; then there is room again.
    assert await peer.call("process/terminate", {"processId": "a"}) == {"running": True}
    for id in waiting:
        assert isinstance(await peer.answer(id), Response)
    assert (await peer.call("process/read", {"processId": "a"}))["exitCode"] == 137


async def test_what_ended_is_told_even_when_its_id_is_forgotten(open_server: Any, transport: str) -> None:
    server = open_server(transport, ServerConfig(retained_sessions=2))
    peer = await server.peer()
    for number in range(60):
        await peer.post("process/start", peer.start_params(f"p{number}", ["echo", str(number)]))
    for number in range(60):
        await peer.until_told(f"p{number}", "closed")
        assert peer.output(f"p{number}") == f"{number}\n".encode()


async def test_a_path_that_is_no_text_is_a_clear_error(peer: Peer, tmp_path: Path) -> None:
    cwd = f"{tmp_path.as_uri()}/%FF"
    _, message, data = await peer.refused("process/start", peer.start_params("a", ["true"], cwd=cwd))
    assert (data["stage"], data["errno"]) == ("cwd", 2)
    assert f"cannot start in `{tmp_path}/\ufffd`" in message


async def test_what_an_error_quotes_is_cut(peer: Peer) -> None:
    code, message, data = await peer.refused("x" * 100_000)
    assert code == -32601
    assert len(message) == 80  # a name is quoted by its beginning
    assert len(data["method"]) == 1000


async def test_a_window_is_bounded(peer: Peer) -> None:
    params = peer.start_params("a", ["true"], windowBytes=10**12)
    code, message, data = await peer.refused("process/start", params)
    assert (code, data["kind"], data["limit"]) == (-32600, "limit-exceeded", "max_window_bytes")
    assert "max_window_bytes (16777216)" in message


@pytest.mark.parametrize("field", ["afterSeq", "waitMs", "maxBytes"])
async def test_numbers_beyond_all_use_are_refused(peer: Peer, field: str) -> None:
    await peer.run("a", ["true"])
    code, message, _ = await peer.refused("process/read", {"processId": "a", field: 2**62})
    assert (code, field in message) == (-32602, True)


LONG = "x" * 257


@pytest.mark.parametrize("transport", ["memory", "unix"], indirect=True)
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("process/start", {"processId": LONG, "argv": ["true"], "cwd": "/", "env": {}, "tty": False}),
        ("process/write", {"processId": LONG, "chunk": "", "writeId": "1"}),
        ("process/write", {"processId": "a", "chunk": "", "writeId": LONG}),
        ("process/closeStdin", {"processId": LONG}),
        ("process/read", {"processId": LONG}),
        ("process/ack", {"processId": LONG, "seq": 1}),
        ("process/resize", {"processId": LONG, "rows": 1, "cols": 1}),
        ("process/signal", {"processId": LONG, "signal": 15}),
        ("process/terminate", {"processId": LONG}),
        ("process/wait", {"processId": LONG}),
        ("process/waitFor", {"processId": LONG}),
        ("process/waitFor", {"processId": "a", "waitId": LONG}),
        ("process/snapshot", {"processId": LONG}),
        ("command/exec/write", {"sessionId": LONG, "chunk": ""}),
        ("command/exec/terminate", {"sessionId": LONG}),
        ("fs/open", {"handleId": LONG, "path": "/"}),
        ("fs/readBlock", {"handleId": LONG, "offset": 0, "len": 1}),
        ("fs/writeBlock", {"handleId": LONG, "offset": 0, "chunk": ""}),
        ("fs/close", {"handleId": LONG}),
        ("http/request", {"requestId": LONG, "method": "GET", "url": "http://127.0.0.1:9/"}),
        ("capabilityRoots/discoverV1", {"roots": [{"id": LONG, "path": "file:///"}]}),
    ],
)
async def test_a_name_that_is_too_long_is_refused(peer: Peer, method: str, params: dict[str, Any]) -> None:
    """Names are kept and repeated, so nothing would bound the memory that they take."""
    code, message, data = await peer.refused(method, params)
    assert (code, data["kind"]) == (-32602, "invalid-params")
    assert "length <= 256" in message
    assert "Id`" in message or ".id`" in message, message


async def test_a_name_may_have_256_bytes(peer: Peer) -> None:
    assert await peer.run("\u00fc" * 128, ["echo", "hi"]) == (0, b"hi\n", b"")
    assert (await peer.answer(await peer.post("process/list", {}, "x" * 256))).id == "x" * 256
