"""The least that a server of commands on trio can be: no sessions, no limits, no promises. A floor for bench.py.

    python tests/benchmarks/bench.py --stdio --only spawn,in-flight,echo \\
        "thread=python tests/benchmarks/least_starts.py {listen}" \\
        "loop=python tests/benchmarks/least_starts.py {listen} --in-loop"

It speaks as much of the protocol as these cases ask for, and reads what a pipe has when its command has ended. Commands
are started in a thread, as trio does it, or by the loop itself: the difference is the price of a loop that no file
system can hold up. `python -m tests.benchmarks.plain` has what a start costs without any server.
"""

from __future__ import annotations

import base64
import os
import pty
import signal
import sys
from typing import Any

import msgspec
import trio

Message = dict[str, Any]
Running = tuple[int, list[int]]
"""The pid of a command, and our ends of what it prints to."""


def say(message: Message) -> None:
    os.write(1, msgspec.json.encode(message) + b"\n")


def start(params: Message) -> Running:
    if params["tty"]:
        ours, theirs = map(list, zip(pty.openpty(), strict=True))
        places: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, os.ttyname(theirs[0]), os.O_RDWR, 0)]
        places += [(os.POSIX_SPAWN_DUP2, 0, target) for target in (1, 2)]
    else:
        ours, theirs = map(list, zip(os.pipe(), os.pipe(), strict=True))
        places = [(os.POSIX_SPAWN_DUP2, theirs_end, target) for target, theirs_end in enumerate(theirs, 1)]
    pid = os.posix_spawn(params["argv"][0], params["argv"], params["env"], file_actions=places, setsid=True)
    for descriptor in theirs:
        os.close(descriptor)
    return pid, ours


def end(pid: int, outputs: list[int], *, are_pipes: bool) -> int | None:
    ended = os.waitid(os.P_PID, pid, os.WEXITED)
    for output in outputs:
        if are_pipes:
            os.read(output, 65536)
        os.close(output)
    return ended and ended.si_status


async def live(request: Message, running: dict[str, Running], started: Running | None) -> None:
    """Tell of one command from its start to its end."""
    params, name = request["params"], request["params"]["processId"]
    if started is None:
        started = await trio.to_thread.run_sync(start, params)
    running[name] = pid, outputs = started
    say({"id": request["id"], "result": {"processId": name}})
    handle = os.pidfd_open(pid)
    while params["tty"]:
        await trio.lowlevel.wait_readable(outputs[0])
        try:
            chunk = base64.b64encode(os.read(outputs[0], 65536)).decode()
        except OSError:
            break
        say({"method": "process/output", "params": {"processId": name, "seq": 1, "stream": "pty", "chunk": chunk}})
    await trio.lowlevel.wait_readable(handle)
    code = end(pid, outputs, are_pipes=not params["tty"])
    os.close(handle)
    del running[name]
    say({"method": "process/exited", "params": {"processId": name, "seq": 2, "exitCode": code}})
    say({"method": "process/closed", "params": {"processId": name, "seq": 3}})


async def serve(*, in_loop: bool) -> None:
    running: dict[str, Running] = {}
    rest = b""
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(0)
            if not (data := os.read(0, 65536)):
                nursery.cancel_scope.cancel()
                return
            *lines, rest = (rest + data).split(b"\n")
            for request in map(msgspec.json.decode, lines):
                name = request.get("params", {}).get("processId", "")
                match request["method"]:
                    case "process/start":
                        nursery.start_soon(live, request, running, start(request["params"]) if in_loop else None)
                        continue
                    case "process/write":
                        os.write(running[name][1][0], base64.b64decode(request["params"]["chunk"]))
                    case "process/terminate":
                        os.kill(running[name][0], signal.SIGKILL)
                if "id" in request:
                    say({"id": request["id"], "result": {}})


if __name__ == "__main__":
    trio.run(lambda: serve(in_loop="--in-loop" in sys.argv))
