"""Viewers of one session share a pace: the owner comes first, and who has fallen back still hears the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from execsrv import ServerConfig, connect
from execsrv._budget.budget import Budget
from execsrv._budget.pace import Pace
from execsrv._log.entries import Gap
from execsrv._log.log import OutputLog
from execsrv._log.viewer import Viewer
from execsrv._server.feed import Feed
from execsrv._server.methods.process_dialect import process_dialect
from execsrv._server.outbox import Outbox
from execsrv._server.view import View
from execsrv.limits import KIB, MIB
from execsrv.protocol import Chunk, Notification
from tests.conftest import OpenServer
from tests.peers import PATIENCE
from tests.relay import open_line

FLOOD = ["sh", "-c", f"read line; head -c {20 * MIB} /dev/zero; echo end; read line"]


def test_what_is_not_used_is_saved_for_a_second() -> None:
    pace = Pace(64, 0.0)
    assert not pace.is_used_up(0.0)
    pace.take(96)
    assert pace.is_used_up(0.0)
    assert pace.is_used_up(0.5)
    assert not pace.is_used_up(0.75)
    pace.take(16)
    assert pace.is_used_up(0.75)
    assert not pace.is_used_up(100.0)
    pace.take(63)
    assert not pace.is_used_up(100.0)
    pace.take(1)
    assert pace.is_used_up(100.0)


async def test_a_viewer_who_has_fallen_back_goes_on_beside_his_own_flood(mock_clock: trio.testing.MockClock) -> None:
    outbox = Outbox()
    own, log = (OutputLog(MIB, MIB, streams=("stdout",)) for _ in range(2))
    flood, feed = Feed("own", own, process_dialect, outbox), Feed("p", log, process_dialect, None)
    pace = Pace(64, trio.current_time())
    view = View("theirs", log, feed, process_dialect, Viewer(log, 0, None), outbox, Budget(), pace)
    for _ in range(100):
        own.append("stdout", b"x")
        log.append("stdout", b"x")
    flood.announce()
    view.begin()

    async def heard() -> list[str]:
        told = [await outbox.take() for _ in range(6)]
        return [message.params.process_id for message in told if isinstance(message, Notification)]

    assert await heard() == ["own", "theirs", "own", "own", "own", "own"]
    mock_clock.jump(1000)
    assert await heard() == ["own", "theirs", "own", "own", "own", "own"]
    view.close()


@pytest.mark.parametrize("lost", [False, True])
async def test_viewers_fall_back_and_the_owner_does_not(open_server: OpenServer, tmp_path: Path, lost: bool) -> None:
    config = ServerConfig(viewed_bytes_per_second=256 * KIB, resume_grace=300)
    url = await open_server("unix", config).url()
    heard: list[tuple[int, int]] = []

    async with (
        open_line(url, f"{tmp_path}/line") as line,
        connect(url, name="flood") as owner,
        owner.start(FLOOD, stdin=True, id="flood") as process,
    ):

        async def view(*, task_status: trio.TaskStatus[None]) -> None:
            got = missed = 0
            async with (
                connect(line.url, reconnect=60) as client,
                client.join("flood") as joined,
                joined.attach("flood") as seen,
            ):
                task_status.started()
                tail = b""
                async for event in seen.events():
                    if isinstance(event, Chunk):
                        got += len(event.chunk)
                        tail = (tail + event.chunk)[-4:]
                    elif isinstance(event, Gap):
                        missed += sum(event.omitted.values())
                    if tail == b"end\n":
                        break
            heard.append((got, missed))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    await nursery.start(view)
                await process.write(b"\n")
                total = 0
                async for chunk in process.output:
                    total += len(chunk)
                    if lost and total - len(chunk) < 10 * MIB <= total:
                        line.cut()
                    if total == 20 * MIB + 4:
                        break
        await process.write(b"\n")
    assert [got + missed for got, missed in heard] == [20 * MIB + 4] * 3
    assert all(missed > 10 * MIB for _, missed in heard)
