"""Many commands at a time, and commands without a client."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import execsrv
from execsrv import CommandError, CommandFailedError, ConnectionLostError, SpawnError
from tests.conftest import Server
from tests.peers import PATIENCE
from tests.processes import marked, new_mark, until_gone, until_marked


@pytest.fixture
async def client(server: Server) -> execsrv.Client:
    return await server.client()


async def test_results_come_as_they_end(client: execsrv.Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"until test -e {gate}; do sleep 0.01; done; echo waited"
    ended = []
    async for result in client.map([["sh", "-c", wait], ["echo", "one"], ["false"]], text=True):
        ended.append((result.argv[0], result.stdout, result.exit_code))
        if len(ended) == 2:
            gate.touch()
    assert sorted(ended[:2]) == [("echo", "one\n", 0), ("false", "", 1)]
    assert ended[2] == ("sh", "waited\n", 0)


async def test_no_more_run_at_a_time_than_the_limit(client: execsrv.Client) -> None:
    taken = 0

    def commands() -> Iterator[list[str]]:
        nonlocal taken
        while True:
            taken += 1
            yield ["true"]

    count = 0
    async for result in client.map(commands(), limit=3):
        count += 1
        assert result.exit_code == 0
        assert taken <= count + 3 + 1  # the next is taken before there is room for it to run
        if count == 20:
            break


@pytest.mark.few
async def test_leaving_the_loop_ends_what_runs(client: execsrv.Client) -> None:
    mark = new_mark()
    commands = [["true"], *[["bash", "-c", f"exec -a {mark} sleep 1000"]] * 3]

    async def leave_by_break() -> None:
        async for _ in client.map(commands):
            await until_marked(mark, 3)
            break

    async def leave_by_error() -> None:
        with pytest.raises(KeyError):
            async for _ in client.map(commands):
                await until_marked(mark, 3)
                raise KeyError

    async def leave_by_cancel() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, client.map(commands[1:]))
            await until_marked(mark, 3)
            nursery.cancel_scope.cancel()

    async def leave_by_close() -> None:
        results = client.map(commands)
        await anext(results)
        await until_marked(mark, 3)
        await results.aclose()
        assert not marked(mark)
        assert [result async for result in results] == []

    for leave in (leave_by_break, leave_by_error, leave_by_cancel, leave_by_close):
        await leave()
        gc.collect()  # an error holds the frame that it came through
        await until_gone(mark)
    assert (await client.run(["true"])).exit_code == 0


async def test_an_error_names_its_command_and_ends_the_others(client: execsrv.Client) -> None:
    mark = new_mark()
    nap = ["bash", "-c", f"exec -a {mark} sleep 1000"]
    with (
        trio.fail_after(PATIENCE),
        pytest.raises(CommandError, match="`nope 5` could not be run: cannot") as failed,
    ):
        async for _ in client.map([nap, ["nope", "5"]]):
            pass
    assert failed.value.argv == ["nope", "5"]
    assert isinstance(failed.value.__cause__, SpawnError)
    assert not marked(mark)
    with pytest.raises(CommandFailedError) as other:
        async for _ in client.map([nap, ["false"]], check=True):
            pass
    assert other.value.argv == ["false"]
    assert not marked(mark)
    odd = ["printf", r"\377"]
    results = client.map([["true"], ["nope"], odd, ["true"]], return_errors=True, text=True)
    kinds = sorted([type(result).__name__ async for result in results])
    assert kinds == ["CommandError", "OutputNotTextError", "Result", "Result"]


async def test_wrong_commands_are_refused(client: execsrv.Client) -> None:
    with pytest.raises(execsrv.InvalidParamsError, match="limit must be a number above 0, got 0"):
        client.map([], limit=0)
    with pytest.raises(TypeError, match="commands must be lists of words, got str"):
        client.map("ls -l")
    with pytest.raises(TypeError, match="argv must be a list of words, got the string 'ls -l'"):
        async for _ in client.map(["ls -l"]):
            pass


async def test_a_client_that_ends_ends_its_results(server: Server) -> None:
    async with execsrv.connect_in_process() as client:
        results = client.map([["true"], ["sleep", "1000"]])
        assert (await anext(results)).argv == ["true"]
    with pytest.raises(ConnectionLostError):
        await anext(results)
    with pytest.raises(ConnectionLostError):
        await anext(client.map([["true"]]))


async def test_commands_without_a_client() -> None:
    for own_process in (True, False):
        mark = new_mark()
        result = await execsrv.run(["cat"], input="text", text=True, own_process=own_process)
        assert result.stdout == "text"
        results: list[int] = []

        async def run(code: int, own_process: bool = own_process, results: list[int] = results) -> None:
            results.append((await execsrv.run(["sh", "-c", f"exit {code}"], own_process=own_process)).exit_code)

        async with trio.open_nursery() as nursery:
            for code in range(5):
                nursery.start_soon(run, code)
        assert sorted(results) == [0, 1, 2, 3, 4]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(execsrv.run, ["bash", "-c", f"exec -a {mark} sleep 1000"])
            await until_marked(mark, 1)
            nursery.cancel_scope.cancel()
        assert not marked(mark)


async def test_a_run_that_cannot_have_its_process_says_so() -> None:
    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match=r"execsrv.run needs the main thread: elsewhere, own_process=False"):
            trio.run(execsrv.run, ["true"])

        async def less() -> int:
            return (await execsrv.run(["true"], own_process=False)).exit_code

        assert trio.run(less) == 0

    await trio.to_thread.run_sync(elsewhere)


def test_a_run_without_trio_says_so() -> None:
    with pytest.raises(RuntimeError, match="execsrv needs trio"):
        execsrv.run(["true"]).send(None)
