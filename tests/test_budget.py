"""What all peers hold together is bounded, in bytes and in number: over it the newest is refused, and nothing else."""

from __future__ import annotations

import base64
import errno
import random
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from execsrv._budget.allowance import Allowance, Allowances
from execsrv._budget.budget import STEP_BYTES, Budget, Share
from execsrv._budget.pace import Pace
from execsrv._budget.rate import Rate
from execsrv._budget.weight import weight_of
from execsrv._log.log import ENTRY_BYTES, Gap, OutputLog
from execsrv._log.retained import first_bytes
from execsrv._log.viewer import Viewer
from execsrv._processes import watch
from execsrv._server.feed import Feed
from execsrv._server.methods.process_dialect import process_dialect
from execsrv._server.view import VIEW_BYTES, View
from execsrv._wire import room
from execsrv.errors import LimitExceededError
from execsrv.limits import KIB, MIB, ServerConfig
from execsrv.protocol import (
    Block,
    Chunk,
    DirectoryEntry,
    DirectoryListing,
    ErrorObject,
    Failure,
    Nothing,
    Notification,
    ProcessWritten,
    ReadGap,
    Request,
    Response,
)
from tests.conftest import BYTE_TRANSPORTS, TRANSPORTS, OpenServer, Server
from tests.peers import ENV, Peer, b64, open_peer, plain

PIECE = 64 * KIB
LITTLE = ServerConfig(held_bytes=8 * MIB, principal_percent=100)


def test_what_does_not_fit_is_refused_with_the_name_and_the_value() -> None:
    server = Budget("held_bytes", 100)
    mine, theirs = (Budget("held_bytes", 60, server, " for one principal") for _ in range(2))
    mine.take(60)
    with pytest.raises(LimitExceededError, match=r"^held_bytes \(60 for one principal\) would be exceeded$"):
        mine.take(1)
    theirs.take(40)
    with pytest.raises(LimitExceededError, match=r"^held_bytes \(100\) would be exceeded$") as refused:
        theirs.take(1)
    assert refused.value.facts == {"limit": "held_bytes", "value": 100}
    assert (server.taken, mine.taken, theirs.taken, server.refused, mine.refused) == (100, 60, 40, 1, 1)
    mine.give(60)
    theirs.give(40)
    assert (server.taken, mine.taken, theirs.taken) == (0, 0, 0)


def test_a_share_grows_and_shrinks_in_steps_and_gives_everything_back() -> None:
    budget = Budget("x", 3 * STEP_BYTES)
    share = Share(budget, room=1000)
    assert share.grow(1000)
    assert budget.taken == 0
    assert share.grow(1001)
    assert budget.taken == STEP_BYTES
    assert share.grow(3 * STEP_BYTES)
    assert not share.grow(4 * STEP_BYTES)
    assert share.shrink(STEP_BYTES) == 2 * STEP_BYTES
    assert budget.taken == STEP_BYTES
    share.close()
    assert (budget.taken, share.room) == (0, 1000)


def test_a_rate_saves_up_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    server = Rate("starts_per_second", 4, seconds=10)
    mine = Rate("starts_per_second", 2, server, " for one principal", seconds=10)
    for _ in range(20):
        mine.take()
    with pytest.raises(LimitExceededError, match=r"starts_per_second \(2 for one principal\)"):
        mine.take()
    now += 1
    mine.take(2)
    now += 100
    for _ in range(20):
        mine.take()
    with pytest.raises(LimitExceededError):
        mine.take()


def test_a_message_weighs_what_is_in_it() -> None:
    assert weight_of(Block(bytes(100_000), eof=False)) == pytest.approx(100_000, rel=0.01)
    assert weight_of({"a": ["x" * 1000] * 10}) == pytest.approx(10_000, rel=0.1)
    assert weight_of(Nothing()) == weight_of(ProcessWritten("accepted"))
    names = DirectoryListing([DirectoryEntry("x" * 200, False, True, False) for _ in range(50_000)])
    assert weight_of(names) > 50_000 * 200


# -- logs --


def new_log(budget: Budget, **options: Any) -> OutputLog:
    return OutputLog(1 * MIB, 256 * KIB, streams=("stdout",), budget=budget, largest_piece=PIECE, **options)


def told(log: OutputLog) -> bytes:
    """Everything that its reader is told now."""
    data = b""
    while log.has_news:
        entry = log.take()
        assert isinstance(entry, Chunk)
        data += entry.chunk
    return data


def test_under_pressure_the_log_that_was_silent_for_longest_forgets_first_and_the_gap_is_told() -> None:
    budget = Budget("x", 2 * MIB)
    logs = [new_log(budget) for _ in range(3)]
    for log in (logs[1], logs[0], logs[2]):
        for _ in range(10):
            log.append("stdout", bytes(PIECE))
            told(log)
    assert budget.taken <= 2 * MIB
    gaps = [log.read(0, None)[0] for log in logs]
    assert gaps[1] is not None
    assert gaps[1].printed_before == {"stdout": (gaps[1].seq) * PIECE}
    assert gaps[0] is None
    assert gaps[2] is None
    for log in logs:
        log.let_go()
    assert budget.taken == 0
    assert not budget.keepers


def test_who_could_forget_nothing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    budget = Budget("x", 1 * MIB)
    log = new_log(budget)
    while log.has_room:
        log.append("stdout", bytes(PIECE))
    budget.take(1 * MIB - budget.taken)
    assert budget.try_take(PIECE) is budget
    told(log)
    now += 1
    assert budget.try_take(PIECE) is None
    log.let_go()


def test_output_that_its_reader_has_not_had_is_never_forgotten() -> None:
    budget = Budget("x", 1 * MIB)
    unread, other = new_log(budget), new_log(budget)
    printed = 0
    while unread.has_room:
        unread.append("stdout", bytes(PIECE))
        printed += PIECE
    for _ in range(100):
        other.append("stdout", bytes(PIECE))
        told(other)
    assert budget.taken <= 1 * MIB
    assert len(told(unread)) == printed


@pytest.mark.parametrize("acknowledged", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_everything_arrives_however_little_there_is(seed: int, *, acknowledged: bool) -> None:
    """Of a budget that has nothing, beside what every log has from its start."""
    chance = random.Random(seed)
    budget = Budget("x", 0)
    log = new_log(budget, acknowledged=acknowledged)
    printed = got = b""
    for _ in range(300):
        if log.has_room and chance.random() < 0.7:
            piece = chance.randbytes(chance.choice([1, 100, 5000, PIECE]))
            printed += piece
            log.append("stdout", piece)
        elif log.has_news:
            entry = log.take()
            assert isinstance(entry, Chunk)
            got += entry.chunk
        elif acknowledged and chance.random() < 0.3:
            log.acknowledge(log.last_taken)
        assert log._held_bytes <= first_bytes(PIECE)
    log.acknowledge(log.next_seq)
    assert got + told(log) == printed
    assert budget.taken == 0


def test_who_drops_is_passed_over_sooner_and_told() -> None:
    budget = Budget("x", 0)
    log = new_log(budget, drops=True)
    for number in range(20):
        assert log.has_room
        log.append("stdout", bytes([number]) * PIECE)
    assert budget.taken == 0
    gap, last = log.take(), log.take()
    assert gap == Gap(1, 19, {"stdout": 19 * PIECE})
    assert isinstance(last, Chunk)
    assert last.chunk == bytes([19]) * PIECE


def test_a_log_keeps_more_again_when_others_have_given_back() -> None:
    budget = Budget("x", 1 * MIB)
    log = new_log(budget)
    budget.take(1 * MIB)
    log.append("stdout", bytes(PIECE))
    log.append("stdout", bytes(PIECE))
    assert not log.has_room
    told(log)
    budget.give(1 * MIB)
    while log.has_room and log.next_seq < 10:
        log.append("stdout", bytes(PIECE))
    assert log.reader.lag_bytes >= 256 * KIB


# -- a server --


@pytest.fixture(params=TRANSPORTS)
def little(request: pytest.FixtureRequest, open_server: OpenServer) -> Server:
    """A server on every transport in turn that may hold 8 MiB."""
    return open_server(str(request.param), LITTLE)


@pytest.mark.few
async def test_retained_output_makes_room_for_what_is_new(little: Server, allowances: list[Allowance]) -> None:
    peer = await little.peer()
    for number in range(20):
        code, out, _ = await peer.run(f"p{number}", ["head", "-c", f"{MIB}", "/dev/zero"])
        assert (code, len(out)) == (0, MIB)
        assert all(allowance.held.taken <= 8 * MIB for allowance in allowances)
    first = await peer.call("process/read", {"processId": "p0"})
    assert first["chunks"] == []
    assert first["gap"]["printedBefore"]["stdout"] == MIB
    assert first["closed"]
    last = await peer.call("process/read", {"processId": "p19"})
    assert sum(len(base64.b64decode(chunk["chunk"])) for chunk in last["chunks"]) > MIB // 2


async def test_one_start_too_many_is_refused_and_those_that_run_go_on(little: Server) -> None:
    peer = await little.peer()
    await peer.start("cat", ["cat"], pipeStdin=True)
    number, error = await until_refused(peer, "process/start", tty=True)
    assert 10 < number < 100
    assert error.message == f"held_bytes ({8 * MIB} for one principal) would be exceeded"
    assert error.data == {"kind": "limit-exceeded", "limit": "held_bytes", "value": 8 * MIB}
    for turn in range(3):
        await peer.call("process/write", {"processId": "cat", "chunk": b64(b"x" * 1000), "writeId": f"w{turn}"})
    await peer.until_output("cat", b"x" * 3000)


async def until_refused(peer: Peer, method: str, **params: Any) -> tuple[int, ErrorObject]:
    """Ask until it is refused; how often that went well, and the error."""
    for number in count():
        wanted = peer.start_params(f"p{number}", ["sleep", "1000"], **params) if method == "process/start" else None
        answer = await peer.answer(await peer.post(method, wanted))
        if isinstance(answer, Failure):
            return number, answer.error
    raise AssertionError


async def test_a_start_without_a_descriptor_to_wait_with_keeps_nothing(
    open_server: OpenServer, allowances: list[Allowance], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command runs already when others have taken the last one: a real start alone has some to spare by then."""

    def none_left() -> None:
        raise OSError(errno.EMFILE, "none left")

    peer = await open_server("memory", ServerConfig()).peer()
    with monkeypatch.context() as patch:
        patch.setattr(watch, "select", SimpleNamespace(epoll=none_left))
        for _ in range(50):
            _, _, data = await peer.refused("process/start", peer.start_params("p", ["sleep", "1000"]))
            assert (data["kind"], data["errno"]) == ("spawnFailed", errno.EMFILE)
    assert all(not budget.keepers for allowance in allowances for budget in allowance.budgets)
    assert await peer.run("p", ["echo", "again"]) == (0, b"again\n", b"")


@pytest.mark.parametrize("setting", ["max_sessions", "starts_per_second", "requests_per_second"])
async def test_every_limit_is_told_by_name(open_server: OpenServer, setting: str) -> None:
    """A rate lets ten seconds of it pass at once, and more in the course of a slow test."""
    bounds: Any = {setting: 2}
    config = replace(ServerConfig(), **bounds)
    peer = await open_server("memory", config).peer()
    number, error = await until_refused(
        peer, "environment/status" if setting == "requests_per_second" else "process/start"
    )
    assert number >= (2 if setting == "max_sessions" else 19)
    assert error.data == {"kind": "limit-exceeded", "limit": setting, "value": 2}


@pytest.mark.parametrize("transport", BYTE_TRANSPORTS)
async def test_half_messages_cost_their_sender_the_channel_and_nobody_else(
    open_server: OpenServer, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PATIENCE", 0.1)
    server = open_server(transport, LITTLE)
    async with server.open_channel() as channel, open_peer(channel) as greedy:
        await greedy.handshake()
        with suppress(trio.BrokenResourceError):
            await channel.send(Request(1, "process/wait", {"processId": "x" * 5 * MIB}))
        await greedy.until_ended()
        if transport != "websocket":  # where it is the reason of the close
            assert "no room for a message: held_bytes" in str(greedy.heard[-1])
    peer = await server.peer()
    assert await peer.run("p", ["echo", "hi"]) == (0, b"hi\n", b"")


@pytest.mark.few
@pytest.mark.parametrize("transport", BYTE_TRANSPORTS)
async def test_unread_answers_are_bounded_in_bytes(
    open_server: OpenServer, transport: str, allowances: list[Allowance]
) -> None:
    """Without the bound, the answers to all of the 50 questions would be waiting: 120 MiB with their text.

    With it, those of the requests that were read before the first of them was answered, too.
    """
    server = open_server(transport, ServerConfig(unread_answer_bytes=MIB))
    async with server.open_channel() as channel:
        await channel.send(Request(0, "initialize", {"clientName": "x"}))
        await channel.send(Notification("initialized", {}))
        params = {"processId": "p", "argv": ["head", "-c", f"{MIB}", "/dev/zero"], "cwd": "/", "env": ENV, "tty": False}
        await channel.send(Request(1, "process/start", params))
        while not isinstance(message := await channel.receive(), Notification) or message.method != "process/closed":
            pass
        for number in range(2, 52):
            await channel.send(Request(number, "process/read", {"processId": "p"}))
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert 2 * MIB < allowances[0].held.taken < 40 * MIB
        answers = [await channel.receive() for _ in range(50)]
    assert sorted(answer.id for answer in answers if isinstance(answer, Response)) == list(range(2, 52))


async def test_a_server_that_is_cancelled_in_the_middle_of_everything_gives_all_of_it_back(
    open_server: OpenServer, transport: str, allowances: list[Allowance]
) -> None:
    """That it does is looked at behind every test."""
    peer = await open_server(transport, ServerConfig()).peer()
    await peer.start("deaf", ["sleep", "1000"], pipeStdin=True)
    await peer.start("loud", ["sh", "-c", "yes"], windowBytes=2 * MIB)
    for number in range(3):
        params = {"processId": "deaf", "chunk": b64(bytes(MIB)), "writeId": f"w{number}"}
        await peer.post("process/write", params)
        await peer.post("process/wait", {"processId": "deaf"})
    await peer.post("process/start", peer.start_params("more", ["sleep", "1000"]))
    await peer.until(lambda: len(peer.output("loud")) > MIB)
    server = allowances[0]
    assert server.held.taken > 3 * MIB
    assert server.sessions.taken >= 2


async def test_files_and_relays_are_bounded_for_all_peers_together(open_server: OpenServer, tmp_path: Path) -> None:
    config = replace(
        LITTLE, max_file_handles=1, max_watches=1, max_http_exchanges=0, written_file_bytes_per_hour=10 * MIB
    )
    peer = await open_server("memory", config).peer()
    large = tmp_path / "large"
    large.write_bytes(bytes(6 * MIB))
    uri = large.as_uri()
    await peer.call("fs/open", {"handleId": "a", "path": uri})
    await peer.call("fs/watch", {"watchId": "a", "path": tmp_path.as_uri()})
    request = {"method": "GET", "url": "http://127.0.0.1:1/", "requestId": "r"}
    copy = {"sourcePath": uri, "destinationPath": f"{uri}2", "recursive": False}
    await peer.call("fs/copy", copy)
    for method, params, limit in (
        ("fs/open", {"handleId": "b", "path": uri}, "max_file_handles"),
        ("fs/watch", {"watchId": "b", "path": tmp_path.as_uri()}, "max_watches"),
        ("fs/watchMissing", {"watchId": 1, "missing": [f"{uri}9"]}, "max_watches"),
        ("http/request", request, "max_http_exchanges"),
        ("fs/copy", copy, "written_file_bytes_per_hour"),
        ("fs/writeFile", {"path": uri, "dataBase64": b64(bytes(5 * MIB))}, "written_file_bytes_per_hour"),
        ("fs/readFile", {"path": uri}, "held_bytes"),
    ):
        _, _, data = await peer.refused(method, params)
        assert data == {"kind": "limit-exceeded", "limit": limit, "value": getattr(config, limit)}
    await peer.call("fs/close", {"handleId": "a"})
    await peer.call("fs/unwatch", {"watchId": "a"})
    await peer.call("fs/open", {"handleId": "b", "path": uri})
    await peer.call("fs/watch", {"watchId": "b", "path": tmp_path.as_uri()})


async def test_ceilings_change_for_everybody_at_once() -> None:
    allowances = Allowances(ServerConfig(max_sessions=10))
    allowance = allowances.of("somebody")
    allowance.sessions.take(5)
    with pytest.raises(LimitExceededError):
        allowance.sessions.take()
    allowances.configure(ServerConfig(max_sessions=4, starts_per_second=2, principal_percent=100))
    assert allowances.of("somebody") is allowance
    with pytest.raises(LimitExceededError, match=r"^max_sessions \(4 for one principal\)"):
        allowance.sessions.take()
    allowance.sessions.give(5)
    allowance.sessions.take(4)
    allowance.sessions.give(4)
    assert "of 20" in repr(allowance.starts)


async def test_what_a_killed_command_leaves_without_room_is_left_out_and_told(open_server: OpenServer) -> None:
    """Of what it has printed, every byte is heard or counted as missing."""
    server = open_server("unix", LITTLE)
    fill = await server.peer()
    async with server.open_channel() as channel:
        await channel.send(Request(0, "initialize", {"clientName": "x"}))
        await channel.send(Notification("initialized", {}))
        params = fill.start_params("p", ["sh", "-c", "head -c 400000 /dev/zero; exec sleep 1000"], windowBytes=300_000)
        await channel.send(Request(1, "process/start", params))
        got = missing = 0
        message: Any = None
        while got < 300_000:
            message = await channel.receive()
            if isinstance(message, Notification) and message.method == "process/output":
                got += len(base64.b64decode(plain(message.params)["chunk"]))
        await until_refused(fill, "process/start")
        await channel.send(Request(2, "process/terminate", {"processId": "p"}))
        while not isinstance(message, Notification) or message.method != "process/closed":
            message = await channel.receive()
            params = plain(message.params) if isinstance(message, Notification) else {}
            got += len(base64.b64decode(params.get("chunk", "")))
            missing += sum(params.get("omitted", {}).values())
    assert got + missing == params["totals"]["stdout"] == 400_000


def test_output_that_is_left_out_is_a_gap_for_everybody() -> None:
    log = new_log(Budget())
    log.append("stdout", b"abc")
    log.leave_out("stdout", 1000)
    log.append("stdout", b"xyz")
    assert [log.take() for _ in range(3)] == [
        Chunk(1, "stdout", b"abc"),
        Gap(2, 2, {"stdout": 1000}),
        Chunk(3, "stdout", b"xyz"),
    ]
    ends = log.streams["stdout"]
    assert (ends.head, ends.tail, ends.omitted_bytes, ends.total_bytes) == (b"abc", b"xyz", 1000, 1006)
    # Whoever reads page after page hears of it in its place.
    assert log.read(0, None) == (None, [Chunk(1, "stdout", b"abc")], 2)
    assert log.read(1, None) == (ReadGap(2, 2, {"stdout": 1003}), [Chunk(3, "stdout", b"xyz")], 4)
    assert log.read(2, None) == (None, [Chunk(3, "stdout", b"xyz")], 4)
    assert log.forget(MIB) == 0
    gap, chunks, _ = log.read(0, None)
    assert chunks == []
    assert gap is not None
    assert gap.printed_before["stdout"] == 1006


def test_output_that_is_left_out_behind_what_was_forgotten_is_one_gap() -> None:
    log = new_log(Budget())
    log.append("stdout", b"abc")
    log.leave_out("stdout", 1000)
    log.append("stdout", b"xyz")
    log.take()
    log.forget(1)
    assert log.oldest == 2
    assert log.read(0, None) == (ReadGap(1, 2, {"stdout": 1003}), [Chunk(3, "stdout", b"xyz")], 4)


async def test_one_who_visits_pays_for_all_that_a_log_holds_once_its_connection_lets_go_of_it() -> None:
    theirs, ours, count = Budget(), [Budget(), Budget()], 20_000
    log = new_log(theirs)
    feed = Feed("p", log, process_dialect, None)
    views = [
        View("v", log, feed, process_dialect, Viewer(log, 0, None), None, each, Pace(100 * MIB, 0)) for each in ours
    ]
    for _ in range(count):
        log.append("stdout", b"x")
    log.append_exited(0, None, "exited")
    log.append_closed([])
    while not views[0].is_at_its_end:
        views[0].take()
    feed.forget()
    assert theirs.taken == 0
    assert ours[0].taken >= VIEW_BYTES + log.held_bytes >= VIEW_BYTES + count * ENTRY_BYTES
    assert ours[1].taken == VIEW_BYTES
    views[0].close()
    assert ours[0].taken == 0
    assert ours[1].taken >= VIEW_BYTES + log.held_bytes
    assert ours[1].forget(1 << 30)  # as any output that is retained
    assert ours[1].taken == VIEW_BYTES
    told = [views[1].take() for _ in range(3)]
    assert views[1].is_at_its_end
    assert [notification and notification.method for notification in told] == [
        "process/gap",
        "process/exited",
        "process/closed",
    ]
    views[1].close()
    assert ours[1].taken == 0


async def test_what_ended_connections_leave_with_a_visitor_is_within_the_bound(open_server: OpenServer) -> None:
    """It has heard all of it, and may read what is retained: 20 MiB, of which 8 may be held."""
    server = open_server("unix", LITTLE)
    guest, ids = await server.peer(), []

    def is_told_of(ended: int) -> bool:
        told = [message.params for message in guest.heard if isinstance(message, Notification)]
        return [params.get("happened") for params in told].count("ended") == ended

    for connection in range(4):
        async with server.open_channel() as channel, open_peer(channel) as owner:
            await owner.call("initialize", {"clientName": "x", "name": f"c{connection}"})
            await channel.send(Notification("initialized", {}))
            await guest.call("connection/join", {"connection": f"c{connection}"})
            for number in range(8):
                await owner.run(f"p{number}", ["head", "-c", f"{MIB}", "/dev/zero"])
                ids.append(f"{connection}-{number}")
                its = {"connection": f"c{connection}", "processId": f"p{number}", "attachedId": ids[-1]}
                await guest.call("process/attach", its)
                await guest.until_told(ids[-1], "closed")
        await guest.until(partial(is_told_of, connection + 1))
    reads = [await guest.call("process/read", {"processId": id}) for id in ids]
    assert all(read["closed"] for read in reads)
    assert sum(len(base64.b64decode(chunk["chunk"])) for read in reads for chunk in read["chunks"]) < 8 * MIB


async def test_a_rate_is_not_had_anew_by_coming_back(open_server: OpenServer, tmp_path: Path) -> None:
    """Of the server's own rate there is enough for both."""
    config = ServerConfig(written_file_bytes_per_hour=4 * MIB, principal_percent=25)
    server = open_server("unix", config)
    writing = {"path": f"{tmp_path}/file", "dataBase64": b64(bytes(MIB * 3 // 4))}
    async with server.open_channel() as channel, open_peer(channel) as first:
        await first.handshake()
        await first.call("fs/writeFile", writing)
    again = await server.peer()
    _, _, data = await again.refused("fs/writeFile", writing)
    assert data == {"kind": "limit-exceeded", "limit": "written_file_bytes_per_hour", "value": MIB}
