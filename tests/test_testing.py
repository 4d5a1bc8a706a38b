"""`execsrv.testing` in the hands of its users: pytest with each plugin that runs coroutines, xdist, and nox."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

import execsrv.sync
from execsrv.testing import (
    ConversationError,
    ServerFailedError,
    assert_no_strays,
    open_faulty_line,
    recording,
    replaying,
    serving,
)
from tests.peers import PATIENCE

ROOT = Path(__file__).parent.parent
INI = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""

HEADS = {
    "plain": "def test_it(exec_client, exec_process, exec_shell):",
    "trio": "@pytest.mark.trio\nasync def test_it(exec_client, exec_process, exec_shell):",
    "asyncio": "@pytest.mark.asyncio\nasync def test_it(exec_client, exec_process, exec_shell):",
    "anyio": """\
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_it(exec_client, exec_process, exec_shell):""",
}
PACKAGES = {"asyncio": "pytest_asyncio", "anyio": "anyio", "trio": "pytest_trio"}

TEST = """
    result = await exec_client.run(["sort"], input="b\\na\\n", text=True)
    assert result.lines == ["a", "b"]
    process = await exec_process(["sh", "-c", "echo ready; sleep 1000 & wait"], text=True)
    await process.wait_for(output="ready")
    await exec_shell.run_command("cd /usr")
    assert (await exec_shell.run_command("pwd")).strip() == "/usr"
"""


def pytest_says(folder: Path, *words: str, program: str | None = None, timeout: float = 100) -> tuple[int, str]:
    """Run pytest in a folder, with what was installed there; return its status and what it printed."""
    (folder / "pytest.ini").write_text(INI)
    if program is not None:
        (folder / "test_it.py").write_text(f"import pytest\n{program}")
    without = [
        word
        for name, package in (("asyncio", "pytest_asyncio"), ("anyio", "anyio"))
        if importlib.util.find_spec(package) is None
        for word in ("-p", f"no:{name}")
    ]
    if "no:asyncio" in without:
        (folder / "pytest.ini").write_text(INI.replace("asyncio_default_fixture_loop_scope = function", ""))
    plugin = ["-p", "execsrv.testing.pytest_plugin", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, *without, *words],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return done.returncode, done.stdout


def program_in(world: str, more: str = "") -> str:
    body = TEST if world != "plain" else TEST.replace("await ", "")
    return HEADS[world] + body + more


@pytest.mark.few
@pytest.mark.parametrize("world", HEADS)
def test_the_fixtures_are_of_the_world_of_the_test_and_a_failure_tells_of_the_processes(
    world: str, tmp_path: Path
) -> None:
    if world in PACKAGES:
        pytest.importorskip(PACKAGES[world])
    failing = program_in(world, "    assert not 'reached'\n").replace("test_it", "test_failing")
    with assert_no_strays():
        status, said = pytest_says(tmp_path, program=program_in(world, failing))
    assert status == 1, said
    backends = 2 if world == "anyio" else 1
    assert f"{backends} failed, {backends} passed" in said
    assert re.search(r"^sort \(pid \d+\) ended with exit code 0\n  the end of its stdout:\n    a\n    b\n", said, re.M)
    tree = (
        r"^sh -c 'echo ready; sleep 1000 & wait' \(pid (\d+)\) was running\n  its processes:\n"
        r"    \1 sh -c .*\n      \d+ sleep 1000\n  the end of its stdout:\n    ready\n"
    )
    assert re.search(tree, said, re.M), said


def test_a_test_is_of_the_world_that_it_runs_in_whatever_it_is_marked_with(tmp_path: Path) -> None:
    for package in PACKAGES.values():
        pytest.importorskip(package)
    program = """
from hypothesis import HealthCheck, given, settings, strategies

def drawn(test):
    return settings(max_examples=1, suppress_health_check=list(HealthCheck))(given(number=strategies.integers())(test))

async def say(client, number=1):
    assert (await client.run(["echo", str(number)], text=True)).text == f"{number}\\n"

def test_plain_with_a_backend(exec_client, anyio_backend):
    assert exec_client.run(["echo"], text=True).text == "\\n"

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@drawn
async def test_anyio(exec_client, number):
    await say(exec_client, number)

@pytest.mark.anyio  # one function each: before 4.16, anyio drew for every backend in the first
@pytest.mark.parametrize("anyio_backend", ["trio"])
@drawn
async def test_anyio_on_trio(exec_client, number):
    await say(exec_client, number)

@pytest.mark.trio
@pytest.mark.parametrize("again", range(2))
@drawn
async def test_trio(exec_client, number, again):
    await say(exec_client, number)

# Last, since pytest-asyncio before 1.4 leaves a loop open, which another test may be blamed for.
@pytest.mark.filterwarnings("ignore:The test .* is marked with '@pytest.mark.asyncio'")
@pytest.mark.parametrize("marked", [pytest.param(0, marks=getattr(pytest.mark, name)) for name in ("asyncio", "anyio")])
def test_plain(exec_client, exec_process, exec_shell, marked):
    assert exec_client.run(["echo"], text=True).text == exec_shell.run_command("echo") == "\\n"
    exec_process(["cat"]).terminate()

@pytest.mark.asyncio
async def test_asked_for_as_it_runs(request):
    await say(request.getfixturevalue("exec_client"))

@pytest.mark.asyncio
@drawn
async def test_asyncio(exec_client, number):
    await say(exec_client, number)
"""
    status, said = pytest_says(tmp_path, program=program)
    assert status == 0, said
    assert "10 passed" in said


def test_a_failure_tells_of_what_did_not_start(tmp_path: Path) -> None:
    program = """
import os, signal, trio

def test_refused(exec_client):
    exec_client.run(["/nonexistent"])

@pytest.mark.trio
async def test_unanswered(exec_client, exec_server, nursery):
    os.kill(exec_server.pid, signal.SIGSTOP)
    nursery.start_soon(exec_client.run, ["cat"])
    await trio.testing.wait_all_tasks_blocked()
    os.kill(exec_server.pid, signal.SIGKILL)
    await trio.sleep_forever()
"""
    status, said = pytest_says(tmp_path, program=program)
    assert status == 1, said
    assert "\n/nonexistent did not start\n" in said
    assert "\ncat may have started: it was not answered\n" in said


@pytest.mark.slow
def test_a_failure_in_a_block_tells_of_what_ran_then(tmp_path: Path) -> None:
    program = """
@pytest.mark.trio
async def test_it(exec_client):
    async with exec_client.start(["sh", "-c", "echo ready; sleep 1000"], text=True) as process:
        await process.wait_for(output="ready")
        await process.expect("never", timeout=0.1)
"""
    status, said = pytest_says(tmp_path, program=program)
    assert status == 1
    assert re.search(r"was running\n  its processes:\n    \d+ sh .*\n      \d+ sleep 1000\n", said), said


@pytest.mark.slow
def test_a_coroutine_that_nobody_runs_is_told(tmp_path: Path) -> None:
    status, said = pytest_says(tmp_path, program="async def test_it(exec_client): ...\n")
    assert status == 1
    assert "is a coroutine, and neither pytest-trio, pytest-asyncio nor anyio is told to run it" in said


@pytest.mark.slow
def test_one_url_is_the_server_of_all(tmp_path: Path) -> None:
    program = """
def test_it(exec_server, exec_client):
    assert exec_server.pid is None
    pid = exec_client.run(["sh", "-c", "echo $PPID"], text=True).text.strip()
    print("the server is", pid)
"""
    with serving("ws://127.0.0.1:0") as server:
        status, said = pytest_says(tmp_path, "-s", f"--execsrv-url={server.url}", program=program)
    assert status == 0, said
    assert f"the server is {server.pid}\n" in said


@pytest.mark.slow
def test_a_server_of_ones_own_takes_the_place_of_that_of_all(tmp_path: Path) -> None:
    program = """
@pytest.fixture(params=["unix://", "ws://127.0.0.1:0", "stdio://"])
def exec_server(exec_serve, request):
    return exec_serve(request.param, "--max-sessions-per-connection", "1")

def test_it(exec_client, exec_process):
    exec_process(["sleep", "1000"])
    with pytest.raises(execsrv.LimitExceededError):
        exec_process(["sleep", "1000"])
"""
    with assert_no_strays():
        status, said = pytest_says(tmp_path, program="import execsrv\n" + program)
    assert status == 0, said
    assert "3 passed" in said


OWN_SERVER = """
@pytest.fixture(scope="session")
def exec_server():
    with execsrv.testing.serving() as server:
        yield server
"""


@pytest.mark.few
@pytest.mark.parametrize(
    ("server", "test"),
    [
        ("", "def test_it(no_strays, request):\n    request.getfixturevalue('exec_client').run(['true'])"),
        (OWN_SERVER, "def test_it(no_strays, exec_process):\n    exec_process(['sleep', '1000'])"),
        (OWN_SERVER, "def test_it(no_strays, exec_shell):\n    exec_shell.run_command('true')"),
    ],
    ids=["asked for on its way", "process", "shell"],
)
def test_the_server_of_a_run_is_no_stray_of_its_first_test(tmp_path: Path, server: str, test: str) -> None:
    following = "def test_next(exec_client):\n    exec_client.run(['true'])\n"
    program = f"import execsrv.testing\n{server}\n{test}\n\n{following}"
    with assert_no_strays():
        status, said = pytest_says(tmp_path, program=program)
    assert status == 0, said
    assert "2 passed" in said


@pytest.mark.slow
def test_workers_of_xdist_leave_nothing(tmp_path: Path) -> None:
    program = """
@pytest.mark.parametrize("number", range(6))
def test_it(exec_process, number):
    process = exec_process(["sh", "-c", "setsid sleep 1000 & echo ready; wait"], text=True)
    process.wait_for(output="ready")
"""
    with assert_no_strays():
        status, said = pytest_says(tmp_path, "-n", "2", program=program)
    assert status == 0, said
    assert "6 passed" in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_workers_of_xdist_leave_nothing(tmp_path: Path) -> None:
    program = """
@pytest.mark.parametrize("number", range(200))
def test_it(exec_process, number):
    exec_process(["sh", "-c", "setsid sleep 1000 & echo ready; wait"], text=True).wait_for(output="ready")
"""
    with assert_no_strays():
        status, said = pytest_says(tmp_path, "-n", "200", program=program, timeout=1500)
    assert status == 0, said
    assert "200 passed" in said


def test_a_run_that_asks_for_no_fixture_loads_nothing_else(tmp_path: Path) -> None:
    program = """
import sys

def test_it():
    loaded = {name for name in sys.modules if name.startswith("execsrv")}
    assert loaded == {"execsrv", "execsrv._version", "execsrv.testing", "execsrv.testing.pytest_plugin"}
"""
    status, said = pytest_says(tmp_path, "-p", "no:trio", program=program)
    assert status == 0, said


def test_a_server_is_tied_to_who_has_started_it() -> None:
    script = "import os, signal; from execsrv.testing import serving\nwith serving(): os.kill(os.getpid(), 9)"
    with assert_no_strays(within=20):
        assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == -9


def test_a_server_that_does_not_start_says_why() -> None:
    wrong = pytest.raises(ServerFailedError, match=r"cannot start .*: exit status 1\nexecsrv: unsupported")
    with wrong, serving("http://127.0.0.1:1"):
        pass


def test_a_server_that_ends_by_itself_is_told() -> None:
    ended = pytest.raises(ServerFailedError, match="the server has ended by itself: signal SIGKILL")
    with ended, serving() as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)


def test_settings_of_others_do_not_reach_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECSRV_MAX_CONNECTIONS", "nonsense")
    monkeypatch.setenv("GREETING", "hello")
    with serving() as server, execsrv.sync.connect(server.url) as client:
        assert client.run(["sh", "-c", "echo $GREETING$EXECSRV_MAX_CONNECTIONS"], text=True).lines == ["hello"]


# -- nox --


def nox_says(folder: Path, noxfile: str) -> tuple[int, str]:
    (folder / "noxfile.py").write_text("import nox\nfrom execsrv.testing.nox import server, session_run\n" + noxfile)
    done = subprocess.run(
        [sys.executable, "-m", "nox", "--nocolor"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout


def test_a_session_of_nox_runs_on_its_server(tmp_path: Path) -> None:
    noxfile = """
@nox.session(python=False)
def tests(session):
    session.env["GREETING"] = "hello"
    with server(session) as url:
        session_run(session, url, "sh", "-c", "echo $GREETING $NAME; sleep 1000 &", env={"NAME": "you"}, timeout=60)
        session_run(session, url, "sh", "-c", "exit 3", success_codes=[3], external=True)
        session_run(session, url, "echo", "unseen", log=False, silent=True)
        other = {"PATH": "/special:/usr/bin:/bin", "GREETING": None, "HOME": None}
        session_run(session, url, "sh", "-c", "echo $PATH [$GREETING$HOME]", env=other)
"""
    with assert_no_strays():
        status, said = nox_says(tmp_path, noxfile)
    assert status == 0, said
    assert "\nhello you\n" in said
    assert "\n/special:/usr/bin:/bin []\n" in said
    assert "unseen" not in said
    assert "execsrv listening on" not in said


@pytest.mark.slow
def test_a_session_of_nox_has_its_own_programs(tmp_path: Path) -> None:
    noxfile = """
@nox.session(venv_backend="venv")
def tests(session):
    with server(session) as url:
        session_run(session, url, "python", "-c", "import sys; print('it is', sys.prefix)")
        session_run(session, url, "sh", "-c", "echo $VIRTUAL_ENV")
"""
    status, said = nox_says(tmp_path, noxfile)
    assert status == 0, said
    assert f"it is {tmp_path}/.nox/tests" in said
    assert f"\n{tmp_path}/.nox/tests\n" in said


def test_a_session_of_nox_that_fails_shows_what_the_server_said(tmp_path: Path) -> None:
    noxfile = """
@nox.session(python=False)
def tests(session):
    with server(session) as url:
        session_run(session, url, "sh", "-c", "exit 3")
"""
    status, said = nox_says(tmp_path, noxfile)
    assert status == 1
    assert re.search(r"the server said:\n(?:.*\n)*execsrv listening on unix://", said), said


# -- faults and recorded conversations --


@pytest.mark.slow
def test_a_line_fails_where_it_is_told_to(tmp_path: Path) -> None:
    program = """
@pytest.fixture(params=["unix://", "ws://127.0.0.1:0"])
def exec_server(exec_serve, request):
    return exec_serve(request.param, "--resume-grace", "60")

def test_plain(exec_line):
    with execsrv.sync.connect(exec_line.url, reconnect=60) as client:
        cuts = []
        faults = [Fault("cut", "server", 50_000), Fault("cut", "server", 150_000)]
        exec_line.expect(*faults, happened=lambda: cuts.append(1))
        assert len(client.run(["head", "-c", "1000000", "/dev/zero"]).stdout) == 1_000_000
        assert len(cuts) == 2

@pytest.mark.trio
async def test_trio(exec_line):
    async with execsrv.connect(exec_line.url) as client:
        exec_line.expect(Fault("truncate", "client", exec_line.passed["client"]))
        with pytest.raises(execsrv.ConnectionLostError):
            await client.run(["true"])
"""
    imports = "import execsrv.sync\nfrom execsrv.testing import Fault\n"
    status, said = pytest_says(tmp_path, program=imports + program)
    assert status == 0, said
    assert "4 passed" in said


def test_no_line_leads_to_a_server_without_an_address() -> None:
    async def main() -> None:
        async with open_faulty_line("exec:cat"):
            pytest.fail("it has one")

    with pytest.raises(ValueError, match=r"cannot put a line in front of `exec:cat`: expected `ws://IP:PORT`"):
        trio.run(main)


def talk(url: str, words: str = "hello") -> list[str]:
    with execsrv.sync.connect(url) as client, client.start(["cat"], text=True, stdin=execsrv.PIPE) as process:
        return process.communicate(words).lines


def test_a_conversation_is_played_as_it_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    with serving() as server, recording(server.url, path) as url:
        assert talk(url) == ["hello"]
        assert talk(url, "again\n") == ["again"]
    assert len(path.read_text().splitlines()) == 2
    with replaying(path) as url:
        assert talk(url) == ["hello"]
        assert talk(url, "again\n") == ["again"]


def test_what_was_said_until_a_test_failed_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    with pytest.raises(ZeroDivisionError), serving() as server, recording(server.url, path) as url:
        talk(url)
        raise ZeroDivisionError
    with replaying(path) as url:
        assert talk(url) == ["hello"]


@pytest.mark.few
@pytest.mark.parametrize(
    "said", [b"junk\n", b"[]\n", b"\xff\n", b"[" * 60_000 + b"\n"], ids=["junk", "list", "byte", "deep"]
)
def test_what_is_no_message_is_passed_on_by_a_recording(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "talk.jsonl"
    with serving() as server, recording(server.url, path) as url, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(url.removeprefix("unix://"))
        client.sendall(said)
        with client.makefile("rb") as lines:
            [answer] = lines
    assert b"malformed message" in answer
    [step] = json.loads(path.read_text())["steps"]
    assert step == {"dir": "s2c", "msg": json.loads(answer)}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("junk", ', line 2: expected `{"steps": \\[...\\]}`'),
        ('{"a": 1}', ', line 2: expected `{"steps": \\[...\\]}`'),
        ('{"steps": [{"dir": "s2c"}]}', ', line 2, step 1: expected `{"dir": "c2s" or "s2c", "msg": {...}}`'),
        ('{"steps": [{"dir": "up", "msg": {}}]}', ", line 2, step 1: expected"),
    ],
)
def test_a_line_that_is_no_conversation_is_told(tmp_path: Path, line: str, error: str) -> None:
    (path := tmp_path / "talk.jsonl").write_text(f'{{"steps": []}}\n{line}\n')
    with pytest.raises(ConversationError, match=re.escape(str(path)) + error), replaying(path):
        pass


def test_a_client_that_says_something_else_is_told(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    with serving() as server, recording(server.url, path) as url:
        talk(url)
    wrong = pytest.raises(ConversationError, match=r'said: .*"method": "process/write".*; recorded: .*"process/write"')
    with wrong, replaying(path) as url, suppress(execsrv.ConnectionLostError):
        talk(url, "other")
    unsaid = pytest.raises(ConversationError, match=r'not said: .*"method": "process/start"')
    with unsaid, replaying(path) as url, execsrv.sync.connect(url):
        pass
    once_more = pytest.raises(ConversationError, match="one client more than was recorded")
    with once_more, replaying(path) as url:
        talk(url)
        with pytest.raises(execsrv.ConnectionFailedError):
            talk(url)
    with pytest.raises(ConversationError, match="no client has come"), replaying(path):
        pass


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b'{"id": 1, "method": "one"}\n', 'not said: .*"two"'),
        (b"no json\n", "said what is no message: b'no json"),
        (b"[]\n", "said what is no message: b'\\[\\]"),
    ],
    ids=["unread answer", "no json", "no message"],
)
def test_a_client_with_bad_manners_is_told(tmp_path: Path, said: bytes, error: str) -> None:
    path = tmp_path / "talk.jsonl"
    messages = [("c2s", {"id": 1, "method": "one"}), ("s2c", {"id": 1}), ("c2s", {"id": 2, "method": "two"})]
    path.write_text(json.dumps({"steps": [{"dir": way, "msg": message} for way, message in messages]}))
    told = pytest.raises(ConversationError, match=error)
    with told, replaying(path) as url, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(url.removeprefix("unix://"))
        client.sendall(said)
        client.recv(1, socket.MSG_PEEK)


def test_a_value_of_a_recording_may_stand_for_anything(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    with serving() as server, recording(server.url, path) as url:
        talk(url)
    text = path.read_text()
    path.write_text(text.replace(json.dumps(base64.b64encode(b"hello").decode()), '"..."', 1))
    assert path.read_text() != text
    with replaying(path) as url:
        assert talk(url, "other") == ["hello"]
