"""However a session ends, nothing that descends from it lives on, whatever it did; and nobody else comes to harm.

Each case starts every escape at once, each in a session of its own, on pipes or on terminals, and a neighbour with
strays of its own; then it ends them in one of the ways there are.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import trio

import execsrv
from execsrv._processes import cgroup, proc
from execsrv._processes.supervisor import Supervisor
from execsrv._server.single_connection import serve_connection
from execsrv._wire.lines import LineChannel
from execsrv._wire.memory import open_memory_pair
from execsrv._wire.passing_channel import PassingChannel
from execsrv._wire.websocket import open_websocket
from execsrv.limits import Limits
from execsrv.protocol import Notification
from tests.escapes import ESCAPES, Escape, alive, strays, until_astray, until_none_lives
from tests.peers import ENV, PATIENCE, Peer, b64, open_peer
from tests.processes import marked, new_mark, resident, until_gone, until_marked
from tests.relay import Line, open_line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what these tests promise is promised on Linux only")

NEIGHBOUR = "setsid"

GRACE_MS = 300
DEADLINE_MS = 12_000
"""Long enough for all to come up on a busy machine."""
PING_SECONDS = 6
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
            await until_astray(mark, ESCAPES[name].strays)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}; it said {peer.output(mark)!r}") from None
    return marks


# -- the placements of a daemon --

Placement = tuple[list[str], dict[str, str]]
"""Its command but for the options, and its environment."""


def as_root(_: Path) -> Placement:
    return [sys.executable, "-m", "execsrv", "serve"], dict(os.environ)


def without_cgroup(_: Path) -> Placement:
    return [sys.executable, "-m", "execsrv", "serve", "--no-cgroup"], dict(os.environ)


def as_ordinary_user(folder: Path) -> Placement:
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
        pytest.skip("not allowed to become the user nobody, or it can read no interpreter of this version")
    packages = folder / "packages"
    names = "attr attrs execsrv h11 idna msgspec outcome sniffio sortedcontainers trio trio_websocket wsproto"
    for name in names.split():
        found = __import__(name)
        # Bytecode that somebody writes just now has a name that is gone the next moment.
        shutil.copytree(found.__path__[0], packages / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    for metadata in Path(trio.__path__[0]).parent.glob("trio*.dist-info"):  # trio-websocket asks for trio's version
        shutil.copytree(metadata, packages / metadata.name)
    for path in [packages, *packages.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return [*drop, python, "-m", "execsrv", "serve"], {"PYTHONPATH": str(packages), "PATH": ENV["PATH"]}


def as_pid_1(folder: Path) -> Placement:
    """The process that is started is `unshare`, and the daemon its child."""
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tools = shutil.which("unshare") and shutil.which("nsenter")
    if not tools or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("not allowed to make a pid namespace, or no unshare and nsenter to do it with")
    command, env = as_root(folder)
    return [*unshare, *command], env


PLACES = {"root": as_root, "no cgroup": without_cgroup, "ordinary user": as_ordinary_user}
ALL_PLACES = {**PLACES, "PID 1": as_pid_1}


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user can reach and write. To those of pytest each new run shuts the others' way."""
    with tempfile.TemporaryDirectory(prefix="execsrv-") as name:
        Path(name).chmod(0o1777)  # as /tmp: no server listens where others may remove its socket
        yield Path(name)


@pytest.fixture
def placement(place: str, open_path: Path) -> Placement:
    """Where a place is not to be had, the test is skipped here: from within an async test the reason would be lost."""
    return ALL_PLACES[place](open_path)


@pytest.fixture
def host(ending: str, request: pytest.FixtureRequest) -> str:
    """Return where the daemon is to listen."""
    return str(request.getfixturevalue("elsewhere")) if ending == "half dead" else "127.0.0.1"


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


async def until_guarded(server: int, but: int = 0) -> int:
    """Wait until a server, or a runner, has a guardian, and not that one."""
    with trio.fail_after(PATIENCE):
        while True:
            for pid in proc.children(server):
                if pid != but and b"guardian.py" in cmdline(pid):
                    return pid
            await trio.sleep(0.01)


def cmdline(pid: int) -> bytes:
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
    placement: Placement, listen: str, *options: str, surroundings: Surroundings | None = None
) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    command, env = placement
    around = surroundings or Surroundings()
    if around.stdout != subprocess.PIPE and listen.startswith("ws:"):
        host = listen.removeprefix("ws://").rpartition(":")[0]
        with socket.create_server((host, 0)) as free:  # nobody will hear which one it takes
            listen = f"ws://{host}:{free.getsockname()[1]}"
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


End = Callable[[Case], Awaitable[None]]


async def terminate(case: Case) -> None:
    for mark in case.marks:
        await case.victim.post("process/terminate", {"processId": mark})


async def terminate_gracefully(case: Case) -> None:
    for mark in case.marks:
        params = {"processId": mark, "mode": {"graceful": {"timeoutMs": GRACE_MS}}}
        await case.victim.post("process/terminate", params)


async def deadline(case: Case) -> None:
    """They were started with it. The last one started runs as long as it may, so then the time of all is over."""
    assert (await case.victim.until_told(list(case.marks)[-1], "exited"))["reason"] == "timeout"


async def half_dead(case: Case) -> None:
    """Nothing comes through any more, and nobody says so. The end begins when the server has noticed."""
    assert case.line is not None
    case.line.silence()


async def hang_up(case: Case) -> None:
    await case.victim.channel.aclose()


async def reset(case: Case) -> None:
    raw = case.victim.channel._connection._stream._stream.socket  # type: ignore[attr-defined]
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.close()


async def end_stdin(case: Case) -> None:
    assert case.daemon.stdin is not None
    case.daemon.stdin.close()


def by_signal(number: int) -> End:
    async def end(case: Case) -> None:
        case.daemon.send_signal(number)

    return end


async def guardian_first(case: Case) -> None:
    guardian = await until_guarded(case.pid)
    os.kill(guardian, signal.SIGKILL)
    await until_guarded(case.pid, but=guardian)
    case.daemon.kill()


async def guardian_only(case: Case) -> None:
    """Nobody is harmed by it, and the server has another one afterwards."""
    guardian = await until_guarded(case.pid)
    os.kill(guardian, signal.SIGKILL)
    await until_guarded(case.pid, but=guardian)
    for mark, name in case.marks.items():
        await until_astray(mark, ESCAPES[name].strays)
    await terminate(case)


async def guardian_last(case: Case) -> None:
    guardian = await until_guarded(case.pid)
    case.daemon.kill()
    with trio.fail_after(PATIENCE):
        while proc.living(guardian):  # noqa: ASYNC110
            await trio.sleep(0.01)


NEIGHBOURLY: dict[str, End] = {
    "terminate": terminate,
    "graceful": terminate_gracefully,
    "deadline": deadline,
    "hang up": hang_up,
    "reset": reset,
    "half dead": half_dead,
    "guardian only": guardian_only,
}
FINAL: dict[str, End] = {
    "end of stdin": end_stdin,
    "SIGTERM": by_signal(signal.SIGTERM),
    "SIGINT": by_signal(signal.SIGINT),
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
    every = metafunc.config.getoption("--all-survivors")
    if "around" in metafunc.fixturenames:
        hostile = HOSTILE_ALL if every else HOSTILE_SOME
        metafunc.parametrize(("around", "ending"), hostile, ids=[f"{around}-{ending}" for around, ending in hostile])
    elif "ending" in metafunc.fixturenames:
        cases = ALL if every else SOME
        ids = [f"{place}-{ending}-{'terminal' if tty else 'pipe'}" for place, ending, tty in cases]
        metafunc.parametrize(("place", "ending", "tty"), cases, ids=ids)


@pytest.mark.few(6)
async def test_nothing_survives_an_ending(
    ending: str, tty: bool, placement: Placement, host: str, open_path: Path
) -> None:
    await start_and_end(placement, ending, tty, host, open_path)


PASSED = [
    "deadline",
    "hang up",
    "SIGKILL",
    *(pytest.param(how, marks=pytest.mark.slow) for how in ("terminate", "graceful", "SIGTERM", "guardian first")),
]


@pytest.mark.few(2)
@pytest.mark.parametrize("how", PASSED)
async def test_nothing_survives_whose_streams_were_passed(how: str, tmp_path: Path) -> None:
    """Whoever holds the pipes: they tell nothing of the end, and keep nothing from it."""
    await start_and_end(as_root(tmp_path), how, False, "127.0.0.1", tmp_path, passStreams=True)


async def start_and_end(
    placement: Placement,
    ending: str,
    tty: bool,
    host: str,
    folder: Path,
    *,
    names: list[str] | None = None,
    surroundings: Surroundings | None = None,
    settings: Sequence[str] = (),
    neighbourly: dict[str, End] = NEIGHBOURLY,
    final: dict[str, End] = FINAL,
    **params: Any,
) -> None:
    """Start the escapes of these names in sessions of a daemon there, let them end, and see that nothing is left.

    The daemon has these `settings`, and the starts these `params`. `final` are the endings that end the neighbour too.
    """
    # A peer on the loopback is not taken for gone because it is silent.
    websocket = f"ws://{host}:0"
    pings = ["--ping-interval", f"{PING_SECONDS}", "--ping-timeout", f"{PING_SECONDS}"]
    listens = {"reset": websocket, "half dead": websocket, "end of stdin": "stdio://"}
    listen = listens.get(ending, f"unix://{folder}/s")
    # Another machine, which is none of ours to the daemon, could be anybody's.
    options = [*pings, "--allow-plain-network", "--allow-anybody"] if ending == "half dead" else []
    async with open_daemon(placement, listen, *options, *settings, surroundings=surroundings) as (daemon, url):
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
            path = placement[1].get("PYTHONPATH")
            if ending == "deadline":
                params["timeoutMs"] = DEADLINE_MS
            if params.get("passStreams"):
                for _ in ESCAPES:
                    victim.channel.passing.expect()  # and hold the pipes to its end
            case.marks = await start_escapes(victim, tty, python, names, path=path, **params)
            if surroundings is not None:
                await surroundings.upset(url)
            if ending == "end of stdin":
                await channel.aclose()
            with trio.CancelScope(shield=True):
                await (neighbourly | final)[ending](case)
                await until_none_lives(case.marks | (beside if ending in final else {}))
            if neighbour is not None and ending in neighbourly:
                assert all(len(strays(mark)) == 1 for mark in beside)
                assert await neighbour.run("x", ["echo", "alive"]) == (0, b"alive\n", b"")
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Peer]:
    if url.startswith("ws:"):
        async with open_websocket(url, Limits()) as websocket, open_peer(websocket) as peer:
            yield peer
    else:
        stream = await trio.open_unix_socket(url.removeprefix("unix://"))
        async with open_peer(PassingChannel(stream, Limits())) as peer:
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
FEW = ["setsid", "a daemon, no environment", "deaf"]
HOSTILE_SOME = [
    ("stderr full", "SIGTERM"),
    ("stdout full", "hang up"),
    ("terminal stopped", "SIGTERM"),
    ("busy loops", "terminate"),
]
HOSTILE_ALL = [(name, ending) for name in SURROUNDINGS for ending in ENDINGS]


@pytest.mark.few
async def test_nothing_survives_where_nobody_helps(
    around: str, ending: str, host: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every ending once more: with a log that nobody reads, and beside others who are busy."""
    names = None if request.config.getoption("--all-survivors") else FEW
    surroundings = SURROUNDINGS[around]()
    try:
        await start_and_end(as_root(tmp_path), ending, False, host, tmp_path, names=names, surroundings=surroundings)
    finally:
        surroundings.close()


# -- in another program --


@pytest.mark.few(2)
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
                    await until_none_lives(marks)
                    assert all(len(strays(mark)) == 1 for mark in beside)
        await until_none_lives(beside)


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
    async with client.start(argv):
        task_status.started()
        await trio.sleep_forever()
trio.run(main)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as program:  # noqa: ASYNC220
        try:
            for mark, name in marks.items():
                await until_astray(mark, ESCAPES[name].strays)
        finally:
            program.kill()
        await until_none_lives(marks)


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
async def test_a_thousand_go_as_one_does(count: int) -> None:
    code = f"for n in range({count}):\n  if os.fork() == 0:\n    n % 2 and os.setsid()\n    stay()\nstay()"
    mark = new_mark()
    async with execsrv.connect_in_process() as client:
        async with client.start(Escape(code, python=True).argv(mark, sys.executable)):
            await until_astray(mark, count + 1)
        await until_none_lives({mark: f"{count} of them"})


# -- these tests see what they claim to see --


@pytest.fixture
def crowd() -> Iterator[None]:
    """Six hundred other processes."""
    script = "for n in $(seq 600); do sleep 1000 >/dev/null 2>&1 & done; echo; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as leader:
        try:
            assert leader.stdout is not None
            if not leader.stdout.readline():
                pytest.skip("not allowed to have six hundred processes")
            yield
        finally:
            os.killpg(leader.pid, signal.SIGKILL)


@pytest.mark.usefixtures("crowd")
async def test_no_look_misses_an_escape_among_six_hundred_others() -> None:
    ours, theirs = open_memory_pair()
    async with trio.open_nursery() as nursery, open_peer(ours) as peer:
        nursery.start_soon(serve_connection, theirs, Supervisor())
        await peer.handshake()
        marks = await start_escapes(peer, False, sys.executable, guest=True)
        for _ in range(50):
            missed = [marks[mark] for mark, pids in alive(marks).items() if len(pids) < ESCAPES[marks[mark]].strays]
            assert not missed
        await peer.channel.aclose()
        await until_none_lives(marks)


# -- nothing else is left either --


@pytest.mark.few
@pytest.mark.timeout(600)  # ten thousand take their time
@pytest.mark.parametrize("place", ["root", "PID 1"])
async def test_sessions_with_strays_leave_nothing_of_the_server(
    place: str, placement: Placement, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Five hundred sessions with a stray each, or ten thousand; then what the server has is as before."""
    rounds = 100 if request.config.getoption("--all-survivors") or request.config.getoption("--slow") else 5

    async def hundred(url: str) -> None:
        async with _connected(url) as peer:
            await peer.handshake()
            for number in range(100):
                await peer.post(
                    "process/start", peer.start_params(f"{number}", ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"])
                )
            for number in range(100):
                await peer.until_told(f"{number}", "exited")

    async with open_daemon(placement, f"unix://{tmp_path}/s") as (started, url):
        daemon = proc.children(started.pid)[0] if place == "PID 1" else started.pid
        for _ in range(3):
            await hundred(url)
            await _until(lambda: len(proc.children(daemon)) <= 1)
        before = Belongings.of(daemon)
        for _ in range(rounds - 3):
            # Those before have gone: memory is compared after the same crowd, and there is a limit.
            await _until(lambda: len(proc.children(daemon)) <= 1)
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
        descriptors, threads = (len(os.listdir(f"/proc/{pid}/{what}")) for what in ("fd", "task"))
        return cls(len(proc.children(pid)), descriptors, threads, resident(pid) // 1024)

    def beyond(self, other: Belongings) -> bool:
        """Whether it is more than that. Memory settles after some three thousand sessions, 8 MiB above the start."""
        return any(map(int.__gt__, self[:3], other[:3])) or self.kibibytes > other.kibibytes + 12 * 1024


async def _until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.parametrize("place", ["PID 1"])
async def test_as_pid_1_it_reaps_strangers_and_ends_on_sigterm(placement: Placement, tmp_path: Path) -> None:
    """A stranger here is what `setsid` leaves to PID 1 when somebody enters the namespace, as `docker exec` does."""

    async with open_daemon(placement, f"unix://{tmp_path}/s") as (unshare, url), _connected(url) as peer:
        (daemon,) = proc.children(unshare.pid)
        await peer.handshake()
        mark, stranger = new_mark(), new_mark()
        await peer.start("a", ["bash", "-c", f"setsid bash -c 'exec -a {mark} sleep 1000' & sleep 1000"])
        await until_marked(mark, 1)
        enter = ["nsenter", "--target", str(daemon), "--pid", "--mount", "bash", "-c"]
        subprocess.run([*enter, f"setsid bash -c 'exec -a {stranger} sleep 1000' >/dev/null 2>&1 &"], check=True)  # noqa: ASYNC221
        await until_marked(stranger, 1)
        await peer.call("process/terminate", {"processId": "a"})
        await until_gone(mark)
        (survivor,) = marked(stranger)
        os.kill(survivor, signal.SIGKILL)
        await _until(lambda: all("guardian" in cmdline(pid).decode() for pid in proc.children(daemon)))
        os.kill(daemon, signal.SIGTERM)
        assert await trio.to_thread.run_sync(unshare.wait) == 0


SHEDDER = Escape(
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\n"
    "resource.setrlimit(resource.RLIMIT_RTTIME, (1 << 40, resource.RLIM_INFINITY))\n"
    "if os.fork(): os._exit(0)\n"
    "os.closerange(0, 3)\n"
    "stay()",
    python=True,
)


@pytest.fixture(params=["terminate", "SIGKILL"])
def how_it_ends(request: pytest.FixtureRequest) -> str:
    """Against SIGKILL only a control group helps."""
    if request.param == "SIGKILL":
        if (folder := cgroup.make(f"{cgroup.PREFIX}test-{os.getpid()}")) is None:
            pytest.skip("no control group to be had here")
        cgroup.remove(folder)
    return str(request.param)


async def test_who_sheds_the_mark_ends_with_the_last_session_and_with_the_server(
    how_it_ends: str, tmp_path: Path
) -> None:
    placement = as_root(tmp_path)
    async with open_daemon(placement, f"unix://{tmp_path}/s") as (daemon, url), _connected(url) as peer:
        await peer.handshake()
        mark = new_mark()
        group = Path(f"/proc/{daemon.pid}/cgroup")
        await peer.start("first", ["sleep", "1000"])
        if how_it_ends == "SIGKILL":
            await _until(lambda: "execsrv-" in group.read_text())
        await peer.start("a", SHEDDER.argv(mark, sys.executable))
        await peer.until_told("a", "closed")
        await until_astray(mark, SHEDDER.strays)
        if how_it_ends == "SIGKILL":
            daemon.kill()
        else:
            await peer.call("process/terminate", {"processId": "a"})
            await peer.call("process/terminate", {"processId": "first"})
        await until_none_lives({mark: "what shed its mark"})
