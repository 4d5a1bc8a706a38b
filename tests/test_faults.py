"""A fault of ours in one session is that session's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from execsrv._doors.principal import OWNER, owner
from execsrv._processes.command import settle
from execsrv._processes.contract import Received
from execsrv._processes.supervisor import Supervisor
from execsrv._processes.tree import ProcessTree
from execsrv._server.connection import Connection
from execsrv._server.connections import open_connections
from execsrv._server.conversation import Conversation
from execsrv._server.start_options import StartOptions
from execsrv._wire.memory import open_memory_pair
from execsrv.limits import ServerConfig
from tests.peers import ENV, PATIENCE, Peer, b64, open_peer
from tests.processes import marked, new_mark, until_gone, until_marked


def start_doomed(connection: Connection, mark: str) -> None:
    """Start a command whose session has nothing left to wait for its output with."""
    sessions = connection.sessions
    command = settle(["bash", "-c", f"exec -a {mark} sleep 1000"], "/", ENV)
    starting = sessions.start("doomed", lambda note: command, lambda session, entry: None, StartOptions())

    starting.then(lambda: starting.session()._pump.close())


@asynccontextmanager
async def open_conversation() -> AsyncIterator[tuple[Peer, Connection]]:
    """A peer that has said hello, and its connection at the server."""
    async with open_connections(Supervisor(), ServerConfig()) as connections, trio.open_nursery() as nursery:
        ours, theirs = open_memory_pair()
        nursery.start_soon(Conversation(theirs, connections, owner).run)
        async with open_peer(ours) as peer:
            yield peer, connections.find((await peer.handshake())["sessionId"], OWNER)


async def test_what_was_left_out_is_not_searched_across_and_is_told_to_who_waits() -> None:
    async with open_conversation() as (peer, connection):
        await peer.start("a", ["sh", "-c", "printf abc; read go; printf z"], pipeStdin=True)
        await peer.until_output("a", b"abc")
        session = connection.sessions.find("a")
        assert session is not None
        session.log.leave_out("stdout", 1000)
        await peer.call("process/write", {"processId": "a", "chunk": b64(b"\n"), "writeId": "1"})
        await peer.until_told("a", "closed")
        happened = await peer.call("process/waitFor", {"processId": "a", "output": [b64(b"cz")]})
        assert (happened["happened"], happened["gap"]) == (
            "closed",
            {"fromSeq": 2, "seq": 2, "printedBefore": {"stdout": 1003, "stderr": 0}},
        )
        happened = await peer.call("process/waitFor", {"processId": "a", "output": [b64(b"z")]})
        assert (happened["happened"], happened["seq"]) == ("output", 3)


async def test_however_often_a_command_is_asked_to_end_one_task_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at its tree takes turns from the ends of all others."""
    monkeypatch.setattr("execsrv._processes.turns.TURN_SECONDS", 0)
    mark, asking, most, looks = new_mark(), 0, 0, 0
    ask_to_end = ProcessTree.ask_to_end

    def counted(tree: ProcessTree) -> Received:
        nonlocal looks
        looks += 1
        rest = ask_to_end(tree)
        return rest if isinstance(rest, int) else counted_rest(rest)

    async def counted_rest(rest: Coroutine[Any, Any, int]) -> int:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        try:
            return await rest
        finally:
            asking -= 1

    monkeypatch.setattr(ProcessTree, "ask_to_end", counted)
    async with open_conversation() as (peer, _):
        script = f"trap '' TERM; for n in $(seq 20); do (exec -a {mark} sleep 1000) & done; wait; wait"
        await peer.start("a", ["bash", "-c", script])
        await until_marked(mark, 20)
        order = {"processId": "a", "mode": {"graceful": {"timeoutMs": 3_600_000}}}
        for id in [await peer.post("process/terminate", order) for _ in range(200)]:
            await peer.answer(id)
        await peer.call("process/terminate", {"processId": "a"})
        await peer.until_told("a", "closed")
    assert most == 1
    assert looks < 200


@pytest.mark.parametrize("resume_grace", [0.0, 600.0])
async def test_a_session_that_fails_ends_alone(resume_grace: float, caplog: pytest.LogCaptureFixture) -> None:
    mark, healthy = new_mark(), new_mark()
    async with (
        open_connections(Supervisor(), ServerConfig(resume_grace=resume_grace)) as connections,
        trio.open_nursery() as nursery,
    ):
        ours, theirs = open_memory_pair()
        nursery.start_soon(Conversation(theirs, connections, owner).run)
        async with open_peer(ours) as peer:
            id = (await peer.handshake())["sessionId"]
            await peer.start("a", ["bash", "-c", f"exec -a {healthy} sleep 1000"])
            await until_marked(healthy, 1)
            start_doomed(connections.find(id, OWNER), mark)
            with trio.fail_after(PATIENCE):
                while "session `doomed` has failed" not in caplog.text:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            await until_gone(mark)
            assert len(marked(healthy)) == 1
            assert await peer.run("b", ["echo", "fine"]) == (0, b"fine\n", b"")
            nursery.cancel_scope.cancel()
