"""Memory: what a session keeps is bounded by what was configured, however its program prints."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from execsrv._output import OutputLog
from execsrv.limits import KIB
from execsrv.protocol import Stream

RETAINED = 32 * KIB
WINDOW = 16 * KIB
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


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
        for number in range(2 * (RETAINED + WINDOW) // size + 20):
            assert log.has_room
            log.append(STREAMS[number % len(STREAMS)], bytes(piece))
            while log.has_news and not how.startswith("never taken"):
                log.take()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held <= RETAINED + WINDOW + 2 * size, f"{held / KIB:.0f} KiB"
