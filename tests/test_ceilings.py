"""`server/limits` and `execsrv limits`: what there may be of everything, and what there is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import trio

import execsrv
from execsrv import PIPE, Client, LimitExceededError, ServerConfig
from execsrv._cli.settings import SETTINGS
from execsrv._doors.principal import Principal
from execsrv._nursery import open_helpers
from execsrv._processes.supervisor import Supervisor
from execsrv._server.connections import open_connections
from execsrv._server.conversation import Conversation
from execsrv._wire.memory import open_memory_pair
from execsrv.protocol.ceilings import Ceiling
from execsrv.protocol.roles import Role
from tests.conftest import OpenServer
from tests.faults.daemon import Daemon, running_daemon
from tests.peers import PATIENCE, Peer, open_peer
from tests.terminals import seen

EXECSRV = [sys.executable, "-m", "execsrv"]
ENV = {"PATH": "/usr/bin:/bin", "COLUMNS": "80"}


async def used(client: Client) -> dict[tuple[str, str], Ceiling]:
    return {(each.setting, each.scope): each for each in await client.limits()}


async def test_what_is_in_use_comes_and_goes(open_server: OpenServer, tmp_path: Path) -> None:
    client = await open_server("unix", ServerConfig(max_sessions=2, principal_percent=100)).client()
    before = await used(client)
    async with client.start(["cat"], stdin=True) as cat, client.files.open(tmp_path / "f", "wb"):
        await cat.write(b"12345")
        await cat.wait_for(output=b"12345")
        now = await used(client)
        for scope in ("server", "principal"):
            assert (now["max_sessions", scope].used, now["max_sessions", scope].most) == (1, 2)
            assert now["max_file_handles", scope].used == 1
        assert now["max_sessions_per_connection", "connection"].used == 1
        assert now["retained_output_bytes_per_session", "session"].used == 5
        async with client.start(["cat"], stdin=True):
            with pytest.raises(LimitExceededError):
                await client.run(["true"])
    after = await used(client)
    assert sum(each.refused or 0 for each in after.values() if each.setting == "max_sessions") >= 1
    assert after["max_sessions", "server"].used == before["max_sessions", "server"].used == 0
    assert after["retained_sessions", "connection"].used == 2
    assert after["max_file_handles", "server"].used == 0


async def test_input_that_nobody_reads_is_counted(open_server: OpenServer) -> None:
    client = await open_server("unix", ServerConfig()).client()
    async with client.start(["sleep", "1000"], stdin=True) as sleep, trio.open_nursery() as nursery:
        nursery.start_soon(sleep.write, bytes(3_000_000))
        with trio.fail_after(PATIENCE):
            while not (await used(client))["queued_stdin_bytes", "session"].used:  # noqa: ASYNC110
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


def test_every_number_among_the_settings_is_a_ceiling() -> None:
    from execsrv._server.methods.ceilings import _units

    numbers = {field.name for field in fields(ServerConfig) if type(field.default) in (int, float)}
    assert set(_units()) == numbers - {"principal_percent"}
    assert {name: SETTINGS[name].unit for name in _units()} == _units()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.WRITER, Role.OWNER])
async def test_what_all_have_is_told_to_owners_alone(role: Role) -> None:
    async with open_connections(Supervisor()) as connections, open_helpers() as nursery:
        connections.accepts = True

        async def peer_of(principal: Principal, stack: AsyncExitStack) -> Peer:
            ours, theirs = open_memory_pair()
            nursery.start_soon(Conversation(theirs, connections, lambda token: principal).run)
            peer = await stack.enter_async_context(open_peer(ours))
            await peer.handshake()
            return peer

        async with AsyncExitStack() as stack:
            other = await peer_of(Principal("another", Role.OWNER), stack)
            await other.start("nap", ["sleep", "1000"])
            asker = await peer_of(Principal("asker", role), stack)
            rows = (await asker.call("server/limits"))["limits"]
        whole = {row["setting"]: row["used"] for row in rows if row["scope"] == "server"}
        own = {row["setting"]: row["used"] for row in rows if row["scope"] in ("principal", "connection", "session")}
        assert (own["max_sessions"], own["max_sessions_per_connection"], own["max_connections_per_principal"]) == (
            0,
            0,
            1,
        )
        if role is Role.OWNER:
            assert (whole["max_sessions"], whole["max_connections"]) == (1, 2)
        else:
            assert whole == {}


# -- the command --


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, "unix", "--max-sessions", "4", "--principal-percent", "100") as running:
        yield running


def limits(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*EXECSRV, "limits", "-u", url, *words]
    return subprocess.run(argv, capture_output=True, text=True, env=ENV, timeout=PATIENCE)


def test_they_are_listed(daemon: Daemon) -> None:
    done = limits(daemon.url)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "everybody together:"
    assert ["--max-sessions", "0", "of", "4", "0%"] in [line.split() for line in lines]
    assert "  --max-message-bytes" not in done.stdout
    every = limits(daemon.url, "--all", "-q")
    assert every.stderr == ""
    assert ["--max-message-bytes", "64.0", "MiB"] in [line.split() for line in every.stdout.splitlines()]
    rows = json.loads(limits(daemon.url, "--all", "--json").stdout)
    assert {row["setting"] for row in rows} < set(SETTINGS)


def test_what_is_nearly_used_up_stands_out(daemon: Daemon) -> None:
    script = (
        "import execsrv\n"
        f"with execsrv.sync.connect({daemon.url!r}, keep=300) as client:\n"
        "    for _ in range(4):\n"
        "        with client.start(['sleep', '1000']) as process:\n"
        "            process.leave_running()\n"
        "    try:\n"
        "        client.run(['true'])\n"
        "    except execsrv.LimitExceededError:\n"
        "        pass\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PATIENCE)
    with seen("limits", "-u", daemon.url, size=(40, 100)) as terminal:
        assert terminal.end() == 0
    assert "--max-sessions" in terminal.see(r"4 of +4  100%  refused 1 times")
    assert b"\x1b[33m  --max-sessions" in terminal.output


# -- descriptors --


async def test_everything_keeps_as_many_descriptors_open_as_the_page_says(daemon: Daemon, tmp_path: Path) -> None:
    def opened() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    async def grown_to(count: int) -> None:
        with trio.move_on_after(PATIENCE):
            while opened() != count:  # noqa: ASYNC110  # nothing tells
                await trio.sleep(0.01)
        assert opened() == count

    page = (Path(__file__).parents[1] / "docs/limits.md").read_text()
    counts = {what: int(count) for what, count in re.findall(r"^\| (.*) \| (\d+)(?=[ :;].*\|$)", page, re.MULTILINE)}
    async with execsrv.connect(daemon.url) as client:
        piped, on_terminal = (counts[f"a session on {what}, while it runs"] for what in ("pipes", "a terminal"))
        async with client.start(["sleep", "1000"]):
            one = opened() - piped
        [passed] = (count for what, count in counts.items() if what.startswith("a session whose streams are"))
        sessions: list[tuple[int, dict[str, Any]]] = [
            (piped, {}),
            (piped + 1, {"stdin": PIPE}),
            (on_terminal, {"tty": True}),
            (passed, {"pass_streams": True}),
            (passed + 4, {"pass_streams": "kept"}),
        ]
        for count, options in sessions:
            async with client.start(["sleep", "1000"], **options):
                await grown_to(one + count)
            await grown_to(one)
        async with client.files.open(tmp_path / "f", "wb"):
            await grown_to(one + counts["a file that is open by `fs/open`"])
        [snapshot] = (count for what, count in counts.items() if what.startswith("a snapshot of [login"))
        for number in (1, 2):
            await client.run(["bash", "-lc", "true"], shell_snapshot=f"scope-{number}")
            await grown_to(one + number * snapshot)
    await grown_to(one - counts["a connection, and a peer that has not said who it is"])
