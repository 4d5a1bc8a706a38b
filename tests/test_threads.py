"""Work in threads that the loop waits for itself, but not for long."""

from __future__ import annotations

import threading
import time

import pytest
import trio
import trio.testing

from execsrv import _threads
from execsrv._threads import SharedThreads, ThreadSlots, run_briefly, run_with_tls
from tests.peers import PATIENCE


def fail() -> None:
    raise ValueError("it failed")


@pytest.mark.parametrize("patience", [0, PATIENCE])
async def test_its_outcome_is_that_of_the_work(patience: float) -> None:
    threads = trio.CapacityLimiter(1)
    with trio.fail_after(PATIENCE):
        assert await run_briefly(threading.get_ident, threads, patience) != threading.get_ident()
        with pytest.raises(ValueError, match="it failed"):
            await run_briefly(fail, threads, patience)
        assert threads.borrowed_tokens == 0


async def test_the_loop_waits_for_what_is_brief() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        await run_briefly(lambda: time.sleep(0.01), SharedThreads(ThreadSlots(1)), PATIENCE)
        assert turns == before
        nursery.cancel_scope.cancel()


async def test_what_hangs_holds_up_nobody_and_counts_until_its_end() -> None:
    threads, go_on = trio.CapacityLimiter(1), threading.Event()
    with trio.fail_after(PATIENCE):
        with trio.move_on_after(0.05) as waiting:
            await run_briefly(go_on.wait, threads, 0.001)
        assert waiting.cancelled_caught
        assert threads.borrowed_tokens == 1
        go_on.set()
        await threads.acquire()


async def test_a_cancelled_task_starts_nothing() -> None:
    ran = threading.Event()
    with trio.CancelScope() as scope:
        scope.cancel()
        await run_briefly(ran.set, trio.CapacityLimiter(1), PATIENCE)
    assert scope.cancelled_caught
    assert not ran.is_set()


@pytest.mark.parametrize("is_slow", [False, True])
async def test_a_cancel_waits_for_a_thread_with_tls(is_slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    started, go_on, ended = trio.Event(), threading.Event(), threading.Event()
    if is_slow:
        monkeypatch.setattr(_threads, "_TLS_SECONDS", 0.01)

    def work() -> None:
        trio.from_thread.run_sync(started.set)
        go_on.wait()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_with_tls, work)
        with trio.fail_after(PATIENCE):
            await started.wait()
        nursery.cancel_scope.cancel()
        if not is_slow:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            go_on.set()
    assert ended.is_set() != is_slow
    go_on.set()


async def test_places_are_had_in_order_and_a_cancel_gives_its_own_up() -> None:
    slots, had = ThreadSlots(1), list[str]()

    async def wait(name: str) -> None:
        await slots.wait()
        had.append(name)

    await wait("first")
    async with trio.open_nursery() as nursery:
        for name in ("second", "third"):
            nursery.start_soon(wait, name)
            await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as given_up:
            given_up.cancel()
            await wait("never")
        assert not slots.take()
        slots.give()
        await trio.testing.wait_all_tasks_blocked()  # those that are woken in one turn run in any order
        slots.give()
    assert (had, slots.taken) == (["first", "second", "third"], 1)
    slots.give()
    assert (slots.take(), slots.taken) == (True, 1)
