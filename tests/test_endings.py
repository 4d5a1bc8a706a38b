"""However a connection ends, what it started ends with it, and nothing else does."""

from __future__ import annotations

import gc
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import execsrv
from execsrv._budget.budget import Budget
from execsrv._doors.principal import owner
from execsrv._nursery import open_helpers
from execsrv._processes import proc
from execsrv._processes.own_streams import OwnInput
from execsrv._processes.stdin import Stdin, Write
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connections import open_connections
from execsrv._server.conversation import Conversation
from execsrv._server.session import Session
from execsrv._server.single_connection import serve_connection
from execsrv._wire.memory import open_memory_pair
from execsrv.errors import LimitExceededError
from execsrv.limits import MIB, ServerConfig
from execsrv.protocol import Notification, Response
from tests.cancelling import cancelled_after
from tests.conftest import Server
from tests.peers import PATIENCE, Peer, b64, open_peer
from tests.processes import marked, new_mark, until_gone, until_marked


async def start_family(peer: Peer, id: str, mark: str, tty: bool = False) -> None:
    """A leader with two children in its group, all deaf to polite signals. The mark is their name."""
    child = f"(exec -a {mark} sleep 1000)"
    await peer.start(id, ["bash", "-c", f"trap '' TERM INT HUP; {child} & {child} & echo ready; wait"], tty=tty)
    await peer.until_output(id, b"ready")
    await until_marked(mark, 2)


@pytest.mark.few(3)
@pytest.mark.parametrize("tty", [False, True])
async def test_hanging_up_ends_every_process_group(server: Server, tty: bool) -> None:
    mark, other = new_mark(), new_mark()
    neighbour = await server.peer()
    await start_family(neighbour, "n", other)
    async with server.open_peer() as peer:
        await peer.handshake()
        await start_family(peer, "a", mark, tty)
        await start_family(peer, "b", mark)
    await until_gone(mark)
    assert len(marked(other)) >= 2
    assert await neighbour.run("x", ["echo", "alive"]) == (0, b"alive\n", b"")


async def test_a_reset_ends_every_process_group(open_server: Any) -> None:
    server = open_server("websocket", ServerConfig())
    mark = new_mark()
    peer = await server.peer()
    await start_family(peer, "a", mark)
    raw = peer.channel._connection._stream._stream.socket
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.close()
    await until_gone(mark)


async def test_a_protocol_error_ends_every_process_group_and_says_why(server: Server) -> None:
    mark, other = new_mark(), new_mark()
    neighbour, peer = await server.peer(), await server.peer()
    await start_family(neighbour, "n", other)
    await start_family(peer, "a", mark)
    await peer.channel.send(Notification("nonsense", {}))
    await peer.until_ended()
    told = [message for message in peer.heard if getattr(message, "id", 0) is None]
    assert [(failure.error.code, failure.error.data) for failure in told] == [(-32600, {"kind": "protocol-error"})]  # type: ignore[union-attr]
    assert "unexpected notification `nonsense`" in str(told[0])
    await until_gone(mark)
    assert len(marked(other)) >= 2


@pytest.mark.parametrize("message", [Notification("initialized", {}), Response(1, {}), Notification("initialize", {})])
async def test_what_ends_a_connection_before_the_handshake(server: Server, message: Any) -> None:
    async with server.open_peer() as peer:
        await peer.channel.send(message)
        await peer.until_ended()
        assert [getattr(heard, "id", 0) for heard in peer.heard] == [None]


async def test_what_was_asked_before_the_end_is_still_answered(server: Server) -> None:
    async with server.open_peer() as peer:
        await peer.handshake()
        await peer.post("process/start", peer.start_params("a", ["true"]), id="last")
        await peer.channel.send(Notification("end", {}))
        await peer.until_ended()
        assert any(isinstance(heard, Response) and heard.id == "last" for heard in peer.heard)


@pytest.mark.few
@pytest.mark.parametrize("how", ["terminate", "hang up"])
async def test_a_shell_does_not_go_on_with_its_next_command(server: Server, tmp_path: Path, how: str) -> None:
    """It would, if it saw its child killed before it is killed itself."""
    trace = tmp_path / "trace"
    mark = new_mark()
    sleeper = f"(exec -a {mark} sleep 1000); echo went on >> {trace}"
    script = f"setsid bash -c '{sleeper}; true' & {sleeper}; echo went on >> {trace}"
    for _ in range(10):
        async with server.open_peer() as peer:
            await peer.handshake()
            await peer.start("a", ["bash", "-c", script])
            await until_marked(mark, 2)
            if how == "terminate":
                await peer.call("process/terminate", {"processId": "a"})
                await peer.until_told("a", "closed")
        await until_gone(mark)
    assert not trace.exists()


async def test_cancelling_a_connection_ends_its_processes() -> None:
    mark = new_mark()
    ours, theirs = open_memory_pair()
    async with trio.open_nursery() as nursery, open_peer(ours) as peer:
        nursery.start_soon(serve_connection, theirs, Supervisor())
        await peer.handshake()
        await start_family(peer, "a", mark)
        nursery.cancel_scope.cancel()
    assert not marked(mark)


async def test_an_embedding_program_that_is_cancelled_loses_no_process() -> None:
    mark = new_mark()
    child = f"(exec -a {mark} sleep 1000)"
    argv = ["bash", "-c", f"{child} & {child} >/dev/null 2>&1 & echo ready; wait"]
    with trio.CancelScope() as scope:
        async with execsrv.connect_in_process() as client, client.start(argv) as process:
            async for _ in process.output:
                await until_marked(mark, 2)
                scope.cancel()
    assert scope.cancelled_caught
    assert not marked(mark)


SIBLING = """
import ctypes, os, platform, sys, time
sys.stdin.readline()
call = {"x86_64": 56, "aarch64": 220}[platform.machine()]
pid = ctypes.CDLL(None).syscall(*map(ctypes.c_long, (call, 0x8000 | 17, 0, 0, 0, 0)))  # CLONE_PARENT | SIGCHLD
if pid == 0:
    if sys.argv[1] == "stays":
        time.sleep(1000)
    os._exit(0)
print(pid)
"""
"""A leader that makes a child of its parent, and so of the program that the server is in."""


@pytest.mark.parametrize("how", ["ends", "stays"])
async def test_a_child_that_a_leader_has_made_ours_leaves_no_zombie(how: str) -> None:
    argv = [sys.executable, "-c", SIBLING, how]
    with subprocess.Popen(["true"]) as other:  # noqa: ASYNC220  # of the program, which wants to know how it ends
        async with execsrv.connect_in_process() as client, client.start(argv, stdin=True) as process:
            await process.write(b"\n")  # it has its mark by now
            pid = int(await anext(process.lines()))
            assert proc.parent(pid) == os.getpid()
            while proc.living(other.pid):  # noqa: ASYNC110
                await trio.sleep(0.01)
        left = proc.children(os.getpid())
    assert pid not in left
    assert other.pid in left


async def test_a_command_whose_end_is_not_waited_for_is_killed_all_the_same() -> None:
    mark = new_mark()
    config = execsrv.ClientConfig(leave_timeout=0)
    async with execsrv.connect_in_process(client_config=config) as client:
        async with client.start(["bash", "-c", f"exec -a {mark} sleep 1000"], grace=0):
            await until_marked(mark, 1)
        await until_gone(mark)


async def test_cancelled_at_every_step_nothing_is_left() -> None:
    """Cancel a whole run at its first checkpoint, at its second, and so on: never a process, never a descriptor."""
    mark = new_mark()
    argv = ["bash", "-c", f"exec -a {mark} sleep 1000"]

    async def run(seen: list[str]) -> None:
        async with execsrv.connect_in_process() as client:
            seen.append("connected")
            async with client.start(argv, stdin=True) as process:
                seen.append("started")
                await process.write(b"x")
                await process.interrupt()
                await process.wait()
                await process.kill()
                seen.append("ended")

    gc.collect()
    before = sorted(os.listdir("/proc/self/fd"))
    steps, furthest = 1, ""
    while furthest != "ended":
        seen = [""]
        with cancelled_after(steps):
            await run(seen)
        furthest, steps = seen[-1], steps + 1
        assert not marked(mark), f"after {steps} steps"
        assert steps < 2000
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_descriptors_and_children_are_back_to_where_they_were(peer: Peer) -> None:
    others = _children()
    await peer.run("first", ["true"])
    before = len(os.listdir("/proc/self/fd"))
    for number in range(30):
        await peer.run(f"p{number}", ["true"], tty=number % 2 == 0, pipeStdin=number % 3 == 0)
        await peer.refused("process/start", peer.start_params("failed", ["/does/not/exist"], tty=number % 2 == 0))
    with trio.fail_after(PATIENCE):
        # The last close is told right before the leader is reaped.
        while len(os.listdir("/proc/self/fd")) > before or _children() - others:
            await trio.lowlevel.checkpoint()


def _children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


async def test_background_survivors_outlive_their_leader_but_not_their_connection(server: Server) -> None:
    mark = new_mark()
    async with server.open_peer() as peer:
        await peer.handshake()
        argv = ["bash", "-c", f"(exec -a {mark} sleep 1000) </dev/null >/dev/null 2>&1 &"]
        assert (await peer.run("a", argv))[0] == 0
        assert await peer.run("b", ["true"]) == (0, b"", b"")
        await until_marked(mark, 1)
        argv2 = [*argv[:2], argv[2].replace(mark, mark + "-two")]
        assert (await peer.run("c", argv2))[0] == 0
        await until_marked(mark + "-two", 1)
        assert await peer.call("process/terminate", {"processId": "c"}) == {"running": False}
        await until_gone(mark + "-two")
        assert len(marked(mark)) == 1
    await until_gone(mark)


async def test_a_group_that_empties_by_itself_is_let_go(peer: Peer) -> None:
    before, others = len(os.listdir("/proc/self/fd")), _children()
    for number in range(20):
        await peer.run(f"p{number}", ["sh", "-c", "sleep .02 & sleep .02 & sleep .02 >/dev/null 2>&1 & :"])
    with trio.fail_after(PATIENCE):
        while len(os.listdir("/proc/self/fd")) > before or _children() - others:
            await trio.lowlevel.checkpoint()


@pytest.mark.few
async def test_input_that_was_handed_over_is_not_kept(peer: Peer) -> None:
    await peer.start("a", ["sh", "-c", "cat >/dev/null"], pipeStdin=True)
    piece = b64(bytes(1_000_000))
    for number in range(60):
        written = await peer.call("process/write", {"processId": "a", "chunk": piece, "writeId": str(number)})
        assert written == {"status": "accepted"}
    gc.collect()
    held = [thing for thing in gc.get_objects() if isinstance(thing, Write)]
    assert held
    assert all(write.data.obj == b"" for write in held)


async def test_small_input_that_nobody_reads_is_bounded_too() -> None:
    """Each write costs more than its data, where it has any."""
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    budget = Budget()
    with os.fdopen(theirs, "rb"):
        input = OwnInput(ours, is_terminal=False)
        stdin = Stdin("a", input, None, is_terminal=False, max_queued_bytes=MIB, budget=budget)
        stdin.write(bytes(100_000))
        accepted = 0
        with pytest.raises(LimitExceededError, match="queued_stdin_bytes"):
            while accepted < 10_000:
                stdin.write(b"")
                accepted += 1
        assert accepted * 500 < MIB < budget.taken
        stdin.end()
        assert budget.taken == 0


async def test_an_order_to_end_in_the_very_moment_of_the_end_is_none() -> None:
    """When the last helper of a session is gone, the session itself has its turn a moment later."""
    async with open_connections(Supervisor(), ServerConfig()) as connections, open_helpers() as nursery:
        ours, theirs = open_memory_pair()
        nursery.start_soon(Conversation(theirs, connections, owner).run)
        async with open_peer(ours) as peer:
            await peer.handshake()
            await peer.start("p", ["sleep", "1000"])
            (session,) = next(iter(connections._by_id.values())).sessions
            await trio.testing.wait_all_tasks_blocked()  # its task may still have to begin
            instrument, last = TerminatesBefore(session), trio.Event()

            async def helper() -> None:
                with trio.CancelScope(shield=True):
                    await last.wait()

            session._ending.start_soon(helper)
            instrument.life.cancel_scope.deadline = -math.inf
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(instrument)
            last.set()
            await peer.until_told("p", "closed")
            trio.lowlevel.remove_instrument(instrument)
            assert instrument.told
            assert set(instrument.told) == {False}


class TerminatesBefore(trio.abc.Instrument):
    """Has a session end before each turn of its own, once it has no helpers, and remembers what came of it."""

    def __init__(self, session: Session) -> None:
        assert session._ending._nursery is not None
        self.session, self.life = session, session._ending._nursery
        self.told: list[bool | BaseException] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.life.parent_task and not self.life.child_tasks:
            try:
                self.told.append(self.session.terminate(grace=1))
            except BaseException as error:
                self.told.append(error)


async def test_errors_of_a_block_are_its_own() -> None:
    mine = ExceptionGroup("mine", [ValueError("a")])
    with pytest.raises(ExceptionGroup) as group:
        async with execsrv.connect_in_process():
            raise mine
    assert group.value is mine
    with trio.CancelScope() as scope, pytest.raises(ValueError, match="late"):
        async with execsrv.connect_in_process() as client, client.start(["sleep", "1000"]):
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("late")
