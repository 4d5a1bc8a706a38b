"""The layers that keep hold of processes, each alone; what they do together is in test_survivors.py."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from execsrv._processes import carried_limits, cgroup, proc, rlimit_mark, subreaper
from execsrv._processes.command import settle
from execsrv._processes.confine.places import Confinement, Place
from execsrv._processes.contract import Received
from execsrv._processes.membership import ByWalk
from execsrv._processes.proc import at_once, last_pid, walk
from execsrv._processes.spawn import Started, spawn
from execsrv._processes.supervisor import Spawned, Supervisor, open_supervisor
from execsrv.errors import SpawnError
from execsrv.protocol import Size
from execsrv.testing import assert_no_strays
from tests.confined import needs_confinement
from tests.peers import PATIENCE
from tests.processes import is_caught, marked, new_mark, until_gone, until_marked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="all of this is Linux")


@pytest.fixture(params=["guest", "own process"])
async def supervisor(request: pytest.FixtureRequest) -> AsyncIterator[Supervisor]:
    async with open_supervisor(own_process=request.param == "own process") as supervisor:
        yield supervisor


def start(supervisor: Supervisor, script: str, *, tty: bool = False, stdin: bool = False) -> Spawned:
    command = settle(["bash", "-c", script], "/", {"PATH": os.environ["PATH"]})
    return supervisor.spawn(command, size=Size() if tty else None, pipe_stdin=stdin)


def start_marked(supervisor: Supervisor, script: str) -> Spawned:
    """Start what forks only once it is marked: a guest marks its child a moment after the start."""
    spawned = start(supervisor, f"read go; {script}", stdin=True)
    assert spawned.stdin is not None
    os.write(spawned.stdin, b"go\n")
    os.close(spawned.stdin)
    return spawned


async def sent(received: Received) -> int:
    """Return how many received a signal, in however many turns."""
    return received if isinstance(received, int) else await received


async def end(spawned: Spawned) -> str | None:
    for descriptor in spawned.outputs.values():
        os.close(descriptor)
    layer = await spawned.tree.kill()
    await spawned.tree.end()
    return layer


# -- marks --


def test_a_mark_survives_everything_but_being_changed() -> None:
    mark = rlimit_mark.new_server_mark()
    assert mark is not None
    with mark.of(7).carried():
        child = subprocess.Popen(["setsid", "env", "-i", "/bin/sleep", "1000"])
    other = subprocess.Popen(["sleep", "1000"])
    try:
        assert mark.session_of(child.pid) == 7
        assert rlimit_mark._from_table(child.pid, mark.slot) == (mark.of(7).value, resource.RLIM_INFINITY)
        assert mark.session_of(other.pid) is None
        mark.of(8).put(other.pid)
        assert mark.session_of(other.pid) == 8
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert mark.session_of(other.pid) == 8  # as a zombie
        other.wait()
        assert mark.session_of(other.pid) is None
        assert mark.session_of(os.getpid()) is None
    finally:
        for process in (child, other):
            process.kill()
            process.wait()


def test_a_server_in_a_session_marks_another_limit() -> None:
    code = "from execsrv._processes.rlimit_mark import *; print(new_server_mark().slot)"
    outer = rlimit_mark.new_server_mark()
    assert outer is not None
    with outer.of(0).carried():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outer.slot == rlimit_mark.RTTIME
    assert int(done.stdout) == rlimit_mark.LOCKS


def test_no_mark_where_there_is_no_room_for_it() -> None:
    code = f"""
import resource
for slot in ({rlimit_mark.RTTIME}, {rlimit_mark.LOCKS}):
    resource.setrlimit(slot, (1000, 1000))
from execsrv._processes.supervisor import Supervisor
print(Supervisor())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.startswith(
        "<Supervisor session"
    )


def test_a_start_that_was_given_up_puts_no_mark_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = rlimit_mark.new_server_mark()
    assert mark is not None
    started, carried = Started(), list[int]()
    started.given_up = True
    monkeypatch.setattr(carried_limits.Turn, "carry", lambda turn, slot, value: carried.append(value))
    with pytest.raises(SpawnError, match="os error 125"):
        spawn(settle(["true"], "/", {}), None, False, mark.of(1), carries=True, started=started)
    assert not carried


async def test_a_server_is_of_no_session_whatever_it_carries(supervisor: Supervisor) -> None:
    """It carries the mark of a start that was given up, and so is of no session, until it finds that out."""
    spawned, mark = start(supervisor, "exec sleep 1000"), supervisor.register.mark
    assert mark is not None
    spawned.tree.born_after = -math.inf  # so that everybody is looked at
    with mark.of(spawned.tree.number + 1).carried():
        found = at_once(ByWalk(supervisor.register).find(spawned.tree))
    await end(spawned)
    assert found.keys() == {spawned.tree.pid}


def test_a_guardian_that_is_let_go_spares_its_server() -> None:
    code = """
import os, subprocess, sys
from execsrv._processes import guardian, rlimit_mark
mark = rlimit_mark.new_server_mark()
words = [guardian.__file__, os.getpid(), mark.slot, mark.server, 0, 0]
argv = [sys.executable, "-I", "-S", *map(str, words)]
guard = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
guard.stdout.readline()
with mark.of(1).carried():
    guard.stdin.close()
    print(guard.wait())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"0\n")


# -- proc and census --


def test_no_signal_goes_to_a_stranger() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        assert not proc.send(child.pid, signal.SIGKILL, lambda pid: False)
        assert proc.living(child.pid)
        assert proc.name(os.getpid()) == Path("/proc/self/comm").read_text().strip()
        assert proc.parent(child.pid) == os.getpid()
        assert proc.family([os.getpid()])[child.pid] == os.getpid()
        assert proc.send(child.pid, signal.SIGKILL, lambda pid: True)
    assert not proc.send(child.pid, 0, lambda pid: True)
    assert (proc.name(child.pid), proc.parent(child.pid), proc.living(child.pid)) == ("", 0, False)


def test_a_walk_sees_who_forks_behind_its_back() -> None:
    mark = rlimit_mark.new_server_mark()
    assert mark is not None
    late: list[subprocess.Popen[bytes]] = []

    def session_of(pid: int) -> int | None:
        if pid == os.getpid() and not late:  # in the middle of the walk
            with mark.of(3).carried():
                late.append(subprocess.Popen(["sleep", "1000"]))
            return None
        return mark.session_of(pid)

    try:
        assert list(walk(session_of)) == [(late[0].pid, 3)]
        assert list(walk(mark.session_of, since=late[0].pid - 1)) == [(late[0].pid, 3)]
        assert last_pid() >= late[0].pid
    finally:
        late[0].kill()
        late[0].wait()


# -- trees --


async def test_what_remains_is_told_by_name(supervisor: Supervisor) -> None:
    mark = new_mark()
    spawned = start_marked(supervisor, f"setsid bash -c 'exec -a {mark} sleep 1000' >/dev/null 2>&1 & disown")
    await until_marked(mark, 1)
    await spawned.tree.leader.wait_exited()
    assert [(member.pid, member.name) for member in await spawned.tree.remaining()] == [(marked(mark)[0], "sleep")]
    with trio.move_on_after(0.05) as waiting:
        await spawned.tree.wait_alone()
    assert waiting.cancelled_caught
    assert await end(spawned) == supervisor.layer
    assert not marked(mark)


async def test_signals_count_who_received_them(supervisor: Supervisor) -> None:
    mark = new_mark()
    nap = f"exec -a {mark} sleep 1000"
    spawned = start_marked(supervisor, f"trap '' USR1; ({nap}) & (setsid bash -c '{nap}') & wait")
    await until_marked(mark, 2)
    tree = spawned.tree
    assert await sent(tree.signal(0, "leader")) == 1
    assert await sent(tree.signal(0, "group")) == 2
    assert await sent(tree.signal(0, "tree")) in (3, 4)  # bash may have kept the subshell that waits for setsid
    assert await sent(tree.signal(signal.SIGKILL, "leader")) == 1
    assert (await tree.leader.wait_exited()).signal == "SIGKILL"
    assert await sent(tree.signal(0, "leader")) == 0
    assert await sent(tree.signal(0, "group")) == 1
    await end(spawned)


async def test_the_job_in_front_of_a_terminal_gets_the_signal(supervisor: Supervisor) -> None:
    mark = new_mark()
    spawned = start(supervisor, f"set -m; (exec -a {mark} sleep 1000); sleep 1000", tty=True)
    await until_marked(mark, 1)
    master = spawned.outputs["pty"]
    assert await sent(spawned.tree.signal_foreground(signal.SIGTERM, master)) == 1
    await until_gone(mark)
    assert spawned.tree.leader.exit_status() is None
    await end(spawned)


@pytest.mark.few
async def test_two_hundred_end_at_once(supervisor: Supervisor) -> None:
    mark = new_mark()
    nap = f"exec -a {mark} sleep 1000"
    all_of_them = [start_marked(supervisor, f"setsid bash -c '{nap}' & {nap}") for _ in range(200)]
    await until_marked(mark, 400)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for spawned in all_of_them:
            nursery.start_soon(end, spawned)
    print(f"{supervisor.layer}: ended 400 processes of 200 sessions in {trio.current_time() - began:.3f} s")
    assert not marked(mark)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the looks at our children have read so far."""
    seen: list[bytes] = []
    read = subreaper.Strays._read

    def noting(strays: subreaper.Strays) -> bytes:
        seen.append(read(strays))
        return seen[-1]

    monkeypatch.setattr(subreaper.Strays, "_read", noting)
    return seen


async def test_one_look_does_for_many_that_end(supervisor: Supervisor, looks: list[bytes]) -> None:
    mark = new_mark()
    all_of_them = [start_marked(supervisor, f"exec -a {mark} sleep 1000") for _ in range(10)]
    await until_marked(mark, 10)
    looks.clear()
    with supervisor.one_look():
        for spawned in all_of_them:
            spawned.tree.ask_to_end_now()
    assert len(looks) <= 1
    for spawned in all_of_them:
        await spawned.tree.leader.wait_exited()
    looks.clear()
    async with trio.open_nursery() as nursery:
        for spawned in all_of_them:
            nursery.start_soon(spawned.tree.wait_alone)
    assert len(looks) <= 3  # two of them for the news of ends
    for spawned in all_of_them:
        await end(spawned)


async def test_a_look_does_for_nobody_once_a_stray_was_reaped(supervisor: Supervisor) -> None:
    """It may have left a child, which that look came too early for."""
    if (strays := supervisor._strays) is None:
        pytest.skip("strays are others' children here")
    mark = new_mark()
    spawned = start_marked(supervisor, f"setsid bash -c 'exec -a {mark} sleep 1000 & exec -a {mark} sleep 1001' & exit")
    await until_marked(mark, 2)
    await spawned.tree.leader.wait_exited()
    (stray,) = at_once(strays.of(spawned.tree.number))
    os.kill(stray, signal.SIGKILL)
    os.waitid(os.P_PID, stray, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  # nobody else has a turn here
    assert strays._reap(stray)
    (child,) = at_once(strays.of(spawned.tree.number, since=spawned.tree.leader.ended_at))
    assert child != stray
    await end(spawned)
    assert not marked(mark)


async def test_who_becomes_an_orphan_after_that_one_look_is_asked_to_end_as_well(supervisor: Supervisor) -> None:
    """What a leader that has ended meanwhile leaves is not to be taken for nothing."""
    mark = new_mark()
    first = start_marked(supervisor, f"exec -a {mark} sleep 1000")
    other = start_marked(supervisor, f"(exec -a {mark} sleep 1000) & exec -a {mark} sleep 1000")
    await until_marked(mark, 3)
    with supervisor.one_look():
        first.tree.ask_to_end_now()
        other.tree.leader.send(signal.SIGKILL)
        os.waitid(os.P_PID, other.tree.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222  # nobody else has a turn here
        other.tree.ask_to_end_now()
    await until_gone(mark)
    for spawned in (first, other):
        await end(spawned)


async def test_the_end_of_many_lets_others_have_their_turns(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With turns of one process each, which are easier to count than seconds."""
    monkeypatch.setattr("execsrv._processes.turns.TURN_SECONDS", 0)
    mark, count, turns = new_mark(), 100, 0
    spawned = start_marked(supervisor, f"for n in $(seq {count}); do (exec -a {mark} sleep 1000) & done; wait")
    await until_marked(mark, count)

    async def neighbour() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async def signal_all() -> None:
        received = spawned.tree.signal(signal.SIGCONT)
        assert not isinstance(received, int)
        assert await received == count + 1

    for what in (spawned.tree.remaining, signal_all, spawned.tree.kill):
        turns = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(neighbour)
            await what()
            nursery.cancel_scope.cancel()
        assert turns > count
    await end(spawned)
    assert not marked(mark)


async def test_a_look_that_a_session_ends_in_finds_nobody(supervisor: Supervisor) -> None:
    spawned = start(supervisor, "sleep 1000")
    looking = spawned.tree._find()
    next(looking)
    await end(spawned)
    assert at_once(looking) == {}


async def test_without_a_descriptor_nobody_is_taken_for_gone(supervisor: Supervisor) -> None:
    mark = new_mark()
    nap = f"exec -a {mark} sleep 1000"
    spawned = start_marked(supervisor, f"setsid bash -c '{nap}' & {nap}")
    await until_marked(mark, 2)
    await trio.testing.wait_all_tasks_blocked()  # the guardian has been started
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with trio.open_nursery() as nursery:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            nursery.start_soon(end, spawned)
            with trio.fail_after(PATIENCE):
                await spawned.tree.leader.wait_exited()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not marked(mark)


@pytest.mark.parametrize("how", ["pipes", "terminal", pytest.param("confined", marks=needs_confinement)])
async def test_without_a_descriptor_a_start_is_undone(how: str) -> None:
    mark = new_mark()
    nap = f"exec -a {mark} sleep 1000"
    command = settle(["bash", "-c", f"{nap} & {nap}"], "/", {"PATH": os.environ["PATH"]})
    if how == "confined":
        command = replace(command, confinement=Confinement((Place(b"/", "read"),), network=False))
    started = spawn(command, Size() if how == "terminal" else None, False, None, carries=False)
    leader, reaper = started.pid, started.reaper
    await until_marked(mark, 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        started.undo(None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until_gone(mark)
    assert {leader, reaper}.isdisjoint(proc.children(os.getpid()))


# -- a process of its own --


async def test_without_a_descriptor_it_is_known_who_lives() -> None:
    """By those that are kept for it."""
    mark = new_mark()
    nap = f"exec -a {mark} sleep 1000"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_supervisor(own_process=True) as supervisor:
        spawned = start(supervisor, f"setsid bash -c '{nap}' & {nap}")
        await until_marked(mark, 2)
        await trio.testing.wait_all_tasks_blocked()  # the guardian has been started
        with ExitStack() as taken, trio.fail_after(PATIENCE):
            taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            resource.setrlimit(resource.RLIMIT_NOFILE, (1 + max(map(int, os.listdir("/proc/self/fd"))), hard))
            with suppress(OSError):
                while True:
                    taken.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            living = await spawned.tree.remaining()
        assert sorted((member.pid, member.name) for member in living) == [(pid, "sleep") for pid in marked(mark)]
        await end(spawned)


async def test_the_status_of_other_children_is_left_alone() -> None:
    async with open_supervisor(own_process=True) as supervisor:
        other = subprocess.Popen(["sh", "-c", "exit 7"])  # noqa: ASYNC220
        spawned = start(supervisor, "(setsid sleep 0.01 &) ; sleep 0.1")
        await spawned.tree.leader.wait_exited()
        await end(spawned)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert other.wait() == 7


async def test_one_end_is_heard_until_all_are_looked_for_and_no_other_lacks_a_handler() -> None:
    """One that came while ours was taken away would be complained of by Python, on the stderr of whoever embeds us."""
    async with open_supervisor(own_process=True):
        ours = signal.getsignal(signal.SIGCHLD)
        assert is_caught(signal.SIGCHLD)
        subprocess.run(["true"], check=True)  # noqa: ASYNC221
        assert not is_caught(signal.SIGCHLD)
        assert signal.getsignal(signal.SIGCHLD) == ours
        with trio.fail_after(PATIENCE):
            while not is_caught(signal.SIGCHLD):  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_settings_are_restored() -> None:
    def settings() -> list[object]:
        return [subreaper.is_subreaper(), signal.getsignal(signal.SIGCHLD), resource.getrlimit(rlimit_mark.RTTIME)]

    before = settings()
    descriptors = len(os.listdir("/proc/self/fd"))
    async with open_supervisor() as guest:
        await end(start(guest, "true"))
        assert settings() == before
    async with open_supervisor(own_process=True) as supervisor:
        await end(start(supervisor, "true"))
        assert settings() != before
    assert settings() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not [pid for pid in proc.children(os.getpid()) if proc.name(pid) == "python"]


# -- a control group --


def test_a_control_group_is_killed_whole() -> None:
    headless = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=[1000]).start()\n"
    headless += "ctypes.CDLL(None).pthread_exit(None)"
    children = [subprocess.Popen(argv) for argv in (["sleep", "1000"], [sys.executable, "-I", "-S", "-c", headless])]
    folder = None
    try:
        while " Z " not in Path(f"/proc/{children[1].pid}/stat").read_text():
            pass
        # Only now: an empty group is removed by any server that comes up on this machine.
        folder = cgroup.make(f"{cgroup.PREFIX}test-{os.getpid()}")
        if folder is None:
            pytest.skip("no control group to be had here")
        assert not cgroup.holds(folder)
        for child in children:
            assert cgroup.enter(folder, child.pid)
        assert sorted(cgroup.members(folder)) == sorted(child.pid for child in children)
        cgroup.remove(folder)
        assert cgroup.holds(folder)
        assert cgroup.kill(folder, 5)
        assert [child.wait() for child in children] == [-9, -9]
    finally:
        for child in children:
            child.kill()
            child.wait()
        if folder is not None:
            cgroup.remove(folder)
    assert not folder.exists()
    assert not cgroup.enter(folder)
    assert cgroup.kill(folder, 0)


# -- what users see --


def test_the_doctor_says_what_there_is() -> None:
    doctor = [sys.executable, "-m", "execsrv", "doctor"]
    said = subprocess.run(doctor, capture_output=True, text=True, check=True).stdout
    found = json.loads(subprocess.run([*doctor, "--json"], capture_output=True, check=True).stdout)
    assert {layer["name"] for layer in found["layers"]} >= {"mark", "subreaper", "guardian", "cgroup"}
    for words in [*found["guarantees"], *found["escapes"]]:
        assert words in said


def test_assert_no_strays_finds_and_kills_them() -> None:
    mark = new_mark()
    with assert_no_strays():
        subprocess.run(["true"], check=True)
    complaint = rf"left behind, 0\.1 s after the block: \d+ \({mark} 1000\)"
    with pytest.raises(AssertionError, match=complaint), assert_no_strays(0.1):
        subprocess.run(["setsid", "bash", "-c", f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 &"], check=True)
        trio.run(until_marked, mark, 1)  # by then its name is no longer bash
    assert not marked(mark)
    with pytest.raises(ValueError, match="of the block") as raised, assert_no_strays(0.1):
        subprocess.run(["setsid", "bash", "-c", f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 &"], check=True)
        trio.run(until_marked, mark, 1)
        raise ValueError("of the block")
    assert not marked(mark)
    assert [re.fullmatch(complaint, note) is not None for note in raised.value.__notes__] == [True]


@pytest.mark.parametrize("way", ["spawn", "forkserver"])
def test_helpers_of_the_interpreter_are_no_strays(tmp_path: Path, way: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import multiprocessing, os, subprocess
from execsrv._processes import proc
from execsrv.testing import assert_no_strays
if __name__ == "__main__":
    try:
        with assert_no_strays():
            with multiprocessing.get_context({way!r}).Pool(1) as pool:
                assert pool.map(abs, [-1]) == [1]
                pool.close()
                pool.join()
            subprocess.Popen(["sleep", "1000"])
    except AssertionError as error:
        print(error)
    print(*(proc.command_line(pid) for pid in proc.children(os.getpid()) if proc.living(pid)), sep="\\n")
""")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    complaint, *helpers = done.stdout.splitlines()
    assert re.fullmatch(r"left behind, 2.0 s after the block: \d+ \(sleep 1000\)", complaint)
    assert any("resource_tracker" in helper for helper in helpers)
    assert all("multiprocessing" in helper for helper in helpers)


def test_the_fixture_fails_a_test_that_leaves_strays(tmp_path: Path) -> None:
    mark = new_mark()
    stray = ["setsid", "bash", "-c", f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 &"]
    (tmp_path / "test_it.py").write_text(
        "import subprocess\n"
        "def test_clean(no_strays): subprocess.run(['true'])\n"
        f"def test_stray(no_strays): subprocess.run({stray!r})\n"
    )
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["execsrv.testing.pytest_plugin"]')
    pytest_ = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(pytest_, capture_output=True, text=True)
    assert "2 passed, 1 error" in done.stdout
    assert "left behind" in done.stdout
    assert not marked(mark)
