"""A debugger, a lack of descriptors, other servers and other children in the same process: all keep their promises."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from execsrv._processes import proc, rlimit_mark, subreaper
from execsrv._processes.command import settle
from execsrv._processes.supervisor import Spawned, Supervisor, open_supervisor
from execsrv._server.single_connection import serve_connection
from execsrv._wire.lines import LineChannel
from execsrv._wire.memory import open_memory_pair
from execsrv.limits import ServerConfig
from tests.peers import PATIENCE, Peer, open_peer
from tests.processes import marked, new_mark, until_marked


async def until(condition: Callable[[], object]) -> None:
    """Wait for something of the process table, which can only be asked again and again."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


def start(supervisor: Supervisor, script: str) -> Spawned:
    command = settle(["bash", "-c", script], "/", {"PATH": os.environ["PATH"]})
    return supervisor.spawn(command, size=None, pipe_stdin=False)


async def end(spawned: Spawned) -> str | None:
    for descriptor in spawned.outputs.values():
        os.close(descriptor)
    layer = await spawned.tree.kill()
    await spawned.tree.end()
    return layer


# -- a debugger --

TRACER = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
failed = libc.ptrace(16, int(sys.argv[1]), None, None)  # PTRACE_ATTACH, and no further wait
print("refused" if failed else "attached", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def traced(pid: int) -> AsyncIterator[None]:
    """Hold a process as a debugger does, as long as the block lasts."""
    argv = [sys.executable, "-I", "-S", "-c", TRACER, str(pid)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracer:  # noqa: ASYNC220
        assert tracer.stdout is not None
        try:
            if await trio.to_thread.run_sync(tracer.stdout.readline) != b"attached\n":
                pytest.skip("ptrace is not permitted here")
            yield
        finally:
            tracer.kill()


class Place:
    """A server in a process of that pid, and ways to it."""

    def __init__(self, pid: int, open_peer: Callable[[], AbstractAsyncContextManager[Peer]]) -> None:
        self.pid = pid
        self.open_peer = open_peer


@pytest.fixture(params=["daemon", "guest"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "guest":

        @asynccontextmanager
        async def open_guest() -> AsyncIterator[Peer]:
            ours, theirs = open_memory_pair()
            nursery.start_soon(serve_connection, theirs, guest, ServerConfig())
            async with open_peer(ours) as peer:
                await peer.handshake()
                yield peer

        guest = Supervisor()
        async with trio.open_nursery() as nursery:
            yield Place(os.getpid(), open_guest)
            nursery.cancel_scope.cancel()
        return

    @asynccontextmanager
    async def open_daemons() -> AsyncIterator[Peer]:
        stream = await trio.open_unix_socket(path)
        async with open_peer(LineChannel(stream, stream, ServerConfig())) as peer:
            await peer.handshake()
            yield peer

    path = str(tmp_path / "s")
    argv = [sys.executable, "-m", "execsrv", "serve", "--listen", f"unix://{path}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as daemon:  # noqa: ASYNC220
        assert daemon.stdout is not None
        await trio.to_thread.run_sync(daemon.stdout.readline)
        try:
            yield Place(daemon.pid, open_daemons)
        finally:
            daemon.kill()


@pytest.mark.parametrize("how", ["killed", "terminated"])
async def test_what_a_debugger_holds_is_told_when_it_lets_go(place: Place, how: str) -> None:
    mark = new_mark()
    async with place.open_peer() as peer, place.open_peer() as other:
        await peer.start("a", ["bash", "-c", f"exec -a {mark} sleep 1000"])
        await until_marked(mark, 1)
        (pid,) = marked(mark)
        async with traced(pid):
            if how == "killed":
                os.kill(pid, signal.SIGKILL)
            else:
                assert await peer.call("process/terminate", {"processId": "a"}) == {"running": True}
            await until(lambda: not proc.living(pid))
            for number in range(3):
                assert await other.run(f"{number}", ["echo", "fine"]) == (0, b"fine\n", b"")
            assert await peer.call("process/terminate", {"processId": "a"}) == {"running": False}
            assert not [what for what, _ in peer.told("a") if what == "exited"]
            if place.pid != os.getpid():
                assert await busy_share(place.pid) < 0.5
        told = await peer.until_told("a", "exited")
        assert (told["exitCode"], told["signal"]) == (137, "SIGKILL")
        assert told["reason"] == ("terminated" if how == "terminated" else "signaled")
        await peer.until_told("a", "closed")
        await until(lambda: pid not in proc.children(place.pid))


async def busy_share(pid: int) -> float:
    """Return the part of half a second in which a process has used the processor."""

    def used() -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

    before = used()
    await trio.sleep(0.5)
    return (used() - before) / os.sysconf("SC_CLK_TCK") / 0.5


async def test_a_debugger_holds_up_no_hang_up(place: Place) -> None:
    mark = new_mark()
    async with place.open_peer() as other:
        async with place.open_peer() as peer:
            await peer.start(
                "a", ["bash", "-c", f"setsid bash -c 'exec -a {mark} sleep 1000' & exec -a {mark} sleep 1000"]
            )
            await until_marked(mark, 2)
            pid = next(pid for pid in marked(mark) if pid in proc.children(place.pid))
            async with traced(pid):
                await peer.channel.aclose()
                await until(lambda: not marked(mark))
                assert await other.run("b", ["echo", "fine"]) == (0, b"fine\n", b"")
        # A guest hears of no child's end, and looks at its next start.
        for number in range(1000):
            await other.run(f"{number}", ["true"])
            if pid not in proc.children(place.pid):
                return
        raise AssertionError("it was never reaped")


# -- no descriptors --

SHORT = """
import logging, os, resource, signal, sys, trio
from execsrv._processes import guardian_keeper, proc, supervisor
from execsrv._processes.command import settle

class Said(logging.Handler):
    texts = []
    def emit(self, record):
        self.texts.append(record.getMessage())

def guardians():
    return [pid for pid in proc.children(os.getpid()) if b"guardian.py" in proc.table(pid, "cmdline")]

async def until(condition):
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.01)

logging.getLogger("execsrv").addHandler(Said())
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

async def main():
    async with supervisor.open_supervisor(own_process=True) as ours:
        spawned = ours.spawn(settle(["sleep", "1000"], "/", {"PATH": os.environ["PATH"]}), size=None, pipe_stdin=False)
        await BODY(spawned)
        await spawned.tree.end()
    assert not guardians()

async def tried_again(spawned):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    guardian_keeper.RETRY_SECONDS = 0.01, 0.02
    await trio.sleep(0.3)  # some more tries
    assert not spawned.tree.leader.has_ended
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(guardians)
    assert ["cannot start the guardian" in text for text in Said.texts] == [True], Said.texts

async def in_reserve(spawned):
    await until(guardians)
    (guardian,) = guardians()
    known = {spawned.tree.pid, *guardians()}
    children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_all)
        await trio.sleep(0)
        os.kill(guardian, signal.SIGKILL)
        await until(lambda: set(map(int, os.pread(children, 1000, 0).split())) - known)
        nursery.cancel_scope.cancel()
    os.close(children)
    for descriptor in taken:
        os.close(descriptor)
    assert not [text for text in Said.texts if "cannot" in text], Said.texts

taken = []
async def take_all():
    while True:
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        await trio.sleep(0)

trio.run(main)
"""


@pytest.mark.parametrize("body", ["tried_again", "in_reserve"])
def test_a_guardian_is_replaced_without_descriptors(body: str) -> None:
    done = subprocess.run([sys.executable, "-c", SHORT.replace("BODY", body)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# -- other servers in the process --


@pytest.mark.parametrize("older_leaves", ["first", "last"])
async def test_servers_of_one_process_leave_in_any_order(older_leaves: str) -> None:
    def settings() -> list[object]:
        return [subreaper.is_subreaper(), signal.getsignal(signal.SIGCHLD), resource.getrlimit(rlimit_mark.RTTIME)]

    async def hold(leave: trio.Event, left: trio.Event, *, task_status: trio.TaskStatus[Supervisor]) -> None:
        async with open_supervisor(own_process=True) as supervisor:
            task_status.started(supervisor)
            await leave.wait()
        left.set()

    async def check(supervisor: Supervisor) -> None:
        """A daemon that ends by itself is reaped, and one that does not is found, when the leader is gone."""
        mark = new_mark()
        spawned = start(supervisor, f"setsid true & setsid bash -c 'exec -a {mark} sleep 1000' >/dev/null 2>&1 &")
        await until_marked(mark, 1)
        await spawned.tree.leader.wait_exited()
        await until(lambda: set(proc.children(os.getpid())) - before == {spawned.tree.pid, *marked(mark), *guardians()})
        assert await end(spawned) == "subreaper"
        assert not marked(mark)

    def guardians() -> list[int]:
        return [pid for pid in proc.children(os.getpid()) if b"guardian.py" in proc.table(pid, "cmdline")]

    before, were = set(proc.children(os.getpid())), settings()
    ways = [(trio.Event(), trio.Event()), (trio.Event(), trio.Event())]
    async with trio.open_nursery() as nursery:
        servers = [await nursery.start(hold, *way) for way in ways]
        for server in servers:
            await check(server)
        order = [0, 1] if older_leaves == "first" else [1, 0]
        for position, index in enumerate(order):
            leave, left = ways[index]
            leave.set()
            await left.wait()
            for other in order[position + 1 :]:
                await check(servers[other])
    assert settings() == were


# -- other children of the process --


async def test_orphans_of_other_children_are_reaped_and_no_status_is_taken() -> None:
    before = set(proc.children(os.getpid()))
    async with open_supervisor(own_process=True) as supervisor:
        spawned = start(supervisor, "sleep 1000")
        others = [
            subprocess.Popen(["sh", "-c", f"exit {code}"], start_new_session=code % 2 == 0)  # noqa: ASYNC220
            for code in range(1, 7)
        ]
        forked = os.fork()
        if not forked:
            os.setsid()
            os._exit(7)
        for _ in range(10):  # a daemon each, in the session of a process that has gone
            subprocess.run(["setsid", "sh", "-c", "(sleep 0.05 &) ; exit 0"], check=True)  # noqa: ASYNC221

        def zombies() -> set[int]:
            return {pid for pid in proc.children(os.getpid()) if not proc.living(pid)} - before

        await until(lambda: zombies() == {forked, *(other.pid for other in others)})
        assert [other.wait() for other in others] == [1, 2, 3, 4, 5, 6]
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 7  # noqa: ASYNC222
        await end(spawned)


# -- no process table --


@pytest.mark.skipif(os.getuid() != 0, reason="only root may hide /proc")
@pytest.mark.parametrize("how", ["hidden", "another namespace's"])
def test_without_a_process_table_it_says_so(how: str) -> None:
    serve = f"exec {sys.executable} -m execsrv serve --listen ws://127.0.0.1:0"
    script = f"mount -t tmpfs none /proc || exit 77; {serve}" if how == "hidden" else serve
    unshare = ["unshare", "--mount", *(["--pid", "--fork"] if how != "hidden" else [])]
    done = subprocess.run([*unshare, "sh", "-c", script], capture_output=True, text=True)
    if done.returncode != 1:
        pytest.skip(f"not allowed here: {done.stderr}")
    complaint = "cannot keep hold of processes without the process table of our own pid namespace: '/proc'"
    assert done.stderr.splitlines() == [f"execsrv: [Errno 2] {complaint}"]
