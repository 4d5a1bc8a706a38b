"""What users of the Codex exec-server suffer from, tried here. `docs/codex-pains.md` is the whole table.

Most rows of it are shown by tests that are there for their own sake; here are the others.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from execsrv.limits import MIB, ServerConfig
from execsrv.protocol import Response
from tests.conftest import OpenServer
from tests.peers import Peer, b64

ROOT = Path(__file__).parent.parent


async def test_what_can_be_asked_of_a_running_command(peer: Peer) -> None:
    """Any signal, a list, and an end that asks before it kills."""
    script = "trap 'echo heard' USR1; trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    await peer.start("a", ["bash", "-c", script])
    await peer.until_output("a", b"ready")
    assert await peer.call("process/signal", {"processId": "a", "signal": "USR1", "target": "leader"}) == {
        "received": 1
    }
    await peer.until_output("a", b"heard")
    (listed,) = (await peer.call("process/list", {}))["processes"]
    assert (listed["processId"], listed["running"]) == ("a", True)
    await peer.call("process/terminate", {"processId": "a", "mode": {"graceful": {"timeoutMs": 20_000}}})
    assert (await peer.until_told("a", "exited"))["exitCode"] == 9


async def test_output_may_be_left_out_rather_than_block(peer: Peer) -> None:
    """Nothing is acknowledged, so nothing beyond the window may be sent; the command ends all the same."""
    await peer.start("a", ["seq", "1", "300000"], windowBytes=10_000, overflow="drop")
    assert (await peer.until_told("a", "exited"))["exitCode"] == 0
    gap = await peer.until_told("a", "gap")
    closed = await peer.until_told("a", "closed")
    assert len(peer.output("a")) + gap["omitted"]["stdout"] <= closed["totals"]["stdout"]


async def test_files_are_taken_as_large_as_they_are_given(open_server: OpenServer, tmp_path: Path) -> None:
    peer = await open_server("websocket", ServerConfig()).peer()
    path, data = (tmp_path / "large").as_uri(), b64(os.urandom(MIB) * 32)
    assert await peer.call("fs/writeFile", {"path": path, "dataBase64": data}) == {}
    assert await peer.call("fs/readFile", {"path": path}) == {"dataBase64": data}


async def test_a_tree_is_removed_where_the_server_allows_it(open_server: OpenServer, tmp_path: Path) -> None:
    """Without flags `fs/remove` takes all of a tree, but not the roots, and nothing beside them."""
    for name in ("root/tree/leaf", "beside/leaf"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    peer = await open_server("memory", ServerConfig(file_roots=(str(tmp_path / "root"),))).peer()
    for name, kind in [("beside", "outside-roots"), ("root", "file-refused")]:
        assert (await peer.refused("fs/remove", {"path": (tmp_path / name).as_uri()}))[2]["kind"] == kind
    assert await peer.call("fs/remove", {"path": (tmp_path / "root" / "tree").as_uri()}) == {}
    assert (os.listdir(tmp_path / "root"), os.listdir(tmp_path / "beside")) == ([], ["leaf"])


@pytest.mark.parametrize("tty", [False, True], ids=["pipe", "terminal"])
async def test_a_program_may_have_another_name_for_itself(peer: Peer, tty: bool) -> None:
    code, out, _ = await peer.run("a", ["sh", "-c", "echo $0"], arg0="other", tty=tty)
    assert (code, out.strip()) == (0, b"other")


async def test_a_terminate_does_not_wait_behind_a_read(peer: Peer) -> None:
    await peer.start("quiet", ["sleep", "1000"])
    await peer.start("other", ["sleep", "1000"])
    reading = await peer.post("process/read", {"processId": "quiet", "waitMs": 60_000})
    assert await peer.call("process/terminate", {"processId": "other"}) == {"running": True}
    await peer.until_told("other", "closed")
    assert reading not in [message.id for message in peer.heard if isinstance(message, Response)]
    assert await peer.call("process/terminate", {"processId": "quiet"}) == {"running": True}
    assert isinstance(await peer.answer(reading), Response)


@pytest.mark.parametrize("how", [{"pipeStdin": True}, {"tty": True}], ids=["pipe", "terminal"])
async def test_input_for_a_process_that_has_ended_is_not_accepted(peer: Peer, how: dict[str, bool]) -> None:
    await peer.run("a", ["true"], **how)
    written = await peer.call("process/write", {"processId": "a", "chunk": b64(b"x"), "writeId": "1"})
    assert written == {"status": "stdinClosed"}


async def test_a_password_stays_where_the_caller_says_so(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "hidden")
    policy = {"inherit": "all", "ignoreDefaultExcludes": False, "exclude": ["*password*"], "set": {}, "includeOnly": []}
    _, out, _ = await peer.run("a", ["env"], envPolicy=policy)
    assert b"PATH=" in out
    assert b"hidden" not in out


def test_every_test_that_the_table_names_is_there() -> None:
    """The documentation is no part of an installed package, but of every checkout."""
    table = (ROOT / "docs" / "codex-pains.md").read_text()
    rows = re.findall(r"^\| (\d+) \|", table, re.MULTILINE)
    assert [int(row) for row in rows] == list(range(1, 20))
    for line in re.findall(r"^\| \d+ \|.*$", table, re.MULTILINE):
        for module, names in re.findall(r"`([\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", line):
            source = (ROOT / "tests" / module).read_text()
            for name in re.findall(r"`(test_\w+)`", names):
                assert f"def {name}(" in source, f"{module}: {name}"
