"""The role that each method needs is a column of the table of methods, and is asked for at each of them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import trio

from execsrv import ForbiddenError, ServerConfig, UnauthorizedError, UnknownConnectionError
from execsrv._doors.principal import Principal
from execsrv._nursery import open_helpers
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connections import open_connections
from execsrv._server.conversation import Conversation
from execsrv._wire.memory import MemoryChannel, open_memory_pair
from execsrv.errors import RequestError
from execsrv.protocol import METHODS, Failure, Initialize, MessageId, Notification, Request, Response
from execsrv.protocol.roles import Role
from tests.peers import PATIENCE

LOOKS = {
    "process/read", "process/ack", "process/wait", "process/waitFor", "process/snapshot", "process/list",
    "process/attach", "process/detach", "connection/list", "connection/join", "connection/leave", "server/limits",
    "environment/info",
}  # fmt: skip
SPEAKS = {
    "process/write", "process/closeStdin", "process/resize", "process/signal", "process/terminate",
    "command/exec/write", "command/exec/terminate",
}  # fmt: skip
"""Written out once more: a method that is new is the owner's, until somebody has thought about it."""


class Caller:
    """Somebody in a role, who asks and is answered."""

    def __init__(self, channel: MemoryChannel) -> None:
        self._channel = channel

    async def ask(self, method: str, params: object = None, id: MessageId = 1) -> Response | Failure:
        await self._channel.send(Request(id, method, params))
        with trio.fail_after(PATIENCE):
            while isinstance(answer := await self._channel.receive(), Notification):
                pass
        assert isinstance(answer, Response | Failure)
        return answer

    async def greet(self, **params: object) -> Response | Failure:
        greeting = await self.ask("initialize", {"clientName": "x", **params})
        await self._channel.send(Notification("initialized"))
        return greeting


@pytest.mark.parametrize("role", Role)
async def test_every_method_is_answered_to_its_role_and_those_above(role: Role) -> None:
    ours, theirs = open_memory_pair()
    allowed = set()
    async with open_connections(Supervisor()) as connections, open_helpers() as nursery:
        principal = Principal("x", role)
        nursery.start_soon(Conversation(theirs, connections, lambda token: principal).run)
        caller = Caller(ours)
        assert isinstance(await caller.greet(), Response)
        for method in METHODS:
            # Their parameters are not looked at before: what is not allowed costs nothing.
            answer = await caller.ask(method, {"processId": "none", "sessionId": "none"})
            if isinstance(answer, Response) or answer.error.data["kind"] != "forbidden":
                allowed.add(method)
            else:
                error = RequestError.from_wire(answer.error.code, answer.error.message, answer.error.data)
                assert isinstance(error, ForbiddenError)
                assert error.facts == {"role": role.word, "needed": METHODS[method].role.word}
                assert str(error) == f"`{method}` needs the role {METHODS[method].role.word}, and this is a {role.word}"
        await ours.aclose()
    health = {"initialize", "environment/status", "connection/end"}
    of_role = {Role.HEALTH: health, Role.VIEWER: health | LOOKS, Role.WRITER: health | LOOKS | SPEAKS}
    assert allowed == of_role.get(role, set(METHODS))


async def test_who_is_nobody_is_not_greeted_and_may_try_again() -> None:
    ours, theirs = open_memory_pair()

    def identify(token: str | None) -> Principal:
        if token != "right":
            raise UnauthorizedError("this takes a token")
        return Principal("x", Role.OWNER)

    async with open_connections(Supervisor()) as connections, open_helpers() as nursery:
        nursery.start_soon(Conversation(theirs, connections, identify).run)
        caller = Caller(ours)
        for params in ({}, {"token": None}, {"token": "wrong"}):
            answer = await caller.ask("initialize", {"clientName": "x", **params})
            assert isinstance(answer, Failure)
            assert (answer.error.code, answer.error.data["kind"]) == (-32600, "unauthorized")
            answer = await caller.ask("environment/status", {})
            assert isinstance(answer, Failure)
            assert answer.error.data["kind"] == "not-ready"
        assert isinstance(await caller.greet(token="right"), Response)
        assert isinstance(await caller.ask("environment/status", {}), Response)
        await ours.aclose()


async def test_nobody_resumes_the_connection_of_somebody_else() -> None:
    """Its id is a secret, but one that may have been seen."""
    async with open_connections(Supervisor(), ServerConfig(resume_grace=1000)) as connections:
        connection = await connections.open(Principal("one", Role.OWNER))
        assert connections.find(connection.id, Principal("one", Role.OWNER)) is connection
        with pytest.raises(UnknownConnectionError) as refused:
            connections.find(connection.id, Principal("another", Role.OWNER))
        with pytest.raises(UnknownConnectionError) as unknown:
            connections.find("none", Principal("another", Role.OWNER))
        assert str(refused.value).replace(connection.id, "none") == str(unknown.value)


async def test_a_connection_is_taken_up_in_no_lesser_role_than_it_had() -> None:
    """One name may have several roles, and the name of a connection is no secret."""
    async with open_connections(Supervisor(), ServerConfig(max_keep=1000)) as connections, open_helpers() as nursery:

        async def greet(role: Role, **params: object) -> tuple[str | None, MemoryChannel]:
            ours, theirs = open_memory_pair()
            nursery.start_soon(Conversation(theirs, connections, lambda token: Principal("ann", role)).run)
            answer = await Caller(ours).greet(**params)
            return (None if isinstance(answer, Response) else answer.error.data["kind"]), ours

        async def hang_up(channel: MemoryChannel) -> None:
            await channel.aclose()
            with trio.fail_after(PATIENCE):
                while connections.find("build", Principal("ann", Role.OWNER)).deadline == math.inf:
                    await trio.lowlevel.checkpoint()

        refused, channel = await greet(Role.VIEWER, name="build", keep=1000)
        assert refused is None
        assert (await greet(Role.HEALTH, resumeSessionId="build"))[0] == "unknown-session"  # while it is attached, too
        for before, after in ((Role.VIEWER, Role.VIEWER), (Role.VIEWER, Role.OWNER), (Role.OWNER, Role.OWNER)):
            await hang_up(channel)
            id = connections.find("build", Principal("ann", before)).id
            for role in Role:
                if role < before:  # what an owner has started there is no viewer's, whoever has opened it
                    assert (await greet(role, resumeSessionId="build"))[0] == "unknown-session"
                    assert (await greet(role, resumeSessionId=id))[0] == "unknown-session"
            refused, channel = await greet(after, resumeSessionId="build")
            assert refused is None
        await channel.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("role", Role)
async def test_everybody_may_say_that_nobody_comes_back_and_of_another_connection_its_owner_alone(role: Role) -> None:
    config = ServerConfig(resume_grace=1000)
    async with open_connections(Supervisor(), config) as connections, open_helpers() as nursery:
        ours, theirs = open_memory_pair()
        nursery.start_soon(Conversation(theirs, connections, lambda token: Principal("ann", role)).run)
        caller = Caller(ours)
        await caller.greet()
        answer = await caller.ask("connection/end", {"connection": "another"})
        assert isinstance(answer, Failure)
        assert answer.error.data["kind"] == ("unknown-session" if role is Role.OWNER else "forbidden")
        assert isinstance(await caller.ask("connection/end"), Response)
        await ours.aclose()
        with trio.fail_after(PATIENCE):
            while len(connections):
                await trio.lowlevel.checkpoint()


def test_the_security_page_has_the_methods_of_each_role() -> None:
    page = (Path(__file__).parent.parent / "docs" / "security.md").read_text()
    for role in (Role.HEALTH, Role.VIEWER, Role.WRITER):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{role.word}` |"))
        named = set(re.findall(r"`([\w/]+)`", row)) - {role.word}
        assert named == {name for name, method in METHODS.items() if method.role is role}


def test_a_token_is_in_no_repr() -> None:
    assert "s3cret" not in repr(Initialize("x", token="s3cret"))
    assert "s3cret" not in repr(Request(1, "initialize", Initialize("x", token="s3cret")))
