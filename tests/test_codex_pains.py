"""What users of the Codex exec-server suffer from, tried here. `docs/codex-pains.md` is the whole table.

Most rows of it are shown by tests that are there for their own sake; here are the others.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from execsrv.protocol import Response
from tests.peers import Peer, b64

ROOT = Path(__file__).parent.parent


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
    assert [int(row) for row in rows] == list(range(1, 19))
    for line in re.findall(r"^\| \d+ \|.*$", table, re.MULTILINE):
        for module, names in re.findall(r"`(test_\w+\.py)`: ((?:`test_\w+`(?:, )?)+)", line):
            source = (ROOT / "tests" / module).read_text()
            for name in re.findall(r"`(test_\w+)`", names):
                assert f"def {name}(" in source, f"{module}: {name}"
