"""What file methods must not do for a peer: read the server's memory, follow planted links, make set-id files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from execsrv.limits import ServerConfig
from tests.conftest import OpenServer
from tests.peers import Peer, b64
from tests.processes import may_become_nobody
from tests.test_files import WALK, read, uri

NOBODY = 65534
HERE = str(Path(__file__).parents[2])

needs_root = pytest.mark.skipif(not may_become_nobody(), reason="only root makes links of other users")


@pytest.fixture
async def memory_peer(open_server: OpenServer) -> Peer:
    return await open_server("memory", ServerConfig()).peer()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = Path(os.path.realpath(tmp_path)) / "files"
    folder.mkdir()
    return folder


async def refused(peer: Peer, method: str, **params: Any) -> tuple[str, int]:
    _, _, data = await peer.refused(method, params)
    return data["kind"], data.get("errno", 0)


CLOSED = ("file-refused", 13)


@pytest.mark.few(4)
@pytest.mark.parametrize(
    "name", ["environ", "mem", "fd", "task", "root", "cwd", "maps", "auxv", "stat", ".", "net/../environ"]
)
async def test_no_way_leads_to_a_process(memory_peer: Peer, here: Path, name: str) -> None:
    peer = memory_peer
    (here / "proc").symlink_to("/proc")
    (here / "self").symlink_to("/proc/thread-self/" + name)
    (here / "fd").symlink_to("/dev/fd/../" + name)
    mine, thread = os.getpid(), threading.get_native_id()
    ways = [f"/proc/{who}" for who in ("self", "thread-self", mine, thread, f"{mine}/task/{thread}", os.getppid())]
    for way in [*(f"{way}/{name}" for way in ways), f"{here}/proc/self/{name}", f"{here}/self", f"{here}/fd"]:
        for method in ("fs/readFile", "fs/readDirectory", "fs/list", "fs/canonicalize", "fs/getMetadata", "fs/stat"):
            assert await refused(peer, method, path=way) == CLOSED, (method, way)
        assert await refused(peer, "fs/open", handleId="h", path=way, mode="update") == CLOSED
        assert await refused(peer, "fs/writeFile", path=way, dataBase64="") == CLOSED
        assert await refused(peer, "fs/walk", path=way, options=WALK) == CLOSED
        if name in ("environ", "mem") and not way.startswith((f"{here}/self", f"{here}/fd")):  # these are links
            copy = {"sourcePath": way, "destinationPath": uri(here / "stolen"), "recursive": True}
            assert await refused(peer, "fs/copy", **copy) == CLOSED
    assert sorted(os.listdir(here)) == ["fd", "proc", "self"]


async def test_no_root_is_in_a_process(open_server: OpenServer) -> None:
    for root in ("/proc/self", f"/proc/{os.getpid()}", "/proc/self/fd", f"/proc/self/task/{threading.get_native_id()}"):
        peer = await open_server("memory", ServerConfig(file_roots=(root,))).peer()
        for name in ("environ", "0", "stat"):
            assert await refused(peer, "fs/readFile", path=f"{root}/{name}") == CLOSED


MOUNTED = """
import sys
from execsrv._files.contents import read_file
from execsrv._files.roots import Roots

for top in sys.argv[1:]:
    for name in ("self/environ", "1/environ", "1/task/1/mem", "thread-self/maps"):
        for roots, path in (("/",), f"{top}/{name}"), ((top,), f"{top}/{name}"), ((f"{top}/1",), f"{top}/1/environ"):
            try:
                with Roots(roots).at(path) as place:
                    print(path, read_file(place, 10))
            except PermissionError:
                pass
    with Roots((top,)).at(f"{top}/self/status") as place:
        assert read_file(place, 100_000)
print("closed")
"""


def test_no_mount_of_proc_leads_to_a_process(tmp_path: Path) -> None:
    """Another /proc, of another namespace of processes, and a bind mount of this one."""
    (tmp_path / "other").mkdir()
    (tmp_path / "bound").mkdir()
    unshare = ["unshare", "--mount", "--pid", "--fork", "sh", "-c"]
    mount = f"mount -t proc proc {tmp_path}/other && mount --bind /proc {tmp_path}/bound"
    if subprocess.run([*unshare, mount], capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    ask = [sys.executable, "-c", MOUNTED, f"{tmp_path}/other", f"{tmp_path}/other/.", f"{tmp_path}/bound"]
    run = [*unshare, mount + ' && exec "$@"', "-", *ask]
    said = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": HERE})
    assert (said.stdout, said.stderr) == ("closed\n", "")


async def test_the_memory_of_all_is_closed(memory_peer: Peer, here: Path) -> None:
    if not Path("/proc/kcore").exists():  # noqa: ASYNC240
        pytest.skip("this kernel has no /proc/kcore")
    assert await refused(memory_peer, "fs/readFile", path="/proc/kcore") == CLOSED
    assert await refused(memory_peer, "fs/open", handleId="h", path="/proc/kcore") == CLOSED


async def test_the_rest_of_proc_is_open(memory_peer: Peer, here: Path) -> None:
    """What a namesake elsewhere holds, too: a /proc is known by its kind."""
    for name in ("mounts", "self/status", "cpuinfo", "sys/kernel/ostype", "net/dev", "self/mountinfo"):
        assert await read(memory_peer, Path("/proc") / name) != b"", name
    (here / "123").mkdir()
    (here / "123/environ").write_text("mine")
    (here / "kcore").write_text("mine")
    assert await read(memory_peer, here / "123/environ") == await read(memory_peer, here / "kcore") == b"mine"
    names = [entry["fileName"] for entry in (await memory_peer.call("fs/list", {"path": "/proc"}))["entries"]]
    assert str(os.getpid()) in names


@needs_root
async def test_links_of_others_in_a_shared_directory_are_not_followed(memory_peer: Peer, here: Path) -> None:
    """As with fs.protected_symlinks: nobody plants a link, and a server of root would follow it."""
    peer, shared, private = memory_peer, here / "tmp", here / "root"
    shared.mkdir()
    shared.chmod(0o1777)
    private.mkdir(mode=0o700)
    (private / "secret").write_text("secret")
    for name, target in {"new": private / "new", "file": private / "secret", "directory": private}.items():
        (shared / name).symlink_to(target)
        os.lchown(shared / name, NOBODY, NOBODY)
    for way in ("new", "file", "directory/new", "directory/secret"):
        path = uri(shared / way)
        assert await refused(peer, "fs/writeFile", path=path, dataBase64="eA==") == CLOSED
        assert await refused(peer, "fs/append", path=path, dataBase64="eA==") == CLOSED
        assert await refused(peer, "fs/readFile", path=path) == CLOSED
        assert await refused(peer, "fs/open", handleId="h", path=path, mode="replace") == CLOSED
        source = {"sourcePath": uri(private / "secret"), "destinationPath": path, "recursive": False}
        assert await refused(peer, "fs/copy", **source) == CLOSED
    assert await refused(peer, "fs/createDirectory", path=uri(shared / "directory/deep/er")) == CLOSED
    assert os.listdir(private) == ["secret"]
    assert (private / "secret").read_text() == "secret"
    # The link itself may be looked at and removed; ours, and those of the directory's owner, lead on.
    assert (await peer.call("fs/stat", {"path": uri(shared / "file"), "ofLink": True}))["kind"] == "symlink"
    os.lchown(shared / "file", os.geteuid(), os.getegid())
    assert await read(peer, shared / "file") == b"secret"
    os.chown(shared, NOBODY, NOBODY)
    assert await read(peer, shared / "directory/secret") == b"secret"
    os.chown(shared, 0, 0)
    shared.chmod(0o777)  # no shared directory for the kernel either, without the sticky bit
    assert await read(peer, shared / "directory/secret") == b"secret"


def bits(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_no_copy_has_the_rights_of_its_owner(memory_peer: Peer, here: Path) -> None:
    peer, tree = memory_peer, here / "tree"
    tree.mkdir()
    (tree / "tool").write_text("tool")
    (tree / "tool").chmod(0o6755)
    if may_become_nobody():
        os.chown(tree / "tool", NOBODY, NOBODY)
        (tree / "tool").chmod(0o6755)
    (here / "old").write_text("old")
    (here / "old").chmod(0o6711)
    copies = {tree / "tool": ["new", "old"], tree: ["copied"]}
    for source, names in copies.items():
        for name in names:
            params = {"sourcePath": uri(source), "destinationPath": uri(here / name), "recursive": True}
            await peer.call("fs/copy", params)
    for copy in (here / "new", here / "old", here / "copied/tool"):
        assert (copy.read_text(), bits(copy)) == ("tool", 0o755)
    # Nor has other content in its place.
    await peer.call("fs/writeFile", {"path": uri(tree / "tool"), "dataBase64": b64(b"evil"), "atomic": True})
    assert ((tree / "tool").read_text(), bits(tree / "tool")) == ("evil", 0o755)
