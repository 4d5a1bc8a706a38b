"""The daemon and the command line as their users meet them: real processes, real descriptors, real signals."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from execsrv import ClientConfig, connect_unix, serve
from execsrv._wire.unix import open_unix
from execsrv.errors import ConnectionFailedError
from tests.peers import PATIENCE
from tests.processes import marked, new_mark

EXECSRV = [sys.executable, "-m", "execsrv"]
UNSUPPORTED = (
    "execsrv: unsupported --listen URL `{}`; expected `stdio://`, `ws://IP:PORT`, `wss://IP:PORT` or `unix://PATH`\n"
)


@contextmanager
def daemon(listen: str, before: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A daemon that accepts connections, and its URL. `before` are words in front of its command."""
    argv = [*before, *EXECSRV, "serve", "--listen", listen]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def execsrv(*args: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EXECSRV, *args], capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture(params=["websocket", "unix"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    listen = "ws://127.0.0.1:0" if request.param == "websocket" else f"unix://{tmp_path}/s"
    with daemon(listen) as (_, url):
        yield url


# -- serve --


@pytest.mark.few(2)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("transport", ["websocket", "unix"])
def test_signals_end_it_with_all_it_started(number: int, transport: str, tmp_path: Path) -> None:
    mark = new_mark()
    path = tmp_path / "socket"
    listen = "ws://127.0.0.1:0" if transport == "websocket" else f"unix://{path}"
    child = f"(exec -a {mark} sleep 1000)"
    script = f"trap '' TERM INT HUP; {child} & {child} & echo ready; wait"
    with daemon(listen) as (process, url):
        with subprocess.Popen(
            [*EXECSRV, "run", "--url", url, "--", "bash", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\n"
            began = time.monotonic()
            process.send_signal(number)
            assert process.wait(60) == 0
            took = time.monotonic() - began
            assert not marked(mark)
            _, said = client.communicate(timeout=60)
            assert (client.returncode, said) == (
                125,
                b"execsrv: the server ended the command because it is shutting down\n",
            )
        assert process.stderr is not None
        log = process.stderr.read()
    assert f"execsrv listening on {url}\n" in log
    assert signal.Signals(number).name in log
    assert not path.exists()
    print(f"ended in {took:.3f} s")


def test_a_second_signal_does_not_interrupt_the_end(tmp_path: Path) -> None:
    mark = new_mark()
    path = tmp_path / "socket"
    script = f"for i in $(seq 60); do (exec -a {mark} sleep 1000) & done; echo ready; wait"
    with (
        daemon(f"unix://{path}") as (process, url),
        subprocess.Popen([*EXECSRV, "run", "--url", url, "bash", "-c", script], stdout=subprocess.PIPE) as client,
    ):
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        assert process.wait(60) == 0
        assert not marked(mark)
        assert not path.exists()


def test_what_was_to_be_ignored_stays_ignored() -> None:
    code = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    argv = [sys.executable, "-c", code, *EXECSRV, "serve", "--listen", "ws://127.0.0.1:0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        process.send_signal(signal.SIGHUP)
        assert execsrv("run", "--url", url, "echo", "alive").stdout == "alive\n"
        process.terminate()
        assert process.wait(60) == 0


def test_started_without_descriptors() -> None:
    line = " ".join(EXECSRV)
    for command, code, said in [
        (f"{line} run echo hi <&-", 0, "hi\n"),
        (f"{line} run echo hi >&-", 1, ""),  # as echo alone
        (f"{line} serve <&-", 0, ""),
        (f"{line} serve >&- </dev/null", 0, ""),
        (f"{line} run echo hi >/dev/full", 1, ""),
    ]:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (code, said, False), (command, done)


def test_a_working_directory_that_was_removed(tmp_path: Path) -> None:
    script = (
        f"cd {tmp_path} && mkdir gone && cd gone && rmdir ../gone && {' '.join(EXECSRV)} run readlink /proc/self/cwd"
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/gone (deleted)\n", "")


def test_the_banner_and_a_free_port() -> None:
    with daemon("ws://127.0.0.1:0") as (_, url):
        assert re.fullmatch(r"ws://127\.0\.0\.1:[1-9][0-9]*", url)
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        taken = execsrv("serve", "--listen", url)
        assert (taken.returncode, taken.stdout) == (1, "")
        assert taken.stderr.endswith(f"execsrv: cannot listen on {url}: Address already in use\n")


@pytest.mark.parametrize("transport", ["websocket", "unix"])
def test_codex_prints_the_line_for_its_environment(transport: str, tmp_path: Path) -> None:
    listen = [] if transport == "websocket" else ["--listen", f"unix://{tmp_path}/s"]
    argv = [*EXECSRV, "serve", "--codex", *listen]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        process.terminate()
        rest = process.stdout.read()
    if transport == "websocket":
        assert re.fullmatch(r"ws://127\.0\.0\.1:[1-9][0-9]*", url)
        assert rest == f"export CODEX_EXEC_SERVER_URL={url}\n"
    else:
        assert (url, rest) == (listen[1], "")


def test_codex_over_stdio_prints_nothing() -> None:
    hello = '{"id":1,"method":"initialize","params":{"clientName":"t"}}\n'
    done = execsrv("serve", "--codex", "--listen", "stdio://", input=hello)
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1]


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with daemon("ws://[::1]:0") as (_, url):
        assert re.fullmatch(r"ws://\[::1\]:[1-9][0-9]*", url)
        assert execsrv("run", "--url", url, "--", "echo", "six").stdout == "six\n"


@pytest.mark.few
@pytest.mark.parametrize("listen", ["http://127.0.0.1:1234", "", "stdio", "tcp://127.0.0.1:1", "/tmp/x"])
def test_listen_urls_that_are_none(listen: str) -> None:
    refused = execsrv("serve", "--listen", listen)
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", UNSUPPORTED.format(listen))


@pytest.mark.few
@pytest.mark.parametrize(
    "listen",
    [
        "ws://localhost:1234",
        "ws://127.0.0.1",
        "ws://127.0.0.1:x",
        "ws://127.0.0.1:99999",
        "ws://127.0.0.1:1/x",
    ],
)
def test_websocket_urls_that_are_none(listen: str) -> None:
    refused = execsrv("serve", "--listen", listen)
    text = f"execsrv: invalid websocket --listen URL `{listen}`; expected `ws://IP:PORT`\n"
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", text)


def test_unix_socket_is_private_replaced_when_stale_and_never_stolen(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen = f"unix://{path}"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with daemon(listen) as (process, url):
        assert url == listen
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert execsrv("run", "--url", url, "--", "echo", "hi").stdout == "hi\n"
        second = execsrv("serve", "--listen", listen)
        assert (second.returncode, "another server listens there" in second.stderr) == (1, True)
        assert path.exists()
        process.terminate()
        process.wait(60)
    assert not path.exists()
    path.write_text("precious")
    refused = execsrv("serve", "--listen", listen)
    assert (refused.returncode, "exists and is not a socket" in refused.stderr) == (1, True)
    assert path.read_text() == "precious"
    missing = execsrv("serve", "--listen", f"unix://{tmp_path}/no/folder")
    assert (missing.returncode, "cannot listen on" in missing.stderr) == (1, True)
    too_long = execsrv("serve", "--listen", f"unix://{tmp_path}/{'x' * 120}")
    assert (too_long.returncode, "cannot listen on" in too_long.stderr) == (1, True)


HELLO = [
    {"id": 1, "method": "initialize", "params": {"clientName": "test"}},
    {"method": "initialized"},
]


def start(id: str, script: str) -> dict[str, object]:
    params = {
        "processId": id,
        "argv": ["sh", "-c", script],
        "cwd": "/",
        "env": {"PATH": os.environ["PATH"]},
        "tty": False,
    }
    return {"id": 2, "method": "process/start", "params": params}


def lines(*messages: object) -> str:
    return "".join(json.dumps(message) + "\n" for message in messages)


def test_stdio_ends_with_its_input_and_leaves_nothing() -> None:
    mark = new_mark()
    argv = [*EXECSRV, "serve", "--flush-timeout", "60"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines(*HELLO, start("a", f"exec bash -c 'echo up; exec -a {mark} sleep 1000'")))
        process.stdin.flush()
        heard = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert heard[2]["method"] == "process/output"
        process.stdin.close()
        assert process.wait(60) == 0
        assert not marked(mark)
        told = [json.loads(line) for line in process.stdout]
        assert [message["method"] for message in told] == ["process/exited", "process/closed"]
        assert (told[0]["params"]["signal"], told[0]["params"]["reason"]) == ("SIGTERM", "disconnected")


def test_stdio_from_plain_files(tmp_path: Path) -> None:
    """Files cannot be waited for as pipes can."""
    (tmp_path / "in").write_text(lines(*HELLO, {"id": 9, "method": "nope"}))
    with open(tmp_path / "in") as requests, open(tmp_path / "out", "w") as answers:
        argv = [*EXECSRV, "serve", "--flush-timeout", "60"]
        done = subprocess.run(argv, stdin=requests, stdout=answers, timeout=60)
    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in (tmp_path / "out").read_text().splitlines()] == [1, 9]
    assert execsrv("serve", stdin=subprocess.DEVNULL).returncode == 0


def test_nothing_but_messages_can_reach_stdout() -> None:
    """Neither what the server's own process prints, nor a child that looks for the protocol's descriptors."""
    code = (
        "import os, subprocess, trio, execsrv\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(execsrv.serve)\n"
        "        print('printed', flush=True); os.write(1, b'written\\n'); subprocess.run(['echo', 'echoed'])\n"
        "        assert os.read(0, 1) == b''\n"
        "trio.run(main)\n"
        "print('and back again')\n"
    )
    script = "for fd in /proc/self/fd/*; do echo leak > $fd; done 2>/dev/null; ls /proc/self/fd | wc -l"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(lines(*HELLO, start("a", script)))
        process.stdin.flush()
        heard: list[dict[str, object]] = []
        while not heard or heard[-1].get("method") != "process/closed":
            heard.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.stdout.read() == "and back again\n"
        assert process.stderr.read() == "printed\nwritten\nechoed\n"
        assert process.wait(60) == 0


def test_a_server_whose_parent_ignored_sigchld() -> None:
    argv = [*EXECSRV, "run", "--", "sh", "-c", "exit 3"]
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    assert subprocess.run([sys.executable, "-c", code, *argv]).returncode == 3


# -- the rest --


def test_help_and_version() -> None:
    for args in (["--help"], ["serve", "--help"], ["run", "-h"]):
        done = execsrv(*args, env={**os.environ, "NO_COLOR": "1"})
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert "Usage: execsrv" in done.stdout
    assert re.fullmatch(r"execsrv \d+\.\d+\.\d+\n", execsrv("--version").stdout)
    assert execsrv("nonsense").returncode == 2
    assert execsrv("--nope").returncode == 2
    assert execsrv("serve", "--nope").returncode == 2


# -- the path of a unix socket --

RACER = """
import sys, time
from execsrv._wire.unix import listening
for line in sys.stdin:
    path, start = line.split()
    while time.monotonic() < float(start):
        pass
    try:
        with listening(path):
            print("listening", flush=True)
            sys.stdin.readline()
    except OSError as error:
        print(error.strerror, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.slow
def test_two_servers_at_once_never_make_each_other_deaf(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
                )
            )
            for _ in range(2)
        ]
        for _ in range(300):
            with socket.socket(socket.AF_UNIX) as stale:
                stale.bind(path)
            start = time.monotonic() + 0.001
            answers = []
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(f"{path} {start}\n")
            for racer in racers:
                assert racer.stdout is not None
                answers.append(racer.stdout.readline())
            assert sorted(answers) == ["another server listens there\n", "listening\n"]
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("done\n")
            while Path(path).exists():
                os.sched_yield()
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.close()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_unix_socket_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "socket.lock").symlink_to(tmp_path / "elsewhere")
    refused = execsrv("serve", "--listen", f"unix://{tmp_path}/socket")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"cannot open the lock `{tmp_path}/socket.lock`: Too many levels of symbolic links" in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["socket.lock"]


@pytest.mark.slow
def test_a_lock_that_was_left_behind_keeps_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "socket.lock").write_text("")
    with daemon(f"unix://{tmp_path}/socket") as (process, url):
        assert execsrv("run", "--url", url, "--", "echo", "hi").stdout == "hi\n"
        process.terminate()
        assert process.wait(10) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_server_whose_lock_is_gone_ends_as_any(tmp_path: Path) -> None:
    """What cleans up a directory may have taken it."""
    with daemon(f"unix://{tmp_path}/socket") as (process, url):
        (tmp_path / "socket.lock").unlink()
        assert execsrv("run", "--url", url, "--", "echo", "hi").stdout == "hi\n"
        process.terminate()
        assert process.wait(10) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_server_leaves_the_lock_of_another_one(tmp_path: Path) -> None:
    with daemon(f"unix://{tmp_path}/socket") as (first, url):
        for file in tmp_path.iterdir():
            file.unlink()
        with daemon(url) as (_, same):
            assert same == url
            first.terminate()
            assert first.wait(10) == 0
            assert sorted(file.name for file in tmp_path.iterdir()) == ["socket", "socket.lock"]
            assert execsrv("run", "--url", url, "--", "echo", "hi").stdout == "hi\n"


async def test_a_lock_that_is_gone_does_not_take_the_place_of_a_cancel(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, f"unix://{tmp_path}/socket")
        os.unlink(tmp_path / "socket.lock")
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == []


async def test_a_busy_server_is_waited_for(tmp_path: Path) -> None:
    """Its backlog is full for as long as it is stopped."""
    path = f"{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(path)
        full.listen(0)
        with ExitStack() as stack:
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                try:
                    waiting.connect(path)
                except BlockingIOError:
                    break
            with pytest.raises(ConnectionFailedError, match=r"not accepted within 0\.05 s"):
                async with connect_unix(path, config=ClientConfig(handshake_timeout=0.05)):
                    pass
            opened = trio.Event()

            async def connect() -> None:
                async with open_unix(path, ClientConfig(handshake_timeout=PATIENCE)):
                    opened.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await trio.testing.wait_all_tasks_blocked()
                assert not opened.is_set()
                full.accept()[0].close()


@pytest.mark.slow
async def test_many_clients_at_once_of_a_stopped_server(tmp_path: Path) -> None:
    with daemon(f"unix://{tmp_path}/socket") as (process, url):
        process.send_signal(signal.SIGSTOP)
        answered = 0

        async def ask() -> None:
            nonlocal answered
            async with connect_unix(url.removeprefix("unix://"), config=ClientConfig(handshake_timeout=PATIENCE)):
                answered += 1

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            assert answered == 0
            process.send_signal(signal.SIGCONT)
        assert answered == 200


async def test_leaving_a_session_does_not_hang_on_a_server_that_is_stopped(tmp_path: Path) -> None:
    config = ClientConfig(leave_timeout=0.01)
    with daemon(f"unix://{tmp_path}/socket") as (process, _):
        async with connect_unix(tmp_path / "socket", config=config) as client:
            with trio.fail_after(PATIENCE):
                async with client.start(["sleep", "1000"]):
                    process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(10) == 0


# -- standard streams that are not there --


@pytest.mark.few
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&-", "2>/dev/full", ">/dev/full"])
def test_serving_without_a_stream(redirection: str, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/socket"
    argv = ["sh", "-c", f"exec {' '.join(EXECSRV)} serve --listen {url} {redirection}"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until_listening(tmp_path / "socket", process)
            assert execsrv("run", "--url", url, "--", "echo", "hi").stdout == "hi\n"
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.few
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_serving_with_nobody_who_reads(stream: str, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/socket"
    reader, writer = os.pipe()
    os.close(reader)
    ends = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: writer}
    argv = [*EXECSRV, "serve", "--listen", url]
    with subprocess.Popen(argv, stdout=ends["stdout"], stderr=ends["stderr"]) as process:
        os.close(writer)
        try:
            until_listening(tmp_path / "socket", process)
            assert execsrv("run", "--url", url, "--", "echo", "hi").stdout == "hi\n"
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def until_listening(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody accepts connections there."""
    while True:
        assert process.poll() is None
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.02)


# -- what a parent did to us --


def prepared(code: str, *argv: str) -> list[str]:
    """An argv that runs Python code, and then becomes another program."""
    return [
        sys.executable,
        "-c",
        f"import os, resource, signal, sys\n{code}\nos.execv(sys.argv[1], sys.argv[1:])",
        *argv,
    ]


@pytest.mark.few
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_signals_that_a_parent_has_blocked(number: int) -> None:
    code = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"
    argv = prepared(code, *EXECSRV, "serve", "--listen", "ws://127.0.0.1:0")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert execsrv("run", "--url", url, "sh", "-c", "(exit 3) & wait $!; echo $?").stdout == "3\n"
            process.send_signal(number)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.few
@pytest.mark.parametrize(("number", "ends"), [("TERM", True), ("HUP", False), ("INT", False), ("QUIT", False)])
def test_signals_that_a_parent_has_ignored(number: str, ends: bool) -> None:
    code = f"signal.signal(signal.SIG{number}, signal.SIG_IGN)"
    argv = prepared(code, *EXECSRV, "serve", "--listen", "ws://127.0.0.1:0")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            process.send_signal(getattr(signal, f"SIG{number}"))
            if not ends:
                assert execsrv("run", "--url", url, "echo", "alive").stdout == "alive\n"
                process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


async def test_a_low_limit_of_descriptors_is_for_commands(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    argv = ["bash", "-c", f"ulimit -Sn 256; exec {' '.join(EXECSRV)} serve --listen unix://{path}"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: ASYNC220
        try:
            await trio.to_thread.run_sync(until_listening, path, process)
            async with connect_unix(path) as client, AsyncExitStack() as stack:
                for _ in range(150):
                    await stack.enter_async_context(client.start(["sleep", "1000"]))
                for tty in (False, True):
                    result = await client.run(["bash", "-c", "ulimit -Sn; ulimit -Hn"], tty=tty)
                    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                    assert result.stdout.split() == [b"256", str(hard).encode()]
                assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        finally:
            process.kill()
