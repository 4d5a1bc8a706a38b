"""`execsrv ps`: what runs on a server, or ran until a moment ago, by name."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import msgspec
import trio

from execsrv._cli.finding import Listing, how_it_stands, listing
from execsrv._cli.manners import Manners, one_line, print_json, print_text, size, span
from execsrv._cli.reach import Reach
from execsrv._cli.register.kinds import OWN_FAILURE
from execsrv._cli.streams import say
from execsrv.errors import ExecsrvError
from execsrv.protocol import ListedProcess

if TYPE_CHECKING:
    from execsrv._cli.pooling import PoolReach
    from execsrv.directories import Endpoint

_AT_A_TIME = 32
"""So many servers of a pool are asked at a time."""

_HEADS = ("NAME", "STATE", "AGE", "PID", "CPU", "MEMORY", "OUTPUT", "COMMAND")


def ps(*, pool: str | None, reach: Reach, manners: Manners) -> int:
    """List what is there; return the exit status."""
    if pool is not None:
        return _ps_of_pool(pool, reach, manners)
    found, sees_all = trio.run(_listing, reach)
    if manners.as_json:
        print_json([{"name": name} | msgspec.to_builtins(listed) for name, listed in found.by_name.items()])
    elif found.by_name:
        print_text(_table([_HEADS, *(_row(name, listed) for name, listed in found.by_name.items())]))
    else:
        manners.note("nothing runs there" if sees_all else "nothing runs there that you may see")
    return 0


async def _listing(reach: Reach) -> tuple[Listing, bool]:
    """Return what is there, and False where that is nothing, and there may be more for another role."""
    async with reach.connect() as client:
        found = await listing(client, usage=True)
        own = [] if found.by_name else [each.role for each in await client.connections() if each.is_own]
        return found, own in ([], ["owner"])


def _ps_of_pool(pool: str, reach: Reach, manners: Manners) -> int:
    """List what is on all servers of a pool. It is a failure if one of them cannot be asked."""
    from execsrv._cli.pooling import PoolReach

    found, failed = trio.run(_listings, PoolReach(pool, reach))
    rows = [(url, name, listed) for url, each in found.items() for name, listed in each.by_name.items()]
    if manners.as_json:
        print_json([{"server": url, "name": name} | msgspec.to_builtins(listed) for url, name, listed in rows])
    elif rows:
        print_text(_table([("SERVER", *_HEADS), *((one_line(url), *_row(name, listed)) for url, name, listed in rows)]))
    elif not found and not failed:
        manners.note(f"no server is in the pool `{pool}`")
    else:
        manners.note(f"nothing runs on the {len(found)} servers that answer")
    for url, why in failed.items():
        say(f"execsrv: cannot list what runs on `{url}`: {why}")
    return OWN_FAILURE if failed else 0


async def _listings(pool: PoolReach) -> tuple[dict[str, Listing], dict[str, str]]:
    """Return what is on each server, or why that is not known."""
    endpoints = await pool.endpoints()
    found: dict[str, Listing] = {}
    failed: dict[str, str] = {}
    room = trio.CapacityLimiter(_AT_A_TIME)

    async def ask(endpoint: Endpoint) -> None:
        try:
            async with room, pool.connect(endpoint) as client:
                found[endpoint.url] = await listing(client, usage=True)
        except (ExecsrvError, OSError, ValueError) as error:  # a directory may name any host
            failed[endpoint.url] = str(error)

    async with trio.open_nursery() as nursery:
        for endpoint in endpoints:
            nursery.start_soon(ask, endpoint)
    order = [endpoint.url for endpoint in endpoints]
    return {url: found[url] for url in order if url in found}, {url: failed[url] for url in order if url in failed}


def _row(name: str, listed: ListedProcess) -> tuple[str, ...]:
    return (
        one_line(name),
        one_line(how_it_stands(listed)),
        span(listed.age_ms / 1000),
        "" if listed.pid is None else str(listed.pid),
        span(listed.cpu_ms / 1000) if listed.running and isinstance(listed.cpu_ms, int) else "",
        _memory(listed),
        size(sum(listed.totals.values())),
        one_line(shlex.join(listed.argv)),
    )


def _memory(listed: ListedProcess) -> str:
    """Return the memory that a session has, and the most that it may have where that is bounded."""
    if not listed.running or not isinstance(listed.memory_bytes, int):
        return ""
    most = listed.limits.memory_bytes if listed.limits else None
    return size(listed.memory_bytes) + ("" if most is None else f" of {size(most)}")


def _table(rows: list[tuple[str, ...]]) -> str:
    """Return rows in columns. On a terminal they are cut at its edge."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = os.get_terminal_size(1).columns if os.isatty(1) else 0
    lines = []
    for row in rows:
        line = "  ".join(f"{word:{width}}" for word, width in zip(row, widths, strict=True)).rstrip()
        lines.append(f"{line[: room - 1]}…" if 0 < room < len(line) else line)
    return "\n".join(lines) + "\n"
