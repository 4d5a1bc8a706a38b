"""What is kept of sessions and connections that have ended, and how one looks at those that have not."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from execsrv import _memory
from execsrv._budget.allowance import Allowances
from execsrv._doors.principal import OWNER, owner
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connection import Connection
from execsrv._server.connections import Connections, open_connections
from execsrv._server.conversation import Conversation
from execsrv._server.session import Session
from execsrv._wire.memory import MemoryChannel, open_memory_pair
from execsrv.limits import KIB, MIB, ServerConfig
from execsrv.protocol import Message, Notification, Request, Response
from tests.peers import ENV, PATIENCE, plain


@pytest.fixture
def no_cycle_collector() -> Iterator[None]:
    """It counts objects, and not how large they are: nobody may depend on it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@asynccontextmanager
async def talking(connections: Connections) -> AsyncIterator[tuple[MemoryChannel, Callable[[Message], Any], str]]:
    """A channel to a conversation, how to send a message and hear what comes, and the connection's id."""
    ours, theirs = open_memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Conversation(theirs, connections, owner).run)
        await ours.send(Request(1, "initialize", {"clientName": "x"}))
        greeting = await ours.receive()
        assert isinstance(greeting, Response)
        await ours.send(Notification("initialized"))
        yield ours, ours.send, plain(greeting.result)["sessionId"]
        await ours.aclose()


async def until_told(channel: MemoryChannel, what: str) -> Any:
    with trio.fail_after(PATIENCE):
        while not isinstance(message := await channel.receive(), Notification) or message.method != what:
            assert message is not None
    return plain(message.params)


async def until_gone(*references: weakref.ref[Any]) -> None:
    with trio.fail_after(PATIENCE):
        while any(reference() is not None for reference in references):
            await trio.lowlevel.checkpoint()


def references_to(connections: Connections, id: str) -> tuple[weakref.ref[Connection], list[weakref.ref[Session]]]:
    connection = connections.find(id, OWNER)
    return weakref.ref(connection), [weakref.ref(session) for session in connection.sessions]


def start(id: str, script: str, **params: Any) -> Request:
    params = {"argv": ["sh", "-c", script], "cwd": "/", "env": ENV, "tty": False, "processId": id, **params}
    return Request(id, "process/start", params)


@pytest.mark.usefixtures("no_cycle_collector")
async def test_an_ended_session_is_freed_when_its_time_is_over() -> None:
    """Nobody calls anything, and the cycle collector does not run."""
    async with (
        open_connections(Supervisor(), ServerConfig(exited_retention=0.05)) as connections,
        talking(connections) as (channel, send, id),
    ):
        await send(start("a", "cat; echo done", tty=False, pipeStdin=True, timeoutMs=60_000, idleTimeoutMs=60_000))
        await channel.receive()
        connection, sessions = references_to(connections, id)
        assert len(sessions) == 1
        await send(Request(2, "process/closeStdin", {"processId": "a"}))
        await until_told(channel, "process/closed")
        await until_gone(*sessions)
        assert connection() is not None


@pytest.mark.parametrize("ends", ["by itself", "with its connection"])
@pytest.mark.usefixtures("no_cycle_collector")
async def test_an_ended_connection_is_freed_with_all_that_it_held(ends: str) -> None:
    async def once(connections: Connections) -> list[weakref.ref[Any]]:
        async with talking(connections) as (channel, send, id):
            wait = "" if ends == "by itself" else "exec sleep 1000"
            for number in range(10):
                await send(start(f"p{number}", f"head -c 600000 /dev/zero; {wait}", windowBytes=4 * MIB))
            told = "process/closed" if ends == "by itself" else "process/output"
            heard: set[str] = set()
            while len(heard) < 10:
                heard.add((await until_told(channel, told))["processId"])
            connection, sessions = references_to(connections, id)
            assert len(sessions) == 10
        return [connection, *sessions]

    async with open_connections(Supervisor(), ServerConfig()) as connections:
        await until_gone(*await once(connections))
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await until_gone(*await once(connections))
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < 512 * KIB  # of 6 MB that were printed


async def test_what_a_connection_held_is_given_back_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have turns between them."""
    turns = 0
    freed_at: list[int] = []

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    monkeypatch.setattr(_memory, "_PORTION_BYTES", MIB)
    monkeypatch.setattr(_memory, "_TURN_BYTES", MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_memory.give_back)
        await trio.testing.wait_all_tasks_blocked()
        async with open_connections(Supervisor(), ServerConfig()) as connections:
            async with talking(connections) as (channel, send, id):
                for number in range(6):
                    await send(start(f"p{number}", "head -c 700000 /dev/zero", windowBytes=4 * MIB))
                for _ in range(6):
                    await until_told(channel, "process/closed")
                logs = [session.log for session in connections.find(id, OWNER).sessions]
                assert [log.kept_bytes for log in logs] == [700_000] * 6
                kept = [weakref.ref(log, lambda _: freed_at.append(turns)) for log in logs]
                del logs
            nursery.start_soon(take_turns)
            with trio.fail_after(PATIENCE):
                while len(freed_at) < 6:  # noqa: ASYNC110
                    await trio.sleep(0.01)
        assert len(set(freed_at)) == 3, freed_at  # two make a portion
        assert not any(log() for log in kept)
        nursery.cancel_scope.cancel()


def test_a_connection_can_be_looked_at_before_it_runs_and_outside_of_trio() -> None:
    connection = Connection(Supervisor(), ServerConfig(), trio.Event(), OWNER, Allowances(ServerConfig()).of("owner"))
    assert repr(connection) == "<Connection new sessions=0>"


async def test_looking_at_a_connection_changes_nothing() -> None:
    async with (
        open_connections(Supervisor(), ServerConfig(exited_retention=1000, resume_grace=0)) as connections,
        talking(connections) as (channel, send, id),
    ):
        await send(start("a", "true"))
        await until_told(channel, "process/closed")
        connection = connections.find(id, OWNER)
        assert repr(connection) == repr(connection) == "<Connection attached sessions=1>"
        assert len(connection.sessions) == 1
    assert repr(connection) == "<Connection ended sessions=1>"
