"""Commands whose descendants try not to be found, each in its own way, and what an outsider sees of them."""

from __future__ import annotations

import os
from typing import NamedTuple

import trio

_LIMBS = """
import ctypes, os, signal, sys, threading, time
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
            return [python, "-I", "-S", "-c", _LIMBS + self.code, mark]
        return ["bash", "-c", self.code.replace("@", mark).replace("PYTHON", python)]


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
    "another execsrv": Escape(f"PYTHON -m execsrv run bash -c '{_DETACHED.replace(chr(39), chr(34))} wait'"),
}


def alive(mark: str) -> list[int]:
    """Every process with this mark among its arguments. No zombies: they have no arguments any more."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and mark in _arguments(name)]


def _arguments(pid: str) -> list[str]:
    """Of any of its threads: once the first has ended, the process itself shows none."""
    try:
        for thread in [pid, *os.listdir(f"/proc/{pid}/task")]:
            with open(f"/proc/{pid}/task/{thread}/cmdline", "rb") as file:
                if words := file.read():
                    return words.decode(errors="replace").split("\0")
    except OSError:
        pass
    return []


async def until_alive(mark: str, count: int) -> None:
    """Wait until that many are there: the process table cannot be waited for, so it is asked again and again."""
    with trio.move_on_after(15):
        while len(alive(mark)) < count:  # noqa: ASYNC110
            await trio.sleep(0.01)
        return
    raise AssertionError(f"{len(alive(mark))} of {count} came up")


async def until_gone(marks: dict[str, str], seconds: float) -> None:
    """Wait that long until none is left. The marks are the keys."""
    with trio.move_on_after(seconds):
        while any(alive(mark) for mark in marks):  # noqa: ASYNC110
            await trio.sleep(0.01)
        return
    raise AssertionError(f"after {seconds} s: { ({what: alive(mark) for mark, what in marks.items() if alive(mark)}) }")
