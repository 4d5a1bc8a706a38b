"""Sessions over a runner: what is their own. How they behave otherwise is what the behaviour suite says, over one."""

from __future__ import annotations

import errno
import gc
import math
import os
import resource
import shlex
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import UNSET, Struct

import execsrv
from execsrv import Client, Policy, connect_in_process
from execsrv._budget.budget import Budget
from execsrv._log.log import OutputLog
from execsrv._processes import proc
from execsrv._processes.arrivals import Arrivals
from execsrv._processes.confine.layers import Means
from execsrv._processes.confine.start import means_without_view
from execsrv._processes.confine.syscalls import NUMBERS
from execsrv._processes.supervisor import open_supervisor
from execsrv._processes.wait_gone import wait_gone
from execsrv._runner import frames, link, tree
from execsrv._runner.link import Link
from execsrv._runner.remote import WINDOW_BYTES, RemoteCommand
from execsrv._runner.version_2_messages import (
    DATA_BYTES,
    STDIN_WINDOW_BYTES,
    Data,
    Eof,
    Error,
    Exit,
    HelloBack,
    Looked,
    Pong,
    Signaled,
    SpawnReady,
    SpawnRequest,
    StdinDone,
    TreeEmpty,
)
from execsrv._server import runners
from execsrv._server.ending import Ending
from execsrv._server.feed import Feed
from execsrv._server.framed_pump import FramedPump
from execsrv._server.methods import listing
from execsrv._server.over_runner import RunnerAttempt, error_of
from execsrv._threads import SharedThreads
from execsrv.errors import (
    BusyError,
    ConnectionLostError,
    InvalidParamsError,
    LimitExceededError,
    LimitUnavailableError,
    NotAllowedError,
    SandboxUnavailableError,
    SpawnError,
)
from execsrv.limits import KIB, ServerConfig
from execsrv.protocol import Member
from execsrv.protocol.process_limits import ProcessLimits
from tests import deny
from tests.conftest import OpenServer
from tests.far_sides import FarSide, SshServer, needs_sshd
from tests.over_runner import LAUNCH, RELAYED
from tests.peers import PATIENCE
from tests.processes import marked, new_mark, until_gone, until_in_front, until_marked
from tests.test_reach import far, ssh_below, ssh_server
from tests.test_survivors import as_ordinary_user

__all__ = ["far", "ssh_server"]  # fixtures


@pytest.fixture(params=[LAUNCH, RELAYED], ids=["passed", "framed"])
def launch(request: pytest.FixtureRequest) -> list[str]:
    """A runner that gets descriptors, and one that everything is framed for."""
    return list(request.param)


@pytest.fixture
def nobodys() -> Iterator[list[str]]:
    """A runner of the user nobody."""
    with tempfile.TemporaryDirectory(prefix="execsrv-") as folder:
        Path(folder).chmod(0o755)
        command, env = as_ordinary_user(Path(folder))
        yield ["env", *(f"{name}={value}" for name, value in env.items()), *command[:-1], "runner"]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    with trio.fail_after(PATIENCE):
        async with connect_in_process() as client:
            yield client


async def test_bytes_and_ends_are_those_of_the_command(client: Client, launch: list[str]) -> None:
    script = "cat; echo done >&2; kill -TERM $$"
    data = os.urandom(700_000)
    result = await client.run(["sh", "-c", script], input=data, runner=launch)
    assert (result.stdout, result.stderr) == (data, b"done\n")
    assert (result.exit_code, result.signal, result.reason) == (128 + signal.SIGTERM, "SIGTERM", "signaled")


async def test_all_sessions_of_a_connection_share_a_runner_that_ends_with_it(launch: list[str]) -> None:
    async with connect_in_process() as client:
        said = [
            await client.run(["sh", "-c", "echo $PPID"], text=True, runner=launch, env_add={"N": f"{number}"})
            for number in range(3)
        ]
        parents = {int(result.stdout) for result in said}
        assert len(parents) == 1
        assert proc.living(*parents)
    with trio.fail_after(PATIENCE):
        await wait_gone(*parents)


async def test_a_terminal_is_the_runners(client: Client, launch: list[str]) -> None:
    mark, shell = new_mark(), ["bash", "--norc", "-i"]
    async with client.start(shell, tty=True, size=(30, 90), runner=launch, env_add={"PS1": "$ "}) as it:
        await it.expect(rb"\$ ")
        await it.sendline("stty size")
        await it.expect(rb"30 90\r\n")
        await it.resize(40, 100)
        await it.sendline("stty size; read -s SECRET; echo got $SECRET")
        await it.expect(rb"40 100\r\n")
        await it.wait_for(no_echo=True)
        await it.sendline("word")
        await it.expect(rb"got word")
        await it.sendline("echo ca''t; cat; echo e''nd")
        await it.expect(rb"cat\r\n")
        await it.sendline("a line")
        await it.expect(rb"a line\r\n")
        await it.close_stdin()
        await it.expect(rb"end\r\n")
        await it.sendline(f"bash -c 'exec -a {mark} sleep 1000'")
        await until_in_front(mark)
        assert await it.send_signal("INT", target="foreground") == 1
        await it.sendline("echo $?; exit 7")
        await it.expect(rb"130\r\n")
        assert (await it.wait()).exit_code == 7


async def test_a_runner_that_is_killed_takes_its_sessions_along_and_no_other(client: Client, launch: list[str]) -> None:
    mark = new_mark()
    script = f"echo $PPID; setsid bash -c 'exec -a {mark} sleep 1000' & exec -a {mark} sleep 1000"
    async with client.start(["cat"], stdin=execsrv.PIPE) as neighbour:
        async with client.start(["bash", "-c", script], runner=launch) as lost:
            runner = int(await anext(lost.lines()))
            await until_marked(mark, 2)
            os.kill(runner, signal.SIGKILL)
            result = await lost.wait()
            assert (result.exit_code, result.signal, result.reason) == (255, None, "disconnected")
        await until_gone(mark)
        await neighbour.write(b"here")
        assert await neighbour.stdout.receive_some() == b"here"
    assert (await client.run(["echo", "again"], runner=launch)).stdout == b"again\n"


async def test_a_server_that_is_killed_takes_along_what_it_has_over_runners(launch: list[str]) -> None:
    mark = new_mark()
    flees = f"setsid bash -c 'exec -a {mark} sleep 1000' </dev/null >/dev/null 2>&1 & exec -a {mark} sleep 1000"
    with trio.fail_after(PATIENCE), suppress(ConnectionLostError):
        async with execsrv.launch() as client:
            server = int((await client.run(["sh", "-c", "echo $PPID"], text=True)).stdout)
            async with client.start(["bash", "-c", flees], runner=launch):
                await until_marked(mark, 2)
                os.kill(server, signal.SIGKILL)
                await until_gone(mark)
    await until_gone(mark)


@pytest.mark.skipif(os.getuid() != 0, reason="another user takes root")
async def test_another_user_has_pipes_of_the_servers_and_is_ended(client: Client, nobodys: list[str]) -> None:
    mark = new_mark()
    result = await client.run(["sh", "-c", "id -u > /dev/stdout; cat"], input=b"data", runner=nobodys)
    assert (result.stdout, result.stderr, result.exit_code) == (b"65534\ndata", b"", 0)
    flees = f"setsid bash -c 'exec -a {mark} sleep 1000' </dev/null >/dev/null 2>&1 & sleep 1000"
    async with client.start(["bash", "-c", flees], runner=nobodys):
        await until_marked(mark, 1)
    await until_gone(mark)


@needs_sshd
async def test_a_runner_by_ssh_and_the_end_of_ssh(client: Client, far: FarSide, ssh_server: SshServer) -> None:
    far.has_execsrv()
    mark, data = new_mark(), os.urandom(700_000)
    by_ssh = ["ssh", "-p", f"{ssh_server.port}", "127.0.0.1"]
    result = await client.run(["bash", "-c", "cat; echo $TMPDIR >&2; exit 7"], input=data, runner=by_ssh)
    assert (result.stdout, result.stderr, result.exit_code) == (data, f"{far.temporary}\n".encode(), 7)
    async with client.start(["bash", "-c", "read LINE; [ -t 0 ] && echo got $LINE"], tty=True, runner=by_ssh) as typed:
        await typed.sendline("word")
        await typed.expect(rb"got word\r\n")
    flees = f"setsid bash -c 'exec -a {mark} sleep 1000' </dev/null >/dev/null 2>&1 & exec -a {mark} sleep 1000"
    async with client.start(["bash", "-c", flees], runner=by_ssh) as lost:
        await until_marked(mark, 2)
        for pid in ssh_below():
            os.kill(pid, signal.SIGKILL)
        assert (await lost.wait()).reason == "disconnected"
    await until_gone(mark)
    assert (await client.run(["cat"], input=b"again", runner=by_ssh)).stdout == b"again"


async def test_limits_are_kept_by_the_runner(client: Client, launch: list[str], here: Path) -> None:
    limits = ProcessLimits(file_bytes=10, open_files=50)
    argv = ["sh", "-c", "ulimit -n; exec sh -c 'echo more than ten bytes > file'"]
    result = await client.run(argv, runner=launch, limits=limits, cwd=here)
    assert (result.stdout, result.signal, result.reason) == (b"50\n", "SIGXFSZ", "file-size")
    assert result.usage is not None


def test_a_refusal_there_is_the_same_error_here_without_what_a_terminal_would_obey() -> None:
    told = Error(1, "spawn_failed", "cannot keep\x1b[2J it", "limit-unavailable", field="limits", errno=errno.EPERM)
    error = error_of(told)
    assert isinstance(error, LimitUnavailableError)
    assert (str(error), error.facts) == ("cannot keep [2J it", {"field": "limits", "errno": errno.EPERM})
    assert isinstance(error_of(Error(1, "busy", "1024 run")), BusyError)
    other = error_of(Error(1, "spawn_failed", "no", "unauthorized", stage="cwd", errno=errno.ENOENT))
    assert (type(other), other.kind, other.facts["stage"]) == (SpawnError, "spawnNotFound", "cwd")


LIAR = r"""
import os
from execsrv._runner.frames import encode
from execsrv._runner.version_2_messages import Eof, Exit, HelloBack, SpawnReady, TreeEmpty

os.write(1, encode(HelloBack([2], False, 1)))
while b"spawn_request" not in os.read(0, 1 << 16):
    pass
ready = SpawnReady(1, 7, ["\x1b[31mview"], ["a line\r\nand another"])
for said in (ready, Exit(1, 0), Eof(1, "stdout"), Eof(1, "stderr"), TreeEmpty(1, "mark")):
    os.write(1, encode(said))
while os.read(0, 1 << 16):
    pass
"""


async def test_what_is_told_of_a_confinement_there_has_nothing_that_a_terminal_would_obey(client: Client) -> None:
    words = [sys.executable, "-c", LIAR, "runner"]
    async with client.start(["true"], runner=words, sandbox=Policy.read_only(network=False)) as process:
        assert process.confined is not None
        assert (process.confined.layers, process.confined.gaps) == ([" [31mview"], ["a line  and another"])


async def test_leaving_a_session_ends_all_of_it_there(client: Client, launch: list[str]) -> None:
    mark = new_mark()
    async with client.start(["bash", "-c", f"setsid bash -c 'exec -a {mark} sleep 1000' & wait"], runner=launch):
        await until_marked(mark, 1)
    await until_gone(mark)


async def test_a_runner_that_does_not_come_up_is_an_error_with_its_own_word(client: Client) -> None:
    with pytest.raises(SpawnError, match=r"it has ended: `no such place`$") as error:
        await client.run(["true"], runner=["sh", "-c", "echo no such place >&2; exit 4"])
    assert error.value.stage == "runner"
    with pytest.raises(SpawnError, match=r"it broke the protocol: it began with `Welcome to box`, which is no frame$"):
        await client.run(["true"], runner=["sh", "-c", 'echo Welcome to box; exec "$@"', "-", *LAUNCH])
    with pytest.raises(SpawnError, match="cannot find `there-is-none` in PATH"):
        await client.run(["true"], runner=["there-is-none"])
    with pytest.raises(SpawnError, match="cannot find `there-is-none` in PATH") as error:
        await client.run(["there-is-none"], runner=LAUNCH)
    assert error.value.stage == "program"


async def test_an_operator_hears_why_a_runner_with_commands_is_lost(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["sh", "-c", '"$@"; echo the host is gone >&2; exit 1', "-", *LAUNCH]
    async with client.start(["sh", "-c", "echo $PPID; sleep 1000"], runner=words) as process:
        os.kill(int(await anext(process.lines())), signal.SIGKILL)
        assert (await process.wait()).reason == "disconnected"
        while "is lost, with 1 commands: it has ended: `the host is gone`" not in caplog.text:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_runner_whose_time_is_over_is_not_taken_for_another_command(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "IDLE_SECONDS", 0)
    for _ in range(5):
        assert (await client.run(["echo", "again"], runner=LAUNCH)).stdout == b"again\n"


async def test_a_silent_runner_is_given_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "READY_SECONDS", 0.1)
    monkeypatch.setattr(runners, "_LEAVE_SECONDS", 0.1)
    mark = new_mark()
    with pytest.raises(SpawnError, match=r"it has not answered within 0\.1 seconds$"):
        await client.run(["true"], runner=["bash", "-c", f"exec -a {mark} sleep 1000"])
    await until_gone(mark)


async def test_a_runner_that_nobody_needs_is_let_go(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "IDLE_SECONDS", 0)
    first = await client.run(["sh", "-c", "echo $PPID"], text=True, runner=LAUNCH)
    await wait_gone(int(first.stdout))


async def test_a_runner_that_is_lost_is_counted_as_long_as_it_is_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "MOST_RUNNERS", 3)
    monkeypatch.setattr(runners, "_LEAVE_SECONDS", PATIENCE)
    mark = new_mark()
    babbling = ["bash", "-c", f"exec 2>&-; echo this is no frame; exec -a {mark} sleep 1000"]
    for number in range(1, 4):
        with pytest.raises(SpawnError, match="cannot start over the runner"):
            await client.run(["true"], runner=babbling)
        await until_marked(mark, number)
    with pytest.raises(LimitExceededError, match="3 runners of this connection are there already"):
        await client.run(["true"], runner=LAUNCH)
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    while True:
        with suppress(LimitExceededError):
            assert (await client.run(["echo", "again"], runner=LAUNCH)).stdout == b"again\n"
            break


async def test_a_start_whose_runners_cannot_be_loaded_fails_and_takes_nothing(open_server: OpenServer) -> None:
    peer = await open_server("memory", ServerConfig()).peer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "execsrv._server.over_runner", None)
        await peer.refused("process/start", peer.start_params("p", ["true"], runner=LAUNCH))
    assert (await peer.call("process/list"))["processes"] == []
    assert await peer.run("p", ["echo", "again"], runner=LAUNCH) == (0, b"again\n", b"")


async def test_an_operator_names_runners() -> None:
    config = ServerConfig(runners=(f"here={shlex.join(LAUNCH)}",), allow_direct_exec=False)
    async with connect_in_process(config=config) as client:
        argv = [sys.executable, "-c", "print(1)"]
        result = await client.run(argv, runner="here", prepared=True, cwd="/", env={})
        assert result.stdout == b"1\n"
        with pytest.raises(InvalidParamsError, match="this server has no runner `there`"):
            await client.run(argv, runner="there", prepared=True, cwd="/", env={})
        with pytest.raises(NotAllowedError, match="launches no runner but its own"):
            await client.run(argv, runner=LAUNCH, prepared=True, cwd="/", env={})


@pytest.mark.skipif(not isinstance(means_without_view(), Means), reason="Landlock keeps no signals in here")
@pytest.mark.parametrize("permits", [True, False])
async def test_landlock_alone_is_enough_over_a_runner_where_the_server_permits_it(permits: bool) -> None:
    without_namespaces = [sys.executable, deny.__file__, f"{errno.EPERM}", f"{NUMBERS['unshare']}", *LAUNCH]
    policy = Policy.read_only(network=False)
    async with connect_in_process(config=ServerConfig(allow_landlock_only=permits)) as client:
        with pytest.raises(SandboxUnavailableError, match="cannot confine anything: unshare: "):
            await client.run(["true"], sandbox=policy, runner=without_namespaces)
        argv = ["sh", "-c", "echo x >/var/tmp/x"]
        if not permits:
            with pytest.raises(SandboxUnavailableError, match="cannot confine anything: unshare: "):
                await client.run(argv, sandbox=policy.or_landlock(), runner=without_namespaces)
            return
        async with client.start(argv, sandbox=policy.or_landlock(), runner=without_namespaces) as process:
            assert process.confined is not None
            assert "view" not in process.confined.layers
            assert process.confined.gaps
            assert (await process.wait()).exit_code != 0


@pytest.mark.parametrize("term", ["user", "stdout", "stderr"])
async def test_a_term_that_a_runner_cannot_keep_is_refused_by_its_name(client: Client, term: str, here: Path) -> None:
    given: dict[str, Any] = {term: "nobody" if term == "user" else here / "file"}
    with pytest.raises(InvalidParamsError, match=f"^{term}: over a runner, ") as error:
        await client.run(["true"], runner=LAUNCH, **given)
    assert error.value.facts["field"] == term
    assert not (here / "file").exists()


async def test_a_name_that_is_no_text_is_a_clear_error(open_server: OpenServer) -> None:
    peer = await open_server("runner", ServerConfig()).peer()
    start = peer.start_params("a", ["true"], cwd="file:///tmp/%FF")
    code, message, data = await peer.refused("process/start", start)
    assert (code, data["stage"], data["errno"]) == (-32603, "arguments", errno.EILSEQ), message


@pytest.mark.few
@pytest.mark.parametrize(
    ("argv", "cwd"),
    [(["true"], "file:///tmp/%FF"), (["true", "x" * frames.MAX_PAYLOAD_BYTES], None)],
    ids=["no text", "too large"],
)
async def test_a_start_that_its_runner_cannot_be_told_of_fails_alone(
    client: Client, launch: list[str], argv: list[str], cwd: str | None
) -> None:
    async with client.start(["cat"], stdin=execsrv.PIPE, runner=launch) as neighbour:
        with pytest.raises(SpawnError) as error:
            await client.run(argv, cwd=cwd, runner=launch)
        assert error.value.facts["stage"] == "arguments"
        assert (await client.run(["echo", "again"], runner=launch)).stdout == b"again\n"
        await neighbour.write(b"here")
        assert await neighbour.stdout.receive_some() == b"here"


async def test_large_starts_wait_for_each_other(client: Client, launch: list[str]) -> None:
    async with client.start(["cat"], stdin=execsrv.PIPE, runner=launch) as neighbour:

        async def start() -> None:
            with pytest.raises(SpawnError, match="Argument list too long"):
                await client.run(["echo", "x" * 4_000_000], runner=launch)

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(start)
        await neighbour.write(b"here")
        assert await neighbour.stdout.receive_some() == b"here"


async def test_a_runner_that_is_lost_while_a_start_is_being_settled_is_an_error_of_the_start() -> None:
    given_up = threading.Event()

    def settle() -> SpawnRequest:
        given_up.wait(PATIENCE)
        return SpawnRequest(0, ["true"], "/", {}, WINDOW_BYTES)

    with trio.fail_after(PATIENCE):
        async with open_supervisor() as supervisor, trio.open_nursery() as nursery:
            threads = SharedThreads(supervisor.threads)
            all_of_them = runners.Runners(supervisor, ServerConfig(), threads)
            all_of_them.open(nursery)
            launched = all_of_them.acquire(LAUNCH)
            channel = await launched.ready()
            attempt = RunnerAttempt(all_of_them, LAUNCH, Budget())

            async def start() -> None:
                with pytest.raises(SpawnError, match=r"it is of no use$"):
                    await attempt.start(settle, threads)

            try:
                async with trio.open_nursery() as starting:
                    starting.start_soon(start)
                    await trio.testing.wait_all_tasks_blocked()
                    channel.lose("it is of no use")
                    await trio.testing.wait_all_tasks_blocked()
                    given_up.set()
            finally:
                await attempt.end()
                all_of_them.release(launched)
                all_of_them.close()


_MUTE = """
import os
def say(kind, payload):
    frame = b'{"version":2,"type":"%s","payload":%s}' % (kind, payload)
    os.write(1, len(frame).to_bytes(4, "little") + frame)
say(b"hello", b'{"versions":[2],"descriptors":false,"process_id":1}')
while b"spawn_request" not in os.read(0, 65536):
    pass
say(b"spawn_ready", b'{"id":1,"process_id":1}')
while os.read(0, 65536):
    pass
"""


async def test_a_runner_that_does_not_say_what_its_commands_take_holds_up_no_list(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(tree, "END_SECONDS", 0.05)
    over_it = client.start(["sleep", "1000"], runner=[sys.executable, "-c", _MUTE])
    async with over_it as far, client.start(["sleep", "1000"]) as near:
        listed = {process.process_id: process for process in await client.processes(usage=True)}
        assert listed[far.id].cpu_ms is UNSET
        assert isinstance(listed[near.id].cpu_ms, int)


_FICKLE = """
import os
hello = b'{"version":2,"type":"hello","payload":{"versions":[2],"descriptors":true,"process_id":1}}'
os.write(1, len(hello).to_bytes(4, "little") + hello)
heard = b""
while b"spawn_request" not in heard:
    heard += os.read(0, 65536)
"""


async def test_runners_that_end_during_a_start_leave_no_descriptor(client: Client) -> None:
    async def start() -> None:
        with pytest.raises(SpawnError, match=r"it has ended$"):
            await client.run(["true"], runner=[sys.executable, "-c", _FICKLE])

    await client.run(["true"])  # what every server keeps is there from now on
    gc.collect()  # of the tests before
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await start()
    while True:  # those of the runners go a moment later
        if len(os.listdir("/proc/self/fd")) <= before:
            break
        await trio.sleep(0.01)


@contextmanager
def without_descriptors() -> Iterator[None]:
    """Let this process open nothing."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_without_a_descriptor_no_runner_is_launched_and_the_next_start_launches_it(client: Client) -> None:
    with without_descriptors(), pytest.raises(SpawnError) as error:
        await client.run(["true"], runner=LAUNCH)
    assert (error.value.facts["stage"], error.value.facts["errno"]) == ("resources", errno.EMFILE)
    assert (await client.run(["echo", "again"], runner=LAUNCH)).stdout == b"again\n"


async def test_a_command_without_a_descriptor_for_its_end_is_none_and_the_others_hear_of_theirs() -> None:
    async with linked() as (channel, command, _):
        with without_descriptors(), pytest.raises(OSError, match="Too many open files"):
            RemoteCommand(channel, [], passes=True)
        other = RemoteCommand(channel, [], passes=False)
        channel.lose("it is of no use")
        assert command.is_lost
        assert other.is_lost


@pytest.mark.parametrize("term", [{"user": "nobody"}, {"stdout": "/a"}, {"stderr": "/a"}])
async def test_what_a_runner_does_not_know_is_refused(client: Client, term: dict[str, Any]) -> None:
    with pytest.raises(InvalidParamsError, match="over a runner"):
        await client.run(["true"], runner=LAUNCH, **term)


# -- a hostile runner --

READY = [HelloBack([2], False, 1), SpawnReady(1, 1)]
LIES: dict[str, list[Struct | bytes]] = {
    "no frame": [b"\xff\xff\xff\xff"],
    "no JSON": [b"\1\0\0\0{"],
    "another version": [HelloBack([1], False, 1)],
    "no hello": [Pong()],
    "two hellos": [HelloBack([2], False, 1), HelloBack([2], False, 1)],
    "an id that is nobody's": [*READY, Exit(2, 0)],
    "no ready": [READY[0], Exit(1, 0)],
    "two readies": [*READY, SpawnReady(1, 1)],
    "an error behind ready": [*READY, Error(1, "spawn_failed", "no")],
    "a stream that is not there": [*READY, Data(1, "pty", b"x")],
    "input": [*READY, Data(1, "stdin", b"x")],
    "too much at once": [*READY, Data(1, "stdout", bytes(DATA_BYTES + 1))],
    "no credit": [*READY, *[Data(1, "stdout", bytes(DATA_BYTES))] * (WINDOW_BYTES // DATA_BYTES + 1)],
    "output behind its end": [*READY, Eof(1, "stdout"), Data(1, "stdout", b"x")],
    "two ends of a stream": [*READY, Eof(1, "stdout"), Eof(1, "stdout")],
    "a signal that is none": [*READY, Exit(1, 137, "SIGKILL\n")],
    "two exits": [*READY, Exit(1, 0), Exit(1, 0)],
    "two empty trees": [*READY, TreeEmpty(1, "mark"), TreeEmpty(1, "mark")],
    "more input than there was": [*READY, StdinDone(1, 1)],
    "an answer to no question": [*READY, Signaled(1, 1)],
    "an answer of another kind": [*READY, Looked(7)],
    "the end in the middle": [*READY, frames.encode(Exit(1, 0))[:-1]],
    "the end": [*READY],
    "a word of its own": [*READY, Error(None, "protocol", "I say so")],
}


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, RemoteCommand, trio.SocketStream]]:
    """A link with one command, and the runner's end of it."""
    ours, theirs = socket.socketpair()
    channel = Link(trio.socket.from_stdlib_socket(ours), "liar")
    command = RemoteCommand(channel, ["stdout"], passes=False)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as runner:
                yield channel, command, runner
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_ends_the_runner_and_all_that_is_known_of_its_commands(lie: str) -> None:
    async with linked() as (channel, command, runner):
        for message in LIES[lie]:
            await runner.send_all(message if isinstance(message, bytes) else frames.encode(message))
        await runner.send_eof()
        await channel.gone.wait()
        assert channel.why is not None
        assert ("broke the protocol" in channel.why) == (not lie.startswith("the end")), channel.why
        assert command.is_lost or command.status is not None
        assert await tree.RunnerTree(command).kill() is None or lie == "two empty trees"
        assert command.empty.is_set()
        await command_over(command)


async def command_over(command: RemoteCommand) -> None:
    """What has arrived can be taken, and nothing waits for more."""
    while command.arrivals.take() is not None:
        pass
    assert command.arrivals.is_over
    its = tree.RunnerTree(command)
    assert await its.remaining() == []
    assert its.signal(9) == 0
    await its.wait_alone()
    await its.end()


async def test_a_command_that_the_runner_has_failed_is_lost_and_no_other() -> None:
    async with linked() as (channel, command, runner):
        for message in [*READY, Data(1, "stdout", b"so far"), Error(1, "failed", "KeyError")]:
            await runner.send_all(frames.encode(message))
        await command.ended.wait()
        assert command.is_lost
        assert command.arrivals.take() == ("stdout", b"so far")
        await command_over(command)
        assert channel.why is None


async def test_nobody_waits_for_word_of_a_command_that_the_runner_has_failed() -> None:
    async with linked() as (_, command, runner):
        for message in READY:
            await runner.send_all(frames.encode(message))
        await command.started.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.RunnerTree(command).look)
            await trio.testing.wait_all_tasks_blocked()
            await runner.send_all(frames.encode(Error(1, "failed", "KeyError")))


async def test_a_question_waits_for_others_that_have_no_answer_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_MOST_QUESTIONS", 1)
    found: list[Member] = []
    async with linked() as (_, command, runner):
        for message in READY:
            await runner.send_all(frames.encode(message))
        await command.started.wait()
        its = tree.RunnerTree(command)
        first = its.signal(signal.SIGCONT)
        assert not isinstance(first, int)

        async def look() -> None:
            found.extend(await its.remaining())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            await runner.send_all(frames.encode(Signaled(1, 1)))
            assert await first == 1
            heard = b""
            while b'"look"' not in heard:
                heard += await runner.receive_some()
            await runner.send_all(frames.encode(Looked(2, [Member(1, "sleep")])))
    assert found == [Member(1, "sleep")]


async def test_a_runner_that_does_not_say_that_all_is_gone_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "END_SECONDS", 0.05)
    async with linked() as (channel, command, runner):
        for message in READY:
            await runner.send_all(frames.encode(message))
        await command.started.wait()
        assert await tree.RunnerTree(command).kill() is None
        assert channel.why == "it does not say that what was to be killed, or has ended, is gone"


async def test_a_runner_that_gives_no_sign_of_life_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    ours, theirs = trio.socket.socketpair()
    channel = Link(ours, "silent")
    channel.ready.set()
    begun = trio.current_time()
    with theirs:
        await channel.run()
    assert channel.why == "it has said nothing for 30 seconds"
    assert trio.current_time() - begun == link.SILENCE_SECONDS


async def test_a_runner_that_does_not_read_is_given_up_before_it_costs_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_MOST_WAITING_BYTES", 100_000)
    async with linked() as (channel, command, runner):
        for message in READY:
            await runner.send_all(frames.encode(message))
        await command.started.wait()
        it = tree.RunnerInput(command, is_terminal=False)
        given = it.write(memoryview(bytes(10_000)))
        assert given == 10_000
        its = tree.RunnerTree(command)
        for _ in range(10_000):
            its.ask_to_end_now()
            if channel.why is not None:
                break
        assert channel.why == "it does not read what is sent to it"
        with pytest.raises(BrokenPipeError):
            it.write(memoryview(b"x"))


async def test_input_goes_no_further_than_its_credit() -> None:
    async with linked() as (_, command, runner), trio.open_nursery() as nursery:
        for message in READY:
            await runner.send_all(frames.encode(message))
        await command.started.wait()

        async def read() -> None:
            async for _ in runner:
                pass

        nursery.start_soon(read)
        given, it = 0, tree.RunnerInput(command, is_terminal=False)
        while command.input_credit:
            with suppress(BlockingIOError):
                given += it.write(memoryview(bytes(4 * DATA_BYTES)))
            await trio.lowlevel.checkpoint()
        assert given == STDIN_WINDOW_BYTES
        with pytest.raises(BlockingIOError):
            it.write(memoryview(b"x"))
        await runner.send_all(frames.encode(StdinDone(1, 1)))
        await it.wait_writable()
        assert it.write(memoryview(b"xy")) == 1
        await runner.send_all(frames.encode(StdinDone(1, 0, closed=True)))
        await it.wait_writable()
        with pytest.raises(BrokenPipeError):
            it.write(memoryview(b"x"))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("until_exit", [True, False])
async def test_an_end_that_comes_while_the_reader_lags_is_seen(until_exit: bool) -> None:
    arrivals = Arrivals(["stdout"], lambda stream, size: None)
    log = OutputLog(KIB, 1, streams=["stdout"], acknowledged=True)
    feed = Feed("a", log, lambda id, entry: None, None)
    async with linked() as (_, command, _), trio.open_nursery() as nursery:
        ending = Ending(tree.RunnerTree(command), feed, math.inf, math.inf, 0)
        pump = FramedPump(arrivals, log, feed, ending)
        arrivals.put("stdout", b"a piece")
        nursery.start_soon(pump.run_until_exit if until_exit else pump.run)
        await trio.testing.wait_all_tasks_blocked()
        assert not log.has_room
        arrivals.end("stdout")
        await trio.testing.wait_all_tasks_blocked()
        feed.let_run()
    assert pump.is_over
