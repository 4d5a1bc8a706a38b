"""Whoever is made to end is asked first, whatever the reason; who does not heed it is killed when its grace is over."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import execsrv
from execsrv._processes.supervisor import Supervisor
from execsrv._server import ending
from execsrv._server.single_connection import serve_connection
from execsrv._wire.memory import open_memory_pair
from execsrv.limits import ServerConfig
from tests.conftest import OpenServer, Server
from tests.peers import PATIENCE, Peer, open_peer
from tests.processes import marked, new_mark, until_gone, until_marked

PATIENT = ServerConfig(end_grace=300, hangup_grace=300, shutdown_grace_period=300, max_grace=1000)
HASTY = ServerConfig(end_grace=0.05, hangup_grace=0.05, shutdown_grace_period=0.05)


def polite(lock: Path, then: str = "exit 3") -> list[str]:
    """A command that holds a lock and gives it back when it is asked to end. It prints before it does."""
    trap = f"trap 'echo cleaning; rm -f {lock}; {then}' TERM"
    return ["bash", "-c", f"{trap}; touch {lock}; echo ready; while :; do sleep .02; done"]


def deaf(mark: str) -> list[str]:
    """A command that hears nothing, and a child of the same kind. The mark is the child's name."""
    return ["bash", "-c", f"trap '' TERM; (exec -a {mark} sleep 1000) & echo ready; wait"]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something in the file system, which has to be asked again and again."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(("option", "reason"), [("timeoutMs", "timeout"), ("idleTimeoutMs", "idle")])
async def test_a_deadline_asks_first(
    open_server: OpenServer, tmp_path: Path, option: str, reason: str, tty: bool
) -> None:
    peer = await open_server("unix", PATIENT).peer()
    lock = tmp_path / "lock"
    code, out, _ = await peer.run("a", polite(lock), tty=tty, **{option: 1500})
    assert (code, out.split()[0], out.split()[-1]) == (3, b"ready", b"cleaning")
    assert peer.told("a")[-2][1]["reason"] == reason
    assert peer.told("a")[-1][1]["treeEmpty"] is not None
    assert not lock.exists()


@pytest.mark.parametrize(("option", "reason"), [("timeoutMs", "timeout"), ("idleTimeoutMs", "idle")])
async def test_who_does_not_heed_a_deadline_is_killed(
    open_server: OpenServer, tmp_path: Path, option: str, reason: str
) -> None:
    peer = await open_server("unix", HASTY).peer()
    mark = new_mark()
    assert (await peer.run("a", deaf(mark), **{option: 2000}))[0] == 137
    assert peer.told("a")[-2][1]["reason"] == reason
    assert not marked(mark)


async def test_a_start_may_ask_for_its_own_grace(open_server: OpenServer, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    hasty = await open_server("unix", HASTY).peer()
    slow = polite(lock, "sleep 0.3; exit 3")
    assert (await hasty.run("a", slow, timeoutMs=2000, graceMs=59_000))[0] == 3
    patient = await open_server("unix", PATIENT).peer()
    assert (await patient.run("a", polite(lock), timeoutMs=2000, graceMs=0))[:2] == (137, b"ready\n")
    assert lock.exists()
    code, message, data = await hasty.refused("process/start", hasty.start_params("b", ["true"], graceMs=60_001))
    assert (code, data) == (-32600, {"kind": "limit-exceeded", "limit": "max_grace", "value": 60.0})
    assert message == "graceMs is 60001: max_grace (60 s) would be exceeded"


@pytest.mark.parametrize("how", ["hang up", "reset"])
async def test_who_loses_its_connection_is_asked_first(open_server: OpenServer, tmp_path: Path, how: str) -> None:
    server = open_server("websocket", PATIENT)
    locks = [tmp_path / f"lock{number}" for number in range(3)]
    mark = new_mark()
    peer = await server.peer()
    for number, lock in enumerate(locks):
        await peer.start(str(number), polite(lock, f"sleep .1; touch {lock}.done; exit 3"))
        await peer.until_output(str(number), b"ready")
    await peer.start("gone", ["bash", "-c", f"(exec -a {mark} sleep 1000) </dev/null >/dev/null 2>&1 &"])
    await peer.until_told("gone", "closed")
    raw = peer.channel._connection._stream._stream.socket  # type: ignore[attr-defined]
    if how == "reset":
        raw.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        raw.close()
    else:
        await peer.channel.aclose()
    await until(lambda: all(Path(f"{lock}.done").exists() for lock in locks))
    assert not any(lock.exists() for lock in locks)
    await until_gone(mark)


async def test_a_background_child_is_asked_at_the_end_of_its_connection(server: Server, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    child = f"(trap 'rm -f {lock}; exit' TERM; touch {lock}; while :; do sleep .02; done)"
    async with server.open_peer() as peer:
        await peer.handshake()
        script = f"{child} >/dev/null 2>&1 </dev/null & while [ ! -e {lock} ]; do sleep .02; done"
        assert (await peer.run("a", ["bash", "-c", script]))[0] == 0
        assert lock.exists()
    await until(lambda: not lock.exists())


async def test_a_cancelled_connection_asks_and_throws_away_what_is_still_printed(tmp_path: Path) -> None:
    locks = [tmp_path / f"lock{number}" for number in range(3)]
    mark = new_mark()
    ours, theirs = open_memory_pair()
    async with trio.open_nursery() as nursery, open_peer(ours) as peer:
        nursery.start_soon(serve_connection, theirs, Supervisor(), ServerConfig(hangup_grace=300))
        await peer.handshake()
        for number, lock in enumerate(locks):
            flood = "head -c 3000000 /dev/zero; exit"
            await peer.start(str(number), polite(lock, flood), windowBytes=1, overflow="block")
            await peer.until_output(str(number), b"ready")
        await peer.start("deaf", deaf(mark), graceMs=50)
        await peer.until_output("deaf", b"ready")
        nursery.cancel_scope.cancel()
    assert not any(lock.exists() for lock in locks)
    assert not marked(mark)


async def test_leaving_an_embedded_server_asks_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    config = ServerConfig(hangup_grace=300)
    with trio.CancelScope() as scope:
        async with execsrv.connect_in_process(config=config) as client, client.start(polite(lock)) as process:
            async for _ in process.output:
                scope.cancel()
    assert scope.cancelled_caught
    assert not lock.exists()


async def test_a_graceful_end_without_descriptors_is_forced_in_time(tmp_path: Path) -> None:
    mark = new_mark()
    ours, theirs = open_memory_pair()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        async with trio.open_nursery() as nursery, open_peer(ours) as peer:
            nursery.start_soon(serve_connection, theirs, Supervisor(), HASTY)
            await peer.handshake()
            for id in "ab":
                await peer.start(id, deaf(mark), timeoutMs=3000 if id == "a" else None)
                await peer.until_output(id, b"ready")
            await until_marked(mark, 2)
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))  # with 0 not even poll(2) works
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            await peer.until_told("a", "exited")
            nursery.cancel_scope.cancel()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    await until_gone(mark)


# -- the end with the leader --


async def closed_of(peer: Peer, id: str, script: str, **options: Any) -> tuple[list[bytes], dict[str, Any]]:
    """Run a shell script to its close; the words it printed, and how it was closed."""
    code, out, _ = await peer.run(id, ["bash", "-c", script], endWithLeader=True, **options)
    assert code == 0
    return out.split(), peer.told(id)[-1][1]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a crowded machine, a program that goes on may be silent for longer than it takes to be thought quiet."""
    monkeypatch.setattr(ending, "QUIET_SECONDS", 1.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("tty", [False, True])
async def test_what_holds_the_streams_ends_with_the_leader(peer: Peer, tty: bool) -> None:
    mark = new_mark()
    out, closed = await closed_of(peer, "a", f"trap '' HUP; (exec -a {mark} sleep 1000) & echo started", tty=tty)
    assert out == [b"started"]
    assert [member["name"] for member in closed["ended"]] == ["sleep"]
    assert (closed["remaining"], closed["treeEmpty"] is None) == ([], False)
    assert not marked(mark)
    assert peer.told("a")[-2][1]["reason"] == "exited"


async def test_what_holds_no_stream_ends_with_the_leader_and_is_asked(peer: Peer, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    child = f"(trap 'rm -f {lock}; exit' TERM; touch {lock}; while :; do sleep .02; done)"
    wait = f"while [ ! -e {lock} ]; do sleep .02; done"
    out, closed = await closed_of(peer, "a", f"{child} >/dev/null 2>&1 </dev/null & {wait}", graceMs=50_000)
    assert (out, closed["remaining"]) == ([], [])
    assert "bash" in [member["name"] for member in closed["ended"]]
    assert not lock.exists()


@pytest.mark.usefixtures("patient")
async def test_what_is_still_printed_behind_the_leader_is_read_until_it_is_quiet(peer: Peer) -> None:
    out, closed = await closed_of(peer, "a", "(for i in 1 2 3 4 5; do sleep .01; echo $i; done; sleep 1000) & exit 0")
    assert out == [b"1", b"2", b"3", b"4", b"5"]
    assert closed["ended"]
    out, closed = await closed_of(peer, "b", "(for i in 1 2 3; do sleep .01; echo $i; done) & exit 0")
    assert out == [b"1", b"2", b"3"]
    # It may have closed its output and not be gone yet. Nothing else was there to be ended.
    assert {process["name"] for process in closed["ended"]} <= {"bash"}


async def test_who_never_gets_quiet_and_is_deaf_ends_with_the_leader(open_server: OpenServer) -> None:
    mark = new_mark()
    peer = await open_server("unix", HASTY).peer()
    script = f"(trap '' TERM; while :; do echo x; sleep .01; done) & (trap '' TERM; exec -a {mark} sleep 1000) & exit 0"
    out, closed = await closed_of(peer, "a", script)
    assert set(out) == {b"x"}
    assert len(closed["ended"]) >= 2
    assert not marked(mark)


async def test_without_being_asked_to_nothing_ends_with_the_leader(peer: Peer) -> None:
    mark = new_mark()
    assert (await peer.run("a", ["bash", "-c", f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 &"]))[0] == 0
    closed = peer.told("a")[-1][1]
    assert (closed["ended"], len(closed["remaining"])) == ([], 1)
    await until_marked(mark, 1)
