"""Types of pools, and of what they give back."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

import execsrv
import execsrv.asyncio
import execsrv.sync
from execsrv.directories import DnsDirectory, FileDirectory, KubernetesDirectory


async def directory() -> Sequence[execsrv.Endpoint]:
    return [execsrv.Endpoint("ws://10.0.0.1:80", labels={"zone": "a"}, free=4)]


async def pools(urls: list[str]) -> None:
    async with execsrv.Pool(urls, per_server=4, token_file="/etc/token", reconnect=5) as pool:
        assert_type(pool, execsrv.Pool)
        result = await pool.run(["ls"], labels={"zone": "a"}, share="alice", idempotent=True, timeout=5)
        assert_type(result, execsrv.Result)
        assert_type(result.server, str | None)
        assert_type(await pool.run(["ls"], text=True), execsrv.Result[str])
        assert_type(await pool.run(["ls"], encoding="latin-1"), execsrv.Result[str])
        assert_type(await anext(pool.map([["ls"]], encoding="latin-1", share="alice")), execsrv.Result[str])
        async for each in pool.map([["ls"]], limit=4):
            assert_type(each, execsrv.Result)
        async for outcome in pool.map([["ls"]], return_errors=True):
            assert_type(outcome.argv, list[str])
        async with pool.lease(labels={"zone": "a"}) as lease:
            assert_type(lease, execsrv.Lease)
            assert_type(lease.scratch, str | None)
            assert_type(await lease.run(["ls"]), execsrv.Result)
        assert_type([server.url for server in pool.servers], list[str])
    execsrv.Pool(directory)
    execsrv.Pool(FileDirectory("servers"))
    execsrv.Pool(DnsDirectory("servers", 80))
    execsrv.Pool(KubernetesDirectory("app=execsrv"))
    execsrv.Pool(5)  # type: ignore[arg-type]
    await pool.run(["ls"], label={})  # type: ignore[call-overload]


def told(outcome: execsrv.Unknown) -> None:
    assert_type(outcome.process, str)
    assert_type(outcome.server, str | None)


def plain(urls: list[str]) -> None:
    with execsrv.sync.Pool(urls) as pool:
        assert_type(pool.run(["ls"], text=True), execsrv.Result[str])
        with pool.lease() as lease:
            assert_type(lease, execsrv.sync.Lease)
            assert_type(lease.run(["ls"]), execsrv.Result)


async def awaited(urls: list[str]) -> None:
    async with execsrv.asyncio.Pool(urls) as pool:
        assert_type(await pool.run(["ls"], text=True), execsrv.Result[str])
        async with pool.lease() as lease:
            assert_type(lease, execsrv.asyncio.Lease)
