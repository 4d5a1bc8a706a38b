"""Confined commands leave nothing either: however they end, and however many there were."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from execsrv._processes import proc
from tests.confined import needs_confinement
from tests.escapes import ESCAPES
from tests.test_confine_policy import ROOT, files
from tests.test_survivors import (
    ALL_PLACES,
    ENDINGS,
    PLACES,
    Belongings,
    Placement,
    _connected,
    _until,
    open_daemon,
    open_path,
    placement,
    start_and_end,
)

__all__ = ["open_path", "placement"]  # fixtures

pytestmark = needs_confinement

READ_ONLY = files(ROOT)
NAMES = [name for name in ESCAPES if name not in ("another execsrv", "a sibling of its leader")]
"""A server needs a folder to write in, and siblings the filter refuses."""

DAILY = [("root", "SIGKILL", True), ("ordinary user", "terminate", False)]
ALL = [(place, ending, tty) for place in PLACES for ending in ENDINGS for tty in (True, False)]
CASES = [
    pytest.param(*case, id="-".join(map(str, case)), marks=() if case in DAILY else pytest.mark.slow)
    for case in ALL
    if case[1] not in ("half dead", "end of stdin")  # which is about connections
]


@pytest.mark.parametrize(("place", "ending", "tty"), CASES)
async def test_nothing_survives_of_confined_commands(
    place: str, ending: str, tty: bool, placement: Placement, open_path: Path
) -> None:
    assert place in ALL_PLACES
    await start_and_end(placement, ending, tty, "127.0.0.1", open_path, names=NAMES, sandbox=READ_ONLY)


class Kept(NamedTuple):
    """The things of the kernel that starts make: namespaces that somebody is in, mounts, control groups."""

    namespaces: int
    mounts: int
    groups: int

    @classmethod
    def now(cls, pid: int) -> Kept:
        """Return how many there are of this daemon and its descendants; of the mounts, those that it sees."""
        family = [pid, *proc.family(proc.children(pid))]
        found = set()
        for member in family:
            for kind in ("mnt", "pid", "ipc", "user"):
                try:
                    found.add(os.readlink(f"/proc/{member}/ns/{kind}"))
                except OSError:
                    pass  # it has ended
        mounts = len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
        return cls(len(found), mounts, len(_groups(pid)))


def _groups(pid: int) -> list[Path]:
    """Return the control groups below those of a process: others make theirs elsewhere."""
    own = {line.split(":", 2)[2].strip("/") for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()} - {""}
    roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")]
    return [found for root in roots for name in own if (root / name).is_dir() for found in (root / name).rglob("*/")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("place", "rounds"),
    [
        ("root", 2),
        pytest.param("root", 20, marks=pytest.mark.slow),
        pytest.param("ordinary user", 20, marks=pytest.mark.slow),
    ],
)
async def test_a_thousand_leave_no_mount_namespace_group_descriptor_or_zombie(
    place: str, rounds: int, placement: Placement, open_path: Path
) -> None:
    assert place in PLACES
    script = "setsid sleep 1000 >/dev/null 2>&1 &"

    async def fifty(url: str) -> None:
        async with _connected(url) as peer:
            await peer.handshake()
            for number in range(50):
                tty = number % 2 == 0
                params = peer.start_params(f"{number}", ["sh", "-c", script], tty=tty, sandbox=READ_ONLY)
                await peer.post("process/start", params)
            for number in range(50):
                await peer.until_told(f"{number}", "exited")

    async with open_daemon(placement, f"unix://{open_path}/s") as (daemon, url):

        async def until_alone() -> None:
            await _until(lambda: len(proc.children(daemon.pid)) <= 1)

        await fifty(url)
        await until_alone()
        before, kept = Belongings.of(daemon.pid), Kept.now(daemon.pid)
        for _ in range(rounds):
            await fifty(url)
            await until_alone()
        with trio.move_on_after(20):
            while Belongings.of(daemon.pid).beyond(before) or Kept.now(daemon.pid) != kept:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert not Belongings.of(daemon.pid).beyond(before)
        assert Kept.now(daemon.pid) == kept
