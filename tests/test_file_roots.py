"""Paths to places: as the kernel does it where everything may be reached, and no way out where not."""

from __future__ import annotations

import base64
import os
import posixpath
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from execsrv._files import changes
from execsrv._files.roots import Roots
from execsrv.errors import OutsideRootsError
from execsrv.limits import ServerConfig
from execsrv.protocol import Failure
from tests.conftest import OpenServer
from tests.peers import Peer, b64
from tests.test_files import WALK, error, read, uri

OUTSIDE = (-32600, "outside-roots", None)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Two roots, and something that is in neither."""
    folder = Path(os.path.realpath(tmp_path)) / "files"
    for name in ("root/in", "second", "rootless", "out"):
        (folder / name).mkdir(parents=True)
    (folder / "out/secret").write_text("secret")
    (folder / "second/f").write_text("second")
    (folder / "root/in/f").write_text("in")
    return folder


@pytest.fixture
async def peer(open_server: OpenServer, here: Path) -> Peer:
    """A peer that reaches two roots only."""
    return await open_server("memory", ServerConfig(file_roots=(str(here / "root"), f"{here}/second/"))).peer()


async def test_every_method_stays_inside(peer: Peer, here: Path) -> None:
    root, secret = here / "root", here / "out/secret"
    for name, target in {"absolute": str(secret), "relative": "../out/secret", "dir": "../out", "above": ".."}.items():
        (root / name).symlink_to(target)
    ways = [
        secret,
        here / "rootless",
        Path("/"),
        root / "../out/secret",
        root / "absolute",
        root / "relative",
        root / "dir/secret",
        root / "above/out/secret",
    ]
    for way in ways:
        path = uri(here) + str(way).removeprefix(str(here)) if way.is_relative_to(here) else uri(way)
        calls: dict[str, dict[str, Any]] = {
            "fs/readFile": {"path": path},
            "fs/writeFile": {"path": path, "dataBase64": b64(b"overwritten")},
            "fs/getMetadata": {"path": path},
            "fs/canonicalize": {"path": path},
            "fs/readDirectory": {"path": path},
            "fs/walk": {"path": path, "options": {**WALK, "followDirectorySymlinks": True}},
            "fs/open": {"path": path, "handleId": "h", "mode": "replace"},
            "fs/createDirectory": {"path": path + "/new"},
        }
        for method, params in calls.items():
            assert await error(peer, method, **params) == OUTSIDE, (method, way)
        into = {"sourcePath": uri(root / "in/f"), "destinationPath": path, "recursive": True}
        assert await error(peer, "fs/copy", **into) == OUTSIDE
        watched = await peer.call("fs/watchMissing", {"watchId": ways.index(way), "missing": [path + "/none"]})
        assert watched == {"watching": False}
    for way in (secret, root / "dir/secret", root / "above/out"):
        assert await error(peer, "fs/remove", path=uri(way)) == OUTSIDE
        out_of = {"sourcePath": uri(way), "destinationPath": uri(root / "stolen"), "recursive": True}
        assert await error(peer, "fs/copy", **out_of) == OUTSIDE
    for top in (root, here / "second"):
        assert (await error(peer, "fs/remove", path=uri(top)))[1] == "file-refused"
    # A link may be copied and removed, as a link. Nothing tells what is outside.
    copied = {"sourcePath": uri(root / "dir"), "destinationPath": uri(root / "dir2"), "recursive": True}
    assert await peer.call("fs/copy", copied) == {}
    assert await error(peer, "fs/readFile", path=uri(root / "dir2/secret")) == OUTSIDE
    assert await error(peer, "fs/readFile", path=uri(root / "dir2/none")) == OUTSIDE
    listing = await peer.call("fs/readDirectory", {"path": uri(root)})
    assert [e["fileName"] for e in listing["entries"] if e["isDirectory"] or e["isFile"]] == ["in"]
    walked = await peer.call("fs/walk", {"path": uri(root), "options": {**WALK, "followDirectorySymlinks": True}})
    assert [entry["path"] for entry in walked["entries"]] == [uri(root / "in"), uri(root / "in/f")]
    assert await peer.call("fs/remove", {"path": uri(root / "dir2")}) == {}
    assert os.listdir(here / "out") == ["secret"]
    assert secret.read_text() == "secret"


async def test_links_within_and_between_roots_lead_on(peer: Peer, here: Path) -> None:
    (here / "root/across").symlink_to("../second")
    (here / "root/absolute").symlink_to(here / "root/in")
    (here / "second/back").symlink_to("../root/across/../second/f")
    assert await read(peer, here / "root/across/f") == b"second"
    assert await read(peer, here / "root/absolute/f") == b"in"
    assert await read(peer, here / "second/back") == b"second"
    canonical = await peer.call("fs/canonicalize", {"path": uri(here / "root/across/f")})
    assert canonical == {"path": uri(here / "second/f")}
    await peer.call("fs/writeFile", {"path": uri(here / "root/across/new"), "dataBase64": b64(b"x")})
    assert (here / "second/new").read_text() == "x"


def swap(one: Path, other: Path, stop: threading.Event) -> None:
    """Let two names change places all the time."""
    aside = one.with_name("aside")
    while not stop.is_set():
        for source, target in ((one, aside), (other, one), (aside, other)):
            try:
                os.rename(source, target)
            except OSError:
                pass  # removed or made anew meanwhile


@pytest.mark.few
@pytest.mark.parametrize("what", ["directory", "file"])
async def test_replacing_things_by_links_in_between_opens_no_way_out(peer: Peer, here: Path, what: str) -> None:
    """What is read, overwritten or removed on the way of a swapped link is ours, or it is an error."""
    root, secret = here / "root", here / "out/secret"
    if what == "directory":
        path = root / "swap/secret"
        path.parent.mkdir()
        (root / "link").symlink_to("../out")
    else:
        path = root / "swap"
        (root / "link").symlink_to(secret)
    path.write_text("ours")
    stop = threading.Event()
    calls: dict[str, dict[str, Any]] = {
        "fs/writeFile": {"path": uri(path), "dataBase64": b64(b"ours")},
        "fs/readFile": {"path": uri(path)},
        "fs/open": {"path": uri(path), "handleId": "h", "mode": "replace"},
        "fs/close": {"handleId": "h"},
        "fs/copy": {"sourcePath": uri(root / "in/f"), "destinationPath": uri(path), "recursive": False},
        "fs/remove": {"path": uri(root / "swap/secret"), "recursive": True},
    }
    kinds = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, swap, root / "swap", root / "link", stop)
        try:
            for _ in range(100):
                for method, params in calls.items():
                    answer: Any = await peer.answer(await peer.post(method, params))
                    if isinstance(answer, Failure):
                        assert isinstance(answer.error.data, dict)
                        kinds.add(answer.error.data["kind"])
                    elif method == "fs/readFile":
                        assert base64.b64decode(answer.result["dataBase64"]) in (b"", b"ours", b"in")
                    assert secret.read_text() == "secret", method
                peer.heard.clear()
        finally:
            stop.set()
    assert kinds <= {"not-found", "outside-roots", "file-failed", "file-refused"}


async def test_removing_a_tree_whose_directories_become_links(here: Path) -> None:
    root, secret = here / "root", here / "out/secret"
    roots = Roots([str(root)])
    stop = threading.Event()

    def remove_again_and_again() -> None:
        for _ in range(200):
            # Whatever has changed meanwhile, the next round begins with a tree and a link again.
            with suppress(OSError):
                (root / "tree/swap/below").mkdir(parents=True)
            with suppress(OSError):
                os.symlink(secret.parent, root / "link")
            with suppress(OSError), roots.at(f"{root}/tree") as place:
                changes.remove(place, recursive=True, no_links=False)
            if not secret.exists():
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, swap, root / "tree/swap", root / "link", stop)
        try:
            await trio.to_thread.run_sync(remove_again_and_again)
        finally:
            stop.set()
    assert secret.exists()


# -- the walk itself --

names = st.sampled_from(["a", "b", "c"])
steps = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=5).map("/".join)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, str | None]:
    """Directories (None) and links with their targets, parents first."""
    found: dict[str, str | None] = {}
    directories = [""]
    for _ in range(draw(st.integers(0, 8))):
        path = posixpath.join(draw(st.sampled_from(directories)), draw(names))
        if path not in found:
            found[path] = draw(st.none() | steps | steps.map("/{top}/".__add__))
            if found[path] is None:
                directories.append(path)
    return found


@given(tree=trees(), path=steps, confined=st.booleans())
@settings(max_examples=100)
def test_a_walk_goes_where_the_kernel_goes(tree: dict[str, str | None], path: str, confined: bool) -> None:
    with TemporaryDirectory() as folder:
        top = os.path.realpath(folder) + "/root"
        os.mkdir(top)
        for name, target in tree.items():
            if target is None:
                os.mkdir(f"{top}/{name}")
            else:
                os.symlink(target.replace("/{top}", top), f"{top}/{name}")
        asked = posixpath.normpath(f"{top}/{path}")
        try:
            status = os.stat(asked)
            real = os.path.realpath(asked)
        except OSError as error:
            wanted: Any = error.errno
        else:
            wanted = real, status.st_ino
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        try:
            with Roots([top if confined else "/"]).at(asked) as place:
                got: Any = place.path, place.status().st_ino
        except OSError as error:
            got = error.errno
        except OutsideRootsError:
            assert confined
            got = wanted if _leaves(top, asked) else "refused without a reason"
        assert got == wanted
        if before:
            assert len(os.listdir("/proc/self/fd")) == before


def _leaves(top: str, path: str) -> bool:
    """Whether the way to a path, link by link, is ever above or beside `top`."""
    todo = path.split("/")[::-1]
    here = "/"
    for _ in range(2000):
        if not todo:
            return not _within(top, here)
        name = todo.pop()
        if here != "/" and not (top.startswith(here) or _within(top, here)):
            return True
        if name == "..":
            here = posixpath.dirname(here)
            if not _within(top, here):
                return True
        elif name not in ("", "."):
            step = posixpath.join(here, name)
            if os.path.islink(step):
                target = os.readlink(step)
                if target.startswith("/"):
                    here = "/"
                todo.extend(target.split("/")[::-1])
            else:
                here = step
    return True


def _within(top: str, path: str) -> bool:
    return path == top or path.startswith(top + "/")
