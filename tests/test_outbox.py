"""Messages that are handed over at once where nothing waits: none is lost, and none overtakes another."""

from __future__ import annotations

import os
import socket

import msgspec
import pytest
import trio
import trio.testing

from execsrv._nursery import open_helpers
from execsrv._server.outbox import Outbox, send_all_of
from execsrv._wire.bounds import MessageBound
from execsrv._wire.channel import MessageChannel
from execsrv._wire.lines import LineChannel
from execsrv._wire.memory import MemoryChannel, open_memory_pair
from execsrv._wire.packed import PackedCodec
from execsrv._wire.websocket_frames import PING
from execsrv._wire.websocket_library import Wire
from execsrv.errors import InternalError
from execsrv.limits import DEFAULTS, MIB
from execsrv.protocol import ErrorObject, Failure, Message, Request, Response
from tests.peers import PATIENCE, Peer


async def write(outbox: Outbox, ours: MessageChannel) -> None:
    while True:
        message = await outbox.take()
        await (ours.send_rest() if message is None else ours.send(message))


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


async def test_a_client_has_room_only_where_messages_are_taken_whole_and_nothing_goes_along(peer: Peer) -> None:
    """It sends at once then, however large a message is, and leaves no rest of it to its writer (`Calls.post`)."""
    assert peer.channel.has_room == isinstance(peer.channel, MemoryChannel)
    if peer.channel.has_room:
        assert peer.channel.passing is None
        request = Request("large", "process/write", {"processId": "none", "chunk": bytes(4 * MIB), "writeId": "w"})
        assert peer.channel.send_now(request)
        assert await peer.answer("large") == Response("large", {"status": "unknownProcess"})


def as_sent(message: Message | None) -> Message:
    assert isinstance(message, Response)
    return Response(message.id, msgspec.json.decode(message.result))


def open_sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return trio.SocketStream(ours), trio.SocketStream(theirs)


async def test_what_a_socket_takes_is_sent_at_once_and_the_rest_before_all_else() -> None:
    stream, peer = open_sockets()
    async with stream, peer, trio.open_nursery() as nursery:
        ours = LineChannel(stream, stream, DEFAULTS, is_known=False)
        theirs = LineChannel(peer, peer, DEFAULTS)
        outbox = Outbox(channel=ours)
        nursery.start_soon(write, outbox, ours)
        await trio.testing.wait_all_tasks_blocked()
        outbox.put(Response(0, "at once"))
        assert b"at once" in os.read(peer.socket.fileno(), 100)
        answers: list[Message] = [Response(number, "x" * number * 1000) for number in range(1, 50)]
        for number, answer in enumerate(answers):
            outbox.put(answer)
            if number % 5 == 0:
                await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            for answer in answers:
                assert as_sent(await theirs.receive()) == answer
            await outbox.wait_empty()
        nursery.cancel_scope.cancel()


async def test_an_answer_has_left_when_the_rest_of_it_has() -> None:
    stream, peer = open_sockets()
    async with stream, peer, trio.open_nursery() as nursery:
        ours = LineChannel(stream, stream, DEFAULTS, is_known=False)
        outbox = Outbox(channel=ours)
        nursery.start_soon(write, outbox, ours)
        await trio.testing.wait_all_tasks_blocked()
        outbox.put(Response(1, "x" * 100_000))
        with trio.move_on_after(0.05) as waiting:
            await outbox.wait_answered()
        assert waiting.cancelled_caught
        nursery.start_soon(outbox.wait_answered)
        with trio.fail_after(PATIENCE):
            assert as_sent(await LineChannel(peer, peer, DEFAULTS).receive()) == Response(1, "x" * 100_000)
            await outbox.wait_answered()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_is_gone_is_met_by_the_writer() -> None:
    stream, peer = open_sockets()
    async with stream, peer:
        ours = LineChannel(stream, stream, DEFAULTS, is_known=False)
        outbox = Outbox(channel=ours)
        with pytest.raises(trio.BrokenResourceError):
            async with open_helpers() as nursery:
                nursery.start_soon(write, outbox, ours)
                await trio.testing.wait_all_tasks_blocked()
                await peer.aclose()
                outbox.put(Response(1, None))
                await trio.sleep_forever()


async def test_behind_a_frame_that_was_cut_nothing_is_taken_for_sent() -> None:
    stream, peer = open_sockets()
    async with stream, peer:
        wire = Wire(stream, MessageBound(1 << 20), head=b"GET")
        assert not wire.send_now(memoryview(bytes(200_000)))
        assert wire.is_sending  # the rest: so that nobody sends a ping behind it, gives up, and cuts it
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send_all, PING)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert wire.is_cut
        with pytest.raises(trio.BrokenResourceError):
            await wire.send_all(b"lost")


async def test_no_frame_comes_into_the_middle_of_another() -> None:
    stream, peer = open_sockets()
    async with stream, peer, trio.open_nursery() as nursery:
        wire = Wire(stream, MessageBound(1 << 20), head=b"GET")
        assert wire.has_room
        frame = bytes(200_000)
        assert not wire.send_now(memoryview(frame))
        assert not wire.has_room
        nursery.start_soon(wire.send_all, PING)
        received = b""
        with trio.fail_after(PATIENCE):
            while len(received) < len(frame) + len(PING):
                received += await peer.receive_some()
        assert received == frame + PING
        assert wire.has_room


LARGE = ["x" * 400_000, "\udcff"]


@pytest.mark.parametrize("encoding", [None, "msgpack"])
@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "behind another"])
async def test_an_answer_without_an_encoding_is_a_fault_of_ours_for_its_id_alone(
    encoding: str | None, is_slow: bool
) -> None:
    stream, peer = open_sockets()
    async with stream, peer, trio.open_nursery() as nursery:
        ours, theirs = LineChannel(stream, stream, DEFAULTS, is_known=False), LineChannel(peer, peer, DEFAULTS)
        if encoding is not None:
            ours._codec, theirs._codec = PackedCodec(), PackedCodec()
            ours._turn()
            theirs._turn()
        outbox = Outbox(channel=ours)
        nursery.start_soon(send_all_of, outbox, ours)
        await trio.testing.wait_all_tasks_blocked()
        if is_slow:
            outbox.put(Response(0, "x" * 100_000))
        for id, result in enumerate(("\udcff", 1j, LARGE), 1):
            outbox.put(Response(id, result))
        outbox.put(Failure("four", ErrorObject(1, "\udcff")))
        outbox.put(Response(5, None))
        with trio.fail_after(PATIENCE):
            answers = [await theirs.receive() for _ in range(6 if is_slow else 5)]
        *_, one, two, three, four, five = answers
        ids = []
        for answer in (one, two, three, four):
            assert isinstance(answer, Failure)
            assert answer.error.code == InternalError.code
            assert isinstance(answer.error.data, dict)
            assert "requestId" in answer.error.data
            ids.append(answer.id)
        assert ids == [1, 2, 3, "four"]
        assert isinstance(five, Response)
        nursery.cancel_scope.cancel()
