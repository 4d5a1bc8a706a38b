"""The client in a hostile world: nothing that a server, a command or a caller does costs more than the call at hand."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

import execsrv
from execsrv._wire.memory import open_memory_pair
from execsrv.client.client import open_client
from execsrv.client.launching import launched
from execsrv.errors import (
    BadAnswerError,
    CommandTimeoutError,
    ConnectionFailedError,
    ConnectionLostError,
    InvalidParamsError,
    LimitExceededError,
    OutputTruncatedError,
)
from execsrv.limits import KIB, MIB, ClientConfig, ServerConfig
from execsrv.protocol import Notification, Request, Response
from tests.conftest import OpenServer, Server
from tests.peers import MACHINE, PATIENCE
from tests.processes import new_mark, until_gone, until_marked
from tests.web import head, open_web

SERVE = [sys.executable, "-m", "execsrv", "serve"]


@pytest.fixture
async def client(server: Server) -> execsrv.Client:
    return await server.client()


# -- the bounds of the server --


@pytest.mark.few(5)
@pytest.mark.parametrize("size", [0, 256 * KIB, 256 * KIB + 1, 51_000_000])
async def test_input_of_any_size_is_one_write(open_server: OpenServer, transport: str, size: int) -> None:
    server = open_server(transport, ServerConfig(max_message_bytes=MIB, queued_stdin_bytes=64 * KIB))
    client = await server.client()
    async with client.start(["cat"], stdin=True) as other, client.start(["wc", "-c"], stdin=True) as process:
        await process.write(b"x" * size)
        assert int((await process.communicate(b"")).stdout) == size
        await other.write(b"still here")
        assert await anext(other.output) == b"still here"


async def test_views_of_any_shape_are_bytes(client: execsrv.Client) -> None:
    whole = memoryview(bytes(range(240)))
    for view in (whole, whole.cast("I"), whole.cast("B", (4, 60)), whole[::-3], bytearray(whole)):
        async with client.start(["cat"], stdin=True) as process:
            await process.write(view)
            assert (await process.communicate(b"")).stdout == memoryview(view).tobytes()


async def test_writes_of_two_tasks_do_not_mix(client: execsrv.Client) -> None:
    size = 3 * MIB
    async with client.start(["cat"], stdin=True) as process:

        async def write(letter: bytes) -> None:
            await process.write(letter * size)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, b"a")
            nursery.start_soon(write, b"b")
            got = b""
            async for data in process.output:
                got += data
                if len(got) == 2 * size:
                    break
    assert got in (b"a" * size + b"b" * size, b"b" * size + b"a" * size)


async def test_a_deaf_command_holds_its_writer_up_and_nobody_else(open_server: OpenServer, transport: str) -> None:
    server = open_server(transport, ServerConfig(queued_stdin_bytes=300 * KIB))
    client = await server.client()
    async with client.start(
        ["sh", "-c", "trap 'wc -c; exit' INT; echo ready; while :; do sleep .05; done"], stdin=True
    ) as deaf:
        assert await anext(deaf.output) == b"ready\n"
        for _ in range(20):  # each leaves at most one piece behind
            with trio.move_on_after(0.02) as scope:
                await deaf.write(bytes(20 * MIB))
            assert scope.cancelled_caught
        assert (await client.run(["echo", "on"])).stdout == b"on\n"
        await deaf.interrupt()
        with trio.fail_after(PATIENCE):
            await deaf.close_stdin()
            assert int(await anext(deaf.output)) % (256 * KIB) == 0


@pytest.mark.parametrize("bounded", ["client", "server"])
async def test_what_fits_into_no_message_is_the_error_of_its_call(
    open_server: OpenServer, transport: str, bounded: str
) -> None:
    server = open_server(transport, ServerConfig(max_message_bytes=MIB if bounded == "server" else 64 * MIB))
    client = await server.client(ClientConfig(max_message_bytes=MIB if bounded == "client" else 64 * MIB))
    async with client.start(["cat"], stdin=True) as other:
        calls: dict[str, Any] = {
            "argv[1]": lambda: client.run(["true", "x" * (MIB)]),
            "env['LONG']": lambda: client.run(["true"], env={"LONG": "x" * (MIB), "SHORT": "y"}),
            "arg0": lambda: client.run(["true"], arg0="x" * (MIB)),
        }
        beyond: dict[str, Any] = {
            "cwd": lambda: client.run(["true"], cwd="/" + "x" * (MIB)),
            "signal": lambda: other.send_signal("x" * (MIB)),
        }
        for field, call in calls.items():
            with pytest.raises(LimitExceededError) as caught:
                await call()
            assert str(caught.value).startswith(f"{field} is too large with 1048"), field
            assert (caught.value.facts["limit"], caught.value.facts["field"]) == ("max_message_bytes", field)
        for field, call in beyond.items():
            with pytest.raises(InvalidParamsError, match=rf"Expected `str.* of length <= [0-9]+ - at `\$\.{field}`"):
                await call()
        await other.write(b"still here")
        assert await anext(other.output) == b"still here"


@pytest.mark.few(6)
@pytest.mark.parametrize("bounded", ["client", "server"])
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_what_fits_into_a_message_to_the_byte_is_sent(
    open_server: OpenServer, transport: str, tmp_path: Path, encoding: Literal["json", "msgpack"], bounded: str
) -> None:
    server = open_server(transport, ServerConfig(max_message_bytes=MIB if bounded == "server" else 64 * MIB))
    config = ClientConfig(max_message_bytes=MIB if bounded == "client" else 64 * MIB, encoding=encoding)
    client = await server.client(config)
    await client.run(["true"])  # which leaves the smallest ids behind
    with pytest.raises(LimitExceededError) as caught:
        await client.run(["true", *["x" * 100_000] * 11])
    has = re.search(r"^argv\[1\] is too large with 100000 bytes: the message would have ([0-9]+)", str(caught.value))
    assert has is not None
    fitting = 1_100_000 - (int(has[1]) - MIB)
    words = ["true", *["x" * 95_000] * 10]
    assert (await client.run([*words, "x" * (fitting - 950_000)])).exit_code == 0
    with pytest.raises(LimitExceededError, match=f"the message would have {MIB + 1}, "):
        await client.run([*words, "x" * (fitting - 950_000 + 1)])
    body = bytes((MIB - 1000) * (3 if encoding == "json" else 4) // 4)
    await client.files.write(tmp_path / "file", body)
    assert (tmp_path / "file").read_bytes() == body


TIMES: dict[str, tuple[Any, str]] = {
    "nan": (math.nan, "0 s, got nan"),
    "negative": (-1, "0 s, got -1"),
    "minus infinity": (-math.inf, "0 s, got -inf"),
    "a huge negative": (-(10**5000), "0 s, got less"),
    "huge": (1e300, "must be at most"),
    "a huge integer": (10**5000, "must be at most"),
    "decimal": (Decimal("5"), "must be a number of seconds, got Decimal"),
    "text": ("5", "must be a number of seconds, got '5'"),
    "a bool": (True, "must be a number of seconds, got True"),
}


@pytest.mark.parametrize("name", TIMES)
async def test_no_time_is_refused(name: str) -> None:
    time, complaint = TIMES[name]
    async with execsrv.connect_in_process() as client, client.start(["cat"], stdin=True) as process:
        for argument in ("timeout", "idle_timeout"):
            with pytest.raises(InvalidParamsError, match=f"{argument} .*{complaint}"):
                await client.run(["true"], **{argument: time})
            with pytest.raises(InvalidParamsError, match=f"{argument} .*{complaint}"):
                async with client.start(["true"], **{argument: time}):
                    pass
        for call in (lambda: process.terminate(grace=time), lambda: client.run(["true"], grace=time)):
            with pytest.raises(InvalidParamsError, match=f"grace .*{complaint}"):
                await call()
    with pytest.raises(InvalidParamsError, match=f"reconnect .*{complaint}"):
        async with execsrv.connect("unix:///nowhere", reconnect=time):
            pass


async def test_infinity_is_no_bound(client: execsrv.Client) -> None:
    result = await client.run(["echo", "hi"], timeout=math.inf, idle_timeout=math.inf)
    assert (result.stdout, result.exit_code) == (b"hi\n", 0)
    async with client.start(["sleep", "1000"], timeout=math.inf, idle_timeout=math.inf) as process:
        assert await process.terminate(grace=math.inf)
        assert (await process.wait()).signal == "SIGTERM"


# -- silence --

STANDS_STILL = """
import sys, trio, execsrv

async def main():
    config = execsrv.ClientConfig(ping_interval=0.05, ping_timeout=0.05)
    async with execsrv.connect(sys.argv[1], config=config) as client, client.start(["cat"], stdin=True) as process:
        print("started", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        await process.write(b"lives")
        print((await anext(process.output)).decode(), flush=True)

trio.run(main)
"""


@pytest.mark.parametrize("scheme", ["ws", "unix"])
async def test_a_client_on_this_machine_that_stands_still_is_not_gone(open_server: OpenServer, scheme: str) -> None:
    server = open_server("websocket" if scheme == "ws" else "unix", ServerConfig(ping_interval=0.05, ping_timeout=0.05))
    argv = [sys.executable, "-c", STANDS_STILL, await server.url()]
    async with trio.open_nursery() as nursery:
        program: trio.Process = await nursery.start(
            partial(trio.run_process, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        )
        assert program.stdin is not None
        assert program.stdout is not None
        with trio.fail_after(PATIENCE):
            assert await program.stdout.receive_some(7) == b"started"
            program.send_signal(signal.SIGSTOP)
            await trio.sleep(1)  # many times what a peer elsewhere would have
            program.send_signal(signal.SIGCONT)
            await program.stdin.send_all(b"go on\n")
            assert b"".join([data async for data in program.stdout]) == b"\nlives\n"


# -- readers --


async def test_a_second_reader_is_refused(client: execsrv.Client) -> None:
    async with client.start(["cat"], stdin=True) as process:
        got: list[bytes] = []

        async def read() -> None:
            async for data in process.output:
                got.append(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked(0.01)
            for attempt in (process.next_event, process.communicate, lambda: anext(process.output)):
                with pytest.raises(trio.BusyResourceError, match="another task is reading"):
                    await attempt()
            await process.write(b"for the first")
            await process.close_stdin()
        assert got == [b"for the first"]
        assert await process.next_event() is None


@pytest.mark.few
async def test_more_output_than_anybody_allowed_is_an_error(client: execsrv.Client) -> None:
    argv = ["head", "-c", "70000000", "/dev/zero"]
    with pytest.raises(OutputTruncatedError, match="more than 67108864 bytes, and truncate=True was not") as caught:
        await client.run(argv)
    assert 60 * MIB < len(caught.value.stdout) <= 64 * MIB
    async with client.start(["yes"]) as process:
        with trio.fail_after(PATIENCE), pytest.raises(OutputTruncatedError):
            await process.communicate()
    result = await client.run(argv, max_bytes=1000, truncate=True)
    assert (len(result.stdout), result.omitted_bytes) == (1000, 70_000_000 - 1000)
    result = await client.run(argv, max_bytes=80_000_000)
    assert (len(result.stdout), result.omitted_bytes) == (70_000_000, 0)


# -- ends --


def polite(lock: Path) -> str:
    return f"trap 'echo cleaning; rm -f {lock}; exit 3' TERM; touch {lock}; echo ready; while :; do sleep .05; done"


async def test_what_a_command_leaves_behind_is_asked_before_run_returns(client: execsrv.Client, tmp_path: Path) -> None:
    script = f"({polite(tmp_path / 'lock')}) >/dev/null 2>&1 & while [ ! -e lock ]; do sleep .05; done; echo done"
    result = await client.run(["bash", "-c", script], cwd=tmp_path, grace=PATIENCE)
    assert (result.exit_code, result.stdout, result.remaining) == (0, b"done\n", [])
    assert not (tmp_path / "lock").exists()
    assert "bash" in [member.name for member in result.ended]


@pytest.mark.parametrize("streams", ["", ">/dev/null 2>&1"])
@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
async def test_run_ends_with_the_leader(client: execsrv.Client, streams: str, trap: str) -> None:
    mark = new_mark()
    script = f"{trap} (exec -a {mark} sleep 1000) {streams} & echo started; exit 5"
    with trio.fail_after(PATIENCE):
        result = await client.run(["bash", "-c", script], grace=0.2)
    assert (result.exit_code, result.reason, result.stdout) == (5, "exited", b"started\n")
    assert len(result.ended) == 1
    assert result.ended[0].name in ("sleep", "bash")  # it may not have come to its `exec` yet
    await until_gone(mark)


async def test_a_command_that_is_late_says_its_last_words(client: execsrv.Client, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for patience in (0.5, 5, 50):  # a busy machine may not have come so far
        with pytest.raises(CommandTimeoutError, match="and was ended") as caught:
            await client.run(["bash", "-c", polite(lock)], timeout=patience, grace=PATIENCE)
        if caught.value.exit_code == 3:
            break
    assert (caught.value.exit_code, caught.value.stdout, caught.value.reason) == (3, b"ready\ncleaning\n", "timeout")
    assert not lock.exists()


async def test_leaving_a_block_asks_first_and_waits_no_longer_than_it_was_told(
    client: execsrv.Client, tmp_path: Path
) -> None:
    lock, mark = tmp_path / "lock", new_mark()
    async with client.start(["bash", "-c", polite(lock)], grace=PATIENCE) as process:
        assert await anext(process.output) == b"ready\n"
    assert not lock.exists()
    with trio.fail_after(PATIENCE):
        async with client.start(["bash", "-c", f"trap '' TERM; exec -a {mark} sleep 1000"], grace=0.1) as process:
            await until_marked(mark, 1)
        await until_gone(mark)
    async with client.start(["bash", "-c", polite(lock)], grace=0) as process:
        assert await anext(process.output) == b"ready\n"
    assert lock.exists()


# -- what a command is given --


async def test_a_command_has_what_its_caller_gives_it(client: execsrv.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XS_GONE", "1")
    script = "umask; nice; cat /proc/self/oom_score_adj; echo ${XS_GONE-gone} $XS_HERE"
    result = await client.run(
        ["sh", "-c", script],
        env_add={"XS_HERE": "here"},
        env_remove=["XS_GONE"],
        umask=0o27,
        nice=7,
        oom_score_adj=800,
    )
    assert result.stdout == b"0027\n7\n800\ngone here\n"
    script = "import fcntl, struct, termios; print(*struct.unpack('4H', fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))))"
    argv = ["sh", "-c", f'stty -a; exec {sys.executable} -I -S -c "{script}"']
    result = await client.run(argv, tty=True, size=(30, 90, 900, 600), modes={"echo": False, "erase": 8})
    assert b"30 90 900 600\r\n" in result.stdout
    assert b" -echo " in result.stdout
    assert b"erase = ^H;" in result.stdout
    for wrong in ((30,), (30, 90, 900), 30):
        with pytest.raises(InvalidParamsError, match="size must be"):
            await client.run(["true"], tty=True, size=wrong)  # type: ignore[arg-type]


async def test_without_a_place_it_is_the_servers_own_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = f"cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec {' '.join(SERVE)}"
    async with execsrv.launch(["sh", "-c", script]) as client:
        result = await client.run(["sh", "-c", "ls /proc/self/cwd/; readlink /proc/$$/cwd"])
        assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/gone (deleted)\n".encode())


async def test_what_could_not_be_ended_on_a_channel_that_stood_still_is_ended_when_it_goes_on(tmp_path: Path) -> None:
    mark, path = new_mark(), tmp_path / "socket"
    async with trio.open_nursery() as nursery:
        argv = [*SERVE, "--listen", f"unix://{path}"]
        daemon: trio.Process = await nursery.start(
            partial(trio.run_process, argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
        )
        assert daemon.stdout is not None
        assert await daemon.stdout.receive_some()
        with trio.fail_after(PATIENCE):
            async with (
                execsrv.connect_unix(path, config=ClientConfig(leave_timeout=0.05)) as client,
                client.start(["sha256sum"], stdin=True) as busy,
                trio.open_nursery() as writing,
            ):
                async with client.start(["sleep", "1000"], arg0=mark, grace=0):
                    await until_marked(mark, 1)
                    daemon.send_signal(signal.SIGSTOP)
                    writing.start_soon(busy.write, bytes(4 * MIB))
                    await wait_all_tasks_blocked(0.1)  # its first pieces have filled the socket
                daemon.send_signal(signal.SIGCONT)
                await until_gone(mark)
        daemon.terminate()


# -- answers that are none --


async def test_a_malformed_answer_to_a_start_is_told_at_once() -> None:
    """Nothing is known of an end that could be waited for, and `leave_timeout` is hours here."""
    script = r"""
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    answers = {
        "initialize": {"sessionId": "s", "protocolVersion": "", "environmentInfo": {
            "shell": {"name": "sh", "path": "/bin/sh"}, "executorVersion": "", "cwd": "file:///", "userHomeDir": "file:///",
            "platformOs": "linux", "tempDir": "file:///tmp"}},
        "process/start": {"nonsense": 1},
        "process/terminate": {"running": True},
    }
    if "id" in asked:
        print(json.dumps({"id": asked["id"], "result": answers[asked["method"]]}), flush=True)
"""
    config = ClientConfig(leave_timeout=10_000)
    with trio.fail_after(PATIENCE):
        async with execsrv.launch([sys.executable, "-I", "-S", "-c", script], config=config) as client:
            with pytest.raises(BadAnswerError, match="process/start"):
                await client.run(["true"])


FLOODING = r"""
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "initialize":
        greeting = {"sessionId": "s", "protocolVersion": "exec-server.v0", "environmentInfo": {
            "shell": {"name": "sh", "path": "/bin/sh"}, "executorVersion": "", "cwd": "file:///", "userHomeDir": "file:///",
            "platformOs": "linux", "tempDir": "file:///tmp"}}
        print(json.dumps({"id": asked["id"], "result": greeting}), flush=True)
    if asked["method"] == "process/start":
        id = asked["params"]["processId"]
        print(json.dumps({"id": asked["id"], "result": {"processId": id, "pid": 1}}), flush=True)
        seq = 0
        while True:
            seq += 1
            told = {"processId": id, "seq": seq, "stream": "stdout", "chunk": "eHh4" * 10_000}
            print(json.dumps({"method": "process/output", "params": told}), flush=True)
"""


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_server_that_does_not_keep_to_the_window_costs_its_connection(key: str | None) -> None:
    """Also before it has said where the log begins."""
    config = ClientConfig(window_bytes=64 * KIB)
    with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError, match="more output than the window of 65536"):
        async with (
            execsrv.launch([sys.executable, "-I", "-S", "-c", FLOODING], config=config) as client,
            client.start(["true"], key=key) as process,
        ):
            await process.snapshot()


async def test_a_server_that_breaks_every_bound_costs_its_connection_and_nothing_else() -> None:
    """One byte beyond the bound and a ping behind it: answering that while closing is a fault of the library below."""
    size = MIB
    greeting = {"sessionId": "s", "environmentInfo": MACHINE}

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += await stream.receive_some()
            [key] = re.findall(rb"(?i)sec-websocket-key: *(\S+)", asked)
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
            fields = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}")
            upgrade = "\r\n".join(("HTTP/1.1 101 Switching Protocols", *fields, "", "")).encode()
            answer = json.dumps({"id": 1, "result": greeting}).encode()
            await stream.send_all(upgrade + b"\x81\x7e" + len(answer).to_bytes(2, "big") + answer)
            await stream.receive_some()
            await stream.send_all(b"\x01\x7f" + size.to_bytes(8, "big") + b"x" * size)
            await stream.send_all(b"\x00\x01y" + b"\x89\x00")
            while await stream.receive_some():
                pass

    bystander_lives = trio.Event()
    async with trio.open_nursery() as nursery, trio.open_nursery() as serving:
        [listener] = await serving.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1", handler_nursery=serving))

        async def bystander() -> None:
            await bystander_lives.wait()

        nursery.start_soon(bystander)
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        with trio.fail_after(PATIENCE):
            async with execsrv.connect(url, config=ClientConfig(max_message_bytes=size)) as client:
                with pytest.raises(ConnectionLostError):
                    await client.run(["true"])
        bystander_lives.set()
        serving.cancel_scope.cancel()


# -- ways of not getting there --

GREETING = "printf 'Welcome to the machine\\nLast login: \\033[1mnever\\n\\n{}\\n'; ".replace("{}", "{ not a message }")


async def test_a_greeting_is_passed_over() -> None:
    server = " ".join(shlex.quote(word) for word in SERVE)
    for greeting in (GREETING, "seq 999; ", "printf '\\377\\376\\n'; ", "printf '\\n\\357\\273\\277'; "):
        async with execsrv.launch(["sh", "-c", f"{greeting} exec {server}"]) as client:
            assert (await client.run(["echo", "hi"])).stdout == b"hi\n"


NO_SERVERS = {
    "greeting": (
        GREETING,
        r'`sh -c .*` ended with exit code 0; the server said "Welcome to the machine.* and no message',
    ),
    "greeting and failure": ("echo Welcome; exit 255", r'exit code 255; the server said "Welcome" and no message'),
    "half a line": ("printf Password:", r'the server said "Password:" and no message'),
    "endless": ("yes", r'the server said "y y y y .*\.\.\." and no message'),
    "one endless line": ("cat /dev/zero", r"the server said .*\.\.\.\" and no message"),
    "nothing": ("exit 0", r"`sh -c 'exit 0'` ended with exit code 0$"),
    "not found": ("exec /does/not/exist", r"ended with exit code 127 \(a program that is not there\)"),
    "killed": ("kill -9 $$", r"died of SIGKILL"),
    "an echo": ("echo Hello; cat", r'requests and answers none; the server said "Hello"$'),
}


@pytest.mark.parametrize("name", NO_SERVERS)
async def test_what_is_launched_and_no_server_is_quoted(name: str) -> None:
    script, complaint = NO_SERVERS[name]
    with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError, match=complaint) as caught:
        async with execsrv.launch(["sh", "-c", script]):
            pass
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("until", ["process/start", "process/terminate"])
async def test_a_loss_tells_which_command_may_have_run(open_server: OpenServer, until: str) -> None:
    """Also where the last that was asked is the end of what has outlived it: a pool must not run it once more."""
    real = await open_server("memory", ServerConfig()).client()
    ours, theirs = open_memory_pair()
    left = [{"pid": 1, "name": "sleep"}]

    async def serve_until_then() -> None:
        while (message := await theirs.receive()) is not None:
            match message:
                case Request(_, method) if method == until:
                    break
                case Request(id, "initialize"):
                    await theirs.send(Response(id, {"environmentInfo": real.info, "sessionId": "x"}))
                case Request(id, "process/start", start):
                    told: dict[str, Any] = {"processId": start.process_id}
                    await theirs.send(Response(id, told))
                    await theirs.send(Notification("process/exited", {**told, "seq": 1, "exitCode": 0}))
                    await theirs.send(Notification("process/closed", {**told, "seq": 2, "remaining": left}))
        await theirs.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_until_then)
        async with open_client(lambda: nullcontext(ours), ClientConfig()) as client:
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError) as caught:
                await client.run(["true"])
    assert caught.value.process == "p1"


async def test_words_of_a_newer_server_are_taken(open_server: OpenServer) -> None:
    """They come as they are where somebody is told them; a coming and going that nobody here knows is passed over."""
    real = await open_server("memory", ServerConfig()).client()
    ours, theirs = open_memory_pair()
    listed = {"processId": "p1", "pid": 1, "program": "true", "tty": False, "running": False, "exitCode": 0}
    ended = {"closed": True, "state": "archived", "reason": "quota"}
    came = {"connectionId": "1", "member": {"memberId": "m", "principal": "p", "clientName": "c", "role": "auditor"}}

    async def serve() -> None:
        while (message := await theirs.receive()) is not None:
            match message:
                case Request(id, "initialize"):
                    greeting = {"environmentInfo": real.info, "sessionId": "x", "protocolVersion": "exec-server.v0"}
                    await theirs.send(Response(id, greeting))
                case Request(id, "process/start", start):
                    told: dict[str, Any] = {"processId": start.process_id, "seq": 1}
                    await theirs.send(Response(id, told))
                    await theirs.send(Notification("process/exited", {**told, "exitCode": 0, "reason": "quota"}))
                    await theirs.send(Notification("process/closed", {**told, "seq": 2, "treeEmpty": "cell"}))
                case Request(id, "process/list"):
                    await theirs.send(Notification("connection/presence", {**came, "happened": "renamed"}))
                    await theirs.send(Notification("connection/presence", {**came, "happened": "joined"}))
                    await theirs.send(Response(id, {"processes": [{**listed, **ended}]}))
                case Request(id):
                    await theirs.send(Response(id, {"running": False}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.fail_after(PATIENCE):
            async with open_client(lambda: nullcontext(ours), ClientConfig()) as client:
                presence = client.presence()
                assert str((await client.run(["true"])).reason) == "quota"
                (process,) = await client.processes()
                assert (process.state, process.reason) == ("archived", "quota")
                coming = await anext(presence)
                assert coming.member is not None
                assert (coming.happened, coming.member.role) == ("joined", "auditor")
        nursery.cancel_scope.cancel()


async def test_a_prompt_that_waits_for_an_answer_is_quoted() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(b"Welcome\nPassword: ")
    config = ClientConfig(handshake_timeout=1)
    complaint = r'^handshake failed: no answer within 1 s; the server said "Welcome Password:" and no message$'
    with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError, match=complaint):
        async with execsrv.connect_stdio(ours, ours, config=config):
            pass


async def test_ssh_that_does_not_get_there_is_named(tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexit 255\n")
    ssh.chmod(0o755)
    with pytest.raises(ConnectionFailedError, match=r"exit code 255 \(ssh could not connect\)"):
        async with execsrv.launch([str(ssh), "host", "execsrv", "serve"]):
            pass
    with pytest.raises(InvalidParamsError, match="command must not be empty"):
        async with execsrv.launch([]):
            pass
    with pytest.raises(ConnectionFailedError, match=r"cannot start `.*a.b.*`: embedded null byte"):
        async with execsrv.launch(["a\0b"]):
            pass


ANSWERS = {
    "a page": (head("Content-Length: 6") + b"<html>", "this is no exec server: it answered 200 OK$"),
    "not found": (
        head("Content-Length: 0", status="404 Not Found"),
        "this is no exec server: it answered 404 Not Found$",
    ),
    "refused": (
        head("Content-Length: 9", status="403 Forbidden") + b"no entry\n",
        "it answered 403 Forbidden: no entry$",
    ),
    "a proxy": (head("Content-Length: 6", status="502 Bad Gateway") + b"<html>", "it answered 502 Bad Gateway$"),
    "ssh": (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", "this is no exec server: it does not speak HTTP as a websocket does$"),
    "a greeting": (b"SSH-2.0-OpenSSH_9.9\r\n", "this is no exec server: it does not speak HTTP as a websocket does$"),
    "a part of one": (b"220", "this is no exec server: it does not speak HTTP as a websocket does$"),
    "a head that was cut": (b"HTTP/1.1 101 Switch", "the peer hung up in the handshake$"),
    "nothing": (b"", "the peer hung up in the handshake$"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_answers_and_is_no_server_is_told_in_a_line(name: str) -> None:
    answer, complaint = ANSWERS[name]
    async with open_web() as web:
        web.pages["/"] = answer
        url = f"ws://127.0.0.1:{web.port}"
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError, match=complaint) as caught:
            async with execsrv.connect(url):
                pass
    assert str(caught.value).startswith(f"cannot connect to `{url}`: ")


async def test_an_address_that_leads_nowhere_is_told_in_a_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refusing = f"127.0.0.1:{taken.getsockname()[1]}"
        for url, complaint in {
            f"ws://{refusing}": "`: Connection refused$",
            f"ws://localhost:{taken.getsockname()[1]}": "`: Connection refused$",
            "ws://nowhere.invalid:1": "its name cannot be resolved: ",
            "ws://" + "x" * 70 + ".org:1": "that is no name of a host$",
            "ws://127.0.0.1:99999": "Port out of range",
            "unix:///does/not/exist": "No such file or directory$",
            "unix://" + "/x" * 100: "path too long$",
        }.items():
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError, match=complaint) as caught:
                async with execsrv.connect(url):
                    pass
            assert str(caught.value).startswith("cannot connect to `")
            assert "\n" not in str(caught.value)


async def test_tls_that_fails_says_so() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(head("Content-Length: 0", status="400 Bad Request"))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        url = f"wss://127.0.0.1:{listener.socket.getsockname()[1]}"
        with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError, match=r"TLS failed \(.*\): does it speak"):
            async with execsrv.connect(url):
                pass
        nursery.cancel_scope.cancel()


# -- the terminal of the client's program --

CTRL_C = """
import signal, sys, trio, execsrv

async def main():
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with execsrv.launch([sys.executable, "-m", "execsrv", "serve"]) as client:
            async with client.start(["cat"], stdin=True) as process:
                print("started", flush=True)
                await anext(signals)
                await process.write(b"lives")
                print((await anext(process.output)).decode(), flush=True)

trio.run(main)
"""

INTERRUPTED = """
import sys, trio, execsrv

async def main():
    async with execsrv.launch([sys.executable, "-m", "execsrv", "serve"]) as client:
        parent = await client.run(["sh", "-c", "echo $PPID"])
        async with client.start(["bash", "-c", f"echo; exec -a {sys.argv[1]} sleep 1000"]) as process:
            await process.next_event()
            print("started", int(parent.stdout), flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.few
@pytest.mark.parametrize("program", [CTRL_C, INTERRUPTED], ids=["handled", "not handled"])
async def test_a_launched_server_hears_nothing_of_the_terminal(program: str) -> None:
    """A Ctrl-C goes to the whole process group of the program; what becomes of the server is for the program to say."""
    mark = new_mark()
    argv = [sys.executable, "-c", program, mark]
    start = partial(
        trio.run_process, argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, check=False
    )
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        with trio.fail_after(PATIENCE):
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stdout.receive_some()
            os.killpg(process.pid, signal.SIGINT)
            rest = b"".join([data async for data in process.stdout])
            assert await process.wait() == (0 if program == CTRL_C else -signal.SIGINT)
    if program == CTRL_C:
        assert rest == b"lives\n"
    else:
        await until_gone(mark)
        with pytest.raises(ProcessLookupError):
            os.kill(int(said.split()[1]), 0)


FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.mark.skipif(not os.access(FREEZER, os.W_OK), reason="needs a freezer of control groups of version 1")
async def test_a_launched_program_that_no_kill_ends_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("execsrv.client.launching._GRACE_SECONDS", 0.1)
    monkeypatch.setattr("execsrv.client.launching._KILLED_SECONDS", 0.1)
    group, mark = FREEZER / new_mark(), new_mark()
    group.mkdir()
    try:
        with trio.fail_after(PATIENCE):
            async with launched(["bash", "-c", f"exec -a {mark} sleep 1000"]) as program:
                await until_marked(mark, 1)
                (group / "cgroup.procs").write_text(str(program.pid))
                (group / "freezer.state").write_text("FROZEN")
        assert "of its kill: left behind" in caplog.text
    finally:
        (group / "freezer.state").write_text("THAWED")
        await until_gone(mark)
        await program.wait()
        group.rmdir()
