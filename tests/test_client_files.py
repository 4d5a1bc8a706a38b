"""`client.files` on every transport, with real files: contents, facts, changes, path objects, watches."""

from __future__ import annotations

import ctypes
import errno
import io
import math
import os
import random
import stat
import struct
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv import (
    Client,
    ClientConfig,
    ConnectionLostError,
    FileChanged,
    FileError,
    FileRefusedError,
    InvalidParamsError,
    NotFoundError,
    OutsideRootsError,
    ServerConfig,
    connect,
)
from execsrv.client.file_calls import FileCalls
from tests.cancelling import cancelled_after
from tests.conftest import OpenServer, Server
from tests.peers import PATIENCE
from tests.processes import as_nobody
from tests.relay import open_line

ODD = os.fsdecode(b"odd \xff\x80 %41#?")


@pytest.fixture
async def client(server: Server) -> Client:
    return await server.client()


@pytest.fixture
async def memory_client(open_server: OpenServer) -> Client:
    """A client for what has nothing to do with the transport."""
    return await open_server("memory", ServerConfig()).client()


@pytest.fixture
def small_disk(here: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = here / "small"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=3m"):
        pytest.skip("not allowed to mount a file system")
    try:
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), 2)


@pytest.fixture
def twin(here: Path) -> Iterator[tuple[Path, Path]]:
    """Two paths of one directory, by a mount."""
    one, two = here / "one", here / "two"
    one.mkdir()
    two.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(one), os.fsencode(two), None, 4096, None):
        pytest.skip("not allowed to mount a directory")
    try:
        yield one, two
    finally:
        libc.umount2(os.fsencode(two), 2)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# -- contents --


async def test_contents_are_read_written_and_appended_to(client: Client, here: Path) -> None:
    files = client.files
    for name in ("a b", ODD):
        path = here / name
        await files.write(path, b"one\n")
        assert path.read_bytes() == b"one\n"
        path.chmod(0o640)
        await files.write(path, "zwei ü\n")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        await files.append(path, b"three\n")
        assert await files.read(path) == "zwei ü\nthree\n".encode()
        assert await files.read(os.fsencode(path), encoding="utf-8") == "zwei ü\nthree\n"
        await files.write(path, bytearray(b""), mode=0o7, encoding="latin-1")
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"", 0o7)
    large = random.randbytes(6_500_001)
    await files.write(here / "large", large)
    assert (here / "large").read_bytes() == large == await files.read(here / "large")
    await files.write(here / "large", large[::-1], atomic=False)
    assert (here / "large").read_bytes() == large[::-1]
    assert names(here) == sorted(["a b", ODD, "large"])


@pytest.mark.parametrize("size", [100, 5 << 20])
async def test_a_write_of_any_size_keeps_links_and_owner(memory_client: Client, here: Path, size: int) -> None:
    (here / "d").mkdir()
    (here / "link").symlink_to("other")
    (here / "other").symlink_to("d/made")
    await memory_client.files.write(here / "link", bytes(size))
    assert (here / "link").is_symlink()
    assert (here / "d/made").stat().st_size == size
    if os.geteuid() == 0:
        os.chown(here / "d/made", 1234, 4321)
        (here / "d/made").chmod(0o640)
        for mode in (None, 0o600):
            await memory_client.files.write(here / "link", bytes(size + 1), mode=mode)
            found = (here / "d/made").stat()
            assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, mode or 0o640)


async def test_a_write_replaces_the_file_behind_a_link(memory_client: Client, here: Path) -> None:
    files = memory_client.files
    (here / "d").mkdir()
    (here / "d/target").write_bytes(b"old")
    os.link(here / "d/target", here / "other")
    os.symlink("d/target", here / "link")
    for size in (3, 5_000_000):
        await files.write(here / "link", b"n" * size)
        assert os.readlink(here / "link") == "d/target"
        assert (here / "d/target").stat().st_size == size
        assert (here / "other").read_bytes() == b"old"
    assert names(here / "d") == ["target"]
    await files.write(here / "other", b"in place", atomic=False, mode=0o600)
    assert stat.S_IMODE((here / "other").stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [4 << 20, 5 << 20])
@pytest.mark.parametrize("before", [None, 0o644, 0o600])
async def test_nobody_reads_what_is_written_in_place_whom_its_mode_does_not_let(
    memory_client: Client, small_disk: Path, before: int | None, size: int
) -> None:
    """A write that fails in the midst shows what the mode is until it is over."""
    place = small_disk / "f"
    if before is not None:
        place.touch(mode=before)
    with pytest.raises(FileError, match="No space left"):
        await memory_client.files.write(place, bytes(size), mode=0o440, atomic=False)
    assert place.stat().st_size
    assert stat.S_IMODE(place.stat().st_mode) == (0o640 if before is None else before & 0o640)
    await memory_client.files.write(place, b"small", mode=0o440, atomic=False)
    assert (stat.S_IMODE(place.stat().st_mode), place.read_bytes()) == (0o440, b"small")


async def test_a_file_of_somebody_else_that_may_be_written_is_touched(open_server: OpenServer) -> None:
    if os.geteuid():
        pytest.skip("not allowed to have a file of somebody else")
    with as_nobody() as folder:
        path = folder / "theirs"
        path.touch()
        os.utime(path, (0, 0))
        path.chmod(0o666)
        os.seteuid(0)
        os.chown(path, 0, 0)
        os.seteuid(65534)
        client = await open_server("memory", ServerConfig()).client()
        await client.files.path(path).touch()
        assert path.stat().st_mtime > 0


async def test_a_file_of_more_than_one_message_is_read_whole(open_server: OpenServer, here: Path) -> None:
    client = await open_server("unix", ServerConfig(max_file_bytes=1_000_000)).client()
    data = random.randbytes(3_000_000)
    (here / "f").write_bytes(data)
    assert await client.files.read(here / "f") == data


async def test_text_that_does_not_decode_names_the_file(memory_client: Client, here: Path) -> None:
    (here / "f").write_bytes(b"caf\xe9")
    with pytest.raises(UnicodeDecodeError, match=rf"{here}/f"):
        await memory_client.files.read(here / "f", encoding="utf-8")
    assert await memory_client.files.read(here / "f", encoding="latin-1") == "café"


# -- open files --


async def test_an_open_file_is_read_and_written_anywhere(client: Client, here: Path) -> None:
    path, files = here / "f", client.files
    async with files.open(path, "xb") as file:
        assert await file.write(b"0123456789") == 10
        assert file.tell() == 10
    async with files.open(path, "r+b") as file:
        assert await file.seek(-3, os.SEEK_END) == 7
        assert await file.read(2) == b"78"
        assert await file.seek(1, os.SEEK_CUR) == 10
        assert await file.read() == b""
        await file.seek(2)
        await file.write(memoryview(b"ab"))
        assert await file.read(0) == b""
        assert await file.read(3) == b"456"
        assert await file.truncate(8) == 8
        await file.seek(0)
        assert await file.read() == b"01ab4567"
        assert repr(file) == f"<RemoteFile '{path}' r+b>"
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        await file.read()
    async with files.open(path, "ab") as file:
        assert file.tell() == 8
        await file.write(b"!")
    async with files.open(path) as file:
        assert await file.read() == b"01ab4567!"
    async with files.open(path, "w+b") as file:
        await file.write(b"new")
        await file.seek(0)
        assert await file.read() == b"new"
    async with files.open(path, "wb"):
        assert path.read_bytes() == b""


async def test_an_open_file_says_what_is_wrong(memory_client: Client, here: Path) -> None:
    files = memory_client.files
    for mode in ("r+b", "rb"):
        with pytest.raises(NotFoundError, match=f"cannot open '{here}/none': No such file"):
            async with files.open(here / "none", mode):
                pass
    assert not names(here)
    (here / "f").touch()
    with pytest.raises(FileError, match="File exists"):
        async with files.open(here / "f", "xb"):
            pass
    with pytest.raises(InvalidParamsError, match=r"mode must be one of rb, .*, got 'r'"):
        async with files.open(here / "f", "r"):
            pass
    async with files.open(here / "f") as file:
        with pytest.raises(FileError, match=f"cannot write '{here}/f'"):
            await file.write(b"x")
        with pytest.raises(TypeError, match="data must be bytes, got str"):
            await file.write("x")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="before the beginning"):
            await file.seek(-1)
        assert await file.read() == b""
    (here / "f").write_bytes(b"kept")
    async with files.open(here / "f") as file:
        with pytest.raises(io.UnsupportedOperation, match="it is open for reading"):
            await file.truncate()
    async with files.open(here / "f", "r+b") as file:
        (here / "f").rename(here / "old")
        with pytest.raises(NotFoundError, match=f"cannot truncate '{here}/f'"):
            await file.truncate(1)
        (here / "f").write_bytes(b"other")
        with pytest.raises(FileError, match=f"cannot truncate '{here}/f': another file is at its path by now"):
            await file.truncate(1)
        with pytest.raises(FileError, match="another file"):
            await file.seek(0, os.SEEK_END)
        assert await file.read() == b"kept"
    assert (here / "f").read_bytes() == b"other"
    with pytest.raises(RuntimeError, match="mine"):
        async with files.open(here / "f"):
            raise RuntimeError("mine")


# -- facts and changes --


async def test_facts_lists_and_walks(client: Client, here: Path) -> None:
    (here / "d/e").mkdir(parents=True)
    (here / "d" / ODD).write_bytes(b"12")
    os.utime(here / "d" / ODD, ns=(1, 1_234_567_890_123_456_789))
    os.symlink(ODD, here / "d/link")
    os.symlink("nowhere", here / "z")
    os.mkfifo(here / "d/e/fifo")
    files = client.files
    found = await files.stat(here / "d/link")
    assert (found.kind, found.size, found.modified_ns, found.target) == ("file", 2, 1_234_567_890_123_456_789, None)
    assert found.mode == stat.S_IMODE((here / "d" / ODD).stat().st_mode)
    link = await files.stat(here / "d/link", follow=False)
    assert (link.kind, link.is_symlink, link.target, link.name) == ("symlink", True, ODD, "link")
    assert [(entry.path, entry.kind) for entry in await files.list(here / "d")] == [
        (f"{here}/d/e", "directory"),
        (f"{here}/d/link", "symlink"),
        (f"{here}/d/{ODD}", "file"),
    ]
    walked = [entry.path.removeprefix(f"{here}/") async for entry in files.walk(here)]
    assert walked == ["d", "d/e", "d/e/fifo", "d/link", f"d/{ODD}", "z"]
    assert await files.exists(here / "d/link")
    assert not await files.exists(here / "z")
    (here / "round").symlink_to("round")
    assert not await files.exists(here / "round")
    assert not await files.path(here / "round").exists()
    (here / "round").unlink()
    assert not await files.exists(here / "d" / ODD / "below")
    assert await files.resolve(here / "d/e/../link") == f"{here}/d/{ODD}"


@pytest.mark.parametrize("other", ["nothing", "file", "link", "round"])
async def test_a_walk_leaves_out_what_has_gone_and_follows_nothing_that_has_come(
    memory_client: Client, here: Path, other: str
) -> None:
    (here / "tree/d/e").mkdir(parents=True)
    (here / "tree/f").touch()
    (here / "elsewhere/e").mkdir(parents=True)
    os.symlink("tree", here / "top")
    walked = []
    async for entry in memory_client.files.walk(here / "top"):
        walked.append(entry.path.removeprefix(f"{here}/"))
        if entry.name == "d":
            (here / "tree/d").rename(here / "old")
            if other == "file":
                (here / "tree/d").touch()
            elif other != "nothing":
                (here / "tree/d").symlink_to("d" if other == "round" else "../elsewhere")
    assert walked == ["top/d", "top/f"]


async def test_names_are_changed(client: Client, here: Path) -> None:
    files = client.files
    await files.make(here / "a/b")
    await files.make(here / "a/b")
    with pytest.raises(FileError, match=f"cannot make '{here}/a/b': File exists"):
        await files.make(here / "a/b", exist_ok=False)
    with pytest.raises(NotFoundError):
        await files.make(here / "c/d", parents=False)
    await files.write(here / "a/f", b"1")
    await files.change(here / "a/f", mode=0o600, modified=12.5, size=3)
    found = await files.stat(here / "a/f")
    assert (found.mode, found.modified, found.size) == (0o600, 12.5, 3)
    await files.link(here / "a/l", f"f/{ODD}")
    assert os.readlink(here / "a/l") == f"f/{ODD}"
    await files.copy(here / "a", here / "copy")
    assert names(here / "copy") == ["b", "f", "l"]
    await files.move(here / "copy", here / "moved")
    await files.write(here / "g", b"2")
    await files.move(here / "g", here / "moved/f")
    assert (here / "moved/f").read_bytes() == b"2"
    with pytest.raises(FileError, match=f"cannot remove '{here}/moved': Directory not empty"):
        await files.remove(here / "moved")
    await files.remove(here / "moved", recursive=True)
    with pytest.raises(NotFoundError, match=f"cannot remove '{here}/moved': No such file"):
        await files.remove(here / "moved")
    await files.remove(here / "moved", missing_ok=True)
    assert names(here) == ["a"]


def kept(top: Path) -> dict[str, tuple[object, ...]]:
    """Return what a move has to keep of a tree."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        facts = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(top))] = what, facts.st_mode, facts.st_mtime_ns, facts.st_uid, facts.st_gid
    return found


async def test_a_move_to_another_file_system_keeps_all(memory_client: Client, here: Path, small_disk: Path) -> None:
    move = memory_client.files.move
    (here / "t/secret").mkdir(parents=True)
    (here / "t/secret/key").write_bytes(b"key")
    (here / "t/secret/link").symlink_to("key")
    os.chown(here / "t/secret/key", 1234, 1234)
    (here / "t/secret/key").chmod(0o4751)
    for path in (here / "t/secret/key", here / "t/secret/link", here / "t/secret", here / "t"):
        os.utime(path, ns=(10**18, 10**18 + len(str(path))), follow_symlinks=False)
    (here / "t/secret").chmod(0o500)
    (here / "t").chmod(0o2700)
    before = kept(here / "t")
    (small_disk / "t").mkdir()
    await move(here / "t", small_disk / "t")
    assert kept(small_disk / "t") == before
    assert names(here) == ["small"]
    (small_disk / "target").write_bytes(b"precious")
    for name in ("link", "other"):
        (small_disk / name).symlink_to("target")
    (here / "f").write_bytes(b"f")
    (here / "l").symlink_to("f")
    await move(here / "l", small_disk / "other")
    await move(here / "f", small_disk / "link")
    assert os.readlink(small_disk / "other") == "f"
    assert not (small_disk / "link").is_symlink()
    assert [(small_disk / name).read_bytes() for name in ("link", "target")] == [b"f", b"precious"]
    assert names(here) == ["small"]
    assert names(small_disk) == ["link", "other", "t", "target"]


async def test_a_move_to_another_file_system_that_fails_changes_nothing(
    memory_client: Client, here: Path, small_disk: Path
) -> None:
    (here / "t/d").mkdir(parents=True)
    (here / "t/f").write_bytes(b"x")
    os.mkfifo(here / "t/d/fifo")
    (here / "big").write_bytes(bytes(4 << 20))
    (small_disk / "old").write_bytes(b"precious")
    (small_disk / "full").mkdir()
    (small_disk / "full/f").touch()
    for source, to, why in (
        ("t", "t", "t/d/fifo` is no file, directory or link"),
        ("t/d/fifo", "fifo", "t/d/fifo` is no file, directory or link"),
        ("t", "full", "Directory not empty"),
        ("t", "old", "Not a directory"),
        ("big", "full", "Is a directory"),
        ("big", "old", "No space left"),
    ):
        with pytest.raises(FileError, match=f"cannot move '{here}/{source}' to '{small_disk}/{to}': .*{why}"):
            await memory_client.files.move(here / source, small_disk / to)
    assert (small_disk / "old").read_bytes() == b"precious"
    assert names(small_disk) == ["full", "old"]
    assert (names(here), names(here / "t"), names(here / "t/d")) == (["big", "small", "t"], ["d", "f"], ["fifo"])


async def test_a_move_to_where_it_is_already_by_another_mount_loses_nothing(
    memory_client: Client, twin: tuple[Path, Path]
) -> None:
    one, two = twin
    (one / "f").write_bytes(b"precious")
    (one / "d/e").mkdir(parents=True)
    (one / "d/e/f").write_bytes(b"precious")
    for source, to, why in (
        ("f", "f", "both paths lead to the same file"),
        ("d", "d", "both paths lead to the same file"),
        ("d/e", "d", "Directory not empty"),
        ("d", "d/e/g", "to itself or one of its descendants"),
    ):
        with pytest.raises(FileError, match=why):
            await memory_client.files.move(one / source, two / to)
    assert (names(one), names(one / "d"), names(one / "d/e")) == (["d", "f"], ["e"], ["f"])
    assert (one / "f").read_bytes() == (one / "d/e/f").read_bytes() == b"precious"
    await memory_client.files.move(one / "d", two / "g")
    assert (names(one), (one / "g/e/f").read_bytes()) == (["f", "g"], b"precious")


async def test_a_copy_has_the_permissions_and_links_of_its_tree(memory_client: Client, here: Path) -> None:
    (here / "t/secret/closed").mkdir(parents=True)
    (here / "t/secret/closed/f").touch()
    (here / "t/secret/link").symlink_to("closed")
    (here / "t/secret/closed").chmod(0o500)
    (here / "t/secret").chmod(0o700)
    (here / "shared").mkdir()
    (here / "shared").chmod(0o2775)
    for _ in range(2):  # into what is there
        await memory_client.files.copy(here / "t", here / "shared/t")
        await memory_client.files.copy(here / "t/secret/link", here / "link")
    modes = [stat.S_IMODE((here / "shared/t" / name).stat().st_mode) for name in ("", "secret", "secret/closed")]
    assert modes == [0o2755, 0o2700, 0o2500]
    assert os.readlink(here / "shared/t/secret/link") == os.readlink(here / "link") == "closed"
    with pytest.raises(FileError, match="File exists"):
        await memory_client.files.copy(here / "link", here / "t/secret")


@pytest.mark.parametrize("kind", ["write", "large write", "copy", "move"])
async def test_nobody_may_more_with_a_file_than_its_acl_says(
    memory_client: Client, here: Path, small_disk: Path, kind: str
) -> None:
    """Where there is one, its mask stands in the bits of the group."""
    path = here / "f"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    entries = [(1, 6, 0xFFFFFFFF), (2, 6, 1234), (4, 0, 0xFFFFFFFF), (0x10, 6, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("no ACLs here")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    match kind:
        case "write":
            await memory_client.files.write(path, b"secret")
        case "large write":
            await memory_client.files.write(path, bytes(5 << 20))
        case "copy":
            await memory_client.files.copy(path, here / "to")
            path = here / "to"
        case _:
            await memory_client.files.move(path, small_disk / "to")
            path = small_disk / "to"
    try:
        assert os.getxattr(path, "system.posix_acl_access") == acl
    except OSError:
        assert kind == "move"  # to a file system without
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


# -- path objects --


async def test_path_objects_are_like_pathlib(client: Client, here: Path) -> None:
    top = client.files.path(here)
    path = top / "a" / "b.tar.gz"
    assert (str(path), path.name, path.stem, path.suffix) == (f"{here}/a/b.tar.gz", "b.tar.gz", "b.tar", ".gz")
    assert (path.parent.parent, path.parents[1], path.with_suffix(".x").name) == (top, top, "b.tar.x")
    assert (str(path.relative_to(top)), os.fspath(path)) == ("a/b.tar.gz", str(path))
    assert path.with_name("c") == top.joinpath("a", "c")
    assert len({path, top / "a/b.tar.gz"}) == 1
    assert not await path.exists()
    with pytest.raises(NotFoundError):
        await path.write_bytes(b"")
    await path.parent.mkdir(mode=0o710)
    assert stat.S_IMODE((here / "a").stat().st_mode) == 0o710
    await path.parent.mkdir(mode=0o700, exist_ok=True)
    await path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    assert stat.S_IMODE((here / "a").stat().st_mode) == 0o710
    with pytest.raises(FileError):
        await path.parent.mkdir()
    await path.write_text("text ü")
    assert await path.read_text() == "text ü"
    assert await path.read_bytes() == "text ü".encode()
    assert (await path.is_file(), await path.is_dir(), await path.parent.is_dir()) == (True, False, True)
    await path.chmod(0o600)
    assert (await path.stat()).mode == 0o600
    await (top / "link").symlink_to("a/b.tar.gz")
    assert await (top / "link").readlink() == "a/b.tar.gz"
    assert await (top / "link").is_symlink()
    assert await (top / "link").resolve() == path
    await (top / "a/x.py").touch()
    await (top / "a/x.py").touch()
    os.utime(str(top / "a"), (0, 0))
    await (top / "a").touch()
    assert (await (top / "a").stat()).modified > 0
    with pytest.raises(FileError, match="File exists"):
        await (top / "a/x.py").touch(exist_ok=False)
    await (top / "a/d/e").mkdir(parents=True)
    await (top / "a/d/e/z.py").write_bytes(b"")
    assert [str(child) async for child in top.iterdir()] == [f"{here}/a", f"{here}/link"]
    above = f"../{here.name}/a/*.py"
    for pattern in (
        above,
        "a/x.py",
        "a/none",
        "*/x.py",
        "*",
        "a/*.py",
        "**/*.py",
        "**",
        "*/d/*",
        "**/e/**",
        "a/**/*.py",
        "l?nk",
        "[al]*",
    ):
        wanted = {str(found) for found in here.glob(pattern)}  # noqa: ASYNC240
        assert {str(found) async for found in top.glob(pattern)} == wanted
    assert [found.name async for found in top.rglob("*.py")] == ["x.py", "z.py"]
    async with path.open("r+b") as file:
        await file.write(b"T")
    assert await path.read_text() == "Text ü"
    moved = await path.rename(top / "moved")
    await moved.unlink()
    await moved.unlink(missing_ok=True)
    for wrong in (top.unlink, (top / "link").rmdir, (top / "a").rmdir):
        with pytest.raises(FileError, match="cannot remove"):
            await wrong()
    assert (await client.run(["cat", path.parent / "d/e/z.py"])).exit_code == 0


async def test_a_glob_finds_what_is_there_and_leaves_out_what_may_not_be_looked_into(open_server: OpenServer) -> None:
    with as_nobody() as folder:
        (folder / "top/d/e").mkdir(parents=True)
        (folder / "top/d/e/f.py").touch()
        (folder / "top/round").symlink_to("round")
        (folder / "top/out").symlink_to("/")
        top = (await open_server("memory", ServerConfig(file_roots=(f"{folder}/top",))).client()).files.path(
            folder / "top"
        )
        for pattern in ("*/*/*.py", "*/e/*", "**/f.py"):
            assert [str(found) async for found in top.glob(pattern)] == [f"{folder}/top/d/e/f.py"]
        (folder / "top/d").chmod(0o300)  # which may not be listed
        for pattern in ("d/e/*.py", "*/e/*.py", "*/e/f.py", "d/e/f.py"):
            assert [str(found) async for found in top.glob(pattern)] == [f"{folder}/top/d/e/f.py"]
        assert not [found async for found in top.glob("*/*/*.py")]
        with pytest.raises(OutsideRootsError):
            await anext(top.parent.glob("*"))


# -- watching --


async def test_changes_below_a_directory_are_told(client: Client, here: Path) -> None:
    (here / "d").mkdir()
    with trio.fail_after(PATIENCE):
        async with client.files.watch(here, recursive=True) as changes:
            (here / "d/new").mkdir()
            assert await anext(changes) == FileChanged("created", f"{here}/d/new")
            (here / "d/new" / ODD).write_bytes(b"x")
            assert await anext(changes) == FileChanged("created", f"{here}/d/new/{ODD}")
            (here / "d/new").rename(here / "moved")
            kinds = {}
            async for change in changes:
                kinds[change.path] = change.kind
                if change.path == f"{here}/moved/{ODD}":
                    break
            assert kinds[f"{here}/d/new"] == "removed"
            assert kinds[f"{here}/moved"] == "created"
            (here / "moved" / ODD).write_bytes(b"y")
            async for change in changes:
                if change == FileChanged("changed", f"{here}/moved/{ODD}"):
                    break
            with trio.move_on_after(0.01):
                async for _ in changes:
                    pass
            (here / "after").touch()  # what the wait that was given up would have got
            async for change in changes:
                if change == FileChanged("created", f"{here}/after"):
                    break
        async with client.files.watch(here / "d") as changes:
            (here / "d").rmdir()
            assert await anext(changes) == FileChanged("removed", f"{here}/d")
            with pytest.raises(NotFoundError, match=f"cannot watch '{here}/d'"):
                await anext(changes)
            (here / "d").mkdir()
            assert await anext(changes) == FileChanged("lost", f"{here}/d")
            (here / "d/new").touch()
            assert await anext(changes) == FileChanged("created", f"{here}/d/new")
        with pytest.raises(trio.ClosedResourceError, match=f"the block of the watch of '{here}/d' was left"):
            await anext(changes)
        with pytest.raises(NotFoundError, match=f"cannot watch '{here}/none': No such file"):
            async with client.files.watch(here / "none"):
                pass


async def test_a_watch_that_is_cancelled_while_it_begins_leaves_nothing(memory_client: Client, here: Path) -> None:
    async def cancelled(steps: int) -> None:
        with cancelled_after(steps):
            async with memory_client.files.watch(here):
                pass

    with trio.fail_after(PATIENCE):
        for steps in range(1, 40):
            await cancelled(steps)
        while any("inotify" in _link_of(descriptor) for descriptor in os.listdir("/proc/self/fd")):  # noqa: ASYNC110
            await trio.sleep(0.01)  # the thread that begins the last of them closes it


async def test_what_is_left_without_a_wait_is_closed_all_the_same(open_server: OpenServer, here: Path) -> None:
    """More often than a connection may have files and watches open."""
    (here / "f").touch()
    client = await open_server("memory", ServerConfig()).client(ClientConfig(leave_timeout=0))
    with trio.fail_after(PATIENCE):
        for _ in range(150):
            with pytest.raises(RuntimeError, match="mine"):
                async with client.files.open(here / "f"):
                    raise RuntimeError("mine")
        for _ in range(50):
            async with client.files.watch(here):
                pass


def _link_of(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


async def test_as_many_files_as_may_be_are_put_at_once(memory_client: Client, here: Path) -> None:
    (here / "f").write_bytes(b"x")
    with trio.fail_after(PATIENCE):
        assert (await memory_client.files.put(here / "f", here / "g", limit=10**12)).files == 1


async def test_many_changes_at_once_are_all_told_or_said_to_be_lost(memory_client: Client, here: Path) -> None:
    wanted = {f"{here}/{a}/{b}/f" for a in range(20) for b in range(20)}
    with trio.fail_after(PATIENCE):
        async with memory_client.files.watch(here, recursive=True) as changes:
            for path in wanted:
                await trio.Path(path).parent.mkdir(parents=True)
                await trio.Path(path).touch()
            async for change in changes:
                wanted.discard(change.path)
                if not wanted or change.kind == "lost":
                    break
    assert not wanted  # the queue of the kernel holds more than these


async def test_what_is_found_in_a_new_directory_is_told_or_said_to_be_lost(memory_client: Client, here: Path) -> None:
    (here / "seen").mkdir()
    (here / "full").mkdir()
    for number in range(6000):
        (here / "full" / f"{number:0250}").touch()
    with trio.fail_after(PATIENCE):
        async with memory_client.files.watch(here / "seen", recursive=True) as changes:
            await memory_client.files.move(here / "full", here / "seen/full")
            told = 0
            async for change in changes:
                if change.kind == "lost":
                    break
                told += 1
            assert 1000 < told < 6000


async def test_a_directory_that_is_opened_to_us_later_is_watched_from_then_on(memory_client: Client) -> None:
    with as_nobody() as here, trio.fail_after(PATIENCE):
        async with memory_client.files.watch(here, recursive=True) as changes:
            (here / "d").mkdir(0o000)
            assert [(await anext(changes)).kind for _ in range(2)] == ["created", "lost"]
            (here / "d").chmod(0o700)
            assert [await anext(changes)] == [FileChanged("changed", f"{here}/d")]
            (here / "d/f").touch()
            assert await anext(changes) == FileChanged("created", f"{here}/d/f")


async def test_a_read_that_is_cancelled_leaves_the_place(memory_client: Client, here: Path) -> None:
    data = os.urandom(3_000_000)
    (here / "f").write_bytes(data)
    read = b""
    with trio.fail_after(PATIENCE):
        for steps in range(5, 1000, 5):
            async with memory_client.files.open(here / "f") as file:
                with cancelled_after(steps):
                    read = await file.read()
                assert file.tell() == len(read)
            if read:
                break
    assert read == data


# -- what is refused --


async def test_what_is_no_path_or_no_data_is_said_before_anything_is_sent(memory_client: Client, here: Path) -> None:
    files: Any = memory_client.files
    mistakes: list[tuple[Callable[[], Awaitable[Any]], str]] = [
        (lambda: files.read(5), "path must be a path, got int"),
        (lambda: files.read("relative"), "path must be an absolute path on the server's machine, got 'relative'"),
        (lambda: files.read("/a\0b"), "path: a path cannot contain a NUL character"),
        (lambda: files.read("/\ud800"), "path: .* is no path that a file can have"),
        (lambda: files.copy("/a", None), "destination must be a path, got NoneType"),
        (lambda: files.write(here / "f", 5), "data must be bytes or a string, got int"),
        (lambda: files.write(here / "f", None), "data must be bytes or a string, got None"),
        (lambda: files.write(here / "f", "\ud800"), "data cannot be written as utf-8"),
        (lambda: files.append(here / "f", "a", encoding="x"), "unknown encoding 'x'"),
        (lambda: files.read(here, encoding=""), "unknown encoding ''"),
        (lambda: files.read(here, encoding="utf-8", errors="x"), "errors: unknown way 'x'"),
        (lambda: files.write(here / "f", b"", mode="0600"), "mode must be a number, such as 0o644, got str"),
        (lambda: files.stat(here, follow=1), "follow must be True or False, got 1"),
        (lambda: files.make(here, parents=False, exist_ok=1), "exist_ok must be True or False, got 1"),
        (lambda: files.link(here / "f", None), "target must be a path, got NoneType"),
        (lambda: files.put(None, here / "x"), "source must be a path, got NoneType"),
        (lambda: files.put("/a\0b", here / "x"), "source: a path cannot contain a NUL character"),
        (lambda: files.put(here, here / "x", progress=5), "progress must be a function, got int"),
        (lambda: files.get(here, "/\ud800"), "destination: .* is no path that a file can have"),
        (lambda: files.change(here, modified=math.nan), "modified must be a number of seconds since 1970, got nan"),
        (lambda: files.change(here, accessed="now"), "accessed must be a number of seconds since 1970, got 'now'"),
        (lambda: files.remove(here, recursive="yes"), "recursive must be True or False, got 'yes'"),
        (lambda: files.put(here, here / "x", limit=0), "limit must be a number above 0, got 0"),
        (lambda: files.change(here, mode=-1), "mode must be from 0 to 0o7777, got -1"),
        (lambda: files.change(here, mode="0600"), "mode must be a number, such as 0o644, got str"),
    ]
    for call, complaint in mistakes:
        with pytest.raises((TypeError, InvalidParamsError), match=complaint):
            await call()
    assert not names(here)


async def test_refusals_name_the_path_and_cost_nothing_else(client: Client, here: Path) -> None:
    (here / "d").mkdir()
    os.mkfifo(here / "fifo")
    files = client.files
    refusals: list[tuple[Callable[[], Awaitable[Any]], str, int]] = [
        (lambda: files.read(here / "none"), f"cannot read '{here}/none': No such file", errno.ENOENT),
        (lambda: files.read(here / "d"), f"cannot read '{here}/d': path .* is not a file", 0),
        (lambda: files.read(here / "fifo"), f"cannot read '{here}/fifo': path .* is not a file", 0),
        (lambda: files.write(here / "d", b""), f"cannot write '{here}/d': Is a directory", errno.EISDIR),
        (lambda: files.write(here / "d", bytes(5_000_000)), f"cannot write '{here}/d': .*directory", errno.EISDIR),
        (lambda: files.write(here / "n/f", b""), f"cannot write '{here}/n/f': No such file", errno.ENOENT),
        (lambda: files.write(f"{here}/new/", b""), f"cannot write '{here}/new/': Is a directory", errno.EISDIR),
        (lambda: files.append(f"{here}/new/", b""), f"cannot write '{here}/new/': Is a directory", errno.EISDIR),
        (lambda: files.open(f"{here}/new/", "xb").__aenter__(), f"cannot write '{here}/new/': Is a dir", errno.EISDIR),
        (lambda: files.append(here / "d", b""), f"cannot append to '{here}/d': Is a directory", errno.EISDIR),
        (lambda: files.list(here / "fifo"), f"cannot list '{here}/fifo': Not a directory", errno.ENOTDIR),
        (lambda: files.move(here / "n", here / "m"), f"cannot move '{here}/n' to '{here}/m': No such", errno.ENOENT),
        (lambda: files.link(here / "d", "x"), f"cannot link '{here}/d': File exists", errno.EEXIST),
        (lambda: files.write("/proc/version/x", b""), "cannot write '/proc/version/x': Not a directory", errno.ENOTDIR),
        (lambda: files.stat("/" + "n" * 300), "File name too long", errno.ENAMETOOLONG),
        (lambda: files.stat("/" + "n/" * 3000), "File name too long", errno.ENAMETOOLONG),
    ]
    for call, complaint, number in refusals:
        with pytest.raises(FileError, match=complaint) as refused:
            await call()
        assert refused.value.errno == number
        assert str(refused.value.facts["path"]).startswith("/")
    assert names(here) == ["d", "fifo"]
    assert (await client.run(["true"])).exit_code == 0


async def test_a_full_disk_leaves_the_old_file(client: Client, here: Path, small_disk: Path) -> None:
    target, files = small_disk / "f", client.files
    target.write_bytes(b"old")
    (here / "big").write_bytes(bytes(9_000_000))
    writes: list[Callable[[], Awaitable[Any]]] = [
        lambda: files.write(target, bytes(4_000_000)),
        lambda: files.write(target, bytes(9_000_000)),
        lambda: files.put(here / "big", target),
    ]
    for call in writes:
        with pytest.raises(FileError, match=f"cannot .*'{target}': No space left on device") as full:
            await call()
        assert full.value.errno == errno.ENOSPC
        assert target.read_bytes() == b"old"
        assert names(small_disk) == ["f"]
    with pytest.raises(OSError, match=rf"No space left on device: '{target}'"):
        await files.get(here / "big", target)
    assert (names(small_disk), target.read_bytes()) == (["f"], b"old")
    assert await files.read(target) == b"old"


async def test_roots_hold_for_every_way(open_server: OpenServer, here: Path) -> None:
    (here / "in").mkdir()
    (here / "out").mkdir()
    (here / "out/f").touch()
    os.symlink("../out", here / "in/link")
    client = await open_server("stdio", ServerConfig(file_roots=(f"{here}/in",))).client()
    files, inside, outside = client.files, here / "in", here / "in/link"
    for call in (
        lambda: files.stat(outside / "f"),
        lambda: files.list(outside),
        lambda: files.write(outside / "f", b"x"),
        lambda: files.append(outside / "f", b"x"),
        lambda: files.change(outside / "f", mode=0),
        lambda: files.link(outside / "l", "x"),
        lambda: files.move(outside / "f", inside / "f"),
        lambda: files.move(inside / "link", outside / "g"),
        lambda: files.watch(outside).__aenter__(),
        lambda: files.put(here / "out/f", outside / "p"),
    ):
        with pytest.raises(OutsideRootsError, match=r"cannot .* leads out of the directories"):
            await call()
    for call in (lambda: files.move(inside, inside / "x"), lambda: files.move(inside / "link", inside)):
        with pytest.raises(FileRefusedError, match="it cannot be renamed"):
            await call()
    await files.move(inside / "link", inside / "renamed")
    assert (names(inside), names(here / "out")) == (["renamed"], ["f"])
    assert (here / "out/f").read_bytes() == b""


# -- an interrupted connection --


@pytest.mark.parametrize("transport", ["unix", "websocket"])
async def test_an_open_file_and_a_watch_outlive_the_channel(
    open_server: OpenServer, transport: str, here: Path, tmp_path: Path
) -> None:
    url = await open_server(transport, ServerConfig(resume_grace=300)).url()
    (here / "f").write_bytes(b"0123456789")
    with trio.fail_after(PATIENCE):
        async with open_line(url, f"{tmp_path}/line") as line, connect(line.url, reconnect=60) as client:
            async with (
                client.files.open(here / "f", "r+b") as file,
                client.files.watch(here) as changes,
                client.files.open(here / "log", "ab") as log,
            ):
                assert await file.read(3) == b"012"
                await log.write(b"1")
                line.cut()
                await file.write(b"abc")
                assert await file.read() == b"6789"
                kinds = [(await anext(changes)).kind]
                while kinds[-1] != "lost":
                    kinds.append((await anext(changes)).kind)
                (here / "new").touch()
                assert await anext(changes) == FileChanged("created", f"{here}/new")
                with pytest.raises(ConnectionLostError, match="was open for appending"):
                    await log.write(b"2")
            assert (here / "f").read_bytes() == b"012abc6789"
            assert (here / "log").read_bytes() == b"1"


async def test_a_watch_that_is_lost_says_so_though_a_wait_was_cancelled_as_it_began_anew(
    open_server: OpenServer, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await open_server("unix", ServerConfig(resume_grace=300)).url()
    with trio.fail_after(PATIENCE):
        async with (
            open_line(url, f"{tmp_path}/line") as line,
            connect(line.url, reconnect=60) as client,
            client.files.watch(here) as changes,
        ):
            calls, first = changes._watch._calls, changes._watch._begun
            answer_to = FileCalls.answer_to

            async def cancelled_wait(self: FileCalls, pending: Any, kind: Any) -> Any:
                if self is calls and pending is changes._watch._begun is not first:
                    scope.cancel()
                return await answer_to(self, pending, kind)

            monkeypatch.setattr(FileCalls, "answer_to", cancelled_wait)
            line.cut()
            with trio.CancelScope() as scope:
                await anext(changes)
            assert scope.cancelled_caught
            assert (await anext(changes)).kind == "lost"
            (here / "new").touch()
            assert await anext(changes) == FileChanged("created", f"{here}/new")


async def test_another_file_at_its_path_is_not_taken_for_an_open_one(
    open_server: OpenServer, here: Path, tmp_path: Path
) -> None:
    url = await open_server("unix", ServerConfig(resume_grace=300)).url()
    other, place = here / "other", here / "f"
    with trio.fail_after(PATIENCE):
        async with open_line(url, f"{tmp_path}/line") as line, connect(line.url, reconnect=60) as client:
            for mode in ("rb", "wb", "r+b", "w+b"):
                place.write_bytes(b"oooooooooo")
                async with client.files.open(place, mode) as file:
                    await (file.read(5) if mode == "rb" else file.write(b"11111"))
                    line.cut()
                    place.rename(here / "old")
                    with pytest.raises(NotFoundError, match=rf"cannot (read|write) '{place}': No such file"):
                        await (file.read() if mode == "rb" else file.write(b"22222"))
                    other.write_bytes(b"theirs")
                    other.rename(place)
                    for _ in range(2):
                        with pytest.raises(FileError, match="another file is at its path by now"):
                            await (file.read() if mode == "rb" else file.write(b"22222"))
                    assert (names(here), place.read_bytes()) == (["f", "old"], b"theirs")
                    (here / "old").rename(place)
                    assert await (file.read() if mode == "rb" else file.write(b"22222")) in (b"ooooo", 5)
