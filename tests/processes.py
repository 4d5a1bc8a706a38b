"""Looking at the processes of this machine from the outside."""

from __future__ import annotations

import os
import subprocess
import uuid

import trio


def new_mark() -> str:
    """A string that no other process has in its arguments."""
    return f"mark-{uuid.uuid4()}"


def marked(mark: str) -> list[int]:
    """Every living process with this mark among its arguments."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if mark.encode() in file.read():
                        found.append(int(name))
            except OSError:
                continue
    return found


async def until_gone(mark: str, patience: float = 5.0) -> None:
    """Wait until nothing with this mark lives."""
    with trio.move_on_after(patience):
        while marked(mark):
            await trio.sleep(0.005)
    left = marked(mark)
    if left:
        table = subprocess.run(["ps", "-o", "pid,ppid,stat,args", "-p", ",".join(map(str, left))], capture_output=True)
        raise AssertionError(f"still alive:\n{table.stdout.decode()}")
