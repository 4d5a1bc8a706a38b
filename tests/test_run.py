"""`execsrv run` beside the same command alone: real shells, terminals, descriptors and signals."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pexpect
import pytest
import trio

from execsrv._typed_ahead import TypedAhead
from execsrv.testing import serving
from tests.peers import PATIENCE
from tests.processes import broken_input, marked, may_become_nobody, new_mark, until_gone
from tests.relay import open_line
from tests.terminals import cuttable, put_away, seen_program
from tests.test_daemon import EXECSRV, daemon, execsrv

LINE = shlex.join(EXECSRV) + " run"
POLITE = "trap 'echo cleaning; rm -f lock; exit 3' TERM; touch lock; echo ready; while :; do sleep .1; done"
DEAF = "trap '' TERM INT HUP; echo ready; while :; do sleep .1; done"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """One server for all: each command has a connection of its own."""
    with daemon("ws://127.0.0.1:0") as (_, url):
        yield url


@pytest.fixture(params=["in process", "by url"])
def run_args(request: pytest.FixtureRequest) -> list[str]:
    return ["run"] if request.param == "in process" else ["run", "--url", request.getfixturevalue("url")]


def shell(script: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a script of bash, in which `$RUN` is `execsrv run`, in a session of its own."""
    env = {**os.environ, "RUN": LINE}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        ["bash", "-c", script],
        **{"capture_output": True, "text": True, "timeout": 60, "env": env, "start_new_session": True, **options},
    )


@contextmanager
def running(*args: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """Run a command that says `ready` when it is."""
    with subprocess.Popen(  # type: ignore[call-overload]
        [*EXECSRV, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


# -- its end is ours --


def test_run_passes_everything_on(run_args: list[str]) -> None:
    script = "cat; echo err >&2; pwd; echo $GREETING; exit 7"
    done = execsrv(*run_args, "--cwd", "/tmp", "-e", "GREETING=a=b", "--", "sh", "-c", script, input="typed\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "typed\n/tmp\na=b\n", "err\n")


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("command", "code", "complaint"),
    [
        (["no-such-program"], 127, "cannot find `no-such-program` in PATH"),
        (["/no/such/program"], 127, "cannot run `/no/such/program`: No such file"),
        (["/etc/passwd"], 126, "Permission denied"),
        (["--cwd", "/no/such/folder", "true"], 125, "cannot start in `/no/such/folder`"),
        (["-e", "=x", "true"], 125, "invalid --env `=x`; expected `NAME=VALUE` or `NAME`"),
    ],
)
def test_run_exit_codes(run_args: list[str], command: list[str], code: int, complaint: str) -> None:
    done = execsrv(*run_args, *command)
    assert (done.returncode, done.stdout) == (code, "")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.few
@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "PIPE"])
def test_a_death_that_could_have_been_ours_is_ours(run_args: list[str], name: str, tmp_path: Path) -> None:
    done = execsrv(*run_args, "--", "sh", "-c", f"ulimit -c 0; kill -{name} $$", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.Signals[f"SIG{name}"], "", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["KILL", "USR1", "ALRM", "SEGV"])
def test_other_deaths_are_exit_codes(run_args: list[str], name: str) -> None:
    done = execsrv(*run_args, "--", "bash", "-c", f"ulimit -c 0; kill -{name} $$")
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.Signals[f"SIG{name}"], "", "")


def test_run_ends_when_nobody_reads_it(run_args: list[str]) -> None:
    with subprocess.Popen([*EXECSRV, *run_args, "yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == -signal.SIGPIPE


@pytest.mark.few
@pytest.mark.parametrize(("stream", "name"), [("1", "stdout"), ("2", "stderr")])
def test_output_that_cannot_be_written_is_our_failure(run_args: list[str], stream: str, name: str) -> None:
    mark = new_mark()
    script = f"echo x >&{stream}; exec -a {mark} sleep 1000"
    line = shlex.join([*EXECSRV, *run_args, "--idle-timeout", "1000", "bash", "-c", script])
    done = shell(f"{line} {stream}>/dev/full")
    assert done.returncode == 125
    assert done.stderr == ("" if stream == "2" else f"execsrv: cannot write to {name}: No space left on device\n")
    assert not marked(mark)


# -- signals --

LISTENER = """
import signal, sys
names = sys.argv[1:]
for name in names:
    signal.signal(signal.Signals["SIG" + name], lambda number, frame: print(signal.Signals(number).name, flush=True))
print("ready", flush=True)
while True: signal.pause()
"""


def test_every_signal_reaches_the_command(run_args: list[str]) -> None:
    names = "WINCH HUP QUIT USR1 USR2 CONT ALRM INT TERM".split()
    with running(*run_args, sys.executable, "-c", LISTENER, *names) as process:
        assert process.stdout is not None
        for name in names:
            process.send_signal(signal.Signals[f"SIG{name}"])
            assert process.stdout.readline() == f"SIG{name}\n"
        process.send_signal(signal.SIGTERM)  # the second
        assert process.wait(60) in (128 + signal.SIGKILL, -signal.SIGTERM)


def test_it_is_asked_and_its_status_is_ours(run_args: list[str], tmp_path: Path) -> None:
    with running(*run_args, "--cwd", str(tmp_path), "bash", "-c", POLITE) as process:
        assert (tmp_path / "lock").exists()
        process.terminate()
        assert process.communicate(timeout=60) == ("cleaning\n", "")
        assert process.returncode == 3
    assert not (tmp_path / "lock").exists()


@pytest.mark.few
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_request_kills(run_args: list[str], number: int) -> None:
    script = f"trap 'echo asked' {signal.Signals(number).name[3:]}; echo ready; while :; do sleep .1; done"
    with running(*run_args, "--grace", "1000", "bash", "-c", script) as process:
        assert process.stdout is not None
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(number)
        assert process.wait(60) in (128 + signal.SIGKILL, -number)


@pytest.mark.few
@pytest.mark.parametrize("grace", ["0", "0.2"])
def test_a_grace_that_is_over_kills(run_args: list[str], grace: str) -> None:
    mark = new_mark()
    script = f"trap '' TERM; (exec -a {mark} bash -c 'echo ready; sleep 1000; :') & while :; do sleep .1; done"
    with running(*run_args, "--grace", grace, "bash", "-c", script) as process:
        assert marked(mark)
        process.terminate()
        assert process.wait(60) in (128 + signal.SIGKILL, -signal.SIGTERM)
        assert not marked(mark)


def test_the_grace_is_the_servers_too_when_we_are_killed(tmp_path: Path) -> None:
    script = "trap 'sleep 2; echo > cleaned; exit' TERM; echo ready; while :; do sleep .1; done"
    with daemon("unix://" + str(tmp_path / "socket")) as (_, url):
        with running("run", "--url", url, "--grace", "30", "--cwd", str(tmp_path), "bash", "-c", script) as process:
            process.kill()
        until_grown(tmp_path / "cleaned", 0)


def test_timeout_that_signals_twice_does_not_kill(tmp_path: Path) -> None:
    """A command that is in its group hears it twice, as it does without us; so this one listens once."""
    script = POLITE.replace("trap 'echo", "trap 'trap : TERM; echo")
    done = shell(f"timeout 2 $RUN -- bash -c {shlex.quote(script)}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (124, "ready\ncleaning\n")


def test_a_signal_to_its_whole_group_is_not_passed_back() -> None:
    with running(
        "run",
        "--",
        "bash",
        "-c",
        "trap 'echo heard' USR1; echo ready; kill -USR1 0; echo went on",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "heard\nwent on\n"
        assert process.wait(60) == 0


def test_a_signal_that_nobody_heard_in_time_is_no_death_of_ours() -> None:
    code = (
        "import os, signal; from execsrv._cli.heard_signals import heard_signals\n"
        "with heard_signals(stops=True):\n"
        "    for name in ('USR1', 'TERM', 'RTMIN', 'TSTP'):\n"
        "        os.kill(os.getpid(), signal.Signals['SIG' + name])\n"
        "print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_an_ignored_hangup_stays_ignored(run_args: list[str]) -> None:
    line = shlex.join([*EXECSRV, *run_args])
    script = f"trap '' HUP; exec {line} bash -c 'echo ready; read x; echo went on'"
    with subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        if len(run_args) == 1:
            for child in children(process.pid):
                os.kill(child, signal.SIGHUP)
        assert process.communicate("x\n", 60)[0] == "went on\n"
        assert process.returncode == 0


IMPORTS = ["execsrv._cli", "execsrv._cli.register", "msgspec", "trio", "execsrv._cli.job", "execsrv._cli.local"]


@pytest.mark.parametrize("module", IMPORTS)
def test_an_early_interrupt_is_quiet(module: str) -> None:
    argv = [sys.executable, "-X", "importtime", *EXECSRV[1:], "run", "--", "sleep", "1000"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            name = line.rpartition("|")[2].strip()
            if name == module:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
        assert process.wait(60) == -signal.SIGINT
    assert not [line for line in rest.splitlines() if not line.startswith("import time:")]


# -- its time --


def test_a_timeout_asks_first(run_args: list[str], tmp_path: Path) -> None:
    done = execsrv(*run_args, "--timeout", "2", "--cwd", str(tmp_path), "bash", "-c", POLITE)
    assert (done.returncode, done.stdout) == (124, "ready\ncleaning\n")
    assert done.stderr.endswith("execsrv: ended the command, which was not done after 2 s\n")
    assert not (tmp_path / "lock").exists()


async def test_a_timeout_does_not_wait_for_a_connection_that_is_interrupted(tmp_path: Path) -> None:
    mark = new_mark()
    options = ["--reconnect", "1000", "--timeout", "2"]
    command = ["bash", "-c", f"echo ready; exec -a {mark} sleep 1000"]
    with serving("unix://", "--resume-grace", "2") as server:
        async with open_line(server.url, f"{tmp_path}/line") as line, trio.open_nursery() as nursery:
            argv = [*EXECSRV, "run", "--url", line.url, *options, "--", *command]
            run = partial(trio.run_process, argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            process = await nursery.start(run)
            assert await process.stdout.receive_some() == b"ready\n"
            line.target = None
            line.cut()
            said = b"".join([data async for data in process.stderr])
            assert said.endswith(b"execsrv: ended the command, which was not done after 2 s\n")
            assert await process.wait() == 124
        await until_gone(mark)


@pytest.mark.few(2)
@pytest.mark.parametrize("options", [["--timeout", "2"], ["--idle-timeout", "2"]])
@pytest.mark.parametrize("grace", ["0", "0.1"])
def test_a_timeout_kills_in_the_end(run_args: list[str], options: list[str], grace: str) -> None:
    mark = new_mark()
    script = f"trap '' TERM; (trap '' TERM; exec -a {mark} sleep 1000) & while :; do sleep 1000; done"
    done = execsrv(*run_args, *options, "--grace", grace, "bash", "-c", script)
    assert done.returncode == 124
    assert done.stderr.endswith(" s\n")
    assert not marked(mark)


@pytest.mark.few
@pytest.mark.parametrize("is_over", [False, True], ids=["while it runs", "when it has ended"])
@pytest.mark.few(2)
def test_its_time_is_over_though_nobody_reads(run_args: list[str], is_over: bool) -> None:
    """Nor its messages, which go the same way."""
    script = "head -c 100000 /dev/zero" if is_over else "exec yes"
    limits = ["--timeout", "1", "--idle-timeout", "1000", "--grace", "0"]
    reads, writes = os.pipe()
    with open(reads, "rb"):
        try:
            words = [*EXECSRV, *run_args, *limits, "--", "sh", "-c", script]
            process = subprocess.Popen(words, stdout=writes, stderr=writes, stdin=subprocess.DEVNULL)
        finally:
            os.close(writes)
        try:
            assert process.wait(PATIENCE) == 124
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.few
def test_a_second_request_ends_it_though_nobody_reads(number: int) -> None:
    words = ["run", "--idle-timeout", "1000", "--", "sh", "-c", "trap '' INT TERM; exec yes"]
    with subprocess.Popen([*EXECSRV, *words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            deadline = time.monotonic() + PATIENCE
            while not select.select([process.stdout], [], [], 0.01)[0]:
                assert time.monotonic() < deadline
            process.send_signal(number)
            process.send_signal(number)
            while process.poll() is None:
                assert time.monotonic() < deadline
                process.send_signal(number)  # two that come at once are one
                time.sleep(0.1)
        finally:
            process.kill()
    assert process.returncode == -number


def test_a_status_of_its_own_is_kept(run_args: list[str]) -> None:
    for options in (["--timeout", "60"], ["--idle-timeout", "60"], ["--timeout", "60", "--idle-timeout", "60"]):
        done = execsrv(*run_args, *options, "sh", "-c", "echo out; echo err >&2; exit 9")
        assert (done.returncode, done.stdout, done.stderr) == (9, "out\n", "err\n")


def test_output_keeps_it_from_being_idle(run_args: list[str]) -> None:
    script = "for i in 1 2 3 4 5 6; do echo $i; sleep .4; done"
    done = execsrv(*run_args, "--idle-timeout", "2", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "1\n2\n3\n4\n5\n6\n")


# -- what outlives it --


def test_it_ends_with_the_command(run_args: list[str]) -> None:
    mark = new_mark()
    done = execsrv(*run_args, "bash", "-c", f"(exec -a {mark} sleep 1000) & echo started; exit 4")
    assert (done.returncode, done.stdout) == (4, "started\n")
    assert "which outlived the command" in done.stderr or "and outlived it" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not marked(mark)


def test_who_was_ended_is_named() -> None:
    done = execsrv("run", "--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!")
    assert done.returncode == 0
    assert done.stderr == f"execsrv: ended sleep (pid {done.stdout.strip()}), which outlived the command\n"
    done = execsrv("run", "--", "bash", "-c", "for i in {1..7}; do sleep 1000 & done")
    assert re.fullmatch(
        r"execsrv: ended (sleep \(pid \d+\), ){4}sleep \(pid \d+\) and 2 more, which outlived the command\n",
        done.stderr,
    )


def test_what_outlives_it_is_asked_first(tmp_path: Path) -> None:
    script = "trap 'rm -f lock; exit' TERM; touch lock; while :; do sleep .1; done"
    done = execsrv("run", "--", "bash", "-c", f"({script}) & while [ ! -e lock ]; do sleep .02; done", cwd=tmp_path)
    assert done.returncode == 0
    assert not (tmp_path / "lock").exists()


def test_what_ends_by_itself_is_let(tmp_path: Path) -> None:
    done = execsrv("run", "--", "bash", "-c", "exec > >(cat; echo behind); echo before")
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\nbehind\n", "")


def test_leave() -> None:
    mark = new_mark()
    try:
        done = execsrv(
            "run", "--leave", "--", "bash", "-c", f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 & echo started"
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
        assert len(marked(mark)) == 1
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)


def test_children_that_it_was_given_are_not_its_own() -> None:
    mark = new_mark()
    try:
        done = shell(f"(exec -a {mark} sleep 1000) >/dev/null 2>&1 & exec $RUN -- sh -c 'echo out'")
        assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "")
        assert len(marked(mark)) == 1
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)


def test_nothing_is_left_when_it_is_killed() -> None:
    mark = new_mark()
    with running("run", "--", "bash", "-c", f"(exec -a {mark} sleep 1000) & echo ready; sleep 1000") as process:
        deadline = time.monotonic() + PATIENCE
        while len(children(process.pid)) < 2 or not marked(mark):  # with the guardian
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        while marked(mark) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not marked(mark)


def test_nothing_is_left_when_it_is_killed_in_the_first_instant_of_its_command() -> None:
    """By the command, which is as early as can be: before that, there is a guardian that would hear of it."""
    mark = new_mark()
    # All of them have the mark before the kill, or a look could come before a process has its name.
    script = f"exec -a {mark} bash -c '(sleep 1000; :) & kill -KILL $PPID; sleep 1000; :'"
    assert execsrv("run", "--", "bash", "-c", script).returncode == -signal.SIGKILL
    deadline = time.monotonic() + PATIENCE
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.01)
    left = marked(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


# -- nothing lies between --


@pytest.mark.parametrize("options", [[], ["--idle-timeout", "60"]])
def test_both_streams_keep_their_order(options: list[str]) -> None:
    script = "for i in {1..200}; do echo out$i; echo err$i >&2; done"
    line = shlex.join([*EXECSRV, "run", *options])
    done = shell(f"{line} -- bash -c {shlex.quote(script)} 2>&1")
    assert done.stdout == "".join(f"out{i}\nerr{i}\n" for i in range(1, 201))


@pytest.mark.few(6)
@pytest.mark.parametrize(
    "redirection", ["</dev/null", "<&-", "0>/dev/null", "</etc/passwd", "<<< text", "< <(echo text)"]
)
@pytest.mark.parametrize("command", ["stat -L -c %F /dev/stdin", "cat", "sh -c 'sleep .1; echo hi'", "wc -c"])
def test_stdin_is_what_it_is_alone(redirection: str, command: str) -> None:
    alone, through = (shell(f"{prefix} {command} {redirection}") for prefix in ("", "$RUN --"))
    assert (through.returncode, through.stdout, through.stderr) == (alone.returncode, alone.stdout, alone.stderr)


@pytest.mark.few
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">/dev/full", "<&- >&- 2>&-", "<&- 2>&-"])
def test_outputs_are_what_they_are_alone(redirection: str) -> None:
    script = "ls -l /proc/self/fd | sed s/.*:..// >&9; echo out; echo err >&2"
    command = f"bash -c {shlex.quote(script)} {redirection}"
    alone = shell(f"exec 9>&1; {command}")
    through = shell(f"exec 9>&1; $RUN --pass-fd 9 -- {command}")
    assert (through.returncode, through.stderr) == (alone.returncode, alone.stderr)
    pipes = re.compile(r"\d+\]|/proc/\d+")
    assert pipes.sub("", through.stdout) == pipes.sub("", alone.stdout)


@pytest.mark.parametrize("options", [[], ["--timeout", "60"], ["--idle-timeout", "60"]])
def test_stdin_is_not_read_ahead(options: list[str]) -> None:
    done = shell(f"printf 'a\nb\nc\n' | {{ $RUN {' '.join(options)} -- sh -c 'read x; echo got $x'; cat; }}")
    assert done.stdout == "got a\nb\nc\n"


def test_no_stdin_takes_nothing(run_args: list[str]) -> None:
    line = shlex.join([*EXECSRV, *run_args])
    done = shell(f"printf 'a\nb\nc\n' | while read f; do {line} -n -- sh -c 'cat; echo item $0' $f; done")
    assert done.stdout == "item a\nitem b\nitem c\n"


@pytest.mark.few
@pytest.mark.parametrize("redirection", ["</dev/null", "<&-", "0>/dev/null"])
def test_no_stdin_is_an_empty_one(run_args: list[str], redirection: str) -> None:
    line = shlex.join([*EXECSRV, *run_args])
    done = shell(f"{line} -- sh -c 'sleep .1; cat 2>/dev/null; echo hi' {redirection}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")


def test_input_that_breaks_off_is_no_end_of_it(url: str) -> None:
    with broken_input(b"text") as broken:
        done = execsrv("run", "--url", url, "wc", "-c", stdin=broken)
    said = "execsrv: cannot read stdin: Connection reset by peer\n"
    assert (done.returncode, done.stdout, done.stderr) == (125, "", said)


def test_dev_null_is_dev_null(run_args: list[str]) -> None:
    done = execsrv(*run_args, "stat", "-L", "-c", "%F", "/dev/stdin", stdin=subprocess.DEVNULL)
    assert done.stdout == "character special file\n"


def test_descriptors_are_passed_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text")
    listing = "ls /proc/self/fd | sort -n | xargs"
    done = shell(
        f"exec 7<text 9>&1 12<text; $RUN --pass-fd 7 --pass-fd 12 -- sh -c 'cat <&7; echo; {listing}'", cwd=tmp_path
    )
    assert done.stdout == "some text\n0 1 2 3 7 12\n"
    assert shell(f"exec 7<text; $RUN -- sh -c '{listing}'", cwd=tmp_path).stdout == "0 1 2 3\n"
    for number in ("5", "700"):
        done = execsrv("run", "--pass-fd", number, "--", "true")
        assert (done.returncode, done.stderr) == (
            125,
            f"execsrv: cannot pass descriptor {number}: Bad file descriptor\n",
        )


def test_bytes_that_are_no_text() -> None:
    env = {**os.environb, b"N": b"v\xff"}
    argv = [*(os.fsencode(word) for word in EXECSRV), b"run", b"-e", b"M=\xfe", b"--"]
    script = b'printf "%s|%s|%s" "$1" "$N" "$M"'
    done = subprocess.run([*argv, b"sh", b"-c", script, b"sh", b"caf\xe9"], env=env, capture_output=True)
    assert (done.stdout, done.stderr) == (b"caf\xe9|v\xff|\xfe", b"")


def test_the_environment_is_ours_and_nothing_else() -> None:
    env = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "A": "1", "COLUMNS": "33", "weird.name": "x=y"}
    done = subprocess.run([*EXECSRV, "run", "--", "/usr/bin/env"], env=env, capture_output=True, text=True)
    assert dict(line.split("=", 1) for line in done.stdout.splitlines()) == env


def test_a_directory_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    script = 'pwd; echo "$PWD ${OLDPWD-none}"; cat'
    env = {**os.environ, "PWD": str(tmp_path), "OLDPWD": "/"}
    for cwd in (str(tmp_path / "below"), "below"):
        done = execsrv("run", "--cwd", cwd, "--", "sh", "-c", script, cwd=tmp_path, env=env, input="")
        assert done.stdout == f"{tmp_path}/below\n{tmp_path}/below none\n"


def test_a_directory_that_was_removed(tmp_path: Path) -> None:
    script = "mkdir d; cd d; rmdir ../d; {} sh -c 'ls; pwd; echo $PWD; readlink /proc/self/cwd'"
    alone, through = (shell(script.format(prefix), cwd=tmp_path) for prefix in ("", "$RUN --"))
    assert (through.returncode, through.stdout, through.stderr) == (alone.returncode, alone.stdout, alone.stderr)


@pytest.mark.skipif(not may_become_nobody(), reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_directory_below_one_that_may_not_be_entered(mode: int, tmp_path: Path) -> None:
    (tmp_path / "closed" / "ours").mkdir(parents=True)
    os.chmod(tmp_path / "closed" / "ours", mode)
    os.chmod(tmp_path / "closed", 0o700)
    become = "import os, sys; os.chdir(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534); " + (
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    here = str(tmp_path / "closed" / "ours")
    argv = [sys.executable, "-c", become, here]
    if subprocess.run([*argv, sys.executable, "-c", "import trio"], capture_output=True).returncode != 0:
        pytest.skip("this Python is not everybody's")
    done = subprocess.run([*argv, *EXECSRV, "run", "--", "id", "-u"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "65534\n", "")


def test_umask_and_priority() -> None:
    script = "umask; nice; ulimit -Sn; cut -d' ' -f5,6 /proc/$$/stat /proc/$PPID/stat"
    done = shell(f"umask 027; ulimit -Sn 200; nice -n 7 $RUN -- sh -c {shlex.quote(script)}")
    lines = done.stdout.splitlines()
    assert lines[:3] == ["0027", str(min(7 + os.nice(0), 19)), "200"]
    assert lines[3] == lines[4]  # one session, one group


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_jobserver_of_make(tmp_path: Path) -> None:
    find = r"s/.*--jobserver-[a-z]*=\([0-9]*\),\([0-9]*\).*/--pass-fd \1 --pass-fd \2/p"
    (tmp_path / "Makefile").write_text(
        f"all:\n\t+@fds=$$(echo \"$$MAKEFLAGS\" | sed -n '{find}'); "
        f"{LINE} $$fds -- $(MAKE) --no-print-directory -f below\n"
    )
    (tmp_path / "below").write_text("all: a b\na b:\n\t@echo $@\n")
    done = subprocess.run(["make", "-j2"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["a", "b"]


def test_run_reads_plain_files_and_nothing(run_args: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(range(256)) * 5000)
    with open(tmp_path / "in", "rb") as file:
        done = subprocess.run([*EXECSRV, *run_args, "md5sum"], stdin=file, capture_output=True, timeout=60)
    expected = subprocess.run(["md5sum"], input=(tmp_path / "in").read_bytes(), capture_output=True)
    assert done.stdout == expected.stdout
    assert execsrv(*run_args, "cat", stdin=subprocess.DEVNULL).stdout == ""


# -- a terminal --


class Terminal:
    """A program on a terminal of ours, and what it shows."""

    def __init__(self, argv: list[str], size: tuple[int, int]) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(self.master, size)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env={**os.environ, "TERM": "xterm"}
        )
        self.shown = b""

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + 60
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} never came: {self.shown!r}"
            self.shown += os.read(self.master, 65536)

    def type(self, keys: bytes) -> None:
        self.shown = b""
        os.write(self.master, keys)

    def paste(self, keys: bytes) -> None:
        """Type more than a terminal holds: whoever reads it has to go on reading."""
        os.set_blocking(self.master, False)
        while keys:
            assert select.select([], [self.master], [], PATIENCE)[1], f"{len(keys)} bytes are not read"
            keys = keys[os.write(self.master, keys) :]
        os.set_blocking(self.master, True)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextmanager
def terminal(*argv: str, size: tuple[int, int] = (33, 99)) -> Iterator[Terminal]:
    shown = Terminal([*EXECSRV, *argv], size)
    try:
        yield shown
    finally:
        shown.close()


def test_an_interactive_python(run_args: list[str]) -> None:
    with terminal(*run_args, "--tty", sys.executable, "-q") as shown:
        shown.until(b">>> ")
        assert shown.is_raw()
        shown.type(b"6 * 7\r")
        shown.until(b"42")
        shown.type(b"print(6 * 8); exec('while True: pass')\r")
        shown.until(b"48")  # before that, the interrupt would only clear the line
        shown.type(b"\x03")
        shown.until(b"KeyboardInterrupt")
        shown.type(b"import os; print(os.get_terminal_size())\r")
        shown.until(b"columns=99, lines=33")
        termios.tcsetwinsize(shown.master, (44, 111))
        shown.process.send_signal(signal.SIGWINCH)
        while b"columns=111, lines=44" not in shown.shown:
            shown.type(b"print(os.get_terminal_size())\r")
            shown.until(b"columns=")
            shown.until(b">>> ")
        shown.type(b"exit(5)\r")
        assert shown.process.wait(60) == 5
        assert shown.is_restored()


def test_what_is_typed_ahead_is_for_the_command(run_args: list[str]) -> None:
    with terminal(*run_args, "--tty", "sh", "-c", "read line; echo got $line") as shown:
        shown.type(b"early\r")
        shown.until(b"got early")
        assert shown.process.wait(60) == 0


def test_a_terminal_without_a_size(run_args: list[str]) -> None:
    with terminal(*run_args, "--tty", "sh", "-c", "stty size; read go", size=(0, 0)) as shown:
        shown.until(b"24 80")
        shown.type(b"\r")
        assert shown.process.wait(60) == 0


@pytest.mark.few
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_whatever_happens(run_args: list[str], number: int) -> None:
    with terminal(*run_args, "--tty", "sh", "-c", "echo ready; sleep 1000") as shown:
        shown.until(b"ready")
        shown.process.send_signal(number)
        assert shown.process.wait(60) == -number
        assert shown.is_restored()


def test_the_terminal_is_restored_when_the_server_dies() -> None:
    with (
        daemon("ws://127.0.0.1:0") as (process, url),
        terminal("run", "--url", url, "--tty", "sh", "-c", "echo ready; sleep 1000") as shown,
    ):
        shown.until(b"ready")
        process.kill()
        assert shown.process.wait(60) == 125
        assert shown.is_restored()
        shown.until(b"the server ended the connection")


@contextmanager
def interactive_bash(tmp_path: Path) -> Iterator[pexpect.spawn[str]]:
    """An interactive shell with job control on a terminal, in which `$RUN` is `execsrv run`."""
    env = {**os.environ, "RUN": LINE, "PS1": "prompt> ", "TERM": "dumb"}
    shell = pexpect.spawn(
        "bash", ["--norc", "--noprofile", "-i"], env=env, cwd=str(tmp_path), encoding="utf-8", timeout=60, echo=False
    )
    try:
        shell.expect("prompt> ")
        shell.sendline("bind 'set enable-bracketed-paste off' 2>/dev/null")
        shell.expect("prompt> ")
        yield shell
    finally:
        put_away(shell)


def until_grown(path: Path, size: int) -> int:
    """Wait until a file is larger than that; return its size."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or path.stat().st_size <= size:
        assert time.monotonic() < deadline, f"{path} did not grow"
        time.sleep(0.01)
    return path.stat().st_size


def test_a_stop_and_a_continue_by_keys(run_args: list[str], tmp_path: Path) -> None:
    ticks = tmp_path / "ticks"
    with interactive_bash(tmp_path) as shell:
        options = shlex.join([*run_args[1:], "--cwd", str(tmp_path)])
        shell.sendline(f"$RUN {options} -- sh -c 'while :; do echo t >> ticks; sleep .05; done'")
        until_grown(ticks, 0)
        for _ in range(2):
            shell.sendcontrol("z")
            shell.expect("Stopped")
            shell.expect("prompt> ")
            shell.sendline("echo size $(stat -c %s ticks)")
            shell.expect(r"size (\d+)")
            size = int(shell.match[1])
            assert ticks.stat().st_size == size
            shell.expect("prompt> ")
            shell.sendline("fg")
            until_grown(ticks, size)
        shell.sendcontrol("c")
        shell.expect("prompt> ")
        shell.sendline("echo status $?")
        shell.expect("status 130")


def test_a_stop_and_its_continue_are_for_the_whole_job(run_args: list[str], tmp_path: Path) -> None:
    script = f"{shlex.quote(sys.executable)} -c {shlex.quote(LISTENER)} CONT | cat; echo never"
    with interactive_bash(tmp_path) as shell:
        shell.sendline(f"$RUN {shlex.join(run_args[1:])} -- bash -c {shlex.quote(script)}")
        shell.expect("ready")
        for _ in range(2):
            shell.sendcontrol("z")
            shell.expect("prompt> ")
            shell.sendline("fg")
            shell.expect("SIGCONT")
        shell.sendcontrol("c")
        shell.expect("prompt> ")


def test_a_terminal_of_its_own_after_a_stop(run_args: list[str]) -> None:
    """The shell has set modes of its own meanwhile, and told nobody of a new size."""
    script = """read x; read line; until [ "$(stty size)" = "30 99" ]; do sleep .05; done; echo got $line"""
    run = "$RUN " + shlex.join([*run_args[1:], "--tty", "--", "sh", "-c", f"echo ready; {script}"])
    env = {"RUN": LINE, "PS1": "prompt> "}
    with seen_program(["bash", "--norc", "--noprofile", "-i"], (24, 80), env) as shown:

        def is_raw() -> bool:
            return not termios.tcgetattr(shown.program.child_fd)[3] & termios.ECHO

        shown.see("prompt>$")
        shown.line(run)
        shown.see("^ready$")
        shown.line("before")
        shown.see("^before$")
        [ours] = children(shown.program.pid)
        os.kill(ours, signal.SIGTSTP)
        shown.see("Stopped(?s:.*)prompt>$")
        shown.resize(30, 99)
        shown.line("clear; fg")
        shown.see(lambda _: is_raw() and os.tcgetpgrp(shown.program.child_fd) == ours)
        shown.line("after")
        shown.see("^after\ngot after\nprompt>$")
        shown.line("clear; stty -a")
        modes = shown.see("echoke(?s:.*)prompt>$")
        assert {"icanon", "echo", "isig", "opost"} < set(modes.replace(";", " ").split())


def test_a_stop_of_nobodys_job_stops_nothing(tmp_path: Path) -> None:
    """A session that has no shell which would continue it."""
    with daemon("ws://127.0.0.1:0") as (_, url):
        script = "while echo tick; do sleep .05; done"
        with running("run", "--url", url, "--", "sh", "-c", f"echo ready; {script}", start_new_session=True) as process:
            assert process.stdout is not None
            for _ in range(2):
                process.send_signal(signal.SIGTSTP)
                for _ in range(40):
                    assert process.stdout.readline() == "tick\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == -signal.SIGTERM


def test_a_command_that_stops_itself_stops_us(tmp_path: Path) -> None:
    with interactive_bash(tmp_path) as shell:
        shell.sendline("$RUN -- sh -c 'kill -TSTP $$; echo went on'")
        shell.expect("Stopped")
        shell.expect("prompt> ")
        shell.sendline("fg")
        shell.expect("went on")
        shell.expect("prompt> ")


@pytest.mark.parametrize("options", ["", "--timeout 1000", "--idle-timeout 1000"])
def test_an_interrupt_ends_a_loop(tmp_path: Path, options: str) -> None:
    script = f"for i in 1 2 3; do $RUN {options} -- sh -c 'echo start $0; sleep 1000' $i; done; echo never"
    (tmp_path / "script").write_text(script)
    with interactive_bash(tmp_path) as shell:
        shell.sendline("bash script")
        shell.expect("start 1")
        ended = -1
        while ended == -1:  # a shell that is about to start its next command swallows the key
            shell.sendcontrol("c")
            ended = shell.expect(["prompt> ", "start 2", "never", pexpect.TIMEOUT], timeout=2)
            ended = -1 if ended == 3 else ended
        assert ended == 0
        shell.sendline("echo status $?")
        shell.expect("status 130")


def test_an_interrupt_arrives_once(tmp_path: Path) -> None:
    listener = tmp_path / "listener.py"
    listener.write_text(LISTENER)
    with interactive_bash(tmp_path) as shell:
        shell.sendline(f"$RUN -- {sys.executable} listener.py INT QUIT USR1")
        shell.expect("ready")
        for _ in range(3):
            shell.sendcontrol("c")
            shell.expect("SIGINT")
        shell.sendcontrol("\\")
        shell.expect("SIGQUIT")
        pid = subprocess.run(
            ["pgrep", "-f", f"execsrv run -- {sys.executable} listener.py"], capture_output=True, text=True
        )
        os.kill(int(pid.stdout.split()[0]), signal.SIGUSR1)
        assert shell.expect(["SIGUSR1", "SIGINT", "SIGQUIT"]) == 0
        os.kill(int(pid.stdout.split()[0]), signal.SIGTERM)
        shell.expect("prompt> ")


def test_a_background_job_that_reads_is_stopped_and_not_robbed(tmp_path: Path) -> None:
    with interactive_bash(tmp_path) as shell:
        shell.sendline("$RUN -- cat &")
        shell.expect("prompt> ")
        shell.sendline("wait -n; jobs")
        shell.expect("Stopped|tty input")
        shell.expect("prompt> ")
        shell.sendline("fg")
        shell.sendline("typed")
        shell.expect("typed")
        shell.sendcontrol("d")
        shell.expect("prompt> ")


def test_a_background_job_by_url_leaves_the_terminal_alone(tmp_path: Path) -> None:
    with daemon("ws://127.0.0.1:0") as (_, url), interactive_bash(tmp_path) as shell:
        shell.sendline(f"$RUN --url {url} --cwd {tmp_path} -- sh -c 'sleep .5; echo done > done; cat' &")
        shell.expect("prompt> ")
        until_grown(tmp_path / "done", 0)
        shell.sendline("echo still $((40 + 2)) here")
        shell.expect("still 42 here")
        shell.sendline("fg")
        shell.sendline("to the command")
        shell.expect("to the command")
        shell.sendcontrol("d")
        shell.expect("prompt> ")


def test_the_terminal_in_the_foreground(tmp_path: Path) -> None:
    with interactive_bash(tmp_path) as shell:
        shell.sendline("$RUN -- bash -c 'read -p \"name? \" x </dev/tty; echo got-$x' | cat")
        shell.expect(r"name\? ")
        shell.sendline("me")
        shell.expect("got-me")
        shell.expect("prompt> ")


PIXELS = "import fcntl, termios, struct; print(struct.unpack('4H', fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))))"


@pytest.mark.few
def test_our_modes_and_our_size(run_args: list[str], tmp_path: Path) -> None:
    run = "$RUN " + shlex.join([*run_args[1:], "--tty", "--"])
    with interactive_bash(tmp_path) as shell:
        fcntl.ioctl(shell.fileno(), termios.TIOCSWINSZ, struct.pack("4H", 33, 99, 990, 660))
        shell.sendline(f"stty erase ^H intr ^K werase undef -ixon tostop; {run} stty -a")
        for text in (
            "rows 33; columns 99",
            r"intr = \^K",
            r"erase = \^H",
            "werase = <undef>",
            " -ixon",
            " iutf8",
            r"\stostop",
        ):
            shell.expect(text)
        shell.expect("prompt> ")
        shell.sendline(f"{run} {shlex.quote(sys.executable)} -c {shlex.quote(PIXELS)}")
        shell.expect_exact("(33, 99, 990, 660)")
        shell.expect("prompt> ")


def test_a_terminal_without_ours() -> None:
    done = execsrv("run", "--tty", "--", "stty", "-a", stdin=subprocess.DEVNULL)
    assert " iutf8" in done.stdout
    assert "-iutf8" not in done.stdout
    assert "rows 24; columns 80" in done.stdout


def test_a_size_of_the_terminal_that_is_not_the_callers() -> None:
    env = {**os.environ, "COLUMNS": "11", "LINES": "5"}
    code = "import shutil; print(*shutil.get_terminal_size())"
    done = execsrv("run", "--tty", "--", sys.executable, "-c", code, stdin=subprocess.DEVNULL, env=env)
    assert done.stdout.split() == ["80", "24"]


def test_a_prompt_on_a_terminal_that_nobody_has_open(tmp_path: Path) -> None:
    script = (
        "exec </dev/null >/dev/null 2>&1; sleep .5; printf 'Password: ' >/dev/tty; read -r x </dev/tty;"
        " printf got-$x >/dev/tty"
    )
    with interactive_bash(tmp_path) as shell:
        shell.sendline(f"$RUN --tty -- bash -c {shlex.quote(script)}")
        shell.expect("Password: ")
        shell.send("me\r")
        shell.expect("got-me")
        shell.expect("prompt> ")


def test_the_escape_always_ends_it(run_args: list[str]) -> None:
    mark = new_mark()
    script = f"stty raw -echo; trap '' INT QUIT TSTP HUP TERM; echo ready; exec -a {mark} sleep 1000"
    with terminal(*run_args, "--tty", "--grace", "0.2", "bash", "-c", script) as shown:
        shown.until(b"ready")
        shown.type(b"a~.\r~~.\r~")
        assert shown.process.poll() is None
        shown.type(b".")
        assert shown.process.wait(60) == 128 + signal.SIGKILL
        assert shown.is_restored()
        assert not marked(mark)


def test_a_paste_waits_for_a_slow_reader_and_the_escape_for_nobody(run_args: list[str], tmp_path: Path) -> None:
    text = b"".join(b"line %d\r" % number for number in range(20_000))
    wait = f"until [ -e {tmp_path}/go ]; do sleep .05; done"
    script = f"stty raw -echo; echo ready; {wait}; head -c {len(text)} | sha256sum; exec sleep 1000"
    with terminal(*run_args, "--tty", "sh", "-c", script) as shown:
        shown.until(b"ready")
        shown.paste(text)
        (tmp_path / "go").touch()
        shown.until(hashlib.sha256(text).hexdigest().encode())
        shown.paste(text + b"~.")
        assert shown.process.wait(60) == -signal.SIGTERM
        assert shown.is_restored()


@pytest.mark.slow
def test_the_escape_needs_no_answer_of_the_server(url: str, tmp_path: Path) -> None:
    with (
        cuttable(url, f"{tmp_path}/line") as line,
        terminal("run", "--url", line.url, "--tty", "sh", "-c", "echo ready; exec sleep 1000") as shown,
    ):
        shown.until(b"ready")
        line.silence()
        shown.type(b"a key\r~.")
        assert shown.process.wait(60) == -signal.SIGTERM
        assert shown.is_restored()


async def test_what_is_typed_beyond_the_bound_is_lost_as_a_terminal_loses_it() -> None:
    lost: list[str] = []
    typed = TypedAhead(10, lambda: lost.append("a bell"))
    for keys in (b"0123", b"45678", b"9ab", b"c"):
        typed.type(keys)
    assert lost == ["a bell"]
    assert await typed.next() == b"0123456789"
    typed.type(b"behind")
    typed.end()
    assert await typed.next() == b"behind"
    assert await typed.next() == b""


def test_tildes_that_are_no_escape() -> None:
    keys = b"~~one\r two~.\r~x\r~~.\r\x04"
    with terminal("run", "--tty", "sh", "-c", "stty -echo; echo ready; cat; echo end") as shown:
        shown.until(b"ready")
        shown.type(keys)
        shown.until(b"end")
        assert b"~one\r\n two~.\r\n~x\r\n~.\r\n" in shown.shown
        assert shown.process.wait(60) == 0


# -- its own mistakes --


@pytest.mark.slow
def test_a_command_over_a_runner() -> None:
    setting = f"EXECSRV_RUNNERS=here={shlex.join([*EXECSRV, 'runner'])}"
    with daemon("ws://127.0.0.1:0", ["env", setting]) as (_, url):
        for runner in ("here", shlex.join([*EXECSRV, "runner"])):
            done = execsrv("run", "--url", url, "--runner", runner, "--", "sh", "-c", "echo there; exit 3")
            assert (done.returncode, done.stdout, done.stderr) == (3, "there\n", "")


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "COMMAND... is missing"),
        (["--nope", "--", "true"], "--nope"),
        (["--timeout", "never", "--", "true"], "never"),
        (["--grace", "-1", "--", "true"], "-1"),
        (["--pass-fd", "x", "--", "true"], "x"),
        (["--url"], "--url"),
        (["--url", "ws://127.0.0.1:1", "--leave", "--", "true"], "--leave"),
        (["--url", "ws://127.0.0.1:1", "--pass-fd", "0", "--", "true"], "--pass-fd"),
        (["--secret-env", "A=b", "--", "true"], "--secret-env without --url"),
        (["--url", "ws://127.0.0.1:1", "--secret-env", "A=", "--", "true"], "expected `NAME=SECRET`"),
        (["--tty", "--leave", "--", "true"], "--leave"),
        (["--runner", "box", "--", "true"], "--runner without --url"),
        (["--url", "ws://127.0.0.1:1", "--runner", "sudo 'box", "--", "true"], "--runner `sudo 'box`"),
    ],
)
def test_a_mistake_in_run_is_no_status_of_a_command(args: list[str], text: str) -> None:
    done = execsrv("run", *args)
    assert (done.returncode, done.stdout) == (125, "")
    assert re.fullmatch(rf"execsrv: .*{re.escape(text)}.*\n", done.stderr)


def test_run_without_a_server() -> None:
    for url, complaint in [
        ("ws://127.0.0.1:1", "cannot connect to `ws://127.0.0.1:1`"),
        ("unix:///no/such/socket", "cannot connect to `/no/such/socket`: No such file or directory"),
        (
            "http://x",
            "unsupported URL `http://x`; expected `ws://HOST:PORT`, `wss://HOST:PORT`, `unix://PATH`, `ssh://",
        ),
    ]:
        done = execsrv("run", "--url", url, "true")
        assert (done.returncode, complaint in done.stderr) == (125, True), done.stderr


@pytest.mark.few
@pytest.mark.parametrize("status", [200, 404, 500])
def test_a_url_of_a_web_server(status: int) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"a page\n")

        def log_message(self, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            done = execsrv("run", "--url", f"ws://127.0.0.1:{web.server_port}", "--", "true")
        finally:
            web.shutdown()
            thread.join()
    assert (done.returncode, done.stdout) == (125, "")
    # Some proxy may stand before a server of ours and answer with an error of its own.
    why = "" if status == 500 else "this is no exec server: "
    assert re.fullmatch(rf"execsrv: cannot connect to .*: {why}it answered {status}.*\n", done.stderr)
    assert ("page" in done.stderr) == (status == 500)


@pytest.mark.slow
def test_the_url_of_run_from_the_environment() -> None:
    with daemon("ws://127.0.0.1:0") as (_, url):
        _check_the_url_from_the_environment(url)


def _check_the_url_from_the_environment(url: str) -> None:
    assert execsrv("run", "--", "echo", "hi", env={**os.environ, "EXECSRV_URL": url}).stdout == "hi\n"
    nowhere = {**os.environ, "EXECSRV_URL": "unix:///no/such/socket"}
    done = execsrv("run", "--", "echo", "hi", env=nowhere)
    assert (done.returncode, done.stdout) == (125, "")
    assert "cannot connect to `/no/such/socket`" in done.stderr
    assert execsrv("run", "--url", url, "--", "echo", "hi", env=nowhere).stdout == "hi\n"
    assert execsrv("serve", stdin=subprocess.DEVNULL, env=nowhere).returncode == 0


def test_complaints_of_run_are_never_on_stdout() -> None:
    line = " ".join(EXECSRV)
    for redirection in ("2>&-", "2>/dev/full"):
        done = subprocess.run(
            ["sh", "-c", f"{line} run /no/such/program {redirection}"], capture_output=True, timeout=30
        )
        assert (done.returncode, done.stdout, done.stderr) == (127, b"", b"")


# -- its page --

PAGE = Path(__file__).parent.parent / "docs" / "run.md"
EXAMPLES = re.findall(r"^```console\n\$ (.*?)\n(.*?)^```", PAGE.read_text(), re.S | re.M)


@pytest.mark.few(2)
@pytest.mark.parametrize(("command", "shown"), EXAMPLES)
def test_an_example_of_the_page(command: str, shown: str) -> None:
    done = shell(f'execsrv() {{ {shlex.join(EXECSRV)} "$@"; }}; exec 2>&1; {command}', stdin=subprocess.DEVNULL)
    pids = re.compile(r"pid \d+")
    assert pids.sub("", done.stdout) == pids.sub("", shown)
