"""However a session ends, nothing that descends from it lives on, whatever it did; and nobody else comes to harm.

Each case starts every escape at once, each in a session of its own, on pipes or on terminals, and a neighbour with
strays of its own; then it ends them in one of the ways there are.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import trio

import execsrv
from execsrv._processes import cgroup, proc
from execsrv._processes.supervisor import Supervisor
from execsrv._server.conversation import serve_connection
from execsrv._wire.lines import LineChannel
from execsrv._wire.memory import open_memory_pair
from execsrv._wire.websocket import open_websocket
from execsrv.limits import Limits
from execsrv.protocol import Notification
from tests import deny
from tests.escapes import ESCAPES, alive, until_alive, until_gone
from tests.peers import ENV, Peer, b64, open_peer
from tests.processes import new_mark
from tests.relay import Line, open_line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what these tests promise is promised on Linux only")

SECONDS = 2.0
NEIGHBOUR = "setsid"

GRACE_MS = 300
DEADLINE_MS = 8000
"""Long enough for all to come up on a busy machine."""
PING_SECONDS = 0.7
"""A busy machine must not be taken for a dead one."""

T = TypeVar("T")


async def start_escapes(
    peer: Peer,
    tty: bool,
    python: str,
    names: list[str] | None = None,
    path: str | None = os.environ.get("PYTHONPATH"),
    *,
    guest: bool = False,
    **params: object,
) -> dict[str, str]:
    """All escapes, each in a session named by its mark; the marks, each with what it is.

    With a server that is a `guest` they begin when their start was answered: see "What can still escape".
    """
    marks = {f"{new_mark()}": name for name in names or ESCAPES}
    env = {**ENV, **({"PYTHONPATH": path} if path else {})}
    for mark, name in marks.items():
        argv = ESCAPES[name].argv(mark, python)
        if guest:
            await peer.start(mark, ["sh", "-c", 'read go; exec "$@"', "sh", *argv], tty=tty, env=env, pipeStdin=True)
            await peer.call("process/write", {"processId": mark, "chunk": b64(b"go\n"), "writeId": "go"})
        else:
            await peer.start(mark, argv, tty=tty, env=env, **params)
    for mark, name in marks.items():
        try:
            await until_alive(mark, ESCAPES[name].strays)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}; it said {peer.output(mark)!r}") from None
    return marks


# -- the placements of a daemon --


def as_root(_: Path) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "execsrv", "serve"], dict(os.environ)


def without_cgroup(_: Path) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "execsrv", "serve", "--no-cgroup"], dict(os.environ)


def as_ordinary_user(folder: Path) -> tuple[list[str], dict[str, str]]:
    """An interpreter and a copy of the packages that the user nobody can read."""
    if os.getuid() != 0:
        return as_root(folder)
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [os.path.realpath(sys.executable), f"/usr/bin/{version}", f"/usr/local/bin/{version}"]
    for python in candidates if shutil.which("setpriv") else ():
        # By a shell, since setpriv itself still has rights that its command has not.
        if subprocess.run([*drop, "sh", "-c", f"{python} -c ''"], capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("the user nobody can read no interpreter of this version")
    packages = folder / "packages"
    names = "attr attrs click execsrv h11 idna msgspec outcome sniffio sortedcontainers trio trio_websocket wsproto"
    for name in names.split():
        found = __import__(name)
        shutil.copytree(found.__path__[0], packages / name)
    for metadata in Path(trio.__path__[0]).parent.glob("trio*.dist-info"):  # trio-websocket asks for trio's version
        shutil.copytree(metadata, packages / metadata.name)
    for path in [packages, *packages.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    above = folder
    while above not in (Path("/"), Path("/tmp")):
        above.chmod(0o777)
        above = above.parent
    return [*drop, python, "-m", "execsrv", "serve"], {"PYTHONPATH": str(packages), "PATH": ENV["PATH"]}


def as_pid_1(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The process that is started is `unshare`, and the daemon its child."""
    command, env = as_root(folder)
    return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command], env


Place = Callable[[Path], tuple[list[str], dict[str, str]]]
PLACES: dict[str, Place] = {"root": as_root, "no cgroup": without_cgroup, "ordinary user": as_ordinary_user}


class Case:
    """A daemon with a victim, whose session's strays are to go, and a neighbour."""

    def __init__(self, daemon: subprocess.Popen[bytes], victim: Peer, line: Line | None) -> None:
        """`line` is what the victim is connected through, if it is anything."""
        self.daemon = daemon
        self.victim = victim
        self.line = line
        self.marks: dict[str, str] = {}

    @property
    def pid(self) -> int:
        return self.daemon.pid

    def guardians(self) -> list[int]:
        return [pid for pid in proc.children(self.pid) if b"guardian.py" in _cmdline(pid)]

    async def until_guarded(self, but: int = 0) -> int:
        """Wait until there is a guardian, and not that one."""
        with trio.fail_after(10):
            while not (found := [pid for pid in self.guardians() if pid != but]):  # noqa: ASYNC110
                await trio.sleep(0.01)
        return found[0]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Surroundings:
    """What a daemon's output goes to, and what there is around it."""

    stdout: int = subprocess.PIPE
    stderr: int | None = None

    async def upset(self, url: str) -> None:
        """Make it hard, now that everything runs."""

    def close(self) -> None:
        """Let go of it all."""


@asynccontextmanager
async def open_daemon(
    place: Place, folder: Path, listen: str, *options: str, surroundings: Surroundings | None = None
) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    command, env = place(folder)
    around = surroundings or Surroundings()
    if around.stdout != subprocess.PIPE and listen == "ws://127.0.0.1:0":
        with socket.create_server(("127.0.0.1", 0)) as free:  # nobody will hear which one it takes
            listen = f"ws://127.0.0.1:{free.getsockname()[1]}"
    daemon = subprocess.Popen(  # noqa: ASYNC220
        [*command, "--listen", listen, *options],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if listen == "stdio://" else around.stdout,
        stderr=around.stderr,
        cwd="/",
    )
    try:
        if daemon.stdout is None:
            await _until_heard(daemon, listen)
            yield daemon, listen
            return
        assert daemon.stdout is not None
        url = ""
        if listen != "stdio://":
            url = (await trio.to_thread.run_sync(daemon.stdout.readline)).decode().strip()
        yield daemon, url
    finally:
        daemon.kill()
        daemon.wait()
        for stream in (daemon.stdin, daemon.stdout):
            if stream is not None:
                stream.close()


async def _until_heard(daemon: subprocess.Popen[bytes], listen: str) -> None:
    """Wait until a daemon that says nothing can be connected to."""
    with trio.fail_after(10):
        while True:
            assert daemon.poll() is None
            try:
                if listen.startswith("ws:"):
                    host, _, port = listen.removeprefix("ws://").rpartition(":")
                    await (await trio.open_tcp_stream(host, int(port))).aclose()
                else:
                    await (await trio.open_unix_socket(listen.removeprefix("unix://"))).aclose()
                return
            except OSError:
                await trio.sleep(0.01)


# -- the ways to end --


async def terminate(case: Case) -> None:
    for mark in case.marks:
        await case.victim.post("process/terminate", {"processId": mark})


async def terminate_gracefully(case: Case) -> None:
    for mark in case.marks:
        params = {"processId": mark, "mode": {"graceful": {"timeoutMs": GRACE_MS}}}
        await case.victim.post("process/terminate", params)
    await trio.sleep(GRACE_MS / 1000)


async def deadline(case: Case) -> None:
    """They were started with it. The last one started runs as long as it may, so then the time of all is over."""
    assert (await case.victim.until_told(list(case.marks)[-1], "exited"))["reason"] == "timeout"


async def half_dead(case: Case) -> None:
    """Nothing comes through any more, and nobody says so. The end begins when the server has noticed."""
    assert case.line is not None
    case.line.silence()
    await trio.sleep(3 * PING_SECONDS)


async def hang_up(case: Case) -> None:
    await case.victim.channel.aclose()


async def reset(case: Case) -> None:
    raw = case.victim.channel._connection._stream._stream.socket  # type: ignore[attr-defined]
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.close()


async def end_stdin(case: Case) -> None:
    assert case.daemon.stdin is not None
    case.daemon.stdin.close()


def by_signal(number: int) -> Callable[[Case], Awaitable[None]]:
    async def end(case: Case) -> None:
        case.daemon.send_signal(number)

    return end


async def guardian_first(case: Case) -> None:
    guardian = await case.until_guarded()
    os.kill(guardian, signal.SIGKILL)
    await case.until_guarded(but=guardian)
    case.daemon.kill()


async def guardian_only(case: Case) -> None:
    """Nobody is harmed by it, and the server has another one afterwards."""
    guardian = await case.until_guarded()
    os.kill(guardian, signal.SIGKILL)
    await case.until_guarded(but=guardian)
    for mark, name in case.marks.items():
        await until_alive(mark, ESCAPES[name].strays)
    await terminate(case)


async def guardian_last(case: Case) -> None:
    guardian = await case.until_guarded()
    case.daemon.kill()
    with trio.fail_after(SECONDS):
        while proc.living(guardian):  # noqa: ASYNC110
            await trio.sleep(0.01)


NEIGHBOURLY = {
    "terminate": terminate,
    "graceful": terminate_gracefully,
    "deadline": deadline,
    "hang up": hang_up,
    "reset": reset,
    "half dead": half_dead,
    "guardian only": guardian_only,
}
FINAL = {
    "end of stdin": end_stdin,
    "SIGTERM": by_signal(signal.SIGTERM),
    "SIGINT": by_signal(signal.SIGINT),
    "SIGHUP": by_signal(signal.SIGHUP),
    "SIGKILL": by_signal(signal.SIGKILL),
    "crash": by_signal(signal.SIGSEGV),
    "abort": by_signal(signal.SIGABRT),
    "guardian first": guardian_first,
    "guardian last": guardian_last,
}
ENDINGS = {**NEIGHBOURLY, **FINAL}
SOME = [
    *(("root", ending, number % 2 == 0) for number, ending in enumerate(ENDINGS)),
    ("root", "terminate", False),
    ("no cgroup", "terminate", False),
    ("no cgroup", "hang up", True),
    ("no cgroup", "SIGKILL", True),
    ("ordinary user", "terminate", True),
    ("ordinary user", "SIGKILL", False),
    ("ordinary user", "guardian first", True),
]
ALL = [(place, ending, tty) for place in PLACES for ending in ENDINGS for tty in (False, True)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ending" in metafunc.fixturenames:
        cases = ALL if metafunc.config.getoption("--all-survivors") else SOME
        ids = [f"{place}-{ending}-{'terminal' if tty else 'pipe'}" for place, ending, tty in cases]
        metafunc.parametrize(("place", "ending", "tty"), cases, ids=ids)
    if "hostile" in metafunc.fixturenames:
        hostile = HOSTILE_ALL if metafunc.config.getoption("--all-survivors") else HOSTILE_SOME
        metafunc.parametrize(("around", "hostile"), hostile, ids=[f"{around}-{ending}" for around, ending in hostile])


async def test_nothing_survives_an_ending(place: str, ending: str, tty: bool, tmp_path: Path) -> None:
    await start_and_end(PLACES[place], ending, tty, tmp_path)


async def start_and_end(
    place: Place,
    ending: str,
    tty: bool,
    tmp_path: Path,
    *,
    names: list[str] | None = None,
    seconds: float = SECONDS,
    surroundings: Surroundings | None = None,
) -> None:
    """Start the escapes of these names in sessions of a daemon there, let them end, and see that nothing is left."""
    ping = f"{PING_SECONDS if surroundings is None else 4 * PING_SECONDS}"
    websocket, pings = "ws://127.0.0.1:0", ["--ping-interval", ping, "--ping-timeout", ping]
    listens = {"reset": websocket, "half dead": websocket, "end of stdin": "stdio://"}
    listen = listens.get(ending, f"unix://{tmp_path}/s")
    options = pings if ending == "half dead" else []
    async with open_daemon(place, tmp_path, listen, *options, surroundings=surroundings) as (daemon, url):
        assert isinstance(daemon.args, list)
        python = next(word for word in daemon.args if isinstance(word, str) and "python" in word)
        async with trio.open_nursery() as nursery:
            neighbour: Peer | None = None
            line: Line | None = None
            if listen == "stdio://":
                assert daemon.stdin is not None
                assert daemon.stdout is not None
                theirs = os.dup(daemon.stdin.fileno())
                channel = LineChannel(
                    trio.lowlevel.FdStream(theirs), trio.lowlevel.FdStream(os.dup(daemon.stdout.fileno())), Limits()
                )
                victim = await nursery.start(_hold, open_peer(channel))
            else:
                if ending == "half dead":
                    line = await nursery.start(_hold, open_line(url, ""))
                victim = await nursery.start(_hold, _connected(line.url if line else url))
                neighbour = await nursery.start(_hold, _connected(url))
                await neighbour.handshake()
            await victim.handshake()
            beside = {} if neighbour is None else await start_escapes(neighbour, tty, python, [NEIGHBOUR])
            case = Case(daemon, victim, line)
            path = str(tmp_path / "packages") if place is as_ordinary_user else os.environ.get("PYTHONPATH")
            limits: dict[str, Any] = {"timeoutMs": DEADLINE_MS} if ending == "deadline" else {}
            case.marks = await start_escapes(victim, tty, python, names, path=path, **limits)
            if surroundings is not None:
                await surroundings.upset(url)
            if ending == "end of stdin":
                await channel.aclose()
            with trio.CancelScope(shield=True):
                await ENDINGS[ending](case)
                await until_gone({**case.marks, **(beside if ending in FINAL else {})}, seconds)
            if neighbour is not None and ending in NEIGHBOURLY:
                assert all(len(alive(mark)) == 1 for mark in beside)
                assert await neighbour.run("x", ["echo", "alive"]) == (0, b"alive\n", b"")
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Peer]:
    if url.startswith("ws:"):
        async with open_websocket(url, Limits()) as websocket, open_peer(websocket) as peer:
            yield peer
    else:
        stream = await trio.open_unix_socket(url.removeprefix("unix://"))
        async with open_peer(LineChannel(stream, stream, Limits())) as peer:
            yield peer


async def _hold(context: AbstractAsyncContextManager[T], *, task_status: trio.TaskStatus[T]) -> None:
    async with context as value:
        task_status.started(value)
        await trio.sleep_forever()


# -- where nobody helps --


class UnreadLog(Surroundings):
    """The pipe of one of its outputs is full from the start, and nobody reads it."""

    def __init__(self, which: str) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        try:
            while os.write(self._writer, bytes(4096)):
                pass
        except BlockingIOError:
            os.set_blocking(self._writer, True)
        setattr(self, which, self._writer)

    async def upset(self, url: str) -> None:
        await complain(url)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class StoppedTerminal(Surroundings):
    """Its outputs are a terminal, at which somebody types Ctrl-S when everything runs."""

    def __init__(self) -> None:
        self._master, self.stderr = os.openpty()
        self.stdout = self.stderr

    async def upset(self, url: str) -> None:
        os.write(self._master, b"\x13")
        await complain(url)

    def close(self) -> None:
        os.close(self._master)
        os.close(self.stdout)


class BusyLoops(Surroundings):
    """Others take all of the processors, twice."""

    def __init__(self) -> None:
        loop = ["sh", "-c", "while :; do :; done"]
        self._loops = [subprocess.Popen(loop) for _ in range(2 * (os.cpu_count() or 1))]

    def close(self) -> None:
        for loop in self._loops:
            loop.kill()
            loop.wait()


async def complain(url: str) -> None:
    """Give the server something to log, as a peer that it has to let go."""
    if url:
        async with _connected(url) as peer:
            await peer.channel.send(Notification("x" * 70_000))
            with trio.move_on_after(0.5):  # it may be past answering
                await peer.until_ended()


SURROUNDINGS: dict[str, Callable[[], Surroundings]] = {
    "stderr full": lambda: UnreadLog("stderr"),
    "stdout full": lambda: UnreadLog("stdout"),
    "terminal stopped": StoppedTerminal,
    "busy loops": BusyLoops,
}
CALLS = {
    "pidfd_open": "434",
    "pidfd_send_signal": "424",
    "prlimit64": "302",
    "subreaper": "157:36",
    "close_range": "436",
    "memfd_create": "319",
}
DENIALS = {
    f"no {name}, {errno.errorcode[number]}": (number, call) for name, call in CALLS.items() for number in (1, 38)
}
"""What a container or a sandbox may refuse: the numbers are those of x86-64."""

_HOSTILE = "test_nothing_survives_where_nobody_helps"
NOT_YET = {
    f"{_HOSTILE}[stderr full": "F2: logging blocks the loop",
    f"{_HOSTILE}[stdout full": "F2: the line that says where it listens blocks the loop",
    f"{_HOSTILE}[terminal stopped": "F2: logging blocks the loop",
    f"{_HOSTILE}[no pidfd_open, EPERM": "the call is inferred, not tried: every start is refused",
    f"{_HOSTILE}[no pidfd_open, ENOSYS": "the call is inferred, not tried: every start is refused",
    f"{_HOSTILE}[no pidfd_send_signal, EPERM": "its error counts as sent, and commands live on",
    f"{_HOSTILE}[no pidfd_send_signal, ENOSYS": "its error counts as sent, and commands live on",
    f"{_HOSTILE}[no prlimit64, EPERM": "the server ends at its start, without a word of what it lacks",
    f"{_HOSTILE}[no prlimit64, ENOSYS": "the server ends at its start, without a word of what it lacks",
    f"{_HOSTILE}[no subreaper, EPERM": "that it was refused is not noticed: strays are looked for by descent, in vain",
    f"{_HOSTILE}[no subreaper, ENOSYS": "that it was refused is not noticed: strays are looked for by descent, in vain",
}
"""What fails today, and why. Remove an entry when its test passes."""

FEW = ["setsid", "a daemon, no environment", "deaf"]
MANY = ["terminate", "deadline", "hang up", "SIGTERM", "SIGKILL", "guardian first"]
HOSTILE_SOME = [
    ("stderr full", "SIGTERM"),
    ("stdout full", "hang up"),
    ("terminal stopped", "SIGTERM"),
    ("busy loops", "terminate"),
    *zip(DENIALS, ["terminate", "SIGKILL"] * len(CALLS), strict=True),
]
HOSTILE_ALL = [
    *((name, ending) for name in SURROUNDINGS for ending in ENDINGS),
    *((name, ending) for name in DENIALS for ending in MANY),
]
HOSTILE_SECONDS = 10.0
"""Beside busy loops everything takes its time."""


async def test_nothing_survives_where_nobody_helps(
    around: str, hostile: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every ending once more: with a log that nobody reads, beside others, and with system calls that are denied."""
    if around in DENIALS and os.uname().machine != "x86_64":
        pytest.skip("knows the numbers of system calls for x86-64 only")

    def place(folder: Path) -> tuple[list[str], dict[str, str]]:
        command, env = as_root(folder)
        if around in DENIALS:
            number, call = DENIALS[around]
            command = [sys.executable, deny.__file__, f"{number}", call, *command]
        return command, env

    # "forks and exits" has another pid by the time that `alive` looks at the one it read: no outsider sees it here.
    every = [name for name in ESCAPES if name != "forks and exits"]
    names = every if request.config.getoption("--all-survivors") else FEW
    surroundings = SURROUNDINGS.get(around, Surroundings)()
    try:
        await start_and_end(
            place, hostile, False, tmp_path, names=names, seconds=HOSTILE_SECONDS, surroundings=surroundings
        )
    finally:
        surroundings.close()


# -- in another program --


@pytest.mark.parametrize("how", ["terminate", "hang up", "cancel"])
@pytest.mark.parametrize("tty", [False, True])
async def test_nothing_survives_in_an_embedding_program(how: str, tty: bool) -> None:
    supervisor = Supervisor()
    ours, theirs = open_memory_pair()
    beside_ours, beside_theirs = open_memory_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, beside_theirs, supervisor)
        async with trio.open_nursery() as connection:  # noqa: SIM117
            async with open_peer(beside_ours) as neighbour, open_peer(ours) as victim:
                connection.start_soon(serve_connection, theirs, supervisor)
                await neighbour.handshake()
                await victim.handshake()
                beside = await start_escapes(neighbour, tty, sys.executable, [NEIGHBOUR], guest=True)
                marks = await start_escapes(victim, tty, sys.executable, guest=True)
                match how:
                    case "terminate":
                        for mark in marks:
                            await victim.post("process/terminate", {"processId": mark})
                    case "hang up":
                        await victim.channel.aclose()
                    case "cancel":
                        connection.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await until_gone(marks, SECONDS)
                    assert all(len(alive(mark)) == 1 for mark in beside)
        await until_gone(beside, SECONDS)


async def test_nothing_survives_an_embedding_program_that_is_killed() -> None:
    marks = {new_mark(): name for name in ESCAPES}
    commands = {mark: ESCAPES[name].argv(mark, sys.executable) for mark, name in marks.items()}
    code = f"""
import execsrv, os, sys, trio
async def main():
    async with execsrv.connect_in_process(own_process=True) as client, trio.open_nursery() as nursery:
        for argv in {list(commands.values())!r}:
            await nursery.start(hold, client, argv)
        print("ready", flush=True)
async def hold(client, argv, *, task_status):
    async with client.start(argv, inherit_env=True):
        task_status.started()
        await trio.sleep_forever()
trio.run(main)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as program:  # noqa: ASYNC220
        try:
            for mark, name in marks.items():
                await until_alive(mark, ESCAPES[name].strays)
        finally:
            program.kill()
        await until_gone(marks, SECONDS)


async def test_a_thousand_go_as_one_does() -> None:
    code = "for n in range(1000):\n  if os.fork() == 0:\n    n % 2 and os.setsid()\n    stay()\nstay()"
    mark = new_mark()
    async with execsrv.connect_in_process() as client:
        argv = [sys.executable, "-I", "-S", "-c", "import os, time\nstay = lambda: time.sleep(1000)\n" + code, mark]
        async with client.start(argv):
            await until_alive(mark, 1000)
        await until_gone({mark: "a thousand"}, SECONDS)


# -- nothing else is left either --


@pytest.mark.timeout(600)  # ten thousand take their time
@pytest.mark.parametrize("place", ["root", "PID 1"])
async def test_sessions_with_strays_leave_nothing_of_the_server(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A thousand sessions with a stray each, ten with `--all-survivors`; then what the server has is as before."""
    if place == "PID 1" and os.getuid() != 0:
        pytest.skip("only root may make a pid namespace")
    rounds = 100 if request.config.getoption("--all-survivors") else 10

    async def hundred(url: str) -> None:
        async with _connected(url) as peer:
            await peer.handshake()
            for number in range(100):
                await peer.post(
                    "process/start", peer.start_params(f"{number}", ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"])
                )
            for number in range(100):
                await peer.until_told(f"{number}", "exited")

    async with open_daemon({**PLACES, "PID 1": as_pid_1}[place], tmp_path, f"unix://{tmp_path}/s") as (started, url):
        daemon = proc.children(started.pid)[0] if place == "PID 1" else started.pid
        for _ in range(3):
            await hundred(url)
        await _until(lambda: len(proc.children(daemon)) <= 1)
        before = Belongings.of(daemon)
        for _ in range(rounds - 3):
            await hundred(url)
        await _until(lambda: len(proc.children(daemon)) <= 1)
        with trio.move_on_after(20):
            while Belongings.of(daemon).beyond(before):  # noqa: ASYNC110
                await trio.sleep(0.01)
        print(f"before: {before}, after: {(after := Belongings.of(daemon))}")
        assert not after.beyond(before)
        group = _group_of(daemon)
        os.kill(daemon, signal.SIGTERM)
        await trio.to_thread.run_sync(started.wait)
        if group is not None:
            await _until(lambda: not group.exists())


def _group_of(pid: int) -> Path | None:
    """The control group that a server has made for itself."""
    name = Path(f"/proc/{pid}/cgroup").read_text().rpartition("/")[2].strip()
    ours = cgroup.own_folder()
    return ours / name if ours and name.startswith(cgroup.PREFIX) else None


class Belongings(NamedTuple):
    """What a server has. One of its children is the guardian."""

    children: int
    descriptors: int
    threads: int
    kibibytes: int

    @classmethod
    def of(cls, pid: int) -> Belongings:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 1024
        descriptors, threads = (len(os.listdir(f"/proc/{pid}/{what}")) for what in ("fd", "task"))
        return cls(len(proc.children(pid)), descriptors, threads, resident)

    def beyond(self, other: Belongings) -> bool:
        """Whether it is more than that. Memory settles after some three thousand sessions, 8 MiB above the start."""
        return any(map(int.__gt__, self[:3], other[:3])) or self.kibibytes > other.kibibytes + 12 * 1024


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make a pid namespace")
async def test_as_pid_1_it_reaps_strangers_and_ends_on_sigterm(tmp_path: Path) -> None:
    """A stranger here is what `setsid` leaves to PID 1 when somebody enters the namespace, as `docker exec` does."""

    async with open_daemon(as_pid_1, tmp_path, f"unix://{tmp_path}/s") as (unshare, url), _connected(url) as peer:
        (daemon,) = proc.children(unshare.pid)
        await peer.handshake()
        mark, stranger = new_mark(), new_mark()
        await peer.start("a", ["bash", "-c", f"setsid bash -c 'exec -a {mark} sleep 1000' & sleep 1000"])
        await until_alive(mark, 1)
        enter = ["nsenter", "--target", str(daemon), "--pid", "--mount", "bash", "-c"]
        subprocess.run([*enter, f"setsid bash -c 'exec -a {stranger} sleep 1000' >/dev/null 2>&1 &"], check=True)  # noqa: ASYNC221
        await until_alive(stranger, 1)
        await peer.call("process/terminate", {"processId": "a"})
        await until_gone({mark: "ours"}, SECONDS)
        assert alive(stranger)
        os.kill(alive(stranger)[0], signal.SIGKILL)
        await _until(lambda: all("guardian" in _cmdline(pid).decode() for pid in proc.children(daemon)))
        os.kill(daemon, signal.SIGTERM)
        assert await trio.to_thread.run_sync(unshare.wait) == 0


SHEDDER = (
    "import os, resource, sys, time\n"
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\n"
    "resource.setrlimit(resource.RLIMIT_RTTIME, (1 << 40, resource.RLIM_INFINITY))\n"
    "if os.fork(): os._exit(0)\n"
    "os.closerange(0, 3)\n"
    "time.sleep(1000)"
)


@pytest.mark.parametrize("how", ["terminate", "SIGKILL"])
async def test_who_sheds_the_mark_ends_with_the_last_session_and_with_the_server(how: str, tmp_path: Path) -> None:
    async with open_daemon(as_root, tmp_path, f"unix://{tmp_path}/s") as (daemon, url), _connected(url) as peer:
        await peer.handshake()
        mark = new_mark()
        group = Path(f"/proc/{daemon.pid}/cgroup")
        await peer.start("first", ["sleep", "1000"])
        if how == "SIGKILL":
            if cgroup.own_folder() is None or not os.access(cgroup.own_folder() or "", os.W_OK):
                pytest.skip("no control group to be had here")
            await _until(lambda: "execsrv-" in group.read_text())
        await peer.start("a", [sys.executable, "-I", "-S", "-c", SHEDDER, mark])
        await peer.until_told("a", "closed")
        await until_alive(mark, 1)
        if how == "SIGKILL":
            daemon.kill()
        else:
            await peer.call("process/terminate", {"processId": "a"})
            await peer.call("process/terminate", {"processId": "first"})
        await until_gone({mark: "what shed its mark"}, SECONDS)
