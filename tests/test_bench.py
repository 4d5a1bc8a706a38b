"""`execsrv bench`: every figure is measured, and the plot is one that a browser can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from execsrv._cli.bench_cases import CASES
from execsrv._cli.bench_plot import Bar, svg
from tests.faults.daemon import running_daemon
from tests.peers import PATIENCE
from tests.terminals import seen

EXECSRV = [sys.executable, "-m", "execsrv"]
SVG = "{http://www.w3.org/2000/svg}"


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "EXECSRV_URL": ""}
    return subprocess.run([*EXECSRV, "bench", *words], capture_output=True, text=True, env=env, timeout=4 * PATIENCE)


@pytest.mark.slow
def test_all_figures_are_measured_and_drawn(tmp_path: Path) -> None:
    done = bench("--rounds", "1", "--json", "--plot", f"{tmp_path}/plot.svg")
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads(done.stdout)
    assert [(figure["name"], figure["unit"]) for figure in figures] == [(case.name, case.unit) for case in CASES]
    assert all(figure["median"] > 0 and len(figure["values"]) == 1 for figure in figures)
    picture = ElementTree.parse(f"{tmp_path}/plot.svg").getroot()
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert {case.name for case in CASES} <= set(texts)
    assert len(list(picture.iter(f"{SVG}rect"))) == 1 + len(CASES)


@pytest.mark.slow
def test_a_server_that_is_there_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    with running_daemon(tmp_path, "unix") as daemon:
        before = set(os.listdir(tmp_path))
        done = bench("-u", daemon.url, "-r", "1", "--only", "run true", "--only", "put a file")
        assert done.returncode == 0, done.stderr
        assert daemon.url in done.stdout
        rows = [line.split()[:2] for line in done.stdout.splitlines()[3:]]
        assert rows == [["run", "true"], ["put", "a"]]
        assert set(os.listdir(tmp_path)) == before
        daemon.check()
        listed = subprocess.run([*EXECSRV, "ps", "-q", "-u", daemon.url], capture_output=True, timeout=PATIENCE)
        assert listed.stdout == b""


@pytest.mark.few
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "cannot take `0` for --rounds"),
        (["--only", "key and ech"], "unknown figure `key and ech`: did you mean `key and echo`?"),
        (["-u", "unix:///nonexistent/s", "--plot", "/nonexistent/x.svg"], "cannot use `/nonexistent/x.svg`"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], said: str) -> None:
    done = bench(*words)
    assert (done.returncode, done.stdout) == (125, "")
    [line] = done.stderr.splitlines()
    assert said in line


def test_a_plot_that_finds_no_room_loses_no_figures(tmp_path: Path) -> None:
    with running_daemon(tmp_path, "unix") as daemon:
        done = bench("-u", daemon.url, "-r", "1", "--only", "run true", "--plot", "/dev/full")
    assert (done.returncode, done.stderr) == (125, "execsrv: No space left on device\n")
    assert "run true" in done.stdout


def test_a_terminal_shows_what_is_being_measured() -> None:
    with seen("bench", "-r", "1", "--only", "run true", size=(24, 120), env={"EXECSRV_URL": ""}) as terminal:
        assert terminal.end() == 0
    assert b"execsrv: round 1 of 1: run true" in terminal.output
    assert "round" not in terminal.text
    assert "run true" in terminal.text


def test_bars_of_one_unit_have_one_scale() -> None:
    bars = [Bar("x", 1, "ms"), Bar("y", 4, "ms"), Bar("z", 9, "MiB/s")]
    picture = ElementTree.fromstring(svg("a <b>", "c & d", bars))
    first, second, third = [float(bar.attrib["width"]) for bar in picture.iter(f"{SVG}rect") if "x" in bar.attrib]
    assert second == third == pytest.approx(4 * first, rel=0.01)
    assert picture.attrib["aria-label"] == "a <b>: x 1 ms, y 4 ms, z 9 MiB/s"
