"""Servers on a Ray cluster in use: from a driver, from tasks and actors, from the command line."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import pytest
import ray
import trio
from ray.cluster_utils import Cluster

import execsrv
import execsrv.asyncio
import execsrv.sync
from execsrv.adapters.ray import RayDirectory, Servers, start_servers
from execsrv.errors import ExecsrvError
from tests.faults.daemon import new_mark
from tests.ray.nodes import NODE, running_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def servers(cluster: Cluster) -> Iterator[Servers]:
    with start_servers(new_mark()) as servers:
        yield servers


async def test_commands_run_on_the_nodes_that_have_their_labels(servers: Servers) -> None:
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    endpoints = await trio.to_thread.run_sync(servers.directory)
    assert {endpoint.labels[NODE] for endpoint in endpoints} == nodes.keys()
    assert all(endpoint.labels["CPU"] == "1" for endpoint in endpoints)
    assert all(endpoint.token not in repr(endpoint) for endpoint in endpoints if endpoint.token)
    async with execsrv.Pool(servers.directory) as pool:
        commands = [["sh", "-c", "echo $CUDA_VISIBLE_DEVICES$RAY_JOB_ID$EXECSRV_TOKEN"]] * 60
        results = [result async for result in pool.map(commands, text=True)]
        assert {result.stdout for result in results} == {"\n"}
        assert {result.server for result in results} <= {endpoint.url for endpoint in endpoints}
        [fast] = [endpoint for endpoint in endpoints if endpoint.labels.get("place2")]
        result = await pool.run(["true"], labels={"place2": "1", "disk": "fast"})
        assert result.server == fast.url


class Agent:
    """An actor as most are: its methods are coroutines of asyncio."""

    async def work(self, directory: RayDirectory, count: int) -> set[int]:
        async with execsrv.asyncio.Pool(directory) as pool:
            commands = [["sh", "-c", f"exit {number % 3}"] for number in range(count)]
            return {result.exit_code async for result in pool.map(commands)}


def task(directory: RayDirectory) -> str | None:
    with execsrv.sync.Pool(directory) as pool, pool.lease() as lease:
        lease.files.write(f"{lease.scratch}/note", b"kept")
        return lease.run(["cat", "note"], text=True).stdout


async def test_an_actor_and_a_task_use_them(servers: Servers) -> None:
    on_none = ray.remote(num_cpus=0)
    agent = on_none(Agent).remote()
    asked = [agent.work.remote(servers.directory, 30), on_none(task).remote(servers.directory)]
    assert await trio.to_thread.run_sync(ray.get, asked) == [{0, 1, 2}, "kept"]


def starter(name: str) -> int:
    servers = start_servers(name)
    return len(servers.directory())


async def test_servers_that_a_task_has_started_end_with_it(cluster: Cluster) -> None:
    name = new_mark()
    asked = ray.remote(num_cpus=0)(starter).remote(name)
    assert await trio.to_thread.run_sync(ray.get, asked) == 3
    with trio.fail_after(60), pytest.raises(ExecsrvError, match="there are no servers"):
        while True:
            await trio.to_thread.run_sync(RayDirectory(name))
            await trio.sleep(0.1)


def test_what_a_server_says_that_does_not_start_is_told(cluster: Cluster) -> None:
    with pytest.raises(ExecsrvError, match=r"node \w+: cannot listen on ws://127.0.0.\d+:0: there is no TLS"):
        start_servers(new_mark(), options=["--tls-certificate-file", "/nonexistent"])
    with pytest.raises(ExecsrvError, match="unknown option `--nope`"):
        start_servers(new_mark(), options=["--nope"])


def own_address() -> str:
    """An address of this machine that is not the loopback's. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            pytest.skip(f"this machine has no other address: {error}")
        return str(probe.getsockname()[0])


@pytest.mark.usefixtures("cluster")
async def test_servers_on_a_network_that_is_ones_own() -> None:
    listen, options = f"ws://{own_address()}:0", ["--allow-plain-network"]
    start = partial(start_servers, new_mark(), listen=listen, options=options)
    servers = await trio.to_thread.run_sync(start)
    try:
        async with execsrv.Pool(servers.directory) as pool:
            result = await pool.run(["echo", "there"], text=True)
        assert result.stdout == "there\n"
        assert str(result.server).startswith(listen.removesuffix("0"))
    finally:
        await trio.to_thread.run_sync(servers.stop)


def test_there_is_one_set_of_servers_of_a_name(servers: Servers) -> None:
    with pytest.raises(ExecsrvError, match="there are some of that name"):
        start_servers(servers.name)
    assert len(servers.directory()) == 3


def test_the_command_line_finds_them(servers: Servers) -> None:
    words = [sys.executable, "-m", "execsrv", "run", "--pool", f"ray://{servers.name}", "--label", "place1=1", "--"]
    done = subprocess.run([*words, "echo", "there"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "there\n", "")
    words = [sys.executable, "-m", "execsrv", "ps", "--pool", "ray://nope"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (125, "execsrv: there are no servers `ray://nope` in this Ray cluster\n")
