"""`put` and `get` of files and trees, over every transport, cut lines and bad surroundings."""

from __future__ import annotations

import os
import random
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from execsrv import (
    BadAnswerError,
    Client,
    ClientConfig,
    ConnectionLostError,
    FileError,
    FileRefusedError,
    LimitExceededError,
    NotFoundError,
    ServerConfig,
    connect,
)
from execsrv._nursery import open_helpers
from execsrv._server.failures import failure_of
from execsrv._wire.memory import MemoryChannel, open_memory_pair
from execsrv.client.client import open_client
from execsrv.client.local_sources import look, read_whole
from execsrv.protocol import (
    Block,
    CanonicalPath,
    FileData,
    FileHandle,
    FileList,
    FileStatus,
    ListedFile,
    Nothing,
    Notification,
    Request,
    Response,
)
from tests.conftest import OpenServer, Server
from tests.peers import PATIENCE
from tests.processes import resident
from tests.relay import open_line

ODD = os.fsdecode(b"odd \xff\x80 %41#?")
MIB = 1 << 20
FACTS: dict[str, Any] = {"size": 0, "permissions": 0o755, "user_id": 0, "group_id": 0, "inode": 1, "device": 1}
FACTS |= {"modified_at_ns": 0, "accessed_at_ns": 0, "changed_at_ns": 0, "links": 1}
"""What is told of any file."""


@pytest.fixture
async def client(server: Server) -> Client:
    return await server.client()


def make_tree(top: Path) -> None:
    """Make a tree with all that there is: sizes, modes, times, links, odd names, empty and closed directories."""
    (top / "a/b").mkdir(parents=True)
    (top / "a/empty").mkdir()
    (top / "small").write_bytes(b"small")
    (top / "none").touch()
    (top / "a/large").write_bytes(random.randbytes(3 * MIB + 5))
    (top / "a/b/exact").write_bytes(random.randbytes(2 * MIB))
    (top / ODD).write_bytes(b"odd")
    for number in range(40):
        (top / "a/b" / f"n{number}").write_bytes(b"%d" % number)
    (top / "small").chmod(0o751)
    (top / "none").chmod(0o400)
    os.symlink("a/large", top / "link")
    os.symlink(f"../{ODD}", top / "a/nowhere")
    for path in [*top.rglob("*"), top]:
        os.utime(path, ns=(1, 10**18 + len(str(path))), follow_symlinks=False)
    (top / "a/empty").chmod(0o500)


def described(top: Path) -> dict[str, Any]:
    """Return what a tree holds."""
    found: dict[str, Any] = {}
    for path in [top, *top.rglob("*")]:
        facts = path.lstat()
        if stat.S_ISLNK(facts.st_mode):
            found[str(path.relative_to(top))] = (os.readlink(path), facts.st_mtime_ns)
        else:
            content = path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(top))] = (facts.st_mode, facts.st_mtime_ns, content)
    return found


def folders(path: Path) -> list[str]:
    return sorted(os.listdir(path))


async def test_nothing_runs_with_the_rights_of_who_has_copied_it(client: Client, here: Path) -> None:
    (here / "tree").mkdir()
    (here / "tree/small").write_bytes(b"small")
    (here / "tree/large").write_bytes(bytes(MIB))
    for name in ("small", "large"):
        (here / "tree" / name).chmod(0o6751)
    await client.files.put(here / "tree", here / "there")
    await client.files.get(here / "tree", here / "back")
    await client.files.write(here / "tree/small", b"new")
    await client.files.write(here / "tree/large", bytes(5 * MIB))
    for path in (here / "there", here / "back", here / "tree"):
        assert [stat.S_IMODE((path / name).stat().st_mode) for name in ("small", "large")] == [0o751, 0o751], path


@pytest.mark.parametrize("way", ["put", "get"])
async def test_nobody_gets_into_a_private_directory_before_it_is_whole(client: Client, here: Path, way: str) -> None:
    (here / "tree/private").mkdir(parents=True)
    (here / "tree/private/f").write_bytes(bytes(MIB))
    (here / "tree/private").chmod(0o500)
    (here / "tree").chmod(0o700)
    seen: set[int] = set()

    def look(*facts: object) -> None:
        seen.update((here / "to" / name).stat().st_mode & 0o77 for name in ("", "private"))

    await getattr(client.files, way)(here / "tree", here / "to", progress=look)
    assert seen == {0}
    assert stat.S_IMODE((here / "to/private").stat().st_mode) == 0o500


def test_a_small_file_that_has_grown_is_not_read_whole(here: Path) -> None:
    (here / "f").write_bytes(b"1234")
    assert read_whole(look(str(here / "f")), 4) == b"1234"
    assert read_whole(look(str(here / "f")), 3) is None


@pytest.mark.parametrize("way", ["put", "get"])
async def test_a_tree_is_not_copied_into_itself(client: Client, here: Path, way: str) -> None:
    """It would be, again and again, until no path is long enough any more. Links and mounts make other names of it."""
    (here / "tree/a").mkdir(parents=True)
    (here / "tree/a/f").write_bytes(b"f")
    (here / "link").symlink_to("tree")
    for source in (here / "tree", here / "link"):
        with pytest.raises(FileError, match=f"cannot {way} '{source}' into itself: '{source}/a/copy' is the copy"):
            await getattr(client.files, way)(source, here / "tree/a/copy")
        assert folders(here / "tree/a/copy") == ["a"]
        assert "copy" not in folders(here / "tree/a/copy/a")
    await getattr(client.files, way)(here / "tree", here / "tree")  # onto itself
    await getattr(client.files, way)(here / "tree/a/copy", here / "other")
    assert folders(here / "other") == ["a"]


async def test_directories_of_two_machines_may_have_the_same_numbers(open_server: OpenServer, here: Path) -> None:
    """Only a file that both have proves that they are one."""
    (here / "tree/a").mkdir(parents=True)
    (here / "tree/f").write_bytes(b"f")
    channel, theirs = open_memory_pair()
    copy = here / "copy"
    copy.mkdir()
    numbers = copy.stat().st_dev, copy.stat().st_ino

    async def serve_with_those_numbers(nursery: trio.Nursery) -> None:
        async with open_server("memory", ServerConfig()).open_channel() as real:

            async def answer() -> None:
                while (message := await real.receive()) is not None:
                    if isinstance(message, Response) and isinstance(message.result, FileList):
                        entries = [
                            replace(entry, status=replace(entry.status, device=numbers[0], inode=numbers[1]))
                            for entry in message.result.entries
                        ]
                        message = Response(message.id, FileList(entries))
                    await theirs.send(message)

            nursery.start_soon(answer)
            while (asked := await theirs.receive()) is not None:
                await real.send(asked)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_with_those_numbers, nursery)
        async with open_client(lambda: nullcontext(channel), ClientConfig()) as client:
            await client.files.get(here / "tree", copy)
        nursery.cancel_scope.cancel()
    assert folders(copy) == ["a", "f"]


@pytest.mark.few
async def test_a_tree_goes_there_and_back(client: Client, here: Path) -> None:
    make_tree(here / "tree")
    size = sum(path.stat().st_size for path in (here / "tree").rglob("*") if path.is_file() and not path.is_symlink())
    there = await client.files.put(here / "tree", here / "there")
    assert described(here / "there") == described(here / "tree")
    back = await client.files.get(here / "there", here / "back", limit=2)
    assert described(here / "back") == described(here / "tree")
    assert (there.files, there.bytes, there.skipped) == (back.files, back.bytes, back.skipped) == (45, size, [])
    (here / "there/extra").touch()
    os.remove(here / "there/link")
    os.symlink("old", here / "there/link")
    await client.files.put(here / "tree", here / "there")
    assert described(here / "there") == described(here / "tree") | {
        "extra": ((here / "there/extra").stat().st_mode, (here / "there/extra").stat().st_mtime_ns, b"")
    }


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 8 * MIB, 20 * MIB + 1])
async def test_a_file_of_any_size_is_copied_with_progress(open_server: OpenServer, here: Path, size: int) -> None:
    client = await open_server("unix", ServerConfig()).client()
    source, there, back = here / "source", here / "there", here / "back"
    source.write_bytes(data := random.randbytes(size))
    source.chmod(0o604)
    for copy, a, b in ((client.files.put, source, there), (client.files.get, there, back)):
        told: list[tuple[str, str, int, int]] = []
        await copy(a, b, progress=lambda *facts, told=told: told.append(facts))
        assert b.read_bytes() == data
        assert (b.stat().st_mode, b.stat().st_mtime_ns) == (source.stat().st_mode, source.stat().st_mtime_ns)
        assert {facts[:2] + facts[3:] for facts in told} == {(str(a), str(b), size)}
        counts = [facts[2] for facts in told]
        assert counts == sorted(counts)
        assert counts[-1] == size
    assert folders(here) == ["back", "source", "there"]


async def test_a_file_of_proc_is_read_to_its_end(client: Client, here: Path) -> None:
    await client.files.get("/proc/filesystems", here / "f")
    assert (here / "f").read_bytes() == await trio.Path("/proc/filesystems").read_bytes() != b""


async def test_what_is_no_file_is_left_out(client: Client, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "tree").mkdir()
    os.mkfifo(here / "tree/fifo")
    (here / "tree/f").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(here)  # the path of a socket has to be short
        listener.bind("tree/s")
        assert sorted((await client.files.put(here / "tree", here / "a")).skipped) == [
            f"{here}/tree/fifo",
            f"{here}/tree/s",
        ]
        assert (await client.files.get(here / "tree", here / "b")).files == 1
    assert folders(here / "a") == folders(here / "b") == ["f"]
    for copy, what in ((client.files.put, "put"), (client.files.get, "get")):
        with pytest.raises(FileError, match=f"cannot {what} '{here}/tree/fifo': it is no file"):
            await copy(here / "tree/fifo", here / "x")


async def test_what_is_in_the_way_is_an_error_that_names_it(client: Client, here: Path) -> None:
    (here / "d").mkdir()
    (here / "f").write_bytes(b"old")
    (here / "big").write_bytes(bytes(MIB))
    (here / "tree/f").mkdir(parents=True)
    (here / "to").mkdir()
    (here / "to/f").write_bytes(b"old")
    files = client.files
    for source in ("f", "big"):
        with pytest.raises(FileError, match=f"cannot put '{here}/{source}' to '{here}/d': .*directory"):
            await files.put(here / source, here / "d")
        with pytest.raises(IsADirectoryError, match=f"{here}/d"):
            await files.get(here / source, here / "d")
        with pytest.raises(NotFoundError, match=f"cannot put '{here}/{source}' to '{here}/n/f': No such file"):
            await files.put(here / source, here / "n/f")
        with pytest.raises(FileNotFoundError, match=f"'{here}/n/f'$"):
            await files.get(here / source, here / "n/f")
    for path in ("to", "f"):
        with pytest.raises(FileError, match=f"cannot make '{here}/{path}.*': File exists"):
            await files.put(here / "tree", here / path)
        with pytest.raises(FileExistsError, match=f"{here}/{path}"):
            await files.get(here / "tree", here / path)
    with pytest.raises(FileNotFoundError, match=f"{here}/none"):
        await files.put(here / "none", here / "x")
    with pytest.raises(NotFoundError, match=f"cannot get '{here}/none'"):
        await files.get(here / "none", here / "x")
    assert folders(here) == ["big", "d", "f", "to", "tree"]
    assert (here / "to/f").read_bytes() == (here / "f").read_bytes() == b"old"


@pytest.mark.parametrize("size", [0, 3, MIB])
async def test_no_copy_takes_the_place_of_a_device_or_a_pipe(client: Client, here: Path, size: int) -> None:
    """Root would lose `/dev/null` by a copy that is put there as a new file."""
    (here / "f").write_bytes(bytes(size))
    (here / "tree").mkdir()
    (here / "tree/pipe").symlink_to("nowhere")
    (here / "to").mkdir()
    os.mkfifo(here / "pipe")
    os.mkfifo(here / "to/pipe")
    (here / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="not a regular file"):
            await client.files.get(here / "f", here / name)
        with pytest.raises(FileError, match=r"there is a|is not a file"):
            await client.files.put(here / "f", here / name)
    with pytest.raises(OSError, match="not a regular file"):
        await client.files.get(here / "tree", here / "to")
    assert (here / "pipe").is_fifo()
    assert (here / "to/pipe").is_fifo()
    assert (here / "link").is_symlink()


async def test_a_put_that_is_given_up_leaves_nothing(client: Client, here: Path) -> None:
    (here / "big").write_bytes(bytes(30 * MIB))
    (here / "to").mkdir()
    for copy in (client.files.put, client.files.get):
        with trio.CancelScope() as scope:
            await copy(here / "big", here / "to/f", progress=lambda *facts: scope.cancel())
        assert scope.cancelled_caught

        def broken(*facts: object) -> None:
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            await copy(here / "big", here / "to/f", progress=broken)
        assert folders(here / "to") == []
    assert (await client.run(["true"])).exit_code == 0


@pytest.mark.parametrize("way", ["get", "put", "put and cut"])
async def test_a_file_that_changes_while_it_is_read_is_an_error(client: Client, here: Path, way: str) -> None:
    source, copy = here / "f", client.files.get if way == "get" else client.files.put
    source.write_bytes(bytes(40 * MIB))

    def progress(source_path: str, to: str, done: int, total: int) -> None:
        if done == MIB:
            with open(source, "r+b") as file:
                file.write(b"changed")
            if way == "put and cut":
                os.truncate(source, 20 * MIB)

    with pytest.raises(FileError, match=f"cannot {way[:3]} '{source}' to .*: the file has changed while it was read"):
        await copy(source, here / "to", progress=progress)
    assert folders(here) == ["f"]


@pytest.mark.parametrize("swapped", ["d/secret", "d", "d in the midst"])
@pytest.mark.parametrize("way", ["put", "get"])
async def test_no_link_that_takes_a_place_leads_out_of_the_tree(
    open_server: OpenServer, here: Path, way: str, swapped: str
) -> None:
    client = await open_server("memory", ServerConfig()).client()
    (here / "tree/d").mkdir(parents=True)
    (here / "elsewhere").mkdir()
    for name in ("tree/a", "tree/b", "tree/d/a", "tree/d/b", "tree/d/secret"):
        (here / name).write_bytes(b"mine")
    for name in ("b", "secret"):
        (here / "elsewhere" / name).write_bytes(b"SECRET")
    first = here / "tree" / ("a" if swapped == "d" else "d/a")
    place = here / "tree" / swapped.partition(" ")[0]

    def swap(source: str, *_: object) -> None:
        if source == str(first):
            place.rename(here / "old")
            place.symlink_to(here / "elsewhere" / ("secret" if swapped == "d/secret" else ""))

    wanted = OSError if way == "put" else FileError
    with pytest.raises(wanted, match=r"(Not a directory|Too many levels of symbolic links).*|cannot get"):
        await getattr(client.files, way)(here / "tree", here / "to", progress=swap, limit=1)
    assert place.is_symlink()
    assert {path.read_bytes() for path in (here / "to").rglob("*") if path.is_file()} == {b"mine"}


async def test_a_directory_that_is_too_large_to_list_is_taken_up(open_server: OpenServer, here: Path) -> None:
    client = await open_server("memory", ServerConfig(directory_entries=4)).client()
    (here / "from").mkdir()
    for number in range(6):
        (here / "from" / f"{number}").write_text("it")
    for unchanged in (0, 6):
        copied = await client.files.put(here / "from", here / "to", resume=True)
        assert (copied.files, copied.unchanged) == (6 - unchanged, unchanged)


@pytest.mark.few
async def test_more_copies_at_a_time_than_a_server_has_handles(client: Client, here: Path) -> None:
    (here / "from").mkdir()
    for number in range(150):
        (here / "from" / f"{number}").write_bytes(bytes(300_000))
    for copy, source, to in ((client.files.put, "from", "to"), (client.files.get, "to", "back")):
        assert (await copy(here / source, here / to, limit=1000)).files == 150


async def test_a_time_after_2262_is_as_late_as_can_be_sent(client: Client, here: Path) -> None:
    (here / "from").mkdir()
    (here / "from/late").write_text("late")
    os.utime(here / "from/late", (2**34, 2**34))
    assert (await client.files.stat(here / "from/late")).modified_ns == 2**63 - 1
    assert [found.name for found in await client.files.list(here / "from")] == ["late"]
    for copy, source, to in ((client.files.put, "from", "to"), (client.files.get, "to", "back")):
        assert [(await copy(here / source, here / to, resume=True)).files for _ in range(2)] == [1, 0]


async def test_a_put_of_a_file_that_grows_on_and_on_is_ended(open_server: OpenServer, here: Path) -> None:
    source = here / "f"
    source.write_bytes(bytes(8 * MIB))  # more than is under way at a time

    def grow(source_path: str, to: str, done: int, total: int) -> None:
        if source.stat().st_size < 64 * MIB:
            with open(source, "ab") as file:
                file.write(bytes(MIB))

    client = await open_server("memory", ServerConfig()).client(ClientConfig(max_read_bytes=4 * MIB))
    with pytest.raises(
        LimitExceededError, match=f"cannot put '{source}' to .*: it has grown by more than max_read_bytes"
    ):
        await client.files.put(source, here / "to", progress=grow)
    assert folders(here) == ["f"]


@pytest.mark.parametrize("limits", [{"requests_in_flight": 3}, {"queued_file_bytes": 300_000}])
async def test_a_busy_server_is_asked_again(open_server: OpenServer, here: Path, limits: dict[str, int]) -> None:
    client = await open_server("unix", ServerConfig(**limits)).client()  # type: ignore[arg-type]
    (here / "f").write_bytes(random.randbytes(6 * MIB))
    await client.files.put(here / "f", here / "there", limit=1)
    await client.files.get(here / "there", here / "back", limit=1)
    assert (here / "back").read_bytes() == (here / "f").read_bytes()


# -- an interrupted connection --


@pytest.mark.few
@pytest.mark.parametrize("transport", ["unix", "websocket"])
@pytest.mark.parametrize("what", ["file", "tree"])
async def test_a_copy_goes_on_when_the_connection_is_back(
    open_server: OpenServer, transport: str, what: str, here: Path, tmp_path: Path
) -> None:
    url = await open_server(transport, ServerConfig(resume_grace=300)).url()
    if what == "tree":
        make_tree(here / "source")
    else:
        (here / "source").write_bytes(random.randbytes(30 * MIB))
    with trio.fail_after(PATIENCE):
        async with open_line(url, f"{tmp_path}/line") as line, connect(line.url, reconnect=60) as client:
            for copy, source, to in ((client.files.put, "source", "there"), (client.files.get, "there", "back")):
                calls = 0

                def progress(*facts: object) -> None:
                    nonlocal calls
                    calls += 1
                    if calls in (2, 9, 20):
                        line.cut()

                await copy(here / source, here / to, progress=progress)
                assert calls >= 20
    if what == "tree":
        assert described(here / "source") == described(here / "there") == described(here / "back")
    else:
        assert (here / "source").read_bytes() == (here / "there").read_bytes() == (here / "back").read_bytes()
    assert folders(here) == ["back", "source", "there"]


async def test_a_connection_that_is_lost_for_good_leaves_no_file_under_the_name(
    open_server: OpenServer, here: Path, tmp_path: Path
) -> None:
    url = await open_server("unix", ServerConfig()).url()
    (here / "big").write_bytes(bytes(30 * MIB))
    (here / "to").mkdir()
    for way in ("put", "get"):
        async with open_line(url, f"{tmp_path}/{way}") as line, connect(line.url) as client:
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError):
                await getattr(client.files, way)(here / "big", here / "to/f", progress=lambda *facts: line.cut())
        assert not (here / "to/f").exists()
    assert all(name.startswith(".f.") and name.endswith(".part") for name in folders(here / "to"))


async def test_many_files_that_fail_together_are_one_error(open_server: OpenServer, here: Path, tmp_path: Path) -> None:
    url = await open_server("unix", ServerConfig()).url()
    (here / "many").mkdir()
    for number in range(8):
        (here / f"many/{number}").write_bytes(bytes(5 * MIB))
    await _cut_when_all_have_begun("put", url, here, tmp_path)
    await _cut_when_all_have_begun("get", url, here, tmp_path)


async def _cut_when_all_have_begun(way: str, url: str, here: Path, tmp_path: Path) -> None:
    begun: set[str] = set()

    def progress(source: str, *facts: object) -> None:
        begun.add(source)
        if len(begun) == 8:
            line.cut()

    async with open_line(url, f"{tmp_path}/{way}") as line, connect(line.url) as client:
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError):
            await getattr(client.files, way)(here / "many", here / way, progress=progress)


# -- memory, and a server that is not to be trusted --


@pytest.mark.few
@pytest.mark.parametrize("way", ["put", "get"])
async def test_a_large_file_takes_little_memory(daemon: Any, here: Path, way: str) -> None:
    client = await daemon.client()
    for name, size in (("warm", 30 * MIB), ("big", 100 * MIB)):
        (here / name).touch()
        os.truncate(here / name, size)
    await getattr(client.files, way)(here / "warm", here / "to")
    before = resident(os.getpid()), daemon.resident()
    await getattr(client.files, way)(here / "big", here / "to")
    grown = resident(os.getpid()) - before[0], daemon.resident() - before[1]
    assert max(grown) < 40 * MIB


@asynccontextmanager
async def lying(answers: dict[str, Any], **settings: Any) -> AsyncIterator[Client]:
    """A client of a server that gives these answers, or raises them, and gives an empty object otherwise."""
    ours, theirs = open_memory_pair()

    async def answer(channel: MemoryChannel) -> None:
        while (message := await channel.receive()) is not None:
            if isinstance(message, Request):
                answer = answers.get(message.method, {})
                refused = isinstance(answer, Exception)
                await channel.send(failure_of(message.id, answer) if refused else Response(message.id, answer))

    async with open_helpers() as nursery:
        nursery.start_soon(answer, theirs)
        async with open_client(lambda: nullcontext(ours), ClientConfig(leave_timeout=0.1, **settings)) as client:
            yield client


async def test_a_put_of_a_link_that_is_cancelled_removes_it_once_it_is_made(lies: dict[str, Any], here: Path) -> None:
    """The server may make it behind a removal that comes too early."""
    (here / "tree").mkdir()
    (here / "tree/link").symlink_to("nowhere")
    lies["fs/stat"] = FileStatus(kind="directory", **FACTS)
    asked: list[str] = []
    is_made = False
    ours, theirs = open_memory_pair()

    async def answer() -> None:
        while (message := await theirs.receive()) is not None:
            assert isinstance(message, Request | Notification)
            asked.append(message.method if asked[-1:] != ["fs/symlink"] or is_made else "too early")
            if isinstance(message, Request):
                late = message.method == "fs/symlink"
                nursery.start_soon(answer_late if late else answer_now, message)

    async def answer_now(request: Request) -> None:
        await theirs.send(Response(request.id, lies.get(request.method, {})))

    async def answer_late(request: Request) -> None:
        nonlocal is_made
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        is_made = True
        await theirs.send(Response(request.id, Nothing()))

    async with open_helpers() as nursery:
        nursery.start_soon(answer)
        async with open_client(lambda: nullcontext(ours), ClientConfig(leave_timeout=PATIENCE)) as client:
            with trio.CancelScope() as scope:
                await client.files.put(here / "tree", "/to")
            assert asked[-1] == "fs/remove"


@pytest.fixture
async def lies(open_server: OpenServer) -> dict[str, Any]:
    """Answers of a server that greets as one does, and has one large file."""
    real = await open_server("memory", ServerConfig()).client()
    return {
        "initialize": {"environmentInfo": real.info, "sessionId": "x", "protocolVersion": "exec-server.v0"},
        "fs/readFile": FileRefusedError("it is too large", limit="max_file_bytes"),
        "fs/open": FileHandle("h"),
        "fs/canonicalize": CanonicalPath("file:///t"),
        "fs/stat": FileStatus(kind="file", **(FACTS | {"size": 100})),
    }


async def test_no_server_makes_a_read_gather_without_end(lies: dict[str, Any]) -> None:
    lies["fs/readBlock"] = Block(bytes(256 * 1024), eof=False)
    with trio.fail_after(PATIENCE):
        async with lying(lies, max_read_bytes=MIB) as client:
            with pytest.raises(LimitExceededError, match=r"cannot read '/f': .*max_read_bytes \(1048576\)") as error:
                await client.files.read("/f")
            assert error.value.facts["limit"] == "max_read_bytes"
            with pytest.raises(LimitExceededError):
                await client.files.path("/f").read_text()
            async with client.files.open("/f") as file:
                with pytest.raises(LimitExceededError):
                    await file.read()
                assert file.tell() == 0
                assert len(await file.read(256 * 1024)) == 256 * 1024
            lies["fs/stat"] = FileStatus(kind="file", **(FACTS | {"size": MIB + 1}))
            lies["fs/readBlock"] = NotFoundError("nobody asks for it")
            with pytest.raises(LimitExceededError):
                await client.files.read("/f")
            lies["fs/readFile"] = FileData(bytes(MIB + 1))
            with pytest.raises(LimitExceededError):
                await client.files.read("/f")
            lies["fs/readFile"] = FileData(bytes(MIB))
            assert len(await client.files.read("/f")) == MIB


@pytest.mark.parametrize(
    ("block", "complaint"), [(Block(bytes(MIB + 1), eof=True), "were asked for"), (Block(b"", eof=False), "no end")]
)
async def test_a_block_that_is_none_is_a_malformed_answer(
    lies: dict[str, Any], here: Path, block: Block, complaint: str
) -> None:
    lies["fs/readBlock"] = block
    with trio.fail_after(PATIENCE):
        async with lying(lies) as client:
            with pytest.raises(BadAnswerError, match=complaint):
                await client.files.read("/f")
            with pytest.raises(BadAnswerError, match=complaint):
                await client.files.get("/f", here / "f")
            async with client.files.open("/f") as file:
                with pytest.raises(BadAnswerError, match=complaint):
                    await file.read()


async def test_a_get_of_what_has_no_end_is_ended_and_told(lies: dict[str, Any], here: Path) -> None:
    lies["fs/readBlock"] = Block(bytes(256 * 1024), eof=False)
    directory = FileStatus(kind="directory", **FACTS)
    with trio.fail_after(PATIENCE):
        async with lying(lies, max_read_bytes=512 * 1024, max_tree_entries=30) as client:
            with pytest.raises(LimitExceededError, match=r"cannot get '/f' .*it has grown by more than max_read_bytes"):
                await client.files.get("/f", here / "f")
            lies["fs/stat"] = directory
            lies["fs/list"] = FileList([ListedFile("deeper", directory)])
            with pytest.raises(LimitExceededError, match="'/t': the tree has more than max_tree_entries") as error:
                await client.files.get("/t", here / "t")
            assert (error.value.facts["limit"], error.value.facts["value"]) == ("max_tree_entries", 30)
    assert os.listdir(here) == ["t"]
    assert sum(1 for _ in os.walk(here / "t")) == 30


async def test_no_server_makes_up_a_tree_without_end(
    lies: dict[str, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execsrv.client.remote_changes._MOST_WAITING", 1000)
    directory = FileStatus(kind="directory", **FACTS)
    lies["fs/stat"] = directory
    lies["fs/list"] = FileList([ListedFile(f"d{number}", directory) for number in range(300)])
    with trio.fail_after(PATIENCE):
        async with lying(lies) as client:
            for found in (client.files.walk("/tree"), client.files.path("/tree").rglob("*")):
                with pytest.raises(LimitExceededError, match="the tree '/tree' has more than 1000 entries"):
                    async for _ in found:
                        pass
            with pytest.raises(LimitExceededError, match="the tree '/tree' has more than 1000 entries"):
                await client.files.get("/tree", here / "tree")


@pytest.mark.parametrize("name", ["../evil", "..", ".", "", "a/b", "/evil", "a\0b"])
async def test_no_server_chooses_where_a_get_writes(lies: dict[str, Any], here: Path, name: str) -> None:
    directory = lies["fs/stat"] = FileStatus(kind="directory", **FACTS)
    lies["fs/list"] = FileList([ListedFile(name, FileStatus(kind="file", **FACTS))])
    (here / "in").mkdir()
    async with lying(lies) as client:
        with pytest.raises(BadAnswerError, match="is no name of a file"):
            await client.files.get("/tree", here / "in/to")
        lies["fs/list"] = FileList(
            [ListedFile("a", FileStatus(kind="symlink", target="..", **FACTS)), ListedFile("a", directory)]
        )
        with pytest.raises(FileExistsError):
            await client.files.get("/tree", here / "in/to2")
    assert folders(here) == ["in"]


@pytest.mark.parametrize(
    ("kind", "fact", "value"),
    [
        ("directory", "permissions", 1 << 64),
        ("file", "modified_at_ns", 1 << 90),
        ("symlink", "target", "a%00b"),
    ],
)
async def test_facts_that_no_file_can_have_are_a_malformed_answer(
    lies: dict[str, Any], here: Path, kind: Any, fact: str, value: object
) -> None:
    lies["fs/stat"] = FileStatus(kind="directory", **FACTS)
    lies["fs/list"] = FileList([ListedFile("a", FileStatus(kind=kind, **(FACTS | {fact: value})))])
    lies["fs/readFile"] = FileData(b"x")
    async with lying(lies) as client:
        with pytest.raises(BadAnswerError, match="`fs/list` is malformed: these are no facts of a file: '/tree/a'"):
            await client.files.get("/tree", here / "to")
