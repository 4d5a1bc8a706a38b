"""What a user holds: facts of a process, its two ends, and clear errors where execsrv cannot work."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

import pytest
import trio
import trio.testing

import execsrv
from execsrv import BadAnswerError, Client, ClientConfig, ConnectionFailedError, ProcessExistsError, connect_in_process
from execsrv._nursery import open_helpers
from execsrv._wire.memory import MemoryChannel, open_memory_pair
from execsrv.client.client import open_client
from execsrv.protocol import PROTOCOL_VERSION, ErrorObject, Failure, Notification, Request, Response
from tests.conftest import Server
from tests.peers import PATIENCE
from tests.test_sessions import DEAF_ARGV

# -- facts --


async def test_a_process_knows_its_command_and_its_pid(server: Server) -> None:
    client = await server.client()
    async with client.start(["sh", "-c", "echo $$; exec sleep 1000"]) as process:
        assert process.pid == int(await anext(process.output))
        assert process.argv == ["sh", "-c", "echo $$; exec sleep 1000"]
        assert (process.exit_code, process.returncode, process.signal, process.reason) == (None, None, None, None)
        assert repr(process) == f"<Process {process.id} running pid={process.pid}>"
        process.argv.clear()
        assert process.argv
        assert await process.kill()
        await process.wait()
        assert (process.exit_code, process.returncode) == (128 + signal.SIGKILL, -signal.SIGKILL)
        assert (process.signal, process.reason) == ("SIGKILL", "terminated")


@pytest.mark.parametrize("code", [0, 1, 137, 255])
async def test_a_returncode_is_that_of_subprocess(code: int) -> None:
    argv = ["sh", "-c", f"exit {code}"]
    async with connect_in_process() as client, client.start(argv) as process:
        await process.wait()
        assert process.exit_code == process.returncode == subprocess.run(argv).returncode  # noqa: ASYNC221


# -- two ends --


async def test_terminate_asks_and_kill_does_not(server: Server) -> None:
    client = await server.client()
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 1000 & wait; done"
    for end, exit_code in [("terminate", 7), ("kill", 128 + signal.SIGKILL)]:
        async with client.start(["bash", "-c", script]) as process:
            await anext(process.output)
            with trio.fail_after(PATIENCE):
                assert await getattr(process, end)()
                assert (await process.wait()).exit_code == exit_code
                assert process.reason == "terminated"
                assert not await process.terminate()
                assert not await process.kill()


async def test_a_grace_ends_and_none_is_a_kill(server: Server) -> None:
    client = await server.client()
    for grace in (0.05, 0):
        async with client.start(DEAF_ARGV) as process:
            await anext(process.output)
            with trio.fail_after(PATIENCE):
                assert await process.terminate(grace)
                assert (await process.wait()).signal == "SIGKILL"


async def test_run_takes_the_options_of_start(server: Server) -> None:
    client = await server.client()
    result = await client.run(["sh", "-c", "stty size; cat; echo $0"], tty=True, size=(40, 100), arg0="other")
    assert result.stdout.startswith(b"40 100\r\n")
    assert result.exit_code == 0
    result = await client.run(["cat"], tty=True, input=b"said\n")
    assert result.stdout.endswith(b"said\r\nsaid\r\n")
    assert (await client.run(["sleep", "1000"], idle_timeout=0.1)).reason == "idle"
    assert (await client.run(["/usr/bin/env"], prepared=True, env={"A": "1"})).stdout == b"A=1\n"
    os.environ["XS_INHERITED"] = "yes"
    try:
        result = await client.run(["sh", "-c", "echo $XS_INHERITED$A"], env_add={"A": "1"})
    finally:
        del os.environ["XS_INHERITED"]
    assert result.stdout == b"yes1\n"


async def test_a_timeout_tells_how_the_command_ended(server: Server) -> None:
    client = await server.client()
    with pytest.raises(TimeoutError) as timeout:
        await client.run(["sh", "-c", "echo out; echo why >&2; exec sleep 1000"], timeout=3, grace=60)
    error = timeout.value
    assert isinstance(error, execsrv.CommandTimeoutError)
    assert (error.exit_code, error.signal, error.reason) == (143, "SIGTERM", "timeout")
    assert (error.stdout, error.stderr) == (b"out\n", b"why\n")
    assert str(error).endswith("did not end within 3 s and was ended: why")


# -- servers that are not execsrv --


@asynccontextmanager
async def foreign(answers: dict[str, Any]) -> AsyncIterator[Client]:
    """A client of a server that answers each method with this, and others with an empty object."""
    ours, theirs = open_memory_pair()

    async def answer(channel: MemoryChannel) -> None:
        while (message := await channel.receive()) is not None:
            if isinstance(message, Request):
                await channel.send(Response(message.id, answers.get(message.method, {})))

    async with open_helpers() as nursery:
        nursery.start_soon(answer, theirs)
        async with open_client(lambda: nullcontext(ours), ClientConfig(leave_timeout=0.1)) as client:
            yield client


async def greeting() -> dict[str, Any]:
    """What a server says of itself."""
    async with connect_in_process() as client:
        return {"environmentInfo": client.info, "sessionId": "foreign", "protocolVersion": "other"}


async def test_a_malformed_answer_has_an_error_of_its_own() -> None:
    answers = {
        "initialize": await greeting(),
        "process/start": {"processId": 5},
        "process/terminate": {"running": True},
    }
    with trio.fail_after(PATIENCE):
        async with foreign(answers) as client:
            with pytest.raises(BadAnswerError, match=r"`process/list` is malformed: .*`processes`") as bad:
                await client.processes()
            assert bad.value.method == "process/list"
            with pytest.raises(BadAnswerError, match=r"`process/start` is malformed: .*`\$.processId`") as bad:
                await client.run(["true"])
            assert bad.value.process == "p1"


async def test_a_malformed_greeting_is_no_server() -> None:
    with pytest.raises(ConnectionFailedError, match="answer to `initialize` is malformed"):
        async with foreign({"initialize": {"protocolVersion": 5}}):
            pass


async def test_a_server_need_not_tell_the_pid() -> None:
    answers = {
        "initialize": await greeting(),
        "process/start": {"processId": "p1"},
        "process/terminate": {"running": True},
    }
    with trio.fail_after(PATIENCE):
        async with foreign(answers) as client, client.start(["true"]) as process:
            assert process.pid is None


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_start_that_is_asked_again_still_knows_its_pid(is_over: bool) -> None:
    """The first channel is lost behind the start, whose answer never came; that is over meanwhile, or is not."""
    pids = {"p0": 76, "p1": 77 if is_over else None}
    answers = {
        "initialize": await greeting() | {"protocolVersion": PROTOCOL_VERSION},
        "process/read": {"chunks": [], "nextSeq": 1, "exited": False, "exitCode": None, "closed": False},
        "process/terminate": {"running": True},
    }

    def listed() -> dict[str, Any]:
        known = {"program": "true", "tty": False, "running": True, "exitCode": None, "closed": False}
        return {"processes": [known | {"processId": id, "pid": pid} for id, pid in pids.items()]}

    channels = 0

    async def answer(channel: MemoryChannel, is_first: bool) -> None:
        while isinstance(message := await channel.receive(), Request | Notification):
            match message:
                case Request(_, "process/start") if is_first:
                    await channel.aclose()
                    return
                case Request(id, "process/start"):
                    error = ErrorObject(*ProcessExistsError("it exists").to_wire())
                    await channel.send(Failure(id, error))
                case Request(id, "process/list"):
                    await channel.send(Response(id, listed()))
                case Request(id, "process/wait"):
                    pids["p1"] = 77
                    await channel.send(
                        Response(id, {"running": True, "exitCode": None, "signal": None, "reason": None})
                    )
                case Request(id, method):
                    await channel.send(Response(id, answers[method]))

    async with open_helpers() as nursery:

        @asynccontextmanager
        async def open_channel() -> AsyncIterator[MemoryChannel]:
            nonlocal channels
            ours, theirs = open_memory_pair()
            channels += 1
            nursery.start_soon(answer, theirs, channels == 1)
            yield ours

        with trio.fail_after(PATIENCE):
            async with (
                open_client(open_channel, ClientConfig(leave_timeout=0.1), reconnect=60) as client,
                client.start(["true"]) as process,
            ):
                assert process.pid == 77
    assert channels == 2


# -- where it cannot work --

WAYS: list[Callable[[], AbstractAsyncContextManager[Client]]] = [
    connect_in_process,
    lambda: execsrv.launch(["cat"]),
    lambda: execsrv.connect("unix:///nowhere"),
    lambda: execsrv.connect("ws://127.0.0.1:1"),
    lambda: execsrv.connect_unix("/nowhere"),
    lambda: execsrv.connect_websocket("ws://127.0.0.1:1"),
]


SERVERS: list[Callable[[], Awaitable[None]]] = [
    lambda: execsrv.serve("ws://127.0.0.1:0"),
    lambda: execsrv.serve_channel(trio.testing.memory_stream_pair()[0], identity="me"),
]


@pytest.mark.parametrize("serve", SERVERS)
def test_under_asyncio_serving_says_that_it_needs_trio(serve: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await serve()

    with pytest.raises(RuntimeError, match=r"^execsrv needs trio: .*`trio.run`.*under asyncio.*`execsrv.asyncio`$"):
        asyncio.run(main())


@pytest.mark.parametrize("way", WAYS)
def test_under_asyncio_connecting_says_that_it_needs_trio(
    way: Callable[[], AbstractAsyncContextManager[Client]],
) -> None:
    async def main() -> None:
        async with way():
            raise AssertionError("it cannot get here")

    with pytest.raises(RuntimeError, match=r"^execsrv needs trio: .*`trio.run`.*under asyncio.*`execsrv.asyncio`$"):
        asyncio.run(main())


def test_importing_elsewhere_than_on_linux_says_so() -> None:
    code = "import sys; sys.platform = 'darwin'; import execsrv"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1] == "ImportError: execsrv runs on Linux only, and this is darwin"
