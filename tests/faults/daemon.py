"""A daemon in surroundings of the test's choice, a neighbour who must not notice anything, and a look from outside.

Commands carry a variable that says whose they are. The environment of a process is the kernel's, so what is left of a
peer is known without asking the server that is under test.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import trio

from execsrv._wire.lines import LineChannel
from execsrv._wire.websocket import open_websocket
from execsrv.limits import Limits
from tests.peers import ENV, PATIENCE, Peer, b64, open_peer

MARK = "EXECSRV_FAULT"
RUN = uuid.uuid4().hex[:12]
"""With what the marks of this run begin."""


def new_mark() -> str:
    """Return a value of `MARK` that no other process has."""
    return f"{RUN}-{uuid.uuid4().hex[:12]}"


def marked_env(mark: str) -> dict[str, str]:
    """Return the environment of a command that is to be found again."""
    return {**ENV, MARK: mark}


def alive_with(mark: str) -> dict[int, str]:
    """Return every living process whose mark begins so: its pid and its command line."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/environ", "rb") as environ, open(f"/proc/{name}/cmdline", "rb") as cmdline:
                    if f"\0{MARK}={mark}".encode() in b"\0" + environ.read():
                        found[int(name)] = cmdline.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
    return found


async def until(condition: Callable[[], object], complaint: Callable[[], object]) -> None:
    """Ask again and again until it holds. Raises `AssertionError` with the complaint after `PATIENCE`."""
    with trio.move_on_after(PATIENCE):
        while True:
            began = time.thread_time()
            if condition():
                return
            await trio.sleep(max(0.005, 3 * (time.thread_time() - began)))  # others need the processor more
    raise AssertionError(f"{complaint()}")


async def until_gone(mark: str) -> None:
    """Wait until nothing with this mark lives."""
    await until(lambda: not alive_with(mark), lambda: f"still alive: {alive_with(mark)}")


async def until_alive(mark: str, count: int = 1) -> None:
    """Wait until so many with this mark live."""
    await until(lambda: len(alive_with(mark)) >= count, lambda: f"{alive_with(mark)} came up, of {count}")


class Daemon:
    """A running `execsrv serve`. `url` is where it listens; `log` what it wrote to stderr, where that is a file."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self._log = log
        self._checked = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def check(self) -> None:
        """See that it lives, and that since the last time nothing happened in it that it did not foresee."""
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}: {self.log[-4000:]}"
        log, self._checked = self.log[self._checked :], len(self.log)
        assert "Traceback" not in log, log[-8000:]
        assert "internal error" not in log.lower(), log[-8000:]

    async def until_ended(self) -> int:
        """Wait for its end; its exit status."""
        with trio.fail_after(PATIENCE):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)


@contextmanager
def running_daemon(
    folder: Path,
    transport: str,
    *options: str,
    prefix: Sequence[str] = (),
    command: Sequence[str] = (sys.executable, "-m", "execsrv"),
    env: Mapping[str, str] | None = None,
    stderr: IO[bytes] | int | None = None,
) -> Iterator[Daemon]:
    """Run a daemon for the block, and kill it then. `prefix` is a command line that becomes the daemon's."""
    log = folder / f"log-{new_mark()}"
    listen = "ws://127.0.0.1:0" if transport == "websocket" else f"unix://{folder}/s-{new_mark()[-8:]}"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*prefix, *command, "serve", "--listen", listen, *options],
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file if stderr is None else stderr,
            start_new_session=True,
        )
    try:
        yield Daemon(process, _first_line(process, log), log)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _first_line(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the URL that a daemon says when it listens."""
    assert process.stdout is not None
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not said.endswith(b"\n"):
            assert selector.select(PATIENCE), f"not a word from the server: {log.read_text()}"
            data = os.read(process.stdout.fileno(), 4096)
            assert data, f"the server did not start: {log.read_text()}"
            said += data
    return said.decode().split("\n")[0]


@asynccontextmanager
async def connected(url: str, *, ready: bool = True) -> AsyncIterator[Peer]:
    """Connect a raw peer for the block, with the handshake done if `ready`."""
    if url.startswith("ws:"):
        async with open_websocket(url, Limits()) as websocket, open_peer(websocket) as peer:
            if ready:
                await peer.handshake()
            yield peer
    else:
        stream = await trio.open_unix_socket(url.removeprefix("unix://"))
        async with open_peer(LineChannel(stream, stream, Limits())) as peer:
            if ready:
                await peer.handshake()
            yield peer


class Neighbour:
    """Somebody else with a command on the same server: what it types comes back, whatever happens to others."""

    def __init__(self, peer: Peer, mark: str) -> None:
        self.mark = mark
        self._peer = peer
        self._rounds = 0
        self._news = trio.lowlevel.ParkingLot()

    async def go_on(self) -> None:
        """Type lines and see them come back, without an end."""
        await self._peer.start("echo", ["cat"], pipeStdin=True, env=marked_env(self.mark))
        while True:
            self._peer.heard.clear()  # what is said twice is then heard in the next round
            line = f"{self._rounds}\n".encode()
            params: dict[str, Any] = {"processId": "echo", "chunk": b64(line), "writeId": f"{self._rounds}"}
            assert await self._peer.call("process/write", params) == {"status": "accepted"}
            await self._peer.until(partial(self._has_heard, line))
            assert await self._peer.call("environment/status") == {"status": "ready"}
            self._rounds += 1
            self._news.unpark_all()
            await trio.sleep(0.02)

    def _has_heard(self, line: bytes) -> bool:
        return self._peer.output("echo") == line

    async def answered(self) -> None:
        """Wait for a whole round that began after this call."""
        before = self._rounds
        with trio.fail_after(2 * PATIENCE):
            while self._rounds < before + 2:
                await self._news.park()


@asynccontextmanager
async def open_neighbour(url: str) -> AsyncIterator[Neighbour]:
    """Open a neighbour for the block, who has been answered before it begins and is answered at its end."""
    mark = new_mark()
    async with connected(url) as peer, trio.open_nursery() as nursery:
        neighbour = Neighbour(peer, mark)
        nursery.start_soon(neighbour.go_on)
        await neighbour.answered()
        yield neighbour
        await neighbour.answered()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await peer.call("process/terminate", {"processId": "echo"})  # its server may wait for it to come back
    await until_gone(mark)


def guardians(pid: int) -> list[int]:
    """Return the guardians among the children of a server."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if b"guardian.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
        except OSError:
            continue  # it ended meanwhile
    return found


async def until_guarded(pid: int, but: int = 0) -> int:
    """Wait until a server has a guardian, and not that one; its pid."""
    found: list[int] = []

    def look() -> list[int]:
        found[:] = [guardian for guardian in guardians(pid) if guardian != but]
        return found

    await until(look, lambda: "no guardian came")
    return found[0]


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to somebody who may have ended."""
    assert pid > 1
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has ended
