"""`ps`, `logs`, `wait`, `kill`, `attach` and `run --detach`, without a terminal: what they say, and of what."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import UNSET, UnsetType

import execsrv
from execsrv._cli.finding import Listing, how_it_stands
from execsrv._cli.replaying import Replay
from execsrv.errors import ExecsrvError
from execsrv.protocol import ListedProcess
from execsrv.testing import conversations
from tests.faults.daemon import Daemon, running_daemon
from tests.peers import PATIENCE
from tests.processes import marked, new_mark
from tests.terminals import Seen, seen_program

EXECSRV = [sys.executable, "-m", "execsrv"]
ENV = {"PATH": "/usr/bin:/bin", "COLUMNS": "80", "HOME": "/nonexistent"}
ASK = ["sh", "-c", "echo ready; read line; echo got $line; exit 3"]


class Shell:
    """A user who types commands, on one server."""

    def __init__(self, url: str, **env: str) -> None:
        self._env = {**ENV, "EXECSRV_URL": url, **env}

    def __call__(self, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*EXECSRV, *words], input=input, capture_output=True, text=True, env=self._env, timeout=PATIENCE
        )

    def out(self, *words: str, input: str = "") -> str:
        """Return what a command prints that succeeds, and says nothing."""
        done = self(*words, input=input)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def refused(self, *words: str) -> str:
        """Return the line that a command says that fails."""
        done = self(*words)
        assert (done.returncode, done.stdout) == (125, "")
        [line] = done.stderr.splitlines()
        return line.removeprefix("execsrv: ")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path, "unix") as daemon:
        yield daemon


@pytest.fixture
def sh(daemon: Daemon) -> Shell:
    return Shell(daemon.url)


# -- run --detach, ps --


def test_what_is_left_running_is_listed_by_name_and_how_it_ended(sh: Shell) -> None:
    assert sh("ps").stderr == "execsrv: nothing runs there\n"
    assert sh.out("run", "-di", "--name", "build", *ASK) == "build\n"
    head, line = sh.out("ps").splitlines()
    assert head.split() == ["NAME", "STATE", "AGE", "PID", "CPU", "MEMORY", "OUTPUT", "COMMAND"]
    assert re.fullmatch(
        r"build +running +[\d.]+ s +\d+ +0\.\d s +[\d.]+ [KM]iB +\d B +sh -c 'echo ready; read line;.*'", line
    )
    assert sh("attach", "build", input="it\n").stdout == "ready\ngot it\n"
    _, line = sh.out("ps").splitlines()
    assert re.match(r"build +exited 3 +", line)
    [facts] = json.loads(sh.out("ps", "--json"))
    assert (facts["name"], facts["state"], facts["exitCode"], facts["argv"]) == ("build", "closed", 3, ASK)
    assert facts["totals"] == {"stdout": 13, "stderr": 0}


CLEAR = "\x1b[2J\u202e"


@pytest.mark.few
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["ps"],
            {
                "result": {
                    "processes": [
                        {
                            "processId": CLEAR,
                            "pid": 2,
                            "program": "x",
                            "tty": False,
                            "running": False,
                            "exitCode": 1,
                            "signal": CLEAR,
                            "closed": True,
                            "argv": [CLEAR],
                        }
                    ]
                }
            },
        ),
        (
            ["limits"],
            {
                "result": {
                    "limits": [{"setting": CLEAR, "value": 1, "unit": "", "scope": "server", "most": 1, "used": 0}]
                }
            },
        ),
        (["ps"], {"error": {"code": -32600, "message": CLEAR}}),
    ],
)
def test_no_word_of_a_server_is_a_command_for_the_terminal(
    words: list[str], told: dict[str, Any], daemon: Daemon, tmp_path: Path
) -> None:
    talk = tmp_path / "talk"
    with conversations.recording(daemon.url, talk) as url:
        Shell(url)(*words)
    recorded = json.loads(talk.read_text())
    keys = told.get("result", {}).keys()
    steps = recorded["steps"]
    while steps[-1]["dir"] != "s2c" or not keys <= steps[-1]["msg"]["result"].keys():
        del steps[-1]  # who is told something else asks no more
    del steps[-1]["msg"]["result"]
    steps[-1]["msg"] |= told
    talk.write_text(json.dumps(recorded))
    with conversations.replaying(talk) as url:
        done = Shell(url)(*words)
    said = done.stdout + done.stderr
    assert "\\x1b[2J\\u202e" in said
    assert said.isascii()
    assert "\x1b" not in said


@pytest.mark.slow
def test_a_name_that_is_done_with_is_free_again_and_one_in_use_is_not(sh: Shell) -> None:
    assert sh.out("run", "-d", "--name", "one", "true") == "one\n"
    assert sh("wait", "one").returncode == 0
    assert sh.out("run", "-d", "--name", "one", "sleep", "1000") == "one\n"
    assert sh.refused("run", "-d", "--name", "one", "true") == (
        "the name `one` is in use: choose another --name, or `execsrv kill one`"
    )
    assert [line.split()[0] for line in sh.out("ps").splitlines()[1:]] == ["one"]
    assert sh.out("run", "-d", "/bin/sleep", "1000") == "sleep\n"
    assert sh.out("run", "-d", "/bin/sleep", "1000") == "sleep-2\n"
    facts = json.loads(sh.out("run", "-d", "--json", "sleep", "1000"))
    assert facts["name"] == "sleep-3"
    assert facts["pid"] > 1


@pytest.mark.few
@pytest.mark.parametrize("name", ["9x", "a b", "a/b", "x" * 65, "ä", "a\nb", "-"])
def test_what_is_no_name_is_refused_in_one_line(sh: Shell, name: str) -> None:
    complaint = sh.refused("run", "-d", f"--name={name}", "true")
    assert re.match("name: .* is not a name: it takes a letter, then letters, digits", complaint)
    assert sh("ps").stdout == ""


@pytest.mark.slow
def test_a_command_that_cannot_start_leaves_no_name_behind(sh: Shell, tmp_path: Path) -> None:
    with running_daemon(tmp_path, "unix", "--resume-grace", "60") as daemon:
        sh = Shell(daemon.url)
        for _ in range(2):
            done = sh("run", "-d", "--name", "one", "/nonexistent")
            assert (done.returncode, done.stdout) == (127, "")
            assert "No such file or directory" in done.stderr
        assert "--leave" in sh.refused("run", "-d", "--leave", "true")
        assert "--name" in Shell("").refused("run", "--name", "one", "true")


@pytest.mark.slow
def test_directory_environment_and_times_of_what_is_left_running(sh: Shell, tmp_path: Path) -> None:
    sh.out("run", "-d", "--name", "a", "--cwd", str(tmp_path), "-e", "X=5", "sh", "-c", "echo $X; pwd")
    sh("wait", "a")
    assert sh.out("logs", "a") == f"5\n{tmp_path}\n"
    sh.out("run", "-d", "--name", "b", "--timeout", "0.1s", "sleep", "1000")
    assert sh("wait", "b").returncode == 143
    assert "timeout (SIGTERM)" in sh.out("ps")


# -- wait, kill --


def test_waiting_ends_as_the_last_one_did(sh: Shell) -> None:
    sh.out("run", "-di", "--name", "a", *ASK)
    sh.out("run", "-d", "--name", "b", "sh", "-c", "kill -9 $$")
    assert sh("wait", "b").returncode == 137
    done = sh("wait", "--timeout", "0.1s", "b", "a")
    assert (done.returncode, done.stderr) == (124, "execsrv: not done after 0.1 s\n")
    waiting = subprocess.Popen([*EXECSRV, "wait", "--json", "b", "a"], env=sh._env, stdout=subprocess.PIPE, text=True)
    sh("attach", "a", input="x\n")
    ends = json.loads(waiting.communicate(timeout=PATIENCE)[0])
    assert waiting.returncode == 3
    assert [(end["name"], end["exitCode"], end["signal"], end["reason"]) for end in ends] == [
        ("b", 137, "SIGKILL", "signaled"),
        ("a", 3, None, "exited"),
    ]


def test_killing_ends_all_that_descends_from_it(sh: Shell) -> None:
    mark = new_mark()
    script = f"trap '' TERM; setsid bash -c 'exec -a {mark} sleep 1000' & echo up; wait; wait"
    sh.out("run", "-d", "--name", "a", "bash", "-c", script)
    sh.out("run", "-d", "--name", "b", "sleep", "1000")
    sh.out("kill", "--grace", "0.1s", "b", "a")
    assert not marked(mark)
    assert re.findall("(?m)^([ab]) +(terminated .SIG[A-Z]+.) ", sh.out("ps")) == [
        ("a", "terminated (SIGKILL)"),
        ("b", "terminated (SIGTERM)"),
    ]
    done = sh("kill", "a")
    assert (done.returncode, done.stderr) == (0, "execsrv: `a` had ended already: terminated (SIGKILL)\n")


def test_signals_by_name_and_number_to_the_group_or_all(sh: Shell) -> None:
    child = "trap 'echo child; exit' USR1; echo up; while :; do sleep 0.1; done"
    traps = "trap 'echo USR1' USR1; trap 'echo HUP; exit 7' HUP"
    leader = f'setsid sh -c "{child}" 2>/dev/null & {traps}; while :; do sleep 0.1; done 2>/dev/null'
    sh.out("run", "-d", "--name", "a", "sh", "-c", leader)
    follow = subprocess.Popen([*EXECSRV, "logs", "-f", "a"], env=sh._env, stdout=subprocess.PIPE, text=True)
    assert follow.stdout is not None
    assert follow.stdout.readline() == "up\n"
    sh.out("kill", "-s", "usr1", "--tree", "a")
    assert sorted([follow.stdout.readline(), follow.stdout.readline()]) == ["USR1\n", "child\n"]
    sh.out("kill", "-s", "1", "a")
    assert follow.communicate(timeout=PATIENCE)[0] == "HUP\n"
    assert follow.returncode == 0
    assert sh("wait", "a").returncode == 7
    assert sh.refused("kill", "-s", "HUP", "a") == "cannot send a signal to `a`: nothing of it runs"
    assert "unknown signal" in sh.refused("kill", "-s", "NOPE", "a")
    assert "--tree is for --signal" in sh.refused("kill", "--tree", "a")


def test_nothing_is_killed_where_one_name_is_wrong(sh: Shell) -> None:
    sh.out("run", "-d", "--name", "build", "sleep", "1000")
    assert sh.refused("kill", "build", "biuld") == "there is no session `biuld`: did you mean `build`?"
    assert sh.refused("kill", "xyz") == "there is no session `xyz`: `execsrv ps` lists what is there"
    assert "running" in sh.out("ps")


@pytest.mark.slow
def test_what_runs_in_front_of_somebody_else_is_found_by_its_name(sh: Shell) -> None:
    running = subprocess.Popen(
        [*EXECSRV, "run", "--name", "front", "--", *ASK],
        env=sh._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    assert "front  running" in sh.out("ps")
    assert sh.out("logs", "front") == "ready\n"
    sh.out("kill", "front")
    assert running.wait(PATIENCE) == -signal.SIGTERM  # as the command did
    running.communicate()


# -- logs --


def test_logs_are_what_is_retained_each_stream_by_itself(sh: Shell) -> None:
    sh.out("run", "-d", "--name", "a", "sh", "-c", "echo out; echo err >&2; printf end; exec sleep 1000")
    deadline = time.monotonic() + PATIENCE
    while not (done := sh("logs", "a")).stdout.endswith("end"):
        assert time.monotonic() < deadline
    assert (done.stdout, done.stderr) == ("out\nend", "err\n")
    stamped = sh("logs", "--timestamps", "a")
    assert re.fullmatch(r"(20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) out\n\1? ?.*end", stamped.stdout)
    first = datetime.fromisoformat(stamped.stdout.split()[0])
    assert abs(first.timestamp() - time.time()) < PATIENCE
    assert sh.out("logs", "--since", "2100-01-01", "a") == ""
    assert sh("logs", "--since", "2000-01-01T00:00:00Z", "a").stdout == "out\nend"
    assert sh("logs", "--since", "1h", "a").stdout == "out\nend"
    events = [json.loads(line) for line in sh.out("logs", "--json", "a").splitlines()]
    assert "".join(event["text"] for event in events if event["stream"] == "stdout") == "out\nend"
    sh.out("kill", "a")
    events = [json.loads(line) for line in sh.out("logs", "--json", "-f", "a").splitlines()]
    assert (events[-1]["exitCode"], events[-1]["reason"]) == (143, "terminated")
    assert "expected a time such as `5m`" in sh.refused("logs", "--since", "soon", "a")


@pytest.mark.slow
def test_a_character_that_is_never_whole_is_in_the_json_too(sh: Shell) -> None:
    sh.out("run", "-d", "--name", "a", "printf", r"caf\303")
    sh("wait", "a")
    events = [json.loads(line) for line in sh.out("logs", "--json", "-f", "a").splitlines()]
    assert "".join(event["text"] for event in events if "text" in event) == "caf\N{REPLACEMENT CHARACTER}"


def test_what_is_not_retained_any_more_is_told(tmp_path: Path) -> None:
    with running_daemon(tmp_path, "unix", "--retained-output-bytes-per-session", "64KiB") as daemon:
        sh = Shell(daemon.url)
        sh.out("run", "-d", "--name", "a", "sh", "-c", "head -c 1000000 /dev/zero; echo; echo over")
        sh("wait", "a")
        done = sh("logs", "a")
        found = re.fullmatch(r"execsrv: (\d+) bytes of stdout are not retained any more\n", done.stderr)
        assert found is not None
        assert len(done.stdout) + int(found[1]) == 1000006
        assert done.stdout.endswith("\nover\n")


@pytest.mark.slow
def test_output_without_times_has_no_timestamps(daemon: Daemon, sh: Shell) -> None:
    async def leave() -> None:
        async with execsrv.connect(daemon.url, name="plain", keep=60) as client:
            params = execsrv.protocol.ProcessStart(["echo", "hallo"], "/", {"PATH": "/bin:/usr/bin"}, False, "plain")
            await client._connection.calls.call("process/start", params, execsrv.protocol.ProcessStarted)

    trio.run(leave)
    sh("wait", "plain")
    assert sh.out("logs", "plain") == "hallo\n"
    assert "its output has no times" in sh.refused("logs", "-t", "plain")


# -- attach --


def test_who_only_watches_types_nothing(sh: Shell) -> None:
    sh.out("run", "-di", "--name", "a", *ASK)
    watching = subprocess.Popen(
        [*EXECSRV, "attach", "--read-only", "a"],
        env=sh._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert watching.stdin is not None
    watching.stdin.write("from who watches\n")
    watching.stdin.close()
    watching.stdin = None
    assert watching.stdout is not None
    assert watching.stdout.readline() == "ready\n"
    assert sh("attach", "a", input="from a writer\n").returncode == 3
    assert watching.communicate(timeout=PATIENCE)[0] == "got from a writer\n"
    assert watching.returncode == 3


@pytest.mark.slow
def test_the_end_of_ones_input_is_not_the_end_of_its(sh: Shell) -> None:
    sh.out("run", "-di", "--name", "a", "sh", "-c", "read one; echo $one; read two; echo $two")
    first = subprocess.Popen([*EXECSRV, "attach", "a"], env=sh._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdin.write(b"1\n")
    first.stdin.close()
    first.stdin = None
    assert first.stdout.readline() == b"1\n"
    assert sh.out("attach", "a", input="2\n") == "1\n2\n"
    assert first.communicate(timeout=PATIENCE)[0] == b"2\n"


# -- not yours --


@pytest.mark.slow
def test_what_is_another_ones_is_not_there_until_it_is_granted(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    secrets = {
        name: subprocess.run(
            [*EXECSRV, "token", "new", "-f", tokens, name, *role], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name, *role in (["alice"], ["bob"], ["carol", "--role", "viewer"])
    }
    with running_daemon(tmp_path, "websocket", "--token-file", str(tokens)) as daemon:
        alice, bob, carol = (Shell(daemon.url, EXECSRV_TOKEN=secret) for secret in secrets.values())
        alice.out("run", "-di", "--name", "build", *ASK)
        assert bob("ps").stdout == ""
        assert carol("ps").stderr == "execsrv: nothing runs there that you may see\n"
        for words in (["logs"], ["attach"], ["wait"], ["kill"]):
            assert bob.refused(*words, "build") == "there is no session `build`: `execsrv ps` lists what is there"
        assert bob.out("run", "-d", "--name", "build", "sleep", "1000") == "build\n"  # names are each one's own

        async def grant() -> None:
            async with execsrv.connect(daemon.url, token=secrets["alice"]) as client:
                await client.grant("viewer", principal="token bob", connection="build")

        trio.run(grant)
        theirs, mine = json.loads(bob.out("ps", "--json"))
        assert (theirs["name"], theirs["principal"]) == ("1/build", "token alice")
        assert (mine["name"], "principal" in mine) == ("build", False)
        assert bob.out("logs", "1/build") == "ready\n"
        assert "--read-only" in bob.refused("attach", "1/build")
        assert "writer" in bob.refused("kill", "1/build")
        bob.out("kill", "build")

        async def end() -> None:
            async with execsrv.connect(daemon.url, token=secrets["bob"]) as client:
                await client.end_connection("build")

        trio.run(end)  # what there is of that name now is not his
        assert bob.refused("wait", "build") == "there is no session `build`: did you mean `1/build`?"
        assert "there is no session `build`" in bob.refused("cp", "build:x", ".")
        assert "running" in alice.out("ps")


# -- completion --

SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i", "-C", "function fish_prompt; echo '> '; end"],
}
LOADED = {
    "bash": 'eval "$(execsrv completion bash)"; echo rea""dy',
    "zsh": 'autoload -Uz compinit; compinit -u -D; eval "$(execsrv completion zsh)"; echo rea""dy',
    "fish": 'execsrv completion fish | source; echo rea""dy',
}


@contextmanager
def completing(shell: str, url: str, tmp_path: Path) -> Iterator[Seen]:
    """Have a shell that completes the words of `execsrv`, for the block."""
    if shutil.which(shell) is None:
        pytest.skip(f"not here: {shell}")
    (tmp_path / "execsrv").write_text(f'#!/bin/sh\nexec {shlex.join(EXECSRV)} "$@"\n')
    (tmp_path / "execsrv").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "EXECSRV_URL": url, "HOME": str(tmp_path), "PS1": "> "}
    with seen_program(SHELLS[shell], (24, 80), env) as terminal:
        terminal.see("> ?$")
        terminal.line(LOADED[shell])
        terminal.see("^ready$")
        yield terminal


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_names_of_what_runs(daemon: Daemon, sh: Shell, tmp_path: Path, shell: str) -> None:
    sh.out("run", "-d", "--name", "build", "sleep", "1000")
    sh.out("run", "-d", "--name", "bench", "sleep", "1000")
    with completing(shell, daemon.url, tmp_path) as terminal:
        terminal.type("execsrv logs -f bu\t")
        terminal.see("execsrv logs -f build$")
        terminal.type("\x03")
        terminal.type("execsrv pla\t")
        terminal.see("execsrv play$")


@pytest.mark.few
@pytest.mark.parametrize("shell", SHELLS)
def test_a_name_of_a_session_is_a_word_to_a_shell_whatever_is_in_it(daemon: Daemon, tmp_path: Path, shell: str) -> None:
    names = {"7$(touch owned)": "seven", "8`touch owned`": "eight", "9 a  b;'\"*": "nine"}

    async def leave() -> None:
        async with execsrv.connect(daemon.url, name="odd", keep="untilIdle") as client:
            for id, said in names.items():
                async with client.start(["echo", said], id=id) as process:
                    process.leave_running()

    trio.run(leave)
    with completing(shell, daemon.url, tmp_path) as terminal:
        terminal.line("cd")
        for id, said in names.items():
            terminal.type(f"execsrv logs odd/{id[0]}\t")
            terminal.see("logs odd/" + "".join(rf"\\?{re.escape(letter)}" for letter in id) + " ?$")
            terminal.type("\r")
            terminal.see(f"^{said}$")
    assert not (tmp_path / "owned").exists()


def test_names_that_a_server_does_not_tell_at_once_are_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/s")
        silent.listen()
        for url in (f"unix://{tmp_path}/s", f"unix://{tmp_path}/nobody", "ssh://nowhere.invalid"):
            done = Shell(url)("_complete", "kill", "")
            assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


# -- its parts --


def listed(
    connection: str, name: str | None, process: str, *, running: bool = True, principal: str | UnsetType = UNSET
) -> ListedProcess:
    return ListedProcess(
        process, 1, "x", False, running, None if running else 0, not running, [],
        "running" if running else "closed", connection_id=connection, connection_name=name, principal=principal,
    )  # fmt: skip


def test_names_that_tell_sessions_apart() -> None:
    there = [
        listed("1", "build", "build"),
        listed("1", "build", "p1"),
        listed("2", None, "p1"),
        listed("3", "done", "a", running=False),
        listed("3", "done", "b"),
        listed("4", None, "a\x1b[2J/b"),
        listed("5", "build", "build"),
    ]
    found = Listing(there)
    assert list(found.by_name) == ["1/build", "build/p1", "2/p1", "done/a", "done/b", "4/a\x1b[2J/b", "5/build"]
    for name, process in found.by_name.items():
        assert found.find(name) is process
    assert found.find("done") is there[4]  # the one that runs
    assert found.find("3/a") is there[3]
    assert found.find("a\x1b[2J/b") is there[5]
    for word in ("build", "p1"):
        with pytest.raises(ExecsrvError, match=f"`{word}` may be `"):
            found.find(word)
    for word in ("", "x", "9/p1", "\x1b[2J"):
        with pytest.raises(ExecsrvError, match="there is no session `") as caught:
            found.find(word)
        assert str(caught.value).isprintable()
    theirs = listed("6", "done", "x", principal="uid 1")
    found = Listing([*there, theirs, listed("7", "p1", "p1", principal="uid 1"), listed("8", "mine", "a")])
    assert list(found.by_name)[7:] == ["6/x", "7/p1", "mine/a"]
    assert found.find("6/x") is theirs
    assert found.find("done") is there[4]
    for word in ("build", "p1"):
        with pytest.raises(ExecsrvError, match=f"`{word}` may be `") as caught:
            found.find(word)
        assert "7/p1" not in str(caught.value)
    for word in ("x", "6", "7"):
        with pytest.raises(ExecsrvError, match="there is no session `"):
            found.find(word)
    many = Listing([listed(str(number), "same", "same") for number in range(9)])
    with pytest.raises(ExecsrvError, match="`4/same` or 4 more"):
        many.find("same")


@pytest.mark.parametrize(
    ("exit_code", "signal", "reason", "closed", "said"),
    [
        (0, None, "exited", True, "exited 0"),
        (137, "SIGKILL", "signaled", True, "SIGKILL"),
        (0, None, "terminated", True, "terminated (exited 0)"),
        (143, "SIGTERM", "idle", True, "idle (SIGTERM)"),
        (0, None, "exited", False, "exited 0, open"),
    ],
)
def test_how_a_session_stands(exit_code: int, signal: str | None, reason: str, closed: bool, said: str) -> None:
    process = ListedProcess("p", 1, "x", False, False, exit_code, closed, signal=signal, reason=reason)  # type: ignore[arg-type]
    assert how_it_stands(process) == said


ASKS = (
    b"\x1b[6n", b"\x1b[?6n", b"\x1b[c", b"\x1b[>0c", b"\x1b[=c", b"\x1b[>q", b"\x1b[?u", b"\x1b[?2026$p", b"\x1b[18t",
    b"\x1b]11;?\x07", b"\x1b]10;?\x1b\\", b"\x1b]52;c;aGFsbG8=\x07", b"\x1bP$qm\x1b\\", b"\x1bP+q544e\x1b\\", b"\x05",
    b"\x1bZ", b"\x1b_Gi=31,a=q;AAAA\x1b\\", b"\x1b[x", b"\x1b[14;2t",
    b"\xc2\x9b6n", b"\xc2\x9d11;?\xc2\x9c", b"\xc2\x90$qm\xc2\x9c", b"\xc2\x9a", b"\x9a",
)  # fmt: skip
SHOWN = (
    b"\x1b[31mred\x1b[m", b"\x1b[2J\x1b[H", b"\x1b]0;title\x07", b"\x1b[?1049h", b"\x1b[>4;1m", b"\x1b(B", b"\x1b7",
    b"\x1bc", b"text\r\n", b"\xc3\xa4", b"\x1b[22;0;0t", b"\x1b[3 q", b"\xe6\x9b\x9b6n", b"\xf0\x9f\x90\x9a",
)  # fmt: skip


def test_a_replay_asks_a_terminal_for_nothing_however_it_is_cut() -> None:
    output = b"".join(ask + show for ask, show in zip(ASKS, SHOWN * 2, strict=False))
    wanted = b"".join((SHOWN * 2)[: len(ASKS)])
    for at in range(len(output) + 1):
        replay = Replay()
        assert replay.take(output[:at]) + replay.take(output[at:]) + replay.rest() == wanted
    replay = Replay()
    assert b"".join(replay.take(bytes([byte])) for byte in output) + replay.rest() == wanted
    bare = Replay()
    assert bare.take(b"a\x9b6n\x90\xe6\x9b") + bare.take(b"\x9b") + bare.rest() == b"a6n\xe6\x9b\x9b"
    unended = Replay()
    taken = b"".join(unended.take(b"\x1b]0;" + b"x" * 1000) for _ in range(100))
    assert len(taken) > 90_000  # what has no end is not kept
