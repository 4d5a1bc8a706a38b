"""Connections that have a name, are kept and joined; processes that are attached to; and those who hold nobody up."""

# ruff: noqa: SIM117  # who is there, and then what is done: that reads better in two lines

from __future__ import annotations

import math
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import execsrv
from execsrv import Client, ServerConfig, connect
from execsrv._doors.principal import Principal
from execsrv._log.log import OutputLog
from execsrv._log.viewer import Viewer
from execsrv._nursery import open_helpers
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connections import Connections, open_connections
from execsrv._server.conversation import Conversation
from execsrv._wire.memory import open_memory_pair
from execsrv.errors import (
    ConnectionFailedError,
    ConnectionLostError,
    ForbiddenError,
    InvalidParamsError,
    KeyConflictError,
    LimitExceededError,
    NameTakenError,
    ProcessExistsError,
    StdinClosedError,
    UnknownConnectionError,
    UnknownProcessError,
)
from execsrv.limits import KIB, MIB, ClientConfig
from execsrv.protocol import (
    Chunk,
    ConnectionPresence,
    Failure,
    ListedConnection,
    Notification,
    ProcessStart,
    ProcessStarted,
    Request,
    Response,
)
from execsrv.protocol.roles import Role
from tests.conftest import OpenServer, Server
from tests.peers import PATIENCE, Peer, b64, open_peer
from tests.processes import marked, new_mark, until_marked
from tests.test_starts import leased, script

ASK = ["sh", "-c", "echo ready; while read line; do echo got $line; done; echo over"]
FLOOD = ["sh", "-c", "head -c 8000000 /dev/zero; echo; echo flooded; read line; echo got $line"]


@pytest.fixture(params=["unix", "websocket"])
def server(open_server: OpenServer, request: pytest.FixtureRequest) -> Server:
    """A server that listens: a kept connection is taken up over another channel."""
    return open_server(request.param, ServerConfig())


async def listed(client: Client, name: str) -> ListedConnection | None:
    return next((each for each in await client.connections() if each.name == name), None)


async def until_ended(client: Client, name: str) -> None:
    with trio.fail_after(PATIENCE):
        while await listed(client, name) is not None:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def until_alone(client: Client, name: str) -> None:
    """Wait until the server has noticed that the owner is gone."""
    with trio.fail_after(PATIENCE):
        while (found := await listed(client, name)) is None or found.attached:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def leave_running(url: str, argv: list[str], name: str = "build", keep: Any = "untilIdle", **options: Any) -> int:
    """Start a command on a kept connection, as `make`, and go. Return its pid."""
    async with connect(url, name=name, keep=keep) as client:
        async with client.start(argv, stdin=True, id="make", **options) as process:
            process.leave_running()
        assert process.pid is not None
        return process.pid


# -- kept --


async def test_a_kept_command_is_found_read_and_typed_into_by_another_client(server: Server) -> None:
    url = await server.url()
    pid = await leave_running(url, ASK)
    async with connect(url) as client:
        await until_alone(client, "build")
        async with client.join("build", "viewer") as build, build.attach("make") as process:
            assert await anext(process.lines()) == "ready"  # so it has run, and what Linux says of its memory is no 0
        (found,) = [each for each in await client.processes(all=True, usage=True) if each.connection_name == "build"]
        assert (found.process_id, found.pid, found.argv, found.state) == ("make", pid, ASK, "running")
        assert found.age_ms >= 0
        assert isinstance(found.memory_bytes, int)
        assert found.memory_bytes > 0
        assert isinstance(found.cpu_ms, int)
        async with client.join("build", "writer") as build, build.attach("make") as process:
            assert (process.pid, process.argv) == (pid, ASK)
            lines = process.lines()
            assert await anext(lines) == "ready"
            await process.write(b"this\n")
            assert await anext(lines) == "got this"
            await process.close_stdin()
            assert [line async for line in lines] == ["over"]
            assert (await process.wait()).exit_code == 0
        (found,) = await client.processes(connection="build")
        assert (found.state, found.exit_code, found.reason, found.totals["stdout"]) == ("closed", 0, "exited", 20)


async def test_one_that_is_attached_to_is_read_and_written_as_text(server: Server) -> None:
    url = await server.url()
    await leave_running(url, ["sh", "-c", "read line; printf 'got %s' \"$line\""])
    async with connect(url) as client:
        await until_alone(client, "build")
        async with client.join("build", "writer") as build, build.attach("make", encoding="latin-1") as process:
            await process.write("Käse\n")
            assert (await process.communicate()).stdout == "got Käse"
        async with client.join("build") as build:
            with pytest.raises(InvalidParamsError, match="byte order mark"):
                build.attach("make", encoding="utf-16")
            async with build.attach("make") as process:
                assert (await process.communicate()).stdout == "got Käse".encode("latin-1")
    async with connect(url, resume="build") as owner:
        with pytest.raises(InvalidParamsError, match="errors is for text"):
            owner.attach("make", text=False, errors="replace")
        async with owner.attach("make", text=True, errors="replace") as process:
            assert (await process.communicate()).stdout == "got K\ufffdse"


async def test_a_command_that_nobody_reads_waits_for_nobody_when_it_is_kept(server: Server) -> None:
    url = await server.url()
    await leave_running(url, FLOOD)
    async with connect(url) as client, client.join("build", "writer") as build, build.attach("make") as process:
        assert await process.wait_for(output=b"flooded", timeout=PATIENCE)
        await process.write(b"you\n")
        kinds = [type(event).__name__ async for event in process.events()]
        assert kinds[0] == "Gap"
        assert kinds[-2:] == ["Exited", "Closed"]
        assert process.closed is not None
        assert process.closed.totals["stdout"] == 8_000_000 + len("\nflooded\ngot you\n")


async def test_the_owner_comes_back_by_name_and_goes_on(server: Server) -> None:
    url = await server.url()
    await leave_running(url, ASK)
    async with connect(url, resume="build") as client:
        async with client.attach("make") as process:
            assert await anext(process.lines()) == "ready"
            await process.write(b"one\n")
            assert await anext(process.lines()) == "got one"
        async with client.attach("make", after="now") as process:
            await process.write(b"two\n")
            assert await anext(process.lines()) == "got two"
            await process.kill()
            assert (await process.wait()).signal == "SIGKILL"


async def test_a_connection_that_is_not_kept_ends_with_its_channel_whatever_its_name(server: Server) -> None:
    url = await server.url()
    async with connect(url) as client:
        async with connect(url, name="short") as other, other.start(["sleep", "1000"]):
            assert await listed(client, "short") is not None
        await until_ended(client, "short")


async def test_it_is_kept_for_so_long(server: Server) -> None:
    url = await server.url()
    pid = await leave_running(url, ["sleep", "1000"], keep=1)
    async with connect(url) as client:
        await until_ended(client, "build")
        assert (await client.run(["sh", "-c", f"kill -0 {pid} 2>/dev/null"])).exit_code != 0


async def test_until_idle_ends_when_nothing_can_be_read_any_more(open_server: OpenServer) -> None:
    url = await open_server("unix", ServerConfig(exited_retention=0.2)).url()
    await leave_running(url, ["sh", "-c", "read line"])
    async with connect(url) as client:
        async with client.join("build", "writer") as build, build.attach("make") as process:
            await process.close_stdin()
            await process.wait()
        await until_ended(client, "build")


async def test_what_is_kept_ends_with_the_server(open_server: OpenServer) -> None:
    server = open_server("unix", ServerConfig())
    pid = await leave_running(await server.url(), ["sleep", "1000"])
    server.shutdown.set()
    async with execsrv.connect_in_process() as client:
        with trio.fail_after(PATIENCE):
            while (await client.run(["sh", "-c", f"kill -0 {pid} 2>/dev/null"])).exit_code == 0:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_keeping_is_bounded(open_server: OpenServer) -> None:
    url = await open_server("unix", ServerConfig(max_keep=60, max_kept=1)).url()
    with pytest.raises(ConnectionFailedError, match=r"keep is 61: max_keep \(60 s\) would be exceeded") as refused:
        async with connect(url, keep=61):
            pass
    assert isinstance(refused.value.__cause__, LimitExceededError)
    async with connect(url, keep=60):
        with pytest.raises(ConnectionFailedError, match=r"max_kept \(1\) are there"):
            async with connect(url, keep="untilIdle"):
                pass


async def test_nobody_has_all_that_may_be_kept() -> None:
    """Nor any of it who may only ask whether the server is well: he has nothing to come back for."""
    keep = {"clientName": "x", "keep": 60}
    async with open_connections(Supervisor(), ServerConfig(max_kept=3)) as connections:
        for wish in (keep, {"clientName": "x", "name": "a"}):
            async with open_newcomer(connections, "probe", Role.HEALTH) as probe:
                _, message, data = await probe.refused("initialize", wish)
                assert message == "`initialize` with `name` or `keep` needs the role viewer, and this is a health"
                assert data == {"kind": "forbidden", "role": "health", "needed": "viewer"}
        async with (
            open_member(connections, "one", Role.VIEWER, keep=60),
            open_member(connections, "one", keep=60) as one,
            open_newcomer(connections, "one") as third,
        ):
            _, message, data = await third.refused("initialize", keep)
            assert message == "max_kept (2 for one principal) are there"
            assert data == {"kind": "limit-exceeded", "limit": "max_kept", "value": 2}
            async with open_member(connections, "two", keep=60):
                said = await one.call("server/limits", {"settings": ["max_kept"]})
                assert [(row["scope"], row["used"], row["most"]) for row in said["limits"]] == [
                    ("server", 3, 3),
                    ("principal", 2, 2),
                ]


async def test_nothing_is_kept_where_that_is_off(open_server: OpenServer) -> None:
    url = await open_server("unix", ServerConfig(max_keep=0)).url()
    with pytest.raises(ConnectionFailedError, match=r"keep is untilIdle: max_keep \(0 s\) would be exceeded"):
        async with connect(url, keep="untilIdle"):
            pass


async def test_who_needs_a_place_gets_none_of_what_is_kept_or_shared_and_his_own_first() -> None:
    config = ServerConfig(max_connections=6, resume_grace=600)
    async with open_connections(Supervisor(), config) as connections, AsyncExitStack() as stack:

        async def comes(who: str, **hello: Any) -> Peer:
            return await stack.enter_async_context(open_member(connections, who, **hello))

        async def leaves(peer: Peer, who: str, name: str) -> None:
            await peer.channel.aclose()
            with trio.fail_after(PATIENCE):
                while connections.find(name, Principal(who, Role.OWNER)).deadline == math.inf:
                    await trio.lowlevel.checkpoint()

        await leaves(await comes("two", name="spare"), "two", "spare")
        await leaves(await comes("one", name="kept", keep=600), "one", "kept")
        granting, joined, guest = [await comes("one", name=name) for name in ("granting", "joined", "guest")]
        await granting.call("connection/grant", {"role": "viewer"})
        await guest.call("connection/join", {"connection": "joined"})
        for peer, name in ((granting, "granting"), (joined, "joined"), (guest, "guest")):
            await leaves(peer, "one", name)
        await leaves(await comes("one", name="spare"), "one", "spare")

        one = await comes("one")
        with pytest.raises(UnknownConnectionError):
            connections.find("spare", Principal("one", Role.OWNER))
        connections.find("spare", Principal("two", Role.OWNER))
        await comes("one")
        async with open_newcomer(connections, "one") as last:
            _, message, _ = await last.refused("initialize", {"clientName": "x"})
        assert message == "max_connections (6) are open, 4 of them without a client: they wait to be resumed"
        there = {each["name"] for each in (await one.call("connection/list"))["connections"]}
        assert there == {"kept", "granting", "joined", "guest", None}


# -- names --


@pytest.mark.parametrize("name", ["", "7", "-x", "a b", "a/b", "ä", "a\n", "x" * 65, "a\0b", "\N{GRINNING FACE}"])
async def test_odd_names_are_refused_and_the_channel_goes_on(server: Server, name: str) -> None:
    peer = await server.peer(ready=False)
    code, message, data = await peer.refused("initialize", {"clientName": "x", "name": name})
    assert (code, data["kind"], data["field"]) == (-32602, "invalid-params", "name")
    assert "is not a name" in message
    assert "\n" not in message
    await peer.handshake()


async def test_a_name_is_one_connections_until_that_has_ended(server: Server) -> None:
    url = await server.url()
    async with connect(url, name="mine"):
        with pytest.raises(ConnectionFailedError, match="a connection with the name `mine` is there already") as taken:
            async with connect(url, name="mine"):
                pass
        assert isinstance(taken.value.__cause__, NameTakenError)
    async with connect(url) as client:
        await until_ended(client, "mine")
    async with connect(url, name="mine"):
        pass


async def test_the_name_is_free_of_a_connection_that_was_told_to_end(server: Server) -> None:
    """However long what runs there is given to clean up."""
    url = await server.url()
    mark = new_mark()
    pid = await leave_running(url, ["bash", "-c", f"trap '' TERM; exec -a {mark} sleep 1000"], grace=PATIENCE)
    async with connect(url) as client:
        await until_alone(client, "build")
        await until_marked(mark, 1)
        await client.end_connection("build")
        async with connect(url, name="build") as next_one:
            assert (await next_one.run(["true"])).exit_code == 0
        assert marked(mark) == [pid]
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({"keep": "forever"}, "keep must be a number"),
        ({"keep": 0}, "keep must be above 0"),
        ({"keep": float("inf")}, "keep must be a number"),
        ({"size_policy": "mine"}, "size_policy must be one of"),
        ({"name": "a", "resume": "b"}, "resume: "),
    ],
)
async def test_wishes_that_no_server_would_take(server: Server, wishes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParamsError, match=text):
        async with connect(await server.url(), **wishes):
            pass


# -- joining --


@asynccontextmanager
async def open_newcomer(connections: Connections, who: str, role: Role = Role.OWNER) -> AsyncIterator[Peer]:
    """A peer of some user, before the handshake. Leaving hangs up."""
    ours, theirs = open_memory_pair()
    async with open_helpers() as nursery:
        nursery.start_soon(Conversation(theirs, connections, lambda token: Principal(who, role)).run)
        async with open_peer(ours) as peer:
            yield peer


@asynccontextmanager
async def open_member(connections: Connections, who: str, role: Role = Role.OWNER, **hello: Any) -> AsyncIterator[Peer]:
    """The same, with the handshake done."""
    async with open_newcomer(connections, who, role) as peer:
        await peer.call("initialize", {"clientName": who, **hello})
        await peer.channel.send(Notification("initialized"))
        yield peer


async def until_put_out(peer: Peer) -> Any:
    """Wait until a peer is told that somebody had to leave; what it is told."""

    def told() -> Any:
        for message in peer.heard:
            if isinstance(message, Notification) and message.params.get("happened") == "revoked":
                return message.params
        return None

    return await peer.until(told)


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    async with open_connections(Supervisor(), ServerConfig()) as connections:
        yield connections


async def test_nobody_sees_or_joins_the_connection_of_somebody_else(connections: Connections) -> None:
    async with open_member(connections, "one", name="a") as one, open_member(connections, "two") as two:
        await one.start("p", ["sleep", "1000"])
        (own,) = (await two.call("connection/list"))["connections"]
        assert own["isOwn"]
        (mine,) = (await one.call("connection/list"))["connections"]
        assert (await two.call("process/list", {"all": True}))["processes"] == []
        for method, params in [
            ("connection/join", {}),
            ("connection/join", {"grant": "made up"}),
            ("process/list", {}),
            ("process/attach", {"processId": "p"}),
            ("connection/grant", {"role": "viewer"}),
            ("connection/revoke", {"memberId": "m1"}),
            ("connection/end", {}),
        ]:
            for ref in ("a", mine["connectionId"], "none"):
                code, message, data = await two.refused(method, {"connection": ref, **params})
                assert (code, data["kind"]) == (-32600, "unknown-session")
                assert message == f"unknown connection `{ref}`"


async def test_a_viewer_reads_and_changes_nothing_a_writer_types_and_ends_nothing_else(server: Server) -> None:
    url = await server.url()
    async with (
        connect(url, name="shared") as owner,
        owner.start(ASK, stdin=True, id="ask") as ask,
        connect(url) as guest,
    ):
        async with guest.join("shared") as shared, shared.attach("ask") as process:
            assert await anext(process.lines()) == "ready"
            for refused in (
                process.write(b"x\n"),
                process.close_stdin(),
                process.send_signal("TERM"),
                process.kill(),
                process.resize(10, 10),
            ):
                with pytest.raises(ForbiddenError, match="is attached to as viewer, and this takes the role writer"):
                    await refused
            assert (await process.snapshot()).running
            async with guest.join("shared", "writer"):  # which changes the role
                await process.write(b"x\n")
                assert await anext(process.lines()) == "got x"
        await ask.kill()


async def test_a_lesser_token_of_the_same_name_joins_in_no_higher_role(connections: Connections) -> None:
    async with (
        open_member(connections, "one", name="a") as one,
        open_member(connections, "one", Role.VIEWER) as viewer,
    ):
        await one.start("p", ["sleep", "1000"])
        code, message, data = await viewer.refused("connection/join", {"connection": "a", "role": "writer"})
        assert (code, data["kind"], data["role"], data["needed"]) == (-32600, "forbidden", "viewer", "writer")
        assert "may be joined as viewer, not as writer" in message
        await viewer.call("connection/join", {"connection": "a"})
        await viewer.call("process/attach", {"connection": "a", "processId": "p", "attachedId": "x"})
        assert (await viewer.refused("process/terminate", {"processId": "x"}))[2]["kind"] == "forbidden"


async def test_the_network_is_not_for_a_viewer_to_wait_for(connections: Connections) -> None:
    """Of one's own name or by a grant: what counts is the role of the token. All else may be waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = {"port": listener.getsockname()[1], "host": "127.0.0.1"}
        async with open_member(connections, "one") as one, open_member(connections, "one", Role.WRITER) as lesser:
            await one.start("p", ["sleep", "1000"])
            (mine,) = [each for each in (await one.call("connection/list"))["connections"] if each["isOwn"]]
            ref = {"connection": mine["connectionId"]}
            await lesser.call("connection/join", {**ref, "role": "writer"})
            await lesser.call("process/attach", {**ref, "processId": "p", "attachedId": "p"})
            wish = {"processId": "p", "port": port}
            code, _, data = await lesser.refused("process/waitFor", {**wish, "idleMs": 1, "waitId": "w"})
            assert (code, data) == (-32600, {"kind": "forbidden", "role": "writer", "needed": "owner"})
            assert (await lesser.call("process/waitFor", {"processId": "p", "idleMs": 1}))["happened"] == "idle"
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
            assert (await one.call("process/waitFor", wish))["happened"] == "port"


async def test_what_has_to_be_joined_first_and_what_cannot_be(server: Server) -> None:
    url = await server.url()
    async with (
        connect(url, name="shared") as owner,
        owner.start(ASK, stdin=True, id="ask"),
        owner.start(ASK, stdin=True, id="other"),
    ):
        peer = await server.peer()
        attach = {"connection": "shared", "processId": "ask"}
        assert (await peer.refused("process/attach", attach))[1].startswith("join connection ")
        assert (await peer.refused("connection/leave", {"connection": "shared"}))[
            1
        ] == "connection `shared` was not joined"
        await peer.call("connection/join", {"connection": "shared"})
        for _ in range(2):  # the first answer may be lost
            attached = await peer.call("process/attach", attach)
            assert attached["processId"].endswith("/ask")
        in_use = await peer.refused(
            "process/attach", {**attach, "processId": "other", "attachedId": attached["processId"]}
        )
        assert in_use[2] == {"kind": "process-exists", "processId": attached["processId"]}
        assert (await peer.refused("process/attach", {**attach, "processId": "no"}))[2]["kind"] == "unknown-process"
        too_much = await peer.refused("process/attach", {**attach, "attachedId": "w", "windowBytes": 2**40})
        assert too_much[2]["limit"] == "max_window_bytes"
        assert (await peer.refused("process/detach", {"processId": "no"}))[2]["kind"] == "unknown-process"
        await peer.start("mine", ["sleep", "1000"])
        taken = await peer.refused("process/attach", {**attach, "attachedId": "mine"})
        assert taken[2] == {"kind": "process-exists", "processId": "mine"}
        own = next(each for each in (await peer.call("connection/list"))["connections"] if each["isOwn"])
        assert "itself" in (await peer.refused("connection/join", {"connection": own["connectionId"]}))[1]


async def test_who_comes_and_goes_is_told(server: Server) -> None:
    url = await server.url()
    async with connect(url, name="shared") as owner, connect(url) as guest:
        told = owner.presence()

        async def happened() -> tuple[str, str | None]:
            with trio.fail_after(PATIENCE):
                presence: ConnectionPresence = await anext(told)
            assert presence.connection_id == owner.shared_id
            return presence.happened, presence.member.role if presence.member is not None else None

        async with guest.join("shared") as shared:
            assert await happened() == ("joined", "viewer")
            found = await listed(owner, "shared")
            assert found is not None
            assert [member.member_id for member in found.members] == [shared.member_id]
        assert await happened() == ("left", "viewer")
        async with connect(url) as passing, passing.join("shared", "writer"):
            assert await happened() == ("joined", "writer")
        assert await happened() == ("left", "writer")


async def test_two_writers_are_not_taken_for_one(server: Server) -> None:
    """Both count their writes from 1, and so does the owner."""
    url = await server.url()
    async with connect(url, name="shared") as owner, owner.start(ASK, stdin=True, id="ask") as ask:
        one, two = await server.peer(), await server.peer()
        await ask.write(b"own\n")
        for number, peer in enumerate((one, two)):
            await peer.call("connection/join", {"connection": "shared", "role": "writer"})
            await peer.call("process/attach", {"connection": "shared", "processId": "ask", "attachedId": "x"})
            for _ in range(2):  # the second is the same
                written = {"processId": "x", "chunk": b64(b"%d\n" % number), "writeId": "1"}
                assert await peer.call("process/write", written) == {"status": "accepted"}
        await ask.close_stdin()
        assert [line async for line in ask.lines()] == ["ready", "got own", "got 0", "got 1", "over"]
        assert two.output("x") == b"ready\ngot own\ngot 0\ngot 1\nover\n"


async def test_who_reads_nothing_joins_nothing_either_when_his_connection_was_ended(connections: Connections) -> None:
    ours, theirs = open_memory_pair()
    async with open_member(connections, "one", name="a") as one, open_helpers() as nursery:
        nursery.start_soon(Conversation(theirs, connections, lambda token: Principal("one", Role.OWNER)).run)
        await ours.send(Request(1, "initialize", {"clientName": "deaf"}))
        await ours.send(Notification("initialized"))
        for number in range(2, 200):
            await ours.send(Request(number, "connection/list"))
        (deaf,) = [each for each in (await one.call("connection/list"))["connections"] if not each["isOwn"]]
        await one.call("connection/end", {"connection": deaf["connectionId"]})
        await trio.testing.wait_all_tasks_blocked()
        assert len(connections) == 1
        with pytest.raises(trio.BrokenResourceError):  # his channel is closed, whatever he reads
            await ours.send(Request(0, "connection/join", {"connection": "a"}))
        await trio.testing.wait_all_tasks_blocked()
        (own,) = (await one.call("connection/list"))["connections"]
        assert own["members"] == []
        await ours.aclose()


# -- grants --


async def test_a_grant_lets_in_whom_it_names_in_its_role(connections: Connections) -> None:
    async with open_member(connections, "one", name="a") as one, open_member(connections, "two") as two:
        await one.start("p", ["sleep", "1000"])
        grant = await one.call("connection/grant", {"role": "viewer", "principal": "two"})
        assert grant["secret"] == ""
        ref = {"connection": grant["connectionId"]}
        (seen,) = [each for each in (await two.call("connection/list"))["connections"] if not each["isOwn"]]
        assert (seen["principal"], seen["role"]) == ("one", "viewer")
        assert (await two.refused("connection/join", {**ref, "role": "writer"}))[2]["kind"] == "forbidden"
        assert (await two.refused("connection/end", ref))[2]["kind"] == "forbidden"
        assert (await two.refused("connection/grant", {**ref, "role": "viewer"}))[2]["kind"] == "forbidden"
        joined = await two.call("connection/join", ref)
        await two.call("process/attach", {**ref, "processId": "p", "attachedId": "x"})
        async with open_member(connections, "three") as three:
            assert (await three.refused("connection/join", ref))[2]["kind"] == "unknown-session"
        assert await one.call("connection/revoke", {"grantId": grant["grantId"]}) == {"left": 1}
        told = await until_put_out(two)
        assert told["member"]["memberId"] == joined["memberId"]
        assert (await two.refused("process/read", {"processId": "x"}))[2]["kind"] == "unknown-process"
        assert (await two.refused("connection/join", ref))[2]["kind"] == "unknown-session"


async def test_whoever_has_the_secret_may_join_until_it_expires(connections: Connections) -> None:
    async with open_member(connections, "one", name="a") as one, open_member(connections, "two") as two:
        grant = await one.call("connection/grant", {"role": "writer", "expiresSeconds": 1})
        ref = {"connection": grant["connectionId"]}
        assert (await two.refused("connection/join", ref))[2]["kind"] == "unknown-session"
        assert (await two.refused("connection/join", {**ref, "grant": "x" + grant["secret"]}))[2][
            "kind"
        ] == "unknown-session"
        assert (await two.call("connection/join", {**ref, "role": "writer", "grant": grant["secret"]}))[
            "role"
        ] == "writer"
        await until_put_out(one)
        assert (await two.refused("connection/join", {**ref, "grant": grant["secret"]}))[2]["kind"] == "unknown-session"


async def test_who_has_joined_by_a_secret_is_there_by_it_until_he_leaves(connections: Connections) -> None:
    """For everything in the role that it gives, and by no other connection of his."""
    async with (
        open_member(connections, "one", name="a") as one,
        open_member(connections, "two") as two,
        open_member(connections, "two") as outside,
    ):
        await one.start("p", ["sleep", "1000"])
        grant = await one.call("connection/grant", {"role": "writer"})
        ref = {"connection": grant["connectionId"]}
        looks = [("process/list", ref), ("process/attach", {**ref, "processId": "p"})]
        await two.call("connection/join", {**ref, "grant": grant["secret"]})
        assert [each["processId"] for each in (await two.call("process/list", ref))["processes"]] == ["p"]
        assert [each["processId"] for each in (await two.call("process/list", {"all": True}))["processes"]] == ["p"]
        await two.call("process/attach", {**ref, "processId": "p", "attachedId": "x"})
        (seen,) = [each for each in (await two.call("connection/list"))["connections"] if each["principal"] == "one"]
        assert (seen["connectionId"], seen["role"]) == (ref["connection"], "writer")
        assert (await two.call("connection/join", {**ref, "role": "writer"}))["role"] == "writer"
        assert (await two.refused("connection/join", {**ref, "role": "owner"}))[2]["kind"] == "forbidden"
        assert (await two.refused("connection/end", ref))[2]["kind"] == "forbidden"
        for method, params in looks:
            assert (await outside.refused(method, params))[2]["kind"] == "unknown-session"
        assert await one.call("connection/revoke", {"grantId": grant["grantId"]}) == {"left": 1}
        another = await one.call("connection/grant", {"role": "viewer"})
        for method, params in looks:
            assert (await two.refused(method, params))[2]["kind"] == "unknown-session"
        await two.call("connection/join", {**ref, "grant": another["secret"]})
        assert (await two.refused("connection/join", {**ref, "role": "writer"}))[2]["kind"] == "forbidden"
        await two.call("connection/leave", ref)
        assert (await two.refused("connection/end", ref))[2]["kind"] == "unknown-session"
        assert all(each["principal"] == "two" for each in (await two.call("connection/list"))["connections"])


async def test_grants_are_bounded(connections: Connections) -> None:
    async with open_member(connections, "one", name="a") as one:
        for _ in range(64):
            await one.call("connection/grant", {"role": "viewer"})
        assert (await one.refused("connection/grant", {"role": "viewer"}))[2]["limit"] == "grants"


async def test_whoever_is_put_out_hears_of_it_in_what_he_reads(server: Server) -> None:
    url = await server.url()
    async with connect(url, name="shared") as owner, owner.start(ASK, stdin=True, id="ask"), connect(url) as guest:
        async with guest.join("shared") as shared, shared.attach("ask") as process:
            assert await anext(process.lines()) == "ready"
            assert await owner.revoke(member_id=shared.member_id) == 1
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError, match="put out of connection"):
                await process.wait()


@pytest.mark.parametrize("how", ["revoked", "expired", "detached"])
async def test_whoever_is_put_out_hears_nothing_by_what_waits(connections: Connections, how: str) -> None:
    async with open_member(connections, "one", name="a") as one, open_member(connections, "two") as two:
        await one.start("p", ASK, pipeStdin=True)
        await one.until_output("p", b"ready\n")
        lasts = {"expiresSeconds": 1} if how == "expired" else {}
        grant = await one.call("connection/grant", {"role": "viewer", "principal": "two", **lasts})
        await two.call("connection/join", {"connection": grant["connectionId"]})
        await two.call(
            "process/attach", {"connection": grant["connectionId"], "processId": "p", "attachedId": "x", "afterSeq": 1}
        )
        wait_for = {"processId": "x", "afterSeq": 1, "output": [b64(b"got")], "waitId": "w"}
        waiting = [
            await two.post("process/read", {"processId": "x", "afterSeq": 1, "waitMs": 3_600_000}),
            await two.post("process/waitFor", wait_for),
            await two.post("process/wait", {"processId": "x"}),
        ]
        own = await one.post("process/read", {"processId": "p", "afterSeq": 1, "waitMs": 3_600_000})
        await two.call("connection/list")
        if how == "revoked":
            assert await one.call("connection/revoke", {"grantId": grant["grantId"]}) == {"left": 1}
        elif how == "detached":
            await two.call("process/detach", {"processId": "x"})
        else:
            await until_put_out(two)
        for answer in [await two.answer(id) for id in waiting]:
            assert isinstance(answer, Failure), answer
            assert isinstance(answer.error.data, dict)
            assert answer.error.data["kind"] == "unknown-process"
        await one.call("process/write", {"processId": "p", "chunk": b64(b"x\n"), "writeId": "1"})
        assert isinstance(read := await one.answer(own), Response)
        assert [chunk["seq"] for chunk in read.result["chunks"]] == [2]
        assert two.output("x") == b""


async def test_a_connection_that_is_left_is_named_as_one_that_is_joined(connections: Connections) -> None:
    """By its number, or of one's own by its name: somebody else's may have the name of one's own."""
    async with (
        open_member(connections, "one", name="build") as one,
        open_member(connections, "two", name="build") as own,
        open_member(connections, "two") as two,
    ):
        grant = await one.call("connection/grant", {"role": "viewer", "principal": "two"})
        await own.call("connection/join", {"connection": grant["connectionId"]})
        assert (await own.refused("connection/leave", {"connection": "build"}))[1] == (
            "connection `build` was not joined"
        )
        await two.call("connection/join", {"connection": grant["connectionId"]})
        joined = await two.call("connection/join", {"connection": "build"})
        await two.call("connection/leave", {"connection": "build"})
        assert "unknown member" in (await own.refused("connection/revoke", {"memberId": joined["memberId"]}))[1]
        await two.call("connection/leave", {"connection": grant["connectionId"]})


# -- starts that are waited for --


async def check_starting(owner: Peer, id: str) -> None:
    """See that a start is under way."""
    listed = (await owner.call("process/list"))["processes"]
    assert (id, "starting") in [(each["processId"], each["state"]) for each in listed]


@pytest.mark.parametrize("how", ["put out", "a viewer now"])
async def test_a_process_is_attached_to_in_the_role_of_the_moment(
    connections: Connections, tmp_path: Path, how: str
) -> None:
    """However long its start was waited for."""
    program = script(tmp_path / "program", "exec cat")
    async with open_member(connections, "one", name="a") as one, open_member(connections, "two") as two:
        grant = await one.call("connection/grant", {"role": "writer", "principal": "two"})
        ref = {"connection": grant["connectionId"]}
        await two.call("connection/join", {**ref, "role": "writer"})
        with leased(program):
            start = await one.post("process/start", one.start_params("p", [str(program)], pipeStdin=True))
            await check_starting(one, "p")
            attach = await two.post("process/attach", {**ref, "processId": "p", "attachedId": "x"})
            if how == "put out":
                await two.call("connection/list")
                assert await one.call("connection/revoke", {"grantId": grant["grantId"]}) == {"left": 1}
            else:
                await two.call("connection/leave", ref)
                await two.call("connection/join", {**ref, "role": "viewer"})
        assert isinstance(await one.answer(start), Response)
        answer = await two.answer(attach)
        written = {"processId": "x", "chunk": b64(b"by a guest\n"), "writeId": "1"}
        if how == "put out":
            assert isinstance(answer, Failure), answer
            assert answer.error.data == {"kind": "not-ready"}
            assert await two.call("process/write", written) == {"status": "unknownProcess"}
        else:
            assert isinstance(answer, Response), answer
            assert (await two.refused("process/write", written))[2]["kind"] == "forbidden"


async def test_nothing_is_left_of_a_guest_that_hangs_up_while_a_start_is_waited_for(
    connections: Connections, tmp_path: Path
) -> None:
    program = script(tmp_path / "program", "exec cat")
    async with open_member(connections, "one", name="a") as one:
        grant = await one.call("connection/grant", {"role": "viewer", "principal": "two"})
        ref = {"connection": grant["connectionId"]}
        allowance = connections.allowances.of("two")
        with leased(program):
            start = await one.post("process/start", one.start_params("p", [str(program)]))
            await check_starting(one, "p")
            async with open_member(connections, "two") as two:
                await two.call("connection/join", ref)
                await two.post("process/attach", {**ref, "processId": "p", "attachedId": "x"})
                await two.call("connection/list")
                assert allowance.held.taken > 0
            while len(connections) > 1:
                await trio.testing.wait_all_tasks_blocked()
            assert allowance.held.taken == 0
        assert isinstance(await one.answer(start), Response)
        await one.call("process/terminate", {"processId": "p"})
        await one.until_told("p", "closed")
        assert allowance.held.taken == 0


async def test_those_who_wait_for_a_start_are_counted_and_bounded(open_server: OpenServer, tmp_path: Path) -> None:
    program = script(tmp_path / "program", "exec cat")
    server = open_server("unix", ServerConfig(requests_in_flight=3, idle_connection_timeout=0.2))
    owner = await server.peer(ready=False)
    await owner.call("initialize", {"clientName": "x", "name": "shared"})
    await owner.channel.send(Notification("initialized"))
    ref = {"connection": "shared"}
    with leased(program):
        params = owner.start_params("p", [str(program)], key="k")
        starts = [await owner.post("process/start", params)]
        await check_starting(owner, "p")
        guest = await server.peer()
        await guest.call("connection/join", ref)
        attaches = [
            await guest.post("process/attach", {**ref, "processId": "p", "attachedId": f"{n}"}) for n in range(3)
        ]
        code, _, data = await guest.refused("process/attach", {**ref, "processId": "p", "attachedId": "more"})
        assert (code, data) == (-32001, {"kind": "busy", "limit": "requests_in_flight", "value": 3})
        starts += [await owner.post("process/start", params) for _ in range(255)]
        assert (await owner.refused("process/start", params))[2] == {"kind": "busy"}
        for _ in range(3):
            await (await server.peer()).until_ended()  # who waits for nothing
    for peer, id in [(owner, id) for id in starts] + [(guest, id) for id in attaches]:
        assert isinstance(await peer.answer(id), Response)


async def test_no_two_processes_have_one_id(connections: Connections, tmp_path: Path) -> None:
    program = script(tmp_path / "program", "exec cat")
    async with open_member(connections, "one", name="a") as one, open_member(connections, "one") as guest:
        ref = {"connection": "a"}
        await guest.call("connection/join", {**ref, "role": "owner"})
        with leased(program):
            start = await one.post("process/start", one.start_params("p", [str(program)]))
            await check_starting(one, "p")
            attach = await guest.post("process/attach", {**ref, "processId": "p", "attachedId": "x"})
            await guest.start("x", ["cat"], pipeStdin=True)
        assert isinstance(await one.answer(start), Response)
        assert isinstance(answer := await guest.answer(attach), Failure)
        assert answer.error.data == {"kind": "process-exists", "processId": "x"}
        await guest.call("process/attach", {**ref, "processId": "p", "attachedId": "session-1"})
        taken = await guest.refused("process/start", guest.start_params("session-1", ["cat"]))
        assert taken[2] == {"kind": "process-exists", "processId": "session-1"}
        unnamed = guest.start_params("", ["cat"], pipeStdin=True)
        del unnamed["processId"]
        assert (await guest.call("process/start", unnamed))["processId"] == "session-2"
        written = {"processId": "session-2", "chunk": b64(b"mine\n"), "writeId": "1"}
        assert await guest.call("process/write", written) == {"status": "accepted"}


# -- viewers --


async def test_a_viewer_that_never_reads_holds_up_neither_the_command_nor_the_owner(server: Server) -> None:
    url = await server.url()
    async with connect(url, name="shared") as owner, connect(url) as guest:
        async with owner.start(FLOOD, stdin=True, id="flood") as flood:
            async with guest.join("shared") as shared, shared.attach("flood") as unread:
                seen = 0
                with trio.fail_after(PATIENCE):
                    async for piece in flood.output:
                        seen += len(piece)
                        if piece.endswith(b"flooded\n"):
                            break
                assert seen == 8_000_000 + len("\nflooded\n")
                await flood.write(b"x\n")
                assert (await flood.wait()).exit_code == 0
                events = [event async for event in unread.events()]
                had = sum(len(event.chunk) for event in events if isinstance(event, Chunk))
                missing = sum(sum(event.omitted.values()) for event in events if isinstance(event, execsrv.Gap))
                assert missing > 0
                assert had + missing == 8_000_000 + len("\nflooded\ngot x\n")
                assert had < 3 * MIB


async def test_a_viewer_begins_where_it_says(server: Server) -> None:
    url = await server.url()
    async with connect(url, name="shared") as owner, connect(url) as guest, guest.join("shared", "writer") as shared:
        async with owner.start(ASK, stdin=True, id="ask") as ask:
            assert await anext(ask.lines()) == "ready"
            await ask.write(b"1\n")
            assert await anext(ask.lines()) == "got 1"
            async with (
                shared.attach("ask") as whole,
                shared.attach("ask", after=1) as rest,
                shared.attach("ask", after="now") as new,
                shared.attach("ask", after=10**6) as later,
            ):
                await whole.write(b"2\n")
                await whole.close_stdin()
                end = ["got 2", "over"]
                assert [line async for line in whole.lines()] == ["ready", "got 1", *end]
                assert [line async for line in rest.lines()] == ["got 1", *end]
                assert [line async for line in new.lines()] == end
                assert [line async for line in later.lines()] == end


async def test_an_owner_that_goes_leaves_viewers_the_end(server: Server) -> None:
    url = await server.url()
    async with connect(url) as guest:
        with trio.CancelScope() as leaving:
            async with connect(url, name="shared") as owner:
                await owner._connection.calls.call(
                    "process/start",
                    ProcessStart(ASK, "/", {"PATH": "/usr/bin:/bin"}, False, "ask", True),
                    ProcessStarted,
                )
                async with guest.join("shared") as shared, shared.attach("ask") as process:
                    assert await anext(process.lines()) == "ready"
                    told = guest.presence()
                    owner._connection.nursery.cancel_scope.cancel()
                    with trio.fail_after(PATIENCE):
                        assert (await process.wait()).reason == "disconnected"
                        assert (await anext(told)).happened == "ended"
                    with pytest.raises((StdinClosedError, ForbiddenError)):
                        await process.write(b"x")
                    leaving.cancel()


async def test_a_process_is_joined_in_the_moment_of_its_end(server: Server) -> None:
    """Whatever comes first: all of its output, and its end, or a clear error."""
    url = await server.url()
    async with connect(url, name="shared") as owner, connect(url) as guest, guest.join("shared") as shared:
        for number in range(20):
            async with owner.start(["echo", "x"], id=f"e{number}"), shared.attach(f"e{number}") as process:
                with trio.fail_after(PATIENCE):
                    assert [line async for line in process.lines()] == ["x"]
                    assert (await process.wait()).exit_code == 0
        with pytest.raises(UnknownProcessError):
            async with shared.attach("none"):
                pass


async def test_a_connection_is_joined_in_the_moment_of_its_end(server: Server) -> None:
    url = await server.url()
    async with connect(url) as guest:
        for _ in range(10):
            async with trio.open_nursery() as nursery:
                await leave_running(url, ["sleep", "1000"], name="brief")
                nursery.start_soon(guest.end_connection, "brief")
                try:
                    async with guest.join("brief") as brief, brief.attach("make") as process:
                        with trio.fail_after(PATIENCE):
                            await process.wait()
                except (UnknownConnectionError, UnknownProcessError):
                    pass
            await until_ended(guest, "brief")


async def test_a_guest_that_comes_back_goes_on_where_it_was(open_server: OpenServer) -> None:
    """What it has joined, and is attached to, is its connection's, and not its channel's."""
    server = open_server("unix", ServerConfig(resume_grace=1000))
    owner = await server.peer(ready=False)
    await owner.call("initialize", {"clientName": "x", "name": "shared"})
    await owner.channel.send(Notification("initialized"))
    await owner.start("ask", ASK, pipeStdin=True)
    async with server.open_peer() as guest:
        session = (await guest.handshake())["sessionId"]
        await guest.call("connection/join", {"connection": "shared", "role": "writer"})
        await guest.call("process/attach", {"connection": "shared", "processId": "ask", "attachedId": "x"})
        await guest.until_output("x", b"ready\n")
    await owner.call("process/write", {"processId": "ask", "chunk": b64(b"away\n"), "writeId": "1"})
    await owner.until_output("ask", b"got away\n")
    async with server.open_peer() as guest:
        with trio.fail_after(PATIENCE):
            while True:
                params = {"clientName": "x", "resumeSessionId": session}
                answer = await guest.answer(await guest.post("initialize", params))
                if isinstance(answer, Response):
                    break
                await trio.sleep(0.01)
        await guest.channel.send(Notification("initialized"))
        read = await guest.call("process/read", {"processId": "x", "afterSeq": 1})
        assert [chunk["seq"] for chunk in read["chunks"]] == [2]
        await guest.call("process/write", {"processId": "x", "chunk": b64(b"back\n"), "writeId": "1"})
        await guest.until_output("x", b"got back\n")


# -- sizes --


@pytest.mark.parametrize(
    ("policy", "sizes"),
    [
        ("owner", ["30 90", "30 90", "30 90"]),
        ("latest", ["40 70", "20 100", "20 100"]),
        ("smallest", ["30 70", "20 70", "30 70"]),
    ],
)
async def test_the_size_of_a_terminal_follows_whom_the_owner_chose(
    server: Server, policy: Any, sizes: list[str]
) -> None:
    url = await server.url()

    async def size() -> str:
        found = (await terminal.snapshot()).size
        assert found is not None
        return f"{found.rows} {found.cols}"

    async with connect(url, name="shared", size_policy=policy) as owner, connect(url) as guest:
        async with owner.start(["sleep", "1000"], tty=True, size=(30, 90), id="term") as terminal:
            await terminal.resize(30, 90)
            async with guest.join("shared", "writer") as shared, shared.attach("term") as one:
                await one.resize(40, 70)
                assert await size() == sizes[0]
                async with connect(url) as third, third.join("shared", "writer") as also, also.attach("term") as two:
                    await two.resize(20, 100)
                    assert await size() == sizes[1]
                assert await size() == sizes[2]


async def test_where_the_owner_is_away_the_size_follows_who_is_there(server: Server) -> None:
    url = await server.url()
    async with connect(url, name="build", keep="untilIdle") as client:
        async with client.start(["sleep", "1000"], tty=True, id="make") as process:
            await process.resize(30, 90)
            process.leave_running()
    async with connect(url) as guest, guest.join("build", "writer") as build, build.attach("make") as process:
        await until_alone(guest, "build")
        await process.resize(11, 22)
        found = (await process.snapshot()).size
        assert found is not None
        assert (found.rows, found.cols) == (11, 22)


# -- keys --


async def test_a_key_starts_one_process(server: Server, tmp_path: Any) -> None:
    peer = await server.peer()
    argv = ["sh", "-c", f"echo x >>{tmp_path}/count; echo ready; sleep 1000"]
    first = await peer.start("a", argv, key="k")
    for _ in range(3):
        assert await peer.start("a", argv, key="k") == first
    await peer.until_output("a", b"ready")
    assert (tmp_path / "count").read_text() == "x\n"
    code, message, data = await peer.refused("process/start", peer.start_params("a", ["true"], key="k"))
    assert (code, data) == (-32600, {"kind": "key-conflict", "processId": "a"})
    assert message == "key `k` is that of process a, which was started by another request"
    assert (await peer.refused("process/start", peer.start_params("a", argv)))[2]["kind"] == "process-exists"


async def test_a_key_of_a_start_that_failed_or_is_forgotten_is_free(open_server: OpenServer) -> None:
    peer = await open_server("unix", ServerConfig(retained_sessions=0)).peer()
    assert (await peer.refused("process/start", peer.start_params("a", ["/no/such"], key="k")))[2][
        "kind"
    ] == "spawnNotFound"
    await peer.run("a", ["true"], key="k")
    with trio.fail_after(PATIENCE):
        while (await peer.call("process/list"))["processes"]:  # noqa: ASYNC110
            await trio.sleep(0.01)
    await peer.run("b", ["echo", "again"], key="k")
    assert peer.output("b") == b"again\n"


async def test_the_client_asks_twice_for_one_process(server: Server) -> None:
    url = await server.url()
    async with connect(url, name="build", keep="untilIdle") as client:
        async with client.start(ASK, stdin=True, key="deploy") as process:
            assert await anext(process.lines()) == "ready"
            process.leave_running()
    async with connect(url, resume="build") as client:
        async with client.start(ASK, stdin=True, key="deploy") as again:
            assert again.pid == process.pid
            assert await anext(again.lines()) == "ready"
        with pytest.raises(KeyConflictError):
            async with client.start(["true"], key="deploy"):
                pass
        with pytest.raises(ProcessExistsError):
            async with client.start(["true"], id="deploy"):
                pass


async def test_input_of_one_client_after_the_other_arrives(server: Server) -> None:
    url = await server.url()
    async with (
        connect(url, name="build", keep="untilIdle") as client,
        client.start(["cat"], stdin=True, key="echo") as process,
    ):
        await process.write(b"one\n")
        assert await anext(process.lines()) == "one"
        process.leave_running()
    async with connect(url, resume="build") as client, client.start(["cat"], stdin=True, key="echo") as again:
        await again.write(b"two\n")
        with trio.fail_after(PATIENCE):
            assert [await anext(again.lines()) for _ in range(2)] == ["one", "two"]


@pytest.mark.parametrize(("first", "then"), [(64 * KIB, MIB), (MIB, 64 * KIB)])
async def test_a_process_is_read_by_a_client_with_another_window(server: Server, first: int, then: int) -> None:
    url = await server.url()
    async with (
        connect(url, name="build", keep="untilIdle", config=ClientConfig(window_bytes=first)) as client,
        client.start(["sh", "-c", "read line; head -c 8000000 /dev/zero"], stdin=True, id="flood") as process,
    ):
        process.leave_running()
    async with connect(url, resume="build", config=ClientConfig(window_bytes=then)) as client:
        async with client.attach("flood") as again:
            await again.write(b"\n")
            with trio.fail_after(PATIENCE):
                assert len((await again.communicate()).stdout) == 8_000_000


# -- the place of a viewer in a log --


def log_of(*chunks: bytes, retained: int = 1000) -> OutputLog:
    log = OutputLog(retained, 1 << 30, streams=["stdout"])
    for chunk in chunks:
        log.append("stdout", chunk)
        log.take()
    return log


def test_a_place_counts_what_is_missing_exactly() -> None:
    log = log_of(b"a" * 10)
    viewer = Viewer(log, 0, None)
    assert viewer.take() == Chunk(1, "stdout", b"a" * 10)
    for _ in range(300):
        log.append("stdout", b"b" * 10)
        log.take()
    gap = viewer.take()
    assert isinstance(gap, execsrv.Gap)
    assert (gap.from_seq, gap.seq) == (2, log.oldest - 1)
    rest = []
    while viewer.has_news:
        rest.append(viewer.take())
    assert gap.omitted == {"stdout": 3000 - 10 * len(rest)}


def test_a_place_with_a_window_takes_no_more_before_it_acknowledges() -> None:
    log = log_of(*[b"x" * 100] * 6)
    viewer = Viewer(log, 0, 600)
    assert [viewer.take().seq, viewer.take().seq] == [1, 2]
    assert not viewer.has_news
    viewer.acknowledge(1)
    assert viewer.take().seq == 3
    assert not viewer.has_news
    viewer.acknowledge(3)
    assert viewer.has_news


def test_a_place_in_the_middle_knows_what_lies_before_it() -> None:
    log = log_of(*[b"x" * 100] * 6)
    viewer = Viewer(log, 3, None)
    for _ in range(20):
        log.append("stdout", b"y" * 100)
        log.take()
    gap = viewer.take()
    assert isinstance(gap, execsrv.Gap)
    assert gap.omitted == {"stdout": (gap.seq - gap.from_seq + 1) * 100}
