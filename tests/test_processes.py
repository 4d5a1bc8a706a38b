"""Starting and ending processes, below any session: both ways of starting must mean the same."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from execsrv._lent import Lent
from execsrv._processes import portable_spawn, posix_spawn, spawn, terminal, tree
from execsrv._processes.command import settle
from execsrv._processes.membership import Register
from execsrv._processes.subreaper import open_strays
from execsrv._processes.supervisor import Spawned, Supervisor
from execsrv.errors import SpawnError
from execsrv.protocol import Size
from tests.processes import is_caught, may_become_nobody

PATH = {"PATH": os.environ["PATH"]}
WAYS: list[Callable[..., None]] = [portable_spawn.start, *([posix_spawn.start] if posix_spawn.available else [])]


@pytest.fixture(params=WAYS, ids=lambda way: way.__module__.rpartition(".")[2])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The way that `spawn` starts processes."""
    monkeypatch.setattr(spawn, "start", request.param)
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


async def finish(spawned: Spawned) -> tuple[int, bytes]:
    """Read everything and end it."""
    said = bytearray()
    if spawned.held is not None:
        os.close(spawned.held)
    with trio.fail_after(60):
        for descriptor in spawned.outputs.values():
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                try:
                    data = os.read(descriptor, 65536)
                except OSError:
                    break
                if not data:
                    break
                said += data
        status = await spawned.tree.leader.wait_exited()
        await spawned.tree.end()
    for descriptor in {*spawned.outputs.values(), *filter(None, [spawned.stdin])}:
        os.close(descriptor)
    return status.code, bytes(said)


def start(argv: list[str], tty: bool = False, stdin: bool = False, cwd: str = "/", arg0: str | None = None) -> Spawned:
    command = settle(argv, cwd, PATH, arg0)
    return Supervisor().spawn(command, size=Size(30, 90) if tty else None, pipe_stdin=stdin)


@pytest.mark.usefixtures("way")
async def test_a_process_leads_its_own_session() -> None:
    script = "import os; p = os.getpid(); print(os.getsid(0) == p, os.getpgid(0) == p, os.getcwd(), sorted(os.environ))"
    code, said = await finish(start([sys.executable, "-I", "-S", "-c", script], cwd="/tmp"))
    assert (code, said) == (0, b"True True /tmp ['LC_CTYPE', 'PATH']\n")  # Python sets LC_CTYPE for itself


@pytest.mark.usefixtures("way")
async def test_a_command_has_one_descriptor_that_was_lent_to_it_for_input_and_output() -> None:
    ours, theirs = socket.socketpair()
    lent = Lent(theirs.detach())
    ours.sendall(b"said")
    ours.shutdown(socket.SHUT_WR)
    command = replace(settle(["cat"], "/", PATH), stdin=lent, stdout=lent)
    spawned = Supervisor().spawn(command, size=None, pipe_stdin=False)
    del lent, command
    with trio.fail_after(60), ours:
        code, _ = await finish(spawned)
        assert (code, list(spawned.outputs), spawned.stdin) == (0, ["stderr"], None)
        assert ours.recv(100) == b"said"
        assert ours.recv(100) == b"", "this process has kept the end that it lent"


@pytest.mark.usefixtures("way")
async def test_a_terminal_is_the_controlling_one() -> None:
    code, said = await finish(start(["sh", "-c", "tty; stty size; echo hi >/dev/tty"], tty=True))
    lines = said.decode().split("\r\n")
    assert code == 0
    assert lines[0].startswith("/dev/pts/")
    assert lines[1:] == ["30 90", "hi", ""]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("tty", [False, True])
async def test_nothing_is_inherited(tty: bool) -> None:
    leak = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leak, True)
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        script = "ls /proc/self/fd | wc -l; grep -E 'SigBlk|SigIgn' /proc/self/status"
        code, said = await finish(start(["/bin/sh", "-c", script], tty=tty))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR1, before)
        os.close(leak)
    count, blocked, ignored = said.decode().split("\n")[:3]
    assert (code, int(count)) == (0, 4)  # 0, 1, 2, and the directory that ls reads
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & ~(3 << 31) == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(
    ("argv", "cwd", "stage"),
    [
        (["/does/not/exist"], "/", "program"),
        (["/etc/passwd"], "/", "permission"),
        (["true"], "/does/not/exist", "cwd"),
        (["true"], "/etc/passwd", "cwd"),
    ],
)
async def test_failures_name_their_stage_and_leave_nothing(argv: list[str], cwd: str, stage: str, tty: bool) -> None:
    with pytest.raises(SpawnError) as failed:
        start(argv, tty=tty, cwd=cwd)
    assert failed.value.stage == stage


@pytest.mark.usefixtures("way")
async def test_arg0_is_what_the_program_sees() -> None:
    assert await finish(start(["sh", "-c", "echo $0"], arg0="name")) == (0, b"name\n")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__module__.rpartition(".")[2])
def test_a_directory_that_may_not_be_entered(tmp_path: object, way: Callable[..., int]) -> None:
    """As an ordinary user, in a process of its own: root may enter everything."""
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from execsrv._lent import Lent
from execsrv._processes.command import settle
from execsrv._processes.supervisor import Spawned, Supervisor
from execsrv.errors import SpawnError
from execsrv._processes import spawn
import {way.__module__}
spawn.start = {way.__module__}.start
os.mkdir({str(tmp_path)!r} + "/closed", 0o600)
os.chown({str(tmp_path)!r} + "/closed", 65534, 65534)
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    Supervisor().spawn(settle(["/bin/true"], {str(tmp_path)!r} + "/closed", {{}}), size=None, pipe_stdin=False)
except SpawnError as error:
    print(error.stage, error.errno)
"""
    if os.getuid() == 0:
        if not may_become_nobody():
            pytest.skip("not allowed to become another user")
        # An ordinary user must come as far as the directory.
        folder = str(tmp_path)
        while folder not in ("/", "/tmp"):
            os.chmod(folder, 0o777)
            folder = os.path.dirname(folder)
    else:
        script = script.replace("os.chown", "(lambda *_: None)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("cwd 13\n", "")


async def test_no_descriptors_left(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    for tty in (False, True):
        for room in range(8):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, hard))
            failure = None
            try:
                await finish(start(["true"], tty=tty))
            except SpawnError as error:
                failure = (error.stage in ("resources", "cwd"), error.errno)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert failure in (None, (True, 24))


def test_an_ignored_sigchld_is_refused() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(SpawnError, match="SIGCHLD is ignored"):
            start(["true"])
    finally:
        signal.signal(signal.SIGCHLD, before)


async def test_sigchld_is_as_it_was_when_the_last_supervisor_is_gone() -> None:
    """Also where one end was heard, and nobody has looked for others since."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with open_strays(Register(None), sole=False):
            os.kill(os.getpid(), signal.SIGCHLD)
            assert not is_caught(signal.SIGCHLD)
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_descriptors_of_stdio_are_not_taken_for_pipes() -> None:
    """A server that was started with its 0, 1 and 2 closed."""
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
import trio
import trio.testing
from execsrv._lent import Lent
from execsrv._processes.command import settle
from execsrv._processes.supervisor import Supervisor
report = os.dup(2)
for descriptor in (0, 1, 2):
    os.close(descriptor)
spawned = Supervisor().spawn(settle(["/bin/sh", "-c", "cat; echo out; echo err >&2"], "/", {{"PATH": "/usr/bin:/bin"}}),
                      size=None, pipe_stdin=True)
os.write(spawned.stdin, b"in ")
os.close(spawned.stdin)
trio.run(spawned.tree.leader.wait_exited)
os.write(report, os.read(spawned.outputs["stdout"], 100) + os.read(spawned.outputs["stderr"], 100))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.stderr == b"in out\nerr\n"


async def test_a_status_that_others_took_is_not_made_up(caplog: pytest.LogCaptureFixture) -> None:
    spawned = start(["true"])
    os.waitpid(spawned.tree.pid, 0)  # noqa: ASYNC222  # as other code would
    assert (await finish(spawned))[0] == 255
    assert "was taken by other code" in caplog.text


async def test_reaping_and_what_is_left_of_a_group() -> None:
    spawned = start(["bash", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &"])
    await spawned.tree.leader.wait_exited()
    assert "zombie" in repr(spawned.tree)
    assert await spawned.tree.remaining()
    assert spawned.tree.signal_now(signal.SIGTERM, "group")
    with trio.fail_after(60):
        await spawned.tree.wait_alone()
    assert not await spawned.tree.remaining()
    await finish(spawned)
    assert not spawned.tree.signal_now(0, "group")


async def test_a_kernel_without_group_signals_keeps_the_zombie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "signals_groups_by_pidfd", lambda: False)
    spawned = start(["bash", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 &"])
    await spawned.tree.leader.wait_exited()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spawned.tree.wait_alone)
        await trio.testing.wait_all_tasks_blocked()
        assert "zombie" in repr(spawned.tree)
        assert spawned.tree.signal_now(signal.SIGTERM, "group")
    assert "zombie" not in repr(spawned.tree)
    await finish(spawned)


def test_terminals_have_a_size_and_an_end() -> None:
    master, slave, name = terminal.open_terminal(7, 9)
    try:
        assert name.startswith(b"/dev/pts/")
        assert terminal.get_size(master) == (7, 9)
        terminal.set_size(master, 8, 10)
        assert terminal.get_size(master) == (8, 10)
        for key in (b"", b"\n", b"\r", b"\x04", b"\x03", b"\x15"):
            assert terminal.end_of_input(master, key) == b"\x04"
        assert terminal.end_of_input(master, b"x") == b"\x04\x04"
        assert not os.get_inheritable(master)
        assert not os.get_inheritable(slave)
    finally:
        os.close(master)
        os.close(slave)
