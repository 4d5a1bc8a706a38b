"""docs/figures.md and its plots: what they are written from, and that they say what was measured."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import bench, figures, least, page, plain, plots

SVG = "{http://www.w3.org/2000/svg}"
PEER = "peer"


def document(**rows: Mapping[str, Sequence[float]]) -> page.Document:
    """What bench.py writes, of figures whose unit says what is better."""
    report = bench.Report()
    for name, values in rows.items():
        unit, better = ("ms", "less") if name.startswith("echo") else ("MiB/s", "more")
        report.rows[name] = bench.Row(
            "case", unit, better, {server: list(of_rounds) for server, of_rounds in values.items()}
        )
    entries = [{"figure": name, **vars(row)} for name, row in report.rows.items()]
    servers = dict.fromkeys(next(iter(rows.values())), "")
    machine = {"platform": "Linux-6.1.2-x86_64", "processors": 2, "python": "3.11.2", "rounds": 1}
    return {**machine, "servers": servers, "figures": entries}


def test_a_row_has_the_medians_of_both_runs_and_their_ratio() -> None:
    runs = [
        document(**{"echo, p50": {"execsrv": [2, 1, 9], PEER: [4, 3, 5]}}),
        document(**{"echo, p50": {"execsrv": [3.0], PEER: [2.0]}}),
    ]
    [row] = rows = page.compared(runs, [{"echo, p50": 0.5}, {"echo, p50": 0.25}], PEER)
    assert (row.ours, row.peers, row.ratios, row.floors) == ([2, 3], [4, 2], [0.5, 1.5], [0.5, 0.25])
    *_, written = page.table(rows, PEER).splitlines()
    assert written == "| echo, p50 | less ms | 2 | 4 | 0.5 | 3 | 2 | **1.5** | 0.25 |"
    assert "- Here: *echo, p50*" in page.behind({"Here": rows})


def test_more_is_better_for_throughput_and_msgpack_has_rows_of_its_own() -> None:
    values = {"execsrv": [150.0], PEER: [120.0], page.MSGPACK: [600.0], "floor": [400.0], "msgpack floor": [2000.0]}
    run = document(**{"pipe": values, "pipe, delivered": {server: [100.0] for server in values}})
    packed = page.compared([run, run], [], PEER)
    assert [(row.name, row.ratios[0], row.floors[0]) for row in packed] == [
        ("pipe", 1.25, 400.0),
        ("pipe, in msgpack", 5.0, 2000.0),
    ]
    assert "every figure is better" in page.behind({"": packed})


def test_output_that_a_server_dropped_is_shown() -> None:
    run = document(**{"pipe, delivered": {"execsrv": [100.0], PEER: [40.0]}})
    assert [row.name for row in page.compared([run, run], [], PEER)] == ["pipe, delivered"]


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (0.01234, 3, "0.0123"),
        (99.97, 3, "100"),
        (999.7, 3, "1000"),
        (0.0, 3, "0"),
        (41.4, 2, "41"),
        (float("nan"), 3, "-"),
    ],
)
def test_numbers_have_as_many_digits_as_they_are_worth(value: float, digits: int, said: str) -> None:
    assert page.number(value, digits) == said


def test_a_floor_is_that_of_a_figure() -> None:
    names = {name.removesuffix(", as JSON") for name in plain.FLOORS}
    written = (figures.DOCS / "figures.md").read_text()
    assert all(f"| {name} |" in written for name in names)


@pytest.mark.few(4)
@pytest.mark.parametrize("encoding", ["", bench.MSGPACK])
@pytest.mark.parametrize("case", ["pipe", "lines", "terminal", "stdin", "50-way"])
def test_the_least_server_does_all_that_throughput_asks_for(
    case: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in ("PIPE_BYTES", "LINES_BYTES", "TERMINAL_BYTES", "STDIN_BYTES", "WAY_BYTES"):
        monkeypatch.setattr(bench, size, 4 * bench.WRITE_BYTES)
    command = encoding + shlex.join([sys.executable, least.__file__, "{listen}"])
    with bench.running(command, stdio=False) as server, closing(server.first_client()) as client:
        measured = {figure.name: figure.value for figure in bench.CASES[case](server, client)}
    assert measured.pop(case.replace("-way", " ways")) > 0
    assert case == "stdin" or 100 in measured.values()  # delivered; it counts its input itself


def test_the_plots_have_every_point_of_every_server() -> None:
    sizes = document(**{f"pipe, writes of {size} B": {"execsrv": [size], PEER: [2 * size]} for size in bench.PIECES})
    plain = {f"pipe, writes of {size} B": 4 * size for size in bench.PIECES}
    panel = page.sizes_plot(sizes, plain, PEER)
    by_name = {line.name: line.values for line in panel.lines if line.values}
    assert by_name == {
        "plain Python": {size: 4 * size for size in bench.PIECES},
        "execsrv, JSON": {size: size for size in bench.PIECES},
        PEER: {size: 2 * size for size in bench.PIECES},
    }
    assert list(panel.marks.values()) == "64 B,256 B,1 KiB,4 KiB,16 KiB,64 KiB,256 KiB,1 MiB".split(",")


def test_a_line_is_one_percentile_of_one_server() -> None:
    rows = {
        f"echo, {others} others, p{percent}": {"execsrv": [float(others + percent)], PEER: [1000.0 + others + percent]}
        for others in bench.LOADS
        for percent in (50, 99)
    }
    lines = {line.name: line for line in page.load_plot(document(**rows), "echo", "title", PEER).lines if line.values}
    assert lines["execsrv, p99"].values == {others: others + 99 for others in bench.LOADS}
    assert lines["peer, p50"].values == {others: 1050 + others for others in bench.LOADS}
    assert lines["execsrv, p99"].is_hollow
    assert not lines["execsrv, p50"].is_hollow


def test_a_higher_value_is_drawn_higher_and_all_within_the_ticks() -> None:
    lines = [plots.Line("a", "ours", {1: 0.4, 4: 30.0}), plots.Line("b < c", "peer", {1: 7.0, 4: 800.0})]
    picture = ElementTree.fromstring(
        plots.svg("title", "below", [plots.Panel("p", "x", "y", {1: "one", 4: "4"}, lines)])
    )
    heights = {}
    for path in picture.iter(f"{SVG}path"):
        if path.attrib["class"].endswith(" line"):
            first, last = (point.split() for point in path.attrib["d"][1:].split("L"))
            heights[path.attrib["class"]] = float(first[1]), float(last[1])
    assert heights["ours line"][0] > heights["peer line"][0] > heights["ours line"][1] > heights["peer line"][1]
    grid = [
        float(path.attrib["d"].partition(" ")[2].partition("H")[0])
        for path in picture.iter(f"{SVG}path")
        if path.attrib["class"] == "grid"
    ]
    assert min(grid) <= heights["peer line"][1]
    assert heights["ours line"][0] <= max(grid)
    assert {"b < c", "one", "0.2", "1000"} <= {text.text for text in picture.iter(f"{SVG}text")}
    assert "b < c: one 7, 4 800" in picture.attrib["aria-label"]


def test_names_at_the_ends_of_lines_do_not_cover_each_other() -> None:
    places = sorted(plots.apart([100.0, 102.0, 101.0, 279.0, 280.0]))
    gaps = [after - before for before, after in pairwise(places)]
    assert min(gaps) >= plots.NAME_DISTANCE
    assert places[-1] <= plots.PLOT_BOTTOM


@pytest.mark.parametrize(("load_average", "is_busy"), [(0.25, False), (7.5, True)])
def test_a_page_and_its_plots_are_written_again(tmp_path: Path, load_average: float, is_busy: bool) -> None:
    """A rerun replaces what the last one said, and no other word."""
    row: dict[str, list[float]] = {"execsrv": [1.0], PEER: [2.0], page.MSGPACK: [3.0], page.QUICKACK: [4.0]}
    table = document(**{"pipe": row, "echo, p50": row})
    sizes = {f"pipe, writes of {size} B": row for size in bench.PIECES}
    load = {
        f"{name}, {n} others, p{p}": row for name in ("spawn, closed", "echo") for n in bench.LOADS for p in (50, 99)
    }
    documents = {
        "versions": {"execsrv": "1.2.3", PEER: "4.5.6"},
        "sizes": document(**sizes),
        "sizes-floors": dict.fromkeys(sizes, 9.0),
        "load": document(**load),
        **{f"{run}-{part}": table for run in page.RUNS for part in figures.TABLES},
        **{f"{run}-floors": {"echo, p50": 0.5} for run in page.RUNS},
        **{f"{run}-began": {"load": load_average, "date": "2026-11-29"} for run in page.RUNS},
    }
    for name, content in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    path = tmp_path / "figures.md"
    path.write_text(f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n")
    figures.write(tmp_path, tmp_path)
    written = path.read_text()
    assert written.startswith(f"before\n{figures.BEGIN}\n")
    assert written.endswith(f"\n{figures.END}\nafter\n")
    assert "old" not in written
    assert "| peer | 4.5.6 |" in written
    assert ("no more than a hint" in written) == is_busy
    assert "| echo, p50 | less ms | 1 | 2 | 0.5 | 1 | 2 | 0.5 | 0.5 |" in written
    figures.write(tmp_path, tmp_path)
    assert path.read_text() == written
    for name in ("throughput.svg", "latency.svg"):
        assert "peer 4.5.6" in (tmp_path / name).read_text()
