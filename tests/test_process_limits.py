"""Limits of one command: held from its first instant, told when it dies of one, and gone with it."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from ctypes import c_int
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv import LimitUnavailableError, Policy, ProcessLimits, connect_in_process
from execsrv._processes import cgroup, portable_spawn, proc
from execsrv._processes.command import Command
from execsrv._processes.limiting import make as making
from execsrv._processes.limiting.files import V1
from execsrv._processes.limiting.group import LimitGroup, Part
from execsrv.errors import InvalidParamsError
from tests.confined import needs_confinement
from tests.limited import alone, groups_of, needs_groups, version
from tests.peers import PATIENCE, Peer
from tests.processes import marked, may_become_nobody, new_mark, until_gone, until_marked
from tests.test_daemon import daemon
from tests.test_guard import SHED, guardians, until

MIB = 1 << 20
EATER = "pieces = []\nwhile True: pieces.append(b'x' * 1_000_000)"
EAT = f'{sys.executable} -c "{EATER}"'

EVERY = ProcessLimits(
    memory_bytes=256 * MIB,
    processes=40,
    cpu_percent=90,
    address_space_bytes=8192 * MIB,
    cpu_seconds=30,
    open_files=50,
    file_bytes=4096,
    core_bytes=0,
)
OF_PROCESSES = {
    "address_space_bytes": 8192 * MIB,
    "cpu_seconds": 30,
    "open_files": 50,
    "file_bytes": 4096,
    "core_bytes": 0,
}

Policies = [pytest.param(None, id="plain"), pytest.param("all", id="confined", marks=needs_confinement)]


def policy_of(name: str | None) -> Policy | None:
    return None if name is None else Policy.everything(network=True)


@pytest.mark.parametrize("policy", Policies)
async def test_limits_of_each_process_are_there_at_its_first_line(policy: str | None) -> None:
    script = "for kind in v t n f c; do ulimit -S$kind; ulimit -H$kind; done; ulimit -Hn 1000 || echo no"
    async with connect_in_process(own_process=True) as client:
        limits = ProcessLimits(**OF_PROCESSES)
        result = await client.run(["bash", "-c", script], limits=limits, sandbox=policy_of(policy), text=True)
    assert result.lines[:10] == [*["8388608"] * 2, "30", "31", *["50"] * 2, *["4"] * 2, *["0"] * 2]
    assert policy is None or result.lines[10:] == ["no"]
    assert result.usage is not None
    assert result.usage.peak_memory_bytes is None


@needs_groups
@pytest.mark.parametrize("policy", Policies)
async def test_what_descends_from_a_command_is_in_its_groups_and_they_go_with_it(policy: str | None) -> None:
    script = "cat /proc/self/cgroup; setsid sh -c 'cat /proc/self/cgroup; sleep 1000' & wait"
    async with (
        connect_in_process(own_process=True) as client,
        client.start(["sh", "-c", script], limits=EVERY, sandbox=policy_of(policy), text=True) as process,
    ):
        groups = groups_of(os.getpid())
        assert groups
        inside = 0
        async for line in process.lines():
            inside += line.endswith(groups[0].name)
            if inside == 2 * len(groups):
                break
        assert (await client.processes())[0].limits == EVERY
    assert not groups_of(os.getpid())


SHORT = {
    "file-size": ("exec cat /dev/zero >FILE", ProcessLimits(file_bytes=1000), 153, "SIGXFSZ"),
    "oom": (f"exec {EAT}", ProcessLimits(memory_bytes=48 * MIB), 137, "SIGKILL"),
    "cpu": ("while :; do :; done", ProcessLimits(cpu_seconds=1), 152, "SIGXCPU"),
}


@needs_groups
@pytest.mark.parametrize("reason", SHORT)
async def test_a_leader_that_dies_of_a_limit_is_told_so(reason: str, tmp_path: Path) -> None:
    script, limits, code, name = SHORT[reason]
    async with connect_in_process(own_process=True) as client:
        argv = ["sh", "-c", script.replace("FILE", f"{tmp_path}/x")]
        result = await client.run(argv, limits=limits)
    assert (result.reason, result.exit_code, result.signal) == (reason, code, name)
    assert result.usage is not None
    if reason == "cpu":
        assert result.usage.cpu_seconds > 0.5
    if reason == "oom":
        assert (result.usage.oom_kills, result.usage.peak_memory_bytes) == (1, 48 * MIB)
    if reason == "file-size":
        assert (tmp_path / "x").stat().st_size == 1000


@pytest.mark.slow
async def test_who_goes_on_after_the_processor_time_is_killed_for_it() -> None:
    async with connect_in_process(own_process=True) as client:
        argv = ["bash", "-c", "trap : XCPU; while :; do :; done"]
        result = await client.run(argv, limits=ProcessLimits(cpu_seconds=1))
    assert (result.reason, result.signal) == ("cpu", "SIGKILL")


@needs_groups
@pytest.mark.parametrize("end", ["exit 3", "kill -STOP $$", "kill -TERM $$"])
async def test_that_a_child_had_no_memory_is_counted_and_no_reason_for_the_leader(end: str) -> None:
    """Not even where somebody kills the leader then."""
    ends = {"exit 3": ("exited", 3), "kill -STOP $$": ("signaled", 137), "kill -TERM $$": ("signaled", 143)}
    async with (
        connect_in_process(own_process=True) as client,
        client.start(
            ["sh", "-c", f"exec 2>/dev/null; {EAT}; echo $?; {end}"], limits=ProcessLimits(memory_bytes=48 * MIB)
        ) as process,
    ):
        assert await anext(process.output) == b"137\n"
        if "STOP" in end:
            await process.send_signal("SIGKILL")
        with trio.fail_after(PATIENCE):
            result = await process.communicate()
    assert (result.reason, result.exit_code) == ends[end]
    assert result.usage is not None
    assert result.usage.oom_kills == 1


@needs_groups
async def test_forks_beyond_the_limit_fail_and_are_counted() -> None:
    script = "import os\nfor _ in range(9):\n    if not os.fork(): __import__('time').sleep(1000)"
    async with connect_in_process(own_process=True) as client:
        argv = [sys.executable, "-S", "-c", script]
        result = await client.run(argv, limits=ProcessLimits(processes=5), text=True, grace=0)
    assert "BlockingIOError" in result.stderr
    assert len(result.ended) == 4
    assert result.usage is not None
    assert result.usage.refused_forks == 1


@needs_groups
async def test_who_takes_more_of_the_processors_waits() -> None:
    async with connect_in_process(own_process=True) as client:
        script = "i=0; while [ $i -lt 5000 ]; do i=$((i + 1)); done"  # some milliseconds, of which it has one in 100
        result = await client.run(["sh", "-c", script], limits=ProcessLimits(cpu_percent=1))
    assert (result.reason, result.exit_code) == ("exited", 0)
    assert result.usage is not None
    assert result.usage.throttled_seconds
    assert result.usage.cpu_seconds


@needs_groups
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_a_command_of_another_user_is_let_in() -> None:
    if not may_become_nobody():
        pytest.skip("not allowed to become another user")
    async with connect_in_process(own_process=True) as client:
        argv = ["sh", "-c", "id -u; ulimit -n; grep -c limits /proc/self/cgroup"]
        result = await client.run(argv, user="nobody", limits=EVERY, text=True)
    assert (result.stderr, result.lines[1]) == ("", "50")
    assert int(result.lines[2]) == (1 if version() == 2 else 4)


LEAVE = "echo 0 >FILE && echo left"


@needs_groups
@needs_confinement
@pytest.mark.parametrize(("confined", "limits"), [(False, EVERY), (True, EVERY), (True, None)])
async def test_a_confined_command_cannot_leave_its_groups(confined: bool, limits: ProcessLimits | None) -> None:
    """Without confinement it can, where it has the rights: so the attempt is one."""
    folder = cgroup.own_folder("pids")
    assert folder is not None
    folder.joinpath("cgroup.procs").open("a").close()
    script = LEAVE.replace("FILE", f"{folder}/cgroup.procs")
    policy = Policy.everything(network=True).write(folder) if confined else None
    async with connect_in_process(own_process=True) as client:
        result = await client.run(["bash", "-c", script], limits=limits, sandbox=policy, text=True)
    assert (result.lines == ["left"]) != confined
    assert ("Read-only file system" in result.stderr) == confined


# -- what cannot be kept --


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"memoryBytes": 0}, "limits.memoryBytes"),
        ({"cpuPercent": 1.5}, "limits.cpuPercent"),
        ({"processes": 2**53}, "limits.processes"),
        ({"memory": 1}, "limits"),
    ],
)
async def test_a_limit_that_is_none_is_refused(peer: Peer, limits: dict[str, object], field: str) -> None:
    params = peer.start_params("a", ["true"]) | {"limits": limits}
    code, message, facts = await peer.refused("process/start", params)
    assert (code, facts["kind"]) == (-32602, "invalid-params")
    assert field in message


async def test_a_number_that_no_limit_takes_is_refused_before_it_is_sent() -> None:
    async with connect_in_process(own_process=True) as client:
        with pytest.raises(InvalidParamsError, match="memoryBytes"):
            await client.run(["true"], limits=ProcessLimits(memory_bytes=-1))


REFUSING = """
import os, sys, trio, execsrv
async def main():
    async with execsrv.connect_in_process(own_process=True) as client:
        await client.run(["true"], limits=execsrv.ProcessLimits(processes=5))  # which loads all that it takes
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        print((await client.run(["sh", "-c", "ulimit -n"], limits=execsrv.ProcessLimits(open_files=30))).text.strip())
        try:
            await client.run(["touch", sys.argv[1]], limits=execsrv.ProcessLimits(memory_bytes=1 << 26))
        except execsrv.LimitUnavailableError as error:
            print(error.code, sorted(error.facts), error.facts["field"], error)
trio.run(main)
"""


@needs_groups
@pytest.mark.skipif(not may_become_nobody(), reason="not allowed to become another user")
def test_what_takes_rights_that_a_server_has_not_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with alone() as before:
        argv = [*before, sys.executable, "-c", REFUSING, str(tmp_path / "x")]
        done = subprocess.run(argv, capture_output=True, text=True)
    assert done.stdout, done.stderr
    kept, refused = done.stdout.splitlines()
    assert kept == "30"
    assert refused.startswith("-32602 ['errno', 'field', 'need', 'step'] memoryBytes cannot keep memoryBytes: ")
    assert "Permission denied (os error 13); it needs the right to " in refused
    assert not (tmp_path / "x").exists()


@pytest.fixture
def closed_group(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The door of a group that lets nobody in, which every command with limits is to enter."""
    above = cgroup.own_folder("cpuset")
    if above is None:
        pytest.skip("no hierarchy of cpuset, whose new groups let nobody in")
    folder = above / f"{cgroup.PREFIX}test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no group can be made")

    def make(limits: ProcessLimits, server: int, session: int, *, moves: bool) -> LimitGroup:
        group = LimitGroup(limits)
        group.parts.append(Part("cpuset", folder, V1))
        return group

    monkeypatch.setattr(making, "make", make)
    yield folder / "cgroup.procs"
    cgroup.remove(folder)


@pytest.mark.parametrize("policy", Policies)
async def test_a_command_that_is_not_let_in_does_not_run(
    closed_group: Path, policy: str | None, tmp_path: Path
) -> None:
    async with connect_in_process(own_process=True) as client:
        with pytest.raises(LimitUnavailableError) as caught:
            await client.run(["touch", tmp_path / "x"], limits=EVERY, sandbox=policy_of(policy))
    assert (caught.value.facts["step"], caught.value.facts["errno"]) == (f"write 0 to {closed_group}", errno.ENOSPC)
    assert not await trio.Path(tmp_path / "x").exists()
    assert not await trio.Path(closed_group).exists()


# -- nothing is left --


@needs_groups
async def test_starts_that_fail_leave_no_group() -> None:
    async with connect_in_process(own_process=True) as client:
        for argv in (["/nowhere"], ["/etc/passwd"]):
            with pytest.raises(execsrv.SpawnError):
                await client.run(argv, limits=EVERY)
    assert not groups_of(os.getpid())


@needs_groups
@needs_confinement
async def test_a_confined_command_without_the_memory_for_its_start_is_told_so() -> None:
    async with connect_in_process(own_process=True) as client:
        with pytest.raises(LimitUnavailableError) as caught:
            await client.run(["true"], limits=ProcessLimits(memory_bytes=1), sandbox=Policy.read_only(network=False))
    assert (caught.value.facts["field"], caught.value.facts["errno"]) == ("memoryBytes", errno.ENOMEM)
    assert not groups_of(os.getpid())


@needs_groups
def test_a_start_whose_terminal_is_gone_leaves_no_door_open() -> None:
    group = making.make(EVERY, 1, 1, moves=True)
    try:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FileNotFoundError):
            portable_spawn.start(Command(b"/bin/true", (b"true",), (), None), None, b"/gone", c_int(), None, group)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        group.remove()
        cgroup.leave_own(os.getpid())


@needs_groups
@pytest.mark.slow
async def test_two_hundred_starts_leave_no_group_and_no_descriptor() -> None:
    async with connect_in_process(own_process=True) as client:
        await client.run(["true"], limits=EVERY)
        before = len(os.listdir("/proc/self/fd"))
        commands = [["sh", "-c", f"sleep 1000 & exit {number % 3}"] for number in range(200)]
        codes = [result.exit_code async for result in client.map(commands, limit=8, limits=EVERY, grace=0)]
        assert (len(codes), {*codes}) == (200, {0, 1, 2})
        assert len(os.listdir("/proc/self/fd")) <= before
    assert not groups_of(os.getpid())


@needs_groups
async def test_a_server_that_is_killed_leaves_no_group(tmp_path: Path) -> None:
    mark = new_mark()
    with alone() as before, daemon(f"unix://{tmp_path}/s", before) as (server, url):
        with pytest.raises(execsrv.ConnectionLostError):
            async with execsrv.connect(url) as client:
                argv = ["bash", "-c", f"exec -a {mark} sleep 1000"]
                async with client.start(argv, limits=EVERY) as process:
                    await until_marked(mark, 1)
                    assert groups_of(server.pid)
                    server.kill()
                    await process.wait()
        await until_gone(mark)
        await until(lambda: not groups_of(server.pid))


@pytest.mark.skipif(version() != 2, reason="needs control groups of version 2, which a guardian kills whole")
async def test_a_guardian_leaves_everybody_in_his_group_and_ends_who_has_shed_his_mark(tmp_path: Path) -> None:
    mark = new_mark()
    with alone() as before, daemon(f"unix://{tmp_path}/s", before) as (server, url):
        script = f"{shlex.join([sys.executable, '-c', SHED.replace('@', mark)])}; exec -a {mark} sleep 1000"
        argv = ["bash", "-c", script]
        with pytest.raises(execsrv.ConnectionLostError):
            async with execsrv.connect(url) as client, client.start(argv, limits=EVERY):
                await until_marked(mark, 2)
                (first,) = guardians(server.pid)
                os.kill(first, signal.SIGKILL)
                await until(lambda: any(map(_is_aside, set(guardians(server.pid)) - {first})))
                assert [cgroup.folder_of(pid) for pid in marked(mark)] == 2 * groups_of(server.pid)
                server.kill()
                while True:
                    await client.processes()
        await until_gone(mark)
        await until(lambda: not groups_of(server.pid))


def _is_aside(guardian: int) -> bool:
    """Whether a guardian is where it stays, and waits."""
    return proc.table(guardian, "cgroup").strip().endswith(b"-guardian") and proc.state(guardian) == "S"


LEAVING = """
import ctypes, os, sys, time
from pathlib import Path
from execsrv import LimitUnavailableError
from execsrv._processes import proc
from execsrv._processes.limiting.delegated import _leave
folder = Path(sys.argv[1])
def leave(pids):
    (folder / "cgroup.procs").write_text(" ".join(map(str, pids)))
    _leave("processes", folder, "ours", True)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # as a server, it gets the orphans
for _ in range(3):
    if not os.fork():
        for _ in range(2000):
            if os.fork():
                break
            time.sleep(0.001)
        os._exit(0)
try:
    for _ in range(10):
        leave(proc.family([os.getpid()]))
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    leave([*proc.family([os.getpid()]), os.getppid()])
except LimitUnavailableError as error:
    print(error, flush=True)
os.killpg(0, 9)
"""


def test_who_dies_while_a_group_is_left_is_no_stranger(tmp_path: Path) -> None:
    """A folder of files stands in for a group: who is there is looked for in the process table."""
    argv = [sys.executable, "-c", LEAVING, f"{tmp_path}"]
    done = subprocess.run(argv, capture_output=True, text=True, start_new_session=True)
    assert f"where others are: {os.getpid()} (" in done.stdout, done.stderr


@pytest.mark.skipif(version() != 2, reason="needs control groups of version 2, which a server has to step aside for")
async def test_a_server_that_may_not_step_aside_refuses_and_stays() -> None:
    before = cgroup.own_folder()
    async with connect_in_process() as client:
        with pytest.raises(LimitUnavailableError, match="it needs a server that may step into a group below"):
            await client.run(["true"], limits=ProcessLimits(processes=5))
        assert cgroup.own_folder() == before


def test_a_limit_above_what_the_server_has_is_what_the_server_has() -> None:
    code = """
import resource
from execsrv._processes.limiting.entry import rlimits
from execsrv.protocol.process_limits import ProcessLimits
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 40))
resource.setrlimit(resource.RLIMIT_CPU, (50, 60))
print([limit[1:] for limit in rlimits(ProcessLimits(open_files=100, cpu_seconds=60, core_bytes=0))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[(60, 60), (0, 0), (40, 40)]\n", done.stderr


@needs_groups
def test_groups_that_nobody_could_remove_are_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a server that lives are not: it may be about to use them."""
    making.make(ProcessLimits(processes=1), 1, 3, moves=True).remove()
    monkeypatch.setattr(making, "_cleaned", set())
    above = cgroup.own_folder("pids") or cgroup.place_of(f"{cgroup.PREFIX}{os.getpid()}-")
    assert above is not None
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    left, used = (above / cgroup.limits_name(pid, 1, 1) for pid in (gone.pid, os.getppid()))
    left.mkdir()
    used.mkdir()
    try:
        making.make(ProcessLimits(processes=1), 1, 2, moves=True).remove()
        assert (left.exists(), used.exists()) == (False, True)
    finally:
        used.rmdir()
        cgroup.leave_own(os.getpid())


async def test_groups_that_the_kernel_does_not_remove_hold_up_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = threading.Event()
    monkeypatch.setattr("execsrv._processes.limiting.group._REMOVE_SECONDS", 0.1)
    monkeypatch.setattr(LimitGroup, "remove", lambda limits: released.wait(PATIENCE))
    try:
        with trio.fail_after(PATIENCE):
            async with connect_in_process() as client:
                for _ in range(2):
                    assert (await client.run(["true"], limits=ProcessLimits(open_files=50))).exit_code == 0
    finally:
        released.set()
    assert "the control groups of a command stay for now: not removed within" in caplog.text
