"""Where scripts are said: daemons with small bounds, a neighbour in each, and a look at what is left.

Once nobody but the neighbour is there, a daemon must have
- no descriptor more than before the first script,
- no process below it but its guardian and the neighbour's command,
- at most `ALLOWED.threads` threads more (idle ones are kept for ten seconds, to be used again),
and over a run of minutes its memory must come to a plateau, as `tests.faults.soak` judges it: the line through its
floors rises by at most `ALLOWED.memory`. Short runs may grow by `SHORT_RUN_MEMORY`: caches fill.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from execsrv.limits import MIB
from tests.faults.daemon import Daemon, Neighbour, guardians, open_neighbour, running_daemon, until
from tests.faults.soak import ALLOWED, Sample
from tests.fuzz.scripts import DOORS, FOLDER, WEB, Door, Script
from tests.fuzz.speaking import WrongError, speak
from tests.peers import PATIENCE

OPTIONS = (
    *("--max-message-bytes", "3MiB", "--handshake-timeout", "2", "--flush-timeout", "0.2", "--resume-grace", "1"),
    *("--max-keep", "1"),
    *("--hangup-grace", "0.1", "--end-grace", "0.1", "--max-grace", "0.5", "--max-sessions-per-connection", "8"),
    *("--requests-in-flight", "16", "--file-handles", "4", "--retained-sessions", "4", "--max-file-bytes", "64KiB"),
    *("--directory-entries", "50", "--queued-stdin-bytes", "64KiB", "--file-block-bytes", "64KiB", "--allow-debugging"),
    "--no-cgroup",
)
"""So small that scripts reach them, and so short that what is left behind is soon gone."""

COMMAND = (sys.executable, "-m", "execsrv")
SHORT_RUN_MEMORY = 64 * MIB
SCRIPT_SECONDS = 3 * PATIENCE
_MOST_FILE_BYTES = 64 * MIB
_MOST_PROCESSES = 500


def restrict() -> None:
    """Bound what this process, and all that it starts, can do to the machine."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_FILE_BYTES, _MOST_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid():
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        most = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, hard))


def furnish(folder: Path) -> None:
    """Make the files that paths of scripts lead to, and remove those of scripts before."""
    for path in folder.iterdir():
        if not path.is_symlink() and path.is_dir():
            for inner, names, _ in os.walk(path):
                for name in names:
                    with suppress(OSError):
                        os.chmod(Path(inner, name), 0o700)
            os.chmod(path, 0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    for name in ("d", "t"):
        (folder / name).mkdir()
    (folder / "f").write_bytes(b"content\n")
    (folder / "d" / "g").write_bytes(bytes(5000))
    (folder / "link").symlink_to("d")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nothing")
    os.mkfifo(folder / "fifo")


class Room:
    """One daemon, its door, and its neighbour."""

    def __init__(self, daemon: Daemon, neighbour: Neighbour) -> None:
        self.daemon = daemon
        self.neighbour = neighbour
        self.before = Sample.of(daemon.pid)
        self.memory: list[int] = []

    async def open_stream(self) -> trio.SocketStream:
        """Open a connection to its door, of bytes."""
        url = self.daemon.url
        if url.startswith("unix:"):
            return await trio.open_unix_socket(url.removeprefix("unix://"))
        host, _, port = url.removeprefix("ws://").rpartition(":")
        return await trio.open_tcp_stream(host, int(port))

    async def check(self) -> None:
        """See that all is well, and nobody left but the neighbour. Raises `AssertionError`."""
        self.daemon.check()
        await self.neighbour.answered()
        await until(lambda: not self._left(), lambda: f"left behind: {self._left()}")
        now = Sample.of(self.daemon.pid)
        assert now.threads <= self.before.threads + 64, f"threads: {now}, before {self.before}"
        self.memory.append(now.memory)
        if not self.can_be_judged:
            assert now.memory <= self.before.memory + SHORT_RUN_MEMORY, f"memory: {now}, before {self.before}"
        self.daemon.check()

    @property
    def can_be_judged(self) -> bool:
        """Return True after a run of minutes, with enough samples of memory to tell a slope."""
        return len(self.memory) >= 20

    def _left(self) -> str:
        now = Sample.of(self.daemon.pid)
        if now.descriptors > self.before.descriptors:
            return f"{now.descriptors - self.before.descriptors} descriptors: {_descriptors(self.daemon.pid)}"
        ours = set(guardians(self.daemon.pid))
        others = [
            f"{pid} {_command_line(pid)}"
            for pid in _descendants(self.daemon.pid)
            if pid not in ours and _command_line(pid) not in ("cat", "")
        ]
        return ", ".join(others)

    async def check_threads(self) -> None:
        """See that threads end when they are not used for some time. Raises `AssertionError`."""
        most = self.before.threads + ALLOWED.threads
        await until(lambda: Sample.of(self.daemon.pid).threads <= most, lambda: f"{Sample.of(self.daemon.pid)}")


def _descriptors(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return sorted(found)


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in _descendants(child))]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class House:
    """All doors, for a number of scripts."""

    def __init__(
        self,
        folder: Path,
        work: Path,
        rooms: dict[Door, Room],
        options: Sequence[str],
        command: Sequence[str],
        web: str,
    ) -> None:
        self.rooms = rooms
        self._folder = folder
        self._work = work
        self._options = options
        self._command = command
        self._names = {FOLDER: str(work), WEB: web}

    async def say(self, script: Script) -> None:
        """Say a script, at its door or at all of them. Raises `AssertionError`."""
        for door in (script.door,) if script.door else ("unix", "websocket"):
            with trio.move_on_after(SCRIPT_SECONDS) as waiting:
                try:
                    if door == "stdio":
                        await self._say_on_stdio(script)
                    else:
                        framed = door == "websocket"
                        await speak(script, self.rooms[door].open_stream, self._names, framed=framed)
                except BaseExceptionGroup as group:
                    if isinstance(error := first(group), AssertionError):
                        raise error from None
                    raise
            if waiting.cancelled_caught:
                raise WrongError(f"hangs: not done in {SCRIPT_SECONDS} s")

    async def _say_on_stdio(self, script: Script) -> None:
        argv = [*self._command, "serve", "--listen", "stdio://", *self._options]
        start = partial(
            trio.lowlevel.open_process,
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        process = await start()
        said = bytearray()

        async def read_errors() -> None:
            assert process.stderr is not None
            async for data in process.stderr:
                said.extend(data)

        async def open_stream() -> trio.abc.Stream:
            assert process.stdin is not None
            assert process.stdout is not None
            return trio.StapledStream(process.stdin, process.stdout)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_errors)
                await speak(script, open_stream, self._names, framed=False)
                with trio.move_on_after(PATIENCE):
                    await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
        text = said.decode(errors="replace")
        assert process.returncode == 0, f"the server ended with {process.returncode}: {text[-4000:]}"
        assert "Traceback" not in text, text[-8000:]
        assert "internal error" not in text.lower(), text[-8000:]

    async def check(self) -> None:
        """See that all is well in every room. Raises `AssertionError`."""
        for room in self.rooms.values():
            await room.check()

    def tidy(self) -> None:
        """Have the files of the beginning again."""
        furnish(self._work)


def first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group that is none."""
    inner = group.exceptions[0]
    return first(inner) if isinstance(inner, BaseExceptionGroup) else inner


@asynccontextmanager
async def open_house(
    folder: Path, web: str | None, doors: Sequence[Door] = DOORS, command: Sequence[str] = COMMAND
) -> AsyncIterator[House]:
    """Open the doors for the block, which ends with a last word of each neighbour. `web`: the only HTTP server."""
    work = folder / "w"
    work.mkdir(exist_ok=True)
    furnish(work)
    options = (*OPTIONS, "--file-roots", str(work), "--allow-http" if web else "--no-allow-http")
    rooms: dict[Door, Room] = {}
    house = House(folder, work, rooms, options, command, web or "http://127.0.0.1:1")
    async with _rooms(folder, [door for door in doors if door != "stdio"], options, command, rooms):
        yield house


@asynccontextmanager
async def _rooms(
    folder: Path, doors: Sequence[Door], options: Sequence[str], command: Sequence[str], rooms: dict[Door, Room]
) -> AsyncIterator[None]:
    if not doors:
        yield
        return
    env = {"HOME": str(folder / "w"), "FUZZED": "yes"}
    with running_daemon(folder, doors[0], *options, command=command, env=env) as daemon:
        try:
            async with open_neighbour(daemon.url) as neighbour:
                rooms[doors[0]] = Room(daemon, neighbour)
                async with _rooms(folder, doors[1:], options, command, rooms):
                    yield
        except BaseException:
            with suppress(subprocess.TimeoutExpired):
                daemon.process.wait(1)  # which says more than that the neighbour has lost it
            daemon.check()
            raise
