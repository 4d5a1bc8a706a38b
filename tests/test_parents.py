"""The threads that start commands: to Linux they are the parents, and so last as long as what they have started."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

import execsrv
from execsrv._processes import starting_threads
from tests.peers import PATIENCE

DIES_WITH_ITS_PARENT = """
import ctypes, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each thread that is idle has found: whether it may end."""
    ends: list[bool] = []
    may_end = starting_threads._Parent._may_end

    def look(parent: starting_threads._Parent) -> bool:
        ends.append(may_end(parent))
        return ends[-1]

    monkeypatch.setattr(starting_threads, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(starting_threads._Parent, "_may_end", look)
    return ends


@pytest.mark.parametrize("own_process", [True, False])
async def test_who_dies_with_his_parent_lives_as_long_as_the_server(own_process: bool, ends: list[bool]) -> None:
    with trio.fail_after(PATIENCE):
        async with execsrv.connect_in_process(own_process=own_process) as client:
            async with client.start([sys.executable, "-c", DIES_WITH_ITS_PARENT], stdin=True) as process:
                assert await anext(process.lines()) == "up"
                before = len(ends)
                while ends[before:].count(False) < 2:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                await process.close_stdin()
                assert (await process.wait()).exit_code == 0
            before = len(ends)
            while True not in ends[before:]:  # noqa: ASYNC110
                await trio.sleep(0.01)
            assert (await client.run(["true"])).exit_code == 0


def test_the_child_of_a_fork_starts_commands_in_threads_of_its_own() -> None:
    code = (
        "import os, execsrv.sync\n"
        "def run(): print(execsrv.sync.run(['echo', 'ran'], text=True).stdout, end='', flush=True)\n"
        "run()\nif not (child := os.fork()): run(); os._exit(0)\n"
        "print(os.waitpid(child, 0)[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr, done.returncode) == ("ran\nran\n0\n", "", 0)
