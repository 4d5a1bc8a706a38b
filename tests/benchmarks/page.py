"""The tables and the plots of docs/figures.md, from what `figures` measured. Pure: no I/O."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from tests.benchmarks import bench
from tests.benchmarks.plots import Line, Panel, shown, svg

RUNS = 1, 2
MSGPACK = "msgpack"
"""The name of execsrv where it is measured in msgpack too."""
FLOORS = {"execsrv": "floor", MSGPACK: "msgpack floor"}
"""The name of the least server beside each of these, where it is measured."""
QUICKACK = "quickack"
"""The name of the peer where the client acknowledges at once too."""

Document = dict[str, Any]


# The tables


def median(document: Document, figure: str, server: str) -> float:
    return row_of(document, figure).median(server)


def row_of(document: Document, figure: str) -> bench.Row:
    found = next(entry for entry in document["figures"] if entry["figure"] == figure)
    return bench.Row(**{key: value for key, value in found.items() if key != "figure"})


class Compared(NamedTuple):
    """One row of a table: the medians of both servers in each run, and of the floor where there is one."""

    name: str
    unit: str
    better: str
    ours: list[float]
    peers: list[float]
    floors: list[float]

    @property
    def ratios(self) -> list[float]:
        pairs = zip(self.ours, self.peers, strict=True)
        return [ours / peer if peer else math.inf if ours else math.nan for ours, peer in pairs]

    @property
    def floor(self) -> float:
        """The better one of both runs: it is a bound."""
        return (min if self.better == "less" else max)(self.floors, default=math.nan)

    def is_behind(self, ratio: float) -> bool:
        return ratio > 1 if self.better == "less" else ratio < 1


def compared(runs: list[Document], floor_runs: list[Document], peer: str) -> list[Compared]:
    """The rows of one part: first all of execsrv in JSON, then in msgpack what was measured in it."""
    found = []
    for server in [server for server in ("execsrv", MSGPACK) if server in runs[0]["servers"]]:
        for entry in runs[0]["figures"]:
            figure = entry["figure"]
            if figure.endswith(", messages") or (server == MSGPACK and entry["unit"] not in ("MiB/s", "s/GiB")):
                continue  # latency and memory are those of the work, not of the encoding
            if figure.endswith(", delivered") and all(median(run, figure, peer) == 100 for run in runs):
                continue
            if (beside := FLOORS[server]) in runs[0]["servers"]:
                floors = [median(run, figure, beside) for run in runs]
            else:
                floors = [run[figure] for run in floor_runs if figure in run]
            found.append(
                Compared(
                    f"{figure}, in msgpack" if server == MSGPACK else figure,
                    entry["unit"],
                    entry["better"],
                    [median(run, figure, server) for run in runs],
                    [median(run, figure, peer) for run in runs],
                    floors,
                )
            )
    return found


def table(rows: list[Compared], peer: str) -> str:
    """The rows as Markdown. A ratio at which execsrv is behind is bold."""
    heads = [f"{name}, {run}" for run in RUNS for name in ("execsrv", peer, "ratio")]
    lines = [["figure", "better", *heads, "floor"], ["---"] * 2 + ["---:"] * (len(heads) + 1)]
    for row in rows:
        cells = [row.name, f"{row.better} {row.unit}"]
        for ours, theirs, ratio in zip(row.ours, row.peers, row.ratios, strict=True):
            said = number(ratio, 2)
            cells += [number(ours), number(theirs), f"**{said}**" if row.is_behind(ratio) else said]
        lines.append([*cells, number(row.floor)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float, digits: int = 3) -> str:
    return shown(value, digits) if math.isfinite(value) else "-"


def behind(tables: dict[str, list[Compared]]) -> str:
    """The figures of each table that are not better than the peer's."""
    lines = []
    for title, rows in tables.items():
        if names := [f"*{row.name}*" for row in rows if any(map(row.is_behind, row.ratios))]:
            lines.append(f"- {title}: {'; '.join(names)}")
    if not lines:
        return "In both runs every figure is better than the peer's."
    return "\n".join(["Not better than the peer's in one run or in both:", "", *lines])


def page_part(measured: dict[str, Document], parts: list[str]) -> str:
    """What stands between the markers of the page."""
    peer = peer_in(measured)
    floor_runs = [measured[f"{run}-floors"] for run in RUNS]
    rows = {part: compared([measured[f"{run}-{part}"] for run in RUNS], floor_runs, peer) for part in parts}
    tables = {
        "Over a websocket": rows["latency"] + rows["throughput"],
        "Over a websocket, acknowledged at once": rows["quickack"],
        "Over stdio": [row._replace(floors=[]) for row in rows["stdio"]],  # the floors are those of sockets
    }
    sections = [f"## {title}\n\n{table(of_title, peer)}" for title, of_title in tables.items()]
    return "\n\n".join([conditions(measured), behind(tables), *sections])


def peer_in(measured: dict[str, Document]) -> str:
    return next(name for name in measured["versions"] if name != "execsrv")


def conditions(measured: dict[str, Document]) -> str:
    """Where and when it was measured, as a table."""
    began = [measured[f"{run}-began"] for run in RUNS]
    first = measured["1-latency"]
    kernel = ".".join(first["platform"].split("-")[1].split(".")[:2])
    facts = {
        "measured on": " and ".join(sorted({run["date"] for run in began})),
        "machine": f"{first['processors']} processors, Linux {kernel}",
        "load average when the runs began": " and ".join(f"{run['load']:.1f}" for run in began),
        "Python": first["python"],
        **measured["versions"],
        "rounds in each run": first["rounds"],
    }
    lines = ["| | |", "| --- | --- |", *(f"| {fact} | {value} |" for fact, value in facts.items())]
    most = 0.75 * first["processors"]  # what the run before leaves behind is less
    crowded = [str(number) for number, run in enumerate(began, 1) if run["load"] > most]
    if crowded:
        runs = f"run {crowded[0]}" if len(crowded) == 1 else f"runs {' and '.join(crowded)}"
        lines += ["", f"Others had wanted the processors when {runs} began: these figures are no more than a hint."]
    return "\n".join(lines)


# The plots


def by_number(document: Document, pattern: str, server: str) -> dict[int, float]:
    """The medians of a server by the number in the figures' names, where it has one."""
    found = {}
    for entry in document["figures"]:
        if (match := re.fullmatch(pattern, entry["figure"])) and server in entry["values"]:
            found[int(match[1])] = median(document, entry["figure"], server)
    return found


def sizes_plot(document: Document, of_plain: Document, peer: str) -> Panel:
    pattern = r"pipe, writes of (\d+) B"
    lines = [
        Line("plain Python", "floor", {piece: of_plain[f"pipe, writes of {piece} B"] for piece in bench.PIECES}),
        Line("execsrv, msgpack", "packed", by_number(document, pattern, MSGPACK)),
        Line("execsrv, JSON", "ours", by_number(document, pattern, "execsrv")),
        Line(peer, "peer", by_number(document, pattern, peer)),
    ]
    marks = {piece: size_name(piece) for piece in bench.PIECES}
    return Panel("Output of a pipe", "size of the command's writes", "MiB/s", marks, lines)


def size_name(size: int) -> str:
    return next(
        f"{size // unit} {name}" for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")) if size >= unit
    )


def load_plot(document: Document, figure: str, title: str, peer: str) -> Panel:
    servers = ((peer, peer, "peer"), (QUICKACK, f"{peer}, at once", "quickack"), ("execsrv", "execsrv", "ours"))
    lines = []
    for server, name, kind in servers:
        for percent in (99, 50):
            values = by_number(document, rf"{figure}, (\d+) others, p{percent}", server)
            lines.append(Line(f"{name}, p{percent}", kind, values, is_hollow=percent == 99))
    marks = {others: str(others) for others in bench.LOADS}
    return Panel(title, "other sessions that print as fast as they can", "ms", marks, lines)


def plots(measured: dict[str, Document]) -> dict[str, str]:
    """The pictures, by their file names."""
    sizes, loaded, peer = measured["sizes"], measured["load"], peer_in(measured)
    servers = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    below = f"{servers}, over a websocket, {sizes['processors']} processors, rounds: {sizes['rounds']}"
    by_size = [sizes_plot(sizes, measured["sizes-floors"], peer)]
    by_load = [
        load_plot(loaded, "spawn, closed", "A start of true, until it has closed", peer),
        load_plot(loaded, "echo", "A key in a terminal, until its echo is back", peer),
    ]
    return {
        "throughput.svg": svg("Throughput by the size of writes: more is better", below, by_size),
        "latency.svg": svg("Latency beside others: less is better", below, by_load),
    }
