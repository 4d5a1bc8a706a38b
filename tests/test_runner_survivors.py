"""Nothing survives of sessions over a runner either, however they, their server or the runner end."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from execsrv._processes import proc
from tests.confined import needs_confinement
from tests.over_runner import RELAY
from tests.test_confine_survivors import NAMES as CONFINED_NAMES
from tests.test_confine_survivors import READ_ONLY
from tests.test_survivors import (
    FINAL,
    NEIGHBOURLY,
    PLACES,
    Case,
    End,
    Placement,
    cmdline,
    host,
    open_path,
    placement,
    pytestmark,
    start_and_end,
    until_guarded,
)

__all__ = ["host", "open_path", "placement", "pytestmark"]

RUNNER = b"-m\0execsrv\0runner\0"


# -- the ways to end --


def _find(case: Case) -> int:
    """Return the pid of the one runner of a server: the program itself, and nothing that relays to it."""
    family = proc.family(proc.children(case.pid))
    (found,) = (pid for pid in family if RUNNER in cmdline(pid) and b"relay.py" not in cmdline(pid))
    return found


async def kill_runner(case: Case) -> None:
    os.kill(_find(case), signal.SIGKILL)


async def ask_runner(case: Case) -> None:
    os.kill(_find(case), signal.SIGTERM)


async def its_guardian_first(case: Case) -> None:
    runner = _find(case)
    guardian = await until_guarded(runner)
    os.kill(guardian, signal.SIGKILL)
    await until_guarded(runner, but=guardian)
    os.kill(runner, signal.SIGKILL)


async def runner_and_server(case: Case) -> None:
    runner = _find(case)
    case.daemon.kill()
    os.kill(runner, signal.SIGKILL)


async def stopped_runner(case: Case) -> None:
    """It hears nothing of the end of its server, whose guardian ends it."""
    os.kill(_find(case), signal.SIGSTOP)
    case.daemon.kill()


NEIGHBOURLY_OF_RUNNERS: dict[str, End] = {
    "runner SIGKILL": kill_runner,
    "runner SIGTERM": ask_runner,
    "its guardian first": its_guardian_first,
}
FINAL_OF_RUNNERS: dict[str, End] = {"runner and server": runner_and_server, "runner stopped": stopped_runner}
ENDINGS = {**NEIGHBOURLY, **NEIGHBOURLY_OF_RUNNERS, **FINAL, **FINAL_OF_RUNNERS}

WAYS = ("passed", "framed")
DAILY = [
    ("root", "terminate", True, "passed"),
    ("root", "SIGKILL", False, "framed"),
    ("ordinary user", "hang up", False, "passed"),
    ("root", "runner SIGKILL", True, "framed"),
    ("ordinary user", "its guardian first", False, "passed"),
    ("root", "runner stopped", False, "passed"),
]
ALL = [(place, ending, tty, way) for place in PLACES for ending in ENDINGS for tty in (False, True) for way in WAYS]
CONFINED_DAILY = [("root", "runner SIGKILL", False, "framed")]
CONFINED_ALL = [
    (place, ending, ending in FINAL, way)
    for place in ("root", "ordinary user")
    for ending in ENDINGS
    if ending not in ("half dead", "end of stdin")  # which is about connections
    for way in WAYS
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = metafunc.config.getoption("--all-survivors") or metafunc.config.getoption("--slow")
    if metafunc.function is test_nothing_survives_of_confined_commands_over_a_runner:
        cases = CONFINED_ALL if every else CONFINED_DAILY
    else:
        cases = ALL if every else DAILY
    ids = [f"{place}-{ending}-{'terminal' if tty else 'pipe'}-{way}" for place, ending, tty, way in cases]
    metafunc.parametrize(("place", "ending", "tty", "way"), cases, ids=ids)


@pytest.mark.few(2)
async def test_nothing_survives_over_a_runner(
    ending: str, tty: bool, way: str, placement: Placement, host: str, open_path: Path
) -> None:
    await start_and_end_over(way, placement, ending, tty, host, open_path)


@needs_confinement
async def test_nothing_survives_of_confined_commands_over_a_runner(
    ending: str, tty: bool, way: str, placement: Placement, host: str, open_path: Path
) -> None:
    names = CONFINED_NAMES
    await start_and_end_over(way, placement, ending, tty, host, open_path, names=names, sandbox=READ_ONLY)


async def start_and_end_over(
    way: str, placement: Placement, ending: str, tty: bool, host: str, folder: Path, **params: Any
) -> None:
    """Do it over a runner that the operator of the server has named."""
    command, _ = placement
    launch = [next(word for word in command if "python" in word), "-m", "execsrv", "runner"]
    if way == "framed":
        relay = folder / "relay.py"  # its text has many lines, and a runner one
        relay.write_text(RELAY)
        relay.chmod(0o644)
        launch = [launch[0], "-I", "-S", f"{relay}", *launch]
    await start_and_end(
        placement,
        ending,
        tty,
        host,
        folder,
        settings=["--runners", f"box={shlex.join(launch)}"],
        neighbourly={**NEIGHBOURLY, **NEIGHBOURLY_OF_RUNNERS},
        final={**FINAL, **FINAL_OF_RUNNERS},
        runner="box",
        **params,
    )
