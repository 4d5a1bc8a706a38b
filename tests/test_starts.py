"""Starts: a file system that does not answer delays one of them alone, and what was started always has an owner."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

import execsrv
from execsrv import Policy, ProcessLimits
from execsrv._processes import carried_limits, proc
from execsrv._processes.command import settle
from execsrv._processes.rlimit_mark import LOCKS, new_server_mark
from execsrv._processes.supervisor import open_supervisor
from execsrv._threads import SharedThreads, ThreadSlots
from execsrv.limits import ServerConfig
from execsrv.protocol import Failure, Notification, Response
from tests.confined import needs_confinement
from tests.conftest import Daemon, OpenServer
from tests.peers import PATIENCE, b64
from tests.processes import new_mark, until_gone, until_marked


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A folder in which every look-up hangs: a file system whose server is silent."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("only root can mount a file system that hangs")
    libc = ctypes.CDLL(None)
    folder = os.fsencode(tmp_path / "silent")
    os.mkdir(folder)
    with open("/dev/fuse", "r+b", buffering=0) as fuse:
        options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fuse.fileno()
        if libc.mount(b"silent", folder, b"fuse", 0, options):
            pytest.skip("not allowed to mount a file system")
        try:
            yield Path(os.fsdecode(folder))
        finally:
            fuse.close()
            libc.umount2(folder, 2)


@contextmanager
def leased(program: Path) -> Iterator[None]:
    """Hold a write lease on a program, so that the kernel lets nobody open it before the block is left."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with open(program, "rb") as file:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError:
            pytest.skip("no leases on this file system")
        try:
            yield
        finally:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, before)


def lease_break_seconds() -> float:
    """Return how long the kernel lets a lease hold others up."""
    return float(Path("/proc/sys/fs/lease-break-time").read_text())


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def hanging_starts(silent: Path) -> list[tuple[list[str], dict[str, Any]]]:
    folder = str(silent)
    return [
        (["true"], {"cwd": f"{folder}/a"}),
        (["true"], {"env": {"PATH": f"{folder}/b:/bin"}}),
        ([f"{folder}/c"], {}),
    ]


async def test_a_file_system_that_hangs_delays_the_starts_there_alone(daemon: Daemon, silent: Path) -> None:
    other = await daemon.peer()
    async with daemon.open_peer() as peer:
        await peer.handshake()
        hanging = hanging_starts(silent)
        starts = [
            await peer.post("process/start", peer.start_params(f"hangs-{number}", argv, **params))
            for number, (argv, params) in enumerate(hanging)
        ]
        assert await peer.run("same", ["echo", "hi"]) == (0, b"hi\n", b"")
        assert await other.run("other", ["echo", "hi"]) == (0, b"hi\n", b"")
        ids = [await peer.post("process/terminate", {"processId": f"hangs-{number}"}) for number in range(len(hanging))]
        for number, id in enumerate(ids):
            answer = await peer.answer(id)
            assert isinstance(answer, Response)
            assert answer.result == {"running": False}
            _, _, data = await peer.refused("process/read", {"processId": f"hangs-{number}"})
            assert data["kind"] == "unknown-process"
        for start in starts:
            failure = await peer.answer(start)
            assert isinstance(failure, Failure)
            assert failure.error.data["kind"] == "spawnFailed"
        await peer.post("process/start", peer.start_params("left", *hanging[0][:1], **hanging[0][1]))
    assert await other.run("after", ["echo", "hi"]) == (0, b"hi\n", b"")


async def test_hanging_starts_of_one_connection_take_no_others_threads(daemon: Daemon, silent: Path) -> None:
    peer, other = await daemon.peer(), await daemon.peer()
    for number in range(100):
        await peer.post("process/start", peer.start_params(f"p-{number}", ["true"], cwd=f"{silent}/a"))
    for number in range(3):
        assert await other.run(f"p-{number}", ["echo", "hi"]) == (0, b"hi\n", b"")


async def test_a_program_behind_a_lease_delays_itself_alone_and_is_killed_on_its_way(
    daemon: Daemon, tmp_path: Path
) -> None:
    mark = new_mark()
    program = script(tmp_path / "program", f"exec bash -c 'exec -a {mark} sleep 1000'")
    peer, other = await daemon.peer(), await daemon.peer()
    with leased(program):
        lease_break, began = lease_break_seconds(), time.monotonic()
        start = await peer.post("process/start", peer.start_params("a", [str(program)]))
        for number in range(5):
            assert await other.run(f"p-{number}", ["echo", "hi"]) == (0, b"hi\n", b"")
        assert start not in [message.id for message in peer.heard if isinstance(message, Response | Failure)]
        assert await peer.call("process/terminate", {"processId": "a"}) == {"running": False}
        assert isinstance(await peer.answer(start), Failure)
        assert time.monotonic() - began < lease_break, "not because the kernel took the lease away"
    await until_gone(mark)
    assert await peer.run("a", ["echo", "hi"]) == (0, b"hi\n", b"")


async def test_what_is_asked_during_a_start_is_done_behind_it_in_order(daemon: Daemon, tmp_path: Path) -> None:
    program = script(tmp_path / "program", "exec cat")
    peer = await daemon.peer()
    with leased(program):
        ids = [await peer.post("process/start", peer.start_params("a", [str(program)], pipeStdin=True))]
        for number in range(20):
            params = {"processId": "a", "chunk": b64(b"%d," % number), "writeId": str(number)}
            ids.append(await peer.post("process/write", params))
        ids.append(await peer.post("process/closeStdin", {"processId": "a"}))
        ids.append(await peer.post("process/wait", {"processId": "a"}))
        refused = await peer.refused("process/start", peer.start_params("a", ["true"]))
        assert refused[2]["kind"] == "process-exists"
        assert await peer.run("b", ["echo", "hi"]) == (0, b"hi\n", b"")
        assert not [message for message in peer.heard if isinstance(message, Response) and message.id in ids]
    answers = [await peer.answer(id) for id in ids]
    assert all(isinstance(answer, Response) for answer in answers), answers
    await peer.until_told("a", "closed")
    assert peer.output("a") == b"".join(b"%d," % number for number in range(20))
    heard = [message.id for message in peer.heard if isinstance(message, Response) and message.id in ids]
    assert heard[:21] == ids[:21]
    assert answers[-1].result["exitCode"] == 0  # type: ignore[union-attr]


WITHOUT_THREADS = """
import threading, trio
from execsrv import BusyError, connect_in_process
async def main():
    async with connect_in_process() as client:
        threading.stack_size(1 << 46)  # for which there is no memory
        try:
            await client.run(["echo", "never"])
        except BusyError as error:
            print(error)
        threading.stack_size(0)
        print((await client.run(["echo", "hi"])).stdout)
trio.run(main)
"""


def test_a_start_without_a_thread_is_answered_busy() -> None:
    said = subprocess.run([sys.executable, "-c", WITHOUT_THREADS], capture_output=True, text=True)
    assert said.stdout == "no thread is to be had on the server's machine: try again later\nb'hi\\n'\n", said.stderr


async def test_a_start_that_is_under_way_is_listed(daemon: Daemon, tmp_path: Path) -> None:
    program = script(tmp_path / "program", "exec cat")
    peer = await daemon.peer()
    await peer.start("old", ["cat"], pipeStdin=True)
    shown = {"running": True, "exitCode": None, "closed": False}
    with leased(program):
        params = peer.start_params("new", [str(program)], tty=True)
        starts = [await peer.post("process/start", params)]
        exec_params = {"argv": [str(program)], "cwd": "/", "env": {}, "tty": False}
        starts.append(await peer.post("command/exec", exec_params))
        old, new, unnamed = (await peer.call("process/list"))["processes"]
        assert old["pid"] > 0
        expected = shown | {"pid": None, "program": "program", "argv": [str(program)], "state": "starting"}
        assert new.items() >= (expected | {"processId": "new", "tty": True}).items()
        assert unnamed.items() >= (expected | {"processId": "session-1", "tty": False}).items()
    for id in starts:
        await peer.answer(id)
    pids = [listed["pid"] for listed in (await peer.call("process/list"))["processes"]]
    assert len(pids) == 3
    assert all(pids)
    await peer.refused("process/start", peer.start_params("bad", [f"{tmp_path}/missing"]))
    assert len((await peer.call("process/list"))["processes"]) == 3


async def test_a_start_that_hangs_ends_with_its_timeout_and_its_connection(daemon: Daemon, silent: Path) -> None:
    async with daemon.open_peer() as peer:
        await peer.handshake()
        params = peer.start_params("a", ["true"], cwd=f"{silent}/a", timeoutMs=50)
        code, message, data = await peer.refused("process/start", params)
        assert (code, data["kind"], data["errno"]) == (-32603, "spawnFailed", errno.ETIMEDOUT), message
        params = peer.start_params("b", ["true"], cwd=f"{silent}/b")
        waiting = [await peer.post("process/start", params)]
        waiting.append(await peer.post("process/write", {"processId": "b", "chunk": "", "writeId": "1"}))
    again = await daemon.peer()
    assert await again.run("a", ["echo", "hi"]) == (0, b"hi\n", b"")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"timeoutMs": 20}, r"its time limit \(0\.02 s\) was over before it had begun"),
        ({}, "given up while the file system of its directory or of its program did not answer"),
        ({"runner": ["sleep", "1000"]}, "given up while its runner did not answer"),
    ],
    ids=["timeout", "file system", "runner"],
)
async def test_a_start_that_is_given_up_says_why(
    open_server: OpenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], why: str
) -> None:
    monkeypatch.setattr("execsrv._server.starting.GIVE_UP_SECONDS", 0)
    program = script(tmp_path / "program", "exec cat")
    with leased(program):
        async with open_server("unix", ServerConfig()).open_peer() as peer:
            await peer.handshake()
            start = await peer.post("process/start", peer.start_params("a", [str(program)]) | change)
            if "timeoutMs" not in change:
                await peer.post("process/terminate", {"processId": "a"})
            answer = await peer.answer(start)
            assert isinstance(answer, Failure)
            assert re.fullmatch(f"cannot start: {why}", answer.error.message)


async def test_requests_beyond_those_that_wait_for_a_start_hold_up_nothing(
    open_server: OpenServer, tmp_path: Path
) -> None:
    """Whoever sends many of them is told so of each: the connection does not stop for it."""
    program = script(tmp_path / "program", "exec cat")
    with leased(program):
        async with open_server("unix", ServerConfig()).open_peer() as peer:
            await peer.handshake()
            await peer.post("process/start", peer.start_params("a", [str(program)]))
            waiting = [await peer.post("process/wait", {"processId": "a"}) for _ in range(256 + 2 * int(PATIENCE))]
            answer = await peer.answer(waiting[-1])
            assert isinstance(answer, Failure)
            assert "too much waits for it already" in answer.error.message


async def test_a_start_goes_on_while_its_channel_is_away(open_server: OpenServer, tmp_path: Path) -> None:
    program = script(tmp_path / "program", "exec cat")
    server = open_server("unix", ServerConfig(resume_grace=60))
    with leased(program):
        async with server.open_peer() as peer:
            id = (await peer.handshake())["sessionId"]
            await peer.post("process/start", peer.start_params("a", [str(program)], pipeStdin=True))
            await peer.post("process/write", {"processId": "a", "chunk": b64(b"one"), "writeId": "1"})
            assert await peer.run("b", ["true"]) == (0, b"", b"")
        again = await server.peer(ready=False)
        with trio.fail_after(PATIENCE):
            while True:  # until the server has seen that the channel is gone
                answer = await again.answer(
                    await again.post("initialize", {"clientName": "test", "resumeSessionId": id})
                )
                if isinstance(answer, Response):
                    break
        await again.channel.send(Notification("initialized", {}))
        await again.post("process/write", {"processId": "a", "chunk": b64(b"two"), "writeId": "2"})
        await again.post("process/closeStdin", {"processId": "a"})
    await again.until_told("a", "closed")
    assert again.output("a") == b"onetwo"


async def test_more_than_may_wait_for_a_start_is_busy(daemon: Daemon, silent: Path) -> None:
    peer = await daemon.peer()
    await peer.post("process/start", peer.start_params("a", ["true"], cwd=f"{silent}/a"))
    for number in range(256):
        await peer.post("process/write", {"processId": "a", "chunk": "", "writeId": str(number)})
    _, _, data = await peer.refused("process/write", {"processId": "a", "chunk": "", "writeId": "more"})
    assert data["kind"] == "busy"


def test_a_turn_is_passed_on_when_the_child_is_born(tmp_path: Path) -> None:
    """The next start waits until there is a child with the mark, not until it runs its program."""
    server = new_server_mark()
    assert server is not None
    program = script(tmp_path / "program", "exit 0")
    one, two = server.of(1), server.of(2)

    def start_behind_the_lease() -> None:
        with carried_limits.Turn(one):
            subprocess.run([program], check=False)

    before = os.getpid()
    with leased(program):
        thread = threading.Thread(target=start_behind_the_lease)
        thread.start()
        while not carried_limits.born(thread.native_id or 0, one):
            pass
        with carried_limits.Turn(two):
            assert two.is_on(before)
        assert not one.is_on(before)
        assert not two.is_on(before)
    thread.join()
    assert not one.is_on(before)
    assert not two.is_on(before)


INJECTED = """
import itertools, linecache, sys
import trio
from execsrv._doors.principal import owner
from execsrv._processes import supervisor as module
from execsrv._server.connections import open_connections
from execsrv._server.conversation import Conversation
from execsrv._wire.memory import open_memory_pair
from execsrv.limits import ServerConfig
from tests.peers import ENV, open_peer
from tests.processes import marked, new_mark, until_gone

carries, number, of = (int(word) for word in sys.argv[1:])
FILES = ("_processes/attempt.py", "_processes/spawn.py", "_processes/posix_spawn.py", "_processes/carried_limits.py",
         "_processes/command.py", "_server/sessions.py", "_server/starting.py", "_server/methods/process.py")
armed, left = False, 0

def source(frame):
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()

def trace(frame, event, argument):
    global armed, left
    if not frame.f_code.co_filename.endswith(FILES):
        return None
    # Not where a lock or the turn is let go of, which allocates nothing.
    exempt = frame.f_code.co_name == "_pass_on" or source(frame).startswith(("with ", "if _turn is self", "_pass_on"))
    if armed and event == "line" and not exempt:
        left -= 1
        if left == 0:
            armed = False
            raise (MemoryError, KeyboardInterrupt)[step % 2]("injected")
    return trace

async def attempt(mark):
    global armed
    async with open_connections(module.Supervisor(own_process=bool(carries)), ServerConfig()) as connections:
        async with trio.open_nursery() as nursery:
            ours, theirs = open_memory_pair()
            nursery.start_soon(Conversation(theirs, connections, owner).run)
            async with open_peer(ours) as peer:
                await peer.handshake()
                # An error in it has switched it off, in that thread.
                sys.settrace(trace)
                await trio.to_thread.run_sync(sys.settrace, trace)
                armed = True
                argv = ["bash", "-c", f"exec -a {mark} sleep 1000"]
                id = await peer.post("process/start", peer.start_params("a", argv))
                with trio.move_on_after(30):
                    await peer.until(lambda: peer.ended or [m for m in peer.heard if getattr(m, "id", None) == id])
                armed = False
            nursery.cancel_scope.cancel()

for step in itertools.count(number, of):
    mark = new_mark()
    left = step + 1
    try:
        trio.run(attempt, mark)
    except BaseException as error:
        pass
    armed = False
    if left > 0:
        break
    trio.run(until_gone, mark)
    if marked(mark):
        sys.exit(f"left behind after an error at step {step}")
print("steps", step)
"""


@pytest.mark.few
@pytest.mark.timeout(10 * PATIENCE)
@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("carries", [0, 1])
def test_an_error_at_any_line_of_a_start_leaves_nothing_without_an_owner(carries: int, every: int) -> None:
    """The errors come in turn, so an odd number of steps between them has each of them everywhere."""
    command = [sys.executable, "-c", INJECTED, str(carries), "0", str(every)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) > 100


INTERRUPTED = """
import signal, sys, trio, execsrv
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
async def main():
    async with execsrv.connect_in_process() as client:
        async def keep_starting(number):
            while True:
                async with client.start(["bash", "-c", f"exec -a {sys.argv[1]} sleep 1000"]) as process:
                    print("started", flush=True)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(keep_starting, number)
trio.run(main)
"""


async def test_an_interrupt_of_a_program_that_starts_commands_leaves_none() -> None:
    for number in range(3):
        mark = new_mark()
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", INTERRUPTED, mark], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert process.stdout is not None
        with process:
            for _ in range(1 + number):
                process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.stdout.read()
        await until_gone(mark)


INTERRUPTED_AT = """
import itertools, signal, sys
import trio, execsrv
from tests.processes import marked, new_mark, until_gone

own_process, every = (int(word) for word in sys.argv[1:])
signal.signal(signal.SIGINT, signal.default_int_handler)
left, where = 0, ""

def trace(frame, event, argument):
    global left, where
    if "/execsrv/" not in frame.f_code.co_filename:
        return None
    if event == "line":
        left -= 1
        if left == 0:
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            signal.raise_signal(signal.SIGINT)
    return trace

async def program(mark):
    async def use(stop):
        argv = ["bash", "-c", f"(exec -a {mark} sleep 1000) & exec -a {mark} sleep 1000"]
        async with client.start(argv) as process:
            if stop:
                await process.terminate()

    sys.settrace(trace)
    async with execsrv.connect_in_process(own_process=bool(own_process)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, True)
            nursery.start_soon(use, False)
        await client.run(["true"])

mark = new_mark()  # one for all: what had no name yet when it was looked for is found the next time
for step in itertools.count(every, every):
    left = step
    try:
        trio.run(program, mark)
        assert left > 0, f"an interrupt at {where} was lost"
    except* KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    if left > 0:
        break
    trio.run(until_gone, mark)
print(step // every)
"""


@pytest.mark.few
@pytest.mark.timeout(20 * PATIENCE)
@pytest.mark.parametrize("every", [307, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("own_process", [0, 1])
def test_an_interrupt_at_any_line_of_a_program_ends_it_and_leaves_nothing(own_process: int, every: int) -> None:
    """It leaves as itself, whatever of ours was just running, and trio goes on to the end."""
    command = [sys.executable, "-c", INTERRUPTED_AT, str(own_process), str(every)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 10


@pytest.mark.few
@pytest.mark.parametrize("wishes", [{}, {"umask": 0o77}], ids=["posix_spawn", "portable_spawn"])
async def test_starts_at_once_are_all_marked(daemon: Daemon, wishes: dict[str, int]) -> None:
    mark = new_mark()
    peer = await daemon.peer()
    ids = [
        await peer.post(
            "process/start",
            peer.start_params(str(number), ["bash", "-c", f"(setsid bash -c 'exec -a {mark} sleep 1000' &)"], **wishes),
        )
        for number in range(40)
    ]
    for id in ids:
        assert isinstance(await peer.answer(id), Response)
    await until_marked(mark, 40)
    for number in range(40):
        await peer.call("process/terminate", {"processId": str(number)})
    await until_gone(mark)


WISHES: list[Any] = [
    pytest.param({"user": "nobody"}, id="user"),
    pytest.param({"limits": ProcessLimits(processes=9)}, id="limits"),
    pytest.param({"sandbox": Policy.read_only(network=False)}, id="policy", marks=needs_confinement),
]


@pytest.mark.parametrize("wish", WISHES)
async def test_what_cannot_be_looked_at_for_want_of_descriptors_is_not_told_as_missing(wish: dict[str, Any]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with execsrv.connect_in_process() as client:
        await client.run(["true"], sandbox=wish.get("sandbox"))  # that this machine can confine is known by then
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(execsrv.SpawnError) as caught:
                await client.run(["true"], **wish)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (caught.value.stage, caught.value.errno) == ("resources", errno.EMFILE)


def test_children_of_a_thread_are_listed() -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        assert child.pid in proc.children_of_thread(threading.get_native_id())
        child.kill()


async def test_a_start_that_hangs_leaves_the_server_its_own_limits(tmp_path: Path) -> None:
    """Nobody else starts anything, so nobody waits for the turn."""
    program = script(tmp_path / "program", "exit 0")

    def softs() -> list[int]:
        return [resource.getrlimit(slot)[0] for slot in (resource.RLIMIT_RTTIME, LOCKS, resource.RLIMIT_NOFILE)]

    def children() -> set[int]:
        return {pid for thread in os.listdir("/proc/self/task") for pid in proc.children_of_thread(int(thread))}

    limits = softs()
    async with open_supervisor(own_process=True, guarded=False) as supervisor:
        attempt = supervisor.new_attempt()
        threads, others = SharedThreads(ThreadSlots(1)), children()
        with leased(program), trio.CancelScope() as waiting:

            async def start() -> None:
                await attempt.start(lambda: settle([str(program)], "/", {}), threads, size=None, pipe_stdin=False)
                raise AssertionError("it did not hang")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(start)
                with trio.fail_after(PATIENCE):
                    while not children() - others:  # which has the limits of its server for that time
                        await trio.lowlevel.checkpoint()
                    while softs() != limits:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                assert "starting" in repr(attempt)
                waiting.cancel()
        await attempt.end()
