"""The client in a hostile world: nothing that a server, a command or a caller does costs more than the call at hand."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import execsrv
from execsrv.errors import (
    BadAnswerError,
    CommandTimeoutError,
    InvalidParamsError,
    LimitExceededError,
    OutputTruncatedError,
)
from execsrv.limits import KIB, MIB, ClientConfig, ServerConfig
from tests.conftest import OpenServer, Server
from tests.peers import PATIENCE
from tests.processes import new_mark, until_gone, until_marked

SERVE = [sys.executable, "-m", "execsrv", "serve"]


@pytest.fixture
async def client(server: Server) -> execsrv.Client:
    return await server.client()


# -- the bounds of the server --


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


async def test_what_fits_into_no_message_is_the_error_of_its_call(server: Server) -> None:
    client = await server.client(ClientConfig(max_message_bytes=MIB))
    async with client.start(["cat"], stdin=True) as other:
        calls: dict[str, Any] = {
            "argv[1]": lambda: client.run(["true", "x" * (MIB)]),
            "env['LONG']": lambda: client.run(["true"], env={"LONG": "x" * (MIB), "SHORT": "y"}),
            "cwd": lambda: client.run(["true"], cwd="/" + "x" * (MIB)),
            "arg0": lambda: client.run(["true"], arg0="x" * (MIB)),
            "signal": lambda: other.send_signal("x" * (MIB)),
        }
        for field, call in calls.items():
            with pytest.raises(LimitExceededError) as caught:
                await call()
            assert str(caught.value).startswith(f"{field} is too large with 1048"), field
            assert (caught.value.facts["limit"], caught.value.facts["field"]) == ("max_message_bytes", field)
        await other.write(b"still here")
        assert await anext(other.output) == b"still here"


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
            assert await program.stdout.receive_some(8) == b"started\n"
            program.send_signal(signal.SIGSTOP)
            await trio.sleep(1)  # many times what a peer elsewhere would have
            program.send_signal(signal.SIGCONT)
            await program.stdin.send_all(b"go on\n")
            assert b"".join([data async for data in program.stdout]) == b"lives\n"


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


async def test_more_output_than_anybody_allowed_is_an_error(client: execsrv.Client) -> None:
    argv = ["head", "-c", "70000000", "/dev/zero"]
    with pytest.raises(OutputTruncatedError, match="printed more than 67108864 bytes, and no max_bytes") as caught:
        await client.run(argv)
    assert 60 * MIB < len(caught.value.stdout) <= 64 * MIB
    async with client.start(["yes"]) as process:
        with trio.fail_after(PATIENCE), pytest.raises(OutputTruncatedError):
            await process.communicate()
    result = await client.run(argv, max_bytes=1000)
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
    await until_gone(mark)


async def test_a_command_that_is_late_says_its_last_words(client: execsrv.Client, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for patience in (0.5, 5, 50):  # a busy machine may not have come so far
        with pytest.raises(CommandTimeoutError, match="and was ended") as caught:
            await client.run(["bash", "-c", polite(lock)], timeout=patience, grace=PATIENCE)
        if caught.value.exit_code == 3:
            break
    assert (caught.value.exit_code, caught.value.stdout, caught.value.reason) == (3, b"ready\ncleaning\n", "terminated")
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
