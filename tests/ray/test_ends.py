"""What dies with what, on a Ray cluster: each row of the table in docs/ray.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import trio
from ray.cluster_utils import Cluster

from execsrv.adapters.ray import stop_servers
from execsrv.errors import ExecsrvError
from tests.faults.daemon import until, until_gone
from tests.ray.nodes import (
    NODE,
    PROCESSES,
    TREES,
    Place,
    add_node,
    kill,
    places,
    running_cluster,
    running_driver,
    until_back,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


async def gone(*there: Place) -> None:
    """Wait until nothing is left of these servers and of what they started."""
    for place in there:
        await until_gone(place.mark)


def untouched(*there: Place) -> None:
    for place in there:
        assert len(place.alive) == TREES * PROCESSES


def keepers() -> list[int]:
    """Return the processes of all keepers, by the name that Ray gives them."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if command_line(pid).startswith(b"ray::Keeper")]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("victim", ["owner", "server"])
async def test_a_server_or_its_actor_is_killed(cluster: Cluster, victim: str) -> None:
    with running_driver(cluster) as driver:
        first, *others = await places(driver)
        kill(getattr(first, victim))
        await gone(first)
        await until_back(driver, [first], 3)
        untouched(*others)
        driver.stop()
        await gone(*others)


async def test_a_raylet_is_killed(cluster: Cluster) -> None:
    with running_driver(cluster) as driver:
        head = ray.get_runtime_context().get_node_id()
        there = await places(driver)
        first = next(place for place in there if place.endpoint.labels[NODE] != head)
        others = [place for place in there if place is not first]
        kill(first.raylet)
        await gone(first)
        await until_back(driver, [first], 2)
        untouched(*others)
        add_node(cluster)
        await until_back(driver, [first], 3)


async def test_a_node_is_removed(cluster: Cluster) -> None:
    with running_driver(cluster) as driver:
        node = next(node for node in cluster.list_all_nodes() if not node.is_head())
        there = await places(driver)
        [first] = [place for place in there if place.endpoint.labels[NODE] == node.node_id]
        await trio.to_thread.run_sync(lambda: cluster.remove_node(node, allow_graceful=False))
        await gone(first)
        untouched(*(place for place in there if place is not first))
        add_node(cluster)
        await until_back(driver, [first], 3)


async def test_the_keeper_is_killed(cluster: Cluster) -> None:
    with running_driver(cluster) as driver:
        there = await places(driver)
        await until(lambda: len(keepers()) == 1, keepers)  # those of other drivers are about to end
        kill(keepers()[0])
        await gone(*there)
        await until_back(driver, there, 3)


@pytest.mark.parametrize("victim", ["driver", "actor"])
async def test_whoever_started_them_is_killed(cluster: Cluster, victim: str) -> None:
    with running_driver(cluster, "actor" if victim == "actor" else "plain") as driver:
        there = await places(driver)
        kill(driver.starter if victim == "actor" else driver.process.pid)
        await gone(*there)
        with pytest.raises(ExecsrvError, match="there are no servers"):
            with trio.fail_after(60):
                while True:
                    await trio.to_thread.run_sync(driver.directory)
                    await trio.sleep(0.1)


async def test_the_driver_of_detached_ones_is_killed(cluster: Cluster) -> None:
    with running_driver(cluster, "detached") as driver:
        there = await places(driver)
        kill(driver.process.pid)
        driver.process.wait()
        assert len(await until_back(driver, [], 3)) == 3
        untouched(*there)
        stop_servers(driver.name)
        await gone(*there)


async def test_the_cluster_is_shut_down() -> None:
    ray.shutdown()
    with running_cluster() as cluster, running_driver(cluster) as driver:
        there = await places(driver)
        ray.shutdown()
        await trio.to_thread.run_sync(cluster.shutdown)
        await gone(*there)
