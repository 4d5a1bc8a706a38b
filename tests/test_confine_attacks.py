"""Attacks on a server from a command of it: each succeeds without confinement, and fails with it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import execsrv
from execsrv import Policy
from execsrv._processes import proc
from execsrv._processes.confine import landlock, layers, start
from execsrv._processes.confine.layers import LayerName, Means
from execsrv.limits import ServerConfig
from tests import confine_attacks
from tests.confine_attacks import ATTACKS, OF_ROOT
from tests.confined import needs_confinement
from tests.processes import may_become_nobody, new_mark

pytestmark = [needs_confinement, pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls have other numbers")]

SYSTEM_PYTHON = "/usr/bin/python3"
SOURCE = Path(confine_attacks.__file__).read_text()
NOBODY = 65534

AS_NOBODY = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.execv(sys.argv[1], sys.argv[1:])
"""

MAY_BE_MISSING = set("x32 i386 io_uring keyring perf ipv6 raw_disk handle_at type_into_terminal sysrq".split())
"""Attacks on what not every kernel has."""

OF_READABLE_SERVER = {name for name in ATTACKS if "server_" in name and "kill" not in name} | {"read_secret_by_server"}
"""Attacks on the memory of the server, which keeps that shut by itself from all but root."""


@dataclass
class Scene:
    """A folder with all that is to be attacked, and the facts that an attacker is told."""

    root: Path
    facts: dict[str, Any]

    @property
    def policy(self) -> Policy:
        workspace = self.root / "workspace"
        whole = Policy.read_only(network=False).write(workspace)
        return whole.protect(workspace / ".git", workspace / "a/b/part").hide(
            self.root / "secrets", self.root / "secret"
        )


@pytest.fixture
def scene() -> Iterator[Scene]:
    root = Path(tempfile.mkdtemp())  # others find no way into those of pytest
    for name in ("workspace/.git", "workspace/a/b", "outside", "secrets"):
        (root / name).mkdir(parents=True)
    outside = root / "outside"
    for name in ("file", "doomed", "named", "taken", "../secret", "../secrets/key"):
        (outside / name).write_text("content")
    for name in (".git/config", "a/b/part"):
        (root / "workspace" / name).write_text("content")
    mark = new_mark()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        stream, datagram, abstract = (socket.socket(socket.AF_UNIX, kind) for kind in (1, 2, 1))
        tcp = socket.create_server(("127.0.0.1", 0))
        for end in (stream, datagram, abstract, tcp):
            stack.enter_context(end)
        here = os.getcwd()
        os.chdir(outside)  # the whole path may be too long for an address
        stream.bind("stream")
        datagram.bind("datagram")
        os.chdir(here)
        abstract.bind(f"\0{mark}")
        stream.listen(100)
        abstract.listen(100)
        os.mkfifo(outside / "fifo")
        fifo = os.open(outside / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        stack.callback(os.close, fifo)
        master, slave = os.openpty()
        stack.callback(os.close, master)
        stack.callback(os.close, slave)
        shared = Path("/dev/shm") / mark
        without = []
        try:
            shared.write_text("content")
            stack.callback(shared.unlink)
        except OSError:  # it is read-only here
            without.append("posix_shared_memory")
        libc = ctypes.CDLL(None)
        segment = libc.shmget(0x6578, 64, 0o1666)
        stack.callback(libc.shmctl, segment, 0, None)
        disks = [line.split()[3] for line in Path("/proc/partitions").read_text().splitlines()[2:]]
        facts = {
            "workspace": str(root / "workspace"),
            "outside": str(outside),
            "secret": str(root / "secrets/key"),
            "secret_file": str(root / "secret"),
            "tcp": tcp.getsockname()[1],
            "abstract": mark,
            "terminal": os.ttyname(slave),
            "shm": mark,
            "disk": f"/dev/{disks[0]}" if disks else "/dev/none",
            "without": without,
        }
        yield Scene(root, facts)


def give(scene: Scene, uid: int) -> None:
    """Give all of it to a user, who is to find a way to it."""
    shared = [path for path in [Path("/dev/shm") / scene.facts["shm"]] if path.exists()]
    for path in (scene.root, *scene.root.rglob("*"), *shared):
        os.chown(path, uid, uid)


def server(user: str) -> list[str]:
    serve = ["-m", "execsrv", "serve", "--listen", "stdio://"]
    if user == "ours":
        return [sys.executable, *serve]
    if not may_become_nobody():
        pytest.skip("nobody else can be had here")
    path = f"PYTHONPATH={Path(execsrv.__file__).parents[1]}:{sysconfig.get_path('purelib')}"
    return ["env", path, "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-c", AS_NOBODY, SYSTEM_PYTHON, *serve]


@asynccontextmanager
async def attacked(scene: Scene, user: str) -> AsyncIterator[execsrv.Client]:
    """A client of a server of that user, with a neighbour, about which the scene tells."""
    argv = server(user)
    if user == "nobody":
        give(scene, NOBODY)
    if user == "nobody" or os.getuid():
        scene.facts["without"] += sorted(OF_ROOT)
    async with (
        execsrv.launch(argv) as client,
        client.start(["sleep", "1000"], cwd="/") as neighbour,
    ):
        assert neighbour.pid is not None
        scene.facts |= {"neighbour": neighbour.pid, "server": proc.parent(neighbour.pid)}
        yield client


async def outcomes(
    client: execsrv.Client, scene: Scene, tty: bool, policy: Policy | None, user: str | None = None
) -> dict[str, str]:
    argv = [SYSTEM_PYTHON, "-I", "-c", SOURCE, json.dumps(scene.facts)]
    result = await client.run(argv, cwd="/", tty=tty, user=user, sandbox=policy, text=True, timeout=300)
    try:
        found: dict[str, str] = json.loads(result.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise AssertionError(f"{result.exit_code}: {result.stdout}{result.stderr}") from None
    return found


@pytest.mark.few
@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
@pytest.mark.parametrize("user", ["ours", "nobody"])
async def test_every_attack_fails_that_succeeds_without(scene: Scene, user: str, tty: bool) -> None:
    async with attacked(scene, user) as client:
        confined = await outcomes(client, scene, tty, scene.policy)
        open_still = sorted(name for name, outcome in confined.items() if outcome == "open")
        free = await outcomes(client, scene, tty, None)
        void = {name for name, outcome in free.items() if outcome != "open"} - MAY_BE_MISSING
        if user == "nobody":
            void -= OF_READABLE_SERVER
        assert open_still == []
        assert {name: free[name] for name in void} == {}
        odd = {name: outcome for name, outcome in confined.items() if outcome not in EXPECTED}
        assert odd == {}


@pytest.mark.few
@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
async def test_every_attack_fails_of_a_command_of_another_user(scene: Scene, tty: bool) -> None:
    """What it attacks is its own user's, but for the server and its neighbour."""
    if not may_become_nobody():
        pytest.skip("nobody else can be had here")
    async with attacked(scene, "ours") as client:
        give(scene, NOBODY)
        scene.facts["without"] += sorted(OF_ROOT)
        confined = await outcomes(client, scene, tty, scene.policy, "nobody")
        assert sorted(name for name, outcome in confined.items() if outcome == "open") == []
        assert {name: outcome for name, outcome in confined.items() if outcome not in EXPECTED} == {}
        free = await outcomes(client, scene, tty, None, "nobody")
        void = {name for name, outcome in free.items() if outcome != "open"} - MAY_BE_MISSING
        assert void <= OF_READABLE_SERVER | OF_SAME_USER


OF_SAME_USER = {name for name in ATTACKS if "server" in name or "neighbour" in name or name.startswith("kill")} | {
    "open_server_memory"
}
"""Attacks that the rights of another user stop already."""


EXPECTED = {"EPERM", "EACCES", "EROFS", "ESRCH", "ENOENT", "ENOSYS", "EXDEV", "EBUSY", "ECONNREFUSED", "signal 31"}
"""The errors with which attacks fail: no right, nobody there, no such call, or the end for asking."""


ALONE: dict[LayerName, str] = {
    "view": "write_git",
    "ipc": "shared_memory",
    "processes": "kill_neighbour",
    "capabilities": "set_id",
    "landlock": "fifo",
    "seccomp": "tcp",
}
"""An attack that each layer stops, and no other does: signals only where Landlock does not keep them in."""


@pytest.mark.skipif(os.getuid() != 0, reason="some of the attacks take a right of root")
@pytest.mark.parametrize("layer", ALONE)
async def test_no_layer_is_in_vain(scene: Scene, layer: LayerName, monkeypatch: pytest.MonkeyPatch) -> None:
    found = start.means()
    assert isinstance(found, Means)
    async with execsrv.connect_in_process() as client, client.start(["sleep", "1000"], cwd="/") as neighbour:
        scene.facts |= {"neighbour": neighbour.pid, "server": os.getpid()}
        scene.facts["without"] = sorted(ATTACKS.keys() - set(ALONE.values()))
        monkeypatch.setattr(landlock, "check_alone", lambda confinement: None)  # which refuses what is tried here
        version = found.landlock if layer != "processes" else landlock.SIGNALS_VERSION - 1
        monkeypatch.setattr(start, "means", lambda: Means(layers.ALL, found.in_user, version))
        whole = await outcomes(client, scene, False, scene.policy)
        assert whole.keys() == set(ALONE.values())
        assert "open" not in whole.values()
        monkeypatch.setattr(start, "means", lambda: Means(layers.ALL - {layer}, found.in_user, version))
        less = await outcomes(client, scene, False, scene.policy)
        assert [name for name, outcome in less.items() if outcome == "open"] == [ALONE[layer]]


OF_NO_VIEW = set(
    "chmod fchmod chown utime setxattr touch_null touch_its_null terminal_of_others read_server_descriptors"
    " shared_memory".split()
)
"""Attacks that a command without a view is told to be open to: see `start.WITHOUT_VIEW`."""


@pytest.mark.skipif(os.getuid() != 0, reason="some of the attacks take a right of root")
@pytest.mark.parametrize("tty", [False, True], ids=["pipes", "terminal"])
async def test_landlock_alone_leaves_open_what_is_told(
    scene: Scene, tty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(start.means_without_view(), Means):
        pytest.skip("Landlock keeps no signals in here")
    monkeypatch.setattr(start, "means", lambda: start.Refusal("unshare", 1, "namespaces"))
    config = ServerConfig(allow_landlock_only=True)
    policy = Policy.read_only(network=False).write(scene.root / "workspace").or_landlock()
    secrets = {name for name in ATTACKS if "secret" in name}  # which are to be read
    parts = {"write_git", "create_in_git", "rename_git", "rename_above_protected", "write_protected_below", "chmod_git"}
    scene.facts["without"] += sorted(secrets | parts)
    async with (
        execsrv.connect_in_process(config=config) as client,
        client.start(["sleep", "1000"], cwd="/") as neighbour,
    ):
        scene.facts |= {"neighbour": neighbour.pid, "server": os.getpid()}
        confined = await outcomes(client, scene, tty, policy)
        assert {name for name, outcome in confined.items() if outcome == "open"} == OF_NO_VIEW
        async with client.start(["true"], cwd="/", sandbox=policy) as process:
            assert process.confined is not None
            assert process.confined.gaps == list(start.WITHOUT_VIEW)
            assert process.confined.layers == ["capabilities", "landlock", "no-new-privs", "seccomp"]


LET_THROUGH: dict[LayerName, str] = {
    "view": "chmod chmod_git chown create_in_git fchmod list_secret open_secret_file read_secret read_secret_by_root"
    " read_secret_file read_server_descriptors rename_above_protected rename_git setxattr terminal_of_others"
    " touch_its_null touch_null utime write_git write_protected_below",
    "ipc": "shared_memory",
    "processes": "kill_by_pidfd kill_group kill_neighbour kill_server kill_thread read_server_descriptors",
    "capabilities": "list_secret read_secret_file set_id",
    "landlock": "fifo",
    "seccomp": "child_of_its_parent handle_at i386 io_uring ipv6 keyring netlink new_root ptrace_child shed_mark"
    " shed_mark_by_lock shed_mark_of_child tcp tcp_listen udp unix_datagram unix_message unix_pair unix_raw unix_stream"
    " user_namespace user_namespace_by_clone user_namespace_by_clone3",
}
"""The attacks of a command of root that succeed without one layer, with a Landlock that keeps no signals in for one."""


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="some of the attacks take a right of root")
@pytest.mark.parametrize("layer", LET_THROUGH)
async def test_without_a_layer_its_own_attacks_succeed_and_no_others(
    scene: Scene, layer: LayerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = start.means()
    assert isinstance(found, Means)
    version = found.landlock if layer != "processes" else landlock.SIGNALS_VERSION - 1
    monkeypatch.setattr(landlock, "check_alone", lambda confinement: None)  # which refuses what is tried here
    monkeypatch.setattr(start, "means", lambda: Means(layers.ALL - {layer}, found.in_user, version))
    async with execsrv.connect_in_process() as client, client.start(["sleep", "1000"], cwd="/") as neighbour:
        scene.facts |= {"neighbour": neighbour.pid, "server": os.getpid()}
        tried = await outcomes(client, scene, False, scene.policy)
    let_through = {name for name, outcome in tried.items() if outcome == "open"}
    assert let_through - MAY_BE_MISSING == set(LET_THROUGH[layer].split()) - MAY_BE_MISSING - set(
        scene.facts["without"]
    )
