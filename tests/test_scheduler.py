"""Places on the servers of a pool: whatever happens, none is taken twice, and nobody waits where there is one."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field

import hypothesis
import pytest
import trio
import trio.testing
from hypothesis import strategies as st

from execsrv import NoServerError
from execsrv.pool.labels import Labels, labels_of
from execsrv.pool.scheduler import Scheduler
from tests.peers import PATIENCE

LABELS = [labels_of(None), labels_of({"gpu": "1"}), labels_of({"zone": "a"}), labels_of({"gpu": "1", "zone": "a"})]


@dataclass(eq=False)
class Host:
    """A server, as far as places are concerned."""

    labels: Labels
    slots: int
    running: int = 0
    is_there: bool = True
    is_resting: bool = False
    is_hopeless: bool = False
    why: str = ""

    @property
    def room(self) -> int:
        return self.slots - self.running if self.is_there and not self.is_resting else 0


@dataclass(eq=False)
class Asker:
    """Somebody who asks for a place, and keeps it until told otherwise."""

    labels: Labels
    share: str
    host: Host | None = None
    done: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def ask(self, scheduler: Scheduler) -> None:
        with self.scope:
            host = await scheduler.take(self.labels, self.share)
            assert isinstance(host, Host)
            self.host = host
            try:
                await self.done.wait()
            finally:
                self.host = None
                scheduler.give(host)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(LABELS), st.sampled_from("abc")),
        st.tuples(st.sampled_from(["end", "cancel", "turn", "rest", "remove"]), st.integers(0, 20), st.just("")),
        st.tuples(st.just("add"), st.sampled_from(LABELS), st.sampled_from("123")),
    ),
    min_size=5,
    max_size=40,
)


@hypothesis.settings(max_examples=60)
@hypothesis.given(steps=STEPS)
def test_nobody_waits_where_there_is_a_place(steps: list[tuple[str, Labels | int, str]]) -> None:
    async def main() -> None:
        scheduler, hosts, gone, askers = Scheduler(60), list[Host](), list[Host](), list[Asker]()
        async with trio.open_nursery() as nursery:
            for do, what, detail in [("add", LABELS[3], "2"), *steps]:
                match do, what:
                    case "ask", frozenset():
                        askers.append(Asker(what, detail))
                        nursery.start_soon(askers[-1].ask, scheduler)
                    case "add", frozenset():
                        hosts.append(Host(what, int(detail)))
                        scheduler.add(hosts[-1])
                    case "end" | "cancel", int() if askers:
                        asker = askers.pop(what % len(askers))
                        if do == "end":
                            asker.done.set()
                        asker.scope.cancel()
                    case "turn" | "rest" | "remove", int() if hosts:
                        host = hosts[what % len(hosts)]
                        if do == "remove":
                            hosts.remove(host)
                            gone.append(host)
                            scheduler.remove(host)
                            host.is_there = False
                        elif do == "turn":
                            host.is_there = not host.is_there
                        else:
                            host.is_resting = not host.is_resting
                        scheduler.fill(host)
                await trio.testing.wait_all_tasks_blocked()
                for host in (*hosts, *gone):
                    assert host.running == sum(asker.host is host for asker in askers)
                    assert host.running <= host.slots
                waiting = [asker for asker in askers if asker.host is None]
                assert scheduler.waiting == len(waiting)
                for asker in askers:
                    assert asker.host is None or asker.labels <= asker.host.labels
                assert not [each for each in waiting if any(h.room and each.labels <= h.labels for h in hosts)]
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_who_comes_first_is_first_within_a_share() -> None:
    order: list[int] = []

    async def main() -> None:
        scheduler, host = Scheduler(60), Host(LABELS[0], 1)
        scheduler.add(host)
        await scheduler.take(LABELS[0], "a")

        async def ask(number: int) -> None:
            await scheduler.take(LABELS[0], "a")
            order.append(number)
            scheduler.give(host)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, number)
                await trio.testing.wait_all_tasks_blocked()
            scheduler.give(host)

    trio.run(main)
    assert order == [0, 1, 2, 3, 4]


async def test_patience_counts_only_while_somebody_waits(autojump_clock: trio.testing.MockClock) -> None:
    """Nor does it while a server is there, be it full."""
    scheduler, host = Scheduler(10), Host(LABELS[0], 1)
    scheduler.add(host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.watch)
        await scheduler.take(LABELS[0], "a")
        with trio.move_on_after(100) as full:
            await scheduler.take(LABELS[0], "a")
        assert full.cancelled_caught
        host.is_there = False
        with trio.move_on_after(5):
            await scheduler.take(LABELS[0], "a")
        await trio.sleep(100)
        began = trio.current_time()
        with pytest.raises(NoServerError, match="no server was there for 10 s: 1 are known"):
            await scheduler.take(LABELS[0], "a")
        assert 10 <= trio.current_time() - began <= 12
        nursery.cancel_scope.cancel()


async def test_who_has_given_up_holds_up_nobody() -> None:
    scheduler, one, other = Scheduler(60), Host(LABELS[1], 1), Host(LABELS[2], 1)
    scheduler.add(one)
    scheduler.add(other)
    await scheduler.take(LABELS[1], "a")
    await scheduler.take(LABELS[2], "a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.take, LABELS[1], "a")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    scheduler.give(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.take, LABELS[2], "a")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            assert await scheduler.take(LABELS[1], "a") is one
        nursery.cancel_scope.cancel()


async def test_who_cannot_be_told_goes_on_waiting() -> None:
    scheduler = Scheduler(60)

    def wrong() -> Exception:
        raise RuntimeError("no error to be had")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.take, LABELS[0], "a")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="no error to be had"):
            scheduler.close(wrong)
        assert scheduler.waiting == 1
        nursery.cancel_scope.cancel()


async def test_nothing_is_kept_of_who_has_given_up() -> None:
    scheduler, gone = Scheduler(60), list[weakref.ref[object]]()

    async def ask(number: int) -> None:
        gone.append(weakref.ref(trio.lowlevel.current_task()))
        await scheduler.take(LABELS[number % 4], number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(ask, number)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 8
    assert scheduler.waiting == 0
