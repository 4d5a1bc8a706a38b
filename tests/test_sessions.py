"""What one can do to a running process, and the truth about how it ended, on every transport."""

from __future__ import annotations

import base64
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv.limits import ServerConfig
from execsrv.protocol import Response
from tests.conftest import OpenServer, Server, with_packed
from tests.peers import ENV, PATIENCE, Peer, b64
from tests.processes import marked, new_mark, until_gone, until_in_front, until_marked

transport = with_packed()

DEAF = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; print('ready', flush=True)"
DEAF_ARGV = [sys.executable, "-I", "-S", "-c", f"{DEAF}; time.sleep(1000)"]
POLITE = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
INTERACTIVE = {"tty": True, "env": {**ENV, "PS1": "$ ", "TERM": "dumb", "HISTFILE": "/dev/null"}}
BASH = ["bash", "--norc", "--noprofile", "-i"]


async def ended(peer: Peer, id: str) -> tuple[int, str | None, str]:
    exited = await peer.until_told(id, "exited")
    return exited["exitCode"], exited["signal"], exited["reason"]


async def send(peer: Peer, id: str, signal: str | int, target: str) -> int:
    answer = await peer.call("process/signal", {"processId": id, "signal": signal, "target": target})
    received: int = answer["received"]
    return received


async def typed(peer: Peer, id: str, keys: bytes) -> None:
    params = {"processId": id, "chunk": b64(keys), "writeId": str(len(peer.heard))}
    assert await peer.call("process/write", params) == {"status": "accepted"}


# -- signals --


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "sigterm", 15, "interrupt", "USR1", "SIGRTMIN+3", 9])
async def test_signals_by_name_and_number(peer: Peer, name: str | int) -> None:
    await peer.start("a", ["sleep", "1000"])
    assert await send(peer, "a", name, "leader") == 1
    code, signal_name, reason = await ended(peer, "a")
    known = {"interrupt": "SIGINT", "USR1": "SIGUSR1", "SIGRTMIN+3": "SIGRTMIN+3", 9: "SIGKILL"}
    assert (signal_name, reason) == (known.get(name, "SIGTERM"), "signaled")
    assert code > 128
    await peer.until_told("a", "closed")
    assert await send(peer, "a", "TERM", "tree") == 0


@pytest.mark.parametrize("wanted", ["NONSENSE", "", "SIG", 0, -1, 999, 2**40, "Interrupt ", True, None, 1.5])
async def test_unknown_signals_are_told_what_is_allowed(peer: Peer, wanted: Any) -> None:
    await peer.start("a", ["sleep", "1000"])
    code, _, data = await peer.refused("process/signal", {"processId": "a", "signal": wanted})
    assert (code, data["kind"]) == (-32602, "invalid-params")
    if isinstance(wanted, str | int) and wanted is not True:
        assert {"SIGTERM", "SIGKILL", "SIGRTMIN+3"} <= set(data["allowed"])
    assert (await peer.refused("process/signal", {"processId": "a", "signal": "TERM", "target": "all"}))[0] == -32602
    assert (await peer.refused("process/signal", {"processId": "zz", "signal": "TERM"}))[2]["kind"] == "unknown-process"
    _, _, data = await peer.refused("process/signal", {"processId": "a", "signal": "TERM", "target": "foreground"})
    assert data == {"kind": "invalid-params", "field": "target"}


async def test_targets_and_their_counts(peer: Peer) -> None:
    """A leader, a child in its group, and one in a group of its own."""
    mark = new_mark()
    child = f"(exec -a {mark} sleep 1000)"
    script = f"trap : USR1; {child} & set -m; {child} & set +m; echo ready; while :; do wait; done"
    await peer.start("a", ["bash", "-c", script])
    await peer.until_output("a", b"ready")
    await until_marked(mark, 2)
    assert await send(peer, "a", "USR1", "leader") == 1
    assert len(marked(mark)) == 2
    assert await send(peer, "a", "CONT", "group") == 2
    assert await send(peer, "a", "CONT", "tree") == 3
    assert await send(peer, "a", "KILL", "tree") == 3
    assert await ended(peer, "a") == (137, "SIGKILL", "signaled")
    await until_gone(mark)


async def test_job_control_in_an_interactive_shell(peer: Peer) -> None:
    mark = new_mark()
    await peer.start("a", BASH, **INTERACTIVE)
    await peer.until_output("a", b"$ ")
    await typed(peer, "a", f"(exec -a {mark} sleep 1000)\n".encode())
    await until_in_front(mark)
    # The job in front, not the shell: it is in a group of its own.
    assert await send(peer, "a", "STOP", "foreground") == 1
    await peer.until_output("a", b"Stopped")
    await typed(peer, "a", b"fg\n")
    await until_in_front(mark)
    await typed(peer, "a", b"\x1a")  # Ctrl-Z
    await peer.until(lambda: peer.output("a").count(b"Stopped") == 2)
    await typed(peer, "a", b"bg; fg\n")
    await until_in_front(mark)
    assert await send(peer, "a", "TERM", "group") == 1  # the shell alone, which is deaf to it
    assert len(marked(mark)) == 1
    await typed(peer, "a", b"\x03")
    await until_gone(mark)
    await typed(peer, "a", b"echo st$((1))ll\n")
    await peer.until_output("a", b"st1ll")
    await typed(peer, "a", b"\x04")  # Ctrl-D
    assert (await ended(peer, "a"))[2] == "exited"


# -- ending --


@pytest.mark.parametrize("tty", [False, True])
async def test_graceful_is_heard(peer: Peer, tty: bool) -> None:
    await peer.start("a", ["sh", "-c", POLITE], tty=tty)
    await peer.until_output("a", b"ready")
    params = {"processId": "a", "mode": {"graceful": {"timeoutMs": 60_000}}}
    assert await peer.call("process/terminate", params) == {"running": True}
    assert await ended(peer, "a") == (3, None, "terminated")
    await peer.until_told("a", "closed")
    assert b"bye" in peer.output("a")


@pytest.mark.parametrize("mode", ["force", {"graceful": {"timeoutMs": 0}}, {"graceful": {"timeoutMs": 50}}])
async def test_whoever_is_deaf_is_killed(peer: Peer, mode: Any) -> None:
    await peer.start("a", DEAF_ARGV)
    await peer.until_output("a", b"ready")
    assert await peer.call("process/terminate", {"processId": "a", "mode": mode}) == {"running": True}
    assert await ended(peer, "a") == (137, "SIGKILL", "terminated")
    assert (await peer.refused("process/terminate", {"processId": "a", "mode": "gently"}))[0] == -32602


async def test_the_shortest_grace_counts(peer: Peer) -> None:
    await peer.start("a", DEAF_ARGV)
    await peer.until_output("a", b"ready")
    for milliseconds in (2**53, 60_000, 50, 2**53):
        await peer.call("process/terminate", {"processId": "a", "mode": {"graceful": {"timeoutMs": milliseconds}}})
    assert await ended(peer, "a") == (137, "SIGKILL", "terminated")


@pytest.mark.parametrize("mode", ["force", {"graceful": {"timeoutMs": 50}}, {"graceful": {"timeoutMs": 60_000}}])
async def test_what_a_leader_left_behind_is_ended(peer: Peer, mode: Any) -> None:
    mark = new_mark()
    trap = "trap '' TERM; " if mode != {"graceful": {"timeoutMs": 60_000}} else ""
    await peer.start("a", ["bash", "-c", f"({trap}exec -a {mark} sleep 1000) & exit 5"])
    assert await ended(peer, "a") == (5, None, "exited")
    await until_marked(mark, 1)
    assert await peer.call("process/terminate", {"processId": "a", "mode": mode}) == {"running": False}
    await until_gone(mark)
    assert (await peer.until_told("a", "closed"))["remaining"] == []


async def test_a_stopped_process_can_be_asked_to_end(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", POLITE])
    await peer.until_output("a", b"ready")
    await send(peer, "a", "STOP", "tree")
    params = {"processId": "a", "mode": {"graceful": {"timeoutMs": 60_000}}}
    assert await peer.call("process/terminate", params) == {"running": True}
    assert await ended(peer, "a") == (3, None, "terminated")


async def test_a_jobs_group_ends_with_its_shell(peer: Peer) -> None:
    """A job has a group of its own, and loses its parent to the same signal."""
    mark = new_mark()
    job = f"(trap '' HUP TERM; exec -a {mark} sleep 1000)"
    for number in range(5):
        id = f"p{number}"
        await peer.start(id, ["bash", "-c", f"set -m; {job} & {job} & echo ready; wait"])
        await peer.until_output(id, b"ready")
        await until_marked(mark, 2)
        await peer.call("process/terminate", {"processId": id})
        await until_gone(mark)


# -- deadlines --


LONGER_AND_LONGER = (300, 3000, 30_000)
"""Milliseconds in which a command is to come to a point; where a busy machine was not so fast, the next."""


@pytest.mark.parametrize("tty", [False, True])
async def test_a_timeout_ends_it_with_all_its_output(peer: Peer, tty: bool, tmp_path: Path) -> None:
    has_said = tmp_path / "said"
    for milliseconds in LONGER_AND_LONGER:
        id = str(milliseconds)
        await peer.start(id, ["sh", "-c", f"echo said; : >{has_said}; sleep 1000"], timeoutMs=milliseconds, tty=tty)
        assert await ended(peer, id) == (143, "SIGTERM", "timeout")
        await peer.until_told(id, "closed")
        if has_said.exists():
            break
    assert peer.output(id).split() == [b"said"]
    await peer.start("b", ["sh", "-c", "exit 4"], timeoutMs=60_000)
    assert await ended(peer, "b") == (4, None, "exited")
    for field in ("timeoutMs", "idleTimeoutMs"):
        for value in (0, -1, 2**54, 1.5, "1"):
            params = peer.start_params("c", ["true"], **{field: value})
            code, message, _ = await peer.refused("process/start", params)
            assert (code, field in message) == (-32602, True)


async def test_a_timeout_does_not_wait_for_a_reader(peer: Peer) -> None:
    await peer.start("a", ["yes"], timeoutMs=2000, windowBytes=1)
    assert await ended(peer, "a") == (143, "SIGTERM", "timeout")


async def test_a_timeout_ends_what_the_leader_left(peer: Peer) -> None:
    mark = new_mark()
    script = f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 & exit 5"
    for milliseconds in LONGER_AND_LONGER:
        id = str(milliseconds)
        await peer.start(id, ["bash", "-c", script], timeoutMs=milliseconds)
        end = await ended(peer, id)
        if end != (143, "SIGTERM", "timeout"):
            break
    assert end == (5, None, "exited")
    await until_gone(mark)


@pytest.mark.few
async def test_idle_means_neither_printing_nor_being_given(peer: Peer) -> None:
    for milliseconds in LONGER_AND_LONGER:
        id, began, longest_pause, count = str(milliseconds), trio.current_time(), 0.0, 0
        await peer.start(id, ["cat"], pipeStdin=True, idleTimeoutMs=milliseconds)
        given = began
        while given - began < 2 * milliseconds / 1000 and longest_pause < milliseconds / 2000:
            params = {"processId": id, "chunk": b64(b"x"), "writeId": str(count)}
            written = await peer.call("process/write", params)
            longest_pause = max(longest_pause, trio.current_time() - given)
            given = trio.current_time()
            if longest_pause < milliseconds / 2000:
                assert written == {"status": "accepted"}
                count += 1
                await peer.until(lambda id=id, count=count: len(peer.output(id)) == count)  # type: ignore[misc]
        assert await ended(peer, id) == (143, "SIGTERM", "idle")
        await peer.until_told(id, "closed")
        if longest_pause < milliseconds / 2000:
            break
    assert longest_pause < milliseconds / 2000, "the machine is too busy for this test"
    # What was given last had arrived before its answer was heard.
    assert trio.current_time() - began > 3 * milliseconds / 1000 - longest_pause
    assert peer.output(id) == b"x" * count


@pytest.mark.few
async def test_a_slow_reader_makes_nobody_idle(peer: Peer) -> None:
    await peer.start("a", ["yes"], windowBytes=1, idleTimeoutMs=1000, pipeStdin=True)
    await peer.until_told("a", "output")
    await typed(peer, "a", b"given while it waits for its reader")
    waited = await peer.call("process/wait", {"processId": "a", "timeoutMs": 1500})
    assert waited["running"]
    await send(peer, "a", "STOP", "group")
    # Now it is silent itself, when its reader has read what there was.
    with trio.fail_after(PATIENCE):
        while "exited" not in [name for name, _ in peer.told("a")]:
            seq = peer.told("a")[-1][1]["seq"]
            await peer.call("process/ack", {"processId": "a", "seq": seq})
            await trio.lowlevel.checkpoint()
    assert await ended(peer, "a") == (143, "SIGTERM", "idle")


# -- waiting and looking --


async def test_wait_tells_the_end_or_that_it_runs(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "read go; kill -9 $$"], pipeStdin=True)
    waiting = [await peer.post("process/wait", {"processId": "a"}) for _ in range(3)]
    running = {"running": True, "exitCode": None, "signal": None, "reason": None}
    for milliseconds in (0, 20):
        assert await peer.call("process/wait", {"processId": "a", "timeoutMs": milliseconds}) == running
    assert await peer.run("other", ["echo", "hi"]) == (0, b"hi\n", b"")
    await typed(peer, "a", b"go\n")
    end = {"running": False, "exitCode": 137, "signal": "SIGKILL", "reason": "signaled"}
    for id in waiting:
        answer = await peer.answer(id)
        assert isinstance(answer, Response)
        assert answer.result == end
    assert await peer.call("process/wait", {"processId": "a"}) == end
    assert (await peer.refused("process/wait", {"processId": "zz"}))[2]["kind"] == "unknown-process"


def ends_of(snapshot: dict[str, Any], stream: str) -> tuple[bytes, bytes]:
    return base64.b64decode(snapshot[stream]["head"]), base64.b64decode(snapshot[stream]["tail"])


@pytest.mark.few(16)
@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2500, 60_000, 300_000])
async def test_snapshots_are_exact(open_server: OpenServer, transport: str, tty: bool, size: int) -> None:
    peer = await open_server(transport, ServerConfig(retained_output_bytes_per_session=40_000)).peer()
    whole = b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]
    script = f"{'stty raw -echo; ' if tty else ''}seq -f %07.0f 0 99999 | head -c {size}; echo; read go; exit 2"
    await peer.start("a", ["sh", "-c", script], tty=tty, pipeStdin=True)
    name = "terminal" if tty else "stdout"
    whole += b"\n"
    await peer.until(lambda: len(peer.output("a")) == len(whole))
    for running in (True, False):
        if not running:
            await typed(peer, "a", b"\n")
            await peer.until_told("a", "closed")
        snapshot = await peer.call("process/snapshot", {"processId": "a"})
        head, tail = ends_of(snapshot, name)
        omitted = snapshot[name]["omittedBytes"]
        assert snapshot[name]["totalBytes"] == len(whole) == len(head) + omitted + len(tail)
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert (omitted > 0) == (len(whole) > 40_000 // (4 if tty else 8))
        assert (snapshot["running"], snapshot["closed"]) == (running, not running)
        assert (snapshot["exitCode"], snapshot["reason"]) == ((None, None) if running else (2, "exited"))
        assert snapshot["totals"] == ({"pty": len(whole)} if tty else {"stdout": len(whole), "stderr": 0})
    closed = await peer.until_told("a", "closed")
    assert closed["totals"] == snapshot["totals"]
    assert (await peer.refused("process/snapshot", {"processId": "zz"}))[2]["kind"] == "unknown-process"


async def test_list_names_them_oldest_first(peer: Peer) -> None:
    assert await peer.call("process/list", {}) == {"processes": []}
    await peer.run("b", ["sh", "-c", "exit 3"])
    mark = new_mark()
    await peer.start("a", ["sleep", "1000"], tty=True, arg0=mark)
    await until_marked(mark, 1)
    processes = (await peer.call("process/list"))["processes"]
    names = ("processId", "pid", "program", "tty", "running", "exitCode", "closed")
    listed = [{name: process[name] for name in names} for process in processes]
    assert [process["argv"] for process in processes] == [["sh", "-c", "exit 3"], ["sleep", "1000"]]
    assert [process["state"] for process in processes] == ["closed", "running"]
    assert [listed[1].pop("pid")] == marked(mark)
    assert listed[0].pop("pid") > 0
    ended = {"processId": "b", "program": "sh", "tty": False, "running": False, "exitCode": 3, "closed": True}
    runs = {"processId": "a", "program": "sleep", "tty": True, "running": True, "exitCode": None, "closed": False}
    assert listed == [ended, runs]


async def test_what_lives_on_is_told_at_the_close(peer: Peer) -> None:
    await peer.start("a", ["bash", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"])
    closed = await peer.until_told("a", "closed")
    (member,) = closed["remaining"]
    assert member["pid"] == int(peer.output("a"))
    assert member["name"] in ("sleep", "bash")  # as far as it has come


# -- output that is dropped --


def dropped(peer: Peer, id: str) -> dict[str, int]:
    """Bytes left out, by stream; the numbers of everything told must have no hole."""
    omitted: dict[str, int] = {}
    expected = 1
    for _, params in peer.told(id):
        assert params.get("fromSeq", params["seq"]) == expected
        expected = params["seq"] + 1
        for stream, size in params.get("omitted", {}).items():
            omitted[stream] = omitted.get(stream, 0) + size
    return omitted


@pytest.mark.few(5)
@pytest.mark.parametrize("window", [1, 50_000, None])
async def test_drops_are_told_exactly(peer: Peer, window: int | None) -> None:
    """Nobody waits for the reader, which never has more than its window, and what it misses it can count."""
    size = 8_000_000
    script = f"head -c {size} /dev/zero & head -c {size} /dev/zero >&2; wait"
    await peer.start("a", ["sh", "-c", script], windowBytes=window, overflow="drop")
    totals = (await peer.until_told("a", "closed"))["totals"]
    assert totals == {"stdout": size, "stderr": size}
    omitted = dropped(peer, "a")
    for stream in ("stdout", "stderr"):
        assert len(peer.output("a", stream)) + omitted.get(stream, 0) == totals[stream]
    assert [name for name, _ in peer.told("a")][-3:] == ["output", "exited", "closed"]  # the newest is never left out
    if window is not None:
        assert len(peer.output("a")) <= 2 * (window + 65_536)
        names = [name for name, _ in peer.told("a")]
        assert names.count("gap") <= names.count("output") + 2  # each has something behind it


async def test_the_newest_comes_when_the_reader_is_back(peer: Peer) -> None:
    script = "head -c 5000000 /dev/zero; sleep 0.1; echo newest; read go"
    await peer.start("a", ["sh", "-c", script], windowBytes=1000, overflow="drop", pipeStdin=True)

    with trio.fail_after(PATIENCE):
        while (await peer.call("process/snapshot", {"processId": "a"}))["totals"]["stdout"] < 5_000_007:
            await trio.lowlevel.checkpoint()
    assert b"newest" not in peer.output("a")
    await peer.call("process/ack", {"processId": "a", "seq": peer.told("a")[-1][1]["seq"]})
    await peer.until_output("a", b"newest\n")
    assert len(peer.output("a")) + sum(dropped(peer, "a").values()) == 5_000_007


async def test_a_read_tells_of_what_is_forgotten(open_server: OpenServer, transport: str) -> None:
    # Of what is retained 250 kB are for reads: more than one entry, which has as many bytes as are read at once.
    peer = await open_server(transport, ServerConfig(retained_output_bytes_per_session=400_000)).peer()
    await peer.run("a", ["head", "-c", "2000000", "/dev/zero"])
    read = await peer.call("process/read", {"processId": "a"})
    kept = sum(len(base64.b64decode(chunk["chunk"])) for chunk in read["chunks"])
    gap = read["gap"]
    assert gap["fromSeq"] == 1
    assert gap["seq"] == read["chunks"][0]["seq"] - 1
    assert gap["printedBefore"]["stdout"] + kept == 2_000_000


# -- keys and the end of the input --

READS = """
import os, signal
signal.signal(signal.SIGINT, lambda *_: os.write(1, b"[interrupted]"))
os.write(1, b"[ready]")
for _ in range(3):
    got = b""
    while not got.endswith(b"\\n"):
        data = os.read(0, 100)
        got += data
        if not data:
            got += b"(end)"
            break
    os.write(1, b"<%s>" % got.replace(b"\\n", b"(line)"))
"""


@pytest.mark.few(10)
@pytest.mark.parametrize(
    ("keys", "read"),
    [
        (b"", b"<(end)>"),
        (b"half", b"<half(end)>"),
        (b"line\n", b"<line(line)><(end)>"),
        (b"line\nhalf", b"<line(line)><half(end)>"),
        (b"lost\x03", b"<(end)>"),
        (b"lost\x15", b"<(end)>"),
    ],
)
async def test_the_end_of_a_terminals_input(peer: Peer, keys: bytes, read: bytes) -> None:
    """One end-of-file, no more and no less: the program can be given more lines behind it."""
    script = f"stty -echo; exec {sys.executable} -I -S -c '{READS}'"
    await peer.start("a", ["sh", "-c", script], tty=True)
    await peer.until_output("a", b"[ready]")
    if keys:
        await typed(peer, "a", keys)
    if keys.endswith(b"\x03"):
        await peer.until_output("a", b"[interrupted]")
    assert await peer.call("process/closeStdin", {"processId": "a"}) == {}
    await peer.until_output("a", b"(end)")
    await typed(peer, "a", b"on\n")
    await peer.until_output("a", b"<on(line)>")
    assert peer.output("a").replace(b"[interrupted]", b"") == b"[ready]" + read + b"<on(line)>"


# -- direct and prepared --


async def test_prepared_commands_are_run_as_given(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XS_SECRET", "never")
    assert await peer.run("a", ["/usr/bin/env"], kind="prepared", env={"A": "1"}) == (0, b"A=1\n", b"")
    policy = {"inherit": "all", "ignoreDefaultExcludes": True, "exclude": [], "set": {}, "includeOnly": []}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"argv": ["env"]}, "argv"),
        ({"argv": ["./env"]}, "argv"),
        ({"envPolicy": policy}, "envPolicy"),
    ]
    for change, field in changes:
        params = peer.start_params("b", ["/usr/bin/env"], kind="prepared") | change
        code, _, data = await peer.refused("process/start", params)
        assert (code, data) == (-32602, {"kind": "invalid-params", "field": field})
    assert (await peer.refused("process/start", peer.start_params("b", ["true"], kind="other")))[0] == -32602


@pytest.mark.parametrize("kind", ["direct", "prepared"])
async def test_gates(open_server: OpenServer, transport: str, kind: str) -> None:
    setting = f"allow_{kind}_exec"
    off: dict[str, Any] = {setting: False}
    peer = await open_server(transport, replace(ServerConfig(), **off)).peer()
    refused = peer.start_params("a", ["/bin/true"], kind=kind)
    code, message, data = await peer.refused("process/start", refused)
    assert (code, data) == (-32600, {"kind": "not-allowed", "setting": setting})
    assert setting in message
    other = "direct" if kind == "prepared" else "prepared"
    assert await peer.run("b", ["/bin/true"], kind=other) == (0, b"", b"")
    command = {"argv": ["/bin/true"], "cwd": "/", "env": {}, "tty": False}
    if kind == "direct":
        assert (await peer.refused("command/exec", command))[2]["setting"] == setting
    else:
        assert await peer.call("command/exec", command) == {"sessionId": "session-1"}


# -- bounds --


async def test_too_many_processes(open_server: OpenServer, transport: str) -> None:
    peer = await open_server(transport, ServerConfig(max_sessions_per_connection=2)).peer()
    await peer.start("a", ["sleep", "1000"])
    await peer.start("b", ["sleep", "1000"])
    code, message, data = await peer.refused("process/start", peer.start_params("c", ["true"]))
    assert (code, data) == (-32600, {"kind": "limit-exceeded", "limit": "max_sessions_per_connection", "value": 2})
    assert message == "max_sessions_per_connection (2) are running"
    await peer.call("process/terminate", {"processId": "a"})
    await peer.until_told("a", "closed")
    with trio.fail_after(PATIENCE):
        # It is over when its leader is reaped, right behind the close.
        while not isinstance(
            await peer.answer(await peer.post("process/start", peer.start_params("c", ["true"]))), Response
        ):
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("transport", ["unix", "websocket"])
async def test_too_many_connections(open_server: OpenServer, transport: str) -> None:
    server = open_server(transport, ServerConfig(max_connections=2))
    await server.peer()
    async with server.open_peer() as second:
        await second.handshake()
        third = await server.peer(ready=False)
        code, message, data = await third.refused("initialize", {"clientName": "x"})
        assert (code, data) == (-32600, {"kind": "limit-exceeded", "limit": "max_connections", "value": 2})
        assert message == "max_connections (2) are open"
    with trio.fail_after(PATIENCE):
        while not isinstance(await third.answer(await third.post("initialize", {"clientName": "x"})), Response):
            await trio.lowlevel.checkpoint()


async def test_the_client_has_it_all(server: Server) -> None:
    client = await server.client()
    async with client.start(DEAF_ARGV, timeout=60, idle_timeout=60) as process:
        await process.next_event()
        assert [listed.process_id for listed in await client.processes()] == [process.id]
        assert await process.send_signal("TERM", "tree") == 1
        snapshot = await process.snapshot()
        assert snapshot.stdout is not None
        assert (snapshot.running, snapshot.stdout.head) == (True, b"ready\n")
        assert await process.terminate(grace=0.05)
        assert (await process.wait()).reason == "terminated"
    async with client.start(["/bin/sleep", "1000"], idle_timeout=0.1, prepared=True) as process:
        assert (await process.wait()).reason == "idle"
    async with client.start(["sleep", "1000"], timeout=2) as process:
        assert (await process.communicate()).reason == "timeout"
        assert process.exit_code == 128 + signal.SIGTERM


@contextmanager
def no_descriptor_to_spare() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # with 0 not even poll(2) works
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("script", "grace", "code"), [("trap 'exit 7' TERM", 60_000, 7), ("trap '' TERM", 100, 137)], ids=["heard", "deaf"]
)
async def test_asked_to_end_without_a_descriptor_to_spare(
    open_server: OpenServer, script: str, grace: int, code: int
) -> None:
    """The grace counts from when it was asked for; the asking is made up for as soon as it can be."""
    peer = await open_server("memory", ServerConfig()).peer()
    await peer.start("a", ["sh", "-c", f"{script}; echo ready; while :; do sleep 0.01; done"])
    await peer.until_output("a", b"ready\n")
    with no_descriptor_to_spare():
        mode = {"graceful": {"timeoutMs": grace}}
        assert await peer.call("process/terminate", {"processId": "a", "mode": mode}) == {"running": True}
    exited = await peer.until_told("a", "exited")
    assert (exited["exitCode"], exited["reason"]) == (code, "terminated")
