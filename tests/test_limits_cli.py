"""Limits on the command line: `run`, here and through a server, and what `ps` and `doctor` say of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.limited import alone, needs_groups
from tests.test_daemon import EXECSRV, daemon, execsrv


@pytest.fixture(params=["here", "there"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """Options by which a command runs here, or on a server."""
    if request.param == "here":
        yield []
        return
    with alone() as before, daemon(f"unix://{tmp_path}/s", before) as (_, url):
        yield ["--url", url]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    with nullcontext(list[str]()) if "--url" in words else alone() as before:
        return subprocess.run([*before, *EXECSRV, "run", *words], capture_output=True, text=True)


@pytest.mark.few
@needs_groups
def test_each_option_bounds_something_and_what_ended_a_command_is_said(place: list[str], tmp_path: Path) -> None:
    options: tuple[str, ...] = (
        "--limit-cpu-time",
        "1.5",
        "--limit-file-size",
        "4KiB",
        "--limit-open-files",
        "40",
        "--limit-core",
        "1KiB",
    )
    options += ("--limit-address-space", "4GiB", "--limit-processes", "30", "--limit-cpu", "80%")
    script = f"for kind in t f n c v; do ulimit -S$kind; done; grep -c limits /proc/self/cgroup; exec yes >{tmp_path}/x"
    done = run(*place, *options, "--json", "--", "bash", "-c", script)
    *limits, groups = done.stdout.split()
    assert limits == ["2", "4", "40", "1", "4194304"]
    assert int(groups) > 0
    said, facts = done.stderr.splitlines()
    assert said == "execsrv: the command was ended, as it wrote a file beyond --limit-file-size"
    found = json.loads(facts)
    assert (done.returncode, found["exitCode"], found["signal"]) == (153, 153, "SIGXFSZ")
    assert found["usage"]["refusedForks"] == 0
    eater = "pieces = []\nwhile True: pieces.append(b'x' * 1_000_000)"
    done = run(*place, "--limit-memory", "48MiB", "--", sys.executable, "-S", "-c", eater)
    said = "execsrv: the command was killed, as all of it had more memory than --limit-memory\n"
    assert (done.returncode, done.stderr) == (137, said)


def test_a_number_that_no_limit_takes_is_refused() -> None:
    for option, value, word in (
        ("--limit-cpu", "0", "invalid limit: Expected `int` >= 1 - at `$.cpuPercent`"),
        ("--limit-memory", "1GB", "cannot take `1GB` for --limit-memory: expected bytes, or a size such as `64MiB`"),
        ("--limit-cpu", "half", "cannot take `half` for --limit-cpu: expected a percentage such as `50%`"),
    ):
        done = execsrv("run", option, value, "--", "true")
        assert (done.returncode, done.stdout) == (125, "")
        assert word in done.stderr


@pytest.mark.slow
@needs_groups
def test_ps_shows_the_bound_beside_what_is_in_use(tmp_path: Path) -> None:
    with alone() as before, daemon(f"unix://{tmp_path}/s", before) as (_, url):
        execsrv(
            "run", "-d", "--name", "nap", "--url", url, "--limit-memory", "64MiB", "--", "sleep", "1000", check=True
        )
        assert " of 64.0 MiB " in execsrv("ps", "--url", url).stdout
        (listed,) = json.loads(execsrv("ps", "--url", url, "--json").stdout)
        assert listed["limits"]["memoryBytes"] == 64 << 20


def test_the_doctor_says_which_limits_can_be_kept() -> None:
    found = json.loads(execsrv("doctor", "--json").stdout)
    assert [limit["name"] for limit in found["limits"]] == ["memory", "processes", "cpu"]
    text = execsrv("doctor").stdout
    assert all(limit["meaning"] in text for limit in found["limits"])
