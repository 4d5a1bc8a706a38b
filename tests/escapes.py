"""Commands whose descendants try not to be found, each in its own way, and what an outsider sees of them.

An escape carries its mark in two places. As the soft value of `RLIMIT_RSS`, which has no effect on Linux, it is
inherited by all that descends from it, and is none of the limits in which execsrv has its own marks: it proves who is
left. And its strays have it among their arguments: that tells who has come as far as it wanted to.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Iterable
from typing import NamedTuple

import trio

from execsrv._processes.proc import table, walk
from tests.peers import PATIENCE

_LIMBS = """
import ctypes, os, resource, signal, sys, threading, time
resource.setrlimit(resource.RLIMIT_RSS, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_RSS)[1]))
def daemon():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the leader's end may come before the new session
    if os.fork(): return False
    os.setsid()
    if os.fork(): os._exit(0)
    os.closerange(0, 3)
    return True
def stay():
    while True: time.sleep(1000)
"""


class Escape(NamedTuple):
    """A shell's or (with `python`) Python's code. `@` is the mark, which `strays` of its descendants carry."""

    code: str
    strays: int = 1
    python: bool = False

    def argv(self, mark: str, python: str) -> list[str]:
        if self.python:
            return [python, "-I", "-S", "-c", _LIMBS + self.code, mark, str(_limit(mark))]
        code = self.code.replace("@", mark).replace("PYTHON", python)
        return ["bash", "-c", f"ulimit -S -m {_limit(mark) // 1024}; {code}"]


def _limit(mark: str) -> int:
    """The limit that stands for a mark: bash counts it in KiB."""
    return int(mark[-10:], 16) * 1024


_CLONE = {"x86_64": "56", "aarch64": "220"}[platform.machine()]
_QUIET = "</dev/null >/dev/null 2>&1"
_SLEEP = "bash -c 'exec -a @ sleep 1000'"
_DETACHED = f"setsid {_SLEEP} {_QUIET} &"

ESCAPES = {
    "a background child": Escape("(exec -a @ sleep 1000) & wait"),
    "its leader has exited": Escape(f"trap '' HUP; (exec -a @ sleep 1000) {_QUIET} &"),
    "nohup": Escape(f"nohup {_SLEEP} {_QUIET} & wait"),
    "setsid": Escape(f"{_DETACHED} wait"),
    "setsid, no environment": Escape(f"setsid env -i {_SLEEP} {_QUIET} & wait"),
    "a daemon": Escape("if daemon(): stay()\nstay()", 2, python=True),
    "a daemon, leader gone": Escape("if daemon(): stay()", python=True),
    "a daemon, no environment": Escape(
        "if daemon(): os.execve('/bin/sleep', [sys.argv[1], '1000'], {})\nos.wait()", python=True
    ),
    "deaf": Escape(
        "for n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)\nif daemon(): stay()\nstay()",
        2,
        python=True,
    ),
    "stopped": Escape("if daemon(): os.kill(os.getpid(), signal.SIGSTOP)\nstay()", 2, python=True),
    "forks and exits": Escape(
        "if daemon():\n  while True:\n    time.sleep(.02)\n    if os.fork(): os._exit(0)\n    os.setsid()", python=True
    ),
    "a tree": Escape(
        "for _ in range(int(2)):\n  os.fork()\n"
        "for n in range(25):\n  if os.fork() == 0:\n    n % 2 and os.setsid()\n    stay()\nstay()",
        104,
        python=True,
    ),
    "its own subreaper": Escape(
        "if daemon():\n  ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n  if os.fork() == 0: daemon()\n  stay()\nstay()",
        4,
        python=True,
    ),
    "from group to group": Escape(
        "if os.fork():\n  if os.fork(): stay()\n  os.setpgid(0, 0); stay()\n"
        "while True:\n  os.setpgid(0, 0); time.sleep(.003); os.setpgid(0, os.getppid())",
        3,
        python=True,
    ),
    "without its first thread": Escape(
        "if daemon():\n  threading.Thread(target=stay).start()\n  ctypes.CDLL(None).pthread_exit(None)\nstay()",
        2,
        python=True,
    ),
    # clone(CLONE_PARENT | SIGCHLD): a child of whoever has started the leader.
    "a sibling of its leader": Escape(
        "if ctypes.CDLL(None).syscall(*map(ctypes.c_long, (SYS_CLONE, 0x8000 | 17, 0, 0, 0, 0))) == 0:\n"
        "  os.setsid(); os.closerange(0, 3)\nstay()".replace("SYS_CLONE", _CLONE),
        2,
        python=True,
    ),
    "another execsrv": Escape(f"PYTHON -m execsrv run bash -c '{_DETACHED.replace(chr(39), chr(34))} wait'"),
}


def alive(marks: Iterable[str]) -> dict[str, list[int]]:
    """All that lives of these escapes, whatever it has become. Misses nobody, however many processes there are."""
    return _walked(marks, lambda pid, mark: True)


def strays(mark: str) -> list[int]:
    """Who lives of an escape and has its mark among its arguments."""
    return _walked([mark], lambda pid, mark: mark in _arguments(pid))[mark]


def _walked(marks: Iterable[str], counts: Callable[[int, str], bool]) -> dict[str, list[int]]:
    names = list(marks)
    numbers = {_limit(mark): number for number, mark in enumerate(names)}

    def session_of(pid: int) -> int | None:
        number = numbers.get(_limit_of(pid))
        return number if number is not None and counts(pid, names[number]) else None

    found: dict[str, set[int]] = {mark: set() for mark in names}
    for pid, number in walk(session_of):
        found[names[number]].add(pid)
    return {mark: sorted(pids) for mark, pids in found.items()}


def _limit_of(pid: int) -> int:
    try:
        return resource.prlimit(pid, resource.RLIMIT_RSS)[0]
    except PermissionError:  # another user's
        lines = table(pid, "limits").splitlines()
        words = next((line.split() for line in lines if line.startswith(b"Max resident set")), [b"0"])
        return int(words[3]) if words[3:] and words[3].isdigit() else 0
    except OSError:
        return 0


def _arguments(pid: int) -> list[str]:
    """Of any of its threads: once the first has ended, the process itself shows none."""
    try:
        for thread in [pid, *os.listdir(f"/proc/{pid}/task")]:
            with open(f"/proc/{pid}/task/{thread}/cmdline", "rb") as file:
                if words := file.read():
                    return words.decode(errors="replace").split("\0")
    except OSError:
        pass
    return []


async def until_astray(mark: str, count: int) -> None:
    """Wait until an escape has that many strays: the process table cannot be waited for, so it is asked again."""
    with trio.move_on_after(PATIENCE):
        while len(strays(mark)) < count:  # noqa: ASYNC110
            await trio.sleep(0.01)
        return
    raise AssertionError(f"{len(strays(mark))} of {count} came up")


async def until_none_lives(marks: dict[str, str]) -> None:
    """Wait until nothing is left of any escape, and print how long that took. The marks are the keys."""
    began = trio.current_time()
    with trio.move_on_after(PATIENCE):
        while any(alive(marks).values()):  # noqa: ASYNC110
            await trio.sleep(0.01)
        print(f"{len(marks)} escapes were gone after {trio.current_time() - began:.2f} s")
        return
    left = {marks[mark]: pids for mark, pids in alive(marks).items() if pids}
    raise AssertionError(f"still alive after {PATIENCE:.0f} s: {left}")
