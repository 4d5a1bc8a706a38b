"""`execsrv ps`: what runs on a server, or ran until a moment ago, by name."""

from __future__ import annotations

import os
import shlex

import msgspec
import trio

from execsrv._cli.finding import Listing, how_it_stands, listing
from execsrv._cli.manners import Manners, one_line, print_json, print_text, size, span
from execsrv._cli.reach import Reach
from execsrv.protocol import ListedProcess

_HEADS = ("NAME", "STATE", "AGE", "PID", "CPU", "MEMORY", "OUTPUT", "COMMAND")


def ps(*, reach: Reach, manners: Manners) -> int:
    """List what is there."""
    found = trio.run(_listing, reach)
    if manners.as_json:
        print_json([{"name": name} | msgspec.to_builtins(listed) for name, listed in found.by_name.items()])
    elif found.by_name:
        print_text(_table([_HEADS, *(_row(name, listed) for name, listed in found.by_name.items())]))
    else:
        manners.note("nothing runs there")
    return 0


async def _listing(reach: Reach) -> Listing:
    async with reach.connect() as client:
        return await listing(client, usage=True)


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
