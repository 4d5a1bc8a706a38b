"""Walks through the process table that go on where the last one stopped."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from execsrv._processes import census
from execsrv._processes.census import Census
from execsrv._processes.leader import Leader
from execsrv._processes.membership import ByWalk, Register
from execsrv._processes.tree import ProcessTree


class Table:
    """Real processes, the sessions that they are said to be of, and the pids that a walk has asked for."""

    def __init__(self) -> None:
        self.finder = ByWalk(Register(None))
        self.processes: list[subprocess.Popen[bytes]] = []
        self.sessions: dict[int, int] = {}
        self.trees: dict[int, ProcessTree] = {}
        self.asked: list[int] = []

    def start(self, number: int) -> int:
        process = subprocess.Popen(["sleep", "1000"])
        self.processes.append(process)
        self.sessions[process.pid] = number
        return process.pid

    def lead(self, number: int) -> int:
        before = time.monotonic()
        pid = self.start(number)
        self.trees[number] = ProcessTree(Leader(pid, os.pidfd_open(pid)), number, self.finder, before)
        return pid

    def end(self, pid: int) -> None:
        process = next(process for process in self.processes if process.pid == pid)
        process.kill()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def session_of(self, pid: int) -> int | None:
        self.asked.append(pid)
        return self.sessions.get(pid)

    def walk(self, before: Census | None, number: int) -> Census:
        """Walk for one session, to the end."""
        self.asked.clear()
        walk = Census(self.trees, self.session_of, before, self.trees[number])
        walk.forget_dead(self.trees[number])
        while walk.step():
            pass
        return walk


@pytest.fixture
def table() -> Iterator[Table]:
    table = Table()
    try:
        yield table
    finally:
        for tree in table.trees.values():
            tree.leader.close()
        for process in table.processes:
            process.kill()
            process.wait()


@pytest.fixture
def slow_pids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test take as long as it likes: no machine gives out all pids meanwhile."""
    monkeypatch.setattr(census, "_round_seconds", lambda: 600.0)


@pytest.mark.usefixtures("slow_pids")
def test_a_walk_soon_after_another_looks_only_at_what_was_born_since(table: Table) -> None:
    first = table.lead(1)
    everything = table.walk(None, 1)
    assert everything.members[1] == [first]
    assert os.getpid() in table.asked

    child, second = table.start(1), table.lead(2)
    rest = table.walk(everything, 2)
    assert rest.members[1] == [first, child]
    assert second in rest.members[2]
    assert os.getpid() not in table.asked


@pytest.mark.usefixtures("slow_pids")
def test_who_has_ended_is_forgotten_and_what_it_left_behind_is_found(table: Table) -> None:
    leader = table.lead(1)
    everything = table.walk(None, 1)
    left = table.start(1)
    table.end(leader)
    assert table.walk(everything, 1).members[1] == [left]
    table.end(left)
    assert table.walk(everything, 1).members[1] == []


@pytest.mark.usefixtures("slow_pids")
def test_the_first_processes_of_a_session_are_looked_for_again_once_it_is_known(table: Table) -> None:
    """They may have had no mark yet when a walk came by."""
    table.lead(1)
    before = time.monotonic()
    leader, child = table.start(2), table.start(2)
    number = table.sessions.pop(child)
    everything = table.walk(None, 1)
    assert child in table.asked

    table.sessions[child] = number
    table.trees[2] = ProcessTree(Leader(leader, os.pidfd_open(leader)), 2, table.finder, before)
    assert child in table.walk(everything, 2).members[2]


def test_a_walk_long_after_another_looks_at_everything(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "_round_seconds", lambda: 0.0)
    first = table.lead(1)
    everything = table.walk(None, 1)
    assert table.walk(everything, 1).members[1] == [first]
    assert os.getpid() in table.asked


def test_no_machine_gives_out_all_pids_in_the_time_that_is_taken_for_a_moment() -> None:
    assert 0 < census._round_seconds() <= 1
