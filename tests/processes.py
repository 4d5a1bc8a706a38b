"""Looking at the processes of this machine from the outside."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import trio

from execsrv._processes.proc import walk
from tests.peers import PATIENCE


def new_mark() -> str:
    """A name that no other process has."""
    return f"mark-{uuid.uuid4()}"


@cache
def may_become_nobody() -> bool:
    """Whether a child of ours can give itself to the user nobody: root may, but not in every container."""
    script = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    return subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True).returncode == 0


@contextmanager
def as_nobody() -> Iterator[Path]:
    """Give a folder of a user to whom a folder can be closed, and be that one."""
    is_root = os.geteuid() == 0
    if is_root and not may_become_nobody():
        pytest.skip("not allowed to be somebody else")
    with tempfile.TemporaryDirectory() as folder:
        try:
            if is_root:
                os.chown(folder, 65534, 65534)
                os.seteuid(65534)
            yield Path(os.path.realpath(folder))
        finally:
            if is_root:
                os.seteuid(0)


def marked(mark: str) -> list[int]:
    """Every living process with this mark as its name (`exec -a`), of however many processes there are."""

    def session_of(pid: int) -> int | None:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return 0 if file.read().split(b"\0")[0] == mark.encode() else None
        except OSError:
            return None

    return sorted({pid for pid, _ in walk(session_of)} - {os.getpid()})


async def until_marked(mark: str, count: int) -> None:
    """Wait until that many processes carry this mark."""
    await _until(lambda: len(marked(mark)) >= count, lambda: f"{len(marked(mark))} of {count} processes came up")


async def until_gone(mark: str) -> None:
    """Wait until nothing with this mark lives."""
    await _until(lambda: not marked(mark), lambda: f"still alive: {[_described(pid) for pid in marked(mark)]}")


def until_it_sleeps_in(pid: int, wait: str) -> None:
    """Wait until the main thread of a program sleeps there in the kernel, in a function with this in its name."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if wait in Path(f"/proc/{pid}/wchan").read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} does not sleep in {wait}")


async def until_in_front(mark: str) -> None:
    """Wait until something with this mark sleeps in the foreground of its terminal."""

    def is_in_front(pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/stat") as file:
                state, _, group, _, _, in_front = file.read().rpartition(")")[2].split()[:6]
        except OSError:
            return False
        return state == "S" and group == in_front

    await _until(
        lambda: any(map(is_in_front, marked(mark))), lambda: f"not in front: {list(map(_described, marked(mark)))}"
    )


async def _until(condition: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """The process table cannot be waited for, so it is asked again and again, three quarters of the time not."""
    with trio.move_on_after(PATIENCE) as patience:
        while True:
            began = time.thread_time()
            if condition():
                break
            await trio.sleep(max(0.002, 3 * (time.thread_time() - began)))
    if patience.cancelled_caught:
        raise AssertionError(complaint())


def _described(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read()[:80]
    except OSError:
        return f"{pid}, gone meanwhile"


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def is_caught(number: int) -> bool:
    """Whether a signal would reach this process, by the kernel's word."""
    [caught] = re.findall(r"SigCgt:\t(\w+)", Path("/proc/self/status").read_text())
    return bool(int(caught, 16) >> (number - 1) & 1)


@contextmanager
def broken_input(text: bytes) -> Iterator[int]:
    """Open a descriptor that gives a text, and then an error (ECONNRESET) in place of its end."""
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(text)
            theirs.sendall(b"never read")  # and so it is no orderly end that we go
        yield theirs.fileno()
