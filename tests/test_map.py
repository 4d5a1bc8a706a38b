"""`execsrv map`: commands over lines of stdin, and the journal by which another run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from execsrv._cli.map_journal import open_journal
from execsrv.errors import ExecsrvError

ECHO = ["echo", "{}"]


def result(number: int, line: str, **facts: object) -> bytes:
    return json.dumps({"line": number, "input": line, **facts}).encode() + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def test_a_journal_tells_how_far_each_line_has_come(path: str) -> None:
    with open_journal(path, ECHO) as journal:
        assert journal.state(1, "a") == "new"
        for number, line in enumerate("abcd", 1):
            journal.begin(number, line)
        journal.write(result(2, "b", exitCode=3))
        journal.write(result(3, "c", error="gone", kind="unknown"))
        journal.write(result(4, "d", error="none", kind="no-server"))
    with open_journal(path, ECHO) as journal:
        states = [journal.state(number, line) for number, line in enumerate("abcde", 1)]
        assert states == ["begun", "ended", "unknown", "new", "new"]
        with pytest.raises(ExecsrvError, match="line 2 is not the one"):
            journal.state(2, "other")


def test_a_journal_that_is_torn_anywhere_goes_on_before_the_tear(path: str) -> None:
    with open_journal(path, ECHO) as journal:
        journal.begin(1, "a")
        journal.write(result(1, "a", exitCode=0))
    whole = Path(path).read_bytes()
    ends = [at for at, byte in enumerate(whole, 1) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        Path(path).write_bytes(whole[:cut])
        with open_journal(path, ECHO) as journal:
            lines = sum(end <= cut for end in ends)
            assert journal.state(1, "a") == ["new", "new", "begun", "ended"][lines]
            journal.write(result(2, "b", exitCode=0))
        with open_journal(path, ECHO) as journal:
            assert journal.state(2, "b") == "ended"


@pytest.mark.parametrize("content", [b"precious", b"precious\n", b'{"line": 1}\n', b'{"journal": 2, "command": []}\n'])
def test_a_file_that_is_no_journal_is_left_alone(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    with pytest.raises(ExecsrvError, match="is no journal"), open_journal(path, ECHO):
        pass
    assert Path(path).read_bytes() == content


def test_a_journal_is_of_one_command_and_one_run(path: str) -> None:
    with open_journal(path, ECHO):
        with pytest.raises(ExecsrvError, match="another `execsrv map` writes it"), open_journal(path, ECHO):
            pass
        assert os.stat(path).st_mode & 0o777 == 0o600
    with pytest.raises(ExecsrvError, match="is of another command"), open_journal(path, ["true"]):
        pass
