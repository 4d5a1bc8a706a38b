"""A Ray cluster of three nodes on the loopback, and servers on it with commands that take to flight."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import ray
import trio
from ray.cluster_utils import Cluster

import execsrv
from execsrv.adapters.ray import RayDirectory
from execsrv.directories import Endpoint
from execsrv.errors import ExecsrvError
from tests.faults.daemon import MARK, alive_with, new_mark, until_alive

TREES = 10
"""Commands on each node, each of which leaves a process behind that has fled: no parent, no session, no environment."""

FLEE = "setsid sh -c 'setsid sleep 1000 & sleep 1000' & exec sleep 1000"
NODE = "ray.io/node-id"
"""The label by which Ray tells nodes apart."""

PROCESSES = 4
"""Of each of them."""

DRIVER = """
import sys
import ray
from execsrv.adapters.ray import start_servers

how, address, name = sys.argv[1:]
ray.init(address=address, log_to_driver=False)

class Starter:
    def start(self):
        self.servers = start_servers(name)

    def pid(self):
        import os
        return os.getpid()

pid = 0
if how == "actor":
    actor = ray.remote(Starter).options(num_cpus=0).remote()
    ray.get(actor.start.remote())
    pid = ray.get(actor.pid.remote())
else:
    servers = start_servers(name, detached=how == "detached")
print("ready", pid, flush=True)
sys.stdin.read()
if how != "actor":
    servers.stop()
"""


_numbers = count(2)


def add_node(cluster: Cluster, **more: object) -> None:
    """Add a node that has an address of its own. It is not 127.0.0.1, for which Ray would take one of the network."""
    address = f"127.0.0.{next(_numbers)}"
    cluster.add_node(num_cpus=1, node_ip_address=address, object_store_memory=100_000_000, **more)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run a cluster of three nodes for the block."""
    cluster = Cluster()
    try:
        add_node(cluster, include_dashboard=False)
        for number in (1, 2):
            add_node(cluster, resources={f"place{number}": 1}, labels={"disk": "fast"})
        ray.init(address=cluster.address, _node_ip_address=cluster.head_node.node_ip_address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


class Place(NamedTuple):
    """One server, the processes that it hangs by, and the mark of its commands."""

    endpoint: Endpoint
    server: int
    owner: int
    raylet: int
    mark: str

    @property
    def alive(self) -> dict[int, str]:
        return alive_with(self.mark)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Driver:
    """A program that has started servers. `starter` is the actor of it that did so, if that did it."""

    def __init__(self, process: subprocess.Popen[str], starter: int, name: str) -> None:
        self.process = process
        self.starter = starter
        self.name = name
        self.directory = RayDirectory(name)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0


@contextmanager
def running_driver(cluster: Cluster, how: str = "plain") -> Iterator[Driver]:
    """Run a program that starts servers, for the block. `how` is "plain", "detached" or "actor"."""
    name = new_mark()
    words = [sys.executable, "-c", DRIVER, how, cluster.address, name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            ready = next(line for line in process.stdout if line.startswith("ready "))  # Ray has news to tell too
            yield Driver(process, int(ready.split()[1]), name)
        finally:
            process.kill()


async def places(driver: Driver) -> list[Place]:
    """Start commands that flee on each server, and leave them running."""
    found = []
    for endpoint in await trio.to_thread.run_sync(driver.directory):
        mark = new_mark()
        async with execsrv.connect(endpoint.url, token=endpoint.token, keep="untilIdle", name="trees") as client:
            server = int((await client.run(["sh", "-c", "echo $PPID"], text=True)).stdout)
            for _ in range(TREES):
                async with client.start(["sh", "-c", FLEE], env_add={MARK: mark}) as process:
                    process.leave_running()
        found.append(Place(endpoint, server, parent(server), parent(parent(server)), mark))
        await until_alive(mark, TREES * PROCESSES)
    return found


async def until_back(driver: Driver, gone: Sequence[Place], many: int) -> list[Endpoint]:
    """Wait until so many servers are there, none of them one that was lost; return them."""
    lost = {place.endpoint.url for place in gone}
    with trio.fail_after(60):
        while True:
            endpoints: list[Endpoint] = []
            with suppress(ExecsrvError):  # the keeper itself may be starting anew
                endpoints = await trio.to_thread.run_sync(driver.directory)
            if len(endpoints) == many and not lost & {endpoint.url for endpoint in endpoints}:
                return endpoints
            await trio.sleep(0.1)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
