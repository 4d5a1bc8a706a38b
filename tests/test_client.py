"""The client, over every transport."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
import trio
from msgspec import UNSET
from msgspec.structs import replace

import execsrv
from execsrv import Chunk, Closed, Exited
from execsrv.errors import (
    CommandFailedError,
    CommandTimeoutError,
    ConnectionFailedError,
    ConnectionLostError,
    InvalidListenURLError,
    InvalidParamsError,
    SpawnError,
    StdinClosedError,
)
from tests.conftest import OpenServer, Server
from tests.peers import PATIENCE
from tests.processes import marked, new_mark, until_gone, until_marked
from tests.test_process_dialect import READY


def untimed(event: execsrv.Event) -> execsrv.Event:
    """An event without its time, which all but gaps have."""
    assert isinstance(event, execsrv.Gap) or isinstance(event.at, float)
    return event if isinstance(event, execsrv.Gap) else replace(event, at_ms=UNSET)


@pytest.fixture
async def client(server: Server) -> execsrv.Client:
    return await server.client()


async def test_run_collects_everything(client: execsrv.Client) -> None:
    result = await client.run(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"hello")
    assert result == execsrv.Result(
        argv=["sh", "-c", "cat; echo err >&2; exit 3"],
        exit_code=3,
        signal=None,
        reason="exited",
        stdout=b"hello",
        stderr=b"err\n",
        totals={"stdout": 5, "stderr": 4},
    )
    with pytest.raises(CommandFailedError, match="ended with exit code 3") as failed:
        result.check()
    assert (failed.value.exit_code, failed.value.stdout, failed.value.stderr) == (3, b"hello", b"err\n")
    with pytest.raises(CommandFailedError, match="died of SIGTERM"):
        await client.run(["sh", "-c", "kill $$"], check=True)
    assert (await client.run(["true"], check=True)).stdout == b""


async def test_run_keeps_beginning_and_end_within_a_bound(client: execsrv.Client) -> None:
    result = await client.run(["sh", "-c", "seq 100000"], max_bytes=100, truncate=True)
    whole = "".join(f"{number}\n" for number in range(1, 100001)).encode()
    assert result.stdout == whole[:50] + whole[-50:]
    assert result.omitted_bytes == len(whole) - 100


async def test_run_times_out_and_tells_what_was_said(client: execsrv.Client) -> None:
    mark = new_mark()
    script = f"echo said; echo err >&2; exec -a {mark} sleep 1000"
    for seconds in (0.5, 5.5, 50.5):  # a busy machine may not have come so far
        with pytest.raises(CommandTimeoutError, match=rf"within {seconds} s") as timeout:
            await client.run(["bash", "-c", script], timeout=seconds)
        if timeout.value.stderr:
            break
    assert (timeout.value.stdout, timeout.value.stderr) == (b"said\n", b"err\n")
    assert not marked(mark)


async def test_run_leaves_nothing_when_cancelled(client: execsrv.Client) -> None:
    mark = new_mark()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run, ["bash", "-c", f"exec -a {mark} sleep 1000"])
        await until_marked(mark, 1)
        nursery.cancel_scope.cancel()
    assert not marked(mark)


async def test_input_that_nobody_reads_is_no_error(client: execsrv.Client) -> None:
    result = await client.run(["sh", "-c", "exec <&-; echo done"], input=bytes(3_000_000))
    assert (result.exit_code, result.stdout) == (0, b"done\n")


async def test_events_come_in_order(client: execsrv.Client) -> None:
    async with client.start(["sh", "-c", "echo out; exit 4"]) as process:
        assert [untimed(event) async for event in process.events()] == [
            Chunk(1, "stdout", b"out\n"),
            Exited(2, 4, None, "exited"),
            Closed(3, {"stdout": 4, "stderr": 0}),
        ]
        assert await process.next_event() is None
        assert (process.exit_code, repr(process)) == (4, f"<Process {process.id} closed pid={process.pid}>")
        assert (await process.wait()).exit_code == 4


async def test_a_conversation(client: execsrv.Client) -> None:
    async with client.start(["sh", "-c", "while read line; do echo got $line; done; echo end"], stdin=True) as process:
        output = process.output
        for word in (b"one", b"two"):
            await process.write(word + b"\n")
            assert await anext(output) == b"got " + word + b"\n"
        await process.close_stdin()
        assert [chunk async for chunk in output] == [b"end\n"]
        with pytest.raises(StdinClosedError):
            await process.write(b"late")


async def test_a_terminal(client: execsrv.Client) -> None:
    script = "stty size; trap 'stty size; exit 9' WINCH; echo ready; while :; do sleep 0.05; done"
    async with client.start(["sh", "-c", script], tty=True, size=(40, 100)) as process:
        said = b""
        async for chunk in process.output:
            said += chunk
            if said.endswith(b"ready\r\n"):
                await process.resize(41, 101)
        assert said == b"40 100\r\nready\r\n41 101\r\n"
        assert (await process.wait()).exit_code == 9


async def test_signals_and_termination(client: execsrv.Client) -> None:
    async with client.start(READY) as process:
        await process.next_event()
        await process.interrupt()
        assert untimed(await process.wait()) == Exited(2, 128 + signal.SIGINT, "SIGINT", "signaled")
    async with client.start(["sleep", "1000"]) as process:
        assert await process.kill()
        assert untimed(await process.wait()) == Exited(1, 128 + signal.SIGKILL, "SIGKILL", "terminated")
        assert not await process.kill()
        assert not await process.terminate()


async def test_after_the_end_only_input_is_refused(client: execsrv.Client) -> None:
    for tty in (False, True):
        async with client.start(["true"], stdin=not tty, tty=tty) as process:
            await process.communicate()
            assert await process.send_signal("TERM") == 0
            assert not await process.terminate()
            with pytest.raises(StdinClosedError):
                await process.write(b"late")
    await process.resize(10, 10)


async def test_leaving_the_block_ends_the_tree(client: execsrv.Client) -> None:
    mark = new_mark()
    child = f"(exec -a {mark} sleep 1000)"
    async with client.start(["bash", "-c", f"{child} & {child} >/dev/null 2>&1 & echo ready"]) as process:
        assert (await process.wait()).exit_code == 0
        await until_marked(mark, 2)
    await until_gone(mark)
    with pytest.raises(KeyError, match="mine"):
        async with client.start(["bash", "-c", f"exec -a {mark} sleep 1000"]):
            await until_marked(mark, 1)
            raise KeyError("mine")
    await until_gone(mark)


async def test_what_waits_for_something_behind_its_block_is_told_or_ends(open_server: OpenServer) -> None:
    with trio.fail_after(PATIENCE):
        async with open_server("memory", execsrv.ServerConfig()).open_client() as client:
            async with client.start(["cat"], stdin=True) as process:
                process.leave_running()
            with pytest.raises(trio.ClosedResourceError, match="the block of process p1 was left"):
                await process.wait()
            await process.write(b"on")  # the server knows it
            assert (await process.wait_for(output="on")).kind == "output"
        await process.stdout.aclose()
        assert [told async for told in client.presence()] == []


@pytest.mark.parametrize("transport", ["unix", "websocket"])
async def test_a_cancel_around_the_client_waits_for_the_ends_of_its_commands(server: Server, tmp_path: Path) -> None:
    asked = ["sh", "-c", "trap 'sleep 0.3; touch done; exit' TERM; echo ready; while :; do sleep 0.05; done"]
    url = await server.url()
    with trio.CancelScope() as scope:
        async with execsrv.connect(url) as client, client.start(asked, cwd=tmp_path, grace=60) as process:
            await process.wait_for(output="ready")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert (tmp_path / "done").exists()


async def test_errors_are_what_the_server_raised(client: execsrv.Client) -> None:
    with pytest.raises(SpawnError) as spawn:
        await client.run(["/does/not/exist"])
    assert (spawn.value.stage, spawn.value.errno, spawn.value.kind) == ("program", 2, "spawnNotFound")
    with pytest.raises(InvalidParamsError, match="argv must not be empty"):
        await client.run([])
    with pytest.raises(InvalidParamsError, match="cwd"):
        await client.run(["true"], cwd="relative")
    async with client.start(["true"]) as process:
        await process.wait()
        with pytest.raises(InvalidParamsError, match="no terminal"):
            await process.resize(1, 1)
    assert (await client.run(["echo", "on"])).stdout == b"on\n"


async def test_wrong_arguments_fail_their_call_and_no_other(client: execsrv.Client, tmp_path: Path) -> None:
    assert (await client.run(["pwd"], cwd=tmp_path)).stdout.decode().strip() == str(tmp_path)
    assert (await client.run(["ls", Path("/proc/self/comm")])).stdout == b"/proc/self/comm\n"
    with pytest.raises(TypeError, match=r"argv\[1\] must be a string|expected str"):
        await client.run(["echo", 5])  # type: ignore[list-item]
    with pytest.raises(InvalidParamsError, match="cannot be sent as UTF-8"):
        await client.run(["printf", "a\udcff"])
    with pytest.raises(InvalidParamsError, match="rows"):
        async with client.start(["true"], tty=True, size=(0, 5)):
            pass
    async with client.start(["cat"], stdin=True) as process:
        with pytest.raises(TypeError, match="data must be bytes, got str"):
            await process.write("text")
        await process.write(bytearray(b"bytes\n"))
        assert await anext(process.output) == b"bytes\n"


async def test_environment_is_the_servers_or_exact_or_both(
    client: execsrv.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XS_SECRET", "kept")
    env = "/usr/bin/env"
    assert b"XS_SECRET=kept\n" in (await client.run([env])).stdout
    assert (await client.run([env], env={"A": "1"})).stdout == b"A=1\n"
    async with client.start([env], env_add={"XS_A": "1"}) as process:
        out = (await process.communicate()).stdout
    assert b"XS_SECRET=kept\n" in out
    assert b"XS_A=1\n" in out


@pytest.mark.few
async def test_many_at_once(client: execsrv.Client) -> None:
    results: dict[int, execsrv.Result] = {}

    async def run(number: int) -> None:
        results[number] = await client.run(["sh", "-c", f"cat; exit {number}"], input=str(number).encode())

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(run, number)
    assert all(result.exit_code == number for number, result in results.items())
    assert all(result.stdout == str(number).encode() for number, result in results.items())


async def test_users_get_their_own_exception_back(server: Server) -> None:
    with pytest.raises(ZeroDivisionError):
        async with server.open_client() as client, client.start(["sleep", "1000"]):
            _ = 1 / 0


async def test_cancelled_calls_do_not_disturb_the_others(client: execsrv.Client) -> None:
    async with client.start(["cat"], stdin=True) as process:
        for _ in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await process.write(b"perhaps\n")
        await process.write(b"end\n")
        await process.close_stdin()
        said = b"".join([chunk async for chunk in process.output])
    assert said.endswith(b"end\n")
    assert set(said.splitlines()) <= {b"perhaps", b"end"}


# -- a server of one's own --

SERVE = [sys.executable, "-m", "execsrv", "serve"]


CUT = """
import os
left = 100_000
while left and (data := os.read(0, left)):
    os.write(1, data)
    left -= len(data)
"""


async def test_a_server_that_ends_in_the_middle_of_a_message_has_ended() -> None:
    line = f"{shlex.join([*SERVE, '--listen', 'stdio://'])} | {shlex.join([sys.executable, '-c', CUT])}"
    async with execsrv.launch(["sh", "-c", line]) as client:
        with pytest.raises(ConnectionLostError, match="in the middle of a message"):
            await client.run(["head", "-c", "1000000", "/dev/zero"])


async def test_launch_starts_a_server_and_ends_it() -> None:
    mark = new_mark()
    async with execsrv.launch([*SERVE, "--listen", "stdio://"]) as client:
        assert (await client.run(["echo", "hi"])).stdout == b"hi\n"
        async with client.start(["bash", "-c", f"(exec -a {mark} sleep 1000) & wait"]):
            await until_marked(mark, 1)
            parents = await client.run(["sh", "-c", "echo $PPID"])
    assert not marked(mark)
    with pytest.raises(ProcessLookupError):
        os.kill(int(parents.stdout), 0)


async def test_a_lost_connection_fails_what_waits_with_one_clear_error() -> None:
    script = "echo said; read go; kill -9 $PPID; cat"
    async with execsrv.launch(SERVE) as client:
        async with client.start(["sh", "-c", script], stdin=True) as process:
            while not process._mirror.reader.inbox.has_news("stdout"):
                await process._mirror.reader._arrived.park()
            with trio.fail_after(PATIENCE), pytest.raises(ConnectionLostError, match="the server ended the") as lost:
                await process.communicate(b"go\n")
            assert lost.value.stdout == b"said\n"
            for call in (process.wait, process.terminate, process.interrupt, process.close_stdin):
                with pytest.raises(ConnectionLostError):
                    await call()
        with pytest.raises(ConnectionLostError):
            await client.run(["true"])
        assert repr(client) == "<Client lost processes=0>"


@pytest.mark.parametrize("command", [["/does/not/exist"], ["false"], ["sh", "-c", "echo nonsense; cat"], ["cat"]])
async def test_what_is_no_server_is_a_clear_error(command: list[str]) -> None:
    with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError, match=r"cannot start|handshake failed"):
        async with execsrv.launch(command):
            pass


async def test_a_server_that_does_not_answer_is_given_up_on() -> None:
    with trio.fail_after(PATIENCE), pytest.raises(ConnectionFailedError, match=r"no answer within 0\.1 s"):
        async with execsrv.launch(["sleep", "2"], config=execsrv.ClientConfig(handshake_timeout=0.1)):
            pass


async def test_urls() -> None:
    with pytest.raises(InvalidListenURLError, match="unsupported URL `http://x`"):
        async with execsrv.connect("http://x"):
            pass
    with pytest.raises(ConnectionFailedError, match="No such file"):
        async with execsrv.connect("unix:///does/not/exist"):
            pass
