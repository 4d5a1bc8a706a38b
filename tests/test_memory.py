"""Memory: what a session keeps is bounded by what was configured, however its program prints."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

import execsrv
from execsrv import _memory
from execsrv._log.log import ENTRY_BYTES, OutputLog
from execsrv._server import outbox as outbox_module
from execsrv._server.feed import Feed
from execsrv._server.outbox import Outbox
from execsrv.limits import KIB, MIB
from execsrv.protocol import Notification, Request, Response, Stream
from execsrv.protocol.files import FileData
from tests.conftest import Daemon
from tests.faults.daemon import open_neighbour, running_daemon, until
from tests.peers import plain
from tests.processes import resident

RETAINED = 32 * KIB
WINDOW = 16 * KIB
ITSELF = 8 * KIB
"""What a log costs without any content."""

PIECE = 128
"""What an entry costs beside its content."""

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


@pytest.mark.few(4)
@pytest.mark.parametrize("size", [2, 300, 2000, 10_000])
@pytest.mark.parametrize("how", ["taken", "never taken, drops", "never acknowledged, drops", "detached"])
def test_a_log_holds_what_it_may_and_its_window(size: int, how: str) -> None:
    gc.collect()
    tracemalloc.start()
    try:
        log = OutputLog(
            RETAINED,
            WINDOW,
            streams=STREAMS,
            acknowledged="acknowledged" in how,
            drops="drops" in how,
        )
        if how == "detached":
            log.detach()
        piece = bytearray(size)
        for number in range(2 * (RETAINED + WINDOW) // (size + ENTRY_BYTES) + 20):
            if how == "detached" and not log.has_room:
                break
            assert log.has_room
            log.append(STREAMS[number % len(STREAMS)], bytes(piece))
            while log.has_news and not how.startswith("never taken"):
                log.take()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    content = RETAINED + RETAINED * 3 // 8 + WINDOW
    entries = min(number, RETAINED // 20) * PIECE
    assert held <= content + entries + 2 * size + ITSELF, f"{held / KIB:.0f} KiB"


PRINTS = """
import os, random
chance = random.Random(int(os.environ["SEED"]))
left = 600_000
while left > 0:
    size = min(left, chance.choice([1, 2, 30, 1000, 60_000]))
    os.write(1 + chance.randrange(2), os.urandom(size))
    left -= size
"""


@pytest.mark.slow
async def test_many_ended_sessions_cost_what_was_configured(tmp_path: Path) -> None:
    """Measured from the outside, on a server that has nothing else to do."""
    retained, sessions = 100 * KIB, 60
    path = f"{tmp_path}/s"
    argv = [sys.executable, "-m", "execsrv", "serve", "--listen", f"unix://{path}"]
    argv += ["--retained-output-bytes-per-session", str(retained)]
    async with trio.open_nursery() as nursery:
        server: trio.Process = await nursery.start(partial(trio.run_process, argv, stdout=subprocess.PIPE))
        assert server.stdout is not None
        assert await server.stdout.receive_some()
        async with execsrv.connect_unix(path) as client:

            async def prints(seed: int) -> None:
                env = {"SEED": str(seed)}
                command = [sys.executable, "-I", "-S", "-c", PRINTS]
                result = await client.run(command, env=env)
                assert len(result.stdout) + len(result.stderr) == 600_000

            for seed in range(5):
                await prints(seed)
            before = resident(server.pid)
            for seed in range(sessions):
                await prints(seed)
            assert len(await client.processes()) == sessions + 5
            # Beside its output, a session is some objects, and the allocator rounds up. Free memory goes later.

            def held() -> float:
                return (resident(server.pid) - before) / sessions

            await until(lambda: held() < retained + 64 * KIB, lambda: f"{held() / KIB:.0f} KiB per session")
        server.terminate()


@pytest.mark.few
@pytest.mark.parametrize("size", [60_000_000, pytest.param(300_000_000, marks=pytest.mark.slow)])
async def test_who_stops_reading_costs_little_and_misses_nothing(daemon: Daemon, size: int) -> None:
    """It stays with the program until it is wanted. A minute of it, with gigabytes, is a benchmark's."""
    other = await daemon.peer()
    await other.run("warm", ["head", "-c", "3000000", "/dev/zero"])
    async with daemon.open_channel() as channel:
        await channel.send(Request(1, "initialize", {"clientName": "x"}))
        await channel.send(Notification("initialized"))
        before = daemon.resident()
        start = other.start_params("a", ["head", "-c", str(size), "/dev/zero"])
        await channel.send(Request(2, "process/start", start))
        for number in range(10):
            assert await other.run(f"p{number}", ["echo", "hi"]) == (0, b"hi\n", b"")
        assert daemon.resident() - before < 16 * MIB
        got = 0
        while True:
            message = await channel.receive()
            if isinstance(message, Notification):
                params = plain(message.params)
                got += len(params.get("chunk", "")) * 3 // 4 - params.get("chunk", "")[-2:].count("=")
                if message.method == "process/closed":
                    break
        assert got == size
        assert daemon.resident() - before < 24 * MIB


async def test_a_stream_of_chunks_costs_no_page_faults(tmp_path: Path) -> None:
    """The memory of a chunk is that of an earlier one, and not the system's in between."""

    def page_faults(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])

    data = bytes(64 * MIB)
    with running_daemon(tmp_path, "unix") as daemon:
        async with execsrv.connect(daemon.url) as client:
            await client.run(["cat"], input=data[:MIB])
            before = page_faults(daemon.pid)
            assert (await client.run(["cat"], input=data)).stdout == data
            assert page_faults(daemon.pid) - before < 10_000  # of 16,384 pages each way
        daemon.check()


@pytest.mark.few
@pytest.mark.parametrize("retention", [3, 1000])
async def test_memory_that_is_free_is_given_back(tmp_path: Path, retention: int) -> None:
    """Each of these sessions keeps most of the MiB that it printed, until it is forgotten, or its connection ends."""

    def peak(pid: int) -> int:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert found is not None
        return int(found[1]) * KIB

    with running_daemon(tmp_path, "unix", "--exited-retention", str(retention)) as daemon:
        async with open_neighbour(daemon.url):
            before = resident(daemon.pid)

            def is_given_back() -> bool:
                return resident(daemon.pid) < before + 16 * MIB

            async with execsrv.connect(daemon.url) as client:
                async with trio.open_nursery() as nursery:
                    for _ in range(100):
                        nursery.start_soon(client.run, ["head", "-c", f"{MIB}", "/dev/zero"])
                assert peak(daemon.pid) > before + 40 * MIB
                if retention == 1000:
                    assert not is_given_back()
                else:
                    await until(is_given_back, lambda: f"{resident(daemon.pid)} of {before}, with its connection")
            await until(is_given_back, lambda: f"{resident(daemon.pid)} of {before}")
        daemon.check()


async def test_what_is_freed_while_memory_is_given_back_is_given_back_next(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    given = 0

    async def give(trim: Callable[[], object], limiter: trio.CapacityLimiter) -> None:
        nonlocal given
        given += 1
        if given == 1:
            _memory.freed()

    monkeypatch.setattr(_memory, "run_in_thread", give)
    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_memory.give_back)
            await trio.testing.wait_all_tasks_blocked()
            _memory.freed()
    assert given == 2


async def test_the_answer_that_was_being_sent_is_let_go_of_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What all peers of a turn leave behind must not be freed in that turn."""
    held: list[object] = []
    monkeypatch.setattr(outbox_module, "let_go", lambda things: held.extend(answer for answer, _ in things))
    outbox, answers = Outbox(), [Response(number, FileData(b"x" * MIB)) for number in range(3)]
    for answer in answers:
        outbox.put(answer)
    await outbox.take()
    await outbox.take()
    outbox.close()
    assert held == answers[1:]
    assert outbox.waiting_bytes == 0


async def test_a_log_that_is_read_late_is_told_when_its_memory_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session may have been forgotten long before: a peer reads as slowly as it likes."""
    taken, told = 0, []
    outbox, log = Outbox(), OutputLog(RETAINED, WINDOW, streams=STREAMS)
    feed = Feed("a", log, lambda id, entry: Notification("x", {}), outbox)
    monkeypatch.setattr(outbox_module, "freed", lambda: told.append(taken))
    log.append("stdout", b"x")
    log.append("stderr", b"y")
    log.append_exited(0, None, "exited")
    log.append_closed([])
    feed.announce()
    while taken < 4:
        taken += 1
        await outbox.take()
    assert told == [4]
