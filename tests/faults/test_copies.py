"""A copy whose line is cut at byte N: no file is seen in part, and the same copy once more makes it whole."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from execsrv import connect
from execsrv.errors import ConnectionFailedError, ConnectionLostError
from execsrv.testing.faults import Fault, FaultyLine, Side, open_faulty_line
from tests.faults.daemon import Daemon, open_neighbour, running_daemon
from tests.faults.test_line import places
from tests.peers import PATIENCE

SOME = 40
"""At how many bytes of each side a copy is cut."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("copies"), "unix") as daemon:
        yield daemon


@pytest.fixture(params=["small", "large"])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A tree of small files, each of which is one message, or one with a file that goes in blocks as well."""
    tree = Path(os.path.realpath(tmp_path)) / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "small").write_bytes(b"small")
    (tree / "link").symlink_to("small")
    (tree / "folder/empty").touch()
    (tree / "folder/small").write_bytes(b"another")
    if request.param == "large":
        (tree / "folder/large").write_bytes(random.randbytes(600_000))
    return tree


def contents(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


async def copied(line: FaultyLine, way: str, tree: Path, to: Path) -> int:
    """Copy the tree, and return how many files were there already."""
    async with connect(line.url) as client:
        move = client.files.put if way == "put" else client.files.get
        return (await move(tree, to, resume=True)).unchanged


@pytest.mark.timeout(0)
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("way", ["put", "get"])
async def test_a_copy_is_cut_at_byte_n(
    daemon: Daemon, tree: Path, way: str, side: Side, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With `--slow` it is cut at every byte of a tree of small files: nearly all of a large one is its content."""
    every = request.config.getoption("--every-byte")
    if request.config.getoption("--slow") and not (tree / "folder/large").exists():
        every = True
    to, whole = tree.parent / "to", contents(tree)
    async with open_neighbour(daemon.url) as neighbour, open_faulty_line(daemon.url, f"{tmp_path}/l") as line:
        line.expect()
        assert await copied(line, way, tree, to) == 0
        length = line.passed[side]
        passed_over = 0
        for at in places(length, SOME, every):
            shutil.rmtree(to)
            line.expect(Fault("cut", side, at))
            with trio.fail_after(PATIENCE):
                try:
                    await copied(line, way, tree, to)
                except (ConnectionLostError, ConnectionFailedError):
                    pass
            seen = contents(to) if to.exists() else {}
            assert all(whole[name] == content for name, content in seen.items() if not name.endswith(".part")), at
            line.expect()
            with trio.fail_after(PATIENCE):
                passed_over += await copied(line, way, tree, to)
            assert contents(to) == whole, at
            assert os.readlink(to / "link") == "small"
        assert passed_over > 0
        await neighbour.answered()
    daemon.check()
