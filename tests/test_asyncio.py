"""`execsrv.asyncio`: tasks, their cancels and timeouts, many at once, and notebooks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import execsrv
import execsrv.asyncio
import execsrv.sync
from execsrv import ConnectionLostError
from execsrv.asyncio import Client, Process
from execsrv.testing import assert_no_strays
from tests.peers import PATIENCE
from tests.processes import marked, new_mark, until_it_sleeps_in


def with_client(test: Callable[[Client], Awaitable[None]]) -> None:
    """Run a test with a client, in an event loop of its own; nothing may be left."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), execsrv.asyncio.launch() as client:
            await test(client)

    with assert_no_strays():
        asyncio.run(main(), debug=False)


def test_a_block_leaves_nothing_behind() -> None:
    started: list[Process] = []

    async def test(client: Client) -> None:
        result = await client.run(["sh", "-c", "cat; setsid sleep 1000 & exit 3"], input="a\n", text=True)
        assert (result.stdout, result.exit_code) == ("a\n", 3)
        started.append(await client.start(["sleep", "1000"]))

    with_client(test)


def test_run_has_a_server_of_its_own() -> None:
    with assert_no_strays():
        assert asyncio.run(execsrv.asyncio.run(["echo", "a"], text=True)).stdout == "a\n"


def test_tasks_open_and_share(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).touch()

    async def test(client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(execsrv.asyncio.launch())
        other = opening.result()
        entries = other.files.path(tmp_path).iterdir()

        async def take() -> list[str]:
            return [each.name async for each in entries]

        taken = await asyncio.gather(*(take() for _ in range(4)))
        assert sorted(name for names in taken for name in names) == sorted(map(str, range(100)))
        await other.close()

    with_client(test)


@pytest.mark.slow
def test_a_hundred_at_once() -> None:
    async def test(client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.run(["echo", str(n)], text=True)) for n in range(100)]
        assert [task.result().stdout for task in tasks] == [f"{n}\n" for n in range(100)]

    with_client(test)


def test_a_timeout_ends_the_command() -> None:
    mark = new_mark()

    async def test(client: Client) -> None:
        command = ["bash", "-c", f"exec -a {mark} sleep 1000 & echo; wait"]
        async with client.start(command) as process:
            await anext(process.lines())
            assert len(marked(mark)) == 1
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), 0.01)  # which waits, and ends nothing
            assert len(marked(mark)) == 1
        assert not marked(mark)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.run(command)
        assert not marked(mark)

    with_client(test)


@pytest.mark.parametrize("times", [1, 3])
def test_a_cancel_waits_until_the_command_has_ended(times: int) -> None:
    mark = new_mark()

    async def test(client: Client) -> None:
        async with client.start(["sh", "-c", "cat >/dev/null; echo"], stdin=True) as other:
            task = asyncio.create_task(client.run(["bash", "-c", f"trap '' TERM; exec -a {mark} sleep 1000"]))
            while not marked(mark):  # noqa: ASYNC110  # a process of another program tells nothing
                await asyncio.sleep(0.01)
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not marked(mark)
            await other.close_stdin()
            assert [line async for line in other.lines()] == [""]

    with_client(test)


def test_a_second_cancel_leaves_a_call_behind_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execsrv._portal.awaiting.UNDO_SECONDS", 0)
    released, begun, over = trio.Event(), threading.Event(), threading.Event()

    async def hold() -> None:
        with trio.CancelScope(shield=True):
            begun.set()
            await released.wait()
        over.set()

    async def test(client: Client) -> None:
        task = asyncio.create_task(client._wait(hold))
        while not begun.is_set():  # noqa: ASYNC110  # another thread's
            await asyncio.sleep(0.01)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not over.is_set()
        assert (await client.run(["echo", "a"], text=True)).stdout == "a\n"
        client._hold.block.portal.post(released.set)

    with_client(test)


def test_an_error_in_a_group_ends_the_others() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(client.run(["sleep", "1000"]))
                group.create_task(client.run(["nonexistent"]))
        assert [type(error) for error in caught.value.exceptions] == [execsrv.SpawnError]
        assert not [each for each in await client.processes() if each.running]

    with_client(test)


def test_a_cancel_loses_nothing() -> None:
    """However the cancel and the line cross on their way."""

    async def test(client: Client) -> None:
        count = 300
        async with client.start(["cat"], stdin=True) as process:
            seen: list[str] = []
            cancelled = 0
            for n in range(count):
                reading = asyncio.ensure_future(anext(process.lines()))
                await process.write(f"{n}\n".encode())
                if n % 2:
                    await asyncio.sleep(0)
                reading.cancel()
                try:
                    seen.append(await reading)
                except asyncio.CancelledError:
                    cancelled += 1
            await process.close_stdin()
            seen += [line async for line in process.lines()]
            assert seen == [str(n) for n in range(count)]
            assert cancelled

    with_client(test)


def test_streams_have_the_words_of_asyncio() -> None:
    async def test(client: Client) -> None:
        async with client.start(["sh", "-c", "cat; echo end >&2"], stdin=True) as process:
            await process.stdin.write(b"1\n2\nabc")
            assert await process.stdout.readline() == b"1\n"
            assert await process.stdout.readuntil(b"\n") == b"2\n"
            assert await process.stdout.readexactly(1) == b"a"
            assert await process.stdout.readexactly(0) == await process.stdout.read(0) == b""
            with pytest.raises(ValueError, match="size must not be negative"):
                await process.stdout.readexactly(-1)
            with pytest.raises(ValueError, match="separator must not be empty"):
                await process.stdout.readuntil(b"")
            assert await process.stdout.readexactly(1) == b"b"
            await process.stdin.writelines([b"\n3\n", b"4"])
            await process.stdin.close()
            assert await process.stdout.read(2) == b"c"
            assert [line async for line in process.stdout] == [b"\n", b"3\n", b"4"]
            assert process.stdout.at_eof()
            assert await process.stdout.read() == b""
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await process.stderr.readexactly(10)
            assert caught.value.partial == b"end\n"

    with_client(test)


def test_leaving_the_block_of_an_input_ends_it() -> None:
    async def test(client: Client) -> None:
        async with client.start(["cat"], stdin=True) as process:
            async with process.stdin as stdin:
                await stdin.write(b"said")
            assert await process.stdout.read() == b"said"

    with_client(test)


def test_a_block_that_gives_nothing_can_be_closed_too(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        async with client.start(["cat"], stdin=True) as process:
            async with client.record(process, tmp_path / "a.cast"):
                lasting = await client.record(process, tmp_path / "b.cast")
                await process.write(b"said\n")
                lines = process.lines()
                assert await anext(lines) == "said"
                await lines.close()
                assert [line async for line in lines] == []
            await lasting.close()
        for file in ("a.cast", "b.cast"):
            assert "said" in (tmp_path / file).read_text()

    with_client(test)


def test_a_wait_lets_nothing_go_that_another_task_reads() -> None:
    size = 4 * execsrv.ClientConfig().window_bytes

    async def test(client: Client) -> None:
        async with client.start(["head", "-c", str(size), "/dev/zero"]) as process:
            begun = asyncio.Event()

            async def read() -> int:
                total = len(await anext(process.output))
                begun.set()
                await asyncio.sleep(1)  # as long as that, and longer, the window is full
                return total + sum([len(data) async for data in process.output])

            reading = asyncio.create_task(read())
            await begun.wait()
            assert (await process.wait()).exit_code == 0
            assert await reading == size

    with_client(test)


def test_files_and_many_commands(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        home = client.files.path(tmp_path)
        await (home / "a").write_text("1")
        assert [str(path) async for path in home.iterdir()] == [f"{tmp_path}/a"]
        async for path in home.rglob("*"):
            assert await path.read_text() == "1"
            break
        async with (home / "a").open("r+b") as file:
            await file.write(b"2")
        assert await client.files.read(home / "a", encoding="utf-8") == "2"
        results = client.map((["echo", str(n)] for n in range(30)), limit=4, text=True)
        assert sorted([int(result.stdout) async for result in results]) == list(range(30))

    with_client(test)


def test_a_block_that_fails_is_left_by_its_error() -> None:
    async def test(client: Client) -> None:
        error = ValueError("mine")
        with pytest.raises(ValueError, match="mine") as caught:
            async with client.start(["sleep", "1000"]):
                raise error
        assert caught.value is error

    with_client(test)


def test_a_server_that_is_killed_is_a_lost_connection() -> None:
    async def test(client: Client) -> None:
        server = int((await client.run(["sh", "-c", "echo $PPID"], text=True)).stdout)
        async with client.start(["sleep", "1000"]) as process:
            waiting = asyncio.create_task(process.wait())
            await client.processes()
            os.kill(server, signal.SIGKILL)
            with pytest.raises(ConnectionLostError):
                await waiting

    with_client(test)


async def test_a_trio_program_has_execsrv_itself() -> None:
    with pytest.raises(RuntimeError, match="a trio program has execsrv itself"):
        await execsrv.asyncio.launch()


def test_an_interrupt_ends_the_program_and_all_of_it() -> None:
    code = """
import asyncio, execsrv.asyncio
async def main():
    async with execsrv.asyncio.launch() as client:
        async with client.start(["sh", "-c", "setsid sleep 1000 & echo; sleep 1000"]) as process:
            await anext(process.lines())
            print("ready", flush=True)
            await client.run(["sleep", "1000"])
asyncio.run(main())
"""
    with assert_no_strays():
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as program:
            assert program.stdout is not None
            assert program.stderr is not None
            assert program.stdout.readline() == "ready\n"
            until_it_sleeps_in(program.pid, "epoll")  # asyncio does not wake for one that comes just before
            program.send_signal(signal.SIGINT)
            assert program.stderr.read().endswith("KeyboardInterrupt\n")
        assert program.returncode == -signal.SIGINT


def test_a_client_outlives_its_event_loop() -> None:
    with assert_no_strays():

        async def launch() -> Client:
            return await execsrv.asyncio.launch()

        async def use() -> str:
            return (await client.run(["echo", "a"], text=True)).stdout

        client = asyncio.run(launch())
        assert asyncio.run(use()) == "a\n"
        asyncio.run(client.close())


def test_the_cells_of_a_notebook() -> None:
    """As its kernel runs them: in one namespace, in the thread of a running event loop, some with `await`."""
    cells = [
        "import execsrv, execsrv.sync, execsrv.asyncio",
        "client = execsrv.sync.launch()",
        "process = client.start(['cat'], stdin=True)",
        "process.write(b'1\\n'); said = next(process.lines())",
        "other = await execsrv.asyncio.launch()",
        "result = await other.run(['echo', '2'], text=True); said += result.stdout",
        "process.close()",
        "said += client.run(['echo', '3'], text=True).stdout",
        "client.close()",
        "await other.close()",
    ]
    namespace: dict[str, Any] = {}

    async def kernel() -> None:
        for cell in cells:
            exec(f"async def cell():\n    global client, process, said, other, result, execsrv\n    {cell}", namespace)
            await namespace["cell"]()

    with assert_no_strays():
        asyncio.run(kernel())
    assert namespace["said"] == "12\n3\n"


def test_a_loop_that_is_gone_leaves_its_client_to_the_exit() -> None:
    code = """
import asyncio, execsrv.asyncio
async def main():
    global client, process
    client = await execsrv.asyncio.launch()
    process = await client.start(["sh", "-c", "setsid sleep 1000 & sleep 1000"])
asyncio.run(main())
"""
    with assert_no_strays():
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=PATIENCE)
        assert (done.stderr, done.returncode) == (b"", 0)


def test_sync_works_beside_a_running_loop_and_trio_beside_both() -> None:
    async def in_trio() -> int:
        async with execsrv.connect_in_process() as client:
            return (await client.run(["true"])).exit_code

    async def test(client: Client) -> None:
        assert execsrv.sync.run(["true"]).exit_code == 0
        assert await asyncio.to_thread(trio.run, in_trio) == 0
        assert (await client.run(["true"])).exit_code == 0

    with_client(test)
    for thread in threading.enumerate():
        if thread.name == "execsrv portal":
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_whatever_waits_hears_that_it_was_closed() -> None:
    async def test(client: Client) -> None:
        process = await client.start(["cat"], stdin=True)
        waiting = [asyncio.create_task(process.wait_for(port=1)), asyncio.create_task(process.wait())]
        await process.write(b"begun\n")
        assert await anext(process.lines()) == "begun"
        await process.close()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, trio.ClosedResourceError)

    with_client(test)


@pytest.mark.few
@pytest.mark.parametrize("kind", [None, ValueError, StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_block_is_left_by_its_own_error_alone(kind: type[Exception] | None, is_closed: bool) -> None:
    async def test(other: Client) -> None:
        error = None if kind is None else kind("mine")
        raised: BaseException | None = None
        async with execsrv.asyncio.launch() as client:
            try:
                async with client.start(["sleep", "1000"]):
                    if is_closed:
                        await client.close()
                    if error is not None:
                        raise error
            except BaseException as caught:
                raised = caught
            assert raised is error

    with_client(test)


def test_a_call_that_meets_with_a_close_says_so() -> None:
    """Whichever of the two is first by a step of the portal."""

    async def test(other: Client) -> None:
        client = await execsrv.asyncio.launch()
        block = client._hold.block
        block.portal.post(block._leaving.set)
        with pytest.raises(trio.ClosedResourceError, match="Client was closed"):
            await client.start(["sleep", "1000"])
        process = await other.start(["sleep", "1000"])
        await asyncio.gather(client.close(), client.close(), process.close(), process.close())

    with_client(test)


def test_a_call_whose_loop_is_gone_is_cancelled() -> None:
    mark = new_mark()

    async def begin() -> tuple[Client, Any]:
        client = await execsrv.asyncio.launch()
        running: Any = client.run(["bash", "-c", f"exec -a {mark} sleep 1000"])
        running.send(None)  # as a task does, which here is lost with its loop
        while not marked(mark):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return client, running

    with assert_no_strays():
        client, running = asyncio.run(begin())
        running.close()
        while marked(mark):
            time.sleep(0.01)
        asyncio.run(client.close())
