"""Telling about the machine succeeds on every machine, writes nothing and makes nothing up."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from execsrv import connect_in_process, connect_unix
from execsrv._server import host
from tests.peers import PATIENCE
from tests.test_daemon import EXECSRV

INITIALIZE = b'{"id":1,"method":"initialize","params":{"clientName":"t"}}\n{"method":"initialized"}\n'
CONFIG = {"cwd": "file:///", "configPaths": [["a"]], "requirementsPaths": []}


def told(env: Mapping[str, str], code: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """The machine and its configuration, as told by a server with this environment, after running some code."""
    initialized, config = answers(env, code, [("environmentConfig/read", CONFIG)])
    return initialized["result"]["environmentInfo"], config["result"]


def answers(env: Mapping[str, str], code: str, calls: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The answers to `initialize`, and to some calls, of a server with this environment, after running some code."""
    lines = [{"id": number, "method": method, "params": params} for number, (method, params) in enumerate(calls, 2)]
    asked = INITIALIZE + b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    main = f"import os, sys\n{code}\nfrom execsrv._cli.app import main\nsys.argv = ['execsrv', 'serve']\nmain()"
    path = os.environ.get("PYTHONPATH", "")
    argv, env = [sys.executable, "-c", main], {"PATH": os.environ["PATH"], "PYTHONPATH": path, **env}
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(asked)
        server.stdin.flush()
        # Only then the hang-up, which gives answers that are on their way a moment, and no more.
        heard = [json.loads(server.stdout.readline() or "null") for _ in range(len(calls) + 1)]
        rest, said = server.communicate()
    assert sorted(answer.get("id") for answer in heard) == list(range(1, len(calls) + 2)), (heard, said)
    assert not rest
    assert b"Traceback" not in said
    return sorted(heard, key=lambda answer: int(answer["id"]))


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("env", "directory"),
    [
        ({}, "file:///tmp"),
        ({"TMPDIR": "/nowhere/at/all"}, "file:///nowhere/at/all"),
        ({"TEMP": "/a"}, "file:///a"),
        ({"TMP": "/b"}, "file:///b"),
        ({"TMPDIR": "", "TEMP": "relative", "TMP": "/b"}, "file:///b"),
        ({"TMPDIR": "relative"}, "file:///tmp"),
    ],
)
def test_the_temporary_directory_is_told_untried(env: Mapping[str, str], directory: str) -> None:
    info, _ = told(env)
    assert info["tempDir"] == directory
    assert info["temporaryDirectories"] == ([directory] if env.get("TMPDIR", "").startswith("/") else [])


@pytest.mark.parametrize("env", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_without_an_account(env: Mapping[str, str]) -> None:
    code = "import pwd\ndef none(uid): raise KeyError(uid)\npwd.getpwuid = none"
    info, config = told(env, code)
    assert info["userHomeDir"] == config["userHomeDir"] == "file:///"
    assert info["shell"] == {"name": "sh", "path": "/bin/sh"}
    assert config["codexHomeDir"] == "file:///.codex"


def test_a_name_service_that_hangs() -> None:
    info, _ = told({}, "import pwd, time\npwd.getpwuid = lambda uid: time.sleep(1000)")
    assert info["userHomeDir"] == "file:///"


async def test_a_slow_name_service_holds_up_no_loop_and_is_asked_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answers = threading.Event(), threading.Event()
    entry = pwd.struct_passwd(("a", "x", 1, 1, "", "/home/of/a", "/bin/of/a"))

    def none(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    def slow(uid: int) -> pwd.struct_passwd:
        asked.set()
        answers.wait(PATIENCE)
        return entry

    async def shell() -> str:
        async with connect_in_process() as client:
            return client.info.shell.path

    async def answer() -> None:
        await trio.to_thread.run_sync(asked.wait, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
        answers.set()

    monkeypatch.setattr(host, "_account", None)
    monkeypatch.setattr(host, "_ACCOUNT_SECONDS", PATIENCE)
    monkeypatch.setattr(pwd, "getpwuid", none)
    assert await shell() == "/bin/sh"
    monkeypatch.setattr(pwd, "getpwuid", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await shell() == "/bin/of/a"
    monkeypatch.setattr(pwd, "getpwuid", none)
    assert await shell() == "/bin/of/a"


@pytest.mark.parametrize("codex_home", ["", "relative", "/elsewhere/x"])
def test_in_a_directory_that_was_removed(codex_home: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    info, config = told(
        {"HOME": "/home/dev", "CODEX_HOME": codex_home}, f"os.chdir({str(gone)!r})\nos.rmdir({str(gone)!r})"
    )
    assert info["cwd"] is None
    assert config["codexHomeDir"] == ("file:///elsewhere/x" if codex_home[:1] == "/" else "file:///home/dev/.codex")


async def test_a_client_of_a_server_whose_directory_was_removed(tmp_path: Path) -> None:
    gone, path = tmp_path / "gone", tmp_path / "socket"
    gone.mkdir()
    argv = [*EXECSRV, "serve", "--listen", f"unix://{path}"]
    with subprocess.Popen(argv, cwd=gone, stdout=subprocess.PIPE) as process:  # noqa: ASYNC220
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            gone.rmdir()
            async with connect_unix(path) as client:
                assert client.info.cwd is None
                result = await client.run(["readlink", "/proc/self/cwd"])
                assert result.stdout == f"{gone} (deleted)\n".encode()
        finally:
            process.kill()


@pytest.mark.parametrize("failing", ["hostname", "nothing"])
def test_a_host_without_a_name(failing: str) -> None:
    code = "import socket\ndef none(): raise OSError(1, 'refused')\nsocket.gethostname = none"
    _, config = told({}, code if failing == "hostname" else "")
    assert (config["hostname"] == "") == (failing == "hostname")


def test_run_where_nothing_can_be_written() -> None:
    """A file has no room for a byte, whoever we are: a directory cannot be tried out by writing."""
    script = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); os.execv(sys.argv[1], sys.argv[1:])"
    argv = [sys.executable, "-c", f"import os, resource, sys; {script}", *EXECSRV, "run", "--", "echo", "hi"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # which writes
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")


def test_a_machine_that_gives_no_thread(tmp_path: Path) -> None:
    """No thread can have so large a stack: the same error as with a limit of processes, which does not bind root."""
    calls = [
        ("fs/readFile", {"path": "/etc/hostname"}),
        ("fs/open", {"handleId": "a", "path": "/etc/hostname"}),
        ("fs/watchMissing", {"watchId": 1, "missing": [f"{tmp_path}/x"]}),
        ("capabilityRoots/discoverV1", {"roots": [{"id": "a", "path": "file:///tmp"}]}),
        ("http/request", {"method": "GET", "url": "http://localhost:1/", "requestId": "a", "headers": []}),
    ]
    _, *refused = answers({}, "import threading; threading.stack_size(1 << 46)", calls)
    assert [answer["error"]["data"]["kind"] for answer in refused] == ["busy"] * len(calls)
