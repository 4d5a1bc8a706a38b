"""`put` and `get` with `resume`: what an earlier copy has left is used, as far as it is what it seems to be."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from execsrv import Client, ConnectionLostError, FileError, ServerConfig, connect
from tests.conftest import OpenServer
from tests.peers import PATIENCE
from tests.relay import open_line

MIB = 1 << 20
PIECE = 8 * MIB
"""So much is compared at a time."""


@pytest.fixture
async def client(open_server: OpenServer) -> Client:
    return await open_server("unix", ServerConfig()).client()


async def cut(open_server: OpenServer, way: str, source: Path, to: Path, at: int, tmp_path: Path) -> Path:
    """Copy a file until that much is done, and cut the line. Return the part that is left."""
    url = await open_server("unix", ServerConfig()).url()
    async with open_line(url, f"{tmp_path}/{way}{at}") as line, connect(line.url) as client:
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError):
            await getattr(client.files, way)(
                source, to, resume=True, progress=lambda *facts: line.cut() if facts[2] >= at else None
            )
    [part] = to.parent.glob(f".{to.name}.*.part")
    return part


async def moved(client: Client, way: str, source: Path, to: Path) -> list[int]:
    """Copy a file, and return how much of it was done each time that something was told."""
    told: list[int] = []
    await getattr(client.files, way)(source, to, resume=True, progress=lambda *facts: told.append(facts[2]))
    assert await trio.Path(to).read_bytes() == await trio.Path(source).read_bytes()
    assert (await trio.Path(to).stat()).st_mtime_ns == (await trio.Path(source).stat()).st_mtime_ns
    return told


@pytest.mark.parametrize("way", ["put", "get"])
async def test_a_large_file_goes_on_where_it_stopped(
    client: Client, open_server: OpenServer, here: Path, tmp_path: Path, way: str
) -> None:
    source = here / "source"
    source.write_bytes(random.randbytes(30 * MIB))
    source.chmod(0o640)
    part = await cut(open_server, way, source, here / "to", 18 * MIB, tmp_path)
    size = part.stat().st_size
    assert size >= 18 * MIB
    told = await moved(client, way, source, here / "to")
    assert told[0] > 2 * PIECE
    assert sorted(os.listdir(here)) == ["source", "to"]
    assert (here / "to").stat().st_mode == source.stat().st_mode


def spoil(part: Path) -> None:
    with open(part, "r+b") as file:
        file.seek(PIECE + 1)
        file.write(b"other bytes")


def lengthen(part: Path) -> None:
    with open(part, "ab") as file:
        file.write(bytes(40 * MIB))


def shorten(part: Path) -> None:
    os.truncate(part, 3)


def punch(part: Path) -> None:
    """Leave a hole, as where a block has not arrived and one behind it has."""
    size = part.stat().st_size
    os.truncate(part, PIECE + 100)
    os.truncate(part, size)


@pytest.mark.few(2)
@pytest.mark.parametrize(("spoiled", "agreed"), [(spoil, PIECE), (lengthen, 2 * PIECE), (shorten, 0), (punch, PIECE)])
@pytest.mark.parametrize("way", ["put", "get"])
async def test_what_a_part_has_that_differs_is_copied_again(
    client: Client,
    open_server: OpenServer,
    here: Path,
    tmp_path: Path,
    way: str,
    spoiled: Callable[[Path], None],
    agreed: int,
) -> None:
    source = here / "source"
    source.write_bytes(random.randbytes(30 * MIB))
    spoiled(await cut(open_server, way, source, here / "to", 18 * MIB, tmp_path))
    told = await moved(client, way, source, here / "to")
    assert agreed < told[0] <= agreed + MIB
    assert sorted(os.listdir(here)) == ["source", "to"]


@pytest.mark.parametrize("way", ["put", "get"])
async def test_a_source_that_has_changed_is_copied_anew(
    client: Client, open_server: OpenServer, here: Path, tmp_path: Path, way: str
) -> None:
    source = here / "source"
    source.write_bytes(random.randbytes(10 * MIB))
    await cut(open_server, way, source, here / "to", 9 * MIB, tmp_path)
    source.write_bytes(random.randbytes(10 * MIB))
    os.utime(source, ns=(1, 10**18))
    assert (await moved(client, way, source, here / "to"))[0] <= MIB


@pytest.mark.few
@pytest.mark.parametrize("planted", ["link", "name", "directory", "pipe"])
@pytest.mark.parametrize("way", ["put", "get"])
async def test_nothing_is_written_to_what_was_put_in_place_of_a_part(
    client: Client, open_server: OpenServer, here: Path, tmp_path: Path, way: str, planted: str
) -> None:
    source, victim = here / "source", here / "victim"
    source.write_bytes(random.randbytes(10 * MIB))
    victim.write_bytes(b"precious")
    part = await cut(open_server, way, source, here / "to", 9 * MIB, tmp_path)
    part.unlink()
    match planted:
        case "link":
            part.symlink_to(victim)
        case "name":
            os.link(victim, part)
        case "directory":
            part.mkdir()
        case "pipe":
            os.mkfifo(part)
    await moved(client, way, source, here / "to")
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("way", ["put", "get"])
async def test_a_part_that_another_copy_is_writing_is_left_to_it(
    client: Client, open_server: OpenServer, here: Path, tmp_path: Path, way: str
) -> None:
    source = here / "source"
    source.write_bytes(random.randbytes(10 * MIB))
    part = await cut(open_server, way, source, here / "to", 9 * MIB, tmp_path)
    before = part.read_bytes()
    with open(part, "r+b") as other:  # noqa: ASYNC230
        fcntl.flock(other, fcntl.LOCK_EX)
        await moved(client, way, source, here / "to")
    assert part.read_bytes() == before
    assert sorted(os.listdir(here)) == [part.name, "source", "to"]


@pytest.mark.parametrize("way", ["put", "get"])
async def test_a_failure_of_another_kind_leaves_no_part(client: Client, here: Path, way: str) -> None:
    source = here / "source"
    source.write_bytes(bytes(40 * MIB))

    def progress(*facts: object) -> None:
        with open(source, "r+b") as file:
            file.write(b"changed")

    if way == "put":

        def progress(*facts: object) -> None:
            raise RuntimeError("mine")

    with pytest.raises((FileError, RuntimeError), match=r"has changed|mine"):
        await getattr(client.files, way)(source, here / "to", resume=True, progress=progress)
    assert sorted(os.listdir(here)) == ["source"]


@pytest.mark.parametrize("way", ["put", "get"])
async def test_links_and_files_of_a_tree_that_are_there_stay_as_they_are(client: Client, here: Path, way: str) -> None:
    (here / "tree/a").mkdir(parents=True)
    (here / "tree/a/f").write_bytes(b"f")
    (here / "tree/link").symlink_to("a/f")
    move = getattr(client.files, way)
    names = ["a/f", "link"] if way == "put" else ["a/f"]
    await move(here / "tree", here / "to", resume=True)
    before = [(here / "to" / name).lstat().st_ino for name in names]
    assert (await move(here / "tree", here / "to", resume=True)).unchanged == 1
    assert [(here / "to" / name).lstat().st_ino for name in names] == before
    (here / "to/a/f").unlink()
    (here / "to/a/f").symlink_to("elsewhere")
    assert (await move(here / "tree", here / "to", resume=True)).files == 1
    assert (here / "to/a/f").read_bytes() == b"f"
    assert (here / "to/a/f").is_symlink() == (way == "put")  # one on a server is followed
