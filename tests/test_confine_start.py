"""Confined commands are commands: their ends, their trees, their terminals and their proofs are those of any other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from execsrv._processes import proc
from execsrv._processes.accounts import Account
from execsrv._processes.command import Wishes, settle
from execsrv._processes.confine import layers, start, starter
from execsrv._processes.confine.layers import Means
from execsrv._processes.confine.places import Confinement
from execsrv._processes.supervisor import Spawned, Supervisor, open_supervisor
from execsrv.errors import SandboxUnavailableError, SpawnError
from execsrv.protocol import Size
from tests.confined import confinement, needs_confinement
from tests.processes import marked, new_mark, until_gone, until_marked

pytestmark = needs_confinement

READ = confinement({"/": "read"})
ENV = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(params=[True, False], ids=["own process", "guest"])
async def supervisor(request: pytest.FixtureRequest) -> AsyncIterator[Supervisor]:
    async with open_supervisor(own_process=request.param) as found:
        yield found


def spawn(
    supervisor: Supervisor, argv: list[str], it: Confinement, cwd: str = "/", *, size: Size | None = None
) -> Spawned:
    command = replace(settle(argv, cwd, ENV, None, Wishes(umask=0o027)), confinement=it)
    return supervisor.spawn(command, size=size, pipe_stdin=False)


@asynccontextmanager
async def running(
    supervisor: Supervisor, argv: list[str], it: Confinement, cwd: str = "/", *, size: Size | None = None
) -> AsyncIterator[Spawned]:
    spawned = spawn(supervisor, argv, it, cwd, size=size)
    try:
        yield spawned
    finally:
        await spawned.tree.end()
        for descriptor in {*spawned.outputs.values(), spawned.stdin, spawned.held} - {None}:
            assert descriptor is not None
            os.close(descriptor)


async def until_end(output: int) -> bytes:
    text = b""
    while True:
        await trio.lowlevel.wait_readable(output)
        try:
            piece = os.read(output, 65536)
        except OSError:
            return text
        if not piece:
            return text
        text += piece


ENDS = {"exit 7": (7, None), "kill -TERM $$": (143, "SIGTERM"), "kill -KILL $$": (137, "SIGKILL")}


@pytest.mark.parametrize("script", ENDS)
async def test_exit_facts_are_exact(supervisor: Supervisor, script: str) -> None:
    async with running(supervisor, ["sh", "-c", script], confinement({"/": "read"})) as spawned:
        status = await spawned.tree.leader.wait_exited()
        assert (status.code, status.signal) == ENDS[script]
        assert await spawned.tree.remaining() == []


async def test_nothing_of_its_tree_survives_and_its_reaper_is_not_of_it(supervisor: Supervisor) -> None:
    mark = new_mark()
    script = f"setsid bash -c 'exec -a {mark} sleep 1000' </dev/null >/dev/null 2>&1 & exit 3"
    async with running(supervisor, ["bash", "-c", script], confinement({"/": "read"})) as spawned:
        assert (await spawned.tree.leader.wait_exited()).code == 3
        await until_marked(mark, 1)
        assert [member.pid for member in await spawned.tree.remaining()] == marked(mark)
        reaper = spawned.tree.reaper
        assert reaper is not None
        assert not reaper.has_ended
        assert await spawned.tree.kill() == supervisor.layer
        await until_gone(mark)
        await reaper.wait_ended()


async def test_a_program_that_cannot_be_executed_is_told_as_anywhere(supervisor: Supervisor, tmp_path: Path) -> None:
    before = set(proc.children(os.getpid()))
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    (tmp_path / "plain").touch()
    cases = [("/nowhere/x", "program", 2), (f"{tmp_path}/text", "format", 8), (f"{tmp_path}/plain", "permission", 13)]
    for program, stage, number in cases:
        with pytest.raises(SpawnError) as caught:
            spawn(supervisor, [program], READ)
        assert (caught.value.stage, caught.value.errno) == (stage, number)
    with pytest.raises(SpawnError) as caught:
        spawn(supervisor, ["true"], confinement({"/": "read", tmp_path: "none"}), str(tmp_path))
    assert (caught.value.stage, caught.value.errno) == ("cwd", 13)
    new = set(proc.children(os.getpid())) - before
    assert {proc.name(pid) for pid in new} <= {"python", "python3"}  # of the guardian


async def test_a_step_that_fails_is_named(supervisor: Supervisor, tmp_path: Path) -> None:
    it = confinement({"/": "read", tmp_path / "gone": "write"})
    with pytest.raises(SpawnError, match=f"cannot confine, bind {tmp_path}/gone: No such file") as caught:
        spawn(supervisor, ["true"], it)
    assert caught.value.facts == {"stage": "sandbox", "errno": 2, "step": f"bind {tmp_path}/gone"}


async def test_a_wish_that_is_refused_is_named(supervisor: Supervisor) -> None:
    command = settle(["true"], "/", ENV, wishes=Wishes(oom_score_adj=1001))  # more than there is, whoever asks
    with pytest.raises(SpawnError, match="with oomScoreAdj 1001: Invalid argument") as caught:
        supervisor.spawn(replace(command, confinement=READ), size=None, pipe_stdin=False)
    assert caught.value.stage == "permission"


async def test_a_path_that_has_become_a_link_allows_nothing(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr")
    link = tmp_path / "link"
    for it in (
        confinement({"/usr": "read", link: "read"}),
        confinement({"/": "read", link: "write"}),
        confinement({"/": "read", tmp_path: "write", link: "none"}),
    ):
        with pytest.raises(SpawnError, match=f"{link}: Too many levels of symbolic links"):
            spawn(supervisor, ["true"], it)


async def test_it_has_what_it_asked_for(supervisor: Supervisor, tmp_path: Path) -> None:
    argv = ["sh", "-c", "umask; pwd; echo $PATH; ls /proc/self/fd"]
    async with running(supervisor, argv, confinement({"/": "read", tmp_path: "write"}), str(tmp_path)) as spawned:
        said = await until_end(spawned.outputs["stdout"])
    assert said.decode().split("\n") == ["0027", str(tmp_path), ENV["PATH"], "0", "1", "2", "3", ""]


async def test_its_terminal_is_its_controlling_terminal(supervisor: Supervisor) -> None:
    script = "stty size </dev/tty; tty; echo again >/dev/stdout; echo ready; exec sleep 1000"
    async with running(supervisor, ["bash", "-c", script], READ, size=Size(33, 99)) as spawned:
        master = spawned.outputs["pty"]
        text = b""
        while b"ready" not in text:
            await trio.lowlevel.wait_readable(master)
            text += os.read(master, 65536)
        assert text.split() == [b"33", b"99", b"/dev/console", b"again", b"ready"]
        os.write(master, b"\3")
        status = await spawned.tree.leader.wait_exited()
        assert (status.code, status.signal) == (130, "SIGINT")


async def test_a_signal_reaches_the_whole_tree(supervisor: Supervisor) -> None:
    async with running(supervisor, ["bash", "-c", "sleep 1000 & echo; while :; do wait; done"], READ) as spawned:
        await trio.lowlevel.wait_readable(spawned.outputs["stdout"])
        assert spawned.tree.signal_now(signal.SIGTERM, "tree") == 2
        assert (await spawned.tree.leader.wait_exited()).signal == "SIGTERM"


GUEST = """
import os, sys
from msgspec.structs import replace
from execsrv._processes.command import settle
from execsrv._processes.supervisor import Supervisor
from tests.confined import confinement
command = replace(settle(sys.argv[1:], "/", {"PATH": "/usr/bin:/bin"}), confinement=confinement({"/": "read"}))
Supervisor().spawn(command, size=None, pipe_stdin=False)
sys.stdin.read()
"""


async def test_all_of_it_ends_with_its_server_even_without_a_guardian() -> None:
    mark = new_mark()
    script = f"trap '' HUP TERM; setsid bash -c 'exec -a {mark} sleep 1000' & exec -a {mark} sleep 1000"
    argv = [sys.executable, "-c", GUEST, "bash", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as guest:  # noqa: ASYNC220
        await until_marked(mark, 2)
        guest.kill()
    await until_gone(mark)


async def test_a_hundred_of_them_leave_nothing(supervisor: Supervisor) -> None:
    await supervisor.begin_guard()
    for turn in range(101):
        async with running(supervisor, ["true"], READ) as spawned:
            await spawned.tree.leader.wait_exited()
        if turn == 0:
            before = len(os.listdir("/proc/self/fd"))
        assert spawned.tree.reaper is not None
        await spawned.tree.reaper.wait_ended()
    assert len(os.listdir("/proc/self/fd")) == before
    left = [pid for pid in proc.children(os.getpid()) if proc.living(pid) and "reaper" in proc.name(pid)]
    assert not left


SHORT = """
import resource
from execsrv._processes.confine import start, starter
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def tell():
    for found in (start.means(), start.means_without_view()):
        print(type(found).__name__, getattr(found, "passes", False))
    try:
        print(starter.interpreter().file is not None)
    except OSError as error:
        print(error.strerror)

resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
tell()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
tell()
"""


def test_a_shortage_of_descriptors_at_the_first_start_is_no_reason_to_refuse_later_ones() -> None:
    if not isinstance(start.means_without_view(), Means) or starter.in_machine_code() is None:
        pytest.skip("Landlock keeps no signals in here, or no file in memory can be executed")
    said = subprocess.run([sys.executable, "-c", SHORT], stdout=subprocess.PIPE, check=True, text=True).stdout
    short = ["Refusal True", "Refusal True", "Too many open files"]
    assert said.splitlines() == [*short, "Means False", "Means False", "True"]


NAMESPACES = """
import subprocess, sys
from execsrv._processes.confine import start
from execsrv.errors import SandboxUnavailableError

def most(kind, number):
    with open(f"/proc/sys/user/max_{kind}_namespaces", "w") as file:
        file.write(str(number))

def tell():
    for may_lack_view in (False, True):
        try:
            print(start.needed_means(may_lack_view=may_lack_view).has("view"))
        except SandboxUnavailableError as error:
            print(error.message)

with subprocess.Popen(["unshare", "--mount", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
    holder.stdin.write(b"!")
    holder.stdin.flush()
    holder.stdout.read(1)
    for kind, number in [word.split("=") for word in sys.argv[1:]]:
        if kind == "then":
            tell()
        else:
            most(kind, number)
    holder.stdin.close()
"""


def in_namespace(*words: str) -> list[str]:
    """Bound the namespaces in a user namespace, in which one for mounts is in use, and ask there for means."""
    if shutil.which("unshare") is None or not isinstance(start.means_without_view(), Means):
        pytest.skip("no unshare to make namespaces with, or Landlock keeps no signals in here")
    argv = ["unshare", "--user", "--map-root-user", sys.executable, "-c", NAMESPACES]
    free = subprocess.run([*argv, "then="], capture_output=True, text=True)
    if free.stdout.splitlines() != ["True", "True"]:
        pytest.skip(f"nothing can be confined in a user namespace here: {free.stderr}")
    return subprocess.run([*argv, *words], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def test_namespaces_that_are_used_up_for_now_decide_nothing_for_later_and_nothing_goes_by_less() -> None:
    said = in_namespace("mnt=1", "then=", "mnt=100", "then=")
    why = "unshare: No space left on device (os error 28); it needs more of what is used up for now"
    assert said == [f"this server cannot confine anything for now: {why}"] * 2 + ["True"] * 2


def test_where_no_namespace_can_ever_be_had_a_command_gets_what_is_left() -> None:
    said = in_namespace("mnt=0", "user=0", "then=")
    why = "unshare: No space left on device (os error 28); it needs a user namespace or CAP_SYS_ADMIN"
    assert said == [f"this server cannot confine anything: {why}", "False"]


NOBODY = Account("nobody", 65534, 65534, (65534, 100), "/", "/bin/sh")

AS_NOBODY = """
id -u; id -g; id -G; grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/self/status
cat secret && echo open
echo x >made && echo wrote
echo again >/dev/stdout && echo its own
echo ready
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs commands of others")
@pytest.mark.parametrize("size", [None, Size(24, 80)], ids=["pipes", "terminal"])
async def test_one_of_another_user_has_that_ones_rights_and_no_more(supervisor: Supervisor, size: Size | None) -> None:
    with tempfile.TemporaryDirectory() as folder:  # others find no way into those of pytest
        os.chmod(folder, 0o755)
        work = Path(folder) / "work"
        work.mkdir()
        os.chown(work, NOBODY.uid, NOBODY.gid)
        (work / "secret").write_text("of root")
        (work / "secret").chmod(0o600)
        it = confinement({"/": "read", work: "write"})
        argv = ["sh", "-c", f"exec 2>{'/dev/null' if size is None else '&2'}; {AS_NOBODY}"]
        command = replace(settle(argv, str(work), ENV, None, Wishes(account=NOBODY)), confinement=it)
        spawned = supervisor.spawn(command, size=size, pipe_stdin=False)
        try:
            output, said = next(iter(spawned.outputs.values())), b""
            while b"ready" not in said:
                await trio.lowlevel.wait_readable(output)
                said += os.read(output, 65536)
            assert (work / "made").stat().st_uid == NOBODY.uid
        finally:
            await spawned.tree.end()
            for descriptor in {*spawned.outputs.values(), spawned.stdin, spawned.held} - {None}:
                assert descriptor is not None
                os.close(descriptor)
    words = said.split()
    assert words[:4] == [b"65534", b"65534", b"65534", b"100"]
    for line in (b"CapPrm:\t" + b"0" * 16, b"CapEff:\t" + b"0" * 16, b"CapBnd:\t" + b"0" * 16, b"NoNewPrivs:\t1"):
        assert line in said
    assert b"wrote" in said
    assert b"its own" in said
    assert b"open" not in said


async def test_one_of_another_user_is_refused_in_a_user_namespace(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = start.means()
    assert isinstance(found, Means)
    monkeypatch.setattr(start, "means", lambda: replace(found, in_user=True))
    command = replace(settle(["true"], "/", ENV, None, Wishes(account=NOBODY)), confinement=READ)
    with pytest.raises(SandboxUnavailableError, match="without one for users"):
        supervisor.spawn(command, size=None, pipe_stdin=False)


def test_a_table_that_is_kept_is_the_one_that_would_be_made_and_takes_nothing_from_another_command() -> None:
    means = start.needed_means()

    def written(argv: list[str], cwd: str, **more: Any) -> bytes:
        with tempfile.TemporaryFile() as file:
            layers.table(settle(argv, cwd, ENV, None, Wishes(**more)), READ, means).write(file.fileno())
            return file.read()

    kept = [written(["true"], "/"), written(["echo", "secret"], "/usr"), written(["true"], "/", umask=0o77)]
    assert [written(["true"], "/"), written(["echo", "secret"], "/usr"), written(["true"], "/", umask=0o77)] == kept
    assert len(set(kept)) == 3
    for place, (argv, cwd) in enumerate([(["true"], "/"), (["echo", "secret"], "/usr")]):
        layers._enclosed.cache_clear()
        assert written(argv, cwd) == kept[place]


RESTLESS = """
import os, time
if os.fork(): os._exit(0)
os.setsid()
os.closerange(0, 3)
while True:
    time.sleep(0.0001)
    if os.fork(): os._exit(0)
"""


async def test_who_forks_and_exits_all_the_time_is_never_taken_for_gone(supervisor: Supervisor) -> None:
    async with running(supervisor, [sys.executable, "-I", "-S", "-c", RESTLESS], READ) as spawned:
        await spawned.tree.leader.wait_exited()
        for _ in range(2000):
            assert await spawned.tree.remaining()
        assert spawned.tree.reaper is None or not spawned.tree.reaper.has_ended
        assert await spawned.tree.kill() is not None
