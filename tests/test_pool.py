"""A pool: commands go to servers that have room, and each is reported once, with what is known of it."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import shlex
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import execsrv
from execsrv import Endpoint, NoServerError, Pool, Unknown
from execsrv._doors import tokens
from execsrv.directories import FileDirectory
from execsrv.limits import ClientConfig, ServerConfig
from execsrv.pool.member import Line
from execsrv.testing.faults import Fault, Side, open_faulty_line
from execsrv.testing.running_server import RunningServer, ServerFailedError, serving
from tests.cancelling import cancelled_after
from tests.conftest import OpenServer
from tests.peers import PATIENCE
from tests.processes import marked, new_mark, until_gone, until_marked
from tests.relay import open_line
from tests.simulated import SimulatedLine, SimulatedPool, SimulatedServer, simulate

DEFAULTS = ServerConfig()


async def urls(open_server: OpenServer, count: int, config: ServerConfig = DEFAULTS) -> list[str]:
    return [await open_server("unix", config).url() for _ in range(count)]


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    with trio.fail_after(PATIENCE):
        while True:
            if condition():
                return
            await trio.sleep(0.005)


async def until_up(pool: Pool, count: int = 1) -> None:
    """Wait until so many servers take commands."""
    await until(lambda: sum(server.state == "up" for server in pool.servers) == count)


async def test_a_command_runs_on_one_of_the_servers(open_server: OpenServer) -> None:
    servers = await urls(open_server, 2)
    async with Pool(servers) as pool:
        result = await pool.run(["sh", "-c", "cat; exit 3"], input="said", text=True)
        assert (result.stdout, result.exit_code, result.argv[0]) == ("said", 3, "sh")
        assert result.server in servers
        with pytest.raises(execsrv.CommandFailedError) as failed:
            await pool.run(["false"], check=True)
        assert failed.value.server in servers
        with pytest.raises(execsrv.SpawnError) as not_started:
            await pool.run(["no-such-program"])
        assert not_started.value.server in servers
    with pytest.raises(execsrv.ConnectionLostError, match="the pool is closed"):
        await pool.run(["true"])


async def test_many_commands_are_spread_and_each_has_one_result(open_server: OpenServer) -> None:
    servers = await urls(open_server, 3)
    async with Pool(servers) as pool:
        await until_up(pool, 3)
        commands = [["echo", str(number)] for number in range(60)]
        results = [result async for result in pool.map(commands, limit=12, text=True)]
    assert sorted(int(result.stdout) for result in results) == [*range(60)]
    assert all(result.stdout.strip() == result.argv[1] for result in results)
    assert Counter(result.server for result in results).keys() == {*servers}


async def test_errors_can_be_among_the_results(open_server: OpenServer) -> None:
    async with Pool(await urls(open_server, 1)) as pool:
        commands = [["true"], ["no-such-program"]]
        ended = [each async for each in pool.map(commands, return_errors=True)]
        assert sorted((each.argv[0], isinstance(each, execsrv.CommandError)) for each in ended) == [
            ("no-such-program", True),
            ("true", False),
        ]
        assert {each.server for each in ended} == {pool.servers[0].url}
        with pytest.raises(execsrv.CommandError, match="could not be run"):
            async for _ in pool.map(commands):
                pass


async def test_a_command_without_a_server_ends_no_other_one(open_server: OpenServer, tmp_path: Path) -> None:
    ending = open_server("unix", ServerConfig(drain_period=PATIENCE))
    commands = [["sh", "-c", f"until test -e {tmp_path}/gate; do sleep 0.01; done"], ["true"]]
    async with Pool([await ending.url()], per_server=1, patience=0.1) as pool, trio.open_nursery() as nursery:
        await until_up(pool)
        ended: list[Any] = []

        async def collect() -> None:
            async for each in pool.map(commands, return_errors=True):
                ended.append(each)

        nursery.start_soon(collect)
        await until(lambda: repr(pool) == "<Pool servers=1 running=1 waiting=1>")
        ending.shutdown.set()
        await until(lambda: ended)
        (tmp_path / "gate").touch()
    assert [type(each) for each in ended] == [execsrv.CommandError, execsrv.Result]
    assert ended[0].argv == ["true"]
    assert isinstance(ended[0].__cause__, NoServerError)


async def test_no_server_gets_more_than_its_places(open_server: OpenServer, tmp_path: Path) -> None:
    small, large = await urls(open_server, 2)
    gate = tmp_path / "gate"
    wait = ["sh", "-c", f"until test -e {gate}; do sleep 0.01; done"]
    async with Pool([Endpoint(small, free=1), large], per_server=3) as pool, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(pool.run, wait)
        await until(lambda: repr(pool) == "<Pool servers=2 running=4 waiting=2>")
        assert {server.url: (server.running, server.slots) for server in pool.servers} == {small: (1, 1), large: (3, 3)}
        gate.touch()


async def test_labels_choose_the_server(open_server: OpenServer) -> None:
    plain, fast = await urls(open_server, 2)
    servers: list[str | Endpoint] = [plain, Endpoint(fast, labels={"gpu": "1", "zone": "a"})]
    async with Pool(servers, patience=1000) as pool:
        for _ in range(5):
            assert (await pool.run(["true"], labels={"gpu": "1"})).server == fast
        with trio.fail_after(PATIENCE):  # no other one comes
            with pytest.raises(NoServerError, match=r"^no server with gpu=2 can be used: 0 of 2 .*$"):
                await pool.run(["true"], labels={"gpu": "2"})
            with pytest.raises(NoServerError, match=r"^no server with gpu=2 can be used"):
                async with pool.lease(labels={"gpu": "2"}):
                    pass
        for labels in ({"gpu": 1}, ["gpu=1"], "gpu=1"):
            with pytest.raises(TypeError, match="labels must be a mapping of strings, such as"):
                await pool.run(["true"], labels=labels)  # type: ignore[arg-type]
    async with Pool(lambda: servers, patience=0.5) as pool:
        with pytest.raises(NoServerError, match=r"^no server with gpu=2 was there for 0.5 s: 0 of 2 .*$"):
            await pool.run(["true"], labels={"gpu": "2"})


async def test_servers_that_are_not_there_are_named(open_server: OpenServer, tmp_path: Path) -> None:
    async with Pool([f"unix://{tmp_path}/nobody"], patience=0.5) as pool:
        with pytest.raises(NoServerError, match=r"1 are known; unix://.*/nobody: cannot connect"):
            await pool.run(["true"])
        assert pool.servers[0].state == "lost"


@pytest.mark.parametrize(
    "url", ["websocket", "unix", "http://127.0.0.1:1", "exec:no-such-program", "ws://", "ws://no-such-host.invalid:1"]
)
async def test_servers_that_will_never_take_us_are_told_at_once(
    url: str, open_server: OpenServer, tmp_path: Path
) -> None:
    """Nobody's patience ends in this test: where a server may yet come, or was there, commands go on waiting."""
    known, wrong = tokens.new_token(), tokens.new_token()
    file = tmp_path / "tokens"
    file.write_text(f"pool owner {tokens.sha256(known)} never\n")
    if url in ("websocket", "unix"):
        url = await open_server(url, ServerConfig(token_file=str(file))).url()
    refused = Endpoint(url, token=wrong, labels={"which": "refused"})
    with trio.fail_after(PATIENCE):
        async with Pool([refused], patience=1000) as pool:
            for _ in range(2):
                with pytest.raises(NoServerError, match=rf"^no server can be used: 1 are known; {re.escape(url)}: \w+"):
                    await pool.run(["true"])
        nobody = Endpoint(f"unix://{tmp_path}/nobody")
        async with Pool([refused, nobody], patience=1000) as pool:
            with pytest.raises(NoServerError, match=r"^no server with which=refused can be used: 1 of 2 "):
                async with pool.lease(labels={"which": "refused"}):
                    pass
            with trio.move_on_after(0.5) as waited:
                await pool.run(["true"])
            assert waited.cancelled_caught


async def test_a_server_that_took_us_before_may_do_so_again(tmp_path: Path) -> None:
    """Its tokens are changed before ours: that is no reason to give up."""
    known, later = tokens.new_token(), tokens.new_token()
    theirs, ours = tmp_path / "tokens", tmp_path / "token"
    theirs.write_text(f"pool owner {tokens.sha256(known)} never\n")
    ours.write_text(known)
    path = f"unix://{tmp_path}/server"
    async with Pool([path], token_file=ours, reconnect=0, patience=1000) as pool:
        with serving(path, "--token-file", str(theirs)):
            assert (await pool.run(["true"])).exit_code == 0
        theirs.write_text(f"pool owner {tokens.sha256(later)} never\n")
        with serving(path, "--token-file", str(theirs)):
            await until(lambda: "bearer token" in pool.servers[0].why)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.run, ["true"])
                await until(lambda: "waiting=1" in repr(pool))
                ours.write_text(later)


async def test_a_server_for_which_there_is_another_token_is_waited_for(open_server: OpenServer, tmp_path: Path) -> None:
    known, file = tokens.new_token(), tmp_path / "tokens"
    file.write_text(f"pool owner {tokens.sha256(known)} never\n")
    url = await open_server("unix", ServerConfig(token_file=str(file))).url()
    endpoints = [Endpoint(url, token=tokens.new_token())]

    async def directory() -> list[Endpoint]:
        return endpoints

    async with Pool(directory, refresh=0.01, patience=1000) as pool:
        with pytest.raises(NoServerError):
            await pool.run(["true"])
        endpoints = [Endpoint(url, token=known, labels={"mended": "1"})]
        await until(lambda: pool.servers[0].labels)
        assert (await pool.run(["true"], labels={"mended": "1"})).exit_code == 0


async def test_a_server_with_which_anything_fails_ends_no_other_ones_commands(
    open_server: OpenServer, caplog: pytest.LogCaptureFixture
) -> None:
    [url] = await urls(open_server, 1)
    odd = Endpoint("unix:///nowhere", token=5)  # type: ignore[arg-type]
    async with Pool([odd, url]) as pool:
        assert (await pool.run(["true"])).server == url  # whose connection comes behind the other one's failure
        failed = pool.servers[0]
        assert (failed.state, failed.why) == ("lost", "TypeError(\"object of type 'int' has no len()\")")
        assert (await pool.run(["true"])).exit_code == 0
    assert "cannot connect to `unix:///nowhere`" in caplog.text


async def test_a_directory_that_knows_no_server_is_named(tmp_path: Path) -> None:
    async with Pool(FileDirectory(tmp_path / "servres"), patience=0.1) as pool:
        with pytest.raises(NoServerError, match=r"none is known to <FileDirectory .*/servres, which is not there>"):
            await pool.run(["true"])


async def test_a_directory_that_fails_later_is_named_with_its_trouble() -> None:
    failed = trio.Event()

    class Failing:
        def __repr__(self) -> str:
            return "<my servers>"

        async def __call__(self) -> list[Endpoint]:
            if pool.servers:
                failed.set()
                raise OSError("the disk is gone")
            return [Endpoint("unix:///nowhere")]

    pool = Pool(Failing(), patience=0.1, refresh=0.01)
    async with pool:
        await failed.wait()
        with pytest.raises(NoServerError, match="cannot ask <my servers>: the disk is gone"):
            await pool.run(["true"])


async def test_a_refused_start_goes_elsewhere(open_server: OpenServer) -> None:
    """One server takes a single session: what it refuses runs on the other, or there when it has room again."""
    (narrow,) = await urls(open_server, 1, ServerConfig(max_sessions_per_connection=1))
    (wide,) = await urls(open_server, 1)
    async with Pool([narrow, wide], per_server=8) as pool:
        await until_up(pool, 2)
        results = [each async for each in pool.map([["sleep", "0.05"]] * 16, limit=12)]
    assert [each.exit_code for each in results] == [0] * 16
    commands: list[Any] = [(word for word in ["sleep", "0.01"]) for _ in range(8)]  # which can be gone through once
    async with Pool([narrow], per_server=8) as pool:  # nowhere else: they wait for it
        results = [each async for each in pool.map(commands, limit=8)]
    assert [each.argv for each in results] == [["sleep", "0.01"]] * 8


async def test_a_server_that_is_always_full_is_given_up(open_server: OpenServer) -> None:
    (narrow,) = await urls(open_server, 1, ServerConfig(max_sessions_per_connection=1))
    async with Pool([narrow], patience=0.3) as pool, trio.open_nursery() as nursery:
        mark = new_mark()
        nursery.start_soon(pool.run, ["bash", "-c", f"exec -a {mark} sleep 1000"])
        await until_marked(mark, 1)
        with pytest.raises(execsrv.LimitExceededError, match=r"max_sessions_per_connection \(1\) are running"):
            await pool.run(["true"])
        nursery.cancel_scope.cancel()


async def test_two_pools_share_the_servers_that_they_have(open_server: OpenServer) -> None:
    """Neither knows of the other, and together they want more than there is."""
    servers = await urls(open_server, 2, ServerConfig(max_sessions=3))
    results: list[execsrv.Result[bytes]] = []

    async def run() -> None:
        async with Pool(servers, per_server=6) as pool:
            async for result in pool.map([["sleep", "0.02"]] * 24, limit=12):
                results.append(result)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        nursery.start_soon(run)
    assert [result.exit_code for result in results] == [0] * 48
    assert {result.server for result in results} == {*servers}


@pytest.mark.parametrize(("share", "labels"), [(None, {}), ("one", {"gpu": "1"})], ids=["shares", "labels"])
async def test_shares_take_turns(open_server: OpenServer, share: str | None, labels: dict[str, str]) -> None:
    """Somebody with two commands does not wait for somebody with many, nor who wants what others do not need."""
    (server,) = await urls(open_server, 1)
    ended: list[str] = []

    async def many(pool: Pool) -> None:
        async for _ in pool.map([["true"]] * 60, limit=60, share=share):
            ended.append("many")

    async def few(pool: Pool) -> None:
        async for _ in pool.map([["true"]] * 2, limit=2, share=share, labels=labels):
            ended.append("few")

    async with Pool([Endpoint(server, labels={"gpu": "1"})], per_server=2) as pool:
        await until_up(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(many, pool)
            await until(lambda: pool._members.waiting > 40)
            nursery.start_soon(few, pool)
    assert ended.count("many") == 60
    assert ended[30:].count("few") == 0


async def test_a_directory_may_name_what_is_no_server(open_server: OpenServer) -> None:
    (server,) = await urls(open_server, 1)
    wrong = ["ws://a..b:1", "http://127.0.0.1:1", "ws://[::1:1", "unix:///\0", "ws://127.0.0.1:99999999", ""]
    async with Pool([*wrong, server]) as pool:
        await until(lambda: sum(bool(known.why) for known in pool.servers) == len(wrong))
        assert (await pool.run(["true"])).server == server


async def test_a_lease_is_one_server_with_a_directory(open_server: OpenServer) -> None:
    servers = await urls(open_server, 2)
    mark = new_mark()
    async with Pool(servers) as pool:
        async with pool.lease() as lease:
            assert lease.server in servers
            assert lease.scratch is not None
            assert (await lease.run(["pwd"], text=True)).stdout == f"{lease.scratch}\n"
            assert os.stat(lease.scratch).st_mode & 0o777 == 0o700
            await lease.run(["touch", "here"])
            assert os.listdir(lease.scratch) == ["here"]
            assert (await lease.run(["pwd"], cwd="/", text=True)).stdout == "/\n"
            async with lease.start(["bash", "-c", f"exec -a {mark} sleep 1000"]):
                await until_marked(mark, 1)
                assert sum(server.running for server in pool.servers) == 1
        with pytest.raises(FileNotFoundError):
            os.stat(lease.scratch)
        await until_gone(mark)
        assert sum(server.running for server in pool.servers) == 0
        with trio.CancelScope() as scope:
            async with pool.lease() as lease:
                scope.cancel()
                await trio.sleep_forever()
        with pytest.raises(FileNotFoundError):
            os.stat(lease.scratch or "")
        async with pool.lease(scratch=False) as lease:
            assert lease.scratch is None


async def test_a_lease_is_taken_elsewhere_where_a_server_answers_with_something_else(open_server: OpenServer) -> None:
    (good,) = await urls(open_server, 1)
    serve = shlex.join([sys.executable, "-m", "execsrv", "serve", "--quiet", "--listen", "stdio://"])
    script = f"""sed -u 's/,"encoding":"msgpack"//' | {serve} | sed -u 's/"pid":[0-9]*/"pid":"none"/'"""
    wrong = f"exec:{shlex.join(['sh', '-c', script])}"
    async with Pool([good, wrong], patience=1000) as pool:
        await until(lambda: all(known.state == "up" for known in pool.servers))
        async with AsyncExitStack() as stack:
            leases = [await stack.enter_async_context(pool.lease()) for _ in range(4)]
            assert {lease.server for lease in leases} == {good}
        assert any("malformed" in (known.why or "") for known in pool.servers if known.url == wrong)


async def test_a_lease_that_is_left_while_the_line_of_the_pool_is_cut_leaves_no_directory(
    open_server: OpenServer, tmp_path: Path
) -> None:
    (target,) = await urls(open_server, 1)
    async with open_line(target, f"{tmp_path}/line") as line, Pool([line.url], reconnect=0) as pool:
        await until_up(pool)
        (carried,) = line._open
        async with pool.lease() as lease:
            await lease.run(["touch", "here"])
            carried.cancel()
            await until(lambda: pool.servers[0].state == "lost")
        assert not os.path.exists(lease.scratch or "/")  # noqa: ASYNC240


async def test_a_lease_with_what_is_read_only_leaves_no_directory() -> None:
    become = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    url = "exec:" + shlex.join([*become, sys.executable, "-m", "execsrv", "serve", "--quiet"])
    async with Pool([url]) as pool:
        async with pool.lease() as lease:
            await lease.run(["sh", "-c", "mkdir -p mod/a; touch mod/a/file; chmod -R a-w mod"], check=True)
            with pytest.raises(execsrv.CommandFailedError, match=r"mod/a/file.*denied"):
                await lease.run(["rm", "-rf", "mod"], check=True)
        assert not os.path.exists(lease.scratch or "/")  # noqa: ASYNC240


async def test_a_lease_ends_with_the_pool_whatever_task_has_it(open_server: OpenServer) -> None:
    servers = await urls(open_server, 1)
    mark, scratch, left = new_mark(), "", trio.Event()

    async def have_lease(pool: Pool, task_status: trio.TaskStatus[str]) -> None:
        async with pool.lease() as lease:
            with pytest.raises(execsrv.ConnectionLostError, match="the pool is closed"):
                async with lease.start(["bash", "-c", f"trap '' TERM; exec -a {mark} sleep 1000"]) as process:
                    await until_marked(mark, 1)
                    task_status.started(lease.scratch or "")
                    await process.wait()
            await left.wait()
            with pytest.raises(execsrv.ConnectionLostError):
                await lease.run(["true"])

    async with trio.open_nursery() as nursery:
        async with Pool(servers) as pool:
            scratch = await nursery.start(have_lease, pool)
            assert os.path.isdir(scratch)  # noqa: ASYNC240
        assert not os.path.exists(scratch)  # noqa: ASYNC240
        assert not marked(mark)
        left.set()


async def test_a_cancel_around_a_pool_leaves_no_directory_of_a_lease(open_server: OpenServer) -> None:
    servers = await urls(open_server, 1)
    with trio.CancelScope() as scope:
        async with Pool(servers) as pool, pool.lease() as lease, lease.start(["sleep", "1000"]):
            scope.cancel()
            await trio.sleep_forever()
    assert not os.path.exists(lease.scratch or "/")  # noqa: ASYNC240


async def test_a_lease_that_is_cancelled_at_any_step_leaves_no_directory(
    open_server: OpenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    async with Pool(await urls(open_server, 1)) as pool:
        steps, is_whole = 1, False
        while not is_whole:
            with cancelled_after(steps):
                async with pool.lease():
                    is_whole = True
            assert os.listdir(temporary) == []
            steps += 5
            assert steps < 4000


async def test_a_lease_whose_server_is_lost_stays_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, open_server: OpenServer
) -> None:
    (other,) = await urls(open_server, 1)
    with killable(tmp_path) as server:
        places = [Endpoint(server.url, labels={"here": "1"}), Endpoint(other)]
        async with Pool(places, reconnect=0) as pool, pool.lease(labels={"here": "1"}) as lease:
            kill(server)
            with pytest.raises(execsrv.ConnectionLostError):
                await lease.run(["sleep", "1000"])
            with pytest.raises(execsrv.ConnectionLostError):
                await lease.run(["true"])
            await until(lambda: pool.servers[0].state == "lost")  # over its other connection too
            assert (await pool.run(["true"])).server == other
        assert sum(state.running for state in pool.servers) == 0
    assert f"cannot remove the directory {lease.scratch} of a lease on {server.url}: " in caplog.text
    os.rmdir(lease.scratch or "")


def test_a_lease_that_can_have_no_directory_says_on_which_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(url: str) -> None:
        async with Pool([url]) as pool:
            with pytest.raises(execsrv.CommandFailedError, match="mkdir") as caught:
                async with pool.lease():
                    pass
            assert caught.value.server == url

    monkeypatch.setenv("TMPDIR", "/nowhere")
    with serving("unix://") as server:
        trio.run(main, server.url)


async def test_leaving_the_block_ends_all_commands(open_server: OpenServer) -> None:
    """Those of other tasks too, which hear of it; and those that waited for a place."""
    servers = await urls(open_server, 1)
    mark = new_mark()
    command = ["bash", "-c", f"exec -a {mark} sleep 1000"]
    heard: list[type[Exception]] = []

    async def run(pool: Pool) -> None:
        try:
            await pool.run(command)
        except (Unknown, execsrv.ConnectionLostError) as error:
            heard.append(type(error))

    async with trio.open_nursery() as nursery:
        async with Pool(servers, per_server=2) as pool:
            for _ in range(3):
                nursery.start_soon(run, pool)
            await until_marked(mark, 2)
            await until(lambda: repr(pool) == "<Pool servers=1 running=2 waiting=1>")
        await until_gone(mark)
    assert sorted(kind.__name__ for kind in heard) == ["ConnectionLostError", "Unknown", "Unknown"]
    with pytest.raises(RuntimeError, match="a pool is opened once"):
        async with pool:
            pass


async def test_what_is_not_open_or_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="servers must be a directory, or a list of URLs, got str"):
        Pool("ws://127.0.0.1:1")
    with pytest.raises(execsrv.InvalidParamsError, match="servers must not be empty"):
        Pool([])
    with pytest.raises(TypeError, match="a server must be a URL or an Endpoint, got int"):
        Pool([1])  # type: ignore[list-item]
    with pytest.raises(execsrv.InvalidParamsError, match="per_server"):
        Pool([f"unix://{tmp_path}/a"], per_server=0)
    with pytest.raises(RuntimeError, match="the pool is not open"):
        await Pool([f"unix://{tmp_path}/a"]).run(["true"])
    with pytest.raises(RuntimeError, match="the pool is not open"):
        async with Pool([f"unix://{tmp_path}/a"]).lease():
            pass
    with pytest.raises(RuntimeError, match="the pool is not open"):
        Pool([f"unix://{tmp_path}/a"]).map([["true"]])
    assert "secret" not in repr(Endpoint("unix:///a", token="secret", labels={"a": "1"}))


# -- directories that change --


async def test_a_directory_is_asked_again(open_server: OpenServer) -> None:
    old, new = await urls(open_server, 2)
    servers: list[str] | None = [old]

    async def directory() -> list[str]:
        if servers is None:
            raise OSError("gone")
        return servers

    async with Pool(directory, refresh=0.02) as pool, trio.open_nursery() as nursery:
        mark = new_mark()
        nursery.start_soon(pool.run, ["bash", "-c", f"exec -a {mark} sleep 1000"])
        await until_marked(mark, 1)
        servers = None  # its last answer goes on
        assert (await pool.run(["true"])).server == old
        servers = [new]
        await until(lambda: pool.servers[0].url == new)
        assert (await pool.run(["true"])).server == new
        assert [(server.url, server.state) for server in pool.servers] == [(new, "up"), (old, "ending")]
        nursery.cancel_scope.cancel()
    await until_gone(mark)


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ([Endpoint(None)], "the URL of a server must be a string, got None"),  # type: ignore[arg-type]
        (
            [Endpoint("unix:///a", labels={"gpu": 1})],  # type: ignore[dict-item]
            "labels of unix:///a must be a mapping of strings, got {'gpu': 1}",
        ),
        ([Endpoint("unix:///a", free=-1)], "free of unix:///a must be a number from 0 on, got -1"),
        ("unix:///a", "a directory must give a list of servers, got 'unix:///a'"),
    ],
)
async def test_a_directory_that_names_what_is_none_is_one_that_fails(named: Any, why: str) -> None:
    servers: Any = named

    async def directory() -> Any:
        return servers

    with pytest.raises((TypeError, execsrv.InvalidParamsError), match=re.escape(why)):
        async with Pool(directory):
            pass
    servers = []
    async with Pool(directory, refresh=0.02, patience=0.5) as pool:
        servers = named
        with pytest.raises(NoServerError, match=re.escape(f"cannot ask {directory!r}: {why}")):
            await pool.run(["true"])


async def test_a_server_that_is_named_again_has_the_places_that_it_had(open_server: OpenServer, tmp_path: Path) -> None:
    (server,) = await urls(open_server, 1)
    wait = ["sh", "-c", f"until test -e {tmp_path}/gate; do sleep 0.01; done"]
    servers = [Endpoint(server)]

    async def directory() -> list[Endpoint]:
        return servers

    async with Pool(directory, per_server=2, refresh=0.02) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(pool.run, wait)
        await until(lambda: repr(pool) == "<Pool servers=1 running=2 waiting=2>")
        for labels in ({}, {"zone": "a"}):
            servers = []
            await until(lambda: pool.servers[0].state == "ending")
            servers = [Endpoint(server, labels=labels)]
            await until(lambda: pool.servers[0].state == "up")
            assert repr(pool) == "<Pool servers=1 running=2 waiting=2>"
        (tmp_path / "gate").touch()
        assert (await pool.run(["true"], labels={"zone": "a"})).server == server


async def test_a_directory_may_block_in_a_thread(open_server: OpenServer) -> None:
    servers = await urls(open_server, 1)
    async with Pool(lambda: servers) as pool:
        assert (await pool.run(["true"])).exit_code == 0

    def broken() -> list[str]:
        raise OSError("no directory")

    with pytest.raises(OSError, match="no directory"):
        async with Pool(broken):
            pass


# -- servers that are lost --


@contextmanager
def killable(tmp_path: Path, *options: str) -> Iterator[RunningServer]:
    """A server of its own, which a test may kill."""
    with suppress(ServerFailedError), serving(f"unix://{tmp_path}/{new_mark()[-12:]}", *options) as server:
        yield server


def kill(server: RunningServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)


async def test_a_command_whose_server_is_lost_is_unknown(tmp_path: Path) -> None:
    mark = new_mark()
    command = ["bash", "-c", f"exec -a {mark} sleep 1000"]
    with killable(tmp_path) as server:
        async with Pool([server.url], reconnect=0.2, patience=0.5) as pool:
            async with trio.open_nursery() as nursery:

                async def fail() -> None:
                    with pytest.raises(Unknown, match=rf"has an unknown end: {server.url} was lost: ") as unknown:
                        await pool.run(command, text=True)
                    assert (unknown.value.argv, unknown.value.server) == (command, server.url)
                    assert unknown.value.process.startswith("p")
                    assert unknown.value.exit_code is None
                    assert pickle.loads(pickle.dumps(unknown.value)).process == unknown.value.process

                nursery.start_soon(fail)
                await until_marked(mark, 1)
                kill(server)
            await until_gone(mark)
            with pytest.raises(NoServerError, match=server.url):
                await pool.run(["true"])


async def test_what_is_idempotent_runs_again_elsewhere(tmp_path: Path) -> None:
    mark = new_mark()
    gate = tmp_path / "gate"
    command = ["bash", "-c", f"test -e {gate} || exec -a {mark} sleep 1000"]
    with killable(tmp_path) as one, killable(tmp_path) as other:
        async with Pool([one.url, other.url], reconnect=0) as pool, trio.open_nursery() as nursery:
            results: list[str | None] = []

            async def run() -> None:
                results.append((await pool.run(command, idempotent=True)).server)

            nursery.start_soon(run)
            await until_marked(mark, 1)
            (busy,) = [server.url for server in pool.servers if server.running]
            gate.touch()
            first, second = (one, other) if busy == one.url else (other, one)
            kill(first)
        assert results == [second.url]


@pytest.mark.parametrize("step", [97, pytest.param(7, marks=pytest.mark.slow)])
async def test_a_line_that_is_lost_is_taken_up_again(open_server: OpenServer, tmp_path: Path, step: int) -> None:
    """Wherever it was cut, the command goes on over the next connection, and has run once."""
    target = await open_server("unix", ServerConfig(resume_grace=60)).url()
    counted = tmp_path / "counted"
    happened: list[Fault] = []
    async with open_faulty_line(target, f"{tmp_path}/line") as line, Pool([line.url], reconnect=PATIENCE) as pool:
        await until_up(pool)
        for fault in cuts(step):
            line.expect(fault, happened=partial(happened.append, fault))
            result = await pool.run(["sh", "-c", f"echo {fault.side} {fault.at} >> {counted}; echo said"], text=True)
            assert result.stdout == "said\n"
    assert sorted(counted.read_text().splitlines()) == sorted(f"{fault.side} {fault.at}" for fault in cuts(step))
    assert {*cuts(step)[:3]} <= {*happened}


@pytest.mark.parametrize("step", [97, pytest.param(7, marks=pytest.mark.slow)])
async def test_a_line_that_is_lost_for_good_runs_nothing_twice(
    open_server: OpenServer, tmp_path: Path, step: int
) -> None:
    """Wherever it was cut: what has a result has run once, and what is unknown has not run more often."""
    target = await open_server("unix", ServerConfig()).url()
    counted = tmp_path / "counted"
    with_result, unknown = [], []
    async with open_faulty_line(target, f"{tmp_path}/line") as line, Pool([line.url]) as pool:
        for fault in cuts(step):
            line.expect()
            await pool.run(["true"])  # it is there again
            line.expect(fault)
            what = f"{fault.side} {fault.at}"
            try:
                await pool.run(["sh", "-c", f"echo {what} >> {counted}"], text=True)
                with_result.append(what)
            except Unknown:
                unknown.append(what)
    times = Counter(counted.read_text().splitlines())
    assert {*with_result} <= times.keys()
    assert max(times.values()) == 1
    assert unknown
    assert len(with_result) + len(unknown) == len(cuts(step))


def cuts(step: int) -> list[Fault]:
    """Cuts within a command that is run: its start is some 300 bytes of the client."""
    sides: list[Side] = ["client", "server"]
    return [Fault("cut", side, at) for side in sides for at in range(0, 400, step)]


async def test_a_server_that_accepts_and_says_nothing_gets_nothing(open_server: OpenServer, tmp_path: Path) -> None:
    (good,) = await urls(open_server, 1)
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(f"{tmp_path}/deaf")
        listener.listen()
        deaf = f"unix://{tmp_path}/deaf"
        config = ClientConfig(handshake_timeout=0.3)
        async with Pool([deaf, good], config=config) as pool:
            results = [each async for each in pool.map([["true"]] * 20)]
            assert {each.server for each in results} == {good}
            await until(lambda: pool.servers[0].why)
            assert (pool.servers[0].url, pool.servers[0].state) == (deaf, "lost")
            assert pool.servers[0].why == "handshake failed: no answer within 0.3 s"


async def test_a_server_that_stops_answering_gets_nothing_new(tmp_path: Path, open_server: OpenServer) -> None:
    """It is stopped with a command in it: that is unknown, and others go to the other server."""
    (good,) = await urls(open_server, 1)
    mark = new_mark()
    config = ClientConfig(ping_interval=0.1, ping_timeout=2)
    with killable(tmp_path) as server:
        async with Pool([server.url], config=config, reconnect=0) as pool, trio.open_nursery() as nursery:

            async def fail() -> None:
                with pytest.raises(Unknown, match="no answer within 2 s"):
                    await pool.run(["bash", "-c", f"exec -a {mark} sleep 1000"])

            nursery.start_soon(fail)
            await until_marked(mark, 1)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGSTOP)
            try:
                await until(lambda: pool.servers[0].state != "up")  # it is silent
                await until(lambda: pool.servers[0].state == "lost")
            finally:
                os.kill(server.pid, signal.SIGCONT)
            async with Pool([good]) as other:
                assert (await other.run(["true"])).server == good


async def test_a_server_behind_a_broken_network_comes_back(
    open_server: OpenServer, tmp_path: Path, elsewhere: str
) -> None:
    """Nobody is told that nothing passes: either side finds out, and the server ends what the pool has given up."""
    server = open_server("websocket", ServerConfig(ping_interval=0.2, ping_timeout=2))
    server.host = elsewhere
    target = await server.url()
    mark = new_mark()
    config = ClientConfig(ping_interval=0.2, ping_timeout=2)
    async with open_line(target, f"{tmp_path}/line") as line, Pool([line.url], config=config, reconnect=0) as pool:
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                with pytest.raises(Unknown, match=r"no answer within 2 s|the server does not answer"):
                    await pool.run(["bash", "-c", f"exec -a {mark} sleep 1000"])

            nursery.start_soon(fail)
            await until_marked(mark, 1)
            line.target = None
            line.silence()
        await until_gone(mark)
        assert pool.servers[0].state == "lost"
        line.target = target
        assert (await pool.run(["true"], idempotent=True)).exit_code == 0


async def test_a_server_that_ends_in_order_gets_nothing_new(open_server: OpenServer, tmp_path: Path) -> None:
    ending, staying = (open_server("unix", ServerConfig(drain_period=PATIENCE)) for _ in range(2))
    gate = tmp_path / "gate"
    async with Pool([await ending.url(), await staying.url()]) as pool:
        await until_up(pool, 2)
        results: list[execsrv.Result[bytes]] = []

        async def collect() -> None:
            command = ["sh", "-c", f"until test -e {gate}; do sleep 0.01; done"]
            async for result in pool.map([command] * 8):
                results.append(result)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            await until(lambda: all(server.running for server in pool.servers))
            ending.shutdown.set()
            await until(lambda: pool.servers[0].state == "ending")
            assert {(await pool.run(["true"])).server for _ in range(6)} == {await staying.url()}
            gate.touch()
    assert len(results) == 8
    assert {result.exit_code for result in results} == {0}


@pytest.mark.parametrize("count", [120, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
async def test_every_command_is_reported_once_while_servers_are_killed(count: int, tmp_path: Path) -> None:
    """Each that has a result has run once, and no other has run more than once. Nothing is left of any of them."""
    ran, mark = tmp_path / "ran", new_mark()
    escapes = f"(setsid bash -c 'exec -a {mark} sleep 1000' &)"
    commands = [["bash", "-c", f"echo {number} >> {ran}; {escapes}"] for number in range(count)]
    kills = [count // 6, count // 2]
    outcomes: list[execsrv.Result[Any] | execsrv.CommandError] = []
    with killable(tmp_path) as one, killable(tmp_path) as two, killable(tmp_path) as three:
        async with Pool([one.url, two.url, three.url], per_server=8, reconnect=0) as pool:
            await until_up(pool, 3)
            async for outcome in pool.map(commands, limit=24, return_errors=True):
                outcomes.append(outcome)
                if len(outcomes) in kills:
                    kill((one, two)[kills.index(len(outcomes))])
            await until_gone(mark)
    assert sorted(outcome.argv[2] for outcome in outcomes) == sorted(command[2] for command in commands)
    unknown = [outcome for outcome in outcomes if isinstance(outcome, Unknown)]
    results = [outcome for outcome in outcomes if isinstance(outcome, execsrv.Result)]
    assert len(unknown) + len(results) == count
    assert len(unknown) <= 16
    assert all(result.exit_code == 0 for result in results)
    times = Counter(ran.read_text().split())
    assert max(times.values()) == 1
    assert {result.argv[2].split()[1] for result in results} <= times.keys()


# -- large pools: simulated servers and time, and the pool itself --


def test_a_large_pool_is_even_and_reports_each_command_once() -> None:
    report = simulate(60, 2400, load=0.5, dead=0.05)
    assert len(report.reported) == report.reported.total() == 2400
    assert set(report.begun.values()) == {1}
    assert 0 < report.unknown < 3 * 32
    healthy = report.shares[3:]
    assert healthy[-1] / healthy[0] < 2.5
    assert max(server.most for server in report.servers) < 32
    assert report.wait(0.99) < 0.1


def test_a_full_pool_is_full_and_no_fuller() -> None:
    report = simulate(25, 2000, load=1.5)
    assert {server.most for server in report.servers} == {32}
    assert report.wait(1) < 2  # who came first goes first


def test_a_server_that_is_not_there_is_tried_ever_more_rarely() -> None:
    tried: list[float] = []

    class Nobody(SimulatedPool):
        @asynccontextmanager
        async def _dial(self, endpoint: Endpoint) -> AsyncIterator[Line]:
            tried.append(trio.current_time())
            raise execsrv.ConnectionFailedError("refused")
            yield

    async def main() -> None:
        async with Nobody([SimulatedServer("ws://0")]) as pool:
            await trio.sleep(600)
            assert (pool.servers[0].state, pool.servers[0].why) == ("lost", "refused")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert pauses[0] < 1
    assert max(pauses) <= 45
    assert 600 / 45 < len(tried) < 60


def test_a_command_that_is_lost_alone_does_not_take_its_server_along() -> None:
    """As one that the server has forgotten while the line was interrupted."""

    class Forgetful(SimulatedLine):
        async def run(self, argv: list[str], **options: Any) -> execsrv.Result[bytes]:
            if argv[1] == "0":
                lost = execsrv.ConnectionLostError("unknown process 0")
                lost.process = "0"
                raise lost
            return await super().run(argv, **options)

    class Forgetting(SimulatedPool):
        @asynccontextmanager
        async def _dial(self, endpoint: Endpoint) -> AsyncIterator[Line]:
            yield Forgetful(server, trio.Event())

    server = SimulatedServer("ws://0")

    async def main() -> None:
        async with Forgetting([server]) as pool:
            with pytest.raises(Unknown, match="unknown process 0"):
                await pool.run(["job", "0", "1"])
            assert pool.servers[0].state == "up"
            assert (await pool.run(["job", "1", "1"])).exit_code == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_server_that_answers_with_something_else_ends_no_other_ones_commands() -> None:
    class Wrong(SimulatedLine):
        async def run(self, argv: list[str], **options: Any) -> execsrv.Result[bytes]:
            wrong = execsrv.BadAnswerError("process/start", "no such field")
            wrong.process = argv[1]
            raise wrong

    class Mixed(SimulatedPool):
        @asynccontextmanager
        async def _dial(self, endpoint: Endpoint) -> AsyncIterator[Line]:
            yield Wrong(wrong, trio.Event()) if endpoint.url == wrong.url else good.connect()

    good, wrong = SimulatedServer("ws://good"), SimulatedServer("ws://wrong")

    async def main() -> None:
        async with Mixed([good, wrong]) as pool:
            await until_up(pool, 2)
            commands = [["job", str(number), "1"] for number in range(30)]
            ended = [each async for each in pool.map(commands, limit=4, return_errors=True)]
            assert len(ended) == 30
            unknown = [each for each in ended if isinstance(each, Unknown)]
            assert {(each.server, each.process == each.argv[1]) for each in unknown} == {(wrong.url, True)}
            why = (
                "has an unknown end: ws://wrong is not understood: the server's answer to `process/start` is malformed"
            )
            assert why in str(unknown[0])
            again = [each async for each in pool.map(commands, limit=4, idempotent=True)]
            assert {each.server for each in again} == {good.url}

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_many_servers_that_say_nothing_do_not_keep_others_from_being_tried() -> None:
    class Silent(Pool):
        @asynccontextmanager
        async def _dial(self, endpoint: Endpoint) -> AsyncIterator[Line]:
            if endpoint.url != good.url:
                await trio.sleep(10)
                raise execsrv.ConnectionFailedError("no answer")
            yield good.connect()

    good = SimulatedServer("ws://good")
    servers = [f"ws://{number}" for number in range(450)]

    async def directory() -> list[str]:
        return servers

    async def main() -> None:
        async with Silent(directory, patience=30) as pool:
            await trio.sleep(1)
            servers.append(good.url)  # behind all of them
            assert (await pool.run(["job", "1", "1"])).server == good.url

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_server_that_is_lost_says_why_though_it_was_just_being_asked() -> None:
    class Cut(SimulatedLine):
        async def ask(self) -> None:
            raise execsrv.ConnectionLostError("cut by the proxy")

    class Cutting(SimulatedPool):
        @asynccontextmanager
        async def _dial(self, endpoint: Endpoint) -> AsyncIterator[Line]:
            if self.servers[0].why:
                await trio.sleep_forever()
            yield Cut(server, trio.Event())

    server = SimulatedServer("ws://0")

    async def main() -> None:
        async with Cutting([server], config=ClientConfig(ping_interval=5)) as pool:
            await trio.sleep(10)
            assert (pool.servers[0].state, pool.servers[0].why) == ("lost", "cut by the proxy")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_lease_that_is_on_its_way_when_the_pool_is_closed_says_so() -> None:
    connecting, closed = trio.Event(), trio.Event()

    class Slow(SimulatedPool):
        @asynccontextmanager
        async def _connect(self, endpoint: Endpoint) -> AsyncIterator[execsrv.Client]:
            connecting.set()
            await closed.wait()
            raise execsrv.ConnectionFailedError("refused")
            yield

    async def have_lease(pool: Pool) -> None:
        with pytest.raises(execsrv.ConnectionLostError, match="the pool is closed"):
            async with pool.lease():
                pass

    async with trio.open_nursery() as nursery:
        async with Slow([SimulatedServer("ws://0")]) as pool:
            nursery.start_soon(have_lease, pool)
            await connecting.wait()
        closed.set()


# -- in the other worlds --


def test_pools_without_trio(tmp_path: Path) -> None:
    with serving(f"unix://{tmp_path}/s") as server:
        with execsrv.sync.Pool([server.url]) as pool:
            assert pool.run(["echo", "said"], text=True).stdout == "said\n"
            assert sorted(result.argv[1] for result in pool.map([["echo", "a"], ["echo", "b"]])) == ["a", "b"]
            with pool.lease() as lease:
                assert isinstance(lease, execsrv.sync.Lease)
                assert lease.run(["pwd"], text=True).stdout == f"{lease.scratch}\n"
                assert lease.server == pool.servers[0].url == server.url
        with pytest.raises(execsrv.InvalidParamsError, match="servers must not be empty"):
            execsrv.sync.Pool([])

        async def main() -> None:
            async with execsrv.asyncio.Pool(lambda: [server.url]) as pool:
                assert (await pool.run(["echo", "said"], text=True)).server == server.url
                assert [result.exit_code async for result in pool.map([["false"]])] == [1]
                async with pool.lease(scratch=False) as lease:
                    assert (await lease.run(["pwd"], text=True)).exit_code == 0
            pool = execsrv.asyncio.Pool([server.url])
            assert repr(pool) == "<Pool not open>"
            with pytest.raises(RuntimeError, match="the Pool is not open"):
                await pool.run(["true"])
            await pool
            assert (await pool.run(["true"])).exit_code == 0
            await pool.close()

        asyncio.run(main())
