"""The things that a command inherits: its environment, its directory, its terminal, and what else can be wished for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from execsrv.limits import ServerConfig
from tests.conftest import OpenServer
from tests.peers import ENV, Peer, b64

EVERYTHING: dict[str, Any] = {
    "inherit": "all",
    "ignoreDefaultExcludes": True,
    "exclude": [],
    "set": {},
    "includeOnly": [],
}
REFUSED = -32602


async def variables(peer: Peer, id: str, **params: Any) -> list[bytes]:
    code, said, _ = await peer.run(id, ["env"], **{"env": {}, "envPolicy": EVERYTHING, **params})
    assert code == 0
    return said.splitlines()


@pytest.fixture
def started_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PWD": "/here", "OLDPWD": "/there", "COLUMNS": "33", "LINES": "11"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("started_elsewhere")
async def test_an_inherited_environment_is_fitted_to_the_command(peer: Peer) -> None:
    piped = await variables(peer, "a", cwd="/tmp")
    assert b"PWD=/tmp" in piped
    assert b"COLUMNS=33" in piped
    assert not [entry for entry in piped if entry.startswith(b"OLDPWD=")]
    on_terminal = await variables(peer, "b", cwd="/tmp", tty=True)
    assert not [entry for entry in on_terminal if entry.startswith((b"COLUMNS=", b"LINES="))]
    exact = await variables(
        peer, "c", cwd="/tmp", envPolicy=None, env={"PATH": ENV["PATH"], "PWD": "/mine", "LINES": "1"}
    )
    assert sorted(exact)[:1] + sorted(exact)[2:] == [b"LINES=1", b"PWD=/mine"]


def test_what_python_sets_for_itself_is_not_inherited() -> None:
    """PEP 538: without a locale, Python sets LC_CTYPE."""
    script = "import os; from execsrv._processes.environment import inherited_environment as i; print(os.environ, i())"
    here = str(Path(__file__).parents[1])
    bare = {"PATH": ENV["PATH"], "PYTHONPATH": here}
    said = subprocess.run([sys.executable, "-c", script], env=bare, capture_output=True, text=True, check=True).stdout
    assert said.count("LC_CTYPE") == 1, said  # in os.environ
    said = subprocess.run(
        [sys.executable, "-c", script], env={**bare, "LC_CTYPE": "C.UTF-8"}, capture_output=True, text=True, check=True
    ).stdout
    assert said.count("LC_CTYPE") == 2, said


@pytest.mark.parametrize("name", ["", "PATH=/evil:", "=", "A\0B"])
async def test_a_name_that_is_none_is_refused(peer: Peer, name: str) -> None:
    code, message, data = await peer.refused("process/start", peer.start_params("a", ["true"], env={name: "x"}))
    assert (code, data["field"]) == (REFUSED, "env"), message
    policy = {**EVERYTHING, "set": {name: "x"}}
    params = peer.start_params("a", ["true"], envPolicy=policy)
    code, message, data = await peer.refused("process/start", params)
    assert (code, data["field"]) == (REFUSED, "envPolicy.set"), message
    params = peer.start_params("a", ["true"], envRemove=["X", name])
    code, message, data = await peer.refused("process/start", params)
    assert (code, data["field"]) == (REFUSED, "envRemove"), message
    params = {"argv": ["true"], "cwd": "/", "env": {name: "x"}, "tty": False}
    assert (await peer.refused("command/exec", params))[0] == REFUSED
    assert await peer.run("a", ["echo", "hi"]) == (0, b"hi\n", b"")


async def test_variables_can_be_taken_out(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "1")
    monkeypatch.setenv("TWO", "2")
    left = await variables(peer, "a", envRemove=["ONE", "NONE"])
    assert b"TWO=2" in left
    assert b"ONE=1" not in left
    assert (
        await variables(peer, "b", envPolicy=None, env={"PATH": "/bin:/usr/bin", "X": "1"}, envRemove=["X", "PATH"])
        == []
    )


@pytest.mark.parametrize("path", [":" * 2_000_000, "/x" * 20_000, "/a:" * 1024])
async def test_a_path_too_long_to_be_searched_is_refused(peer: Peer, path: str) -> None:
    code, message, data = await peer.refused("process/start", peer.start_params("a", ["true"], env={"PATH": path}))
    assert (code, data["field"]) == (REFUSED, "env"), message
    assert "PATH" in message


async def test_too_many_patterns_are_refused(peer: Peer) -> None:
    policy = {**EVERYTHING, "exclude": [f"X{number}" for number in range(1001)]}
    code, message, _ = await peer.refused("process/start", peer.start_params("a", ["true"], envPolicy=policy))
    assert (code, "envPolicy" in message) == (REFUSED, True), message


async def test_a_string_that_is_too_long_is_named(peer: Peer) -> None:
    for params, name in (
        (peer.start_params("a", ["/bin/echo", "x" * 131072]), "argv[1] has 131072 bytes"),
        (peer.start_params("a", ["/bin/echo"], env={**ENV, "LONG": "x" * 131072}), "env `LONG` has 131077 bytes"),
        (peer.start_params("a", ["/bin/echo", *["x" * 131071] * 40]), "argv and env have 524"),
        (peer.start_params("a", ["/bin/echo", *["x" * 31] * 200_000]), "argv and env have 80"),
    ):
        code, message, data = await peer.refused("process/start", params)
        assert (code, data["stage"]) == (-32603, "arguments"), message
        assert name in message


# -- places --


async def test_the_servers_own_directory_needs_no_name(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert await peer.run("a", ["/bin/pwd"], cwd=None) == (0, f"{gone}\n".encode(), b"")
    assert await peer.run("b", ["sh", "-c", "echo $0"], cwd=None, env={"PATH": "/bin"}) == (0, b"sh\n", b"")
    (gone / "own").write_text("#!/bin/sh\necho own\n")
    (gone / "own").chmod(0o755)
    assert await peer.run("c", ["own"], cwd=None, env={"PATH": ""}) == (0, b"own\n", b"")
    (gone / "own").unlink()
    gone.rmdir()
    assert (await peer.run("d", ["sh", "-c", "ls; echo $?"], cwd=None))[:2] == (0, b"0\n")
    code, message, data = await peer.refused("process/start", peer.start_params("e", ["true"], cwd=str(gone)))
    assert (code, data["stage"]) == (-32603, "cwd")
    assert str(gone) in message


# -- terminals --


async def test_a_terminal_lasts_as_long_as_its_leader(peer: Peer) -> None:
    script = 'exec </dev/null >/dev/null 2>&1; sleep 0.1; printf "Password: " >/dev/tty; read -r x </dev/tty; '
    script += "printf got-$x >/dev/tty"
    await peer.start("a", ["bash", "-c", script], tty=True)
    await peer.until_output("a", b"Password: ")
    await peer.call("process/write", {"processId": "a", "chunk": b64(b"secret\n"), "writeId": "1"})
    await peer.until_told("a", "closed")
    assert peer.output("a").endswith(b"got-secret")


async def test_a_background_child_keeps_a_terminal_open(peer: Peer) -> None:
    script = "trap '' HUP; (sleep 0.2; echo late) & echo early"
    code, said, _ = await peer.run("a", ["bash", "-c", script], tty=True)
    assert (code, said) == (0, b"early\r\nlate\r\n")


async def test_a_terminal_has_the_modes_and_the_size_that_were_asked_for(peer: Peer) -> None:
    said = (await peer.run("a", ["stty", "-a"], tty=True))[1].split()
    assert b"iutf8" in said
    modes = {"iutf8": False, "echo": False, "onlcr": False, "erase": 8, "susp": 0}
    size = {"rows": 50, "cols": 132, "xpixel": 1320, "ypixel": 1000}
    text = (await peer.run("b", ["stty", "-a"], tty=True, modes=modes, size=size))[1]
    assert b"erase = ^H; " in text
    assert b"susp = <undef>; " in text
    assert {b"-iutf8", b"-echo", b"-onlcr"} <= set(text.split())
    script = "import fcntl, struct, termios; print(struct.unpack('HHHH', fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))))"
    argv = [sys.executable, "-I", "-S", "-c", script]
    assert (await peer.run("c", argv, tty=True, size=size))[1] == b"(50, 132, 1320, 1000)\r\n"
    others: list[dict[str, Any]] = [{"loud": True}, {"echo": 1}, {"erase": True}, {"erase": 256}, {"erase": -1}]
    for other in others:
        params = peer.start_params("d", ["true"], tty=True, modes=other)
        code, message, data = await peer.refused("process/start", params)
        assert (code, data["field"]) == (REFUSED, "modes"), message


# -- wishes --


@pytest.mark.parametrize("tty", [False, True])
async def test_umask_niceness_and_oom_score_can_be_wished_for(peer: Peer, tty: bool) -> None:
    argv = ["sh", "-c", "umask; nice; cat /proc/self/oom_score_adj"]
    end = b"\r\n" if tty else b"\n"
    wishes: dict[str, int] = {"umask": 0o27, "nice": 7, "oomScoreAdj": 500}
    assert (await peer.run("a", argv, tty=tty, **wishes))[1].split(end) == [b"0027", b"7", b"500", b""]
    refused: list[dict[str, int]] = [{"umask": 0o1000}, {"nice": 20}, {"oomScoreAdj": -1001}]
    for wish in refused:
        assert (await peer.refused("process/start", peer.start_params("c", argv, **wish)))[0] == REFUSED


async def test_a_wish_that_is_not_allowed_is_named(open_server: OpenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    peer = await open_server("memory", ServerConfig()).peer()
    monkeypatch.setattr(os, "setpriority", refuse)
    code, message, data = await peer.refused("process/start", peer.start_params("a", ["true"], nice=-5))
    assert (code, data["stage"]) == (-32603, "permission"), message
    assert "nice -5" in message
