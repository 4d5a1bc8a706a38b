"""Messages that are handed over at once where nothing waits: none is lost, and none overtakes another."""

from __future__ import annotations

import trio
import trio.testing

from execsrv._server.outbox import Outbox
from execsrv._wire.memory import MemoryChannel, open_memory_pair
from execsrv.protocol import Message, Response


async def write(outbox: Outbox, ours: MemoryChannel) -> None:
    while True:
        await ours.send(await outbox.take())


async def received(theirs: MemoryChannel, count: int) -> list[Message | None]:
    return [await theirs.receive() for _ in range(count)]


async def test_answers_keep_their_order_with_a_slow_reader() -> None:
    ours, theirs = open_memory_pair(2)
    outbox = Outbox(channel=ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, outbox, ours)
        await trio.testing.wait_all_tasks_blocked()
        answers = [Response(number, None) for number in range(100)]
        for answer in answers[:50]:
            outbox.put(answer)
        assert await received(theirs, 10) == answers[:10]
        for answer in answers[50:]:
            outbox.put(answer)
        with trio.fail_after(30):
            assert await received(theirs, 90) == answers[10:]
            await outbox.wait_answered()
        nursery.cancel_scope.cancel()


async def test_an_answer_needs_no_turn_of_the_loop_where_nothing_waits() -> None:
    ours, theirs = open_memory_pair(2)
    outbox = Outbox(channel=ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, outbox, ours)
        await trio.testing.wait_all_tasks_blocked()
        outbox.put(Response(1, None))
        assert len(theirs._in.messages) == 1
        await outbox.wait_answered()
        nursery.cancel_scope.cancel()


async def test_a_channel_that_is_closed_meanwhile_has_no_room() -> None:
    ours, theirs = open_memory_pair(2)
    outbox = Outbox(channel=ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.take)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.aclose()
        outbox.put(Response(1, None))  # for the writer, which hears of the end when it sends it
        assert not ours.has_room
        nursery.cancel_scope.cancel()
