"""A guardian is always there: ready before a start is answered, continued or replaced when it is silent.

And the server that is short of descriptors goes on, and keeps its promises.
"""

from __future__ import annotations

import os
import pkgutil
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from execsrv._processes import guardian, proc, rlimit_mark
from execsrv._processes.command import settle
from execsrv._processes.supervisor import open_supervisor
from execsrv._processes.survey import survey
from execsrv._wire.lines import LineChannel
from execsrv.limits import Limits
from tests.peers import PATIENCE, Peer, b64, open_peer
from tests.processes import marked, new_mark, until_gone, until_marked
from tests.test_surroundings import traced
from tests.test_survivors import as_ordinary_user
from tests.test_survivors import open_path as open_path

DAEMON = (sys.executable, "-m", "execsrv", "serve")
NAP = "exec -a @ sleep 1000"


def guardians(server: int) -> list[int]:
    return [pid for pid in proc.children(server) if b"guardian.py" in proc.table(pid, "cmdline")]


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@asynccontextmanager
async def connected(
    path: Path,
    *before: str,
    command: Sequence[str] = DAEMON,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = ("--no-cgroup",),
) -> AsyncIterator[tuple[Peer, subprocess.Popen[bytes]]]:
    """A peer of a daemon of its own, without a control group unless the options are others."""
    url = f"unix://{path}/s"
    argv = [*before, *command, *options, "--listen", url]
    stderr = (path / "log").open("wb")
    with stderr, subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=stderr, env=env) as daemon:  # noqa: ASYNC220
        try:
            assert daemon.stdout is not None
            assert await trio.to_thread.run_sync(daemon.stdout.readline), (path / "log").read_text()
            stream = await trio.open_unix_socket(f"{path}/s")
            async with open_peer(LineChannel(stream, stream, Limits())) as peer:
                await peer.handshake()
                yield peer, daemon
        finally:
            daemon.kill()


async def test_who_is_told_of_a_start_is_guarded(tmp_path: Path) -> None:
    """The server is killed as soon as the first start is answered."""
    mark = new_mark()
    async with connected(tmp_path) as (peer, daemon):
        await peer.start("a", ["bash", "-c", NAP.replace("@", mark)])
        daemon.kill()
        await until(lambda: not proc.living(daemon.pid))
        await until_gone(mark)
    assert "guardian" not in (tmp_path / "log").read_text().replace("with a guardian", "")


async def test_a_server_that_listens_has_one_before_anybody_comes(tmp_path: Path) -> None:
    """So the first command does not wait for it."""
    argv = [*DAEMON, "--no-cgroup", "--listen", f"unix://{tmp_path}/s"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:  # noqa: ASYNC220
        try:
            await until(lambda: guardians(daemon.pid))
        finally:
            daemon.kill()


async def test_a_stopped_guardian_goes_on(tmp_path: Path) -> None:
    async with connected(tmp_path) as (peer, daemon):
        await peer.start("a", ["sleep", "1000"])
        (guardian,) = guardians(daemon.pid)
        os.kill(guardian, signal.SIGSTOP)
        await until(lambda: proc.state(guardian) == "T")
        await until(lambda: proc.state(guardian) != "T")
        assert guardians(daemon.pid) == [guardian]
        told = f"the guardian (pid {guardian}) was stopped; continuing it"
        await until(lambda: told in (tmp_path / "log").read_text())  # a thread writes it


async def test_a_guardian_that_cannot_go_on_is_replaced(tmp_path: Path) -> None:
    """A debugger holds it, also when it has been killed."""
    mark = new_mark()
    async with connected(tmp_path) as (peer, daemon):
        await peer.start("a", ["bash", "-c", NAP.replace("@", mark)])
        (guardian,) = guardians(daemon.pid)
        async with traced(guardian):
            await until(lambda: set(guardians(daemon.pid)) - {guardian})
            await peer.start("b", ["true"])  # which waits for it to be ready
            daemon.kill()
            await until_gone(mark)


async def test_a_start_does_not_wait_for_ever_for_a_guardian(tmp_path: Path) -> None:
    """The interpreter for it hangs: here it is a fifo that nobody writes."""
    code = f"""
import sys, trio
from execsrv import connect_in_process
from execsrv._processes import guardian_keeper, guardian
async def main():
    guardian.__file__ = {str(tmp_path / "fifo")!r}
    guardian_keeper.READY_SECONDS = 0.2
    async with connect_in_process(own_process=True) as client:
        print((await client.run(["echo", "hi"])).stdout)
        guardian_keeper.LEAVE_SECONDS = 0.1
trio.run(main)
"""
    os.mkfifo(tmp_path / "fifo")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: ASYNC221
    assert done.stdout == "b'hi\\n'\n", done.stderr
    assert "the guardian is not ready" in done.stderr
    with suppress(OSError):  # it has opened it, or is gone
        os.close(os.open(tmp_path / "fifo", os.O_WRONLY | os.O_NONBLOCK))


# -- a server that stands still --

SHED = """
import os, resource, time
resource.setrlimit(resource.RLIMIT_RTTIME, (1, 1))
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.execvp("bash", ["bash", "-c", "exec -a @ sleep 1000"])
"""


@pytest.mark.few
@pytest.mark.parametrize("option", ["--cgroup", "--no-cgroup"])
async def test_a_server_that_stands_still_loses_its_sessions_where_that_was_asked_for(
    tmp_path: Path, option: str
) -> None:
    """It goes on later, and sees what has become of them."""
    mark = new_mark()
    scripts = [NAP, f"setsid bash -c '{NAP}' </dev/null >/dev/null 2>&1 & wait"]
    async with connected(tmp_path, options=[option, "--guardian-patience", "0.5"]) as (peer, daemon):
        for number, script in enumerate(scripts):
            await peer.start(f"{number}", ["bash", "-c", script.replace("@", mark)])
        await until_marked(mark, 2)
        shed = new_mark()
        if option == "--cgroup":
            await until(lambda: b"/execsrv-" in proc.table(daemon.pid, "cgroup") or not _may_make_groups())
        if b"/execsrv-" in proc.table(daemon.pid, "cgroup"):
            await peer.start("shed", [sys.executable, "-c", SHED.replace("@", shed)])
            await until_marked(shed, 1)
        for _ in range(2):  # it is no less guarded after the first time
            os.kill(daemon.pid, signal.SIGSTOP)
            await until_gone(mark)
            await until_gone(shed)
            assert proc.state(daemon.pid) == "T"
            os.kill(daemon.pid, signal.SIGCONT)
            assert (await peer.until_told(f"{number}", "exited"))["signal"] == "SIGKILL"
            await until(lambda: "guardian_patience" in (tmp_path / "log").read_text())
            (tmp_path / "log").write_text("")
            number += 1
            await peer.start(f"{number}", ["bash", "-c", NAP.replace("@", mark)])
            await until_marked(mark, 1)
        grouped = b"/execsrv-" in proc.table(daemon.pid, "cgroup")
        assert grouped == (option == "--cgroup" and _may_make_groups())
        daemon.kill()
        await until_gone(mark)


def _may_make_groups() -> bool:
    (found,) = [layer.available for layer in survey().layers if layer.name == "cgroup"]
    return found


async def test_a_server_that_stands_still_is_taken_for_living_unless_that_was_asked_for(tmp_path: Path) -> None:
    mark = new_mark()
    async with connected(tmp_path) as (peer, daemon):
        await peer.start("a", ["bash", "-c", NAP.replace("@", mark)])
        os.kill(daemon.pid, signal.SIGSTOP)
        await trio.sleep(3)  # more than any beat takes
        os.kill(daemon.pid, signal.SIGCONT)
        await peer.call("process/list", {})
        assert marked(mark)
    assert "guardian_patience" not in (tmp_path / "log").read_text()


@asynccontextmanager
async def guarding(patience: float) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    """A guardian of this process, which sends no beat by itself, and the mark of a process that it would kill."""
    server = rlimit_mark.new_server_mark()
    assert server is not None
    mark = new_mark()
    words = [guardian.__file__, os.getpid(), server.slot, server.server, 0, patience]
    argv = [sys.executable, "-I", "-S", *map(str, words)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, bufsize=0) as guard:  # noqa: ASYNC220
        try:
            assert guard.stdout is not None
            await trio.to_thread.run_sync(guard.stdout.readline)
            with server.of(1).carried():
                nap = subprocess.Popen(["bash", "-c", NAP.replace("@", mark)])  # noqa: ASYNC220
            try:
                await until_marked(mark, 1)
                yield guard, mark
            finally:
                nap.kill()
                nap.wait()
        finally:
            guard.kill()


async def test_a_guardian_hears_every_beat() -> None:
    """Together they take longer than its patience."""
    async with guarding(3) as (guard, mark):
        assert guard.stdin is not None
        assert guard.stdout is not None
        for _ in range(4):
            await trio.sleep(1)
            guard.stdin.write(b"\n")
            assert await trio.to_thread.run_sync(guard.stdout.readline) == b"\n"
        assert marked(mark)
        assert await trio.to_thread.run_sync(guard.stdout.read, 1) == guardian.SILENCE
        assert not marked(mark)


async def test_a_guardian_does_not_count_the_time_in_which_it_was_stopped_itself() -> None:
    """So it is when a whole machine or container stands still."""
    async with guarding(3) as (guard, mark):
        for _ in range(2):
            os.kill(guard.pid, signal.SIGSTOP)
            await trio.sleep(3.5)
            os.kill(guard.pid, signal.SIGCONT)
            await until(lambda: proc.state(guard.pid) == "S")
            assert marked(mark)
        assert guard.stdout is not None
        assert await trio.to_thread.run_sync(guard.stdout.read, 1) == guardian.SILENCE
        assert not marked(mark)


# -- a server that is short of descriptors --

SHORT = ["bash", "-c", 'ulimit -n 64; exec "$@"', "sh"]


async def test_a_guardian_killed_twice_at_the_limit_ends_no_server(tmp_path: Path) -> None:
    async with connected(tmp_path, *SHORT) as (peer, daemon):
        await peer.start("a", ["sleep", "1000"])
        await take_all(peer)
        for _ in range(2):
            await until(lambda: guardians(daemon.pid))
            for pid in guardians(daemon.pid):
                os.kill(pid, signal.SIGKILL)
                await until(lambda: not proc.living(pid))  # noqa: B023
        await until(lambda: guardians(daemon.pid))
        assert await peer.call("process/terminate", {"processId": "a"}) == {"running": True}
        assert (await peer.until_told("a", "exited"))["signal"] == "SIGKILL"


async def take_all(peer: Peer) -> None:
    """Start commands until there is no descriptor for another one."""
    for number in range(100):
        try:
            await peer.start(f"taken-{number}", ["sleep", "1000"])
        except Exception:
            return
    raise AssertionError("there were enough descriptors for all")


async def test_an_end_has_the_descriptors_that_it_needs(tmp_path: Path) -> None:
    """Strays of a session are found and killed though all others are taken."""
    mark = new_mark()
    async with connected(tmp_path, *SHORT) as (peer, daemon):
        await peer.start("a", ["bash", "-c", f"(setsid bash -c '{NAP}' &) ; sleep 1000".replace("@", mark)])
        await until_marked(mark, 1)
        await take_all(peer)
        await peer.call("process/terminate", {"processId": "a"})
        await until_gone(mark)
        assert daemon.poll() is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root may see the descriptors of a server, and take the rest")
async def test_a_method_that_nobody_has_called_yet_is_answered_without_a_descriptor(tmp_path: Path) -> None:
    """Its module is loaded then."""
    async with connected(tmp_path) as (peer, daemon):
        await peer.start("a", ["cat"], pipeStdin=True)
        taken = {int(name) for name in os.listdir(f"/proc/{daemon.pid}/fd")}
        most = min(set(range(len(taken) + 1)) - taken)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (most, most))
        _, message, _ = await peer.refused("process/start", peer.start_params("b", ["true"]))
        assert "Too many open files" in message
        answer = await peer.call("process/write", {"processId": "a", "chunk": b64(b"go\n"), "writeId": "go"})
        assert answer == {"status": "accepted"}
        assert len((await peer.call("process/list", {}))["processes"]) == 1
        assert (await peer.call("connection/list", {}))["connections"]
        assert (await peer.call("server/limits", {}))["limits"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make a set-user-id program")
async def test_a_stray_of_another_user_at_the_limit_ends_no_server(open_path: Path) -> None:
    """Its mark can only be read from the process table, for which there is no descriptor."""
    command, env = as_ordinary_user(open_path)
    if os.statvfs(open_path).f_flag & os.ST_NOSUID:
        pytest.skip("there are no set-user-id programs in this directory")
    program = open_path / "set-user-id"
    shutil.copy("/bin/sleep", program)
    program.chmod(0o4755)
    script = f"read go; (setsid {program} 1 </dev/null >/dev/null 2>&1 &) ; exec sleep 1000"
    async with connected(open_path, *SHORT, command=command, env=env) as (peer, daemon):
        await peer.start("a", ["sh", "-c", script], pipeStdin=True)
        await take_all(peer)
        others = [await trio.open_unix_socket(f"{open_path}/s") for _ in range(10)]
        await peer.call("process/write", {"processId": "a", "chunk": b64(b"go\n"), "writeId": "go"})

        def strays() -> list[int]:
            return [pid for pid in proc.children(daemon.pid) if proc.name(pid) == "set-user-id"]

        await until(strays)
        (stray,) = strays()
        await until(lambda: not proc.living(stray))
        for _ in range(20):  # it goes on while it would like to reap that
            await peer.call("process/list", {})
            await trio.sleep(0.02)
        for other in others:  # which gives some back
            await other.aclose()
        await until(lambda: not strays())
        assert daemon.poll() is None


# -- faults of ours --


@pytest.mark.few(3)
@pytest.mark.parametrize("where", ["guardian_keeper._hears", "subreaper.Strays._read", "guardian_keeper.Guard._start"])
@pytest.mark.parametrize("error", [MemoryError(), ValueError("unexpected"), OSError(5, "I/O error")], ids=repr)
async def test_a_fault_ends_no_server_and_is_in_the_log(
    where: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"execsrv._processes.{where}"
    real = pkgutil.resolve_name(place)
    faults = 0

    def faulty(*args: object) -> object:
        nonlocal faults
        faults += 1
        if faults == 1:
            raise error
        return real(*args)

    mark = new_mark()
    async with open_supervisor(own_process=True) as supervisor:
        command = settle(["bash", "-c", NAP.replace("@", mark)], "/", dict(os.environ))
        if where == "guardian_keeper.Guard._start":  # which comes with the first command, however long that takes
            monkeypatch.setattr(place, faulty)
        session = supervisor.spawn(command, size=None, pipe_stdin=False)
        try:
            await until_marked(mark, 1)
            if where == "guardian_keeper._hears":
                await until(lambda: repr(supervisor.guard) == "<Guard ready>")
            if where != "guardian_keeper.Guard._start":
                monkeypatch.setattr(place, faulty)
            supervisor.expect_starts()
            with subprocess.Popen(["sleep", "0"]):  # noqa: ASYNC220
                await until(lambda: faults > 1)
            await until(lambda: repr(supervisor.guard) == "<Guard ready>")
            assert marked(mark)  # nor any session
        finally:
            for descriptor in session.outputs.values():
                os.close(descriptor)
            await session.tree.end()
    expected = where != "subreaper.Strays._read" or not isinstance(error, OSError)
    assert any("trying on" in record.getMessage() for record in caplog.records) == expected


# -- a machine that is busy --


async def test_an_end_that_waits_for_its_turn_gives_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others that look for long have theirs first, longer than what was killed may take to be gone."""
    mark = new_mark()
    monkeypatch.setattr("execsrv._processes.tree.END_SECONDS", 0.05)
    async with open_supervisor(own_process=True) as supervisor, trio.open_nursery() as nursery:
        command = settle(["bash", "-c", f"setsid bash -c '{NAP}' & exit".replace("@", mark)], "/", dict(os.environ))
        session = supervisor.spawn(command, size=None, pipe_stdin=False)
        await until_marked(mark, 1)
        async with supervisor.register.turn:
            nursery.start_soon(session.tree.end)
            await trio.sleep(0.5)
        await until_gone(mark)
        for descriptor in session.outputs.values():
            os.close(descriptor)


# -- marks --


@pytest.mark.parametrize("number", ["soft ^ 0xfff", "soft - 1", "soft + 7"])
async def test_who_gives_itself_the_mark_of_no_session_ends_with_the_last(tmp_path: Path, number: str) -> None:
    mark = new_mark()
    code = f"""
import os, resource
if os.fork(): os._exit(0)
os.setsid()
soft, hard = resource.getrlimit({rlimit_mark.RTTIME})
resource.setrlimit({rlimit_mark.RTTIME}, ({number}, hard))
if os.fork(): os._exit(0)
os.closerange(0, 3)
os.execvp("sleep", ["{mark}", "1000"])
"""
    async with connected(tmp_path) as (peer, _):
        await peer.start("a", [sys.executable, "-I", "-S", "-c", code])
        await peer.until_told("a", "exited")
        await until_marked(mark, 1)
        await peer.call("process/terminate", {"processId": "a"})
        await until_gone(mark)
