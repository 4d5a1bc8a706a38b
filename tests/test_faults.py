"""A fault of ours in one session is that session's."""

from __future__ import annotations

import pytest
import trio

from execsrv._doors.principal import OWNER, owner
from execsrv._processes.command import settle
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connection import Connection
from execsrv._server.connections import open_connections
from execsrv._server.conversation import Conversation
from execsrv._server.start_options import StartOptions
from execsrv._wire.memory import open_memory_pair
from execsrv.limits import ServerConfig
from tests.peers import ENV, PATIENCE, open_peer
from tests.processes import marked, new_mark, until_gone, until_marked


def start_doomed(connection: Connection, mark: str) -> None:
    """Start a command whose session has nothing left to wait for its output with."""
    sessions = connection.sessions
    command = settle(["bash", "-c", f"exec -a {mark} sleep 1000"], "/", ENV)
    starting = sessions.start("doomed", lambda note: command, lambda session, entry: None, StartOptions())

    starting.then(lambda: starting.session()._pump.close())


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
