"""`fs/*` as its peers see it, on every transport, with real files."""

from __future__ import annotations

import base64
import ctypes
import errno
import os
import random
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from execsrv._budget.allowance import Allowance
from execsrv._files.channel import open_files
from execsrv._files.files import Files
from execsrv._files.listings import first_by_name
from execsrv._files.roots import Roots
from execsrv._files.watch import Watch
from execsrv._policies import rules_of
from execsrv._wire.paths import uri_from_path
from execsrv.errors import LimitExceededError
from execsrv.limits import ServerConfig
from execsrv.protocol import (
    BlockRead,
    Failure,
    FileData,
    FileHandle,
    FileOpen,
    FilePath,
    Notification,
    Response,
    TreeWatch,
    WatchId,
)
from tests.conftest import OpenServer, Server, with_packed
from tests.peers import PATIENCE, Peer, b64
from tests.processes import may_become_nobody
from tests.web import open_web

transport = with_packed()

WALK = {"maxDepth": 9, "maxDirectories": 99, "maxEntries": 99, "followDirectorySymlinks": False}


@pytest.fixture
async def memory_peer(open_server: OpenServer) -> Peer:
    """A peer for what has nothing to do with the transport."""
    return await open_server("memory", ServerConfig()).peer()


def uri(path: Path | str | bytes) -> str:
    return uri_from_path(os.fsdecode(path))


def leads_to(link: str) -> str | None:
    """Where a link leads; None when it is gone: other threads open and close files."""
    try:
        return os.readlink(link)
    except OSError:
        return None


def times_open(path: Path) -> int:
    """Return how often this process has the file open."""
    names = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(leads_to(name) == str(path) for name in names)


async def read(peer: Peer, path: Path) -> bytes:
    result = await peer.call("fs/readFile", {"path": uri(path)})
    assert result.keys() == {"dataBase64"}
    return base64.b64decode(result["dataBase64"])


async def error(peer: Peer, method: str, **params: Any) -> tuple[int, str, int | None]:
    """Code, kind and errno."""
    code, message, data = await peer.refused(method, params)
    if "errno" in data:
        assert message == f"{os.strerror(data['errno'])} (os error {data['errno']})"
    return code, data["kind"], data.get("errno")


MISSING = (-32004, "not-found", 2)


# -- on every transport --


async def test_whole_files(peer: Peer, here: Path) -> None:
    file = here / "a b#ä.txt"
    written = {"path": uri(file), "dataBase64": b64(b"hi\n"), "sandbox": None}
    assert await peer.call("fs/writeFile", written) == {}
    assert file.read_bytes() == b"hi\n"
    assert await read(peer, file) == b"hi\n"
    os.link(file, here / "other")
    assert await peer.call("fs/writeFile", {**written, "path": str(file), "dataBase64": ""}) == {}
    assert (here / "other").read_bytes() == b""  # the same file, with other content
    assert await error(peer, "fs/readFile", path=uri(here / "none")) == MISSING
    assert await error(peer, "fs/writeFile", path=uri(here / "no/file"), dataBase64="") == MISSING
    data = random.randbytes(3_000_000)
    await peer.call("fs/writeFile", {"path": uri(file), "dataBase64": b64(data)})
    assert await read(peer, file) == data


async def test_blocks(peer: Peer, here: Path) -> None:
    file = uri(here / "file")
    assert await peer.call("fs/open", {"handleId": "w", "path": file, "mode": "replace"}) == {"handleId": "w"}
    assert await peer.call("fs/writeBlock", {"handleId": "w", "offset": 6, "chunk": b64(b"world")}) == {}
    assert await peer.call("fs/writeBlock", {"handleId": "w", "offset": 0, "chunk": b64(b"hello")}) == {}
    assert await peer.call("fs/close", {"handleId": "w"}) == {}
    assert await peer.call("fs/close", {"handleId": "w"}) == {}
    await peer.call("fs/open", {"handleId": "", "path": file})
    for offset, size, chunk, eof in [
        (0, 5, b"hello", False),
        (0, 11, b"hello\0world", False),
        (4, 100, b"o\0world", True),
    ]:
        block = await peer.call("fs/readBlock", {"handleId": "", "offset": offset, "len": size})
        assert block == {"chunk": b64(chunk), "eof": eof}
    for offset in (11, 2**40, 2**62):
        block = await peer.call("fs/readBlock", {"handleId": "", "offset": offset, "len": 1})
        assert block == {"chunk": "", "eof": True}
    # The wrong direction; a read that fails closes the handle, a write does not.
    assert await error(peer, "fs/writeBlock", handleId="", offset=0, chunk="eA==") == (-32603, "file-failed", 9)
    assert await error(peer, "fs/readBlock", handleId="", offset=2**63 - 1, len=1) == (-32600, "file-refused", 22)
    assert await peer.refused("fs/readBlock", {"handleId": "", "offset": 0, "len": 1}) == (
        -32004,
        "unknown file handle ``",
        {"kind": "not-found"},
    )


async def test_blocks_and_the_close_may_be_sent_without_waiting(peer: Peer, here: Path) -> None:
    pieces = [random.randbytes(random.randint(1, 50_000)) for _ in range(40)]
    ids = [await peer.post("fs/open", {"handleId": "h", "path": uri(here / "f"), "mode": "replace"})]
    offset = 0
    for piece in pieces:
        ids.append(await peer.post("fs/writeBlock", {"handleId": "h", "offset": offset, "chunk": b64(piece)}))
        offset += len(piece)
    ids.append(await peer.post("fs/close", {"handleId": "h"}))
    ids.append(await peer.post("fs/open", {"handleId": "h", "path": uri(here)}))
    ids.append(await peer.post("fs/readBlock", {"handleId": "h", "offset": 0, "len": 1}))
    ids.append(await peer.post("fs/close", {"handleId": "h"}))
    succeeded = [isinstance(await peer.answer(id), Response) for id in ids]
    assert succeeded == [True] * (len(ids) - 3) + [False, False, True]  # the folder cannot be opened
    assert (here / "f").read_bytes() == b"".join(pieces)


async def test_handles_end_with_the_channel(server: Server, here: Path) -> None:
    (here / "f").touch()

    async with server.open_peer() as peer:
        await peer.handshake()
        for number in range(128):
            await peer.call("fs/open", {"handleId": str(number), "path": uri(here / "f")})
        code, message, _ = await peer.refused("fs/open", {"handleId": "more", "path": uri(here / "f")})
        assert (code, message) == (-32600, "at most 128 file handles may be open per connection")
        assert times_open(here / "f") == 128
        other = await server.peer()
        assert (await error(other, "fs/readBlock", handleId="1", offset=0, len=1))[0] == -32004
    with trio.fail_after(PATIENCE):
        while times_open(here / "f"):
            await trio.lowlevel.checkpoint()


async def test_names(peer: Peer, here: Path) -> None:
    deep = here / "a/b/c"
    assert await error(peer, "fs/createDirectory", path=uri(deep), recursive=False) == MISSING
    assert await peer.call("fs/createDirectory", {"path": uri(deep)}) == {}
    assert await peer.call("fs/createDirectory", {"path": uri(deep), "recursive": True}) == {}
    assert await error(peer, "fs/createDirectory", path=uri(deep), recursive=False) == (-32603, "file-failed", 17)
    (deep / "f").write_text("12345")
    (here / "link").symlink_to("a/b")
    metadata = await peer.call("fs/getMetadata", {"path": uri(here / "link/c/f"), "sandbox": None})
    times = {name: metadata.pop(name) for name in ("createdAtMs", "modifiedAtMs")}
    assert metadata == {"isDirectory": False, "isFile": True, "isSymlink": False, "size": 5}
    assert times["modifiedAtMs"] == (deep / "f").stat().st_mtime_ns // 1_000_000
    assert times["createdAtMs"] == 0 or abs(times["createdAtMs"] - times["modifiedAtMs"]) < 60_000
    linked = await peer.call("fs/getMetadata", {"path": uri(here / "link")})
    assert (linked["isDirectory"], linked["isSymlink"]) == (True, True)
    canonical = await peer.call("fs/canonicalize", {"path": uri(here) + "/a/../link/c/"})
    assert canonical == {"path": uri(deep)}
    assert await error(peer, "fs/getMetadata", path=uri(here / "none")) == MISSING
    assert await error(peer, "fs/getMetadata", path=uri(deep / "f/x")) == (-32603, "file-failed", 20)
    listing = await peer.call("fs/readDirectory", {"path": uri(here)})
    assert listing["entries"] == [
        {"fileName": "a", "isDirectory": True, "isFile": False, "isSymlink": False},
        {"fileName": "link", "isDirectory": True, "isFile": False, "isSymlink": True},
    ]
    assert await peer.call("fs/walk", {"path": uri(here), "options": WALK}) == {
        "entries": [
            {"path": uri(here / "a"), "kind": "directory"},
            {"path": uri(here / "a/b"), "kind": "directory"},
            {"path": uri(deep), "kind": "directory"},
            {"path": uri(deep / "f"), "kind": "file"},
        ],
        "errors": [],
        "truncated": False,
    }
    copied = {"sourcePath": uri(here / "a"), "destinationPath": uri(here / "new/a2")}
    code, message, _ = await peer.refused("fs/copy", {**copied, "recursive": False})
    assert (code, message) == (-32600, "fs/copy requires recursive: true when sourcePath is a directory")
    assert await peer.call("fs/copy", {**copied, "recursive": True}) == {}
    assert (here / "new/a2/b/c/f").read_text() == "12345"
    assert await error(peer, "fs/remove", path=uri(here / "a"), recursive=False) == (-32603, "file-failed", 39)
    assert await peer.call("fs/remove", {"path": uri(here / "link")}) == {}
    assert deep.exists()
    assert await peer.call("fs/remove", {"path": uri(here / "a")}) == {}
    assert os.listdir(here) == ["new"]
    assert await peer.call("fs/remove", {"path": uri(here / "a")}) == {}
    assert await error(peer, "fs/remove", path=uri(here / "a"), force=False) == MISSING


async def test_watching_what_is_missing(peer: Peer, here: Path) -> None:
    def told() -> list[int]:
        return [m.params["watchId"] for m in peer.heard if isinstance(m, Notification)]

    async def watching(id: int, *missing: str, present: str | None = None) -> bool:
        uris = [uri(here / name) for name in missing]
        there = present and uri(here / present)
        answer = await peer.call("fs/watchMissing", {"watchId": id, "missing": uris, "present": there})
        assert answer.keys() == {"watching"}
        return bool(answer["watching"])

    (here / "f").touch()
    assert await watching(5, "later")
    assert not await watching(5, "later")  # the id is not greater
    assert not await watching(6, "later", "f")  # one is there
    assert not await watching(7)
    assert not await watching(8, "later", present="none")
    assert await watching(9, "a/b/c", "x", present="f")
    (here / "other").touch()
    (here / "a").mkdir()  # a parent of what is missing
    await peer.until(lambda: told() == [9])
    assert await watching(10, "a/b/c", present="f")
    (here / "f").write_text("changed")
    await peer.until(lambda: told() == [9, 10])
    assert await watching(11, "a/b/c", present="f")
    (here / "a").rename(here / "z")  # on the way
    await peer.until(lambda: told() == [9, 10, 11])
    assert await watching(12, "y")
    assert await watching(13, "y2")  # replaces the one before
    (here / "y").touch()
    (here / "y2").touch()
    await peer.until(lambda: told() == [9, 10, 11, 13])


async def test_switched_off(open_server: OpenServer, transport: str, here: Path) -> None:
    server = open_server(transport, ServerConfig(allow_files=False))
    peer = await server.peer(ready=False)
    greeting = await peer.handshake()
    assert not {"fsWatchMissing", "fileWriteStreaming"} & greeting["environmentInfo"]["capabilities"].keys()
    calls: dict[str, dict[str, Any]] = {
        "fs/readFile": {"path": "/etc/passwd"},
        "fs/writeFile": {"path": uri(here / "f"), "dataBase64": ""},
        "fs/copy": {"sourcePath": "/etc/passwd", "destinationPath": uri(here / "f"), "recursive": True},
        "fs/open": {"path": uri(here / "f"), "handleId": "", "mode": "replace"},
        "fs/watchMissing": {"watchId": 1, "missing": [uri(here)]},
        "fs/walk": {"path": uri(here), "options": WALK},
        "fs/close": {"handleId": ""},
    }
    for method, params in calls.items():
        assert (await error(peer, method, **params))[:2] == (-32600, "files-disabled")
    assert os.listdir(here) == []


async def test_before_the_handshake_and_with_a_policy_of_nothing(open_server: OpenServer, here: Path) -> None:
    peer = await open_server("memory", ServerConfig()).peer(ready=False)
    code, message, _ = await peer.refused("fs/readFile", {"path": "/x"})
    assert (code, message) == (-32600, "client must call initialize before using filesystem methods")
    await peer.handshake()
    await peer.call("fs/getMetadata", {"path": "/", "sandbox": {"permissions": {"type": "disabled"}}})
    assert (await error(peer, "fs/getMetadata", path="relative"))[0] == -32602
    assert (await error(peer, "fs/getMetadata", path="file:///a%00b"))[0] == -32602


# -- what is there may be anything --


async def test_links(memory_peer: Peer, here: Path) -> None:
    peer = memory_peer
    (here / "d").mkdir()
    (here / "d/f").write_text("x")
    for name, target in {"file": "d/f", "dir": "d", "nowhere": "none", "loop": "loop", "up": "d/../d/f"}.items():
        (here / name).symlink_to(target)
    (here / "absolute").symlink_to(here / "dir" / "f")
    loop = (-32603, "file-failed", 40)
    for name in ("file", "up", "absolute", "dir/f"):
        assert await read(peer, here / name) == b"x"
    for method in ("fs/readFile", "fs/getMetadata", "fs/canonicalize", "fs/readDirectory"):
        assert await error(peer, method, path=uri(here / "nowhere")) == MISSING
        assert await error(peer, method, path=uri(here / "loop")) == loop
    kinds = await peer.call("fs/readDirectory", {"path": uri(here)})
    found = {e["fileName"]: (e["isDirectory"], e["isFile"], e["isSymlink"]) for e in kinds["entries"]}
    assert found["nowhere"] == found["loop"] == (False, False, True)
    assert found["file"] == (False, True, True)
    assert found["dir"] == (True, False, True)
    # No link is to be followed.
    not_directory = (-32603, "file-failed", 20)
    no: dict[str, Any] = {"followSymlinks": False}
    assert await error(peer, "fs/readFile", path=uri(here / "file"), **no) == loop
    assert await error(peer, "fs/writeFile", path=uri(here / "file"), dataBase64="", **no) == loop
    assert await error(peer, "fs/readFile", path=uri(here / "dir/f"), **no) == not_directory
    assert await error(peer, "fs/createDirectory", path=uri(here / "dir/x"), **no) == not_directory
    assert await error(peer, "fs/createDirectory", path=uri(here / "dir"), **no) == not_directory
    assert await error(peer, "fs/remove", path=uri(here / "dir/f"), recursive=False, **no) == not_directory
    for method in ("fs/getMetadata", "fs/remove"):
        code, message, _ = await peer.refused(method, {"path": uri(here / "nowhere"), "recursive": False, **no})
        assert (code, message) == (-32600, "path contains a symbolic link")
    _, message, _ = await peer.refused("fs/remove", {"path": uri(here / "dir"), **no})
    assert message == "recursive no-follow removal is unsupported"
    # A link that leads nowhere is where a file comes to be, but no directory.
    assert await error(peer, "fs/createDirectory", path=uri(here / "nowhere")) == (-32603, "file-failed", 17)
    await peer.call("fs/writeFile", {"path": uri(here / "nowhere"), "dataBase64": b64(b"made")})
    assert (here / "none").read_text() == "made"


async def test_what_is_no_file(memory_peer: Peer, here: Path) -> None:
    peer = memory_peer
    os.mkfifo(here / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(here / "socket"))
        for path in (here / "fifo", here / "socket", Path("/dev/zero"), Path("/dev/tty"), here):
            code, message, data = await peer.refused("fs/readFile", {"path": uri(path)})
            assert (code, message) == (-32600, f"path `{path}` is not a file"), data
            assert (await error(peer, "fs/open", handleId="h", path=uri(path)))[:2] == (-32600, "file-refused")
        for path in (here / "fifo", here / "socket", Path("/dev/zero")):
            assert (await error(peer, "fs/writeFile", path=uri(path), dataBase64="eA=="))[1] == "file-refused"
            assert (await error(peer, "fs/open", handleId="h", path=uri(path), mode="replace"))[1] == "file-refused"
            metadata = await peer.call("fs/getMetadata", {"path": uri(path)})
            assert (metadata["isDirectory"], metadata["isFile"]) == (False, False)
    assert await error(peer, "fs/writeFile", path=uri(here), dataBase64="") == (-32603, "file-failed", 21)
    copy = {"sourcePath": uri(here / "fifo"), "destinationPath": uri(here / "f2"), "recursive": True}
    _, message, _ = await peer.refused("fs/copy", copy)
    assert message == "fs/copy only supports regular files, directories, and symlinks"
    long = (-32603, "file-failed", 36)
    assert await error(peer, "fs/getMetadata", path=uri(here / ("n" * 256))) == long
    assert await error(peer, "fs/createDirectory", path="/" + "a/" * 2048) == long
    assert b"Threads:" in await read(peer, Path("/proc/self/status"))  # which claims to be empty


async def test_a_reader_of_a_fifo_is_not_disturbed(memory_peer: Peer, here: Path) -> None:
    os.mkfifo(here / "fifo")
    opened = threading.Event()

    def read_fifo() -> bytes:
        with open(here / "fifo", "rb") as fifo:
            opened.set()
            return fifo.read()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, read_fifo)
        assert (await error(memory_peer, "fs/writeFile", path=uri(here / "fifo"), dataBase64=""))[1] == "file-refused"
        assert (await error(memory_peer, "fs/readFile", path=uri(here / "fifo")))[1] == "file-refused"
        assert not opened.is_set()
        await trio.to_thread.run_sync((here / "fifo").write_bytes, b"x")


async def test_names_that_are_not_utf8(memory_peer: Peer, here: Path) -> None:
    peer = memory_peer
    name = os.fsencode(here) + b"/bad\xff\xfe"
    address = uri(name)
    assert address.endswith("/bad%FF%FE")
    await peer.call("fs/writeFile", {"path": address, "dataBase64": b64(b"x")})
    assert os.listdir(os.fsencode(here)) == [b"bad\xff\xfe"]
    listing = await peer.call("fs/readDirectory", {"path": uri(here)})
    entry = {"isDirectory": False, "isFile": True, "isSymlink": False, "path": address}
    assert listing == {"entries": [{"fileName": "bad\ufffd\ufffd", **entry}]}
    walked = await peer.call("fs/walk", {"path": uri(here), "options": WALK})
    assert walked["entries"] == [{"path": address, "kind": "file"}]
    assert await peer.call("fs/canonicalize", {"path": address}) == {"path": address}
    await peer.call("fs/copy", {"sourcePath": address, "destinationPath": uri(here) + "/%FD", "recursive": False})
    await peer.call("fs/remove", {"path": address})
    assert os.listdir(os.fsencode(here)) == [b"\xfd"]
    os.mkdir(name)
    _, message, _ = await peer.refused("fs/readFile", {"path": address})
    assert message == f"path `{here}/bad\ufffd\ufffd` is not a file"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder for everybody. Those of pytest become private again whenever somebody starts it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.skipif(not may_become_nobody(), reason="not allowed to become another user")
async def test_what_is_forbidden(public: Path) -> None:
    """Another user sees EACCES and EPERM, and a walk says where it could not read."""
    here = public
    (here / "closed").mkdir(mode=0o700)
    (here / "open").mkdir()
    (here / "secret").touch(0o600)
    script = f"""if True:
        import os, sys, trio
        sys.path[:] = {sys.path!r}
        from pathlib import Path
        from execsrv.limits import ServerConfig
        from tests.conftest import Server
        from tests.test_files import WALK, error, uri
        async def main():
            here = Path({str(here)!r})
            async with trio.open_nursery() as nursery:
                peer = await Server("memory", ServerConfig(), nursery, "").peer()
                refused = (-32600, "file-refused", 13)
                assert await error(peer, "fs/readFile", path=uri(here / "secret")) == refused
                assert await error(peer, "fs/writeFile", path=uri(here / "new"), dataBase64="") == refused
                assert await error(peer, "fs/getMetadata", path=uri(here / "closed/x")) == refused
                assert await error(peer, "fs/readDirectory", path=uri(here / "closed")) == refused
                assert await error(peer, "fs/remove", path=uri(here / "open")) == refused
                assert await error(peer, "fs/remove", path=uri(here / "secret")) == refused
                walked = await peer.call("fs/walk", {{"path": uri(here), "options": WALK}})
                assert [failed["path"] for failed in walked["errors"]] == [uri(here / "closed")], walked
                assert walked["errors"][0]["message"].endswith("(os error 13)")
                assert len(walked["entries"]) == 3
                nursery.cancel_scope.cancel()
        import tests.conftest, execsrv.server, execsrv._wire.websocket  # while they may still be read
        os.setgid(65534)
        os.setgroups([])
        os.setuid(65534)
        trio.run(main)
    """
    await trio.run_process([sys.executable, "-c", script])


# -- trees --


def grow(top: Path, depth: int, width: int) -> None:
    """A tree with files, links, a fifo."""
    top.mkdir()
    for number in range(width):
        (top / f"f{number}").write_text(f"{top.name}{number}")
    (top / "link").symlink_to("f0")
    (top / "away").symlink_to("/etc")
    if depth:
        for number in range(width):
            grow(top / f"d{number}", depth - 1, width)


def shape(top: Path) -> dict[str, str]:
    """What is in a tree: content and permissions of files, targets of links."""
    found = {}
    for path in top.rglob("*"):
        status = path.lstat()
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFLNK:
                what = os.readlink(path)
            case stat.S_IFREG:
                what = f"{status.st_mode:o} {path.read_text()}"
            case kind:
                what = str(kind)
        found[str(path.relative_to(top))] = what
    return found


async def test_a_tree_is_copied_and_removed(memory_peer: Peer, here: Path) -> None:
    peer = memory_peer
    grow(here / "tree", 3, 3)
    os.mkfifo(here / "tree/d1/fifo")
    os.chmod(here / "tree/f1", 0o751)
    outside = here / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (here / "tree/d2/out").symlink_to(outside)
    before = shape(here / "tree")
    copied = {"sourcePath": uri(here / "tree"), "destinationPath": uri(here / "c"), "recursive": True}
    await peer.call("fs/copy", copied)
    assert shape(here / "tree") == before
    del before["d1/fifo"]
    assert shape(here / "c") == before
    # A file onto itself stays; a tree into itself is refused, by whatever way.
    same = {"sourcePath": uri(here / "c/f1"), "destinationPath": uri(here / "c/f1"), "recursive": False}
    await peer.call("fs/copy", same)
    assert (here / "c/f1").read_text() == "tree1"
    (here / "back").symlink_to("tree/d0")
    for inside in ("tree", "tree/x/y", "back/z"):
        params = {"sourcePath": uri(here / "tree"), "destinationPath": uri(here / inside), "recursive": True}
        _, message, _ = await peer.refused("fs/copy", params)
        assert message == "fs/copy cannot copy a directory to itself or one of its descendants"
    await peer.call("fs/remove", {"path": uri(here / "tree")})
    await peer.call("fs/remove", {"path": uri(here / "c")})
    assert sorted(os.listdir(here)) == ["back", "outside"]
    assert os.listdir(outside) == ["precious"]


async def test_a_tree_deeper_than_any_path(memory_peer: Peer, here: Path) -> None:
    directory = os.open(here, os.O_RDONLY)
    name = "d" * 200
    for _ in range(500):
        os.mkdir(name, dir_fd=directory)
        below = os.open(name, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    copied: dict[str, Any] = {"sourcePath": uri(here / name), "destinationPath": uri(here / "e"), "recursive": True}
    assert await error(memory_peer, "fs/copy", **copied) == (-32603, "file-failed", 36)
    assert await memory_peer.call("fs/remove", {"path": uri(here / name)}) == {}
    assert await memory_peer.call("fs/remove", {"path": uri(here / "e")}) == {}
    assert os.listdir(here) == []


@pytest.mark.few
@pytest.mark.parametrize("most", [1, 2, 1500, 4999, 5000, 6000])
def test_the_first_by_name_are_the_first_of_all(tmp_path: Path, most: int) -> None:
    """However few are wanted of how many, and in whatever order they come."""
    names = [f"{number * 7919 % 5003}" for number in range(5000)]
    for name in names:
        (tmp_path / name).touch()
    with os.scandir(tmp_path) as entries:
        assert [entry.name for entry in first_by_name(entries, most)] == sorted(names)[:most]


async def test_a_walk_within_its_limits(memory_peer: Peer, here: Path) -> None:
    peer = memory_peer
    for name in ("a/b", ".h/x"):
        (here / name).mkdir(parents=True)
    (here / "f").touch()
    (here / "zl").symlink_to("a")
    (here / "lf").symlink_to("f")
    (here / "nowhere").symlink_to("none")

    async def walk(**options: Any) -> tuple[list[str], bool]:
        result = await peer.call("fs/walk", {"path": uri(here), "options": {**WALK, **options}})
        return [entry["path"].removeprefix(uri(here) + "/") for entry in result["entries"]], result["truncated"]

    everything = [".h", "a", "f", ".h/x", "a/b"]
    assert await walk() == (everything, False)
    assert await walk(maxDepth=0) == ([".h", "a", "f"], False)
    assert await walk(maxDirectories=5) == (everything, False)
    assert await walk(maxDirectories=4) == (everything, True)
    assert await walk(maxDirectories=1) == ([".h", "a", "f"], True)
    # What is left out counts too, but not what leads nowhere.
    assert await walk(maxEntries=1) == ([".h"], True)
    assert await walk(maxEntries=6) == (everything[:4], True)
    assert await walk(maxEntries=7) == (everything, False)
    assert await walk(pruneHiddenDirectories=True) == ([".h", "a", "f", "a/b"], False)
    assert await walk(followDirectorySymlinks=True) == ([".h", "a", "f", "zl", ".h/x", "a/b"], False)
    assert await walk(followDirectorySymlinks=True, maxDirectories=5) == ([".h", "a", "f", "zl", ".h/x", "a/b"], False)
    for path, follow, count in [("f", True, 0), ("zl", False, 0), ("zl", True, 1)]:
        options = {**WALK, "followDirectorySymlinks": follow}
        result = await peer.call("fs/walk", {"path": uri(here / path), "options": options})
        assert len(result["entries"]) == count
    assert await error(peer, "fs/walk", path=uri(here / "none"), options=WALK) == MISSING
    for options, complaint in [
        ({"maxEntries": 0}, "filesystem walk limits must be greater than zero"),
        ({"maxDirectories": 0}, "filesystem walk limits must be greater than zero"),
        ({"maxDepth": 65}, "filesystem walk limits exceed maximums: depth=64, directories=10000, entries=50000"),
    ]:
        code, message, _ = await peer.refused("fs/walk", {"path": uri(here), "options": {**WALK, **options}})
        assert (code, message) == (-32600, complaint)


# -- bounds --


async def test_sizes_are_bounded(open_server: OpenServer, here: Path) -> None:
    limits = ServerConfig(max_file_bytes=100, file_block_bytes=50, directory_entries=3, listing_bytes=500)
    peer = await open_server("memory", limits).peer()
    (here / "f").write_bytes(bytes(100))
    assert await read(peer, here / "f") == bytes(100)
    (here / "f").write_bytes(bytes(101))
    _, message, data = await peer.refused("fs/readFile", {"path": uri(here / "f")})
    assert message == "file is too large to read: limit is 100 bytes"
    assert data == {"kind": "file-refused", "limit": "max_file_bytes", "value": 100}
    # Of no size, until it is read.
    assert (await error(peer, "fs/readFile", path="/proc/self/status"))[1] == "file-refused"
    await peer.call("fs/open", {"handleId": "h", "path": uri(here / "g"), "mode": "replace"})
    for size in (0, 51):
        params: dict[str, Any] = {"handleId": "h", "offset": 0, "len": size, "chunk": b64(bytes(size))}
        for method in ("read", "write"):
            _, message, _ = await peer.refused(f"fs/{method}Block", params)
            assert message == f"file {method} block length must be between 1 and 50"
    _, message, _ = await peer.refused("fs/writeBlock", {"handleId": "h", "offset": 2**63 - 1, "chunk": "eA=="})
    assert message == "file write range exceeds the signed 64-bit file offset limit"
    for method in ("fs/open", "fs/readBlock", "fs/close"):
        params = {"handleId": "ä" * 17, "path": uri(here / "f"), "offset": 0, "len": 1}
        _, message, _ = await peer.refused(method, params)
        assert message == "file handle ID must not exceed 32 bytes"
    assert (await peer.refused("fs/open", {"handleId": "h", "path": uri(here / "f")}))[
        1
    ] == "file handle `h` already exists"
    for name in "abc":
        (here / name).touch()
    assert (await error(peer, "fs/readDirectory", path=uri(here)))[1] == "limit-exceeded"
    (here / "names").mkdir()
    for letter in "ab":
        (here / "names" / (letter * 200)).touch()
    assert (await error(peer, "fs/readDirectory", path=uri(here / "names")))[1] == "limit-exceeded"
    walked = await peer.call(
        "fs/walk", {"path": uri(here / "names"), "options": {**WALK, "maxEntries": 3, "maxDepth": 1}}
    )
    assert (len(walked["entries"]), walked["truncated"]) == (1, True)


async def test_large_files_wait_until_the_answers_before_them_have_left(here: Path) -> None:
    asked, left, done = trio.Event(), trio.Event(), trio.Event()
    (here / "small").write_bytes(bytes(10))
    (here / "large").write_bytes(bytes(11))

    async def answers_left() -> None:
        asked.set()
        await left.wait()

    async def tell(notification: Notification) -> None:
        raise AssertionError("nothing is watched")

    async def read_large(files: Files) -> None:
        assert await files.read_file(FilePath(str(here / "large"))) == FileData(bytes(11))
        done.set()

    config = ServerConfig(file_block_bytes=10)
    with trio.fail_after(PATIENCE):
        async with (
            open_files(config, lambda: Allowance(config), tell, answers_left, rules_of) as (get_files, _),
            trio.open_nursery() as nursery,
        ):
            files = get_files()
            assert await files.read_file(FilePath(str(here / "small"))) == FileData(bytes(10))
            assert not asked.is_set()
            nursery.start_soon(read_large, files)
            await asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not done.is_set()
            left.set()


async def nothing_to_wait_for() -> None:
    """Say that all answers have left."""


async def tell_nobody(notification: Notification) -> None:
    """Tell nobody: nothing is watched."""


@pytest.mark.parametrize("is_full", [False, True])
async def test_a_close_that_does_not_come_to_its_thread_leaves_no_file_open(here: Path, is_full: bool) -> None:
    """The channel ends in the moment when it is the turn of the close; or there is no memory for a thread."""
    path = here / "file"
    path.write_bytes(b"content")
    config = ServerConfig()
    allowance = Allowance(config)
    with trio.fail_after(PATIENCE):
        async with open_files(config, lambda: allowance, tell_nobody, nothing_to_wait_for, rules_of) as (get_files, _):
            blocks = get_files().blocks
            await blocks.open(FileOpen(str(path), handle_id="h"))
            assert is_open(path)
            async with trio.open_nursery() as nursery:
                before = blocks._handles.find("h").take_turn()
                async with before.taken():
                    closing = blocks.close(FileHandle("h"))
                    nursery.start_soon(lambda: closing)
                    await trio.testing.wait_all_tasks_blocked()
                    if is_full:
                        allowance.held.take(config.held_bytes)
                if not is_full:
                    nursery.cancel_scope.cancel()
            if is_full:
                assert not is_open(path)
    assert not is_open(path)


def is_open(path: Path) -> bool:
    """Return whether this process has a file open."""
    return str(path) in map(leads_to, (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")))


async def test_writes_under_way_are_bounded(open_server: OpenServer, here: Path) -> None:
    peer = await open_server("memory", ServerConfig(queued_file_bytes=10)).peer()
    chunk = b64(bytes(8))
    ids = [
        await peer.post("fs/writeFile", {"path": uri(here / str(number)), "dataBase64": chunk}) for number in range(20)
    ]
    answers = [await peer.answer(id) for id in ids]
    refused = [answer for answer in answers if isinstance(answer, Failure)]
    assert {answer.error.code for answer in refused} <= {-32001}
    assert isinstance(answers[0], Response)
    await peer.call("fs/writeFile", {"path": uri(here / "last"), "dataBase64": b64(bytes(100))})


class HeldPaths(Sequence[str]):
    """Paths of which the first is not given out before `go`, and whose reader is seen by `asked`."""

    def __init__(self, *paths: str) -> None:
        self.paths = paths
        self.asked, self.go = threading.Event(), threading.Event()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        self.asked.set()
        self.go.wait()
        return self.paths[index]


def open_inotify() -> int:
    """Return how many inotify descriptors this process has open."""
    return [leads_to(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")].count("anon_inode:inotify")


def test_a_watch_is_not_closed_under_the_thread_that_starts_it(here: Path) -> None:
    before = open_inotify()
    paths = HeldPaths(str(here / "none"))
    watch = Watch()
    thread = threading.Thread(target=watch.start, args=(Roots(["/"]), paths, None))
    thread.start()
    paths.asked.wait()
    watch.close()
    assert open_inotify() == before + 1
    paths.go.set()
    thread.join()
    assert open_inotify() == before


def test_a_watch_that_is_closed_does_not_start(here: Path) -> None:
    before = open_inotify()
    watch = Watch()
    watch.close()
    assert open_inotify() == before
    assert not watch.start(Roots(["/"]), [str(here / "none")], None)


async def test_watches_are_closed_with_what_ends_them(memory_peer: Peer, here: Path) -> None:
    before = open_inotify()

    async def watching(id: int, *missing: Path) -> bool:
        asked = {"watchId": id, "missing": [uri(path) for path in missing]}
        return bool((await memory_peer.call("fs/watchMissing", asked))["watching"])

    assert not await watching(1, here)
    assert open_inotify() == before
    assert await watching(2, here / "a")
    assert await watching(3, here / "b")  # instead of the one before
    await trio.testing.wait_all_tasks_blocked()
    assert open_inotify() == before + 1
    (here / "b").touch()
    await memory_peer.until(lambda: any(isinstance(m, Notification) for m in memory_peer.heard))
    await trio.testing.wait_all_tasks_blocked()
    assert open_inotify() == before


@pytest.fixture
def hanging(here: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder in which every look-up hangs until the second value is called: a file system whose server is silent."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("only root can mount a file system that hangs")
    libc = ctypes.CDLL(None)
    folder = os.fsencode(here / "hanging")
    os.mkdir(folder)
    with open("/dev/fuse", "r+b", buffering=0) as fuse:
        options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fuse.fileno()
        if libc.mount(b"hanging", folder, b"fuse", 0, options):
            pytest.skip("not allowed to mount a file system")
        try:
            yield Path(os.fsdecode(folder)), fuse.close
        finally:
            fuse.close()
            libc.umount2(folder, 2)


async def test_a_file_system_that_hangs_holds_up_nobody(
    open_server: OpenServer, here: Path, hanging: tuple[Path, Callable[[], None]]
) -> None:
    folder, let_go = hanging
    (here / "f").write_text("y")
    server = open_server("unix", ServerConfig())
    async with server.open_peer() as peer:
        await peer.handshake()
        stuck = [
            await peer.post("fs/readFile", {"path": uri(folder / "a")}),
            await peer.post("fs/open", {"handleId": "h", "path": uri(folder / "b"), "mode": "replace"}),
            await peer.post("fs/readBlock", {"handleId": "h", "offset": 0, "len": 1}),
            await peer.post("fs/walk", {"path": uri(folder), "options": WALK}),
        ]
        assert await read(peer, here / "f") == b"y"
        await peer.run("p", ["true"])
        assert not any(isinstance(m, Response | Failure) and m.id in stuck for m in peer.heard)
    # Its own connection has ended all the same, and another works.
    other = await server.peer()
    id = await other.post("fs/readFile", {"path": uri(folder / "a")})
    let_go()
    failed = await other.answer(id)
    assert isinstance(failed, Failure)
    assert failed.error.data == {"kind": "file-failed", "errno": errno.ENOTCONN}


async def test_discoveries_that_hang_hold_up_no_http_request(
    open_server: OpenServer, hanging: tuple[Path, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, let_go = hanging
    monkeypatch.setenv("no_proxy", "*")
    server = open_server("unix", ServerConfig())
    roots = [{"id": "a", "path": uri(folder / "a")}]
    async with server.open_peer() as peer, open_web() as web:
        await peer.handshake()
        for _ in range(45):  # more than trio's own threads are
            await peer.post("capabilityRoots/discoverV1", {"roots": roots})
        web.page("/x", body=b"hello")
        other = await server.peer()
        answer = await other.call("http/request", {"method": "GET", "url": web.url + "/x", "requestId": "r"})
        assert base64.b64decode(answer["bodyBase64"]) == b"hello"
        let_go()


async def test_a_long_work_stops_when_the_channel_ends(open_server: OpenServer, here: Path) -> None:
    """The copy of a file that has no end in sight: its thread must not go on without its channel."""
    (here / "large").touch()
    os.truncate(here / "large", 2**40)
    copy = here / "copy"
    async with open_server("memory", ServerConfig()).open_peer() as peer:
        await peer.handshake()
        params = {"sourcePath": uri(here / "large"), "destinationPath": uri(copy), "recursive": False}
        await peer.post("fs/copy", params)
        with trio.fail_after(PATIENCE):
            while not (copy.exists() and copy.stat().st_size):
                await trio.lowlevel.checkpoint()
    with trio.fail_after(PATIENCE):
        while times_open(copy):
            await trio.lowlevel.checkpoint()
    copy.unlink()


async def test_an_open_that_is_refused_for_want_of_memory_keeps_neither_its_id_nor_its_place(here: Path) -> None:
    path = here / "file"
    path.write_bytes(b"content")
    config = ServerConfig(file_handles=1)
    allowance = Allowance(config)
    async with open_files(config, lambda: allowance, tell_nobody, nothing_to_wait_for, rules_of) as (get_files, _):
        blocks = get_files().blocks
        allowance.held.take(config.held_bytes)
        for _ in range(2):
            with pytest.raises(LimitExceededError, match="held_bytes"):
                await blocks.open(FileOpen(str(path), handle_id="h"))
        allowance.held.give(config.held_bytes)
        await blocks.open(FileOpen(str(path), handle_id="h"))
        allowance.held.take(config.held_bytes - allowance.held.taken)
        with pytest.raises(LimitExceededError, match="held_bytes"):
            await blocks.read_block(BlockRead("h", 0, 1))
        allowance.held.give(config.held_bytes)
        assert (await blocks.read_block(BlockRead("h", 0, 1))).chunk == b"c"  # that one stays open


async def test_a_watch_is_read_right_behind_its_request(memory_peer: Peer, here: Path) -> None:
    for name in range(100):
        (here / f"{name}").mkdir()
    asked = await memory_peer.post("fs/watch", {"watchId": "w", "path": uri(here), "recursive": True})
    reading = await memory_peer.post("fs/readChanges", {"watchId": "w"})
    await memory_peer.answer(asked)
    (here / "new").touch()
    told = await memory_peer.answer(reading)
    assert isinstance(told, Response)
    assert told.result["changes"][0] == {"kind": "created", "path": uri(here / "new")}


async def test_a_watch_that_fails_late_leaves_the_next_of_its_id_alone(here: Path) -> None:
    config = ServerConfig(file_threads=1)
    with trio.fail_after(PATIENCE):
        async with open_files(config, lambda: Allowance(config), tell_nobody, nothing_to_wait_for, rules_of) as (
            get_files,
            _,
        ):
            files = get_files()
            free = threading.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(files._work.in_thread, free.wait)
                await trio.testing.wait_all_tasks_blocked()
                first = await nursery.start(given_up, files, TreeWatch(watch_id="w", path=str(here)))
                await trio.testing.wait_all_tasks_blocked()
                files.tree_watches.unwatch(WatchId("w"))
                nursery.start_soon(files.tree_watches.watch, TreeWatch(watch_id="w", path=str(here)))
                await trio.testing.wait_all_tasks_blocked()
                first.cancel()
                await trio.testing.wait_all_tasks_blocked()
                free.set()
            (here / "new").touch()
            assert [change.kind for change in (await files.tree_watches.read(WatchId("w"))).changes][:1] == ["created"]


async def given_up(files: Files, params: TreeWatch, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await files.tree_watches.watch(params)


async def test_changes_that_there_was_no_memory_for_are_told_as_lost(here: Path) -> None:
    config = ServerConfig()
    allowance = Allowance(config)
    with trio.fail_after(PATIENCE):
        async with open_files(config, lambda: allowance, tell_nobody, nothing_to_wait_for, rules_of) as (get_files, _):
            trees = get_files().tree_watches
            await trees.watch(TreeWatch(watch_id="w", path=str(here), recursive=True))
            for name in range(300):
                (here / f"{name}").mkdir()
            room = config.held_bytes - allowance.held.taken - 129 * 1024  # for a thread, and not for 300 directories
            allowance.held.take(room)
            with pytest.raises(LimitExceededError, match="held_bytes"):
                await trees.read(WatchId("w"))
            allowance.held.give(room)
            assert (await trees.read(WatchId("w"))).lost
